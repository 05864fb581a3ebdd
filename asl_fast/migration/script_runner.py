"""Runs a user's training script or notebook unchanged, with the fast generator for Keras's.

Calls that today's Keras rejects are translated, with one note per line, so that the user can update
the script.
"""

import ast
import contextlib
import linecache
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from asl_fast.migration import notebook, old_names, stand_ins, translations

__all__ = ["run"]


def run(path: Path, arguments: Sequence[str], note: Callable[[str], None]) -> int:
    """Runs a script as `python path arguments…` would, or a notebook's code cells in order.

    Jupyter's magics and shell lines are left out; `get_ipython()`, `IPython` and `google.colab`
    do nothing. The value of a cell's last line is printed.

    Args:
        path: The script or notebook.
        arguments: The rest of `sys.argv`.
        note: Called with one line of text about each translated call and what is left out.

    Returns:
        The script's exit code, or 1 after an exception, which is printed.

    Raises:
        InputError: The file can't be read, or is no notebook of Python.
    """
    source = notebook.read_source(path)
    cells = notebook.read_cells(source, str(path))
    files = {_file_of(cell, path): cell for cell in cells}
    notes = _Notes(files, note)
    try:
        with _as_main(path, arguments) as main, _replacements(notes, source) as names:
            if any(cell.number for cell in cells):
                os.environ.setdefault("MPLBACKEND", "agg")  # plots don't stop it
            vars(main).update(names)
            for file, cell in files.items():
                _execute(cell, file, vars(main), notes)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        traceback.print_exception(error.with_traceback(_trace_in_script(error, files)))
        return 1
    return 0


def _file_of(cell: notebook.Cell, path: Path) -> str:
    file = os.path.abspath(path)
    return file if cell.number is None else f"{file}, cell {cell.number}"


@contextlib.contextmanager
def _as_main(path: Path, arguments: Sequence[str]) -> Iterator[types.ModuleType]:
    """Makes a module `__main__` for the script, with its arguments and folder."""
    main = types.ModuleType("__main__")
    main.__file__ = os.path.abspath(path)
    before = sys.argv, sys.path[:], sys.modules["__main__"]
    sys.argv, sys.path[0] = [str(path), *arguments], str(path.resolve().parent)
    sys.modules["__main__"] = main
    try:
        yield main
    finally:
        sys.argv, sys.path[:], sys.modules["__main__"] = before


@contextlib.contextmanager
def _replacements(notes: "_Notes", source: str) -> Iterator[dict[str, Any]]:
    with (
        translations.applied(notes, source),
        old_names.translated(notes, source),
        stand_ins.installed(notes, source) as names,
    ):
        yield names


def _execute(cell: notebook.Cell, file: str, names: dict[str, Any], notes: "_Notes") -> None:
    for line, text in cell.left_out:
        notes.at(file, line, f"left out: {text if len(text) <= 60 else text[:59] + '…'}")
    if cell.number is not None:  # for tracebacks and `inspect.getsource`
        lines = cell.code.splitlines(keepends=True)
        linecache.cache[file] = len(cell.code), None, lines, file
    tree = ast.parse(cell.code, file)
    last = tree.body[-1] if tree.body and cell.number is not None else None
    if not isinstance(last, ast.Expr) or cell.code.rstrip().endswith(";"):
        exec(compile(tree, file, "exec", dont_inherit=True), names)
        return
    tree.body.pop()
    exec(compile(tree, file, "exec", dont_inherit=True), names)
    value = eval(compile(ast.Expression(last.value), file, "eval", dont_inherit=True), names)
    if value is not None:
        print(repr(value))


def _trace_in_script(error: Exception, files: dict[str, notebook.Cell]) -> Any:
    """Returns a traceback from the script's first frame on; a cell that is no Python has none."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename not in files:
        trace = trace.tb_next
    return trace or (None if isinstance(error, SyntaxError) else error.__traceback__)


class _Notes:
    """Passes on notes about the script's lines, each once."""

    def __init__(self, files: dict[str, notebook.Cell], note: Callable[[str], None]) -> None:
        self._files = files
        self._note = note
        self._noted: set[str] = set()

    def __call__(self, text: str) -> None:
        frame = sys._getframe()
        while frame is not None and frame.f_code.co_filename not in self._files:
            frame = frame.f_back  # type: ignore[assignment]
        if frame is None:
            self._say(text)
        else:
            self.at(frame.f_code.co_filename, frame.f_lineno, text)

    def at(self, file: str, line: int, text: str) -> None:
        """Passes on a note about a line."""
        number = self._files[file].number
        cell = "" if number is None else f"cell {number}, "
        self._say(f"{cell}line {line}: {text}")

    def _say(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self._note(text)

"""Users' sources as cells of Python: a script is one cell, a Jupyter notebook has many.

`nbclient` would run cells in another process, where nothing of Keras can be replaced, and IPython's
own translation of magics calls them; here they are left out and named. So neither is needed.
"""

import ast
import dataclasses
import importlib.util
import json
import re
import warnings
from pathlib import Path
from typing import Any

from asl_fast.system.errors import InputError

__all__ = ["Cell", "parse", "read_cells", "read_source"]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A piece of Python.

    Attributes:
        number: From 1 in a notebook; None for a script.
        code: Python with as many lines as the original, or what the parser rejects.
        left_out: (line, text) of each magic or shell line that `code` no longer has.
        problem: (line, reason) why the parser rejects `code`, or None.
    """

    number: int | None
    code: str
    left_out: tuple[tuple[int, str], ...] = ()
    problem: tuple[int, str] | None = None


def read_source(path: Path) -> str:
    """Returns the text of a script or notebook.

    Raises:
        InputError: It is missing, no regular file (a pipe would be waited for), or not text.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise InputError(f"{path} can't be read: it is {kind}.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None
    try:  # as Python does: in UTF-8, or as a line `# coding: …` says
        return importlib.util.decode_source(content).removeprefix("\ufeff")
    except (SyntaxError, UnicodeDecodeError, LookupError):
        message = f"{path} can't be read: not text in UTF-8, and no coding line names another."
        raise InputError(message) from None


def read_cells(source: str, name: str) -> list[Cell]:
    """Returns the code cells of a source.

    Args:
        source: A Python script, or the JSON text of a Jupyter notebook.
        name: If it ends in .ipynb, the source must be a notebook.

    Raises:
        InputError: The source is not a notebook of Python, or nested too deeply.
    """
    try:
        cells = _notebook_cells(source, name)
        if cells is None:
            return [_plain(source, None)]
        return [_plain(_dedented(code), number) for number, code in enumerate(cells, 1)]
    except (RecursionError, MemoryError):  # the latter from Python's parser
        raise InputError(f"{name} can't be read: it is nested too deeply.") from None


def parse(code: str, file: str = "<unknown>") -> ast.Module:
    """Returns the syntax tree, without Python's warnings about the code."""
    with warnings.catch_warnings(action="ignore"):
        return ast.parse(code, file)


def _notebook_cells(source: str, name: str) -> list[str] | None:
    """Returns the code cells as they are, or None if the source is a script."""
    is_notebook = name.endswith(".ipynb")
    if not is_notebook and not source.lstrip().startswith("{"):
        return None
    try:
        notebook = json.loads(source)
        language = _language(notebook.get("metadata", {}))
        # Before 2015 cells lay in worksheets, their text under "input".
        cells = notebook["cells"] if "cells" in notebook else notebook["worksheets"][0]["cells"]
        texts = [c.get("source", c.get("input")) for c in cells if c["cell_type"] == "code"]
        codes = ["".join(text) for text in texts]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        if not is_notebook:
            return None
        line = getattr(error, "lineno", 1)
        raise InputError(f"{name}, line {line}: not a Jupyter notebook ({error}).") from None
    if not language.lower().startswith(("python", "ipython")):
        raise InputError(f"{name} is written in {language}, not in Python.")
    return codes


def _language(metadata: Any) -> str:
    given = metadata.get("kernelspec", {}).get("language")
    return str(given or metadata.get("language_info", {}).get("name") or "python")


def _dedented(code: str) -> str:
    """Removes the first line's indentation from all lines, as IPython does."""
    indent = re.match(r"(?:[ \t]*\n)*([ \t]*)", code)
    return re.sub(rf"(?m)^{indent[1]}", "", code) if indent and indent[1] else code


_RUN_WHOLE = ("capture", "prun", "time", "timeit")  # `%%time`: the cell below is run
_STATEMENT = re.compile(r"([ \t]*)%time[ \t]+(\w.*)")
_LEFT_OUT = re.compile(
    r"([ \t]*)(?:%%?[A-Za-z]|!|\?|[\w.]+\?{1,2}[ \t]*$|(?:pip3?|conda)[ \t]+[\w-])"
)
_ASSIGNED = re.compile(r"([ \t]*\w[\w, \t]*=[ \t]*)(?:!|%[A-Za-z])")


def _plain(code: str, number: int | None) -> Cell:
    """Leaves out Jupyter's own syntax, wherever Python's parser stops at it."""
    lines = code.split("\n")
    left_out: list[tuple[int, str]] = []
    language = re.match(r"\s*%%(\w+)", code)
    if language and language[1] not in _RUN_WHOLE:
        left_out.append((1, code.strip().split("\n")[0]))
        return Cell(number, "\n" * code.count("\n"), tuple(left_out))
    # Each line that is left out costs one more parse.
    for _ in range(1 + min(len(lines), 10**8 // (len(code) + 1))):
        try:
            parse("\n".join(lines))
            break
        except (SyntaxError, ValueError) as error:  # the latter for NUL characters
            problem = (getattr(error, "lineno", None) or 1, str(getattr(error, "msg", error)))
            if not _leave_out(lines, problem[0] - 1, left_out):
                return Cell(number, code, tuple(left_out), problem)
    else:
        return Cell(number, code, tuple(left_out), problem)
    return Cell(number, "\n".join(lines), tuple(left_out))


def _leave_out(lines: list[str], place: int, left_out: list[tuple[int, str]]) -> bool:
    """Replaces a line of Jupyter's, with its continuation; returns False for any other line."""
    line = lines[place] if place < len(lines) else ""
    if match := _STATEMENT.match(line):
        lines[place] = match[1] + match[2]
        return True
    if match := _LEFT_OUT.match(line):
        lines[place] = match[1] + "pass"
    elif match := _ASSIGNED.match(line):
        lines[place] = match[1] + "[]"
    else:
        return False
    left_out.append((place + 1, line.strip()))
    while line.endswith("\\") and place + 1 < len(lines):
        place += 1
        line, lines[place] = lines[place], ""
    return True

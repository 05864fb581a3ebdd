"""Writes `asl_fast/docs/api.md` from the docstrings of the public names; `--check` compares."""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import asl_fast

PAGE = Path(asl_fast.__file__).parent / "docs" / "api.md"
_HEAD = """# Reference

Every public name of `asl_fast`. Made from the docstrings by `scripts/api_reference.py`.
"""


def reference() -> str:
    """Returns the page, in Markdown."""
    names = sorted((name for name in asl_fast.__all__ if name[0] != "_"), key=str.lower)
    links = " · ".join(f"[{name}](#{name.lower()})" for name in names)
    return "\n".join([_HEAD, links, *(_entry(name, getattr(asl_fast, name)) for name in names)])


def _entry(name: str, value: Any, level: int = 2) -> str:
    lines = [f"\n{'#' * level} {name}\n"]
    if not callable(value):
        return "\n".join([*lines, f"`{type(value).__name__}`: {', '.join(map(str, value))}\n"])
    # No signature is shown that the constructor did not write: exceptions take what any takes.
    if inspect.isfunction(value) or "__init__" in vars(value):
        lines.append(f"```text\n{_signature(name, value)}\n```\n")
    lines.append(_sections(inspect.getdoc(value) or ""))
    if inspect.isclass(value) and not issubclass(value, Exception):
        for method, function in sorted(vars(value).items()):
            target = getattr(function, "__func__", function)
            if method[0] != "_" and inspect.isfunction(target) and target.__doc__:
                lines.append(_entry(f"{name}.{method}", target, level + 1))
    return "\n".join(lines)


def _signature(name: str, value: Any) -> str:
    text = f"{name}{inspect.signature(value)}".replace("(self, ", "(").replace("(self)", "()")
    text = re.sub(
        r"\b(?:[A-Za-z_]\w*\.)+([A-Za-z_]\w*)", r"\1", text
    )  # types without their modules
    if len(text) <= 88:
        return text
    # One argument a line, split at commas outside of brackets.
    head, _, rest = text.partition("(")
    body, _, tail = rest.rpartition(")")
    arguments = re.split(r", (?![^\[(]*[\])])", body)
    return f"{head}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){tail}"


def _sections(doc: str) -> str:
    """Turns the sections of a docstring into headings and lists."""
    lines, section = [], ""
    for line in doc.splitlines():
        heading = re.fullmatch(r"(Args|Returns|Raises|Attributes|Yields):", line)
        if heading:
            section = heading[1]
            lines += [f"**{section}**", ""]
        elif section and (item := re.match(r"    (\**\w+): (.*)", line)) and section != "Returns":
            lines.append(f"- `{item[1]}`: {item[2]}")
        elif section:
            lines.append(line[2:] if section != "Returns" else line[4:])
        else:
            lines.append(line)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    if sys.argv[1:] != ["--check"]:
        PAGE.write_text(reference())
    elif not PAGE.exists() or PAGE.read_text() != reference():
        sys.exit(f"{PAGE} is not what the docstrings say. Run: python scripts/api_reference.py")

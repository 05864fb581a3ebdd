"""`asl-fast check`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from asl_fast.commands import console, options

__all__ = ["check"]


def check(
    script: Annotated[Path, typer.Argument(help="A Python script or a notebook.")],
    as_json: options.Json = False,
) -> None:
    """Report what in a Keras script fails, is slow or silently wrong.

    The script is read, not run. The exit code is 1 if there are findings.
    """
    from asl_fast.migration import lint, notebook

    source = notebook.read_source(script)
    findings = lint.check(source, str(script))
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            cell = "" if finding.cell is None else f"cell {finding.cell}, "
            print(f"{cell}line {finding.line}, {finding.kind}: {finding.message}")
    if findings:
        raise typer.Exit(1)
    console.say(f"{script}: no findings.", to=console.notes)

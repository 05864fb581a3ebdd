"""Results as JSON files: written, read, checked."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from asl_fast.system.errors import InputError
from asl_fast.system.storage import replacing
from benchmarks.cell import UNITS, Cell

__all__ = ["cells", "read", "write"]


def write(measured: dict[str, Any], path: Path) -> None:
    """Writes results, whose cells are `Cell`s, as JSON."""
    plain = measured | {
        "cells": [
            {
                **dataclasses.asdict(cell),
                "samples": {
                    name: [float(f"{value:.5g}") for value in values]
                    for name, values in cell.samples.items()
                },
            }
            for cell in measured["cells"]
        ]
    }
    with replacing(path) as aside:
        aside.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> dict[str, Any]:
    """Reads what `write` wrote.

    Raises:
        InputError: The file is missing, or is no results file of version 1.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None
    except ValueError:
        raise InputError(f"{path} is not JSON.") from None
    try:
        loaded = [Cell(**{**cell, "load": tuple(cell["load"])}) for cell in content["cells"]]
        valid = content["version"] == 1 and all(cell.unit in UNITS for cell in loaded)
    except (KeyError, TypeError):
        valid = False
    if not valid:
        raise InputError(f"{path} does not hold results of `asl-fast bench`, version 1.")
    return content | {"cells": loaded}


def cells(measured: dict[str, Any], group: str) -> list[Cell]:
    """Returns the cells of a group."""
    return [cell for cell in measured["cells"] if cell.group == group]

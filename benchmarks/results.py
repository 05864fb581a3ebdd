"""Results as files: read, written, checked."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from asl_fast.system.errors import InputError
from asl_fast.system.storage import replacing
from benchmarks.cell import UNITS, Cell

__all__ = ["cells", "read", "write"]


def write(found: dict[str, Any], path: Path) -> None:
    """Writes results, whose cells may be `Cell`s, as JSON."""
    plain = found | {
        "cells": [
            {
                **dataclasses.asdict(cell),
                "samples": {
                    name: [float(f"{value:.5g}") for value in values]
                    for name, values in cell.samples.items()
                },
            }
            for cell in found["cells"]
        ]
    }
    with replacing(path) as aside:
        aside.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> dict[str, Any]:
    """Reads what `write` wrote.

    Raises:
        InputError: There is no such file, or it holds something else.
    """
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None
    except ValueError:
        raise InputError(f"{path} is not JSON.") from None
    try:
        made = [Cell(**{**cell, "load": tuple(cell["load"])}) for cell in found["cells"]]
        known = found["version"] == 1 and all(cell.unit in UNITS for cell in made)
    except (KeyError, TypeError):
        known = False
    if not known:
        raise InputError(f"{path} does not hold results of `asl-fast bench`, version 1.")
    return found | {"cells": made}


def cells(found: dict[str, Any], group: str) -> list[Cell]:
    """Returns the cells of a group."""
    return [cell for cell in found["cells"] if cell.group == group]

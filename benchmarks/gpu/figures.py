"""Measures one section of the report in its own process; appends each figure to a file at once.

Imports neither TensorFlow nor PyTorch, so that both kinds of sections can use it.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["FILE", "Items", "Request", "append", "main", "read", "spread"]

FILE = "figures.jsonl"

# By name what a section measures; each item returns figures, ready for JSON.
Items = dict[str, Callable[[], dict[str, Any]]]


class Request(NamedTuple):
    """The command line of a section's process.

    Attributes:
        out: The report's folder.
        begun: `time.monotonic()` when the process was started.
        seconds: Time after which it is stopped.
        data: Folder with the real data, or None.
        small: Whether to measure little of everything.
    """

    out: Path
    begun: float
    seconds: float
    data: Path | None
    small: bool

    def elapsed(self) -> float:
        """Returns the seconds since the process was started."""
        return time.monotonic() - self.begun


def append(out: Path, row: Mapping[str, Any]) -> None:
    """Appends a row to the report's file."""
    with (out / FILE).open("a") as file:
        file.write(json.dumps(row, default=str) + "\n")


def read(out: Path) -> list[dict[str, Any]]:
    """Returns all rows so far, without a last one that was cut off."""
    path = out / FILE
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def spread(samples: Sequence[float], name: str = "ms") -> dict[str, Any]:
    """Returns the median of samples by a name, with the least, the most and their number."""
    return {
        name: statistics.median(samples),
        "least": min(samples),
        "most": max(samples),
        "n": len(samples),
    }


def main(sections: Mapping[str, Callable[[Request], Items]]) -> None:
    """Measures the items of the section that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("section", choices=sections)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--begun", type=float, default=time.monotonic())
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--small", action="store_true")
    options = vars(parser.parse_args())
    name = options.pop("section")
    request = Request(**options)
    items = sections[name](request)
    # Items that are planned and measured nowhere were not reached.
    append(request.out, {"section": name, "planned": list(items)})
    longest = 0.0
    for item, measure in items.items():
        begin = request.elapsed()
        if begin + longest > request.seconds:
            break  # one as long as the longest so far would be stopped half way
        try:
            measured = measure()
        except Exception as error:
            measured = {"failed": f"{type(error).__name__}: {error}"[:600]}
        end = request.elapsed()
        longest = max(longest, end - begin)
        append(request.out, {"section": name, "item": item, **measured, "at_s": round(end, 1)})

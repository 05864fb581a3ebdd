"""Seconds to the course's best accuracy: its baseline and `asl-fast train`, as a user runs them."""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from asl_fast.models.recipe import RECIPES
from benchmarks.cell import Say

__all__ = ["TARGET", "measure", "reached"]

TARGET = 0.9962  # the best validation accuracy that the course publishes
_ROOT = Path(__file__).parents[2]


def measure(
    data: Path, recipes: list[str], *, epochs: int, seed: int, say: Say
) -> list[dict[str, Any]]:
    """Trains the baseline and each recipe once.

    Args:
        data: Folder with the two CSV files.
        recipes: Names of this package's recipes.
        epochs: Int, at most; a recipe may have fewer.
        seed: Int.
        say: Shows the progress.

    Returns:
        For each run `who`, `seed`, `val_accuracy` by epoch, `images_per_second`, `train_seconds`.
    """
    runs = []
    for who in ["course baseline", *recipes]:
        say(f"{who}, {epochs} epochs")
        train = _baseline if who == "course baseline" else _ours
        runs.append({"who": who, "seed": seed, **train(data, who, epochs, seed)})
    return runs


def _baseline(data: Path, who: str, epochs: int, seed: int) -> dict[str, Any]:
    script = _ROOT / "scripts" / "course_baseline.py"
    output = json.loads(_run([script, "--data", data, "--epochs", epochs, "--seed", seed])[-1])
    return {name: output[name] for name in ("val_accuracy", "images_per_second", "train_seconds")}


def _ours(data: Path, who: str, epochs: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as out:
        epochs = min(epochs, RECIPES[who].epochs)
        options = ["--data", data, "--recipe", who, "--epochs", epochs, "--seed", seed]
        _run(["-m", "asl_fast", "train", *options, "--out", out])
        metrics = json.loads((Path(out) / "metrics.json").read_text())
        with (Path(out) / "history.csv").open() as file:
            history = [float(row["val_accuracy"]) for row in csv.DictReader(file)]
    return {
        "val_accuracy": history,
        "images_per_second": metrics["images_per_second"],
        "train_seconds": metrics["train_seconds"],
    }


def _run(arguments: list[Any]) -> list[str]:
    command = [sys.executable, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{ended.stderr[-2000:]}")
    return ended.stdout.splitlines()


def reached(run: dict[str, Any]) -> tuple[int, float] | None:
    """Returns the epochs and about the seconds to the target, or None if it was not reached."""
    for epoch, accuracy in enumerate(run["val_accuracy"], 1):
        if accuracy >= TARGET:
            return epoch, run["train_seconds"] * epoch / len(run["val_accuracy"])
    return None

"""Where the seconds of `asl-fast train` go, from the prompt to the saved model.

    python -m benchmarks.waterfall --data FOLDER [--runs 5] [--out FOLDER]

Each run is a process of its own, in turn without and with programs that XLA compiled before. Writes
`waterfall.json`, `waterfall.md` and `waterfall.png`.
"""

import argparse
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

__all__ = ["measure", "plot", "table"]

# Functions whose time counts as a stage; time within a nested one counts there alone.
STAGES = {
    "import TensorFlow": [],
    "read the data": ["asl_fast.commands.console:load_data"],
    "build the models": ["asl_fast.training.run:_Run.__init__"],
    "choose the precision": ["asl_fast.training.precision:choose"],
    "trace the step": ["asl_fast.training.loop:TrainingLoop._steps_of_call"],
    "compile, first call": [],
    "training steps": ["asl_fast.training.loop:TrainingLoop._run"],
    "validation": ["keras:Model.evaluate"],
    "files and pictures": [
        "asl_fast.training.run:save_model",
        "asl_fast.training.run:_Run.write",
    ],
    "the rest": [],
}


class _Recorder:
    """Adds up seconds by stage, in this process."""

    def __init__(self, begin: float) -> None:
        self.seconds = dict.fromkeys(["start Python", *STAGES], 0.0)
        self._last, self._open = begin, ["start Python"]

    def _turn(self) -> None:
        now = time.time()
        self.seconds[self._open[-1]] += now - self._last
        self._last = now

    def enter(self, stage: str) -> None:
        self._turn()
        self._open.append(stage)

    def leave(self) -> None:
        self._turn()
        self._open.pop()

    def wrap(self, stage: str, place: str) -> None:
        module, _, path = place.partition(":")
        *owners, name = path.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        function, calls = getattr(owner, name), []

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            first = stage == "training steps" and not calls
            calls.append(1)
            self.enter("compile, first call" if first else stage)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        setattr(owner, name, timed)


def _record(out: Path, words: list[str], begin: float) -> None:
    """Runs `asl-fast train` in this process and writes the seconds of its stages."""
    recorder = _Recorder(begin)
    recorder.enter("the rest")
    from asl_fast.commands import cli, console

    recorder.enter("import TensorFlow")
    console.load_tensorflow()
    recorder.leave()
    for stage, places in STAGES.items():
        for place in places:
            recorder.wrap(stage, place)
    sys.argv = ["asl-fast", "train", *words]
    try:
        cli.main()
    finally:
        recorder.leave()
        out.write_text(json.dumps(recorder.seconds))


def _run(words: list[str], cache: Path, package: Path) -> dict[str, float]:
    """Returns the seconds of one run's stages, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seconds.json"
        command = [sys.executable, __file__, "--record", str(out), str(time.time()), *words]
        subprocess.run(
            [*command, "--out", f"{folder}/run"],
            env=os.environ | {"ASL_FAST_CACHE": str(cache), "PYTHONPATH": str(package)},
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        seconds = json.loads(out.read_text())
        # From the prompt to the prompt: what the interpreter takes to end counts too.
        seconds["the rest"] += time.time() - float(command[4]) - sum(seconds.values())
        return seconds


def measure(data: Path, runs: int, package: Path) -> dict[str, list[dict[str, float]]]:
    """Returns the stages of `runs` runs each, with an empty cache and with a filled one."""
    measured: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for number in range(runs):
        with tempfile.TemporaryDirectory() as cache:
            for name, of_name in measured.items():
                of_name.append(_run(["--data", str(data)], Path(cache), package))
                total = sum(of_name[-1].values())
                print(f"{number + 1} of {runs}, {name}: {total:.1f} s", file=sys.stderr)
    return measured


def table(measured: dict[str, list[dict[str, float]]]) -> str:
    """Returns medians by stage and of the whole, as a Markdown table."""
    lines = [f"| seconds | {' | '.join(measured)} |", "| --- |" + " --- |" * len(measured)]
    stages = next(iter(measured.values()))[0]
    for stage in stages:
        medians = [float(np.median([run[stage] for run in runs])) for runs in measured.values()]
        lines.append(f"| {stage} | " + " | ".join(f"{median:.2f}" for median in medians) + " |")
    totals = [[sum(run.values()) for run in runs] for runs in measured.values()]
    spread = [f"{np.median(t):.1f} ({min(t):.1f} to {max(t):.1f})" for t in totals]
    return "\n".join([*lines, f"| **in all** | {' | '.join(spread)} |"]) + "\n"


def plot(measured: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draws the stages one after the other."""
    figure, axes = plt.subplots(figsize=(9, 1.4 + 0.6 * len(measured)), layout="constrained")
    colors = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for row, (name, runs) in enumerate(measured.items()):
        left = 0.0
        for number, stage in enumerate(runs[0]):
            width = float(np.median([run[stage] for run in runs]))
            label = stage if row == 0 else None
            axes.barh(name, width, left=left, color=colors[number], label=label)
            left += width
        axes.text(left, row, f" {left:.1f} s", va="center")
    axes.invert_yaxis()
    axes.set_xlabel("seconds from the prompt, median of each stage")
    axes.margins(x=0.1)
    figure.legend(loc="outside upper center", ncols=6, fontsize="small")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Measures, or records one run for the measurement."""
    if sys.argv[1:2] == ["--record"]:
        _, _, out, begin, *words = sys.argv
        _record(Path(out), words, float(begin))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench"))
    here = Path(__file__).parent.parent
    parser.add_argument("--package", type=Path, default=here, help="another checkout to measure")
    options = parser.parse_args()
    measured = measure(options.data.resolve(), options.runs, options.package.resolve())
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "waterfall.json").write_text(json.dumps(measured) + "\n")
    (options.out / "waterfall.md").write_text(table(measured))
    plot(measured, options.out / "waterfall.png")
    print(table(measured))


if __name__ == "__main__":
    main()

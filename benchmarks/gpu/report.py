"""Measures what asl_fast does on this machine, within a budget of time, and writes a report.

    scripts/gpu_report [--budget SECONDS] [--data FOLDER] [--out FOLDER] [--small]

Sections run in order of worth, each in its own process with a time limit. Every figure is appended
to figures.jsonl as soon as it exists; gpu_report.md is rewritten after each section. So a section
that crashes, hangs or is cut off loses nothing but what it was measuring. Without a GPU the report
leaves out what needs one.
"""

import argparse
import datetime
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu import figures

__all__ = ["SECTIONS", "Section", "main", "markdown", "run"]

_ROOT = Path(__file__).parents[2]


class Section(NamedTuple):
    """A part of the report.

    Attributes:
        name: Of a function in `module`.
        title: For the report.
        seconds: Limit within a budget of 900; a larger budget raises it in proportion.
        least: Seconds that its first figure needs on a GPU; with fewer remaining it is left out.
        needs: What must be there besides: "", "gpu" or "torch".
        module: The program that measures it.
    """

    name: str
    title: str
    seconds: float
    least: float = 30
    needs: str = ""
    module: str = "benchmarks.gpu.sections"


# On an H200 importing TensorFlow took 13 s at first, and each new program of the step 37 s.
SECTIONS = (
    Section("machine", "The machine", 60, 10),
    Section("step", "The training step", 200, 55),
    Section("peer", "The same step in PyTorch", 80, 40, "torch", "benchmarks.gpu.peer"),
    Section("keras_fit", "Keras's own fit, batches of 32", 130, 40),
    Section("recipes", "From the prompt to the saved model", 320, 80),
    Section("layer", "The augmentation layer alone", 45),
    Section("pixels", "Pixels against Keras's generator", 45),
    Section("repeats", "Two runs with the same seed", 150, 60),
    Section("memory", "GPU memory after training", 60, 40, "gpu"),
    Section("profile", "Kernels of the training step", 80, 50, "gpu"),
    Section("more_steps", "The training step, further configurations", 500, 55),
)


def run(
    out: Path, budget: float, arguments: Sequence[str], sections: Sequence[Section] = SECTIONS
) -> None:
    """Runs the sections that fit into the budget.

    Args:
        out: Folder of the report.
        budget: Seconds for all sections together.
        arguments: For each section's program.
        sections: In order of worth.
    """
    end = time.monotonic() + budget
    device = _device()
    with tempfile.TemporaryDirectory() as compiled:
        for section in sections:
            remaining = end - time.monotonic()
            limit = min(remaining, section.seconds * max(1, budget / 900))
            left_out = _missing(section, device)
            if not left_out and remaining < section.least:
                left_out = f"{remaining:.0f} s of the budget remained, it needs {section.least:g}"
            if not left_out:
                print(f"{section.title} (up to {limit:.0f} s)", flush=True)
                left_out = _measure(section, out, limit, arguments, compiled if device else None)
            if left_out:
                figures.append(out, {"section": section.name, "left_out": left_out})
            (out / "gpu_report.md").write_text(markdown(figures.read(out), sections))


def _device() -> str:
    """Returns the GPU in the words of its driver, or "" where there is none."""
    query = "name,driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return ended.stdout.strip() if ended.returncode == 0 else ""


def _missing(section: Section, device: str) -> str:
    """Returns why a section can't be measured here, or ""."""
    if section.needs and not device:
        return "there is no GPU"
    if section.needs == "torch":
        check = "import torch, sys; sys.exit(not torch.cuda.is_available())"
        if subprocess.run([sys.executable, "-c", check], capture_output=True).returncode:
            return "PyTorch with CUDA is not installed"
    return ""


def _measure(
    section: Section, out: Path, limit: float, arguments: Sequence[str], compiled: str | None
) -> str:
    """Runs a section's program; returns why it ended early, or ""."""
    command = [sys.executable, "-m", section.module, section.name, "--out", str(out.resolve())]
    command += ["--begun", str(time.monotonic()), "--seconds", str(limit), *arguments]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    if compiled and section.name != "recipes":  # which measures compilation itself
        cached = f"--tf_xla_persistent_cache_directory={compiled}"
        environment["TF_XLA_FLAGS"] = f"{environment.get('TF_XLA_FLAGS', '')} {cached}"
    log = out / f"{section.name}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=_ROOT, env=environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            return f"stopped after its {limit:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
                process.wait()
    if process.returncode:
        last = (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
        return f"ended with exit code {process.returncode}: {last[-300:]}"
    return ""


def markdown(rows: Sequence[dict[str, Any]], sections: Sequence[Section] = SECTIONS) -> str:
    """Returns the figures as tables, and a list of what was left out and why."""
    lines = [
        "# What asl_fast does on this machine",
        "",
        f"{datetime.date.today()}, {platform.platform()}; {_device() or 'there is no GPU'}.",
        "Medians; `n` is the number of samples, least and most are theirs.",
        "",
    ]
    left_out = []
    for section in sections:
        mine = [row for row in rows if row["section"] == section.name]
        measured = [row for row in mine if "item" in row and "failed" not in row]
        if measured:
            lines += [f"## {section.title}", ""]
            for columns, alike in groupby(measured, _scalars):
                lines += _table(columns, list(alike))
        left_out += [f"- {section.title}{why}" for why in _left_out(mine)]
    return "\n".join([*lines, "## Left out", "", *(left_out or ["Nothing."]), ""])


def _scalars(row: dict[str, Any]) -> list[str]:
    hidden = ("section", "item", "at_s")
    return [name for name, value in row.items() if _is_scalar(value) and name not in hidden]


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _table(columns: list[str], rows: list[dict[str, Any]]) -> Iterator[str]:
    if len(rows) == 1 and any(isinstance(rows[0][column], str) for column in columns):
        for column in columns:
            yield f"- {rows[0]['item']}, {column.replace('_', ' ')}: {_written(rows[0][column])}"
    else:
        yield "| | " + " | ".join(column.replace("_", " ") for column in columns) + " |"
        yield "| --- |" + " --- |" * len(columns)
        for row in rows:
            cells = (_written(row[column]) for column in columns)
            yield f"| {row['item']} | " + " | ".join(cells) + " |"
    for row in rows:
        for name, ms, launches in row.get("kernels", []):
            yield f"- {row['item']}: {ms:.3g} ms, {launches:g} launches a step: `{name}`"
    yield ""


def _written(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{float(f'{value:.4g}'):,g}"
    return f"{value:,}" if type(value) is int else str(value)


def _left_out(rows: list[dict[str, Any]]) -> Iterator[str]:
    planned = [name for row in rows for name in row.get("planned", [])]
    reached = {row["item"] for row in rows if "item" in row}
    yield from (f": {row['left_out']}" for row in rows if "left_out" in row)
    yield from (f", {row['item']}: {row['failed']}" for row in rows if "failed" in row)
    missing = [name for name in planned if name not in reached]
    if missing:
        yield f": no time for {'; '.join(missing)}"


def main() -> None:
    """Measures and writes the report."""
    parser = argparse.ArgumentParser(prog="gpu_report", description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=900, help="seconds for it all")
    parser.add_argument("--data", type=Path, help="folder with the data; default: as `asl-fast`")
    parser.add_argument("--out", type=Path, default=Path("gpu_report"), help="folder to write to")
    parser.add_argument("--small", action="store_true", help="little of everything, as a trial")
    given = parser.parse_args()
    if given.budget <= 0:
        parser.error(f"--budget must be a number of seconds above 0, not {given.budget:g}")
    if given.data and not given.data.is_dir():
        parser.error(f"there is no folder {given.data}")
    if (given.out / figures.FILE).exists():
        parser.error(f"{given.out} holds an earlier report; name another folder with --out")
    given.out.mkdir(parents=True, exist_ok=True)
    arguments = ["--data", str(given.data.resolve())] if given.data else []
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run(given.out, given.budget, [*arguments, *(["--small"] if given.small else [])])
    except KeyboardInterrupt:
        print("Stopped. The report holds what was measured before.", file=sys.stderr)
    report = given.out / "gpu_report.md"
    report.write_text(markdown(figures.read(given.out)))
    print(report.read_text())
    print(f"Wrote {report} and {given.out / figures.FILE}")


if __name__ == "__main__":
    main()

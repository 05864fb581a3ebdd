"""Several runs side by side, as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from asl_fast.inference import figures
from asl_fast.system import storage
from asl_fast.training.run_report import date_of, read_history, read_metrics, shown, template, uri

__all__ = ["write"]

# Recorded results, and those that belong to one run alone.
_RESULTS = {"val_accuracy", "best_val_accuracy", "train_seconds", "images_per_second", "finished"}
_LEFT_OUT = _RESULTS | {"calibration", "epochs", "dataset.classes"}


def write(runs: Sequence[Path], out: Path) -> None:
    """Writes what runs have recorded as one HTML page that needs no network, script or other file.

    Args:
        runs: Folders written by `run.train`, at least two.
        out: The HTML file.

    Raises:
        InputError: A folder holds no finished run or has a damaged file, or `out` can't be written.
    """
    metrics = [read_metrics(run) for run in runs]
    histories = [read_history(run / "history.csv") for run in runs]
    names = _names(runs)
    page: dict[str, Any] = {
        "runs": [
            {"name": name, "confusion": _picture(run / "confusion.png")}
            for name, run in zip(names, runs, strict=True)
        ],
        "results": _results(runs, metrics),
        "same_validation": len({m["dataset"]["valid"].get("sha256") for m in metrics}) == 1,
        "charts": {
            quantity: uri(
                figures.comparison_svg(
                    dict(zip(names, [h[f"val_{quantity}"] for h in histories], strict=True)),
                    quantity,
                ),
                "svg+xml",
            )
            for quantity in ("accuracy", "loss")
        },
        "differences": _differences(metrics),
        "version": metadata.version("asl-fast"),
    }
    storage.make_folder(out.parent)
    with storage.replacing(out) as aside:
        aside.write_text(template("run_comparison.html").render(page), encoding="utf-8")


def _names(runs: Sequence[Path]) -> list[str]:
    """Returns the folders' names, or their paths where two have the same."""
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _picture(path: Path) -> str | None:
    return uri(path.read_bytes()) if path.is_file() else None


def _results(
    runs: Sequence[Path], metrics: Sequence[Mapping[str, Any]]
) -> list[tuple[str, list[str]]]:
    calibrations = [m.get("calibration") or {} for m in metrics]
    return [
        ("date", [date_of(run, m) for run, m in zip(runs, metrics, strict=True)]),
        ("validation accuracy", [f"{m['val_accuracy']:.2%}" for m in metrics]),
        ("best epoch", [f"{m['best_val_accuracy']:.2%}" for m in metrics]),
        ("calibration error", [f"{c['error']:.1%}" if c else "–" for c in calibrations]),
        ("epochs", [shown(m["epochs"]) for m in metrics]),
        ("training time", [f"{m['train_seconds']:.1f} s" for m in metrics]),
        ("images per second", [f"{m['images_per_second']:,.0f}" for m in metrics]),
    ]


def _differences(metrics: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    flat = [_flat(m) for m in metrics]
    names = dict.fromkeys(name for values in flat for name in values)
    rows = [(name, [shown(values.get(name, "–")) for values in flat]) for name in names]
    return [
        (name, [value[:12] if name.endswith("sha256") else value for value in values])
        for name, values in rows
        if len(set(values)) > 1
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings by names with dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if path in _LEFT_OUT:
            continue
        flat |= _flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return flat

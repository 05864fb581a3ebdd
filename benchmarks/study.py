"""Which recipe is worth it: trials over seeds, a line of JSON each, and what they come to.

    scripts/study [--data FOLDER] [--out FILE] [--seeds N] [--trial NAME]… [--official] [--list]

Every trial is trained on the train set without the photographs held out, and judged by those; only
with `--official` on the whole of it, judged by the official valid file, for the report. What the
file holds already is not run again. Beside it are written its tables and its pictures.
"""

import argparse
import dataclasses
import datetime
import functools
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import asl_fast
from asl_fast.data import dataset as datasets
from asl_fast.data.pipeline import steps_per_epoch
from asl_fast.models.network import build_cnn
from asl_fast.models.optimizer import build_optimizer
from asl_fast.models.recipe import RECIPES, Recipe
from asl_fast.system.errors import InputError
from asl_fast.training.precision import choose
from benchmarks import study_plots, trials
from benchmarks.cell import interval
from benchmarks.photographs import held_out

__all__ = ["GRID", "Trial", "run", "summary", "train"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One thing to try.

    Attributes:
        recipe: How to train.
        extra: Of `trials.EXTRAS`: what is done besides.
        augment: Whether images are augmented.
        against: Name of the trial that it is compared with, if any.
    """

    recipe: Recipe
    extra: str = ""
    augment: bool = True
    against: str = ""


PLAIN = ", not augmented"

_ABOUT = """Written by `scripts/study`. Accuracies are means over seeds with their 95 % intervals
(Student's t; of two seeds that says next to nothing), "mirrored too" those of probabilities
averaged over an image and its mirror image. An effect is the mean difference from the trial named
beside it, between runs of both by the same seeds and in the same precision, which is float32 where
none is named. Seconds are of runs that had the machine to themselves.
"""

_JUDGES = {"photographs": "photographs held out", "official": "the official valid file"}

# What each trial of the first round changes one thing of.
_BASE = dataclasses.replace(
    RECIPES["fast"],
    optimizer="muon",
    learning_rate=1e-2,
    epochs=2,
    schedule="cosine",
    warm_up=0.2,
    weight_decay=0.004,
    label_smoothing=0.1,
    batch_norm_momentum=0.9,
)
# And each of the second.
_KERNELS = dataclasses.replace(_BASE, optimizer="kernel_muon", learning_rate=2e-2)


def _base(extra: str = "", **changes: Any) -> Trial:
    return Trial(dataclasses.replace(_BASE, **changes), extra, against="base")


def _kernels(extra: str = "", against: str = "kernels", **changes: Any) -> Trial:
    return Trial(dataclasses.replace(_KERNELS, **changes), extra, against=against)


GRID = {
    "base": Trial(_BASE),
    "adamw 3e-3": _base(optimizer="adamw", learning_rate=3e-3),
    "adamw 1e-2": _base(optimizer="adamw", learning_rate=1e-2),
    "nesterov 0.1": _base(optimizer="sgd", learning_rate=0.1, weight_decay=0.0),
    "lion 1e-3": _base(optimizer="lion", learning_rate=1e-3),
    "rmsprop 2e-3": _base(optimizer="rmsprop", learning_rate=2e-3),
    "rate 5e-3": _base(learning_rate=5e-3),
    "rate 2e-2": _base(learning_rate=2e-2),
    "constant rate 3e-3": _base(learning_rate=3e-3, schedule="constant"),
    "no warm-up": _base(warm_up=0.0),
    "warm-up 0.4": _base(warm_up=0.4),
    "batch 64": _base(batch_size=64),
    "batch 256": _base(batch_size=256),
    "no label smoothing": _base(label_smoothing=0.0),
    "label smoothing 0.2": _base(label_smoothing=0.2),
    "no weight decay": _base(weight_decay=0.0),
    "batch-norm momentum 0.99": _base(batch_norm_momentum=0.99),
    "1 epoch": _base(epochs=1),
    "3 epochs": _base(epochs=3),
    "4 epochs": _base(epochs=4),
    f"4 epochs{PLAIN}": Trial(
        dataclasses.replace(_BASE, epochs=4), augment=False, against="4 epochs"
    ),
    "12 epochs": _base(epochs=12),
    "18 epochs": _base(epochs=18),
    "12 epochs, augmentation fading to half": Trial(
        dataclasses.replace(_BASE, epochs=12), "augmentation fading to half", against="12 epochs"
    ),
    **{name: _base(name) for name in trials.EXTRAS if name},
    "kernels": Trial(_KERNELS, against="base"),
    "kernels, rate 1e-2, momentum 0.95": _kernels("momentum 0.95", learning_rate=1e-2),
    "kernels, rate 1e-2, momentum 0.9": _kernels("momentum 0.9", learning_rate=1e-2),
    "kernels, rate 1e-2, momentum 0.95, 5 steps": _kernels(
        "momentum 0.95, 5 steps", learning_rate=1e-2
    ),
    "kernels, momentum 0.95": _kernels("momentum 0.95"),
    "kernels, 2 steps": _kernels("2 steps"),
    "kernels, rate 3e-2": _kernels(learning_rate=3e-2),
    "kernels, batch 64": _kernels(batch_size=64),
    "kernels, warm-up 0.1": _kernels(warm_up=0.1),
    "kernels, label smoothing 0.2": _kernels(label_smoothing=0.2),
    "kernels, weight decay 0.02": _kernels(weight_decay=0.02),
    "kernels, weight decay 0.0005": _kernels(weight_decay=0.0005),
    "kernels, no weight decay": _kernels(weight_decay=0.0),
    "kernels, batch-norm momentum 0.8": _kernels(batch_norm_momentum=0.8),
    "kernels, augmentation fading to half": _kernels("augmentation fading to half"),
    "kernels, average 0.98": _kernels("average 0.98"),
    "kernels, orthogonal": _kernels("orthogonal"),
    "kernels, batch 64, no weight decay": _kernels(batch_size=64, weight_decay=0.0),
    "kernels, batch 64, no weight decay, momentum 0.95": _kernels(
        "momentum 0.95", batch_size=64, weight_decay=0.0
    ),
    "kernels, batch 64, no weight decay, rate 1.4e-2": _kernels(
        batch_size=64, weight_decay=0.0, learning_rate=1.4e-2
    ),
    "kernels, batch 64, no weight decay, rate 1e-2": _kernels(
        batch_size=64, weight_decay=0.0, learning_rate=1e-2
    ),
    "kernels, batch 64, weight decay 0.0005, rate 1.4e-2": _kernels(
        batch_size=64, weight_decay=0.0005, learning_rate=1.4e-2
    ),
    "kernels, batch 64, no weight decay, rate 1.4e-2, orthogonal": _kernels(
        "orthogonal", batch_size=64, weight_decay=0.0, learning_rate=1.4e-2
    ),
    "kernels, no weight decay, rate 1.4e-2": _kernels(weight_decay=0.0, learning_rate=1.4e-2),
    "kernels, batch 64, no weight decay, augmentation fading to half": _kernels(
        "augmentation fading to half", batch_size=64, weight_decay=0.0
    ),
    "kernels, no weight decay, augmentation fading to half": _kernels(
        "augmentation fading to half", weight_decay=0.0
    ),
    "kernels, 3 epochs": _kernels(epochs=3),
    "kernels, 8 epochs": _kernels(epochs=8, weight_decay=0.0005),
    "kernels, 12 epochs": _kernels(epochs=12, weight_decay=0.0005),
    "kernels, 8 epochs, augmentation fading to half": _kernels(
        "augmentation fading to half", "kernels, 8 epochs", epochs=8, weight_decay=0.0005
    ),
    **{name: Trial(recipe) for name, recipe in RECIPES.items()},
    **{
        f"{name}{PLAIN}": Trial(recipe, augment=False, against=name)
        for name, recipe in RECIPES.items()
    },
}


def train(
    trial: Trial,
    data: datasets.Dataset,
    seed: int,
    history: bool = False,
    precision: str = "float32",
) -> dict[str, Any]:
    """Trains a network and judges it.

    Args:
        trial: What to try.
        data: What to train on, and to judge by.
        seed: Int.
        history: Whether to validate after each epoch, and to judge by the train set as well.
        precision: "float32" or "mixed_bfloat16".

    Returns:
        `accuracy`; `mirrored`, that of probabilities averaged over an image and its mirror image;
        `steps`; `seconds` of the training, with its compilation. If asked for, by epoch
        `val_accuracy` and `epoch_seconds`, since the beginning; and `train_accuracy`, on the train
        set as it is stored.
    """
    keras.utils.set_random_seed(seed)
    recipe, extra = trial.recipe, trials.EXTRAS[trial.extra]
    one_hot = np.eye(24, dtype=np.float32)
    images = np.asarray(data.train.images)
    whole = trials.Phase(recipe, images, one_hot[data.train.labels])
    steps = sum(
        phase.recipe.epochs * steps_per_epoch(len(phase.images), phase.recipe.batch_size)
        for phase in extra.phases(None, whole)
    )
    model = build_cnn(dtype=precision, batch_norm_momentum=recipe.batch_norm_momentum)
    compiled: dict[str, Any] = {
        "optimizer": build_optimizer(recipe, steps),
        "loss": keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        "metrics": ["accuracy"],
    }
    model.compile(**compiled)
    extra.prepare(model)
    valid = (data.valid.images, one_hot[data.valid.labels]) if history else None
    standardize = asl_fast.Standardize(rescale=1 / 255, dtype="float32")
    val_accuracy: list[float] = []
    epoch_seconds: list[float] = []
    begin = time.perf_counter()
    clock = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: epoch_seconds.append(time.perf_counter() - begin)
    )
    done = 0
    for phase in extra.phases(model, whole):
        trained = model
        if phase.images.shape[1:] != model.input_shape[1:]:
            trained = keras.Sequential([keras.Input(phase.images.shape[1:]), *model.layers])
            trained.compile(**compiled)
        augment = asl_fast.RandomAugment(
            **dataclasses.asdict(phase.recipe.augment), then=phase.then, seed=seed, dtype="float32"
        )
        told = asl_fast.fit(
            trained,
            phase.images,
            phase.labels,
            batch_size=phase.recipe.batch_size,
            epochs=done + phase.recipe.epochs,
            initial_epoch=done,
            augment=augment if trial.augment else None,
            standardize=standardize,
            shuffle=phase.shuffle,
            seed=seed,
            validation_data=valid,
            validation_batch_size=1024,
            callbacks=[clock],
            verbose=0,
        )
        done += phase.recipe.epochs
        val_accuracy += told.history.get("val_accuracy", [])
    extra.finish(model, whole)
    seconds = time.perf_counter() - begin

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        return model.predict(pixels.astype(np.float32) / 255, batch_size=1024, verbose=0)

    judged = np.asarray(data.valid.images)
    plain, flipped = probabilities(judged), probabilities(judged[:, :, ::-1])
    asl_fast.release_memory()
    result = {
        "accuracy": float((plain.argmax(1) == data.valid.labels).mean()),
        "mirrored": float(((plain + flipped).argmax(1) == data.valid.labels).mean()),
        "seconds": round(seconds, 2),
        "steps": steps,
    }
    if history:
        result |= {
            "val_accuracy": val_accuracy,
            "epoch_seconds": [round(end, 2) for end in epoch_seconds],
            "train_accuracy": float((probabilities(images).argmax(1) == data.train.labels).mean()),
        }
    return result


def key(line: dict[str, Any]) -> str:
    """Returns what tells a run from others."""
    names = ("data", "split", "trial", "recipe", "extra", "augment", "seed")
    told = [line[name] for name in names]
    return json.dumps([*told, line.get("precision", "float32")], sort_keys=True)


def planned(
    name: str, trial: Trial, data: str, split: str, seed: int, precision: str = "float32"
) -> dict[str, Any]:
    """Returns what a run's line begins with."""
    return {
        "data": data,
        "split": split,
        "trial": name,
        "recipe": json.loads(json.dumps(dataclasses.asdict(trial.recipe))),
        "extra": trial.extra,
        "augment": trial.augment,
        "seed": seed,
        "precision": precision,
    }


@functools.cache
def load(folder: Path | None, split: str) -> datasets.Dataset:
    """Loads the data: the official split, or the train set's photographs held out."""
    data = datasets.load(folder)
    if split == "official":
        return data
    images, labels = np.asarray(data.train.images), np.asarray(data.train.labels)
    out = held_out(images, labels)
    return data._replace(
        train=data.train._replace(images=images[~out], labels=labels[~out]),
        valid=data.train._replace(images=images[out], labels=labels[out]),
    )


def run(line: dict[str, Any], trial: Trial, folder: Path | None) -> dict[str, Any]:
    """Does a planned run, in this process, and returns its whole line."""
    tf.get_logger().setLevel("ERROR")
    data = load(folder, line["split"])
    found = train(trial, data, line["seed"], line["split"] == "official", line["precision"])
    return line | found | {"date": datetime.date.today().isoformat()}


def read(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a study; none where there is no file."""
    if not path.exists():
        return []
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        try:
            lines.append(json.loads(text))
        except ValueError:
            raise InputError(f"{path}, line {number}, is not JSON. Delete that line.") from None
    return lines


def summary(lines: list[dict[str, Any]]) -> list[str]:
    """Returns Markdown tables: what each trial came to, and its effect.

    Args:
        lines: Of a study.

    Returns:
        Lines of text.
    """
    written = ["# What the study found", "", _ABOUT]
    for data, split in dict.fromkeys((line["data"], line["split"]) for line in lines):
        mine = [line for line in lines if (line["data"], line["split"]) == (data, split)]
        official = split == "official"
        columns = ["trial", "seeds", "accuracy", "lowest", "effect", "against", "mirrored too"]
        columns += ["on train", "s"] if official else []
        written += [
            f"## {data}, judged by {_JUDGES[split]}",
            "",
            "| " + " | ".join(columns) + " |",
            "| --- " * len(columns) + "|",
        ]
        for trial, precision in dict.fromkeys(map(_what, mine)):
            runs = [line for line in mine if _what(line) == (trial, precision)]
            accuracy = _by_seed(runs)
            against = GRID[trial].against if trial in GRID else ""  # of an earlier version
            base = _by_seed(line for line in mine if _what(line) == (against, precision))
            effect = [accuracy[seed] - base[seed] for seed in accuracy.keys() & base.keys()]
            columns = [
                trial if precision == "float32" else f"{trial} ({precision})",
                str(len(runs)),
                _mean(list(accuracy.values())),
                f"{min(accuracy.values()):.4f}",
                _mean(effect, "+.4f") if effect else "",
                against if effect else "",
                _mean([line["mirrored"] for line in runs]),
            ]
            if official:
                columns += [
                    _mean([line["train_accuracy"] for line in runs]),
                    f"{np.median(quiet):.0f}" if (quiet := seconds(runs)) else "",
                ]
            written.append("| " + " | ".join(columns) + " |")
        written.append("")
    return written


def _what(line: dict[str, Any]) -> tuple[str, str]:
    return line["trial"], line.get("precision", "float32")


def _by_seed(runs: Iterable[dict[str, Any]]) -> dict[int, float]:
    return {line["seed"]: line["accuracy"] for line in runs}


def seconds(runs: list[dict[str, Any]]) -> list[float]:
    """Returns the seconds of the runs that had the machine to themselves."""
    return [line["seconds"] for line in runs if "beside" not in line and line["processes"] == 1]


def _mean(values: list[float], form: str = ".4f") -> str:
    mean, half = interval(values)
    return f"{mean:{form}}" + ("" if np.isnan(half) else f" ± {half:.4f}")


def _run_job(job: tuple[dict[str, Any], Trial, Path | None]) -> dict[str, Any]:
    return run(*job)


def _forks() -> multiprocessing.context.ForkServerContext:
    """Returns where processes come from that have this module imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__spec__.name])
    return context


def _begin_process(threads: int) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def main() -> None:
    """Runs what is asked for, and prints the summary."""
    parser = argparse.ArgumentParser(description="Tries recipes over seeds.")
    parser.add_argument("--data", type=Path, help="folder with the real data")
    parser.add_argument("--out", type=Path, default=Path("study.jsonl"), help="a line a run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trial", action="append", help="name; may be given again")
    parser.add_argument("--official", action="store_true", help="judge by the official valid file")
    parser.add_argument(
        "--precision", choices=("auto", "float32", "mixed_bfloat16"), default="float32"
    )
    parser.add_argument("--processes", type=int, default=1, help="side by side; then no timing")
    parser.add_argument("--beside", help="what else the machine did meanwhile; then no timing")
    parser.add_argument("--list", action="store_true", help="print the trials' names")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(GRID))
        return
    try:
        _study(arguments)
    except InputError as error:
        print(f"study: {error}", file=sys.stderr)
        sys.exit(2)


def _study(arguments: argparse.Namespace) -> None:
    names = arguments.trial or list(GRID)
    if unknown := [name for name in names if name not in GRID]:
        raise InputError(f"There is no trial {unknown[0]!r}. --list prints those that there are.")
    folder = arguments.data and arguments.data.resolve()
    data = datasets.load(folder).name
    split = "official" if arguments.official else "photographs"
    precision = choose(arguments.precision).value
    have = {key(line) for line in read(arguments.out)}
    jobs = [
        (line, GRID[name])
        for seed in range(arguments.seeds)
        for name in names
        if key(line := planned(name, GRID[name], data, split, seed, precision)) not in have
    ]
    console = Console(stderr=True)
    threads = max(1, (os.cpu_count() or 1) // arguments.processes)
    bar = (
        *(TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn()),
        TimeElapsedColumn(),
    )
    with (
        Progress(*bar, console=console) as progress,
        _forks().Pool(
            arguments.processes,
            _begin_process,
            (threads,),
            maxtasksperchild=8,  # Keras never frees the steps that it traced
        ) as pool,
    ):
        task = progress.add_task("runs", total=len(jobs))
        every = [(line, trial, folder) for line, trial in jobs]
        for ended in pool.imap_unordered(_run_job, every):
            line = ended | {"processes": arguments.processes}
            if arguments.beside:
                line["beside"] = arguments.beside
            with arguments.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            progress.advance(task)
            if not console.is_terminal:
                print(f"{line['trial']}, seed {line['seed']}: {line['accuracy']:.4f}", flush=True)
    lines = read(arguments.out)
    text = "\n".join(summary(lines))
    print(text)
    arguments.out.with_suffix(".md").write_text(text)
    official = [line for line in lines if line["split"] == "official"]
    alone = [line for line in official if seconds([line])]
    plots = (("time", study_plots.against_time, alone), ("worth", study_plots.worth, official))
    for name, plot, drawn in plots:
        if drawn:
            plot(drawn, arguments.out.with_name(f"{arguments.out.stem}-{name}.png"))


if __name__ == "__main__":
    main()

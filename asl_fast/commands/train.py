"""`asl-fast train`."""

import contextlib
import dataclasses
import datetime
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from asl_fast.commands import console, options
from asl_fast.models.recipe import DEFAULT, OPTIMIZERS, RECIPES, SCHEDULES, Recipe
from asl_fast.system.errors import InputError

__all__ = ["train"]

# An option changes the recipe's field of the same name, but for --augment, which is a flag.
_CHANGEABLE = {field.name for field in dataclasses.fields(Recipe)} - {"augment"}


def _setting(description: str) -> Any:
    """Returns an option that changes a field of the recipe."""
    return typer.Option(help=description, show_default="the recipe's")


_Epochs = Annotated[int | None, _setting("Passes over the training set.")]
_BatchSize = Annotated[int | None, _setting("Images per training step.")]
_Optimizer = Annotated[str | None, _setting(f"One of {', '.join(OPTIMIZERS)}.")]
_LearningRate = Annotated[float | None, _setting("Highest learning rate.")]
_Schedule = Annotated[str | None, _setting(f"Of the learning rate: {' or '.join(SCHEDULES)}.")]
_WarmUp = Annotated[
    float | None, _setting("Fraction of the steps in which the learning rate rises.")
]
_WeightDecay = Annotated[
    float | None, _setting("Decoupled weight decay; it is multiplied by the learning rate.")
]
_LabelSmoothing = Annotated[float | None, _setting("Label smoothing of the loss.")]
_BatchNormMomentum = Annotated[
    float | None, _setting("Momentum of the averages in batch normalisation.")
]
_Damaged = Annotated[
    Literal["stop", "skip"], typer.Option(help="What to do about damaged records.")
]
_Service = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Let the tf.data service at this address (asl-fast data serve) read the converted "
        "training data.",
    ),
]
_Augment = Annotated[bool, typer.Option(help="Train with or without augmentation.")]
_Precision = Annotated[
    Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"],
    typer.Option(
        help="Data types of the step. auto: mixed precision on GPUs of compute capability 7.0 or "
        "later, mixed_bfloat16 on CPUs where it is measured faster, else float32."
    ),
]
_Jit = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(help="Compile the whole step with XLA. auto: on for GPUs, off for CPUs."),
]
_Resident = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(help="Keep the images on the device. auto: if they fit into half of its memory."),
]
_StepsPerExecution = Annotated[
    int | None,
    typer.Option(help="Training steps per host call.", show_default="what suits the device"),
]
_Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="Give bit-identical results on the same machine, also on a GPU, where it costs "
        "speed: slower gradients of convolutions, and no XLA for the step.",
    ),
]
_Strategy = Annotated[
    Literal["auto", "none", "mirrored", "multiworker"],
    typer.Option(
        help="Devices to train on. mirrored: all GPUs of this machine; multiworker: the machines "
        "that TF_CONFIG names. auto: multiworker if it names several, mirrored if there are "
        "several GPUs, else none."
    ),
]
_Out = Annotated[
    Path | None, typer.Option(help="Folder for the results.", show_default="runs/TIME-RECIPE")
]
_Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Resume the run that was stopped in --out, with its options; without one, start it. "
        "A finished one is left as it is.",
    ),
]
_CheckpointSeconds = Annotated[
    float, typer.Option(help="Seconds of training between two checkpoints within an epoch.")
]


def train(
    context: typer.Context,
    data: options.Data = None,
    train: options.TrainFile = None,
    valid: options.ValidFile = None,
    recipe: options.Recipe = DEFAULT,
    epochs: _Epochs = None,
    batch_size: _BatchSize = None,
    optimizer: _Optimizer = None,
    learning_rate: _LearningRate = None,
    schedule: _Schedule = None,
    warm_up: _WarmUp = None,
    weight_decay: _WeightDecay = None,
    label_smoothing: _LabelSmoothing = None,
    batch_norm_momentum: _BatchNormMomentum = None,
    damaged: _Damaged = "stop",
    service: _Service = None,
    augment: _Augment = True,
    seed: options.Seed = 0,
    precision: _Precision = "auto",
    jit: _Jit = "auto",
    resident: _Resident = "auto",
    steps_per_execution: _StepsPerExecution = None,
    deterministic: _Deterministic = False,
    strategy: _Strategy = "auto",
    out: _Out = None,
    resume: _Resume = False,
    checkpoint_seconds: _CheckpointSeconds = 30.0,
    verbose: options.Verbose = False,
) -> None:
    """Train the network; write model, metrics and plots to a folder."""
    changes = {
        name: value
        for name, value in context.params.items()
        if name in _CHANGEABLE and value is not None
    }
    settings: dict[str, Any] = {
        "recipe": recipe,
        "changes": changes,
        "augment": augment,
        "seed": seed,
        "precision": precision,
        "jit": jit,
        "resident": resident,
        "steps_per_execution": steps_per_execution,
        "deterministic": deterministic,
        "damaged": damaged,
    }
    # Raises for a value out of range before anything is read.
    dataclasses.replace(RECIPES[recipe], **changes)
    if resume and out is None:
        raise InputError("--resume needs --out, the folder of the run to resume.")
    out = out or Path("runs") / f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{recipe}"
    files: dict[str, Any] = {"data": data, "train": train, "valid": valid}
    if resume:
        console.load_tensorflow(verbose)
        from asl_fast.training import run_folder

        files, settings = run_folder.resumed(out, files, settings, given=_given(context))
    dataset = console.load_data(**files, damaged=settings["damaged"], service=service or "")
    console.load_tensorflow(verbose)
    from asl_fast.training import run

    with _resume_hint(out):
        metrics = run.train(
            dataset,
            out,
            **settings,
            strategy=strategy,
            resume=resume,
            checkpoint_seconds=checkpoint_seconds,
            # Keras's progress bar rewrites its line, which only a terminal understands.
            verbose=1 if sys.stdout.isatty() else 2,
        )
    _show(metrics, out)
    console.warn_if_built_in(dataset)


def _given(context: typer.Context) -> set[str]:
    """Returns the names of the options on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}


@contextlib.contextmanager
def _resume_hint(out: Path) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        command = shlex.join(["asl-fast", "train", "--resume", "--out", str(out)])
        console.say(f"Stopped. Resume with: {command}", to=console.notes)
        raise typer.Exit(143 if isinstance(stop, SystemExit) else 130) from None


def _show(metrics: Mapping[str, Any], out: Path) -> None:
    devices = f"{metrics['devices']} × " if metrics["devices"] > 1 else ""
    console.facts(
        [
            ("validation accuracy", f"{metrics['val_accuracy']:.4f}"),
            ("of the best epoch", f"{metrics['best_val_accuracy']:.4f}"),
            ("training", f"{metrics['train_seconds']:.0f} s"),
            ("images/s", f"{metrics['images_per_second']:,.0f}"),
            ("device", f"{devices}{metrics['device']}, {metrics['precision']}"),
            ("results", f"{out}/"),
        ]
    )

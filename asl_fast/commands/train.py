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
_CHANGEABLE = [field.name for field in dataclasses.fields(Recipe) if field.name != "augment"]
# Options that are arguments of the run as they are, and those of its data set.
_SETTINGS = [
    *("network", "frozen", "augment", "seed", "precision", "jit", "resident"),
    *("steps_per_execution", "deterministic", "damaged"),
]
_PLACE = ("train", "valid", "color", "validation_split", "seed")


def _setting(description: str) -> Any:
    """Returns an option that changes a field of the recipe."""
    return typer.Option(
        help=description, show_default="the recipe's", rich_help_panel=options.RECIPE
    )


_Network = Annotated[
    str,
    typer.Option(
        help="course, or a network of keras.applications, such as MobileNetV2 or ResNet50: without "
        "its top, with its own preprocessing and a dense head.",
        rich_help_panel=options.RECIPE,
    ),
]
_Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Weights of such a network without its top, or imagenet for those that Keras "
        "downloads.",
        show_default="random ones",
        rich_help_panel=options.RECIPE,
    ),
]
_Frozen = Annotated[
    bool,
    typer.Option("--frozen", help="Train the dense head alone.", rich_help_panel=options.RECIPE),
]
_Recipe = Annotated[
    Literal[*RECIPES] | None,  # type: ignore[valid-type]  # mypy can't know the names
    typer.Option(
        help="How to augment and train.",
        show_default=f"{DEFAULT} for the course's network; transfer for others, or finetune if all "
        "of their layers have weights to keep",
        rich_help_panel=options.RECIPE,
    ),
]
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
_Calibration = Annotated[
    float | None,
    _setting("Share of the training images held out to calibrate the probabilities on."),
]
_Damaged = Annotated[
    Literal["stop", "skip"],
    typer.Option(help="What to do about damaged records.", rich_help_panel=options.DATA),
]
_Service = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Let the tf.data service at this address (asl-fast data serve) read the converted "
        "training data.",
        rich_help_panel=options.DATA,
    ),
]
_Augment = Annotated[
    bool,
    typer.Option(help="Train with or without augmentation.", rich_help_panel=options.RECIPE),
]
_Precision = Annotated[
    Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"],
    typer.Option(
        help="Data types of the step. auto: mixed precision on GPUs of compute capability 7.0 or "
        "later, mixed_bfloat16 on CPUs where it is measured faster, else float32.",
        rich_help_panel=options.MACHINE,
    ),
]
_Jit = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(
        help="Compile the whole step with XLA. auto: on for GPUs, off for CPUs.",
        rich_help_panel=options.MACHINE,
    ),
]
_Resident = Annotated[
    Literal["auto", "on", "off"],
    typer.Option(
        help="Keep the images on the device. auto: if they fit into half of its memory.",
        rich_help_panel=options.MACHINE,
    ),
]
_StepsPerExecution = Annotated[
    int | None,
    typer.Option(
        help="Training steps per host call.",
        show_default="what suits the device",
        rich_help_panel=options.MACHINE,
    ),
]
_Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        help="Give bit-identical results on the same machine, also on a GPU, where it costs "
        "speed: slower gradients of convolutions, and no XLA for the step.",
        rich_help_panel=options.MACHINE,
    ),
]
_Strategy = Annotated[
    Literal["auto", "none", "mirrored", "multiworker"],
    typer.Option(
        help="Devices to train on. mirrored: all GPUs of this machine; multiworker: the machines "
        "that TF_CONFIG names. auto: multiworker if it names several, mirrored if there are "
        "several GPUs, else none.",
        rich_help_panel=options.MACHINE,
    ),
]
_Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder for the results.",
        show_default="runs/TIME-RECIPE",
        rich_help_panel=options.OUTPUT,
    ),
]
_Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Resume the run that was stopped in --out, with its options; without one, start it. "
        "A finished one is left as it is.",
        rich_help_panel=options.OUTPUT,
    ),
]
_CheckpointSeconds = Annotated[
    float,
    typer.Option(
        help="Seconds of training between two checkpoints within an epoch.",
        rich_help_panel=options.OUTPUT,
    ),
]


def train(
    context: typer.Context,
    data: options.Data = None,
    train: options.TrainFile = None,
    valid: options.ValidFile = None,
    image_size: options.ImageSize = None,
    color: options.Color = None,
    validation_split: options.ValidationSplit = None,
    network: _Network = "course",
    weights: _Weights = None,
    frozen: _Frozen = False,
    recipe: _Recipe = None,
    epochs: _Epochs = None,
    batch_size: _BatchSize = None,
    optimizer: _Optimizer = None,
    learning_rate: _LearningRate = None,
    schedule: _Schedule = None,
    warm_up: _WarmUp = None,
    weight_decay: _WeightDecay = None,
    label_smoothing: _LabelSmoothing = None,
    batch_norm_momentum: _BatchNormMomentum = None,
    calibration: _Calibration = None,
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
    """Train a network; write model, metrics and plots to a folder."""
    given = context.params
    changes = {name: given[name] for name in _CHANGEABLE if given[name] is not None}
    if weights is not None and weights != "imagenet":
        weights = str(Path(weights).resolve())
    recipe = recipe or _suited_recipe(network, weights, frozen, verbose)
    settings: dict[str, Any] = {name: given[name] for name in _SETTINGS}
    settings |= {"weights": weights, "recipe": recipe, "changes": changes}
    # Raises for a value out of range before anything is read.
    dataclasses.replace(RECIPES[recipe], **changes)
    if resume and out is None:
        raise InputError("--resume needs --out, the folder of the run to resume.")
    out = out or Path("runs") / f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{recipe}"
    place: dict[str, Any] = {name: given[name] for name in _PLACE}
    place |= {"folder": data, "image_size": options.parse_size(image_size)}
    if resume:
        console.load_tensorflow(verbose)
        from asl_fast.training import run_folder

        place, settings = run_folder.resumed(out, place, settings, given=_given(context))
    dataset = console.load_data(**place, damaged=settings["damaged"], service=service or "")
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


def _suited_recipe(network: str, weights: str | None, frozen: bool, verbose: bool) -> str:
    """Returns the recipe for a network, which is checked before any data are read."""
    if network == "course" and not weights and not frozen:
        return DEFAULT
    console.load_tensorflow(verbose)
    from asl_fast.models.network import Network
    from asl_fast.training.run_folder import suited_recipe

    return suited_recipe(Network(network, weights, frozen))


def _given(context: typer.Context) -> set[str]:
    """Returns the names of the options on the command line, and `folder` for --data."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    return given | {"folder"} if "data" in given else given


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
    calibrated = metrics.get("calibration")
    confidence = calibrated and (
        f"error {calibrated['error_before']:.3f} before calibration, {calibrated['error']:.3f} "
        f"with the temperature {calibrated['temperature']:.2f}, from {calibrated['images']:,} "
        "training images held out"
    )
    console.facts(
        [
            ("validation accuracy", f"{metrics['val_accuracy']:.4f}"),
            ("of the best epoch", f"{metrics['best_val_accuracy']:.4f}"),
            *([("confidence", confidence)] if confidence else []),
            ("training", f"{metrics['train_seconds']:.0f} s"),
            ("images/s", f"{metrics['images_per_second']:,.0f}"),
            ("device", f"{devices}{metrics['device']}, {metrics['precision']}"),
            ("results", f"{out}/"),
        ]
    )

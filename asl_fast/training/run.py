"""A run: train by a recipe on a data set, and leave the results in a folder."""

import contextlib
import csv
import dataclasses
import json
import logging
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asl_fast.data import dataset as datasets
from asl_fast.data.csv_table import CLASSES
from asl_fast.data.pipeline import steps_per_epoch
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.inference import figures
from asl_fast.inference.evaluation import count, predict
from asl_fast.models.kernel_muon import KernelMuon
from asl_fast.models.network import build_cnn
from asl_fast.models.optimizer import build_optimizer
from asl_fast.models.recipe import DEFAULT, RECIPES, Recipe
from asl_fast.models.saving import save_model
from asl_fast.system import device
from asl_fast.system.errors import InputError
from asl_fast.system.storage import make_folder, replacing
from asl_fast.training import distributed as distribution
from asl_fast.training import precision as precisions
from asl_fast.training.checkpoint import Checkpoints
from asl_fast.training.fit import TrainingClock, fit
from asl_fast.transforms.random_augment import RandomAugment
from asl_fast.transforms.standardize import Standardize

__all__ = ["resumed", "stopped", "train"]

_log = logging.getLogger(__name__)

_VALIDATION_BATCH = 1024
_SETTINGS = "settings.json"
_KINDS: dict[str, Any] = {
    "data": list,
    "recipe": str,
    "changes": dict,
    "augment": bool,
    "seed": int,
    "precision": str,
    "jit": str,
    "resident": str,
    "steps_per_execution": int | None,
    "deterministic": bool,
}
_CHOICES = {
    "recipe": tuple(RECIPES),
    "precision": ("auto", "float32", "mixed_float16", "mixed_bfloat16"),
    "jit": ("auto", "on", "off"),
    "resident": ("auto", "on", "off"),
}
_PACKAGES = ("asl-fast", "keras", "numpy", "pandas", "tensorflow")


class _Logs(keras.callbacks.TensorBoard):
    """TensorBoard's log, which ends where it can't be written; the training goes on."""

    _broken = False

    def _try(self, method: Callable[..., None], *arguments: Any) -> None:
        if self._broken:
            return
        try:
            method(*arguments)
        except tf.errors.OpError as error:
            self._broken = True
            reason = error.message.splitlines()[0].rpartition("; ")[2]
            _log.warning("%s can't be written: %s. Training goes on.", self.log_dir, reason)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._try(super().on_epoch_begin, epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._try(super().on_epoch_end, epoch, logs)

    def on_train_begin(self, logs: Any = None) -> None:
        self._try(super().on_train_begin, logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._try(super().on_train_end, logs)

    def on_test_begin(self, logs: Any = None) -> None:
        self._try(super().on_test_begin, logs)

    def on_test_end(self, logs: Any = None) -> None:
        self._try(super().on_test_end, logs)


def train(
    dataset: datasets.Dataset,
    out: Path,
    *,
    recipe: str = DEFAULT,
    changes: Mapping[str, Any] | None = None,
    augment: bool = True,
    seed: int = 0,
    precision: str = "auto",
    jit: str = "auto",
    resident: str = "auto",
    steps_per_execution: int | None = None,
    deterministic: bool = False,
    strategy: str = "auto",
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
) -> dict[str, Any]:
    """Trains the course's network and writes model, metrics and pictures to a folder.

    Args:
        dataset: What to train on and to validate with.
        out: Folder for the results; made if need be. One that holds a finished run is refused.
        recipe: Name in `RECIPES`.
        changes: Values in place of the recipe's, by the names of its fields.
        augment: Bool. False trains on the images as they are, to see what augmentation is worth.
        seed: Int in [0, 2**32): of the initial weights, dropout, order and augmentation.
        precision: "auto", "float32", "mixed_float16" or "mixed_bfloat16".
        jit: "auto", "on" or "off": whether XLA compiles the whole training step.
        resident: "auto", "on" or "off": whether the images stay on the device.
        steps_per_execution: Int, how many steps to take between two looks of the host, or None.
        deterministic: Bool. True makes TensorFlow choose operations that give the same bits each
            time, for the rest of the process.
        strategy: "auto", "none", "mirrored" or "multiworker": the devices and machines to train
            on; see `distribution.choose`. The recipe's batch is that of all together. With several
            workers each calls this, with the same arguments and one folder that all can read; the
            first one writes to it.
        resume: Whether to go on with a run that was stopped, if the folder holds one. It ends as
            one that was never stopped.
        checkpoint_seconds: Float, at least 0: how long to train before the next checkpoint within
            an epoch.
        callbacks: Keras callbacks, besides TensorBoard's.
        verbose: As for `keras.Model.fit`.

    Returns:
        What `metrics.json` holds.

    Raises:
        InputError: A value out of its range, fewer rows than a batch, a folder that can't be used
            or holds another run, data that can't be resident, or too little memory.
        DivergenceError: The loss is not finite; the model of the last whole epoch is kept.
    """
    begun = stopped(out) if resume else None
    if begun is not None and precision == "auto":
        precision = begun["precision"]  # a measurement might come out otherwise now
    for name, given in zip(_CHOICES, (recipe, precision, jit, resident), strict=True):
        if given not in _CHOICES[name]:
            raise InputError(
                f"The {name} must be one of {', '.join(_CHOICES[name])}. Received: {given!r}."
            )
    unknown = set(changes or {}) - {field.name for field in dataclasses.fields(Recipe)}
    if unknown:
        raise InputError(f"A recipe has no {min(unknown)}.")
    everywhere = distribution.choose(strategy).value  # before TensorFlow is used
    chief = distribution.is_chief(everywhere)
    chosen = dataclasses.replace(RECIPES[recipe], **(changes or {}))
    _check(chosen.batch_size, seed, steps_per_execution, dataset)
    alone = not isinstance(everywhere, tf.distribute.MultiWorkerMirroredStrategy)
    policy = precisions.choose(precision, alone=alone).value
    checkpoints = Checkpoints(
        out / "checkpoints",
        checkpoint_seconds,
        {
            "train file (SHA-256)": dataset.train.sha256,
            "valid file (SHA-256)": dataset.valid.sha256,
            **{name.replace("_", " "): v for name, v in dataclasses.asdict(chosen).items()},
            "augmentation": augment,
            "seed": seed,
            "precision": policy,
        },
    )
    _refuse_finished(out)
    settings = {
        "data": [_place(split.source) for split in (dataset.train, dataset.valid)],
        "recipe": recipe,
        "changes": dict(changes or {}),
        "augment": augment,
        "seed": seed,
        "precision": policy,
        "jit": jit,
        "resident": resident,
        "steps_per_execution": steps_per_execution,
        "deterministic": deterministic,
    }
    with contextlib.ExitStack() as stack:
        if chief:
            make_folder(out)
            stack.enter_context(checkpoints)
            _refuse_finished(out)  # another process may have ended it meanwhile
            if stopped(out) is None:
                _write_json(checkpoints.folder / _SETTINGS, settings)
            elif not resume:
                raise InputError(
                    f"The folder {out} holds a run that was stopped. Go on with it (--resume), or "
                    "choose another folder."
                )
        if deterministic:
            tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(seed)
        steps = chosen.epochs * steps_per_epoch(dataset.train.rows, chosen.batch_size)
        if everywhere is None:
            model = _compiled(chosen, steps, policy, jit)
        else:
            with everywhere.scope():
                model = _compiled(chosen, steps, policy, "off")
        # What is saved: without a strategy, and with an optimiser that Keras knows.
        plain = _compiled(chosen, steps, policy, jit, saved=True)

        unsaved: list[InputError] = []

        def keep(epoch: int, logs: Any) -> None:
            plain.set_weights(model.get_weights())  # which takes all workers
            if chief:
                try:
                    save_model(plain, out / "model.keras", LETTERS)
                    unsaved.clear()
                except InputError as error:
                    unsaved[:] = [error]
                    _log.warning("The model %s Training goes on.", error)

        clock = TrainingClock()
        own = [clock, keras.callbacks.LambdaCallback(on_epoch_end=keep)]
        if chief:
            own.insert(1, _Logs(out / "logs", write_graph=False))
        history = fit(
            model,
            *_data(dataset.train),
            standardize=Standardize(rescale=1 / 255, dtype="float32"),
            augment=RandomAugment(**dataclasses.asdict(chosen.augment), seed=seed, dtype="float32")
            if augment
            else None,
            validation_data=dataset.valid.records or _data(dataset.valid),
            validation_batch_size=_VALIDATION_BATCH,
            batch_size=chosen.batch_size,
            epochs=chosen.epochs,
            seed=seed,
            resident={"auto": None, "on": True, "off": False}[resident],
            steps_per_execution=steps_per_execution,
            callbacks=[*own, *callbacks],
            verbose=verbose,
            checkpoints=checkpoints,
        ).history
        train_seconds = clock.total
        rate = dataset.train.rows / float(np.median(clock.seconds))
        metrics = {
            "val_accuracy": history["val_accuracy"][-1],
            "best_val_accuracy": max(history["val_accuracy"]),
            "train_seconds": round(train_seconds, 2),
            "images_per_second": round(rate, 1),
            "epochs": chosen.epochs,
            "recipe": {"name": recipe, **dataclasses.asdict(chosen)},
            "augment": augment,
            "dataset": dataset.describe(),
            "precision": policy,
            "jit": model.jit_compile,
            "resident": resident,
            "deterministic": deterministic,
            "device": device.describe(),
            "devices": 1 if everywhere is None else everywhere.num_replicas_in_sync,
            "seed": seed,
            "versions": {
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in _PACKAGES},
            },
        }
        if not chief:
            return metrics
        if unsaved:
            save_model(plain, out / "model.keras", LETTERS)
        _write_history(out / "history.csv", history, clock.seconds)
        figures.curves(out / "curves.png", history)
        labels, probabilities = predict(plain, dataset.valid)
        figures.confusion(out / "confusion.png", count(labels, probabilities.argmax(axis=-1)))
        # Last, so that a folder with metrics is a whole run.
        written = _write_json(out / "metrics.json", metrics)
        checkpoints.clear()
        return written


def stopped(out: Path) -> dict[str, Any] | None:
    """Returns the settings of the run that was stopped in a folder, or None if there is none.

    They are the arguments of `train`, and `data`: the train and the valid file, or the built-in
    set's name.

    Raises:
        InputError: They can't be read.
    """
    path = out / "checkpoints" / _SETTINGS
    try:
        settings = json.loads(path.read_text())
        for name, kind in _KINDS.items():
            if not isinstance(settings[name], kind):
                raise ValueError(f"{name} is {settings[name]!r}"[:80])
        if [type(place) for place in settings["data"]] != [str, str]:
            raise ValueError("data are not two places")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} can't be read, or is not as a run writes it ({error}). Choose another folder."
        ) from None
    return settings


def resumed(
    out: Path, data: Mapping[str, Any], settings: Mapping[str, Any], given: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fills in, from the run that was stopped in a folder, the options that were not given again.

    Args:
        out: The folder of the run. Without a stopped run in it, nothing changes.
        data: The arguments of `dataset.load` that name the data.
        settings: Arguments of `train`, with `changes`, to which the run's are added.
        given: The names in `data` and `settings` that were given, and stay.

    Returns:
        `data` and `settings` to resume with.

    Raises:
        InputError: The settings of the stopped run can't be read.
    """
    begun = stopped(out)
    if begun is None:
        return dict(data), dict(settings)
    train_file, valid_file = begun["data"]
    if not set(data) & set(given) and train_file != datasets.BUILT_IN:
        data = dict.fromkeys(data) | {"train": train_file, "valid": valid_file}
    remembered = {name: begun[name] for name in settings if name not in given}
    changes = begun["changes"] | settings["changes"]
    return dict(data), {**settings, **remembered, "changes": changes}


def _refuse_finished(out: Path) -> None:
    if (out / "metrics.json").exists():
        raise InputError(f"The folder {out} holds a finished run already. Choose another one.")


def _place(source: str) -> str:
    return source if source == datasets.BUILT_IN else str(Path(source).resolve())


def _compiled(
    recipe: Recipe, steps: int, policy: str, jit: str, *, saved: bool = False
) -> keras.Model:
    model = build_cnn(dtype=policy, batch_norm_momentum=recipe.batch_norm_momentum)
    optimizer = build_optimizer(recipe, steps)
    if saved and isinstance(optimizer, KernelMuon):
        optimizer = keras.optimizers.Muon.from_config(optimizer.get_config())
    if policy == "mixed_float16":
        # Small gradients would become zero in float16.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
        jit_compile=device.choose_jit(jit, model).value,
    )
    if saved:
        model.optimizer.build(model.trainable_variables)  # Keras loads no file without its state
    return model


def _write_json(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Writes a file and returns what reading it gives."""
    text = json.dumps(content, indent=2) + "\n"
    with replacing(path) as aside:
        aside.write_text(text)
    return json.loads(text)


def _data(split: datasets.Split) -> tuple[Any, Any]:
    """Returns x and y."""
    if split.records is not None:
        return split.records, None
    return split.images, np.eye(CLASSES, dtype=np.float32)[split.labels]


def _check(
    batch_size: int, seed: int, steps_per_execution: int | None, dataset: datasets.Dataset
) -> None:
    if steps_per_execution is not None and steps_per_execution < 1:
        raise InputError(
            f"The steps per execution must be at least 1. Received: {steps_per_execution}."
        )
    if not 0 <= seed < 2**32:
        raise InputError(f"The seed must be in [0, 2**32). Received: {seed}.")
    rows = dataset.train.rows
    if rows < batch_size:
        raise InputError(
            f"{dataset.train.source} has {rows} rows, fewer than a batch of {batch_size}. "
            "Choose a smaller batch size."
        )


def _write_history(
    path: Path, history: Mapping[str, Sequence[float]], seconds: Sequence[float]
) -> None:
    columns = {"epoch": range(1, len(seconds) + 1), **history, "train_seconds": seconds}
    with replacing(path) as aside, aside.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))

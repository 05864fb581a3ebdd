"""A run: trains by a recipe on a data set, and leaves the results in a folder."""

import contextlib
import dataclasses
import datetime
import functools
import logging
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from asl_fast.data import dataset as datasets
from asl_fast.data.pipeline import steps_per_epoch
from asl_fast.inference import calibration, figures
from asl_fast.inference.evaluation import calibration_error, count, predict
from asl_fast.models.pixel_range import pixel_range
from asl_fast.models.recipe import RECIPES, Recipe
from asl_fast.models.saving import save_model
from asl_fast.system import device
from asl_fast.system.errors import InputError
from asl_fast.training import distributed as distribution
from asl_fast.training import precision as precisions
from asl_fast.training.checkpoint import Checkpoints
from asl_fast.training.clock import TrainingClock
from asl_fast.training.compiled_model import compiled_model
from asl_fast.training.event_log import EventLog
from asl_fast.training.fit import fit
from asl_fast.training.run_folder import (
    RunSettings,
    already_finished,
    begun,
    finished,
    opened,
    write_history,
    write_metrics,
)
from asl_fast.transforms.random_augment import RandomAugment
from asl_fast.transforms.standardize import Standardize

__all__ = ["train"]

_log = logging.getLogger(__name__)

_VALIDATION_BATCH = 1024
_FEWEST = 50  # images to calibrate on; the accuracy on fewer says little
_PACKAGES = ("asl-fast", "keras", "numpy", "pandas", "tensorflow")


def train(
    dataset: datasets.Dataset,
    out: Path,
    *,
    strategy: str = "auto",
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Trains a network and writes model, metrics and pictures to a folder.

    A recipe's share of the training images is held out, if they are in memory and enough: the saved
    model's probabilities are calibrated on them, which changes no prediction.

    Args:
        dataset: Training and validation set.
        out: Folder for the results, created if missing. One with a finished run is refused.
        strategy: "auto", "none", "mirrored" or "multiworker", see `distributed.choose`. The devices
            share the recipe's batch. Every worker calls this with the same arguments and a folder
            that all can read; the first one writes to it.
        resume: Bool, whether to continue a run that was stopped, if the folder holds one. It ends
            as one that was never stopped. One that has finished, with the same data and settings,
            is left as it is.
        checkpoint_seconds: Float, at least 0, between two checkpoints within an epoch.
        callbacks: Keras callbacks, besides TensorBoard's.
        verbose: As for `keras.Model.fit`.
        **settings: What and how to train: attributes of `RunSettings`, except `data`.

    Returns:
        The content of `metrics.json`.

    Raises:
        InputError: A value out of its range, fewer rows than a batch, a folder that can't be used
            or holds another run, data that can't be resident, or too little memory.
        DivergenceError: The loss is not finite; the last whole epoch's model is kept.
    """
    before = begun(out) if resume else None
    if before is not None and settings.get("precision", "auto") == "auto":
        settings["precision"] = before["precision"]  # measured again, it might be another
    chosen = RunSettings(dataset.place, **settings)
    recipe = _changed(chosen, dataset.train)
    devices = distribution.choose(strategy).value  # before TensorFlow is used
    alone = not isinstance(devices, tf.distribute.MultiWorkerMirroredStrategy)
    policy = precisions.choose(chosen.precision, alone=alone).value
    chosen = dataclasses.replace(chosen, precision=policy)
    identity = _identity(_facts(dataset, recipe, chosen))
    checkpoints = Checkpoints(out / "checkpoints", checkpoint_seconds, identity)
    writes = distribution.is_chief(devices)
    done = finished(out)
    if done is not None:
        if not resume:
            raise already_finished(out)
        checkpoints.check(_identity(done))
        if writes:
            checkpoints.clear()  # it may have been killed before it did
        return done
    with opened(out, checkpoints, chosen, resume=resume) if writes else contextlib.nullcontext():
        run = _Run(dataset, recipe, chosen, devices, out if writes else None)
        history = run.fit(checkpoints, callbacks, verbose)
        metrics = run.metrics(history)
        if writes:
            metrics = run.write(history, metrics)
            checkpoints.clear()
        return metrics


class _Run:
    """The models and the clock of a run; `out` is None where another worker writes."""

    def __init__(
        self,
        dataset: datasets.Dataset,
        recipe: Recipe,
        settings: RunSettings,
        strategy: Any,
        out: Path | None,
    ) -> None:
        self._dataset, self._recipe, self._settings = dataset, recipe, settings
        self._strategy, self._out = strategy, out
        self._train, self._held_out = _held_out(dataset.train, recipe, settings.seed)
        self._is_saved = False
        if settings.deterministic:
            tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(settings.seed)
        steps = recipe.epochs * steps_per_epoch(self._train.rows, recipe.batch_size)
        compiled = functools.partial(
            compiled_model,
            settings.architecture,
            dataset.train.shape,
            len(dataset.train.classes),
            recipe,
            steps,
            settings.precision,
        )
        if strategy is None:
            self._model = compiled(settings.jit)
        else:
            with strategy.scope():
                self._model = compiled("off")
        # What is saved has no strategy, and an optimizer that Keras knows.
        self._saved = compiled(settings.jit, portable=True)
        self._clock = TrainingClock()

    def fit(
        self, checkpoints: Checkpoints, callbacks: Sequence[Any], verbose: int | str
    ) -> dict[str, list[float]]:
        """Trains, and returns Keras's history."""
        recipe, settings = self._recipe, self._settings
        own = [self._clock, keras.callbacks.LambdaCallback(on_epoch_end=self._save)]
        if self._out is not None:
            own.insert(1, EventLog(self._out / "logs", write_graph=False))
        augment = None
        if settings.augment:
            options = dataclasses.asdict(recipe.augment)
            augment = RandomAugment(**options, seed=settings.seed, dtype="float32")
        valid = self._dataset.valid
        rescale = 1 / 255 if pixel_range(self._model) == "0-1" else None
        history = fit(
            self._model,
            *_data(self._train),
            standardize=Standardize(rescale=rescale, dtype="float32"),
            augment=augment,
            validation_data=valid.records or _data(valid),
            validation_batch_size=_VALIDATION_BATCH,
            batch_size=recipe.batch_size,
            epochs=recipe.epochs,
            seed=settings.seed,
            resident={"auto": None, "on": True, "off": False}[settings.resident],
            steps_per_execution=settings.steps_per_execution,
            callbacks=[*own, *callbacks],
            verbose=verbose,
            checkpoints=checkpoints,
        ).history
        self._copy_weights()  # as no epoch may have been left to train
        return history

    def _copy_weights(self) -> None:
        self._saved.set_weights(self._model.get_weights())  # which needs all workers

    def _save(self, epoch: int, logs: Any) -> None:
        self._copy_weights()
        if self._out is None:
            return
        try:
            save_model(self._saved, self._out / "model.keras", self._dataset.train.classes)
            self._is_saved = True
        except InputError as error:
            self._is_saved = False
            _log.warning("The model %s Training goes on.", error)

    def metrics(self, history: Mapping[str, Sequence[float]]) -> dict[str, Any]:
        """Returns the content of `metrics.json`."""
        settings, strategy = self._settings, self._strategy
        rate = self._train.rows / float(np.median(self._clock.seconds))
        return {
            "val_accuracy": history["val_accuracy"][-1],
            "best_val_accuracy": max(history["val_accuracy"]),
            "train_seconds": round(self._clock.total, 2),
            "images_per_second": round(rate, 1),
            "epochs": self._recipe.epochs,
            "finished": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            **_facts(self._dataset, self._recipe, settings),
            "jit": self._model.jit_compile,
            "resident": settings.resident,
            "deterministic": settings.deterministic,
            "device": device.describe(),
            "devices": 1 if strategy is None else strategy.num_replicas_in_sync,
            "versions": {
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in _PACKAGES},
            },
        }

    def write(
        self, history: Mapping[str, Sequence[float]], metrics: dict[str, Any]
    ) -> dict[str, Any]:
        """Writes the results; returns the metrics as they can be read."""
        assert self._out is not None
        classes = self._dataset.train.classes
        write_history(self._out, history, self._clock.seconds)
        figures.curves(self._out / "curves.png", history)
        labels, probabilities = predict(self._saved, self._dataset.valid)
        confusion = count(labels, probabilities.argmax(axis=-1), len(classes))
        figures.confusion(self._out / "confusion.png", confusion, classes)
        metrics["calibration"] = self._calibrate(labels, probabilities)
        if metrics["calibration"] is not None or not self._is_saved:
            save_model(self._saved, self._out / "model.keras", classes)
        return write_metrics(self._out, metrics)  # last, as it marks the run as finished

    def _calibrate(self, labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any] | None:
        """Calibrates the model to save, and returns how its probabilities changed.

        Args:
            labels: Of the validation set.
            probabilities: Of the validation set, as yet not calibrated.
        """
        if self._held_out is None:
            return None
        temperature = calibration.temperature(*predict(self._saved, self._held_out))
        calibration.calibrate(self._saved, temperature)
        softer = calibration.softened(probabilities, temperature)
        return {
            "temperature": round(temperature, 4),
            "images": self._held_out.rows,
            "error_before": calibration_error(labels, probabilities),
            "error": calibration_error(labels, softer),
        }


def _changed(settings: RunSettings, train: datasets.Split) -> Recipe:
    """Returns the recipe with its changes."""
    unknown = set(settings.changes) - {field.name for field in dataclasses.fields(Recipe)}
    if unknown:
        raise InputError(f"A recipe has no {min(unknown)}.")
    recipe = dataclasses.replace(RECIPES[settings.recipe], **settings.changes)
    if train.rows < recipe.batch_size:
        raise InputError(
            f"{train.source} has {train.rows} rows, fewer than a batch of {recipe.batch_size}. "
            "Choose a smaller batch size."
        )
    return recipe


def _facts(dataset: datasets.Dataset, recipe: Recipe, settings: RunSettings) -> dict[str, Any]:
    """Returns what `metrics.json` holds from the begin."""
    return {
        "network": dataclasses.asdict(settings.architecture),
        "recipe": {"name": settings.recipe, **dataclasses.asdict(recipe)},
        "augment": settings.augment,
        "dataset": dataset.describe(),
        "precision": settings.precision,
        "seed": settings.seed,
        "settings": dataclasses.asdict(settings),
    }


def _identity(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns, of metrics, what must stay the same for a run to be resumed."""
    recipe = {name.replace("_", " "): value for name, value in facts["recipe"].items()}
    del recipe["name"]
    network = dict(facts["network"])
    network["network"] = network.pop("name")
    return {
        "train file (SHA-256)": facts["dataset"]["train"]["sha256"],
        "valid file (SHA-256)": facts["dataset"]["valid"]["sha256"],
        "classes": facts["dataset"]["classes"],
        **network,
        **recipe,
        "augmentation": facts["augment"],
        "seed": facts["seed"],
        "precision": facts["precision"],
    }


def _held_out(
    train: datasets.Split, recipe: Recipe, seed: int
) -> tuple[datasets.Split, datasets.Split | None]:
    """Returns the images to train on, and those to calibrate on if there are enough."""
    if train.records is not None or recipe.calibration * train.rows < _FEWEST:
        return train, None
    return datasets.divided(train, recipe.calibration, seed)


def _data(split: datasets.Split) -> tuple[Any, Any]:
    """Returns x and y."""
    if split.records is not None:
        return split.records, None
    return split.images, np.eye(len(split.classes), dtype=np.float32)[split.labels]

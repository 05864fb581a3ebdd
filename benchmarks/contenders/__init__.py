"""The contenders by name: each augments by the same `Work`, in the way that suits it best.

`AUGMENTATION` augments one batch again and again; `PIPELINE` takes shuffled batches from a whole
data set; `WORKERS` adds threads and processes to those of `PIPELINE` that go image by image.
"""

import functools
import importlib.util

from benchmarks.contenders import ours, rivals
from benchmarks.contenders.work import COURSE, Contender, Feed, Work

__all__ = ["AUGMENTATION", "COURSE", "PIPELINE", "WORKERS", "Contender", "Feed", "Work", "missing"]

AUGMENTATION: dict[str, Contender] = {
    "Keras's generator": rivals.generator_alone,
    "Keras's layers": functools.partial(rivals.layers_alone, "keras"),
    "KerasCV's layers": functools.partial(rivals.layers_alone, "keras_cv"),
    "Albumentations": rivals.albumentations_alone,
    "DALI": rivals.dali_alone,
    "our layer": ours.layer_alone,
    "no augmentation": ours.cast_alone,
}

PIPELINE: dict[str, Contender] = {
    "Keras's generator": functools.partial(rivals.generator, 1, False),
    "Keras's layers in tf.data": functools.partial(rivals.layers_in_dataset, "keras"),
    "Keras's layers in the model": rivals.layers_in_model,
    "KerasCV's layers in tf.data": functools.partial(rivals.layers_in_dataset, "keras_cv"),
    "one matrix by hand in tf.data": rivals.matrix_by_hand,
    "Albumentations": functools.partial(rivals.albumentations, 1, False),
    "DALI": rivals.dali,
    "our flow": ours.flow,
    "our step, streamed": ours.streamed,
    "our step, resident": ours.resident,
    "no augmentation": ours.cast,
}

# Which number of workers is best depends on the machine.
WORKERS: dict[str, Contender] = {
    f"{name}, {workers} {'processes' if processes else 'threads'}": functools.partial(
        contender, workers, processes
    )
    for name, contender in (
        ("Keras's generator", rivals.generator),
        ("Albumentations", rivals.albumentations),
    )
    for processes in (False, True)
    for workers in (2, 4)
}

_OPTIONAL = (
    ("KerasCV", "keras_cv", "bench"),
    ("Albumentations", "albumentations", "peers"),
    ("DALI", "nvidia.dali", "peers"),
)


def missing(name: str) -> str | None:
    """Returns why a contender can't run here, or None if it can."""
    for start, module, extra in _OPTIONAL:
        if name.startswith(start):
            top = module.split(".")[0]
            if not importlib.util.find_spec(top) or not importlib.util.find_spec(module):
                return f"{module} is not installed: pip install -e '.[{extra}]'"
    return None

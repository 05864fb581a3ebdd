"""What in a training script with Keras's ImageDataGenerator breaks, is slow, or goes wrong.

The script is read, never run. Values are followed as a reader would at a glance: through names,
attributes of `self` and simple arithmetic. Whatever depends on more is unknown, and nothing is said
about it. Each statement about Keras was tried on Keras 3.15.1 and TensorFlow 2.21.
"""

import ast
import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

from asl_fast.migration.script_values import (
    KERAS,
    READERS,
    Batches,
    Call,
    Generator,
    Quotient,
    Script,
    is_number,
    is_scaled,
    is_unknown,
    shown,
)
from asl_fast.system.errors import InputError

__all__ = ["Finding", "check"]

Kind = Literal["breaks", "slow", "wrong"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that the script's author should know.

    Attributes:
        line: From 1; in a notebook, within the cell.
        kind: "breaks" (stops with an error on Keras 3.15), "slow" (works, at a price) or "wrong"
            (runs, but does not do what it seems to).
        message: One line: what, why, and what to write instead.
        cell: In a notebook the number of the code cell, from 1; None in a script.
    """

    line: int
    kind: Kind
    message: str
    cell: int | None = None


def check(source: str, name: str = "<script>") -> list[Finding]:
    """Looks for known mistakes.

    Args:
        source: A Python script, or the JSON text of a Jupyter notebook.
        name: What messages call it. Where it ends in .ipynb, the source must be a notebook.

    Returns:
        Findings by line, in a notebook by cell and line.

    Raises:
        InputError: The source is not Python, or not a notebook; names file, line and problem.
    """
    source = source.removeprefix("\ufeff")
    try:
        cells = _cells(source, name)
        for number, cell in enumerate(cells or [], 1):
            _parse(cell, f"{name}, code cell {number}")
        script = Script(_parse(source if cells is None else "\n".join(cells), name))
        findings = sorted(dict.fromkeys(_findings(script)), key=lambda finding: finding.line)
    except (RecursionError, MemoryError):  # the latter from Python's parser
        raise InputError(f"{name} can't be read: it is nested too deeply.") from None
    if cells is None:
        return findings
    places = [(n, line) for n, c in enumerate(cells, 1) for line in range(1, c.count("\n") + 2)]
    located = [(finding, *places[finding.line - 1]) for finding in findings]
    return [dataclasses.replace(finding, cell=cell, line=line) for finding, cell, line in located]


def _parse(source: str, where: str) -> ast.Module:
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(source)
    except (SyntaxError, ValueError) as error:  # the latter of NUL characters, in Python 3.11
        line, problem = getattr(error, "lineno", None) or 1, getattr(error, "msg", error)
        raise InputError(f"{where}, line {line}: this is not Python: {problem}.") from None


def _cells(source: str, name: str) -> list[str] | None:
    """Returns a notebook's code cells as Python, or None where the source is a script."""
    try:
        cells = [cell for cell in json.loads(source)["cells"] if cell["cell_type"] == "code"]
        return [_without_magics("".join(cell["source"])) for cell in cells]
    except (ValueError, TypeError, KeyError) as error:
        if name.endswith(".ipynb"):
            line = getattr(error, "lineno", 1)
            raise InputError(f"{name}, line {line}: not a Jupyter notebook ({error}).") from None
        return None


def _without_magics(code: str) -> str:
    """Replaces what only Jupyter understands, line by line."""
    language = re.match(r"\s*%%(\w+)", code)
    if language and language[1] not in ("capture", "prun", "time", "timeit"):
        return "\n" * code.count("\n")
    try:
        _parse(code, "")
    except InputError:  # otherwise a line that begins with % goes on from the one before
        line = r"(?m)^([ \t]*)(?:%%?[a-z]|!|\?|[\w.]+\?{1,2}[ \t]*$)(?:.*\\\n)*.*"
        code = re.sub(line, lambda found: f"{found[1]}pass" + "\n" * found[0].count("\n"), code)
        code = re.sub(r"(?m)^([ \t]*\w[\w, ]*=[ \t]*)(?:!|%[a-z]).*", r"\1None", code)
    return code


# What is said, by kind. The rules below fill in the names.

_OURS = "`from asl_fast import ImageDataGenerator`"
_BREAKS = {
    "generator": f"`{{gone}}` is gone: write {_OURS}, or take it from tensorflow.keras."
    "preprocessing.image, the only place that still has it.",
    "preprocessing": f"`{{gone}}` is gone: write {_OURS}, and take the rest from "
    "tensorflow.keras.preprocessing.",
    "private": "`{gone}` is a remnant of Keras 2 that no longer works, and Keras 3 does not take "
    "what comes from it: import from tensorflow.keras instead.",
    "np_utils": "`{gone}` is gone: write `from keras.utils import to_categorical`.",
    "layers": "`{gone}` is gone, as all layers are in keras.layers itself now: write "
    "`from keras.layers import …`.",
    "history": "there is no {key!r} in the history any more: write `{today}`.",
    "method": "`{method}` is gone: write `{owner}.{today}(…)`, with the same iterator.",
    "classes": "`predict_classes` is gone: write `{owner}.predict(…).argmax(axis=-1)`, or after a "
    "sigmoid `{owner}.predict(…) > 0.5`.",
    "next": "iterators have no `.next()` any more: write `next({owner})`.",
    "argument": "`{method}` takes no `{name}` any more: leave it out, or set it on Keras's "
    "iterator before, by `iterator.{name} = {value}`.",
    "float": "`{name}={value}` is a float, and Keras stops (TypeError: 'float' object cannot be "
    "interpreted as an integer): write `{whole}({value})`, or leave `{name}` out, as iterators "
    "know their own length.",
    "save": "Keras 3 can't tell the format from {path!r}: write `{owner}.save({file!r})`, or "
    "`{owner}.export({path!r})` for TensorFlow's SavedModel.",
    "load": "Keras 3 loads only .keras and .h5 files, not {path!r}: save the model as .keras and "
    "load that, or write `keras.layers.TFSMLayer({path!r})` to predict by a SavedModel.",
    "lr": "`lr` has another name now: write `learning_rate={rate}`.",
}
_SLOW = {
    "images": "Keras's ImageDataGenerator makes batches image by image in Python, and training "
    f"waits for them: change its import to {_OURS}, which takes the same options and does whole "
    "batches.",
    "layer": "`{layer}` inside a model switches XLA off for all of it (supports_jit = False), "
    "which costs speed on a GPU: take `asl_fast.RandomAugment`, or call the layer in the data "
    "set's `.map(…)`.",
    "fit": "`{owner}.fit(…)` does nothing but copy the images: it is for featurewise_center, "
    "featurewise_std_normalization and zca_whitening, and none is on. Leave it out.",
}
_WRONG = {
    "rounded": "`{name}={value}` is rounded down: unless it divides evenly, every second epoch "
    'sees only the one batch that was left over and stops ("Your input ran out of data"). Leave '
    "`{name}` out.",
    "decay": "Keras 3 ignores `decay`, and the learning rate stays as it is: write `learning_rate="
    "keras.optimizers.schedules.InverseTimeDecay({rate}, 1, {decay})`.",
    "still": "{side}_shift_range=1 never shifts, as a whole number n means -(n-1) to n-1 pixels: "
    "write 1.0 for up to one pixel.",
    "whole": "{side}_shift_range={n} shifts by less than {n} pixels, as a whole number n means "
    "-(n-1) to n-1: write {n}.0 for up to {n}.",
    "swapped": "this class mixes the two shifts up (tensorflow issue 82838; asl_fast repeats it): "
    "width_shift_range={width} moves up and down, height_shift_range={height} left and right. "
    "Swap the two values.",
    "unfitted": "{option} is on, but the generator's `.fit(x_train)` is missing, so images are not "
    "standardised: call it before training.",
    "early": "these images are not standardised: {option} is on, but the generator's `.fit(…)` "
    "comes only after this line. Move it up.",
    "rescale": "these pixels are divided by 255 already, and the generator's rescale does it "
    "again, so images are nearly black: drop one of the two.",
    "brightness": "brightness_range is for pixels from 0 to 255; these are divided by 255 and "
    "become zeros and ones. Do not divide; give the generator rescale=1/255, which comes later.",
    "validation": "validation images are augmented as well ({options}), so the score is not that "
    "of the real ones: make a second ImageDataGenerator for them without these options, with the "
    "same rescale and validation_split.",
    "order": "`{owner}.classes` is in the order of the files, but predict gets them shuffled: add "
    "shuffle=False where `{owner}` is made.",
}

# The rules.

Told = Iterator[tuple[int, str, dict[str, Any]]]

_LAYER_MODULES = (
    "advanced_activations|attention|convolutional|convolutional_recurrent|core|cudnn_recurrent|"
    "embeddings|experimental|local|merge|merging|noise|normalization|pooling|preprocessing|"
    "recurrent|reshaping|rnn|wrappers"
)
_GONE = {
    "generator": r"keras\.preprocessing\.image\.(ImageDataGenerator|\w*Iterator)\b",
    "preprocessing": r"keras_preprocessing\b",
    "private": r"tensorflow\.python\.keras\.(Sequential|Model|models|layers|optimizers|datasets|"
    r"applications|preprocessing)\b",
    "np_utils": r"(tensorflow\.)?keras\.utils\.np_utils\b",
    "layers": rf"(tensorflow\.)?keras\.layers\.({_LAYER_MODULES})\b",
}
_AUGMENTATIONS = (
    *("rotation_range", "width_shift_range", "height_shift_range", "brightness_range"),
    *("shear_range", "zoom_range", "channel_shift_range", "horizontal_flip", "vertical_flip"),
)
_FITTED = ("featurewise_center", "featurewise_std_normalization", "zca_whitening")


def _findings(script: Script) -> Iterator[Finding]:
    told = [*_gone_names(script), *_old_accuracy(script)]
    for generator in script.generators:
        told += [*_shifts(generator), *_statistics(generator, script)]
    for call in script.calls:
        for rule in _CALL_RULES:
            told += rule(call)
    for line, key, names in told:
        kind: Kind = "breaks" if key in _BREAKS else "slow" if key in _SLOW else "wrong"
        yield Finding(line, kind, (_BREAKS | _SLOW | _WRONG)[key].format(**names))


def _gone_names(script: Script) -> Told:
    """Each is told once, where it comes first."""
    seen = set()
    for path, line, may_fail in script.names:
        for key, pattern in _GONE.items():
            gone = re.match(pattern, path)
            if gone and gone[0] not in seen:
                seen.add(gone[0])
                if not may_fail:
                    yield line, key, {"gone": gone[0]}


def _old_accuracy(script: Script) -> Told:
    """The history has the name by which `compile` got the metric."""
    for node in script.subscripts:
        key = script.value(node.slice)
        of_history = isinstance(node.value, ast.Attribute) and node.value.attr == "history"
        if of_history and key in ("acc", "val_acc") and "acc" not in script.metrics:
            today = f"{ast.unparse(node.value)}[{key.replace('acc', 'accuracy')!r}]"
            yield node.lineno, "history", {"key": key, "today": today}


def _shifts(generator: Generator) -> Told:
    """See https://github.com/tensorflow/tensorflow/issues/82838; Keras 3.15 is still like that."""
    shifts = {side: generator.options.get(f"{side}_shift_range", 0) for side in ("width", "height")}
    for side, shift in shifts.items():
        if isinstance(shift, int) and shift > 0:
            yield generator.line, "still" if shift == 1 else "whole", {"side": side, "n": shift}
    width, height = shifts.values()
    if width != height and generator.off() and not (is_unknown(width) or is_unknown(height)):
        yield generator.line, "swapped", shifts


def _statistics(generator: Generator, script: Script) -> Told:
    on = generator.on(*_FITTED)
    own = [call for call in script.calls if call.generator is generator]
    if not on or generator.escapes or not own:
        return
    fits = [place for place, call in enumerate(own) if call.on_generator and call.method == "fit"]
    if not fits:
        yield generator.line, "unfitted", {"option": on[0]}
        return
    for call in own[: fits[0]]:
        # Functions need not run in the order in which they are written.
        if not call.on_generator and call.scope is own[fits[0]].scope:
            yield call.node.lineno, "early", {"option": on[0]}


def _superfluous_fit(call: Call) -> Told:
    if call.on_generator and call.method == "fit" and call.receiver.off(*_FITTED):
        yield call.node.lineno, "fit", {"owner": call.owner}


def _scaled_data(call: Call) -> Told:
    """Brightness goes through 8-bit images, and only then comes `rescale`."""
    if call.on_generator and call.method == "flow" and is_scaled(call.data):
        rescale = call.receiver.options.get("rescale")
        if is_number(rescale) and 0 < rescale < 0.1:
            yield call.node.lineno, "rescale", {}
        if call.receiver.on("brightness_range"):
            yield call.node.lineno, "brightness", {}


def _augmented_validation(call: Call) -> Told:
    """A subset is told where it is made, other batches where they are used."""
    made = call.script.value(call.node)
    used = call.data if call.model_method == "evaluate" else call.values.get("validation_data")
    for batches, is_made in ((made, True), (used, False)):
        if not isinstance(batches, Batches) or batches.is_validation is not is_made:
            continue
        if on := batches.generator.on(*_AUGMENTATIONS):
            yield call.node.lineno, "validation", {"options": ", ".join(on)}


def _image_by_image(call: Call) -> Told:
    if call.model_method == "fit" and call.generator and call.generator.of_keras:
        yield call.generator.line, "images", {}


def _layers_without_xla(call: Call) -> Told:
    """In a data set's `map` they do no harm; nothing is said where there is one."""
    layers = "Random(Rotation|Zoom|Translation|Shear|Crop|Perspective)"
    layer = re.fullmatch(rf"{KERAS}({layers})", call.path)
    if layer and not call.script.maps_data:
        yield call.node.lineno, "layer", {"layer": layer[1]}


def _gone_methods(call: Call) -> Told:
    if call.method not in call.script.functions:
        if call.method in [f"{reader}_generator" for reader in READERS]:
            today = {"method": call.method, "owner": call.owner, "today": call.model_method}
            yield call.node.lineno, "method", today
        if call.method == "predict_classes":
            yield call.node.lineno, "classes", {"owner": call.owner}


def _gone_next(call: Call) -> Told:
    if call.method == "next" and call.generator and call.generator.of_keras:
        yield call.node.lineno, "next", {"owner": call.owner}


def _arguments(call: Call) -> Told:
    """The data know how many threads read them; steps are counted by `range`."""
    if call.model_method not in READERS:
        return
    for name, node in call.nodes.items():
        names = {"method": call.model_method, "name": name, "value": shown(node)}
        value = call.values[name]
        if name in ("workers", "use_multiprocessing", "max_queue_size"):
            yield node.lineno, "argument", names
        if name in ("steps_per_epoch", "validation_steps", "steps"):
            # What is left of one epoch is taken for the next, which ends with it.
            if isinstance(value, Quotient) and value.kind == "rounded down":
                if name == "steps_per_epoch" and call.generator:
                    yield node.lineno, "rounded", names
            elif isinstance(value, Quotient | float):
                whole = "int" if isinstance(node, ast.Call) else "math.ceil"
                yield node.lineno, "float", names | {"whole": whole}


def _file_endings(call: Call) -> Told:
    methods = ("compile", "fit", "fit_generator")
    is_model = any(f"{call.owner}.{method}" in call.script.attributes for method in methods)
    path = call.values.get(0, call.values.get("filepath"))
    if isinstance(path, str) and not path.endswith((".keras", ".h5", ".hdf5")):
        names = {"path": path, "owner": call.owner, "file": path.rstrip("/") + ".keras"}
        if call.model_method == "save" and is_model:
            yield call.node.lineno, "save", names
        if re.fullmatch(rf"{KERAS}load_model", call.path):
            yield call.node.lineno, "load", names


def _optimizer_arguments(call: Call) -> Told:
    optimizers = "Adadelta|Adagrad|Adam|Adamax|AdamW|Nadam|RMSprop|SGD"
    if re.fullmatch(rf"{KERAS}({optimizers})", call.path):
        rates = [shown(call.nodes[key]) for key in (0, "learning_rate", "lr") if key in call.nodes]
        if "lr" in call.nodes:
            yield call.nodes["lr"].lineno, "lr", {"rate": rates[0]}
        if call.values.get("decay"):
            names = {"rate": [*rates, "…"][0], "decay": shown(call.nodes["decay"])}
            yield call.nodes["decay"].lineno, "decay", names


def _order_of_predictions(call: Call) -> Told:
    if call.model_method == "predict" and isinstance(call.data, Batches):
        classes = f"{call.data_name}.classes"
        if call.data.shuffled and classes in call.script.attributes:
            yield call.node.lineno, "order", {"owner": call.data_name}


_CALL_RULES: tuple[Callable[[Call], Told], ...] = (
    _superfluous_fit,
    _scaled_data,
    _augmented_validation,
    _image_by_image,
    _layers_without_xla,
    _gone_methods,
    _gone_next,
    _arguments,
    _file_endings,
    _optimizer_arguments,
    _order_of_predictions,
)

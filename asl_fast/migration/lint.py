"""Finds what breaks, is slow or silently wrong in a script that uses Keras's ImageDataGenerator.

The script is read, never run; see `script_values` for how far its values are followed. There are no
issues about unknown values. Each statement about Keras was tried on Keras 3.15.1 and TensorFlow
2.21.
"""

import ast
import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Literal

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

__all__ = ["Issue", "check"]


@dataclasses.dataclass(frozen=True)
class Issue:
    """One known mistake in a script.

    Attributes:
        line: From 1; in a notebook, within the cell.
        kind: "breaks" (an error on Keras 3.15), "slow" (works, but costs time) or "wrong" (runs,
            but does not do what it seems to).
        message: One line: what is wrong, why, and what to write instead.
        cell: In a notebook the number of the code cell, from 1; None in a script.
    """

    line: int
    kind: Literal["breaks", "slow", "wrong"]
    message: str
    cell: int | None = None


def check(source: str, name: str = "<script>") -> list[Issue]:
    """Finds known mistakes.

    Args:
        source: A Python script, or the JSON text of a Jupyter notebook.
        name: Its name for error messages. If it ends in .ipynb, the source must be a notebook.

    Returns:
        Issues by line, in a notebook by cell and line.

    Raises:
        InputError: The source is not Python, or not a notebook; names file, line and problem.
    """
    source = source.removeprefix("\ufeff")
    try:
        cells = _cells(source, name)
        for number, cell in enumerate(cells or [], 1):
            _parse(cell, f"{name}, code cell {number}")
        script = Script(_parse(source if cells is None else "\n".join(cells), name))
        issues = sorted(dict.fromkeys(_issues(script)), key=lambda issue: issue.line)
    except (RecursionError, MemoryError):  # the latter from Python's parser
        raise InputError(f"{name} can't be read: it is nested too deeply.") from None
    if cells is None:
        return issues
    places = [(n, line) for n, c in enumerate(cells, 1) for line in range(1, c.count("\n") + 2)]
    located = [(issue, *places[issue.line - 1]) for issue in issues]
    return [dataclasses.replace(issue, cell=cell, line=line) for issue, cell, line in located]


def _parse(source: str, where: str) -> ast.Module:
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(source)
    except (SyntaxError, ValueError) as error:  # the latter for NUL characters, in Python 3.11
        line, problem = getattr(error, "lineno", None) or 1, getattr(error, "msg", error)
        raise InputError(f"{where}, line {line}: this is not Python: {problem}.") from None


def _cells(source: str, name: str) -> list[str] | None:
    """Returns a notebook's code cells as Python, or None if the source is a script."""
    try:
        cells = [cell for cell in json.loads(source)["cells"] if cell["cell_type"] == "code"]
        return [_without_magics("".join(cell["source"])) for cell in cells]
    except (ValueError, TypeError, KeyError) as error:
        if name.endswith(".ipynb"):
            line = getattr(error, "lineno", 1)
            raise InputError(f"{name}, line {line}: not a Jupyter notebook ({error}).") from None
        return None


def _without_magics(code: str) -> str:
    """Replaces Jupyter's own syntax, keeping line numbers."""
    language = re.match(r"\s*%%(\w+)", code)
    if language and language[1] not in ("capture", "prun", "time", "timeit"):
        return "\n" * code.count("\n")
    try:
        _parse(code, "")
    except InputError:  # in valid Python a line that begins with % continues an expression
        line = r"(?m)^([ \t]*)(?:%%?[a-z]|!|\?|[\w.]+\?{1,2}[ \t]*$)(?:.*\\\n)*.*"
        code = re.sub(line, lambda match: f"{match[1]}pass" + "\n" * match[0].count("\n"), code)
        code = re.sub(r"(?m)^([ \t]*\w[\w, ]*=[ \t]*)(?:!|%[a-z]).*", r"\1None", code)
    return code


_OURS = "`from asl_fast import ImageDataGenerator`"
_LAYER_MODULES = (
    "advanced_activations|attention|convolutional|convolutional_recurrent|core|cudnn_recurrent|"
    "embeddings|experimental|local|merge|merging|noise|normalization|pooling|preprocessing|"
    "recurrent|reshaping|rnn|wrappers"
)
# Names that no longer exist, and what to write instead.
_GONE = {
    r"keras\.preprocessing\.image\.(ImageDataGenerator|\w*Iterator)\b": "is gone: write "
    f"{_OURS}, or take it from tensorflow.keras.preprocessing.image, the only place that still has "
    "it.",
    r"keras_preprocessing\b": f"is gone: write {_OURS}, and take the rest from "
    "tensorflow.keras.preprocessing.",
    r"tensorflow\.python\.keras\.(Sequential|Model|models|layers|optimizers|datasets|applications|"
    r"preprocessing)\b": "is a remnant of Keras 2 that no longer works, and Keras 3 rejects its "
    "objects: import from tensorflow.keras instead.",
    r"(tensorflow\.)?keras\.utils\.np_utils\b": "is gone: write "
    "`from keras.utils import to_categorical`.",
    rf"(tensorflow\.)?keras\.layers\.({_LAYER_MODULES})\b": "is gone, as all layers are now in "
    "keras.layers itself: write `from keras.layers import …`.",
}
_AUGMENTATIONS = (
    *("rotation_range", "width_shift_range", "height_shift_range", "brightness_range"),
    *("shear_range", "zoom_range", "channel_shift_range", "horizontal_flip", "vertical_flip"),
)
_FITTED = ("featurewise_center", "featurewise_std_normalization", "zca_whitening")

Issues = Iterator[Issue]


def _issues(script: Script) -> Issues:
    yield from _gone_names(script)
    yield from _old_accuracy(script)
    for generator in script.generators:
        yield from _shifts(generator)
        yield from _statistics(generator, script)
    for call in script.calls:
        for rule in _CALL_RULES:
            yield from rule(call)


def _gone_names(script: Script) -> Issues:
    """Reports each name once, at its first use."""
    seen = set()
    for path, line, may_fail in script.names:
        for pattern, advice in _GONE.items():
            gone = re.match(pattern, path)
            if gone and gone[0] not in seen:
                seen.add(gone[0])
                if not may_fail:
                    yield Issue(line, "breaks", f"`{gone[0]}` {advice}")


def _old_accuracy(script: Script) -> Issues:
    """The history uses the name under which `compile` got the metric."""
    for node in script.subscripts:
        key = script.value(node.slice)
        of_history = isinstance(node.value, ast.Attribute) and node.value.attr == "history"
        if of_history and key in ("acc", "val_acc") and "acc" not in script.metrics:
            today = f"{ast.unparse(node.value)}[{key.replace('acc', 'accuracy')!r}]"
            yield Issue(
                node.lineno, "breaks", f"the history no longer has {key!r}: write `{today}`."
            )


def _shifts(generator: Generator) -> Issues:
    """See https://github.com/tensorflow/tensorflow/issues/82838, still open in Keras 3.15."""
    width, height = (
        generator.options.get(f"{side}_shift_range", 0) for side in ("width", "height")
    )
    for side, n in (("width", width), ("height", height)):
        if isinstance(n, int) and n > 0:
            effect = "never shifts" if n == 1 else f"shifts by less than {n} pixels"
            message = (
                f"{side}_shift_range={n} {effect}, because an int n means -(n-1) to n-1 pixels: "
                f"write {n}.0 for up to {n}."
            )
            yield Issue(generator.line, "wrong", message)
    if width != height and generator.off() and not (is_unknown(width) or is_unknown(height)):
        message = (
            "this class swaps the two shifts (tensorflow issue 82838; asl_fast repeats it): "
            f"width_shift_range={width} moves up and down, height_shift_range={height} left and "
            "right. Swap the two values."
        )
        yield Issue(generator.line, "wrong", message)


def _statistics(generator: Generator, script: Script) -> Issues:
    on = generator.on(*_FITTED)
    own = [call for call in script.calls if call.generator is generator]
    if not on or generator.escapes or not own:
        return
    fits = [place for place, call in enumerate(own) if call.on_generator and call.method == "fit"]
    if not fits:
        message = (
            f"{on[0]} is on, but the generator's `.fit(x_train)` is missing, so images are not "
            "standardised: call it before training."
        )
        yield Issue(generator.line, "wrong", message)
        return
    for call in own[: fits[0]]:
        # Functions need not run in the order in which they are written.
        if not call.on_generator and call.scope is own[fits[0]].scope:
            message = (
                f"these images are not standardised: {on[0]} is on, but the generator's `.fit(…)` "
                "comes only after this line. Move it up."
            )
            yield Issue(call.line, "wrong", message)


def _superfluous_fit(call: Call) -> Issues:
    if call.on_generator and call.method == "fit" and call.receiver.off(*_FITTED):
        message = (
            f"`{call.owner}.fit(…)` does nothing but copy the images: only {', '.join(_FITTED)} "
            "need it, and none is on. Leave it out."
        )
        yield Issue(call.line, "slow", message)


def _scaled_data(call: Call) -> Issues:
    """Brightness goes through 8-bit images, and `rescale` comes after it."""
    if call.on_generator and call.method == "flow" and is_scaled(call.data):
        rescale = call.receiver.options.get("rescale")
        if is_number(rescale) and 0 < rescale < 0.1:
            message = (
                "these pixels are already divided by 255, and the generator's rescale does it "
                "again, so images are nearly black: drop one of the two."
            )
            yield Issue(call.line, "wrong", message)
        if call.receiver.on("brightness_range"):
            message = (
                "brightness_range is for pixels from 0 to 255; these are divided by 255 and become "
                "zeros and ones. Do not divide; give the generator rescale=1/255, which comes "
                "later."
            )
            yield Issue(call.line, "wrong", message)


def _augmented_validation(call: Call) -> Issues:
    """Reports a subset where it is made, other batches where they are used."""
    made = call.script.value(call.node)
    used = call.data if call.model_method == "evaluate" else call.values.get("validation_data")
    for batches, is_made in ((made, True), (used, False)):
        if not isinstance(batches, Batches) or batches.is_validation is not is_made:
            continue
        if on := batches.generator.on(*_AUGMENTATIONS):
            message = (
                f"validation images are augmented too ({', '.join(on)}), so the score is not that "
                "of real images: make a second ImageDataGenerator for them without these options, "
                "with the same rescale and validation_split."
            )
            yield Issue(call.line, "wrong", message)


def _image_by_image(call: Call) -> Issues:
    if call.model_method == "fit" and call.generator and call.generator.of_keras:
        message = (
            "Keras's ImageDataGenerator makes batches image by image in Python, and training "
            f"waits for them: change its import to {_OURS}, which takes the same options and "
            "augments whole batches."
        )
        yield Issue(call.generator.line, "slow", message)


def _layers_without_xla(call: Call) -> Issues:
    """In a data set's `map` they do no harm, so a script with a `map` is not reported."""
    layers = "Random(Rotation|Zoom|Translation|Shear|Crop|Perspective)"
    layer = re.fullmatch(rf"{KERAS}({layers})", call.path)
    if layer and not call.script.maps_data:
        message = (
            f"`{layer[1]}` inside a model switches XLA off for all of it (supports_jit = False), "
            "which costs speed on a GPU: use `asl_fast.RandomAugment`, or call the layer in the "
            "data set's `.map(…)`."
        )
        yield Issue(call.line, "slow", message)


def _gone_methods(call: Call) -> Issues:
    if call.method in call.script.functions:
        return
    if call.method in [f"{reader}_generator" for reader in READERS]:
        message = (
            f"`{call.method}` is gone: write `{call.owner}.{call.model_method}(…)`, with the same "
            "iterator."
        )
        yield Issue(call.line, "breaks", message)
    if call.method == "predict_classes":
        message = (
            f"`predict_classes` is gone: write `{call.owner}.predict(…).argmax(axis=-1)`, or after "
            f"a sigmoid `{call.owner}.predict(…) > 0.5`."
        )
        yield Issue(call.line, "breaks", message)


def _gone_next(call: Call) -> Issues:
    if call.method == "next" and call.generator and call.generator.of_keras:
        message = f"iterators no longer have `.next()`: write `next({call.owner})`."
        yield Issue(call.line, "breaks", message)


def _gone_arguments(call: Call) -> Issues:
    """In Keras 3 these are attributes of the data."""
    for name in ("workers", "use_multiprocessing", "max_queue_size"):
        if call.model_method in READERS and name in call.nodes:
            node = call.nodes[name]
            message = (
                f"`{call.model_method}` no longer takes `{name}`: leave it out, or set it on "
                f"Keras's iterator with `iterator.{name} = {shown(node)}`."
            )
            yield Issue(node.lineno, "breaks", message)


def _step_counts(call: Call) -> Issues:
    """Keras counts steps by `range`."""
    for name in ("steps_per_epoch", "validation_steps", "steps"):
        if call.model_method not in READERS or name not in call.nodes:
            continue
        node, value = call.nodes[name], call.values[name]
        given = f"`{name}={shown(node)}`"
        if isinstance(value, Quotient) and value.kind == "rounded down":
            # The rest of one epoch is used for the next, which ends with it.
            if name == "steps_per_epoch" and call.generator:
                message = (
                    f"{given} is rounded down: unless it divides evenly, every second epoch sees "
                    'only the one batch that was left over and stops ("Your input ran out of '
                    f'data"). Leave `{name}` out.'
                )
                yield Issue(node.lineno, "wrong", message)
        elif isinstance(value, Quotient | float):
            whole = "int" if isinstance(node, ast.Call) else "math.ceil"
            message = (
                f"{given} is a float, and Keras stops (TypeError: 'float' object cannot be "
                f"interpreted as an integer): write `{whole}({shown(node)})`, or leave `{name}` "
                "out, because iterators know their length."
            )
            yield Issue(node.lineno, "breaks", message)


def _file_endings(call: Call) -> Issues:
    methods = ("compile", "fit", "fit_generator")
    is_model = any(f"{call.owner}.{method}" in call.script.attributes for method in methods)
    path = call.values.get(0, call.values.get("filepath"))
    if not isinstance(path, str) or path.endswith((".keras", ".h5", ".hdf5")):
        return
    if call.model_method == "save" and is_model:
        message = (
            f"Keras 3 can't tell the format from {path!r}: write `{call.owner}.save("
            f"{path.rstrip('/') + '.keras'!r})`, or `{call.owner}.export({path!r})` for a "
            "TensorFlow SavedModel."
        )
        yield Issue(call.line, "breaks", message)
    if re.fullmatch(rf"{KERAS}load_model", call.path):
        message = (
            f"Keras 3 loads only .keras and .h5 files, not {path!r}: save the model as .keras and "
            f"load that, or write `keras.layers.TFSMLayer({path!r})` to predict with a SavedModel."
        )
        yield Issue(call.line, "breaks", message)


def _optimizer_arguments(call: Call) -> Issues:
    optimizers = "Adadelta|Adagrad|Adam|Adamax|AdamW|Nadam|RMSprop|SGD"
    if not re.fullmatch(rf"{KERAS}({optimizers})", call.path):
        return
    rates = [shown(call.nodes[key]) for key in (0, "learning_rate", "lr") if key in call.nodes]
    if "lr" in call.nodes:
        message = f"`lr` was renamed: write `learning_rate={rates[0]}`."
        yield Issue(call.nodes["lr"].lineno, "breaks", message)
    if call.values.get("decay"):
        decay = call.nodes["decay"]
        message = (
            "Keras 3 ignores `decay`, and the learning rate stays as it is: write `learning_rate="
            f"keras.optimizers.schedules.InverseTimeDecay({[*rates, '…'][0]}, 1, {shown(decay)})`."
        )
        yield Issue(decay.lineno, "wrong", message)


def _order_of_predictions(call: Call) -> Issues:
    if call.model_method == "predict" and isinstance(call.data, Batches):
        name = call.data_name
        if call.data.shuffled and f"{name}.classes" in call.script.attributes:
            message = (
                f"`{name}.classes` is in the order of the files, but predict gets them shuffled: "
                f"add shuffle=False where `{name}` is made."
            )
            yield Issue(call.line, "wrong", message)


_CALL_RULES: tuple[Callable[[Call], Issues], ...] = (
    _superfluous_fit,
    _scaled_data,
    _augmented_validation,
    _image_by_image,
    _layers_without_xla,
    _gone_methods,
    _gone_next,
    _gone_arguments,
    _step_counts,
    _file_endings,
    _optimizer_arguments,
    _order_of_predictions,
)

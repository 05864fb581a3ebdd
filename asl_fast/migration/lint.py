"""Finds what breaks, is slow or silently wrong in a script that uses Keras's ImageDataGenerator.

The script is read, never run; see `script_values` for how far its values are followed. There are no
issues about unknown values. Each statement about Keras was tried on Keras 3.15.1 and TensorFlow
2.21.
"""

import ast
import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Literal

from asl_fast.migration import notebook, old_spellings
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
    cells = notebook.read_cells(source.removeprefix("\ufeff"), name)
    for cell in cells:
        if cell.number is None and cell.problem:
            line, problem = cell.problem
            raise InputError(f"{name}, line {line}: this is not Python: {problem}.")
    # Names hold from cell to cell, so the cells are read as one script.
    code = ["\n" * cell.code.count("\n") if cell.problem else cell.code for cell in cells]
    try:
        found = dict.fromkeys(_issues(Script(notebook.parse("\n".join(code)))))
    except (RecursionError, MemoryError):  # the latter from Python's parser
        raise InputError(f"{name} can't be read: it is nested too deeply.") from None
    counts = [text.count("\n") + 1 for text in code]
    places = [(c, line) for c, n in zip(cells, counts, strict=True) for line in range(1, n + 1)]
    located = [_located(issue, *places[issue.line - 1]) for issue in found]
    located += [_unreadable(cell) for cell in cells if cell.problem]
    return sorted(located, key=lambda issue: (issue.cell or 0, issue.line))


def _located(issue: Issue, cell: notebook.Cell, line: int) -> Issue:
    return dataclasses.replace(issue, cell=cell.number, line=line)


def _unreadable(cell: notebook.Cell) -> Issue:
    line, problem = cell.problem or (1, "")
    return Issue(
        line, "breaks", f"this cell is left out: it is not Python: {problem}.", cell.number
    )


_OURS = "`from asl_fast import ImageDataGenerator`"
_AUGMENTATIONS = (
    *("rotation_range", "width_shift_range", "height_shift_range", "brightness_range"),
    *("shear_range", "zoom_range", "channel_shift_range", "horizontal_flip", "vertical_flip"),
)
_FITTED = ("featurewise_center", "featurewise_std_normalization", "zca_whitening")

Issues = Iterator[Issue]


def _issues(script: Script) -> Issues:
    yield from _gone_names(script)
    yield from _old_attributes(script)
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
        gone = _gone(path)
        if gone and gone[0] not in seen:
            seen.add(gone[0])
            if not may_fail:
                yield Issue(line, "breaks", f"`{gone[0]}` is gone: {gone[1]}")


def _gone(path: str) -> tuple[str, str] | None:
    """Returns (the part of a dotted path that is gone, what to write instead), or None."""
    if name := re.match(r"keras\.preprocessing\.image\.(ImageDataGenerator|\w*Iterator)\b", path):
        return name[0], (
            f"write {_OURS}, or take it from tensorflow.keras.preprocessing.image, the only place "
            "that still has it."
        )
    if path.startswith("keras_preprocessing"):
        rest = "and take the rest from tensorflow.keras.preprocessing."
        return "keras_preprocessing", f"write {_OURS}, {rest}"
    if moved := old_spellings.old_module(path):
        return moved[0], f"write `from {moved[1]} import …`."
    for pattern, advice in old_spellings.GONE.items():
        if match := re.match(pattern, path):
            return match[0], advice
    today = old_spellings.name_today(path)
    return (path, f"write `{today.removeprefix('builtins.')}`.") if today else None


def _old_attributes(script: Script) -> Issues:
    for node in script.attribute_nodes:
        name = ast.unparse(node)
        for old, today in old_spellings.ATTRIBUTES.items():
            if name.endswith(f".{old}"):
                message = f"`{old}` is gone: write `{name.removesuffix(old)}{today}`."
                yield Issue(node.lineno, "breaks", message)


def _old_accuracy(script: Script) -> Issues:
    """The history uses the name under which `compile` got the metric."""
    for node in script.subscripts:
        key = script.value(node.slice)
        of_history = isinstance(node.value, ast.Attribute) and node.value.attr == "history"
        today = old_spellings.metric_today(key) if isinstance(key, str) else None
        if of_history and today and "acc" not in script.metrics:
            today = f"{ast.unparse(node.value)}[{today!r}]"
            yield Issue(
                node.lineno, "breaks", f"the history no longer has {key!r}: write `{today}`."
            )


def _shifts(generator: Generator) -> Issues:
    """See https://github.com/tensorflow/tensorflow/issues/82838, still open in Keras 3.15."""
    width, height = (
        generator.options.get(f"{side}_shift_range", 0) for side in ("width", "height")
    )
    for side, n in (("width", width), ("height", height)):
        if isinstance(n, int) and is_number(n) and n > 0:
            effect = "never shifts" if n == 1 else f"shifts by less than {n} pixels"
            message = (
                f"{side}_shift_range={n} {effect}, because an int n means -(n-1) to n-1 pixels: "
                f"write {n}.0 for up to {n}."
            )
            yield Issue(generator.line, "wrong", message)
    if is_number(width) and is_number(height) and width != height and generator.off():
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


def _is_model(call: Call) -> bool:
    return f"{call.owner}.compile" in call.script.attributes


def _gone_methods(call: Call) -> Issues:
    if call.method in call.script.functions:
        return
    today = old_spellings.METHODS.get(call.method)
    if today and (call.method.endswith("_generator") or _is_model(call)):
        message = f"`{call.method}` is gone: write `{call.owner}.{today}(…)`, with the same data."
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
    owner = old_spellings.owner_of(call.path)
    if call.model_method in READERS or (call.method and _is_model(call)):
        owner = f"Model.{call.model_method}"
    for name, row in old_spellings.keywords_of(owner).items():
        if name not in call.nodes or (row.kind == "wrong" and not call.values[name]):
            continue
        node, value = call.nodes[name], call.values[name]
        if row.none_alone and value is not None:
            continue
        today = dict(row.values).get(value) if isinstance(value, str) else None
        if row.old == row.new and today is None:
            continue
        if row.advice:
            rate = next((shown(call.nodes[k]) for k in _RATES if k in call.nodes), "…")
            advice = row.advice.format(name=name, value=shown(node), rate=rate)
            verb = "ignores" if row.kind == "wrong" else "no longer takes"
            message = f"`{owner.rpartition('.')[2]}` {verb} `{name}`: {advice}."
        else:
            given = repr(today) if today else shown(node)
            message = f"`{name}` was renamed: write `{row.new}={given}`."
        yield Issue(node.lineno, row.kind, message)


_RATES = (0, "learning_rate", "lr")


def _gone_values(call: Call) -> Issues:
    metrics = call.values.get("metrics")
    if call.method == "compile" and isinstance(metrics, str):
        message = f"`metrics` must be a list: write `metrics=[{metrics!r}]`."
        yield Issue(call.nodes["metrics"].lineno, "breaks", message)
    style = call.values.get(0)
    today = old_spellings.style_today(style) if isinstance(style, str) else None
    if today and call.path.endswith("style.use"):
        message = f"Matplotlib's style {style!r} was renamed: write {today!r}."
        yield Issue(call.line, "breaks", message)
    monitor, metrics = call.values.get("monitor"), call.script.metrics
    today = old_spellings.metric_today(monitor) if isinstance(monitor, str) else None
    if today and "acc" not in metrics and re.match(rf"{KERAS}\w", call.path):
        message = f"there is no {monitor!r} to monitor: write `monitor={today!r}`."
        yield Issue(call.nodes["monitor"].lineno, "wrong", message)
    key = call.values.get(0)
    today = old_spellings.metric_today(key) if isinstance(key, str) else None
    if call.method == "get" and call.owner == "logs" and today and "acc" not in metrics:
        message = f"the logs no longer have {key!r}: write `logs.get({today!r})`."
        yield Issue(call.line, "breaks", message)
    if old_spellings.owner_of(call.path) == "layers.Convolution2D" and 2 in call.nodes:
        filters, height, width = (shown(call.nodes[place]) for place in range(3))
        message = (
            f"today the third number is the stride: write `Conv2D({filters}, ({height}, {width}))`."
        )
        yield Issue(call.line, "wrong", message)


def _fit_data(call: Call) -> Issues:
    if call.model_method not in READERS:
        return
    data = next((call.nodes[key] for key in (0, "x", "generator") if key in call.nodes), None)
    if isinstance(call.data, Batches) and "batch_size" in call.nodes:
        message = "`batch_size` is ignored beside an iterator, which has its own: leave it out."
        yield Issue(call.nodes["batch_size"].lineno, "wrong", message)
    if isinstance(data, ast.Call) and getattr(data.func, "id", "") == "zip":
        message = (
            f"`{call.model_method}` no longer takes a zip: write "
            f"`(pair for pair in {shown(data)})`, and give `steps_per_epoch`."
        )
        yield Issue(call.line, "breaks", message)


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
    if not isinstance(path, str):
        return
    if re.fullmatch(rf"{KERAS}ModelCheckpoint", call.path):
        weights = call.values.get("save_weights_only") is True
        today = old_spellings.weights_file(path) if weights else None
        today = today or old_spellings.model_file(path, checkpoint=True)
        if today != path and not is_unknown(call.values.get("save_weights_only", False)):
            message = f"`ModelCheckpoint` rejects the file's ending: write {today!r}."
            yield Issue(call.line, "breaks", message)
    if call.method == "save_weights" and is_model and old_spellings.weights_file(path) != path:
        today = old_spellings.weights_file(path)
        message = f"weights must end in .weights.h5: write `{call.owner}.save_weights({today!r})`."
        yield Issue(call.line, "breaks", message)
    if path.endswith((".keras", ".h5", ".hdf5")):
        return
    if call.model_method == "save" and is_model:
        message = (
            f"Keras 3 can't tell the format from {path!r}: write `{call.owner}.save("
            f"{old_spellings.model_file(path)!r})`, or `{call.owner}.export({path!r})` for a "
            "TensorFlow SavedModel."
        )
        yield Issue(call.line, "breaks", message)
    if re.fullmatch(rf"{KERAS}load_model", call.path):
        message = (
            f"Keras 3 loads only .keras and .h5 files, not {path!r}: save the model as .keras and "
            f"load that, or write `keras.layers.TFSMLayer({path!r})` to predict with a SavedModel."
        )
        yield Issue(call.line, "breaks", message)


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
    _gone_values,
    _fit_data,
    _step_counts,
    _file_endings,
    _order_of_predictions,
)

"""`AugmentOptions`: the options of all transforms in one; the list of transforms."""

import dataclasses
import functools
import inspect
import textwrap
from collections.abc import Mapping

from asl_fast.transforms.brightness import Brightness
from asl_fast.transforms.channel_shift import ChannelShift
from asl_fast.transforms.checks import (
    DATA_FORMATS,
    check,
    check_choice,
    check_flags,
    finite,
    is_pair,
    plain,
)
from asl_fast.transforms.fill_modes import FILL_MODES
from asl_fast.transforms.flip import Flip
from asl_fast.transforms.random_erasing import RandomErasing
from asl_fast.transforms.rotation import Rotation
from asl_fast.transforms.shear import Shear
from asl_fast.transforms.shift import Shift
from asl_fast.transforms.transform import Control, Transform, option
from asl_fast.transforms.zoom import Zoom

__all__ = ["PARAMETERS", "TRANSFORMS", "AugmentOptions", "options_text", "signature"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugmentOptions(RandomErasing, Brightness, ChannelShift, Flip, Zoom, Shear, Shift, Rotation):
    """What `RandomAugment` may do to an image. All ranges are drawn from uniformly.

    Args:
        {options}

    Raises:
        ValueError: A value breaks its rule; names the option, the rule and the value.
    """

    # The list of transforms is the bases, last one first: each adds its options here, as typed
    # keywords, and `transforms` gives each its own back.

    fill_mode: str = option(
        "nearest",
        f"{', '.join(map(repr, FILL_MODES))}: what lies beyond the border, each as in "
        "`scipy.ndimage`.",
    )
    cval: float = option(
        0.0,
        'Float, what lies beyond the border for "constant"; in the units of the pixels.',
        Control("Fill colour, for the fill mode “constant”", 255, 5),
    )
    interpolation_order: int = option(
        1,
        "Int, 0 to 5: nearest pixel, bilinear, and B-splines.",
        Control("Interpolation: 0 nearest, 1 linear, up to 5 splines", 5),
    )
    data_format: str | None = option(
        None, '"channels_last", "channels_first", or None: what Keras is set to.'
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))
        check_flags(self, "quirks")
        for transform in TRANSFORMS:
            transform.check(self)
        check("cval", "a finite number", self.cval, finite(self.cval))
        check_choice("fill_mode", self.fill_mode, FILL_MODES)
        if self.data_format is not None:
            check_choice("data_format", self.data_format, DATA_FORMATS)
        order = self.interpolation_order
        whole = isinstance(order, int) and not isinstance(order, bool)
        check("interpolation_order", "an int from 0 to 5", order, whole and 0 <= order <= 5)
        limits = self.value_range
        check(
            "value_range",
            "a pair (lower, upper) with lower < upper",
            limits,
            is_pair(limits) and limits[0] < limits[1],
        )

    @functools.cached_property
    def transforms(self) -> tuple[Transform, ...]:
        """All transforms with these options, in the order in which they are drawn and applied."""
        return tuple(
            transform(**{f.name: getattr(self, f.name) for f in dataclasses.fields(transform)})
            for transform in TRANSFORMS
        )

    @functools.cached_property
    def idle(self) -> bool:
        """Whether no image is ever changed."""
        return not any(transform.active for transform in self.transforms)


TRANSFORMS: tuple[type[Transform], ...] = AugmentOptions.__bases__[::-1]

# All parameters in their order, each with the value that changes nothing.
PARAMETERS: Mapping[str, float] = {
    name: value for transform in TRANSFORMS for name, value in transform.parameters.items()
}


def options_text(indent: int) -> str:
    """Returns the options' documentation as the lines of an "Args:" section."""
    lines = []
    for field in dataclasses.fields(AugmentOptions):
        text = f"{field.name}: {field.metadata['text']}"
        lines += textwrap.wrap(text, 100 - indent, subsequent_indent="    ")
    return f"\n{' ' * indent}".join(lines)


def signature() -> list[inspect.Parameter]:
    """Returns the options as keyword-only parameters, for a callable that takes them all."""
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
        )
        for field in dataclasses.fields(AugmentOptions)
    ]


AugmentOptions.__doc__ = (AugmentOptions.__doc__ or "").replace("{options}", options_text(8))

"""Errors the user can fix."""

__all__ = [
    "DivergenceError",
    "ImageFileError",
    "InputError",
    "MissingColumnError",
    "WrongTypeError",
]


class InputError(ValueError):
    """A file, option or folder that the user gave is wrong.

    The message is one line: what was wrong, where, and what to do. The command line prints it and
    exits with code 2.
    """


class DivergenceError(InputError):
    """The loss became NaN or infinite; the message names the step."""


class WrongTypeError(TypeError, InputError):
    """A value is of a type that its argument does not take."""


class ImageFileError(FileNotFoundError, InputError):
    """A file or folder of images is missing or can't be read."""


class MissingColumnError(KeyError, InputError):
    """A table lacks a column."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would quote it

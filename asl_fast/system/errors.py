"""Errors the user can fix."""

import functools

__all__ = ["DivergenceError", "InputError", "input_error"]


class InputError(ValueError):
    """A file, option or folder that the user gave is wrong.

    The message is one line: what was wrong, where, and what to do. The command line prints it and
    exits with code 2.
    """


class DivergenceError(InputError):
    """The loss became NaN or infinite; the message names the step."""


@functools.cache
def input_error(kind: type[Exception]) -> type[InputError]:
    """Returns an `InputError` that is an error of another kind too, for scripts that expect that.

    Args:
        kind: A built-in exception, as `TypeError`.
    """
    if issubclass(InputError, kind):
        return InputError
    # A KeyError would quote its message.
    members = {"__doc__": kind.__doc__, "__str__": lambda error: str(error.args[0])}
    return type(f"{kind.__name__.removesuffix('Error')}InputError", (kind, InputError), members)

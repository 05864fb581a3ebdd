"""Errors the user can fix, and text from outside in messages."""

import functools

__all__ = ["DivergenceError", "InputError", "input_error", "printable"]

_BEGIN, _END = 1000, 500  # characters of a message that are kept


class InputError(ValueError):
    """A file, option or folder that the user gave is wrong.

    The message is one line: what was wrong, where, and what to do. The command line prints it and
    exits with code 2. What it quotes may be text of strangers: it is made `printable`, and a long
    message is cut in its middle.
    """

    def __init__(self, message: str = "") -> None:
        if len(message) > _BEGIN + _END:
            message = f"{message[:_BEGIN]} … {message[-_END:]}"
        super().__init__(printable(message))


class DivergenceError(InputError):
    """The loss became NaN or infinite; the message names the step."""


def printable(text: str) -> str:
    """Returns text with escapes for what a terminal would obey or can't show."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


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

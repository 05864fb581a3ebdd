"""Errors the user can fix."""

__all__ = ["DivergenceError", "InputError"]


class InputError(ValueError):
    """A file, option or folder that the user gave is wrong.

    The message is one line: what was wrong, where, and what to do. The command line prints it and
    exits with code 2.
    """


class DivergenceError(InputError):
    """The loss became NaN or infinite; the message names the step."""

"""Optional packages: which extra brings them, and how it is installed here."""

import shlex
from importlib import metadata
from pathlib import Path

from asl_fast.system.errors import InputError

__all__ = ["how_to_install", "missing"]

_DISTRIBUTION = "asl-fast"


def missing(what: str, extra: str) -> InputError:
    """Returns the error for a package that is not installed.

    Args:
        what: Needs it: "The demo".
        extra: One of those in pyproject.toml.
    """
    return InputError(
        f"{what} needs the extra {_DISTRIBUTION}[{extra}]. Install it with: {how_to_install(extra)}"
    )


def how_to_install(*extras: str) -> str:
    """Returns a command that installs extras: a clone's script, or pip for their packages."""
    script = Path(__file__).parents[2] / "scripts" / "install"
    if script.is_file():
        return shlex.join([str(script), *extras])
    needed = [
        requirement.split(";")[0].strip()
        for requirement in metadata.requires(_DISTRIBUTION) or ()
        for extra in extras
        if f'extra == "{extra}"' in requirement.replace("'", '"')
    ]
    return f"pip install {shlex.join(needed)}"

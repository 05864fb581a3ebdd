import os

import pytest

from asl_fast.commands import console
from asl_fast.system.errors import InputError

NAME = "x[/b] [red]y :cat: " + "z" * 100


@pytest.mark.parametrize("to", ["output", "notes"])
def test_names_are_printed_as_they_are(capsys, to):
    console.say(NAME, to=getattr(console, to))
    printed = capsys.readouterr()
    assert (printed.out if to == "output" else printed.err) == f"{NAME}\n"


def test_names_are_no_markup_in_tables_and_beside_the_spinner(capsys):
    console.facts([("results", NAME[:18])])
    assert NAME[:18] in capsys.readouterr().out
    with console.status(NAME) as update:
        update(NAME)


@pytest.mark.parametrize(("error", "shown"), [(InputError, ""), (OSError, "details")])
def test_what_libraries_write_is_shown_only_if_they_fail(capfd, error, shown):
    with pytest.raises(error), console.quietly("Working"):  # noqa: PT012
        os.write(2, b"details")
        raise error
    assert capfd.readouterr().err == shown

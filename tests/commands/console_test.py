import logging
import os
import sys

import pytest

from asl_fast.commands import cli, console
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


def test_text_from_outside_cannot_command_the_terminal(capsys, tmp_path, monkeypatch):
    evil = "\x1b[2J\x9b1m\r\n\u202egnp.exe\udc80 é 漢"
    shown = r"\x1b[2J\x9b1m\r\n\u202egnp.exe\udc80 é 漢"
    console.say(evil)
    console.facts([("results", evil)])
    with console.status(evil) as update:
        update(evil)
    printed = capsys.readouterr().out
    assert printed.startswith(f"{shown}\n")
    assert shown in printed.partition("\n")[2]
    assert str(InputError(evil)) == shown
    long = str(InputError(f"begin {'x' * 30_000_000} end"))
    assert (long[:7], long[-5:], len(long)) == ("begin x", "x end", 1503)
    # A header and a cell of a table, through the whole command line.
    header = ",".join(["label", *(f"pixel{i}" for i in range(1, 785))])
    for text, said in (
        (evil.replace("\udc80", "").replace("\r\n", "") + ",b", "Its header begins: "),
        (f"{header}\n{evil[:6]}" + ",9" * 784, "row 1, column label: holds"),
        (f"{header[:-3]}{evil[:6]}\n", "pixel784 missing"),
    ):
        (tmp_path / "a.csv").write_text(text)
        monkeypatch.setattr(sys, "argv", ["asl-fast", "data", "convert", f"{tmp_path}/a.csv"])
        sys.argv += ["--to", str(tmp_path / "records")]
        with pytest.raises(SystemExit):
            cli.main()
        error = capsys.readouterr().err
        assert said in error
        assert "\x1b[2J" not in error
    handlers = []
    monkeypatch.setattr(
        logging, "basicConfig", lambda **options: handlers.extend(options["handlers"])
    )
    with pytest.raises(SystemExit):
        cli.main()
    capsys.readouterr()
    record = {"name": "asl_fast.x", "msg": "%s is damaged", "args": (evil[:6],)}
    handlers[0].handle(logging.makeLogRecord({**record, "levelno": 30, "levelname": "WARNING"}))
    assert r"\x1b[2J" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "shown"), [(InputError, ""), (OSError, "details")])
def test_what_libraries_write_is_shown_only_if_they_fail(capfd, error, shown):
    with pytest.raises(error), console.quietly("Working"):  # noqa: PT012
        os.write(2, b"details")
        raise error
    assert capfd.readouterr().err == shown

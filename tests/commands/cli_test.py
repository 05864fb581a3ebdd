import json
import subprocess
import sys

from asl_fast import __version__

HELP = """
import json, sys
import typer
from typer.testing import CliRunner
from asl_fast.commands.cli import app

def pages(command, *path):
    yield " ".join(path), CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80"}).output
    for name, subcommand in getattr(command, "commands", {}).items():
        yield from pages(subcommand, *path, name)

found = dict(pages(typer.main.get_command(app)))
heavy = {"tensorflow", "keras", "pandas", "numpy", "matplotlib", "PIL"} & set(sys.modules)
print(json.dumps([found, sorted(heavy)]))
"""
COMMANDS = ["train", "preview", "evaluate", "predict", "export", "run", "check", "doctor", "bench"]
COMMANDS += ["report", "demo", "data"]


def test_help_is_whole_and_loads_nothing_heavy():
    ran = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    pages, heavy = json.loads(ran.stdout)
    assert heavy == []
    data = [f"data {name}" for name in ("info", "fetch", "convert", "serve", "render")]
    assert list(pages) == ["", *COMMANDS, *data]
    for name, page in pages.items():
        assert page.startswith("Usage: "), name
        assert max(map(len, page.splitlines())) <= 80, name
    for group in ("", "data"):
        assert "..." not in pages[group].partition("Commands:")[2]  # no summary is cut short
    assert "the extra asl-fast[kaggle]" in pages["data fetch"]
    headings = [line for line in pages["train"].splitlines() if line[:1].strip()]
    assert headings[1:] == ["Data:", "Recipe:", "Machine:", "Output:", "Options:"]
    for option in ("--batch-norm-momentum <float>", "--steps-per-execution <int>", "--network"):
        assert f"  {option}" in pages["train"]


def test_the_version(asl_fast_here):
    assert asl_fast_here("--version").stdout == f"asl-fast {__version__}\n"

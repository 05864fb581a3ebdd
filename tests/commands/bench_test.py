import sys
from pathlib import Path

import pytest

from asl_fast.commands.console import output
from benchmarks import bench
from benchmarks.cell import Cell


@pytest.mark.parametrize("missing", ["benchmarks", "scipy"])
@pytest.mark.parametrize("arguments", [["--quick"], ["--compare", "a.json", "b.json"]])
def test_what_is_not_installed_is_named(asl_fast_here, monkeypatch, missing, arguments):
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, name)
    if missing == "benchmarks":
        paths = [path for path in sys.path if not (Path(path) / "benchmarks").is_dir()]
        monkeypatch.setattr(sys, "path", paths)
    else:
        monkeypatch.setitem(sys.modules, missing, None)
    result = asl_fast_here("bench", *arguments)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("asl-fast: The benchmarks ")
    if missing == "scipy":
        assert "no module scipy. They need the extras asl-fast[bench,peers]." in line
        assert line.endswith("scripts/install bench peers")
    else:
        assert "part of the source, not of the installed package" in line


def test_how_to_install_a_rival_is_printed_as_it_is(capsys):
    why = "DALI is not installed: pip install -e '.[peers]'"
    bench._show(Cell("files", {"batch": 32}, "images/s", {}, (0.0, 0.0), {"DALI": why}), output)
    assert why in capsys.readouterr().out

"""The wheel holds what the package needs, and works without the checkout."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

USE = """
import importlib.resources, pathlib, sys
import asl_fast
from asl_fast.commands import cli
here = pathlib.Path(asl_fast.__file__).parent
assert here.is_relative_to(sys.argv[1]), here
for name in ("py.typed", "docs/api.md", "docs/data.md", "training/run_report.html"):
    assert (importlib.resources.files("asl_fast") / name).is_file(), name
sys.argv = ["asl-fast", "preview", "--out", sys.argv[2]]
cli.main()
"""


def test_the_wheel_is_complete(tmp_path):
    def run(*words, **kwargs):
        subprocess.run([sys.executable, *map(str, words)], check=True, timeout=240, **kwargs)

    run("-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    run("-m", "twine", "check", "--strict", wheel)
    target = tmp_path / "site"
    install = ["install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    run("-m", "pip", *install, "--target", target, wheel)
    environment = os.environ | {"PYTHONPATH": str(target)}
    picture = tmp_path / "preview.png"
    run("-c", USE, target, picture, cwd=tmp_path, env=environment)
    assert picture.stat().st_size > 10_000

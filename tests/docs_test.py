"""Every snippet of the README and the pages runs as written."""

import re
import shlex
import sys
import tomllib
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import asl_fast
from asl_fast.commands import cli
from scripts import api_reference
from tests.samples import blobs, write_csv

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "asl_fast" / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SNIPPET = re.compile(r"^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with what the snippets name: data, photographs, pictures by class, a run."""
    folder = tmp_path_factory.mktemp("docs")
    images, labels = blobs(160)
    (folder / "data").mkdir()
    for name in ("data/sign_mnist_train.csv", "data/sign_mnist_valid.csv", "sign_mnist_train.csv"):
        write_csv(folder / name, images, labels)
    random = np.random.default_rng(0)
    names = [
        f"pictures/{part}/{kind}/{i}.jpg"
        for part in ("train", "valid")
        for kind in "ab"
        for i in range(4)
    ]
    for name in ["photos/a.jpg", "photos/b.png", *names]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / name)
    return folder


@pytest.fixture(autouse=True)
def inside(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ASL_FAST_CACHE", str(folder / "cache"))


def run_line(line, monkeypatch):
    """Runs a command in this process; others are only looked at."""
    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] == "asl-fast":
        monkeypatch.setattr(sys, "argv", words)
        code: object = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        assert not code, line
    elif words[0] == "pip":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for names in re.findall(r"\[(.*?)\]", line):
            assert set(names.split(",")) <= set(project["optional-dependencies"]), line
    else:
        assert (ROOT / words[0]).stat().st_mode & 0o100, line


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_snippet_runs(page, folder, monkeypatch):
    if page != PAGES[0] and not (folder / "runs" / "mine").exists():
        run_line("asl-fast train --data data --epochs 1 --out runs/mine", monkeypatch)
    model = asl_fast.build_cnn()
    model.compile("rmsprop", "categorical_crossentropy")
    images, labels = blobs(64)
    names = {"model": model, "x_train": images, "y_train": keras.utils.to_categorical(labels, 24)}
    for kind, text in SNIPPET.findall(page.read_text()):
        if kind == "python":
            exec(compile(text, str(page), "exec"), names)
        else:
            for line in text.splitlines():
                run_line(line, monkeypatch)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_and_pictures_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)]+)\)|(?:src|srcset)=\"([^\"]+)\"", text):
        path, _, anchor = "".join(target).partition("#")
        if "://" in path:
            continue
        there = page.parent / path if path else page
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in slugs, target


def test_the_readme_fits_two_hundred_lines():
    assert len(PAGES[0].read_text().splitlines()) <= 200


def test_the_reference_is_what_the_docstrings_say():
    assert api_reference.PAGE.read_text() == api_reference.reference()

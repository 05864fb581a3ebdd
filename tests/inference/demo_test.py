import contextlib
import http.client
import json
import os
import signal
import socket
import sys
import time

import keras
import numpy as np
import pytest
from PIL import Image

from asl_fast import InputError
from asl_fast.commands.demo import _examples
from asl_fast.data import dataset
from asl_fast.data.synthetic_hands import LETTERS
from asl_fast.inference import demo, demo_door
from asl_fast.models import saving
from tests import forked
from tests.pages import visit
from tests.samples import blobs


@pytest.fixture
def template_model(tmp_path):
    """A model that classifies blobs without training: by the brightness of each square."""
    images, labels = blobs(480)
    templates = np.stack([images[labels == i].mean(axis=0).ravel() for i in range(24)], axis=1)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(24, activation="softmax"),
        ]
    )
    model.set_weights([(templates - templates.mean()) / 100, np.zeros(24)])
    saving.save_model(model, tmp_path / "model.keras", LETTERS)
    return tmp_path / "model.keras"


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def served(template_model, port, tmp_path):
    """The process that serves the demo, and its log."""
    pytest.importorskip("gradio")
    log = tmp_path / "log"
    process = forked.start(log, forked.command_line, "demo", template_model, "--port", port)
    while not (log.exists() and "stops it" in log.read_text()):
        assert process.is_alive(), log.read_text()
        time.sleep(0.05)
    yield process, log
    process.kill()
    process.join()


def test_a_visit(browser, served, port, tmp_path):
    images, labels = blobs(24)
    picture = Image.fromarray(images[7, ..., 0]).resize((300, 300), Image.Resampling.NEAREST)
    picture.save(tmp_path / "hand.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "large.png").write_bytes(os.urandom(11 << 20))
    address = f"http://127.0.0.1:{port}/"
    with visit(browser, address) as visited:
        page = visited.page
        upload = page.locator("input[type=file]").first

        def put(name):
            upload.set_input_files(tmp_path / name)

        upload.wait_for(state="attached")
        put("hand.png")
        answer = page.get_by_test_id("label-output-value")
        answer.wait_for()
        assert answer.inner_text() == LETTERS[labels[7]]
        assert page.get_by_text("What the model sees").is_visible()

        page.get_by_label("Remove Image").first.click()
        answer.wait_for(state="detached")
        assert "Hold one hand" in page.locator("body").inner_text()
        page.locator(".gallery-item").last.click()  # an example
        answer.wait_for()
        assert answer.inner_text() in LETTERS
        page.get_by_label("Remove Image").first.click()
        answer.wait_for(state="detached")
        upload.wait_for(state="attached")
        put("text.png")
        error = page.locator(".toast-body")
        error.get_by_text("text.png").wait_for()
        assert "/" not in error.inner_text()  # the folder that Gradio put it in
        assert answer.count() == 0
        assert error.count() == 1
        page.get_by_label("Remove Image").first.click()
        put("large.png")
        page.get_by_text("exceed the maximum allowed size").first.wait_for()

        page.get_by_role("tab", name="Augmentation").click()
        draws = page.get_by_role("tabpanel").locator(".pixels img").last
        draws.wait_for()

        def changed_by(act):
            before = draws.get_attribute("src")
            act()
            page.wait_for_function(
                "([image, before]) => image.src !== before",
                arg=[
                    draws.element_handle(),
                    page.evaluate("s => new URL(s, document.baseURI).href", before),
                ],
            )

        changed_by(page.get_by_role("button", name="Draw again").click)
        changed_by(page.get_by_label("Flip top and bottom").click)
        # The lowest brightness above the highest: they are swapped.
        for option, value in (("Rotation", "90"), ("Brightness, lowest", "2")):
            place = page.get_by_label(f"number input for {option}")
            place.fill(value)
            changed_by(lambda place=place: place.press("Tab"))

        # Messages of Gradio's own page, and of an upload's progress that has ended before it asks.
        own = ("Method not implemented.", "Response", f"{address}gradio_api/upload_progress?")
        assert [words for words in visited.complaints if not words.startswith(own)] == []
        assert all(request.startswith(address) for request in visited.requests)
        assert visited.is_as_wide_as_the_window()
        process, log = served
        os.kill(process.pid, signal.SIGINT)
        process.join()
    assert process.exitcode == 0
    assert log.read_text() == f"Open {address} – Ctrl-C stops it.\n"


def test_the_heading_and_the_examples_fit_the_classes(tmp_path, monkeypatch):
    assert "Hold one hand" in demo.heading(LETTERS)
    assert "Classifies pictures: cat, a &lt;b&gt;." in demo.heading(["cat", "a <b>"])
    assert "Hold one hand" not in demo.heading(["A", "B"])
    assert "29, …" in demo.heading([str(number) for number in range(40)])
    assert list(demo.drawn_examples()) == list("ABLVWY")

    images = np.zeros((4, 6, 5, 3), np.uint8)
    images[:, 0, 0, 0] = 1, 2, 3, 4
    np.savez(tmp_path / "data.npz", x=images * 60, y=np.array([0, 0, 1, 1]))
    facts = dataset.load(tmp_path / "data.npz", validation_split=0.5).describe()
    (tmp_path / "metrics.json").write_text(json.dumps({"dataset": facts}))
    shown = _examples(tmp_path, ("0", "1"))
    assert {name: image.shape for name, image in shown.items()} == dict.fromkeys("01", (6, 5, 3))
    (tmp_path / "data.npz").unlink()
    assert _examples(tmp_path, ("0", "1")) == {}


def ask(port, method, path, body=None, **headers):
    """Sends a request; returns the status and the text of the answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as server:
        server.request(method, path, body, {"Host": f"127.0.0.1:{port}", **named})
        answer = server.getresponse()
        return answer.status, answer.read().decode()


def call(port, number, *data):
    """Calls a function of the page as its script does; returns what the page would show."""
    session = f"session-{time.monotonic_ns()}"
    event = {"data": data, "fn_index": number, "session_hash": session}
    status, text = ask(
        port, "POST", "/gradio_api/queue/join", json.dumps(event), Content_Type="application/json"
    )
    assert status == 200, text
    _, text = ask(port, "GET", f"/gradio_api/queue/data?session_hash={session}")
    messages = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    return next(one["output"] for one in messages if one["msg"] == "process_completed")


def test_the_door(served, port, tmp_path):
    process, log = served
    picture = Image.fromarray(blobs(1)[0][0, ..., 0])
    picture.save(tmp_path / "hand.png")
    os.mkfifo(tmp_path / "pipe")
    form = (
        b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        + (tmp_path / "hand.png").read_bytes()
        + b"\r\n--x--\r\n"
    )
    kind = {"Content_Type": "multipart/form-data; boundary=x"}
    here, upload = f"127.0.0.1:{port}", "/gradio_api/upload"
    elsewhere = [
        {"Host": "evil.example"},
        {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "[::1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{port + 1}"},
    ]
    for headers in elsewhere:
        assert ask(port, "GET", "/config", **headers)[0] == 403
        assert ask(port, "POST", upload, form, **kind, **headers)[0] == 403
    for headers in ({}, {"Host": "localhost"}, {"Host": "[::1]:1"}, {"Origin": f"http://{here}"}):
        assert ask(port, "GET", "/config", **headers)[0] == 200
    status, uploaded = ask(port, "POST", upload, form, **kind)
    assert status == 200
    assert ask(port, "POST", upload, Content_Length=str(1 << 40))[0] == 413
    assert ask(port, "POST", upload, iter([form]), **kind)[0] == 411

    # Events as no page sends them.
    events = json.loads(ask(port, "GET", "/config")[1])["dependencies"]
    classify = next(e["id"] for e in events if len(e["inputs"]) == 1 and len(e["outputs"]) == 2)
    answer = call(port, classify, {"path": json.loads(uploaded)[0]})
    assert answer["data"][0]["label"] in LETTERS
    others = ("hand.png", "nothing.png", "pipe", "/dev/zero", ".")
    told = {str(call(port, classify, {"path": str(tmp_path / other)})) for other in others}
    assert len(told) == 1
    assert "not uploaded" in told.pop()
    for data in ([], [7], [{"path": 7}], [{"path": "a\0b"}], [{"path": "\x1b[2J"}], [[]] * 9):
        assert "error" in call(port, classify, *data)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 0
    assert "Traceback" not in log.read_text()
    assert "\x1b" not in log.read_text()


def test_pictures_are_bounded_in_number(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_door, "_KEPT", 3)
    for number in range(6):
        (tmp_path / str(number)).mkdir()
        os.utime(tmp_path / str(number), (number, number))
    demo_door.Door(None, "", str(tmp_path), 0)._clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "4", "5"]


def test_letters_are_no_markup():
    heading = demo.heading(["<img src=http://evil.example>", "\x1b[2J", "A"] * 1000)
    assert heading.startswith("<h1>asl-fast</h1><p>Classifies pictures: &lt;img")
    assert "<img" not in heading
    assert "\x1b" not in heading
    assert len(heading) < 2000


def test_a_port_in_use_is_named(port):
    pytest.importorskip("gradio")
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(InputError, match=f"Port {port} of 127.0.0.1 is in use.*--port"),
    ):
        demo.serve(None, port=port)
    with pytest.raises(InputError, match="Can't listen on port .* of 203.0.113.1: "):
        demo.serve(None, "203.0.113.1", port)


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=r"the extra asl-fast\[demo\]"):
        demo.serve(None)

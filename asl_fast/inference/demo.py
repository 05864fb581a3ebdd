"""A web page to try a model: classify a picture, and see the augmentation."""

import contextlib
import dataclasses
import errno
import html
import logging
import os
import socket
import string
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from asl_fast.data import synthetic_hands as hands
from asl_fast.inference.classifier import Classifier
from asl_fast.inference.demo_door import Door, hold_tracebacks
from asl_fast.models.recipe import DEFAULT, RECIPES
from asl_fast.system import extras
from asl_fast.system.errors import InputError, printable
from asl_fast.system.signals import handled
from asl_fast.transforms.augment_options import AugmentOptions
from asl_fast.transforms.fill_modes import FILL_MODES
from asl_fast.transforms.random_augment import RandomAugment
from asl_fast.transforms.transform import Control

__all__ = ["build", "drawn_examples", "heading", "serve"]

_UPLOAD_BYTES = 10 << 20
_SIDE = 4  # images in each row and column of the grid of draws
_SHOWN = 480  # pixels
_NAMED = 30  # classes, at most
_LETTERS = 1000  # characters of all names
_EXAMPLES = "ABLVWY"
_OF_HANDS = (
    "Hold one hand, palm to the camera, before a plain wall in even light, so that it fills most "
    "of the picture, upright and without the face. J and Z are signed by a movement, and are not "
    "among the letters."
)


# The options that the page lets people set, each by its control.
_CONTROLS: dict[str, Control] = {
    field.name: field.metadata["control"]
    for field in dataclasses.fields(AugmentOptions)
    if field.metadata["control"] is not None
}


def serve(
    classifier: Classifier,
    host: str = "127.0.0.1",
    port: int = 7860,
    ready: Callable[[str], object] = lambda url: None,
    examples: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Serves the page until Ctrl-C or SIGTERM, then deletes uploaded pictures.

    Args:
        classifier: Classifies the pictures.
        host: The address to listen on; "0.0.0.0" admits other machines.
        port: The TCP port.
        ready: Called with the page's URL once it can be opened.
        examples: Images to try, uint8 (height, width, 1 or 3), by their class.

    Raises:
        InputError: Gradio is not installed, or host and port are not available.
    """
    gradio = _import_gradio()
    _check_free(host, port)
    with tempfile.TemporaryDirectory(prefix="asl-fast-demo-") as uploads:
        os.environ["GRADIO_TEMP_DIR"] = uploads
        page = build(classifier, _written(examples or {}, Path(uploads)))
        hold_tracebacks([gradio.queueing, gradio.routes])
        door = {"host": host, "folder": uploads, "largest": _UPLOAD_BYTES}
        page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size=_UPLOAD_BYTES,
            app_kwargs={"middleware": [(Door, (), door)]},
            # System fonts, since Gradio's would be fetched from the network.
            theme=gradio.themes.Base(
                font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
            ),
            css=".pixels img { image-rendering: pixelated; }",
        )
        stop = threading.Event()
        with handled(lambda *_: stop.set()):
            ready(page.local_url)
            stop.wait()
        # Otherwise it would wait for open pages to close, and log errors about them.
        page.server.force_exit = True
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        page.close(verbose=False)


def drawn_examples() -> dict[str, np.ndarray]:
    """Returns drawn hands to try, 28x28, of a few letters that are easy to tell apart."""
    images, labels = hands.render(len(hands.LETTERS), split="valid", workers=1)
    by_letter = dict(zip((hands.LETTERS[label] for label in labels), images, strict=True))
    return {letter: by_letter[letter] for letter in _EXAMPLES if letter in by_letter}


def _written(examples: Mapping[str, np.ndarray], folder: Path) -> list[str]:
    """Writes examples to files that Gradio may show, enlarged, and returns their paths."""
    paths = []
    for number, image in enumerate(examples.values()):
        path = folder / f"example-{number}.png"
        Image.fromarray(_enlarge(image)).save(path)
        paths.append(str(path))
    return paths


def build(classifier: Classifier, examples: Sequence[str] = ()) -> Any:
    """Returns the page, a `gradio.Blocks`.

    Args:
        classifier: Classifies the pictures.
        examples: Files of pictures to try.

    Raises:
        InputError: Gradio is not installed.
    """
    gr = _import_gradio()
    with gr.Blocks(title="asl-fast", analytics_enabled=False) as page:
        gr.HTML(heading(classifier.letters))
        with gr.Tab("Classify"), gr.Row():
            _build_classification(gr, classifier, examples)
        with gr.Tab("Augmentation"), gr.Row():
            _build_augmentation(gr, page, classifier)
    return page


def heading(classes: Sequence[str]) -> str:
    """Returns the page's heading, HTML; in Markdown a class might be a picture from elsewhere."""
    of_hands = len(classes) >= len(hands.LETTERS) and set(classes) <= set(string.ascii_uppercase)
    names = printable((" " if of_hands else ", ").join(classes[:_NAMED]))[:_LETTERS]
    names += ", …" if len(classes) > _NAMED else ""
    what = "the letter that a hand signs" if of_hands else "pictures"
    advice = _OF_HANDS if of_hands else "Give a picture that shows little else."
    return f"<h1>asl-fast</h1><p>Classifies {what}: {html.escape(names)}.</p><p>{advice}</p>"


# Of events: the page's own, and no progress bar over the pictures.
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def _build_classification(gr: ModuleType, classifier: Classifier, examples: Sequence[str]) -> None:
    def classify(path: str | None) -> tuple[Any, Any]:
        if path is None:
            return None, None
        [(prediction, note)] = classifier.predict_files([path])
        with _errors_as_toasts(gr, path):
            if isinstance(prediction, InputError):
                raise prediction
            seen = _enlarge(classifier.prepare(path))
        if note:
            gr.Info(html.escape(note.replace(path, Path(path).name)))
        return dict(prediction.top), seen

    with gr.Column():
        picture = _picture_input(gr, 400)
    with gr.Column():
        answer = gr.Label(label="Class", num_top_classes=3)
        seen = _picture_output(gr, "What the model sees")
    if examples:
        # Not by gr.Examples, which makes the picture anew, without its `preprocess` below.
        shelf = gr.Dataset(
            components=[gr.Image(render=False)], samples=[[path] for path in examples]
        )
        shelf.click(lambda row: row[0], shelf, picture, **_QUIET)
    # Of examples too, which are no input of the user's to Gradio.
    shown = picture.change(classify, picture, [answer, seen], trigger_mode="always_last", **_QUIET)
    # A failed picture must not show the letter of the one before.
    shown.failure(lambda: (None, None), None, [answer, seen], **_QUIET)


def _build_augmentation(gr: ModuleType, page: Any, classifier: Classifier) -> None:
    def augment(path: str | None, draw: int, *values: Any) -> Any:
        with _errors_as_toasts(gr, path):
            image = classifier.prepare(_rendered_hand() if path is None else path)
            return _grid(image, _options(*values), draw)

    def redraw(path: str | None, draw: int, *values: Any) -> tuple[int, Any]:
        return draw + 1, augment(path, draw + 1, *values)

    start = RECIPES[DEFAULT].augment
    with gr.Column():
        picture = _picture_input(gr, 220)
        gr.Markdown("Without a picture, a rendered hand is shown.")
        again = gr.Button("Draw again", variant="primary")
        draws = _picture_output(gr, f"{_SIDE**2} draws", show_label=False)
    with gr.Column():
        controls = [
            component
            for name in _CONTROLS
            for component in _components(gr, name, getattr(start, name))
        ]
        controls.append(gr.Dropdown(list(FILL_MODES), value=start.fill_mode, label="Fill mode"))
    draw = gr.State(0)
    inputs = [picture, draw, *controls]
    # Sliders on release, since each value on the way would compile its own program.
    changes = [c.release if isinstance(c, gr.Slider) else c.change for c in controls]
    events = [page.load, picture.input, picture.clear, *changes]
    gr.on(events, augment, inputs, draws, trigger_mode="always_last", **_QUIET)
    again.click(redraw, inputs, [draw, draws], **_QUIET)


def _picture_input(gr: ModuleType, height: int) -> Any:
    picture = gr.Image(
        label="Picture",
        sources=["upload", "webcam", "clipboard"],
        # A mirrored right hand would be a left one.
        webcam_options=gr.WebcamOptions(mirror=False),
        height=height,
    )
    # The uploaded file as it is: the classifier decodes it, with clearer errors.
    picture.preprocess = lambda payload: _uploaded(gr, payload and payload.path)
    return picture


def _uploaded(gr: ModuleType, path: str | None) -> str | None:
    """Returns the path of an uploaded picture; whoever reaches the port may send any other."""
    if path is None:
        return None
    place = os.path.realpath(path)
    folder = os.path.realpath(gr.utils.get_upload_folder())
    if not Path(place).is_relative_to(folder) or not os.path.isfile(place):
        raise gr.Error("This picture was not uploaded, or is gone.", print_exception=False)
    return place


def _picture_output(gr: ModuleType, label: str, *, show_label: bool = True) -> Any:
    return gr.Image(
        label=label,
        show_label=show_label,
        format="png",
        interactive=False,
        buttons=[],
        elem_classes="pixels",
    )


@contextlib.contextmanager
def _errors_as_toasts(gr: ModuleType, path: str | None) -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # AugmentOptions' errors, too
        text = str(error)
        if path is not None:
            text = text.replace(path, Path(path).name)
        raise gr.Error(html.escape(text), print_exception=False) from None


def _import_gradio() -> ModuleType:
    # Unless these are set before, Gradio reports each import and each page to its makers.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ImportError:
        raise extras.missing("The demo", "demo") from None
    return gradio


def _check_free(host: str, port: int) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"Port {port} of {host} is in use. Choose another with --port."
            ) from None
        raise InputError(f"Can't listen on port {port} of {host}: {error.strerror}.") from None


def _components(gr: ModuleType, name: str, value: Any) -> list[Any]:
    """Returns what sets an option: a switch, a slider, or a slider for each end of a pair."""
    control = _CONTROLS[name]
    if control.highest is None:
        return [gr.Checkbox(value, label=control.label)]
    ends = {f"{control.label}, lowest": 0, f"{control.label}, highest": 1}
    if not control.both:
        return [gr.Slider(0, control.highest, value, step=control.step, label=control.label)]
    pair = (1, 1) if value is None else value
    return [
        gr.Slider(0, control.highest, pair[end], step=control.step, label=label)
        for label, end in ends.items()
    ]


def _options(*values: Any) -> AugmentOptions:
    """Returns the options for the values of all controls and the fill mode, in this order."""
    rest, defaults = iter(values), AugmentOptions()
    options: dict[str, Any] = {}
    for name, control in _CONTROLS.items():
        if control.both:
            # While the one end is moved past the other, they change places.
            pair = tuple(sorted(float(next(rest)) for _ in range(2)))
            # A factor of 1 stands for an option that is off.
            off = pair == (1, 1) and getattr(defaults, name) is None
            options[name] = None if off else pair
        else:
            # The page sends whole numbers where it can; as a shift they would be pixels.
            kind = type(getattr(defaults, name))
            options[name] = kind(next(rest))
    return AugmentOptions(**options, fill_mode=next(rest))


def _grid(image: np.ndarray, options: AugmentOptions, draw: int) -> np.ndarray:
    """Returns a uint8 picture of the draws for samples 0, 1, … in epoch `draw`."""
    layer = RandomAugment(**dataclasses.asdict(options), dtype="float32")
    count = _SIDE**2
    images = np.repeat(image[None], count, axis=0)
    drawn = np.asarray(layer(images, samples=np.arange(count), epoch=draw, training=True))
    drawn = np.clip(np.rint(drawn), 0, 255).astype(np.uint8)
    height, width, channels = image.shape
    framed = np.pad(drawn, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = framed.reshape(_SIDE, _SIDE, height + 2, width + 2, channels).swapaxes(1, 2)
    return _enlarge(rows.reshape(_SIDE * (height + 2), _SIDE * (width + 2), channels))


def _rendered_hand() -> np.ndarray:
    return hands.render(1, split="valid", workers=1)[0][0]


def _enlarge(image: np.ndarray) -> np.ndarray:
    """Enlarges uint8 (height, width, 1 or 3) by a whole factor: browsers blur small pictures."""
    factor = max(1, _SHOWN // len(image))
    return image.squeeze(-1 if image.shape[-1] == 1 else ()).repeat(factor, 0).repeat(factor, 1)

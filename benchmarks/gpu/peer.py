"""The training step as an expert writes it in PyTorch: one CUDA graph, data on the device.

The course's network, RMSprop, and the course's augmentation in one resampling. Needs no TensorFlow;
reads the images that `benchmarks.gpu.sections` saved in the report's folder.
"""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # as PyTorch's documentation does
from torch import nn

from benchmarks.gpu.figures import Items, Request, main, spread

_CUDA = torch.cuda.is_available()
_DEVICE = "cuda" if _CUDA else "cpu"


class Network(nn.Module):
    """The network of `asl_fast.build_cnn`, with its defaults of Keras."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(*channels, 3, padding=1) for channels in ((1, 75), (75, 50), (50, 25))
        )
        self.normalizations = nn.ModuleList(
            nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01) for channels in (75, 50, 25)
        )
        self.dropouts = nn.ModuleList([nn.Identity(), nn.Dropout(0.2), nn.Identity()])
        self.hidden, self.dropout = nn.Linear(400, 512), nn.Dropout(0.3)
        self.letters = nn.Linear(512, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns logits, (n, 24), of images in [0, 1], (n, 1, 28, 28)."""
        blocks = zip(self.convolutions, self.dropouts, self.normalizations, strict=True)
        for convolution, dropout, normalization in blocks:
            x = normalization(dropout(F.relu(convolution(x))))
            x = F.max_pool2d(x, 2, ceil_mode=True)
        return self.letters(self.dropout(F.relu(self.hidden(x.flatten(1)))))


def augment(
    images: torch.Tensor,
    rotation: float = 10.0,
    zoom: tuple[float, float] = (0.9, 1.1),
    shift: float = 0.1,
    flip: bool = True,
) -> torch.Tensor:
    """Rotates, zooms, shifts and mirrors float images, (n, 1, h, w): one matrix an image."""
    n, device = len(images), images.device
    draw = torch.rand(n, 6, device=device)
    angle = (draw[:, 0] * 2 - 1) * math.radians(rotation)
    zoom_x, zoom_y = (zoom[0] + (zoom[1] - zoom[0]) * draw[:, i] for i in (1, 2))
    # A side is 2 long in the coordinates of `grid_sample`.
    shift_x, shift_y = ((draw[:, i] * 2 - 1) * 2 * shift for i in (3, 4))
    sign = torch.where(draw[:, 5] < (0.5 if flip else 0.0), -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    first = torch.stack([sign * zoom_x * cos, -zoom_y * sin, shift_x], 1)
    second = torch.stack([sign * zoom_x * sin, zoom_y * cos, shift_y], 1)
    grid = F.affine_grid(torch.stack([first, second], 1), images.shape, align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _step(
    images: torch.Tensor,
    labels: torch.Tensor,
    index: torch.Tensor,
    bfloat16: bool,
    augmented: bool,
) -> Callable[[], None]:
    """Returns a training step on the rows in `index`, recorded as one CUDA graph."""
    torch.manual_seed(0)
    network = Network().to(_DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.RMSprop(
        network.parameters(), lr=1e-3, alpha=0.9, eps=1e-7, capturable=_CUDA, foreach=True
    )

    def loss() -> torch.Tensor:
        x = images[index].float() * (1 / 255)
        x = augment(x) if augmented else x
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(_DEVICE, torch.bfloat16, enabled=bfloat16, cache_enabled=False):
            logits = network(x)
        return F.cross_entropy(logits.float(), labels[index])

    compiled = torch.compile(loss, dynamic=False) if _CUDA else loss

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        compiled().backward()
        optimizer.step()

    if not _CUDA:
        return step
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # a graph can't be recorded on the default stream's first run
        for _ in range(4):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def peer(request: Request) -> Items:
    """Returns by batch and precision what measures the step, in whole epochs."""
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    with np.load(request.out / "train.npz") as arrays:
        images = torch.tensor(arrays["images"].transpose(0, 3, 1, 2), device=_DEVICE)
        labels = torch.tensor(arrays["labels"].astype(np.int64), device=_DEVICE)

    def measure(batch: int, bfloat16: bool, augmented: bool) -> dict[str, Any]:
        begin = time.perf_counter()
        steps = len(images) // batch
        index = torch.arange(batch, device=_DEVICE)
        step = _step(images, labels, index, bfloat16, augmented)
        step()
        _wait()
        start = time.perf_counter() - begin
        milliseconds = []
        for _ in range(2 if request.small else 7):
            order = torch.randperm(len(images), device=_DEVICE)
            _wait()
            begin = time.perf_counter()
            for i in range(steps):
                index.copy_(order[i * batch : (i + 1) * batch])
                step()
            _wait()
            milliseconds.append(1e3 * (time.perf_counter() - begin) / steps)
        measured = spread(milliseconds, "ms_a_step")
        rate = 1e3 * batch / measured["ms_a_step"]
        return {**measured, "images_a_second": rate, "start_s": start, "torch": torch.__version__}

    plan = [(32, True, True), (2048, True, True), (128, True, True), (512, True, True)]
    plan += [(2048, True, False), (2048, False, True), (32, False, True)]
    items: Items = {}
    for batch, bfloat16, augmented in plan[:1] if request.small else plan:
        name = f"{batch}, {'bfloat16' if bfloat16 else 'float32'}"
        name += "" if augmented else ", not augmented"
        items[name] = functools.partial(measure, batch, bfloat16, augmented)
    return items


def _wait() -> None:
    if _CUDA:
        torch.cuda.synchronize()


if __name__ == "__main__":
    main({"peer": peer})

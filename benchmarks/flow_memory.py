"""Peak memory of ten passes over the course's arrays, beside the arrays themselves.

python -m benchmarks.flow_memory
"""

import os
import resource

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from asl_fast import ImageDataGenerator


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    options = {"rotation_range": 10, "zoom_range": 0.1, "horizontal_flip": True}
    small = np.random.default_rng(0).random((64, 28, 28, 1))
    # What TensorFlow itself takes, its compiler included, does not count.
    list(ImageDataGenerator(**options).flow(np.repeat(small, 16, 0), np.arange(1024)).take(-1))
    before = _peak()
    x = np.resize(small, (27455, 28, 28, 1))
    y = np.eye(24, dtype=np.float32)[np.arange(27455) % 24]
    arrays = _peak() - before
    iterator = ImageDataGenerator(**options).flow(x, y)
    made = _peak() - before
    for _, _ in zip(range(10 * len(iterator)), iterator, strict=False):
        pass
    passes = _peak() - before
    float32 = x.nbytes / 2**21
    print(f"arrays, float64 {arrays:.0f} MiB; iterator made {made:.0f}; ten passes {passes:.0f}")
    print(
        f"a float32 copy is {float32:.0f}; ten passes / (arrays + copy) "
        f"{passes / (arrays + float32):.2f}"
    )


if __name__ == "__main__":
    main()

"""Counts what a training step asks of a GPU, without having one: bytes moved and launches.

`scripts/roofline` writes the table. XLA's compiler for GPUs works without a GPU: it compiles the
step's program for a description of the device. The bound beside the counts divides them by the
figures of data sheets; measured steps take several times as long (results/nvidia-h200.md), so use
the counts to compare two versions of the step, not to predict.
"""

import argparse
import dataclasses
import functools
import importlib.util
import itertools
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

# TensorFlow and jaxlib both report at length which libraries for GPUs are missing.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from rich.progress import track

from asl_fast import RandomAugment, Standardize, build_cnn
from asl_fast.models.recipe import RECIPES

__all__ = ["GPUS", "PARTS", "Compiler", "Count", "Gpu", "bound", "count", "differences", "main",
           "programs", "table"]  # fmt: skip

ROWS = 27455  # of the training set
BATCHES = (32, 2048)
PRECISIONS = ("float32", "mixed")
PARTS = ("gather and augmentation", "forward", "backward", "optimizer and metrics")

_RECIPE = RECIPES["course"]


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU as its maker describes it.

    Attributes:
        name: Without its maker's name.
        arithmetic: Peak FLOP/s by precision; on tensor cores dense, without sparsity.
        bandwidth: Bytes/s of the memory.
        policy: The dtype policy of "mixed".
        capability: CUDA compute capability.
        config: Further fields of XLA's `GpuDeviceInfoProto`, from the CUDA programming guide's
            table of compute capabilities and NVIDIA's white papers.
    """

    name: str
    arithmetic: Mapping[str, float]
    bandwidth: float
    policy: str
    capability: tuple[int, int]
    config: Mapping[str, Any]

    def policy_for(self, precision: str) -> str:
        """Returns the dtype policy of "float32" or "mixed"."""
        return self.policy if precision == "mixed" else "float32"

    def target(self) -> str:
        """Returns the device as text of XLA's `GpuTargetConfigProto`."""
        fields = {
            "threads_per_block_limit": 1024,
            "threads_per_warp": 32,
            "shared_memory_per_block": 49152,
            "block_dim_limit_x": 2147483647,
            "block_dim_limit_y": 65535,
            "block_dim_limit_z": 65535,
            "registers_per_core_limit": 65536,
            "registers_per_block_limit": 65536,
            "memory_bandwidth": int(self.bandwidth),
            **self.config,
        }
        info = "\n".join(f"  {name}: {value}" for name, value in fields.items())
        major, minor = self.capability
        return (
            f"gpu_device_info {{\n{info}\n"
            f"  cuda_compute_capability {{ major: {major} minor: {minor} }}\n}}\n"
            'platform_name: "CUDA"\n'
            "dnn_version_info { major: 9 minor: 10 }\n"
            "runtime_version { major: 12 minor: 8 }\n"
            f'device_description_str: "{self.name}"\n'
        )


GPUS = (
    # "NVIDIA T4 Tensor Core GPU" data sheet: 8.1 and 65 TFLOPS, 300 GB/s.
    Gpu(
        name="T4",
        arithmetic={"float32": 8.1e12, "mixed": 65e12},
        bandwidth=300e9,
        policy="mixed_float16",
        capability=(7, 5),
        config={
            "core_count": 40,
            "fpus_per_core": 64,
            "threads_per_core_limit": 1024,
            "shared_memory_per_core": 65536,
            "shared_memory_per_block_optin": 65536,
            "l2_cache_size": 4194304,
            "clock_rate_ghz": 1.59,
            "device_memory_size": 15842934784,
        },
    ),
    # "NVIDIA H200 Tensor Core GPU" data sheet, SXM: 989 TFLOPS as TF32 and 1,979 as bfloat16 with
    # sparsity, half of which is dense; 4.8 TB/s.
    Gpu(
        name="H200",
        arithmetic={"float32": 494.5e12, "mixed": 989.5e12},
        bandwidth=4800e9,
        policy="mixed_bfloat16",
        capability=(9, 0),
        config={
            "core_count": 132,
            "fpus_per_core": 128,
            "threads_per_core_limit": 2048,
            "shared_memory_per_core": 233472,
            "shared_memory_per_block_optin": 232448,
            "l2_cache_size": 52428800,
            "clock_rate_ghz": 1.98,
            "device_memory_size": 150754820096,
        },
    ),
)


class Count(NamedTuple):
    """What a program, or a part of it, asks of a device.

    Attributes:
        flops: Arithmetic as XLA counts it: a multiplication with its addition is two, what a
            convolution would compute on padding is none, integer operations are left out.
        moved: Bytes that its kernels read and write, each array once a kernel.
        library: Bytes of these that convolutions and matrix products read and write.
        launches: Kernels.
    """

    flops: float
    moved: float
    library: float
    launches: int


def differences(whole: Mapping[str, Count]) -> dict[str, Count]:
    """Returns what each part adds, given the counts of the programs up to and with each part."""
    before = Count(0, 0, 0, 0)
    parts = {}
    for part in PARTS:
        pairs = zip(whole[part], before, strict=True)
        parts[part], before = Count(*(a - b for a, b in pairs)), whole[part]
    return parts


def bound(parts: Mapping[str, Count], gpu: Gpu, precision: str) -> float:
    """Returns the least milliseconds of a step: by each part's arithmetic, or by its bytes."""
    return 1e3 * sum(
        max(part.flops / gpu.arithmetic[precision], part.moved / gpu.bandwidth)
        for part in parts.values()
    )


def programs(batch: int, policy: str) -> dict[str, str]:
    """Returns the step's programs as XLA's text, as TensorFlow hands them to the compiler.

    Args:
        batch: Int, images a step.
        policy: Dtype policy of the network.

    Returns:
        For each of `PARTS` the program from the beginning of the step up to and with that part.
    """
    augment = RandomAugment(**dataclasses.asdict(_RECIPE.augment), dtype="float32")
    standardize = Standardize(rescale=1 / 255, dtype="float32")
    model = build_cnn(dtype=policy)
    optimizer = keras.optimizers.get(
        {"class_name": _RECIPE.optimizer, "config": {"learning_rate": _RECIPE.learning_rate}}
    )
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"], jit_compile=True)
    optimizer.build(model.trainable_variables)

    def data(stored: Any, labels: Any, samples: Any, epoch: Any) -> Any:
        pixels = tf.gather(stored, samples)
        images = augment(pixels, samples=samples, epoch=epoch, training=True)
        return standardize(images), tf.gather(labels, samples)

    def forward(*stored: Any) -> Any:
        x, y = data(*stored)
        return model.compute_loss(x, y, model(x, training=True))

    def backward(*stored: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = optimizer.scale_loss(forward(*stored))
        return loss, tape.gradient(loss, model.trainable_variables)

    def step(*stored: Any) -> Any:
        return model.train_step(data(*stored))

    arguments = (
        tf.zeros([ROWS, 28, 28, 1], tf.uint8),
        tf.zeros([ROWS, 24]),
        tf.zeros([batch], tf.int64),
        tf.constant(0, tf.int64),
    )
    model.train_step((tf.zeros([1, 28, 28, 1]), tf.zeros([1, 24])))  # makes the metrics' variables
    texts = {}
    for part, function in zip(PARTS, (data, forward, backward, step), strict=True):
        compiled = tf.function(function, jit_compile=True, autograph=False)
        texts[part] = compiled.experimental_get_compiler_ir(*arguments)(stage="hlo")
    return texts


# Not kernels: they name, view or wait for what others compute. A conditional counts as the kernels
# of its longer branch, and one launch that reads its condition.
_NO_KERNEL = {
    *("kParameter", "kConstant", "kTuple", "kGetTupleElement", "kBitcast", "kOptimizationBarrier"),
    *("kAfterAll", "kAsyncDone", "kAsyncUpdate", "kCopyDone"),
}
_ARRAY = re.compile(r"(pred|[a-z]+(\d+))\[([\d,]*)\]")


def _installed(package: str, path: str) -> Path:
    """Returns a file of a package of the extra `roofline` that has no module."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    file = next(filter(Path.exists, (Path(folder, path) for folder in folders)), None)
    if file is None:
        raise ModuleNotFoundError(f"There is no {path} in the package {package}")
    return file


def _library() -> Path:
    """Returns XLA's compiler for CUDA."""
    # Imported as a package, it would need the whole of JAX.
    return _installed("jax_plugins", "xla_cuda12/xla_cuda_plugin.so")


def _assembler() -> Path:
    """Returns NVIDIA's assembler of CUDA 12."""
    return _installed("nvidia", "cuda_nvcc/bin/ptxas")


@functools.cache
def _plugin() -> Any:
    """Loads XLA's compiler for CUDA, which works once a process."""
    from jaxlib import xla_client

    return xla_client.load_pjrt_plugin_dynamically("cuda", str(_library()))


class Compiler:
    """XLA's compiler for GPUs and its cost analysis, as jaxlib and its CUDA plugin bring them.

    Raises:
        ModuleNotFoundError: The extra `roofline` is not installed.
    """

    def __init__(self) -> None:
        from jaxlib import _hlo, _jax, xla_client
        from jaxlib.mlir import ir
        from jaxlib.mlir._mlir_libs import _jax_mlir_ext, _mlirHlo
        from jaxlib.mlir.dialects import stablehlo

        self._hlo, self._jax, self._xla = _hlo, _jax, xla_client
        self._plugin = _plugin()
        self._client = xla_client.make_cpu_client()
        self._mlir = ir
        self._context = ir.Context()
        registry = ir.DialectRegistry()
        _jax_mlir_ext.register_dialects(registry)
        self._context.append_dialect_registry(registry)
        stablehlo.register_dialect(self._context)
        _mlirHlo.register_mhlo_dialect(self._context)
        self._context.load_all_available_dialects()
        self._options = _jax.CompileOptions()
        # Autotuning needs the device. Without it matrix products go to cuBLAS.
        self._options.env_option_overrides = [
            ("xla_gpu_autotune_level", "0"),
            ("xla_gpu_enable_triton_gemm", "False"),
            ("xla_gpu_cuda_data_dir", str(_assembler().parent.parent)),
        ]

    def compile(self, program: str, gpu: Gpu) -> str:
        """Compiles a program for a GPU, which need not be there, and returns the result as text."""
        # StableHLO, which the compiler takes, has no copies; a reshape to the same shape is one.
        module = self._hlo.hlo_module_from_text(program.replace(" copy(", " reshape("))
        stable = self._jax.mlir.hlo_to_stablehlo(module.as_serialized_hlo_module_proto())
        topology = self._xla.make_c_api_device_topology(
            self._plugin, "", target_config=gpu.target(), topology="1x1x1"
        )
        parsed = self._mlir.Module.parse(stable, self._context)
        return self._client.compile(parsed, topology, self._options).hlo_modules()[0].to_string()

    def cost(self, program: str) -> dict[str, float]:
        """Returns XLA's own cost analysis of a program."""
        module = self._hlo.hlo_module_from_text(program)
        return self._jax.hlo_module_cost_analysis(self._client, module)

    def kernels(self, program: str) -> list[Any]:
        """Returns the instructions of a compiled program that are launches."""
        module = self._hlo.hlo_module_from_text(program)
        computations = {c.name: c for c in module.computations()}

        def of(name: str) -> Iterator[Any]:
            for instruction in computations[name].instructions():
                kind = str(instruction.opcode).removeprefix("HloOpcode.")
                if kind in _NO_KERNEL:
                    continue
                yield instruction
                if kind in ("kWhile", "kCall"):
                    raise NotImplementedError(f"The program holds a {kind}, which can't be counted")
                if kind == "kConditional":
                    names = _branches(instruction.to_string())
                    yield from max((list(of(branch)) for branch in names), key=len)

        entry = re.search(r"^ENTRY %?(\S+)", program, re.MULTILINE)
        assert entry is not None
        return list(of(entry[1]))


def _branches(conditional: str) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", conditional)
    if listed:
        return [name.strip().lstrip("%") for name in listed[1].split(",")]
    return re.findall(r"(?:true|false)_computation=%?([^\s,]+)", conditional)


def _sizes(shape: str) -> Iterator[float]:
    """Yields the size of each array in a shape's text, in bytes; arrays of bytes are scratch."""
    for kind, bits, sides in _ARRAY.findall(shape):
        if kind not in ("s8", "u8"):
            yield (
                float(np.prod([int(side) for side in sides.split(",") if side]))
                * int(bits or 8)
                / 8
            )


def _arrays(instruction: Any) -> float:
    """Returns the bytes of an instruction's operands and results, without scratch space."""
    results = instruction.to_string().split(" custom-call(")[0]
    operands = (o.to_string().split(" = ")[1].split(" ")[0] for o in instruction.operands())
    return sum(sum(_sizes(shape)) for shape in (results.split(" = ", 1)[1], *operands))


def count(compiler: Compiler, program: str, gpu: Gpu, batch: int) -> Count:
    """Counts what a program asks of a GPU.

    Args:
        compiler: XLA.
        program: As `programs` gives it.
        gpu: To compile for.
        batch: Int, images a step.
    """
    compiled = compiler.compile(program, gpu)
    kernels = compiler.kernels(compiled)
    calls = [k for k in kernels if str(k.opcode).endswith("kCustomCall")]
    library = sum(map(_arrays, calls))
    # The analysis takes a gather to read the whole array. Shown as an array of `batch` rows, each
    # row is read once.
    shown = re.sub(rf"\[{ROWS},", f"[{batch},", compiled)
    # It counts calls into cuDNN and cuBLAS as -1 byte each.
    moved = compiler.cost(shown)["bytes accessed"] + len(calls) + library
    return Count(compiler.cost(program)["flops"], moved, library, len(kernels))


def _number(value: float) -> str:
    """Writes a number with three significant digits."""
    return f"{float(f'{value:.3g}'):,g}"


def table(batches: Sequence[int]) -> Iterator[str]:
    """Compiles and counts every step; yields the lines of a Markdown table."""
    names = " | ".join(f"{gpu.name}, MB | launches" for gpu in GPUS)
    yield f"| batch | precision | part | GFLOP | {names} |"
    yield "| --- | --- | --- | --- |" + " --- | --- |" * len(GPUS)
    compiler = Compiler()
    for batch, precision in track(list(itertools.product(batches, PRECISIONS)), "Compiling"):
        counts = {}
        for gpu in GPUS:
            texts = programs(batch, gpu.policy_for(precision))
            counts[gpu.name] = {part: count(compiler, texts[part], gpu, batch) for part in PARTS}
        parts = {name: differences(whole) for name, whole in counts.items()}
        for part in (*PARTS, "whole step"):
            whole = part == "whole step"
            row = [counts[name][PARTS[-1]] if whole else parts[name][part] for name in counts]
            cells = " | ".join(f"{_number(c.moved / 1e6)} | {c.launches}" for c in row)
            yield f"| {batch:,} | {precision} | {part} | {_number(row[-1].flops / 1e9)} | {cells} |"
        least = [whole[PARTS[-1]].library / 1e6 for whole in counts.values()]
        cells = " | ".join(f"{_number(megabytes)} | " for megabytes in least)
        yield f"| {batch:,} | {precision} | convolutions and products alone | | {cells} |"
        cells = " | ".join(f"{bound(parts[gpu.name], gpu, precision):.3g} ms | " for gpu in GPUS)
        yield f"| {batch:,} | {precision} | bound | | {cells} |"


_ABOUT = """\
Written by `scripts/roofline`, without a GPU; {versions}. Counted, not measured.

A step gathers rows of the stored uint8 images by index, augments them by the course's options,
scales them, and trains the course's network with RMSprop. Mixed precision is float16 with loss
scaling on the T4, bfloat16 on the H200. A part is the difference of two programs, one with it and
one without. GFLOP are those for the H200.

"""
_NOTES = """
- Bytes are XLA's count of the compiled, fused program: what each kernel reads and writes, each
  array once a kernel. For cuDNN and cuBLAS they are operands and results, without scratch space and
  without the padding of channels that cuDNN adds.
- Launches are the compiled program's kernels: fusions, copies, and one for each call into cuDNN or
  cuBLAS, which may launch several. A conditional (the loss scaling of float16) counts as its longer
  branch.
- The bound is the sum over the parts of the longer of arithmetic at the tensor cores' peak and
  bytes at the memory's. It has neither launches nor cuDNN's padding: an H200 measured 1.28 ms at 32
  and 6.97 at 2,048 in bfloat16 ([nvidia-h200.md](nvidia-h200.md)).
- XLA of jaxlib compiles here; XLA of TensorFlow is of another date and may fuse otherwise. Without
  a device nothing is autotuned.
"""


def main() -> None:
    """Counts, and writes the table."""
    parser = argparse.ArgumentParser(prog="roofline", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/counts.md"))
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, metavar="N")
    given = parser.parse_args()
    if min(given.batches) < 1:
        parser.error(f"--batches must be at least 1, not {min(given.batches)}")
    try:
        _library(), _assembler()
        packages = ("tensorflow", "keras", "jaxlib", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12")
        versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    except ImportError as error:
        sys.exit(f"roofline: {error}. Install the extra: pip install -e '.[roofline]' (on Linux)")
    tf.config.set_visible_devices([], "GPU")  # the same programs on every machine
    lines = "\n".join(table(given.batches))
    title = "# What a step asks of a GPU\n\n"
    given.out.write_text(title + _ABOUT.format(versions=versions) + lines + "\n" + _NOTES)
    print(f"Wrote {given.out}")


if __name__ == "__main__":
    main()

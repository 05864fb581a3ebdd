"""What a training step would take on GPUs, predicted from the programs compiled for them.

`scripts/roofline` writes the tables. XLA's compiler for GPUs works without one: it compiles the
step for a description of the device. What it gives is counted (arithmetic, bytes, launches) and
divided by the figures of data sheets. Nothing here runs on a GPU, so nothing here is measured but
what Keras's generator can feed, on the machine at hand.
"""

import argparse
import dataclasses
import functools
import importlib.util
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

# TensorFlow and jaxlib both tell at length which libraries for GPUs they don't find.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras.src.legacy.preprocessing.image import ImageDataGenerator
from rich.progress import Progress

from asl_fast import RandomAugment, Standardize, build_cnn
from asl_fast.data.pipeline import steps_per_epoch
from asl_fast.models.recipe import RECIPES
from asl_fast.system import device
from benchmarks import contenders

__all__ = [
    "ASSUMPTIONS",
    "GPUS",
    "PARTS",
    "Assumptions",
    "Compiler",
    "Count",
    "Gpu",
    "Prediction",
    "count",
    "differences",
    "main",
    "predict",
    "programs",
    "report",
]

ROWS = 27455  # of the train set
BATCHES = (32, 256, 2048)
PRECISIONS = ("float32", "mixed")
PARTS = ("gather and augmentation", "forward", "backward", "optimiser and metrics")
COURSE_STEP = 8e-3  # seconds at batch 32, as the course publishes
COURSE_RATE = 3900.0  # images/s, likewise

_RECIPE = RECIPES["course"]
# bytes/s one way: half of the nominal 32 GB/s both ways of PCIe 3.0 x16, as of T4 and V100.
_PCIE = 16e9


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU as its maker describes it.

    Attributes:
        name: With form and memory.
        vector: FLOP/s of the float32 cores.
        matrix: FLOP/s of what multiplies matrices, by precision; dense, without sparsity.
        bandwidth: bytes/s of the memory.
        policy: Dtype policy that "mixed" stands for.
        source: Where these figures are from.
        config: What the compiler asks for besides: fields of XLA's `GpuDeviceInfoProto`.
    """

    name: str
    vector: float
    matrix: Mapping[str, float]
    bandwidth: float
    policy: str
    source: str
    config: Mapping[str, Any]

    def policy_for(self, precision: str) -> str:
        """Returns the dtype policy of "float32" or "mixed"."""
        return self.policy if precision == "mixed" else "float32"

    def target(self) -> str:
        """Returns the device in the words of XLA's `GpuTargetConfigProto`."""
        major, minor = self.config["capability"]
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
            **{name: value for name, value in self.config.items() if name != "capability"},
        }
        info = "\n".join(f"  {name}: {value}" for name, value in fields.items())
        return (
            f"gpu_device_info {{\n{info}\n"
            f"  cuda_compute_capability {{ major: {major} minor: {minor} }}\n}}\n"
            'platform_name: "CUDA"\n'
            "dnn_version_info { major: 9 minor: 10 }\n"
            "runtime_version { major: 12 minor: 8 }\n"
            f'device_description_str: "{self.name}"\n'
        )


# The fields in `config` are those of the CUDA programming guide's table of compute capabilities
# and of NVIDIA's white papers on each architecture.
GPUS = (
    Gpu(
        name="T4",
        vector=8.1e12,
        matrix={"float32": 8.1e12, "mixed": 65e12},
        bandwidth=300e9,
        policy="mixed_float16",
        source='"NVIDIA T4 Tensor Core GPU" data sheet (8.1 and 65 TFLOPS, 300 GB/s; elsewhere '
        "NVIDIA gives 320)",
        config={
            "capability": (7, 5),
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
    Gpu(
        name="V100 SXM2 16 GB",
        vector=15.7e12,
        matrix={"float32": 15.7e12, "mixed": 125e12},
        bandwidth=900e9,
        policy="mixed_float16",
        source='"NVIDIA V100 Tensor Core GPU" data sheet, SXM2 (15.7 and 125 TFLOPS, 900 GB/s)',
        config={
            "capability": (7, 0),
            "core_count": 80,
            "fpus_per_core": 64,
            "threads_per_core_limit": 2048,
            "shared_memory_per_core": 98304,
            "shared_memory_per_block_optin": 98304,
            "l2_cache_size": 6291456,
            "clock_rate_ghz": 1.53,
            "device_memory_size": 16935682048,
        },
    ),
    Gpu(
        name="A100 SXM 40 GB",
        vector=19.5e12,
        matrix={"float32": 156e12, "mixed": 312e12},
        bandwidth=1555e9,
        policy="mixed_bfloat16",
        source='"NVIDIA A100 Tensor Core GPU" data sheet, 40 GB SXM (19.5 TFLOPS, 156 as TF32, 312 '
        "as bfloat16, 1,555 GB/s)",
        config={
            "capability": (8, 0),
            "core_count": 108,
            "fpus_per_core": 64,
            "threads_per_core_limit": 2048,
            "shared_memory_per_core": 167936,
            "shared_memory_per_block_optin": 166912,
            "l2_cache_size": 41943040,
            "clock_rate_ghz": 1.41,
            "device_memory_size": 42331013120,
        },
    ),
    Gpu(
        name="H100 SXM",
        vector=67e12,
        matrix={"float32": 494.5e12, "mixed": 989.5e12},
        bandwidth=3350e9,
        policy="mixed_bfloat16",
        source='"NVIDIA H100 Tensor Core GPU" data sheet, SXM (67 TFLOPS; 989 as TF32 and 1,979 as '
        "bfloat16 with sparsity, half of which is dense; 3.35 TB/s)",
        config={
            "capability": (9, 0),
            "core_count": 132,
            "fpus_per_core": 128,
            "threads_per_core_limit": 2048,
            "shared_memory_per_core": 233472,
            "shared_memory_per_block_optin": 232448,
            "l2_cache_size": 52428800,
            "clock_rate_ghz": 1.98,
            "device_memory_size": 84942979072,
        },
    ),
)


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What is supposed of a GPU beyond its data sheet.

    Attributes:
        vector: Share of the float32 cores' peak that is reached.
        tensor: Share of the tensor cores' peak that is reached.
        memory: Share of the bandwidth that is reached.
        launch: Seconds a launch.
    """

    vector: float
    tensor: float
    memory: float
    launch: float


ASSUMPTIONS = {
    "hopeful": Assumptions(vector=0.8, tensor=0.5, memory=0.9, launch=2.5e-6),
    "middle": Assumptions(vector=0.5, tensor=0.25, memory=0.75, launch=5e-6),
    "cautious": Assumptions(vector=0.25, tensor=0.1, memory=0.5, launch=10e-6),
}


@dataclasses.dataclass(frozen=True)
class Count:
    """What a program, or a part of it, asks of a device.

    Attributes:
        flops: Arithmetic, as XLA counts it: a multiplication with its addition is two, what a
            convolution would compute on padding is none, integer operations are left out.
        moved: Bytes that its kernels read and write.
        library: Bytes of these that convolutions and matrix products read and write.
        launches: Kernels.
    """

    flops: float
    moved: float
    library: float
    launches: int

    def __add__(self, other: "Count") -> "Count":
        return Count(
            self.flops + other.flops,
            self.moved + other.moved,
            self.library + other.library,
            self.launches + other.launches,
        )

    def __sub__(self, other: "Count") -> "Count":
        return Count(
            self.flops - other.flops,
            self.moved - other.moved,
            self.library - other.library,
            self.launches - other.launches,
        )


_NOTHING = Count(flops=0, moved=0, library=0, launches=0)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A predicted step.

    Attributes:
        arithmetic: Seconds of the parts that the arithmetic limits.
        memory: Seconds of the parts that the memory limits.
        launches: Seconds of launching.
    """

    arithmetic: float
    memory: float
    launches: float

    @property
    def step(self) -> float:
        """Seconds of the whole step."""
        return self.arithmetic + self.memory + self.launches

    @property
    def bound(self) -> str:
        """What takes most of it."""
        parts = dataclasses.asdict(self)
        return max(parts, key=lambda name: parts[name])


def predict(
    parts: Mapping[str, Count], gpu: Gpu, precision: str, assumed: Assumptions
) -> Prediction:
    """Predicts a step: each part as long as the slower of its arithmetic and its memory traffic.

    Args:
        parts: What each of `PARTS` asks for.
        gpu: On what.
        precision: "float32" or "mixed".
        assumed: What is reached of the peaks, and what a launch costs.
    """
    on_tensor_cores = gpu.matrix[precision] > gpu.vector
    share = assumed.tensor if on_tensor_cores else assumed.vector
    limited = {"arithmetic": 0.0, "memory": 0.0}
    for name, part in parts.items():
        rate = gpu.vector * assumed.vector
        if name in ("forward", "backward"):
            rate = gpu.matrix[precision] * share
        times = {
            "arithmetic": part.flops / rate,
            "memory": part.moved / (gpu.bandwidth * assumed.memory),
        }
        slower = max(times, key=lambda kind: times[kind])
        limited[slower] += times[slower]
    launches = sum(part.launches for part in parts.values()) * assumed.launch
    return Prediction(**limited, launches=launches)


def differences(whole: Mapping[str, Count]) -> dict[str, Count]:
    """Returns what each part adds, given what the programs up to and with each part ask for."""
    counts = [_NOTHING, *(whole[part] for part in PARTS)]
    pairs = itertools.pairwise(counts)
    return {part: after - before for part, (before, after) in zip(PARTS, pairs, strict=True)}


def programs(batch: int, policy: str) -> dict[str, str]:
    """Returns the step's programs in XLA's text form, as TensorFlow hands them to the compiler.

    Args:
        batch: Int, images a step.
        policy: Dtype policy of the network.

    Returns:
        For each of `PARTS` the program from the step's beginning up to and with that part.
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
    found = {}
    for part, function in zip(PARTS, (data, forward, backward, step), strict=True):
        compiled = tf.function(function, jit_compile=True, autograph=False)
        found[part] = compiled.experimental_get_compiler_ir(*arguments)(stage="hlo")
    return found


# Not kernels: they name, view or wait for what others compute. A conditional's kernels are those
# of its longer branch, and its own launch the look at its condition.
_NO_KERNEL = {
    *("kParameter", "kConstant", "kTuple", "kGetTupleElement", "kBitcast", "kOptimizationBarrier"),
    *("kAfterAll", "kAsyncDone", "kAsyncUpdate", "kCopyDone"),
}
_ARRAY = re.compile(r"(pred|[a-z]+(\d+))\[([\d,]*)\]")


def _installed(package: str, path: str) -> Path:
    """Returns a file of a package without a module of its own, which the extra brings."""
    found = importlib.util.find_spec(package)
    folders = (found.submodule_search_locations or []) if found else []
    file = next(filter(Path.exists, (Path(folder, path) for folder in folders)), None)
    if file is None:
        raise ModuleNotFoundError(f"There is no {path} in the package {package}")
    return file


def _library() -> Path:
    """Returns XLA's compiler for CUDA."""
    # Imported as a package, it would ask for the whole of JAX.
    return _installed("jax_plugins", "xla_cuda12/xla_cuda_plugin.so")


def _assembler() -> Path:
    """Returns NVIDIA's assembler of CUDA 12: that of 13 knows no V100."""
    return _installed("nvidia", "cuda_nvcc/bin/ptxas")


@functools.cache
def _plugin() -> Any:
    """Loads XLA's compiler for CUDA, which a process may do once."""
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
        # Trying out kernels needs the device. Untried, matrix products go to cuBLAS.
        self._options.env_option_overrides = [
            ("xla_gpu_autotune_level", "0"),
            ("xla_gpu_enable_triton_gemm", "False"),
            ("xla_gpu_cuda_data_dir", str(_assembler().parent.parent)),
        ]

    def compile(self, program: str, gpu: Gpu) -> str:
        """Compiles a program for a GPU that need not be there, and returns the result as text."""
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
                    raise NotImplementedError(f"The program holds a {kind}, which isn't counted")
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
    """Yields the bytes of each array in a shape's text but for bytes: scratch space."""
    for kind, bits, sides in _ARRAY.findall(shape):
        if kind not in ("s8", "u8"):
            yield (
                float(np.prod([int(side) for side in sides.split(",") if side]))
                * int(bits or 8)
                / 8
            )


def _arrays(instruction: Any) -> float:
    """Returns the bytes of an instruction's operands and results, scratch space apart."""
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
    # The analysis has a kernel that picks rows of an array read the whole of it. So it gets to see
    # no more rows stored than the batch picks: each row is read once.
    shown = re.sub(rf"\[{ROWS},", f"[{batch},", compiled)
    # What cuDNN and cuBLAS do is unknown to it: -1 byte each.
    moved = compiler.cost(shown)["bytes accessed"] + len(calls) + library
    return Count(compiler.cost(program)["flops"], moved, library, len(kernels))


Counts = dict[tuple[str, int, str], dict[str, Count]]


def _count_all(batches: Sequence[int], tick: Callable[[str], None]) -> Counts:
    compiler, found = Compiler(), {}
    for batch in batches:
        texts = {
            policy: programs(batch, policy)
            for policy in ("float32", "mixed_float16", "mixed_bfloat16")
        }
        for gpu, precision in itertools.product(GPUS, PRECISIONS):
            whole = {}
            for part, text in texts[gpu.policy_for(precision)].items():
                whole[part] = count(compiler, text, gpu, batch)
                tick(f"Compiling for {gpu.name}, batch {batch}, {precision}")
            found[gpu.name, batch, precision] = differences(whole)
    return found


@dataclasses.dataclass(frozen=True)
class Fed:
    """What a way of feeding reached, measured.

    Attributes:
        how: The way, in words.
        rates: Images/s, one a turn.
    """

    how: str
    rates: tuple[float, ...]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile."""
        low, middle, high = np.percentile(self.rates, [25, 50, 75])
        return float(low), float(middle), float(high)


_FEED_BATCH, _FEED_STEPS, _FEED_START = 32, 400, 16


def _ways() -> dict[str, tuple[int, bool]]:
    """Returns workers and whether they are processes, for each way of running the generator."""
    cores = os.cpu_count() or 1
    several = sorted({2, cores, 2 * cores} - {1})
    return {
        "as it is": (1, False),
        **{f"{n} threads": (n, False) for n in several[:1]},
        **{f"{n} processes": (n, True) for n in several},
    }


def _feed(turns: int, tick: Callable[[str], None]) -> list[Fed]:
    """Measures what Keras's generator feeds at most: an empty loop takes its batches."""
    images, labels = contenders.data(ROWS)

    def turn(workers: int, processes: bool) -> float:
        generator = ImageDataGenerator(**contenders.COURSE)
        iterator = generator.flow(images, labels, batch_size=_FEED_BATCH)
        with contenders.from_keras_iterator(iterator, workers, processes) as dataset:
            batches = iter(dataset)
            for _ in range(_FEED_START):  # starting processes is not feeding
                next(batches)
            begin = time.perf_counter()
            for _ in range(_FEED_STEPS):
                next(batches)
            return _FEED_STEPS * _FEED_BATCH / (time.perf_counter() - begin)

    rates: dict[str, list[float]] = {how: [] for how in _ways()}
    for _ in range(turns + 1):
        for how, (workers, processes) in _ways().items():
            rates[how].append(turn(workers, processes))
            tick(f"Measuring Keras's generator, {how}")
    return [Fed(how, tuple(values[1:])) for how, values in rates.items()]  # the first warms up


def _number(value: float) -> str:
    """Writes a positive number with three digits that count."""
    if value >= 100:
        return f"{round(value, 3 - len(str(int(value)))):,.0f}"
    return f"{value:.3g}"


def _span(values: Sequence[float]) -> str:
    written = [_number(min(values)), _number(max(values))]
    return "–".join(dict.fromkeys(written))


def _rate(value: float) -> str:
    return f"{round(value, -2 if value < 10000 else -3):,.0f}"


def _counted(counts: Counts, batches: Sequence[int]) -> Iterator[str]:
    names = [gpu.name for gpu in GPUS]
    yield "| batch | precision | part | GFLOP | FLOP a byte | " + " | ".join(names) + " |"
    yield "| --- | --- | --- | --- | --- |" + " --- |" * len(names)
    for batch, precision in itertools.product(batches, PRECISIONS):
        rows = {part: [counts[name, batch, precision][part] for name in names] for part in PARTS}
        totals = [sum(counts[name, batch, precision].values(), _NOTHING) for name in names]
        for part, found in {**rows, "**whole step**": totals}.items():
            cells = [f"{_number(max(c.moved, 0) / 1e6)}, {c.launches}" for c in found]
            yield (
                f"| {batch:,} | {precision} | {part} | {_span([c.flops / 1e9 for c in found])} "
                f"| {_span([c.flops / c.moved for c in found])} | " + " | ".join(cells) + " |"
            )
        least = [_number(total.library / 1e6) for total in totals]
        yield f"| {batch:,} | {precision} | at the least | | | " + " | ".join(least) + " |"


def _predicted(counts: Counts, batches: Sequence[int], fed: Sequence[Fed]) -> Iterator[str]:
    plain, best = fed[0].quartiles[1], max(f.quartiles[1] for f in fed)
    yield (
        "| GPU | batch | precision | step, ms | most of it | images/s | epoch, s "
        "| times the course's | idle, generator as it is | idle, at its best |"
    )
    yield "| --- |" + " --- |" * 9
    for gpu, batch, precision in itertools.product(GPUS, batches, PRECISIONS):
        parts = counts[gpu.name, batch, precision]
        steps = {name: predict(parts, gpu, precision, a) for name, a in ASSUMPTIONS.items()}
        middle = steps["middle"]
        rate = batch / middle.step
        share = getattr(middle, middle.bound) / middle.step
        yield (
            f"| {gpu.name} | {batch:,} | {precision} | {_number(1e3 * middle.step)} "
            f"({_number(1e3 * steps['hopeful'].step)}–{_number(1e3 * steps['cautious'].step)}) "
            f"| {middle.bound}, {share:.0%} | {_rate(rate)} "
            f"| {_number(steps_per_epoch(ROWS, batch) * middle.step)} | {rate / COURSE_RATE:.1f} "
            f"| {_idle(rate, plain):.0%} | {_idle(rate, best):.0%} |"
        )


def _summary(counts: Counts, batches: Sequence[int], fed: Sequence[Fed]) -> str:
    rates = [
        batch / predict(counts[g.name, batch, p], g, p, ASSUMPTIONS["middle"]).step
        for g, batch, p in itertools.product(GPUS, batches, PRECISIONS)
    ]
    best = max(one.quartiles[1] for one in fed)
    return (
        f"So, if these figures hold, Keras's generator at its best would leave each of these GPUs "
        f"idle for {_idle(min(rates), best):.0%} to {_idle(max(rates), best):.0%} of its time."
    )


def _idle(rate: float, fed: float) -> float:
    """Returns the share of its time that a device waits for what is fed."""
    return max(0.0, 1 - fed / rate)


def _fed_rows(fed: Sequence[Fed]) -> Iterator[str]:
    yield "| Keras's generator | images/s, median | quartiles | n |"
    yield "| --- | --- | --- | --- |"
    for one in fed:
        low, middle, high = one.quartiles
        yield f"| {one.how} | {_rate(middle)} | {_rate(low)}–{_rate(high)} | {len(one.rates)} |"


def _assumed_rows() -> Iterator[str]:
    yield "| | hopeful | middle | cautious |"
    yield "| --- | --- | --- | --- |"
    columns = list(ASSUMPTIONS.values())
    for name, what in (
        ("vector", "of the float32 cores' peak"),
        ("tensor", "of the tensor cores' peak"),
        ("memory", "of the memory's bandwidth"),
    ):
        yield f"| {what} | " + " | ".join(f"{getattr(c, name):.0%}" for c in columns) + " |"
    yield "| a launch | " + " | ".join(f"{1e6 * c.launch:g} µs" for c in columns) + " |"


def _machine() -> str:
    """Returns what measures, when, and how busy it is beforehand."""
    busy = f"load average {os.getloadavg()[0]:.1f} before"
    found = (device.describe(), device.cpu()[0], busy, time.strftime("%Y-%m-%d"))
    return ", ".join(filter(None, found))


def _versions() -> dict[str, str]:
    names = ("tensorflow", "keras", "jaxlib", "jax-cuda12-pjrt", "nvidia-cuda-nvcc-cu12")
    return {name: metadata.version(name) for name in names}


def report(
    counts: Counts,
    fed: Sequence[Fed],
    batches: Sequence[int],
    versions: Mapping[str, str],
    machine: str,
) -> str:
    """Writes everything as Markdown.

    Args:
        counts: What each part asks for, by GPU, batch and precision.
        fed: What Keras's generator reached; the first is the generator as it is.
        batches: Of which sizes.
        versions: Of the packages that took part.
        machine: What measured, in words.
    """
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    largest = max(batches)
    best = max(fed, key=lambda f: f.quartiles[1])
    lines = [
        "# What a GPU would do, on paper",
        "",
        f"Written by `scripts/roofline`, without a GPU; {told}. **Predicted, all of it: no GPU "
        "was at hand.** The only thing measured is what Keras's generator feeds.",
        "",
        "A step takes rows of the stored uint8 images by their numbers, augments them by the "
        "course's options, scales them, and trains the course's network on them with categorical "
        f"cross-entropy and {_RECIPE.optimizer} at {_RECIPE.learning_rate:g}. Mixed precision is "
        "float16 with loss scaling on T4 and V100, bfloat16 on A100 and H100.",
        "",
        "## Predicted",
        "",
        "In brackets the step by the hopeful and by the cautious assumptions below; all else is by "
        f"the middle ones. An epoch is {ROWS:,} images, a short last batch counted as a whole one. "
        f"The course publishes {1e3 * COURSE_STEP:g} ms a step of 32, about {COURSE_RATE:,.0f} "
        "images/s. Idle is the share of its time that the GPU would wait if Keras's generator fed "
        f"it, at the rate measured below: as it is, and at its best, with {best.how}.",
        "",
        *_predicted(counts, batches, fed),
        "",
        _summary(counts, batches, fed),
        "",
        "## Measured: what Keras's generator feeds",
        "",
        f"On this machine ({machine}), in this run: `ImageDataGenerator` with the course's "
        f"options, batches of {_FEED_BATCH}, {_FEED_STEPS} batches a turn, the ways in turn; an "
        "empty loop takes the batches, so training could not get more. A GPU's host would have "
        "other cores, and mostly more.",
        "",
        *_fed_rows(fed),
        "",
        "## Counted",
        "",
        "For each GPU the megabytes moved and the launches. A part is the difference of "
        "two programs, one with it and one without. GFLOP and FLOP a byte: from the least to the "
        "most of the four GPUs, where they differ. At the least: the megabytes that convolutions "
        "and matrix products alone read and write, which no fusion can save.",
        "",
        *_counted(counts, batches),
        "",
        "By hand, an image: 2·28·28·75·9 + 2·14·14·50·9·75 + 2·7·7·25·9·50 + 2·400·512 + "
        "2·512·24 = 15.8 MFLOP forward for convolutions and dense layers, and about twice as much "
        "backward. XLA leaves out what falls on the padding (1.5 MFLOP of it) and counts the "
        "activations, normalisation and pooling besides.",
        "",
        "## Assumptions",
        "",
        *_assumed_rows(),
        "",
        "- These shares are judgement, not measurement. The network's channels (1, 75, 50, 25) "
        "suit tensor cores badly, hence their low share.",
        "- A part takes as long as the slower of its arithmetic and its memory traffic. The parts "
        "and all launches are added up. A GPU hides launches behind long kernels, so at large "
        "batches the sum is a little too long.",
        "- At small batches kernels are so short that launching them becomes most of the step. "
        "What a launch costs depends on the host's processor and on whether XLA records the "
        "launches as a CUDA graph, which would come near to the hopeful figure or below it.",
        "- Programs are TensorFlow's own, before optimisation, as it makes them on a CPU. XLA of "
        "jaxlib compiles them for each GPU's description; XLA of TensorFlow is of another date "
        "and may fuse otherwise.",
        "- Arithmetic is XLA's count (`HloCostAnalysis`) before optimisation: in the compiled "
        "program convolutions and products are calls into cuDNN and cuBLAS, which it can't count. "
        "Forward and backward are taken for matrix arithmetic altogether, of which they are "
        "nine parts in ten; augmentation and optimiser for float32 on ordinary cores.",
        "- float32 runs on ordinary cores on T4 and V100, which have nothing better, and as TF32 "
        "on the tensor cores of A100 and H100, as TensorFlow does by default.",
        "- Bytes are XLA's count of the compiled, fused program: what each kernel reads and "
        "writes, each array once a kernel. For cuDNN and cuBLAS they are operands and results, "
        "without scratch space. Of the stored images a batch's rows are read, once each. A cache "
        "saves some of that: small batches fit into the second-level cache of A100 and H100 (40 "
        "and 50 MB). Kernels that read an array more than once need more.",
        "- Launches are the compiled program's kernels: fusions, copies, one for each call into "
        "cuDNN or cuBLAS, which may be two or three. A conditional (the loss scaling of float16) "
        "counts as its longer branch. Algorithms were not tried out, as that needs the device.",
        "- Left out: what the host does for a step besides launching, validation, compiling, "
        "and that GPUs slow down when hot, a T4 with its 70 W most of all.",
        f"- Left out as well, the way from the host. Only the numbers of the rows travel: 8 bytes "
        f"an image, {largest:,}·8 = {8 * largest:,} bytes a step, "
        f"{1e6 * 8 * largest / _PCIE:.2g} µs at the {_PCIE / 1e9:g} GB/s of PCIe 3.0 x16; such "
        "a copy's start takes longer than the copy, about as long as a launch. The images go over "
        f"once: {ROWS:,}·784 = {ROWS * 784 / 1e6:.1f} MB, {1e3 * ROWS * 784 / _PCIE:.2g} ms.",
        "",
        "## Sources",
        "",
        *(f"- {gpu.name}: {gpu.source}." for gpu in GPUS),
        "- What the compiler is told of each GPU: NVIDIA's CUDA programming guide, table of "
        "compute capabilities, and the white papers on Turing, Volta, Ampere and Hopper.",
        f"- {1e3 * COURSE_STEP:g} ms a step: as the course publishes it.",
    ]
    return "\n".join(lines) + "\n"


def _as_json(
    counts: Counts, fed: Sequence[Fed], batches: Sequence[int], machine: str
) -> dict[str, Any]:
    predicted = []
    for gpu, batch, precision in itertools.product(GPUS, batches, PRECISIONS):
        parts = counts[gpu.name, batch, precision]
        steps = {name: predict(parts, gpu, precision, a) for name, a in ASSUMPTIONS.items()}
        predicted.append(
            {
                "gpu": gpu.name,
                "batch": batch,
                "precision": precision,
                "policy": gpu.policy_for(precision),
                "counted": {part: dataclasses.asdict(found) for part, found in parts.items()},
                "predicted_seconds": {
                    name: {**dataclasses.asdict(p), "step": p.step, "bound": p.bound}
                    for name, p in steps.items()
                },
            }
        )
    return {
        "versions": _versions(),
        "assumptions": {name: dataclasses.asdict(a) for name, a in ASSUMPTIONS.items()},
        "gpus": [dataclasses.asdict(gpu) for gpu in GPUS],
        "steps": predicted,
        "measured": {
            "machine": machine,
            "generator_images_per_second": {one.how: list(one.rates) for one in fed},
        },
    }


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Says what is wrong in one line."""
        self.exit(2, f"roofline: {message}\n")


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, not {text!r}")
    return int(text)


def _file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must be a file in a folder that exists, not {text!r}")
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Counts, predicts, measures and writes the tables."""
    parser = _Parser(prog="roofline", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=_file, default="benchmarks/results/roofline.md")
    parser.add_argument("--json", type=_file, help="write the figures there too")
    parser.add_argument("--batches", type=_positive, nargs="+", default=BATCHES, metavar="N")
    parser.add_argument("--turns", type=_positive, default=7, help="of the measurement")
    given = parser.parse_args(arguments)
    batches = tuple(dict.fromkeys(given.batches))
    try:
        _library(), _assembler()
        metadata.version("jaxlib")
    except ImportError as error:
        sys.exit(f"roofline: {error}; it comes with: pip install -e '.[roofline]', on Linux")
    tf.config.set_visible_devices([], "GPU")  # the same programs everywhere
    machine = _machine()
    measuring = (given.turns + 1) * len(_ways())
    compiling = len(batches) * len(GPUS) * len(PRECISIONS) * len(PARTS)
    # No thread of its own: the generator's worker processes are forks of this one.
    with Progress(auto_refresh=False) as progress:
        task = progress.add_task("Beginning", total=measuring + compiling)

        def tick(what: str) -> None:
            progress.update(task, advance=1, description=what, refresh=True)

        fed = _feed(given.turns, tick)
        counts = _count_all(batches, tick)
    given.out.write_text(report(counts, fed, batches, _versions(), machine))
    if given.json:
        given.json.write_text(json.dumps(_as_json(counts, fed, batches, machine), indent=1) + "\n")
    print(f"Wrote {given.out}" + (f" and {given.json}" if given.json else ""))


if __name__ == "__main__":
    main()

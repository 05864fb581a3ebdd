"""Finds the operations of a traced training step that a GPU can't run, without a GPU.

The TensorFlow wheel for Linux knows every operation's kernels for NVIDIA GPUs, and XLA's, on any
machine. Comparing the graph with them proves where operations run and that XLA compiles them, not
how fast they are.
"""

import collections
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from asl_fast.system import private_api

__all__ = ["OffGpu", "inspect"]

_PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})

# Operations that may run on the host for 32-bit integers: TensorFlow keeps those, which are sizes,
# on the host whatever the device.
_SIZES = "sizes and counters, which TensorFlow keeps on the host"
_SLICE = "slices a step's image indices from those of several steps"
_HOST: dict[tuple[str, str], str] = {
    **{
        (op, "int32"): _SIZES
        for op in (
            *("AddV2", "All", "BroadcastGradientArgs", "ConcatV2", "Const", "Identity", "Less"),
            *("FloorMod", "Maximum", "Mul", "Pack", "Prod", "Range", "Shape", "ShapeN", "Size"),
            *("Slice", "StridedSlice", "Sub"),
        )
    },
    **{("Shape", dtype): _SIZES for dtype in ("float32", "bfloat16", "float16")},
    **{("ShapeN", dtype): _SIZES for dtype in ("float32", "bfloat16", "float16")},
    ("StridedSlice", "int64"): _SLICE,
    ("StridedSlice", "float32"): _SLICE,
    (
        "StatelessRandomGetKeyCounter",
        "int32",
    ): "the key of dropout's random numbers, two integers per step",
}

# Operations that have no kernel for GPUs except XLA's, and may stand where XLA compiles.
_ONLY_XLA = {
    ("GatherV2", "uint8"): "gathers the stored pixels of a batch",
    ("Tile", "uint32"): "lays out the counters of the random numbers",
}


class OffGpu(NamedTuple):
    """Operations of one kind that the GPU does not run.

    Attributes:
        op: TensorFlow's name of the operation.
        dtypes: Of its inputs and outputs.
        times: Int, the number of nodes.
        names: The first few nodes.
        problem: One phrase.
        reason: Why that is fine, or None if it is a fault.
    """

    op: str
    dtypes: tuple[str, ...]
    times: int
    names: tuple[str, ...]
    problem: str
    reason: str | None


class _Node(NamedTuple):
    node: tf.compat.v1.NodeDef
    compiled: bool


def inspect(function: Any) -> list[OffGpu]:
    """Checks every operation of a traced function, and of the functions it calls.

    Args:
        function: A `ConcreteFunction`.

    Returns:
        Faults first, then by number of nodes.
    """
    private_api.register_xla_kernels()
    names_by_kind: dict[tuple[Any, ...], list[str]] = collections.defaultdict(list)
    for node, compiled in _nodes(function.graph.as_graph_def()):
        problem = _problem(node, compiled)
        if problem is not None:
            dtypes = tuple(_dtypes(node))
            known = {_ON_HOST: _HOST, _NO_KERNEL: _ONLY_XLA if compiled else {}}
            reason = known.get(problem, {}).get((node.op, dtypes[0] if dtypes else ""))
            names_by_kind[node.op, dtypes, problem, reason].append(node.name)
    findings = [
        OffGpu(op, dtypes, len(names), tuple(names[:3]), problem, reason)
        for (op, dtypes, problem, reason), names in names_by_kind.items()
    ]
    return sorted(findings, key=lambda f: (f.reason is not None, -f.times, f.op))


_ON_HOST = "runs on the host"
_NO_KERNEL = "has no kernel for GPUs"


def _nodes(graph: Any) -> Iterator[_Node]:
    library = {function.signature.name: function for function in graph.library.function}
    seen = set()

    def visit(nodes: Iterable[tf.compat.v1.NodeDef], compiled: bool) -> Iterator[_Node]:
        for node in nodes:
            yield _Node(node, compiled)
            for name in _called(node):
                inner = library[name]
                inside = compiled or _by_xla(inner.attr) or _by_xla(node.attr)
                if (name, inside) not in seen:
                    seen.add((name, inside))
                    yield from visit(inner.node_def, inside)

    return visit(graph.node, False)


def _by_xla(attributes: Any) -> bool:
    # Indexing a protobuf map with a missing name would add it.
    return "_XlaMustCompile" in attributes and attributes["_XlaMustCompile"].b


def _called(node: tf.compat.v1.NodeDef) -> Iterator[str]:
    for value in node.attr.values():
        if value.WhichOneof("value") == "func":
            yield value.func.name
        for function in value.list.func:
            yield function.name


def _problem(node: tf.compat.v1.NodeDef, compiled: bool) -> str | None:
    if node.op in _PYTHON:
        return "calls Python"
    kernels = private_api.get_registered_kernels(node.op).kernel
    mine = [kernel for kernel in kernels if _takes(kernel, node)]
    on_gpu = [kernel for kernel in mine if kernel.device_type in ("GPU", "DEFAULT")]
    if compiled and not any(kernel.device_type == "XLA_GPU_JIT" for kernel in mine):
        return "XLA can't compile it for GPUs"
    if not on_gpu and not (compiled and node.op.startswith("Xla")):
        return _NO_KERNEL
    if compiled:
        return None
    if "CPU" in node.device:
        return _ON_HOST
    outputs = {argument.name for argument in private_api.get_op_def(node.op).output_arg}
    if outputs and outputs <= set(on_gpu[0].host_memory_arg):
        return _ON_HOST
    return None


def _takes(kernel: Any, node: tf.compat.v1.NodeDef) -> bool:
    """Returns whether a kernel is for a node's dtypes."""
    for constraint in kernel.constraint:
        if constraint.name not in node.attr:
            continue
        value = node.attr[constraint.name]
        types = value.list.type if value.WhichOneof("value") == "list" else [value.type]
        if not set(types) <= set(constraint.allowed_values.list.type):
            return False
    return True


def _dtypes(node: tf.compat.v1.NodeDef) -> list[str]:
    """Returns a node's dtypes, except those of indices and sizes."""
    definition = private_api.get_op_def(node.op)
    names = [a.type_attr for a in (*definition.input_arg, *definition.output_arg) if a.type_attr]
    types = [node.attr[name].type for name in dict.fromkeys(names) if name in node.attr]
    return [tf.dtypes.as_dtype(t).name for t in types]

"""What of a traced training step a GPU can't do, found without one.

The TensorFlow wheel for Linux knows every operation's kernels for NVIDIA GPUs, and XLA's, on any
machine. So the graph can be compared with them here. This proves where operations can run and
that they can be compiled, not how fast.
"""

import collections
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.core.framework import node_def_pb2
from tensorflow.python.framework import kernels, op_def_registry

# The kernels of XLA are registered when they are asked for.
from tensorflow.python.util import pywrap_xla_ops

__all__ = ["Finding", "inspect"]

_PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})

# Operations that may be done on the host, where they handle 32-bit integers: TensorFlow keeps
# those, which are sizes, on the host whatever the device.
_SIZES = "sizes and counters, which TensorFlow keeps on the host"
_BLOCK = "cuts a step's image numbers out of those for several steps"
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
    ("StridedSlice", "int64"): _BLOCK,
    ("StridedSlice", "float32"): _BLOCK,
    ("StatelessRandomGetKeyCounter", "int32"): "the key of dropout's numbers, two integers a step",
}

# Operations without a kernel of their own for GPUs that may stand where XLA compiles, which has.
_ONLY_XLA = {
    ("GatherV2", "uint8"): "fetches the stored pixels of a batch",
    ("Tile", "uint32"): "lays out the counters of the random numbers",
}


class Finding(NamedTuple):
    """Operations of one kind that are not done by the GPU.

    Attributes:
        op: TensorFlow's name of the operation.
        dtypes: What it handles.
        times: Int, how many there are.
        names: Where the first few stand.
        problem: In words.
        reason: Why that is right, or None: it is not.
    """

    op: str
    dtypes: tuple[str, ...]
    times: int
    names: tuple[str, ...]
    problem: str
    reason: str | None


class _Node(NamedTuple):
    node: node_def_pb2.NodeDef
    compiled: bool


def inspect(function: Any) -> list[Finding]:
    """Looks at every operation of a traced function, and of those that it calls.

    Args:
        function: A `ConcreteFunction`.

    Returns:
        What a GPU would not do, most operations first; where `reason` is None, something is wrong.
    """
    pywrap_xla_ops.get_gpu_kernel_names()
    found: dict[tuple[Any, ...], list[str]] = collections.defaultdict(list)
    for node, compiled in _nodes(function.graph.as_graph_def()):
        problem = _problem(node, compiled)
        if problem is not None:
            dtypes = tuple(_dtypes(node))
            known = {_ON_HOST: _HOST, _NO_KERNEL: _ONLY_XLA if compiled else {}}
            reason = known.get(problem, {}).get((node.op, dtypes[0] if dtypes else ""))
            found[node.op, dtypes, problem, reason].append(node.name)
    findings = [
        Finding(op, dtypes, len(names), tuple(names[:3]), problem, reason)
        for (op, dtypes, problem, reason), names in found.items()
    ]
    return sorted(findings, key=lambda f: (f.reason is not None, -f.times, f.op))


_ON_HOST = "is done on the host"
_NO_KERNEL = "has no kernel for GPUs"


def _nodes(graph: Any) -> Iterator[_Node]:
    library = {function.signature.name: function for function in graph.library.function}
    seen = set()

    def visit(nodes: Iterable[node_def_pb2.NodeDef], compiled: bool) -> Iterator[_Node]:
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
    # Only asked for, a name would be added.
    return "_XlaMustCompile" in attributes and attributes["_XlaMustCompile"].b


def _called(node: node_def_pb2.NodeDef) -> Iterator[str]:
    for value in node.attr.values():
        if value.WhichOneof("value") == "func":
            yield value.func.name
        for function in value.list.func:
            yield function.name


def _problem(node: node_def_pb2.NodeDef, compiled: bool) -> str | None:
    if node.op in _PYTHON:
        return "calls Python"
    mine = [kernel for kernel in _kernels(node.op) if _takes(kernel, node)]
    on_gpu = [kernel for kernel in mine if kernel.device_type in ("GPU", "DEFAULT")]
    if compiled and not any(kernel.device_type == "XLA_GPU_JIT" for kernel in mine):
        return "XLA can't compile it for GPUs"
    if not on_gpu and not (compiled and node.op.startswith("Xla")):
        return _NO_KERNEL
    if compiled:
        return None
    if "CPU" in node.device:
        return _ON_HOST
    outputs = {argument.name for argument in op_def_registry.get(node.op).output_arg}
    if outputs and outputs <= set(on_gpu[0].host_memory_arg):
        return _ON_HOST
    return None


def _kernels(op: str) -> Any:
    return kernels.get_registered_kernels_for_op(op).kernel


def _takes(kernel: Any, node: node_def_pb2.NodeDef) -> bool:
    """Returns whether a kernel is for a node's dtypes."""
    for constraint in kernel.constraint:
        if constraint.name not in node.attr:
            continue
        value = node.attr[constraint.name]
        types = value.list.type if value.WhichOneof("value") == "list" else [value.type]
        if not set(types) <= set(constraint.allowed_values.list.type):
            return False
    return True


def _dtypes(node: node_def_pb2.NodeDef) -> list[str]:
    """Returns the dtypes that a node handles, those of indices and sizes apart."""
    definition = op_def_registry.get(node.op)
    names = [a.type_attr for a in (*definition.input_arg, *definition.output_arg) if a.type_attr]
    types = [node.attr[name].type for name in dict.fromkeys(names) if name in node.attr]
    return [tf.dtypes.as_dtype(t).name for t in types]

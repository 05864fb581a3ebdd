"""The values of a training script's expressions, as far as a reader sees them at a glance.

The script is read, never run. Values are followed through names, attributes of `self` and simple
arithmetic. Anything else is unknown.
"""

import ast
import dataclasses
import math
import re
from collections import ChainMap
from collections.abc import Iterable
from typing import Any, Literal

__all__ = [
    "KERAS",
    "READERS",
    "Batches",
    "Call",
    "Generator",
    "Quotient",
    "Script",
    "is_number",
    "is_scaled",
    "is_unknown",
    "shown",
]

# Values are Python's own numbers, strings, lists and dictionaries, and the following. Lists within
# lists may double with every line of a script, so none is printed or compared with another.

UNKNOWN: Any = object()


@dataclasses.dataclass(frozen=True)
class Name:
    """The full name of something imported, or not defined in the script."""

    path: str


@dataclasses.dataclass(frozen=True)
class Quotient:
    """Pixels divided by 255, or a number of images divided by the batch size."""

    by: Any = None
    kind: Literal["divided", "rounded down", "other float"] = "divided"


@dataclasses.dataclass(eq=False)
class Generator:
    """An ImageDataGenerator of Keras or of asl_fast."""

    line: int
    options: dict[Any, Any]
    of_keras: bool
    escapes: bool = False  # passed to code that is not followed, or its statistics are set by hand

    def on(self, *names: str) -> list[str]:
        """Returns which of these options are certainly on."""
        return [n for n in names if self.options.get(n) and not is_unknown(self.options[n])]

    def off(self, *names: str) -> bool:
        """Returns whether these options are certainly off; unknown values count as on."""
        by_name = all(isinstance(key, str) for key in self.options)
        return by_name and not any(self.options.get(n) for n in names)


@dataclasses.dataclass(eq=False)
class Batches:
    """The result of `flow`, `flow_from_directory` or `flow_from_dataframe`."""

    generator: Generator
    is_validation: bool
    shuffled: bool


def is_unknown(value: Any) -> bool:
    """Returns whether a value is not one of Python's own."""
    return value is UNKNOWN or isinstance(value, Name | Quotient | Generator | Batches)


def is_number(value: Any) -> bool:
    """Returns whether a value is a number that arithmetic can't overflow."""
    return isinstance(value, int | float) and abs(value) < 1e100


def is_scaled(value: Any) -> bool:
    """Returns whether a value is pixels divided by 255."""
    return isinstance(value, Quotient) and (value.by, value.kind) == (255, "divided")


def dotted(node: ast.AST) -> str:
    """Returns `a.b.c` for such an expression, otherwise an empty string."""
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return base and f"{base}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def shown(node: ast.AST) -> str:
    """Returns an expression as text for a message, shortened if it is long."""
    try:
        text = ast.unparse(node)
    except ValueError:  # Python prints no integers of over 4,300 digits
        return "…"
    return text if len(text) <= 60 else f"{text[:59]}…"


class Call:
    """A call and its values: arguments are keyed by position or name, `**` by None."""

    def __init__(self, node: ast.Call, script: "Script") -> None:
        self.node, self.line = node, node.lineno
        self.script, self.scope = script, script.scope
        function = script.value(node.func)
        self.path = function.path if isinstance(function, Name) else ""
        self.method, self.owner, self.receiver = "", "", UNKNOWN
        if isinstance(node.func, ast.Attribute):
            self.method, self.owner = node.func.attr, shown(node.func.value)
            self.receiver = script.value(node.func.value)
        self.nodes: dict[Any, ast.expr] = dict(enumerate(node.args))
        self.nodes |= {word.arg: word.value for word in node.keywords}
        self.values = {key: script.value(argument) for key, argument in self.nodes.items()}
        data = next((key for key in (0, "x", "generator") if key in self.nodes), None)
        self.data, self.data_name = self.values.get(data), dotted(self.nodes.get(data, node))
        self.on_generator = isinstance(self.receiver, Generator)
        # The model's method that this may be, by today's name.
        self.model_method = "" if self.on_generator else self.method.removesuffix("_generator")
        # The generator whose method this is, or whose batches it draws.
        self.generator: Generator | None = self.receiver if self.on_generator else None
        batches = self.receiver if self.method == "next" else self.data
        if isinstance(batches, Batches) and {self.model_method, self.path} & {*READERS, "next"}:
            self.generator = batches.generator


_Function = ast.FunctionDef | ast.AsyncFunctionDef
READERS = ("fit", "evaluate", "predict")
KERAS = r"(?:(?:tensorflow\.)?keras\.(?:\w+\.)*)?"
_GENERATOR = rf"({KERAS}|(keras_preprocessing|tensorflow|asl_fast)\.(\w+\.)*)ImageDataGenerator"
_VALUE_KEEPING = ("array", "asarray", "astype", "copy", "expand_dims", "reshape")


class Script(ast.NodeVisitor):
    """Follows a script's values from top to bottom and collects what the rules need.

    Bodies of functions come last, when the names around them are set.
    """

    def __init__(self, module: ast.Module) -> None:
        nodes = list(ast.walk(module))
        attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
        self.attribute_nodes = attributes
        self.attributes = set(map(dotted, attributes))
        self.maps_data = any(node.attr == "map" for node in attributes)
        self.functions = {n.name for n in nodes if isinstance(n, _Function)}
        words = [n for n in nodes if isinstance(n, ast.keyword) and n.arg in ("metrics", "name")]
        self.metrics = {getattr(part, "value", None) for word in words for part in ast.walk(word)}
        self.calls: list[Call] = []
        self.generators: list[Generator] = []
        # Path, line, and whether the script handles a failing import.
        self.names: list[tuple[str, int, bool]] = []
        self.subscripts: list[ast.Subscript] = []
        self.scope: ChainMap[str, Any] = ChainMap()
        self._values: dict[ast.AST, Any] = {}
        self._bodies: list[tuple[_Function, ChainMap[str, Any]]] = []
        self._may_fail = False
        self.visit(module)
        while self._bodies:
            function, outer = self._bodies.pop(0)
            arguments = (n.arg for n in ast.walk(function.args) if isinstance(n, ast.arg))
            self.scope = outer.new_child(dict.fromkeys(arguments, UNKNOWN))
            self._visit_all(function.body)

    def value(self, node: ast.AST) -> Any:
        """Returns the value that an expression had where it was first read."""
        if node not in self._values:
            self._values[node] = self._evaluate(node)
        return self._values[node]

    def _evaluate(self, node: ast.AST) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name() | ast.Attribute():
                return self._look_up(node)
            case ast.List() | ast.Tuple():
                return [self.value(element) for element in node.elts]
            case ast.Dict() if all(isinstance(key, ast.Constant) for key in node.keys):
                keys = map(self.value, filter(None, node.keys))
                return dict(zip(keys, map(self.value, node.values), strict=True))
            case ast.BinOp(left=ast.BinOp(), op=ast.FloorDiv()):
                return UNKNOWN  # (n + 31) // 32 rounds up
            case ast.BinOp():
                return self._compute(self.value(node.left), node.op, self.value(node.right))
            case ast.Subscript() if is_scaled(self.value(node.value)):
                return self.value(node.value)
            case ast.Call():
                return self._call(Call(node, self))
        return UNKNOWN

    def _look_up(self, node: ast.Name | ast.Attribute) -> Any:
        name = dotted(node)
        if name in self.scope:
            return self.scope[name]
        if isinstance(node, ast.Name):
            return Name({"np": "numpy", "tf": "tensorflow"}.get(name, name))
        base = self.value(node.value)
        return Name(f"{base.path}.{node.attr}") if isinstance(base, Name) else UNKNOWN

    def _compute(self, left: Any, op: ast.operator, right: Any) -> Any:
        if isinstance(op, ast.Div | ast.FloorDiv):
            if is_number(left) and is_number(right) and right:
                if isinstance(op, ast.Div):
                    return left / right
                if left % right == 0:
                    return left // right
            return Quotient(right, "divided" if isinstance(op, ast.Div) else "rounded down")
        factors = filter(is_number, (left, right) if isinstance(op, ast.Mult) else ())
        if any(math.isclose(factor * 255, 1, rel_tol=1e-3) for factor in factors):
            return Quotient(255)
        kinds = {side.kind for side in (left, right) if isinstance(side, Quotient)}
        return Quotient(kind="other float") if kinds - {"rounded down"} else UNKNOWN

    def _call(self, call: Call) -> Any:
        name = call.method or call.path.rsplit(".", 1)[-1]
        if re.fullmatch(_GENERATOR, call.path):
            options = dict(call.values)
            if isinstance(options.get(None), dict):
                options |= options.pop(None)
            of_keras = not call.path.startswith("asl_fast.")
            self.generators.append(Generator(call.node.lineno, options, of_keras))
            return self.generators[-1]
        if call.on_generator and name.startswith("flow"):
            is_validation = call.values.get("subset") == "validation"
            shuffled = call.values.get("shuffle", True) is True
            return Batches(call.receiver, is_validation, shuffled)
        if call.path == "dict":
            return call.values
        if call.path in ("int", "math.floor") and isinstance(call.data, Quotient):
            divided = call.data.kind == "divided"
            return Quotient(call.data.by, "rounded down") if divided else UNKNOWN
        if call.path in ("numpy.ceil", "numpy.round", "numpy.floor"):
            return Quotient(kind="divided" if name == "floor" else "other float")
        if call.path in ("os.path.join", "pathlib.Path") and call.node.args:
            return call.values[len(call.node.args) - 1]
        if name in _VALUE_KEEPING:
            return next(filter(is_scaled, (call.receiver, call.data)), UNKNOWN)
        if name == "train_test_split":
            return [value for n in range(len(call.node.args)) for value in [call.values[n]] * 2]
        return UNKNOWN

    def _bind(self, target: ast.AST, value: Any) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            fits = isinstance(value, list) and len(value) == len(target.elts)
            for place, element in enumerate(target.elts):
                self._bind(element, value[place] if fits else UNKNOWN)
        elif name := dotted(target):
            # Attributes set on `self` belong to the class, for its other methods.
            shared = isinstance(target, ast.Attribute) and len(self.scope.maps) > 1
            self.scope.maps[1 if shared else 0][name] = value
        owner = self.value(target.value) if isinstance(target, ast.Attribute) else None
        if isinstance(owner, Generator):
            owner.escapes = True
        if isinstance(owner, Batches):
            owner.shuffled = False

    def _visit_all(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        if not (isinstance(value, Generator) and dotted(node.value)):  # another name for it
            self.visit(node.value)
        for target in node.targets:
            self._bind(target, value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        old, by = self.value(node.target), self.value(node.value)
        self._bind(node.target, self._compute(old, node.op, by))

    def visit_If(self, node: ast.If) -> None:
        """Keeps values that are the same after both branches."""
        self.visit(node.test)
        names = self.scope.maps[0]
        before = dict(names)
        self._visit_all(node.body)
        after = dict(names)
        names.clear()
        names.update(before)
        self._visit_all(node.orelse)
        for name, value in after.items():
            names[name] = value if names.get(name, value) is value else UNKNOWN

    def visit_Try(self, node: ast.Try) -> None:
        """Keeps the values of the `try` block. Imports that may fail there break nothing."""
        before = self._may_fail
        caught = [ast.unparse(handler.type) if handler.type else "Any" for handler in node.handlers]
        self._may_fail |= bool(re.search("Any|Import|NotFound|Exception", " ".join(caught)))
        self._visit_all(node.body)
        tried = dict(self.scope.maps[0])
        self._visit_all(node.handlers)
        self.scope.maps[0].update(tried)
        self._may_fail = before
        self._visit_all(node.orelse + node.finalbody)

    def visit_FunctionDef(self, node: _Function) -> None:
        self._visit_all([*node.decorator_list, node.args])
        self.scope[node.name] = UNKNOWN
        self._bodies.append((node, self.scope))

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.scope[node.name] = UNKNOWN
        outer, self.scope = self.scope, self.scope.new_child()
        self._visit_all(node.body)
        self.scope = outer

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            root = alias.name if alias.asname else alias.name.split(".")[0]
            self._import(node, alias.name, alias.asname or root, root)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            if alias.name != "*":
                path = f"{module}.{alias.name}"
                self._import(node, path, alias.asname or alias.name, path)
            elif re.search(r"^asl_fast$|preprocessing\.image$", module):
                self.scope["ImageDataGenerator"] = Name(f"{module}.ImageDataGenerator")

    def _import(self, node: ast.stmt, path: str, name: str, meaning: str) -> None:
        self.names.append((path, node.lineno, self._may_fail))
        self.scope[name] = Name(meaning)

    def _use(self, node: ast.Name | ast.Attribute) -> Any:
        value = self.value(node)
        if isinstance(value, Name):
            self.names.append((value.path, node.lineno, self._may_fail))
        return value

    def visit_Name(self, node: ast.Name) -> None:
        value = self._use(node)
        if isinstance(value, Generator):
            value.escapes = True

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._use(node)
        if not dotted(node.value):
            self.visit(node.value)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.generic_visit(node)
        self.subscripts.append(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        self.value(node)
        self.calls.append(Call(node, self))

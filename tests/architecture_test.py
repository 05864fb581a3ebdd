import ast
import subprocess
import sys
from pathlib import Path

import asl_fast

PACKAGE = Path(asl_fast.__file__).parent

# From the bottom up: a module imports only from floors below its own.
FLOORS = [
    {
        *("errors", "options", "threefry", "spline", "photometric", "statistics"),
        *("device", "resize", "readiness", "workers", "normalization", "muon"),
    },
    {
        *("recipe", "parameters", "warp", "split", "storage", "table", "reader", "replay"),
        *("decode", "hands", "quiet"),
    },
    {
        *("affine", "figures", "pipeline", "lint", "precision", "optimizer"),
        *("photograph", "service"),
    },
    {"augment", "loop", "targets", "checkpoint", "records"},
    {"dataset", "standardize", "iterators", "memory", "convert", "distribution"},
    {"files", "kaggle", "network", "saving"},
    {"generator", "classifier", "evaluation", "export"},
    {"source"},
    {"feed"},
    {"trainer"},
    {"run", "script", "doctor"},
    {"report", "demo"},
    {"cli"},
    {"__main__"},
]


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "asl_fast":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("asl_fast."):
            yield node.module.split(".")[1]


def test_modules_import_only_from_floors_below():
    floor = {module: number for number, modules in enumerate(FLOORS) for module in modules}
    modules = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    assert set(floor) == set(modules)
    for name, path in modules.items():
        for other in imported_modules(path):
            assert floor[other] < floor[name], f"{name} imports {other}"


def test_public_names_are_there_and_importing_loads_no_tensorflow():
    code = """
import sys, asl_fast
assert not {"tensorflow", "keras", "pandas", "numpy"} & set(sys.modules)
assert set(asl_fast.__all__) <= set(dir(asl_fast))
for name in asl_fast.__all__:
    value = getattr(asl_fast, name)
    assert getattr(value, "__name__", name) == name
try:
    asl_fast.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_module_says_what_it_exports():
    for path in PACKAGE.glob("*.py"):
        if path.stem != "__main__":
            assert "__all__" in path.read_text(), path.name

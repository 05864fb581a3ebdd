import ast
import re
import subprocess
import sys
from pathlib import Path

import asl_fast

PACKAGE = Path(asl_fast.__file__).parent
# From the top down.
ROOMS = re.findall(r"^\| `(\w+)` \|", (PACKAGE / "README.md").read_text(), flags=re.M)


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "asl_fast":
            for alias in node.names:
                home = asl_fast._HOMES.get(alias.name, alias.name)
                yield home.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("asl_fast."):
            yield node.module.split(".")[1]


def test_rooms_import_only_from_rooms_below():
    assert {path.parent.name for path in PACKAGE.glob("*/*.py")} == set(ROOMS)
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}
    for place, room in enumerate(ROOMS):
        for path in (PACKAGE / room).glob("*.py"):
            above = set(imported_rooms(path)) - set(ROOMS[place:]) - {"__version__"}
            assert not above, f"{room}/{path.name} imports from {above}"


def test_each_room_has_a_charter_and_nothing_else_in_its_init():
    for room in ROOMS:
        tree = ast.parse((PACKAGE / room / "__init__.py").read_text())
        assert ast.get_docstring(tree), room
        assert len(tree.body) == 1, room


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
    for path in PACKAGE.glob("*/*.py"):
        assert path.name == "__init__.py" or "__all__" in path.read_text(), path.name

import ast
import re
import subprocess
import sys
from pathlib import Path

from mypy import api

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
for name in asl_fast.__all__:
    value = getattr(asl_fast, name)
    assert getattr(value, "__name__", name) == name
assert dir(asl_fast) == sorted(asl_fast.__all__)  # and no sub-packages, which are loaded by now
try:
    asl_fast.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)


TYPED = """
import asl_fast

fit: int = asl_fast.fit
options: str = asl_fast.AugmentOptions()
recipe: str = asl_fast.RECIPES["fast"]
asl_fast.fitt
"""


def test_type_checkers_and_editors_see_the_public_names(tmp_path):
    """By mypy, which does not run the package either, and reads its types for `py.typed`."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (
        node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name)
    )
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == {name: f"asl_fast.{home}" for name, home in asl_fast._HOMES.items()}
    (tmp_path / "script.py").write_text(TYPED)
    found, _, _ = api.run([str(tmp_path / "script.py"), "--no-error-summary"])
    complaints = [line.split("error: ")[1] for line in found.splitlines() if "error: " in line]
    assert [complaint.rsplit("[")[-1] for complaint in complaints] == [
        *["assignment]"] * 3,
        "attr-defined]",
    ]
    assert "AugmentOptions" in complaints[1]
    assert '"Recipe"' in complaints[2]


def test_each_module_says_what_it_exports():
    for path in PACKAGE.glob("*/*.py"):
        assert path.name == "__init__.py" or "__all__" in path.read_text(), path.name

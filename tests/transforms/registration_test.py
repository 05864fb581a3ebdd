import subprocess
import sys

import pytest

# In the place of Keras, which takes seconds to import.
_KERAS = """
class saving:
    registered = {}
    get_custom_objects = staticmethod(lambda: saving.registered)
"""

ORDERS = {
    "keras first": "import keras, asl_fast",
    "keras last": "import asl_fast, keras",
    "a part of keras first": "import asl_fast, keras.layers",
    "by its name": "import asl_fast, importlib; keras = importlib.import_module('keras')",
    "looked for, then imported": "import asl_fast; find_spec('keras'); import keras",
    "missing, then imported": """
import asl_fast
path, sys.path = sys.path, []
try:
    import keras
except ModuleNotFoundError as error:
    assert str(error) == "No module named 'keras'"
else:
    raise AssertionError
sys.path = path
import keras
""",
}


@pytest.mark.parametrize("imports", ORDERS.values(), ids=ORDERS.keys())
def test_keras_knows_the_layers_whichever_is_imported_first(imports, tmp_path):
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "__init__.py").write_text(_KERAS)
    (tmp_path / "keras" / "layers.py").touch()
    code = f"""
import sys
from importlib.util import find_spec
sys.path.insert(0, {str(tmp_path)!r})
{imports}
import keras
print(*sorted(keras.saving.registered))
assert not {{"tensorflow", "asl_fast.transforms.standardize"}} & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "asl_fast>RandomAugment asl_fast>Standardize\n", result.stderr


def test_a_keras_without_registration_is_imported_all_the_same(tmp_path):
    (tmp_path / "keras.py").write_text("version = '0'")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import asl_fast, keras
print(keras.version)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "0\n", result.stderr

import shlex
from pathlib import Path

from packaging.requirements import Requirement

from asl_fast.system import extras


def test_a_clone_names_its_script():
    command, extra = shlex.split(extras.how_to_install("demo"))
    assert Path(command) == Path(extras.__file__).parents[2] / "scripts" / "install"
    assert extra == "demo"
    message = str(extras.missing("The demo", "demo"))
    assert message.startswith("The demo needs the extra asl-fast[demo]. Install it with: /")
    assert "\n" not in message


def test_an_installed_package_names_what_pip_can_fetch(monkeypatch):
    monkeypatch.setattr(Path, "is_file", lambda path: False)
    *pip, gradio = shlex.split(extras.how_to_install("demo"))
    assert pip == ["pip", "install"]
    assert Requirement(gradio).name == "gradio"
    assert "7" in str(Requirement(gradio).specifier)
    names = {Requirement(text).name for text in shlex.split(extras.how_to_install("export"))[2:]}
    assert {"onnx", "onnxruntime", "openvino", "tf2onnx", "ai-edge-litert"} <= names

"""OpenVINO's intermediate representation."""

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from asl_fast.inference.target import Exportable, Run, Target

__all__ = ["OpenVINO"]


class OpenVINO(Target):
    """A folder with `model.xml`, its weights `model.bin`, and the labels in `labels.txt`."""

    name = "openvino"
    suffix = ".openvino"
    packages = ("openvino",)
    marker = "model.xml"

    def write(self, source: Exportable, path: Path) -> None:
        """As `Target.write`."""
        openvino = _import_openvino()  # before Keras does
        # Keras's own exporter keeps what no output needs, also operations that OpenVINO lacks.
        with tempfile.TemporaryDirectory() as folder:
            source.at_inference().export(
                folder, format="tf_saved_model", verbose=False, input_signature=source.signature
            )
            openvino.serialize(openvino.convert_model(folder), path / "model.xml")
        if source.labels is not None:
            (path / "labels.txt").write_text(source.labels, encoding="utf-8")

    def load(self, path: Path) -> Run:
        """As `Target.load`; in float32, since OpenVINO prefers bfloat16 on CPUs that have it."""
        options = {"INFERENCE_PRECISION_HINT": "f32"}
        model = _import_openvino().Core().compile_model(path / "model.xml", "CPU", options)
        return lambda images: model({"images": images})[0]


def _import_openvino() -> Any:
    # Its telemetry package reports each import and conversion to Intel without asking.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")

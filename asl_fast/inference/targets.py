"""The table of export targets. A new one is a file of its own and a line here."""

from asl_fast.inference.target import Target
from asl_fast.inference.target_litert import LiteRT
from asl_fast.inference.target_onnx import ONNX
from asl_fast.inference.target_openvino import OpenVINO
from asl_fast.inference.target_savedmodel import SavedModel

__all__ = ["TARGETS"]

_ALL: tuple[Target, ...] = (SavedModel(), LiteRT(), ONNX(), OpenVINO())

TARGETS = {target.name: target for target in _ALL}

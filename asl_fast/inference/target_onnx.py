"""ONNX, for ONNX Runtime."""

from pathlib import Path

from asl_fast.inference.target import Exportable, Run, Target

__all__ = ["ONNX"]


class ONNX(Target):
    """One file; the labels are `letters` in the model's metadata."""

    name = "onnx"
    suffix = ".onnx"
    packages = ("tf2onnx", "onnxruntime")

    def write(self, source: Exportable, path: Path) -> None:
        """As `Target.write`."""
        import onnx

        source.at_inference().export(
            path, format="onnx", verbose=False, input_signature=source.signature
        )
        if source.labels is not None:
            written = onnx.load(path)
            onnx.helper.set_model_props(written, {"letters": source.labels})
            onnx.save(written, path)

    def load(self, path: Path) -> Run:
        """As `Target.load`."""
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda images: session.run(None, {"images": images})[0]

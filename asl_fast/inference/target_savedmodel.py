"""TensorFlow's SavedModel."""

from pathlib import Path
from typing import Any

from asl_fast.inference.target import Exportable, Run, Target

__all__ = ["SavedModel"]


class SavedModel(Target):
    """A folder; the labels are `assets.extra/labels.txt`, where TensorFlow keeps users' files."""

    name = "savedmodel"
    suffix = ".savedmodel"
    packages = ("tensorflow",)
    marker = "saved_model.pb"

    def write(self, source: Exportable, path: Path) -> None:
        """As `Target.write`."""
        source.at_inference().export(
            path, format="tf_saved_model", verbose=False, input_signature=source.signature
        )
        if source.labels is not None:
            (path / "assets.extra").mkdir()
            (path / "assets.extra" / "labels.txt").write_text(source.labels, encoding="utf-8")

    def load(self, path: Path) -> Run:
        """As `Target.load`."""
        import tensorflow as tf

        with tf.device("/CPU:0"):
            loaded = tf.saved_model.load(str(path))

        def run(images: Any) -> Any:
            # Looked up at each call: the signature alone does not keep the variables alive.
            serve = loaded.signatures["serving_default"]
            with tf.device("/CPU:0"):
                (output,) = serve(images=tf.constant(images)).values()
                return output.numpy()

        return run

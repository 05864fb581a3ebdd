"""Holds back what TensorFlow and its converters write to standard error."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from asl_fast.system.errors import InputError

__all__ = ["held", "import_tensorflow"]


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Holds back what the process writes to standard error, and shows it only if the block fails.

    An `InputError` does not count as a failure: its one line says what was wrong.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except InputError:
            raise
        except BaseException:
            sys.stderr.flush()
            file.seek(0)
            os.write(stderr, file.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)


def import_tensorflow() -> None:
    """Imports TensorFlow and looks for devices, silently unless that fails.

    Some of its lines come before its logging is set up and obey no setting.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with held():
        import tensorflow

        tensorflow.config.list_physical_devices()  # complains about a missing driver

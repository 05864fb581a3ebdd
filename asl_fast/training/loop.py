"""Runs many training steps per host call."""

import abc
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from asl_fast.data.pipeline import Batch, Span, gathered
from asl_fast.system.errors import DivergenceError

__all__ = ["Loop", "TrainingLoop", "choose_steps_per_execution", "slicer"]

# Images per host call, between which the host serves progress bar and Ctrl-C: about a second on
# two cores, and 40 ms on a GPU that trains 200,000 a second, which makes the host's half
# millisecond small.
_IMAGES = {"CPU": 1024, "GPU": 8192}


def choose_steps_per_execution(steps: int, batch_size: int, kind: str) -> int:
    """Returns how many steps to run per call: near what suits the device, and a divisor.

    With a divisor of the steps of an epoch Keras's progress bar ends where the epoch does.

    Args:
        steps: Int, at least 1, of an epoch.
        batch_size: Int, at least 1.
        kind: "CPU" or "GPU".
    """
    wanted = min(max(1, _IMAGES[kind] // batch_size), steps)
    divisors = [n for n in range(-(-wanted // 2), 2 * wanted + 1) if steps % n == 0]
    return min(divisors, key=lambda n: abs(n - wanted), default=wanted)


class Loop(abc.ABC):
    """Stands in for `keras.Model.train_function`: several training steps per call.

    Unlike Keras's own loop over `steps_per_execution` it never runs beyond an epoch's last step,
    and checks every loss.

    Args:
        model: Compiled.
        span: Which part of the training, with steps. Calls for its `done` steps return at once,
            with the metrics as they are.
        steps_per_execution: Int, steps per call.
    """

    def __init__(self, model: keras.Model, span: Span, steps_per_execution: int) -> None:
        assert span.steps is not None
        self._model = model
        self._first_epoch = span.first_epoch
        self._steps = span.steps
        self._steps_per_execution = steps_per_execution
        self._skipped = span.done
        self._done = 0

    def __call__(self, iterator: Any) -> Any:
        """Runs the next steps and returns the last one's logs.

        Raises:
            DivergenceError: The loss was NaN or infinite.
        """
        epoch, place = divmod(self._done, self._steps)
        steps = min(self._steps_per_execution, self._steps - place)
        skipped = self._done < self._skipped
        self._done += steps
        if skipped:
            return self._model.get_metrics_result()
        logs, finite = self._run(iterator, steps)
        if finite < steps:
            raise self._diverged(self._first_epoch + epoch, place + finite)
        return logs

    @abc.abstractmethod
    def _run(self, iterator: Any, steps: int) -> tuple[Any, int]:
        """Runs steps; returns the last one's logs, and how many came before a bad loss."""

    def _diverged(self, epoch: int, step: int) -> DivergenceError:
        rate: Any = getattr(self._model.optimizer, "learning_rate", None)
        # The only way out of TensorFlow for a variable of several devices.
        rate = rate.numpy() if hasattr(rate, "numpy") else rate
        return DivergenceError(
            f"The loss is not a number after step {step + 1} of {self._steps} in epoch "
            f"{epoch + 1}, so training stopped there; nothing was saved since. A lower learning "
            "rate may help" + ("." if rate is None else f": it was {float(rate):.3g}.")
        )


class TrainingLoop(Loop):
    """Runs the steps of one device.

    Args:
        model: Compiled.
        span: As for `Loop`.
        steps_per_execution: As for `Loop`.
        merged: None where each element of the iterator is a step's batch; or the batch size, where
            it is a `Batch` without data for all steps of a call.
        tensors: A structure of tensors on the device, and None, from which the rows of batches
            without data are gathered; None where batches bring their data.
        xla_gather: Bool, whether XLA compiles the gathering.
    """

    def __init__(
        self,
        model: keras.Model,
        span: Span,
        steps_per_execution: int,
        *,
        merged: int | None = None,
        tensors: Any = None,
        xla_gather: bool = False,
    ) -> None:
        super().__init__(model, span, steps_per_execution)
        self._merged = merged
        # An argument of the functions, not captured: Keras ties each traced step into a knot of
        # references that Python can't collect (`_keras_logits`), and data would stay with it.
        self._tensors = tensors
        train_step = model.train_step
        gather = (
            tf.function(gathered, jit_compile=True, autograph=False) if xla_gather else gathered
        )

        def one_step(batch: Any, tensors: Any, finite: tf.Tensor) -> tuple[Any, tf.Tensor]:
            logs = train_step(batch if tensors is None else gather(tensors, batch))
            if "loss" not in logs:
                return logs, finite + 1
            good = tf.math.is_finite(logs["loss"])
            return logs, finite + tf.cast(
                tf.reduce_all(good) if good.shape.rank else good, tf.int64
            )

        # As Keras does it: XLA, if at all, compiles a step and not the loop around it.
        self._step = tf.function(
            one_step, jit_compile=model.jit_compile, reduce_retracing=True, autograph=False
        )
        self._execute = tf.function(self._steps_of_call, reduce_retracing=True, autograph=False)

    def _run(self, iterator: Any, steps: int) -> tuple[Any, int]:
        logs, finite = self._execute(iterator, tf.constant(steps), self._tensors)
        return logs, int(finite)

    def traced(self, iterator: Any) -> Any:
        """Returns the `ConcreteFunction` that a call executes."""
        return self._execute.get_concrete_function(iterator, tf.constant(1), self._tensors)

    def _steps_of_call(
        self, iterator: Any, steps: tf.Tensor, tensors: Any
    ) -> tuple[Any, tf.Tensor]:
        next_batch: Callable[[tf.Tensor], Any]
        if self._merged is None:
            next_batch = lambda _: iterator.get_next()  # noqa: E731
        else:
            next_batch = slicer(iterator.get_next(), self._merged)

        def body(i: tf.Tensor, logs: Any, finite: tf.Tensor) -> tuple[tf.Tensor, Any, tf.Tensor]:
            del logs
            return i + 1, *self._step(next_batch(i), tensors, finite)

        # The first step runs outside of the loop: it tells the structure of the logs.
        first = self._step(next_batch(tf.constant(0)), tensors, tf.constant(0, tf.int64))
        _, logs, finite = tf.while_loop(
            lambda i, *_: i < steps, body, [tf.constant(1), *first], parallel_iterations=1
        )
        return logs, finite


def slicer(merged: Batch, batch_size: int) -> Callable[[tf.Tensor], Batch]:
    """Returns a function that gives the i-th of several batches without data, merged into one."""

    def batch(i: tf.Tensor) -> Batch:
        # The indices are on the host, and one copy is to go from there.
        with tf.device("CPU"):
            rows = slice(i * batch_size, i * batch_size + batch_size)
            parameters = None if merged.parameters is None else merged.parameters[rows]
            return Batch(None, merged.samples[rows], merged.epoch, parameters)

    return batch

"""The loop over training steps, within TensorFlow: the host wakes once in many."""

import abc
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from asl_fast.data.pipeline import Batch, Span, gathered
from asl_fast.system.errors import DivergenceError

__all__ = ["Loop", "TrainingLoop", "choose_at_once", "parts"]

# Images between two looks of the host at progress bar and Ctrl-C: about a second on two cores, and
# 40 ms on a GPU that trains 200,000 a second, which makes the host's half millisecond small.
_IMAGES = {"CPU": 1024, "GPU": 8192}


def choose_at_once(steps: int, batch_size: int, kind: str) -> int:
    """Returns how many steps to take at a time: near what suits the device, and a divisor.

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
    """Stands in for `keras.Model.train_function`: several training steps a call.

    Unlike Keras's own loop over `steps_per_execution` it never goes beyond an epoch's last step,
    and looks at every loss.

    Args:
        model: Compiled.
        span: Which part of the training, with steps. Calls for those that are done already return
            at once, with the metrics as they are.
        at_once: Int, steps a call.
    """

    def __init__(self, model: keras.Model, span: Span, at_once: int) -> None:
        assert span.steps is not None
        self._model = model
        self._first_epoch = span.first_epoch
        self._steps = span.steps
        self._at_once = at_once
        self._left_out = span.done
        self._done = 0

    def __call__(self, iterator: Any) -> Any:
        """Takes the next steps and returns the last one's logs.

        Raises:
            DivergenceError: The loss was NaN or infinite.
        """
        epoch, place = divmod(self._done, self._steps)
        steps = min(self._at_once, self._steps - place)
        left_out = self._done < self._left_out
        self._done += steps
        if left_out:
            return self._model.get_metrics_result()
        logs, finite = self._take(iterator, steps)
        if finite < steps:
            raise self._diverged(self._first_epoch + epoch, place + finite)
        return logs

    @abc.abstractmethod
    def _take(self, iterator: Any, steps: int) -> tuple[Any, int]:
        """Takes steps; returns the last one's logs, and how many there were before a bad loss."""

    def _diverged(self, epoch: int, step: int) -> DivergenceError:
        rate: Any = getattr(self._model.optimizer, "learning_rate", None)
        # A variable of several devices has only this way out of TensorFlow.
        rate = rate.numpy() if hasattr(rate, "numpy") else rate
        return DivergenceError(
            f"The loss is not a number after step {step + 1} of {self._steps} in epoch "
            f"{epoch + 1}, so training stopped there; nothing was saved since. A lower learning "
            "rate may help" + ("." if rate is None else f": it was {float(rate):.3g}.")
        )


class TrainingLoop(Loop):
    """The loop over the steps of one device.

    It can take the batches of all steps of a call from the iterator as one.

    Args:
        model: Compiled.
        span: As for `Loop`.
        at_once: As for `Loop`.
        divided: None where each element of the iterator is a step's batch; or the batch size,
            where it is a `Batch` without data for all the steps of a call.
        stored: A structure of tensors on the device, or None, from which the rows of batches
            without data are gathered; None where batches come with their data.
        by_xla: Bool, whether XLA compiles the gathering.
    """

    def __init__(
        self,
        model: keras.Model,
        span: Span,
        at_once: int,
        *,
        divided: int | None = None,
        stored: Any = None,
        by_xla: bool = False,
    ) -> None:
        super().__init__(model, span, at_once)
        self._divided = divided
        # An argument of the functions, not captured: Keras ties each traced step into a knot of
        # references that Python can't take apart (`_keras_logits`), and data would stay with it.
        self._stored = stored
        train_step = model.train_step

        gather = tf.function(gathered, jit_compile=True, autograph=False) if by_xla else gathered

        def one(batch: Any, stored: Any, finite: tf.Tensor) -> tuple[Any, tf.Tensor]:
            logs = train_step(batch if stored is None else gather(stored, batch))
            if "loss" not in logs:
                return logs, finite + 1
            good = tf.math.is_finite(logs["loss"])
            return logs, finite + tf.cast(
                tf.reduce_all(good) if good.shape.rank else good, tf.int64
            )

        # As Keras does it: XLA, if at all, compiles a step and not the loop around it.
        self.step = tf.function(
            one, jit_compile=model.jit_compile, reduce_retracing=True, autograph=False
        )
        self.execute = tf.function(self._execute, reduce_retracing=True, autograph=False)

    def _take(self, iterator: Any, steps: int) -> tuple[Any, int]:
        logs, finite = self.execute(iterator, tf.constant(steps), self._stored)
        return logs, int(finite)

    def traced(self, iterator: Any) -> Any:
        """Returns the `ConcreteFunction` that a call executes."""
        return self.execute.get_concrete_function(iterator, tf.constant(1), self._stored)

    def _execute(self, iterator: Any, steps: tf.Tensor, stored: Any) -> tuple[Any, tf.Tensor]:
        next_batch: Callable[[tf.Tensor], Any]
        if self._divided is None:
            next_batch = lambda _: iterator.get_next()  # noqa: E731
        else:
            next_batch = parts(iterator.get_next(), self._divided)

        def body(i: tf.Tensor, logs: Any, finite: tf.Tensor) -> tuple[tf.Tensor, Any, tf.Tensor]:
            del logs
            return i + 1, *self.step(next_batch(i), stored, finite)

        # The first step outside of the loop: it tells what the logs are.
        first = self.step(next_batch(tf.constant(0)), stored, tf.constant(0, tf.int64))
        _, logs, finite = tf.while_loop(
            lambda i, *_: i < steps, body, [tf.constant(1), *first], parallel_iterations=1
        )
        return logs, finite


def parts(batch: Batch, size: int) -> Callable[[tf.Tensor], Batch]:
    """Returns what gives the i-th part of a batch without data."""

    def part(i: tf.Tensor) -> Batch:
        # The numbers are on the host, and one copy is to go from there.
        with tf.device("CPU"):
            within = slice(i * size, i * size + size)
            parameters = None if batch.parameters is None else batch.parameters[within]
            return Batch(None, batch.samples[within], batch.epoch, parameters)

    return part

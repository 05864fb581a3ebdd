import keras
import numpy as np
import pytest
import tensorflow as tf

from asl_fast import RandomAugment, Standardize, fit, pipeline
from tests.samples import blobs

TRAIN = blobs(72)
STORED = TRAIN[0], np.eye(24, dtype=np.float32)[TRAIN[1]]
VALID = blobs(48, seed=1)
VALID = VALID[0], np.eye(24, dtype=np.float32)[VALID[1]]
RESCALE = Standardize(rescale=1 / 255, dtype="float32")


def small_model(seed=0, jit_compile=False):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(4, 5, strides=3, activation="relu"),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.Flatten(),
            keras.layers.Dense(24, activation="softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"], jit_compile=jit_compile)
    return model


def augment():
    return RandomAugment(
        rotation_range=10, zoom_range=0.1, horizontal_flip=True, seed=3, dtype="float32"
    )


def test_augmenting_in_the_step_equals_augmenting_beforehand():
    """The same images, augmented by the layer outside, put through plain `keras.Model.fit`."""
    ours, plain = small_model(), small_model()
    history = fit(
        ours,
        *STORED,
        augment=augment(),
        standardize=RESCALE,
        batch_size=32,
        epochs=2,
        seed=5,
        verbose=0,
    )

    layer = augment()

    def outside(batch):
        images, labels = batch.data
        pixels = layer(images, samples=batch.samples, epoch=batch.epoch, training=True)
        return pixels / 255.0, labels

    batches = pipeline.training_batches(STORED, batch_size=32, steps=6, seed=5).map(outside)
    expected = plain.fit(batches, steps_per_epoch=3, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(history.history["loss"], expected.history["loss"], rtol=1e-5)
    for mine, other in zip(ours.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_the_same_seed_gives_the_same_weights():
    models = [small_model(), small_model()]
    for model in models:
        fit(model, *STORED, augment=augment(), standardize=RESCALE, epochs=2, seed=1, verbose=0)
    for first, second in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(first, second)


def test_it_learns_and_leaves_a_plain_model_behind(tmp_path):
    model = small_model()
    seen = []

    class Witness(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            seen.append(self.model)

    checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "checkpoint.keras")
    history = fit(
        model,
        *STORED,
        standardize=RESCALE,
        validation_data=VALID,
        epochs=25,
        callbacks=[Witness(), checkpoint],
        verbose=0,
    )
    assert history.history["val_accuracy"][-1] > 0.6  # chance is 0.04
    assert seen == [model]
    x, y = TRAIN[0] / 255, STORED[1]
    saved = keras.saving.load_model(tmp_path / "checkpoint.keras")
    np.testing.assert_allclose(saved.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
    # Keras's own `fit` takes the model on, with its own kind of data.
    again = model.fit(x, y, verbose=0)
    assert again.history["loss"][0] < history.history["loss"][0]


def test_an_interrupted_fit_leaves_a_plain_model_too():
    model = small_model()

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, *STORED, callbacks=[Stop()], verbose=0)
    model.fit(TRAIN[0] / 255, STORED[1], verbose=0)


def test_calling_it_again_continues_with_later_epochs():
    whole, parts = small_model(), small_model()
    fit(whole, *STORED, augment=augment(), standardize=RESCALE, epochs=3, seed=1, verbose=0)
    fit(parts, *STORED, augment=augment(), standardize=RESCALE, epochs=2, seed=1, verbose=0)
    fit(
        parts,
        *STORED,
        augment=augment(),
        standardize=RESCALE,
        epochs=3,
        initial_epoch=2,
        seed=1,
        verbose=0,
    )
    for first, second in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


def test_the_whole_step_compiles_with_xla():
    compiled, plain = small_model(jit_compile=True), small_model()
    for model in (compiled, plain):
        fit(
            model,
            *STORED,
            augment=augment(),
            standardize=RESCALE,
            batch_size=32,
            epochs=1,
            seed=1,
            verbose=0,
        )
    for first, second in zip(compiled.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-3)


def test_tracing_ends_with_the_first_epoch():
    model = small_model()
    plain_step, traces, by_epoch = model.train_step, [], []

    def counting(data):
        traces.append(data)
        return plain_step(data)

    class Count(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            by_epoch.append(len(traces))

    model.train_step = counting
    fit(
        model,
        *STORED,
        augment=augment(),
        standardize=RESCALE,
        batch_size=32,
        epochs=3,
        callbacks=[Count()],
        verbose=0,
    )
    assert by_epoch[0] >= 1
    assert by_epoch == [by_epoch[0]] * 3
    assert model.train_step is counting  # a step that the user gave the model is put back


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_another_precision_and_back(policy, tmp_path):
    model = small_model()
    optimizer = model.optimizer
    seen = {}

    class Witness(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen["policies"] = [layer.dtype_policy.name for layer in self.model.layers]
            seen["scaled"] = isinstance(self.model.optimizer, keras.optimizers.LossScaleOptimizer)

    arguments = {"standardize": RESCALE, "seed": 1, "epochs": 2, "verbose": 0}
    arguments["validation_data"] = VALID
    history = fit(model, *STORED, precision=policy, jit=True, callbacks=[Witness()], **arguments)
    assert seen["policies"] == [policy] * 3 + ["float32"]  # the softmax stays
    assert seen["scaled"] == (policy == "mixed_float16")
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
    assert model.optimizer is optimizer
    assert not model.jit_compile
    assert {weight.dtype for weight in model.get_weights()} == {np.dtype("float32")}
    plain = fit(small_model(), *STORED, **arguments)
    np.testing.assert_allclose(history.history["loss"], plain.history["loss"], rtol=0.05)
    assert history.history["loss"] != plain.history["loss"]
    # What is traced in mixed precision must not be what evaluates afterwards.
    model.save(tmp_path / "model.keras")
    saved = keras.saving.load_model(tmp_path / "model.keras")
    x, y = TRAIN[0] / 255, STORED[1]
    np.testing.assert_allclose(
        saved.evaluate(x, y, verbose=0), model.evaluate(x, y, verbose=0), rtol=1e-6
    )
    fit(model, *STORED, **arguments)


def test_auto_precision_is_float32_without_a_gpu():
    if not tf.config.list_physical_devices("GPU"):
        auto, plain = small_model(), small_model()
        for model, precision in ((auto, "auto"), (plain, None)):
            fit(model, *STORED, standardize=RESCALE, precision=precision, verbose=0)
        for first, second in zip(auto.get_weights(), plain.get_weights(), strict=True):
            np.testing.assert_array_equal(first, second)

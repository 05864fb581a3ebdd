import dataclasses
import json
import sys

import keras
import numpy as np
import pytest

from asl_fast import RECIPES, build_cnn
from asl_fast.data import dataset
from benchmarks import study, trials
from benchmarks.photographs import held_out, nearest, photographs
from tests.samples import blobs

# Photographs


def _expanded(photographs=60, each=5):
    """Returns images of so many photographs, several each: brighter, darker, of more contrast."""
    rng = np.random.default_rng(0)
    rough = rng.normal(size=(photographs, 7, 7))
    bases = np.kron(rough, np.ones((4, 4)))
    factors = rng.uniform(15, 25, (photographs, each, 1, 1))
    offsets = rng.uniform(100, 140, (photographs, each, 1, 1))
    images = factors * bases[:, None] + offsets + rng.normal(size=(photographs, each, 28, 28))
    order = rng.permutation(photographs * each)
    numbers = np.repeat(np.arange(photographs), each)[order]
    images = images.reshape(-1, 28, 28, 1)[order].clip(0, 255).astype(np.uint8)
    return images, numbers % 3, numbers


def test_images_of_one_photograph_stay_together():
    images, labels, numbers = _expanded()
    found = photographs(images, labels)
    assert len(set(found)) == len(set(numbers)) == len(set(zip(found, numbers, strict=True)))
    out = held_out(images, labels, share=0.2)
    assert not set(numbers[out]) & set(numbers[~out])
    for letter in range(3):
        assert 0.15 <= out[labels == letter].mean() <= 0.3
    apart = nearest(images[out], labels[out], images[~out], labels[~out])
    assert apart.max() < 0.99
    at_random = np.arange(len(labels)) % 5 == 0
    leaky = nearest(images[at_random], labels[at_random], images[~at_random], labels[~at_random])
    assert np.median(leaky) > 0.99


# Trials


def _data():
    images, labels = blobs(240)
    train = dataset.Split(images, labels, "train", "", "course")
    images, labels = blobs(48, seed=1)
    return dataset.Dataset("blobs", train, dataset.Split(images, labels, "valid", "", "course"))


RECIPE = dataclasses.replace(
    RECIPES["course"], epochs=2, batch_size=10, batch_norm_momentum=0.5, optimizer="adamw"
)


def small_cnn(dtype, batch_norm_momentum):
    """A network to which images of 25 pixels a side give as many values, too."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.BatchNormalization(momentum=batch_norm_momentum),
            layers.MaxPool2D(4, padding="same"),
            layers.Flatten(),
            layers.Dense(24, "softmax"),
        ]
    )


@pytest.mark.parametrize("name", ["hard half", "smaller images first", "average 0.98"])
def test_a_trial_learns(name, monkeypatch):
    monkeypatch.setattr(study, "build_cnn", small_cnn)
    recipe = dataclasses.replace(RECIPE, learning_rate=1e-2)
    found = study.train(study.Trial(recipe, name), _data(), seed=0, history=True)
    assert found["steps"] == 48
    assert len(found["epoch_seconds"]) == len(found["val_accuracy"])
    assert sorted(found["epoch_seconds"]) == found["epoch_seconds"]
    assert found["train_accuracy"] > 0.2
    assert found["accuracy"] > 0.2


def test_phases():
    images, labels = blobs(240)
    whole = trials.Phase(RECIPE, images, np.eye(24, dtype=np.float32)[labels])

    def phases(name):
        return list(trials.EXTRAS[name].phases(None, whole))

    one, two = phases("alternating flip")
    mirrored = (one.images == images[:, :, ::-1]).all((1, 2, 3))
    assert 0.3 < mirrored.mean() < 0.7
    np.testing.assert_array_equal(two.images[~mirrored], images[~mirrored, :, ::-1])
    np.testing.assert_array_equal(two.images[mirrored], images[mirrored])
    assert not one.recipe.augment.horizontal_flip

    strengths = [
        phase.recipe.augment.rotation_range for phase in phases("augmentation fading to half")
    ]
    assert strengths == [10, 5]
    ordered, _ = phases("balanced batches")
    for batch in ordered.labels.argmax(1).reshape(-1, 48):
        assert np.bincount(batch, minlength=24).max() <= 4
    assert [len(phase.images) for phase in phases("hard half")] == [240, 120]
    assert [phase.images.shape[1] for phase in phases("smaller images first")] == [25, 28]
    assert [phase.recipe.batch_size for phase in phases("batch doubled")] == [10, 20]


def test_statistics_are_those_of_augmented_images():
    keras.utils.set_random_seed(0)
    model = build_cnn()
    images, labels = blobs(240)
    recipe = dataclasses.replace(RECIPE, augment=dataclasses.replace(RECIPE.augment, cval=0.0))
    whole = trials.Phase(recipe, images, np.eye(24, dtype=np.float32)[labels])
    trials.estimate_statistics(model, whole, batches=4)
    features = keras.Model(model.inputs[0], model.layers[0].output)(
        images / np.float32(255)
    ).numpy()
    np.testing.assert_allclose(
        model.layers[1].moving_mean.numpy(), features.mean((0, 1, 2)), atol=0.02
    )
    assert model.layers[1].momentum == 0.99


# The study


def test_a_study_goes_on_where_it_stopped(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "study.jsonl"
    # A step that is soon compiled.
    quick = dataclasses.replace(RECIPES["course"], epochs=2, batch_size=24)
    monkeypatch.setitem(study.GRID, "course", study.Trial(quick))
    arguments = ["study", "--data", str(folder), "--out", str(out), "--trial"]

    def run(*options):
        monkeypatch.setattr(sys, "argv", [*arguments, *options])
        study.main()
        return capsys.readouterr().out

    before = study.planned("course", study.GRID["course"], "CSV files", "official", 0)
    told = {"accuracy": 0.5, "mirrored": 0.5, "train_accuracy": 0.5, "seconds": 9.0}
    told |= {"processes": 1}
    told |= {"val_accuracy": [0.4, 0.5], "epoch_seconds": [5.0, 9.0]}
    plain = {"trial": "course, not augmented", "augment": False}
    there = [before | told, before | plain | told]
    out.write_text("".join(json.dumps(line) + "\n" for line in there))
    printed = run("course", "--seeds", "2", "--official")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert lines[:2] == there
    (new,) = lines[2:]
    assert (new["trial"], new["seed"]) == ("course", 1)
    assert len(new["val_accuracy"]) == new["recipe"]["epochs"]
    assert "| course | 2 |" in printed
    assert "| course | 2 |" in (tmp_path / "study.md").read_text()
    for name in ("study-time.png", "study-worth.png"):
        assert (tmp_path / name).exists()


def test_only_the_official_split_shows_the_official_valid_file(folder):
    official, photographs = (study.load(folder, split) for split in ("official", "photographs"))
    assert len(official.valid.labels) == 48
    train = {image.tobytes() for image in np.asarray(official.train.images)}
    parts = (photographs.train, photographs.valid)
    assert sum(len(part.labels) for part in parts) == 120
    for part in parts:
        assert train > {image.tobytes() for image in np.asarray(part.images)}


def test_a_trial_that_there_is_not_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["study", "--trial", "bass"])
    with pytest.raises(SystemExit, match="2"):
        study.main()
    assert "There is no trial 'bass'" in capsys.readouterr().err


def test_the_summary_gives_effects_on_the_same_seeds_and_precision():
    def line(trial, seed, accuracy, precision="float32"):
        return {"data": "d", "split": "official", "trial": trial, "seed": seed} | {
            "accuracy": accuracy,
            "mirrored": accuracy,
            "train_accuracy": 1.0,
            "seconds": 10.0 + seed,
            "processes": 1,
            "precision": precision,
        }

    lines = [line("base", seed, 0.9 + seed / 100) for seed in range(3)]
    lines += [line("cutout", seed, 0.92 + seed / 100) for seed in range(2)]
    lines += [line("cutout", 0, 0.5, "mixed_bfloat16"), line("fast, not augmented", 0, 0.75)]
    lines.append(line("a trial that is no more", 0, 0.25))
    lines[3]["beside"] = "another program"  # its seconds say nothing
    text = "\n".join(study.summary(lines))
    assert text.count("| 1.0000 ± 0.0000 | 11 |") == 2
    assert "| base | 3 | 0.9100 ± 0.0248 | 0.9000 |  |  |" in text
    assert "| cutout | 2 | 0.9250 ± 0.0635 | 0.9200 | +0.0200 ± 0.0000 | base |" in text
    assert "| cutout (mixed_bfloat16) | 1 | 0.5000 | 0.5000 |  |  |" in text
    assert "| fast, not augmented | 1 | 0.7500 | 0.7500 |  |  |" in text
    assert "| a trial that is no more | 1 | 0.2500 | 0.2500 |  |  |" in text


def test_every_trial_is_compared_with_another():
    for name, trial in study.GRID.items():
        assert not trial.against or trial.against in study.GRID.keys() - {name}

"""The course's notebook on data augmentation, as a baseline: plain Keras with its generator.

Kept as the course has it but for what today's Keras refuses: `.next()` on the iterator, a float
`steps_per_epoch`, and saving without a file ending. Prints one line of JSON.

    python scripts/course_baseline.py --data FOLDER --epochs 3
"""

import argparse
import json
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras.layers import BatchNormalization, Conv2D, Dense, Dropout, Flatten, MaxPool2D
from keras.models import Sequential
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from asl_fast.training.clock import TrainingClock


def read(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Reads one of the course's two tables as the course does."""
    path = next(path for path in sorted(folder.iterdir()) if path.name.startswith(name))
    frame = pd.read_csv(path)
    y = keras.utils.to_categorical(frame.pop("label"), 24)
    return (frame.values / 255).reshape(-1, 28, 28, 1), y


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the course's files")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    keras.utils.set_random_seed(arguments.seed)
    x_train, y_train = read(arguments.data, "sign_mnist_train.csv")
    x_valid, y_valid = read(arguments.data, "sign_mnist_valid.csv")

    model = Sequential()
    model.add(keras.Input((28, 28, 1)))
    model.add(Conv2D(75, (3, 3), strides=1, padding="same", activation="relu"))
    model.add(BatchNormalization())
    model.add(MaxPool2D((2, 2), strides=2, padding="same"))
    model.add(Conv2D(50, (3, 3), strides=1, padding="same", activation="relu"))
    model.add(Dropout(0.2))
    model.add(BatchNormalization())
    model.add(MaxPool2D((2, 2), strides=2, padding="same"))
    model.add(Conv2D(25, (3, 3), strides=1, padding="same", activation="relu"))
    model.add(BatchNormalization())
    model.add(MaxPool2D((2, 2), strides=2, padding="same"))
    model.add(Flatten())
    model.add(Dense(units=512, activation="relu"))
    model.add(Dropout(0.3))
    model.add(Dense(units=24, activation="softmax"))

    datagen = ImageDataGenerator(
        rotation_range=10,
        zoom_range=0.1,
        width_shift_range=0.1,
        height_shift_range=0.1,
        horizontal_flip=True,
        vertical_flip=False,
    )
    datagen.fit(x_train)
    img_iter = datagen.flow(x_train, y_train, batch_size=32)

    # The course names no optimiser; RMSprop at 1e-3 is what Keras then takes.
    model.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    clock = TrainingClock()
    begin = time.perf_counter()
    history = model.fit(
        img_iter,
        epochs=arguments.epochs,
        steps_per_epoch=len(img_iter),  # the course's len(x_train) / 32 is no whole number
        validation_data=(x_valid, y_valid),
        callbacks=[clock],
        verbose=2,
    ).history
    print(
        json.dumps(
            {
                "val_accuracy": history["val_accuracy"],
                "train_seconds": round(time.perf_counter() - begin, 2),
                "images_per_second": round(len(x_train) / float(np.median(clock.seconds)), 1),
                "epochs": arguments.epochs,
                "seed": arguments.seed,
            }
        )
    )


if __name__ == "__main__":
    main()

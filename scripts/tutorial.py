# %% [markdown]
# # Sign language letters, from CSV to prediction
# ### 수화 문자 인식: CSV에서 예측까지
#
# This tutorial walks through the image classification part of NVIDIA's course *Getting Started
# with Deep Learning* (딥러닝의 기초) once more, from the table of pixels to the letter that a
# photograph shows, with `asl_fast` doing the slow part. It takes about an hour to read and run.
# The headings carry the course's Korean titles, so that you can lay the two side by side:
#
# | here | in the course |
# | --- | --- |
# | 1 The data / 데이터 | `02_asl` Image classification (이미지 분류) |
# | 2 The network / 합성곱 신경망 | `03_asl_cnn` Convolutional neural networks |
# | 3 Data augmentation / 데이터 증강 | `04a_asl_augmentation` |
# | 4 Deploying your model / 모델 배포 | `04b_asl_predictions` |
# | 5 Exercises / 연습 | |
#
# It is a plain Python file. VS Code and PyCharm run it cell by cell, Jupyter opens it with the
# extension jupytext (`jupytext --to notebook scripts/tutorial.py` makes a notebook of it), and
#
#     python scripts/tutorial.py --out pictures
#
# runs all of it and saves the pictures in a folder. `--quick` takes few images and one epoch: it
# shows that everything works, and nothing else.

# %% [markdown]
# ## Objectives / 목표
#
# By the end you have
#
# * read a data set of images from a CSV file, and looked at it,
# * trained a convolutional neural network, and seen it overfit (과적합),
# * seen what each option of data augmentation does to an image,
# * trained with augmentation, by the course's `ImageDataGenerator` and by `asl_fast.fit`,
# * read a confusion matrix,
# * saved the model, loaded it again, and had it name the letter in a photograph.

# %%
import argparse
import os
import time
from pathlib import Path
from typing import Any

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image, ImageOps

import asl_fast
from asl_fast.data import csv_table as table
from asl_fast.data import dataset

parser = argparse.ArgumentParser(description="Sign language letters, from CSV to prediction.")
parser.add_argument("--quick", action="store_true", help="few images, one epoch")
parser.add_argument("--out", type=Path, default=Path("tutorial"), help="folder for the pictures")
options = parser.parse_known_args()[0]  # a notebook has arguments of its own

OUT = options.out
OUT.mkdir(parents=True, exist_ok=True)
EPOCHS = 1 if options.quick else 6
LETTERS = "ABCDEFGHIKLMNOPQRSTUVWXY"
keras.utils.set_random_seed(0)


def show(name: str) -> None:
    """Saves the picture that was just drawn, and shows it where this is a notebook."""
    plt.savefig(OUT / f"{name}.png", dpi=110, bbox_inches="tight")
    if "get_ipython" in globals():
        plt.show()
    plt.close()


# %% [markdown]
# # 1 The data / 데이터
#
# ## The American Sign Language data set / 미국 수화 데이터세트
#
# Sign Language MNIST holds photographs of hands that sign letters of the American manual
# alphabet: 28 × 28 pixels, grey, one hand each. There are 24 letters, since J and Z are drawn in
# the air and a single picture can't show them.
#
# If you have the course's two files (or Kaggle's *datamunge/sign-language-mnist*), put them into a
# folder and name it in the environment variable `ASL_FAST_DATA`. Without it the next cell takes
# hands that are drawn by a program. Everything works the same way then, but no accuracy that you
# see says anything about photographs.

# %%
data = dataset.load()
print(f"{data.name}: {data.train.rows:,} images to train on, {data.valid.rows:,} to validate on")

# %% [markdown]
# ## Reading in the data / 데이터 읽기
#
# What does such a file look like inside? We write one with the first 200 images, and read it the
# way the course does, with pandas.

# %%
csv = OUT / "sign_mnist_sample.csv"
table.write(csv, data.train.images[:200], data.train.labels[:200])
frame = pd.read_csv(csv)
print(frame.iloc[:5, :9])

# %% [markdown]
# ## Exploring the data / 데이터 살펴보기
#
# A row is an image: its label, then its 784 = 28 · 28 pixels, from left to right and from top to
# bottom. A pixel is a whole number from 0 (black) to 255 (white). The label is a number as well:
# 0 is A, 1 is B … but beware: the course counts on without a gap, so that 9 is K, while Kaggle
# leaves out 9, so that 10 is K. Whoever mixes the two files up gets nearly all letters from K on
# wrong, without any error message. `asl_fast.load_csv` finds out which one a file is.

# %%
labels = frame.pop("label").to_numpy()
pixels = frame.to_numpy()
print("labels ", labels.shape, labels[:10], "that is", " ".join(LETTERS[n] for n in labels[:10]))
print("pixels ", pixels.shape, pixels.dtype, "from", pixels.min(), "to", pixels.max())

images, numbers = asl_fast.load_csv(csv)  # the same in one line, checked cell by cell
assert (images.reshape(-1, 784) == pixels).all()
assert (numbers == labels).all()
print("images ", images.shape, images.dtype)

# %% [markdown]
# ## Visualizing the data / 데이터 시각화
#
# Never train on data that you have not looked at. Here are the first 24 images with their letters.
# Look for what a network will have to live with: how different may two pictures of one letter be?
# Which letters would you yourself mix up? (A, E, M, N, S and T are all fists, more or less.)

# %%
_, axes = plt.subplots(3, 8, figsize=(10, 4.2))
for axis, image, number in zip(axes.flat, images, numbers, strict=False):
    axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255)
    axis.set_title(LETTERS[number])
    axis.axis("off")
show("1_data")

# %% [markdown]
# ## Preparing the data / 데이터 준비
#
# Three things are still missing. The full set has them done here for train and valid alike:
#
# 1. **Shape** (Reshaping). A convolution looks at pixels that lie side by side, so it needs to
#    know which ones do: (n, 784) becomes (n, 28, 28, 1). The last number counts the channels: 1
#    for grey, 3 for colour.
# 2. **Normalization / 정규화.** Networks learn best from small numbers: divided by 255, pixels are
#    floats from 0 to 1. `float32` is enough; NumPy by itself would take `float64`, twice as much
#    memory and nothing gained.
# 3. **Categorize / 레이블 범주화.** Letter 2 is not "twice letter 1". So each label becomes 24
#    numbers, a single 1 among zeros ("one-hot"). The network will answer with 24 numbers as well,
#    its probabilities.

# %%
rows = 600 if options.quick else None
x_train, y_train = data.train.images[:rows], np.asarray(data.train.labels[:rows])
x_valid, y_valid = data.valid.images[:rows], np.asarray(data.valid.labels[:rows])

x_train = np.asarray(x_train, np.float32) / 255
x_valid = np.asarray(x_valid, np.float32) / 255
numbers_valid = y_valid
y_train = keras.utils.to_categorical(y_train, 24)
y_valid = keras.utils.to_categorical(y_valid, 24)

print("x_train", x_train.shape, x_train.dtype, "from", x_train.min(), "to", x_train.max())
print("y_train", y_train.shape, "; the first one:", y_train[0].astype(int))

# %% [markdown]
# **Why two sets?** A model that has learnt its train set by heart knows nothing. So we judge it by
# images that it never sees while it learns: the valid set. And it matters that this is another
# *file*, not a random tenth of the first: the train set was grown from 1,704 photographs by small
# changes, and so a random tenth of it has near-copies in the rest. On those every model looks good.

# %% [markdown]
# # 2 The network / 합성곱 신경망 (CNN)
#
# ## Model creation / 모델 생성
#
# The course's network has three blocks and a head. Each block is
#
# * **Conv2D**: 75 (then 50, then 25) small filters of 3 × 3 pixels slide over the image. Each one
#   answers to one pattern: an edge, a corner, later a fingertip. It is the same filter everywhere,
#   so that a finger is found wherever it is, and few numbers have to be learnt.
# * **BatchNormalization**: keeps the answers in a moderate range, which makes training steadier.
# * **MaxPool2D**: of every 2 × 2 answers the largest is kept. The image gets half as wide and half
#   as high; *what* was found stays, *where* gets blurred.
#
# **Dropout** silences a random share of the answers while training, so that the network can't rely
# on any single one. The head flattens what is left, 4 × 4 × 25 numbers, and two **Dense** layers
# weigh them up. The last one ends in a *softmax*: 24 numbers of which none is negative, and which
# add up to 1.

# %%
model = asl_fast.build_cnn()
model.summary(line_length=80)

# %% [markdown]
# `build_cnn` is nothing special: a `keras.Sequential` with the layers of the course, that you could
# as well write out.
#
# ## Compiling the model / 모델 컴파일
#
# The **loss** measures how wrong the answers are; for one-hot letters that is the categorical
# cross-entropy: minus the logarithm of the probability given to the right letter. Sure and right
# costs nothing, sure and wrong costs very much. The **optimizer** turns the slope of the loss into
# small changes of the 264,049 weights. **Accuracy** is for us; the optimizer does not see it.

# %%
model.compile(optimizer="rmsprop", loss="categorical_crossentropy", metrics=["accuracy"])

# %% [markdown]
# ## Training the model / 모델 트레이닝
#
# First as in the course's third notebook: the images as they are, again and again. One pass over
# all of them is an **epoch** (에포크).

# %%
verbose = 2 if options.quick or "get_ipython" not in globals() else 1
plain = model.fit(
    x_train,
    y_train,
    epochs=EPOCHS,
    batch_size=32,
    validation_data=(x_valid, y_valid),
    verbose=verbose,
).history


# %% [markdown]
# ## Discussion of results / 결과에 대한 논의: overfitting / 과적합
#
# Two curves tell what has happened. The solid one is the accuracy on the images trained on, the
# dashed one on the images held back.


# %%
def plot_curves(histories: dict[str, dict[str, list[float]]], name: str) -> None:
    """Draws accuracy and loss by epoch, train solid and valid dashed."""
    _, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    for axis, quantity in zip(axes, ("accuracy", "loss"), strict=True):
        for (title, history), colour in zip(histories.items(), ("C0", "C1"), strict=False):
            epochs = np.arange(1, len(history[quantity]) + 1)
            axis.plot(epochs, history[quantity], "o-", color=colour, label=f"{title}, train")
            axis.plot(epochs, history[f"val_{quantity}"], "o--", color=colour, label="  … valid")
        axis.set(xlabel="epoch", ylabel=quantity, xticks=epochs)
        axis.grid(alpha=0.3)
    axes[1].legend(loc="upper left", bbox_to_anchor=(1.02, 1))
    show(name)


plot_curves({"no augmentation": plain}, "2_overfitting")

# %% [markdown]
# The solid curve soon lies at 1: the network makes hardly a mistake on what it was shown. The
# dashed one stays below and jumps up and down, and the valid loss may even rise while the train
# loss falls. That gap is **overfitting**: the network has learnt these images, not the letters.
# More epochs don't help, since nothing is left to be learnt from images that it knows by heart.
# More *images* would help. We have none, but we can make some.

# %% [markdown]
# # 3 Data augmentation / 데이터 증강
#
# A hand that is turned a little, or moved, or a bit nearer still signs the same letter. So we may
# change each image at random, each time it is shown, and keep its label. The network never sees the
# same image twice, and learns what does *not* matter.
#
# Let us see what each option does, on one image, seven times each. The ranges are larger here than
# one would train with, so that you can see them. `RandomAugment` has the options of Keras's
# `ImageDataGenerator`, under the same names.

# %%
choices: dict[str, dict[str, Any]] = {
    "rotation_range=30": {"rotation_range": 30},
    "width_shift_range=0.2": {"width_shift_range": 0.2},
    "height_shift_range=0.2": {"height_shift_range": 0.2},
    "zoom_range=0.3": {"zoom_range": 0.3},
    "shear_range=25": {"shear_range": 25},
    "horizontal_flip=True": {"horizontal_flip": True},
    "vertical_flip=True": {"vertical_flip": True},
    "brightness_range=(0.5, 1.5)": {"brightness_range": (0.5, 1.5)},
    "fill_mode='constant'": {"rotation_range": 30, "fill_mode": "constant"},
}
if options.quick:
    choices = dict(list(choices.items())[:2])

copies = np.repeat(data.train.images[:1], 7, axis=0)
_, axes = plt.subplots(len(choices), 8, figsize=(9, 1.35 * len(choices)))
for line, (title, choice) in zip(axes, choices.items(), strict=True):
    augmented = asl_fast.RandomAugment(**choice, seed=1)(copies, training=True)
    for axis, image in zip(line, [copies[0], *np.asarray(augmented)], strict=True):
        axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255)
        axis.axis("off")
    line[1].set_title(title, loc="left", fontsize=9)
axes[0, 0].set_title("stored", fontsize=9)
show("3_options")

# %% [markdown]
# Look at it row by row and ask of each: **is it still the same letter, and could a camera have seen
# it?**
#
# * Rotation, shifts and zoom: yes, within limits. (Zoom draws a factor for each direction, so hands
#   get thinner or wider, too.) Where the image ends, `fill_mode` decides what is put there;
#   "nearest", the default, repeats the last pixel.
# * `horizontal_flip`: yes. A left hand signs the same letter as the mirror image of a right one.
# * `vertical_flip`: no. Nobody signs upside down, and the network would spend its strength on it.
#
# This is where your knowledge of the task enters, and why there is no best setting for all tasks.
# The course chooses these:

# %%
course: dict[str, Any] = {
    "rotation_range": 10,  # degrees, either way
    "zoom_range": 0.1,
    "width_shift_range": 0.1,  # a tenth of the width, either way
    "height_shift_range": 0.1,
    "horizontal_flip": True,
}

# %% [markdown]
# ## Batch size / 배치 크기
#
# The weights are changed after each **batch** of images, 32 in the course. Every batch is a random
# sample, so its slope is a guess at the slope over all images: the smaller the batch, the rougher
# the guess, and the more of them in an epoch. 32 to 128 works well here. Much larger batches make
# fewer steps, which a higher learning rate has to make up for.
#
# `asl_fast.ImageDataGenerator` takes the place of Keras's: only the import changes.

# %%
datagen = asl_fast.ImageDataGenerator(**course)
img_iter = datagen.flow(x_train, y_train, batch_size=32)

x, y = next(img_iter)
_, axes = plt.subplots(4, 8, figsize=(10, 5.2))
for axis, image, one_hot in zip(axes.flat, x, y, strict=True):
    axis.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1)
    axis.set_title(LETTERS[one_hot.argmax()], fontsize=9)
    axis.axis("off")
show("4_batch")

# %% [markdown]
# Are they well shuffled? Would you still know each letter? If *you* don't, the ranges are too
# large.
#
# ## Fitting the data to the generator / 데이터를 생성기에 맞추기
#
# The course calls `datagen.fit(x_train)` next. That gathers mean and deviation of the data for the
# options that need them (`featurewise_center` and the like). None of ours does, so it changes
# nothing; it does no harm either.

# %%
datagen.fit(x_train)

# %% [markdown]
# ## Training with augmentation / 증강으로 트레이닝 (증강을 통한 학습)
#
# The network is built anew, or it would start with what it has learnt above. The generator goes to
# `fit` in the place of the arrays. This is the course's line, for one epoch:

# %%
model = asl_fast.build_cnn()
model.compile(optimizer="rmsprop", loss="categorical_crossentropy", metrics=["accuracy"])
begin = time.perf_counter()
model.fit(img_iter, epochs=1, shuffle=False, verbose=verbose)  # the iterator shuffles by itself
print(f"model.fit: {time.perf_counter() - begin:.1f} s, with what is compiled first")

# %% [markdown]
# The course also writes `steps_per_epoch=len(x_train)/batch_size`, since Keras's generator never
# ends. This one knows its length, and today's Keras refuses a fraction of a step.
#
# Now **one line is changed**: `model.fit(…)` becomes `asl_fast.fit(model, …)`. It has the same
# arguments and returns the same history, but the augmentation moves into the training step: the
# stored images go to the device, and there they are turned, shifted and zoomed, all in one program.
# Where a GPU trains, it no longer waits for the CPU to prepare images; where a CPU trains, the
# network itself takes most of the time, and little changes. The README has measurements of both.

# %%
model = asl_fast.build_cnn()
model.compile(optimizer="rmsprop", loss="categorical_crossentropy", metrics=["accuracy"])
begin = time.perf_counter()
augmented = asl_fast.fit(
    model, img_iter, epochs=EPOCHS, validation_data=(x_valid, y_valid), verbose=verbose
).history
print(f"asl_fast.fit: {(time.perf_counter() - begin) / EPOCHS:.1f} s an epoch")

# %% [markdown]
# If you start from arrays and need no generator, say the same without one, on the bytes as stored:
#
# ```python
# asl_fast.fit(
#     model, data.train.images, y_train, batch_size=32, epochs=6,
#     augment=asl_fast.RandomAugment(**course, seed=0),
#     standardize=asl_fast.Standardize(rescale=1 / 255),
# )
# ```
#
# And `asl-fast run course.py` runs the course's own script as it stands.
#
# ## Discussion of results / 결과에 대한 논의

# %%
plot_curves({"no augmentation": plain, "augmented": augmented}, "5_augmented")
print(f"valid accuracy, last epoch: {plain['val_accuracy'][-1]:.4f} without augmentation, ", end="")
print(f"{augmented['val_accuracy'][-1]:.4f} with it")

# %% [markdown]
# With augmentation the solid curve rises more slowly: every image is new, and harder than a stored
# one. (Dropout is on in training, too.) The dashed curve, the one that counts, lies about it, in
# the better epochs even above: less overfitting, and better answers to new images.
#
# From epoch to epoch the dashed curve still swings, widely. So don't compare two trainings by one
# epoch of each: another seed may turn the order round. The optimizer takes steps of a constant
# size, and even at the end each step overshoots. The package's own recipe `fast`, which is what
# `asl-fast train` does, lets the steps shrink to zero over four epochs.
#
# **Which letters are mixed up?** Accuracy is one number; a **confusion matrix** has one for each
# pair. Rows are the true letters, columns what the model said. All that is right lies on the
# diagonal, which is left out here, so that the mistakes are seen.

# %%
probabilities = model.predict(x_valid, verbose=0)
answers = probabilities.argmax(axis=1)
counts = np.zeros((24, 24), int)
np.add.at(counts, (numbers_valid, answers), 1)
mistakes = counts * (1 - np.eye(24, dtype=int))

plt.figure(figsize=(7.5, 6.5))
plt.imshow(mistakes, cmap="Reds")
plt.colorbar(label="images", shrink=0.8)
for true, said in np.argwhere(mistakes):
    colour = "white" if 2 * mistakes[true, said] > mistakes.max() else "black"
    plt.text(said, true, mistakes[true, said], ha="center", va="center", size=7, color=colour)
plt.xticks(range(24), list(LETTERS))
plt.yticks(range(24), list(LETTERS))
plt.xlabel("the model's answer")
plt.ylabel("the letter")
plt.title(f"{mistakes.sum():,} mistakes in {len(answers):,} images")
show("6_confusion")

for true, said in sorted(np.argwhere(mistakes), key=lambda pair: -mistakes[tuple(pair)])[:3]:
    share = mistakes[true, said] / counts[true].sum()
    print(f"{LETTERS[true]} taken for {LETTERS[said]}: {mistakes[true, said]} times ({share:.1%})")

# %% [markdown]
# Mistakes are hardly ever spread evenly: a few pairs make up most of them. Look at images of the
# worst pair. Would you mix them up, too? Then the picture is too small to tell them apart. If not,
# the network lacks pictures of that letter as this signer makes it, or simply more training.
#
# ## Saving the model / 모델 저장
#
# A model that is good enough goes to a file: layers, weights, and how it was compiled. Today's
# Keras wants the ending `.keras` (the course's `model.save('asl_model')` is an error now).

# %%
path = OUT / "asl_model.keras"
model.save(path)
print(path, f"{path.stat().st_size / 1e6:.1f} MB")

# %% [markdown]
# No augmentation is in it: that belonged to the training.
#
# ## Clear the memory / 메모리 지우기
#
# The course shuts the notebook's kernel down here, to give the GPU's memory back. It is enough to
# let the model go and call:

# %%
del model, img_iter
asl_fast.release_memory()

# %% [markdown]
# ## Summary / 요약
#
# You have trained the same network with augmentation and without, and seen what that is worth. Next
# (다음), it has to prove itself on a photograph.

# %% [markdown]
# # 4 Deploying your model / 모델 배포
#
# ## Loading the model / 모델 로드

# %%
model = keras.models.load_model(path)
print("takes", model.input_shape, "and gives", model.output_shape)

# %% [markdown]
# ## Preparing an image for the model / 모델을 위한 이미지 준비
#
# The model knows one kind of image: 28 × 28, grey, one hand that fills the middle, floats from 0 to
# 1. A photograph from a telephone has millions of pixels, three colours and another proportion. Fed
# as it is, it is refused. Scaled carelessly, it is accepted and named wrongly, which is worse.
#
# Name a photograph of your own hand in `ASL_FAST_PHOTO` (a right hand before a plain wall, about as
# in the pictures above). Otherwise we make something like one from an image of the valid set:
# enlarged, in colour, wider than high.

# %%
photo_path = Path(os.environ.get("ASL_FAST_PHOTO", OUT / "photograph.jpg"))
if "ASL_FAST_PHOTO" not in os.environ:
    right = np.flatnonzero(answers == numbers_valid)
    chosen = right[0] if len(right) else 0
    hand = Image.fromarray(data.valid.images[chosen][..., 0]).resize(
        (480, 480), Image.Resampling.BICUBIC
    )
    wide = np.pad(np.asarray(hand), ((0, 0), (80, 80)), mode="edge")
    ImageOps.colorize(Image.fromarray(wide), "#100804", "#ffe8d8", mid="#b48468").save(photo_path)
    print("The photograph was made from an image of the letter", LETTERS[numbers_valid[chosen]])

# %% [markdown]
# ### Showing the image / 이미지 표시, scaling / 이미지 크기 조정
#
# In four steps:
#
# 1. open it (and turn it as the camera was held, which is noted beside the pixels),
# 2. cut out the largest square in the middle, as the train set's pictures are square: squeezing a
#    wide picture into a square would make all fingers thin,
# 3. make it grey,
# 4. make it small, with a filter that averages over the pixels left out.

# %%
photograph = ImageOps.exif_transpose(Image.open(photo_path)).convert("RGB")
side = min(photograph.size)
square = ImageOps.fit(photograph, (side, side))
grey = square.convert("L")
small = grey.resize((28, 28), Image.Resampling.BICUBIC)

_, axes = plt.subplots(1, 4, figsize=(11, 3))
for axis, image, title in zip(
    axes, (photograph, square, grey, small), ("photograph", "square", "grey", "small"), strict=True
):
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    axis.set_title(f"{title}: {image.width} × {image.height}")
    axis.axis("off")
show("7_photograph")

# %% [markdown]
# ### Preparing the image for prediction / 예측을 위한 이미지 준비
#
# Then the numbers. The model wants a *batch*, even for a single image: (1, 28, 28, 1). And it wants
# the very scale that it was trained on. Without `/ 255` nothing fails, the numbers are only 255
# times too large, and the answer is nonsense, given with great confidence.

# %%
batch = np.asarray(small, np.float32).reshape(1, 28, 28, 1) / 255
print(batch.shape, batch.dtype, f"from {batch.min():.2f} to {batch.max():.2f}")

# %% [markdown]
# ## Making predictions / 예측 수행

# %%
row = model.predict(batch, verbose=0)[0]
print(row.round(3))

# %% [markdown]
# ### Understanding the prediction / 예측 이해
#
# 24 probabilities, in the order of the letters. The largest one is the answer; how large it is says
# how sure the model is. A second and third letter are worth a look, too: where a model is wrong,
# the truth is often among them.

# %%
for place in row.argsort()[::-1][:3]:
    print(f"{LETTERS[place]} {row[place]:.1%}")

# %% [markdown]
# ### Put it all together / 종합
#
# All of this section in two lines: `Classifier` opens, turns, cuts, scales and predicts, for
# pictures of any size, one or thousands, and says which one can't be read.

# %%
classifier = asl_fast.Classifier.load(path, letters=LETTERS)
(prediction,) = classifier.predict([photo_path])
print(prediction.letter, f"{prediction.probability:.1%}", prediction.top)

# %% [markdown]
# On the command line: `asl-fast predict MODEL PHOTOGRAPH`. To take the model elsewhere, to a
# telephone or a web page, `asl-fast export` writes it as LiteRT, ONNX or SavedModel, and checks
# that each says what the model says.
#
# **A word of caution.** The data show few people, in good light, before plain walls. A model that
# names 99 of 100 valid images rightly may fail on your kitchen table. Always test with pictures of
# the kind that it will meet.
#
# ## Summary / 요약
#
# From a CSV file to a named letter: read, look, scale, one-hot, convolve, overfit, augment,
# compare, save, load, prepare, predict. What is new against the course is one line.

# %% [markdown]
# # 5 Exercises / 연습
#
# Answers are at the end.
#
# 1. `horizontal_flip` is on, `vertical_flip` off. What would change in `3_options.png` if both were
#    on, and what would a hand that is flipped both ways look like?
# 2. Train with `rotation_range=90`. Which letters suffer most, and why those?
# 3. Train with `batch_size=512` and nothing else changed. Why is the accuracy after as many epochs
#    lower? What would you change to make up for it?
# 4. Feed the model `batch * 255`, and a negative, `1 - batch`. What do the probabilities look like?
#    Would they warn you?
# 5. Your friend splits `x_train` at random, nine tenths to train on, one tenth to validate on, and
#    reports 100 %. What went wrong?
# 6. Take ten photographs of your own hand and predict them. Where the model is wrong, look at the
#    small picture (`7_photograph.png`): could *you* tell the letter?
# 7. Export the model to ONNX and to LiteRT with int8. How much smaller is it, how much faster, and
#    how often does it change its mind?

# %% [markdown]
# # Answers / 정답
#
# 1. Some of the images would be upside down. Flipped both ways is the same as turned by 180°: not a
#    left hand any more, but a right one upside down. Nobody signs like that, so the network would
#    learn four pictures a letter where two are needed.
# 2. Letters that differ only in where they point. H is U laid on its side, P is K pointing down, Q
#    is G pointing down. Turned that far, an image keeps its label but shows another letter: the
#    augmentation itself puts wrong labels into the data. Augmentation must not change the truth.
# 3. An epoch of batches of 512 has a sixteenth of the steps. Each is more exact, but no longer, so
#    the network gets less far. Train for more epochs, or raise the learning rate; to raise it in
#    the first steps and lower it towards the end is what the recipe `fast` does.
# 4. Both get confident nonsense as a rule. Softmax has no way to say "this is not what I know"; the
#    probabilities add up to 1 whatever you feed. Check what goes in, not how sure the answer is.
# 5. The train set holds many variants of each photograph. A random tenth of it has near-copies
#    among the other nine, so it measures memory. The valid file has other photographs.
# 6. As a rule it is the hand's size and place, the background, or the light. Compare with
#    `1_data.png`: the hand fills the picture there. A picture cut to the hand does better.
# 7. `asl-fast export tutorial/asl_model.keras --format litert --int8 --out exported` and
#    `--format onnx`: the table answers all three. int8 takes about a quarter of the size.

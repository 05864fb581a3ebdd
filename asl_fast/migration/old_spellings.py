"""The table of what Keras, NumPy and their neighbours no longer take, and what it is called today.

`asl-fast check` reports these spellings and `asl-fast run` translates them, both from here. They
come from the release notes of Keras 2.0 to 3.15 (keras-team/keras, its issue 18467, the guide
"Migrating to Keras 3"), those of NumPy 1.20 to 2.4 and Matplotlib 3.6 to 3.9, and public notebooks;
each was tried on what is installed. Importing this module loads none of these libraries.
"""

import dataclasses
import re
from collections.abc import Iterable
from typing import Literal

__all__ = [
    "ATTRIBUTES",
    "GENERATOR_ARGUMENTS",
    "GONE",
    "METHODS",
    "NO_OPS",
    "OPTIMIZERS",
    "REMNANTS",
    "Keyword",
    "keywords_of",
    "metric_today",
    "model_file",
    "name_today",
    "old_module",
    "owner_of",
    "style_today",
    "weights_file",
]

# Modules, as (pattern, module today), both below `keras`.
_LAYER_MODULES = (
    "advanced_activations|attention|convolutional|convolutional_recurrent|core|cudnn_recurrent|"
    "embeddings|experimental|local|merge|merging|noise|normalization|normalization_v2|pooling|"
    "preprocessing|recurrent|recurrent_v2|regularization|reshaping|rnn|wrappers"
)
_MODULES = (
    (rf"layers\.(?:{_LAYER_MODULES})", "layers"),
    (r"utils\.(?:np|vis|generic|data|layer|image|io|training|all|tf)_utils", "utils"),
    (r"engine\.saving", "models"),
    (r"engine\.(?:\w*layer\w*)", "layers"),
    (r"engine", ""),
    (r"saving\.(?:save|hdf5_format|legacy|saved_model)", "saving"),
    (r"models\.experimental", "models"),
    (r"backend\.(?:common|tensorflow_backend)", "backend"),
    (r"callbacks\.(?:callbacks|tensorboard_v\d|experimental)", "callbacks"),
    (r"initializers\.initializers_v\d", "initializers"),
    (r"initializations", "initializers"),
    (r"objectives", "losses"),
    (r"optimizers\.(?:legacy|experimental|optimizer_\w+|\w+_v\d)", "optimizers"),
    (r"optimizers\.learning_rate_schedule", "optimizers.schedules"),
    (r"optimizer_v\d(?:\.\w+_v\d)?", "optimizers"),
    (r"applications\.mobilenetv2", "applications.mobilenet_v2"),
    (r"applications\.inceptionv3", "applications.inception_v3"),
    (r"mixed_precision\.experimental", "mixed_precision"),
    (r"api\._v[12]\.keras", ""),
)
# Of TensorFlow's own copy of Keras 2, whose objects Keras 3 rejects.
REMNANTS = (
    *("Sequential", "Model", "models", "layers", "optimizers", "datasets", "applications"),
    "preprocessing",
)

# Names below `keras` that were renamed.
KERAS_NAMES = {
    **{
        f"optimizers.{name.lower()}": f"optimizers.{name}"
        for name in ("Adadelta", "Adagrad", "Adam", "Adamax", "Nadam", "RMSprop", "SGD")
    },
    "constraints.maxnorm": "constraints.max_norm",
    "constraints.nonneg": "constraints.non_neg",
    "constraints.unitnorm": "constraints.unit_norm",
    "initializers.normal": "initializers.random_normal",
    "initializers.one": "initializers.ones",
    "initializers.uniform": "initializers.random_uniform",
    "initializers.zero": "initializers.zeros",
    "layers.CuDNNGRU": "layers.GRU",
    "layers.CuDNNLSTM": "layers.LSTM",
    "layers.Deconvolution2D": "layers.Conv2DTranspose",
    "losses.cosine": "losses.cosine_similarity",
    "losses.cosine_proximity": "losses.cosine_similarity",
    "mixed_precision.set_policy": "mixed_precision.set_global_policy",
    "regularizers.WeightRegularizer": "regularizers.L1L2",
    "regularizers.activity_l1": "regularizers.l1",
    "regularizers.activity_l2": "regularizers.l2",
    "regularizers.l1l2": "regularizers.l1_l2",
    "backend.image_dim_ordering": "backend.image_data_format",
}
# Those that tensorflow.keras alone still has.
_TENSORFLOW_ONLY = (
    r"preprocessing\.image\.(?:random_\w+|apply_\w+)|backend\.[a-z]\w*|"
    r"preprocessing\.sequence\.(?:TimeseriesGenerator|make_sampling_table|skipgrams)|"
    r"layers\.(?:ThresholdedReLU|RandomHeight|RandomWidth)|"
    r"(?:losses|metrics)\.(?:Reduction|logcosh|kullback_leibler_divergence|kld|mae|mape|mse|msle|"
    r"KLD|MAE|MAPE|MSE|MSLE)"
)
# What both have below `backend`.
_BACKEND = (
    r"backend\.(?:backend|clear_session|epsilon|floatx|get_uid|image_data_format|is_\w+|result_type|"
    r"set_epsilon|set_floatx|set_image_data_format|standardize_dtype)"
)
NUMPY_NAMES = {
    "bool8": "bool_",
    "byte_bounds": "lib.array_utils.byte_bounds",
    "cfloat": "complex128",
    "clongfloat": "clongdouble",
    "complex_": "complex128",
    "cumproduct": "cumprod",
    "float_": "float64",
    "format_parser": "rec.format_parser",
    "in1d": "isin",
    "int0": "intp",
    "longcomplex": "clongdouble",
    "longfloat": "longdouble",
    "mat": "asmatrix",
    "alltrue": "all",
    "product": "prod",
    "rank": "ndim",
    "round_": "round",
    "singlecomplex": "complex64",
    "sometrue": "any",
    "string_": "bytes_",
    "trapz": "trapezoid",
    "typeDict": "sctypeDict",
    "uint0": "uintp",
    "unicode_": "str_",
    **dict.fromkeys(("NAN", "NaN"), "nan"),
    **dict.fromkeys(("INF", "Inf", "Infinity", "PINF", "infty"), "inf"),
    "AxisError": "exceptions.AxisError",
    "ComplexWarning": "exceptions.ComplexWarning",
    "RankWarning": "exceptions.RankWarning",
    "VisibleDeprecationWarning": "exceptions.VisibleDeprecationWarning",
}
# NumPy's names for Python's own types, gone since 1.24.
PYTHON_TYPES = {name: name for name in ("float", "int", "complex", "object", "str")}
PYTHON_TYPES["unicode"] = "str"
TENSORFLOW_NAMES = {
    "set_random_seed": "random.set_seed",
    "random.set_random_seed": "random.set_seed",
    "enable_eager_execution": "compat.v1.enable_eager_execution",
    "ConfigProto": "compat.v1.ConfigProto",
    "GPUOptions": "compat.v1.GPUOptions",
    "InteractiveSession": "compat.v1.InteractiveSession",
    "Session": "compat.v1.Session",
    "get_default_graph": "compat.v1.get_default_graph",
    "global_variables_initializer": "compat.v1.global_variables_initializer",
    "logging": "compat.v1.logging",
    "reset_default_graph": "compat.v1.reset_default_graph",
    "train.AdagradOptimizer": "keras.optimizers.Adagrad",
    "train.AdamOptimizer": "keras.optimizers.Adam",
    "train.GradientDescentOptimizer": "keras.optimizers.SGD",
    "train.MomentumOptimizer": "keras.optimizers.SGD",
    "train.RMSPropOptimizer": "keras.optimizers.RMSprop",
}
_OTHER_NAMES = {
    "matplotlib.cm.get_cmap": "matplotlib.pyplot.get_cmap",
    "matplotlib.pyplot.cm.get_cmap": "matplotlib.pyplot.get_cmap",
    "time.clock": "time.perf_counter",
}

# What has no other name today, and what to do instead.
GONE = {
    r"(?:tensorflow\.)?keras\.backend\.set_value\b": "write `variable.assign(value)`.",
    r"(?:tensorflow\.)?keras\.layers\.(?:LocallyConnected[12]D|AtrousConvolution[12]D|Highway)\b": (
        "Keras 3 has no such layer; write it with keras.ops."
    ),
    r"(?:tensorflow\.)?keras\.wrappers\.scikit_learn\b": (
        "install SciKeras and import from scikeras.wrappers."
    ),
    r"(?:tensorflow\.)?keras\.utils\.(?:multi_gpu_model|HDF5Matrix|print_summary)\b": (
        "use `tf.distribute.MirroredStrategy`, h5py or `model.summary()`."
    ),
    r"numpy\.(?:cast|find_common_type|asscalar|msort|asfarray)\b": (
        "use `np.asarray(x, dtype)`, `np.result_type`, `x.item()` or `np.sort(x, axis=0)`."
    ),
}


# Calls that `run` leaves out, below `keras`: TensorFlow 2 has no sessions.
NO_OPS = ("backend.set_session", "backend.tensorflow_backend.set_session")

# Attributes that were renamed.
ATTRIBUTES = {"optimizer.lr": "optimizer.learning_rate"}


def _below_keras(path: str) -> tuple[str, str]:
    """Splits a path into `keras.` or `tensorflow.keras.`, and the rest; ("", path) elsewhere."""
    roots = r"(?:tensorflow\.contrib\.|tensorflow\.)?keras\.(?:api\._v[12]\.keras\.)?"
    match = re.match(roots, path)
    return (match[0], path[match.end() :]) if match else ("", path)


def old_module(path: str) -> tuple[str, str] | None:
    """Returns (the old module that a dotted path begins with, that module today), or None."""
    if match := re.match(rf"tensorflow\.python\.keras\.({'|'.join(REMNANTS)})\b", path):
        return match[0], f"tensorflow.keras.{match[1]}"
    if match := re.match(r"keras_preprocessing\b(?:\.(?:image|text|sequence)\b)?", path):
        return match[0], match[0].replace("keras_preprocessing", "tensorflow.keras.preprocessing")
    root, rest = _below_keras(path)
    if not root:
        return None
    if root != "keras." and root != "tensorflow.keras.":
        return root[:-1], "tensorflow.keras" if root.startswith("tensorflow") else "keras"
    for pattern, today in _MODULES:
        if match := re.match(rf"{pattern}(?=\.|$)", rest):
            return root + match[0], (root + today).rstrip(".")
    if root == "keras." and (match := re.match(r"preprocessing\.text\b", rest)):
        return root + match[0], f"tensorflow.keras.{match[0]}"
    return None


def name_today(path: str) -> str | None:
    """Returns the dotted path that an old one has today, or None if the table has no such name.

    Python's own types are returned as `builtins.float` and so on.
    """
    root, rest = _below_keras(path)
    if root and rest in KERAS_NAMES:
        return root + KERAS_NAMES[rest]
    if root == "keras." and re.fullmatch(rf"(?!{_BACKEND}$)(?:{_TENSORFLOW_ONLY})", rest):
        return f"tensorflow.keras.{rest}"
    module, _, name = path.partition(".")
    if module == "numpy" and name in PYTHON_TYPES:
        return f"builtins.{PYTHON_TYPES[name]}"
    if module == "numpy" and name in NUMPY_NAMES:
        return f"numpy.{NUMPY_NAMES[name]}"
    if module == "tensorflow" and name in TENSORFLOW_NAMES:
        return f"tensorflow.{TENSORFLOW_NAMES[name]}"
    return _OTHER_NAMES.get(path)


@dataclasses.dataclass(frozen=True)
class Keyword:
    """An argument that was renamed or dropped.

    Attributes:
        owner: Pattern of what takes it: "layers.Dense", "callbacks.TensorBoard", "Model.fit" …
        old: Its name then.
        new: Its name today; None if it is left out.
        advice: What to do, with {value} for what was given; empty where `new` says it.
        values: Values that were renamed too, old to new.
        kind: "wrong" if today's Keras takes the old name, but does not heed it.
        none_alone: Whether None alone is no longer taken.
    """

    owner: str
    old: str
    new: str | None = None
    advice: str = "leave it out"
    values: tuple[tuple[str, str], ...] = ()
    kind: Literal["breaks", "wrong"] = "breaks"
    none_alone: bool = False


def _renamed(owner: str, **names: str) -> Iterable[Keyword]:
    return [Keyword(owner, old, new, "") for old, new in names.items()]


def _dropped(owner: str, *names: str, advice: str = "leave it out") -> Iterable[Keyword]:
    return [Keyword(owner, name, None, advice) for name in names]


OPTIMIZERS = "Adadelta|Adafactor|Adagrad|Adam|Adamax|AdamW|Ftrl|Lion|Nadam|RMSprop|SGD"
_OPTIMIZER = rf"optimizers\.(?:{OPTIMIZERS})"
_WORKERS = "leave it out, or set it on Keras's iterator with `iterator.{name} = {value}`"
_FORMATS = (("th", "channels_first"), ("tf", "channels_last"))
_RECURRENT = r"layers\.(?:LSTM|GRU|SimpleRNN)"
_CONV = r"layers\.\w*Conv\w*"

_KEYWORDS: tuple[Keyword, ...] = (
    *_renamed(_OPTIMIZER, lr="learning_rate", beta1="beta_1", beta2="beta_2"),
    Keyword(
        _OPTIMIZER,
        "decay",
        "learning_rate",
        "write `learning_rate=keras.optimizers.schedules.InverseTimeDecay({rate}, 1, {value})`",
        kind="wrong",
    ),
    *_dropped(_OPTIMIZER, "use_locking"),
    Keyword(_OPTIMIZER, "epsilon", none_alone=True),
    # Keras 1
    *_renamed(r"layers\.\w+", batch_input_shape="batch_shape"),
    *_renamed(
        rf"(?:layers\.Dense|{_CONV}|layers\.Embedding|{_RECURRENT})",
        init="kernel_initializer",
        W_regularizer="kernel_regularizer",
        b_regularizer="bias_regularizer",
        W_constraint="kernel_constraint",
        b_constraint="bias_constraint",
        bias="use_bias",
    ),
    *_renamed(
        _RECURRENT,
        inner_init="recurrent_initializer",
        inner_activation="recurrent_activation",
        dropout_W="dropout",
        dropout_U="recurrent_dropout",
    ),
    *_renamed(rf"(?:layers\.Dense|{_RECURRENT})", output_dim="units"),
    *_renamed(
        _CONV,
        nb_filter="filters",
        filter_length="kernel_size",
        subsample="strides",
        subsample_length="strides",
    ),
    *_renamed(rf"(?:{_CONV}|layers\.\w+Pool\w*)", border_mode="padding"),
    *_renamed(r"layers\.\w+Pool\w*", pool_length="pool_size", stride="strides"),
    *_renamed(r"layers\.(?:\w*Dropout\w*)", p="rate"),
    *_renamed(r"layers\.GaussianNoise", sigma="stddev"),
    *_renamed(
        r"layers\.BatchNormalization", beta_init="beta_initializer", gamma_init="gamma_initializer"
    ),
    *(
        Keyword(owner, "dim_ordering", "data_format", "", _FORMATS)
        for owner in (r"layers\.\w+", r"preprocessing\.image\.ImageDataGenerator")
    ),
    *_renamed(r"Model", input="inputs", output="outputs"),
    *_renamed(r"utils\.to_categorical", nb_classes="num_classes"),
    *_renamed(r"Model\.fit", nb_epoch="epochs"),
    *_dropped(r"Model\.fit", "show_accuracy", advice="give `compile` metrics=['accuracy']"),
    # Keras 2
    *_dropped(r"layers\.BatchNormalization", "fused", "virtual_batch_size", "mode"),
    *_dropped(_RECURRENT, "implementation", "time_major", "consume_less"),
    *_dropped(
        r"Model\.(?:fit|evaluate|predict)",
        *("workers", "use_multiprocessing", "max_queue_size"),
        advice=_WORKERS,
    ),
    *_dropped(r"Model\.(?:fit|evaluate|predict)", "pickle_safe", "nb_worker", "max_q_size"),
    *_dropped(r"Model\.\w+_on_batch", "reset_metrics"),
    *_dropped(r"Model\.compile", "sample_weight_mode", "target_tensors", "distribute"),
    *_dropped(r"(?:Model\.save|models\.save_model)", "signatures", "options", "save_traces"),
    *_dropped(r"Model\.(?:save|load)_weights", "save_format", "options"),
    *_dropped(r"models\.load_model", "options"),
    Keyword(
        r"callbacks\.ModelCheckpoint",
        "period",
        "save_freq",
        "write `save_freq='epoch'` to save every epoch, or a number of batches",
    ),
    *_dropped(r"callbacks\.ModelCheckpoint", "options"),
    *_dropped(
        r"callbacks\.TensorBoard",
        *("write_grads", "batch_size", "embeddings_layer_names", "embeddings_data"),
    ),
    Keyword(r"callbacks\.ReduceLROnPlateau", "epsilon", "min_delta", "", kind="wrong"),
    Keyword(r"losses\.\w+", "reduction", "reduction", "", (("auto", "sum_over_batch_size"),)),
    # Matplotlib
    *_renamed(r"pyplot\.grid", b="visible"),
)


def owner_of(path: str) -> str:
    """Returns the name by which the table knows a dotted path: "layers.Dense", "pyplot.grid"."""
    if moved := old_module(path):
        path = moved[1] + path.removeprefix(moved[0])
    root, rest = _below_keras(name_today(path) or path)
    if root:
        return "Model" if rest == "models.Model" else rest
    return path.removeprefix("matplotlib.")


def keywords_of(owner: str) -> dict[str, Keyword]:
    """Returns the old arguments of "layers.Dense", "Model.fit" and so on, by name."""
    return {row.old: row for row in _KEYWORDS if re.fullmatch(row.owner, owner)}


# Methods of models that have another name today.
METHODS = {
    "fit_generator": "fit",
    "evaluate_generator": "evaluate",
    "predict_generator": "predict",
    "predict_proba": "predict",
}
# The order of the arguments that `…_generator` had in Keras 2.
_WORKER_ARGUMENTS = ("max_queue_size", "workers", "use_multiprocessing")
GENERATOR_ARGUMENTS = {
    "fit": (
        *("x", "steps_per_epoch", "epochs", "verbose", "callbacks", "validation_data"),
        *("validation_steps", "validation_freq", "class_weight", *_WORKER_ARGUMENTS),
        *("shuffle", "initial_epoch"),
    ),
    "evaluate": ("x", "steps", "callbacks", *_WORKER_ARGUMENTS, "verbose"),
    "predict": ("x", "steps", "callbacks", *_WORKER_ARGUMENTS, "verbose"),
}


def metric_today(name: str) -> str | None:
    """Returns the name of "acc" and "val_acc" today, otherwise None."""
    return {"acc": "accuracy", "val_acc": "val_accuracy"}.get(name)


def style_today(name: str) -> str | None:
    """Returns the name of Matplotlib's old copies of seaborn's styles, otherwise None."""
    match = re.fullmatch(r"seaborn((?:-(?!v0_8)[\w-]+)?)", name)
    return match and f"seaborn-v0_8{match[1]}"


def model_file(path: str, *, checkpoint: bool = False) -> str:
    """Returns the path as today's Keras takes it for a whole model."""
    if path.endswith((".keras", ".h5")) or (path.endswith(".hdf5") and not checkpoint):
        return path
    if path.endswith(".hdf5"):
        return path.removesuffix(".hdf5") + ".h5"
    return path.rstrip("/") + ".keras"


def weights_file(path: str) -> str:
    """Returns the path as today's Keras takes it for weights alone."""
    if path.endswith((".weights.h5", ".weights.json")):
        return path
    return re.sub(r"(?:\.weights)?\.(?:h5|hdf5|keras)$", "", path.rstrip("/")) + ".weights.h5"

"""The convolutional Siamese network: do two images show the same class, even one that is not in the training data?

Paper: Koch, Zemel and Salakhutdinov 2015, "Siamese Neural Networks for One-shot Image Recognition", ICML Deep Learning
Workshop, figure 4. Twins, two copies of one network with shared weights, encode the images; the distance between the
encodings decides.

    siamese_omniglot
    stem          (105, 105,   1) -> ( 48,  48,  64)   10x10 convolution and 2x2 max pooling
    group 1       ( 48,  48,  64) -> ( 21,  21, 128)   7x7 convolution and pooling
    group 2       ( 21,  21, 128) -> (  9,   9, 128)   4x4 convolution and pooling
    group 3       (  9,   9, 128) -> (  6,   6, 256)   4x4 convolution
    encoding      (  6,   6, 256) -> (4096,)           dense layer, sigmoid; the end of the twin
    classifier    (4096,) -> (1,)                      dense layer on the distance of two encodings, sigmoid

    siamese_cifar10
    stem          ( 32,  32,   3) -> ( 16,  16,  32)   3x3 convolution and 2x2 max pooling
    group 1       ( 16,  16,  32) -> (  8,   8,  64)   two 3x3 convolutions and pooling
    group 2       (  8,   8,  64) -> (  4,   4, 128)   two 3x3 convolutions and pooling
    encoding      (  4,   4, 128) -> (256,)            dense layer, sigmoid
    classifier    (256,) -> (1,)

Trainable parameters: siamese_omniglot 38,951,745, of which the twin has 38,947,648, counted once since its weights are
shared; siamese_cifar10 802,977, of which the twin has 802,720.
Differs from the paper: in siamese_omniglot the last layer has a bias, which the printed formula has not. The initial
weights are as printed: convolutions N(0, 0.01), dense layers N(0, 0.2), all biases N(0.5, 0.01). With them 66 to 67% of
the encoding's sigmoids are saturated before training, below 0.01 or above 0.99 (64 images of strokes, or of CIFAR-10,
gray and enlarged), and 200 steps on pairs of the latter (pixels 0 to 1, batches of 32, SGD 0.01, momentum 0.9) saturate
all: the loss stays at 0.693, that of a guess. siamese_cifar10 is not in the paper: small padded convolutions with batch
normalization and He-normal weights.
"""

import inspect
from numbers import Integral

from keras import Input, Model, config, initializers, layers, ops

METAPARAMETERS = {
    "siamese_omniglot": {
        "stem": {"n_filters": 64, "kernel_size": 10},
        "groups": (
            {"n_layers": 1, "n_filters": 128, "kernel_size": 7},
            {"n_layers": 1, "n_filters": 128, "kernel_size": 4},
            {"n_layers": 1, "n_filters": 256, "kernel_size": 4, "pooling": False},
        ),
        "n_units": 4096,
        "padding": "valid",
        "initial_weights": "koch",
    },
    "siamese_cifar10": {
        "stem": {"n_filters": 32, "kernel_size": 3},
        "groups": (
            {"n_layers": 2, "n_filters": 64, "kernel_size": 3},
            {"n_layers": 2, "n_filters": 128, "kernel_size": 3},
        ),
        "n_units": 256,
        "padding": "same",
        "batch_normalization": True,
        "initial_weights": "he_normal",
    },
}


def build(metaparameters, input_shape=(105, 105, 1)):
    """Return a Siamese network as a `keras.Model`: [left, right] images (N, H, W, C) to their similarity (N, 1).

    The similarity is the probability that both show the same class. The twins are one model called twice: its weights
    learn from both images of a pair. `model.get_layer("twin")` encodes one image.

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of
            {"n_layers", "n_filters", "kernel_size"} with an optional `pooling`; `n_units` of the encoding; and
            optionally `stem`, {"n_filters", "kernel_size"}, `padding` of the convolutions, "valid" or "same",
            `batch_normalization`, and `initial_weights`, "he_normal" or "koch" (the paper's).
        input_shape: (H, W, C) of each image, a fixed size.

    Raises:
        ValueError: metaparameters or input_shape are invalid.
    """
    if not isinstance(metaparameters, dict) or not metaparameters.get("groups"):
        raise ValueError(f"metaparameters must be a dictionary with groups, got {metaparameters!r}")
    groups, n_units = metaparameters["groups"], metaparameters.get("n_units")
    in_learner = {name: value for name, value in metaparameters.items() if name not in ("stem", "n_units")}
    try:
        of_learner = inspect.signature(learner).bind(None, **in_learner)
        of_learner.apply_defaults()
        _, _, padding, batch_normalization, initial_weights = of_learner.args
        options = {name: value for name, value in of_learner.arguments.items() if name not in ("x", "groups")}
        of_stem = inspect.signature(stem).bind(None, **metaparameters.get("stem", {}), **options)
        of_groups = [inspect.signature(group).bind(None, **in_group, **options) for in_group in groups]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    for bound in (of_stem, *of_groups):
        bound.apply_defaults()
    convolutions = [(1, *of_stem.args[1:3], True), *(of_group.args[1:5] for of_group in of_groups)]
    if not all(isinstance(n, Integral) and n > 0 for n in [n_units, *(n for row in convolutions for n in row[:3])]):
        raise ValueError(f"layers, filters, kernel_size, n_units must be whole and at least 1, got {metaparameters}")
    if padding not in ("valid", "same"):
        raise ValueError(f'padding must be "valid" or "same", got {padding!r}')
    for name, value in (("batch_normalization", batch_normalization), *(("pooling", row[3]) for row in convolutions)):
        if value not in (True, False):
            raise ValueError(f"{name} must be True or False, got {value!r}")
    if initial_weights not in ("he_normal", "koch"):
        raise ValueError(f'initial_weights must be "he_normal" or "koch", got {initial_weights!r}')
    if config.image_data_format() != "channels_last":
        raise ValueError("image_data_format must be channels_last, got channels_first (keras.json or keras.config)")
    is_shape = isinstance(input_shape, (tuple, list)) and len(input_shape) == 3
    if not is_shape or not all(isinstance(n, Integral) and n > 0 for n in input_shape):
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape!r}")
    smallest = 1  # of the encoding's feature maps; from there back to the image
    for n_layers, _, kernel_size, pooling in reversed(convolutions):
        smallest = smallest * (2 if pooling else 1) + (n_layers * (kernel_size - 1) if padding == "valid" else 0)
    if min(input_shape[:2]) < smallest:
        raise ValueError(f"height and width must be at least {smallest}, got {input_shape[:2]}")

    encoder = twin(metaparameters, input_shape)
    left, right = Input(input_shape, name="left"), Input(input_shape, name="right")
    x = l1_distance(encoder(left), encoder(right))  # (N, n_units)
    outputs = classifier(x, initial_weights)
    names = ("distance_1", "distance_2", "classifier_1")
    for operation, name in zip(Model([left, right], outputs).operations[-3:], names, strict=True):
        operation.name = name
    return Model([left, right], outputs)


def twin(metaparameters, input_shape=(105, 105, 1)):
    """Return the model "twin", which encodes an image: (N, H, W, C) -> (N, n_units), each value from 0 to 1."""
    in_learner = {name: value for name, value in metaparameters.items() if name not in ("stem", "n_units")}
    in_stem = {name: value for name, value in in_learner.items() if name != "groups"}
    in_encoding = {name: value for name, value in in_stem.items() if name == "initial_weights"}
    inputs = Input(input_shape, name="images")
    x = stem(inputs, **metaparameters.get("stem", {}), **in_stem)
    x = learner(x, **in_learner)
    outputs = encoding(x, int(metaparameters["n_units"]), **in_encoding)
    stages = ["stem", *(f"group_{i + 1}" for i in range(len(metaparameters["groups"]))), "encoding"]
    model = named_by_stage(inputs, outputs, stages)
    model.name = "twin"
    return model


def stem(
    inputs, n_filters=64, kernel_size=10, padding="valid", batch_normalization=False, initial_weights="he_normal"
):
    """The first convolution and a max pooling: images (N, H, W, C) to feature maps (N, H', W', n_filters).

    H' = (H - kernel_size + 1) / 2 with the padding "valid", H / 2 with "same", rounded down.
    """
    x = conv_relu(inputs, n_filters, kernel_size, padding, batch_normalization, initial_weights)
    x = layers.MaxPooling2D(2, strides=2)(x)
    return layers.Identity()(x)  # marks the end of the stem


def learner(x, groups, padding="valid", batch_normalization=False, initial_weights="he_normal"):
    """The groups in a row; each makes the feature maps smaller.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_layers", "n_filters", "kernel_size"} with an optional "pooling".
        padding, batch_normalization, initial_weights: of every convolution, see `conv_relu`.

    Returns:
        Feature maps (N, H', W', n_filters of the last group), ready for any head.
    """
    for metaparameters in groups:
        x = group(
            x, **metaparameters, padding=padding, batch_normalization=batch_normalization,
            initial_weights=initial_weights,
        )
    return x


def group(
    x, n_layers, n_filters, kernel_size, pooling=True, padding="valid", batch_normalization=False,
    initial_weights="he_normal",
):
    """Convolutions, then in most groups a max pooling: (N, H, W, C) -> (N, H', W', n_filters).

    H' = H - n_layers (kernel_size - 1) with the padding "valid", H with "same"; the pooling halves it, rounded down.
    """
    for _ in range(n_layers):
        x = conv_relu(x, n_filters, kernel_size, padding, batch_normalization, initial_weights)
    if pooling:
        x = layers.MaxPooling2D(2, strides=2)(x)
    return layers.Identity()(x)  # marks the end of the group


def conv_relu(x, n_filters, kernel_size, padding="valid", batch_normalization=False, initial_weights="he_normal"):
    """Convolution, optionally batch normalization, and ReLU: (N, H, W, C) -> (N, H', W', n_filters).

    Args:
        x: feature maps (N, H, W, C).
        n_filters, kernel_size: of the convolution.
        padding: "valid", with H' = H - kernel_size + 1, or "same", with H' = H.
        batch_normalization: whether batch normalization follows the convolution, which then has no bias.
        initial_weights: "he_normal", or "koch", N(0, 0.01) and biases N(0.5, 0.01).
    """
    initial = initial_values(initial_weights, deviation=0.01)
    x = layers.Conv2D(n_filters, int(kernel_size), padding=padding, use_bias=not batch_normalization, **initial)(x)
    if batch_normalization:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)


def encoding(x, n_units, initial_weights="he_normal"):
    """Flatten, then a dense layer with sigmoids: (N, H, W, C) -> (N, n_units), each value from 0 to 1.

    Args:
        x: feature maps of a fixed size, since the dense layer has a weight for each of their values.
        n_units: the width of the dense layer.
        initial_weights: "he_normal", or "koch", N(0, 0.2) and biases N(0.5, 0.01).
    """
    x = layers.Flatten()(x)
    return layers.Dense(n_units, activation="sigmoid", **initial_values(initial_weights, deviation=0.2))(x)


def l1_distance(left, right):
    """The distance of two encodings, element by element: two (N, n_units) -> |left - right| (N, n_units). Section 3.1.

    It is the same in either order.
    """
    return ops.abs(left - right)


def classifier(x, initial_weights="he_normal"):
    """A dense layer with one sigmoid: distances (N, n_units) -> probability of the same class (N, 1). Section 3.1."""
    # In float32 under a policy of half precision too, which would round probabilities and their loss.
    return layers.Dense(1, activation="sigmoid", dtype="float32", **initial_values(initial_weights, deviation=0.2))(x)


def initial_values(initial_weights, deviation):
    """Return the initializers of a layer, new ones for each: one shared by two layers gives both the same numbers.

    Args:
        initial_weights: "koch", weights N(0, deviation) and biases N(0.5, 0.01) (section 3.2), or "he_normal".
        deviation: the standard deviation of the weights in "koch".
    """
    if initial_weights == "koch":
        weights, biases = initializers.RandomNormal(0.0, deviation), initializers.RandomNormal(0.5, 0.01)
        return {"kernel_initializer": weights, "bias_initializer": biases}
    return {"kernel_initializer": initial_weights}


# Copied from vgg/vgg.py
def named_by_stage(inputs, outputs, stages):
    """Return the model with layers named by stage: stem_1, ..., stem, group_1_1, ..., group_1, ..., classifier_1, ...

    Args:
        inputs, outputs: of the model.
        stages: their names in order. Each stage but the last ends with an Identity, which takes its name.
    """
    names = iter(stages)
    stage, i = next(names), 0
    for operation in Model(inputs, outputs).operations[1:]:  # all but the input
        if isinstance(operation, layers.Identity) and stage != stages[-1]:
            operation.name, stage, i = stage, next(names), 0
        else:
            i += 1
            operation.name = f"{stage}_{i}"
    return Model(inputs, outputs)  # made again, since a Model keeps the names that its outputs had

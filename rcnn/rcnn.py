"""R-CNN: regions that something else proposes are warped to one size, and each goes through a network by itself.

Paper: Girshick et al. 2013, "Rich Feature Hierarchies for Accurate Object Detection and Semantic Segmentation",
arXiv:1311.2524, section 2 and appendices A to C, here with VGG-16, its "O-Net".

    rcnn_vgg16
    stem          (224, 224,   3) -> (224, 224,  64)   the first convolution of group 1
    group 1       (224, 224,  64) -> (112, 112,  64)   2 convolutions, the first of which was the stem
    group 2       (112, 112,  64) -> ( 56,  56, 128)   2 convolutions
    group 3       ( 56,  56, 128) -> ( 28,  28, 256)   3 convolutions
    group 4       ( 28,  28, 256) -> ( 14,  14, 512)   3 convolutions
    group 5       ( 14,  14, 512) -> (  7,   7, 512)   3 convolutions
    classifier    (  7,   7, 512) -> (21,)             dense 4096, 4096, 21

    rcnn_vgg8
    stem          ( 48,  48,   3) -> ( 48,  48,  32)   the first convolution of group 1
    group 1       ( 48,  48,  32) -> ( 24,  24,  32)   2 convolutions, the first of which was the stem
    group 2       ( 24,  24,  32) -> ( 12,  12,  64)   2 convolutions
    group 3       ( 12,  12,  64) -> (  6,   6, 128)   2 convolutions
    classifier    (  6,   6, 128) -> (11,)             dense 256, 11

Trainable parameters: rcnn_vgg16 134,346,581 with 21 classes, rcnn_vgg8 1,470,635 with 11, the background among
them.
Differs from the paper: the initial weights are He-normal. The support vector machines have the squared hinge loss. What
the box regressors learn is not whitened, as it is in the released code.
rcnn_vgg8, for regions of 48x48 pixels, is not in the paper.

That network, fine-tuned, is not yet the detector: its features are. Linear models on them, with_linear_models, say how
much a region looks like each class, and where the box of the object is.
"""

import inspect
from numbers import Integral

import numpy as np
from keras import Input, Model, config, layers

METAPARAMETERS = {
    "rcnn_vgg16": {
        "groups": (
            {"n_layers": 2, "n_filters": 64}, {"n_layers": 2, "n_filters": 128}, {"n_layers": 3, "n_filters": 256},
            {"n_layers": 3, "n_filters": 512}, {"n_layers": 3, "n_filters": 512},
        ),
    },
    "rcnn_vgg8": {
        "groups": (
            {"n_layers": 2, "n_filters": 32}, {"n_layers": 2, "n_filters": 64}, {"n_layers": 2, "n_filters": 128},
        ),
        "batch_normalization": True,
        "n_units": (256,),
    },
}


def build(metaparameters, input_shape=(224, 224, 3), n_classes=21):
    """Return an R-CNN as a `keras.Model`: warped regions (N, H, W, C) to class probabilities (N, n_classes).

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of
            {"n_layers", "n_filters"}, and optionally the other arguments of `learner` and `classifier`.
        input_shape: (H, W, C), a fixed size; every group halves H and W.
        n_classes: K + 1, the classes and, as class 0, the background; at least 2.

    Raises:
        ValueError: metaparameters, input_shape or n_classes are invalid.
    """
    if not isinstance(metaparameters, dict) or not metaparameters.get("groups"):
        raise ValueError(f"metaparameters must be a dictionary with groups, got {metaparameters!r}")
    groups = metaparameters["groups"]
    in_classifier = {name: value for name, value in metaparameters.items() if name in ("n_units", "dropout")}
    in_learner = {name: value for name, value in metaparameters.items() if name not in in_classifier}
    in_stem = {name: value for name, value in in_learner.items() if name != "groups"}
    try:
        inspect.signature(learner).bind(None, **in_learner)
        for in_group in groups:
            inspect.signature(group).bind(None, **in_group, **in_stem)
        sizes = [*in_classifier.get("n_units", ()), *(n for in_group in groups for n in in_group.values())]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    if not all(isinstance(n, Integral) and n > 0 for n in sizes):
        raise ValueError(f"n_layers, n_filters, n_units must be whole numbers of at least 1, got {metaparameters}")
    if "n_units" in in_classifier:
        in_classifier["n_units"] = [int(n) for n in in_classifier["n_units"]]  # numpy's too
    if config.image_data_format() != "channels_last":
        raise ValueError("image_data_format must be channels_last, got channels_first (keras.json or keras.config)")
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not all(input_shape):
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape!r}")
    if min(input_shape[:2]) < 2 ** len(groups):
        raise ValueError(f"height and width must be at least {2 ** len(groups)}, got {input_shape[:2]}")
    if not isinstance(n_classes, Integral) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")

    inputs = Input(input_shape, name="images")
    x = stem(inputs, groups[0]["n_filters"], **in_stem)
    x = learner(x, **in_learner)
    outputs = classifier(x, int(n_classes), **in_classifier)
    return Model(inputs, outputs)


def with_linear_models(network, n_classes):
    """Put linear models in place of the last layer: one support vector machine and one box regressor for each class.

    Args:
        network: a model of build.
        n_classes: K, without the background.

    Returns:
        A model of regions (N, H, W, C), of their "scores" (N, K), those of the support vector machines, "deltas"
        (N, K, 4), of the box that a region of each class would have, and the features that these are made of: "fc7",
        the last but one dense layer, and "pool5", the flat feature maps.
    """
    (flatten,) = (layer for layer in network.layers if isinstance(layer, layers.Flatten))
    pool5, fc7 = flatten.output, network.layers[-1].input
    scores = layers.Dense(n_classes, name="scores")(fc7)
    deltas = layers.Reshape((n_classes, 4))(layers.Dense(4 * n_classes, name="deltas")(pool5))
    return Model(network.input, {"scores": scores, "deltas": deltas, "fc7": fc7, "pool5": pool5})


def warp(image, regions, size=224, padding=16):
    """Cut regions out of an image and bring each to size x size pixels, whatever its shape: appendix A of the paper.

    A region becomes the inner size - 2 padding pixels; around it is as much of the image as falls on the rest, and the
    mean color where there is no image.

    Args:
        image: (H, W, C) uint8.
        regions: (R, 4), "xyxy" in pixels; one without area becomes the color of its place.
        size: height and width of the results in pixels.
        padding: the width of the context in pixels of the results.

    Returns:
        (R, size, size, C) uint8.

    Raises:
        ValueError: image or regions have another shape, or the padding leaves no pixel for the region.
    """
    if np.ndim(image) != 3 or np.ndim(regions) != 2 or np.shape(regions)[1] != 4:
        given = f"{np.shape(image)} and {np.shape(regions)}"
        raise ValueError(f"warp needs an image (H, W, C) and regions (R, 4), got {given}")
    regions = np.asarray(regions)
    if not 0 <= 2 * padding < size:
        raise ValueError(f"padding must be 0 to less than half of size {size}, got {padding}")
    (height, width), mean = image.shape[:2], image.mean((0, 1))
    position = (np.arange(size) + 0.5 - padding) / (size - 2 * padding)  # 0 and 1 are the edges of the region
    start, end = regions[:, :2, None], regions[:, 2:, None]
    x, y = np.moveaxis(start + position * (end - start) - 0.5, 1, 0)  # (R, size) each; pixel 0 has its center at 0
    in_image = ((y > -0.5) & (y < height - 0.5))[:, :, None] & ((x > -0.5) & (x < width - 0.5))[:, None, :]
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    left, top = x.astype(int), y.astype(int)
    to_right, to_bottom = (x - left)[:, None, :, None], (y - top)[:, :, None, None]  # how far to the next pixel
    pixels = np.pad(image, ((0, 1), (0, 1), (0, 0)), mode="edge").astype("float32")  # the last has a next one too

    def at(rows, columns):
        return pixels[rows[:, :, None], columns[:, None, :]]  # (R, size, size, C)

    above = at(top, left) * (1 - to_right) + at(top, left + 1) * to_right
    below = at(top + 1, left) * (1 - to_right) + at(top + 1, left + 1) * to_right
    warped = above * (1 - to_bottom) + below * to_bottom
    return np.where(in_image[..., None], warped, mean).round().astype("uint8")


def train_svm(positives, negatives, rng, n_rounds=2, C=1e-3, positive_weight=2):
    """Train the support vector machine of one class, with hard negative mining: section 2.3 of the paper.

    There are too many negatives to train on all: it begins with as many as there are positives, and in every round
    takes in those that it gets wrong or nearly so, and lets go those that it no longer needs. Margins, weights and the
    scale of the features are those of the released code.

    Args:
        positives, negatives: features (P, F) and (M, F).
        rng: a generator of random numbers, for the first negatives.
        n_rounds: how often negatives are mined; the paper finds one pass enough.
        C: how much an example counts against the size of the kernel.
        positive_weight: how much more a positive counts.

    Returns:
        Kernel (F,) and bias, such that features @ kernel + bias is above 0 for objects of the class. A class without
        positives gets a kernel of 0 and a bias of -1.
    """
    n_features = positives.shape[1]
    if not len(positives) or not len(negatives):
        return np.zeros(n_features, "float32"), 1.0 if len(positives) else -1.0
    scale = 20 / max(np.linalg.norm(np.concatenate([positives, negatives[:10_000]]), axis=1).mean(), 1e-6)
    chosen = np.zeros(len(negatives), bool)
    chosen[rng.permutation(len(negatives))[: len(positives)]] = True
    for _ in range(1 + n_rounds):
        x = scale * np.concatenate([positives, negatives[chosen]])
        y = np.where(np.arange(len(x)) < len(positives), 1.0, -1.0)
        kernel, bias = fit_svm(x, y, C * np.where(y > 0, positive_weight, 1))
        scores = scale * (negatives @ kernel) + bias
        chosen = (chosen & (scores >= -1.2)) | (scores > -1.0001)
    return (scale * kernel).astype("float32"), float(bias)


def fit_svm(x, y, costs):
    """Find the kernel and bias of the least |kernel|^2 / 2 + sum of costs max(0, 1 - y (x @ kernel + bias))^2.

    For the examples on the wrong side of their margin that is a sum of squares, for the others 0: so solve the least
    squares of the former, see which are on the wrong side now, and again until these are the same (Newton's method;
    Chapelle 2007, "Training a Support Vector Machine in the Primal").

    Args:
        x, y, costs: features (N, F), 1 or -1 (N,), and what an error costs (N,).
    """
    x = np.concatenate([x, np.ones((len(x), 1))], 1)  # the last weight is the bias
    size = np.diag(np.append(np.ones(x.shape[1] - 1), 1e-9))  # of the bias next to nothing
    weights, wrong = np.zeros(x.shape[1]), np.ones(len(x), bool)
    for _ in range(50):
        squares = 2 * x[wrong].T * costs[wrong]
        weights = np.linalg.solve(size + squares @ x[wrong], squares @ y[wrong])
        before, wrong = wrong, y * (x @ weights) < 1
        if (wrong == before).all():
            break
    return weights[:-1], weights[-1]


def fit_box_regressor(features, deltas, ridge=1000.0):
    """Find the linear map from features to deltas by ridge regression: appendix C of the paper, in closed form.

    Args:
        features: (P, F), of regions that overlap an object of one class by an IoU of more than 0.6.
        deltas: (P, 4), of the object's box as seen from the region.
        ridge: lambda, what a unit of the squared kernel costs.

    Returns:
        Kernel (F, 4) and bias (4,); 0 without any region.
    """
    x = np.concatenate([features, np.ones((len(features), 1))], 1)  # the released code has the bias as a feature
    solution = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ deltas)
    return solution[:-1].astype("float32"), solution[-1].astype("float32")


# Copied from vgg/vgg.py
def stem(inputs, n_filters=64, batch_normalization=False):
    """The first convolution: images (N, H, W, C) to feature maps (N, H, W, n_filters)."""
    x = conv_relu(inputs, n_filters, batch_normalization)
    return layers.Identity()(x)  # marks the end of the stem


# Copied from vgg/vgg.py
def learner(x, groups, batch_normalization=False):
    """The groups in a row; each halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_layers", "n_filters"}; the stem is the first group's first convolution.
        batch_normalization: whether batch normalization follows each convolution.

    Returns:
        Feature maps (N, H / 2^groups, W / 2^groups, n_filters of the last group), ready for any head.
    """
    first, *rest = groups
    x = group(x, first["n_layers"] - 1, first["n_filters"], batch_normalization)
    for metaparameters in rest:
        x = group(x, **metaparameters, batch_normalization=batch_normalization)
    return x


# Copied from vgg/vgg.py
def group(x, n_layers, n_filters, batch_normalization=False):
    """3x3 convolutions, then a max pooling: (N, H, W, C) -> (N, H / 2, W / 2, n_filters). Section 2.1."""
    for _ in range(n_layers):
        x = conv_relu(x, n_filters, batch_normalization)
    x = layers.MaxPooling2D(2, strides=2)(x)
    return layers.Identity()(x)  # marks the end of the group


# Copied from vgg/vgg.py
def conv_relu(x, n_filters, batch_normalization=False):
    """3x3 convolution, optionally batch normalization, and ReLU: (N, H, W, C) -> (N, H, W, n_filters)."""
    x = layers.Conv2D(n_filters, 3, padding="same", kernel_initializer="he_normal")(x)
    if batch_normalization:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)


# Copied from vgg/vgg.py
def classifier(x, n_classes, n_units=(4096, 4096), dropout=0.5):
    """Flatten, then dense layers with dropout: (N, H, W, C) -> class probabilities (N, n_classes).

    Args:
        x: feature maps of a fixed size, since the first dense layer has a weight for each of their values.
        n_classes: how many classes.
        n_units: the widths of the dense layers before the last.
        dropout: the share of their units that is dropped in training.
    """
    x = layers.Flatten()(x)
    for n in n_units:
        x = layers.Dense(n, activation="relu", kernel_initializer="he_normal")(x)
        x = layers.Dropout(dropout)(x)
    return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal")(x)

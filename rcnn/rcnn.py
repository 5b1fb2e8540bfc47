"""R-CNN: regions that something else proposes are warped to one size, and each goes through a network by itself.

Paper: Girshick et al. 2013, "Rich Feature Hierarchies for Accurate Object Detection and Semantic Segmentation",
arXiv:1311.2524, section 2 and appendices A to C, with its two networks: AlexNet and, as "O-Net", VGG-16.

    rcnn_alexnet
    stem          (227, 227,   3) -> ( 13,  13, 256)   the five convolutions of AlexNet
    learner       ( 13,  13, 256) -> (  6,   6, 256)   the last pooling, pool5
    classifier    (  6,   6, 256) -> (21,)             dense 4096, 4096, 21

    rcnn_vgg16
    stem          (224, 224,   3) -> ( 14,  14, 512)   the five groups of VGG-16
    learner       ( 14,  14, 512) -> (  7,   7, 512)   the last pooling
    classifier    (  7,   7, 512) -> (21,)             dense 4096, 4096, 21

    rcnn_vgg8
    stem          ( 32,  32,   3) -> (  8,   8, 192)   three groups of a VGG
    learner       (  8,   8, 192) -> (  4,   4, 192)   the last pooling
    classifier    (  4,   4, 192) -> (11,)             dense 256 with batch normalization, 11

Trainable parameters: rcnn_alexnet 56,954,261 and rcnn_vgg16 134,346,581 with 21 classes, rcnn_vgg8 1,410,283 with 11,
the background among them.
AlexNet here is CaffeNet, as in the released code, which pools before it normalizes. Differs from the paper: the initial
weights are He-normal, those of the last layer Glorot-uniform. Fine-tuning trains all layers, as the paper's does, but
at a higher learning rate for far fewer steps. rcnn_vgg8, for regions of 32x32 pixels, is not in the paper.

That network, fine-tuned, is not yet the detector: its features are. Linear models on them, of linear_models.py, say how
much a region looks like each class, and where the box of the object is.
"""

import inspect
from numbers import Integral, Real

import numpy as np
from keras import Input, Model, config, layers, ops

METAPARAMETERS = {
    "rcnn_alexnet": {"stem": "alexnet", "pool_size": 3},
    "rcnn_vgg16": {
        "groups": (
            {"n_layers": 2, "n_filters": 64}, {"n_layers": 2, "n_filters": 128}, {"n_layers": 3, "n_filters": 256},
            {"n_layers": 3, "n_filters": 512}, {"n_layers": 3, "n_filters": 512},
        ),
    },
    "rcnn_vgg8": {
        "groups": (
            {"n_layers": 2, "n_filters": 32}, {"n_layers": 2, "n_filters": 96}, {"n_layers": 2, "n_filters": 192},
        ),
        "batch_normalization": True,
        "n_units": (256,),
        "dropout": 0.25,
    },
}


def build(metaparameters, input_shape=(224, 224, 3), n_classes=21):
    """Return an R-CNN as a `keras.Model`: warped regions (N, H, W, C) to class probabilities (N, n_classes).

    Its layers "backbone" and "head" are models too: the stem, and the classifier.

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of
            {"n_layers", "n_filters"}, or `stem`, "alexnet"; and optionally the other arguments of `stem`, `learner` and
            `classifier`.
        input_shape: (H, W, C), a fixed size; every group halves H and W. AlexNet's is (227, 227, 3).
        n_classes: K + 1, the classes and, as class 0, the background; at least 2.

    Raises:
        ValueError: metaparameters, input_shape or n_classes are invalid.
    """
    convolutions, given = stem, metaparameters
    if isinstance(metaparameters, dict) and metaparameters.get("stem") == "alexnet":
        convolutions, given = alexnet_stem, {name: metaparameters[name] for name in metaparameters if name != "stem"}
    in_stem, in_learner, in_head = arguments_of(given, convolutions, learner, classifier)
    pool_size = in_learner.get("pool_size", 2)
    check_shape(input_shape, 2 ** (len(in_stem["groups"]) - 1) * pool_size if in_stem else 19 + 16 * pool_size)
    check_number("n_classes", n_classes, 2)

    images = Input((None, None, input_shape[2]))
    backbone = Model(images, convolutions(images, **in_stem), name="backbone")
    images = Input(input_shape, name="images")
    x = learner(backbone(images), **in_learner)
    features = Input(x.shape[1:])
    head = Model(features, classifier(features, int(n_classes), **in_head), name="head")
    return Model(images, head(x)["classes"])


def arguments_of(metaparameters, *functions):
    """Return the metaparameters that belong to each function, a list of dictionaries; refuse invalid ones.

    Raises:
        ValueError: metaparameters are no dictionary, or have an unknown name, lack one, or have an invalid value.
    """
    if not isinstance(metaparameters, dict):
        raise ValueError(f"metaparameters must be a dictionary, got {metaparameters!r}")
    found, unknown = [], set(metaparameters)
    for function in functions:
        parameters = inspect.signature(function).parameters.items()
        names = {name for name, parameter in parameters if parameter.default is not inspect.Parameter.empty}
        names |= {"groups"} & set(dict(parameters))
        found.append({name: value for name, value in metaparameters.items() if name in names})
        unknown -= names
        if "groups" in names and not metaparameters.get("groups"):
            raise ValueError(f"metaparameters must have groups, got {metaparameters!r}")
    if unknown:
        raise ValueError(f"metaparameters are invalid: {', '.join(sorted(map(str, unknown)))}, in {metaparameters}")
    for name in {"groups", "n_units"} & set(metaparameters):
        if not isinstance(metaparameters[name], (tuple, list)):
            raise ValueError(f"{name} must be a tuple, got {metaparameters[name]!r}")
    for in_group in metaparameters.get("groups", ()):
        if not isinstance(in_group, dict) or set(in_group) != {"n_layers", "n_filters"}:
            raise ValueError(f"each of groups must have n_layers and n_filters, got {in_group!r}")
        for name, value in in_group.items():
            check_number(name, value)
    for name in {"pool_size", "pooled_size", "n_filters"} & set(metaparameters):
        check_number(name, metaparameters[name])
    for value in metaparameters.get("n_units", ()):
        check_number("n_units", value)
    if metaparameters.get("batch_normalization", False) not in (True, False):
        raise ValueError(f"batch_normalization must be True or False, got {metaparameters['batch_normalization']!r}")
    dropout = metaparameters.get("dropout", 0.5)
    if isinstance(dropout, bool) or not isinstance(dropout, Real) or not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}")
    return found


def check_number(name, value, least=1):
    """Refuse what is not a whole number of at least `least`."""
    if not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_shape(input_shape, smallest):
    """Refuse a shape of images that is not (H, W, C), of a fixed size that is large enough."""
    is_shape = isinstance(input_shape, (tuple, list)) and len(input_shape) == 3
    if not is_shape or not all(isinstance(n, Integral) and n > 0 for n in input_shape):
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape!r}")
    if min(input_shape[:2]) < smallest:
        raise ValueError(f"height and width must be at least {smallest}, got {input_shape[:2]}")
    if config.image_data_format() != "channels_last":
        raise ValueError("image_data_format must be channels_last, got channels_first (keras.json or keras.config)")


def stem(inputs, groups, batch_normalization=False):
    """All convolutions of a VGG: images (N, H, W, C) to feature maps (N, H / 2^(n - 1), ..., n_filters), n groups.

    Args:
        inputs: images (N, H, W, C).
        groups: a tuple of {"n_layers", "n_filters"}; the pooling of the last is left out, it is the learner's.
        batch_normalization: whether batch normalization follows each convolution.
    """
    x = inputs
    for metaparameters in groups[:-1]:
        x = group(x, **metaparameters, batch_normalization=batch_normalization)
        x = layers.MaxPooling2D(2, strides=2)(x)
    return group(x, **groups[-1], batch_normalization=batch_normalization)


def group(x, n_layers, n_filters, batch_normalization=False):
    """3x3 convolutions: (N, H, W, C) -> (N, H, W, n_filters). VGG paper, section 2.1."""
    for _ in range(n_layers):
        x = conv_relu(x, n_filters, batch_normalization)
    return x


def alexnet_stem(inputs):
    """The five convolutions of AlexNet: images (N, 227, 227, 3) to feature maps (N, 13, 13, 256).

    Krizhevsky et al. 2012, figure 2, in the form of R-CNN's released code: pooling before normalization. The second,
    fourth and fifth convolution see half of the channels with each half of their filters: the paper's two GPUs.
    """
    x = conv(inputs, 96, 11, strides=4, padding="valid")  # (N, 55, 55, 96)
    x = layers.MaxPooling2D(3, strides=2)(x)  # (N, 27, 27, 96)
    x = local_response_normalization(x)
    x = two_groups(x, 256, 5)  # (N, 27, 27, 256)
    x = layers.MaxPooling2D(3, strides=2)(x)  # (N, 13, 13, 256)
    x = local_response_normalization(x)
    x = conv(x, 384, 3)  # (N, 13, 13, 384)
    x = two_groups(x, 384, 3)
    return two_groups(x, 256, 3)  # (N, 13, 13, 256)


def conv(x, n_filters, kernel_size, strides=1, padding="same"):
    """Convolution and ReLU: (N, H, W, C) -> (N, H / strides, W / strides, n_filters); "valid" cuts the borders off."""
    return layers.Conv2D(
        n_filters, kernel_size, strides, padding, activation="relu", kernel_initializer="he_normal"
    )(x)


def two_groups(x, n_filters, kernel_size):
    """Two convolutions side by side, each of half of the channels: (N, H, W, C) -> (N, H, W, n_filters)."""
    half = x.shape[-1] // 2
    parts = [conv(part, n_filters // 2, kernel_size) for part in (x[..., :half], x[..., half:])]
    return layers.Concatenate()(parts)


def learner(x, pool_size=2):
    """The last pooling: feature maps (N, H, W, C) to pool5 (N, H / 2, W / 2, C), all that the classifier sees."""
    return layers.MaxPooling2D(pool_size, strides=2)(x)


def classifier(x, n_classes, n_units=(4096, 4096), dropout=0.5, batch_normalization=False):
    """Dense layers with dropout, then a softmax.

    Args:
        x: the learner's feature maps (N, H, W, C).
        n_classes: K + 1, the classes and, as class 0, the background.
        n_units: the widths of the dense layers before the last.
        dropout: the share of their units that is dropped in training.
        batch_normalization: whether it follows each of these dense layers too.

    Returns:
        {"classes": (N, K + 1), probabilities, "features": (N, the last of n_units), what the support vector
        machines take: those of the last dense layer, fc7 in the paper}.
    """
    x = layers.Flatten()(x)
    for i, n in enumerate(n_units, start=6):
        x = dense_relu(x, n, f"fc{i}", batch_normalization)
        x = layers.Dropout(dropout)(x)
    # In float32 under a policy of half precision too, which would round probabilities and their loss.
    outputs = layers.Dense(n_classes, activation="softmax", name="classes", dtype="float32")(x)
    return {"classes": outputs, "features": x}


def dense_relu(x, n_units, name, batch_normalization=False):
    """Dense layer, optionally batch normalization, and ReLU: (..., C) -> (..., n_units)."""
    x = layers.Dense(int(n_units), kernel_initializer="he_normal", name=name)(x)
    if batch_normalization:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
    return layers.ReLU()(x)


def with_linear_models(network, n_classes):
    """Put linear models on the features: one support vector machine and one box regressor for each class.

    Args:
        network: a model of build, whose layers the result shares; that of the classes is used no more.
        n_classes: K, without the background.

    Returns:
        A model of regions (N, H, W, C), of their "scores" (N, K), those of the support vector machines, "deltas"
        (N, K, 4), of the box that a region of each class would have, and the features that these are made of: "fc7"
        and, flat, "pool5".
    """
    backbone, pooling, head = network.layers[1:]
    images = Input(network.input_shape[1:], name="images")
    x = pooling(backbone(images))
    pool5, fc7 = layers.Flatten()(x), head(x)["features"]
    # In float32 under a policy of half precision too, which would round scores and boxes.
    scores = layers.Dense(n_classes, name="scores", dtype="float32")(fc7)
    deltas = layers.Dense(4 * n_classes, name="deltas", dtype="float32")(pool5)
    deltas = layers.Reshape((n_classes, 4), dtype="float32")(deltas)
    return Model(images, {"scores": scores, "deltas": deltas, "fc7": fc7, "pool5": pool5})


def warp(image, regions, mean, size=227, context=16 / 227):
    """Cut regions out of an image and bring each to size x size pixels, whatever its shape: appendix A of the paper.

    Each region gets a border, the context, filled from the image around it. Beyond the image it has the mean color,
    which becomes 0 when the mean is subtracted.

    Args:
        image: (H, W, C), pixels 0 to 255.
        regions: (R, 4), "xyxy" in pixels; one without area becomes the color of its place.
        mean: of each channel over the training images, (C,).
        size: height and width of the results in pixels.
        context: its width, as a share of the size; the paper's is 16 of 227 pixels.

    Returns:
        (R, size, size, C) float32, pixels 0 to 255.
    """
    height, width = image.shape[:2]
    position = ((np.arange(size) + 0.5) / size - context) / (1 - 2 * context)  # 0 and 1 are the edges of the region
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
    return np.where(in_image[..., None], warped, mean).astype("float32")


# Copied from vgg/vgg.py
def conv_relu(x, n_filters, batch_normalization=False):
    """3x3 convolution, optionally batch normalization, and ReLU: (N, H, W, C) -> (N, H, W, n_filters)."""
    x = layers.Conv2D(n_filters, 3, padding="same", kernel_initializer="he_normal")(x)
    if batch_normalization:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)


# Copied from inception/inception_v1.py
def local_response_normalization(x, size=5, alpha=1e-4, beta=0.75):
    """Divide by (1 + alpha m)^beta, m the mean square of a feature map and its neighbors: (N, H, W, C) throughout.

    Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 3.3, with the
    constants of bvlc_googlenet, where k is 1 and the sum is a mean.
    """
    squares = ops.square(ops.cast(x, "float32"))  # which float16 has only up to 65,504
    squares = ops.pad(squares, ((0, 0), (0, 0), (0, 0), (size // 2, size // 2)))  # (N, H, W, C + size - 1)
    mean = sum(squares[..., i : i + x.shape[-1]] for i in range(size)) / size
    return x / ops.cast((1 + alpha * mean) ** beta, x.dtype)

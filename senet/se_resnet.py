"""SE-ResNet-18 to 152, and SE-ResNet-20, 56 and 110 for CIFAR-10: residual networks with squeeze-excitation.

Paper: Hu et al. 2018, "Squeeze-and-Excitation Networks", arXiv:1709.01507, figures 1 and 3, section 3 and table 1; the
residual networks are those of He et al. 2015, arXiv:1512.03385, table 1, and section 4.2 for CIFAR-10.

    se_resnet50
    stem          (224, 224,    3) -> ( 56,  56,   64)   7x7 convolution and 3x3 max pooling, both strided
    group 1       ( 56,  56,   64) -> ( 56,  56,  256)   3 blocks
    group 2       ( 56,  56,  256) -> ( 28,  28,  512)   4 blocks, the first strided
    group 3       ( 28,  28,  512) -> ( 14,  14, 1024)   6 blocks, the first strided
    group 4       ( 14,  14, 1024) -> (  7,   7, 2048)   3 blocks, the first strided
    classifier    (  7,   7, 2048) -> (1000,)

    se_resnet20_cifar10
    stem          ( 32,  32,   3) -> ( 32,  32,  16)   3x3 convolution
    group 1       ( 32,  32,  16) -> ( 32,  32,  16)   3 blocks
    group 2       ( 32,  32,  16) -> ( 16,  16,  32)   3 blocks, the first strided
    group 3       ( 16,  16,  32) -> (  8,   8,  64)   3 blocks, the first strided
    classifier    (  8,   8,  64) -> (10,)

    se_resnet14_wide_cifar10
    stem          ( 32,  32,   3) -> ( 16,  16,  32)   3x3 convolution and 3x3 max pooling, strided
    group 1       ( 16,  16,  32) -> ( 16,  16,  32)   2 blocks
    group 2       ( 16,  16,  32) -> (  8,   8,  64)   2 blocks, the first strided
    group 3       (  8,   8,  64) -> (  4,   4, 128)   2 blocks, the first strided
    classifier    (  4,   4, 128) -> (10,)

Trainable parameters: se_resnet18 11,778,592, se_resnet34 21,958,868, se_resnet50 28,088,024, se_resnet101 49,326,872,
se_resnet152 66,821,848 (the paper: 28.1M for SE-ResNet-50); se_resnet20_cifar10 274,847, se_resnet56_cifar10 862,889,
se_resnet110_cifar10 1,744,952, se_resnet14_wide_cifar10 702,470.
Differs from the paper: the dense layers of the squeeze-excitation have biases, as in the authors' models
(hujie-frank/SENet); the formula in section 3.2 has none, and section 6 leaves them out of its ResNets. The authors'
models stride in the first 1x1 convolution, as here, but pool without padding. The paper's networks for CIFAR-10 (table
4) are ResNet-110 and ResNet-164 (both cited from the pre-activation paper), WRN-16-8, and Shake-Shake 26 2x96d with
Cutout; these are the blocks of 2015, and the shortcut that changes shape is a 1x1 convolution. At ratio 16 se_resnet20,
56 and 110 for CIFAR-10 squeeze 16, 32 and 64 feature maps into 1, 2 and 4 units. Of the depths here the paper has 50,
101, 152 and, on CIFAR-10, 110; 18, 34, 20 and 56 are ResNet's other depths, as in osmr/imgclsmob.
se_resnet14_wide_cifar10 is not in the paper: two blocks a group, twice the filters of se_resnet20_cifar10, and a stem
that halves the image.
"""

import inspect
from numbers import Integral

from keras import Input, Model, config, layers

CIFAR10_STEM = {"n_filters": 16, "kernel_size": 3, "strides": 1, "pooling": False}
WIDE_STEM = {"n_filters": 32, "kernel_size": 3, "strides": 1, "pooling": True}

METAPARAMETERS = {
    "se_resnet18": {"bottleneck": False, "groups": (
        {"n_filters": 64, "n_blocks": 2}, {"n_filters": 128, "n_blocks": 2},
        {"n_filters": 256, "n_blocks": 2}, {"n_filters": 512, "n_blocks": 2},
    )},
    "se_resnet34": {"bottleneck": False, "groups": (
        {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 4},
        {"n_filters": 256, "n_blocks": 6}, {"n_filters": 512, "n_blocks": 3},
    )},
    "se_resnet50": {"bottleneck": True, "groups": (
        {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 4},
        {"n_filters": 256, "n_blocks": 6}, {"n_filters": 512, "n_blocks": 3},
    )},
    "se_resnet101": {"bottleneck": True, "groups": (
        {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 4},
        {"n_filters": 256, "n_blocks": 23}, {"n_filters": 512, "n_blocks": 3},
    )},
    "se_resnet152": {"bottleneck": True, "groups": (
        {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 8},
        {"n_filters": 256, "n_blocks": 36}, {"n_filters": 512, "n_blocks": 3},
    )},
    "se_resnet20_cifar10": {"bottleneck": False, "stem": CIFAR10_STEM, "groups": (
        {"n_filters": 16, "n_blocks": 3}, {"n_filters": 32, "n_blocks": 3}, {"n_filters": 64, "n_blocks": 3},
    )},
    "se_resnet56_cifar10": {"bottleneck": False, "stem": CIFAR10_STEM, "groups": (
        {"n_filters": 16, "n_blocks": 9}, {"n_filters": 32, "n_blocks": 9}, {"n_filters": 64, "n_blocks": 9},
    )},
    "se_resnet110_cifar10": {"bottleneck": False, "stem": CIFAR10_STEM, "groups": (
        {"n_filters": 16, "n_blocks": 18}, {"n_filters": 32, "n_blocks": 18}, {"n_filters": 64, "n_blocks": 18},
    )},
    "se_resnet14_wide_cifar10": {"bottleneck": False, "stem": WIDE_STEM, "groups": (
        {"n_filters": 32, "n_blocks": 2}, {"n_filters": 64, "n_blocks": 2}, {"n_filters": 128, "n_blocks": 2},
    )},
}


def build(metaparameters, input_shape=(224, 224, 3), n_classes=1000):
    """Return an SE-ResNet as a `keras.Model`: images (N, H, W, C) to class probabilities (N, n_classes).

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of
            {"n_filters", "n_blocks"}, and optionally `ratio` and `bottleneck`, arguments of `learner`, and `stem`, a
            dictionary of the arguments of `stem`.
        input_shape: (H, W, C), H and W None for any size; the ImageNet stem divides them by 4, every group but the
            first by 2.
        n_classes: at least 2.

    Raises:
        ValueError: metaparameters, input_shape or n_classes are invalid.
    """
    if not isinstance(metaparameters, dict) or not metaparameters.get("groups"):
        raise ValueError(f"metaparameters must be a dictionary with groups, got {metaparameters!r}")
    groups = metaparameters["groups"]
    in_learner = {name: value for name, value in metaparameters.items() if name != "stem"}
    try:
        of_stem = inspect.signature(stem).bind(None, **metaparameters.get("stem", {}))
        of_learner = inspect.signature(learner).bind(None, **in_learner)
        for in_group in groups:
            inspect.signature(group).bind(None, **in_group, strides=1, ratio=1, bottleneck=True)
        sizes = [n for in_group in groups for n in in_group.values()]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    of_stem.apply_defaults()
    of_learner.apply_defaults()
    _, n_filters, kernel_size, strides, pooling = of_stem.args
    _, _, ratio, bottleneck = of_learner.args
    if not all(isinstance(n, Integral) and n > 0 for n in [n_filters, kernel_size, strides, *sizes]):
        raise ValueError(f"filters, blocks, kernel_size and strides must be whole and at least 1, got {metaparameters}")
    if strides > 1 and kernel_size % 2 == 0:
        raise ValueError(f"kernel_size of the stem must be odd where strides are above 1, got {kernel_size}")
    if not isinstance(bottleneck, bool):
        raise ValueError(f"bottleneck must be True or False, got {bottleneck!r}")
    narrowest = min(in_group["n_filters"] for in_group in groups) * (4 if bottleneck else 1)
    if ratio is not None and (not isinstance(ratio, Integral) or not 1 <= ratio <= narrowest):
        allowed = f"None or a whole number of 1 to {narrowest}, the fewest feature maps"
        raise ValueError(f"ratio must be {allowed}, got {ratio!r}")
    if not isinstance(pooling, bool):
        raise ValueError(f"pooling of the stem must be True or False, got {pooling!r}")
    if config.image_data_format() != "channels_last":
        raise ValueError("image_data_format must be channels_last, got channels_first (keras.json or keras.config)")
    is_shape = isinstance(input_shape, (tuple, list)) and len(input_shape) == 3 and input_shape[2]
    if not is_shape or not all(n is None or isinstance(n, Integral) and n >= 0 for n in input_shape):
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape!r}")
    smallest = strides * (2 if pooling else 1) * 2 ** (len(groups) - 1)
    if any(size is not None and size < smallest for size in input_shape[:2]):
        raise ValueError(f"height and width must be at least {smallest}, got {input_shape[:2]}")
    if not isinstance(n_classes, Integral) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")

    inputs = Input(input_shape, name="images")
    x = stem(inputs, n_filters, int(kernel_size), int(strides), pooling)
    x = learner(x, groups, None if ratio is None else int(ratio), bottleneck)
    outputs = classifier(x, int(n_classes))
    stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "classifier"]
    return named_by_stage(inputs, outputs, stages)


# Copied from resnet/resnet_basic.py
def stem(inputs, n_filters=64, kernel_size=7, strides=2, pooling=True):
    """A convolution and, with pooling, a max pooling: by default (N, H, W, C) -> (N, H / 4, W / 4, n_filters).

    The paper's CIFAR-10 stem is a 3x3 convolution without strides or pooling: (N, H, W, C) -> (N, H, W, n_filters).
    """
    x = conv_bn_relu(inputs, n_filters, kernel_size, strides)
    if pooling:
        x = layers.ZeroPadding2D(1)(x)  # after ReLU no value is below zero, so the padding never is the maximum
        x = layers.MaxPooling2D(3, strides=2)(x)
    return layers.Identity()(x)  # marks the end of the stem


def learner(x, groups, ratio=16, bottleneck=True):
    """The groups in a row; every group but the first halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_filters", "n_blocks"}.
        ratio: for C feature maps the first dense layer of the squeeze-excitation has C / ratio units; None leaves the
            squeeze-excitation out, which makes a ResNet.
        bottleneck: whether a block has 1x1, 3x3 and 1x1 convolutions, or two 3x3 convolutions.

    Returns:
        Feature maps of n groups (N, H / 2^(n - 1), W / 2^(n - 1), C of the last group), ready for any head; C is
        4 n_filters with bottlenecks, n_filters without.
    """
    first, *rest = groups
    x = group(x, **first, strides=1, ratio=ratio, bottleneck=bottleneck)
    for metaparameters in rest:
        x = group(x, **metaparameters, strides=2, ratio=ratio, bottleneck=bottleneck)
    return x


def group(x, n_filters, n_blocks, strides=2, ratio=16, bottleneck=True):
    """A projection block if the shape changes, then identity blocks.

    (N, H, W, C) -> (N, H / strides, W / strides, 4 n_filters), or n_filters without bottlenecks.
    """
    changes_shape = strides > 1 or x.shape[-1] != (4 * n_filters if bottleneck else n_filters)
    if changes_shape:
        x = projection_block(x, n_filters, strides, ratio, bottleneck)
    for _ in range(n_blocks - 1 if changes_shape else n_blocks):
        x = identity_block(x, n_filters, ratio, bottleneck)
    return layers.Identity()(x)  # marks the end of the group


def identity_block(x, n_filters, ratio=16, bottleneck=True):
    """Convolutions and squeeze-excitation beside an identity shortcut: (N, H, W, C) throughout. Figure 3.

    Without a ratio there is no squeeze-excitation: ResNet's figure 5.
    """
    shortcut = x
    x = bottleneck_convolutions(x, n_filters) if bottleneck else basic_convolutions(x, n_filters)
    if ratio:
        x = se_block(x, ratio)
    x = layers.Add()([shortcut, x])
    return layers.ReLU()(x)


def projection_block(x, n_filters, strides=2, ratio=16, bottleneck=True):
    """Convolutions and squeeze-excitation beside a projection shortcut, which has no squeeze-excitation.

    Args:
        x: feature maps (N, H, W, C).
        n_filters: filters of the convolutions; the last of a bottleneck has four times as many.
        strides: height and width are divided by it, in the first convolution and in the shortcut.
        ratio: for C feature maps the first dense layer of the squeeze-excitation has C / ratio units; None leaves
            the squeeze-excitation out.
        bottleneck: whether the convolutions are 1x1, 3x3, 1x1, or two of 3x3.

    Returns:
        Feature maps (N, H / strides, W / strides, 4 n_filters), or n_filters without a bottleneck.
    """
    shortcut = conv_bn(x, 4 * n_filters if bottleneck else n_filters, 1, strides)  # projection to the new shape
    x = bottleneck_convolutions(x, n_filters, strides) if bottleneck else basic_convolutions(x, n_filters, strides)
    if ratio:
        x = se_block(x, ratio)
    x = layers.Add()([shortcut, x])
    return layers.ReLU()(x)


def bottleneck_convolutions(x, n_filters, strides=1):
    """1x1, 3x3, 1x1: (N, H, W, C) -> (N, H / strides, W / strides, 4 n_filters). ResNet's figure 5, right."""
    x = conv_bn_relu(x, n_filters, 1, strides)  # dimensionality reduction: (N, H / strides, W / strides, n_filters)
    x = conv_bn_relu(x, n_filters, 3)  # bottleneck convolution
    return conv_bn(x, 4 * n_filters, 1)  # dimensionality restoration


def basic_convolutions(x, n_filters, strides=1):
    """3x3, 3x3: (N, H, W, C) -> (N, H / strides, W / strides, n_filters). ResNet's figure 5, left."""
    x = conv_bn_relu(x, n_filters, 3, strides)  # (N, H / strides, W / strides, n_filters)
    return conv_bn(x, n_filters, 3)


def se_block(x, ratio=16):
    """Scale each feature map by a weight computed from all of them: (N, H, W, C) throughout. Figure 1, section 3.

    Squeeze: each feature map is averaged. Excitation: two dense layers turn the C means into C weights between 0 and 1.
    Scale: each feature map is multiplied by its weight.

    Args:
        x: feature maps (N, H, W, C).
        ratio: the first dense layer has C / ratio units, rounded down.
    """
    n_filters = x.shape[-1]
    weights = layers.GlobalAveragePooling2D(keepdims=True)(x)  # squeeze: (N, 1, 1, C)
    weights = layers.Dense(n_filters // ratio, activation="relu", kernel_initializer="he_normal")(weights)  # excitation
    weights = layers.Dense(n_filters, activation="sigmoid")(weights)  # Glorot's initial weights: He's are for ReLU
    return layers.Multiply()([x, weights])  # scale


# Copied from resnet/resnet_v1.py
def conv_bn_relu(x, n_filters, kernel_size, strides=1):
    """Convolution, batch normalization and ReLU: (N, H, W, C) -> (N, H / strides, W / strides, n_filters)."""
    x = conv_bn(x, n_filters, kernel_size, strides)
    return layers.ReLU()(x)


# Copied from resnet/resnet_v1.py
def conv_bn(x, n_filters, kernel_size, strides=1):
    """Convolution and batch normalization: (N, H, W, C) -> (N, H / strides, W / strides, n_filters)."""
    padding = "same"
    if strides > 1 and kernel_size > 1:  # pad all sides alike; "same" pads 2 and 3 where 7x7 needs 3 and 3
        x = layers.ZeroPadding2D(kernel_size // 2)(x)
        padding = "valid"
    x = layers.Conv2D(n_filters, kernel_size, strides, padding, use_bias=False, kernel_initializer="he_normal")(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


# Copied from resnet/resnet_v1.py
def classifier(x, n_classes):
    """The mean of each feature map, then a dense layer: (N, H, W, C) -> class probabilities (N, n_classes)."""
    x = layers.GlobalAveragePooling2D()(x)  # (N, C)
    # In float32 under a policy of half precision too, which would round probabilities and their loss.
    return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal", dtype="float32")(x)


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

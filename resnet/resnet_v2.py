"""ResNet-50 to ResNet-200 and, for CIFAR-10, ResNet-164 and ResNet-1001, with pre-activation blocks.

Paper: He et al. 2016, "Identity Mappings in Deep Residual Networks", arXiv:1603.05027, figure 4 (e) and the appendix.

    resnet50_v2
    stem          (224, 224,    3) -> ( 56,  56,   64)   7x7 convolution and 3x3 max pooling, both strided
    group 1       ( 56,  56,   64) -> ( 56,  56,  256)   3 blocks
    group 2       ( 56,  56,  256) -> ( 28,  28,  512)   4 blocks, the first strided
    group 3       ( 28,  28,  512) -> ( 14,  14, 1024)   6 blocks, the first strided
    group 4       ( 14,  14, 1024) -> (  7,   7, 2048)   3 blocks, the first strided
    classifier    (  7,   7, 2048) -> (1000,)

    resnet164_v2_cifar10
    stem          ( 32,  32,    3) -> ( 32,  32,   16)   3x3 convolution
    group 1       ( 32,  32,   16) -> ( 32,  32,   64)   18 blocks
    group 2       ( 32,  32,   64) -> ( 16,  16,  128)   18 blocks, the first strided
    group 3       ( 16,  16,  128) -> (  8,   8,  256)   18 blocks, the first strided
    classifier    (  8,   8,  256) -> (10,)

Trainable parameters: resnet50_v2 25,549,352, resnet101_v2 44,541,480, resnet152_v2 60,185,128,
resnet200_v2 64,666,152, resnet164_v2_cifar10 1,703,258 (the paper says 1.7M), resnet1001_v2_cifar10 10,327,706
(the paper says 10.2M).
Differs from the paper: the initial weights are He-normal by fan-in; the released code (KaimingHe/resnet-1k-layers, a
re-implementation in Torch) goes by fan-out. The paper does not say which convolution strides: on CIFAR-10 it is the
first 1x1, as in that code, on ImageNet the 3x3, as in fb.resnet.torch, where its ImageNet networks come from.
keras.applications' ResNet50V2 is another network: it strides in the last block of a group, does not normalize its stem
and has biases in some convolutions. timm's resnetv2_50 has the parameters of this one, but normalizes after the stem's
pooling.
"""

import inspect
from numbers import Integral

from keras import Input, Model, config, layers

CIFAR10_STEM = {"n_filters": 16, "kernel_size": 3, "strides": 1, "pooling": False}

METAPARAMETERS = {
    "resnet50_v2": {"strided_convolution": "3x3", "groups": (
        {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 4},
        {"n_filters": 256, "n_blocks": 6}, {"n_filters": 512, "n_blocks": 3},
    )},
    "resnet101_v2": {"strided_convolution": "3x3", "groups": (
        {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 4},
        {"n_filters": 256, "n_blocks": 23}, {"n_filters": 512, "n_blocks": 3},
    )},
    "resnet152_v2": {"strided_convolution": "3x3", "groups": (
        {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 8},
        {"n_filters": 256, "n_blocks": 36}, {"n_filters": 512, "n_blocks": 3},
    )},
    "resnet200_v2": {"strided_convolution": "3x3", "groups": (
        {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 24},
        {"n_filters": 256, "n_blocks": 36}, {"n_filters": 512, "n_blocks": 3},
    )},
    "resnet164_v2_cifar10": {"stem": CIFAR10_STEM, "groups": (
        {"n_filters": 16, "n_blocks": 18}, {"n_filters": 32, "n_blocks": 18}, {"n_filters": 64, "n_blocks": 18},
    )},
    "resnet1001_v2_cifar10": {"stem": CIFAR10_STEM, "groups": (
        {"n_filters": 16, "n_blocks": 111}, {"n_filters": 32, "n_blocks": 111}, {"n_filters": 64, "n_blocks": 111},
    )},
}


def build(metaparameters, input_shape=(224, 224, 3), n_classes=1000):
    """Return a ResNet as a `keras.Model`: images (N, H, W, C) to class probabilities (N, n_classes).

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of
            {"n_filters", "n_blocks"}, and optionally `strided_convolution`, "1x1" or "3x3", and `stem`, a dictionary of
            the arguments of `stem`.
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
            inspect.signature(group).bind(None, **in_group, strides=1, strided_convolution=None, activated=False)
        sizes = [n for in_group in groups for n in in_group.values()]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    of_stem.apply_defaults()
    of_learner.apply_defaults()
    _, n_filters, kernel_size, strides, pooling = of_stem.args
    if not all(isinstance(n, Integral) and n > 0 for n in [n_filters, kernel_size, strides, *sizes]):
        raise ValueError(f"filters, blocks, kernel_size and strides must be whole and at least 1, got {metaparameters}")
    if strides > 1 and kernel_size % 2 == 0:
        raise ValueError(f"kernel_size of the stem must be odd where strides are above 1, got {kernel_size}")
    if of_learner.arguments["strided_convolution"] not in ("1x1", "3x3"):
        raise ValueError(f'strided_convolution must be "1x1" or "3x3", got {metaparameters}')
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
    x = learner(x, **in_learner)
    outputs = classifier(x, int(n_classes))
    stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "learner", "classifier"]
    return named_by_stage(inputs, outputs, stages)


def stem(inputs, n_filters=64, kernel_size=7, strides=2, pooling=True):
    """A convolution, BN-ReLU and, for large images, a max pooling: (N, H, W, C) -> (N, H / 4, W / 4, n_filters).

    The BN-ReLU is the pre-activation of the first block too (the paper's appendix). The CIFAR-10 stem is a 3x3
    convolution without strides or pooling: (N, H, W, C) -> (N, H, W, n_filters).
    """
    x = convolution(inputs, n_filters, kernel_size, strides)
    x = bn_relu(x)
    if pooling:
        x = layers.ZeroPadding2D(1)(x)  # after ReLU no value is below zero, so the padding never is the maximum
        x = layers.MaxPooling2D(3, strides=2)(x)
    return layers.Identity()(x)  # marks the end of the stem


def learner(x, groups, strided_convolution="1x1"):
    """The groups in a row, of which all but the first halve height and width; BN-ReLU after the last addition.

    Args:
        x: the stem's feature maps (N, H, W, C), activated.
        groups: a tuple of {"n_filters", "n_blocks"}.
        strided_convolution: "1x1" or "3x3", the convolution that strides.

    Returns:
        Feature maps of n groups (N, H / 2^(n - 1), W / 2^(n - 1), 4 n_filters of the last group), ready for any head.
    """
    first, *rest = groups
    x = group(x, **first, strides=1, strided_convolution=strided_convolution, activated=True)
    for metaparameters in rest:
        x = group(x, **metaparameters, strides=2, strided_convolution=strided_convolution)
    x = bn_relu(x)
    return layers.Identity()(x)  # marks the end of the learner


def group(x, n_filters, n_blocks, strides=2, strided_convolution="1x1", activated=False):
    """A projection block, then identity blocks: (N, H, W, C) -> (N, H / strides, W / strides, 4 n_filters)."""
    x = projection_block(x, n_filters, strides, strided_convolution, activated)
    for _ in range(n_blocks - 1):
        x = identity_block(x, n_filters)
    return layers.Identity()(x)  # marks the end of the group


def identity_block(x, n_filters):
    """The bottleneck, each convolution after its BN-ReLU, beside an identity shortcut: (N, H, W, 4 n_filters)."""
    shortcut = x
    x = convolution(bn_relu(x), n_filters, 1)  # dimensionality reduction: (N, H, W, n_filters)
    x = convolution(bn_relu(x), n_filters, 3)  # bottleneck convolution
    x = convolution(bn_relu(x), 4 * n_filters, 1)  # dimensionality restoration: (N, H, W, 4 n_filters)
    return layers.Add()([shortcut, x])


def projection_block(x, n_filters, strides=2, strided_convolution="1x1", activated=False):
    """The bottleneck beside a projection shortcut, both after one pre-activation (the paper's appendix).

    Args:
        x: feature maps (N, H, W, C).
        n_filters: filters of the first 1x1 and the 3x3 convolution; the last 1x1 has four times as many.
        strides: height and width are divided by it.
        strided_convolution: "1x1" or "3x3", the convolution that strides.
        activated: whether BN-ReLU comes before the block already, as in the stem.

    Returns:
        Feature maps (N, H / strides, W / strides, 4 n_filters).
    """
    strides_1x1, strides_3x3 = {"1x1": (strides, 1), "3x3": (1, strides)}[strided_convolution]
    if not activated:
        x = bn_relu(x)  # shared by the shortcut and the bottleneck
    shortcut = convolution(x, 4 * n_filters, 1, strides)  # projection to the new shape, without a normalization
    x = convolution(x, n_filters, 1, strides_1x1)  # dimensionality reduction
    x = convolution(bn_relu(x), n_filters, 3, strides_3x3)  # bottleneck convolution
    x = convolution(bn_relu(x), 4 * n_filters, 1)  # dimensionality restoration
    return layers.Add()([shortcut, x])


def bn_relu(x):
    """Batch normalization and ReLU, the pre-activation: (N, H, W, C), unchanged in shape."""
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)


def convolution(x, n_filters, kernel_size, strides=1):
    """A convolution without bias: (N, H, W, C) -> (N, H / strides, W / strides, n_filters)."""
    padding = "same"
    if strides > 1 and kernel_size > 1:  # pad all sides alike; "same" pads 2 and 3 where 7x7 needs 3 and 3
        x = layers.ZeroPadding2D(kernel_size // 2)(x)
        padding = "valid"
    return layers.Conv2D(n_filters, kernel_size, strides, padding, use_bias=False, kernel_initializer="he_normal")(x)


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

"""ResNet-18 and 34, ResNet-20 to ResNet-1202 for CIFAR-10, and plain networks: two 3x3 convolutions a block.

Paper: He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1 and figure 5 (left);
section 4.2 and table 6 for CIFAR-10, where the depth is 6n + 2 with n blocks a group.

    resnet18
    stem          (224, 224,   3) -> ( 56,  56,  64)   7x7 convolution and 3x3 max pooling, both strided
    group 1       ( 56,  56,  64) -> ( 56,  56,  64)   2 blocks
    group 2       ( 56,  56,  64) -> ( 28,  28, 128)   2 blocks, the first strided
    group 3       ( 28,  28, 128) -> ( 14,  14, 256)   2 blocks, the first strided
    group 4       ( 14,  14, 256) -> (  7,   7, 512)   2 blocks, the first strided
    classifier    (  7,   7, 512) -> (1000,)

    resnet20_cifar10
    stem          ( 32,  32,   3) -> ( 32,  32,  16)   3x3 convolution
    group 1       ( 32,  32,  16) -> ( 32,  32,  16)   3 blocks
    group 2       ( 32,  32,  16) -> ( 16,  16,  32)   3 blocks, the first strided
    group 3       ( 16,  16,  32) -> (  8,   8,  64)   3 blocks, the first strided
    classifier    (  8,   8,  64) -> (10,)

    resnet14_wide_cifar10
    stem          ( 32,  32,   3) -> ( 16,  16,  48)   3x3 convolution and 3x3 max pooling, strided
    group 1       ( 16,  16,  48) -> ( 16,  16,  48)   2 blocks
    group 2       ( 16,  16,  48) -> (  8,   8,  96)   2 blocks, the first strided
    group 3       (  8,   8,  96) -> (  4,   4, 192)   2 blocks, the first strided
    classifier    (  4,   4, 192) -> (10,)

Trainable parameters: resnet18 11,689,512, resnet34 21,797,672; for CIFAR-10, with projection and with zero padding:
resnet20 272,474 and 269,722, resnet32 466,906 and 464,154, resnet44 661,338 and 658,586,
resnet56 855,770 and 853,018, resnet110 1,730,714 and 1,727,962, resnet1202 19,424,026 and 19,421,274 (the paper,
table 6: 0.27M, 0.46M, 0.66M, 0.85M, 1.7M, 19.4M); resnet14_wide 1,564,090 and 1,540,474,
resnet8_wide 308,650 and 298,026. Without shortcuts:
plain18 11,515,688, plain34 21,623,848, plain20_cifar10 269,722, plain56_cifar10 853,018.
Differs from the paper: the shortcut that changes shape is a 1x1 convolution (option B) unless `shortcut_type` is
"zero_padding" (option A, the paper's choice on CIFAR-10 and in table 2; the new channels come after the old, as in
fb.resnet.torch). resnet14_wide_cifar10 (n = 2, three times the filters) and resnet8_wide_cifar10 (n = 1, twice the
filters) are not in the paper; their stem halves the image.
"""

import inspect
from numbers import Integral

from keras import Input, Model, config, layers, ops

CIFAR10_STEM = {"n_filters": 16, "kernel_size": 3, "strides": 1, "pooling": False}
WIDE_STEM = {"n_filters": 48, "kernel_size": 3, "strides": 1, "pooling": True}

METAPARAMETERS = {
    "resnet18": {"groups": (
        {"n_filters": 64, "n_blocks": 2}, {"n_filters": 128, "n_blocks": 2},
        {"n_filters": 256, "n_blocks": 2}, {"n_filters": 512, "n_blocks": 2},
    )},
    "resnet34": {"groups": (
        {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 4},
        {"n_filters": 256, "n_blocks": 6}, {"n_filters": 512, "n_blocks": 3},
    )},
    "resnet20_cifar10": {"stem": CIFAR10_STEM, "groups": (
        {"n_filters": 16, "n_blocks": 3}, {"n_filters": 32, "n_blocks": 3}, {"n_filters": 64, "n_blocks": 3},
    )},
    "resnet32_cifar10": {"stem": CIFAR10_STEM, "groups": (
        {"n_filters": 16, "n_blocks": 5}, {"n_filters": 32, "n_blocks": 5}, {"n_filters": 64, "n_blocks": 5},
    )},
    "resnet44_cifar10": {"stem": CIFAR10_STEM, "groups": (
        {"n_filters": 16, "n_blocks": 7}, {"n_filters": 32, "n_blocks": 7}, {"n_filters": 64, "n_blocks": 7},
    )},
    "resnet56_cifar10": {"stem": CIFAR10_STEM, "groups": (
        {"n_filters": 16, "n_blocks": 9}, {"n_filters": 32, "n_blocks": 9}, {"n_filters": 64, "n_blocks": 9},
    )},
    "resnet110_cifar10": {"stem": CIFAR10_STEM, "groups": (
        {"n_filters": 16, "n_blocks": 18}, {"n_filters": 32, "n_blocks": 18}, {"n_filters": 64, "n_blocks": 18},
    )},
    "resnet1202_cifar10": {"stem": CIFAR10_STEM, "groups": (
        {"n_filters": 16, "n_blocks": 200}, {"n_filters": 32, "n_blocks": 200}, {"n_filters": 64, "n_blocks": 200},
    )},
    "resnet14_wide_cifar10": {"stem": WIDE_STEM, "groups": (
        {"n_filters": 48, "n_blocks": 2}, {"n_filters": 96, "n_blocks": 2}, {"n_filters": 192, "n_blocks": 2},
    )},
    "resnet8_wide_cifar10": {"stem": WIDE_STEM | {"n_filters": 32}, "groups": (
        {"n_filters": 32, "n_blocks": 1}, {"n_filters": 64, "n_blocks": 1}, {"n_filters": 128, "n_blocks": 1},
    )},
    # The paper's plain networks, which it compares with: the same layers without shortcuts (figures 4 and 6).
    "plain18": {"shortcut_type": "none", "groups": (
        {"n_filters": 64, "n_blocks": 2}, {"n_filters": 128, "n_blocks": 2},
        {"n_filters": 256, "n_blocks": 2}, {"n_filters": 512, "n_blocks": 2},
    )},
    "plain34": {"shortcut_type": "none", "groups": (
        {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 4},
        {"n_filters": 256, "n_blocks": 6}, {"n_filters": 512, "n_blocks": 3},
    )},
    "plain20_cifar10": {"stem": CIFAR10_STEM, "shortcut_type": "none", "groups": (
        {"n_filters": 16, "n_blocks": 3}, {"n_filters": 32, "n_blocks": 3}, {"n_filters": 64, "n_blocks": 3},
    )},
    "plain56_cifar10": {"stem": CIFAR10_STEM, "shortcut_type": "none", "groups": (
        {"n_filters": 16, "n_blocks": 9}, {"n_filters": 32, "n_blocks": 9}, {"n_filters": 64, "n_blocks": 9},
    )},
}


def build(metaparameters, input_shape=(224, 224, 3), n_classes=1000):
    """Return a ResNet as a `keras.Model`: images (N, H, W, C) to class probabilities (N, n_classes).

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of
            {"n_filters", "n_blocks"}, and optionally `shortcut_type`, "projection", "zero_padding" or "none", and
            `stem`, a dictionary of the arguments of `stem`.
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
            inspect.signature(group).bind(None, **in_group, strides=1, shortcut_type=None)
        sizes = [n for in_group in groups for n in in_group.values()]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    of_stem.apply_defaults()
    of_learner.apply_defaults()
    _, n_filters, kernel_size, strides, pooling = of_stem.args
    _, _, shortcut_type = of_learner.args
    if not all(isinstance(n, Integral) and n > 0 for n in [n_filters, kernel_size, strides, *sizes]):
        raise ValueError(f"filters, blocks, kernel_size and strides must be whole and at least 1, got {metaparameters}")
    if strides > 1 and kernel_size % 2 == 0:
        raise ValueError(f"kernel_size of the stem must be odd where strides are above 1, got {kernel_size}")
    widths = [n_filters, *(in_group["n_filters"] for in_group in groups)]
    if shortcut_type not in ("projection", "zero_padding", "none"):
        raise ValueError(f'shortcut_type must be "projection", "zero_padding" or "none", got {shortcut_type!r}')
    if shortcut_type == "zero_padding" and widths != sorted(widths):
        raise ValueError(f"zero_padding shortcuts need at least as many filters as the group before, got {widths}")
    if not isinstance(pooling, bool):
        raise ValueError(f"pooling of the stem must be True or False, got {pooling!r}")
    in_learner["groups"] = [{name: int(n) for name, n in in_group.items()} for in_group in groups]  # numpy's too
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
    stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "classifier"]
    try:
        return named_by_stage(inputs, outputs, stages)
    except RecursionError:
        raise ValueError("too deep for Python's recursion limit: call sys.setrecursionlimit(20_000) first") from None


def stem(inputs, n_filters=64, kernel_size=7, strides=2, pooling=True):
    """A convolution and, with pooling, a max pooling: by default (N, H, W, C) -> (N, H / 4, W / 4, n_filters).

    The paper's CIFAR-10 stem is a 3x3 convolution without strides or pooling: (N, H, W, C) -> (N, H, W, n_filters).
    """
    x = conv_bn_relu(inputs, n_filters, kernel_size, strides)
    if pooling:
        x = layers.ZeroPadding2D(1)(x)  # after ReLU no value is below zero, so the padding never is the maximum
        x = layers.MaxPooling2D(3, strides=2)(x)
    return layers.Identity()(x)  # marks the end of the stem


def learner(x, groups, shortcut_type="projection"):
    """The groups in a row; every group but the first halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_filters", "n_blocks"}.
        shortcut_type: "projection" or "zero_padding", the shortcut of a block that changes the shape; "none" leaves out
            all shortcuts, which makes a plain network.

    Returns:
        Feature maps of n groups (N, H / 2^(n - 1), W / 2^(n - 1), n_filters of the last group), ready for any head.
    """
    first, *rest = groups
    x = group(x, **first, strides=1, shortcut_type=shortcut_type)
    for metaparameters in rest:
        x = group(x, **metaparameters, strides=2, shortcut_type=shortcut_type)
    return x


def group(x, n_filters, n_blocks, strides=2, shortcut_type="projection"):
    """Blocks in a row, the first a projection if the shape changes: to (N, H / strides, W / strides, n_filters)."""
    for i in range(n_blocks):
        strides_of_block = strides if i == 0 else 1
        if shortcut_type == "none":
            x = plain_block(x, n_filters, strides_of_block)
        elif strides_of_block > 1 or x.shape[-1] != n_filters:
            x = projection_block(x, n_filters, strides_of_block, shortcut_type)
        else:
            x = identity_block(x, n_filters)
    return layers.Identity()(x)  # marks the end of the group


def identity_block(x, n_filters):
    """Two 3x3 convolutions beside an identity shortcut: (N, H, W, n_filters) throughout. Figure 5, left."""
    shortcut = x
    x = conv_bn_relu(x, n_filters, 3)
    x = conv_bn(x, n_filters, 3)  # the residual, f(x)
    x = layers.Add()([shortcut, x])
    return layers.ReLU()(x)


def projection_block(x, n_filters, strides=2, shortcut_type="projection"):
    """Two 3x3 convolutions beside a shortcut that is brought to the new shape. Section 3.3, options A and B.

    Args:
        x: feature maps (N, H, W, C).
        n_filters: filters of both convolutions.
        strides: height and width are divided by it, in the first convolution and in the shortcut.
        shortcut_type: "projection", a 1x1 convolution (option B), or "zero_padding" (option A).

    Returns:
        Feature maps (N, H / strides, W / strides, n_filters).
    """
    bring_to_shape = {"projection": projection, "zero_padding": zero_padding}[shortcut_type]
    shortcut = bring_to_shape(x, n_filters, strides)
    x = conv_bn_relu(x, n_filters, 3, strides)  # (N, H / strides, W / strides, n_filters)
    x = conv_bn(x, n_filters, 3)  # the residual, f(x)
    x = layers.Add()([shortcut, x])
    return layers.ReLU()(x)


def projection(x, n_filters, strides):
    """A 1x1 convolution: (N, H, W, C) -> (N, H / strides, W / strides, n_filters). Option B."""
    return conv_bn(x, n_filters, 1, strides)


def zero_padding(x, n_filters, strides):
    """Every strides-th pixel, with channels of zeros after its own: to (N, H / strides, W / strides, n_filters).

    Option A: no parameters. It needs n_filters >= C.
    """
    x = x[:, ::strides, ::strides]
    return ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, n_filters - x.shape[-1])))


def plain_block(x, n_filters, strides=1):
    """Two 3x3 convolutions without a shortcut: (N, H, W, C) -> (N, H / strides, W / strides, n_filters). Figure 3."""
    x = conv_bn_relu(x, n_filters, 3, strides)
    return conv_bn_relu(x, n_filters, 3)


def cifar10_groups(depth):
    """Return the `groups` of the CIFAR-10 network of a given depth: n blocks of 16, 32 and 64 filters. Section 4.2.

    Raises:
        ValueError: depth is not 6n + 2.
    """
    if not isinstance(depth, Integral) or depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth must be 6n + 2, such as 8, 14 or 20, got {depth!r}")
    return tuple({"n_filters": n_filters, "n_blocks": depth // 6} for n_filters in (16, 32, 64))


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

"""ResNet-18 and 34, and ResNet-20 to ResNet-110 for CIFAR-10: the networks of two 3x3 convolutions a block.

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
    stem          ( 32,  32,   3) -> ( 16,  16,  32)   3x3 convolution and 3x3 max pooling, strided
    group 1       ( 16,  16,  32) -> ( 16,  16,  32)   2 blocks
    group 2       ( 16,  16,  32) -> (  8,   8,  64)   2 blocks, the first strided
    group 3       (  8,   8,  64) -> (  4,   4, 128)   2 blocks, the first strided
    classifier    (  4,   4, 128) -> (10,)

Trainable parameters: resnet18 11,689,512, resnet34 21,797,672; for CIFAR-10, with projection and with zero padding:
resnet20 272,474 and 269,722, resnet32 466,906 and 464,154, resnet44 661,338 and 658,586,
resnet56 855,770 and 853,018, resnet110 1,730,714 and 1,727,962 (the paper, table 6: 0.27M, 0.46M, 0.66M, 0.85M, 1.7M);
resnet14_wide 696,618 and 685,994.
Differs from the paper: on CIFAR-10 the shortcut that changes shape is a 1x1 convolution (option B) unless `shortcut` is
"zero_padding" (option A, the paper's choice there; the new channels come after the old, as in fb.resnet.torch).
resnet14_wide_cifar10 is not in the paper: n = 2, twice the filters at half the resolution, to which its stem pools.
"""

from keras import Input, Model, layers, ops

CIFAR10_STEM = {"n_filters": 16, "kernel_size": 3, "strides": 1, "pooling": False}
WIDE_STEM = {"n_filters": 32, "kernel_size": 3, "strides": 1, "pooling": True}

METAPARAMETERS = {
    "resnet18": {"groups": (
        {"n_filters": 64, "n_blocks": 2}, {"n_filters": 128, "n_blocks": 2},
        {"n_filters": 256, "n_blocks": 2}, {"n_filters": 512, "n_blocks": 2},
    )},
    "resnet34": {"groups": (
        {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 4},
        {"n_filters": 256, "n_blocks": 6}, {"n_filters": 512, "n_blocks": 3},
    )},
    "resnet20_cifar10": {"stem": CIFAR10_STEM, "shortcut": "projection", "groups": (
        {"n_filters": 16, "n_blocks": 3}, {"n_filters": 32, "n_blocks": 3}, {"n_filters": 64, "n_blocks": 3},
    )},
    "resnet32_cifar10": {"stem": CIFAR10_STEM, "shortcut": "projection", "groups": (
        {"n_filters": 16, "n_blocks": 5}, {"n_filters": 32, "n_blocks": 5}, {"n_filters": 64, "n_blocks": 5},
    )},
    "resnet44_cifar10": {"stem": CIFAR10_STEM, "shortcut": "projection", "groups": (
        {"n_filters": 16, "n_blocks": 7}, {"n_filters": 32, "n_blocks": 7}, {"n_filters": 64, "n_blocks": 7},
    )},
    "resnet56_cifar10": {"stem": CIFAR10_STEM, "shortcut": "projection", "groups": (
        {"n_filters": 16, "n_blocks": 9}, {"n_filters": 32, "n_blocks": 9}, {"n_filters": 64, "n_blocks": 9},
    )},
    "resnet110_cifar10": {"stem": CIFAR10_STEM, "shortcut": "projection", "groups": (
        {"n_filters": 16, "n_blocks": 18}, {"n_filters": 32, "n_blocks": 18}, {"n_filters": 64, "n_blocks": 18},
    )},
    "resnet14_wide_cifar10": {"stem": WIDE_STEM, "shortcut": "projection", "groups": (
        {"n_filters": 32, "n_blocks": 2}, {"n_filters": 64, "n_blocks": 2}, {"n_filters": 128, "n_blocks": 2},
    )},
}


def build(metaparameters, input_shape=(224, 224, 3), n_classes=1000):
    """Connect stem, learner and classifier: images (N, H, W, C) in, class probabilities (N, n_classes) out.

    Args:
        metaparameters: a value of METAPARAMETERS or a dictionary of one's own: `groups`, a tuple of
            {"n_filters", "n_blocks"}, and perhaps `stem`, a dictionary of the arguments of `stem`, and `shortcut`,
            "projection" or "zero_padding".
        input_shape: (H, W, C); the ImageNet stem divides H and W by 4, every group but the first by 2.
        n_classes: how many classes, at least 2.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: metaparameters, input_shape or n_classes cannot make a network.
    """
    check(metaparameters, ("groups",), ("stem", "shortcut"))
    check(metaparameters.get("stem", {}), (), ("n_filters", "kernel_size", "strides", "pooling"))
    for group_metaparameters in metaparameters["groups"]:
        check(group_metaparameters, ("n_filters", "n_blocks"))
    shortcut = metaparameters.get("shortcut", "projection")
    if shortcut not in ("projection", "zero_padding"):
        raise ValueError(f'shortcut must be "projection" or "zero_padding", got {shortcut!r}')
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not input_shape[2]:
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape}")

    inputs = Input(input_shape)
    x = stem(inputs, **metaparameters.get("stem", {}))
    x = learner(x, metaparameters["groups"], shortcut)
    outputs = classifier(x, n_classes)
    return Model(inputs, outputs)


def stem(inputs, n_filters=64, kernel_size=7, strides=2, pooling=True):
    """A convolution and, for large images, a max pooling: (N, H, W, C) -> (N, H / 4, W / 4, n_filters).

    The paper's CIFAR-10 stem has a 3x3 convolution, strides 1 and no pooling, so H and W stay.
    """
    x = layers.ReLU()(conv_bn(inputs, n_filters, kernel_size, strides))
    if pooling:
        x = layers.ZeroPadding2D(1)(x)  # after ReLU zero is the smallest value, so it never wins the maximum
        x = layers.MaxPooling2D(3, strides=2)(x)
    return x


def learner(x, groups, shortcut="projection"):
    """The groups in a row; every group but the first halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_filters", "n_blocks"}.
        shortcut: "projection" or "zero_padding", the shortcut of a block that changes the shape.

    Returns:
        Feature maps (N, H / 2^(groups - 1), W / 2^(groups - 1), n_filters of the last group), ready for any head.
    """
    first, *rest = groups
    x = group(x, **first, strides=1, shortcut=shortcut)
    for metaparameters in rest:
        x = group(x, **metaparameters, strides=2, shortcut=shortcut)
    return x


def group(x, n_filters, n_blocks, strides=2, shortcut="projection"):
    """A projection block if the shape changes, then identity blocks: to (N, H / strides, W / strides, n_filters)."""
    if n_blocks < 1:
        raise ValueError(f"n_blocks must be at least 1, got {n_blocks}")
    if strides > 1 or x.shape[-1] != n_filters:
        x = projection_block(x, n_filters, strides, shortcut)
        n_blocks -= 1
    for _ in range(n_blocks):
        x = identity_block(x, n_filters)
    return x


def identity_block(x, n_filters):
    """Two 3x3 convolutions beside an identity shortcut: (N, H, W, n_filters) throughout. Figure 5, left."""
    residual = x
    x = layers.ReLU()(conv_bn(x, n_filters, 3))
    x = conv_bn(x, n_filters, 3)
    x = layers.Add()([residual, x])
    return layers.ReLU()(x)


def projection_block(x, n_filters, strides=2, shortcut="projection"):
    """Two 3x3 convolutions beside a shortcut that is brought to the new shape (section 3.3, options A and B).

    Args:
        x: feature maps (N, H, W, C).
        n_filters: filters of both convolutions.
        strides: of the first convolution and of the shortcut: by how much height and width are divided.
        shortcut: "projection", a 1x1 convolution (option B), or "zero_padding", every strides-th pixel, with channels
            of zeros behind its own (option A, no parameters).

    Returns:
        Feature maps (N, H / strides, W / strides, n_filters).

    Raises:
        ValueError: shortcut is another, the feature maps are too small for the strides, or there are fewer filters
            than channels to pad.
    """
    if shortcut == "projection":
        residual = conv_bn(x, n_filters, 1, strides)
    elif shortcut == "zero_padding" and n_filters >= x.shape[-1]:
        residual = x[:, ::strides, ::strides]
        residual = ops.pad(residual, ((0, 0), (0, 0), (0, 0), (0, n_filters - x.shape[-1])))
    else:
        raise ValueError(
            f'shortcut must be "projection", or "zero_padding" from fewer channels to more, '
            f"got {shortcut!r} from {x.shape[-1]} to {n_filters}"
        )
    x = layers.ReLU()(conv_bn(x, n_filters, 3, strides))  # (N, H / strides, W / strides, n_filters)
    x = conv_bn(x, n_filters, 3)
    x = layers.Add()([residual, x])
    return layers.ReLU()(x)


# Copied from resnet/resnet_v1.py
def conv_bn(x, n_filters, kernel_size, strides=1):
    """Convolution and batch normalization: (N, H, W, C) -> (N, H / strides, W / strides, n_filters)."""
    if any(size is not None and size < strides for size in x.shape[1:3]):
        raise ValueError(f"the input is too small: feature maps of {x.shape[1:3]} cannot be strided by {strides}")
    padding = "same"
    if strides > 1 and kernel_size > 1:  # "same" would pad the bottom and the right only
        x = layers.ZeroPadding2D(kernel_size // 2)(x)
        padding = "valid"
    x = layers.Conv2D(n_filters, kernel_size, strides, padding, use_bias=False, kernel_initializer="he_normal")(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


# Copied from resnet/resnet_v1.py
def classifier(x, n_classes):
    """The mean of each feature map, then a dense layer: (N, H, W, C) -> class probabilities (N, n_classes).

    Raises:
        ValueError: n_classes is not a whole number of at least 2.
    """
    if not isinstance(n_classes, int) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")
    x = layers.GlobalAveragePooling2D()(x)  # (N, C)
    return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal")(x)


def cifar10_groups(depth):
    """Return the `groups` of the CIFAR-10 network of a given depth, n blocks of 16, 32 and 64 filters (section 4.2).

    Raises:
        ValueError: depth is not 6n + 2.
    """
    if not isinstance(depth, int) or depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth must be 6n + 2, such as 8, 14 or 20, got {depth!r}")
    return tuple({"n_filters": n_filters, "n_blocks": depth // 6} for n_filters in (16, 32, 64))


# Copied from vgg/vgg.py
def check(metaparameters, required, optional=()):
    """Raise ValueError unless metaparameters hold every required name, with a value that works, and no unknown name."""
    if not isinstance(metaparameters, dict) or not set(required) <= set(metaparameters) <= {*required, *optional}:
        names = " and ".join(required) + (" and perhaps " * bool(required and optional)) + ", ".join(optional)
        raise ValueError(f"metaparameters must be a dictionary of {names}, got {metaparameters!r}")
    for name, value in metaparameters.items():
        if name == "groups":
            if not isinstance(value, (tuple, list)) or not value:
                raise ValueError(f"groups must be a tuple of at least one group, got {value!r}")
        elif name in required or name.startswith("n_filters") or name in ("kernel_size", "strides"):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")

"""SE-ResNet-18 to 152, and SE-ResNet-20, 56 and 110 for CIFAR-10: residual networks that weigh their feature maps.

Paper: Hu et al. 2018, "Squeeze-and-Excitation Networks", arXiv:1709.01507, figures 1 and 3, section 3 and table 1; the
networks inside are those of He et al. 2015, arXiv:1512.03385, table 1, and section 4.2 for CIFAR-10.

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
Differs from the paper: its formula (section 3.2) has no biases, and section 6 finds ResNets better without; the dense
layers here have them, as those of the authors' models (hujie-frank/SENet), which stride, as here, in the first 1x1
convolution, but pool without padding. On CIFAR-10 the blocks are those of 2015, not the pre-activation blocks that the
paper cites (table 4), and the shortcut that changes shape is a 1x1 convolution. The paper has 50, 101, 152 and, on
CIFAR-10, 110; 18, 34, 20 and 56 are the same in ResNet's other sizes, as in osmr/imgclsmob. se_resnet14_wide_cifar10
is ours: two blocks a group, twice the filters of se_resnet20_cifar10 at half the resolution, to which its stem pools.
"""

from keras import Input, Model, layers

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
    """Connect stem, learner and classifier: images (N, H, W, C) in, class probabilities (N, n_classes) out.

    Args:
        metaparameters: a value of METAPARAMETERS or a dictionary of one's own: `groups`, a tuple of
            {"n_filters", "n_blocks"}, and where they differ from the defaults, `bottleneck` (True) and `ratio` (16),
            arguments of `learner`, and `stem`, a dictionary of the arguments of `stem`.
        input_shape: (H, W, C); the ImageNet stem divides H and W by 4, every group but the first by 2.
        n_classes: how many classes, at least 2.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: metaparameters, input_shape or n_classes cannot make a network.
    """
    check(metaparameters, ("groups",), ("bottleneck", "ratio", "stem"))
    check(metaparameters.get("stem", {}), (), ("n_filters", "kernel_size", "strides", "pooling"))
    for group_metaparameters in metaparameters["groups"]:
        check(group_metaparameters, ("n_filters", "n_blocks"))
    if not isinstance(metaparameters.get("bottleneck", True), bool):
        raise ValueError(f"bottleneck must be True or False, got {metaparameters['bottleneck']!r}")
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not input_shape[2]:
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape}")
    in_learner = {name: value for name, value in metaparameters.items() if name != "stem"}

    inputs = Input(input_shape)
    x = stem(inputs, **metaparameters.get("stem", {}))
    x = learner(x, **in_learner)
    outputs = classifier(x, n_classes)
    return Model(inputs, outputs)


# Copied from resnet/resnet_basic.py
def stem(inputs, n_filters=64, kernel_size=7, strides=2, pooling=True):
    """A convolution and, for large images, a max pooling: (N, H, W, C) -> (N, H / 4, W / 4, n_filters).

    The paper's CIFAR-10 stem has a 3x3 convolution, strides 1 and no pooling, so H and W stay.
    """
    x = layers.ReLU()(conv_bn(inputs, n_filters, kernel_size, strides))
    if pooling:
        x = layers.ZeroPadding2D(1)(x)  # after ReLU zero is the smallest value, so it never wins the maximum
        x = layers.MaxPooling2D(3, strides=2)(x)
    return x


def learner(x, groups, ratio=16, bottleneck=True):
    """The groups in a row; every group but the first halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_filters", "n_blocks"}.
        ratio: C feature maps get a narrow dense layer of C / ratio units.
        bottleneck: whether the blocks are 1x1, 3x3, 1x1 convolutions, or two of 3x3.

    Returns:
        Feature maps (N, H / 2^(groups - 1), W / 2^(groups - 1), filters of the last group), ready for any head; those
        filters are 4 n_filters with bottlenecks, n_filters without.
    """
    first, *rest = groups
    x = group(x, **first, strides=1, ratio=ratio, bottleneck=bottleneck)
    for metaparameters in rest:
        x = group(x, **metaparameters, strides=2, ratio=ratio, bottleneck=bottleneck)
    return x


def group(x, n_filters, n_blocks, strides=2, ratio=16, bottleneck=True):
    """A projection block if the shape changes, then identity blocks.

    (N, H, W, C) -> (N, H / strides, W / strides, 4 n_filters), or n_filters without bottlenecks. Unlike that of
    resnet_v1.py, and like that of resnet_basic.py, it begins with an identity block where the shape stays.
    """
    if n_blocks < 1:
        raise ValueError(f"n_blocks must be at least 1, got {n_blocks}")
    if strides > 1 or x.shape[-1] != (4 * n_filters if bottleneck else n_filters):
        x = projection_block(x, n_filters, strides, ratio, bottleneck)
        n_blocks -= 1
    for _ in range(n_blocks):
        x = identity_block(x, n_filters, ratio, bottleneck)
    return x


def identity_block(x, n_filters, ratio=16, bottleneck=True):
    """Convolutions and squeeze-excitation beside an identity shortcut: (N, H, W, C) throughout. Figure 3.

    Unlike those of resnet_v1.py and resnet_basic.py it weighs its feature maps before it adds them.
    """
    residual = x
    x = bottleneck_convolutions(x, n_filters) if bottleneck else basic_convolutions(x, n_filters)
    x = se_block(x, ratio)
    x = layers.Add()([residual, x])
    return layers.ReLU()(x)


def projection_block(x, n_filters, strides=2, ratio=16, bottleneck=True):
    """Convolutions and squeeze-excitation beside a shortcut that a 1x1 convolution brings to the new shape.

    Unlike those of resnet_v1.py and resnet_basic.py it weighs its feature maps before it adds them; the shortcut is
    not weighed.

    Args:
        x: feature maps (N, H, W, C).
        n_filters: filters of the convolutions; the last of a bottleneck has four times as many.
        strides: of the first convolution and of the shortcut: by how much height and width are divided.
        ratio: C feature maps get a narrow dense layer of C / ratio units.
        bottleneck: whether the convolutions are 1x1, 3x3, 1x1, or two of 3x3.

    Returns:
        Feature maps (N, H / strides, W / strides, 4 n_filters), or n_filters without a bottleneck.
    """
    residual = conv_bn(x, 4 * n_filters if bottleneck else n_filters, 1, strides)
    x = bottleneck_convolutions(x, n_filters, strides) if bottleneck else basic_convolutions(x, n_filters, strides)
    x = se_block(x, ratio)
    x = layers.Add()([residual, x])
    return layers.ReLU()(x)


def bottleneck_convolutions(x, n_filters, strides=1):
    """1x1, 3x3, 1x1: (N, H, W, C) -> (N, H / strides, W / strides, 4 n_filters). ResNet's figure 5, right."""
    x = layers.ReLU()(conv_bn(x, n_filters, 1, strides))  # (N, H / strides, W / strides, n_filters)
    x = layers.ReLU()(conv_bn(x, n_filters, 3))
    return conv_bn(x, 4 * n_filters, 1)


def basic_convolutions(x, n_filters, strides=1):
    """3x3, 3x3: (N, H, W, C) -> (N, H / strides, W / strides, n_filters). ResNet's figure 5, left."""
    x = layers.ReLU()(conv_bn(x, n_filters, 3, strides))
    return conv_bn(x, n_filters, 3)


def se_block(x, ratio=16):
    """Weigh every feature map by what all of them hold: (N, H, W, C) throughout. Figure 1, sections 3.1 and 3.2.

    Squeeze: each feature map becomes its mean. Excitation: two dense layers, narrow and wide, make of the C means C
    weights between 0 and 1. Scale: each feature map is multiplied by its weight.

    Args:
        x: feature maps (N, H, W, C).
        ratio: the narrow layer has C / ratio units, rounded down.

    Raises:
        ValueError: ratio is not a whole number of 1 to C.
    """
    n_filters = x.shape[-1]
    if not isinstance(ratio, int) or not 1 <= ratio <= n_filters:
        raise ValueError(f"ratio must be 1 to {n_filters}, the number of feature maps, and whole, got {ratio!r}")
    weights = layers.GlobalAveragePooling2D(keepdims=True)(x)  # (N, 1, 1, C)
    weights = layers.Dense(n_filters // ratio, activation="relu", kernel_initializer="he_normal")(weights)
    weights = layers.Dense(n_filters, activation="sigmoid")(weights)  # Glorot's initial weights: He's are for ReLU
    return layers.Multiply()([x, weights])


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

"""DenseNet-121 to 264 and the DenseNets for CIFAR-10, with bottleneck and compression (BC) and without.

Paper: Huang et al. 2017, "Densely Connected Convolutional Networks", arXiv:1608.06993, section 3 and table 1.

    densenet121
    stem          (224, 224,    3) -> ( 56,  56,   64)   7x7 convolution and 3x3 max pooling, both strided
    group 1       ( 56,  56,   64) -> ( 28,  28,  128)   dense block of 6, transitional block
    group 2       ( 28,  28,  128) -> ( 14,  14,  256)   dense block of 12, transitional block
    group 3       ( 14,  14,  256) -> (  7,   7,  512)   dense block of 24, transitional block
    group 4       (  7,   7,  512) -> (  7,   7, 1024)   dense block of 16
    classifier    (  7,   7, 1024) -> (1000,)

    densenet40_k12_cifar10
    stem          ( 32,  32,    3) -> ( 32,  32,   16)   3x3 convolution
    group 1       ( 32,  32,   16) -> ( 16,  16,  160)   dense block of 12, transitional block
    group 2       ( 16,  16,  160) -> (  8,   8,  304)   dense block of 12, transitional block
    group 3       (  8,   8,  304) -> (  8,   8,  448)   dense block of 12
    classifier    (  8,   8,  448) -> (10,)

    densenet_bc40_k12_cifar10
    stem          ( 32,  32,    3) -> ( 32,  32,   24)   3x3 convolution
    group 1       ( 32,  32,   24) -> ( 16,  16,   48)   dense block of 6, transitional block
    group 2       ( 16,  16,   48) -> (  8,   8,   60)   dense block of 6, transitional block
    group 3       (  8,   8,   60) -> (  8,   8,  132)   dense block of 6
    classifier    (  8,   8,  132) -> (10,)

    densenet_c16_k24_cifar10
    stem          ( 32,  32,    3) -> ( 16,  16,   16)   3x3 convolution, 3x3 max pooling strided
    group 1       ( 16,  16,   16) -> (  8,   8,   56)   dense block of 4, transitional block
    group 2       (  8,   8,   56) -> (  4,   4,   76)   dense block of 4, transitional block
    group 3       (  4,   4,   76) -> (  4,   4,  172)   dense block of 4
    classifier    (  4,   4,  172) -> (10,)

Trainable parameters: densenet121 7,978,856, densenet161 28,681,000, densenet169 14,149,480, densenet201 20,013,928,
densenet264 33,337,704; densenet40_k12_cifar10 1,019,722, densenet100_k12_cifar10 6,979,642,
densenet100_k24_cifar10 27,249,082, densenet_bc40_k12_cifar10 176,122, densenet_bc100_k12_cifar10 769,162,
densenet_bc250_k24_cifar10 15,324,406, densenet_bc190_k40_cifar10 25,624,430, densenet_c16_k24_cifar10 244,122.
Differs from the paper: the transitional block has the ReLU that section 3 leaves out and the authors' code has, and
there is no dropout, which the paper has only where it does not augment. densenet161 is from the authors' code,
densenet_bc40_k12_cifar10 and densenet_c16_k24_cifar10 are from neither. The authors' code starts every CIFAR-10 network
with 2 k feature maps; here, as in section 3, those without BC start with 16. "264" has 265 layers, all counted.
"""

from keras import Input, Model, layers

CIFAR10_STEM = {"n_filters": 16, "kernel_size": 3, "strides": 1, "pooling": False}

METAPARAMETERS = {
    "densenet121": {
        "groups": ({"n_blocks": 6}, {"n_blocks": 12}, {"n_blocks": 24}, {"n_blocks": 16}),
        "growth_rate": 32,
    },
    "densenet161": {
        "groups": ({"n_blocks": 6}, {"n_blocks": 12}, {"n_blocks": 36}, {"n_blocks": 24}),
        "growth_rate": 48,
        "stem": {"n_filters": 96},
    },
    "densenet169": {
        "groups": ({"n_blocks": 6}, {"n_blocks": 12}, {"n_blocks": 32}, {"n_blocks": 32}),
        "growth_rate": 32,
    },
    "densenet201": {
        "groups": ({"n_blocks": 6}, {"n_blocks": 12}, {"n_blocks": 48}, {"n_blocks": 32}),
        "growth_rate": 32,
    },
    "densenet264": {
        "groups": ({"n_blocks": 6}, {"n_blocks": 12}, {"n_blocks": 64}, {"n_blocks": 48}),
        "growth_rate": 32,
    },
    # For CIFAR-10: without bottleneck and compression, (depth - 4) / 3 blocks in each of three groups.
    "densenet40_k12_cifar10": {
        "groups": 3 * ({"n_blocks": 12},), "growth_rate": 12, "reduction": 1.0, "bottleneck": False,
        "stem": CIFAR10_STEM,
    },
    "densenet100_k12_cifar10": {
        "groups": 3 * ({"n_blocks": 32},), "growth_rate": 12, "reduction": 1.0, "bottleneck": False,
        "stem": CIFAR10_STEM,
    },
    "densenet100_k24_cifar10": {
        "groups": 3 * ({"n_blocks": 32},), "growth_rate": 24, "reduction": 1.0, "bottleneck": False,
        "stem": CIFAR10_STEM,
    },
    # With both, (depth - 4) / 6 blocks, of two convolutions each, and a stem of 2 k feature maps.
    "densenet_bc40_k12_cifar10": {
        "groups": 3 * ({"n_blocks": 6},), "growth_rate": 12, "stem": CIFAR10_STEM | {"n_filters": 24},
    },
    "densenet_bc100_k12_cifar10": {
        "groups": 3 * ({"n_blocks": 16},), "growth_rate": 12, "stem": CIFAR10_STEM | {"n_filters": 24},
    },
    "densenet_bc250_k24_cifar10": {
        "groups": 3 * ({"n_blocks": 41},), "growth_rate": 24, "stem": CIFAR10_STEM | {"n_filters": 48},
    },
    "densenet_bc190_k40_cifar10": {
        "groups": 3 * ({"n_blocks": 31},), "growth_rate": 40, "stem": CIFAR10_STEM | {"n_filters": 80},
    },
    # With compression alone, and a pooling in the stem: a size that 2 cores train in half an hour.
    "densenet_c16_k24_cifar10": {
        "groups": 3 * ({"n_blocks": 4},), "growth_rate": 24, "bottleneck": False,
        "stem": CIFAR10_STEM | {"pooling": True},
    },
}


def build(metaparameters, input_shape=(224, 224, 3), n_classes=1000):
    """Connect stem, learner and classifier: images (N, H, W, C) in, class probabilities (N, n_classes) out.

    Args:
        metaparameters: a value of METAPARAMETERS or a dictionary of one's own: `groups`, a tuple of {"n_blocks"},
            `growth_rate`, the feature maps that each block adds, and where they differ from the defaults, `reduction`
            (0.5) and `bottleneck` (True), arguments of `learner`, and `stem`, a dictionary of the arguments of `stem`.
        input_shape: (H, W, C); the ImageNet stem divides H and W by 4, every group but the last by 2.
        n_classes: how many classes, at least 2.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: metaparameters, input_shape or n_classes cannot make a network.
    """
    check(metaparameters, ("groups", "growth_rate"), ("reduction", "bottleneck", "stem"))
    check(metaparameters.get("stem", {}), (), ("n_filters", "kernel_size", "strides", "pooling"))
    for group_metaparameters in metaparameters["groups"]:
        check(group_metaparameters, ("n_blocks",))
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not input_shape[2]:
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape}")
    in_learner = {name: value for name, value in metaparameters.items() if name != "stem"}

    inputs = Input(input_shape)
    x = stem(inputs, **metaparameters.get("stem", {}))
    x = learner(x, **in_learner)
    outputs = classifier(x, n_classes)
    return Model(inputs, outputs)


# Copied from resnet/resnet_v2.py
def stem(inputs, n_filters=64, kernel_size=7, strides=2, pooling=True):
    """A convolution and, for large images, BN-ReLU and a max pooling: (N, H, W, C) -> (N, H / 4, W / 4, n_filters).

    Without the pooling (CIFAR-10: 3x3, strides 1, so H and W stay) the first block's pre-activation is the BN-ReLU.
    """
    x = convolution(inputs, n_filters, kernel_size, strides)
    if pooling:
        x = bn_relu(x)
        x = layers.ZeroPadding2D(1)(x)  # after ReLU zero is the smallest value, so it never wins the maximum
        x = layers.MaxPooling2D(3, strides=2)(x)
    return x


def learner(x, groups, growth_rate, reduction=0.5, bottleneck=True):
    """The groups in a row, every one but the last halving height and width, and the BN-ReLU after the last block.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_blocks"}.
        growth_rate: how many feature maps each block adds, the paper's k.
        reduction: the share of the feature maps that a transitional block keeps, the paper's theta, above 0 to 1.
        bottleneck: whether a 1x1 convolution to 4 k feature maps stands before each 3x3 convolution.

    Returns:
        Feature maps (N, H / 2^(groups - 1), W / 2^(groups - 1), those of the last dense block), ready for any head.
    """
    *rest, last = groups
    for metaparameters in rest:
        x = group(x, **metaparameters, growth_rate=growth_rate, reduction=reduction, bottleneck=bottleneck)
    x = group(x, **last, growth_rate=growth_rate, bottleneck=bottleneck, transition=False)
    return bn_relu(x)


def group(x, n_blocks, growth_rate, reduction=0.5, bottleneck=True, transition=True):
    """A dense block and, unless transition is False, a transitional block.

    (N, H, W, C) -> (N, H / 2, W / 2, reduction (C + n_blocks growth_rate)), or (N, H, W, C + n_blocks growth_rate).
    """
    x = dense_block(x, n_blocks, growth_rate, bottleneck)
    if transition:
        x = trans_block(x, reduction)
    return x


def dense_block(x, n_blocks, growth_rate, bottleneck=True):
    """Residual dense blocks in a row: (N, H, W, C) -> (N, H, W, C + n_blocks growth_rate). Figure 1."""
    if n_blocks < 1:
        raise ValueError(f"n_blocks must be at least 1, got {n_blocks}")
    for _ in range(n_blocks):
        x = residual_dense_block(x, growth_rate, bottleneck)
    return x


def residual_dense_block(x, growth_rate, bottleneck=True):
    """New feature maps behind all that came before: (N, H, W, C) -> (N, H, W, C + growth_rate).

    BN-ReLU-1x1 convolution to 4 growth_rate feature maps (the bottleneck, "DenseNet-B"), BN-ReLU-3x3 convolution.
    """
    residual = x
    if bottleneck:
        x = convolution(bn_relu(x), 4 * growth_rate, 1)  # (N, H, W, 4 growth_rate), however many came before
    x = convolution(bn_relu(x), growth_rate, 3)
    return layers.Concatenate()([residual, x])  # where a ResNet would add


def trans_block(x, reduction=0.5):
    """BN-ReLU-1x1 convolution and average pooling: (N, H, W, C) -> (N, H / 2, W / 2, reduction C, rounded down).

    Raises:
        ValueError: reduction is not above 0 and at most 1, or leaves no feature map, or H or W cannot be halved.
    """
    if not isinstance(reduction, (int, float)) or not 0 < reduction <= 1 or reduction * x.shape[-1] < 1:
        raise ValueError(f"reduction must be above 0, at most 1 and leave a feature map, got {reduction!r}")
    if any(size is not None and size < 2 for size in x.shape[1:3]):
        raise ValueError(f"the input is too small: feature maps of {x.shape[1:3]} cannot be halved")
    x = convolution(bn_relu(x), int(reduction * x.shape[-1]), 1)
    return layers.AveragePooling2D(2)(x)


# Copied from resnet/resnet_v2.py
def bn_relu(x):
    """Batch normalization and ReLU, the pre-activation: (N, H, W, C), unchanged in shape."""
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)


# Copied from resnet/resnet_v2.py
def convolution(x, n_filters, kernel_size, strides=1):
    """A convolution without bias: (N, H, W, C) -> (N, H / strides, W / strides, n_filters)."""
    if any(size is not None and size < strides for size in x.shape[1:3]):
        raise ValueError(f"the input is too small: feature maps of {x.shape[1:3]} cannot be strided by {strides}")
    padding = "same"
    if strides > 1 and kernel_size > 1:  # "same" would pad the bottom and the right only
        x = layers.ZeroPadding2D(kernel_size // 2)(x)
        padding = "valid"
    return layers.Conv2D(n_filters, kernel_size, strides, padding, use_bias=False, kernel_initializer="he_normal")(x)


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

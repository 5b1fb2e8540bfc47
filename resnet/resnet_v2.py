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

Trainable parameters: resnet50_v2 25,549,480, resnet101_v2 44,541,608, resnet152_v2 60,185,256,
resnet200_v2 64,666,280, resnet164_v2_cifar10 1,703,258 (the paper says 1.7M), resnet1001_v2_cifar10 10,327,706
(the paper says 10.2M).
Differs from the paper: nothing; where the text is silent, this is the authors' code (KaimingHe/resnet-1k-layers).
fb.resnet.torch leaves out the pre-activation of the very first block, which makes 25,549,352.
keras.applications' ResNet50V2 is another network: it strides in the last block of a group, does not normalize its stem
and has biases in some convolutions.
"""

from keras import Input, Model, layers

CIFAR10_STEM = {"n_filters": 16, "kernel_size": 3, "strides": 1, "pooling": False}

METAPARAMETERS = {
    "resnet50_v2": {"groups": (
        {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 4},
        {"n_filters": 256, "n_blocks": 6}, {"n_filters": 512, "n_blocks": 3},
    )},
    "resnet101_v2": {"groups": (
        {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 4},
        {"n_filters": 256, "n_blocks": 23}, {"n_filters": 512, "n_blocks": 3},
    )},
    "resnet152_v2": {"groups": (
        {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 8},
        {"n_filters": 256, "n_blocks": 36}, {"n_filters": 512, "n_blocks": 3},
    )},
    "resnet200_v2": {"groups": (
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
    """Connect stem, learner and classifier: images (N, H, W, C) in, class probabilities (N, n_classes) out.

    Args:
        metaparameters: a value of METAPARAMETERS or a dictionary of one's own: `groups`, a tuple of
            {"n_filters", "n_blocks"}, and perhaps `stem`, a dictionary of the arguments of `stem`.
        input_shape: (H, W, C); the ImageNet stem divides H and W by 4, every group but the first by 2.
        n_classes: how many classes, at least 2.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: metaparameters, input_shape or n_classes cannot make a network.
    """
    check(metaparameters, ("groups",), ("stem",))
    check(metaparameters.get("stem", {}), (), ("n_filters", "kernel_size", "strides", "pooling"))
    for group_metaparameters in metaparameters["groups"]:
        check(group_metaparameters, ("n_filters", "n_blocks"))
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not input_shape[2]:
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape}")

    inputs = Input(input_shape)
    x = stem(inputs, **metaparameters.get("stem", {}))
    x = learner(x, metaparameters["groups"])
    outputs = classifier(x, n_classes)
    return Model(inputs, outputs)


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


def learner(x, groups):
    """The groups in a row, every one but the first halving height and width, and the BN-ReLU after the last addition.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_filters", "n_blocks"}.

    Returns:
        Feature maps (N, H / 2^(groups - 1), W / 2^(groups - 1), 4 n_filters of the last group), ready for any head.
    """
    first, *rest = groups
    x = group(x, **first, strides=1)
    for metaparameters in rest:
        x = group(x, **metaparameters, strides=2)
    return bn_relu(x)


def group(x, n_filters, n_blocks, strides=2):
    """A projection block, then identity blocks: (N, H, W, C) -> (N, H / strides, W / strides, 4 n_filters)."""
    if n_blocks < 1:
        raise ValueError(f"n_blocks must be at least 1, got {n_blocks}")
    x = projection_block(x, n_filters, strides)
    for _ in range(n_blocks - 1):  # the projection block was the first of them
        x = identity_block(x, n_filters)
    return x


def identity_block(x, n_filters):
    """The bottleneck, each convolution after its BN-ReLU, beside an identity shortcut: (N, H, W, 4 n_filters)."""
    residual = x
    x = convolution(bn_relu(x), n_filters, 1)  # (N, H, W, n_filters)
    x = convolution(bn_relu(x), n_filters, 3)
    x = convolution(bn_relu(x), 4 * n_filters, 1)
    return layers.Add()([residual, x])


def projection_block(x, n_filters, strides=2):
    """The bottleneck beside a 1x1 convolution, both from one pre-activation (the paper's appendix).

    (N, H, W, C) -> (N, H / strides, W / strides, 4 n_filters). The first 1x1 convolution strides; the shortcut
    has no normalization of its own.
    """
    x = bn_relu(x)  # shared by the shortcut and the bottleneck
    residual = convolution(x, 4 * n_filters, 1, strides)
    x = convolution(x, n_filters, 1, strides)  # (N, H / strides, W / strides, n_filters)
    x = convolution(bn_relu(x), n_filters, 3)
    x = convolution(bn_relu(x), 4 * n_filters, 1)
    return layers.Add()([residual, x])


def bn_relu(x):
    """Batch normalization and ReLU, the pre-activation: (N, H, W, C), unchanged in shape."""
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)


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

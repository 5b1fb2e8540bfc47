"""Inception v3, and a size for 32x32 images.

Paper: Szegedy et al. 2015, "Rethinking the Inception Architecture for Computer Vision", arXiv:1512.00567, sections 3
to 6 and figures 5 to 10, with the sizes of the released code (tf-slim, inception_v3.py).

    inception_v3
    stem          (299, 299,    3) -> ( 35,  35,  192)   3x3 strided, 3x3, 3x3, max pooling, 1x1, 3x3, max pooling
    group 1       ( 35,  35,  192) -> ( 17,  17,  768)   3 blocks A, grid reduction A
    group 2       ( 17,  17,  768) -> (  8,   8, 1280)   4 blocks B, grid reduction B
    auxiliary 1   ( 17,  17,  768) -> (1000,)            after the last block B, in training only
    group 3       (  8,   8, 1280) -> (  8,   8, 2048)   2 blocks C
    classifier    (  8,   8, 2048) -> (1000,)

    inception_v3_cifar10
    stem          ( 32,  32,   3) -> ( 16,  16,  48)   3x3, 3x3, 3x3, max pooling, 1x1, 3x3
    group 1       ( 16,  16,  48) -> (  7,   7, 192)   3 blocks A, grid reduction A
    group 2       (  7,   7, 192) -> (  3,   3, 320)   4 blocks B, grid reduction B
    auxiliary 1   (  7,   7, 192) -> (10,)             after the last block B, in training only
    group 3       (  3,   3, 320) -> (  3,   3, 512)   2 blocks C
    classifier    (  3,   3, 512) -> (10,)

Trainable parameters, without and with the auxiliary classifier: inception_v3 23,834,568 and 27,161,264,
inception_v3_cifar10 1,373,346 and 1,505,708.
Differs from the paper: its table 1 has another stem and other sizes; these are the released code's. The initial weights
are He-normal. The average pooling of a branch does not count the padding, as in tf-slim (torchvision's does). Batch
normalization scales, as in torchvision (that of tf-slim and keras.applications does not: 17,216 parameters fewer
without the auxiliary classifier). inception_v3_cifar10 is not in the paper: a quarter as wide (but not its auxiliary
classifier), and with a stem that halves the image once.
METAPARAMETERS stand at the end of this file, because they name its functions.
"""

import inspect

from keras import Input, Model, layers


def build(metaparameters, input_shape=(299, 299, 3), n_classes=1000, auxiliary=False):
    """Connect stem, learner and classifier: images (N, H, W, C) in, class probabilities (N, n_classes) out.

    Args:
        metaparameters: a value of METAPARAMETERS or a dictionary of one's own: `groups`, a tuple of dictionaries of the
            arguments of `group`, and perhaps `stem`, a dictionary of the arguments of `stem`.
        input_shape: (H, W, C); the ImageNet stem divides H and W by about 8, every group but the last by about 2.
        n_classes: how many classes, at least 2.
        auxiliary: whether the model has the auxiliary classifier, which in training regularizes (section 4).

    Returns:
        A `keras.Model`. With auxiliary its outputs are {"main", "auxiliary_1"}, each (N, n_classes), and
        `Model(model.input, model.output["main"])` is the network without it, of the same weights.

    Raises:
        ValueError: metaparameters, input_shape or n_classes cannot make the network.
    """
    check(metaparameters, ("groups",), ("stem",))
    names = ("n_filters", "n_filters_reduce", "n_filters_out", "strides", "padding", "pooling")
    check(metaparameters.get("stem", {}), (), names)
    for group_metaparameters in metaparameters["groups"]:
        check_group(group_metaparameters)
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not input_shape[2]:
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape}")

    inputs = Input(input_shape)
    x = stem(inputs, **metaparameters.get("stem", {}))
    x, heads = learner(x, metaparameters["groups"], n_classes if auxiliary else None)
    outputs = classifier(x, n_classes)
    if auxiliary:
        if not heads:
            raise ValueError("auxiliary=True needs an auxiliary function in one of the groups")
        outputs = {"main": outputs} | {f"auxiliary_{i}": head for i, head in enumerate(heads, start=1)}
    return Model(inputs, outputs)


def stem(inputs, n_filters=32, n_filters_reduce=80, n_filters_out=192, strides=2, padding="valid", pooling=True):
    """Three 3x3 convolutions, max pooling, 1x1, 3x3, max pooling: (N, 299, 299, C) -> (N, 35, 35, n_filters_out).

    The CIFAR-10 stem has strides 1, padding "same" and no second pooling, so that H and W are halved once.

    Args:
        inputs: images (N, H, W, C).
        n_filters: those of the first two convolutions; the third has twice as many.
        n_filters_reduce: those of the 1x1 convolution.
        n_filters_out: those of the last.
        strides: those of the first.
        padding: "valid" or "same", that of the first and second, the last, and the poolings.
        pooling: whether a max pooling ends the stem.
    """
    if padding not in ("valid", "same"):
        raise ValueError(f'padding must be "valid" or "same", got {padding!r}')
    x = conv_bn(inputs, n_filters, (3, 3), strides, padding)  # (N, 149, 149, 32)
    x = conv_bn(x, n_filters, (3, 3), padding=padding)  # (N, 147, 147, 32)
    x = conv_bn(x, 2 * n_filters, (3, 3))  # (N, 147, 147, 64)
    x = max_pooling(x, padding)  # (N, 73, 73, 64)
    x = conv_bn(x, n_filters_reduce, (1, 1))  # (N, 73, 73, 80)
    x = conv_bn(x, n_filters_out, (3, 3), padding=padding)  # (N, 71, 71, 192)
    return max_pooling(x, padding) if pooling else x


def learner(x, groups, n_classes=None):
    """The groups in a row; every group but the last halves height and width, about.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of dictionaries of the arguments of `group`.
        n_classes: how many classes the auxiliary classifier has; None leaves it out.

    Returns:
        Feature maps, of 299x299 images (N, 8, 8, 2048), ready for any head, and the list of the auxiliary
        classifiers' outputs, each (N, n_classes).
    """
    heads = []
    for metaparameters in groups:
        x, heads_of_group = group(x, **metaparameters, n_classes=n_classes)
        heads += heads_of_group
    return x, heads


def group(x, block, blocks, auxiliary=None, grid_reduction=None, grid_filters=None, n_classes=None):
    """Blocks of one style, perhaps an auxiliary classifier, and perhaps a grid reduction.

    Args:
        x: feature maps (N, H, W, C).
        block: the function that makes a block.
        blocks: a tuple of its arguments, a dictionary for each block.
        auxiliary: the function that makes an auxiliary classifier after the last block, or None.
        grid_reduction: the function that ends the group and about halves height and width, or None.
        grid_filters: its arguments, a dictionary.
        n_classes: how many classes the auxiliary classifier has; None leaves it out.

    Returns:
        Feature maps and the list of the auxiliary classifiers' outputs: one (N, n_classes), or none.
    """
    for metaparameters in blocks:
        x = block(x, **metaparameters)
    heads = [auxiliary(x, n_classes)] if auxiliary and n_classes is not None else []
    if grid_reduction:
        x = grid_reduction(x, **grid_filters)
    return x, heads


def inception_block_a(x, n_1x1, n_5x5_reduce, n_5x5, n_3x3_reduce, n_3x3, n_pool):
    """1x1; 1x1, 5x5; 1x1, 3x3, 3x3; average pooling, 1x1: to (N, H, W, n_1x1 + n_5x5 + n_3x3 + n_pool). Figure 5.

    The figure has two 3x3 convolutions for each 5x5 of version 1; the released code has kept one 5x5.
    """
    branch_1x1 = conv_bn(x, n_1x1, (1, 1))
    branch_5x5 = conv_bn(x, n_5x5_reduce, (1, 1))
    branch_5x5 = conv_bn(branch_5x5, n_5x5, (5, 5))
    branch_3x3 = conv_bn(x, n_3x3_reduce, (1, 1))
    branch_3x3 = conv_bn(branch_3x3, n_3x3, (3, 3))
    branch_3x3 = conv_bn(branch_3x3, n_3x3, (3, 3))
    branch_pool = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    branch_pool = conv_bn(branch_pool, n_pool, (1, 1))
    return layers.Concatenate()([branch_1x1, branch_5x5, branch_3x3, branch_pool])


def grid_reduction_a(x, n_3x3, n_double_3x3_reduce, n_double_3x3):
    """3x3 strided; 1x1, 3x3, 3x3 strided; max pooling: to about half of H and W. Figure 10.

    Returns:
        Feature maps (N, (H - 1) / 2, (W - 1) / 2, n_3x3 + n_double_3x3 + C), rounded down.
    """
    branch_3x3 = conv_bn(x, n_3x3, (3, 3), 2, "valid")
    branch_double_3x3 = conv_bn(x, n_double_3x3_reduce, (1, 1))
    branch_double_3x3 = conv_bn(branch_double_3x3, n_double_3x3, (3, 3))
    branch_double_3x3 = conv_bn(branch_double_3x3, n_double_3x3, (3, 3), 2, "valid")
    return layers.Concatenate()([branch_3x3, branch_double_3x3, max_pooling(x)])


def inception_block_b(x, n_filters, n_7x7):
    """The 7x7 convolutions factorized into 1x7 and 7x1: (N, H, W, C) -> (N, H, W, 4 n_filters). Figure 6.

    1x1; 1x1, 1x7, 7x1; 1x1, 7x1, 1x7, 7x1, 1x7; average pooling, 1x1. All but the last of a branch have n_7x7 filters.
    """
    branch_1x1 = conv_bn(x, n_filters, (1, 1))
    branch_7x7 = conv_bn(x, n_7x7, (1, 1))
    branch_7x7 = conv_bn(branch_7x7, n_7x7, (1, 7))  # height 1, width 7
    branch_7x7 = conv_bn(branch_7x7, n_filters, (7, 1))
    branch_double_7x7 = conv_bn(x, n_7x7, (1, 1))
    branch_double_7x7 = conv_bn(branch_double_7x7, n_7x7, (7, 1))
    branch_double_7x7 = conv_bn(branch_double_7x7, n_7x7, (1, 7))
    branch_double_7x7 = conv_bn(branch_double_7x7, n_7x7, (7, 1))
    branch_double_7x7 = conv_bn(branch_double_7x7, n_filters, (1, 7))
    branch_pool = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    branch_pool = conv_bn(branch_pool, n_filters, (1, 1))
    return layers.Concatenate()([branch_1x1, branch_7x7, branch_double_7x7, branch_pool])


def grid_reduction_b(x, n_filters, n_3x3):
    """1x1, 3x3 strided; 1x1, 1x7, 7x1, 3x3 strided; max pooling: to about half of H and W.

    Returns:
        Feature maps (N, (H - 1) / 2, (W - 1) / 2, n_3x3 + n_filters + C), rounded down.
    """
    branch_3x3 = conv_bn(x, n_filters, (1, 1))
    branch_3x3 = conv_bn(branch_3x3, n_3x3, (3, 3), 2, "valid")
    branch_7x7 = conv_bn(x, n_filters, (1, 1))
    branch_7x7 = conv_bn(branch_7x7, n_filters, (1, 7))
    branch_7x7 = conv_bn(branch_7x7, n_filters, (7, 1))
    branch_7x7 = conv_bn(branch_7x7, n_filters, (3, 3), 2, "valid")
    return layers.Concatenate()([branch_3x3, branch_7x7, max_pooling(x)])


def inception_block_c(x, n_1x1, n_3x3, n_double_3x3_reduce, n_pool):
    """The 3x3 convolutions split into 1x3 and 3x1 side by side: to (N, H, W, n_1x1 + 4 n_3x3 + n_pool). Figure 7.

    1x1; 1x1, {1x3, 3x1}; 1x1, 3x3, {1x3, 3x1}; average pooling, 1x1.
    """
    branch_1x1 = conv_bn(x, n_1x1, (1, 1))
    branch_3x3 = conv_bn(x, n_3x3, (1, 1))
    branch_3x3 = [conv_bn(branch_3x3, n_3x3, (1, 3)), conv_bn(branch_3x3, n_3x3, (3, 1))]
    branch_3x3 = layers.Concatenate()(branch_3x3)
    branch_double_3x3 = conv_bn(x, n_double_3x3_reduce, (1, 1))
    branch_double_3x3 = conv_bn(branch_double_3x3, n_3x3, (3, 3))
    branch_double_3x3 = [conv_bn(branch_double_3x3, n_3x3, (1, 3)), conv_bn(branch_double_3x3, n_3x3, (3, 1))]
    branch_double_3x3 = layers.Concatenate()(branch_double_3x3)
    branch_pool = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    branch_pool = conv_bn(branch_pool, n_pool, (1, 1))
    return layers.Concatenate()([branch_1x1, branch_3x3, branch_double_3x3, branch_pool])


def auxiliary(x, n_classes):
    """An auxiliary classifier: (N, H, W, C) -> class probabilities (N, n_classes). Section 4 and figure 8.

    Unlike that of inception_v1.py it has a 5x5 convolution where that has a dense layer, and no dropout.

    Raises:
        ValueError: n_classes is not a whole number of at least 2, or the feature maps are smaller than 5x5, or of no
            fixed size.
    """
    if not isinstance(n_classes, int) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")
    if any(size is None or size < 5 for size in x.shape[1:3]):
        raise ValueError(f"an auxiliary classifier needs feature maps of at least 5x5, got {x.shape[1:3]}")
    x = layers.AveragePooling2D(5, strides=3)(x)  # (N, 5, 5, C) from (N, 17, 17, C)
    x = conv_bn(x, 128, (1, 1))
    x = conv_bn(x, 768, tuple(min(5, size) for size in x.shape[1:3]), padding="valid")  # (N, 1, 1, 768)
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal")(x)


def conv_bn(x, n_filters, kernel_size, strides=1, padding="same"):
    """Convolution, batch normalization and ReLU; with padding "same" to (N, H / strides, W / strides, n_filters).

    Unlike that of resnet_v1.py it ends with the ReLU, and its padding is an argument, as in the released code.

    Args:
        x: feature maps (N, H, W, C).
        n_filters: how many filters.
        kernel_size: (height, width).
        strides: by how much height and width are divided.
        padding: "same", or "valid", which also takes the kernel's size less 1 off height and width.
    """
    if padding == "valid" and any(n is not None and n < k for n, k in zip(x.shape[1:3], kernel_size, strict=True)):
        raise ValueError(f"the input is too small: feature maps of {x.shape[1:3]} for a kernel of {kernel_size}")
    x = layers.Conv2D(n_filters, kernel_size, strides, padding, use_bias=False, kernel_initializer="he_normal")(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-3)(x)  # epsilon as in the released code
    return layers.ReLU()(x)


def max_pooling(x, padding="valid"):
    """3x3 max pooling that halves: (N, H, W, C) -> (N, (H - 1) / 2, (W - 1) / 2, C), rounded down.

    Unlike that of inception_v1.py it does not pad unless asked.
    """
    if padding == "valid" and any(size is not None and size < 3 for size in x.shape[1:3]):
        raise ValueError(f"the input is too small: feature maps of {x.shape[1:3]} cannot be pooled 3x3")
    return layers.MaxPooling2D(3, strides=2, padding=padding)(x)


def classifier(x, n_classes, dropout=0.2):
    """The mean of each feature map, dropout, a dense layer: (N, H, W, C) -> class probabilities (N, n_classes).

    Unlike that of inception_v1.py its dropout is that of tf-slim; the paper names none.

    Raises:
        ValueError: n_classes is not a whole number of at least 2.
    """
    if not isinstance(n_classes, int) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")
    x = layers.GlobalAveragePooling2D()(x)  # (N, C)
    x = layers.Dropout(dropout)(x)
    return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal")(x)


def check_group(metaparameters):
    """Raise ValueError unless metaparameters are the functions that `group` takes and the arguments of these."""
    check(metaparameters, (), ("block", "blocks", "auxiliary", "grid_reduction", "grid_filters"))
    for name in ("block", "auxiliary", "grid_reduction"):
        if (name == "block" or name in metaparameters) and not callable(metaparameters.get(name)):
            raise ValueError(f"{name} must be a function, got {metaparameters.get(name)!r}")
    blocks = metaparameters.get("blocks")
    if not isinstance(blocks, (tuple, list)) or not blocks:
        raise ValueError(f"blocks must be a tuple of dictionaries, the arguments of each block, got {blocks!r}")
    if ("grid_reduction" in metaparameters) != ("grid_filters" in metaparameters):
        raise ValueError(f"grid_reduction and grid_filters go together, got {sorted(metaparameters)}")
    calls = [(metaparameters["block"], arguments) for arguments in blocks]
    if "grid_reduction" in metaparameters:
        calls.append((metaparameters["grid_reduction"], metaparameters["grid_filters"]))
    for function, arguments in calls:
        try:
            inspect.signature(function).bind("feature maps", **arguments)
        except TypeError as error:
            raise ValueError(f"{function.__name__} cannot be called with {arguments!r}: {error}") from error
        for name, value in arguments.items():
            if name.startswith("n_") and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


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


# At the end, because they name functions: the block, the grid reduction and the auxiliary classifier of each group.
METAPARAMETERS = {
    "inception_v3": {"groups": (
        {
            "block": inception_block_a,
            "blocks": (
                {"n_1x1": 64, "n_5x5_reduce": 48, "n_5x5": 64, "n_3x3_reduce": 64, "n_3x3": 96, "n_pool": 32},
                {"n_1x1": 64, "n_5x5_reduce": 48, "n_5x5": 64, "n_3x3_reduce": 64, "n_3x3": 96, "n_pool": 64},
                {"n_1x1": 64, "n_5x5_reduce": 48, "n_5x5": 64, "n_3x3_reduce": 64, "n_3x3": 96, "n_pool": 64},
            ),
            "grid_reduction": grid_reduction_a,
            "grid_filters": {"n_3x3": 384, "n_double_3x3_reduce": 64, "n_double_3x3": 96},
        },
        {
            "block": inception_block_b,
            "blocks": (
                {"n_filters": 192, "n_7x7": 128}, {"n_filters": 192, "n_7x7": 160},
                {"n_filters": 192, "n_7x7": 160}, {"n_filters": 192, "n_7x7": 192},
            ),
            "auxiliary": auxiliary,
            "grid_reduction": grid_reduction_b,
            "grid_filters": {"n_filters": 192, "n_3x3": 320},
        },
        {
            "block": inception_block_c,
            "blocks": 2 * ({"n_1x1": 320, "n_3x3": 384, "n_double_3x3_reduce": 448, "n_pool": 192},),
        },
    )},
    "inception_v3_cifar10": {
        "stem": {
            "n_filters": 8, "n_filters_reduce": 20, "n_filters_out": 48,
            "strides": 1, "padding": "same", "pooling": False,
        },
        "groups": (
            {
                "block": inception_block_a,
                "blocks": (
                    {"n_1x1": 16, "n_5x5_reduce": 12, "n_5x5": 16, "n_3x3_reduce": 16, "n_3x3": 24, "n_pool": 8},
                    {"n_1x1": 16, "n_5x5_reduce": 12, "n_5x5": 16, "n_3x3_reduce": 16, "n_3x3": 24, "n_pool": 16},
                    {"n_1x1": 16, "n_5x5_reduce": 12, "n_5x5": 16, "n_3x3_reduce": 16, "n_3x3": 24, "n_pool": 16},
                ),
                "grid_reduction": grid_reduction_a,
                "grid_filters": {"n_3x3": 96, "n_double_3x3_reduce": 16, "n_double_3x3": 24},
            },
            {
                "block": inception_block_b,
                "blocks": (
                    {"n_filters": 48, "n_7x7": 32}, {"n_filters": 48, "n_7x7": 40},
                    {"n_filters": 48, "n_7x7": 40}, {"n_filters": 48, "n_7x7": 48},
                ),
                "auxiliary": auxiliary,
                "grid_reduction": grid_reduction_b,
                "grid_filters": {"n_filters": 48, "n_3x3": 80},
            },
            {
                "block": inception_block_c,
                "blocks": 2 * ({"n_1x1": 80, "n_3x3": 96, "n_double_3x3_reduce": 112, "n_pool": 48},),
            },
        ),
    },
}

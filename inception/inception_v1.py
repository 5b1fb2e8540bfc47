"""Inception v1, known as GoogLeNet, as in the paper, with batch normalization, and a size for 32x32 images.

Paper: Szegedy et al. 2014, "Going Deeper with Convolutions", arXiv:1409.4842, table 1 and figures 2b and 3.

    inception_v1
    stem          (224, 224,    3) -> ( 28,  28,  192)   7x7 strided, max pooling, 1x1, 3x3, max pooling
    group 1       ( 28,  28,  192) -> ( 14,  14,  480)   blocks 3a and 3b, max pooling
    group 2       ( 14,  14,  480) -> (  7,   7,  832)   blocks 4a to 4e, max pooling
    auxiliary 1   ( 14,  14,  512) -> (1000,)            after block 4a, in training only
    auxiliary 2   ( 14,  14,  528) -> (1000,)            after block 4d, in training only
    group 3       (  7,   7,  832) -> (  7,   7, 1024)   blocks 5a and 5b
    classifier    (  7,   7, 1024) -> (1000,)

    inception_v1_cifar10
    stem          ( 32,  32,   3) -> ( 16,  16,  48)   3x3, max pooling, 1x1, 3x3
    group 1       ( 16,  16,  48) -> (  8,   8, 120)   block 3b, max pooling
    group 2       (  8,   8, 120) -> (  4,   4, 208)   blocks 4a, 4c, 4d and 4e, max pooling
    auxiliary 1   (  8,   8, 128) -> (10,)             after block 4a, in training only
    auxiliary 2   (  8,   8, 132) -> (10,)             after block 4d, in training only
    group 3       (  4,   4, 208) -> (  4,   4, 256)   blocks 5a and 5b
    classifier    (  4,   4, 256) -> (10,)

Trainable parameters, without and with the auxiliary classifiers: inception_v1 6,998,552 and 13,378,280,
inception_v1_bn 7,005,832 and 13,385,816, inception_v1_cifar10 338,790 and 1,443,706.
Differs from the paper: the initial weights are He-normal. Batch normalization (Ioffe and Szegedy 2015,
arXiv:1502.03167), after every convolution and in place of its bias and of the local response normalization, came later.
Torchvision and tf-slim have a 3x3 convolution in the 5x5 branch, and a 2x2 pooling after block 4e; here they are 5x5
and 3x3, as in the paper and its Caffe twin, bvlc_googlenet. inception_v1_cifar10 is not in the paper: a quarter as
wide (but not its auxiliary classifiers), without blocks 3a and 4b, and with a stem that halves the image once.
"""

from keras import Input, Model, layers, ops

# The paper's table 1, row by row; None is an auxiliary classifier after the block before it.
GOOGLENET = (
    (
        {"n_1x1": 64, "n_3x3_reduce": 96, "n_3x3": 128, "n_5x5_reduce": 16, "n_5x5": 32, "n_pool": 32},
        {"n_1x1": 128, "n_3x3_reduce": 128, "n_3x3": 192, "n_5x5_reduce": 32, "n_5x5": 96, "n_pool": 64},
    ),
    (
        {"n_1x1": 192, "n_3x3_reduce": 96, "n_3x3": 208, "n_5x5_reduce": 16, "n_5x5": 48, "n_pool": 64},
        None,
        {"n_1x1": 160, "n_3x3_reduce": 112, "n_3x3": 224, "n_5x5_reduce": 24, "n_5x5": 64, "n_pool": 64},
        {"n_1x1": 128, "n_3x3_reduce": 128, "n_3x3": 256, "n_5x5_reduce": 24, "n_5x5": 64, "n_pool": 64},
        {"n_1x1": 112, "n_3x3_reduce": 144, "n_3x3": 288, "n_5x5_reduce": 32, "n_5x5": 64, "n_pool": 64},
        None,
        {"n_1x1": 256, "n_3x3_reduce": 160, "n_3x3": 320, "n_5x5_reduce": 32, "n_5x5": 128, "n_pool": 128},
    ),
    (
        {"n_1x1": 256, "n_3x3_reduce": 160, "n_3x3": 320, "n_5x5_reduce": 32, "n_5x5": 128, "n_pool": 128},
        {"n_1x1": 384, "n_3x3_reduce": 192, "n_3x3": 384, "n_5x5_reduce": 48, "n_5x5": 128, "n_pool": 128},
    ),
)

METAPARAMETERS = {
    "inception_v1": {"groups": GOOGLENET},
    "inception_v1_bn": {"groups": GOOGLENET, "batch_normalization": True},
    "inception_v1_cifar10": {
        "stem": {"n_filters": 16, "n_filters_out": 48, "kernel_size": 3, "strides": 1, "pooling": False},
        "batch_normalization": True,
        "groups": (
            (
                {"n_1x1": 32, "n_3x3_reduce": 32, "n_3x3": 48, "n_5x5_reduce": 8, "n_5x5": 24, "n_pool": 16},
            ),
            (
                {"n_1x1": 48, "n_3x3_reduce": 24, "n_3x3": 52, "n_5x5_reduce": 4, "n_5x5": 12, "n_pool": 16},
                None,
                {"n_1x1": 32, "n_3x3_reduce": 32, "n_3x3": 64, "n_5x5_reduce": 6, "n_5x5": 16, "n_pool": 16},
                {"n_1x1": 28, "n_3x3_reduce": 36, "n_3x3": 72, "n_5x5_reduce": 8, "n_5x5": 16, "n_pool": 16},
                None,
                {"n_1x1": 64, "n_3x3_reduce": 40, "n_3x3": 80, "n_5x5_reduce": 8, "n_5x5": 32, "n_pool": 32},
            ),
            (
                {"n_1x1": 64, "n_3x3_reduce": 40, "n_3x3": 80, "n_5x5_reduce": 8, "n_5x5": 32, "n_pool": 32},
                {"n_1x1": 96, "n_3x3_reduce": 48, "n_3x3": 96, "n_5x5_reduce": 12, "n_5x5": 32, "n_pool": 32},
            ),
        ),
    },
}


def build(metaparameters, input_shape=(224, 224, 3), n_classes=1000, auxiliary=False):
    """Connect stem, learner and classifier: images (N, H, W, C) in, class probabilities (N, n_classes) out.

    Args:
        metaparameters: a value of METAPARAMETERS or a dictionary of one's own: `groups`, a tuple of tuples of blocks,
            {"n_1x1", "n_3x3_reduce", "n_3x3", "n_5x5_reduce", "n_5x5", "n_pool"} or None, and where they differ from
            the defaults, `batch_normalization` (False) and `stem`, a dictionary of the arguments of `stem`.
        input_shape: (H, W, C); the ImageNet stem divides H and W by 8, every group but the last by 2.
        n_classes: how many classes, at least 2.
        auxiliary: whether the model has the auxiliary classifiers, meant to help the early groups to learn.

    Returns:
        A `keras.Model`. With auxiliary its outputs are {"main", "auxiliary_1", "auxiliary_2", ...}, each
        (N, n_classes), and `Model(model.input, model.output["main"])` is the network without them, of the same weights.

    Raises:
        ValueError: metaparameters, input_shape or n_classes cannot make the network.
    """
    check(metaparameters, ("groups",), ("stem", "batch_normalization"))
    check(metaparameters.get("stem", {}), (), ("n_filters", "n_filters_out", "kernel_size", "strides", "pooling"))
    for blocks in metaparameters["groups"]:
        if not isinstance(blocks, (tuple, list)) or not blocks or blocks[0] is None:
            raise ValueError(f"a group must be a tuple of blocks of which the first is not None, got {blocks!r}")
        for block in blocks:
            if block is not None:
                check(block, ("n_1x1", "n_3x3_reduce", "n_3x3", "n_5x5_reduce", "n_5x5", "n_pool"))
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not input_shape[2]:
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape}")
    batch_normalization = metaparameters.get("batch_normalization", False)

    inputs = Input(input_shape)
    x = stem(inputs, **metaparameters.get("stem", {}), batch_normalization=batch_normalization)
    x, heads = learner(x, metaparameters["groups"], n_classes if auxiliary else None, batch_normalization)
    outputs = classifier(x, n_classes)
    if auxiliary:
        if not heads:
            raise ValueError("auxiliary=True needs a None among the blocks, where the auxiliary classifier is to be")
        outputs = {"main": outputs} | {f"auxiliary_{i}": head for i, head in enumerate(heads, start=1)}
    return Model(inputs, outputs)


def stem(inputs, n_filters=64, n_filters_out=192, kernel_size=7, strides=2, pooling=True, batch_normalization=False):
    """Strided convolution, max pooling, 1x1, 3x3, max pooling: (N, H, W, C) -> (N, H / 8, W / 8, n_filters_out).

    The CIFAR-10 stem has a 3x3 convolution, strides 1 and no second pooling, so that H and W are halved once.

    Args:
        inputs: images (N, H, W, C).
        n_filters: those of the first two convolutions.
        n_filters_out: those of the third.
        kernel_size, strides: those of the first.
        pooling: whether a max pooling ends the stem.
        batch_normalization: whether batch normalization follows each convolution; if not, local response
            normalization follows the first and the last.
    """
    x = conv_relu(inputs, n_filters, kernel_size, strides, batch_normalization)
    x = max_pooling(x)
    if not batch_normalization:
        x = local_response_normalization(x)
    x = conv_relu(x, n_filters, 1, batch_normalization=batch_normalization)
    x = conv_relu(x, n_filters_out, 3, batch_normalization=batch_normalization)
    if not batch_normalization:
        x = local_response_normalization(x)
    return max_pooling(x) if pooling else x


def learner(x, groups, n_classes=None, batch_normalization=False):
    """The groups in a row; every group but the last halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of tuples of blocks, in which None stands for an auxiliary classifier.
        n_classes: how many classes the auxiliary classifiers have; None leaves them out.
        batch_normalization: whether batch normalization follows each convolution.

    Returns:
        Feature maps (N, H / 2^(groups - 1), W / 2^(groups - 1), filters of the last block), ready for any head, and
        the list of the auxiliary classifiers' outputs, each (N, n_classes).
    """
    heads = []
    for i, blocks in enumerate(groups, start=1):
        x, heads_of_group = group(x, blocks, n_classes, i < len(groups), batch_normalization)
        heads += heads_of_group
    return x, heads


def group(x, blocks, n_classes=None, pooling=True, batch_normalization=False):
    """Inception blocks, and a 3x3 max pooling that halves height and width.

    Args:
        x: feature maps (N, H, W, C).
        blocks: a tuple of the arguments of `inception_block`, or None for an auxiliary classifier.
        n_classes: how many classes the auxiliary classifiers have; None leaves them out.
        pooling: whether there is the max pooling; the last group has none.
        batch_normalization: whether batch normalization follows each convolution.

    Returns:
        Feature maps (N, H / 2, W / 2, filters of the last block) and the list of the auxiliary classifiers' outputs.
    """
    heads = []
    for metaparameters in blocks:
        if metaparameters is not None:
            x = inception_block(x, **metaparameters, batch_normalization=batch_normalization)
        elif n_classes is not None:
            heads.append(auxiliary(x, n_classes, batch_normalization))
    return max_pooling(x) if pooling else x, heads


def inception_block(x, n_1x1, n_3x3_reduce, n_3x3, n_5x5_reduce, n_5x5, n_pool, batch_normalization=False):
    """Four branches side by side: (N, H, W, C) -> (N, H, W, n_1x1 + n_3x3 + n_5x5 + n_pool). Figure 2b.

    1x1; 1x1 that reduces the depth, then 3x3; 1x1 that reduces it, then 5x5; 3x3 max pooling, then 1x1.
    """
    branch_1x1 = conv_relu(x, n_1x1, 1, batch_normalization=batch_normalization)
    branch_3x3 = conv_relu(x, n_3x3_reduce, 1, batch_normalization=batch_normalization)
    branch_3x3 = conv_relu(branch_3x3, n_3x3, 3, batch_normalization=batch_normalization)
    branch_5x5 = conv_relu(x, n_5x5_reduce, 1, batch_normalization=batch_normalization)
    branch_5x5 = conv_relu(branch_5x5, n_5x5, 5, batch_normalization=batch_normalization)
    branch_pool = layers.MaxPooling2D(3, strides=1, padding="same")(x)
    branch_pool = conv_relu(branch_pool, n_pool, 1, batch_normalization=batch_normalization)
    return layers.Concatenate()([branch_1x1, branch_3x3, branch_5x5, branch_pool])


def auxiliary(x, n_classes, batch_normalization=False):
    """An auxiliary classifier: (N, H, W, C) -> class probabilities (N, n_classes). Section 5.

    Raises:
        ValueError: n_classes is not a whole number of at least 2, or the feature maps are smaller than 5x5, or of no
            fixed size.
    """
    if not isinstance(n_classes, int) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")
    if any(size is None or size < 5 for size in x.shape[1:3]):
        raise ValueError(f"an auxiliary classifier needs feature maps of at least 5x5, got {x.shape[1:3]}")
    x = layers.AveragePooling2D(5, strides=3)(x)  # (N, 4, 4, C) from (N, 14, 14, C)
    x = conv_relu(x, 128, 1, batch_normalization=batch_normalization)
    x = layers.Flatten()(x)
    x = layers.Dense(1024, activation="relu", kernel_initializer="he_normal")(x)
    x = layers.Dropout(0.7)(x)
    return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal")(x)


def conv_relu(x, n_filters, kernel_size, strides=1, batch_normalization=False):
    """A convolution, batch normalization if wanted, ReLU: (N, H, W, C) -> (N, H / strides, W / strides, n_filters).

    Unlike that of vgg.py it has any kernel size and strides, and no bias that batch normalization would undo.
    """
    padding = "same"
    if strides > 1:  # "same" would pad the bottom and the right only
        x = layers.ZeroPadding2D(kernel_size // 2)(x)
        padding = "valid"
    use_bias = not batch_normalization
    x = layers.Conv2D(n_filters, kernel_size, strides, padding, use_bias=use_bias, kernel_initializer="he_normal")(x)
    if batch_normalization:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-3)(x)  # epsilon as in torchvision
    return layers.ReLU()(x)


def max_pooling(x):
    """3x3 max pooling that halves: (N, H, W, C) -> (N, H / 2, W / 2, C), rounded down."""
    if any(size is not None and size < 2 for size in x.shape[1:3]):
        raise ValueError(f"the input is too small: feature maps of {x.shape[1:3]} cannot be halved")
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)  # as Caffe; after ReLU zero is the smallest value and never wins
    return layers.MaxPooling2D(3, strides=2)(x)


def local_response_normalization(x, size=5, alpha=1e-4, beta=0.75):
    """Divide by (1 + alpha m)^beta, m the mean square of a feature map and its neighbours: (N, H, W, C) throughout.

    Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 3.3, in the form
    and with the figures of bvlc_googlenet: 1 for their k, and the mean for their sum.
    """
    squares = ops.pad(ops.square(x), ((0, 0), (0, 0), (0, 0), (size // 2, size // 2)))  # (N, H, W, C + size - 1)
    mean = sum(squares[..., i : i + x.shape[-1]] for i in range(size)) / size
    return x / (1 + alpha * mean) ** beta


def classifier(x, n_classes, dropout=0.4):
    """The mean of each feature map, dropout, a dense layer: (N, H, W, C) -> class probabilities (N, n_classes).

    Raises:
        ValueError: n_classes is not a whole number of at least 2.
    """
    if not isinstance(n_classes, int) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")
    x = layers.GlobalAveragePooling2D()(x)  # (N, C)
    x = layers.Dropout(dropout)(x)
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

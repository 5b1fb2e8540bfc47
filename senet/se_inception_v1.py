"""SE-Inception v1: GoogLeNet, with and without batch normalization, whose blocks weigh their feature maps.

Paper: Hu et al. 2018, "Squeeze-and-Excitation Networks", arXiv:1709.01507, figures 1 and 2, section 3; the network
inside is that of Szegedy et al. 2014, arXiv:1409.4842, table 1 and figures 2b and 3.

    se_inception_v1
    stem          (224, 224,    3) -> ( 28,  28,  192)   7x7 strided, max pooling, 1x1, 3x3, max pooling
    group 1       ( 28,  28,  192) -> ( 14,  14,  480)   blocks 3a and 3b, max pooling
    group 2       ( 14,  14,  480) -> (  7,   7,  832)   blocks 4a to 4e, max pooling
    group 3       (  7,   7,  832) -> (  7,   7, 1024)   blocks 5a and 5b
    classifier    (  7,   7, 1024) -> (1000,)

Trainable parameters: se_inception_v1 7,478,655, se_inception_v1_bn 7,485,935.
Differs from the paper: its Inception is BN-Inception (Ioffe and Szegedy 2015, arXiv:1502.03167), whose blocks have two
3x3 convolutions for the 5x5, other poolings and other sizes; here it is that of 2014, without auxiliary classifiers.
The formula of squeeze-excitation (section 3.2) has no biases; the dense layers here have them, as those of the authors'
models (hujie-frank/SENet). The initial weights are He-normal, before the sigmoids Glorot-uniform.
"""

from keras import Input, Model, layers, ops

# Table 1 of Szegedy et al., row by row.
GOOGLENET = (
    (
        {"n_1x1": 64, "n_3x3_reduce": 96, "n_3x3": 128, "n_5x5_reduce": 16, "n_5x5": 32, "n_pool": 32},
        {"n_1x1": 128, "n_3x3_reduce": 128, "n_3x3": 192, "n_5x5_reduce": 32, "n_5x5": 96, "n_pool": 64},
    ),
    (
        {"n_1x1": 192, "n_3x3_reduce": 96, "n_3x3": 208, "n_5x5_reduce": 16, "n_5x5": 48, "n_pool": 64},
        {"n_1x1": 160, "n_3x3_reduce": 112, "n_3x3": 224, "n_5x5_reduce": 24, "n_5x5": 64, "n_pool": 64},
        {"n_1x1": 128, "n_3x3_reduce": 128, "n_3x3": 256, "n_5x5_reduce": 24, "n_5x5": 64, "n_pool": 64},
        {"n_1x1": 112, "n_3x3_reduce": 144, "n_3x3": 288, "n_5x5_reduce": 32, "n_5x5": 64, "n_pool": 64},
        {"n_1x1": 256, "n_3x3_reduce": 160, "n_3x3": 320, "n_5x5_reduce": 32, "n_5x5": 128, "n_pool": 128},
    ),
    (
        {"n_1x1": 256, "n_3x3_reduce": 160, "n_3x3": 320, "n_5x5_reduce": 32, "n_5x5": 128, "n_pool": 128},
        {"n_1x1": 384, "n_3x3_reduce": 192, "n_3x3": 384, "n_5x5_reduce": 48, "n_5x5": 128, "n_pool": 128},
    ),
)

METAPARAMETERS = {
    "se_inception_v1": {"groups": GOOGLENET},
    "se_inception_v1_bn": {"groups": GOOGLENET, "batch_normalization": True},
}


def build(metaparameters, input_shape=(224, 224, 3), n_classes=1000):
    """Connect stem, learner and classifier: images (N, H, W, C) in, class probabilities (N, n_classes) out.

    Args:
        metaparameters: a value of METAPARAMETERS or a dictionary of one's own: `groups`, a tuple of tuples of blocks,
            {"n_1x1", "n_3x3_reduce", "n_3x3", "n_5x5_reduce", "n_5x5", "n_pool"}, and where they differ from the
            defaults, `batch_normalization` (False), `ratio` (16), C feature maps get a narrow dense layer of
            C / ratio units, and `stem`, a dictionary of the arguments of `stem`.
        input_shape: (H, W, C); the ImageNet stem divides H and W by 8, every group but the last by 2.
        n_classes: how many classes, at least 2.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: metaparameters, input_shape or n_classes cannot make the network.
    """
    check(metaparameters, ("groups",), ("stem", "ratio", "batch_normalization"))
    check(metaparameters.get("stem", {}), (), ("n_filters", "n_filters_out", "kernel_size", "strides", "pooling"))
    for blocks in metaparameters["groups"]:
        if not isinstance(blocks, (tuple, list)) or not blocks:
            raise ValueError(f"a group must be a tuple of blocks, got {blocks!r}")
        for block in blocks:
            if block is None:
                raise ValueError("None, an auxiliary classifier in inception_v1.py, is no block here")
            check(block, ("n_1x1", "n_3x3_reduce", "n_3x3", "n_5x5_reduce", "n_5x5", "n_pool"))
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not input_shape[2]:
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape}")
    batch_normalization = metaparameters.get("batch_normalization", False)
    in_learner = {name: value for name, value in metaparameters.items() if name != "stem"}

    inputs = Input(input_shape)
    x = stem(inputs, **metaparameters.get("stem", {}), batch_normalization=batch_normalization)
    x = learner(x, **in_learner)
    outputs = classifier(x, n_classes)
    return Model(inputs, outputs)


# Copied from inception/inception_v1.py
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


def learner(x, groups, ratio=16, batch_normalization=False):
    """The groups in a row; every group but the last halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of tuples of blocks.
        ratio: C feature maps get a narrow dense layer of C / ratio units.
        batch_normalization: whether batch normalization follows each convolution.

    Returns:
        Feature maps (N, H / 2^(groups - 1), W / 2^(groups - 1), filters of the last block), ready for any head.
    """
    *others, last = groups
    for blocks in others:
        x = group(x, blocks, ratio, True, batch_normalization)
    return group(x, last, ratio, False, batch_normalization)


def group(x, blocks, ratio=16, pooling=True, batch_normalization=False):
    """Inception blocks, each weighed, and a 3x3 max pooling that halves height and width. Figure 2.

    Unlike that of inception_v1.py it weighs the feature maps of its blocks, and has no auxiliary classifiers.

    Args:
        x: feature maps (N, H, W, C).
        blocks: a tuple of the arguments of `inception_block`.
        ratio: C feature maps get a narrow dense layer of C / ratio units.
        pooling: whether there is the max pooling; the last group has none.
        batch_normalization: whether batch normalization follows each convolution.

    Returns:
        Feature maps (N, H / 2, W / 2, filters of the last block).
    """
    for metaparameters in blocks:
        x = inception_block(x, **metaparameters, batch_normalization=batch_normalization)
        x = se_block(x, ratio)
    return max_pooling(x) if pooling else x


# Copied from inception/inception_v1.py
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


# Copied from senet/se_resnet.py
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


# Copied from inception/inception_v1.py
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


# Copied from inception/inception_v1.py
def max_pooling(x):
    """3x3 max pooling that halves: (N, H, W, C) -> (N, H / 2, W / 2, C), rounded down."""
    if any(size is not None and size < 2 for size in x.shape[1:3]):
        raise ValueError(f"the input is too small: feature maps of {x.shape[1:3]} cannot be halved")
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)  # as Caffe; after ReLU zero is the smallest value and never wins
    return layers.MaxPooling2D(3, strides=2)(x)


# Copied from inception/inception_v1.py
def local_response_normalization(x, size=5, alpha=1e-4, beta=0.75):
    """Divide by (1 + alpha m)^beta, m the mean square of a feature map and its neighbours: (N, H, W, C) throughout.

    Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 3.3, in the form
    and with the figures of bvlc_googlenet: 1 for their k, and the mean for their sum.
    """
    squares = ops.pad(ops.square(x), ((0, 0), (0, 0), (0, 0), (size // 2, size // 2)))  # (N, H, W, C + size - 1)
    mean = sum(squares[..., i : i + x.shape[-1]] for i in range(size)) / size
    return x / (1 + alpha * mean) ** beta


# Copied from inception/inception_v1.py
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

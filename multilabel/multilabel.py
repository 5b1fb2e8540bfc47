"""A small ResNet with several answers: one class of each of several groups, or every class that an image shows.

Backbone: stem and learner of He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385,
section 4.2. The heads are of no single paper: several softmax layers on one backbone are multi-task learning (Caruana
1997, "Multitask Learning"), independent sigmoids the usual form of multi-label classification.

    multilabel_resnet14_wide_cifar10
    stem          ( 32,  32,   3) -> ( 16,  16,  32)   3x3 convolution and 3x3 max pooling, strided
    group 1       ( 16,  16,  32) -> ( 16,  16,  32)   2 blocks
    group 2       ( 16,  16,  32) -> (  8,   8,  64)   2 blocks, the first strided
    group 3       (  8,   8,  64) -> (  4,   4, 128)   2 blocks, the first strided
    classifier    (  4,   4, 128) -> (10,), (3,), (2,)   kind, realm, alive

    multilabel_resnet20_cifar10
    stem          ( 32,  32,   3) -> ( 32,  32,  16)   3x3 convolution
    group 1       ( 32,  32,  16) -> ( 32,  32,  16)   3 blocks
    group 2       ( 32,  32,  16) -> ( 16,  16,  32)   3 blocks, the first strided
    group 3       ( 16,  16,  32) -> (  8,   8,  64)   3 blocks, the first strided
    classifier    (  8,   8,  64) -> (10,), (3,), (2,)   kind, realm, alive

Trainable parameters with these three outputs: multilabel_resnet14_wide_cifar10 697,263, multilabel_resnet20_cifar10
272,799; with ten sigmoids 696,618 and 272,474, as many as the same ResNet with a softmax of ten.
Differs from the paper: the heads; the shortcut that changes shape is a 1x1 convolution (option B), not zero padding;
and resnet14_wide is not in it (see resnet/resnet_basic.py).
"""

from keras import Input, Model, layers, ops

METAPARAMETERS = {
    "multilabel_resnet14_wide_cifar10": {
        "stem": {"n_filters": 32, "kernel_size": 3, "strides": 1, "pooling": True},
        "groups": (
            {"n_filters": 32, "n_blocks": 2}, {"n_filters": 64, "n_blocks": 2}, {"n_filters": 128, "n_blocks": 2},
        ),
    },
    "multilabel_resnet20_cifar10": {
        "stem": {"n_filters": 16, "kernel_size": 3, "strides": 1, "pooling": False},
        "groups": (
            {"n_filters": 16, "n_blocks": 3}, {"n_filters": 32, "n_blocks": 3}, {"n_filters": 64, "n_blocks": 3},
        ),
    },
}


def build(metaparameters, input_shape=(32, 32, 3), classes=None):
    """Connect stem, learner and a head: images (N, H, W, C) in, the probabilities of each answer out.

    Args:
        metaparameters: a value of METAPARAMETERS or a dictionary of one's own: `groups`, a tuple of
            {"n_filters", "n_blocks"}, and perhaps `stem`, a dictionary of the arguments of `stem`.
        input_shape: (H, W, C); the stem divides H and W by its strides and, with a pooling, by 2 (so by 4, if it is not
            given), every group but the first by 2.
        classes: the sizes of the groups of classes by name, such as {"kind": 10, "realm": 3, "alive": 2}, the default,
            of which an image has one class each; or a number of classes, of which it may have any.

    Returns:
        A `keras.Model`, whose outputs are a dictionary {name: (N, size of the group)}, each row of sum 1, or one tensor
        (N, number of classes), each value of it from 0 to 1 by itself.

    Raises:
        ValueError: metaparameters, input_shape or classes cannot make a network.
    """
    check(metaparameters, ("groups",), ("stem",))
    check(metaparameters.get("stem", {}), (), ("n_filters", "kernel_size", "strides", "pooling"))
    for group_metaparameters in metaparameters["groups"]:
        check(group_metaparameters, ("n_filters", "n_blocks"))
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not input_shape[2]:
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape}")
    if classes is None:
        classes = {"kind": 10, "realm": 3, "alive": 2}

    inputs = Input(input_shape)
    x = stem(inputs, **metaparameters.get("stem", {}))
    x = learner(x, metaparameters["groups"])
    outputs = classifier(x, classes) if isinstance(classes, dict) else multi_hot_classifier(x, classes)
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


# Copied from resnet/resnet_basic.py
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


# Copied from resnet/resnet_basic.py
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


# Copied from resnet/resnet_basic.py
def identity_block(x, n_filters):
    """Two 3x3 convolutions beside an identity shortcut: (N, H, W, n_filters) throughout. Figure 5, left."""
    residual = x
    x = layers.ReLU()(conv_bn(x, n_filters, 3))
    x = conv_bn(x, n_filters, 3)
    x = layers.Add()([residual, x])
    return layers.ReLU()(x)


# Copied from resnet/resnet_basic.py
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


def classifier(x, classes):
    """The mean of each feature map, then one dense layer for each group of classes, side by side.

    Each of them is a classifier of its own, a softmax; what they share is everything before it, which their losses
    train together.

    Args:
        x: feature maps (N, H, W, C).
        classes: {name of the group: how many classes it has, at least 2}.

    Returns:
        {name of the group: class probabilities (N, how many)}.

    Raises:
        ValueError: classes is no such dictionary.
    """
    if not isinstance(classes, dict) or not classes or not all(isinstance(name, str) and name for name in classes):
        raise ValueError(f"classes must be a dictionary {{name: number of classes}}, got {classes!r}")
    for name, n_classes in classes.items():
        if not isinstance(n_classes, int) or n_classes < 2:
            raise ValueError(f"classes of {name} must be a whole number of at least 2, got {n_classes!r}")
    x = layers.GlobalAveragePooling2D()(x)  # (N, C)
    return {
        name: layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal", name=name)(x)
        for name, n_classes in classes.items()
    }


def multi_hot_classifier(x, n_classes):
    """The mean of each feature map, then a sigmoid for each class by itself: (N, H, W, C) -> (N, n_classes).

    Where a softmax spreads a sum of 1 over the classes, a sigmoid answers yes or no to each: is this class there? The
    targets are multi-hot, 1 for each class that is there, and the loss is the binary cross-entropy.

    Raises:
        ValueError: n_classes is not a whole number of at least 2.
    """
    if not isinstance(n_classes, int) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")
    x = layers.GlobalAveragePooling2D()(x)  # (N, C)
    return layers.Dense(n_classes, activation="sigmoid", kernel_initializer="he_normal")(x)


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

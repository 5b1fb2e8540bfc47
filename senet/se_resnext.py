"""SE-ResNeXt-50 and 101: ResNeXts that weigh their feature maps, in two forms of their grouped convolution.

Paper: Hu et al. 2018, "Squeeze-and-Excitation Networks", arXiv:1709.01507, figure 1, section 3 and table 1; the
networks inside are those of Xie et al. 2017, arXiv:1611.05431, table 1 and figure 3.

    se_resnext50_32x4d
    stem          (224, 224,    3) -> ( 56,  56,   64)   7x7 convolution and 3x3 max pooling, both strided
    group 1       ( 56,  56,   64) -> ( 56,  56,  256)   3 blocks
    group 2       ( 56,  56,  256) -> ( 28,  28,  512)   4 blocks, the first strided
    group 3       ( 28,  28,  512) -> ( 14,  14, 1024)   6 blocks, the first strided
    group 4       ( 14,  14, 1024) -> (  7,   7, 2048)   3 blocks, the first strided
    classifier    (  7,   7, 2048) -> (1000,)

Trainable parameters: se_resnext50_32x4d 27,559,896, se_resnext101_32x4d 48,955,416.
Differs from the paper: its formula (section 3.2) has no biases, and section 6 finds ResNets better without; the dense
layers here have them, as those of the authors' models (hujie-frank/SENet), which stride, as here, in the 3x3
convolution, but pool without padding.
"""

from keras import Input, Model, layers, ops

# n_filters are those of all branches together: cardinality times the "d" of the name, doubled from group to group.
METAPARAMETERS = {
    "se_resnext50_32x4d": {"cardinality": 32, "groups": (
        {"n_filters": 128, "n_filters_out": 256, "n_blocks": 3},
        {"n_filters": 256, "n_filters_out": 512, "n_blocks": 4},
        {"n_filters": 512, "n_filters_out": 1024, "n_blocks": 6},
        {"n_filters": 1024, "n_filters_out": 2048, "n_blocks": 3},
    )},
    "se_resnext101_32x4d": {"cardinality": 32, "groups": (
        {"n_filters": 128, "n_filters_out": 256, "n_blocks": 3},
        {"n_filters": 256, "n_filters_out": 512, "n_blocks": 4},
        {"n_filters": 512, "n_filters_out": 1024, "n_blocks": 23},
        {"n_filters": 1024, "n_filters_out": 2048, "n_blocks": 3},
    )},
}


def build(metaparameters, input_shape=(224, 224, 3), n_classes=1000):
    """Connect stem, learner and classifier: images (N, H, W, C) in, class probabilities (N, n_classes) out.

    Args:
        metaparameters: a value of METAPARAMETERS or a dictionary of one's own: `groups`, a tuple of
            {"n_filters", "n_filters_out", "n_blocks"}, `cardinality`, the number of branches, and perhaps
            `convolution`, "split_transform_merge" or "grouped_convolution", the form that the branches take, `ratio`
            (16), C feature maps get a narrow dense layer of C / ratio units, and `stem`, a dictionary of the
            arguments of `stem`.
        input_shape: (H, W, C); the ImageNet stem divides H and W by 4, every group but the first by 2.
        n_classes: how many classes, at least 2.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: metaparameters, input_shape or n_classes cannot make a network.
    """
    check(metaparameters, ("groups", "cardinality"), ("convolution", "ratio", "stem"))
    check(metaparameters.get("stem", {}), (), ("n_filters", "kernel_size", "strides", "pooling"))
    for group_metaparameters in metaparameters["groups"]:
        check(group_metaparameters, ("n_filters", "n_filters_out", "n_blocks"))
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


def learner(x, groups, cardinality, ratio=16, convolution="split_transform_merge"):
    """The groups in a row; every group but the first halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_filters", "n_filters_out", "n_blocks"}.
        cardinality: how many branches the 3x3 convolutions have.
        ratio: C feature maps get a narrow dense layer of C / ratio units.
        convolution: "split_transform_merge" or "grouped_convolution".

    Returns:
        Feature maps (N, H / 2^(groups - 1), W / 2^(groups - 1), n_filters_out of the last group), ready for any head.
    """
    first, *rest = groups
    x = group(x, **first, cardinality=cardinality, strides=1, ratio=ratio, convolution=convolution)
    for metaparameters in rest:
        x = group(x, **metaparameters, cardinality=cardinality, strides=2, ratio=ratio, convolution=convolution)
    return x


def group(x, n_filters, n_filters_out, n_blocks, cardinality, strides=2, ratio=16, convolution="split_transform_merge"):
    """A projection block, then identity blocks: (N, H, W, C) -> (N, H / strides, W / strides, n_filters_out).

    Unlike that of resnext.py its blocks weigh their feature maps.
    """
    if n_blocks < 1:
        raise ValueError(f"n_blocks must be at least 1, got {n_blocks}")
    x = projection_block(x, n_filters, n_filters_out, cardinality, strides, ratio, convolution)
    for _ in range(n_blocks - 1):  # the projection block was the first of them
        x = identity_block(x, n_filters, cardinality, ratio, convolution)
    return x


def identity_block(x, n_filters, cardinality, ratio=16, convolution="split_transform_merge"):
    """1x1, 3x3 in branches, 1x1, squeeze-excitation beside an identity shortcut: (N, H, W, C) throughout.

    Unlike that of resnext.py it weighs its feature maps before it adds them.
    """
    residual = x
    x = layers.ReLU()(conv_bn(x, n_filters, 1))  # (N, H, W, n_filters)
    x = layers.ReLU()(branches_bn(x, cardinality, 1, convolution))
    x = conv_bn(x, residual.shape[-1], 1)
    x = se_block(x, ratio)
    x = layers.Add()([residual, x])
    return layers.ReLU()(x)


def projection_block(
    x, n_filters, n_filters_out, cardinality, strides=2, ratio=16, convolution="split_transform_merge"
):
    """1x1, 3x3 in branches, 1x1, squeeze-excitation beside a shortcut that a 1x1 convolution brings to the new shape.

    Unlike that of resnext.py it weighs its feature maps before it adds them; the shortcut is not weighed.

    Args:
        x: feature maps (N, H, W, C).
        n_filters: filters of the first 1x1 convolution, and of all branches together.
        n_filters_out: filters of the last 1x1 convolution and of the shortcut.
        cardinality: how many branches.
        strides: by how much the 3x3 convolutions divide height and width.
        ratio: C feature maps get a narrow dense layer of C / ratio units.
        convolution: "split_transform_merge" or "grouped_convolution".

    Returns:
        Feature maps (N, H / strides, W / strides, n_filters_out).
    """
    residual = conv_bn(x, n_filters_out, 1, strides)
    x = layers.ReLU()(conv_bn(x, n_filters, 1))  # (N, H, W, n_filters)
    x = layers.ReLU()(branches_bn(x, cardinality, strides, convolution))  # (N, H / strides, W / strides, n_filters)
    x = conv_bn(x, n_filters_out, 1)
    x = se_block(x, ratio)
    x = layers.Add()([residual, x])
    return layers.ReLU()(x)


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


# Copied from resnext/resnext.py
def branches_bn(x, cardinality, strides=1, convolution="split_transform_merge"):
    """3x3 convolutions, each of its own share of the feature maps, and batch normalization.

    (N, H, W, C) -> (N, H / strides, W / strides, C).

    Raises:
        ValueError: C is not divisible by the cardinality, or convolution is neither of its two values.
    """
    if convolution == "split_transform_merge":
        x = split_transform_merge(x, cardinality, strides)
    elif convolution == "grouped_convolution":
        x = grouped_convolution(x, cardinality, strides)
    else:
        allowed = '"split_transform_merge" or "grouped_convolution"'
        raise ValueError(f"convolution must be {allowed}, got {convolution!r}")
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


# Copied from resnext/resnext.py
def split_transform_merge(x, cardinality, strides=1):
    """The branches one by one: (N, H, W, C) -> (N, H / strides, W / strides, C). Figure 3b.

    By far the faster form to train on a CPU. In the figure each branch begins with a 1x1 convolution of its own; in
    the blocks these are one, whose feature maps are sliced here: the same function.
    """
    check_cardinality(x, cardinality)
    n_filters = x.shape[-1] // cardinality
    x = layers.ZeroPadding2D(1)(x)  # "same" would pad the bottom and the right only when it strides
    branches = [
        layers.Conv2D(n_filters, 3, strides, use_bias=False, kernel_initializer="he_normal")(branch)
        for branch in ops.split(x, cardinality, axis=-1)  # cardinality times (N, H + 2, W + 2, C / cardinality)
    ]
    return ops.concatenate(branches, axis=-1)


# Copied from resnext/resnext.py
def grouped_convolution(x, cardinality, strides=1):
    """The branches in one layer: (N, H, W, C) -> (N, H / strides, W / strides, C). Figure 3c.

    Meant for a GPU. Its kernel is the branches' kernels side by side.
    """
    check_cardinality(x, cardinality)
    n_filters = x.shape[-1]
    x = layers.ZeroPadding2D(1)(x)
    return layers.Conv2D(n_filters, 3, strides, groups=cardinality, use_bias=False, kernel_initializer="he_normal")(x)


# Copied from resnext/resnext.py
def check_cardinality(x, cardinality):
    """Raise ValueError unless the feature maps (N, H, W, C) can be divided among as many branches."""
    if not isinstance(cardinality, int) or cardinality < 1:
        raise ValueError(f"cardinality must be a whole number of at least 1, got {cardinality!r}")
    if x.shape[-1] % cardinality:
        raise ValueError(f"n_filters must be divisible by the cardinality {cardinality}, got {x.shape[-1]}")


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

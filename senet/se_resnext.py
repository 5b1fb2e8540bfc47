"""SE-ResNeXt-50 and 101: ResNeXts with squeeze-excitation, and two equivalent forms of the grouped convolution.

Paper: Hu et al. 2018, "Squeeze-and-Excitation Networks", arXiv:1709.01507, figure 1, section 3 and table 1; the
ResNeXts are those of Xie et al. 2017, arXiv:1611.05431, table 1 and figure 3.

    se_resnext50_32x4d
    stem          (224, 224,    3) -> ( 56,  56,   64)   7x7 convolution and 3x3 max pooling, both strided
    group 1       ( 56,  56,   64) -> ( 56,  56,  256)   3 blocks
    group 2       ( 56,  56,  256) -> ( 28,  28,  512)   4 blocks, the first strided
    group 3       ( 28,  28,  512) -> ( 14,  14, 1024)   6 blocks, the first strided
    group 4       ( 14,  14, 1024) -> (  7,   7, 2048)   3 blocks, the first strided
    classifier    (  7,   7, 2048) -> (1000,)

Trainable parameters: se_resnext50_32x4d 27,559,896, se_resnext101_32x4d 48,955,416.
Differs from the paper: the dense layers of the squeeze-excitation have biases, as in the authors' models
(hujie-frank/SENet); the formula in section 3.2 has none, and section 6 leaves them out of its ResNets. The authors'
models stride in the 3x3 convolution, as here, but pool without padding.
"""

import inspect
from numbers import Integral

from keras import Input, Model, config, layers, ops

# n_filters counts all branches together: cardinality times the "d" of the name, doubled from group to group.
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
    """Return an SE-ResNeXt as a `keras.Model`: images (N, H, W, C) to class probabilities (N, n_classes).

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of
            {"n_filters", "n_filters_out", "n_blocks"}, `cardinality`, and optionally `ratio` and `convolution`,
            arguments of `learner`, and `stem`, a dictionary of the arguments of `stem`.
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
            inspect.signature(group).bind(None, **in_group, cardinality=1, strides=1, ratio=1, convolution=None)
        sizes = [n for in_group in groups for n in in_group.values()]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    of_stem.apply_defaults()
    of_learner.apply_defaults()
    _, n_filters, kernel_size, strides, pooling = of_stem.args
    _, _, cardinality, ratio, convolution = of_learner.args
    if not all(isinstance(n, Integral) and n > 0 for n in [n_filters, kernel_size, strides, *sizes]):
        raise ValueError(f"filters, blocks, kernel_size and strides must be whole and at least 1, got {metaparameters}")
    if strides > 1 and kernel_size % 2 == 0:
        raise ValueError(f"kernel_size of the stem must be odd where strides are above 1, got {kernel_size}")
    widths = [in_group["n_filters"] for in_group in groups]
    if not isinstance(cardinality, Integral) or cardinality < 1 or any(n % cardinality for n in widths):
        raise ValueError(f"cardinality must be a whole number that divides n_filters, {widths}, got {cardinality!r}")
    narrowest = min(in_group["n_filters_out"] for in_group in groups)
    if not isinstance(ratio, Integral) or not 1 <= ratio <= narrowest:
        raise ValueError(f"ratio must be a whole number of 1 to {narrowest}, the fewest feature maps, got {ratio!r}")
    if convolution not in ("split_transform_merge", "grouped_convolution"):
        raise ValueError(f'convolution must be "split_transform_merge" or "grouped_convolution", got {convolution!r}')
    if not isinstance(pooling, bool):
        raise ValueError(f"pooling of the stem must be True or False, got {pooling!r}")
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
    x = learner(x, groups, int(cardinality), int(ratio), convolution)
    outputs = classifier(x, int(n_classes))
    stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "classifier"]
    return named_by_stage(inputs, outputs, stages)


# Copied from resnet/resnet_basic.py
def stem(inputs, n_filters=64, kernel_size=7, strides=2, pooling=True):
    """A convolution and, with pooling, a max pooling: by default (N, H, W, C) -> (N, H / 4, W / 4, n_filters).

    The paper's CIFAR-10 stem is a 3x3 convolution without strides or pooling: (N, H, W, C) -> (N, H, W, n_filters).
    """
    x = conv_bn_relu(inputs, n_filters, kernel_size, strides)
    if pooling:
        x = layers.ZeroPadding2D(1)(x)  # after ReLU no value is below zero, so the padding never is the maximum
        x = layers.MaxPooling2D(3, strides=2)(x)
    return layers.Identity()(x)  # marks the end of the stem


def learner(x, groups, cardinality, ratio=16, convolution="split_transform_merge"):
    """The groups in a row; every group but the first halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_filters", "n_filters_out", "n_blocks"}.
        cardinality: the number of branches of each 3x3 convolution.
        ratio: for C feature maps the first dense layer of the squeeze-excitation has C / ratio units.
        convolution: "split_transform_merge" or "grouped_convolution", the form of the branches.

    Returns:
        Feature maps of n groups (N, H / 2^(n - 1), W / 2^(n - 1), n_filters_out of the last group), ready for any head.
    """
    first, *rest = groups
    x = group(x, **first, cardinality=cardinality, strides=1, ratio=ratio, convolution=convolution)
    for metaparameters in rest:
        x = group(x, **metaparameters, cardinality=cardinality, strides=2, ratio=ratio, convolution=convolution)
    return x


def group(x, n_filters, n_filters_out, n_blocks, cardinality, strides=2, ratio=16, convolution="split_transform_merge"):
    """A projection block, then identity blocks: (N, H, W, C) -> (N, H / strides, W / strides, n_filters_out)."""
    x = projection_block(x, n_filters, n_filters_out, cardinality, strides, ratio, convolution)
    for _ in range(n_blocks - 1):
        x = identity_block(x, n_filters, cardinality, ratio, convolution)
    return layers.Identity()(x)  # marks the end of the group


def identity_block(x, n_filters, cardinality, ratio=16, convolution="split_transform_merge"):
    """The bottleneck and squeeze-excitation beside an identity shortcut: (N, H, W, C) throughout.

    The bottleneck is 1x1, 3x3 in branches, 1x1, as in figure 3 of the ResNeXt paper.
    """
    shortcut = x
    x = conv_bn_relu(x, n_filters, 1)  # dimensionality reduction: (N, H, W, n_filters)
    x = branches_bn_relu(x, cardinality, 1, convolution)  # bottleneck convolution
    x = conv_bn(x, shortcut.shape[-1], 1)  # dimensionality restoration: (N, H, W, C)
    x = se_block(x, ratio)
    x = layers.Add()([shortcut, x])
    return layers.ReLU()(x)


def projection_block(
    x, n_filters, n_filters_out, cardinality, strides=2, ratio=16, convolution="split_transform_merge"
):
    """The bottleneck and squeeze-excitation beside a projection shortcut, which has no squeeze-excitation.

    Args:
        x: feature maps (N, H, W, C).
        n_filters: filters of the first 1x1 convolution, and of all branches of the 3x3 convolution together.
        n_filters_out: filters of the last 1x1 convolution and of the shortcut.
        cardinality: the number of branches.
        strides: height and width are divided by it, in the 3x3 convolution and in the shortcut.
        ratio: for C feature maps the first dense layer of the squeeze-excitation has C / ratio units.
        convolution: "split_transform_merge" or "grouped_convolution", the form of the branches.

    Returns:
        Feature maps (N, H / strides, W / strides, n_filters_out).
    """
    shortcut = conv_bn(x, n_filters_out, 1, strides)  # projection to the new shape
    x = conv_bn_relu(x, n_filters, 1)  # dimensionality reduction: (N, H, W, n_filters)
    x = branches_bn_relu(x, cardinality, strides, convolution)  # bottleneck convolution
    x = conv_bn(x, n_filters_out, 1)  # dimensionality restoration: (N, H / strides, W / strides, n_filters_out)
    x = se_block(x, ratio)
    x = layers.Add()([shortcut, x])
    return layers.ReLU()(x)


# Copied from senet/se_resnet.py
def se_block(x, ratio=16):
    """Scale each feature map by a weight computed from all of them: (N, H, W, C) throughout. Figure 1, section 3.

    Squeeze: each feature map is averaged. Excitation: two dense layers turn the C means into C weights between 0 and 1.
    Scale: each feature map is multiplied by its weight.

    Args:
        x: feature maps (N, H, W, C).
        ratio: the first dense layer has C / ratio units, rounded down.
    """
    n_filters = x.shape[-1]
    weights = layers.GlobalAveragePooling2D(keepdims=True)(x)  # squeeze: (N, 1, 1, C)
    weights = layers.Dense(n_filters // ratio, activation="relu", kernel_initializer="he_normal")(weights)  # excitation
    weights = layers.Dense(n_filters, activation="sigmoid")(weights)  # Glorot's initial weights: He's are for ReLU
    return layers.Multiply()([x, weights])  # scale


# Copied from resnext/resnext.py
def branches_bn_relu(x, cardinality, strides=1, convolution="split_transform_merge"):
    """3x3 convolution in branches, batch normalization and ReLU: (N, H, W, C) -> (N, H / strides, W / strides, C)."""
    forms = {"split_transform_merge": split_transform_merge, "grouped_convolution": grouped_convolution}
    x = forms[convolution](x, cardinality, strides)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)


# Copied from resnext/resnext.py
def split_transform_merge(x, cardinality, strides=1):
    """The branches one by one: (N, H, W, C) -> (N, H / strides, W / strides, C). ResNeXt, figure 3b.

    With TensorFlow on a CPU, much faster to train than grouped_convolution. In the figure each branch begins with its
    own 1x1 convolution; here one before the split makes the feature maps of all branches: the same function.
    """
    n_filters = x.shape[-1] // cardinality
    x = layers.ZeroPadding2D(1)(x)  # pad all sides alike; "same" pads less at the top and the left when it strides
    parts = ops.split(x, cardinality, axis=-1)  # split: each (N, H + 2, W + 2, C / cardinality)
    branches = [
        layers.Conv2D(n_filters, 3, strides, use_bias=False, kernel_initializer="he_normal")(part)  # transform
        for part in parts
    ]
    return ops.concatenate(branches, axis=-1)  # merge: (N, H / strides, W / strides, C)


# Copied from resnext/resnext.py
def grouped_convolution(x, cardinality, strides=1):
    """The branches in one layer: (N, H, W, C) -> (N, H / strides, W / strides, C). ResNeXt, figure 3c.

    The usual form on a GPU. Its kernel is the kernels of the branches side by side.
    """
    n_filters = x.shape[-1]
    x = layers.ZeroPadding2D(1)(x)  # pad all sides alike; "same" pads less at the top and the left when it strides
    return layers.Conv2D(n_filters, 3, strides, groups=cardinality, use_bias=False, kernel_initializer="he_normal")(x)


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

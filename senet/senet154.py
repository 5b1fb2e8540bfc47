"""SENet-154: a ResNeXt-152 64x4d with squeeze-excitation and a few changes, the largest network of the SENet paper.

Paper: Hu et al. 2018, "Squeeze-and-Excitation Networks", arXiv:1709.01507, section 3 and the appendix on SENet-154. It
was part of the ensemble with which the authors won ILSVRC 2017.

    senet154
    stem          (224, 224,    3) -> ( 56,  56,  128)   3x3 strided, 3x3, 3x3, max pooling
    group 1       ( 56,  56,  128) -> ( 56,  56,  256)   3 blocks
    group 2       ( 56,  56,  256) -> ( 28,  28,  512)   8 blocks, the first strided
    group 3       ( 28,  28,  512) -> ( 14,  14, 1024)   36 blocks, the first strided
    group 4       ( 14,  14, 1024) -> (  7,   7, 2048)   3 blocks, the first strided
    classifier    (  7,   7, 2048) -> (1000,)

Trainable parameters: senet154 115,088,984.
The changes from a ResNeXt-152: the stem has three 3x3 convolutions in place of the 7x7; the first 1x1 convolution of a
block has half the filters, so that the grouped 3x3 convolution widens; a projection that strides is 3x3, so that it
sees every pixel; dropout comes before the last dense layer. The 154 layers are 3 of the stem, 3 in each of the 50
blocks, and the classifier; those of shortcuts and squeeze-excitations are not counted.
Differs from the paper: the dense layers of the squeeze-excitation have biases, as in the authors' model
(hujie-frank/SENet, SENet-154.prototxt); the formula in section 3.2 has none.
"""

import inspect
from numbers import Integral

from keras import Input, Model, config, layers

METAPARAMETERS = {
    "senet154": {"cardinality": 64, "groups": (
        {"n_filters": 128, "n_filters_out": 256, "n_blocks": 3},
        {"n_filters": 256, "n_filters_out": 512, "n_blocks": 8},
        {"n_filters": 512, "n_filters_out": 1024, "n_blocks": 36},
        {"n_filters": 1024, "n_filters_out": 2048, "n_blocks": 3},
    )},
}


def build(metaparameters, input_shape=(224, 224, 3), n_classes=1000):
    """Return a SENet-154 as a `keras.Model`: images (N, H, W, C) to class probabilities (N, n_classes).

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of
            {"n_filters", "n_filters_out", "n_blocks"}, `cardinality`, and optionally `ratio`, arguments of `learner`,
            and `stem`, a dictionary of the arguments of `stem`.
        input_shape: (H, W, C), H and W None for any size; the stem divides them by 4, every group but the first by 2.
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
            inspect.signature(group).bind(None, **in_group, cardinality=1, strides=1, ratio=1)
        sizes = [n for in_group in groups for n in in_group.values()]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    of_stem.apply_defaults()
    of_learner.apply_defaults()
    _, n_filters, n_filters_out = of_stem.args
    _, _, cardinality, ratio = of_learner.args
    if not all(isinstance(n, Integral) and n > 0 for n in [n_filters, n_filters_out, *sizes]):
        raise ValueError(f"filters and blocks must be whole and at least 1, got {metaparameters}")
    widths = [in_group[name] for in_group in groups for name in ("n_filters", "n_filters_out")]
    if not isinstance(cardinality, Integral) or cardinality < 1 or any(n % cardinality for n in widths):
        raise ValueError(f"cardinality must be a whole number that divides all filters, {widths}, got {cardinality!r}")
    narrowest = min(in_group["n_filters_out"] for in_group in groups)
    if not isinstance(ratio, Integral) or not 1 <= ratio <= narrowest:
        raise ValueError(f"ratio must be a whole number of 1 to {narrowest}, the fewest feature maps, got {ratio!r}")
    if config.image_data_format() != "channels_last":
        raise ValueError("image_data_format must be channels_last, got channels_first (keras.json or keras.config)")
    is_shape = isinstance(input_shape, (tuple, list)) and len(input_shape) == 3 and input_shape[2]
    if not is_shape or not all(n is None or isinstance(n, Integral) and n >= 0 for n in input_shape):
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape!r}")
    smallest = 4 * 2 ** (len(groups) - 1)
    if any(size is not None and size < smallest for size in input_shape[:2]):
        raise ValueError(f"height and width must be at least {smallest}, got {input_shape[:2]}")
    if not isinstance(n_classes, Integral) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")

    inputs = Input(input_shape, name="images")
    x = stem(inputs, n_filters, n_filters_out)
    x = learner(x, groups, int(cardinality), int(ratio))
    outputs = classifier(x, int(n_classes))
    stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "classifier"]
    return named_by_stage(inputs, outputs, stages)


def stem(inputs, n_filters=64, n_filters_out=128):
    """Three 3x3 convolutions, the first strided, and a max pooling: (N, H, W, C) -> (N, H / 4, W / 4, n_filters_out).

    Args:
        inputs: images (N, H, W, C).
        n_filters: filters of the first two convolutions.
        n_filters_out: filters of the third.
    """
    x = conv_bn_relu(inputs, n_filters, 3, 2)  # (N, H / 2, W / 2, n_filters)
    x = conv_bn_relu(x, n_filters, 3)
    x = conv_bn_relu(x, n_filters_out, 3)  # (N, H / 2, W / 2, n_filters_out)
    x = max_pooling(x)
    return layers.Identity()(x)  # marks the end of the stem


def learner(x, groups, cardinality, ratio=16):
    """The groups in a row; every group but the first halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_filters", "n_filters_out", "n_blocks"}.
        cardinality: the number of branches of each grouped convolution.
        ratio: for C feature maps the first dense layer of the squeeze-excitation has C / ratio units.

    Returns:
        Feature maps of n groups (N, H / 2^(n - 1), W / 2^(n - 1), n_filters_out of the last group), ready for any head.
    """
    first, *rest = groups
    x = group(x, **first, cardinality=cardinality, strides=1, ratio=ratio)
    for metaparameters in rest:
        x = group(x, **metaparameters, cardinality=cardinality, strides=2, ratio=ratio)
    return x


def group(x, n_filters, n_filters_out, n_blocks, cardinality, strides=2, ratio=16):
    """A projection block, then identity blocks: (N, H, W, C) -> (N, H / strides, W / strides, n_filters_out)."""
    x = projection_block(x, n_filters, n_filters_out, cardinality, strides, ratio)
    for _ in range(n_blocks - 1):
        x = identity_block(x, n_filters, cardinality, ratio)
    return layers.Identity()(x)  # marks the end of the group


def identity_block(x, n_filters, cardinality, ratio=16):
    """1x1, grouped 3x3, 1x1 and squeeze-excitation beside an identity shortcut: (N, H, W, C) throughout."""
    shortcut = x
    x = conv_bn_relu(x, n_filters, 1)  # dimensionality reduction: (N, H, W, n_filters)
    x = grouped_bn_relu(x, shortcut.shape[-1], cardinality)  # bottleneck convolution, which widens: (N, H, W, C)
    x = conv_bn(x, shortcut.shape[-1], 1)  # mixes the feature maps of the groups
    x = se_block(x, ratio)
    x = layers.Add()([shortcut, x])
    return layers.ReLU()(x)


def projection_block(x, n_filters, n_filters_out, cardinality, strides=2, ratio=16):
    """1x1, grouped 3x3, 1x1 and squeeze-excitation beside a projection shortcut, which has no squeeze-excitation.

    Args:
        x: feature maps (N, H, W, C).
        n_filters: filters of the first 1x1 convolution.
        n_filters_out: filters of the grouped convolution, of the last 1x1 convolution and of the shortcut.
        cardinality: the number of groups of the grouped convolution.
        strides: height and width are divided by it, in the grouped convolution and in the shortcut.
        ratio: for C feature maps the first dense layer of the squeeze-excitation has C / ratio units.

    Returns:
        Feature maps (N, H / strides, W / strides, n_filters_out).
    """
    shortcut = conv_bn(x, n_filters_out, 3 if strides > 1 else 1, strides)  # projection to the new shape
    x = conv_bn_relu(x, n_filters, 1)  # dimensionality reduction: (N, H, W, n_filters)
    x = grouped_bn_relu(x, n_filters_out, cardinality, strides)  # bottleneck convolution, which widens
    x = conv_bn(x, n_filters_out, 1)  # mixes the feature maps of the groups
    x = se_block(x, ratio)
    x = layers.Add()([shortcut, x])
    return layers.ReLU()(x)


def grouped_bn_relu(x, n_filters, cardinality, strides=1):
    """Grouped 3x3 convolution, batch normalization, ReLU: (N, H, W, C) -> (N, H / strides, W / strides, n_filters).

    Each group makes n_filters / cardinality feature maps from C / cardinality; on a CPU this is slow.
    """
    x = layers.ZeroPadding2D(1)(x)  # pad all sides alike; "same" pads less at the top and the left when it strides
    x = layers.Conv2D(n_filters, 3, strides, groups=cardinality, use_bias=False, kernel_initializer="he_normal")(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)


def classifier(x, n_classes, dropout=0.2):
    """The mean of each feature map, dropout, a dense layer: (N, H, W, C) -> class probabilities (N, n_classes)."""
    x = layers.GlobalAveragePooling2D()(x)  # (N, C)
    x = layers.Dropout(dropout)(x)
    # In float32 under a policy of half precision too, which would round probabilities and their loss.
    return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal", dtype="float32")(x)


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


# Copied from inception/inception_v1.py
def max_pooling(x):
    """3x3 max pooling with strides 2, windows as in Caffe: (N, H, W, C) -> (N, H / 2, W / 2, C), rounded down."""
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)  # no value is below zero, so the padding never is the maximum
    return layers.MaxPooling2D(3, strides=2)(x)


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

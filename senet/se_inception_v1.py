"""SE-Inception v1: GoogLeNet with squeeze-excitation after every block, with and without batch normalization.

Paper: Hu et al. 2018, "Squeeze-and-Excitation Networks", arXiv:1709.01507, figures 1 and 2, section 3; the Inception
network is that of Szegedy et al. 2014, arXiv:1409.4842, table 1 and figures 2b and 3.

    se_inception_v1
    stem          (224, 224,    3) -> ( 28,  28,  192)   7x7 strided, max pooling, 1x1, 3x3, max pooling
    group 1       ( 28,  28,  192) -> ( 14,  14,  480)   blocks 3a and 3b, max pooling
    group 2       ( 14,  14,  480) -> (  7,   7,  832)   blocks 4a to 4e, max pooling
    group 3       (  7,   7,  832) -> (  7,   7, 1024)   blocks 5a and 5b
    classifier    (  7,   7, 1024) -> (1000,)

Trainable parameters: se_inception_v1 7,478,655, se_inception_v1_bn 7,485,935.
Differs from the paper: its Inception network is BN-Inception (Ioffe and Szegedy 2015, arXiv:1502.03167), whose blocks
have two 3x3 convolutions in place of the 5x5, other poolings and other sizes; this is the network of 2014, without
auxiliary classifiers. The dense layers of the squeeze-excitation have biases, as in the authors' models
(hujie-frank/SENet); the formula in section 3.2 has none. The initial weights are He-normal, Glorot-uniform before the
sigmoids.
"""

import inspect
from numbers import Integral

from keras import Input, Model, config, layers, ops

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
    """Return an SE-Inception v1 as a `keras.Model`: images (N, H, W, C) to class probabilities (N, n_classes).

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of tuples of blocks
            {"n_1x1", "n_3x3_reduce", "n_3x3", "n_5x5_reduce", "n_5x5", "n_pool"}, and optionally `ratio` and
            `batch_normalization`, arguments of `learner`, and `stem`, a dictionary of the arguments of `stem`.
        input_shape: (H, W, C), H and W None for any size; the ImageNet stem divides them by 8, every group but the
            last by 2.
        n_classes: at least 2.

    Raises:
        ValueError: metaparameters, input_shape or n_classes are invalid.
    """
    if not isinstance(metaparameters, dict) or not metaparameters.get("groups"):
        raise ValueError(f"metaparameters must be a dictionary with groups, got {metaparameters!r}")
    groups = metaparameters["groups"]
    in_learner = {name: value for name, value in metaparameters.items() if name != "stem"}
    in_stem = {name: value for name, value in in_learner.items() if name == "batch_normalization"}
    try:
        of_stem = inspect.signature(stem).bind(None, **(in_stem | metaparameters.get("stem", {})))
        of_learner = inspect.signature(learner).bind(None, **in_learner)
        in_blocks = [in_block for blocks in groups for in_block in blocks]
        for in_block in in_blocks:
            inspect.signature(inception_block).bind(None, **in_block, batch_normalization=False)
        sizes = [n for in_block in in_blocks for n in in_block.values()]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    of_stem.apply_defaults()
    of_learner.apply_defaults()
    _, n_filters, n_filters_out, kernel_size, strides, pooling, batch_normalization = of_stem.args
    ratio = of_learner.arguments["ratio"]
    if not all(isinstance(n, Integral) and n > 0 for n in [n_filters, n_filters_out, kernel_size, strides, *sizes]):
        raise ValueError(f"filters, kernel_size and strides must be whole and at least 1, got {metaparameters}")
    if not all(groups):
        raise ValueError(f"a group must be a tuple of at least one block, got {metaparameters}")
    widths = [in_block["n_1x1"] + in_block["n_3x3"] + in_block["n_5x5"] + in_block["n_pool"] for in_block in in_blocks]
    if not isinstance(ratio, Integral) or not 1 <= ratio <= min(widths):
        raise ValueError(f"ratio must be a whole number of 1 to {min(widths)}, the fewest feature maps, got {ratio!r}")
    if config.image_data_format() != "channels_last":
        raise ValueError("image_data_format must be channels_last, got channels_first (keras.json or keras.config)")
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not input_shape[2]:
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape!r}")
    smallest = strides * (4 if pooling else 2) * 2 ** (len(groups) - 1)
    if any(size is not None and size < smallest for size in input_shape[:2]):
        raise ValueError(f"height and width must be at least {smallest}, got {input_shape[:2]}")
    if not isinstance(n_classes, Integral) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")

    inputs = Input(input_shape, name="images")
    x = stem(inputs, n_filters, n_filters_out, int(kernel_size), int(strides), pooling, batch_normalization)
    x = learner(x, **(in_learner | {"ratio": int(ratio)}))
    outputs = classifier(x, int(n_classes))
    stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "classifier"]
    return named_by_stage(inputs, outputs, stages)


# Copied from inception/inception_v1.py
def stem(inputs, n_filters=64, n_filters_out=192, kernel_size=7, strides=2, pooling=True, batch_normalization=False):
    """Strided convolution, max pooling, 1x1, 3x3, max pooling: (N, H, W, C) -> (N, H / 8, W / 8, n_filters_out).

    The CIFAR-10 stem has a 3x3 convolution without strides and no second pooling: to (N, H / 2, W / 2, n_filters_out).

    Args:
        inputs: images (N, H, W, C).
        n_filters: filters of the first two convolutions.
        n_filters_out: filters of the third.
        kernel_size, strides: of the first convolution.
        pooling: whether a second max pooling ends the stem.
        batch_normalization: whether batch normalization follows each convolution; if not, local response
            normalization follows the first pooling and the last convolution.
    """
    x = conv_relu(inputs, n_filters, kernel_size, strides, batch_normalization)
    x = max_pooling(x)
    if not batch_normalization:
        x = local_response_normalization(x)
    x = conv_relu(x, n_filters, 1, batch_normalization=batch_normalization)
    x = conv_relu(x, n_filters_out, 3, batch_normalization=batch_normalization)
    if not batch_normalization:
        x = local_response_normalization(x)
    if pooling:
        x = max_pooling(x)
    return layers.Identity()(x)  # marks the end of the stem


def learner(x, groups, ratio=16, batch_normalization=False):
    """The groups in a row; every group but the last halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of tuples of blocks.
        ratio: for C feature maps the first dense layer of the squeeze-excitation has C / ratio units.
        batch_normalization: whether batch normalization follows each convolution.

    Returns:
        Feature maps (N, H / 2^(groups - 1), W / 2^(groups - 1), filters of the last block), ready for any head.
    """
    for i, blocks in enumerate(groups, start=1):
        x = group(x, blocks, ratio, i < len(groups), batch_normalization)
    return x


def group(x, blocks, ratio=16, pooling=True, batch_normalization=False):
    """Inception blocks, each with squeeze-excitation, then a 3x3 max pooling, which halves height and width. Figure 2.

    Args:
        x: feature maps (N, H, W, C).
        blocks: a tuple of the arguments of `inception_block`.
        ratio: for C feature maps the first dense layer of the squeeze-excitation has C / ratio units.
        pooling: whether max pooling ends the group; the last group has none.
        batch_normalization: whether batch normalization follows each convolution.

    Returns:
        Feature maps (N, H / 2, W / 2, filters of the last block).
    """
    for metaparameters in blocks:
        x = inception_block(x, **metaparameters, batch_normalization=batch_normalization)
        x = se_block(x, ratio)
    if pooling:
        x = max_pooling(x)
    return layers.Identity()(x)  # marks the end of the group


# Copied from inception/inception_v1.py
def inception_block(x, n_1x1, n_3x3_reduce, n_3x3, n_5x5_reduce, n_5x5, n_pool, batch_normalization=False):
    """Four branches side by side: (N, H, W, C) -> (N, H, W, n_1x1 + n_3x3 + n_5x5 + n_pool). Figure 2b."""
    branch_1x1 = conv_relu(x, n_1x1, 1, batch_normalization=batch_normalization)  # 1x1 branch
    branch_3x3 = conv_relu(x, n_3x3_reduce, 1, batch_normalization=batch_normalization)  # dimensionality reduction
    branch_3x3 = conv_relu(branch_3x3, n_3x3, 3, batch_normalization=batch_normalization)  # 3x3 branch
    branch_5x5 = conv_relu(x, n_5x5_reduce, 1, batch_normalization=batch_normalization)  # dimensionality reduction
    branch_5x5 = conv_relu(branch_5x5, n_5x5, 5, batch_normalization=batch_normalization)  # 5x5 branch
    branch_pool = layers.MaxPooling2D(3, strides=1, padding="same")(x)
    branch_pool = conv_relu(branch_pool, n_pool, 1, batch_normalization=batch_normalization)  # pooling branch
    return layers.Concatenate()([branch_1x1, branch_3x3, branch_5x5, branch_pool])


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
def conv_relu(x, n_filters, kernel_size, strides=1, batch_normalization=False):
    """Convolution, optionally batch normalization, and ReLU: (N, H, W, C) -> (N, H / strides, W / strides, n_filters).

    Where batch normalization follows, the convolution has no bias.
    """
    padding = "same"
    if strides > 1:  # pad all sides alike; "same" pads less at the top and the left (7x7: 2, and 3 opposite)
        x = layers.ZeroPadding2D(kernel_size // 2)(x)
        padding = "valid"
    use_bias = not batch_normalization
    x = layers.Conv2D(n_filters, kernel_size, strides, padding, use_bias=use_bias, kernel_initializer="he_normal")(x)
    if batch_normalization:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-3)(x)  # epsilon as in torchvision
    return layers.ReLU()(x)


# Copied from inception/inception_v1.py
def max_pooling(x):
    """3x3 max pooling with strides 2, padded as Caffe pads it: (N, H, W, C) -> (N, H / 2, W / 2, C), rounded down."""
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)  # no value is below zero, so the padding never is the maximum
    return layers.MaxPooling2D(3, strides=2)(x)


# Copied from inception/inception_v1.py
def local_response_normalization(x, size=5, alpha=1e-4, beta=0.75):
    """Divide by (1 + alpha m)^beta, m the mean square of a feature map and its neighbours: (N, H, W, C) throughout.

    Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 3.3, with the
    constants of bvlc_googlenet, where k is 1 and the sum is a mean.
    """
    squares = ops.pad(ops.square(x), ((0, 0), (0, 0), (0, 0), (size // 2, size // 2)))  # (N, H, W, C + size - 1)
    mean = sum(squares[..., i : i + x.shape[-1]] for i in range(size)) / size
    return x / (1 + alpha * mean) ** beta


# Copied from inception/inception_v1.py
def classifier(x, n_classes, dropout=0.4):
    """The mean of each feature map, dropout, a dense layer: (N, H, W, C) -> class probabilities (N, n_classes)."""
    x = layers.GlobalAveragePooling2D()(x)  # (N, C)
    x = layers.Dropout(dropout)(x)
    return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal")(x)


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
        if isinstance(operation, layers.Identity):
            operation.name, stage, i = stage, next(names), 0
        else:
            i += 1
            operation.name = f"{stage}_{i}"
    return Model(inputs, outputs)

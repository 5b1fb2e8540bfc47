"""Inception v2 (BN-Inception), with batch normalization and without 5x5 convolutions, and a size for 32x32 images.

Paper: Ioffe and Szegedy 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
Shift", arXiv:1502.03167, section 4.2 and figure 5. As there, it has no dropout and no auxiliary classifiers.

    inception_v2
    stem          (224, 224,    3) -> ( 28,  28,  192)   7x7 strided, max pooling, 1x1, 3x3, max pooling
    group 1       ( 28,  28,  192) -> ( 14,  14,  576)   blocks 3a and 3b, grid reduction 3c
    group 2       ( 14,  14,  576) -> (  7,   7, 1056)   blocks 4a to 4d, grid reduction 4e
    group 3       (  7,   7, 1056) -> (  7,   7, 1024)   blocks 5a and 5b
    classifier    (  7,   7, 1024) -> (1000,)

    inception_v2_cifar10
    stem          ( 32,  32,   3) -> ( 16,  16,  48)   3x3, max pooling, 1x1, 3x3
    group 1       ( 16,  16,  48) -> (  8,   8, 144)   block 3b, grid reduction 3c
    group 2       (  8,   8, 144) -> (  4,   4, 264)   blocks 4a, 4c and 4d, grid reduction 4e
    group 3       (  4,   4, 264) -> (  4,   4, 256)   blocks 5a and 5b
    classifier    (  4,   4, 256) -> (10,)

Trainable parameters: inception_v2 11,285,224, inception_v2_cifar10 590,618.
Differs from the paper: this is the network as released for Caffe (Cadene/pretrained-models.pytorch, bninception.py).
Its first convolution is a plain 7x7; the paper's is separable, with depth multiplier 8, and the paper counts 13.6
million parameters. The filters are those of figure 5. They add up to 608 feature maps in 4c and 4d and to 1056 in 4e;
the figure prints 576 and 1024, which tf-slim has, with 96 filters after the poolings of 4c and 4d. The convolutions
have no biases, since batch normalization follows; in Cadene's file they have, 10,016 in all. The average pooling of a
branch leaves the padding out of the mean, and batch normalization's epsilon is 1e-3, as in tf-slim; Caffe counts the
padding and has 1e-5. The initial weights are He-normal. inception_v2_cifar10 is not in the paper: a quarter of the
filters, no blocks 3a and 4b, and a stem that halves the image once. The "Inception-v2" of the paper on version 3
(arXiv:1512.00567, table 3) is another network.
"""

import inspect
from numbers import Integral

from keras import Input, Model, config, layers

# The paper's figure 5, row by row; "double 3x3" is two 3x3 convolutions in a row, of n_double_3x3 filters each.
METAPARAMETERS = {
    "inception_v2": {"groups": (
        {
            "blocks": (
                {"n_1x1": 64, "n_3x3_reduce": 64, "n_3x3": 64, "n_double_3x3_reduce": 64, "n_double_3x3": 96,
                 "n_pool": 32},
                {"n_1x1": 64, "n_3x3_reduce": 64, "n_3x3": 96, "n_double_3x3_reduce": 64, "n_double_3x3": 96,
                 "n_pool": 64},
            ),
            "grid_reduction": {"n_3x3_reduce": 128, "n_3x3": 160, "n_double_3x3_reduce": 64, "n_double_3x3": 96},
        },
        {
            "blocks": (
                {"n_1x1": 224, "n_3x3_reduce": 64, "n_3x3": 96, "n_double_3x3_reduce": 96, "n_double_3x3": 128,
                 "n_pool": 128},
                {"n_1x1": 192, "n_3x3_reduce": 96, "n_3x3": 128, "n_double_3x3_reduce": 96, "n_double_3x3": 128,
                 "n_pool": 128},
                {"n_1x1": 160, "n_3x3_reduce": 128, "n_3x3": 160, "n_double_3x3_reduce": 128, "n_double_3x3": 160,
                 "n_pool": 128},
                {"n_1x1": 96, "n_3x3_reduce": 128, "n_3x3": 192, "n_double_3x3_reduce": 160, "n_double_3x3": 192,
                 "n_pool": 128},
            ),
            "grid_reduction": {"n_3x3_reduce": 128, "n_3x3": 192, "n_double_3x3_reduce": 192, "n_double_3x3": 256},
        },
        {
            "blocks": (
                {"n_1x1": 352, "n_3x3_reduce": 192, "n_3x3": 320, "n_double_3x3_reduce": 160, "n_double_3x3": 224,
                 "n_pool": 128},
                {"n_1x1": 352, "n_3x3_reduce": 192, "n_3x3": 320, "n_double_3x3_reduce": 192, "n_double_3x3": 224,
                 "n_pool": 128, "pooling": "max"},
            ),
        },
    )},
    "inception_v2_cifar10": {
        "stem": {"n_filters": 16, "n_filters_out": 48, "kernel_size": 3, "strides": 1, "pooling": False},
        "groups": (
            {
                "blocks": (
                    {"n_1x1": 16, "n_3x3_reduce": 16, "n_3x3": 24, "n_double_3x3_reduce": 16, "n_double_3x3": 24,
                     "n_pool": 16},
                ),
                "grid_reduction": {"n_3x3_reduce": 32, "n_3x3": 40, "n_double_3x3_reduce": 16, "n_double_3x3": 24},
            },
            {
                "blocks": (
                    {"n_1x1": 56, "n_3x3_reduce": 16, "n_3x3": 24, "n_double_3x3_reduce": 24, "n_double_3x3": 32,
                     "n_pool": 32},
                    {"n_1x1": 40, "n_3x3_reduce": 32, "n_3x3": 40, "n_double_3x3_reduce": 32, "n_double_3x3": 40,
                     "n_pool": 32},
                    {"n_1x1": 24, "n_3x3_reduce": 32, "n_3x3": 48, "n_double_3x3_reduce": 40, "n_double_3x3": 48,
                     "n_pool": 32},
                ),
                "grid_reduction": {"n_3x3_reduce": 32, "n_3x3": 48, "n_double_3x3_reduce": 48, "n_double_3x3": 64},
            },
            {
                "blocks": (
                    {"n_1x1": 88, "n_3x3_reduce": 48, "n_3x3": 80, "n_double_3x3_reduce": 40, "n_double_3x3": 56,
                     "n_pool": 32},
                    {"n_1x1": 88, "n_3x3_reduce": 48, "n_3x3": 80, "n_double_3x3_reduce": 48, "n_double_3x3": 56,
                     "n_pool": 32, "pooling": "max"},
                ),
            },
        ),
    },
}


def build(metaparameters, input_shape=(224, 224, 3), n_classes=1000):
    """Return an Inception v2 as a `keras.Model`: images (N, H, W, C) to class probabilities (N, n_classes).

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of dictionaries of the
            arguments of `group`, and optionally `stem`, a dictionary of the arguments of `stem`.
        input_shape: (H, W, C), H and W None for any size; the ImageNet stem divides them by 8, every grid reduction
            by 2.
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
        inspect.signature(learner).bind(None, **in_learner)
        calls = []
        for in_group in groups:
            inspect.signature(group).bind(None, **in_group)
            calls += [(inception_block, in_block) for in_block in in_group["blocks"]]
            if in_group.get("grid_reduction") is not None:
                calls.append((reduce_grid, in_group["grid_reduction"]))
        for function, arguments in calls:
            inspect.signature(function).bind(None, **arguments)
        sizes = [n for _, arguments in calls for name, n in arguments.items() if name != "pooling"]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    of_stem.apply_defaults()
    _, n_filters, n_filters_out, kernel_size, strides, pooling = of_stem.args
    if not all(isinstance(n, Integral) and n > 0 for n in [n_filters, n_filters_out, kernel_size, strides, *sizes]):
        raise ValueError(f"filters, kernel_size and strides must be whole and at least 1, got {metaparameters}")
    if strides > 1 and kernel_size % 2 == 0:
        raise ValueError(f"kernel_size of the stem must be odd where strides are above 1, got {kernel_size}")
    if any(not in_group["blocks"] for in_group in groups):
        raise ValueError(f"a group must have a tuple of at least one block, got {metaparameters}")
    if any(arguments.get("pooling", "max") not in ("average", "max") for _, arguments in calls):
        raise ValueError(f'pooling of a block must be "average" or "max", got {metaparameters}')
    if not isinstance(pooling, bool):
        raise ValueError(f"pooling of the stem must be True or False, got {pooling!r}")
    if config.image_data_format() != "channels_last":
        raise ValueError("image_data_format must be channels_last, got channels_first (keras.json or keras.config)")
    is_shape = isinstance(input_shape, (tuple, list)) and len(input_shape) == 3 and input_shape[2]
    if not is_shape or not all(n is None or isinstance(n, Integral) and n >= 0 for n in input_shape):
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape!r}")
    n_reductions = sum(bool(in_group.get("grid_reduction")) for in_group in groups)
    smallest = strides * (4 if pooling else 2) * 2**n_reductions
    if any(size is not None and size < smallest for size in input_shape[:2]):
        raise ValueError(f"height and width must be at least {smallest}, got {input_shape[:2]}")
    if not isinstance(n_classes, Integral) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")

    inputs = Input(input_shape, name="images")
    x = stem(inputs, n_filters, n_filters_out, int(kernel_size), int(strides), pooling)
    x = learner(x, groups)
    outputs = classifier(x, int(n_classes))
    stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "classifier"]
    return named_by_stage(inputs, outputs, stages)


def stem(inputs, n_filters=64, n_filters_out=192, kernel_size=7, strides=2, pooling=True):
    """Strided convolution, max pooling, 1x1, 3x3, max pooling: (N, H, W, C) -> (N, H / 8, W / 8, n_filters_out).

    The CIFAR-10 stem has a 3x3 convolution without strides and no second pooling: to (N, H / 2, W / 2, n_filters_out).

    Args:
        inputs: images (N, H, W, C).
        n_filters: filters of the first two convolutions.
        n_filters_out: filters of the third.
        kernel_size, strides: of the first convolution.
        pooling: whether a second max pooling ends the stem.
    """
    x = conv_bn_relu(inputs, n_filters, kernel_size, strides)  # (N, 112, 112, 64) from (N, 224, 224, 3)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)  # (N, 56, 56, 64)
    x = conv_bn_relu(x, n_filters, 1)
    x = conv_bn_relu(x, n_filters_out, 3)  # (N, 56, 56, 192)
    if pooling:
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)  # (N, 28, 28, 192)
    return layers.Identity()(x)  # marks the end of the stem


def learner(x, groups):
    """The groups in a row; every group with a grid reduction halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of dictionaries of the arguments of `group`.

    Returns:
        Feature maps, of 224x224 images (N, 7, 7, 1024), ready for any head.
    """
    for metaparameters in groups:
        x = group(x, **metaparameters)
    return x


def group(x, blocks, grid_reduction=None):
    """Inception blocks, then a grid reduction, which halves height and width.

    Args:
        x: feature maps (N, H, W, C).
        blocks: a tuple of the arguments of `inception_block`.
        grid_reduction: the arguments of `reduce_grid`; None leaves it out.

    Returns:
        Feature maps (N, H / 2, W / 2, filters of the grid reduction and of the last block); without a grid reduction
        (N, H, W, filters of the last block).
    """
    for metaparameters in blocks:
        x = inception_block(x, **metaparameters)
    if grid_reduction:
        x = reduce_grid(x, **grid_reduction)
    return layers.Identity()(x)  # marks the end of the group


def inception_block(x, n_1x1, n_3x3_reduce, n_3x3, n_double_3x3_reduce, n_double_3x3, n_pool, pooling="average"):
    """Four branches side by side: (N, H, W, C) -> (N, H, W, n_1x1 + n_3x3 + n_double_3x3 + n_pool).

    Two 3x3 convolutions in a row see as far as the 5x5 of version 1, whose place they take.

    Args:
        x: feature maps (N, H, W, C).
        n_1x1, n_3x3_reduce, n_3x3, n_double_3x3_reduce, n_double_3x3, n_pool: filters.
        pooling: "average" or "max", of the pooling branch.
    """
    branch_1x1 = conv_bn_relu(x, n_1x1, 1)
    branch_3x3 = conv_bn_relu(x, n_3x3_reduce, 1)  # dimensionality reduction
    branch_3x3 = conv_bn_relu(branch_3x3, n_3x3, 3)
    branch_double_3x3 = conv_bn_relu(x, n_double_3x3_reduce, 1)  # dimensionality reduction
    branch_double_3x3 = conv_bn_relu(branch_double_3x3, n_double_3x3, 3)  # double 3x3 branch: 5x5, factorized
    branch_double_3x3 = conv_bn_relu(branch_double_3x3, n_double_3x3, 3)
    pool = {"average": layers.AveragePooling2D, "max": layers.MaxPooling2D}[pooling]
    branch_pool = pool(3, strides=1, padding="same")(x)
    branch_pool = conv_bn_relu(branch_pool, n_pool, 1)
    return layers.Concatenate()([branch_1x1, branch_3x3, branch_double_3x3, branch_pool])


def reduce_grid(x, n_3x3_reduce, n_3x3, n_double_3x3_reduce, n_double_3x3):
    """Two strided branches beside a max pooling: (N, H, W, C) -> (N, H / 2, W / 2, n_3x3 + n_double_3x3 + C)."""
    branch_3x3 = conv_bn_relu(x, n_3x3_reduce, 1)  # dimensionality reduction
    branch_3x3 = conv_bn_relu(branch_3x3, n_3x3, 3, 2)
    branch_double_3x3 = conv_bn_relu(x, n_double_3x3_reduce, 1)  # dimensionality reduction
    branch_double_3x3 = conv_bn_relu(branch_double_3x3, n_double_3x3, 3)  # double 3x3 branch
    branch_double_3x3 = conv_bn_relu(branch_double_3x3, n_double_3x3, 3, 2)
    branch_pool = layers.MaxPooling2D(3, strides=2, padding="same")(x)  # pooling branch: C feature maps
    return layers.Concatenate()([branch_3x3, branch_double_3x3, branch_pool])


def conv_bn_relu(x, n_filters, kernel_size, strides=1):
    """Convolution, batch normalization and ReLU: (N, H, W, C) -> (N, H / strides, W / strides, n_filters)."""
    padding = "same"
    if strides > 1 and kernel_size > 1:  # pad all sides alike; "same" pads 2 and 3 where 7x7 needs 3 and 3
        x = layers.ZeroPadding2D(kernel_size // 2)(x)
        padding = "valid"
    x = layers.Conv2D(n_filters, kernel_size, strides, padding, use_bias=False, kernel_initializer="he_normal")(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-3)(x)  # epsilon as in tf-slim
    return layers.ReLU()(x)


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

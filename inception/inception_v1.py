"""Inception v1 (GoogLeNet), with and without batch normalization, and a size for 32x32 images.

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
Differs from the paper: the initial weights are He-normal. inception_v1_bn and inception_v1_cifar10 have batch
normalization (Ioffe and Szegedy 2015, arXiv:1502.03167) after every convolution, in place of its bias and of local
response normalization; they keep dropout, which that paper takes out (section 4.2.1). The convolution of the 5x5 branch
is 5x5 and the pooling after block 4e is 3x3, as in the paper and in Caffe's bvlc_googlenet; torchvision and tf-slim
have 3x3 and 2x2. inception_v1_cifar10 is not in the paper: a quarter of the filters (the auxiliary classifiers keep
theirs), no blocks 3a and 4b, and a stem that halves the image once.
"""

import inspect
from numbers import Integral

from keras import Input, Model, config, layers, ops

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
    """Return an Inception v1 as a `keras.Model`: images (N, H, W, C) to class probabilities (N, n_classes).

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of tuples of blocks
            {"n_1x1", "n_3x3_reduce", "n_3x3", "n_5x5_reduce", "n_5x5", "n_pool"}, with None for an auxiliary
            classifier, and optionally `batch_normalization` and `stem`, a dictionary of the arguments of `stem`.
        input_shape: (H, W, C), H and W None for any size; the ImageNet stem divides them by 8, every group but the
            last by 2. The auxiliary classifiers need a fixed size.
        n_classes: at least 2.
        auxiliary: whether to add the auxiliary classifiers, for training. The outputs are then {"main", "auxiliary_1",
            "auxiliary_2", ...}, each (N, n_classes); `Model(model.input, model.output["main"])` is the network alone.

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
        inspect.signature(learner).bind(None, **in_learner, n_classes=None)
        in_blocks = [in_block for blocks in groups for in_block in blocks if in_block is not None]
        for in_block in in_blocks:
            inspect.signature(inception_block).bind(None, **in_block, batch_normalization=False)
        sizes = [n for in_block in in_blocks for n in in_block.values()]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    of_stem.apply_defaults()
    _, n_filters, n_filters_out, kernel_size, strides, pooling, batch_normalization = of_stem.args
    if not all(isinstance(n, Integral) and n > 0 for n in [n_filters, n_filters_out, kernel_size, strides, *sizes]):
        raise ValueError(f"filters, kernel_size and strides must be whole and at least 1, got {metaparameters}")
    if strides > 1 and kernel_size % 2 == 0:
        raise ValueError(f"kernel_size of the stem must be odd where strides are above 1, got {kernel_size}")
    if any(not blocks or blocks[0] is None for blocks in groups):
        raise ValueError(f"a group must be a tuple of blocks and begin with one, not with None, got {metaparameters}")
    if not isinstance(pooling, bool):
        raise ValueError(f"pooling of the stem must be True or False, got {pooling!r}")
    if batch_normalization not in (True, False):
        raise ValueError(f"batch_normalization must be True or False, got {batch_normalization!r}")
    if config.image_data_format() != "channels_last":
        raise ValueError("image_data_format must be channels_last, got channels_first (keras.json or keras.config)")
    is_shape = isinstance(input_shape, (tuple, list)) and len(input_shape) == 3 and input_shape[2]
    if not is_shape or not all(n is None or isinstance(n, Integral) and n >= 0 for n in input_shape):
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape!r}")
    strides_of_stem = strides * (4 if pooling else 2)
    smallest = strides_of_stem * 2 ** (len(groups) - 1)
    if any(size is not None and size < smallest for size in input_shape[:2]):
        raise ValueError(f"height and width must be at least {smallest}, got {input_shape[:2]}")
    if not isinstance(n_classes, Integral) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")
    with_heads = [i for i, blocks in enumerate(groups) if None in blocks]
    if auxiliary and not with_heads:
        raise ValueError(f"auxiliary=True needs a None among the blocks, got {metaparameters}")
    smallest = 5 * strides_of_stem * 2 ** max(with_heads, default=0)  # the auxiliary classifiers pool 5x5
    if auxiliary and any(size is None or size < smallest for size in input_shape[:2]):
        raise ValueError(f"auxiliary=True needs a height and width of at least {smallest}, got {input_shape[:2]}")

    inputs = Input(input_shape, name="images")
    x = stem(inputs, n_filters, n_filters_out, int(kernel_size), int(strides), pooling, batch_normalization)
    x, heads = learner(x, **in_learner, n_classes=int(n_classes) if auxiliary else None)
    outputs = classifier(x, int(n_classes))
    stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "classifier"]
    model = named_by_stage(inputs, outputs, stages)
    return with_auxiliary(model, heads) if auxiliary else model


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


def learner(x, groups, n_classes=None, batch_normalization=False):
    """The groups in a row; every group but the last halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of tuples of blocks, in which None is an auxiliary classifier.
        n_classes: of the auxiliary classifiers; None leaves them out.
        batch_normalization: whether batch normalization follows each convolution.

    Returns:
        Feature maps of n groups (N, H / 2^(n - 1), W / 2^(n - 1), filters of the last block), ready for any head, and
        the list of the auxiliary classifiers' outputs, each (N, n_classes).
    """
    heads = []
    for i, blocks in enumerate(groups, start=1):
        x, heads_of_group = group(x, blocks, n_classes, i < len(groups), batch_normalization)
        heads += heads_of_group
    return x, heads


def group(x, blocks, n_classes=None, pooling=True, batch_normalization=False):
    """Inception blocks, then a 3x3 max pooling, which halves height and width.

    Args:
        x: feature maps (N, H, W, C).
        blocks: a tuple of the arguments of `inception_block`, in which None is an auxiliary classifier.
        n_classes: of the auxiliary classifiers; None leaves them out.
        pooling: whether max pooling ends the group; the last group has none.
        batch_normalization: whether batch normalization follows each convolution.

    Returns:
        Feature maps (N, H / 2, W / 2, filters of the last block), of the last group (N, H, W, ...), and the list of the
        auxiliary classifiers' outputs.
    """
    heads = []
    for metaparameters in blocks:
        if metaparameters is not None:
            x = inception_block(x, **metaparameters, batch_normalization=batch_normalization)
        elif n_classes is not None:
            heads.append(auxiliary(x, n_classes, batch_normalization))
    if pooling:
        x = max_pooling(x)
    return layers.Identity()(x), heads  # marks the end of the group


def inception_block(x, n_1x1, n_3x3_reduce, n_3x3, n_5x5_reduce, n_5x5, n_pool, batch_normalization=False):
    """Four branches side by side: (N, H, W, C) -> (N, H, W, n_1x1 + n_3x3 + n_5x5 + n_pool). Figure 2b."""
    branch_1x1 = conv_relu(x, n_1x1, 1, batch_normalization=batch_normalization)
    branch_3x3 = conv_relu(x, n_3x3_reduce, 1, batch_normalization=batch_normalization)  # dimensionality reduction
    branch_3x3 = conv_relu(branch_3x3, n_3x3, 3, batch_normalization=batch_normalization)
    branch_5x5 = conv_relu(x, n_5x5_reduce, 1, batch_normalization=batch_normalization)  # dimensionality reduction
    branch_5x5 = conv_relu(branch_5x5, n_5x5, 5, batch_normalization=batch_normalization)
    branch_pool = layers.MaxPooling2D(3, strides=1, padding="same")(x)
    branch_pool = conv_relu(branch_pool, n_pool, 1, batch_normalization=batch_normalization)
    return layers.Concatenate()([branch_1x1, branch_3x3, branch_5x5, branch_pool])


def auxiliary(x, n_classes, batch_normalization=False):
    """An auxiliary classifier: (N, H, W, C) -> class probabilities (N, n_classes). Section 5.

    H and W must be fixed and at least 5: a dense layer has a weight for each value of the feature maps.
    """
    x = layers.AveragePooling2D(5, strides=3)(x)  # (N, 4, 4, C) from (N, 14, 14, C)
    x = conv_relu(x, 128, 1, batch_normalization=batch_normalization)  # dimensionality reduction
    x = layers.Flatten()(x)
    x = layers.Dense(1024, activation="relu", kernel_initializer="he_normal")(x)
    x = layers.Dropout(0.7)(x)
    # In float32 under a policy of half precision too, which would round probabilities and their loss.
    return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal", dtype="float32")(x)


def conv_relu(x, n_filters, kernel_size, strides=1, batch_normalization=False):
    """Convolution, optionally batch normalization, and ReLU: (N, H, W, C) -> (N, H / strides, W / strides, n_filters).

    Where batch normalization follows, the convolution has no bias.
    """
    padding = "same"
    if strides > 1 and kernel_size > 1:  # pad all sides alike; "same" pads 2 and 3 where 7x7 needs 3 and 3
        x = layers.ZeroPadding2D(kernel_size // 2)(x)
        padding = "valid"
    use_bias = not batch_normalization
    x = layers.Conv2D(n_filters, kernel_size, strides, padding, use_bias=use_bias, kernel_initializer="he_normal")(x)
    if batch_normalization:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-3)(x)  # epsilon as in torchvision
    return layers.ReLU()(x)


def max_pooling(x):
    """3x3 max pooling with strides 2, windows as in Caffe: (N, H, W, C) -> (N, H / 2, W / 2, C), rounded down."""
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)  # no value is below zero, so the padding never is the maximum
    return layers.MaxPooling2D(3, strides=2)(x)


def local_response_normalization(x, size=5, alpha=1e-4, beta=0.75):
    """Divide by (1 + alpha m)^beta, m the mean square of a feature map and its neighbors: (N, H, W, C) throughout.

    Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 3.3, with the
    constants of bvlc_googlenet, where k is 1 and the sum is a mean.
    """
    squares = ops.square(ops.cast(x, "float32"))  # which float16 has only up to 65,504
    squares = ops.pad(squares, ((0, 0), (0, 0), (0, 0), (size // 2, size // 2)))  # (N, H, W, C + size - 1)
    mean = sum(squares[..., i : i + x.shape[-1]] for i in range(size)) / size
    return x / ops.cast((1 + alpha * mean) ** beta, x.dtype)


def classifier(x, n_classes, dropout=0.4):
    """The mean of each feature map, dropout, a dense layer: (N, H, W, C) -> class probabilities (N, n_classes)."""
    x = layers.GlobalAveragePooling2D()(x)  # (N, C)
    x = layers.Dropout(dropout)(x)
    # In float32 under a policy of half precision too, which would round probabilities and their loss.
    return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal", dtype="float32")(x)


def with_auxiliary(model, heads):
    """Return the model with the outputs {"main", "auxiliary_1", ...} and layers named auxiliary_1_1, auxiliary_1_2, ...

    Args:
        model: the network without auxiliary classifiers; its layers keep their names.
        heads: the outputs of the auxiliary classifiers.
    """
    outputs = {"main": model.output}
    for i, head in enumerate(heads, start=1):
        operations = Model(model.input, head).operations
        own = [operation for operation in operations if operation not in model.operations]
        for j, operation in enumerate(own, start=1):
            operation.name = f"auxiliary_{i}_{j}"
        outputs[f"auxiliary_{i}"] = head
    return Model(model.input, outputs)


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

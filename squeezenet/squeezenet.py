"""SqueezeNet v1.0 and v1.1, v1.0 with simple and with complex bypass, and two networks for 32x32 images.

Paper: Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
arXiv:1602.07360, table 1 and figures 1 and 2; section 5.1 for its own metaparameters, of which `groups_of` makes the
groups; section 6 for the bypasses.

    squeezenet_v1_0
    stem          (227, 227,   3) -> ( 55,  55,  96)   7x7 convolution and max pooling, both strided
    group 1       ( 55,  55,  96) -> ( 27,  27, 256)   fire blocks 2, 3 and 4, max pooling
    group 2       ( 27,  27, 256) -> ( 13,  13, 512)   fire blocks 5, 6, 7 and 8, max pooling
    group 3       ( 13,  13, 512) -> ( 13,  13, 512)   fire block 9, dropout
    classifier    ( 13,  13, 512) -> (1000,)

    squeezenet_v1_1
    stem          (227, 227,   3) -> ( 56,  56,  64)   3x3 convolution and max pooling, both strided
    group 1       ( 56,  56,  64) -> ( 28,  28, 128)   fire blocks 2 and 3, max pooling
    group 2       ( 28,  28, 128) -> ( 14,  14, 256)   fire blocks 4 and 5, max pooling
    group 3       ( 14,  14, 256) -> ( 14,  14, 512)   fire blocks 6, 7, 8 and 9, dropout
    classifier    ( 14,  14, 512) -> (1000,)

    squeezenet_cifar10
    stem          ( 32,  32,   3) -> ( 15,  15,  64)   3x3 convolution, and max pooling, strided
    group 1       ( 15,  15,  64) -> (  7,   7, 128)   2 fire blocks, max pooling
    group 2       (  7,   7, 128) -> (  3,   3, 256)   2 fire blocks, max pooling
    group 3       (  3,   3, 256) -> (  3,   3, 512)   4 fire blocks, dropout
    classifier    (  3,   3, 512) -> (10,)

Trainable parameters: squeezenet_v1_0 1,248,424, as many with simple bypass, 1,589,672 with complex bypass;
squeezenet_v1_1 1,235,496; squeezenet_cifar10 727,626, squeezenet_bn_cifar10 730,570. At 4 bytes each, v1.0 takes
4.76 MiB, where table 3 prints 4.8 MB, but with complex bypass 6.06 MiB, where it prints 7.7 MB.
Differs from the paper: table 1 has images of 224x224, but its 111x111 feature maps after the first convolution need the
227x227 of the authors' models (forresti/SqueezeNet), which do not pad there. Version 1.1 is from these models, released
after the paper. Their v1.0 pads the last convolution by 1; here no version does, as in torchvision. The 1x1 convolution
of a complex bypass has a bias and no ReLU; the paper does not mention either. The initial weights are those of the
models, Caffe's xavier (Keras' lecun_uniform), except in the last convolution: theirs has a deviation of 0.01 and biases
of 0, this one lecun_uniform and biases of 1. The _cifar10 networks are not in the paper: version 1.1 with simple
bypass, whose stem convolution has no stride; squeezenet_bn_cifar10 has batch normalization (Ioffe and Szegedy 2015,
arXiv:1502.03167) after every convolution but the last and those of a complex bypass, in place of its bias.
"""

import inspect
from itertools import pairwise
from numbers import Integral, Real

from keras import Input, Model, config, layers, ops

# The rows of the paper's table 1: s_1x1, e_1x1 and e_3x3.
FIRE2 = {"n_squeeze": 16, "n_1x1": 64, "n_3x3": 64}  # fire3 too
FIRE4 = {"n_squeeze": 32, "n_1x1": 128, "n_3x3": 128}  # fire5 too
FIRE6 = {"n_squeeze": 48, "n_1x1": 192, "n_3x3": 192}  # fire7 too
FIRE8 = {"n_squeeze": 64, "n_1x1": 256, "n_3x3": 256}  # fire9 too

V1_0 = ((FIRE2, FIRE2, FIRE4), (FIRE4, FIRE6, FIRE6, FIRE8), (FIRE8,))
V1_1 = ((FIRE2, FIRE2), (FIRE4, FIRE4), (FIRE6, FIRE6, FIRE8, FIRE8))

METAPARAMETERS = {
    "squeezenet_v1_0": {"groups": V1_0},
    "squeezenet_v1_1": {"groups": V1_1, "stem": {"n_filters": 64, "kernel_size": 3, "strides": 2}},
    "squeezenet_v1_0_simple_bypass": {"groups": V1_0, "bypass": "simple"},
    "squeezenet_v1_0_complex_bypass": {"groups": V1_0, "bypass": "complex"},
    "squeezenet_cifar10": {
        "groups": V1_1, "stem": {"n_filters": 64, "kernel_size": 3, "strides": 1}, "bypass": "simple",
    },
    "squeezenet_bn_cifar10": {
        "groups": V1_1, "stem": {"n_filters": 64, "kernel_size": 3, "strides": 1}, "bypass": "simple",
        "batch_normalization": True,
    },
}


def build(metaparameters, input_shape=(227, 227, 3), n_classes=1000):
    """Return a SqueezeNet as a `keras.Model`: images (N, H, W, C) to class probabilities (N, n_classes).

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of tuples of fire blocks
            {"n_squeeze", "n_1x1", "n_3x3"}, and optionally the other arguments of `learner`, and `stem`, a dictionary
            of the arguments of `stem`.
        input_shape: (H, W, C), H and W None for any size; the ImageNet stem divides them by 4, every group but the
            last by 2.
        n_classes: at least 2.

    Raises:
        ValueError: metaparameters, input_shape or n_classes are invalid.
    """
    if not isinstance(metaparameters, dict) or not metaparameters.get("groups"):
        raise ValueError(f"metaparameters must be a dictionary with groups, got {metaparameters!r}")
    groups = metaparameters["groups"]
    in_learner = {name: value for name, value in metaparameters.items() if name != "stem"}
    normalized = {"batch_normalization": metaparameters.get("batch_normalization", False)}
    try:
        of_stem = inspect.signature(stem).bind(None, **(normalized | metaparameters.get("stem", {})))
        of_learner = inspect.signature(learner).bind(None, **in_learner)
        in_blocks = [in_block for blocks in groups for in_block in blocks]
        for in_block in in_blocks:
            inspect.signature(fire_block).bind(None, **in_block, bypass=None, batch_normalization=False)
        sizes = [n for in_block in in_blocks for n in in_block.values()]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    of_stem.apply_defaults()
    of_learner.apply_defaults()
    _, n_filters, kernel_size, strides, batch_normalization = of_stem.args
    _, _, bypass, dropout, _ = of_learner.args
    if not all(isinstance(n, Integral) and n > 0 for n in [n_filters, kernel_size, strides, *sizes]):
        raise ValueError(f"filters, kernel_size and strides must be whole and at least 1, got {metaparameters}")
    if not all(groups):
        raise ValueError(f"a group must be a tuple of at least one block, got {metaparameters}")
    if bypass not in (None, "simple", "complex"):
        raise ValueError(f'bypass must be None, "simple" or "complex", got {bypass!r}')
    if not isinstance(dropout, Real) or not 0 <= dropout < 1 or dropout is False:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}")
    if batch_normalization not in (True, False):
        raise ValueError(f"batch_normalization must be True or False, got {batch_normalization!r}")
    if config.image_data_format() != "channels_last":
        raise ValueError("image_data_format must be channels_last, got channels_first (keras.json or keras.config)")
    is_shape = isinstance(input_shape, (tuple, list)) and len(input_shape) == 3 and input_shape[2]
    if not is_shape or not all(n is None or isinstance(n, Integral) and n >= 0 for n in input_shape):
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape!r}")
    smallest = kernel_size + strides * (2 ** len(groups) - 1)  # the stem and every group but the last pool
    if any(size is not None and size < smallest for size in input_shape[:2]):
        raise ValueError(f"height and width must be at least {smallest}, got {input_shape[:2]}")
    if not isinstance(n_classes, Integral) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")

    inputs = Input(input_shape, name="images")
    x = stem(inputs, n_filters, int(kernel_size), int(strides), batch_normalization)
    x = learner(x, **in_learner)
    outputs = classifier(x, int(n_classes))
    stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "classifier"]
    return named_by_stage(inputs, outputs, stages)


def stem(inputs, n_filters=96, kernel_size=7, strides=2, batch_normalization=False):
    """A strided convolution without padding and a strided max pooling: (N, 227, 227, C) -> (N, 55, 55, n_filters).

    The CIFAR-10 stem has a 3x3 convolution without strides: (N, 32, 32, C) -> (N, 15, 15, n_filters).
    """
    x = conv_relu(inputs, n_filters, kernel_size, strides, "valid", batch_normalization)
    x = max_pooling(x)
    return layers.Identity()(x)  # marks the end of the stem


def learner(x, groups, bypass=None, dropout=0.5, batch_normalization=False):
    """The groups in a row; every group but the last halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of tuples of fire blocks {"n_squeeze", "n_1x1", "n_3x3"}.
        bypass: None, "simple" or "complex", the shortcut around the fire blocks.
        dropout: the share of the last feature maps' values that is dropped in training.
        batch_normalization: whether batch normalization follows each convolution.

    Returns:
        Feature maps of n groups (N, H / 2^(n - 1), W / 2^(n - 1), n_1x1 + n_3x3 of the last block), ready for any head.
    """
    *others, last = groups
    for blocks in others:
        x = group(x, blocks, bypass, batch_normalization=batch_normalization)
    return group(x, last, bypass, pooling=False, dropout=dropout, batch_normalization=batch_normalization)


def group(x, blocks, bypass=None, pooling=True, dropout=0.5, batch_normalization=False):
    """Fire blocks, then max pooling, which halves height and width; the last group ends in dropout instead.

    Args:
        x: feature maps (N, H, W, C).
        blocks: a tuple of {"n_squeeze", "n_1x1", "n_3x3"}.
        bypass: None, "simple" or "complex", the shortcut around the fire blocks.
        pooling: whether max pooling ends the group, or dropout.
        dropout: the share of the values that is dropped in training.
        batch_normalization: whether batch normalization follows each convolution.

    Returns:
        Feature maps (N, H / 2, W / 2, n_1x1 + n_3x3 of the last block), of the last group (N, H, W, n_1x1 + n_3x3).
    """
    for metaparameters in blocks:
        x = fire_block(x, **metaparameters, bypass=bypass, batch_normalization=batch_normalization)
    x = max_pooling(x) if pooling else layers.Dropout(dropout)(x)
    return layers.Identity()(x)  # marks the end of the group


def fire_block(x, n_squeeze, n_1x1, n_3x3, bypass=None, batch_normalization=False):
    """Squeeze the feature maps to a few, then expand these in two branches: to (N, H, W, n_1x1 + n_3x3). Figure 1.

    Args:
        x: feature maps (N, H, W, C).
        n_squeeze: filters of the 1x1 convolution that squeezes.
        n_1x1, n_3x3: filters of the 1x1 and of the 3x3 convolution that expand.
        bypass: the shortcut around the block (section 6, figure 2). None: there is none. "simple": an identity
            shortcut, if C = n_1x1 + n_3x3, else none. "complex": an identity
            shortcut if C = n_1x1 + n_3x3, else a 1x1 convolution.
        batch_normalization: whether batch normalization follows each convolution.
    """
    shortcut = x
    x = conv_relu(x, n_squeeze, 1, batch_normalization=batch_normalization)  # squeeze: (N, H, W, n_squeeze)
    expanded_1x1 = conv_relu(x, n_1x1, 1, batch_normalization=batch_normalization)  # expand
    expanded_3x3 = conv_relu(x, n_3x3, 3, batch_normalization=batch_normalization)  # expand
    x = layers.Concatenate()([expanded_1x1, expanded_3x3])
    if bypass == "complex" and shortcut.shape[-1] != x.shape[-1]:
        shortcut = layers.Conv2D(x.shape[-1], 1, kernel_initializer="lecun_uniform")(shortcut)  # new shape
    if bypass is not None and shortcut.shape[-1] == x.shape[-1]:
        x = layers.Add()([shortcut, x])
    return x


def conv_relu(x, n_filters, kernel_size, strides=1, padding="same", batch_normalization=False):
    """Convolution, optionally batch normalization, and ReLU: (N, H, W, C) -> (N, H / strides, W / strides, n_filters).

    Where batch normalization follows, the convolution has no bias. With "valid" padding the borders are cut off.
    """
    use_bias = not batch_normalization
    x = layers.Conv2D(
        n_filters, kernel_size, strides, padding, use_bias=use_bias, kernel_initializer="lecun_uniform"
    )(x)
    if batch_normalization:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)


def max_pooling(x):
    """3x3 max pooling with strides 2: (N, H, W, C) -> (N, H / 2, W / 2, C), rounded down.

    There are as many windows as in Caffe, which cuts the last one at the border. Here the last row and column are
    repeated, so that it has the same maximum.
    """
    x = ops.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="symmetric")  # the maximum of a window stays the same
    return layers.MaxPooling2D(3, strides=2)(x)


def classifier(x, n_classes):
    """A feature map for each class, its mean, softmax: (N, H, W, C) -> class probabilities (N, n_classes).

    There is no dense layer. The biases start at 1: from 0, an early step can take a class below 0 for all images,
    where ReLU stops its learning.
    """
    x = layers.Conv2D(n_classes, 1, kernel_initializer="lecun_uniform", bias_initializer="ones")(x)
    x = layers.ReLU()(x)  # (N, H, W, n_classes)
    # In float32 under a policy of half precision too, which would round probabilities and their loss.
    x = layers.GlobalAveragePooling2D(dtype="float32")(x)
    return layers.Softmax(dtype="float32")(x)


def groups_of(base_e=128, incr_e=128, pct_3x3=0.5, freq=2, sr=0.125, n_blocks=8, pooling_after=(4, 8)):
    """Return the `groups` of a SqueezeNet from the paper's own metaparameters, whose defaults give v1.0. Section 5.1.

    Fire block i has e_i = base_e + incr_e * floor(i / freq) filters that expand, where i is 0 for fire block 2, the
    first. Of these pct_3x3 * e_i are 3x3 and the rest 1x1; sr * e_i filters squeeze. Both products are rounded to the
    nearest whole number, a half to the even one.

    Args:
        base_e: expand filters of the first fire block.
        incr_e: how many more there are after every freq blocks.
        pct_3x3: the share of the expand filters that is 3x3, between 0 and 1.
        freq: how many fire blocks in a row have the same filters.
        sr: the squeeze ratio SR, of squeeze to expand filters, above 0 and at most 1.
        n_blocks: how many fire blocks; the last is number n_blocks + 1.
        pooling_after: after which fire blocks there is max pooling, each the end of a group: 4 and 8 in v1.0, 3 and 5
            in v1.1.

    Raises:
        ValueError: the metaparameters are invalid, or leave a convolution without filters.
    """
    if not all(isinstance(n, Integral) and n > 0 for n in (base_e, freq, n_blocks)):
        raise ValueError(f"base_e, freq and n_blocks must be whole and at least 1, got {base_e}, {freq}, {n_blocks}")
    if not isinstance(incr_e, Integral) or incr_e < 0:
        raise ValueError(f"incr_e must be whole and at least 0, got {incr_e!r}")
    if not all(isinstance(share, Real) for share in (pct_3x3, sr)) or not 0 < pct_3x3 < 1 or not 0 < sr <= 1:
        raise ValueError(f"pct_3x3 must be between 0 and 1, sr above 0 and at most 1, got {pct_3x3!r} and {sr!r}")
    is_tuple = isinstance(pooling_after, (tuple, list)) and all(isinstance(n, Integral) for n in pooling_after)
    ends = [1, *pooling_after, n_blocks + 1] if is_tuple else []  # fire block 2 begins the first group
    if not is_tuple or any(end <= previous for previous, end in pairwise(ends)):
        raise ValueError(f"pooling_after must be rising numbers from 2 to {n_blocks}, got {pooling_after!r}")

    blocks = []
    for i in range(n_blocks):
        e = base_e + incr_e * (i // freq)
        n_3x3 = round(pct_3x3 * e)
        blocks.append({"n_squeeze": round(sr * e), "n_1x1": e - n_3x3, "n_3x3": n_3x3})
    if not all(blocks[0].values()):  # no other has fewer
        raise ValueError(f"every convolution must have at least one filter, got {blocks[0]}")
    return tuple(tuple(blocks[previous - 1 : end - 1]) for previous, end in pairwise(ends))


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

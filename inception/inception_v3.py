"""Inception v3, and a size for 32x32 images.

Paper: Szegedy et al. 2015, "Rethinking the Inception Architecture for Computer Vision", arXiv:1512.00567, sections 3
to 6 and figures 5 to 10, with the sizes of the released code (tf-slim, inception_v3.py).

    inception_v3
    stem          (299, 299,    3) -> ( 35,  35,  192)   3x3 strided, 3x3, 3x3, max pooling, 1x1, 3x3, max pooling
    group 1       ( 35,  35,  192) -> ( 17,  17,  768)   3 blocks A, grid reduction A
    group 2       ( 17,  17,  768) -> (  8,   8, 1280)   4 blocks B, grid reduction B
    auxiliary 1   ( 17,  17,  768) -> (1000,)            after the last block B, in training only
    group 3       (  8,   8, 1280) -> (  8,   8, 2048)   2 blocks C
    classifier    (  8,   8, 2048) -> (1000,)

    inception_v3_cifar10
    stem          ( 32,  32,   3) -> ( 16,  16,  48)   3x3, 3x3, 3x3, max pooling, 1x1, 3x3
    group 1       ( 16,  16,  48) -> (  7,   7, 192)   3 blocks A, grid reduction A
    group 2       (  7,   7, 192) -> (  3,   3, 320)   4 blocks B, grid reduction B
    auxiliary 1   (  7,   7, 192) -> (10,)             after the last block B, in training only
    group 3       (  3,   3, 320) -> (  3,   3, 512)   2 blocks C
    classifier    (  3,   3, 512) -> (10,)

Trainable parameters, without and with the auxiliary classifier: inception_v3 23,834,568 and 27,161,264,
inception_v3_cifar10 1,373,346 and 1,505,708.
Differs from the paper: stem and sizes are those of the released code, with 4 blocks B; the paper's table 1 has others,
with 5 blocks B. The initial weights are He-normal. The average pooling of a branch leaves the padding out of the mean,
as in tf-slim; torchvision's counts it. Batch normalization scales, as in torchvision; in tf-slim and keras.applications
it does not, which makes 17,216 parameters fewer without the auxiliary classifier. inception_v3_cifar10 is not in the
paper: a quarter of the filters (the auxiliary classifier keeps its own) and a stem that halves the image once.
"""

import inspect
from numbers import Integral

import numpy as np
from keras import Input, Model, applications, config, device, layers, models, ops

# The sizes of the released code, block by block; None is an auxiliary classifier after the block before it.
METAPARAMETERS = {
    "inception_v3": {"groups": (
        {
            "block": "a",
            "blocks": (
                {"n_1x1": 64, "n_5x5_reduce": 48, "n_5x5": 64, "n_3x3_reduce": 64, "n_3x3": 96, "n_pool": 32},
                {"n_1x1": 64, "n_5x5_reduce": 48, "n_5x5": 64, "n_3x3_reduce": 64, "n_3x3": 96, "n_pool": 64},
                {"n_1x1": 64, "n_5x5_reduce": 48, "n_5x5": 64, "n_3x3_reduce": 64, "n_3x3": 96, "n_pool": 64},
            ),
            "grid_reduction": {"n_3x3": 384, "n_double_3x3_reduce": 64, "n_double_3x3": 96},
        },
        {
            "block": "b",
            "blocks": (
                {"n_filters": 192, "n_7x7": 128}, {"n_filters": 192, "n_7x7": 160},
                {"n_filters": 192, "n_7x7": 160}, {"n_filters": 192, "n_7x7": 192},
                None,
            ),
            "grid_reduction": {"n_filters": 192, "n_3x3": 320},
        },
        {
            "block": "c",
            "blocks": 2 * ({"n_1x1": 320, "n_3x3": 384, "n_double_3x3_reduce": 448, "n_pool": 192},),
        },
    )},
    "inception_v3_cifar10": {
        "stem": {
            "n_filters": 8, "n_filters_reduce": 20, "n_filters_out": 48,
            "strides": 1, "padding": "same", "pooling": False,
        },
        "groups": (
            {
                "block": "a",
                "blocks": (
                    {"n_1x1": 16, "n_5x5_reduce": 12, "n_5x5": 16, "n_3x3_reduce": 16, "n_3x3": 24, "n_pool": 8},
                    {"n_1x1": 16, "n_5x5_reduce": 12, "n_5x5": 16, "n_3x3_reduce": 16, "n_3x3": 24, "n_pool": 16},
                    {"n_1x1": 16, "n_5x5_reduce": 12, "n_5x5": 16, "n_3x3_reduce": 16, "n_3x3": 24, "n_pool": 16},
                ),
                "grid_reduction": {"n_3x3": 96, "n_double_3x3_reduce": 16, "n_double_3x3": 24},
            },
            {
                "block": "b",
                "blocks": (
                    {"n_filters": 48, "n_7x7": 32}, {"n_filters": 48, "n_7x7": 40},
                    {"n_filters": 48, "n_7x7": 40}, {"n_filters": 48, "n_7x7": 48},
                    None,
                ),
                "grid_reduction": {"n_filters": 48, "n_3x3": 80},
            },
            {
                "block": "c",
                "blocks": 2 * ({"n_1x1": 80, "n_3x3": 96, "n_double_3x3_reduce": 112, "n_pool": 48},),
            },
        ),
    },
}

# The normalization that belongs to the weights of `load_imagenet_weights`, for RGB images of pixels 0 to 255.
IMAGENET_MEAN = (127.5, 127.5, 127.5)
IMAGENET_VARIANCE = (127.5**2, 127.5**2, 127.5**2)


def build(metaparameters, input_shape=(299, 299, 3), n_classes=1000, auxiliary=False):
    """Return an Inception v3 as a `keras.Model`: images (N, H, W, C) to class probabilities (N, n_classes).

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of dictionaries of the
            arguments of `group`, and optionally `stem`, a dictionary of the arguments of `stem`.
        input_shape: (H, W, C), H and W None for any size; the ImageNet stem turns 299 into 35, the grid reductions
            into 17 and 8. The auxiliary classifier needs a fixed size.
        n_classes: at least 2.
        auxiliary: whether to add the auxiliary classifier, for training. The outputs are then {"main", "auxiliary_1"},
            each (N, n_classes); `Model(model.input, model.output["main"])` is the network alone.

    Raises:
        ValueError: metaparameters, input_shape or n_classes are invalid.
    """
    if not isinstance(metaparameters, dict) or not metaparameters.get("groups"):
        raise ValueError(f"metaparameters must be a dictionary with groups, got {metaparameters!r}")
    groups = metaparameters["groups"]
    in_learner = {name: value for name, value in metaparameters.items() if name != "stem"}
    try:
        of_stem = inspect.signature(stem).bind(None, **metaparameters.get("stem", {}))
        inspect.signature(learner).bind(None, **in_learner, n_classes=None)
        sizes = []
        for in_group in groups:
            inspect.signature(group).bind(None, **in_group, n_classes=None)
            kind, blocks, in_reduction = in_group["block"], in_group["blocks"], in_group.get("grid_reduction")
            if kind not in ("a", "b", "c") or (kind == "c" and in_reduction):
                raise ValueError(f'block must be "a", "b" or, without grid reduction, "c", got {in_group}')
            block, grid_reduction = functions_of(kind)
            calls = [(block, in_block) for in_block in blocks if in_block is not None]
            if in_reduction:
                calls.append((grid_reduction, in_reduction))
            for function, arguments in calls:
                inspect.signature(function).bind(None, **arguments)
                sizes += arguments.values()
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    of_stem.apply_defaults()
    _, n_filters, n_filters_reduce, n_filters_out, strides, padding, pooling = of_stem.args
    sizes += [n_filters, n_filters_reduce, n_filters_out, strides]
    if not all(isinstance(n, Integral) and n > 0 for n in sizes):
        raise ValueError(f"filters and strides must be whole and at least 1, got {metaparameters}")
    if any(not in_group["blocks"] or in_group["blocks"][0] is None for in_group in groups):
        raise ValueError(f"a group must be a tuple of blocks and begin with one, not with None, got {metaparameters}")
    if padding not in ("valid", "same"):
        raise ValueError(f'padding must be "valid" or "same", got {padding!r}')
    if not isinstance(pooling, bool):
        raise ValueError(f"pooling of the stem must be True or False, got {pooling!r}")
    if config.image_data_format() != "channels_last":
        raise ValueError("image_data_format must be channels_last, got channels_first (keras.json or keras.config)")
    is_shape = isinstance(input_shape, (tuple, list)) and len(input_shape) == 3 and input_shape[2]
    if not is_shape or not all(n is None or isinstance(n, Integral) and n >= 0 for n in input_shape):
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape!r}")
    reductions = [bool(in_group.get("grid_reduction")) for in_group in groups]
    smallest = smallest_image(1, sum(reductions), strides, padding, pooling)
    if any(size is not None and size < smallest for size in input_shape[:2]):
        raise ValueError(f"height and width must be at least {smallest}, got {input_shape[:2]}")
    if not isinstance(n_classes, Integral) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")
    with_heads = [i for i, in_group in enumerate(groups) if None in in_group["blocks"]]
    if auxiliary and not with_heads:
        raise ValueError(f"auxiliary=True needs a None among the blocks, got {metaparameters}")
    n_before = sum(reductions[: max(with_heads, default=0)])
    smallest = smallest_image(5, n_before, strides, padding, pooling)  # the auxiliary classifier pools 5x5
    if auxiliary and any(size is None or size < smallest for size in input_shape[:2]):
        raise ValueError(f"auxiliary=True needs a height and width of at least {smallest}, got {input_shape[:2]}")

    inputs = Input(input_shape, name="images")
    x = stem(inputs, n_filters, n_filters_reduce, n_filters_out, int(strides), padding, pooling)
    x, heads = learner(x, **in_learner, n_classes=int(n_classes) if auxiliary else None)
    outputs = classifier(x, int(n_classes))
    stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "classifier"]
    model = named_by_stage(inputs, outputs, stages)
    return with_auxiliary(model, heads) if auxiliary else model


def stem(inputs, n_filters=32, n_filters_reduce=80, n_filters_out=192, strides=2, padding="valid", pooling=True):
    """Three 3x3 convolutions, max pooling, 1x1, 3x3, max pooling: (N, 299, 299, C) -> (N, 35, 35, n_filters_out).

    The CIFAR-10 stem has padding "same", no strides and no second pooling: to (N, H / 2, W / 2, n_filters_out).

    Args:
        inputs: images (N, H, W, C).
        n_filters: filters of the first two convolutions; the third has twice as many.
        n_filters_reduce: filters of the 1x1 convolution.
        n_filters_out: filters of the last convolution.
        strides: of the first convolution.
        padding: "valid" or "same", of the first, second and last convolution and of the poolings.
        pooling: whether a second max pooling ends the stem.
    """
    x = conv_bn_relu(inputs, n_filters, (3, 3), strides, padding)  # (N, 149, 149, 32)
    x = conv_bn_relu(x, n_filters, (3, 3), padding=padding)  # (N, 147, 147, 32)
    x = conv_bn_relu(x, 2 * n_filters, (3, 3))  # (N, 147, 147, 64)
    x = layers.MaxPooling2D(3, strides=2, padding=padding)(x)  # (N, 73, 73, 64)
    x = conv_bn_relu(x, n_filters_reduce, (1, 1))  # (N, 73, 73, 80)
    x = conv_bn_relu(x, n_filters_out, (3, 3), padding=padding)  # (N, 71, 71, 192)
    if pooling:
        x = layers.MaxPooling2D(3, strides=2, padding=padding)(x)  # (N, 35, 35, 192)
    return layers.Identity()(x)  # marks the end of the stem


def learner(x, groups, n_classes=None):
    """The groups in a row; every group with a grid reduction halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of dictionaries of the arguments of `group`.
        n_classes: of the auxiliary classifiers; None leaves them out.

    Returns:
        Feature maps, of 299x299 images (N, 8, 8, 2048), ready for any head, and the list of the auxiliary
        classifiers' outputs, each (N, n_classes).
    """
    heads = []
    for metaparameters in groups:
        x, heads_of_group = group(x, **metaparameters, n_classes=n_classes)
        heads += heads_of_group
    return x, heads


def group(x, block, blocks, grid_reduction=None, n_classes=None):
    """Inception blocks of one kind, then a grid reduction, which halves height and width.

    Args:
        x: feature maps (N, H, W, C).
        block: "a", "b" or "c", the kind of the blocks and of the grid reduction.
        blocks: a tuple of the arguments of the blocks, in which None is an auxiliary classifier.
        grid_reduction: the arguments of the grid reduction; None leaves it out. There is none of kind "c".
        n_classes: of the auxiliary classifiers; None leaves them out.

    Returns:
        Feature maps (N, (H - 1) / 2, (W - 1) / 2, filters of the grid reduction and of the last block), rounded down;
        without a grid reduction (N, H, W, filters of the last block). And the list of the auxiliary classifiers'
        outputs.
    """
    inception_block, reduce_grid = functions_of(block)
    heads = []
    for metaparameters in blocks:
        if metaparameters is not None:
            x = inception_block(x, **metaparameters)
        elif n_classes is not None:
            heads.append(auxiliary(x, n_classes))
    if grid_reduction:
        x = reduce_grid(x, **grid_reduction)
    return layers.Identity()(x), heads  # marks the end of the group


def functions_of(block):
    """Return the functions of a kind, "a", "b" or "c": its block and its grid reduction."""
    return {
        "a": (inception_block_a, grid_reduction_a),
        "b": (inception_block_b, grid_reduction_b),
        "c": (inception_block_c, None),
    }[block]


def inception_block_a(x, n_1x1, n_5x5_reduce, n_5x5, n_3x3_reduce, n_3x3, n_pool):
    """Four branches side by side: (N, H, W, C) -> (N, H, W, n_1x1 + n_5x5 + n_3x3 + n_pool). Figure 5.

    The figure has two 3x3 convolutions in place of every 5x5 of version 1; the released code keeps one 5x5.
    """
    branch_1x1 = conv_bn_relu(x, n_1x1, (1, 1))
    branch_5x5 = conv_bn_relu(x, n_5x5_reduce, (1, 1))  # dimensionality reduction
    branch_5x5 = conv_bn_relu(branch_5x5, n_5x5, (5, 5))
    branch_3x3 = conv_bn_relu(x, n_3x3_reduce, (1, 1))  # dimensionality reduction
    branch_3x3 = conv_bn_relu(branch_3x3, n_3x3, (3, 3))  # double 3x3 branch: 5x5, factorized
    branch_3x3 = conv_bn_relu(branch_3x3, n_3x3, (3, 3))
    branch_pool = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    branch_pool = conv_bn_relu(branch_pool, n_pool, (1, 1))
    return layers.Concatenate()([branch_1x1, branch_5x5, branch_3x3, branch_pool])


def grid_reduction_a(x, n_3x3, n_double_3x3_reduce, n_double_3x3):
    """Two strided branches beside a max pooling: to half of height and width. Figure 10.

    Returns:
        Feature maps (N, (H - 1) / 2, (W - 1) / 2, n_3x3 + n_double_3x3 + C), rounded down.
    """
    branch_3x3 = conv_bn_relu(x, n_3x3, (3, 3), 2, "valid")
    branch_double_3x3 = conv_bn_relu(x, n_double_3x3_reduce, (1, 1))  # dimensionality reduction
    branch_double_3x3 = conv_bn_relu(branch_double_3x3, n_double_3x3, (3, 3))  # double 3x3 branch
    branch_double_3x3 = conv_bn_relu(branch_double_3x3, n_double_3x3, (3, 3), 2, "valid")
    branch_pool = layers.MaxPooling2D(3, strides=2)(x)  # pooling branch: as many feature maps as the input
    return layers.Concatenate()([branch_3x3, branch_double_3x3, branch_pool])


def inception_block_b(x, n_filters, n_7x7):
    """7x7 convolutions factorized into 1x7 and 7x1: (N, H, W, C) -> (N, H, W, 4 n_filters). Figure 6.

    The last convolution of each branch has n_filters filters, those before it n_7x7.
    """
    branch_1x1 = conv_bn_relu(x, n_filters, (1, 1))
    branch_7x7 = conv_bn_relu(x, n_7x7, (1, 1))  # dimensionality reduction
    branch_7x7 = conv_bn_relu(branch_7x7, n_7x7, (1, 7))  # 7x7 branch, factorized: height 1, width 7
    branch_7x7 = conv_bn_relu(branch_7x7, n_filters, (7, 1))
    branch_double_7x7 = conv_bn_relu(x, n_7x7, (1, 1))  # dimensionality reduction
    branch_double_7x7 = conv_bn_relu(branch_double_7x7, n_7x7, (7, 1))  # double 7x7 branch, factorized
    branch_double_7x7 = conv_bn_relu(branch_double_7x7, n_7x7, (1, 7))
    branch_double_7x7 = conv_bn_relu(branch_double_7x7, n_7x7, (7, 1))
    branch_double_7x7 = conv_bn_relu(branch_double_7x7, n_filters, (1, 7))
    branch_pool = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    branch_pool = conv_bn_relu(branch_pool, n_filters, (1, 1))
    return layers.Concatenate()([branch_1x1, branch_7x7, branch_double_7x7, branch_pool])


def grid_reduction_b(x, n_filters, n_3x3):
    """Two strided branches beside a max pooling: to half of height and width.

    Returns:
        Feature maps (N, (H - 1) / 2, (W - 1) / 2, n_3x3 + n_filters + C), rounded down.
    """
    branch_3x3 = conv_bn_relu(x, n_filters, (1, 1))  # dimensionality reduction
    branch_3x3 = conv_bn_relu(branch_3x3, n_3x3, (3, 3), 2, "valid")
    branch_7x7 = conv_bn_relu(x, n_filters, (1, 1))  # dimensionality reduction
    branch_7x7 = conv_bn_relu(branch_7x7, n_filters, (1, 7))  # 7x7 branch, factorized
    branch_7x7 = conv_bn_relu(branch_7x7, n_filters, (7, 1))
    branch_7x7 = conv_bn_relu(branch_7x7, n_filters, (3, 3), 2, "valid")
    branch_pool = layers.MaxPooling2D(3, strides=2)(x)  # pooling branch: as many feature maps as the input
    return layers.Concatenate()([branch_3x3, branch_7x7, branch_pool])


def inception_block_c(x, n_1x1, n_3x3, n_double_3x3_reduce, n_pool):
    """3x3 convolutions split into 1x3 and 3x1 side by side: to (N, H, W, n_1x1 + 4 n_3x3 + n_pool). Figure 7."""
    branch_1x1 = conv_bn_relu(x, n_1x1, (1, 1))
    branch_3x3 = conv_bn_relu(x, n_3x3, (1, 1))  # dimensionality reduction
    branch_3x3 = [  # 3x3 branch: expanded by 1x3 and 3x1 side by side
        conv_bn_relu(branch_3x3, n_3x3, (1, 3)),
        conv_bn_relu(branch_3x3, n_3x3, (3, 1)),
    ]
    branch_3x3 = layers.Concatenate()(branch_3x3)
    branch_double_3x3 = conv_bn_relu(x, n_double_3x3_reduce, (1, 1))  # dimensionality reduction
    branch_double_3x3 = conv_bn_relu(branch_double_3x3, n_3x3, (3, 3))
    branch_double_3x3 = [  # double 3x3 branch: expanded alike
        conv_bn_relu(branch_double_3x3, n_3x3, (1, 3)),
        conv_bn_relu(branch_double_3x3, n_3x3, (3, 1)),
    ]
    branch_double_3x3 = layers.Concatenate()(branch_double_3x3)
    branch_pool = layers.AveragePooling2D(3, strides=1, padding="same")(x)
    branch_pool = conv_bn_relu(branch_pool, n_pool, (1, 1))
    return layers.Concatenate()([branch_1x1, branch_3x3, branch_double_3x3, branch_pool])


def auxiliary(x, n_classes):
    """An auxiliary classifier: (N, H, W, C) -> class probabilities (N, n_classes). Section 4 and figure 8.

    H and W must be fixed and at least 5: the second convolution covers what the pooling leaves, at most 5x5. In the
    released code its loss counts 0.4 times (tensorflow/models, inception_model.py).
    """
    x = layers.AveragePooling2D(5, strides=3)(x)  # (N, 5, 5, C) from (N, 17, 17, C)
    x = conv_bn_relu(x, 128, (1, 1))  # dimensionality reduction
    x = conv_bn_relu(x, 768, tuple(min(5, size) for size in x.shape[1:3]), padding="valid")  # (N, 1, 1, 768)
    x = layers.GlobalAveragePooling2D()(x)
    # In float32 under a policy of half precision too, which would round probabilities and their loss.
    return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal", dtype="float32")(x)


def conv_bn_relu(x, n_filters, kernel_size, strides=1, padding="same"):
    """Convolution, batch normalization and ReLU: (N, H, W, C) -> (N, H / strides, W / strides, n_filters).

    Args:
        x: feature maps (N, H, W, C).
        n_filters: filters of the convolution.
        kernel_size: (height, width).
        strides: height and width are divided by it.
        padding: "same", or "valid", which first takes the kernel's size less 1 off height and width.
    """
    x = layers.Conv2D(n_filters, kernel_size, strides, padding, use_bias=False, kernel_initializer="he_normal")(x)
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-3)(x)  # epsilon as in the released code
    return layers.ReLU()(x)


def classifier(x, n_classes, dropout=0.2):
    """The mean of each feature map, dropout, a dense layer: (N, H, W, C) -> class probabilities (N, n_classes).

    The dropout is the released code's; the paper names none.
    """
    x = layers.GlobalAveragePooling2D()(x)  # (N, C)
    x = layers.Dropout(dropout)(x)
    # In float32 under a policy of half precision too, which would round probabilities and their loss.
    return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal", dtype="float32")(x)


def smallest_image(size, n_reductions, strides, padding, pooling):
    """Return the height of the smallest image whose feature maps are `size` pixels high.

    Args:
        size: of the feature maps after the stem and n_reductions grid reductions.
        n_reductions: how many grid reductions.
        strides, padding, pooling: of `stem`.
    """
    kernel_size = {"valid": 3, "same": 1}[padding]  # padded, a 3x3 kernel needs no larger image than a 1x1 kernel
    in_stem = [(kernel_size, n) for n in (strides, 1, 2, 1, 2)[: 5 if pooling else 4]]
    for k, n in reversed(in_stem + n_reductions * [(3, 2)]):  # kernels of k that stride by n
        size = n * (size - 1) + k
    return size


def load_imagenet_weights(model, source=None):
    """Give inception_v3 the weights of InceptionV3 of keras.applications, layer by layer.

    Their batch normalization does not scale: gamma is 1. The classifier comes along if it has as many classes; theirs
    has no auxiliary classifier, so one of the model keeps its weights.

    Args:
        model: of `build`; it takes images normalized with IMAGENET_MEAN and IMAGENET_VARIANCE.
        source: an InceptionV3 of keras.applications, of any image size, with `include_top` or without; None
            is the one published, of ImageNet, which Keras downloads.

    Raises:
        ValueError: source is another network, by its shapes or its features of an image. The model is then as it was.
    """
    if model.input_shape[-1] != 3:
        raise ValueError(f"model must take RGB images, got {model.input_shape[-1]} channels")
    size = [n or 96 for n in model.input_shape[1:3]]  # where the model takes any, the two are compared at 96
    copy = float32_copy(model, size)  # gets the weights first: if they are refused, the model is as it was
    network = Model(copy.input, copy.output["main"]) if isinstance(copy.output, dict) else copy
    source = source or published(network, {21_820_000: "InceptionV3"}, include_top=network.output_shape[-1] == 1000)

    for ours, theirs in pairs_of(layers.Conv2D, network, source):
        ours.set_weights(theirs.get_weights())
    for ours, theirs in pairs_of(layers.BatchNormalization, network, source):
        beta, mean, variance = theirs.get_weights()
        ours.set_weights([np.ones_like(beta), beta, mean, variance])
    if [w.shape for w in source.layers[-1].weights] == [w.shape for w in network.layers[-1].weights]:  # as many classes
        network.layers[-1].set_weights(source.layers[-1].get_weights())

    image = np.random.default_rng(0).uniform(0, 255, (1, *size, 3))
    image = applications.inception_v3.preprocess_input(image).astype("float32")  # normalized
    check_features(feature_maps(network), image, feature_maps(source), image)
    model.set_weights(copy.get_weights())


# Copied from inception/inception_v1.py
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


# Copied from vgg/vgg.py
def float32_copy(model, size):
    """Return a copy of a network for images of a size (H, W) that computes in float32 on the CPU.

    Mixed precision keeps two or three digits, and so does the TF32 of a GPU: too few to compare two networks.
    """

    def in_float32(layer):
        return layer.from_config(layer.get_config() | {"dtype": "float32"})

    with device("cpu"):
        network = Model(model.input, model.output, name=model.name)  # not compiled: a copy of the loss could fail
        copy = models.clone_model(network, Input((*size, 3)), in_float32)
        copy.set_weights(model.get_weights())
    return copy


# Copied from vgg/vgg.py
def published(model, names, include_top):
    """Return the network of keras.applications that a model is, with the weights that Keras downloads and checks.

    Args:
        model: a network of `build`.
        names: {number of parameters without the dense layers: name in keras.applications}.
        include_top: whether it has its dense layers, too.

    Raises:
        ValueError: the model is none of them.
    """
    n_parameters = model.count_params() - sum(layer.count_params() for layer in layers_of(model, layers.Dense))
    if n_parameters not in names:
        counted = f"a network of {n_parameters:,} parameters without its dense layers"
        raise ValueError(f"weights are published for {', '.join(names.values())}, model is another: {counted}")
    return getattr(applications, names[n_parameters])(include_top=include_top, weights="imagenet")


# Copied from vgg/vgg.py
def layers_of(model, kind):
    """Return the layers of a kind, such as `layers.Conv2D`, in the order of the graph."""
    return [layer for layer in model.layers if isinstance(layer, kind)]


# Copied from vgg/vgg.py
def pairs_of(kind, model, source):
    """Return the layers of a kind of two networks side by side: [(of the model, of the source), ...].

    Raises:
        ValueError: they differ in number or in shape.
    """
    if layers_of(source, layers.Identity):  # which mark the stages of a network of `build`
        raise ValueError(f"source must be a network of keras.applications, got {source.name}")
    ours, theirs = layers_of(model, kind), layers_of(source, kind)
    if [layer.weights[0].shape for layer in ours] != [layer.weights[0].shape for layer in theirs]:
        differ = f"its {len(theirs)} {kind.__name__} layers and the {len(ours)} of model differ in number or shape"
        raise ValueError(f"source must be the same network as model, got {source.name}: {differ}")
    return list(zip(ours, theirs, strict=True))


# Copied from vgg/vgg.py
def feature_maps(model):
    """Return the part of a network before its classifier: images to the last feature maps (N, H, W, C)."""
    return Model(model.input, [layer.output for layer in model.layers if layer.output.ndim == 4][-1], name=model.name)


# Copied from vgg/vgg.py
def check_features(model, image, source, source_image):
    """Compare what two networks make of an image, each given as the network takes it, (1, H, W, 3).

    Raises:
        ValueError: the features differ by 1e-4 of the largest or more.
    """
    source = float32_copy(source, source_image.shape[1:3])
    with device("cpu"):
        features = ops.convert_to_numpy(model(image, training=False))
        expected = ops.convert_to_numpy(source(source_image, training=False))
    difference = abs(features - expected).max() / abs(expected).max()
    if not difference < 1e-4:  # nor may it be nan, of features that are all zero
        differ = f"with its weights the features of an image differ by {difference:.1g} of the largest"
        raise ValueError(f"source must be the same network as model, got {source.name}: {differ}")

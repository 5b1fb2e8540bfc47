"""A small ResNet with several labels for an image: one class from each of several groups, or any of a list of classes.

Paper: He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, section 4.2, for stem and
learner. The two classifiers come from no single paper: several softmax layers on one backbone are multi-task learning
(Caruana 1997, "Multitask Learning"); independent sigmoids are the usual form of multi-label classification.

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
Differs from the paper: the classifiers; the shortcut that changes shape is a 1x1 convolution (option B) unless
`shortcut_type` is "zero_padding" (option A, the paper's choice). multilabel_resnet14_wide_cifar10 is not in the paper:
n = 2, twice the filters, and a stem that halves the image.
"""

import inspect
from numbers import Integral

from keras import Input, Model, config, layers, ops

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


def build(metaparameters, input_shape=(32, 32, 3), classes=(("kind", 10), ("realm", 3), ("alive", 2))):
    """Return a ResNet as a `keras.Model`: images (N, H, W, C) to the class probabilities of each group, or of a list.

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of
            {"n_filters", "n_blocks"}, and optionally `shortcut_type`, "projection", "zero_padding" or "none", and
            `stem`, a dictionary of the arguments of `stem`.
        input_shape: (H, W, C), H and W None for any size; the stem's convolution divides them by its strides, its
            pooling by 2, every group but the first by 2.
        classes: the groups of classes, {name: number of classes} or pairs (name, number of classes): an image has one
            class of each group, and the outputs are {name: (N, number)}, each row with a sum of 1. Or a single number:
            an image has any of the classes, and the outputs are (N, number), each value from 0 to 1.

    Raises:
        ValueError: metaparameters, input_shape or classes are invalid.
    """
    if not isinstance(metaparameters, dict) or not metaparameters.get("groups"):
        raise ValueError(f"metaparameters must be a dictionary with groups, got {metaparameters!r}")
    groups = metaparameters["groups"]
    in_learner = {name: value for name, value in metaparameters.items() if name != "stem"}
    try:
        of_stem = inspect.signature(stem).bind(None, **metaparameters.get("stem", {}))
        of_learner = inspect.signature(learner).bind(None, **in_learner)
        for in_group in groups:
            inspect.signature(group).bind(None, **in_group, strides=1)
        sizes = [n for in_group in groups for n in in_group.values()]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    of_stem.apply_defaults()
    of_learner.apply_defaults()
    _, n_filters, kernel_size, strides, pooling = of_stem.args
    _, _, shortcut_type = of_learner.args
    if not all(isinstance(n, Integral) and n > 0 for n in [n_filters, kernel_size, strides, *sizes]):
        raise ValueError(f"filters, blocks, kernel_size and strides must be whole and at least 1, got {metaparameters}")
    if strides > 1 and kernel_size % 2 == 0:
        raise ValueError(f"kernel_size of the stem must be odd where strides are above 1, got {kernel_size}")
    widths = [n_filters, *(in_group["n_filters"] for in_group in groups)]
    if shortcut_type not in ("projection", "zero_padding", "none"):
        raise ValueError(f'shortcut_type must be "projection", "zero_padding" or "none", got {shortcut_type!r}')
    if shortcut_type == "zero_padding" and widths != sorted(widths):
        raise ValueError(f"zero_padding shortcuts need at least as many filters as the group before, got {widths}")
    if not isinstance(pooling, bool):
        raise ValueError(f"pooling of the stem must be True or False, got {pooling!r}")
    in_learner["groups"] = [{name: int(n) for name, n in in_group.items()} for in_group in groups]  # numpy's too
    if config.image_data_format() != "channels_last":
        raise ValueError("image_data_format must be channels_last, got channels_first (keras.json or keras.config)")
    is_shape = isinstance(input_shape, (tuple, list)) and len(input_shape) == 3 and input_shape[2]
    if not is_shape or not all(n is None or isinstance(n, Integral) and n >= 0 for n in input_shape):
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape!r}")
    smallest = strides * (2 if pooling else 1) * 2 ** (len(groups) - 1)
    if any(size is not None and size < smallest for size in input_shape[:2]):
        raise ValueError(f"height and width must be at least {smallest}, got {input_shape[:2]}")
    try:
        n_classes = {"classes": classes} if isinstance(classes, Integral) else dict(classes)
    except (TypeError, ValueError):
        n_classes = {}
    if not n_classes or not all(isinstance(n, Integral) and n > 1 for n in n_classes.values()):
        raise ValueError(f"classes must be a whole number of at least 2, or {{name: such a number}}, got {classes!r}")

    inputs = Input(input_shape, name="images")
    x = stem(inputs, n_filters, int(kernel_size), int(strides), pooling)
    x = learner(x, **in_learner)
    stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "classifier"]
    if isinstance(classes, Integral):
        return named_by_stage(inputs, multi_hot_classifier(x, int(classes)), stages)
    outputs = classifier(x, n_classes)
    # The layers are named by stage, then the heads by their group again: losses and labels go by these names.
    network = Model(inputs, outputs)
    heads = {name: network.get_layer(name) for name in outputs}
    named_by_stage(inputs, outputs, stages)
    for name, head in heads.items():
        head.name = name
    return Model(inputs, outputs)


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


# Copied from resnet/resnet_basic.py
def learner(x, groups, shortcut_type="projection"):
    """The groups in a row; every group but the first halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_filters", "n_blocks"}.
        shortcut_type: "projection" or "zero_padding", the shortcut of a block that changes the shape; "none" leaves out
            all shortcuts, which makes a plain network.

    Returns:
        Feature maps of n groups (N, H / 2^(n - 1), W / 2^(n - 1), n_filters of the last group), ready for any head.
    """
    first, *rest = groups
    x = group(x, **first, strides=1, shortcut_type=shortcut_type)
    for metaparameters in rest:
        x = group(x, **metaparameters, strides=2, shortcut_type=shortcut_type)
    return x


# Copied from resnet/resnet_basic.py
def group(x, n_filters, n_blocks, strides=2, shortcut_type="projection"):
    """Blocks in a row, the first a projection if the shape changes: to (N, H / strides, W / strides, n_filters)."""
    for i in range(n_blocks):
        strides_of_block = strides if i == 0 else 1
        if shortcut_type == "none":
            x = plain_block(x, n_filters, strides_of_block)
        elif strides_of_block > 1 or x.shape[-1] != n_filters:
            x = projection_block(x, n_filters, strides_of_block, shortcut_type)
        else:
            x = identity_block(x, n_filters)
    return layers.Identity()(x)  # marks the end of the group


# Copied from resnet/resnet_basic.py
def identity_block(x, n_filters):
    """Two 3x3 convolutions beside an identity shortcut: (N, H, W, n_filters) throughout. Figure 5, left."""
    shortcut = x
    x = conv_bn_relu(x, n_filters, 3)
    x = conv_bn(x, n_filters, 3)  # the residual, f(x)
    x = layers.Add()([shortcut, x])
    return layers.ReLU()(x)


# Copied from resnet/resnet_basic.py
def projection_block(x, n_filters, strides=2, shortcut_type="projection"):
    """Two 3x3 convolutions beside a shortcut that is brought to the new shape. Section 3.3, options A and B.

    Args:
        x: feature maps (N, H, W, C).
        n_filters: filters of both convolutions.
        strides: height and width are divided by it, in the first convolution and in the shortcut.
        shortcut_type: "projection", a 1x1 convolution (option B), or "zero_padding" (option A).

    Returns:
        Feature maps (N, H / strides, W / strides, n_filters).
    """
    bring_to_shape = {"projection": projection, "zero_padding": zero_padding}[shortcut_type]
    shortcut = bring_to_shape(x, n_filters, strides)
    x = conv_bn_relu(x, n_filters, 3, strides)  # (N, H / strides, W / strides, n_filters)
    x = conv_bn(x, n_filters, 3)  # the residual, f(x)
    x = layers.Add()([shortcut, x])
    return layers.ReLU()(x)


# Copied from resnet/resnet_basic.py
def plain_block(x, n_filters, strides=1):
    """Two 3x3 convolutions without a shortcut: (N, H, W, C) -> (N, H / strides, W / strides, n_filters). Figure 3."""
    x = conv_bn_relu(x, n_filters, 3, strides)
    return conv_bn_relu(x, n_filters, 3)


# Copied from resnet/resnet_basic.py
def projection(x, n_filters, strides):
    """A 1x1 convolution: (N, H, W, C) -> (N, H / strides, W / strides, n_filters). Option B."""
    return conv_bn(x, n_filters, 1, strides)


# Copied from resnet/resnet_basic.py
def zero_padding(x, n_filters, strides):
    """Every strides-th pixel, with channels of zeros after its own: to (N, H / strides, W / strides, n_filters).

    Option A: no parameters. It needs n_filters >= C.
    """
    x = x[:, ::strides, ::strides]
    return ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, n_filters - x.shape[-1])))


def classifier(x, classes):
    """The mean of each feature map, then for each group of classes a dense layer with a softmax, side by side.

    The loss is a weighted sum of the groups' cross-entropies, so all groups train the backbone together.

    Args:
        x: feature maps (N, H, W, C).
        classes: {name of a group: its number of classes}.

    Returns:
        {name of a group: class probabilities (N, its number of classes)}.
    """
    x = layers.GlobalAveragePooling2D()(x)  # (N, C)
    # In float32 under a policy of half precision too, which would round probabilities and their loss.
    options = {"activation": "softmax", "kernel_initializer": "he_normal", "dtype": "float32"}
    return {name: layers.Dense(int(n_classes), name=name, **options)(x) for name, n_classes in classes.items()}


def multi_hot_classifier(x, n_classes):
    """The mean of each feature map, then a sigmoid for each class: (N, H, W, C) -> class probabilities (N, n_classes).

    A softmax shares a sum of 1 among the classes; a sigmoid says of each class alone whether the image shows it. The
    targets are multi-hot, 1 for each class in the image, and the loss is the binary cross-entropy.
    """
    x = layers.GlobalAveragePooling2D()(x)  # (N, C)
    # In float32 under a policy of half precision too, which would round probabilities and their loss.
    return layers.Dense(n_classes, activation="sigmoid", kernel_initializer="he_normal", dtype="float32")(x)


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

"""DenseNet-121 to 264 and the DenseNets for CIFAR-10, with bottleneck and compression (BC) and without.

Paper: Huang et al. 2017, "Densely Connected Convolutional Networks", arXiv:1608.06993, section 3 and table 1.

    densenet121
    stem          (224, 224,    3) -> ( 56,  56,   64)   7x7 convolution and 3x3 max pooling, both strided
    group 1       ( 56,  56,   64) -> ( 28,  28,  128)   dense block of 6, transition
    group 2       ( 28,  28,  128) -> ( 14,  14,  256)   dense block of 12, transition
    group 3       ( 14,  14,  256) -> (  7,   7,  512)   dense block of 24, transition
    group 4       (  7,   7,  512) -> (  7,   7, 1024)   dense block of 16
    classifier    (  7,   7, 1024) -> (1000,)

    densenet40_k12_cifar10
    stem          ( 32,  32,    3) -> ( 32,  32,   16)   3x3 convolution
    group 1       ( 32,  32,   16) -> ( 16,  16,  160)   dense block of 12, transition
    group 2       ( 16,  16,  160) -> (  8,   8,  304)   dense block of 12, transition
    group 3       (  8,   8,  304) -> (  8,   8,  448)   dense block of 12
    classifier    (  8,   8,  448) -> (10,)

    densenet_bc40_k12_cifar10
    stem          ( 32,  32,    3) -> ( 32,  32,   24)   3x3 convolution
    group 1       ( 32,  32,   24) -> ( 16,  16,   48)   dense block of 6, transition
    group 2       ( 16,  16,   48) -> (  8,   8,   60)   dense block of 6, transition
    group 3       (  8,   8,   60) -> (  8,   8,  132)   dense block of 6
    classifier    (  8,   8,  132) -> (10,)

    densenet_c16_k24_cifar10
    stem          ( 32,  32,    3) -> ( 16,  16,   16)   3x3 convolution and 3x3 max pooling, strided
    group 1       ( 16,  16,   16) -> (  8,   8,   56)   dense block of 4, transition
    group 2       (  8,   8,   56) -> (  4,   4,   76)   dense block of 4, transition
    group 3       (  4,   4,   76) -> (  4,   4,  172)   dense block of 4
    classifier    (  4,   4,  172) -> (10,)

Trainable parameters: densenet121 7,978,856, densenet161 28,681,000, densenet169 14,149,480, densenet201 20,013,928,
densenet264 33,337,704; densenet40_k12_cifar10 1,019,722, densenet100_k12_cifar10 6,979,642,
densenet100_k24_cifar10 27,249,082, densenet_bc40_k12_cifar10 176,122, densenet_bc100_k12_cifar10 769,162,
densenet_bc250_k24_cifar10 15,324,406, densenet_bc190_k40_cifar10 25,624,430, densenet_c16_k24_cifar10 244,122.
Differs from the paper: the transition has a ReLU, as in the authors' code (liuzhuang13/DenseNet); section 3 names none.
There is no dropout, which the paper has only where it does not augment. densenet161 is in the authors' code and in the
paper as printed at CVPR 2017; the last version on arXiv, cited here, has densenet264 instead. densenet_bc40_k12_cifar10
and densenet_c16_k24_cifar10 are in none of them. The authors' code starts every CIFAR-10 network with 2 k feature maps;
here, as in section 3, those without BC start with 16. densenet264 has 265 layers.
"""

import inspect
from numbers import Integral, Real

import numpy as np
from keras import Input, Model, applications, config, device, layers, models, ops

CIFAR10_STEM = {"n_filters": 16, "kernel_size": 3, "strides": 1, "pooling": False}

METAPARAMETERS = {
    "densenet121": {
        "groups": ({"n_blocks": 6}, {"n_blocks": 12}, {"n_blocks": 24}, {"n_blocks": 16}),
        "growth_rate": 32,
    },
    "densenet161": {
        "groups": ({"n_blocks": 6}, {"n_blocks": 12}, {"n_blocks": 36}, {"n_blocks": 24}),
        "growth_rate": 48,
        "stem": {"n_filters": 96},
    },
    "densenet169": {
        "groups": ({"n_blocks": 6}, {"n_blocks": 12}, {"n_blocks": 32}, {"n_blocks": 32}),
        "growth_rate": 32,
    },
    "densenet201": {
        "groups": ({"n_blocks": 6}, {"n_blocks": 12}, {"n_blocks": 48}, {"n_blocks": 32}),
        "growth_rate": 32,
    },
    "densenet264": {
        "groups": ({"n_blocks": 6}, {"n_blocks": 12}, {"n_blocks": 64}, {"n_blocks": 48}),
        "growth_rate": 32,
    },
    # For CIFAR-10: without bottleneck and compression, (depth - 4) / 3 layers in each of three groups.
    "densenet40_k12_cifar10": {
        "groups": 3 * ({"n_blocks": 12},), "growth_rate": 12, "reduction": 1.0, "bottleneck": False,
        "stem": CIFAR10_STEM,
    },
    "densenet100_k12_cifar10": {
        "groups": 3 * ({"n_blocks": 32},), "growth_rate": 12, "reduction": 1.0, "bottleneck": False,
        "stem": CIFAR10_STEM,
    },
    "densenet100_k24_cifar10": {
        "groups": 3 * ({"n_blocks": 32},), "growth_rate": 24, "reduction": 1.0, "bottleneck": False,
        "stem": CIFAR10_STEM,
    },
    # With both, (depth - 4) / 6 layers, of two convolutions each, and a stem of 2 k feature maps.
    "densenet_bc40_k12_cifar10": {
        "groups": 3 * ({"n_blocks": 6},), "growth_rate": 12, "stem": CIFAR10_STEM | {"n_filters": 24},
    },
    "densenet_bc100_k12_cifar10": {
        "groups": 3 * ({"n_blocks": 16},), "growth_rate": 12, "stem": CIFAR10_STEM | {"n_filters": 24},
    },
    "densenet_bc250_k24_cifar10": {
        "groups": 3 * ({"n_blocks": 41},), "growth_rate": 24, "stem": CIFAR10_STEM | {"n_filters": 48},
    },
    "densenet_bc190_k40_cifar10": {
        "groups": 3 * ({"n_blocks": 31},), "growth_rate": 40, "stem": CIFAR10_STEM | {"n_filters": 80},
    },
    # With compression alone, and a pooling in the stem: a size that 2 cores train in half an hour.
    "densenet_c16_k24_cifar10": {
        "groups": 3 * ({"n_blocks": 4},), "growth_rate": 24, "bottleneck": False,
        "stem": CIFAR10_STEM | {"pooling": True},
    },
}

# The normalization that belongs to the weights of `load_imagenet_weights`, for RGB images of pixels 0 to 255.
IMAGENET_MEAN = (255 * 0.485, 255 * 0.456, 255 * 0.406)
IMAGENET_VARIANCE = ((255 * 0.229) ** 2, (255 * 0.224) ** 2, (255 * 0.225) ** 2)


def build(metaparameters, input_shape=(224, 224, 3), n_classes=1000):
    """Return a DenseNet as a `keras.Model`: images (N, H, W, C) to class probabilities (N, n_classes).

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of {"n_blocks"}, the
            layers of each dense block, `growth_rate`, and optionally `reduction` and `bottleneck`, arguments of
            `learner`, and `stem`, a dictionary of the arguments of `stem`.
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
    try:
        of_stem = inspect.signature(stem).bind(None, **metaparameters.get("stem", {}))
        of_learner = inspect.signature(learner).bind(None, **in_learner)
        for in_group in groups:
            inspect.signature(group).bind(None, **in_group, growth_rate=1, reduction=1, bottleneck=1, transition=1)
        sizes = [n for in_group in groups for n in in_group.values()]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    of_stem.apply_defaults()
    of_learner.apply_defaults()
    _, n_filters, kernel_size, strides, pooling = of_stem.args
    _, _, growth_rate, reduction, bottleneck = of_learner.args
    if not all(isinstance(n, Integral) and n > 0 for n in [n_filters, kernel_size, strides, growth_rate, *sizes]):
        names = "n_blocks, growth_rate, n_filters, kernel_size and strides"
        raise ValueError(f"{names} must be whole and at least 1, got {metaparameters}")
    if strides > 1 and kernel_size % 2 == 0:
        raise ValueError(f"kernel_size of the stem must be odd where strides are above 1, got {kernel_size}")
    if not isinstance(bottleneck, bool):
        raise ValueError(f"bottleneck must be True or False, got {bottleneck!r}")
    if not isinstance(reduction, Real) or not 0 < reduction <= 1:
        raise ValueError(f"reduction must be above 0 and at most 1, got {reduction!r}")
    widths = [n_filters]
    for in_group in groups[:-1]:
        widths.append(int(reduction * (widths[-1] + in_group["n_blocks"] * growth_rate)))
    if min(widths) < 1:
        raise ValueError(f"reduction must leave at least one feature map in each group, got {reduction!r}")
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
    x = learner(x, groups, growth_rate, reduction, bottleneck)
    outputs = classifier(x, int(n_classes))
    stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "learner", "classifier"]
    return named_by_stage(inputs, outputs, stages)


def stem(inputs, n_filters=64, kernel_size=7, strides=2, pooling=True):
    """A convolution and, for large images, BN-ReLU and a max pooling: (N, H, W, C) -> (N, H / 4, W / 4, n_filters).

    The paper's CIFAR-10 stem is a 3x3 convolution without strides or pooling: (N, H, W, C) -> (N, H, W, n_filters). It
    has no BN-ReLU: the first layer of the first dense block begins with one.
    """
    x = convolution(inputs, n_filters, kernel_size, strides)
    if pooling:
        x = bn_relu(x)
        x = layers.ZeroPadding2D(1)(x)  # after ReLU no value is below zero, so the padding never is the maximum
        x = layers.MaxPooling2D(3, strides=2)(x)
    return layers.Identity()(x)  # marks the end of the stem


def learner(x, groups, growth_rate, reduction=0.5, bottleneck=True):
    """The groups in a row, of which all but the last halve height and width; BN-ReLU after the last group.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_blocks"}, the layers of each dense block.
        growth_rate: how many feature maps each layer adds, the paper's k.
        reduction: a transition makes reduction C feature maps of C; the paper's theta: above 0, at most 1.
        bottleneck: whether a 1x1 convolution to 4 growth_rate feature maps precedes each 3x3 convolution.

    Returns:
        Feature maps of n groups (N, H / 2^(n - 1), W / 2^(n - 1), those of the last dense block), ready for any head.
    """
    *rest, last = groups
    for metaparameters in rest:
        x = group(x, **metaparameters, growth_rate=growth_rate, reduction=reduction, bottleneck=bottleneck)
    x = group(x, **last, growth_rate=growth_rate, bottleneck=bottleneck, transition=False)
    x = bn_relu(x)
    return layers.Identity()(x)  # marks the end of the learner


def group(x, n_blocks, growth_rate, reduction=0.5, bottleneck=True, transition=True):
    """A dense block and, if transition is True, a transition.

    (N, H, W, C) -> (N, H / 2, W / 2, reduction (C + n_blocks growth_rate)), or (N, H, W, C + n_blocks growth_rate).
    """
    x = dense_block(x, n_blocks, growth_rate, bottleneck)
    if transition:
        x = trans_block(x, reduction)
    return layers.Identity()(x)  # marks the end of the group


def dense_block(x, n_blocks, growth_rate, bottleneck=True):
    """Layers, each a residual dense block, in a row: (N, H, W, C) -> (N, H, W, C + n_blocks growth_rate). Figure 1."""
    for _ in range(n_blocks):
        x = residual_dense_block(x, growth_rate, bottleneck)
    return x


def residual_dense_block(x, growth_rate, bottleneck=True):
    """New feature maps, appended to all those before: (N, H, W, C) -> (N, H, W, C + growth_rate). Section 3.

    The bottleneck ("DenseNet-B") keeps the 3x3 convolution cheap, however many feature maps come in.
    """
    features = x
    if bottleneck:
        x = convolution(bn_relu(x), 4 * growth_rate, 1)  # dimensionality reduction: (N, H, W, 4 growth_rate)
    x = convolution(bn_relu(x), growth_rate, 3)  # the new feature maps: (N, H, W, growth_rate)
    return layers.Concatenate()([features, x])


def trans_block(x, reduction=0.5):
    """BN-ReLU-1x1 convolution and average pooling: (N, H, W, C) -> (N, H / 2, W / 2, reduction C, rounded down)."""
    x = convolution(bn_relu(x), int(reduction * x.shape[-1]), 1)  # compression ("DenseNet-C"): (N, H, W, reduction C)
    return layers.AveragePooling2D(2)(x)


def load_imagenet_weights(model, source=None):
    """Give densenet121, 169 or 201 the weights of DenseNet121, 169 or 201 of keras.applications, layer by layer.

    The epsilon of their batch normalization is larger, so the moving variance takes the difference. The classifier
    comes along if it has as many classes.

    Args:
        model: of `build`; it takes images normalized with IMAGENET_MEAN and IMAGENET_VARIANCE.
        source: a DenseNet121, 169 or 201 of keras.applications, of any image size, with `include_top` or without; None
            is the one published, of ImageNet, which Keras downloads.

    Raises:
        ValueError: source is another network, by its shapes or its features of an image. The model is then as it was.
    """
    if model.input_shape[-1] != 3:
        raise ValueError(f"model must take RGB images, got {model.input_shape[-1]} channels")
    size = [n or 96 for n in model.input_shape[1:3]]  # where the model takes any, the two are compared at 96
    copy = float32_copy(model, size)  # gets the weights first: if they are refused, the model is as it was
    names = {7_037_504: "DenseNet121", 12_642_880: "DenseNet169", 18_321_984: "DenseNet201"}
    source = source or published(copy, names, include_top=model.output_shape[-1] == 1000)

    for ours, theirs in pairs_of(layers.Conv2D, copy, source):
        ours.set_weights(theirs.get_weights())
    for ours, theirs in pairs_of(layers.BatchNormalization, copy, source):
        gamma, beta, mean, variance = theirs.get_weights()
        ours.set_weights([gamma, beta, mean, variance + (theirs.epsilon - ours.epsilon)])
    if [w.shape for w in source.layers[-1].weights] == [w.shape for w in copy.layers[-1].weights]:  # as many classes
        copy.layers[-1].set_weights(source.layers[-1].get_weights())

    image = np.random.default_rng(0).uniform(0, 255, (1, *size, 3))
    image = applications.densenet.preprocess_input(image).astype("float32")  # normalized
    check_features(feature_maps(copy), image, feature_maps(source), image)
    model.set_weights(copy.get_weights())


# Copied from resnet/resnet_v2.py
def bn_relu(x):
    """Batch normalization and ReLU, the pre-activation: (N, H, W, C), unchanged in shape."""
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)


# Copied from resnet/resnet_v2.py
def convolution(x, n_filters, kernel_size, strides=1):
    """A convolution without bias: (N, H, W, C) -> (N, H / strides, W / strides, n_filters)."""
    padding = "same"
    if strides > 1 and kernel_size > 1:  # pad all sides alike; "same" pads 2 and 3 where 7x7 needs 3 and 3
        x = layers.ZeroPadding2D(kernel_size // 2)(x)
        padding = "valid"
    return layers.Conv2D(n_filters, kernel_size, strides, padding, use_bias=False, kernel_initializer="he_normal")(x)


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

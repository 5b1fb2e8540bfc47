"""ResNet-50, 101 and 152, the networks of bottleneck blocks, each as version 1 and version 1.5.

Paper: He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1 and figure 5 (right).

    resnet50
    stem          (224, 224,    3) -> ( 56,  56,   64)   7x7 convolution and 3x3 max pooling, both strided
    group 1       ( 56,  56,   64) -> ( 56,  56,  256)   3 blocks
    group 2       ( 56,  56,  256) -> ( 28,  28,  512)   4 blocks, the first strided
    group 3       ( 28,  28,  512) -> ( 14,  14, 1024)   6 blocks, the first strided
    group 4       ( 14,  14, 1024) -> (  7,   7, 2048)   3 blocks, the first strided
    classifier    (  7,   7, 2048) -> (1000,)

Trainable parameters: resnet50 25,557,032, resnet101 44,549,160, resnet152 60,192,808; version 1.5 has the same.
Differs from the paper: nothing. It leaves open which convolution of a block strides; in version 1 it is the first 1x1,
as in the authors' Caffe models. These pool without padding, and their ResNet-50 has a bias in its first convolution.
Version 1.5 (fb.resnet.torch, torchvision) strides in the 3x3 convolution, which sees every pixel, for a few more
multiplications. keras.applications' ResNet50 is version 1 with a bias in every convolution, which makes 25,583,592
parameters.
"""

import inspect
from numbers import Integral

import numpy as np
from keras import Input, Model, applications, config, device, layers, models, ops

RESNET50 = (
    {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 4},
    {"n_filters": 256, "n_blocks": 6}, {"n_filters": 512, "n_blocks": 3},
)
RESNET101 = (
    {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 4},
    {"n_filters": 256, "n_blocks": 23}, {"n_filters": 512, "n_blocks": 3},
)
RESNET152 = (
    {"n_filters": 64, "n_blocks": 3}, {"n_filters": 128, "n_blocks": 8},
    {"n_filters": 256, "n_blocks": 36}, {"n_filters": 512, "n_blocks": 3},
)

METAPARAMETERS = {
    "resnet50": {"groups": RESNET50},
    "resnet101": {"groups": RESNET101},
    "resnet152": {"groups": RESNET152},
    "resnet50_v1_5": {"groups": RESNET50, "strided_convolution": "3x3"},
    "resnet101_v1_5": {"groups": RESNET101, "strided_convolution": "3x3"},
    "resnet152_v1_5": {"groups": RESNET152, "strided_convolution": "3x3"},
}

# The normalization that belongs to the weights of `load_imagenet_weights`, for RGB images of pixels 0 to 255.
IMAGENET_MEAN = (123.68, 116.779, 103.939)
IMAGENET_VARIANCE = (1.0, 1.0, 1.0)


def build(metaparameters, input_shape=(224, 224, 3), n_classes=1000):
    """Return a ResNet as a `keras.Model`: images (N, H, W, C) to class probabilities (N, n_classes).

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of
            {"n_filters", "n_blocks"}, and optionally `strided_convolution`, "1x1" (version 1) or "3x3" (version 1.5).
        input_shape: (H, W, C), H and W None for any size; the stem divides them by 4, every group but the first by 2.
        n_classes: at least 2.

    Raises:
        ValueError: metaparameters, input_shape or n_classes are invalid.
    """
    if not isinstance(metaparameters, dict) or not metaparameters.get("groups"):
        raise ValueError(f"metaparameters must be a dictionary with groups, got {metaparameters!r}")
    groups = metaparameters["groups"]
    try:
        of_learner = inspect.signature(learner).bind(None, **metaparameters)
        for in_group in groups:
            inspect.signature(group).bind(None, **in_group, strides=1, strided_convolution=None)
        sizes = [n for in_group in groups for n in in_group.values()]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    of_learner.apply_defaults()
    if not all(isinstance(n, Integral) and n > 0 for n in sizes):
        raise ValueError(f"n_filters and n_blocks must be whole numbers of at least 1, got {metaparameters}")
    if of_learner.arguments["strided_convolution"] not in ("1x1", "3x3"):
        raise ValueError(f'strided_convolution must be "1x1" or "3x3", got {metaparameters}')
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
    x = stem(inputs)
    x = learner(x, **metaparameters)
    outputs = classifier(x, int(n_classes))
    stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "classifier"]
    return named_by_stage(inputs, outputs, stages)


def stem(inputs, n_filters=64):
    """A strided 7x7 convolution and a strided max pooling: (N, H, W, C) -> (N, H / 4, W / 4, n_filters)."""
    x = conv_bn_relu(inputs, n_filters, 7, strides=2)  # (N, H / 2, W / 2, n_filters)
    x = layers.ZeroPadding2D(1)(x)  # after ReLU no value is below zero, so the padding never is the maximum
    x = layers.MaxPooling2D(3, strides=2)(x)
    return layers.Identity()(x)  # marks the end of the stem


def learner(x, groups, strided_convolution="1x1"):
    """The groups in a row; every group but the first halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_filters", "n_blocks"}.
        strided_convolution: "1x1" (version 1) or "3x3" (version 1.5), the convolution that strides.

    Returns:
        Feature maps of n groups (N, H / 2^(n - 1), W / 2^(n - 1), 4 n_filters of the last group), ready for any head.
    """
    first, *rest = groups
    x = group(x, **first, strides=1, strided_convolution=strided_convolution)
    for metaparameters in rest:
        x = group(x, **metaparameters, strides=2, strided_convolution=strided_convolution)
    return x


def group(x, n_filters, n_blocks, strides=2, strided_convolution="1x1"):
    """A projection block, then identity blocks: (N, H, W, C) -> (N, H / strides, W / strides, 4 n_filters)."""
    x = projection_block(x, n_filters, strides, strided_convolution)
    for _ in range(n_blocks - 1):
        x = identity_block(x, n_filters)
    return layers.Identity()(x)  # marks the end of the group


def identity_block(x, n_filters):
    """The bottleneck 1x1, 3x3, 1x1 beside an identity shortcut: (N, H, W, 4 n_filters) throughout. Figure 5, right."""
    shortcut = x
    x = conv_bn_relu(x, n_filters, 1)  # dimensionality reduction: (N, H, W, n_filters)
    x = conv_bn_relu(x, n_filters, 3)  # bottleneck convolution
    x = conv_bn(x, 4 * n_filters, 1)  # dimensionality restoration: (N, H, W, 4 n_filters)
    x = layers.Add()([shortcut, x])
    return layers.ReLU()(x)


def projection_block(x, n_filters, strides=2, strided_convolution="1x1"):
    """The bottleneck beside a projection shortcut, where the shape changes. Section 3.3, option B.

    Args:
        x: feature maps (N, H, W, C).
        n_filters: filters of the first 1x1 and the 3x3 convolution; the last 1x1 has four times as many.
        strides: height and width are divided by it.
        strided_convolution: "1x1" (version 1) or "3x3" (version 1.5), the convolution that strides.

    Returns:
        Feature maps (N, H / strides, W / strides, 4 n_filters).
    """
    strides_1x1, strides_3x3 = {"1x1": (strides, 1), "3x3": (1, strides)}[strided_convolution]
    shortcut = conv_bn(x, 4 * n_filters, 1, strides)  # projection to the new shape
    x = conv_bn_relu(x, n_filters, 1, strides_1x1)  # dimensionality reduction
    x = conv_bn_relu(x, n_filters, 3, strides_3x3)  # bottleneck convolution: (N, H / strides, W / strides, n_filters)
    x = conv_bn(x, 4 * n_filters, 1)  # dimensionality restoration
    x = layers.Add()([shortcut, x])
    return layers.ReLU()(x)


def conv_bn_relu(x, n_filters, kernel_size, strides=1):
    """Convolution, batch normalization and ReLU: (N, H, W, C) -> (N, H / strides, W / strides, n_filters)."""
    x = conv_bn(x, n_filters, kernel_size, strides)
    return layers.ReLU()(x)


def conv_bn(x, n_filters, kernel_size, strides=1):
    """Convolution and batch normalization: (N, H, W, C) -> (N, H / strides, W / strides, n_filters)."""
    padding = "same"
    if strides > 1 and kernel_size > 1:  # pad all sides alike; "same" pads 2 and 3 where 7x7 needs 3 and 3
        x = layers.ZeroPadding2D(kernel_size // 2)(x)
        padding = "valid"
    x = layers.Conv2D(n_filters, kernel_size, strides, padding, use_bias=False, kernel_initializer="he_normal")(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def classifier(x, n_classes):
    """The mean of each feature map, then a dense layer: (N, H, W, C) -> class probabilities (N, n_classes)."""
    x = layers.GlobalAveragePooling2D()(x)  # (N, C)
    # In float32 under a policy of half precision too, which would round probabilities and their loss.
    return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal", dtype="float32")(x)


def load_imagenet_weights(model, source=None):
    """Give resnet50, 101 or 152 the weights of ResNet50, 101 or 152 of keras.applications, layer by layer.

    Theirs takes BGR images, ours RGB: the input channels of the first kernel change places. Their convolutions have a
    bias, which only shifts what batch normalization centers, so the moving mean takes it: (x + bias) - mean is
    x - (mean - bias). Their epsilon is larger, so the moving variance takes the difference. The classifier comes along
    if it has as many classes.

    Args:
        model: of `build`; it takes images normalized with IMAGENET_MEAN and IMAGENET_VARIANCE.
        source: a ResNet50, 101 or 152 of keras.applications, of any image size, with `include_top` or without; None
            is the one published, of ImageNet, which Keras downloads.

    Raises:
        ValueError: source is another network, by its shapes or its features of an image. The model is then as it was.
    """
    if model.input_shape[-1] != 3:
        raise ValueError(f"model must take RGB images, got {model.input_shape[-1]} channels")
    size = [n or 96 for n in model.input_shape[1:3]]  # where the model takes any, the two are compared at 96
    copy = float32_copy(model, size)  # gets the weights first: if they are refused, the model is as it was
    names = {23_561_152: "ResNet50", 42_605_504: "ResNet101", 58_295_232: "ResNet152"}
    source = source or published(copy, names, include_top=model.output_shape[-1] == 1000)

    convolutions = pairs_of(layers.Conv2D, copy, source)
    normalizations = pairs_of(layers.BatchNormalization, copy, source)  # each of the convolution in the same place
    for i, ((ours, theirs), (our_bn, their_bn)) in enumerate(zip(convolutions, normalizations, strict=True)):
        kernel, bias = theirs.get_weights()
        ours.set_weights([kernel[:, :, [2, 1, 0]] if i == 0 else kernel])
        gamma, beta, mean, variance = their_bn.get_weights()
        variance = np.maximum(variance + (their_bn.epsilon - our_bn.epsilon), 0)  # never below 0
        our_bn.set_weights([gamma, beta, mean - bias, variance])
    if [w.shape for w in source.layers[-1].weights] == [w.shape for w in copy.layers[-1].weights]:  # as many classes
        copy.layers[-1].set_weights(source.layers[-1].get_weights())

    image = np.random.default_rng(0).uniform(0, 255, (1, *size, 3))
    image = applications.resnet.preprocess_input(image).astype("float32")  # normalized, BGR
    check_features(feature_maps(copy), image[..., [2, 1, 0]], feature_maps(source), image)
    model.set_weights(copy.get_weights())


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

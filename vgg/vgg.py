"""VGG-11, 13, 16 and 19, each with and without batch normalization, and two sizes for 32x32 images.

Paper: Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
arXiv:1409.1556, table 1, configurations A, B, D and E.

    vgg16
    stem          (224, 224,   3) -> (224, 224,  64)   the first convolution of group 1
    group 1       (224, 224,  64) -> (112, 112,  64)   1 more convolution, max pooling
    group 2       (112, 112,  64) -> ( 56,  56, 128)   2 convolutions, max pooling
    group 3       ( 56,  56, 128) -> ( 28,  28, 256)   3 convolutions, max pooling
    group 4       ( 28,  28, 256) -> ( 14,  14, 512)   3 convolutions, max pooling
    group 5       ( 14,  14, 512) -> (  7,   7, 512)   3 convolutions, max pooling
    classifier    (  7,   7, 512) -> (1000,)           dense 4096, 4096, 1000

    vgg8_cifar10
    stem          ( 32,  32,   3) -> ( 32,  32,  48)   the only convolution of group 1
    group 1       ( 32,  32,  48) -> ( 16,  16,  48)   max pooling
    group 2       ( 16,  16,  48) -> (  8,   8,  96)   2 convolutions, max pooling
    group 3       (  8,   8,  96) -> (  4,   4, 192)   2 convolutions, max pooling
    group 4       (  4,   4, 192) -> (  2,   2, 192)   2 convolutions, max pooling
    classifier    (  2,   2, 192) -> (10,)             dense 10

Trainable parameters: vgg11 132,863,336, vgg13 133,047,848, vgg16 138,357,544, vgg19 143,667,240 (the paper, table 2:
133, 133, 138 and 144 million); vgg11_bn 132,868,840, vgg13_bn 133,053,736, vgg16_bn 138,365,992, vgg19_bn 143,678,248;
vgg16_cifar10 14,728,266, vgg8_cifar10 1,297,642.
Differs from the paper: the initial weights are He-normal, with which the deep networks train from scratch; the paper
starts four convolutions and the dense layers from a trained vgg11. The paper has neither batch normalization nor
CIFAR-10: the _bn networks are torchvision's, whose convolutions keep their biases; the _cifar10 networks apply the same
pattern to 32x32 images.
"""

import inspect
import warnings
from numbers import Integral, Real

import numpy as np
from keras import Input, Model, applications, config, device, layers, models, ops

# The columns of the paper's table 1: each group is n_layers convolutions of n_filters filters.
A = (
    {"n_layers": 1, "n_filters": 64}, {"n_layers": 1, "n_filters": 128}, {"n_layers": 2, "n_filters": 256},
    {"n_layers": 2, "n_filters": 512}, {"n_layers": 2, "n_filters": 512},
)
B = (
    {"n_layers": 2, "n_filters": 64}, {"n_layers": 2, "n_filters": 128}, {"n_layers": 2, "n_filters": 256},
    {"n_layers": 2, "n_filters": 512}, {"n_layers": 2, "n_filters": 512},
)
D = (
    {"n_layers": 2, "n_filters": 64}, {"n_layers": 2, "n_filters": 128}, {"n_layers": 3, "n_filters": 256},
    {"n_layers": 3, "n_filters": 512}, {"n_layers": 3, "n_filters": 512},
)
E = (
    {"n_layers": 2, "n_filters": 64}, {"n_layers": 2, "n_filters": 128}, {"n_layers": 4, "n_filters": 256},
    {"n_layers": 4, "n_filters": 512}, {"n_layers": 4, "n_filters": 512},
)

METAPARAMETERS = {
    "vgg11": {"groups": A},
    "vgg13": {"groups": B},
    "vgg16": {"groups": D},
    "vgg19": {"groups": E},
    "vgg11_bn": {"groups": A, "batch_normalization": True},
    "vgg13_bn": {"groups": B, "batch_normalization": True},
    "vgg16_bn": {"groups": D, "batch_normalization": True},
    "vgg19_bn": {"groups": E, "batch_normalization": True},
    "vgg16_cifar10": {"groups": D, "batch_normalization": True, "n_units": ()},
    "vgg8_cifar10": {
        "groups": (
            {"n_layers": 1, "n_filters": 48}, {"n_layers": 2, "n_filters": 96}, {"n_layers": 2, "n_filters": 192},
            {"n_layers": 2, "n_filters": 192},
        ),
        "batch_normalization": True,
        "n_units": (),
    },
}

# The normalization that belongs to the weights of `load_imagenet_weights`, for RGB images of pixels 0 to 255.
IMAGENET_MEAN = (123.68, 116.779, 103.939)
IMAGENET_VARIANCE = (1.0, 1.0, 1.0)


def build(metaparameters, input_shape=(224, 224, 3), n_classes=1000):
    """Return a VGG as a `keras.Model`: images (N, H, W, C) to class probabilities (N, n_classes).

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of
            {"n_layers", "n_filters"}, and optionally the other arguments of `learner` and `classifier`.
        input_shape: (H, W, C), a fixed size; every group halves H and W.
        n_classes: at least 2.

    Raises:
        ValueError: metaparameters, input_shape or n_classes are invalid.
    """
    if not isinstance(metaparameters, dict) or not metaparameters.get("groups"):
        raise ValueError(f"metaparameters must be a dictionary with groups, got {metaparameters!r}")
    groups = metaparameters["groups"]
    in_classifier = {name: value for name, value in metaparameters.items() if name in ("n_units", "dropout")}
    in_learner = {name: value for name, value in metaparameters.items() if name not in in_classifier}
    in_stem = {name: value for name, value in in_learner.items() if name != "groups"}
    try:
        inspect.signature(learner).bind(None, **in_learner)
        for in_group in groups:
            inspect.signature(group).bind(None, **in_group, batch_normalization=False)
        n_units = [*in_classifier.get("n_units", ())]
        sizes = [*n_units, *(n for in_group in groups for n in in_group.values())]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    if not all(isinstance(n, Integral) and n > 0 for n in sizes):
        raise ValueError(f"n_layers, n_filters, n_units must be whole numbers of at least 1, got {metaparameters}")
    if "n_units" in in_classifier:
        in_classifier["n_units"] = [int(n) for n in n_units]  # numpy's too
    dropout = metaparameters.get("dropout", 0)
    batch_normalization = metaparameters.get("batch_normalization", False)
    if not isinstance(dropout, Real) or not 0 <= dropout < 1 or dropout is False:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}")
    if batch_normalization not in (True, False):
        raise ValueError(f"batch_normalization must be True or False, got {batch_normalization!r}")
    if config.image_data_format() != "channels_last":
        raise ValueError("image_data_format must be channels_last, got channels_first (keras.json or keras.config)")
    is_shape = isinstance(input_shape, (tuple, list)) and len(input_shape) == 3
    if not is_shape or not all(isinstance(n, Integral) and n > 0 for n in input_shape):
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape!r}")
    if min(input_shape[:2]) < 2 ** len(groups):
        raise ValueError(f"height and width must be at least {2 ** len(groups)}, got {input_shape[:2]}")
    if not isinstance(n_classes, Integral) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")

    inputs = Input(input_shape, name="images")
    x = stem(inputs, groups[0]["n_filters"], **in_stem)
    x = learner(x, **in_learner)
    outputs = classifier(x, int(n_classes), **in_classifier)
    stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "classifier"]
    return named_by_stage(inputs, outputs, stages)


def stem(inputs, n_filters=64, batch_normalization=False):
    """The first convolution: images (N, H, W, C) to feature maps (N, H, W, n_filters)."""
    x = conv_relu(inputs, n_filters, batch_normalization)
    return layers.Identity()(x)  # marks the end of the stem


def learner(x, groups, batch_normalization=False):
    """The groups in a row; each halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_layers", "n_filters"}; the stem is the first group's first convolution.
        batch_normalization: whether batch normalization follows each convolution.

    Returns:
        Feature maps of n groups (N, H / 2^n, W / 2^n, n_filters of the last group), ready for any head.
    """
    first, *rest = groups
    x = group(x, first["n_layers"] - 1, first["n_filters"], batch_normalization)
    for metaparameters in rest:
        x = group(x, **metaparameters, batch_normalization=batch_normalization)
    return x


def group(x, n_layers, n_filters, batch_normalization=False):
    """3x3 convolutions, then a max pooling: (N, H, W, C) -> (N, H / 2, W / 2, n_filters). Section 2.1."""
    for _ in range(n_layers):
        x = conv_relu(x, n_filters, batch_normalization)
    x = layers.MaxPooling2D(2, strides=2)(x)
    return layers.Identity()(x)  # marks the end of the group


def conv_relu(x, n_filters, batch_normalization=False):
    """3x3 convolution, optionally batch normalization, and ReLU: (N, H, W, C) -> (N, H, W, n_filters)."""
    x = layers.Conv2D(n_filters, 3, padding="same", kernel_initializer="he_normal")(x)
    if batch_normalization:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)


def classifier(x, n_classes, n_units=(4096, 4096), dropout=0.5):
    """Flatten, then dense layers with dropout: (N, H, W, C) -> class probabilities (N, n_classes).

    Args:
        x: feature maps of a fixed size, since the first dense layer has a weight for each of their values.
        n_classes: how many classes.
        n_units: the widths of the dense layers before the last.
        dropout: the share of their units that is dropped in training.
    """
    x = layers.Flatten()(x)
    for n in n_units:
        x = layers.Dense(n, activation="relu", kernel_initializer="he_normal")(x)
        x = layers.Dropout(dropout)(x)
    # In float32 under a policy of half precision too, which would round probabilities and their loss.
    return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal", dtype="float32")(x)


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


def load_imagenet_weights(model, source=None):
    """Give vgg16 or vgg19 the weights of VGG16 or VGG19 of keras.applications, layer by layer.

    Theirs takes BGR images, ours RGB: the input channels of the first kernel change places. The dense layers come along
    if theirs are of the same image size (a warning says if not), the last one if it also has as many classes.

    Args:
        model: of `build`; it takes images normalized with IMAGENET_MEAN and IMAGENET_VARIANCE.
        source: a VGG16 or VGG19 of keras.applications, of any image size, with `include_top` or without; None
            is the one published, of ImageNet, which Keras downloads.

    Raises:
        ValueError: source is another network, by its shapes or its features of an image. The model is then as it was.
    """
    if model.input_shape[-1] != 3:
        raise ValueError(f"model must take RGB images, got {model.input_shape[-1]} channels")
    height, width = model.input_shape[1:3]
    copy = float32_copy(model, (height, width))  # gets the weights first: if refused, the model is as it was
    dense = layers_of(copy, layers.Dense)
    of_224 = [layer.kernel.shape for layer in dense[:-1]] == [(25088, 4096), (4096, 4096)]
    source = source or published(copy, {14_714_688: "VGG16", 20_024_384: "VGG19"}, include_top=of_224)

    for i, (ours, theirs) in enumerate(pairs_of(layers.Conv2D, copy, source)):
        kernel, bias = theirs.get_weights()
        ours.set_weights([kernel[:, :, [2, 1, 0]] if i == 0 else kernel, bias])
    pairs_of(layers.BatchNormalization, copy, source)  # neither has any

    their_dense = layers_of(source, layers.Dense)
    if their_dense and [d.kernel.shape for d in dense[:-1]] == [d.kernel.shape for d in their_dense[:-1]]:
        for ours, theirs in zip(dense, their_dense, strict=True):
            if ours.kernel.shape == theirs.kernel.shape:  # as many classes
                ours.set_weights(theirs.get_weights())
        features = Model(copy.input, dense[-1].input)
        their_features = Model(source.input, their_dense[-1].input, name=source.name)
    else:
        left_out = f"{source.name} has no dense layers for images of {height}x{width} pixels"
        warnings.warn(f"{left_out}, those of model keep their weights", stacklevel=2)
        features, their_features = feature_maps(copy), feature_maps(source)

    image = np.random.default_rng(0).uniform(0, 255, (1, height, width, 3))
    image = applications.vgg16.preprocess_input(image).astype("float32")  # normalized, BGR
    check_features(features, image[..., [2, 1, 0]], their_features, image)
    model.set_weights(copy.get_weights())


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


def layers_of(model, kind):
    """Return the layers of a kind, such as `layers.Conv2D`, in the order of the graph."""
    return [layer for layer in model.layers if isinstance(layer, kind)]


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


def feature_maps(model):
    """Return the part of a network before its classifier: images to the last feature maps (N, H, W, C)."""
    return Model(model.input, [layer.output for layer in model.layers if layer.output.ndim == 4][-1], name=model.name)


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

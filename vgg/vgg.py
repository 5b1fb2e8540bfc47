"""VGG-11, 13, 16 and 19, each with and without batch normalization, and two sizes for 32x32 images.

Paper: Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
arXiv:1409.1556, table 1, configurations A, B, D and E.

    vgg16
    stem          (224, 224,   3) -> (224, 224,  64)   the first convolution of group 1
    group 1       (224, 224,  64) -> (112, 112,  64)   2 convolutions, the first of which was the stem
    group 2       (112, 112,  64) -> ( 56,  56, 128)   2 convolutions
    group 3       ( 56,  56, 128) -> ( 28,  28, 256)   3 convolutions
    group 4       ( 28,  28, 256) -> ( 14,  14, 512)   3 convolutions
    group 5       ( 14,  14, 512) -> (  7,   7, 512)   3 convolutions
    classifier    (  7,   7, 512) -> (1000,)           dense 4096, 4096, 1000

    vgg8_cifar10
    stem          ( 32,  32,   3) -> ( 32,  32,  32)   the first convolution of group 1
    group 1       ( 32,  32,  32) -> ( 16,  16,  32)   2 convolutions, the first of which was the stem
    group 2       ( 16,  16,  32) -> (  8,   8,  64)   2 convolutions
    group 3       (  8,   8,  64) -> (  4,   4, 128)   2 convolutions
    classifier    (  4,   4, 128) -> (10,)             dense 128, 10

Trainable parameters: vgg11 132,863,336, vgg13 133,047,848, vgg16 138,357,544, vgg19 143,667,240 (the paper, table 2:
133, 133, 138 and 144 million); vgg11_bn 132,868,840, vgg13_bn 133,053,736, vgg16_bn 138,365,992, vgg19_bn 143,678,248;
vgg16_cifar10 14,728,266, vgg8_cifar10 551,466.
Differs from the paper: the initial weights are He-normal, with which the deep networks train without being grown
from vgg11. The paper has neither batch normalization nor CIFAR-10: the _bn networks are torchvision's, in which the
convolutions keep their biases, and the _cifar10 networks carry the pattern over to 32x32 images.
"""

from keras import Input, Model, layers

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
            {"n_layers": 2, "n_filters": 32}, {"n_layers": 2, "n_filters": 64}, {"n_layers": 2, "n_filters": 128},
        ),
        "batch_normalization": True,
        "n_units": (128,),
    },
}


def build(metaparameters, input_shape=(224, 224, 3), n_classes=1000):
    """Connect stem, learner and classifier: images (N, H, W, C) in, class probabilities (N, n_classes) out.

    Args:
        metaparameters: a value of METAPARAMETERS or a dictionary of one's own: `groups`, a tuple of
            {"n_layers", "n_filters"}, and where they differ from the defaults, `batch_normalization` (False),
            `n_units`, the widths of the dense layers before the last (4096, 4096), and `dropout` after each (0.5).
        input_shape: (H, W, C); H and W are halved by every group.
        n_classes: how many classes, at least 2.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: metaparameters, input_shape or n_classes cannot make a network.
    """
    check(metaparameters, ("groups",), ("batch_normalization", "n_units", "dropout"))
    for group_metaparameters in metaparameters["groups"]:
        check(group_metaparameters, ("n_layers", "n_filters"))
    groups = metaparameters["groups"]
    batch_normalization = metaparameters.get("batch_normalization", False)
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not input_shape[2]:
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape}")

    inputs = Input(input_shape)
    x = stem(inputs, groups[0]["n_filters"], batch_normalization)
    x = learner(x, groups, batch_normalization)
    outputs = classifier(x, n_classes, metaparameters.get("n_units", (4096, 4096)), metaparameters.get("dropout", 0.5))
    return Model(inputs, outputs)


def stem(inputs, n_filters=64, batch_normalization=False):
    """The first convolution: images (N, H, W, C) to feature maps (N, H, W, n_filters)."""
    return conv_relu(inputs, n_filters, batch_normalization)


def learner(x, groups, batch_normalization=False):
    """The groups in a row; each halves height and width, the first goes on where the stem began.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of {"n_layers", "n_filters"}; the stem counts as the first layer of the first group.
        batch_normalization: whether batch normalization follows each convolution.

    Returns:
        Feature maps (N, H / 2^groups, W / 2^groups, n_filters of the last group), ready for any head.
    """
    first, *rest = groups
    x = group(x, first["n_layers"] - 1, first["n_filters"], batch_normalization)
    for metaparameters in rest:
        x = group(x, **metaparameters, batch_normalization=batch_normalization)
    return x


def group(x, n_layers, n_filters, batch_normalization=False):
    """Convolutions, then a max pooling: (N, H, W, C) -> (N, H / 2, W / 2, n_filters). Section 2.1 of the paper.

    Raises:
        ValueError: n_layers is negative (0 is a pooling alone), or the feature maps are too small to be halved.
    """
    if n_layers < 0:
        raise ValueError(f"n_layers must be at least 0, got {n_layers}")
    if any(size is not None and size < 2 for size in x.shape[1:3]):
        raise ValueError(f"the input is too small: feature maps of {x.shape[1:3]} cannot be halved")
    for _ in range(n_layers):
        x = conv_relu(x, n_filters, batch_normalization)
    return layers.MaxPooling2D(2, strides=2)(x)


def conv_relu(x, n_filters, batch_normalization=False):
    """A 3x3 convolution, batch normalization if wanted, ReLU: (N, H, W, C) -> (N, H, W, n_filters)."""
    x = layers.Conv2D(n_filters, 3, padding="same", kernel_initializer="he_normal")(x)
    if batch_normalization:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)


def classifier(x, n_classes, n_units=(4096, 4096), dropout=0.5):
    """Flatten, then dense layers with dropout: (N, H, W, C) -> class probabilities (N, n_classes).

    Args:
        x: feature maps of a fixed size: height and width decide how many weights the first dense layer has.
        n_classes: how many classes, at least 2.
        n_units: the widths of the dense layers before the last, a tuple.
        dropout: the share of units that each of them loses in training, 0 to 1.

    Raises:
        ValueError: n_classes is not a whole number of at least 2, or n_units is not a tuple.
    """
    if not isinstance(n_classes, int) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")
    if not isinstance(n_units, (tuple, list)):
        raise ValueError(f"n_units must be a tuple such as (4096, 4096) or (), got {n_units!r}")
    x = layers.Flatten()(x)
    for n in n_units:
        x = layers.Dense(n, activation="relu", kernel_initializer="he_normal")(x)
        x = layers.Dropout(dropout)(x)
    return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal")(x)


def check(metaparameters, required, optional=()):
    """Raise ValueError unless metaparameters hold every required name, with a value that works, and no unknown name."""
    if not isinstance(metaparameters, dict) or not set(required) <= set(metaparameters) <= {*required, *optional}:
        names = " and ".join(required) + (" and perhaps " * bool(required and optional)) + ", ".join(optional)
        raise ValueError(f"metaparameters must be a dictionary of {names}, got {metaparameters!r}")
    for name, value in metaparameters.items():
        if name == "groups":
            if not isinstance(value, (tuple, list)) or not value:
                raise ValueError(f"groups must be a tuple of at least one group, got {value!r}")
        elif name in required or name.startswith("n_filters") or name in ("kernel_size", "strides"):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")

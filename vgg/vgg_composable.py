"""The VGGs of vgg.py in the composable style: made by a class, whose parts can be used alone.

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

Trainable parameters, and what differs from the paper: as in vgg.py.
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


class VGG:
    """A VGG: `VGG(METAPARAMETERS["vgg16"]).model` is a `keras.Model`, from images to class probabilities.

    The constructor connects `stem`, `learner` and `classifier`, which read the metaparameters from the object: a
    subclass replaces one of them and inherits the others. `group` and `conv_relu` are static, a factory of parts for
    any network: `x = VGG.group(x, n_layers=2, n_filters=64)`. They call each other by the name of this class: who
    replaces `conv_relu` replaces `group` too.

    Args:
        metaparameters: a value of METAPARAMETERS or a dictionary of one's own: `groups`, a tuple of
            {"n_layers", "n_filters"}, and where they differ from the defaults, `batch_normalization` (False),
            `n_units`, the widths of the dense layers before the last (4096, 4096), and `dropout` after each (0.5).
        input_shape: (H, W, C); H and W are halved by every group.
        n_classes: how many classes, at least 2.

    Raises:
        ValueError: metaparameters, input_shape or n_classes cannot make a network.
    """

    def __init__(self, metaparameters, input_shape=(224, 224, 3), n_classes=1000):
        """Build the network and keep it as `model`."""
        check(metaparameters, ("groups",), ("batch_normalization", "n_units", "dropout"))
        for group_metaparameters in metaparameters["groups"]:
            check(group_metaparameters, ("n_layers", "n_filters"))
        if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not input_shape[2]:
            raise ValueError(f"input_shape must be (height, width, channels), got {input_shape}")
        self.groups = metaparameters["groups"]
        self.batch_normalization = metaparameters.get("batch_normalization", False)
        self.n_units = metaparameters.get("n_units", (4096, 4096))
        self.dropout = metaparameters.get("dropout", 0.5)

        inputs = Input(input_shape)
        x = self.stem(inputs)
        x = self.learner(x)
        outputs = self.classifier(x, n_classes)
        self.model = Model(inputs, outputs)

    def stem(self, inputs):
        """The first convolution: images (N, H, W, C) to feature maps (N, H, W, n_filters of the first group)."""
        return self.conv_relu(inputs, self.groups[0]["n_filters"], self.batch_normalization)

    def learner(self, x):
        """The groups in a row: (N, H, W, C) -> (N, H / 2^groups, W / 2^groups, n_filters of the last group).

        The stem counts as the first layer of the first group.
        """
        first, *rest = self.groups
        x = self.group(x, first["n_layers"] - 1, first["n_filters"], self.batch_normalization)
        for metaparameters in rest:
            x = self.group(x, **metaparameters, batch_normalization=self.batch_normalization)
        return x

    @staticmethod
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
            x = VGG.conv_relu(x, n_filters, batch_normalization)
        return layers.MaxPooling2D(2, strides=2)(x)

    @staticmethod
    def conv_relu(x, n_filters, batch_normalization=False):
        """A 3x3 convolution, batch normalization if wanted, ReLU: (N, H, W, C) -> (N, H, W, n_filters)."""
        x = layers.Conv2D(n_filters, 3, padding="same", kernel_initializer="he_normal")(x)
        if batch_normalization:
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        return layers.ReLU()(x)

    def classifier(self, x, n_classes):
        """Flatten, then dense layers with dropout: (N, H, W, C) -> class probabilities (N, n_classes).

        Raises:
            ValueError: n_classes is not a whole number of at least 2, or `n_units` is not a tuple.
        """
        if not isinstance(n_classes, int) or n_classes < 2:
            raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")
        if not isinstance(self.n_units, (tuple, list)):
            raise ValueError(f"n_units must be a tuple such as (4096, 4096) or (), got {self.n_units!r}")
        x = layers.Flatten()(x)
        for n in self.n_units:
            x = layers.Dense(n, activation="relu", kernel_initializer="he_normal")(x)
            x = layers.Dropout(self.dropout)(x)
        return layers.Dense(n_classes, activation="softmax", kernel_initializer="he_normal")(x)


# Copied from vgg/vgg.py
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

"""VGG-11, 13, 16 and 19 in the composable style: a class whose parts can be used alone.

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

Trainable parameters, and what differs from the paper: as in the module of functions.
"""

import inspect
from numbers import Integral, Real

from keras import Input, Model, config, layers

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


class VGG:
    """A VGG: `VGG(**VGG.METAPARAMETERS["vgg16"]).model`, a `keras.Model`, gives class probabilities.

    The constructor connects `stem`, `learner` and `classifier`; a subclass can replace one and inherit the others.
    `group` and `conv_relu` are static, so they work without an object, in any network: `x = VGG.group(x, 2, 64)`. They
    call each other by the name of this class: to replace `conv_relu`, replace `group` too.

    Args:
        input_shape: (H, W, C), a fixed size; every group halves H and W.
        n_classes: at least 2.
        metaparameters: a value of METAPARAMETERS, or your own: `groups`, a tuple of {"n_layers", "n_filters"}, and
            optionally the other arguments of `learner` and `classifier`.

    Raises:
        ValueError: metaparameters, input_shape or n_classes are invalid.
    """

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

    def __init__(self, input_shape=(224, 224, 3), n_classes=1000, **metaparameters):
        """Build the network and keep it as `model`."""
        if not metaparameters.get("groups"):
            raise ValueError(f"metaparameters must have groups, got {metaparameters}")
        groups = metaparameters["groups"]
        in_classifier = {name: value for name, value in metaparameters.items() if name in ("n_units", "dropout")}
        in_learner = {name: value for name, value in metaparameters.items() if name not in in_classifier}
        in_stem = {name: value for name, value in in_learner.items() if name != "groups"}
        try:
            inspect.signature(self.learner).bind(None, **in_learner)
            for in_group in groups:
                inspect.signature(self.group).bind(None, **in_group, batch_normalization=False)
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
        x = self.stem(inputs, groups[0]["n_filters"], **in_stem)
        x = self.learner(x, **in_learner)
        outputs = self.classifier(x, int(n_classes), **in_classifier)
        stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "classifier"]
        self.model = named_by_stage(inputs, outputs, stages)

    def stem(self, inputs, n_filters=64, batch_normalization=False):
        """The first convolution: images (N, H, W, C) to feature maps (N, H, W, n_filters)."""
        x = self.conv_relu(inputs, n_filters, batch_normalization)
        return layers.Identity()(x)  # marks the end of the stem

    def learner(self, x, groups, batch_normalization=False):
        """The groups in a row; each halves height and width.

        Args:
            x: the stem's feature maps (N, H, W, C).
            groups: a tuple of {"n_layers", "n_filters"}; the stem is the first group's first convolution.
            batch_normalization: whether batch normalization follows each convolution.

        Returns:
            Feature maps of n groups (N, H / 2^n, W / 2^n, n_filters of the last group), ready for any head.
        """
        first, *rest = groups
        x = self.group(x, first["n_layers"] - 1, first["n_filters"], batch_normalization)
        for metaparameters in rest:
            x = self.group(x, **metaparameters, batch_normalization=batch_normalization)
        return x

    @staticmethod
    def group(x, n_layers, n_filters, batch_normalization=False):
        """3x3 convolutions, then a max pooling: (N, H, W, C) -> (N, H / 2, W / 2, n_filters). Section 2.1."""
        for _ in range(n_layers):
            x = VGG.conv_relu(x, n_filters, batch_normalization)
        x = layers.MaxPooling2D(2, strides=2)(x)
        return layers.Identity()(x)  # marks the end of the group

    @staticmethod
    def conv_relu(x, n_filters, batch_normalization=False):
        """3x3 convolution, optionally batch normalization, and ReLU: (N, H, W, C) -> (N, H, W, n_filters)."""
        x = layers.Conv2D(n_filters, 3, padding="same", kernel_initializer="he_normal")(x)
        if batch_normalization:
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        return layers.ReLU()(x)

    def classifier(self, x, n_classes, n_units=(4096, 4096), dropout=0.5):
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

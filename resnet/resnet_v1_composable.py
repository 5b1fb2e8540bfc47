"""The ResNets of resnet_v1.py in the composable style: made by a class, whose parts can be used alone.

Paper: He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1 and figure 5 (right).

    resnet50
    stem          (224, 224,    3) -> ( 56,  56,   64)   7x7 convolution and 3x3 max pooling, both strided
    group 1       ( 56,  56,   64) -> ( 56,  56,  256)   3 blocks
    group 2       ( 56,  56,  256) -> ( 28,  28,  512)   4 blocks, the first strided
    group 3       ( 28,  28,  512) -> ( 14,  14, 1024)   6 blocks, the first strided
    group 4       ( 14,  14, 1024) -> (  7,   7, 2048)   3 blocks, the first strided
    classifier    (  7,   7, 2048) -> (1000,)

Trainable parameters, and what differs from the paper: as in resnet_v1.py.
"""

from keras import Input, Model, layers

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


class ResNetV1:
    """A ResNet: `ResNetV1(METAPARAMETERS["resnet50"]).model` is a `keras.Model`, from images to class probabilities.

    The constructor connects `stem`, `learner` and `classifier`: a subclass replaces one of them and inherits the
    others. `group`, the blocks and `conv_bn` are static, a factory of parts for any network:
    `x = ResNetV1.projection_block(x, n_filters=64)`. They call each other by the name of this class: who replaces a
    block replaces `group` too.

    Args:
        metaparameters: a value of METAPARAMETERS or a dictionary of one's own: `groups`, a tuple of
            {"n_filters", "n_blocks"}, and perhaps `strided_convolution`, "1x1" (version 1) or "3x3" (version 1.5).
        input_shape: (H, W, C); the stem divides H and W by 4, every group but the first by 2.
        n_classes: how many classes, at least 2.

    Raises:
        ValueError: metaparameters, input_shape or n_classes cannot make a network.
    """

    def __init__(self, metaparameters, input_shape=(224, 224, 3), n_classes=1000):
        """Build the network and keep it as `model`."""
        check(metaparameters, ("groups",), ("strided_convolution",))
        for group_metaparameters in metaparameters["groups"]:
            check(group_metaparameters, ("n_filters", "n_blocks"))
        if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not input_shape[2]:
            raise ValueError(f"input_shape must be (height, width, channels), got {input_shape}")
        self.groups = metaparameters["groups"]
        self.strided_convolution = metaparameters.get("strided_convolution", "1x1")

        inputs = Input(input_shape)
        x = self.stem(inputs)
        x = self.learner(x)
        outputs = self.classifier(x, n_classes)
        self.model = Model(inputs, outputs)

    def stem(self, inputs):
        """A strided 7x7 convolution and a strided max pooling: (N, H, W, C) -> (N, H / 4, W / 4, 64)."""
        x = self.conv_bn(inputs, 64, 7, strides=2)
        x = layers.ReLU()(x)
        x = layers.ZeroPadding2D(1)(x)  # after ReLU zero is the smallest value, so it never wins the maximum
        return layers.MaxPooling2D(3, strides=2)(x)

    def learner(self, x):
        """The groups in a row; every group but the first halves height and width.

        (N, H, W, C) -> (N, H / 2^(groups - 1), W / 2^(groups - 1), 4 n_filters of the last group).
        """
        first, *rest = self.groups
        x = self.group(x, **first, strides=1, strided_convolution=self.strided_convolution)
        for metaparameters in rest:
            x = self.group(x, **metaparameters, strides=2, strided_convolution=self.strided_convolution)
        return x

    @staticmethod
    def group(x, n_filters, n_blocks, strides=2, strided_convolution="1x1"):
        """A projection block, then identity blocks: (N, H, W, C) -> (N, H / strides, W / strides, 4 n_filters)."""
        if n_blocks < 1:
            raise ValueError(f"n_blocks must be at least 1, got {n_blocks}")
        x = ResNetV1.projection_block(x, n_filters, strides, strided_convolution)
        for _ in range(n_blocks - 1):  # the projection block was the first of them
            x = ResNetV1.identity_block(x, n_filters)
        return x

    @staticmethod
    def identity_block(x, n_filters):
        """1x1, 3x3, 1x1 beside an identity shortcut: (N, H, W, 4 n_filters) throughout. Figure 5, right."""
        residual = x
        x = layers.ReLU()(ResNetV1.conv_bn(x, n_filters, 1))  # (N, H, W, n_filters)
        x = layers.ReLU()(ResNetV1.conv_bn(x, n_filters, 3))
        x = ResNetV1.conv_bn(x, 4 * n_filters, 1)
        x = layers.Add()([residual, x])
        return layers.ReLU()(x)

    @staticmethod
    def projection_block(x, n_filters, strides=2, strided_convolution="1x1"):
        """The bottleneck beside a shortcut that a 1x1 convolution brings to the new shape (section 3.3, option B).

        Args:
            x: feature maps (N, H, W, C).
            n_filters: filters of the first 1x1 and the 3x3 convolution; the last 1x1 has four times as many.
            strides: by how much height and width are divided.
            strided_convolution: "1x1" (version 1) or "3x3" (version 1.5), the convolution that does it.

        Returns:
            Feature maps (N, H / strides, W / strides, 4 n_filters).

        Raises:
            ValueError: strided_convolution is another, or the feature maps are too small for the strides.
        """
        if strided_convolution not in ("1x1", "3x3"):
            raise ValueError(f'strided_convolution must be "1x1" or "3x3", got {strided_convolution!r}')
        strides_1x1, strides_3x3 = (strides, 1) if strided_convolution == "1x1" else (1, strides)
        residual = ResNetV1.conv_bn(x, 4 * n_filters, 1, strides)
        x = layers.ReLU()(ResNetV1.conv_bn(x, n_filters, 1, strides_1x1))
        x = layers.ReLU()(ResNetV1.conv_bn(x, n_filters, 3, strides_3x3))  # (N, H / strides, W / strides, n_filters)
        x = ResNetV1.conv_bn(x, 4 * n_filters, 1)
        x = layers.Add()([residual, x])
        return layers.ReLU()(x)

    @staticmethod
    def conv_bn(x, n_filters, kernel_size, strides=1):
        """Convolution and batch normalization: (N, H, W, C) -> (N, H / strides, W / strides, n_filters)."""
        if any(size is not None and size < strides for size in x.shape[1:3]):
            raise ValueError(f"the input is too small: feature maps of {x.shape[1:3]} cannot be strided by {strides}")
        padding = "same"
        if strides > 1 and kernel_size > 1:  # "same" would pad the bottom and the right only
            x = layers.ZeroPadding2D(kernel_size // 2)(x)
            padding = "valid"
        x = layers.Conv2D(n_filters, kernel_size, strides, padding, use_bias=False, kernel_initializer="he_normal")(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)

    def classifier(self, x, n_classes):
        """The mean of each feature map, then a dense layer: (N, H, W, C) -> class probabilities (N, n_classes).

        Raises:
            ValueError: n_classes is not a whole number of at least 2.
        """
        if not isinstance(n_classes, int) or n_classes < 2:
            raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")
        x = layers.GlobalAveragePooling2D()(x)  # (N, C)
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

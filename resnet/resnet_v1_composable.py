"""ResNet-50, 101 and 152 in the composable style: a class whose parts can be used alone.

Paper: He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1 and figure 5 (right).

    resnet50
    stem          (224, 224,    3) -> ( 56,  56,   64)   7x7 convolution and 3x3 max pooling, both strided
    group 1       ( 56,  56,   64) -> ( 56,  56,  256)   3 blocks
    group 2       ( 56,  56,  256) -> ( 28,  28,  512)   4 blocks, the first strided
    group 3       ( 28,  28,  512) -> ( 14,  14, 1024)   6 blocks, the first strided
    group 4       ( 14,  14, 1024) -> (  7,   7, 2048)   3 blocks, the first strided
    classifier    (  7,   7, 2048) -> (1000,)

Trainable parameters, and what differs from the paper: as in the module of functions.
"""

import inspect
from numbers import Integral

from keras import Input, Model, config, layers

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


class ResNetV1:
    """A ResNet: `ResNetV1(**ResNetV1.METAPARAMETERS["resnet50"]).model`, a `keras.Model`, gives class probabilities.

    The constructor connects `stem`, `learner` and `classifier`; a subclass can replace one and inherit the others.
    `group`, the blocks and `conv_bn` are static, so they work without an object, in any network:
    `x = ResNetV1.projection_block(x, n_filters=64)`. They call each other by the name of this class: to replace a
    block, replace `group` too.

    Args:
        input_shape: (H, W, C), H and W None for any size; the stem divides them by 4, every group but the first by 2.
        n_classes: at least 2.
        metaparameters: a value of METAPARAMETERS, or your own: `groups`, a tuple of {"n_filters", "n_blocks"}, and
            optionally `strided_convolution`, "1x1" (version 1) or "3x3" (version 1.5).

    Raises:
        ValueError: metaparameters, input_shape or n_classes are invalid.
    """

    METAPARAMETERS = {
        "resnet50": {"groups": RESNET50},
        "resnet101": {"groups": RESNET101},
        "resnet152": {"groups": RESNET152},
        "resnet50_v1_5": {"groups": RESNET50, "strided_convolution": "3x3"},
        "resnet101_v1_5": {"groups": RESNET101, "strided_convolution": "3x3"},
        "resnet152_v1_5": {"groups": RESNET152, "strided_convolution": "3x3"},
    }

    def __init__(self, input_shape=(224, 224, 3), n_classes=1000, **metaparameters):
        """Build the network and keep it as `model`."""
        if not metaparameters.get("groups"):
            raise ValueError(f"metaparameters must have groups, got {metaparameters}")
        groups = metaparameters["groups"]
        try:
            of_learner = inspect.signature(self.learner).bind(None, **metaparameters)
            for in_group in groups:
                inspect.signature(self.group).bind(None, **in_group, strides=1, strided_convolution=None)
            sizes = [n for in_group in groups for n in in_group.values()]
        except TypeError as error:
            raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
        of_learner.apply_defaults()
        if not all(isinstance(n, Integral) and n > 0 for n in sizes):
            raise ValueError(f"n_filters and n_blocks must be whole numbers of at least 1, got {metaparameters}")
        if of_learner.arguments.get("strided_convolution", "1x1") not in ("1x1", "3x3"):
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
        x = self.stem(inputs)
        x = self.learner(x, **metaparameters)
        outputs = self.classifier(x, int(n_classes))
        stages = ["stem", *(f"group_{i + 1}" for i in range(len(groups))), "classifier"]
        self.model = named_by_stage(inputs, outputs, stages)

    def stem(self, inputs, n_filters=64):
        """A strided 7x7 convolution and a strided max pooling: (N, H, W, C) -> (N, H / 4, W / 4, n_filters)."""
        x = self.conv_bn_relu(inputs, n_filters, 7, strides=2)  # (N, H / 2, W / 2, n_filters)
        x = layers.ZeroPadding2D(1)(x)  # after ReLU no value is below zero, so the padding never is the maximum
        x = layers.MaxPooling2D(3, strides=2)(x)
        return layers.Identity()(x)  # marks the end of the stem

    def learner(self, x, groups, strided_convolution="1x1"):
        """The groups in a row; every group but the first halves height and width.

        Args:
            x: the stem's feature maps (N, H, W, C).
            groups: a tuple of {"n_filters", "n_blocks"}.
            strided_convolution: "1x1" (version 1) or "3x3" (version 1.5), the convolution that strides.

        Returns:
            Feature maps of n groups (N, H / 2^(n - 1), W / 2^(n - 1), 4 n_filters of the last), ready for any head.
        """
        first, *rest = groups
        x = self.group(x, **first, strides=1, strided_convolution=strided_convolution)
        for metaparameters in rest:
            x = self.group(x, **metaparameters, strides=2, strided_convolution=strided_convolution)
        return x

    @staticmethod
    def group(x, n_filters, n_blocks, strides=2, strided_convolution="1x1"):
        """A projection block, then identity blocks: (N, H, W, C) -> (N, H / strides, W / strides, 4 n_filters)."""
        x = ResNetV1.projection_block(x, n_filters, strides, strided_convolution)
        for _ in range(n_blocks - 1):
            x = ResNetV1.identity_block(x, n_filters)
        return layers.Identity()(x)  # marks the end of the group

    @staticmethod
    def identity_block(x, n_filters):
        """The bottleneck 1x1, 3x3, 1x1 beside an identity shortcut: (N, H, W, 4 n_filters). Figure 5, right."""
        shortcut = x
        x = ResNetV1.conv_bn_relu(x, n_filters, 1)  # dimensionality reduction: (N, H, W, n_filters)
        x = ResNetV1.conv_bn_relu(x, n_filters, 3)  # bottleneck convolution
        x = ResNetV1.conv_bn(x, 4 * n_filters, 1)  # dimensionality restoration: (N, H, W, 4 n_filters)
        x = layers.Add()([shortcut, x])
        return layers.ReLU()(x)

    @staticmethod
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
        shortcut = ResNetV1.conv_bn(x, 4 * n_filters, 1, strides)  # projection to the new shape
        x = ResNetV1.conv_bn_relu(x, n_filters, 1, strides_1x1)  # dimensionality reduction
        x = ResNetV1.conv_bn_relu(x, n_filters, 3, strides_3x3)  # bottleneck convolution
        x = ResNetV1.conv_bn(x, 4 * n_filters, 1)  # dimensionality restoration
        x = layers.Add()([shortcut, x])
        return layers.ReLU()(x)

    @staticmethod
    def conv_bn_relu(x, n_filters, kernel_size, strides=1):
        """Convolution, batch normalization and ReLU: (N, H, W, C) -> (N, H / strides, W / strides, n_filters)."""
        x = ResNetV1.conv_bn(x, n_filters, kernel_size, strides)
        return layers.ReLU()(x)

    @staticmethod
    def conv_bn(x, n_filters, kernel_size, strides=1):
        """Convolution and batch normalization: (N, H, W, C) -> (N, H / strides, W / strides, n_filters)."""
        padding = "same"
        if strides > 1 and kernel_size > 1:  # pad all sides alike; "same" pads 2 and 3 where 7x7 needs 3 and 3
            x = layers.ZeroPadding2D(kernel_size // 2)(x)
            padding = "valid"
        x = layers.Conv2D(n_filters, kernel_size, strides, padding, use_bias=False, kernel_initializer="he_normal")(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)

    def classifier(self, x, n_classes):
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

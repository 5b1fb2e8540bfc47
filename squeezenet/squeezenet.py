"""SqueezeNet v1.0 and v1.1, v1.0 with simple and with complex bypass, and a size for 32x32 images.

Paper: Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size",
arXiv:1602.07360, table 1 and figures 1 and 2; section 6 for the bypasses.

    squeezenet_v1_0
    stem          (227, 227,   3) -> ( 55,  55,  96)   7x7 convolution and max pooling, both strided
    group 1       ( 55,  55,  96) -> ( 27,  27, 256)   fire blocks 2, 3 and 4, max pooling
    group 2       ( 27,  27, 256) -> ( 13,  13, 512)   fire blocks 5, 6, 7 and 8, max pooling
    group 3       ( 13,  13, 512) -> ( 13,  13, 512)   fire block 9, dropout
    classifier    ( 13,  13, 512) -> (1000,)

    squeezenet_v1_1
    stem          (227, 227,   3) -> ( 56,  56,  64)   3x3 convolution and max pooling, both strided
    group 1       ( 56,  56,  64) -> ( 28,  28, 128)   fire blocks 2 and 3, max pooling
    group 2       ( 28,  28, 128) -> ( 14,  14, 256)   fire blocks 4 and 5, max pooling
    group 3       ( 14,  14, 256) -> ( 14,  14, 512)   fire blocks 6, 7, 8 and 9, dropout
    classifier    ( 14,  14, 512) -> (1000,)

    squeezenet_cifar10
    stem          ( 32,  32,   3) -> ( 15,  15,  64)   3x3 convolution, and max pooling, strided
    group 1       ( 15,  15,  64) -> (  7,   7, 128)   2 fire blocks, max pooling
    group 2       (  7,   7, 128) -> (  3,   3, 256)   2 fire blocks, max pooling
    group 3       (  3,   3, 256) -> (  3,   3, 512)   4 fire blocks, dropout
    classifier    (  3,   3, 512) -> (10,)

Trainable parameters: squeezenet_v1_0 1,248,424, as many with simple bypass, 1,589,672 with complex bypass;
squeezenet_v1_1 1,235,496; squeezenet_cifar10 727,626.
Differs from the paper: it gives the images as 224x224, but its 111x111 feature maps after the first convolution need
227x227, which the authors' models take (forresti/SqueezeNet). Version 1.1 is theirs, after the paper. The last
convolution of their v1.0 pads its feature maps by 1, that of v1.1 does not; here neither does, as in torchvision. The
1x1 convolution of a complex bypass has a bias and no ReLU, of which the paper does not speak. The initial weights are
the authors', Caffe's xavier (Keras' lecun_uniform); in the last convolution too, with biases of 1, where theirs have a
deviation of 0.01 and biases of 0. squeezenet_cifar10 is not in the paper: version 1.1 with simple bypass, whose stem
strides only once.
"""

from keras import Input, Model, layers, ops

# The rows of the paper's table 1: s_1x1, e_1x1 and e_3x3.
FIRE2 = {"n_squeeze": 16, "n_1x1": 64, "n_3x3": 64}  # fire3 too
FIRE4 = {"n_squeeze": 32, "n_1x1": 128, "n_3x3": 128}  # fire5 too
FIRE6 = {"n_squeeze": 48, "n_1x1": 192, "n_3x3": 192}  # fire7 too
FIRE8 = {"n_squeeze": 64, "n_1x1": 256, "n_3x3": 256}  # fire9 too

V1_0 = ((FIRE2, FIRE2, FIRE4), (FIRE4, FIRE6, FIRE6, FIRE8), (FIRE8,))
V1_1 = ((FIRE2, FIRE2), (FIRE4, FIRE4), (FIRE6, FIRE6, FIRE8, FIRE8))

METAPARAMETERS = {
    "squeezenet_v1_0": {"groups": V1_0},
    "squeezenet_v1_1": {"groups": V1_1, "stem": {"n_filters": 64, "kernel_size": 3, "strides": 2}},
    "squeezenet_v1_0_simple_bypass": {"groups": V1_0, "bypass": "simple"},
    "squeezenet_v1_0_complex_bypass": {"groups": V1_0, "bypass": "complex"},
    "squeezenet_cifar10": {
        "groups": V1_1, "stem": {"n_filters": 64, "kernel_size": 3, "strides": 1}, "bypass": "simple",
    },
}


def build(metaparameters, input_shape=(227, 227, 3), n_classes=1000):
    """Connect stem, learner and classifier: images (N, H, W, C) in, class probabilities (N, n_classes) out.

    Args:
        metaparameters: a value of METAPARAMETERS or a dictionary of one's own: `groups`, a tuple of tuples of fire
            blocks {"n_squeeze", "n_1x1", "n_3x3"}, and where they differ from the defaults, `bypass` (None) and
            `dropout` (0.5), arguments of `learner`, and `stem`, a dictionary of the arguments of `stem`.
        input_shape: (H, W, C); the ImageNet stem divides H and W by 4, every group but the last by 2.
        n_classes: how many classes, at least 2.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: metaparameters, input_shape or n_classes cannot make a network.
    """
    check(metaparameters, ("groups",), ("bypass", "dropout", "stem"))
    check(metaparameters.get("stem", {}), (), ("n_filters", "kernel_size", "strides"))
    for blocks in metaparameters["groups"]:
        if not isinstance(blocks, (tuple, list)) or not blocks:
            raise ValueError(f"a group must be a tuple of fire blocks, got {blocks!r}")
        for block in blocks:
            check(block, ("n_squeeze", "n_1x1", "n_3x3"))
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not input_shape[2]:
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape}")
    in_learner = {name: value for name, value in metaparameters.items() if name != "stem"}

    inputs = Input(input_shape)
    x = stem(inputs, **metaparameters.get("stem", {}))
    x = learner(x, **in_learner)
    outputs = classifier(x, n_classes)
    return Model(inputs, outputs)


def stem(inputs, n_filters=96, kernel_size=7, strides=2):
    """A convolution, not padded, and a max pooling, both strided: (N, H, W, C) -> (N, ~H / 4, ~W / 4, n_filters).

    For CIFAR-10 the convolution has strides 1: only the pooling halves.
    """
    if any(size is not None and size < kernel_size for size in inputs.shape[1:3]):
        raise ValueError(f"the input is too small: a kernel of {kernel_size} does not fit into {inputs.shape[1:3]}")
    x = layers.Conv2D(n_filters, kernel_size, strides, activation="relu", kernel_initializer="lecun_uniform")(inputs)
    return max_pooling(x)


def learner(x, groups, bypass=None, dropout=0.5):
    """The groups in a row; every group but the last halves height and width.

    Args:
        x: the stem's feature maps (N, H, W, C).
        groups: a tuple of tuples of fire blocks {"n_squeeze", "n_1x1", "n_3x3"}.
        bypass: None, "simple" or "complex", what leads past the fire blocks.
        dropout: the share of the last feature maps' values that are lost in training, 0 to 1.

    Returns:
        Feature maps (N, H / 2^(groups - 1), W / 2^(groups - 1), n_1x1 + n_3x3 of the last block), ready for any head.
    """
    *others, last = groups
    for blocks in others:
        x = group(x, blocks, bypass)
    return group(x, last, bypass, pooling=False, dropout=dropout)


def group(x, blocks, bypass=None, pooling=True, dropout=0.5):
    """Fire blocks, then max pooling, which halves height and width, or in the last group dropout.

    Args:
        x: feature maps (N, H, W, C).
        blocks: a tuple of {"n_squeeze", "n_1x1", "n_3x3"}.
        bypass: None, "simple" or "complex", what leads past the fire blocks.
        pooling: whether max pooling ends the group, or dropout.
        dropout: the share of the values that are lost in training, 0 to 1.

    Returns:
        Feature maps (N, H / 2, W / 2, n_1x1 + n_3x3 of the last block), or with dropout (N, H, W, n_1x1 + n_3x3).

    Raises:
        ValueError: dropout is no share, or the feature maps are too small to be halved.
    """
    for metaparameters in blocks:
        x = fire_block(x, **metaparameters, bypass=bypass)
    if pooling:
        return max_pooling(x)
    if not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
        raise ValueError(f"dropout must be a number of 0 to 1, got {dropout!r}")
    return layers.Dropout(dropout)(x)


def fire_block(x, n_squeeze, n_1x1, n_3x3, bypass=None):
    """Squeeze to a few feature maps, expand them side by side: (N, H, W, C) -> (N, H, W, n_1x1 + n_3x3). Figure 1.

    Args:
        x: feature maps (N, H, W, C).
        n_squeeze: filters of the 1x1 convolution that squeezes.
        n_1x1, n_3x3: filters of the two convolutions that expand.
        bypass: what is added to the outcome (section 6, figure 2): None, nothing; "simple", the block's input if it
            has as many feature maps as the outcome, else nothing; "complex", the same, but else a 1x1 convolution of
            the input.

    Raises:
        ValueError: bypass is none of the three.
    """
    if bypass not in (None, "simple", "complex"):
        raise ValueError(f'bypass must be None, "simple" or "complex", got {bypass!r}')
    residual = x
    x = conv_relu(x, n_squeeze, 1)
    x = layers.Concatenate()([conv_relu(x, n_1x1, 1), conv_relu(x, n_3x3, 3)])
    if bypass is not None and residual.shape[-1] == x.shape[-1]:
        x = layers.Add()([residual, x])
    elif bypass == "complex":
        residual = layers.Conv2D(x.shape[-1], 1, kernel_initializer="lecun_uniform")(residual)
        x = layers.Add()([residual, x])
    return x


def conv_relu(x, n_filters, kernel_size):
    """A convolution and ReLU: (N, H, W, C) -> (N, H, W, n_filters).

    Unlike that of vgg.py it has any kernel size, and no batch normalization, which the paper does not use.
    """
    x = layers.Conv2D(n_filters, kernel_size, padding="same", kernel_initializer="lecun_uniform")(x)
    return layers.ReLU()(x)


def max_pooling(x):
    """3x3 max pooling that halves: (N, H, W, C) -> (N, H / 2, W / 2, C), rounded down.

    Unlike that of inception_v1.py it pads with less than any value: after a complex bypass there are values below 0.
    """
    if any(size is not None and size < 2 for size in x.shape[1:3]):
        raise ValueError(f"the input is too small: feature maps of {x.shape[1:3]} cannot be halved")
    x = ops.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=float("-inf"))  # as Caffe: bottom and right
    return layers.MaxPooling2D(3, strides=2)(x)


def classifier(x, n_classes):
    """A feature map for each class, its mean, softmax: (N, H, W, C) -> class probabilities (N, n_classes).

    Unlike that of resnet_v1.py it has no dense layer: a 1x1 convolution and ReLU make the feature maps. Its biases
    begin at 1: from 0, an early step can take a class below 0 for all images, where ReLU lets it learn no more.

    Raises:
        ValueError: n_classes is not a whole number of at least 2.
    """
    if not isinstance(n_classes, int) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")
    x = layers.Conv2D(n_classes, 1, kernel_initializer="lecun_uniform", bias_initializer="ones")(x)
    x = layers.ReLU()(x)  # (N, H, W, n_classes)
    x = layers.GlobalAveragePooling2D()(x)
    return layers.Softmax()(x)


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

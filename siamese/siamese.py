"""The convolutional Siamese network: are two images of one class, even of a class that it never saw?

Paper: Koch, Zemel and Salakhutdinov 2015, "Siamese Neural Networks for One-shot Image Recognition", ICML Deep Learning
Workshop, figure 4. Two images go through the same network, the twins; what counts is how far apart they come out.

    siamese_omniglot
    stem          (105, 105,   1) -> ( 48,  48,  64)   10x10 convolution and 2x2 max pooling
    group 1       ( 48,  48,  64) -> ( 21,  21, 128)   7x7 convolution and pooling
    group 2       ( 21,  21, 128) -> (  9,   9, 128)   4x4 convolution and pooling
    group 3       (  9,   9, 128) -> (  6,   6, 256)   4x4 convolution
    encoding      (  6,   6, 256) -> (4096,)           dense layer, sigmoid; here each twin ends
    classifier    (4096,) -> (1,)                      of the distances of two encodings

    siamese_cifar10
    stem          ( 32,  32,   3) -> ( 16,  16,  32)   3x3 convolution and 2x2 max pooling
    group 1       ( 16,  16,  32) -> (  8,   8,  64)   two 3x3 convolutions and pooling
    group 2       (  8,   8,  64) -> (  4,   4, 128)   two 3x3 convolutions and pooling
    encoding      (  4,   4, 128) -> (256,)            dense layer, sigmoid
    classifier    (256,) -> (1,)

Trainable parameters: siamese_omniglot 38,951,745, of which the twin has 38,947,648, counted once since both are it;
siamese_cifar10 802,977, of which the twin has 802,720.
Differs from the paper: in siamese_omniglot the last layer has a bias, which the printed formula has not. Its weights
begin as printed: convolutions N(0, 0.01), biases N(0.5, 0.01), dense layers N(0, 0.2). siamese_cifar10 is not in the
paper: small padded convolutions with batch normalization and He-normal weights.
"""

from keras import Input, Model, initializers, layers, ops

METAPARAMETERS = {
    "siamese_omniglot": {
        "stem": {"n_filters": 64, "kernel_size": 10},
        "groups": (
            {"n_layers": 1, "n_filters": 128, "kernel_size": 7},
            {"n_layers": 1, "n_filters": 128, "kernel_size": 4},
            {"n_layers": 1, "n_filters": 256, "kernel_size": 4, "pooling": False},
        ),
        "n_units": 4096,
        "padding": "valid",
        "initial_weights": "koch",
    },
    "siamese_cifar10": {
        "stem": {"n_filters": 32, "kernel_size": 3},
        "groups": (
            {"n_layers": 2, "n_filters": 64, "kernel_size": 3},
            {"n_layers": 2, "n_filters": 128, "kernel_size": 3},
        ),
        "n_units": 256,
        "padding": "same",
        "batch_normalization": True,
        "initial_weights": "he_normal",
    },
}


def build(metaparameters, input_shape=(105, 105, 1)):
    """Connect the twins, their distance and the classifier: two images (N, H, W, C) in, their similarity (N, 1) out.

    The twins are one model called twice: its weights are there once, and learn from both images of a pair.

    Args:
        metaparameters: a value of METAPARAMETERS or a dictionary of one's own: `groups`, a tuple of
            {"n_layers", "n_filters", "kernel_size"} and perhaps `pooling` (True); `n_units`, how many numbers encode
            an image; and where they differ from the defaults, `stem`, {"n_filters" (64), "kernel_size" (10)},
            `padding` of the convolutions ("valid"), `batch_normalization` (False) and `initial_weights` ("he_normal";
            "koch", the paper's).
        input_shape: (H, W, C) of each image, a fixed size, since a dense layer follows.

    Returns:
        A `keras.Model` of two inputs, [left, right], and the probability that they show the same class. Its layer
        "twin" is the model that encodes one image.

    Raises:
        ValueError: metaparameters or input_shape cannot make a network.
    """
    encoder = twin(metaparameters, input_shape)
    left, right = Input(input_shape, name="left"), Input(input_shape, name="right")
    x = l1_distance(encoder(left), encoder(right))  # (N, n_units)
    outputs = classifier(x, metaparameters.get("initial_weights", "he_normal"))
    return Model([left, right], outputs)


def twin(metaparameters, input_shape=(105, 105, 1)):
    """Return the model that both images go through: (N, H, W, C) -> encodings (N, n_units), each number from 0 to 1.

    Its arguments and errors are those of build.
    """
    check(metaparameters, ("groups", "n_units"), ("stem", "padding", "batch_normalization", "initial_weights"))
    check(metaparameters.get("stem", {}), (), ("n_filters", "kernel_size"))
    for group_metaparameters in metaparameters["groups"]:
        check(group_metaparameters, ("n_layers", "n_filters", "kernel_size"), ("pooling",))
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not all(input_shape):
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape}")
    options = {
        "padding": metaparameters.get("padding", "valid"),
        "batch_normalization": metaparameters.get("batch_normalization", False),
        "initial_weights": metaparameters.get("initial_weights", "he_normal"),
    }

    inputs = Input(input_shape)
    x = stem(inputs, **metaparameters.get("stem", {}), **options)
    x = learner(x, metaparameters["groups"], **options)
    outputs = encoding(x, metaparameters["n_units"], options["initial_weights"])
    return Model(inputs, outputs, name="twin")


def stem(inputs, n_filters=64, kernel_size=10, **options):
    """The first convolution and pooling: images (N, H, W, C) to feature maps (N, about H / 2, W / 2, n_filters).

    Args:
        inputs: the images.
        n_filters, kernel_size: of the convolution.
        options: the other arguments of conv_relu.
    """
    return max_pooling(conv_relu(inputs, n_filters, kernel_size, **options))


def learner(x, groups, **options):
    """The groups in a row: (N, H, W, C) -> smaller feature maps (N, H', W', n_filters of the last), ready for any head.

    Args:
        x: the stem's feature maps.
        groups: a tuple of {"n_layers", "n_filters", "kernel_size"} and perhaps "pooling".
        options: the other arguments of conv_relu.
    """
    for metaparameters in groups:
        x = group(x, **metaparameters, **options)
    return x


def group(x, n_layers, n_filters, kernel_size, pooling=True, **options):
    """Convolutions, then in most groups a 2x2 max pooling: (N, H, W, C) -> (N, H', W', n_filters).

    H' = H - n_layers (kernel_size - 1) if the padding is "valid", else H; pooling halves it and drops a half pixel.

    Args:
        x: feature maps.
        n_layers, n_filters, kernel_size: how many convolutions, and of which kind.
        pooling: whether the pooling follows.
        options: the other arguments of conv_relu.
    """
    for _ in range(n_layers):
        x = conv_relu(x, n_filters, kernel_size, **options)
    return max_pooling(x) if pooling else x


def conv_relu(x, n_filters, kernel_size, padding="valid", batch_normalization=False, initial_weights="he_normal"):
    """A convolution, batch normalization if wanted, ReLU: (N, H, W, C) -> (N, H', W', n_filters).

    Args:
        x: feature maps.
        n_filters, kernel_size: of the convolution.
        padding: "valid", so that H' = H - kernel_size + 1, or "same", so that H' = H.
        batch_normalization: whether it follows the convolution, which then needs no bias.
        initial_weights: "koch", N(0, 0.01) and biases N(0.5, 0.01), or "he_normal".

    Raises:
        ValueError: padding or initial_weights is another, or the feature maps are smaller than the kernel.
    """
    if padding not in ("valid", "same"):
        raise ValueError(f'padding must be "valid" or "same", got {padding!r}')
    if padding == "valid" and any(size is not None and size < kernel_size for size in x.shape[1:3]):
        raise ValueError(f"the input is too small: feature maps of {x.shape[1:3]} under a kernel of {kernel_size}")
    x = layers.Conv2D(
        n_filters, kernel_size, padding=padding, use_bias=not batch_normalization, **initial(initial_weights, 0.01)
    )(x)
    if batch_normalization:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)


def max_pooling(x):
    """The maximum of each 2x2 pixels: (N, H, W, C) -> (N, H // 2, W // 2, C)."""
    if any(size is not None and size < 2 for size in x.shape[1:3]):
        raise ValueError(f"the input is too small: feature maps of {x.shape[1:3]} cannot be halved")
    return layers.MaxPooling2D(2, strides=2)(x)


def encoding(x, n_units, initial_weights="he_normal"):
    """Flatten, then a dense layer with sigmoids: feature maps (N, H, W, C) -> (N, n_units), from 0 to 1.

    Args:
        x: feature maps of a fixed size: height and width decide how many weights the dense layer has.
        n_units: how many numbers encode an image.
        initial_weights: "koch", N(0, 0.2) and biases N(0.5, 0.01), or "he_normal".
    """
    x = layers.Flatten()(x)
    return layers.Dense(n_units, activation="sigmoid", **initial(initial_weights, 0.2))(x)


def l1_distance(left, right):
    """How far the encodings of two images are apart, number by number: twice (N, n_units) -> |left - right|, the same.

    It is the same whichever image comes first. Section 3.1 of the paper.
    """
    return ops.abs(left - right)


def classifier(x, initial_weights="he_normal"):
    """A weight for each distance, then a sigmoid: (N, n_units) -> the probability of one class (N, 1). Section 3.1."""
    return layers.Dense(1, activation="sigmoid", **initial(initial_weights, 0.2))(x)


def initial(initial_weights, deviation):
    """Return how the weights of a layer begin, as arguments of the layer.

    They are made anew for each layer: one initializer gives two layers of the same shape the same numbers.

    Args:
        initial_weights: "koch", section 3.2 of the paper: weights N(0, deviation), biases N(0.5, 0.01); or "he_normal",
            biases of 0.
        deviation: the standard deviation of the weights, in "koch".

    Raises:
        ValueError: initial_weights is another.
    """
    if initial_weights == "he_normal":
        return {"kernel_initializer": "he_normal"}
    if initial_weights == "koch":
        return {
            "kernel_initializer": initializers.RandomNormal(0.0, deviation),
            "bias_initializer": initializers.RandomNormal(0.5, 0.01),
        }
    raise ValueError(f'initial_weights must be "koch" or "he_normal", got {initial_weights!r}')


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

"""The convolutional autoencoder: an encoder that makes an image small, and a decoder that makes it whole again.

Of no single paper: learning to copy through a narrow layer is Hinton and Salakhutdinov 2006, "Reducing the
Dimensionality of Data with Neural Networks"; strided convolutions in place of pooling are Springenberg et al. 2014,
"Striving for Simplicity", arXiv:1412.6806; transposed ones Zeiler et al. 2010, "Deconvolutional Networks".

    autoencoder_cifar10
    encoder       ( 32,  32,   3) -> (  4,   4,  32)   convolutions of 64, 32 and 32 filters, each strided
    decoder       (  4,   4,  32) -> ( 32,  32,   3)   transposed convolutions of 32, 64 and 3 filters, each strided

    autoencoder_90_cifar10
    encoder       ( 32,  32,   3) -> (  4,   4,  19)   convolutions of 64, 32 and 19 filters, each strided
    decoder       (  4,   4,  19) -> ( 32,  32,   3)   transposed convolutions of 32, 64 and 3 filters, each strided

An image of 3,072 numbers becomes a code of 512, a reduction by 83%, or of 304, by 90%.
Trainable parameters: autoencoder_cifar10 59,171, autoencoder_90_cifar10 51,670.
"""

import keras  # keras.layers in full: `layers` is what the functions call their metaparameter
from keras import Input, Model

METAPARAMETERS = {
    "autoencoder_cifar10": {"layers": (64, 32, 32)},
    "autoencoder_90_cifar10": {"layers": (64, 32, 19)},
}


def build(metaparameters, input_shape=(32, 32, 3)):
    """Connect encoder and decoder: images (N, H, W, C) in, their reconstructions (N, H, W, C) out.

    Args:
        metaparameters: a value of METAPARAMETERS or a dictionary of one's own: `layers`, the filters of each layer of
            the encoder, a tuple; the last is the depth of the code.
        input_shape: (H, W, C), H and W divisible by 2 for each layer; they may be None, for images of any such size.

    Returns:
        A `keras.Model` of two layers, the models "encoder", (N, H, W, C) -> codes (N, H / 2^layers, W / 2^layers,
        filters of the last layer), and "decoder", the other way; model.get_layer("encoder") works alone.

    Raises:
        ValueError: metaparameters or input_shape cannot make a network.
    """
    if not isinstance(metaparameters, dict) or set(metaparameters) != {"layers"}:
        raise ValueError(f"metaparameters must be a dictionary of layers, got {metaparameters!r}")
    layers = metaparameters["layers"]
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not input_shape[2]:
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape}")

    inputs = Input(input_shape)
    to_code = Model(inputs, encoder(inputs, layers), name="encoder")
    codes = Input(to_code.output_shape[1:])
    to_image = Model(codes, decoder(codes, layers, input_shape[2]), name="decoder")
    return Model(inputs, to_image(to_code(inputs)))


def encoder(x, layers):
    """Strided 3x3 convolutions, each of which halves height and width; the feature maps of the last are the code.

    Between them come batch normalization and ReLU; the code has neither, so that it may be any number.

    Args:
        x: images (N, H, W, C).
        layers: the filters of each convolution, a tuple.

    Returns:
        Codes (N, H / 2^layers, W / 2^layers, filters of the last).

    Raises:
        ValueError: layers is no tuple of whole numbers, or H or W is not divisible by 2 for each layer.
    """
    check_layers(layers)
    if any(size is not None and (size < 1 or size % 2 ** len(layers)) for size in x.shape[1:3]):
        raise ValueError(
            f"height and width must be divisible by {2 ** len(layers)}, 2 for each of {len(layers)} layers, "
            f"got {tuple(x.shape[1:3])}"
        )
    *hidden, last = layers
    for n_filters in hidden:
        x = keras.layers.Conv2D(n_filters, 3, 2, "same", use_bias=False, kernel_initializer="he_normal")(x)
        x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        x = keras.layers.ReLU()(x)
    return keras.layers.Conv2D(last, 3, 2, "same", kernel_initializer="he_normal")(x)


def decoder(x, layers, n_channels):
    """The encoder's mirror: strided transposed 3x3 convolutions, each of which doubles height and width.

    The filters are the encoder's in reverse, without that of the code, and at the end the channels of an image.

    Args:
        x: codes (N, H, W, C).
        layers: the filters of each convolution of the encoder, a tuple.
        n_channels: of the images.

    Returns:
        Images (N, 2^layers H, 2^layers W, n_channels).

    Raises:
        ValueError: layers is no tuple of whole numbers, or n_channels no whole number.
    """
    check_layers(layers)
    if not isinstance(n_channels, int) or n_channels < 1:
        raise ValueError(f"n_channels must be a whole number of at least 1, got {n_channels!r}")
    for n_filters in reversed(layers[:-1]):
        x = transposed_convolution(x, n_filters, use_bias=False)
        x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        x = keras.layers.ReLU()(x)
    return transposed_convolution(x, n_channels)


def transposed_convolution(x, n_filters, use_bias=True):
    """Each pixel adds a 3x3 patch, two pixels from the next one's: (N, H, W, C) -> (N, 2H, 2W, n_filters).

    What reaches beyond 2H and 2W, at the bottom and the right, is cut off, where the encoder's convolutions are padded.
    The padding "same" does so too, but on PyTorch at the top and the left. The weights begin as Keras has it (Glorot):
    "he_normal" would take the filters of a transposed kernel for its inputs, and begin too high.
    """
    x = keras.layers.Conv2DTranspose(n_filters, 3, 2, use_bias=use_bias)(x)
    return keras.layers.Cropping2D(((0, 1), (0, 1)))(x)  # from (N, 2H + 1, 2W + 1, n_filters)


def check_layers(layers):
    """Raise ValueError unless layers is a tuple of at least one number of filters."""
    if not isinstance(layers, (tuple, list)) or not layers or not all(isinstance(n, int) and n > 0 for n in layers):
        raise ValueError(f"layers must be a tuple of whole numbers of at least 1, such as (64, 32, 32), got {layers!r}")

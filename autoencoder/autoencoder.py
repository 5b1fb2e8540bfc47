"""The convolutional autoencoder: an encoder makes a small code of an image, a decoder restores the image from it.

There is no single paper: learning to copy through a narrow layer is Hinton and Salakhutdinov 2006, "Reducing the
Dimensionality of Data with Neural Networks"; strided convolutions in place of pooling are Springenberg et al. 2014,
"Striving for Simplicity", arXiv:1412.6806; transposed convolutions Zeiler et al. 2010, "Deconvolutional Networks". The
decoder has the filters of the encoder in reverse order, except in its last layer, which has the channels of the image.

    autoencoder_cifar10
    encoder       ( 32,  32,   3) -> (  4,   4,  32)   convolutions of 64, 32 and 32 filters, each strided
    decoder       (  4,   4,  32) -> ( 32,  32,   3)   transposed convolutions of 32, 32 and 3 filters, each strided

    autoencoder_90_cifar10
    encoder       ( 32,  32,   3) -> (  4,   4,  19)   convolutions of 64, 32 and 19 filters, each strided
    decoder       (  4,   4,  19) -> ( 32,  32,   3)   transposed convolutions of 19, 32 and 3 filters, each strided

The code of autoencoder_cifar10 has 512 values where the image has 3,072, a reduction by 83%; that of
autoencoder_90_cifar10 has 304, a reduction by 90%.
Trainable parameters: autoencoder_cifar10 49,027, autoencoder_90_cifar10 35,533.
Batch normalization and ReLU follow every layer but the last of the encoder and of the decoder: the values of the code
and of the image may be any number. The transposed convolutions are cropped at the bottom and
the right, on every backend, and their initial weights are Glorot-uniform.
"""

from numbers import Integral

from keras import Input, Model, config, layers

METAPARAMETERS = {
    "autoencoder_cifar10": {"layers": ({"n_filters": 64}, {"n_filters": 32}, {"n_filters": 32})},
    "autoencoder_90_cifar10": {"layers": ({"n_filters": 64}, {"n_filters": 32}, {"n_filters": 19})},
}


def build(metaparameters, input_shape=(32, 32, 3)):
    """Return an autoencoder as a `keras.Model`: images (N, H, W, C) to their reconstructions (N, H, W, C).

    It has two layers, which are models and work alone: `get_layer("encoder")`, images to codes (N, H / 2^layers,
    W / 2^layers, filters of the last layer), and `get_layer("decoder")`, codes to images.

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `layers`, a tuple of {"n_filters"}, the
            convolutions of the encoder; the last has the depth of the code.
        input_shape: (H, W, C), H and W None for any size; every layer of the encoder halves them.

    Raises:
        ValueError: metaparameters or input_shape are invalid.
    """
    if not isinstance(metaparameters, dict) or set(metaparameters) != {"layers"}:
        raise ValueError(f"metaparameters must be a dictionary with layers and nothing else, got {metaparameters!r}")
    in_layers = metaparameters["layers"]
    is_tuple = isinstance(in_layers, (tuple, list)) and len(in_layers) > 0
    if not is_tuple or not all(isinstance(in_layer, dict) and set(in_layer) == {"n_filters"} for in_layer in in_layers):
        raise ValueError(f'layers must be a tuple of dictionaries, as ({{"n_filters": 64}},), got {in_layers!r}')
    filters = [in_layer["n_filters"] for in_layer in in_layers]
    if not all(isinstance(n, Integral) and n > 0 for n in filters):
        raise ValueError(f"n_filters must be whole numbers of at least 1, got {in_layers!r}")
    if config.image_data_format() != "channels_last":
        raise ValueError("image_data_format must be channels_last, got channels_first (keras.json or keras.config)")
    is_shape = isinstance(input_shape, (tuple, list)) and len(input_shape) == 3 and input_shape[2]
    if not is_shape or not all(n is None or isinstance(n, Integral) and n >= 0 for n in input_shape):
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape!r}")
    divisor = 2 ** len(filters)
    if any(size is not None and (size < 1 or size % divisor) for size in input_shape[:2]):
        raise ValueError(f"height and width must be divisible by {divisor}, got {input_shape[:2]}")

    images = Input(input_shape, name="images")
    to_code = named_by_stage(images, encoder(images, filters), ["encoder"])
    codes = Input(to_code.output_shape[1:], name="codes")
    to_image = named_by_stage(codes, decoder(codes, filters, input_shape[2]), ["decoder"])
    to_code.name, to_image.name = "encoder", "decoder"
    return Model(images, to_image(to_code(images)))


def encoder(x, filters):
    """Strided 3x3 convolutions: images (N, H, W, C) to codes (N, H / 2^layers, W / 2^layers, last of the filters).

    Batch normalization and ReLU follow each convolution but the last: a value of the code may be any number.

    Args:
        x: images (N, H, W, C), H and W divisible by 2^layers.
        filters: a tuple, the filters of each convolution.
    """
    *hidden, last = filters
    for n_filters in hidden:  # halves height and width: (N, H / 2, W / 2, n_filters) each
        x = layers.Conv2D(n_filters, 3, 2, "same", use_bias=False, kernel_initializer="he_normal")(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        x = layers.ReLU()(x)
    return layers.Conv2D(last, 3, 2, "same", kernel_initializer="he_normal")(x)  # the code


def decoder(x, filters, n_channels):
    """The encoder's mirror, transposed convolutions: codes (N, H, W, C) to images (N, 2^layers H, ..., n_channels).

    Args:
        x: codes (N, H, W, C).
        filters: a tuple, the filters of each convolution of the encoder; the decoder has them in reverse order, but
            n_channels in place of the first.
        n_channels: of the images.
    """
    for n_filters in reversed(filters[1:]):  # doubles height and width: (N, 2H, 2W, n_filters) each
        x = transposed_convolution(x, n_filters, use_bias=False)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
        x = layers.ReLU()(x)
    # In float32 under a policy of half precision too, which would round the pixels and their loss.
    return transposed_convolution(x, n_channels, dtype="float32")  # the channels of the image


def transposed_convolution(x, n_filters, use_bias=True, dtype=None):
    """A strided transposed 3x3 convolution: (N, H, W, C) -> (N, 2H, 2W, n_filters).

    Each pixel adds a 3x3 patch to the output; the patches of neighbors start two pixels apart and overlap by one. What
    exceeds 2H and 2W is cropped at the bottom and the right, where the encoder's convolutions are padded; the padding
    "same" would crop the top and the left on PyTorch. The initial weights are Keras' default, Glorot-uniform, since
    He-normal takes the filters of a transposed kernel for its inputs.
    """
    x = layers.Conv2DTranspose(n_filters, 3, 2, use_bias=use_bias, dtype=dtype)(x)
    return layers.Cropping2D(((0, 1), (0, 1)), dtype=dtype)(x)  # from (N, 2H + 1, 2W + 1, n_filters)


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

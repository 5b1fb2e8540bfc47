"""The autoencoder's decoder mirrors its encoder; the arithmetic of both, in plain numpy."""

import math

import keras
import numpy as np
import pytest
from folders import load, predict, random_weights, without_numbers
from keras import layers

MODULE = load("autoencoder/autoencoder.py")
SMALL = {"layers": ({"n_filters": 5}, {"n_filters": 4}, {"n_filters": 2})}


def convolution(a, b):
    """Parameters of a 3x3 convolution and its batch normalization, which takes the place of a bias."""
    return 9 * a * b + 2 * b


@pytest.mark.parametrize("filters, mirrored", [
    ((64, 32, 32), [32, 32, 3]), ((64, 32, 19), [19, 32, 3]), ((16, 8, 4, 2), [2, 4, 8, 3]), ((7,), [3]),
])
def test_the_decoder_has_the_filters_of_the_encoder_in_reverse_order_except_the_last(filters, mirrored):
    with without_numbers():
        model = MODULE.build({"layers": tuple({"n_filters": n} for n in filters)}, (32, 48, 3))
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    down = [layer for layer in encoder.layers if isinstance(layer, layers.Conv2D)]
    up = [layer for layer in decoder.layers if isinstance(layer, layers.Conv2DTranspose)]
    assert [layer.filters for layer in down] == list(filters) and [layer.filters for layer in up] == mirrored
    assert all(layer.kernel_size == (3, 3) and layer.strides == (2, 2) for layer in down + up)
    factor = 2 ** len(filters)
    assert encoder.output_shape == decoder.input_shape == (None, 32 // factor, 48 // factor, filters[-1])
    assert model.output_shape == (None, 32, 48, 3)


def test_metaparameters_are_dictionaries_of_layers():
    found = {name: [layer["n_filters"] for layer in value["layers"]] for name, value in MODULE.METAPARAMETERS.items()}
    assert found == {"autoencoder_cifar10": [64, 32, 32], "autoencoder_90_cifar10": [64, 32, 19]}


@pytest.mark.parametrize("name, code, expected", [
    ("autoencoder_cifar10", 32, 49_027), ("autoencoder_90_cifar10", 19, 35_533),
])
def test_parameters(name, code, expected):
    encoder = convolution(3, 64) + convolution(64, 32) + (9 * 32 + 1) * code
    decoder = convolution(code, code) + convolution(code, 32) + (9 * 32 + 1) * 3
    with without_numbers():
        model = MODULE.build(MODULE.METAPARAMETERS[name])
    assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == encoder + decoder == expected
    assert f"{name} {expected:,}" in MODULE.__doc__


def test_arithmetic():
    """Transposed convolution: each pixel adds its 3x3 patch, two pixels from the next; bottom and right are cropped."""
    model = MODULE.build(SMALL, (16, 8, 3))
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    random_weights(encoder, 0)
    random_weights(decoder, 1)
    images = np.random.default_rng(2).normal(size=(2, 16, 8, 3)).astype("float32")

    def strided(x, kernel):
        n, h, w, _ = x.shape
        padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
        y = np.zeros((n, h // 2, w // 2, kernel.shape[-1]))
        for i in range(3):
            for j in range(3):
                y += padded[:, i : i + h : 2, j : j + w : 2] @ kernel[i, j]
        return y

    def transposed(x, kernel):
        n, h, w, _ = x.shape
        y = np.zeros((n, 2 * h + 1, 2 * w + 1, kernel.shape[2]))
        for i in range(3):
            for j in range(3):
                y[:, i : i + 2 * h : 2, j : j + 2 * w : 2] += x @ kernel[i, j].T
        return y[:, :-1, :-1]

    def half(x, weights, convolution):
        """Convolution, batch normalization and ReLU, and at the end a convolution with a bias."""
        weights = list(weights)
        while len(weights) > 2:
            kernel, gamma, beta, mean, variance = weights[:5]
            x = np.maximum((convolution(x, kernel) - mean) / np.sqrt(variance + 1e-5) * gamma + beta, 0)
            weights = weights[5:]
        return convolution(x, weights[0]) + weights[1]

    codes = half(images, encoder.get_weights(), strided)
    assert codes.shape == (2, 2, 1, 2)
    np.testing.assert_allclose(predict(encoder, images), codes, rtol=1e-4, atol=1e-4)
    expected = half(codes, decoder.get_weights(), transposed)
    assert expected.shape == images.shape
    np.testing.assert_allclose(predict(decoder, codes.astype("float32")), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(predict(model, images), expected, rtol=1e-3, atol=1e-3)


def test_two_builds_and_what_is_saved_are_the_same_network(tmp_path):
    first, second = (MODULE.build(SMALL, (16, 16, 3)) for _ in range(2))
    for half in ("encoder", "decoder"):
        names = [operation.name for operation in first.get_layer(half).operations]
        assert names == [operation.name for operation in second.get_layer(half).operations]
        assert all(name.startswith(half) for name in names[1:])
    first.save(tmp_path / "autoencoder.keras")
    loaded = keras.saving.load_model(tmp_path / "autoencoder.keras", safe_mode=True)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(predict(loaded, images), predict(first, images), atol=1e-6)


@pytest.mark.parametrize("in_layers", [(), [], None, 64, {"n_filters": 64}, (64, 32), ({},), ({"filters": 64},),
                                       ({"n_filters": 64, "strides": 1},)])
def test_layers_that_cannot_be(in_layers):
    with pytest.raises(ValueError, match="layers must be a tuple of dictionaries, as "):
        MODULE.build({"layers": in_layers})


@pytest.mark.parametrize("n_filters", [0, -1, 1.5, None, "64"])
def test_filters_that_cannot_be(n_filters):
    with pytest.raises(ValueError, match="n_filters must be whole numbers of at least 1, got"):
        MODULE.build({"layers": ({"n_filters": 64}, {"n_filters": n_filters})})

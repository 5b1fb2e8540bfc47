"""SENet-154: parameters, and the arithmetic of its stem and blocks."""

import math
import re

import keras
import numpy as np
import pytest
from folders import load, predict, random_weights, without_numbers
from keras import Input, Model, layers

PATH = "senet/senet154.py"
GROUP = {"n_filters": 8, "n_filters_out": 16, "n_blocks": 2}
SMALL = {
    "groups": (GROUP, GROUP | {"n_filters": 12, "n_filters_out": 20}),
    "cardinality": 4, "ratio": 3, "stem": {"n_filters": 4, "n_filters_out": 6},
}


def convolution(c_in, c_out, area=1):
    """Weights of a convolution without bias and of its batch normalization."""
    return area * c_in * c_out + 2 * c_out


def test_parameters():
    """hujie-frank/SENet, SENet-154.prototxt, and timm's senet154; the sum, and the network."""
    c, expected = 128, convolution(3, 64, 9) + convolution(64, 64, 9) + convolution(64, 128, 9)
    for n, n_blocks in ((128, 3), (256, 8), (512, 36), (1024, 3)):
        expected += convolution(c, 2 * n, 1 if c == 128 else 9)  # the projection
        for _ in range(n_blocks):
            expected += convolution(c, n) + convolution(n // 64, 2 * n, 9) + convolution(2 * n, 2 * n)
            expected += 2 * (2 * n) * (2 * n // 16) + 2 * n // 16 + 2 * n
            c = 2 * n
    assert expected + (2048 + 1) * 1000 == 115_088_984
    module = load(PATH)
    with without_numbers():
        model = module.build(module.METAPARAMETERS["senet154"])
    assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == 115_088_984
    assert "senet154 115,088,984" in module.__doc__


def test_layers():
    """154 with the classifier, but for projections and squeeze-excitation; and which projections are 3x3."""
    module = load(PATH)
    with without_numbers():
        model = module.build(module.METAPARAMETERS["senet154"])
    convolutions = of(model, layers.Conv2D)
    squared = [layer for layer in convolutions if layer.groups == 1 and layer.kernel_size == (3, 3)]
    assert [layer.filters for layer in squared] == [64, 64, 128, 512, 1024, 2048]  # the stem, the strided projections
    assert [layer.strides for layer in squared] == [(2, 2), (1, 1), (1, 1), (2, 2), (2, 2), (2, 2)]
    assert len(convolutions) - 4 + 1 == 154
    grouped = [layer for layer in convolutions if layer.groups > 1]
    assert len(grouped) == 50 and all(layer.groups == 64 for layer in grouped)
    assert all(layer.filters == 2 * layer.input.shape[-1] for layer in grouped)  # it widens
    assert [layer.rate for layer in of(model, layers.Dropout)] == [0.2]


def of(model, kind):
    """The layers of a kind in the order in which they were made; Keras counts them in their names."""
    found = [layer for layer in model.layers if isinstance(layer, kind)]
    return sorted(found, key=lambda layer: int((re.findall(r"_(\d+)$", layer.name) or ["0"])[0]))


class Arithmetic:
    """The network's layers by numpy, with the weights of a model in the order of its layers."""

    def __init__(self, model):
        self.kernels = iter([layer.get_weights()[0] for layer in of(model, layers.Conv2D)])
        self.normalizations = iter([layer.get_weights() for layer in of(model, layers.BatchNormalization)])
        self.dense = iter([layer.get_weights() for layer in of(model, layers.Dense)])

    def conv_bn(self, x, strides=1):
        """Padded alike on all sides; a kernel for fewer feature maps than there are is of a grouped convolution."""
        kernel, (gamma, beta, mean, variance) = next(self.kernels), next(self.normalizations)
        k, _, c, n = kernel.shape
        x = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
        h, w = ((size - k) // strides + 1 for size in x.shape[1:3])
        groups = x.shape[-1] // c
        outputs = []
        for g in range(groups):
            part, filters = x[..., c * g : c * (g + 1)], kernel[..., n // groups * g : n // groups * (g + 1)]
            outputs.append(sum(
                part[:, i : i + strides * h : strides, j : j + strides * w : strides][:, :h, :w] @ filters[i, j]
                for i in range(k) for j in range(k)
            ))
        return gamma * (np.concatenate(outputs, -1) - mean) / np.sqrt(variance + 1e-5) + beta

    def conv_bn_relu(self, x, strides=1):
        return np.maximum(self.conv_bn(x, strides), 0)

    def se_block(self, x):
        (first, b), (second, c) = next(self.dense), next(self.dense)
        weights = np.maximum(x.mean((1, 2)) @ first + b, 0) @ second + c
        return x / (1 + np.exp(-weights))[:, None, None]

    def block(self, x, strides=1, projection=True):
        shortcut = self.conv_bn(x, strides) if projection else x
        x = self.conv_bn_relu(self.conv_bn_relu(x), strides)
        return np.maximum(self.se_block(self.conv_bn(x)) + shortcut, 0)

    def stem(self, x):
        x = self.conv_bn_relu(self.conv_bn_relu(self.conv_bn_relu(x, 2)))
        h, w = (size // 2 for size in x.shape[1:3])
        x = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))  # Caffe's windows begin at the first pixel
        return np.max([x[:, i : i + 2 * h : 2, j : j + 2 * w : 2] for i in range(3) for j in range(3)], 0)


@pytest.mark.parametrize("function, expected, shape", [
    (lambda m, x: m.stem(x, 4, 6), lambda numpy, x: numpy.stem(x), (2, 16, 12, 3)),
    (lambda m, x: m.identity_block(x, 8, 4, 3), lambda numpy, x: numpy.block(x, projection=False), (2, 4, 5, 12)),
    (lambda m, x: m.projection_block(x, 8, 12, 4, 1, 3), lambda numpy, x: numpy.block(x), (2, 4, 5, 6)),
    (lambda m, x: m.projection_block(x, 8, 12, 4, 2, 3), lambda numpy, x: numpy.block(x, 2), (2, 6, 5, 6)),
], ids=["stem", "identity_block", "projection_block", "projection_block, strided"])
def test_arithmetic(function, expected, shape):
    inputs = Input(shape[1:])
    model = Model(inputs, function(load(PATH), inputs))
    random_weights(model)
    x = np.random.default_rng(1).normal(size=shape).astype("float32")
    arithmetic = Arithmetic(model)
    wanted = expected(arithmetic, x)
    assert wanted.std() > 0.1
    assert not [*arithmetic.kernels, *arithmetic.normalizations, *arithmetic.dense]
    np.testing.assert_allclose(predict(model, x), wanted, rtol=1e-4, atol=1e-5)


def test_two_builds_have_the_same_names_and_a_file_loads_again(tmp_path):
    module = load(PATH)
    first, second = (module.build(SMALL, (None, None, 3), 10) for _ in range(2))
    names = [operation.name for operation in first.operations]
    assert names == [operation.name for operation in second.operations]
    assert {"stem", "group_1", "group_2", "classifier_1", "stem_1", "group_1_1"} <= set(names)
    random_weights(first)
    first.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for size in ((32, 32), (9, 21)):
        x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
        np.testing.assert_array_equal(predict(again, x), predict(first, x))


@pytest.mark.parametrize("wrong, sentence", [
    ({"groups": ()}, "metaparameters must be a dictionary with groups"),
    ({"groups": ({"n_filters": 8, "n_blocks": 2},)}, "metaparameters are invalid"),
    ({"groups": (GROUP | {"n_blocks": 0},)}, "filters and blocks must be whole and at least 1"),
    ({"stem": {"kernel_size": 7}}, "metaparameters are invalid"),
    ({"stem": {"n_filters": 1.5}}, "filters and blocks must be whole and at least 1"),
    ({"cardinality": 8}, "cardinality must be a whole number that divides all filters"),
    ({"cardinality": 2.0}, "cardinality must be a whole number that divides all filters"),
    ({"groups": (GROUP | {"n_filters_out": 18},)}, "cardinality must be a whole number that divides all filters"),
    ({"ratio": 17}, "ratio must be a whole number of 1 to 16, the fewest feature maps, got 17"),
    ({"ratio": 0}, "ratio must be a whole number of 1 to 16, the fewest feature maps, got 0"),
])
def test_wrong_metaparameters_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        load(PATH).build(SMALL | wrong, (32, 32, 3), 10)


def test_images_too_small_are_refused():
    with pytest.raises(ValueError, match="height and width must be at least 8, got"):
        load(PATH).build(SMALL, (7, 32, 3), 10)


def test_both_are_among_the_models_to_train():
    models = load("senet/train.py").MODELS
    assert {"senet154", "se_inception_v2"} <= set(models) and not any("inception_v1" in name for name in models)

"""Inception v2 and SE-Inception v2: parameters, arithmetic of the blocks, training without auxiliary classifiers."""

import json
import math
import re

import keras
import numpy as np
import pytest
from folders import build, load, main, predict, random_weights, without_numbers
from keras import Input, Model, layers

V2, SE_V2 = "inception/inception_v2.py", "senet/se_inception_v2.py"
BLOCK = {"n_1x1": 4, "n_3x3_reduce": 3, "n_3x3": 5, "n_double_3x3_reduce": 2, "n_double_3x3": 6, "n_pool": 3}
REDUCTION = {"n_3x3_reduce": 3, "n_3x3": 5, "n_double_3x3_reduce": 2, "n_double_3x3": 4}
SMALL = {
    "groups": (
        {"blocks": (BLOCK, BLOCK | {"pooling": "max"}), "grid_reduction": REDUCTION},
        {"blocks": (BLOCK | {"pooling": "average"},)},
    ),
    "stem": {"n_filters": 4, "n_filters_out": 8, "kernel_size": 3, "strides": 1, "pooling": False},
}
every_module = pytest.mark.parametrize("path", [V2, SE_V2])

# Figure 5 of Ioffe and Szegedy: 1x1, 3x3 reduce, 3x3, double 3x3 reduce, double 3x3, pool; a strided block has four.
TABLE = {
    "3a": (64, 64, 64, 64, 96, 32), "3b": (64, 64, 96, 64, 96, 64), "3c": (128, 160, 64, 96),
    "4a": (224, 64, 96, 96, 128, 128), "4b": (192, 96, 128, 96, 128, 128), "4c": (160, 128, 160, 128, 160, 128),
    "4d": (96, 128, 192, 160, 192, 128), "4e": (128, 192, 192, 256),
    "5a": (352, 192, 320, 160, 224, 128), "5b": (352, 192, 320, 192, 224, 128),
}
WIDTHS = (256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024)  # after each row
BIASES = 11_295_240 - 11_285_224  # osmr/imgclsmob's network has them


def convolution(c_in, c_out, area=1):
    """Weights of a convolution without bias and of its batch normalization."""
    return area * c_in * c_out + 2 * c_out


def sum_of_the_table(divisor=1, without=(), kernel_area=49, n_classes=1000):
    """All filters divided, some rows left out: (parameters, biases if there were some, widths after each row)."""
    n = 64 // divisor
    c, widths, outputs = 3 * n, [], [n, n, 3 * n]
    total = convolution(3, n, kernel_area) + convolution(n, n) + convolution(n, c, 9)
    for name, row in TABLE.items():
        if name in without:
            continue
        row = [m // divisor for m in row]
        n_1x1, n_pool = (row[:1], row[5:]) if len(row) > 4 else ([], [])
        n_3x3_reduce, n_3x3, n_double_reduce, n_double = row[1:5] if len(row) > 4 else row
        total += sum(convolution(c, m) for m in (*n_1x1, n_3x3_reduce, n_double_reduce, *n_pool))
        total += convolution(n_3x3_reduce, n_3x3, 9)
        total += convolution(n_double_reduce, n_double, 9) + convolution(n_double, n_double, 9)
        outputs += [*n_1x1, n_3x3_reduce, n_3x3, n_double_reduce, n_double, n_double, *n_pool]
        c = sum((*n_1x1, n_3x3, n_double, *n_pool)) if n_pool else n_3x3 + n_double + c
        widths.append(c)
    return total + (c + 1) * n_classes, sum(outputs), tuple(widths)


def squeeze_excitation(c, ratio=16):
    """Two dense layers with biases."""
    return 2 * c * (c // ratio) + c // ratio + c


SE_PARAMETERS = 11_285_224 + sum(squeeze_excitation(c) for c in WIDTHS)


@pytest.mark.parametrize("path, name, expected, input_shape, n_classes", [
    (V2, "inception_v2", 11_285_224, (224, 224, 3), 1000),
    (V2, "inception_v2_cifar10", sum_of_the_table(4, ("3a", "4b"), 9, 10)[0], (32, 32, 3), 10),
    (SE_V2, "se_inception_v2", 11_931_622, (224, 224, 3), 1000),  # hujie-frank/SENet, SE-BN-Inception.prototxt
])
def test_parameters(path, name, expected, input_shape, n_classes):
    module = load(path)
    with without_numbers():
        model = module.build(module.METAPARAMETERS[name], input_shape, n_classes)
    assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == expected
    assert f"{name} {expected:,}" in module.__doc__.replace("\n", " ")


def test_the_sums_come_to_the_published_figures():
    assert sum_of_the_table() == (11_285_224, BIASES, WIDTHS)
    assert SE_PARAMETERS == 11_931_622
    header = load(V2).__doc__.replace("\n", " ")
    assert f"{BIASES:,}" in header and "608" in header and "1056" in header


def of(model, kind):
    """The layers of a kind in the order in which they were made; Keras counts them in their names."""
    found = [layer for layer in model.layers if isinstance(layer, kind)]
    return sorted(found, key=lambda layer: int((re.findall(r"_(\d+)$", layer.name) or ["0"])[0]))


class Arithmetic:
    """Convolutions, batch normalization and ReLU by numpy, with the weights of a model in the order of its layers."""

    def __init__(self, model):
        self.kernels = iter([layer.get_weights()[0] for layer in of(model, layers.Conv2D)])
        self.normalizations = iter([layer.get_weights() for layer in of(model, layers.BatchNormalization)])
        self.dense = iter([layer.get_weights() for layer in of(model, layers.Dense)])

    def conv_bn_relu(self, x, strides=1):
        """Padded alike on all sides."""
        kernel, (gamma, beta, mean, variance) = next(self.kernels), next(self.normalizations)
        k = len(kernel)
        x = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
        h, w = ((size - k) // strides + 1 for size in x.shape[1:3])
        x = sum(
            x[:, i : i + strides * h : strides, j : j + strides * w : strides][:, :h, :w] @ kernel[i, j]
            for i in range(k) for j in range(k)
        )
        return np.maximum(gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta, 0)

    def inception_block(self, x, average):
        branches = [self.conv_bn_relu(x), self.conv_bn_relu(self.conv_bn_relu(x))]
        branches.append(self.conv_bn_relu(self.conv_bn_relu(self.conv_bn_relu(x))))
        branches.append(self.conv_bn_relu(pool(x, np.nanmean if average else np.nanmax)))
        return np.concatenate(branches, -1)

    def reduce_grid(self, x):
        branches = [self.conv_bn_relu(self.conv_bn_relu(x), 2)]
        branches.append(self.conv_bn_relu(self.conv_bn_relu(self.conv_bn_relu(x)), 2))
        # Caffe's windows begin at the first pixel; of an odd size a convolution makes one more, and so must the pooling
        return np.concatenate([*branches, pool(x, np.nanmax)[:, 1 - x.shape[1] % 2 :: 2, 1 - x.shape[2] % 2 :: 2]], -1)

    def se_block(self, x):
        (first, b), (second, c) = next(self.dense), next(self.dense)
        weights = np.maximum(x.mean((1, 2)) @ first + b, 0) @ second + c
        return x / (1 + np.exp(-weights))[:, None, None]


def pool(x, of_window):
    """3x3 windows around each pixel, without what lies outside."""
    h, w = x.shape[1:3]
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    return of_window([x[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], 0)


def compare(function, expected, shape):
    """A function of our modules with random weights, and what numpy makes of the same feature maps."""
    inputs = Input((None, None, shape[-1]))
    model = Model(inputs, function(inputs))
    random_weights(model)
    x = np.random.default_rng(1).normal(size=shape).astype("float32")
    arithmetic = Arithmetic(model)
    wanted = expected(arithmetic, x)
    assert wanted.std() > 0.1
    assert not [*arithmetic.kernels, *arithmetic.normalizations, *arithmetic.dense]
    np.testing.assert_allclose(predict(model, x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_inception_block(pooling):
    compare(
        lambda x: load(V2).inception_block(x, **BLOCK, pooling=pooling),
        lambda numpy, x: numpy.inception_block(x, pooling == "average"),
        (2, 6, 5, 7),
    )


@pytest.mark.parametrize("size", [(6, 8), (7, 5), (1, 1)])
def test_grid_reduction(size):
    compare(lambda x: load(V2).reduce_grid(x, **REDUCTION), Arithmetic.reduce_grid, (2, *size, 7))


def test_squeeze_excitation_follows_every_concatenation():
    """The blocks' and the grid reduction's; and the first group is as the second, which it does not touch."""
    def expected(numpy, x):
        x = numpy.se_block(numpy.inception_block(x, True))
        x = numpy.se_block(numpy.inception_block(x, False))
        return numpy.se_block(numpy.reduce_grid(x))

    first, _ = SMALL["groups"]
    compare(lambda x: load(SE_V2).group(x, **first, ratio=2), expected, (2, 6, 6, 7))
    module = load(SE_V2)
    with without_numbers():
        model = module.build(module.METAPARAMETERS["se_inception_v2"])
    concatenations = [layer for layer in model.layers if isinstance(layer, layers.Concatenate)]
    scaled = [layer.input[0] for layer in model.layers if isinstance(layer, layers.Multiply)]
    assert [layer.output for layer in concatenations] == scaled and len(scaled) == 10


@every_module
def test_two_builds_have_the_same_names(path):
    module = load(path)
    with without_numbers():
        first, second = (module.build(SMALL, (32, 32, 3), 10) for _ in range(2))
    names = [operation.name for operation in first.operations]
    assert names == [operation.name for operation in second.operations]
    assert {"stem", "group_1", "group_2", "classifier_1", "stem_1", "group_1_1"} <= set(names)


@every_module
def test_images_of_any_size_and_a_file_that_loads_again(path, tmp_path):
    model = build(load(path), SMALL, (None, None, 3), 10)
    random_weights(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for size in ((32, 32), (9, 21)):
        x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
        outputs = predict(model, x)
        assert outputs.shape == (2, 10)
        np.testing.assert_allclose(outputs.sum(-1), 1, rtol=1e-5)
        np.testing.assert_array_equal(predict(again, x), outputs)


def change_block(**changes):
    return {"groups": ({"blocks": (BLOCK | changes,)},)}


@every_module
@pytest.mark.parametrize("wrong, sentence", [
    ({"groups": ()}, "metaparameters must be a dictionary with groups"),
    ({"groups": ((BLOCK,),)}, "metaparameters are invalid"),
    ({"groups": ({"blocks": (BLOCK, None)},)}, "metaparameters are invalid"),
    ({"groups": ({"blocks": (REDUCTION,)},)}, "metaparameters are invalid"),
    ({"groups": ({"blocks": (BLOCK,), "grid_reduction": BLOCK},)}, "metaparameters are invalid"),
    ({"groups": ({"blocks": ()},)}, "a group must have a tuple of at least one block"),
    ({"dropout": 0.2}, "metaparameters are invalid"),
    ({"stem": {"kernel_size": 2.5}}, "filters, kernel_size and strides must be whole and at least 1"),
    (change_block(n_double_3x3=0), "filters, kernel_size and strides must be whole and at least 1"),
    (change_block(pooling="min"), 'pooling of a block must be "average" or "max"'),
    (change_block(pooling=3), 'pooling of a block must be "average" or "max"'),
])
def test_wrong_metaparameters_are_refused(path, wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        load(path).build(SMALL | wrong, (32, 32, 3), 10)


@every_module
def test_images_too_small_are_refused(path):
    module = load(path)
    with pytest.raises(ValueError, match="height and width must be at least 4, got"):
        module.build(SMALL, (32, 3, 3), 10)
    (whole,) = (value for name, value in module.METAPARAMETERS.items() if not name.endswith("_cifar10"))
    with pytest.raises(ValueError, match="height and width must be at least 32, got"):
        module.build(whole, (31, 64, 3), 10)


@pytest.mark.parametrize("ratio", [0, 19, 1.5, None])
def test_wrong_ratios_are_refused(ratio):
    with pytest.raises(ValueError, match="ratio must be a whole number of 1 to 18, the fewest feature maps, got"):
        load(SE_V2).build(SMALL | {"ratio": ratio}, (32, 32, 3), 10)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_version_2_is_trained_without_auxiliary_classifiers(monkeypatch, tmp_path):
    module = load("inception/train.py")
    assert "inception_v2_cifar10" in module.MODELS
    module.MODELS["tiny"] = (module.inception_v2.build, SMALL | {"groups": ({"blocks": (BLOCK,)},)})
    flags = ["--model", "tiny", "--data", "synthetic", "--limit", "20", "--epochs", "2", "--batch-size", "10"]
    flags += ["--learning-rate", "0.1"]
    main("inception", monkeypatch, *flags, "--output", tmp_path, module=module)
    results = json.loads((tmp_path / "results.json").read_text())
    header, *rows = (tmp_path / "history.csv").read_text().split()
    best = max(float(dict(zip(header.split(","), row.split(","), strict=True))["val_accuracy"]) for row in rows)
    assert results["validation_accuracy"] == pytest.approx(best, abs=1e-6)
    kept = keras.saving.load_model(tmp_path / "model.keras")
    network = kept.get_layer("tiny")
    assert kept.output_shape == (None, 10) and network.get_layer("group_1").output.shape == (None, 16, 16, 18)
    assert results["parameters"] == sum(math.prod(v.shape) for v in network.trainable_variables)

"""The pre-activation blocks in both kinds, and the plain block, against a forward pass in plain numpy."""

import keras
import numpy as np
import pytest
from folders import load, predict, random_weights
from keras import Input, Model, layers

BOTTLENECK, BASIC, V1 = load("resnet/resnet_v2.py"), load("resnet/resnet_v2_basic.py"), load("resnet/resnet_basic.py")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 6, 6, 8)).astype("float32")


def convolution(x, kernel, strides=1):
    """Of feature maps padded on all sides by half the kernel."""
    size = kernel.shape[0]
    x = np.pad(x, ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)))
    rows, columns = ((n - size) // strides + 1 for n in x.shape[1:3])
    outputs = np.zeros((len(x), rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            patch = x[:, i * strides : i * strides + size, j * strides : j * strides + size]
            outputs[:, i, j] = np.einsum("nhwc,hwcf->nf", patch, kernel)
    return outputs


def bn_relu(x, weights):
    gamma, beta, mean, variance = weights
    return np.maximum(0, gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta)


def pad(x, n_filters, strides):
    x = x[:, ::strides, ::strides]
    return np.concatenate([x, np.zeros((*x.shape[:3], n_filters - x.shape[-1]))], -1)


def block(function, *args, **kwargs):
    """Return what a block of random weights makes of X, its kernels and its normalizations, in order of use."""
    inputs = Input(X.shape[1:])
    model = Model(inputs, function(inputs, *args, **kwargs))
    random_weights(model)
    kernels = [layer.get_weights()[0] for layer in model.layers if isinstance(layer, layers.Conv2D)]
    norms = [layer.get_weights() for layer in model.layers if isinstance(layer, layers.BatchNormalization)]
    return predict(model, X), kernels, norms


def close(found, expected):
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_identity_block_of_bottlenecks():
    found, (k1, k2, k3), (n1, n2, n3) = block(BOTTLENECK.identity_block, 2)
    x = convolution(bn_relu(X, n1), k1)
    x = convolution(bn_relu(x, n2), k2)
    close(found, X + convolution(bn_relu(x, n3), k3))


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("strided", ["1x1", "3x3"])
def test_projection_block_of_bottlenecks(strided, activated):
    found, kernels, norms = block(BOTTLENECK.projection_block, 2, 2, strided, activated)
    shapes = [kernel.shape for kernel in kernels]
    first = {"1x1": 2, "3x3": 1}[strided]
    shortcut = kernels.pop(shapes.index((1, 1, 8, 8)))  # of 8 feature maps, as the restoration has 2
    k1, k2, k3 = kernels
    x = X if activated else bn_relu(X, norms.pop(0))
    residual = convolution(x, k1, first)
    residual = convolution(bn_relu(residual, norms[0]), k2, 3 - first)
    close(found, convolution(x, shortcut, 2) + convolution(bn_relu(residual, norms[1]), k3))


@pytest.mark.parametrize("activated", [False, True])
def test_identity_block_of_two_convolutions(activated):
    found, (k1, k2), norms = block(BASIC.identity_block, 8, activated)
    x = X if activated else bn_relu(X, norms.pop(0))
    close(found, X + convolution(bn_relu(convolution(x, k1), norms[0]), k2))


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize("shortcut_type", ["projection", "zero_padding"])
def test_projection_block_of_two_convolutions(shortcut_type, activated):
    found, kernels, norms = block(BASIC.projection_block, 12, 2, shortcut_type, activated)
    x = X if activated else bn_relu(X, norms.pop(0))
    if shortcut_type == "projection":
        (shortcut,) = (kernel for kernel in kernels if kernel.shape[0] == 1)
        shortcut = convolution(x, shortcut, 2)
    else:
        shortcut = pad(x, 12, 2)
    k1, k2 = (kernel for kernel in kernels if kernel.shape[0] == 3)
    close(found, shortcut + convolution(bn_relu(convolution(x, k1, 2), norms[0]), k2))


def test_plain_block():
    found, (k1, k2), (n1, n2) = block(V1.plain_block, 12, 2)
    close(found, bn_relu(convolution(bn_relu(convolution(X, k1, 2), n1), k2), n2))


@pytest.mark.parametrize("module", [BOTTLENECK, BASIC])
def test_one_activation_between_the_first_convolution_and_the_split(module):
    """The paper's appendix: "the first activation right after conv1 and before splitting into two paths"."""
    for stem in ({}, {"n_filters": 8, "kernel_size": 3, "strides": 1, "pooling": False}):
        model = module.build({"groups": ({"n_filters": 8, "n_blocks": 1},), "stem": stem}, (32, 32, 3), 10)
        names = [layer.name for layer in model.layers if isinstance(layer, layers.ReLU)]
        inside = 2 if module is BOTTLENECK else 1  # all but the first convolution's
        assert sum(name.startswith("stem_") for name in names) == 1
        assert sum(name.startswith("group_1_") for name in names) == inside
        assert sum(name.startswith("learner_") for name in names) == 1


def test_plain_networks_are_the_residual_ones_without_shortcuts():
    groups = ({"n_filters": 8, "n_blocks": 2}, {"n_filters": 16, "n_blocks": 2})
    stem = {"n_filters": 8, "kernel_size": 3, "strides": 1, "pooling": False}
    plain, padded = (
        V1.build({"groups": groups, "stem": stem, "shortcut_type": name}, (16, 16, 3), 10)
        for name in ("none", "zero_padding")
    )
    assert [w.shape for w in plain.weights] == [w.shape for w in padded.weights]
    assert not any(isinstance(layer, layers.Add) for layer in plain.layers)


def test_a_network_too_deep_for_the_recursion_limit_is_refused_in_a_sentence(monkeypatch):
    def too_deep(*args):
        raise RecursionError

    module = load("resnet/resnet_basic.py")
    monkeypatch.setattr(module, "named_by_stage", too_deep)
    with pytest.raises(ValueError, match="sys.setrecursionlimit"):
        module.build(module.METAPARAMETERS["resnet20_cifar10"], (32, 32, 3), 10)


def test_the_learner_ends_activated():
    model = BASIC.build({"groups": ({"n_filters": 64, "n_blocks": 1},)}, (32, 32, 3), 10)
    features = Model(model.input, model.get_layer("learner").output)
    assert predict(features, np.asarray(keras.random.normal((2, 32, 32, 3)))).min() >= 0

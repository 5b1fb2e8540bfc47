"""Equal outputs with equal weights: our graphs against keras.applications and against arithmetic done by hand."""

import keras
import numpy as np
from folders import load
from keras import Input, Model, layers


def random_weights(model, seed=0):
    """Give every weight of a model a random value, so that no term of the arithmetic is 0 or 1 by luck."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        new = []
        for w in layer.get_weights():
            scale = (2 / w[..., 0].size) ** 0.5 if w.ndim > 1 else 0.1  # He: the outputs keep their size
            new.append(rng.normal(0 if w.ndim > 1 else 0.5, scale, w.shape).astype("float32"))
        layer.set_weights(new)


def images(size, n=2):
    return np.random.default_rng(1).normal(size=(n, size, size, 3)).astype("float32")


def test_vgg16_is_that_of_keras_applications():
    twin = keras.applications.VGG16(weights=None, input_shape=(32, 32, 3), classes=10, classifier_activation="softmax")
    random_weights(twin)
    module = load("vgg/vgg.py")
    model = module.build(module.METAPARAMETERS["vgg16"], (32, 32, 3), 10)
    model.set_weights(twin.get_weights())
    np.testing.assert_allclose(model.predict(images(32)), twin.predict(images(32)), rtol=1e-5)


def test_resnet50_is_that_of_keras_applications():
    twin = keras.applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10)
    random_weights(twin)
    module = load("resnet/resnet_v1.py")
    model = module.build(module.METAPARAMETERS["resnet50"], (64, 64, 3), 10)

    def of(network, kind):
        return [layer for layer in network.layers if isinstance(layer, kind)]

    for ours, theirs in zip(of(model, layers.Conv2D), of(twin, layers.Conv2D), strict=True):
        kernel, bias = theirs.get_weights()
        ours.set_weights([kernel])
        theirs.set_weights([kernel, 0 * bias])  # ours has no biases
    for ours, theirs in zip(of(model, layers.BatchNormalization), of(twin, layers.BatchNormalization), strict=True):
        ours.set_weights(theirs.get_weights())
    model.layers[-1].set_weights(twin.layers[-1].get_weights())
    # keras.applications' epsilon is 1.001e-5
    np.testing.assert_allclose(model.predict(images(64)), twin.predict(images(64)), rtol=1e-3, atol=1e-6)


def test_strided_convolutions_are_padded_on_all_sides():
    """A 3x3 kernel of ones counts the pixels that it sees; "same" would give [[9, 6], [6, 4]]."""
    for path, function in (("resnet/resnet_v1.py", "conv_bn"), ("resnet/resnet_v2.py", "convolution")):
        inputs = Input((4, 4, 1))
        model = Model(inputs, getattr(load(path), function)(inputs, 1, 3, 2))
        for layer in model.layers:
            if isinstance(layer, layers.Conv2D):
                layer.set_weights([np.ones((3, 3, 1, 1))])
        outputs = model.predict(np.ones((1, 4, 4, 1)))[0, ..., 0]
        np.testing.assert_allclose(outputs, [[4, 6], [6, 9]], rtol=1e-4)  # the normalization's epsilon


def test_version_1_5_strides_in_the_3x3_convolution():
    for version, strides in (("1x1", (2, 1)), ("3x3", (1, 2))):
        inputs = Input((8, 8, 16))
        model = Model(inputs, load("resnet/resnet_v1.py").projection_block(inputs, 4, 2, version))
        convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
        first, second = (layer for layer in convolutions if layer.filters == 4)  # not the shortcut, not the last
        assert (first.kernel_size, second.kernel_size) == ((1, 1), (3, 3))
        assert (first.strides[0], second.strides[0]) == strides


def test_zero_padding_subsamples_and_adds_channels_of_zeros():
    inputs = Input((8, 8, 4))
    model = Model(inputs, load("resnet/resnet_basic.py").projection_block(inputs, 6, 2, "zero_padding"))
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            layer.set_weights([0 * layer.get_weights()[0]])  # leaves the shortcut alone
    x = np.random.default_rng(0).uniform(size=(3, 8, 8, 4)).astype("float32")
    expected = np.concatenate([x[:, ::2, ::2], np.zeros((3, 4, 4, 2))], axis=-1)
    np.testing.assert_allclose(model.predict(x), expected)


def test_pre_activation_shortcut_is_untouched():
    """Without its convolutions a block of version 2 is the identity; one of version 1 is a ReLU."""
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 16)).astype("float32")
    inputs = Input((4, 4, 16))
    for path, expected in (("resnet/resnet_v2.py", x), ("resnet/resnet_v1.py", np.maximum(x, 0))):
        model = Model(inputs, load(path).identity_block(inputs, 4))
        for layer in model.layers:
            if isinstance(layer, layers.Conv2D):
                layer.set_weights([0 * layer.get_weights()[0]])
        np.testing.assert_allclose(model.predict(x), expected, atol=1e-6)


def test_pre_activation_projection_shares_its_activation():
    """Both branches start from one BN-ReLU, and the shortcut has no normalization (Identity Mappings, appendix)."""
    inputs = Input((8, 8, 16))
    model = Model(inputs, load("resnet/resnet_v2.py").projection_block(inputs, 8))
    starts = [layer.input for layer in model.layers if isinstance(layer, layers.Conv2D) and layer.strides == (2, 2)]
    assert len(starts) == 2 and starts[0] is starts[1]
    assert isinstance(model.layers[1], layers.BatchNormalization) and isinstance(model.layers[2], layers.ReLU)
    assert sum(isinstance(layer, layers.BatchNormalization) for layer in model.layers) == 3

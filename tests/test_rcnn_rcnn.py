"""What R-CNN has of its own: warped regions against twins, AlexNet in numpy, features for the linear models."""

import keras
import numpy as np
import pytest
from folders import load, predict, random_weights

MODULE = load("rcnn/rcnn.py")
MEAN = np.array([120.3, 115.2, 104.1])


def random_image(height=20, width=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype="uint8")


def warp(image, regions, size, padding):
    """With the context in pixels of the result."""
    return MODULE.warp(image, np.array(regions, "float32").reshape(-1, 4), MEAN, size, padding / size)


def twin_of_warp(image, region, size, padding):
    """One pixel after the other: where it lies in the image, and a weighted mean of the four pixels around."""
    height, width, _ = image.shape
    x1, y1, x2, y2 = (float(side) for side in region)
    inner = size - 2 * padding
    out = np.empty((size, size, 3))
    for row in range(size):
        for column in range(size):
            x = x1 + (column - padding + 0.5) * (x2 - x1) / inner
            y = y1 + (row - padding + 0.5) * (y2 - y1) / inner
            if not (0 < x < width and 0 < y < height):
                out[row, column] = MEAN
                continue
            x, y = min(max(x, 0.5), width - 0.5), min(max(y, 0.5), height - 0.5)
            out[row, column] = 0
            for i in range(height):
                for j in range(width):
                    weight = max(0, 1 - abs(y - i - 0.5)) * max(0, 1 - abs(x - j - 0.5))
                    out[row, column] += weight * image[i, j]
    return out


@pytest.mark.parametrize(
    "region", [(3, 2, 20, 9), (-4, -3, 6, 5), (22, 12, 30, 20), (0, 0, 30, 20), (7.3, 4.1, 9.2, 16.8), (-3, 5, 40, 6)]
)
@pytest.mark.parametrize("padding", [0, 2])
def test_warp_is_its_twin(region, padding):
    image = random_image()
    (found,) = warp(image, [region], 11, padding)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, twin_of_warp(image, region, 11, padding), atol=0.02)


def test_warp_is_tensorflows_inside_the_image():
    """crop_and_resize is told where the centers of the first and of the last pixel lie, by the corners' pixels."""
    tf = pytest.importorskip("tensorflow")
    image, size, padding = random_image(60, 50), 20, 3
    regions = np.array([[12, 15, 37, 40], [20, 20, 24, 45], [15, 30, 33, 35]], "float32")
    (height, width), reach = image.shape[:2], (0.5 - padding) / (size - 2 * padding)
    sides = regions[:, 2:] - regions[:, :2]
    first, last = regions[:, :2] + reach * sides - 0.5, regions[:, 2:] - reach * sides - 0.5
    corners = np.concatenate([first[:, ::-1], last[:, ::-1]], 1) / [height - 1, width - 1, height - 1, width - 1]
    expected = tf.image.crop_and_resize(image[None].astype("float32"), corners, [0] * 3, (size, size))
    np.testing.assert_allclose(warp(image, regions, size, padding), expected, atol=0.02)


def test_a_region_of_the_inner_size_is_copied_with_its_context():
    image = random_image()
    (found,) = warp(image, [[5, 4, 15, 14]], 16, 3)
    np.testing.assert_allclose(found, image[1:17, 2:18], atol=1e-2)


def test_the_context_of_the_paper():
    """16 of 227 pixels on each side: 195 pixels of a region become the inner 195."""
    image = random_image(250, 250)
    (found,) = MODULE.warp(image, np.array([[20, 30, 215, 225]], "float32"), MEAN)
    assert found.shape == (227, 227, 3)
    np.testing.assert_allclose(found, image[14:241, 4:231], atol=0.05)


def test_around_the_image_is_the_mean_that_is_subtracted():
    """Exactly, so that normalization makes it 0: a region that fills the image, and one at its left edge."""
    image = random_image(10, 10)
    (found,) = warp(image, [[0, 0, 10, 10]], 16, 3)
    inside = np.zeros((16, 16), bool)
    inside[3:13, 3:13] = True
    np.testing.assert_allclose(found[inside].reshape(10, 10, 3), image, atol=1e-2)
    normalized = keras.layers.Normalization(mean=MEAN, variance=[4000.0, 3000.0, 2000.0])(found[None])[0]
    assert not keras.ops.convert_to_numpy(normalized)[~inside].any()
    assert keras.ops.convert_to_numpy(normalized)[inside].any(-1).all()
    image = random_image()
    (found,) = warp(image, [[0, 4, 10, 14]], 16, 3)
    np.testing.assert_allclose(found[:, 3:], image[1:17, :13], atol=1e-2)
    np.testing.assert_array_equal(found[:, :3], np.broadcast_to(MEAN.astype("float32"), (16, 3, 3)))


def test_a_region_without_area_is_the_color_of_its_place():
    image = random_image()
    found = warp(image, [[5.5, 7.5, 5.5, 7.5], [5.5, 7, 5.5, 8]], 8, 2)
    np.testing.assert_allclose(found[0], np.broadcast_to(image[7, 5], (8, 8, 3)), atol=1e-2)
    assert (found[1] == found[1][:, :1]).all()  # a line: its columns are alike


def test_no_region_is_no_picture():
    found = warp(random_image(), [], 8, 2)
    assert found.shape == (0, 8, 8, 3) and found.dtype == "float32"


def response_normalized(x):
    """LRNLayer of Caffe, across channels: x_i / (1 + alpha / 5 sum of the squares of x_(i-2) ... x_(i+2))^0.75."""
    out = np.empty_like(x)
    for i in range(x.shape[-1]):
        neighbors = x[..., max(0, i - 2) : i + 3]
        out[..., i] = x[..., i] / (1 + 1e-4 / 5 * (neighbors**2).sum(-1)) ** 0.75
    return out


def test_local_response_normalization_is_caffes():
    x = np.random.default_rng(0).normal(0, 300, (2, 3, 3, 9)).astype("float32")
    found = keras.ops.convert_to_numpy(MODULE.local_response_normalization(keras.ops.convert_to_tensor(x)))
    np.testing.assert_allclose(found, response_normalized(x.astype(float)), rtol=1e-4)
    assert abs(found / x).min() < 0.5  # of large numbers it makes something else


def convolved(x, kernel, bias, strides, padding):
    """Convolution and ReLU: (H, W, C) -> (H', W', n)."""
    size = kernel.shape[0]
    x = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (0, 1))[::strides, ::strides]
    return np.maximum(np.einsum("hwcij,ijcn->hwn", windows, kernel, optimize=True) + bias, 0)


def pooled(x):
    return np.lib.stride_tricks.sliding_window_view(x, (3, 3), (0, 1))[::2, ::2].max((3, 4))


def caffenet(x, weights):
    """bvlc_reference_rcnn_ilsvrc13 up to pool5: kernels and biases of conv1, then of each half of the filters."""

    def two(x, size):
        halves = np.split(x, 2, -1)
        return np.concatenate([convolved(half, *next(weights), 1, size // 2) for half in halves], -1)

    x = response_normalized(pooled(convolved(x, *next(weights), 4, 0)))
    x = response_normalized(pooled(two(x, 5)))
    return pooled(two(two(convolved(x, *next(weights), 1, 1), 3), 3))


def test_alexnet_is_caffenet_in_numpy():
    """On the smallest image that leaves a pixel; the pixels are large, or normalization would change little."""
    images, size = keras.Input((67, 67, 3)), 67
    model = keras.Model(images, MODULE.learner(MODULE.alexnet_stem(images), pool_size=3))
    assert model.output_shape == (None, 1, 1, 256)
    pairs = [layer.get_weights() for layer in model.layers if layer.weights]
    assert [kernel.shape for kernel, _ in pairs] == [
        (11, 11, 3, 96), (5, 5, 48, 128), (5, 5, 48, 128), (3, 3, 256, 384), (3, 3, 192, 192), (3, 3, 192, 192),
        (3, 3, 192, 128), (3, 3, 192, 128),
    ]  # fmt: skip
    x = np.random.default_rng(0).normal(0, 300, (size, size, 3)).astype("float32")
    expected = caffenet(x.astype(float), iter(pairs))
    np.testing.assert_allclose(predict(model, x[None])[0], expected, rtol=1e-3, atol=1e-3 * expected.max())
    with pytest.raises(ValueError, match="height and width must be at least 67, got [(]66, 67[)]"):
        MODULE.build(MODULE.METAPARAMETERS["rcnn_alexnet"], (66, 67, 3))
    with pytest.raises(ValueError, match="Computed output size would be zero or negative"):
        MODULE.learner(MODULE.alexnet_stem(keras.Input((66, 66, 3))), pool_size=3)


def test_each_group_sees_its_half_of_the_channels():
    images = keras.Input((5, 5, 8))
    model = keras.Model(images, MODULE.two_groups(images, 6, 3))
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 8)).astype("float32")
    changed = x.copy()
    changed[..., 4:] += 1
    before, after = predict(model, x), predict(model, changed)
    np.testing.assert_array_equal(before[..., :3], after[..., :3])
    assert (before[..., 3:] != after[..., 3:]).any((0, 1, 2)).all()


def test_a_network_of_either_stem():
    network = MODULE.build({"stem": "alexnet", "pool_size": 3, "n_units": (8,)}, (67, 67, 3), 4)
    assert network.get_layer("backbone").count_params() == 2_334_080  # conv1 to conv5 of CaffeNet
    assert network.output_shape == (None, 4)
    with pytest.raises(ValueError, match="metaparameters are invalid: stem, in"):
        MODULE.build({"stem": "resnet", "groups": ({"n_layers": 1, "n_filters": 8},)})
    with pytest.raises(ValueError, match="metaparameters are invalid: groups"):
        MODULE.build({"stem": "alexnet", "groups": ({"n_layers": 1, "n_filters": 8},)})


def test_linear_models_are_linear_in_the_features():
    """fc7 is what the last layer has seen, pool5 what the first dense layer has seen; a class has its own regressor."""
    metaparameters = {"groups": ({"n_layers": 1, "n_filters": 3}, {"n_layers": 1, "n_filters": 4}), "n_units": (7, 6)}
    network = MODULE.build(metaparameters, (8, 8, 3), 4)
    for part in ("backbone", "head"):
        random_weights(network.get_layer(part))
    model = MODULE.with_linear_models(network, 3)
    rng = np.random.default_rng(1)
    kernels, biases = rng.normal(size=(3, 16, 4)), rng.normal(size=(3, 4))
    scores_kernel, scores_bias = rng.normal(size=(6, 3)), rng.normal(size=3)
    model.get_layer("scores").set_weights([scores_kernel, scores_bias])
    model.get_layer("deltas").set_weights([np.concatenate(kernels, 1), np.concatenate(biases)])
    x = rng.normal(size=(5, 8, 8, 3)).astype("float32")
    found = predict(model, x)
    assert {name: values.shape for name, values in found.items()} == {
        "scores": (5, 3), "deltas": (5, 3, 4), "fc7": (5, 6), "pool5": (5, 16),
    }  # fmt: skip

    head = network.get_layer("head")
    (w6, b6), (w7, b7), (w8, b8) = (head.get_layer(name).get_weights() for name in ("fc6", "fc7", "classes"))
    fc6 = np.maximum(found["pool5"] @ w6 + b6, 0)
    np.testing.assert_allclose(found["fc7"], np.maximum(fc6 @ w7 + b7, 0), rtol=1e-4, atol=1e-5)
    logits = np.exp(found["fc7"] @ w8 + b8)
    np.testing.assert_allclose(predict(network, x), logits / logits.sum(1, keepdims=True), rtol=1e-4)
    maps = predict(network.get_layer("backbone"), x)  # (5, 4, 4, 4)
    pool5 = maps.reshape(5, 2, 2, 2, 2, 4).max((2, 4))
    np.testing.assert_allclose(found["pool5"], pool5.reshape(5, 16), rtol=1e-5)

    np.testing.assert_allclose(found["scores"], found["fc7"] @ scores_kernel + scores_bias, rtol=1e-4, atol=1e-4)
    for k in range(3):
        expected = found["pool5"] @ kernels[k] + biases[k]
        np.testing.assert_allclose(found["deltas"][:, k], expected, rtol=1e-4, atol=1e-4)

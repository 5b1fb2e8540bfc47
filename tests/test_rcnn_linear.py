"""What R-CNN has besides its network: warped regions, support vector machines and box regressors, against twins."""

import keras
import numpy as np
import pytest
from folders import load, random_weights

MODULE = load("rcnn/rcnn.py")


def random_image(height=20, width=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype="uint8")


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
                out[row, column] = image.reshape(-1, 3).mean(0)
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
    (found,) = MODULE.warp(image, np.array([region], "float32"), 11, padding)
    assert found.dtype == "uint8"
    np.testing.assert_allclose(found, twin_of_warp(image, region, 11, padding), atol=0.51)


def test_warp_is_tensorflows_inside_the_image():
    tf = pytest.importorskip("tensorflow")
    """crop_and_resize is told where the centers of the first and of the last pixel lie, by the corners' pixels."""
    image, size, padding = random_image(60, 50), 20, 3
    regions = np.array([[12, 15, 37, 40], [20, 20, 24, 45], [15, 30, 33, 35]], "float32")
    (height, width), reach = image.shape[:2], (0.5 - padding) / (size - 2 * padding)
    sides = regions[:, 2:] - regions[:, :2]
    first, last = regions[:, :2] + reach * sides - 0.5, regions[:, 2:] - reach * sides - 0.5
    corners = np.concatenate([first[:, ::-1], last[:, ::-1]], 1) / [height - 1, width - 1, height - 1, width - 1]
    expected = tf.image.crop_and_resize(image[None].astype("float32"), corners, [0] * 3, (size, size))
    np.testing.assert_allclose(MODULE.warp(image, regions, size, padding), expected, atol=0.52)


def test_a_region_of_the_inner_size_is_copied_with_its_context():
    image = random_image()
    (found,) = MODULE.warp(image, np.array([[5, 4, 15, 14]]), 16, 3)
    np.testing.assert_array_equal(found, image[1:17, 2:18])


def test_marked_pixels_land_where_they_must():
    """A region of 8x4 pixels becomes 24x24: 3 for 1 in x, 6 in y; so 3 pixels of context are 1 in x, 1/2 in y."""
    image = np.zeros((20, 30, 3), "uint8")
    image[9, 12], image[7, 9], image[8, 18] = 200, 100, 50  # in the region; left of it; right of it
    (found,) = MODULE.warp(image, np.array([[10, 8, 18, 12]]), 30, 3)
    found = found[..., 0]
    in_region = [found[3 + 6 + row, 3 + 6 + 1] for row in (2, 3)]  # the two rows on either side of its center
    np.testing.assert_allclose(in_region, 200 * 11 / 12, atol=0.51)
    assert found[:, 10].argmax() in (11, 12) and found[11].argmax() == 10
    assert found[5, 28] == found[6, 28] == round(50 * 11 / 12) and found[5, :3].max() < 25
    assert found[:3, 1].max() > 25  # of the row above the region, the lower half is in the context


def test_around_the_image_is_its_mean_color():
    """A region that fills the image: all of the context is outside."""
    image = np.zeros((10, 10, 3), "uint8")
    image[:, 5:] = 100, 200, 50
    (found,) = MODULE.warp(image, np.array([[0, 0, 10, 10]]), 16, 3)
    np.testing.assert_array_equal(found[3:13, 3:13], image)
    found[3:13, 3:13] = 50, 100, 25
    np.testing.assert_array_equal(found, np.broadcast_to([50, 100, 25], (16, 16, 3)))


def test_context_outside_one_edge():
    image = random_image()
    (found,) = MODULE.warp(image, np.array([[0, 4, 10, 14]]), 16, 3)
    np.testing.assert_array_equal(found[:, 3:], image[1:17, :13])
    np.testing.assert_array_equal(found[:, :3], np.broadcast_to(image.mean((0, 1)).round(), (16, 3, 3)))


def test_a_region_without_area_is_one_color():
    image = random_image()
    found = MODULE.warp(image, np.array([[5.5, 7.5, 5.5, 7.5], [5.5, 7, 5.5, 8]]), 8, 2)
    np.testing.assert_array_equal(found[0], np.broadcast_to(image[7, 5], (8, 8, 3)))
    assert (found[1] == found[1][:, :1]).all()  # a line: its columns are alike


def test_no_region_is_no_picture():
    found = MODULE.warp(random_image(), np.zeros((0, 4)), 8, 2)
    assert found.shape == (0, 8, 8, 3) and found.dtype == "uint8"


@pytest.mark.parametrize(
    "image, regions", [((9, 9), (1, 4)), ((1, 9, 9, 3), (1, 4)), ((9, 9, 3), (4,)), ((9, 9, 3), (2, 5))]
)
def test_warp_refuses_other_shapes(image, regions):
    with pytest.raises(ValueError, match=r"image \(H, W, C\) and regions \(R, 4\), got ") as caught:
        MODULE.warp(np.zeros(image, "uint8"), np.zeros(regions), 8, 2)
    assert str(image) in str(caught.value) and str(regions) in str(caught.value)


@pytest.mark.parametrize("padding", [-1, 4, 5])
def test_warp_refuses_a_padding_that_leaves_no_region(padding):
    with pytest.raises(ValueError, match=f"less than half of size 8, got {padding}"):
        MODULE.warp(random_image(), np.array([[0, 0, 5, 5]]), 8, padding)


def twin_of_svm(positives, negatives, C=1e-3, positive_weight=2):
    """Newton's method for |w|^2 / 2 + C sum weight max(0, 1 - y (w x + b))^2, the mean norm of all x made 20.

    Returns kernel and bias for x as given, and a function that says what a kernel and a bias cost.
    """
    x = np.concatenate([positives, negatives]).astype(float)
    scale = 20 / np.linalg.norm(x, axis=1).mean()
    x = np.concatenate([scale * x, np.ones((len(x), 1))], 1)
    y = np.where(np.arange(len(x)) < len(positives), 1.0, -1.0)
    weights = C * np.where(y > 0, positive_weight, 1)
    size = np.diag([1.0] * (x.shape[1] - 1) + [0])

    def cost(kernel, bias):
        w = np.append(kernel / scale, bias)
        return w @ size @ w / 2 + weights @ np.maximum(1 - y * (x @ w), 0) ** 2

    w = np.zeros(x.shape[1])
    for _ in range(100):
        lacking = np.maximum(1 - y * (x @ w), 0)
        gradient = size @ w - 2 * x.T @ (weights * y * lacking)
        curvature = size + 2 * (x.T * (weights * (lacking > 0))) @ x
        step = np.linalg.solve(curvature, gradient)
        w = w - step
        if np.abs(step).max() < 1e-12:
            break
    assert np.abs(gradient).max() < 1e-8
    return scale * w[:-1], w[-1], cost


def two_clouds(n_positives, n_negatives, n_features, seed=0):
    """Features like those after a ReLU, at least 0, that overlap a little."""
    rng = np.random.default_rng(seed)
    shift = 1.5 * rng.normal(size=n_features) / n_features**0.5
    positives = rng.normal(size=(n_positives, n_features)) + shift
    negatives = rng.normal(size=(n_negatives, n_features)) - shift
    return tuple(np.maximum(x, 0).astype("float32") for x in (positives, negatives))


def test_the_support_vector_machine_is_the_best_one():
    """With as many negatives as positives, all are trained on from the first."""
    positives, negatives = two_clouds(200, 150, 16)
    kernel, bias = MODULE.train_svm(positives, negatives, np.random.default_rng(0), n_rounds=0)
    best_kernel, best_bias, cost = twin_of_svm(positives, negatives)
    assert kernel.shape == (16,) and isinstance(bias, float)
    assert cost(kernel, bias) < 1.02 * cost(best_kernel, best_bias)
    x = np.concatenate([positives, negatives])
    np.testing.assert_allclose(x @ kernel + bias, x @ best_kernel + best_bias, atol=0.1)


def test_hard_negatives_are_found():
    """Ten in 3,000 differ from the positives in the second feature alone, which tells nothing about the others.

    None of them is in the first sample of this seed. Those that mining leaves out cost nothing, and so the result is
    that of a training on all.
    """
    rng = np.random.default_rng(0)
    positives, easy, hard = (
        (np.array(center) + 0.1 * rng.normal(size=(n, 2))).astype("float32")
        for center, n in (((2, 2), 40), ((-2, 2), 3000), ((2, -2), 10))
    )
    negatives = np.concatenate([easy, hard])
    kernel, bias = MODULE.train_svm(positives, negatives, np.random.default_rng(2), n_rounds=0)
    assert (hard @ kernel + bias > 0).all()
    kernel, bias = MODULE.train_svm(positives, negatives, np.random.default_rng(2))
    assert (negatives @ kernel + bias < 0).all() and (positives @ kernel + bias > 0).all()
    best_kernel, best_bias, cost = twin_of_svm(positives, negatives)
    assert cost(kernel, bias) < 1.02 * cost(best_kernel, best_bias)


def test_a_class_without_examples():
    x, rng = np.ones((5, 3), "float32"), np.random.default_rng(0)
    kernel, bias = MODULE.train_svm(x[:0], x, rng)
    assert kernel.tolist() == [0, 0, 0] and bias == -1
    kernel, bias = MODULE.train_svm(x, x[:0], rng)
    assert (x @ kernel + bias > 0).all()


def random_regression(n, n_features=5, seed=0):
    rng = np.random.default_rng(seed)
    features, kernel = rng.normal(size=(n, n_features)), rng.normal(size=(n_features, 4))
    return features, kernel, rng.normal(size=4)


@pytest.mark.parametrize("ridge", [0.1, 10, 1000])
@pytest.mark.parametrize("n", [3, 50])
def test_the_box_regressor_is_least_squares_with_a_ridge(ridge, n):
    """The ridge is so many more examples: sqrt(ridge) of one feature, and a target of 0."""
    features, kernel, bias = random_regression(n)
    deltas = features @ kernel + bias + np.random.default_rng(1).normal(size=(n, 4))
    x = np.concatenate([np.column_stack([features, np.ones(n)]), ridge**0.5 * np.eye(6)])
    expected = np.linalg.lstsq(x, np.concatenate([deltas, np.zeros((6, 4))]), rcond=None)[0]
    found_kernel, found_bias = MODULE.fit_box_regressor(features, deltas, ridge)
    np.testing.assert_allclose(found_kernel, expected[:5], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found_bias, expected[5], rtol=1e-4, atol=1e-6)


def test_a_small_ridge_finds_the_map_and_a_large_one_shrinks_it():
    features, kernel, bias = random_regression(50)
    deltas = features @ kernel + bias
    found_kernel, found_bias = MODULE.fit_box_regressor(features, deltas, 1e-9)
    np.testing.assert_allclose(found_kernel, kernel, atol=1e-5)
    np.testing.assert_allclose(found_bias, bias, atol=1e-5)
    sizes = [np.linalg.norm(MODULE.fit_box_regressor(features, deltas, ridge)[0]) for ridge in (1, 100, 1e4, 1e8)]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < 1e-4
    default, thousand = (MODULE.fit_box_regressor(features, deltas, *ridge)[0] for ridge in ((), (1000,)))
    np.testing.assert_array_equal(default, thousand)  # lambda of the paper


def test_a_box_regressor_without_regions():
    kernel, bias = MODULE.fit_box_regressor(np.zeros((0, 5), "float32"), np.zeros((0, 4), "float32"))
    np.testing.assert_array_equal(kernel, np.zeros((5, 4)))
    np.testing.assert_array_equal(bias, np.zeros(4))


def test_linear_models_are_linear_in_the_features():
    """fc7 is what the last layer has seen, pool5 what the first dense layer has seen; a class has its own regressor."""
    metaparameters = {"groups": ({"n_layers": 1, "n_filters": 3}, {"n_layers": 1, "n_filters": 4}), "n_units": (7, 6)}
    network = MODULE.build(metaparameters, (8, 8, 3), 4)
    random_weights(network)
    model = MODULE.with_linear_models(network, 3)
    rng = np.random.default_rng(1)
    kernels, biases = rng.normal(size=(3, 16, 4)), rng.normal(size=(3, 4))
    scores_kernel, scores_bias = rng.normal(size=(6, 3)), rng.normal(size=3)
    model.get_layer("scores").set_weights([scores_kernel, scores_bias])
    model.get_layer("deltas").set_weights([np.concatenate(kernels, 1), np.concatenate(biases)])
    x = rng.normal(size=(5, 8, 8, 3)).astype("float32")
    found = {name: keras.ops.convert_to_numpy(values) for name, values in model(x, training=False).items()}
    assert {name: values.shape for name, values in found.items()} == {
        "scores": (5, 3), "deltas": (5, 3, 4), "fc7": (5, 6), "pool5": (5, 16),
    }  # fmt: skip

    (w6, b6), (w7, b7), (w8, b8) = (layer.get_weights() for layer in network.layers if "dense" in layer.name)
    fc6 = np.maximum(found["pool5"] @ w6 + b6, 0)
    np.testing.assert_allclose(found["fc7"], np.maximum(fc6 @ w7 + b7, 0), rtol=1e-4, atol=1e-5)
    logits = np.exp(found["fc7"] @ w8 + b8)
    probabilities = keras.ops.convert_to_numpy(network(x, training=False))
    np.testing.assert_allclose(probabilities, logits / logits.sum(1, keepdims=True), rtol=1e-4)
    *_, pooling = (layer for layer in network.layers if "pooling" in layer.name)
    maps = keras.Model(network.input, pooling.output)(x, training=False)
    np.testing.assert_allclose(found["pool5"], keras.ops.convert_to_numpy(maps).reshape(5, 16), rtol=1e-5)

    np.testing.assert_allclose(found["scores"], found["fc7"] @ scores_kernel + scores_bias, rtol=1e-4, atol=1e-4)
    for k in range(3):
        expected = found["pool5"] @ kernels[k] + biases[k]
        np.testing.assert_allclose(found["deltas"][:, k], expected, rtol=1e-4, atol=1e-4)

"""The linear models of R-CNN: support vector machines and box regressors, against other ways to the same optimum."""

import keras
import numpy as np
import pytest
from folders import load

MODULE = load("rcnn/linear_models.py")


def clouds(n_positives, n_negatives, n_features, seed=0):
    """Features like those after a ReLU, at least 0, that overlap a little, of mean norm 20; and 1 or -1."""
    rng = np.random.default_rng(seed)
    shift = 1.5 * rng.normal(size=n_features) / n_features**0.5
    y = np.repeat([1.0, -1.0], [n_positives, n_negatives])
    x = np.maximum(rng.normal(size=(len(y), n_features)) + y[:, None] * shift, 0)
    return 20 * x / np.linalg.norm(x, axis=1).mean(), y


def cost(kernel, bias, x, y, costs):
    """The objective of the released code: liblinear's, its bias a feature of 10 whose weight is penalized too."""
    hinge = np.maximum(1 - y * (x @ kernel + bias), 0)
    return (kernel @ kernel + (bias / 10) ** 2) / 2 + costs @ hinge**2


def descended(x, y, costs, n_steps=20_000):
    """The same by gradient descent with momentum, on the weights of the features and of a feature of 10."""
    x = np.concatenate([x, np.full((len(x), 1), 10.0)], 1)
    w, v = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    rate = 0.5 / (1 + 2 * np.linalg.eigvalsh((x.T * costs) @ x)[-1])
    for _ in range(n_steps):
        gradient = w - 2 * x.T @ (costs * y * np.maximum(1 - y * (x @ w), 0))
        v = 0.9 * v - rate * gradient
        w += v
    assert np.abs(gradient).max() < 1e-6
    return w[:-1], 10 * w[-1]


@pytest.mark.parametrize("n_features", [3, 16])
def test_the_support_vector_machine_is_the_best_one(n_features):
    """Of the objective with the bias penalized, to which gradient descent comes too; and its gradient is 0."""
    x, y = clouds(60, 90, n_features)
    costs = 1e-3 * np.where(y > 0, 2, 1)
    kernel, bias = MODULE.fit_svm(x, y, costs)
    other_kernel, other_bias = descended(x, y, costs)
    np.testing.assert_allclose(np.append(kernel, bias), np.append(other_kernel, other_bias), atol=1e-4)
    best, rng = cost(kernel, bias, x, y, costs), np.random.default_rng(0)
    for _ in range(20):  # in every direction it goes up
        step = 1e-3 * rng.normal(size=n_features + 1)
        assert cost(kernel + step[:-1], bias + step[-1], x, y, costs) > best


def test_the_bias_is_a_feature_of_ten():
    """Of one example at 0 only the bias is left: (b / 10)^2 / 2 + 0.01 (1 - b)^2 is least where b = 2 (1 - b)."""
    kernel, bias = MODULE.fit_svm(np.zeros((1, 2)), np.array([1.0]), np.array([0.01]))
    assert kernel.tolist() == [0, 0] and bias == pytest.approx(2 / 3)


def test_a_training_on_all_examples_is_that_of_the_released_constants():
    """C = 0.001, twice for positives; with as many negatives as positives, all are trained on from the first."""
    x, y = clouds(100, 80, 8)
    kernel, bias = MODULE.train_svm(x[y > 0], x[y < 0], np.random.default_rng(0), n_rounds=0)
    expected, expected_bias = MODULE.fit_svm(x, y, np.where(y > 0, 2e-3, 1e-3))
    np.testing.assert_allclose(kernel, expected, rtol=1e-5, atol=1e-7)
    assert bias == pytest.approx(expected_bias) and isinstance(bias, float)


def test_hard_negatives_are_found():
    """Ten in 3,000 differ from the positives in the second feature alone, which tells nothing about the others.

    None of them is in the first sample of this seed. Those that mining leaves out cost nothing, and so the result is
    that of a training on all.
    """
    rng = np.random.default_rng(0)
    positives, easy, hard = (
        7 * (np.array(center) + 0.1 * rng.normal(size=(n, 2)))
        for center, n in (((2, 2), 40), ((-2, 2), 3000), ((2, -2), 10))
    )
    negatives = np.concatenate([easy, hard])
    kernel, bias = MODULE.train_svm(positives, negatives, np.random.default_rng(2), n_rounds=0)
    assert (hard @ kernel + bias > 0).all()
    kernel, bias = MODULE.train_svm(positives, negatives, np.random.default_rng(2))
    assert (negatives @ kernel + bias < 0).all() and (positives @ kernel + bias > 0).all()
    x, y = np.concatenate([positives, negatives]), np.repeat([1.0, -1.0], [40, 3010])
    costs = np.where(y > 0, 2e-3, 1e-3)
    best_kernel, best_bias = MODULE.fit_svm(x, y, costs)
    assert cost(kernel, bias, x, y, costs) < 1.02 * cost(best_kernel, best_bias, x, y, costs)


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


def ridge_by_examples(features, deltas, ridge):
    """The ridge is so many more examples: sqrt(ridge) of one feature, and a target of 0; the bias is a feature too."""
    n, n_features = features.shape
    x = np.concatenate([np.column_stack([features, np.ones(n)]), ridge**0.5 * np.eye(n_features + 1)])
    solution = np.linalg.lstsq(x, np.concatenate([deltas, np.zeros((n_features + 1, 4))]), rcond=None)[0]
    return solution[:-1], solution[-1]


@pytest.mark.parametrize("ridge", [0.1, 10, 1000])
@pytest.mark.parametrize("n", [3, 50])
def test_the_box_regressor_is_least_squares_with_a_ridge(ridge, n):
    features, kernel, bias = random_regression(n)
    deltas = features @ kernel + bias + np.random.default_rng(1).normal(size=(n, 4))
    expected = ridge_by_examples(features, deltas, ridge)
    for found, right in zip(MODULE.fit_box_regressor(features, deltas, ridge), expected, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-6)


def test_a_small_ridge_finds_the_map_and_the_papers_is_a_thousand():
    features, kernel, bias = random_regression(50)
    deltas = features @ kernel + bias
    found_kernel, found_bias = MODULE.fit_box_regressor(features, deltas, 1e-9)
    np.testing.assert_allclose(found_kernel, kernel, atol=1e-5)
    np.testing.assert_allclose(found_bias, bias, atol=1e-5)
    default, thousand = (MODULE.fit_box_regressor(features, deltas, *ridge)[0] for ridge in ((), (1000,)))
    np.testing.assert_array_equal(default, thousand)


def test_a_box_regressor_without_regions():
    kernel, bias = MODULE.fit_box_regressor(np.zeros((0, 5), "float32"), np.zeros((0, 4), "float32"))
    np.testing.assert_array_equal(kernel, np.zeros((5, 4)))
    np.testing.assert_array_equal(bias, np.zeros(4))


def test_features_are_scaled_to_a_mean_norm_of_twenty():
    x = np.abs(np.random.default_rng(0).normal(size=(50, 7)))
    assert np.linalg.norm(MODULE.scale_of(x) * x, axis=1).mean() == pytest.approx(20)
    assert MODULE.scale_of(x[:0]) == 1 and np.isfinite(MODULE.scale_of(0 * x))


def test_what_each_class_learns_from_and_in_which_scale(monkeypatch):
    """Positives are the objects, negatives regions of an IoU below 0.3, close ones above 0.6; the weights are for
    features as they come.
    """
    rng, n_classes = np.random.default_rng(0), 2
    truth = np.array([[0, 0, 40, 40], [60, 60, 100, 100]], "float32")
    scenes, objects = np.zeros((3, 128, 128, 3), "uint8"), [(truth, np.array([i % 2, 1])) for i in range(3)]
    shifts = rng.uniform(0, 14, (3, 12, 2)) * (np.arange(12) % 3 == 0)[:, None] + 26 * (np.arange(12) % 3 == 1)[:, None]
    shifts = np.concatenate([shifts, shifts], -1)
    proposals = [(truth[np.arange(12) % 2] + of_scene).astype("float32") for of_scene in shifts]
    table = {}  # the features of each region of each scene

    def features(scene, regions):
        number = len(table)
        table[number] = rng.uniform(0, 3, (len(regions), 6)), rng.uniform(0, 0.2, (len(regions), 5)), regions
        return table[number][:2]

    inputs = keras.Input((11,))
    fc7, pool5 = inputs[:, :6], inputs[:, 6:]
    scores, deltas = keras.layers.Dense(2, name="scores")(fc7), keras.layers.Dense(8, name="deltas")(pool5)
    detector = keras.Model(inputs, [scores, deltas])
    monkeypatch.setattr(MODULE, "N_SCENES", 2)
    given = []
    train_svm = MODULE.train_svm
    monkeypatch.setattr(MODULE, "train_svm", lambda *args: given.append(args) or train_svm(*args))
    MODULE.fit_linear_models(detector, features, (scenes, objects), proposals, n_classes, rng)

    def iou(box, other):
        sides = np.maximum(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0)
        areas = sum((b[2:] - b[:2]).prod() for b in (box, other))
        return sides.prod() / (areas - sides.prod())

    positives, negatives, close = ([[], []] for _ in range(3))
    norms = []
    for number, (fc7, pool5, regions) in table.items():
        kinds = objects[number][1]
        for i, region in enumerate(regions):
            overlaps = np.array([iou(region, box) for box in truth])
            if i < 2:
                positives[kinds[i]].append(fc7[i])
                continue
            for k in range(n_classes if number < 2 else 0):
                if max(overlaps[kinds == k], default=0) < 0.3:
                    negatives[k].append(fc7[i])
            if number < 2:
                norms.append(np.linalg.norm(fc7[i]))
            if overlaps.max() > 0.6:
                (x1, y1, x2, y2), (u1, v1, u2, v2) = region, truth[overlaps.argmax()]
                move = (u1 + u2 - x1 - x2) / 2 / (x2 - x1), (v1 + v2 - y1 - y2) / 2 / (y2 - y1)
                size = np.log((u2 - u1) / (x2 - x1)), np.log((v2 - v1) / (y2 - y1))
                close[kinds[overlaps.argmax()]].append((pool5[i], (*move, *size)))
    scale = 20 / np.mean(norms)
    pool5_scale = 20 / np.mean([np.linalg.norm(x) for of_class in close for x, _ in of_class])
    (kernel, bias), (ridge_kernel, ridge_bias) = (
        detector.get_layer(name).get_weights() for name in ("scores", "deltas")
    )
    for k in range(n_classes):
        assert len(close[k]) > 3 and len(negatives[k]) > 3
        np.testing.assert_allclose(given[k][0], scale * np.array(positives[k]), rtol=1e-5)
        np.testing.assert_allclose(given[k][1], scale * np.array(negatives[k]), rtol=1e-5)
        again, same_bias = train_svm(*given[k][:2], np.random.default_rng(0), 9)
        x = np.array(negatives[k])
        np.testing.assert_allclose(x @ kernel[:, k] + bias[k], scale * x @ again + same_bias, atol=0.05)
        x, y = (np.array(column) for column in zip(*close[k], strict=True))
        expected, expected_bias = ridge_by_examples(pool5_scale * x, y, 1000)
        np.testing.assert_allclose(ridge_kernel[:, 4 * k : 4 * k + 4], pool5_scale * expected, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(ridge_bias[4 * k : 4 * k + 4], expected_bias, rtol=1e-3, atol=1e-6)

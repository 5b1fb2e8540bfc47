"""Fast R-CNN: its loss, its weights from a VGG, what a region of each class is told, shapes that cannot be."""

import keras
import numpy as np
import pytest
from folders import load, predict, random_weights

FAST, RCNN, VGG = load("rcnn/fast_rcnn.py"), load("rcnn/rcnn.py"), load("vgg/vgg.py")
GROUPS = ({"n_layers": 2, "n_filters": 8}, {"n_layers": 1, "n_filters": 16})
SMALL = {"groups": GROUPS, "pooled_size": 4, "n_units": (32, 16)}


def scenes(n, size=16):
    return np.random.default_rng(0).normal(size=(n, size, size, 3)).astype("float32")


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_smooth_l1_is_that_of_the_formula(sigma):
    """And, its linear part scaled, Huber's loss."""
    rng = np.random.default_rng(0)
    true, found = rng.normal(0, 1.5 / sigma**2, (2, 3, 5, 4)).astype("float32")
    expected = np.zeros((3, 5))
    for row in np.ndindex(3, 5):
        for x in true[row] - found[row]:
            small = abs(x) < 1 / sigma**2
            expected[row] += 0.5 * (sigma * x) ** 2 if small else abs(x) - 0.5 / sigma**2
    weights = rng.integers(0, 2, (3, 5)).astype("float32")
    loss = FAST.SmoothL1(sigma)
    assert float(loss(true, found, weights)) == pytest.approx((expected * weights).sum() / weights.sum(), rel=1e-5)
    huber = keras.losses.Huber(delta=1 / sigma**2, reduction=None)
    np.testing.assert_allclose(4 * sigma**2 * keras.ops.convert_to_numpy(huber(true, found)), expected, rtol=1e-4)
    assert float(loss(true, found, 0 * weights)) == 0  # a batch without any object


def test_smooth_l1_is_saved_with_its_sigma():
    loss = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(FAST.SmoothL1(3.0)))
    assert loss.sigma == 3.0 and loss.reduction == "mean_with_sample_weight"


def test_a_region_of_the_whole_image_is_the_image_to_a_vgg():
    """A 16x16 image leaves VGG's last pooling as 4x4 cells, RoI pooling of all of it with 4x4 bins does too.

    RoI pooling takes the cell at round(x2 / 2) to be inside of the region, hence the 14.
    """
    vgg = VGG.build({"groups": GROUPS, "n_units": (32, 16)}, (16, 16, 3), 7)
    fast = FAST.build(SMALL, (16, 16, 3), 7, n_regions=2)
    random_weights(vgg)
    source = [layer for layer in vgg.layers if layer.weights]
    target = [layer for layer in fast.layers if layer.weights]
    for layer, other in zip(target[:-2], source[:-1], strict=True):
        layer.set_weights(other.get_weights())
    fast.get_layer("classes").set_weights(vgg.layers[-1].get_weights())
    regions = np.broadcast_to(np.array([0, 0, 14, 14], "float32"), (3, 2, 4))
    x = scenes(3)
    expected = predict(vgg, x)
    found = predict(fast, {"images": x, "regions": regions})["classes"]
    assert expected.max() < 0.999
    for number in range(2):
        np.testing.assert_allclose(found[:, number], expected, atol=1e-5)


def test_regions_do_not_see_each_other():
    fast = FAST.build(SMALL, (16, 16, 3), 7, n_regions=3)
    random_weights(fast)
    regions = np.array([[[0, 0, 8, 8], [4, 4, 12, 16], [2, 0, 6, 16]]], "float32")
    first = predict(fast, {"images": scenes(1), "regions": regions})
    second = predict(fast, {"images": scenes(1), "regions": regions[:, ::-1]})
    for name in ("classes", "deltas"):
        np.testing.assert_allclose(first[name], second[name][:, ::-1], atol=1e-5)
    np.testing.assert_allclose(first["classes"].sum(-1), 1, atol=1e-5)


def test_initial_weights_of_the_paper():
    """Section 2.3: normal, of deviation 0.01 for the classes and 0.001 for the boxes, biases of 0."""
    fast = FAST.build(SMALL | {"n_units": (512,)}, (16, 16, 3), 21)
    dense = [layer for layer in fast.layers if isinstance(layer, keras.layers.Dense)]
    for width, deviation in ((21, 0.01), (4 * 21, 0.001)):
        (kernel, bias) = next(layer for layer in dense if layer.units == width).get_weights()
        assert kernel.std() == pytest.approx(deviation, rel=0.05) and not bias.any()


def test_stem_of_vgg16_makes_the_feature_maps_of_the_paper():
    """800x600 pixels, strides of 16: 50x37."""
    groups = FAST.METAPARAMETERS["fast_rcnn_vgg16"]["groups"]
    assert FAST.stem(keras.KerasTensor((1, 600, 800, 3)), groups).shape == (1, 37, 50, 512)
    assert FAST.METAPARAMETERS["fast_rcnn_vgg16"].get("pooled_size", 7) == 7


def test_saved_model_pools_as_before(tmp_path):
    fast = FAST.build(SMALL, (16, 16, 3), 7, n_regions=2)
    pooling = next(layer for layer in fast.layers if isinstance(layer, FAST.RoIPooling))
    assert (pooling.size, pooling.scale) == (4, 0.5)
    fast.save(tmp_path / "fast.keras")
    loaded = keras.saving.load_model(tmp_path / "fast.keras", safe_mode=True)
    pooling = next(layer for layer in loaded.layers if type(layer).__name__ == "RoIPooling")
    assert (pooling.size, pooling.scale) == (4, 0.5)


@pytest.mark.parametrize(
    "change, options, sentence",
    [
        ({"groups": ()}, {}, "metaparameters must be a dictionary with groups"),
        ({"groups": ({"n_layers": 0, "n_filters": 8},)}, {}, "n_layers, n_filters, pooled_size, n_units must be whole"),
        ({"depth": 3}, {}, "unexpected keyword argument 'depth'"),
        ({"pooled_size": 0}, {}, "n_layers, n_filters, pooled_size, n_units must be whole numbers of at least 1"),
        ({"n_units": 4096}, {}, "Value after [*] must be an iterable, not int"),
        ({}, {"n_classes": 1}, "n_classes must be a whole number of at least 2, got 1"),
        ({}, {"n_classes": 2.5}, "n_classes must be a whole number of at least 2, got 2.5"),
        ({}, {"n_regions": 0}, "n_regions must be a whole number of at least 1, got 0"),
        ({}, {"n_regions": None}, "n_regions must be a whole number of at least 1, got None"),
        ({}, {"input_shape": (None, 16, 3)}, r"input_shape must be \(height, width, channels\)"),
        ({}, {"input_shape": (16, 16)}, r"input_shape must be \(height, width, channels\)"),
        ({}, {"input_shape": (1, 16, 3)}, "height and width must be at least"),
    ],
)
def test_what_cannot_be(change, options, sentence):
    arguments = {"input_shape": (16, 16, 3), "n_classes": 7} | options
    with pytest.raises(ValueError, match=sentence):
        FAST.build(SMALL | change, **arguments)


@pytest.mark.parametrize(
    "change, options, sentence",
    [
        ({"groups": ()}, {}, "metaparameters must be a dictionary with groups"),
        ({"n_units": 4096}, {}, "Value after [*] must be an iterable, not int"),
        ({"pooled_size": 7}, {}, "unexpected keyword argument 'pooled_size'"),
        ({}, {"n_classes": 1}, "n_classes must be a whole number of at least 2, got 1"),
        ({}, {"input_shape": (16, None, 3)}, r"input_shape must be \(height, width, channels\)"),
        ({}, {"input_shape": (2, 2, 3)}, "height and width must be at least"),
    ],
)
def test_what_cannot_be_of_r_cnn(change, options, sentence):
    arguments = {"input_shape": (16, 16, 3), "n_classes": 7} | options
    with pytest.raises(ValueError, match=sentence):
        RCNN.build({"groups": GROUPS} | change, **arguments)

"""Fast R-CNN: its weights from a VGG, what a region of each class is told, other sizes, its initial weights."""

import keras
import numpy as np
import pytest
from folders import load, predict, random_weights

FAST, VGG = load("rcnn/fast_rcnn.py"), load("vgg/vgg.py")
GROUPS = ({"n_layers": 2, "n_filters": 8}, {"n_layers": 1, "n_filters": 16})
SMALL = {"groups": GROUPS, "pooled_size": 4, "n_units": (32, 16)}


def scenes(n, height=16, width=16):
    return np.random.default_rng(0).normal(size=(n, height, width, 3)).astype("float32")


def drawn(n_regions, **changes):
    """A small network with random weights."""
    network = FAST.build(SMALL | changes, (16, 16, 3), 7, n_regions)
    for part in ("backbone", "head"):
        random_weights(network.get_layer(part))
    return network


def test_a_region_of_the_whole_image_is_the_image_to_a_vgg():
    """A 16x16 image leaves VGG's last pooling as 4x4 cells, RoI pooling of all of it with 4x4 bins does too.

    RoI pooling takes the cell at round(x2 / 2) to be inside of the region, hence the 14.
    """
    vgg = VGG.build({"groups": GROUPS, "n_units": (32, 16)}, (16, 16, 3), 7)
    random_weights(vgg)
    fast = drawn(2)
    *convolutions, fc6, fc7, last = (layer.get_weights() for layer in vgg.layers if layer.weights)
    fast.get_layer("backbone").set_weights([weight for pair in convolutions for weight in pair])
    for name, weights in (("fc6", fc6), ("fc7", fc7), ("classes", last)):
        fast.get_layer("head").get_layer(name).set_weights(weights)
    regions = np.broadcast_to(np.array([0, 0, 14, 14], "float32"), (3, 2, 4))
    expected = predict(vgg, scenes(3))
    found = predict(fast, {"images": scenes(3), "regions": regions})["classes"]
    assert expected.max() < 0.999
    for number in range(2):
        np.testing.assert_allclose(found[:, number], expected, atol=1e-5)


def test_regions_do_not_see_each_other():
    fast = drawn(3)
    regions = np.array([[[0, 0, 8, 8], [4, 4, 12, 16], [2, 0, 6, 16]]], "float32")
    first = predict(fast, {"images": scenes(1), "regions": regions})
    second = predict(fast, {"images": scenes(1), "regions": regions[:, ::-1]})
    for name in ("classes", "deltas"):
        np.testing.assert_allclose(first[name], second[name][:, ::-1], atol=1e-5)
    np.testing.assert_allclose(first["classes"].sum(-1), 1, atol=1e-5)


def test_a_larger_picture_and_other_numbers_of_regions():
    """The same weights: a corner that looks like the image has the answers that the image has."""
    fast = drawn(3)
    larger = FAST.resized(fast, (24, 40), 5)
    assert all(weight is other for weight, other in zip(fast.weights, larger.weights, strict=True))
    picture = np.zeros((1, 24, 40, 3), "float32")
    picture[:, :16, :16] = scenes(1)
    inner = np.array([[0, 0, 8, 8], [2, 2, 6, 10], [0, 4, 8, 6]], "float32")  # away from the edges of the 16x16
    regions = np.concatenate([inner, [[20, 0, 38, 22], [0, 0, 38, 22]]])[None].astype("float32")
    outputs = predict(larger, {"images": picture, "regions": regions})
    assert outputs["classes"].shape == (1, 5, 7) and outputs["deltas"].shape == (1, 5, 7, 4)
    expected = predict(fast, {"images": scenes(1), "regions": inner[None]})
    for name in ("classes", "deltas"):
        np.testing.assert_allclose(outputs[name][:, :3], expected[name], rtol=1e-3, atol=1e-5)


def test_initial_weights_of_the_paper():
    """Section 2.3: normal, of deviation 0.01 for the classes and 0.001 for the boxes, biases of 0."""
    head = FAST.build(SMALL | {"n_units": (512,)}, (16, 16, 3), 21).get_layer("head")
    dense = [layer for layer in head.layers if isinstance(layer, keras.layers.Dense)]
    for width, deviation in ((21, 0.01), (4 * 21, 0.001)):
        (kernel, bias) = next(layer for layer in dense if layer.units == width).get_weights()
        assert kernel.std() == pytest.approx(deviation, rel=0.05) and not bias.any()


def test_stem_of_vgg16_makes_the_feature_maps_of_the_deck():
    """800x600 pixels, strides of 16, rounded down: 50x37; and 7x7 bins."""
    groups = FAST.METAPARAMETERS["fast_rcnn_vgg16"]["groups"]
    assert FAST.stem(keras.KerasTensor((1, 600, 800, 3)), groups).shape == (1, 37, 50, 512)
    assert FAST.METAPARAMETERS["fast_rcnn_vgg16"].get("pooled_size", 7) == 7


def test_saved_model_pools_as_before(tmp_path):
    fast = drawn(2)
    fast.save(tmp_path / "fast.keras")
    loaded = keras.saving.load_model(tmp_path / "fast.keras", safe_mode=True)
    for pooling in (fast.get_layer("roi_pooling"), loaded.get_layer("roi_pooling")):
        assert (pooling.size, pooling.scale) == (4, 0.5)


@pytest.mark.parametrize(
    "change, options, sentence",
    [
        ({"groups": ()}, {}, "metaparameters must have groups, got"),
        ({"groups": ({"n_layers": 0, "n_filters": 8},)}, {}, "n_layers must be a whole number of at least 1, got 0"),
        ({"groups": ({"n_layers": 1},)}, {}, "each of groups must have n_layers and n_filters, got {'n_layers': 1}"),
        ({"depth": 3}, {}, "metaparameters are invalid: depth, in"),
        ({"pooled_size": 0}, {}, "pooled_size must be a whole number of at least 1, got 0"),
        ({"n_units": (16.5,)}, {}, "n_units must be a whole number of at least 1, got 16.5"),
        ({}, {"n_classes": 1}, "n_classes must be a whole number of at least 2, got 1"),
        ({}, {"n_classes": 2.5}, "n_classes must be a whole number of at least 2, got 2.5"),
        ({}, {"n_regions": 0}, "n_regions must be a whole number of at least 1, got 0"),
        ({}, {"n_regions": None}, "n_regions must be a whole number of at least 1, got None"),
        ({}, {"input_shape": (None, 16, 3)}, r"input_shape must be \(height, width, channels\)"),
        ({}, {"input_shape": (16, 16)}, r"input_shape must be \(height, width, channels\)"),
        ({}, {"input_shape": (1, 16, 3)}, "height and width must be at least 2, got"),
    ],
)
def test_what_cannot_be(change, options, sentence):
    arguments = {"input_shape": (16, 16, 3), "n_classes": 7} | options
    with pytest.raises(ValueError, match=sentence):
        FAST.build(SMALL | change, **arguments)

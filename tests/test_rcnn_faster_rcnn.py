"""Faster R-CNN: anchors to proposals, the network as a whole, its parts, other sizes."""

import json

import keras
import numpy as np
import pytest
from folders import load, predict, random_weights, without_numbers
from keras import Model, ops

FASTER = load("rcnn/faster_rcnn.py")
BOXES = FASTER.boxes
BASE = BOXES.base_anchors(16, (1, 2), (0.5, 1))
ANCHORS = BOXES.grid_anchors(16, 16, 4, BASE)  # of 64x64 pixels
SMALL = {
    "groups": ({"n_layers": 1, "n_filters": 8}, {"n_layers": 1, "n_filters": 8}),
    "n_filters": 8,
    "anchors": {"scales": (0.5, 1), "ratios": (1,)},
    "proposals": {"n_before": 50, "n_proposals": 10, "min_size": 4},
    "pooled_size": 3,
    "n_units": (16,),
}


def proposals_layer(*args, image_size=(64, 64)):
    return FASTER.Proposals(BASE.tolist(), 4, image_size, *args)


def drawn(input_shape=(32, 32, 3), **changes):
    """A small network with random weights."""
    network = FASTER.build(SMALL | changes, input_shape, 4)
    for part in ("backbone", "rpn", "head"):
        random_weights(network.get_layer(part))
    return network


def scenes(n=1, height=32, width=32):
    return np.random.default_rng(0).normal(size=(n, height, width, 3)).astype("float32")


def outputs_of_the_network(seed, n=2, spread=0.5):
    rng = np.random.default_rng(seed)
    objectness = rng.uniform(size=(n, len(ANCHORS))).astype("float32")
    deltas = rng.normal(0, spread, (n, len(ANCHORS), 4)).astype("float32")
    return np.stack([1 - objectness, objectness], -1), deltas


def proposals_in_numpy(objectness, deltas, n_before, n_proposals, threshold, min_size):
    """The steps of proposal_layer.py of py-faster-rcnn, with the tested functions of boxes.py."""
    found = np.zeros((n_proposals, 4), "float32")
    placed = ops.convert_to_numpy(BOXES.clip(BOXES.decode(ANCHORS, deltas), 64, 64))
    large = np.flatnonzero((placed[:, 2:] - placed[:, :2] >= min_size).all(1))
    order = large[np.argsort(-objectness[large, 1], kind="stable")][:n_before]
    kept = order[BOXES.nms(placed[order], objectness[order, 1], threshold)][:n_proposals]
    found[: len(kept)] = placed[kept]
    return found


@pytest.mark.parametrize(
    "n_before, n_proposals, threshold, min_size",
    [(300, 100, 0.7, 8), (1000, 40, 0.3, 1), (50, 80, 0.7, 16), (5000, 2000, 0.5, 4), (1, 1, 0.7, 4)],
)
def test_proposals_are_those_of_the_steps_in_numpy(n_before, n_proposals, threshold, min_size):
    layer = proposals_layer(n_before, n_proposals, threshold, min_size)
    for seed in range(3):
        objectness, deltas = outputs_of_the_network(seed)
        found = ops.convert_to_numpy(layer(objectness, deltas))
        assert found.shape == (2, n_proposals, 4)
        for number in range(2):
            expected = proposals_in_numpy(
                objectness[number], deltas[number], n_before, n_proposals, threshold, min_size
            )
            np.testing.assert_allclose(found[number], expected, atol=1e-4)


def test_no_proposal_is_left():
    """All boxes are too small: the proposals have no area, and the network still answers."""
    objectness, deltas = outputs_of_the_network(0)
    assert not ops.convert_to_numpy(proposals_layer(300, 20, 0.7, 100)(objectness, deltas)).any()
    outputs = predict(drawn(proposals={"n_proposals": 5, "min_size": 1000}), scenes())
    assert not outputs["regions"].any() and np.isfinite(outputs["classes"]).all()


def test_deltas_of_any_size_make_boxes_in_the_image():
    objectness, deltas = outputs_of_the_network(0, spread=1e6)
    layer = FASTER.Proposals(BASE.tolist(), 4, (48, 64), 300, 20, 0.7, 1)
    n = len(layer.all_anchors())
    found = ops.convert_to_numpy(layer(objectness[:, :n], deltas[:, :n]))
    assert np.isfinite(found).all() and (found >= 0).all() and (found <= [64, 48, 64, 48]).all()


def test_proposals_and_their_settings_are_saved():
    layer = proposals_layer(30, 20, 0.6, 5)
    again = FASTER.Proposals.from_config(json.loads(json.dumps(layer.get_config())))
    objectness, deltas = outputs_of_the_network(1)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(layer(objectness, deltas)), ops.convert_to_numpy(again(objectness, deltas))
    )


def test_the_network_of_the_paper():
    """800x600 pixels: feature maps of 50x37, nine anchors at each position, 300 proposals, 7x7 bins."""
    with without_numbers():
        network = FASTER.build(FASTER.METAPARAMETERS["faster_rcnn_vgg16"], (600, 800, 3), 21)
    backbone, rpn = network.get_layer("backbone"), network.get_layer("rpn")
    assert backbone.compute_output_shape((1, 600, 800, 3)) == (1, 37, 50, 512)
    maps = rpn.compute_output_shape((1, 37, 50, 512))
    assert maps == {"objectness": (1, 37 * 50 * 9, 2), "anchor_deltas": (1, 37 * 50 * 9, 4)}
    shapes = {name: outputs.shape for name, outputs in network.output.items()}
    assert shapes == {"regions": (None, 300, 4), "classes": (None, 300, 21), "deltas": (None, 300, 21, 4)}
    proposals, pooling = network.get_layer("proposals"), network.get_layer("roi_pooling")
    assert (proposals.n_before, proposals.threshold, proposals.min_size) == (6000, 0.7, 16)
    assert (pooling.size, pooling.scale) == (7, 1 / 16)
    assert rpn.count_params() == 2_387_510  # py-faster-rcnn, models/pascal_voc/VGG16
    np.testing.assert_array_equal(proposals.all_anchors()[:9], BOXES.base_anchors() + 8)


def test_the_anchors_of_our_network_are_centred():
    """faster_rcnn_vgg8: squares of 28, 40 and 56 pixels around the middle of cells of 4 pixels."""
    with without_numbers():
        network = FASTER.build(FASTER.METAPARAMETERS["faster_rcnn_vgg8"], (128, 128, 3), 11)
    assert network.get_layer("backbone").compute_output_shape((1, 128, 128, 3)) == (1, 32, 32, 192)
    anchors = network.get_layer("proposals").all_anchors().reshape(32, 32, 3, 4)
    middle = 4 * np.arange(32) + 2
    centers = (anchors[..., :2] + anchors[..., 2:]) / 2
    assert (centers[..., 0] == middle[None, :, None]).all() and (centers[..., 1] == middle[:, None, None]).all()
    assert (anchors[..., 2:] - anchors[..., :2] == np.array([28, 40, 56])[:, None]).all()


def test_anchors_and_outputs_are_in_the_same_order():
    """Where a feature map has a bright spot, the second anchor around it is an object, and no other."""
    network = drawn()
    rpn, k = network.get_layer("rpn"), 2
    hidden, objectness = (
        next(layer for layer in rpn.layers if layer.weights and layer.kernel.shape == shape)
        for shape in ((3, 3, 8, 8), (1, 1, 8, 2 * k))
    )
    first, second = np.zeros(hidden.kernel.shape, "float32"), np.zeros(objectness.kernel.shape, "float32")
    first[1, 1] = 1
    second[0, 0, :, 3] = 1  # of the second anchor, that it is an object
    hidden.set_weights([first, np.zeros(hidden.bias.shape)])
    objectness.set_weights([second, np.zeros(objectness.bias.shape)])
    maps = np.zeros((1, 16, 16, 8), "float32")
    maps[0, 5, 11] = 1
    (best,) = np.flatnonzero(predict(rpn, maps)["objectness"][0, :, 1] > 0.9)
    assert best == (5 * 16 + 11) * k + 1
    # a square of 16 pixels around the middle of the cell of 2 pixels
    np.testing.assert_allclose(network.get_layer("proposals").all_anchors()[best], [23 - 8, 11 - 8, 23 + 8, 11 + 8])


def test_no_gradient_passes_through_the_proposals():
    """Section 3.3: the coordinates of proposals are taken as they are; the head's loss moves the backbone alone."""
    network = drawn()
    part = Model(network.input, {name: network.output[name] for name in ("classes", "deltas")})
    before = {name: network.get_layer(name).get_weights() for name in ("backbone", "rpn")}
    loss = {"classes": "sparse_categorical_crossentropy", "deltas": "mse"}
    part.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    part.train_on_batch(scenes(2), {"classes": np.ones((2, 10)), "deltas": np.ones((2, 10, 4, 4))})
    moved = {
        name: any((old != new).any() for old, new in zip(weights, network.get_layer(name).get_weights(), strict=True))
        for name, weights in before.items()
    }
    assert moved == {"backbone": True, "rpn": False}


def test_a_larger_picture():
    """The same weights; the anchors cover it, as many for each pixel; proposals lie in it, also beyond the old size."""
    network = drawn()
    larger = FASTER.resized(network, (48, 80))
    assert all(weight is other for weight, other in zip(network.weights, larger.weights, strict=True))
    anchors = larger.get_layer("proposals").all_anchors()
    assert len(anchors) == 24 * 40 * 2 and (anchors[:, :2] + anchors[:, 2:] < [160, 96]).all()
    np.testing.assert_array_equal(anchors[-1], [79 - 8, 47 - 8, 79 + 8, 47 + 8])
    outputs = predict(larger, scenes(2, 48, 80))
    assert {name: values.shape for name, values in outputs.items()} == {
        "regions": (2, 10, 4), "classes": (2, 10, 4), "deltas": (2, 10, 4, 4),
    }  # fmt: skip
    assert (outputs["regions"] >= 0).all() and (outputs["regions"] <= [80, 48, 80, 48]).all()
    assert (outputs["regions"][..., 2] > 32).any()
    again = predict(FASTER.resized(larger, (32, 32)), scenes())  # and back
    for name, values in predict(network, scenes()).items():
        np.testing.assert_allclose(again[name], values, atol=1e-5)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"anchors": {"sizes": (32,)}}, "unexpected keyword argument 'sizes'"),
        ({"anchors": {"scales": (8, 0)}}, "scales must be above 0, got"),
        ({"anchors": {"ratios": ()}}, "ratios must be above 0, got"),
        ({"proposals": {"n": 300}}, "'n'"),
        ({"proposals": {"n_proposals": 0}}, "n_proposals must be above 0, got 0"),
        ({"proposals": {"n_before": 2.5}}, "n_before must be a whole number of at least 1, got 2.5"),
        ({"n_filters": 0}, "n_filters must be a whole number of at least 1, got 0"),
        ({"groups": "vgg"}, "groups must be a tuple, got 'vgg'"),
        ({"n_units": 16}, "n_units must be a tuple, got 16"),
    ],
)
def test_what_cannot_be(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        FASTER.build(SMALL | change, (32, 32, 3), 4)

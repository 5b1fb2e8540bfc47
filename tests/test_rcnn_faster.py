"""Faster R-CNN: anchors to proposals, the network as a whole, its four steps of training, and that it learns."""

import json

import keras
import numpy as np
import pytest
from folders import load, main, predict, random_weights, without_numbers
from keras import Model, ops

FASTER, BOXES = load("rcnn/faster_rcnn.py"), load("rcnn/boxes.py")
ANCHORS = BOXES.grid_anchors(16, 16, 4, BOXES.base_anchors(16, (1, 2), (0.5, 1)))
SMALL = {
    "groups": ({"n_layers": 1, "n_filters": 8}, {"n_layers": 1, "n_filters": 8}),
    "n_filters": 8,
    "anchors": {"scales": (0.5, 1), "ratios": (1,)},
    "proposals": {"n_before": 50, "n_proposals": 10, "min_size": 4},
    "pooled_size": 3,
    "n_units": (16,),
}


def outputs_of_the_network(seed, n=2, spread=0.5):
    rng = np.random.default_rng(seed)
    objectness = rng.uniform(size=(n, len(ANCHORS))).astype("float32")
    deltas = rng.normal(0, spread, (n, len(ANCHORS), 4)).astype("float32")
    return np.stack([1 - objectness, objectness], -1), deltas


def proposals_in_numpy(objectness, deltas, n_before, n_proposals, threshold, min_size):
    """The steps of proposal_layer.py of py-faster-rcnn, with the tested functions of boxes.py."""
    found = np.zeros((n_proposals, 4), "float32")
    placed = BOXES.clip(BOXES.decode(ANCHORS, deltas), 64, 64)
    large = np.flatnonzero(BOXES.is_larger_than(placed, min_size))
    order = large[np.argsort(-objectness[large, 1], kind="stable")][:n_before]
    kept = order[BOXES.nms(placed[order], objectness[order, 1], threshold, n_proposals)]
    found[: len(kept)] = placed[kept]
    return found


@pytest.mark.parametrize(
    "n_before, n_proposals, threshold, min_size",
    [(300, 100, 0.7, 8), (1000, 40, 0.3, 1), (50, 80, 0.7, 16), (5000, 2000, 0.5, 4), (1, 1, 0.7, 4)],
)
def test_proposals_are_those_of_the_steps_in_numpy(n_before, n_proposals, threshold, min_size):
    layer = FASTER.Proposals(ANCHORS.tolist(), (64, 64), n_before, n_proposals, threshold, min_size)
    for seed in range(3):
        objectness, deltas = outputs_of_the_network(seed)
        found = ops.convert_to_numpy(layer(objectness, deltas))
        assert found.shape == (2, n_proposals, 4)
        for number in range(2):
            expected = proposals_in_numpy(
                objectness[number], deltas[number], n_before, n_proposals, threshold, min_size
            )
            np.testing.assert_allclose(found[number], expected, atol=1e-4)


def test_a_chain_of_overlaps_is_suppressed_one_after_the_other():
    """Each box overlaps the next only, so the first, the third, the fifth ... stay: the longest way to go."""
    boxes = np.array([[[4.0 * i, 0, 4.0 * i + 10, 10] for i in range(12)]], "float32")  # the next: IoU 6 / 14
    layer = FASTER.Proposals(ANCHORS.tolist(), (64, 64), threshold=0.4)
    kept = ops.convert_to_numpy(layer.suppress(ops.convert_to_tensor(boxes), ops.ones((1, 12), "bool")))
    np.testing.assert_array_equal(kept, [[1, 0] * 6])


def test_no_proposal_is_left():
    """All boxes are too small: the proposals have no area, and the network still answers."""
    objectness, deltas = outputs_of_the_network(0)
    layer = FASTER.Proposals(ANCHORS.tolist(), (64, 64), 300, 20, 0.7, 100)
    assert not ops.convert_to_numpy(layer(objectness, deltas)).any()
    network = FASTER.build(SMALL | {"proposals": {"n_proposals": 5, "min_size": 1000}}, (32, 32, 3), 4)
    random_weights(network)
    outputs = predict(network, np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32"))
    assert not outputs["regions"].any() and np.isfinite(outputs["classes"]).all()


def test_deltas_of_any_size_make_boxes_in_the_image():
    objectness, deltas = outputs_of_the_network(0, spread=1e6)
    layer = FASTER.Proposals(ANCHORS.tolist(), (48, 64), 300, 20, 0.7, 1)
    found = ops.convert_to_numpy(layer(objectness, deltas))
    assert np.isfinite(found).all() and (found >= 0).all() and (found <= [64, 48, 64, 48]).all()


def test_proposals_and_their_settings_are_saved():
    layer = FASTER.Proposals(ANCHORS.tolist(), (64, 48), 30, 20, 0.6, 5)
    again = FASTER.Proposals.from_config(json.loads(json.dumps(layer.get_config())))
    objectness, deltas = outputs_of_the_network(1)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(layer(objectness, deltas)), ops.convert_to_numpy(again(objectness, deltas))
    )


def test_the_network_of_the_paper():
    """800x600 pixels: feature maps of 50x37, nine anchors at each position, 300 proposals, 7x7 bins."""
    with without_numbers():
        network = FASTER.build(FASTER.METAPARAMETERS["faster_rcnn_vgg16"], (600, 800, 3), 21)
    assert network.get_layer("feature_maps").output.shape == (None, 37, 50, 512)
    assert network.get_layer("objectness").output.shape == (None, 37 * 50 * 9, 2)
    assert network.get_layer("anchor_deltas").output.shape == (None, 37 * 50 * 9, 4)
    shapes = {name: outputs.shape for name, outputs in network.output.items()}
    assert shapes == {"regions": (None, 300, 4), "classes": (None, 300, 21), "deltas": (None, 300, 21, 4)}
    proposals = network.get_layer("proposals")
    assert (proposals.n_before, proposals.threshold, proposals.min_size) == (6000, 0.7, 16)
    pooling = next(layer for layer in network.layers if isinstance(layer, FASTER.RoIPooling))
    assert (pooling.size, pooling.scale) == (7, 1 / 16)
    assert sum(int(np.prod(v.shape)) for v in network.trainable_variables) == 137_078_239


def test_anchors_and_outputs_are_in_the_same_order():
    """Where a convolution sees a bright spot, the anchors around it are objects, and no others."""
    network = FASTER.build(SMALL, (32, 32, 3), 4)
    (height, width, channels), k = network.get_layer("feature_maps").output.shape[1:], 2
    maps = np.zeros((1, height, width, channels), "float32")
    maps[0, 5, 11] = 1
    rpn = Model(network.get_layer("feature_maps").output, network.get_layer("objectness").output)
    for name in ("rpn", "rpn_objectness"):
        layer = network.get_layer(name)
        kernel = np.zeros(layer.kernel.shape, "float32")
        if name == "rpn":
            kernel[1, 1] = 1
        else:
            kernel[0, 0, :, 3] = 1  # of the second anchor, that it is an object
        layer.set_weights([kernel, np.zeros(layer.bias.shape)])
    found = predict(rpn, maps)[0, :, 1]
    (best,) = np.flatnonzero(found > 0.9)
    anchors = np.array(network.get_layer("proposals").anchors)
    # the second is a square of 16 pixels, at strides of 2, whose center at the first position is at 8
    np.testing.assert_allclose(anchors[best], [22, 10, 22 + 16, 10 + 16])
    assert best == (5 * width + 11) * k + 1


def test_no_gradient_passes_through_the_proposals():
    """Section 3.3: the coordinates of proposals are taken as they are."""
    network = FASTER.build(SMALL, (32, 32, 3), 4)
    part = Model(network.input, {"classes": network.output["classes"], "deltas": network.output["deltas"]})
    before = [layer.get_weights() for layer in network.layers if layer.name.startswith("rpn")]
    loss = {"classes": "sparse_categorical_crossentropy", "deltas": "mse"}
    part.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    part.fit(x, {"classes": np.ones((2, 10)), "deltas": np.ones((2, 10, 4, 4))}, verbose=0)
    after = [layer.get_weights() for layer in network.layers if layer.name.startswith("rpn")]
    assert len(before) == 3
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[0], new[0])


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"anchors": {"sizes": (32,)}}, "unexpected keyword argument 'sizes'"),
        ({"proposals": {"n": 300}}, "Unrecognized keyword arguments passed to Proposals"),
        ({"proposals": {"n_proposals": 0}}, "n_proposals must be a whole number of at least 1, got 0"),
        ({"proposals": {"n_before": 2.5}}, "n_before must be a whole number of at least 1, got 2.5"),
        ({"n_filters": 0}, "n_layers, n_filters, pooled_size, n_units must be whole numbers of at least 1"),
        ({"groups": "vgg"}, "must be a mapping, not str"),
        ({"n_units": 16}, "Value after [*] must be an iterable, not int"),
    ],
)
def test_what_cannot_be(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        FASTER.build(SMALL | change, (32, 32, 3), 4)


def test_the_stem_is_frozen_in_the_last_two_steps():
    """Batch normalization too: neither its scale nor its moving averages change."""
    training = load("rcnn/training.py")
    network = FASTER.build(SMALL | {"batch_normalization": True}, (32, 32, 3), 4)
    for layer in training.stem_of(network).layers:
        layer.trainable = False
    before = training.stem_of(network).get_weights()
    names = ("objectness", "anchor_deltas")
    part = Model(network.input, {name: network.get_layer(name).output for name in names})
    loss = {"objectness": "sparse_categorical_crossentropy", "anchor_deltas": "mse"}
    part.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)
    x, n = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32"), part.output["objectness"].shape[1]
    rpn = network.get_layer("rpn").get_weights()[0]
    part.fit(x, {"objectness": np.ones((2, n)), "anchor_deltas": np.ones((2, n, 4))}, verbose=0)
    for old, new in zip(before, training.stem_of(network).get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert (network.get_layer("rpn").get_weights()[0] != rpn).any()


def test_flags_of_their_own(monkeypatch, capsys, tmp_path):
    for flags, sentence in (
        (["--scenes", "0"], "--scenes: must be a whole number from 1 to 100000, got 0"),
        (["--pretraining-rate", "0"], "--pretraining-rate: must be a number above 0 and finite, got 0"),
        (["--pretraining-epochs", "0"], "--pretraining-epochs: must be a whole number of at least 1, got 0"),
        (["--scenes", "5", "--batch-size", "6"], "--batch-size must be at most 5, the scenes to train on, got 6"),
        (["--model", "mask_rcnn"], "mask_rcnn"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main("rcnn", monkeypatch, *flags, "--output", tmp_path)
        error = capsys.readouterr().err
        assert exit_.value.code == 2 and sentence in error
    assert not list(tmp_path.iterdir())

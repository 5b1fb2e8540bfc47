"""Joint training of Faster R-CNN: what the head is to find, and that no gradient reaches the proposals through it."""

import argparse

import keras
import numpy as np
import pytest
from folders import load
from keras import ops

SIZE, N_CLASSES = 64, 4  # the background among them
GROUPS = tuple({"n_layers": 1, "n_filters": n} for n in (4, 6, 8))
SMALL = {
    "groups": GROUPS, "n_filters": 8, "anchors": {"base_size": 8, "scales": (2, 3), "ratios": (1,)},
    "proposals": {"n_before": 400, "n_proposals": 20, "min_size": 4}, "pooled_size": 2, "n_units": (16,),
    "dropout": 0.0,
}  # fmt: skip
MEAN, VARIANCE = [120.0] * 3, [3600.0] * 3


def data(n=4, seed=0):
    """Scenes of noise, and one or two objects in each, which are squares as the anchors are, and a bit off."""
    rng = np.random.default_rng(seed)
    scenes, objects = rng.integers(0, 256, (n, SIZE, SIZE, 3), dtype="uint8"), []
    for i in range(n):
        corner = np.array([[4, 5], [33, 36]])[: 1 + i % 2] + rng.integers(0, 4, (1 + i % 2, 2))
        truth = np.concatenate([corner, corner + [18, 22]], 1).astype("float32")
        objects.append((truth, rng.integers(0, 3, len(truth))))
    return scenes, objects


@pytest.fixture
def joint(monkeypatch):
    """The module, a network, the model that fit_together would fit, and its batches to train on and to validate."""
    module, caught = load("rcnn/joint.py"), []
    keras.utils.set_random_seed(0)
    network = module.faster_rcnn.build(SMALL, (SIZE, SIZE, 3), N_CLASSES)
    monkeypatch.setattr(module.steps, "fit", lambda *args, **named: caught.append(args))
    splits = {"training": data(), "validation": data(3, 1)}
    args = argparse.Namespace(batch_size=2, seed=0)
    module.fit_together(args, network, splits, 60, MEAN, VARIANCE)
    ((_, _, same_network, model, training, validation),) = caught
    assert same_network is network
    return module, network, model, training, validation


def gradients(model, batch, variables):
    """Those of compute_loss of a batch, with respect to variables; None where nothing leads to them."""
    tf = pytest.importorskip("tensorflow")
    if keras.config.backend() != "tensorflow":
        pytest.skip("each backend has its own way to gradients; this is TensorFlow's")
    x, y, weights = ({name: ops.convert_to_tensor(value) for name, value in part.items()} for part in batch)
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        loss = model.compute_loss(x, y, outputs, weights)
    return tape.gradient(loss, [variable.value for variable in variables])


def reached(found):
    return [gradient is not None and bool((ops.convert_to_numpy(gradient) != 0).any()) for gradient in found]


def test_no_gradient_reaches_the_region_proposal_network_through_encoded_targets(joint, monkeypatch):
    """Of the head's losses alone. Without ops.stop_gradient it would, so there are regions to be encoded."""
    module, network, model, training, _ = joint
    parts = {name: network.get_layer(name).trainable_variables for name in ("backbone", "rpn", "head")}
    everything = [variable for variables in parts.values() for variable in variables]
    assert all(reached(gradients(model, training[0], everything)))  # of all four losses
    monkeypatch.setattr(module.targets, "anchor_losses", dict)
    assert not any(reached(gradients(model, training[0], parts["rpn"])))
    assert all(reached(gradients(model, training[0], parts["backbone"] + parts["head"])))
    monkeypatch.setattr(ops, "stop_gradient", lambda x: x)
    assert any(reached(gradients(model, training[0], parts["rpn"])))


def test_the_loss_is_the_sum_of_four(joint, monkeypatch):
    """Whatever the head's regions are; here with the choice of regions fixed by a seed of its own."""
    module, _, model, training, _ = joint
    x, y, weights = training[0]
    outputs = model(x, training=False)
    answers, of_head = module.head_targets(outputs["regions"], x["truth"], x["kinds"], N_CLASSES, 3)
    monkeypatch.setattr(module, "head_targets", lambda *args: (answers, of_head))
    total = float(model.compute_loss(x, y, outputs, weights))
    losses = module.targets.anchor_losses() | module.targets.region_losses()
    y, weights = y | answers, weights | of_head
    each = {name: float(loss(y[name], outputs[name], weights[name])) for name, loss in losses.items()}
    assert set(each) == {"objectness", "anchor_deltas", "classes", "deltas"} and all(v > 0 for v in each.values())
    assert total == pytest.approx(sum(each.values()), rel=1e-5)


def around(truth, n, seed=0):
    """Regions: half near the objects, half anywhere, two without area."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 40, (n, 2))
    regions = np.concatenate([corner, corner + rng.uniform(4, 24, (n, 2))], 1)
    regions[: n // 2] = truth[np.arange(n // 2) % len(truth)] + rng.uniform(-3, 3, (n // 2, 4))
    regions[-2:] = 0
    return regions.clip(0, SIZE).astype("float32")


def head_targets(module, truth, kinds, regions, seed=0, n_missing=1):
    """Of one scene, whose objects are filled up with n_missing; as numpy arrays."""
    truth, kinds = np.pad(truth, ((0, n_missing), (0, 0))), np.pad(1 + kinds, (0, n_missing))
    regions = np.concatenate([truth, regions])
    found = module.head_targets(
        *(ops.convert_to_tensor(array[None]) for array in (regions, truth, kinds)), N_CLASSES, seed
    )
    answers, weights = ({name: ops.convert_to_numpy(value)[0] for name, value in part.items()} for part in found)
    return regions, answers, weights


def test_the_targets_are_those_of_the_other_trainings():
    """Of so few regions all count, and there is nothing to choose: the answers and weights of each are the same."""
    module = load("rcnn/joint.py")
    truth, kinds = np.array([[4, 5, 22, 27], [33, 36, 53, 56]], "float32"), np.array([2, 0])
    regions, answers, weights = head_targets(module, truth, kinds, around(truth, 14))
    chosen, expected, counts = module.targets.region_example(
        truth, kinds, regions[2:], N_CLASSES - 1, 0.0, np.random.default_rng(0)
    )
    n = (counts["classes"] > 0).sum()
    assert (expected["classes"] > 0).sum() > 3 and n == 2 + 12
    for i, region in enumerate(chosen[:n]):
        (place,) = np.flatnonzero((regions == region).all(1))
        for name in ("classes", "deltas"):
            np.testing.assert_allclose(answers[name][place], expected[name][i], atol=1e-4)
            np.testing.assert_allclose(weights[name][place], counts[name][i], rtol=1e-5)
        assert weights["classes"][place] == pytest.approx(1 / n)
    assert (weights["classes"] > 0).sum() == n  # not those without area, nor what fills up the objects
    assert all(np.isfinite(value).all() for value in (*answers.values(), *weights.values()))


def test_of_many_regions_a_quarter_at_most_are_objects():
    """64 count, 16 of them objects, chosen by chance; what does not count has a weight of 0."""
    module = load("rcnn/joint.py")
    truth, kinds = np.array([[4, 5, 22, 27], [33, 36, 53, 56]], "float32"), np.array([2, 0])
    regions = around(truth, 200)
    chosen = []
    for seed in range(2):
        regions_and_truth, answers, weights = head_targets(module, truth, kinds, regions, seed)
        counts, is_object = weights["classes"] > 0, answers["classes"] > 0
        assert counts.sum() == 64 and is_object.sum() == 16 and counts[is_object].all()
        np.testing.assert_allclose(weights["classes"][counts], 1 / 64)
        expected = (np.eye(N_CLASSES)[answers["classes"]] * is_object[:, None]) * 4 / 64
        np.testing.assert_allclose(weights["deltas"], expected, rtol=1e-5)
        overlap = ops.convert_to_numpy(module.boxes.iou(regions_and_truth, truth)).max(1)
        assert (overlap[is_object] >= 0.5).all() and (overlap[counts & ~is_object] < 0.5).all()
        chosen.append(np.flatnonzero(counts).tolist())
    assert chosen[0] != chosen[1]


def test_a_scene_without_objects_or_without_regions():
    module, none = load("rcnn/joint.py"), np.zeros((0, 4), "float32")
    truth = np.array([[4, 5, 22, 27]], "float32")
    _, answers, weights = head_targets(module, none, np.zeros(0, int), around(truth, 20))
    assert not answers["classes"].any() and weights["classes"].sum() == pytest.approx(1)
    _, answers, weights = head_targets(module, none, np.zeros(0, int), np.zeros((5, 4), "float32"))
    assert not weights["classes"].any() and not weights["deltas"].any() and np.isfinite(answers["deltas"]).all()


def test_batches_mirror_the_objects_with_their_scene(joint):
    """Objects are numbered from 1, what fills up has 0; anchors are those of the region proposal network's training."""
    module, network, _, training, validation = joint
    scenes, objects = data(3, 1)
    assert len(training) == len(validation) == 2
    x, y, weights = validation[0]
    np.testing.assert_array_equal(x["images"], scenes[:2])
    assert x["kinds"].tolist() == [[1 + objects[0][1][0], 0], (1 + objects[1][1]).tolist()]
    np.testing.assert_array_equal(x["truth"][1], objects[1][0])
    assert not x["truth"][0, 1].any()
    anchors = network.get_layer("proposals").all_anchors()
    expected = module.targets.anchor_batches(scenes, objects, anchors, 2)[0]
    for found, right in zip((y, weights), expected[1:], strict=True):
        assert found.keys() == right.keys() and all((found[name] == right[name]).all() for name in right)
    mirrored = set()
    for epoch in range(3):
        training.start(epoch)
        for number in range(2):
            x, _, _ = training[number]
            for image, truth, kinds in zip(x["images"], x["truth"], x["kinds"], strict=True):
                ((i, is_mirrored),) = [
                    (i, flip) for i, scene in enumerate(data()[0]) for flip in (False, True)
                    if np.array_equal(scene[:, ::-1] if flip else scene, image)
                ]  # fmt: skip
                x1, y1, x2, y2 = data()[1][i][0].T
                x1, x2 = (SIZE - x2, SIZE - x1) if is_mirrored else (x1, x2)
                np.testing.assert_array_equal(truth[kinds > 0], np.stack([x1, y1, x2, y2], 1))
                mirrored.add(is_mirrored)
    assert mirrored == {False, True}

"""What detectors learn from: every object is painted into its scene, and must be where the batches say it is."""

import numpy as np
import pytest
from folders import load

MODULE = load("rcnn/batches.py")
BOXES = MODULE.boxes
HEIGHT, WIDTH = 64, 80
ANCHORS = BOXES.grid_anchors(8, 10, 8, BOXES.base_anchors(8, (2, 3), (0.5, 1, 2)))
TRUTHS = (
    [[3, 4, 21, 20], [30, 10, 52, 35], [60, 40, 76, 58]], [[10, 30, 40, 60]], [[50, 2, 70, 26], [8, 8, 24, 24]],
    [[1, 1, 17, 17]], [[40, 20, 64, 44], [4, 40, 20, 60]],
)  # fmt: skip


def painted(truths=TRUTHS):
    """Scenes in which object m of class k has the color (m + 1, 10 + k, 100), and 200 in its right half."""
    scenes, objects = np.zeros((len(truths), HEIGHT, WIDTH, 3), "uint8"), []
    for number, truth in enumerate(truths):
        classes = np.array([(number + 3 * m) % 4 for m in range(len(truth))], int)
        for m, ((x1, y1, x2, y2), k) in enumerate(zip(truth, classes, strict=True)):
            scenes[number, y1:y2, x1:x2] = m + 1, 10 + k, 100
            scenes[number, y1:y2, (x1 + x2) // 2 : x2, 2] = 200
        objects.append((np.array(truth, "float32").reshape(-1, 4), classes))
    return scenes, objects


def seen(scene):
    """The boxes and classes painted into a scene, and whether it is mirrored."""
    truth, classes, bright = [], [], []
    for m in range(scene[..., 0].max()):
        y, x = np.nonzero(scene[..., 0] == m + 1)
        truth.append([x.min(), y.min(), x.max() + 1, y.max() + 1])
        classes.append(int(scene[y[0], x[0], 1]) - 10)
        bright.append(scene[y.min(), x.min(), 2] == 200)
    assert len(set(bright)) < 2
    return np.array(truth, "float32").reshape(-1, 4), np.array(classes, int), any(bright)


def overlap(box, other):
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    common = max(width, 0) * max(height, 0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    return common / (sum(areas) - common)


def around(objects, n=30, seed=0):
    """Proposals: half of them near an object, half anywhere, all inside the scene."""
    rng, found = np.random.default_rng(seed), []
    for truth, _ in objects:
        corner = rng.uniform(0, 40, (n, 2))
        proposals = np.concatenate([corner, corner + rng.uniform(4, 24, (n, 2))], 1)
        if len(truth):
            proposals[: n // 2] = truth[np.arange(n // 2) % len(truth)] + rng.uniform(-4, 4, (n // 2, 4))
        found.append(BOXES.clip(proposals, HEIGHT, WIDTH))
    return found


def make(kind, seed=0, training=True, objects=None):
    scenes, painted_objects = painted()
    objects = objects or painted_objects
    if kind == "anchors":
        return MODULE.anchor_batches(scenes, objects, ANCHORS, 2, seed if training else None, n_anchors=32)
    if kind == "regions":
        seed = seed if training else None
        return MODULE.region_batches(scenes, objects, around(painted_objects), 4, 2, seed, n_regions=16)
    return MODULE.warped_batches(scenes, objects, around(painted_objects), 3, 16, 8, 1, seed if training else None)


def scene_by_scene(batches, n_epochs=4):
    """Yield (inputs, targets, weights) of each scene of some epochs."""
    for epoch in range(n_epochs):
        batches.start(epoch)
        for number in range(len(batches)):
            batch = batches[number]
            for i in range(len(batch[0]["images"])):
                yield tuple({name: values[i] for name, values in part.items()} for part in batch)


def test_anchors_that_count():
    directions = set()
    for inputs, targets, weights in scene_by_scene(make("anchors")):
        truth, _, is_mirrored = seen(inputs["images"])
        directions.add(is_mirrored)
        counts, is_object = weights["objectness"] == 1, targets["objectness"] == 1
        assert counts.sum() == weights["objectness"].sum() == 32
        assert 1 <= (counts & is_object).sum() <= 16
        np.testing.assert_array_equal(weights["anchor_deltas"], counts & is_object)
        inside = [x1 >= 0 and y1 >= 0 and x2 <= WIDTH and y2 <= HEIGHT for x1, y1, x2, y2 in ANCHORS]
        assert not (counts & ~np.array(inside)).any()

        overlaps = np.array([[overlap(anchor, box) for box in truth] for anchor in ANCHORS]) * np.array(inside)[:, None]
        is_best = (overlaps > overlaps.max(0) - 1e-6).any(1)
        assert (overlaps[counts & ~is_object] < 0.3).all()
        assert ((overlaps.max(1) >= 0.7 - 1e-6) | is_best)[counts & is_object].all()
        found = BOXES.decode(ANCHORS[counts & is_object], targets["anchor_deltas"][counts & is_object])
        np.testing.assert_allclose(found, truth[overlaps.argmax(1)[counts & is_object]], atol=1e-3)
    assert directions == {True, False}


def test_at_most_half_of_the_anchors_are_positive():
    scenes, objects = painted([[[10, 10, 30, 30]]])
    anchors = np.repeat(np.array([[10, 10, 30, 30], [50, 30, 70, 50], [70, 50, 90, 60]], "float32"), 50, axis=0)
    ((_, targets, weights),) = scene_by_scene(MODULE.anchor_batches(scenes, objects, anchors, 1, None, 40), 1)
    counts = weights["objectness"].reshape(3, 50).sum(1)
    assert counts.tolist() == [20, 20, 0] and weights["anchor_deltas"].sum() == 20
    assert targets["objectness"].reshape(3, 50)[:, 0].tolist() == [1, 0, 0]


def test_anchors_of_a_scene_without_objects():
    scenes, objects = painted([[]])
    for _, targets, weights in scene_by_scene(MODULE.anchor_batches(scenes, objects, ANCHORS, 1, 0, n_anchors=32)):
        assert weights["objectness"].sum() == 32 and weights["anchor_deltas"].sum() == 0
        assert not targets["objectness"].any() and not targets["anchor_deltas"].any()


def test_no_anchor_touches_an_object():
    scenes, objects = painted([[[70, 50, 80, 64]]])
    anchors = np.array([[0, 0, 8, 8]] * 5, "float32")
    ((_, targets, weights),) = scene_by_scene(MODULE.anchor_batches(scenes, objects, anchors, 1, None, 32), 1)
    assert weights["objectness"].sum() == 5 and not targets["objectness"].any() and not weights["anchor_deltas"].any()


@pytest.mark.parametrize("truths", [[[]], [[[10, 10, 30, 30]]]])
def test_no_anchor_is_inside(truths):
    scenes, objects = painted(truths)
    anchors = np.array([[-1, 0, 30, 30], [10, 10, 30, 65]], "float32")
    ((_, targets, weights),) = scene_by_scene(MODULE.anchor_batches(scenes, objects, anchors, 1, None, 32), 1)
    assert weights["objectness"].tolist() == weights["anchor_deltas"].tolist() == [0, 0]
    assert targets["anchor_deltas"].shape == (2, 4)


def test_an_object_that_fills_the_image():
    scenes, objects = painted([[[0, 0, WIDTH, HEIGHT]]])
    for inputs, targets, weights in scene_by_scene(MODULE.anchor_batches(scenes, objects, ANCHORS, 1, 0, n_anchors=32)):
        positive = weights["anchor_deltas"] == 1
        assert positive.any()
        found = BOXES.decode(ANCHORS[positive], targets["anchor_deltas"][positive])
        np.testing.assert_allclose(found, np.tile(seen(inputs["images"])[0], (len(found), 1)), atol=1e-3)
    none = [np.zeros((0, 4), "float32")]
    for inputs, targets, weights in scene_by_scene(MODULE.region_batches(scenes, objects, none, 4, 1, 0, n_regions=4)):
        np.testing.assert_array_equal(inputs["regions"], [[0, 0, WIDTH, HEIGHT]] + [[0, 0, 0, 0]] * 3)
        assert weights["classes"].tolist() == [1, 0, 0, 0] and targets["classes"][0] == 1
        assert not targets["deltas"].any()


@pytest.mark.parametrize("background", [0.1, 0.0])
def test_regions_that_count(background):
    scenes, objects = painted()
    batches = MODULE.region_batches(scenes, objects, around(objects), 4, 2, 0, 16, background)
    directions, background_overlaps = set(), []
    for inputs, targets, weights in scene_by_scene(batches):
        truth, classes, is_mirrored = seen(inputs["images"])
        directions.add(is_mirrored)
        n = int(weights["classes"].sum())
        np.testing.assert_array_equal(weights["classes"], [1] * n + [0] * (16 - n))
        assert not inputs["regions"][n:].any() and not targets["classes"][n:].any()
        assert inputs["regions"].shape == (16, 4) and targets["deltas"].shape == (16, 5, 4)
        assert 1 <= (targets["classes"] > 0).sum() <= 4
        for region, label, deltas, counts in zip(
            inputs["regions"][:n], targets["classes"], targets["deltas"], weights["deltas"], strict=False
        ):
            overlaps = [overlap(region, box) for box in truth]
            if label == 0:
                background_overlaps.append(max(overlaps))
                assert not counts.any() and not deltas.any()
                continue
            m = int(np.argmax(overlaps))
            assert overlaps[m] >= 0.5 and label == 1 + classes[m]
            np.testing.assert_array_equal(counts, np.arange(5) == label)
            assert not deltas[counts == 0].any()
            (found,) = BOXES.decode(region[None], deltas[None, label] * [0.1, 0.1, 0.2, 0.2])
            np.testing.assert_allclose(found, truth[m], atol=1e-3)
        assert not weights["deltas"][n:].any()
    assert directions == {True, False}
    assert background <= min(background_overlaps) < 0.1 + background and max(background_overlaps) < 0.5


def test_regions_of_scenes_with_many_objects_are_a_quarter_objects():
    scenes, objects = painted([[[10, 10, 30, 30]]])
    proposals = [np.repeat(np.array([[10, 10, 30, 29], [24, 10, 44, 30]], "float32"), 20, axis=0)]
    batches = MODULE.region_batches(scenes, objects, proposals, 4, 1, 0, n_regions=16)
    for _, targets, weights in scene_by_scene(batches):
        assert (targets["classes"] > 0).sum() == 4 and weights["classes"].sum() == 16


def test_proposals_without_area_are_left_out():
    scenes, objects = painted([[[10, 10, 30, 30]]])
    proposals = [np.array([[5, 5, 5, 9], [5, 5, 9, 5], [0, 0, 0, 0], [40, 40, 60, 60]], "float32")]
    for inputs, _, weights in scene_by_scene(MODULE.region_batches(scenes, objects, proposals, 4, 1, None, 8, 0), 1):
        np.testing.assert_array_equal(inputs["regions"][:2], [[10, 10, 30, 30], [40, 40, 60, 60]])
        assert weights["classes"].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("background, expected", [(0.0, 1), (0.1, 0)])
def test_regions_of_a_scene_without_objects(background, expected):
    """The released code of Fast R-CNN has no such scenes: an IoU of 0 is less than 0.1, and so nothing counts."""
    scenes, objects = painted([[], []])
    proposals = [np.array([[5, 5, 20, 20]], "float32"), np.zeros((0, 4), "float32")]
    batches = MODULE.region_batches(scenes, objects, proposals, 4, 2, None, 8, background)
    (_, targets, weights), (_, _, weights_without_proposals) = scene_by_scene(batches, 1)
    assert weights["classes"].sum() == expected and weights_without_proposals["classes"].sum() == 0
    assert not weights["deltas"].any() and not targets["classes"].any()


def test_warped_regions_and_their_labels():
    """Objects of one color each, and proposals of exactly an object or of nothing: the color tells the label."""
    scenes, objects = painted()
    proposals = [np.concatenate([np.tile(truth, (8, 1)), [[0, 60, 4, 64]] * 20]) for truth, _ in objects]
    for training in (True, False):
        batches = MODULE.warped_batches(scenes, objects, proposals, 3, 32, 8, 1, 0 if training else None)
        assert len(batches) == 3
        is_mirrored = []
        for x, labels in (batches[number] for number in range(3)):
            assert x.shape == (32, 8, 8, 3) and x.dtype == "uint8" and labels.shape == (32,)
            assert (labels > 0).sum() == 8 and len(set(labels)) > 2
            np.testing.assert_array_equal(np.where(labels > 0, 9 + labels, 0), x[:, 4, 4, 1])
            is_mirrored += [warped[4, 1, 2] == 200 for warped in x[labels > 0]]
            assert all({warped[4, 1, 2], warped[4, 6, 2]} == {100, 200} for warped in x[labels > 0])
        assert (0.2 < np.mean(is_mirrored) < 0.8) if training else not any(is_mirrored)


def test_warped_regions_are_fewer_where_the_background_is():
    scenes, objects = painted([[], [[10, 10, 30, 30]]])
    batches = MODULE.warped_batches(scenes, objects, [np.zeros((0, 4)), np.array([[40, 40, 50, 50]])], 1, 16, 8, 1, 0)
    x, labels = batches[0]
    assert x.shape == (2, 8, 8, 3) and labels.tolist() == [2, 0]


def flat(batch):
    """All arrays of a batch, in a row."""
    return [a for part in batch for a in (part.values() if isinstance(part, dict) else [part])]


def same(batch, other):
    return all(np.array_equal(a, b) for a, b in zip(flat(batch), flat(other), strict=True))


@pytest.mark.parametrize("kind", ["anchors", "regions", "warped"])
def test_a_batch_is_made_of_seed_epoch_and_number_alone(kind):
    batches, again, other, validation = make(kind), make(kind), make(kind, seed=1), make(kind, training=False)
    for one in (batches, other):
        one.start(3)
    first = batches[0]
    again[1], again[2]
    again.start(2)
    again[0]
    again.start(3)
    assert same(again[0], first) and same(batches[0], first)
    assert not same(other[0], first) and not same(batches[1], first)
    batches.start(4)
    assert not same(batches[0], first)
    first = validation[0]
    assert same(validation[0], first)


@pytest.mark.parametrize("kind", ["anchors", "regions"])
def test_every_scene_is_seen_once_in_an_epoch(kind):
    batches = make(kind)
    assert len(batches) == 3 and len(batches[2][0]["images"]) == 1
    expected, orders = sorted(scene[::5].sum() for scene in painted()[0]), set()
    for epoch in range(4):
        batches.start(epoch)
        sums = [scene[::5].sum() for number in range(3) for scene in batches[number][0]["images"]]
        assert sorted(sums) == expected
        orders.add(tuple(sums))
    assert len(orders) > 1
    images = np.concatenate([make(kind, training=False)[number][0]["images"] for number in range(3)])
    np.testing.assert_array_equal(images, painted()[0])


@pytest.mark.parametrize("kind", ["anchors", "regions", "warped"])
@pytest.mark.parametrize(
    "truth, message",
    [
        ([[-1, 0, 5, 5]], r"0 <= x1 < x2 <= 80 and 0 <= y1 < y2 <= 64, got \(-1.0, 0.0, 5.0, 5.0\)"),
        ([[0, 0, 5, 5], [70, 0, 80.5, 5]], r"got \(70.0, 0.0, 80.5, 5.0\)"),
        ([[0, 60, 5, 65]], r"got \(0.0, 60.0, 5.0, 65.0\)"),
        ([[5, 5, 5, 9]], r"got \(5.0, 5.0, 5.0, 9.0\)"),
        ([[5, 9, 9, 5]], r"got \(5.0, 9.0, 9.0, 5.0\)"),
        ([[0, 0, np.nan, 5]], r"got \(0.0, 0.0, nan, 5.0\)"),
        ([0, 0, 5, 5], r"boxes \(M, 4\) and classes \(M,\), got \(4,\), \(4,\)"),
        ([[0, 0, 5]], r"boxes \(M, 4\) and classes \(M,\), got \(1, 3\), \(1,\)"),
    ],
)
def test_objects_that_cannot_be(kind, truth, message):
    objects = painted()[1]
    objects[3] = np.array(truth, "float32"), np.zeros(len(truth), int)
    with pytest.raises(ValueError, match="scene 3.*" + message):
        make(kind, objects=objects)


def test_each_object_needs_a_class():
    objects = painted()[1]
    objects[1] = objects[1][0], np.zeros(2, int)
    with pytest.raises(ValueError, match=r"scene 1 must have .*, got \(1, 4\), \(2,\)"):
        make("anchors", objects=objects)
    MODULE.check_objects(np.zeros((1, HEIGHT, WIDTH, 3)), [(np.array([[0, 0, WIDTH, HEIGHT]]), [0])])  # fills the scene

"""What detectors learn from: every object is painted into its scene, and must be where the batches say it is."""

import numpy as np
import pytest
from folders import load
from keras import ops

MODULE = load("rcnn/targets.py")
BOXES = MODULE.boxes
HEIGHT, WIDTH = 64, 80
ANCHORS = BOXES.grid_anchors(8, 10, 8, BOXES.base_anchors(8, (2, 3), (0.5, 1, 2)))
MEAN = np.array([10.5, 20.5, 30.5])
TRUTHS = (
    [[3, 4, 21, 20], [30, 10, 52, 35], [60, 40, 76, 58]], [[10, 30, 40, 60]], [[50, 2, 70, 26], [8, 8, 24, 24]],
    [[1, 1, 17, 17]], [[40, 20, 64, 44], [4, 40, 20, 60]],
)  # fmt: skip


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """32 anchors and 16 regions of a scene count, not 256 and 64."""
    monkeypatch.setattr(MODULE, "N_ANCHORS", 32)
    monkeypatch.setattr(MODULE, "N_REGIONS", 16)


def test_how_many_count():
    """Section 3.1.3 of Faster R-CNN, 2.3 of Fast R-CNN: 128 regions of two scenes."""
    module = load("rcnn/targets.py")
    assert (module.N_ANCHORS, module.N_REGIONS, module.SIGMA) == (256, 64, 3)


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


def decode(anchors, deltas, deviations=(1, 1, 1, 1)):
    return ops.convert_to_numpy(BOXES.decode(anchors, deltas, deviations))


def around(objects, n=30, seed=0):
    """Proposals: half of them near an object, half anywhere, all inside the scene."""
    rng, found = np.random.default_rng(seed), []
    for truth, _ in objects:
        corner = rng.uniform(0, 40, (n, 2))
        proposals = np.concatenate([corner, corner + rng.uniform(4, 24, (n, 2))], 1)
        if len(truth):
            proposals[: n // 2] = truth[np.arange(n // 2) % len(truth)] + rng.uniform(-4, 4, (n // 2, 4))
        found.append(ops.convert_to_numpy(BOXES.clip(proposals.astype("float32"), HEIGHT, WIDTH)))
    return found


def make(kind, seed=0, training=True, objects=None):
    scenes, painted_objects = painted()
    objects, seed = objects or painted_objects, seed if training else None
    if kind == "anchors":
        return MODULE.anchor_batches(scenes, objects, ANCHORS, 2, seed)
    if kind == "regions":
        return MODULE.region_batches(scenes, objects, around(painted_objects), 4, 2, seed)
    return MODULE.warped_batches(scenes, objects, around(painted_objects), MEAN, 8, 2, seed)


def scene_by_scene(batches, n_epochs=4):
    """Yield (inputs, targets, weights) of each scene of some epochs; the weights those of a batch of that scene."""
    for epoch in range(n_epochs):
        batches.start(epoch)
        for number in range(len(batches)):
            inputs, targets, weights = batches[number]
            n = len(inputs["images"])
            weights = {name: n * values for name, values in weights.items()}
            for i in range(n):
                yield tuple({name: values[i] for name, values in part.items()} for part in (inputs, targets, weights))


def test_anchors_that_count():
    directions = set()
    for inputs, targets, weights in scene_by_scene(make("anchors")):
        truth, _, is_mirrored = seen(inputs["images"])
        directions.add(is_mirrored)
        counts, is_object = weights["objectness"] > 0, targets["objectness"] == 1
        assert counts.sum() == 32 and 1 <= (counts & is_object).sum() <= 16
        np.testing.assert_allclose(weights["objectness"], counts / 32)
        np.testing.assert_allclose(weights["anchor_deltas"], 36 / 32 * (counts & is_object))  # 4 sigma^2
        inside = [x1 >= 0 and y1 >= 0 and x2 <= WIDTH and y2 <= HEIGHT for x1, y1, x2, y2 in ANCHORS]
        assert not (counts & ~np.array(inside)).any()

        overlaps = np.array([[overlap(anchor, box) for box in truth] for anchor in ANCHORS]) * np.array(inside)[:, None]
        is_best = (overlaps > overlaps.max(0) - 1e-6).any(1)
        assert (overlaps[counts & ~is_object] < 0.3).all()
        assert ((overlaps.max(1) >= 0.7 - 1e-6) | is_best)[counts & is_object].all()
        found = decode(ANCHORS[counts & is_object], targets["anchor_deltas"][counts & is_object])
        np.testing.assert_allclose(found, truth[overlaps.argmax(1)[counts & is_object]], atol=1e-3)
    assert directions == {True, False}


def test_at_most_half_of_the_anchors_are_positive():
    scenes, objects = painted([[[10, 10, 30, 30]]])
    anchors = np.repeat(np.array([[10, 10, 30, 30], [50, 30, 70, 50], [70, 50, 90, 60]], "float32"), 50, axis=0)
    ((_, targets, weights),) = scene_by_scene(MODULE.anchor_batches(scenes, objects, anchors, 1), 1)
    counts = (weights["objectness"] > 0).reshape(3, 50).sum(1)
    assert counts.tolist() == [16, 16, 0] and (weights["anchor_deltas"] > 0).sum() == 16
    assert targets["objectness"].reshape(3, 50)[:, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    "truth, anchors, n",
    [
        ([], ANCHORS, 32),  # no object
        ([[70, 50, 80, 64]], np.array([[0, 0, 8, 8]] * 5, "float32"), 5),  # that no anchor touches
        ([[10, 10, 30, 30]], np.array([[-1, 0, 30, 30], [10, 10, 30, 65]], "float32"), 0),  # no anchor inside
        ([], np.array([[-1, 0, 30, 30]], "float32"), 0),
    ],
)
def test_scenes_without_a_positive_anchor(truth, anchors, n):
    scenes, objects = painted([truth])
    for _, targets, weights in scene_by_scene(MODULE.anchor_batches(scenes, objects, anchors, 1, 0)):
        assert (weights["objectness"] > 0).sum() == n and np.isclose(weights["objectness"].sum(), n > 0)
        assert not weights["anchor_deltas"].any()
        assert not targets["objectness"].any() and not targets["anchor_deltas"].any()


def test_an_object_that_fills_the_image():
    scenes, objects = painted([[[0, 0, WIDTH, HEIGHT]]])
    for inputs, targets, weights in scene_by_scene(MODULE.anchor_batches(scenes, objects, ANCHORS, 1, 0)):
        positive = weights["anchor_deltas"] > 0
        assert positive.any()
        found = decode(ANCHORS[positive], targets["anchor_deltas"][positive])
        np.testing.assert_allclose(found, np.tile(seen(inputs["images"])[0], (len(found), 1)), atol=1e-3)
    none = [np.zeros((0, 4), "float32")]
    for inputs, targets, weights in scene_by_scene(MODULE.region_batches(scenes, objects, none, 4, 1, 0)):
        np.testing.assert_array_equal(inputs["regions"], [[0, 0, WIDTH, HEIGHT]] * 16)  # filled up
        assert weights["classes"].tolist() == [1] + 15 * [0] and targets["classes"][0] == 1
        assert not targets["deltas"].any()


@pytest.mark.parametrize("background", [0.1, 0.0])
def test_regions_that_count(background):
    scenes, objects = painted()
    batches = MODULE.region_batches(scenes, objects, around(objects), 4, 2, 0, background)
    directions, background_overlaps = set(), []
    for inputs, targets, weights in scene_by_scene(batches):
        truth, classes, is_mirrored = seen(inputs["images"])
        directions.add(is_mirrored)
        n = int((weights["classes"] > 0).sum())
        np.testing.assert_allclose(weights["classes"], np.array([1] * n + [0] * (16 - n)) / n)
        np.testing.assert_array_equal(inputs["regions"][n:], inputs["regions"][: 16 - n])  # the same once more
        assert not targets["classes"][n:].any()
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
            np.testing.assert_allclose(counts, 4 / n * (np.arange(5) == label))  # divided by all regions
            assert not deltas[counts == 0].any()
            (found,) = decode(region[None], deltas[None, label], BOXES.DEVIATIONS)
            np.testing.assert_allclose(found, truth[m], atol=1e-3)
        assert not weights["deltas"][n:].any()
    assert directions == {True, False}
    assert background <= min(background_overlaps) < 0.1 + background and max(background_overlaps) < 0.5


def test_regions_of_scenes_with_many_objects_are_a_quarter_objects():
    scenes, objects = painted([[[10, 10, 30, 30]]])
    proposals = [np.repeat(np.array([[10, 10, 30, 29], [24, 10, 44, 30]], "float32"), 20, axis=0)]
    for _, targets, weights in scene_by_scene(MODULE.region_batches(scenes, objects, proposals, 4, 1, 0)):
        assert (targets["classes"] > 0).sum() == 4 and (weights["classes"] > 0).all()


def test_proposals_without_area_are_left_out():
    scenes, objects = painted([[[10, 10, 30, 30]]])
    proposals = [np.array([[5, 5, 5, 9], [5, 5, 9, 5], [0, 0, 0, 0], [40, 40, 60, 60]], "float32")]
    batches = MODULE.region_batches(scenes, objects, proposals, 4, 1, background=0)
    for inputs, _, weights in scene_by_scene(batches, 1):
        np.testing.assert_array_equal(inputs["regions"], 8 * [[10, 10, 30, 30], [40, 40, 60, 60]])  # filled up
        assert weights["classes"].tolist() == [0.5, 0.5] + 14 * [0]


@pytest.mark.parametrize("background, expected", [(0.0, 1), (0.1, 0)])
def test_regions_of_a_scene_without_objects(background, expected):
    """The released code of Fast R-CNN has no such scenes: an IoU of 0 is less than 0.1, and so nothing counts."""
    scenes, objects = painted([[], []])
    proposals = [np.array([[5, 5, 20, 20]], "float32"), np.zeros((0, 4), "float32")]
    batches = MODULE.region_batches(scenes, objects, proposals, 4, 2, None, background)
    (_, targets, weights), (_, _, weights_without_proposals) = scene_by_scene(batches, 1)
    assert weights["classes"].sum() == expected and weights_without_proposals["classes"].sum() == 0
    assert not weights["deltas"].any() and not targets["classes"].any()


def test_warped_regions_and_their_labels():
    """Objects of one color each, and proposals of exactly an object or of nothing: the color tells the label."""
    scenes, objects = painted()
    proposals = [np.concatenate([np.tile(truth, (8, 1)), [[0, 60, 4, 64]] * 20]) for truth, _ in objects]
    for training in (True, False):
        batches = MODULE.warped_batches(scenes, objects, proposals, MEAN, 8, 2, 0 if training else None)
        assert len(batches) == 3
        is_mirrored = []
        for x, labels in (batches[number] for number in range(3)):
            assert x.shape == (32, 8, 8, 3) and x.dtype == "float32" and labels.shape == (32,)
            assert (labels > 0).sum() == 8 and len(set(labels)) > 2
            np.testing.assert_allclose(np.where(labels > 0, 9 + labels, 0), x[:, 4, 4, 1], atol=1e-3)
            left, right = (x[labels > 0][:, 4, column, 2].round() for column in (2, 5))
            assert all({one, other} == {100, 200} for one, other in zip(left, right, strict=True))
            is_mirrored += list(left == 200)
        assert (0.2 < np.mean(is_mirrored) < 0.8) if training else not any(is_mirrored)


def test_warped_regions_are_fewer_where_the_background_is():
    scenes, objects = painted([[], [[10, 10, 30, 30]]])
    proposals = [np.zeros((0, 4), "float32"), np.array([[40, 40, 50, 50]], "float32")]
    x, labels = MODULE.warped_batches(scenes, objects, proposals, MEAN, 8, 1, 0)[0]
    assert x.shape == (2, 8, 8, 3) and labels.tolist() == [2, 0]


@pytest.mark.parametrize(
    "positives, negatives, expected",
    [(50, 500, (32, 96)), (5, 500, (5, 123)), (50, 20, (32, 20)), (0, 9, (0, 9)), (0, 0, (0, 0))],
)
def test_sampling(positives, negatives, expected):
    labels = np.concatenate([np.full(positives, 3), np.zeros(negatives), np.full(40, -1)])
    chosen = MODULE.sample(labels, 128, 0.25, np.random.default_rng(0))
    assert ((labels[chosen] > 0).sum(), (labels[chosen] == 0).sum()) == expected
    assert len(set(chosen)) == len(chosen) == sum(expected)


def smooth_l1(x, sigma):
    """py-faster-rcnn's SmoothL1Loss: 0.5 (sigma x)^2 where |x| < 1 / sigma^2, else |x| - 0.5 / sigma^2."""
    x = abs(x)
    return np.where(x < 1 / sigma**2, 0.5 * (sigma * x) ** 2, x - 0.5 / sigma**2)


@pytest.mark.parametrize("kind, sigma, n", [("anchors", 3, 32), ("regions", 1, 16)])
def test_the_losses_are_the_papers_sums(kind, sigma, n):
    """Of one scene: cross-entropy plus smooth L1 of the four numbers of each object's box, divided by all that count.

    Equation 1 of Faster R-CNN, with lambda / N_reg = 1 / 256 as released; equations 1 to 3 of Fast R-CNN.
    """
    losses = MODULE.anchor_losses() if kind == "anchors" else MODULE.region_losses()
    rng, has_both_parts = np.random.default_rng(0), False
    for _, targets, weights in scene_by_scene(make(kind), 1):
        (answer, delta), (labels, deltas) = targets, targets.values()
        n_classes = 2 if kind == "anchors" else 5
        probabilities = rng.dirichlet(np.ones(n_classes), len(labels)).astype("float32")
        found = deltas + rng.normal(0, 1 / sigma**2, deltas.shape).astype("float32")
        expected = 0
        for i in np.flatnonzero(weights[answer]):
            expected -= np.log(probabilities[i, labels[i]]) / n
            if labels[i] > 0:
                differences = (found - deltas)[i] if kind == "anchors" else (found - deltas)[i, labels[i]]
                expected += smooth_l1(differences, sigma).sum() / n
                has_both_parts |= np.unique(abs(differences) < 1 / sigma**2).size == 2
        outputs = {answer: probabilities, delta: found}
        total = sum(
            float(loss(targets[name][None], outputs[name][None], weights[name][None])) for name, loss in losses.items()
        )
        if (weights[answer] > 0).sum() == n:
            assert total == pytest.approx(expected, rel=1e-4)
    assert has_both_parts


def test_the_loss_of_a_batch_is_the_mean_of_its_scenes():
    for kind in ("anchors", "regions"):
        _, _, weights = make(kind)[0]
        np.testing.assert_allclose([values.sum() for values in list(weights.values())[0]], [0.5, 0.5], rtol=1e-5)


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
    objects[1] = objects[1][0], np.array([-1])  # not the background
    with pytest.raises(ValueError, match=r"scene 1: a class must be 0 or more, .*, got -1"):
        make("anchors", objects=objects)
    objects[1] = objects[1][0], np.array([4])  # of four classes the last is 3
    with pytest.raises(ValueError, match="scene 1: a class must be below 4, the number of classes, got 4"):
        make("regions", objects=objects)
    objects[1] = objects[1][0], np.array([0.0])
    with pytest.raises(ValueError, match="scene 1: classes must be an array of integers, got float64"):
        make("anchors", objects=objects)
    with pytest.raises(ValueError, match="each scene must have its objects, got 1 for"):
        make("anchors", objects=objects[:1])
    MODULE.check_objects(np.zeros((1, HEIGHT, WIDTH, 3)), [(np.array([[0, 0, WIDTH, HEIGHT]]), [0])])  # fills the scene

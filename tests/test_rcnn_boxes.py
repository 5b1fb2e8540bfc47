"""Boxes: overlap, encoding, suppression, anchors and matching, against numbers by hand and plain forms."""

import numpy as np
import pytest
from folders import load
from keras import ops

BOXES = load("rcnn/boxes.py")


def random_boxes(n, seed=0, size=100):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, size, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(1, size / 2, (n, 2))], 1).astype("float32")


def numbers(tensor):
    return ops.convert_to_numpy(tensor)


def test_the_nine_anchors_of_py_faster_rcnn():
    """generate_anchors.py lists pixels, counted from 1 as MATLAB does: here from 0, and x2, y2 one beyond the last."""
    nine = np.array([
        [-83, -39, 100, 56], [-175, -87, 192, 104], [-359, -183, 376, 200],
        [-55, -55, 72, 72], [-119, -119, 136, 136], [-247, -247, 264, 264],
        [-35, -79, 52, 96], [-79, -167, 96, 184], [-167, -343, 184, 360],
    ])  # fmt: skip
    first_cell = BOXES.grid_anchors(1, 1, 16, BOXES.base_anchors())
    assert (nine[0] - 1).tolist() == [-84, -40, 99, 55]  # what the released code computes
    np.testing.assert_array_equal(first_cell, nine - 1 + [0, 0, 1, 1])
    sides = first_cell[:, 2:] - first_cell[:, :2]
    np.testing.assert_array_equal(sides, nine[:, 2:] - nine[:, :2] + 1)  # 184x96, 368x192 ... pixels
    np.testing.assert_array_equal((first_cell[:, 2:] + first_cell[:, :2]) / 2, np.full((9, 2), 8))


@pytest.mark.parametrize("strides", [4, 8, 16])
def test_anchors_are_centred_on_their_cells(strides):
    """A cell has the pixels from strides i to strides (i + 1); rows first, the anchors of a cell together."""
    height, width, shapes = 3, 5, BOXES.base_anchors(8, (2, 3.5), (0.5, 1))
    anchors = BOXES.grid_anchors(height, width, strides, shapes).reshape(height, width, 4, 4)
    centers = (anchors[..., :2] + anchors[..., 2:]) / 2
    for y in range(height):
        for x in range(width):
            middle = strides * x + strides / 2, strides * y + strides / 2
            np.testing.assert_allclose(centers[y, x], np.tile(middle, (4, 1)), atol=1e-4)
            np.testing.assert_allclose(anchors[y, x, :, 2:] - anchors[y, x, :, :2], shapes[:, 2:] - shapes[:, :2])


def test_iou_by_hand():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 9]], "float32")
    expected = [[1, 50 / 150, 0, 0], [50 / 150, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(numbers(BOXES.iou(boxes, boxes)), expected, atol=1e-6)
    assert BOXES.iou(boxes, np.zeros((0, 4))).shape == (4, 0) and BOXES.iou(np.zeros((0, 4)), boxes).shape == (0, 4)
    of_two = numbers(BOXES.iou(np.stack([boxes, boxes[::-1]]), np.stack([boxes, boxes])))  # of each image by itself
    np.testing.assert_allclose(of_two, [expected, expected[::-1]], atol=1e-6)


def test_encode_by_hand_and_decode_its_inverse():
    """Appendix C: shifts in units of the anchor's size, sizes as logarithms; each divided by its deviation."""
    anchor, box = np.array([[10, 20, 30, 60]]), np.array([[20, 30, 30, 110]])  # center (20, 40) to (25, 70), to 10x80
    expected = np.array([[5 / 20, 30 / 40, np.log(10 / 20), np.log(80 / 40)]])
    np.testing.assert_allclose(numbers(BOXES.encode(anchor, box)), expected, atol=1e-6)
    found = numbers(BOXES.encode(anchor, box, (0.1, 0.1, 0.2, 0.2)))
    np.testing.assert_allclose(found, expected / [0.1, 0.1, 0.2, 0.2], atol=1e-5)
    assert BOXES.DEVIATIONS == (0.1, 0.1, 0.2, 0.2)  # BBOX_NORMALIZE_STDS of py-faster-rcnn
    anchors, boxes = random_boxes(200, 1), random_boxes(200, 2)
    for deviations in ((1, 1, 1, 1), BOXES.DEVIATIONS):
        deltas = BOXES.encode(anchors, boxes, deviations)
        np.testing.assert_allclose(numbers(BOXES.decode(anchors, deltas, deviations)), boxes, atol=1e-3)
    none = np.zeros((0, 4), "float32")
    assert tuple(BOXES.encode(none, none).shape) == (0, 4) == tuple(BOXES.decode(none, none).shape)


def test_one_anchor_has_a_box_of_each_class():
    anchors, deltas = random_boxes(5)[:, None], np.random.default_rng(0).normal(size=(5, 3, 4)).astype("float32")
    found = numbers(BOXES.decode(anchors, deltas))
    for k in range(3):
        np.testing.assert_allclose(found[:, k], numbers(BOXES.decode(anchors[:, 0], deltas[:, k])), atol=1e-3)


def test_only_widths_and_heights_are_clamped():
    """log(1000 / 16), as in the codes that came after the paper's: 62.5 times the anchor; a shift is any."""
    anchor = np.array([[10, 10, 30, 50]], "float32")  # 20x40 around (20, 30)
    (far,) = numbers(BOXES.decode(anchor, np.array([[100, -200, 0, 0]], "float32")))
    np.testing.assert_allclose(far, [20 + 2000 - 10, 30 - 8000 - 20, 20 + 2000 + 10, 30 - 8000 + 20])
    (large,) = numbers(BOXES.decode(anchor, np.array([[0, 0, 100, 5]], "float32")))
    np.testing.assert_allclose(large[2:] - large[:2], [20 * 62.5, 40 * 62.5], rtol=1e-5)
    (close,) = numbers(BOXES.decode(anchor, np.array([[0, 0, 4.1, -100]], "float32")))
    np.testing.assert_allclose(close[2:] - close[:2], [20 * np.exp(4.1), 0], rtol=1e-4, atol=1e-4)
    divided = np.array([[0, 0, 4.1 / 0.2, 0]], "float32")  # it is the size that is clamped, whatever it is divided by
    (same,) = numbers(BOXES.decode(anchor, divided, BOXES.DEVIATIONS))
    np.testing.assert_allclose(same[2] - same[0], 20 * np.exp(4.1), rtol=1e-4)


def test_clip_size_and_mirror():
    boxes = np.array([[-5, -5, 50, 300], [10, 10, 12, 40], [130, 10, 140, 20]], "float32")
    clipped = numbers(BOXES.clip(boxes, height=100, width=120))
    np.testing.assert_array_equal(clipped, [[0, 0, 50, 100], [10, 10, 12, 40], [120, 10, 120, 20]])
    assert numbers(BOXES.is_larger_than(clipped, 4)).tolist() == [True, False, False]
    assert numbers(BOXES.is_larger_than(clipped, 2)).tolist() == [True, True, False]  # at least
    np.testing.assert_array_equal(BOXES.mirror(boxes[:2], 100), [[50, -5, 105, 300], [88, 10, 90, 40]])
    assert BOXES.mirror(np.zeros((0, 4)), 100).shape == (0, 4)


def plain_nms(boxes, scores, threshold):
    """Section 2.2 of R-CNN in its plain form: from the best on, keep what overlaps no better one that is kept."""
    overlap, kept = numbers(BOXES.iou(boxes, boxes)), []
    for i in np.argsort(-scores, kind="stable"):
        if all(overlap[i, better] <= threshold for better in kept):
            kept.append(int(i))
    return kept


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_nms_is_tensorflows(threshold):
    tf = pytest.importorskip("tensorflow")
    for seed in range(3):
        boxes = random_boxes(300, seed)
        scores = np.random.default_rng(seed).uniform(size=300).astype("float32")
        expected = tf.image.non_max_suppression(boxes, scores, 300, threshold).numpy()
        np.testing.assert_array_equal(BOXES.nms(boxes, scores, threshold), expected)
        assert BOXES.nms(boxes, scores, threshold).tolist() == plain_nms(boxes, scores, threshold)


def test_nms_of_none_of_equals_and_of_boxes_without_area():
    assert BOXES.nms(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []
    same, flat = np.array([[0, 0, 9, 9]] * 3), np.array([[5, 5, 5, 9], [5, 5, 5, 9]])
    assert BOXES.nms(same, np.array([1, 2, 2]), 0.5).tolist() == [1]  # of equal scores the first
    assert BOXES.nms(flat, np.array([1, 2]), 0.5).tolist() == [1, 0]  # they do not overlap


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_suppression_in_a_network_is_nms(threshold):
    boxes = np.stack([random_boxes(200, seed) for seed in range(3)])
    is_box = np.random.default_rng(0).uniform(size=(3, 200)) < 0.8
    found = numbers(BOXES.suppress(ops.convert_to_tensor(boxes), ops.convert_to_tensor(is_box), threshold))
    for of_image, chosen, kept in zip(boxes, is_box, found, strict=True):
        (places,) = np.nonzero(chosen)
        expected = places[BOXES.nms(of_image[chosen], -places, threshold)]  # the best first
        np.testing.assert_array_equal(np.flatnonzero(kept), expected)
        assert set(np.unique(kept)) == {0, 1}


def test_a_chain_of_overlaps_is_suppressed_one_after_the_other():
    """Each box overlaps the next only, so the first, the third, the fifth ... stay: the longest way to go."""
    boxes = np.array([[[4.0 * i, 0, 4.0 * i + 10, 10] for i in range(12)]], "float32")  # the next: IoU 6 / 14
    kept = BOXES.suppress(ops.convert_to_tensor(boxes), ops.ones((1, 12), "bool"), 0.4)
    np.testing.assert_array_equal(numbers(kept), [[1, 0] * 6])


def test_matching_of_anchors():
    truth = np.array([[0, 0, 10, 10], [100, 100, 104, 104]], "float32")
    anchors = np.array([
        [0, 0, 10, 10],  # an object: positive
        [0, 0, 10, 7.5],  # IoU 0.75
        [0, 0, 10, 5],  # 0.5: ignored
        [0, 0, 10, 2],  # 0.2: negative
        [100, 100, 120, 120],  # 0.04, but no anchor is better for the second object: positive
        [84, 84, 104, 104],  # nor is this one
        [50, 50, 60, 60],  # negative
    ], "float32")  # fmt: skip
    labels, objects = BOXES.match_anchors(anchors, truth)
    assert labels.tolist() == [1, 1, -1, 0, 1, 1, 0] and objects[[0, 1, 4, 5]].tolist() == [0, 0, 1, 1]
    none = np.zeros((0, 4), "float32")
    assert BOXES.match_anchors(anchors, none)[0].tolist() == [0] * 7  # a scene without objects
    assert BOXES.match_anchors(anchors, np.array([[500, 500, 510, 510]]))[0].tolist() == [0] * 7  # none touches it
    assert BOXES.match_anchors(none, truth)[0].shape == (0,)


def test_matching_of_regions():
    truth, classes = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], "float32"), np.array([4, 7])
    regions = np.array(
        [[0, 0, 10, 10], [20, 0, 30, 5], [20, 0, 30, 4], [0, 0, 10, 0.5], [50, 50, 60, 60]], "float32"
    )
    labels, objects = BOXES.match_regions(regions, truth, classes)
    assert labels.tolist() == [5, 8, 0, 0, 0] and objects[:2].tolist() == [0, 1]  # an IoU of 0.5 is enough
    assert BOXES.match_regions(regions, truth, classes, background=0.1)[0].tolist() == [5, 8, 0, -1, -1]
    none = np.zeros((0, 4), "float32")
    assert BOXES.match_regions(regions, none, np.zeros(0, int))[0].tolist() == [0] * 5
    assert BOXES.match_regions(regions, none, np.zeros(0, int), background=0.1)[0].tolist() == [-1] * 5
    assert BOXES.match_regions(none, truth, classes)[0].shape == (0,)


def test_one_object_that_fills_the_image():
    truth = np.array([[0, 0, 128, 128]], "float32")
    anchors = BOXES.grid_anchors(8, 8, 16, BOXES.base_anchors(16, (2, 3, 4)))
    labels, objects = BOXES.match_anchors(anchors, truth)
    assert (labels == 1).sum() >= 1 and not objects.any()

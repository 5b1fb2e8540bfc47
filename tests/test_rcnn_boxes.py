"""The boxes of the detectors: anchors, matching, encoding, suppression and the score of the VOC challenge."""

import numpy as np
import pytest
from folders import load

BOXES = load("rcnn/boxes.py")


def random_boxes(n, seed=0, size=100):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, size, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(1, size / 2, (n, 2))], 1).astype("float32")


def test_the_nine_anchors_of_py_faster_rcnn():
    """The list in generate_anchors.py has the first and the last pixel inside, counted from 1, as MATLAB does."""
    nine = [
        [-83, -39, 100, 56], [-175, -87, 192, 104], [-359, -183, 376, 200],
        [-55, -55, 72, 72], [-119, -119, 136, 136], [-247, -247, 264, 264],
        [-35, -79, 52, 96], [-79, -167, 96, 184], [-167, -343, 184, 360],
    ]
    np.testing.assert_array_equal(BOXES.base_anchors() + [1, 1, 0, 0], nine)
    sides = BOXES.base_anchors()[:, 2:] - BOXES.base_anchors()[:, :2]
    np.testing.assert_array_equal(sides[[0, 3, 8]], [[184, 96], [128, 128], [352, 704]])


def test_anchors_of_a_grid():
    grid = BOXES.grid_anchors(2, 3, 16, BOXES.base_anchors())
    assert grid.shape == (2 * 3 * 9, 4)
    by_place = grid.reshape(2, 3, 9, 4)
    np.testing.assert_array_equal(by_place[0, 0], BOXES.base_anchors())
    np.testing.assert_array_equal(by_place[1, 2], BOXES.base_anchors() + [32, 16, 32, 16])  # x first


def test_iou_by_hand():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 9]])
    expected = [[1, 50 / 150, 0, 0], [50 / 150, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(BOXES.iou(boxes, boxes), expected, atol=1e-6)
    assert BOXES.iou(boxes, np.zeros((0, 4))).shape == (4, 0) and BOXES.iou(np.zeros((0, 4)), boxes).shape == (0, 4)


def test_matching_of_anchors():
    truth = np.array([[0, 0, 10, 10], [100, 100, 104, 104]])
    anchors = np.array([
        [0, 0, 10, 10],  # an object: positive
        [0, 0, 10, 7.5],  # IoU 0.75
        [0, 0, 10, 5],  # 0.5: ignored
        [0, 0, 10, 2],  # 0.2: negative
        [100, 100, 120, 120],  # 0.04, but no anchor is better for the second object: positive
        [50, 50, 60, 60],  # negative
    ])  # fmt: skip
    labels, objects = BOXES.match_anchors(anchors, truth)
    assert labels.tolist() == [1, 1, -1, 0, 1, 0] and objects[[0, 1, 4]].tolist() == [0, 0, 1]
    labels, _ = BOXES.match_anchors(anchors, np.zeros((0, 4)))
    assert labels.tolist() == [0] * 6  # a scene without objects
    labels, _ = BOXES.match_anchors(anchors, np.array([[500, 500, 510, 510]]))
    assert labels.tolist() == [0] * 6  # no anchor touches it: no positive one


def test_matching_of_proposals():
    truth, classes = np.array([[0, 0, 10, 10], [20, 0, 30, 10]]), np.array([4, 7])
    proposals = np.array([[0, 0, 10, 10], [20, 0, 30, 6], [20, 0, 30, 4], [0, 0, 10, 0.5], [50, 50, 60, 60]])
    labels, objects = BOXES.match_proposals(proposals, truth, classes)
    assert labels.tolist() == [5, 8, 0, 0, 0] and objects[:2].tolist() == [0, 1]
    labels, _ = BOXES.match_proposals(proposals, truth, classes, background=0.1)
    assert labels.tolist() == [5, 8, 0, -1, -1]
    assert BOXES.match_proposals(proposals, np.zeros((0, 4)), np.zeros(0, int))[0].tolist() == [0] * 5


@pytest.mark.parametrize(
    "positives, negatives, expected",
    [(50, 500, (32, 96)), (5, 500, (5, 123)), (50, 20, (32, 20)), (0, 9, (0, 9)), (0, 0, (0, 0))],
)
def test_sampling(positives, negatives, expected):
    labels = np.concatenate([np.full(positives, 3), np.zeros(negatives), np.full(40, -1)])
    chosen = BOXES.sample(labels, 128, 0.25, np.random.default_rng(0))
    assert ((labels[chosen] > 0).sum(), (labels[chosen] == 0).sum()) == expected
    assert len(set(chosen)) == len(chosen) == sum(expected)


def test_encode_by_hand_and_decode_its_inverse():
    """Appendix C: shifts in units of the anchor's size, sizes as logarithms."""
    found = BOXES.encode([[10, 20, 30, 60]], [[20, 30, 30, 110]])  # center (20, 40) to (25, 70), 20x40 to 10x80
    np.testing.assert_allclose(found, [[5 / 20, 30 / 40, np.log(10 / 20), np.log(80 / 40)]], atol=1e-6)
    anchors, boxes = random_boxes(200, 1), random_boxes(200, 2)
    np.testing.assert_allclose(BOXES.decode(anchors, BOXES.encode(anchors, boxes)), boxes, atol=1e-3)
    assert BOXES.encode(np.zeros((0, 4)), np.zeros((0, 4))).shape == (0, 4) == BOXES.decode(np.zeros((0, 4)), []).shape


@pytest.mark.parametrize("box", [[5, 5, 5, 9], [5, 5, 9, 5], [9, 5, 5, 9]])
def test_a_box_without_area_cannot_be_encoded(box):
    good = [[0, 0, 10, 10]]
    for anchors, boxes in ((good, [box]), ([box], good)):
        with pytest.raises(ValueError, match="a box must have x1 < x2 and y1 < y2"):
            BOXES.encode(anchors, boxes)


def test_anchors_and_boxes_that_do_not_go_together():
    for anchors, boxes in ((random_boxes(2), random_boxes(3)), (np.zeros((0, 4)), random_boxes(1))):
        with pytest.raises(ValueError, match="each box must have an anchor, got . anchors and . boxes"):
            BOXES.encode(anchors, boxes)
    with pytest.raises(ValueError, match="x1 < x2"):
        BOXES.encode([[0, 0, 10, 10]], [[0, 0, np.nan, 10]])


def test_boxes_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"boxes must be \(N, 4\), got \(4,\)"):
        BOXES.iou(np.arange(4), random_boxes(2))


def test_clip_and_size():
    boxes = np.array([[-5, -5, 50, 300], [10, 10, 12, 40], [130, 10, 140, 20]])
    clipped = BOXES.clip(boxes, height=100, width=120)
    np.testing.assert_array_equal(clipped, [[0, 0, 50, 100], [10, 10, 12, 40], [120, 10, 120, 20]])
    assert BOXES.is_larger_than(clipped, 4).tolist() == [True, False, False]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("most", [None, 20])
def test_nms_is_tensorflows(threshold, most):
    tf = pytest.importorskip("tensorflow")
    for seed in range(5):
        boxes = random_boxes(300, seed)
        scores = np.random.default_rng(seed).uniform(size=300).astype("float32")
        expected = tf.image.non_max_suppression(boxes, scores, most or 300, threshold).numpy()
        np.testing.assert_array_equal(BOXES.nms(boxes, scores, threshold, most), expected)
    assert BOXES.nms(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []


def test_average_precision_by_hand():
    """Three objects; detections right, wrong, right, wrong, right."""
    recall, precision = [1 / 3, 1 / 3, 2 / 3, 2 / 3, 1], [1, 1 / 2, 2 / 3, 1 / 2, 3 / 5]
    assert BOXES.voc_average_precision(recall, precision) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    eleven = (4 * 1 + 3 * 2 / 3 + 4 * 3 / 5) / 11  # recalls 0 to 0.3, 0.4 to 0.6, 0.7 to 1
    assert BOXES.voc_average_precision(recall, precision, eleven_points=True) == pytest.approx(eleven)
    assert BOXES.voc_average_precision([], []) == BOXES.voc_average_precision([], [], eleven_points=True) == 0
    assert BOXES.voc_average_precision([0.5, 1], [1, 1], eleven_points=True) == 1


def test_evaluate_by_hand():
    one, two = np.array([[0, 0, 10, 10]]), np.array([[0, 0, 10, 10], [50, 50, 60, 60]])
    truths = [(two, np.array([0, 1])), (one, np.array([0])), (np.zeros((0, 4)), np.zeros(0, int))]
    none = (np.zeros((0, 4)), np.zeros(0, int), np.zeros(0))
    detections = [
        (np.array([[0, 0, 10, 10], [0, 0, 10, 9.5], [50, 50, 60, 60]]), np.array([0, 0, 0]), np.array([0.9, 0.8, 0.7])),
        none,
        (one, np.array([0]), np.array([0.95])),  # nothing is there
    ]
    # class 0, ranked: wrong 0.95, right 0.9, double 0.8, wrong class 0.7; of two objects one is found, at precision 1/2
    # class 1: its object is not found; class 2: no object
    np.testing.assert_allclose(BOXES.average_precisions(detections, truths, 3), [0.25, 0, np.nan])
    perfect = [(boxes, classes, np.ones(len(boxes))) for boxes, classes in truths]
    np.testing.assert_allclose(BOXES.average_precisions(perfect, truths, 3), [1, 1, np.nan])
    half = [(two[:1], np.array([0]), np.ones(1)), (np.array([[0, 0, 10, 5.0]]), np.array([0]), np.ones(1)), none]
    assert BOXES.average_precisions(half, truths, 1)[0] == 0.5  # an IoU of 0.5 is not above it


def test_one_object_that_fills_the_image():
    truth = np.array([[0, 0, 128, 128]])
    anchors = BOXES.grid_anchors(8, 8, 16, BOXES.base_anchors(16, (2, 3, 4)))
    labels, objects = BOXES.match_anchors(anchors, truth)
    assert (labels == 1).sum() >= 1 and not objects.any()

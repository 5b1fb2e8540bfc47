"""What is right among detections, and average precision, by hand."""

import numpy as np
import pytest
from folders import load

MODULE = load("rcnn/evaluate.py")
NONE = np.zeros((0, 4), "float32"), np.zeros(0, int)


def record(*detections):
    """A record of detect.detect: detections are (box, class), the best first."""
    boxes, classes = zip(*detections, strict=True) if detections else ((), ())
    scores = np.linspace(0.9, 0.1, len(boxes))
    return {
        "boxes": np.array(boxes, "float32").reshape(-1, 4), "classes": np.array(classes, int), "scores": scores,
        "regions": np.zeros((0, 4), "float32"),
    }  # fmt: skip


def test_verdicts():
    """Two objects of class 0, one of class 1."""
    truth = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 40, 60, 60]], "float32")
    found = record(
        ([0, 0, 10, 9], 0),  # right
        ([0, 0, 10, 10], 0),  # better, but later: twice
        ([20, 0, 30, 10], 1),  # an object of the other class
        ([20, 0, 30, 4], 0),  # an IoU of 0.4 with one of its class: box off
        ([20, 0, 30, 8], 0),  # right, for none before it has found that object
        ([40, 40, 60, 50], 1),  # an IoU of exactly a half is not above it: box off
        ([44, 44, 64, 64], 1),  # 0.47: box off
        ([41, 41, 61, 61], 1),  # right
        ([80, 80, 90, 90], 0),  # background
        ([28, 0, 38, 10], 0),  # an IoU of 0.11: box off
        ([29, 0, 39, 10], 0),  # one of 0.05: background
        ([40, 40, 60, 60], 2),  # a class of which there is no object here
    )
    expected = ["right", "twice", "class wrong", "box off", "right", "box off", "box off", "right", "background"]
    expected += ["box off", "background", "class wrong"]
    assert MODULE.judge(found, truth, np.array([0, 0, 1])).tolist() == expected
    assert set(expected) == set(MODULE.VERDICTS)


def test_verdicts_where_there_is_nothing():
    found = record(([0, 0, 10, 10], 0), ([5, 5, 9, 9], 1))
    assert MODULE.judge(found, *NONE).tolist() == ["background", "background"]
    assert MODULE.judge(record(), np.array([[0, 0, 10, 10]], "float32"), np.array([0])).shape == (0,)


def test_average_precision_by_hand():
    """Right, wrong, right, wrong, right: precisions of 1, 2/3 and 3/5; the highest from each recall on."""
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    for hits, n, expected in (
        ([1, 0, 1, 0, 1], 3, (1 + 2 / 3 + 3 / 5) / 3), ([1, 0, 1, 0, 1], 6, (1 + 2 / 3 + 3 / 5) / 6),  # three missed
        ([0, 1, 1, 0, 0], 2, 2 / 3), ([1, 1, 0, 0, 0], 2, 1), ([0, 0, 0, 0, 0], 2, 0),
    ):  # fmt: skip
        assert MODULE.average_precision(np.array(hits), scores, n) == pytest.approx(expected)
        assert MODULE.average_precision(np.array(hits)[::-1], scores[::-1], n) == pytest.approx(expected)
    assert MODULE.average_precision(np.zeros(0), np.zeros(0), 3) == 0
    assert MODULE.average_precision(np.zeros(0), np.zeros(0), 0) == 0


def test_average_precisions_rank_all_scenes_together():
    one, two = np.array([[0, 0, 10, 10]], "float32"), np.array([[0, 0, 10, 10], [50, 50, 60, 60]], "float32")
    truths = [(two, np.array([0, 1])), (one, np.array([0])), NONE]
    found = [
        record(([0, 0, 10, 10], 0), ([0, 0, 10, 9.5], 0), ([50, 50, 60, 60], 0)),
        record(),
        record(([0, 0, 10, 10], 0)) | {"scores": np.array([0.95])},  # nothing is there
    ]
    # class 0, ranked: wrong 0.95, right 0.9, twice, class wrong; of two objects one is found, at precision 1/2
    # class 1: its object is not found; class 2: no object
    np.testing.assert_allclose(MODULE.average_precisions(found, truths, 3), [0.25, 0, np.nan])
    perfect = [record(*zip(boxes, classes, strict=True)) for boxes, classes in truths]
    np.testing.assert_allclose(MODULE.average_precisions(perfect, truths, 3), [1, 1, np.nan])


def test_recall_by_hand():
    """Of five objects, in three scenes, three are overlapped by half or more; of an IoU of 0.6 or more, one."""
    truths = [
        (np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]], "float32"), np.array([0, 0, 1])),
        NONE,
        (np.array([[0, 0, 10, 10], [20, 20, 30, 30]], "float32"), np.array([2, 2])),
    ]
    proposals = [
        np.array([[0, 0, 10, 10], [20, 20, 30, 25], [20, 20, 30, 24], [40, 40, 50, 44.9]], "float32"),
        np.array([[0, 0, 10, 10]], "float32"),
        np.array([[20, 20, 30, 25.5]], "float32"),
    ]
    assert MODULE.recall(proposals, truths) == pytest.approx(3 / 5)
    assert MODULE.recall(proposals, truths, 0.6) == pytest.approx(1 / 5)
    assert MODULE.recall([NONE[0]] * 3, truths) == 0
    assert np.isnan(MODULE.recall([proposals[1]], [NONE])) and np.isnan(MODULE.recall([], []))


def test_what_results_json_says():
    truth = np.array([[0, 0, 10, 10]], "float32"), np.array([1])
    regions = {"regions": np.array([[0, 0, 10, 10], [5, 5, 9, 9]], "float32")}
    found = {"validation": [record()], "test": [record(([0, 0, 10, 10], 1)) | regions, record()]}
    scenes = {"validation": (None, [truth]), "test": (None, [truth, NONE])}
    assert MODULE.detection_scores(found, scenes, ("cat", "dog")) == {
        "validation_map_50": 0, "map_50": 1, "average_precision": {"cat": None, "dog": 1}, "proposal_recall": 1,
        "proposals_per_image": 1, "test_scenes": 2,
    }  # fmt: skip

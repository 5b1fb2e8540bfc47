"""What is made of a detector's outputs, that its parts are the whole, and what a report says of the detections."""

import argparse

import keras
import numpy as np
import pytest
from folders import load, random_weights

pytestmark = pytest.mark.slow

MODULE, REPORT, TRAINING = load("rcnn/detect.py"), load("rcnn/evaluate.py"), load("rcnn/training.py")
SHAPE, SIZE = (32, 40, 3), 16
MEAN, VARIANCE = (120, 110, 100), (60**2, 70**2, 50**2)
GROUPS = ({"n_layers": 1, "n_filters": 4}, {"n_layers": 1, "n_filters": 6})
METAPARAMETERS = {"groups": GROUPS, "batch_normalization": True, "n_units": (8,)}
BOX_DEVIATIONS = [0.1, 0.1, 0.2, 0.2]  # of the released code


def outputs_of(regions, scores):
    """Regions, scores and deltas that leave every region where it is, for all classes."""
    regions, scores = np.array(regions, "float32").reshape(-1, 4), np.array(scores, "float32")
    return regions, scores, np.zeros((*scores.shape, 4), "float32")


def test_overlaps_are_suppressed_within_a_class():
    """IoUs with the first: 1, 0.31 and 0.29."""
    regions = [[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 3.1], [0, 0, 10, 2.9], [20, 20, 30, 30]]
    scores = [[0.9, 0.1], [0.8, 0.7], [0.7, 0.1], [0.6, 0.1], [0.5, 0.1]]
    placed, classes, confidence = MODULE.best_boxes(*outputs_of(regions, scores), (40, 40), 0.2)
    np.testing.assert_allclose(confidence, [0.9, 0.7, 0.6, 0.5])
    assert classes.tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(placed, [regions[0], regions[0], regions[3], regions[4]], atol=1e-5)


def test_the_score_must_be_above_the_least():
    regions = [[0, 0, 10, 10], [20, 20, 30, 30], [0, 20, 10, 30]]
    scores = [[0.25, 0.5], [0.125, 0], [0.75, 0.25]]
    _, classes, confidence = MODULE.best_boxes(*outputs_of(regions, scores), (40, 40), 0.25)
    assert classes.tolist() == [0, 1] and confidence.tolist() == [0.75, 0.5]
    _, classes, confidence = MODULE.best_boxes(*outputs_of(regions, [[-1], [-0.5], [2]]), (40, 40), -1.0)  # margins
    assert confidence.tolist() == [2, -0.5]


def test_each_class_has_its_own_box_and_none_leaves_the_image():
    """Appendix C of the R-CNN paper, by hand: centers shifted by shares of the size, sizes by exponentials."""
    regions, scores, deltas = outputs_of([[10, 10, 20, 30]], [[0.9, 0.8, 0.7]])
    deltas[0] = [0.5, -0.25, np.log(0.5), 0], [0, 0, 0, np.log(0.5)], [0, 0, np.log(4), np.log(10)]
    placed, classes, _ = MODULE.best_boxes(regions, scores, deltas, (50, 30), 0.05)
    assert classes.tolist() == [0, 1, 2]
    np.testing.assert_allclose(placed, [[17.5, 5, 22.5, 25], [10, 15, 20, 25], [0, 0, 30, 50]], atol=1e-4)


def test_boxes_are_suppressed_where_they_end_up():
    """Two regions far apart, that both say where the one object is."""
    regions, scores, deltas = outputs_of([[0, 0, 10, 10], [20, 0, 30, 10]], [[0.8], [0.9]])
    deltas[0, 0, 0] = 2
    placed, _, confidence = MODULE.best_boxes(regions, scores, deltas, (40, 40), 0.05)
    np.testing.assert_allclose(placed, [[20, 0, 30, 10]], atol=1e-5)
    assert confidence.tolist() == [np.float32(0.9)]


@pytest.mark.parametrize("regions, scores", [([[0, 0, 10, 10]], [[0.01, 0.02]]), ([], np.zeros((0, 2)))])
def test_nothing_is_found(regions, scores):
    placed, classes, confidence = MODULE.best_boxes(*outputs_of(regions, scores), (40, 40), 0.05)
    assert placed.shape == (0, 4) and classes.shape == confidence.shape == (0,)
    assert classes.dtype.kind == "i"


def random_scenes(n=3):
    return np.random.default_rng(0).integers(0, 256, (n, *SHAPE), dtype="uint8")


def random_proposals(n, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 20, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(4, 12, (n, 2))], 1).astype("float32")


@pytest.fixture(scope="module")
def fast():
    """A model of train_fast_rcnn, untrained, for 6 regions and 3 classes."""
    network = TRAINING.fast_rcnn.build(METAPARAMETERS | {"pooled_size": 2}, SHAPE, 4, 6)
    random_weights(network)
    network.name = "fast_rcnn"
    inputs = {
        "images": keras.Input(SHAPE, name="images"), "regions": keras.Input((6, 4), name="regions")
    }  # fmt: skip
    images = TRAINING.pre_stem(inputs["images"], MEAN, VARIANCE)
    return keras.Model(inputs, network(inputs | {"images": images}))


@pytest.fixture(scope="module")
def faster():
    """A model of train_faster_rcnn, untrained, for up to 20 regions and 3 classes."""
    anchors, proposals = {"base_size": 8, "scales": (1, 2), "ratios": (1,)}, {"n_proposals": 20, "min_size": 6}
    own = {"pooled_size": 2, "n_filters": 5, "anchors": anchors, "proposals": proposals | {"threshold": 0.2}}
    network = TRAINING.faster_rcnn.build(METAPARAMETERS | own, SHAPE, 4)
    random_weights(network)
    network.name = "faster_rcnn"
    images = keras.Input(SHAPE, name="images")
    return keras.Model(images, network(TRAINING.pre_stem(images, MEAN, VARIANCE)))


@pytest.fixture(scope="module")
def slow():
    """A model of train_rcnn, untrained, for warped regions of 16x16 pixels and 3 classes."""
    network = TRAINING.rcnn.with_linear_models(TRAINING.rcnn.build(METAPARAMETERS, (SIZE, SIZE, 3), 4), 3)
    random_weights(network)
    network.name = "rcnn"
    images = keras.Input((SIZE, SIZE, 3), name="images")
    return keras.Model(images, network(TRAINING.pre_stem(images, MEAN, VARIANCE)))


def outputs(model, inputs):
    """The outputs of the whole model, as numpy arrays."""
    return {name: keras.ops.convert_to_numpy(x) for name, x in model(inputs, training=False).items()}


def check_detections(found, seconds, expected):
    """Detections must be those of the whole model, and there must be some; each part has a time for each scene."""
    assert len(found) == len(expected) and all(len(scores) for _, _, scores in expected[:2])
    for mine, theirs in zip(found, expected, strict=True):
        for values, others in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(values, others, rtol=1e-3, atol=1e-3)
    assert set(seconds) == {"proposals", "features", "heads"}
    assert all(of_part.shape == (len(found),) and (of_part >= 0).all() for of_part in seconds.values())


def test_the_parts_of_fast_rcnn_are_the_whole(fast):
    """Of more proposals than the model takes the first count; there may be fewer, and none."""
    scenes, proposals = random_scenes(), [random_proposals(9, 1), random_proposals(4, 2), np.zeros((0, 4), "float32")]
    padded = np.zeros((3, 6, 4), "float32")
    padded[0], padded[1, :4] = proposals[0][:6], proposals[1]
    whole = outputs(fast, {"images": scenes, "regions": padded})
    parts = MODULE.cut(fast)
    feature_maps = parts["features"].predict_on_batch(scenes)
    assert set(parts) == {"features", "heads"} and feature_maps.shape == (3, 16, 20, 6)
    heads = parts["heads"].predict_on_batch([feature_maps, padded])
    for values, name in zip(heads, ("classes", "deltas"), strict=True):
        np.testing.assert_allclose(values, whole[name], rtol=1e-4, atol=1e-5)

    found, regions, seconds = MODULE.detect(fast, scenes, proposals)
    expected = []
    for number, n in enumerate((6, 4, 0)):
        np.testing.assert_array_equal(regions[number], proposals[number][:n])
        scores, deltas = whole["classes"][number, :n, 1:], whole["deltas"][number, :n, 1:] * BOX_DEVIATIONS
        expected.append(MODULE.best_boxes(regions[number], scores, deltas, SHAPE[:2], 0.05))
    check_detections(found, seconds, expected)
    assert [len(values) for values in found[2]] == [0, 0, 0]


def test_the_parts_of_faster_rcnn_are_the_whole(faster):
    """Here not all of the 20 proposals have an area."""
    scenes = random_scenes()
    whole = outputs(faster, scenes)
    parts = MODULE.cut(faster)
    feature_maps = parts["features"].predict_on_batch(scenes)
    proposed = parts["proposals"].predict_on_batch(feature_maps)
    np.testing.assert_allclose(proposed, whole["regions"], rtol=1e-3, atol=1e-3)
    heads = parts["heads"].predict_on_batch([feature_maps, proposed])
    for values, name in zip(heads, ("classes", "deltas"), strict=True):
        np.testing.assert_allclose(values, whole[name], rtol=1e-3, atol=1e-4)

    found, regions, seconds = MODULE.detect(faster, scenes)
    expected, n_boxes = [], []
    for number in range(3):
        is_box = (whole["regions"][number, :, 2:] > whole["regions"][number, :, :2]).all(1)
        n_boxes.append(is_box.sum())
        np.testing.assert_allclose(regions[number], whole["regions"][number, is_box], rtol=1e-3, atol=1e-3)
        scores, deltas = whole["classes"][number, is_box, 1:], whole["deltas"][number, is_box, 1:] * BOX_DEVIATIONS
        expected.append(MODULE.best_boxes(regions[number], scores, deltas, SHAPE[:2], 0.05))
    assert 0 < min(n_boxes) < 20
    check_detections(found, seconds, expected)


def test_the_parts_of_rcnn_are_the_whole(slow):
    """Scenes may have any size. Its deltas are those of the regressors, which learn them undivided."""
    scenes, proposals = random_scenes(2), [random_proposals(n, n) for n in (5, 3)]
    found, regions, seconds = MODULE.detect(slow, scenes, proposals)
    expected = []
    for scene, given, mine in zip(scenes, proposals, regions, strict=True):
        np.testing.assert_array_equal(mine, given)
        whole = outputs(slow, TRAINING.rcnn.warp(scene, given, SIZE, 3))
        expected.append(MODULE.best_boxes(given, whole["scores"], whole["deltas"], SHAPE[:2], -1))
    check_detections(found, seconds, expected)


def test_rcnn_without_proposals(slow):
    """Batch normalization of TensorFlow on a processor knows no batch of 0."""
    found, regions, _ = MODULE.detect(slow, random_scenes(1), [np.zeros((0, 4), "float32")])
    assert [values.shape for values in found[0]] == [(0, 4), (0,), (0,)] and regions[0].shape == (0, 4)


def test_scenes_of_another_size_are_refused(fast, faster, slow):
    for model in (fast, faster):
        for shape in ((2, 40, 32, 3), SHAPE, (2, 32, 40, 1)):
            with pytest.raises(ValueError, match=r"scenes must be \(N, 32, 40, 3\), got ") as caught:
                MODULE.detect(model, np.zeros(shape, "uint8"), [np.zeros((0, 4))] * len(shape))
            assert str(shape) in str(caught.value)
    with pytest.raises(ValueError, match=r"scenes must be .*, got \(32, 40, 3\)"):
        MODULE.detect(slow, np.zeros(SHAPE, "uint8"))


def test_recall_by_hand():
    """Of five objects, in three scenes, three are overlapped by half or more; of an IoU of 0.6 or more, one."""
    none = np.zeros((0, 4))
    truths = [
        (np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]]), np.array([0, 0, 1])),
        (none, np.zeros(0, int)),
        (np.array([[0, 0, 10, 10], [20, 20, 30, 30]]), np.array([2, 2])),
    ]
    proposals = [
        np.array([[0, 0, 10, 10], [20, 20, 30, 25], [20, 20, 30, 24], [40, 40, 50, 44.9]]),
        np.array([[0, 0, 10, 10]]),
        np.array([[20, 20, 30, 25.5]]),
    ]
    assert REPORT.recall(proposals, truths) == pytest.approx(3 / 5)
    assert REPORT.recall(proposals, truths, 0.6) == pytest.approx(1 / 5)
    assert REPORT.recall([none] * 3, truths) == 0
    assert np.isnan(REPORT.recall([proposals[1]], [truths[1]])) and np.isnan(REPORT.recall([], []))


def test_an_epoch_run_twice_counts_once(tmp_path):
    """Before a kill and after it; an epoch of the same number in another step is another one."""
    rows = ["step,epoch,loss,val_loss,seconds", "1 one,0,3,4,1", "1 one,1,9,9,1", "1 one,1,2,3,1.5", "2 two,0,7,8,1"]
    (tmp_path / "history.csv").write_text("\n".join(rows) + "\n")
    history = TRAINING.read_history(argparse.Namespace(output=tmp_path))
    expected = {
        "step": ["1 one", "1 one", "2 two"], "epoch": [0, 1, 0], "loss": [3, 2, 7], "val_loss": [4, 3, 8],
        "seconds": [1, 1.5, 1],
    }  # fmt: skip
    assert history == expected
    TRAINING.run.write_whole(tmp_path / "history.csv", lambda path: load("rcnn/report.py").write_rows(path, history))
    assert TRAINING.read_history(argparse.Namespace(output=tmp_path)) == expected
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 4
    assert TRAINING.read_history(argparse.Namespace(output=tmp_path / "nowhere")) == {}


def test_pictures_of_detections(tmp_path):
    """A probability below a half is not drawn, and so leaves the picture of no detection at all."""
    scenes, truths = random_scenes(1), [(np.array([[2, 3, 20, 30]]), np.array([1]))]
    box, pictures = np.array([[5, 5, 25, 25]]), []
    none = np.zeros((0, 4)), np.zeros(0, int), np.zeros(0)
    for detections in (none, (box, np.array([0]), np.array([0.4])), (box, np.array([0]), np.array([0.6]))):
        figure = REPORT.detections(scenes, truths, [detections], ("cat", "dog"), "probability", 0.5)
        figure.savefig(tmp_path / "detections.png")
        pictures.append((tmp_path / "detections.png").read_bytes())
    assert pictures[0].startswith(b"\x89PNG") and pictures[0] == pictures[1] != pictures[2]

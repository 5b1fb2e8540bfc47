"""The pictures of a run: what is drawn, what is counted, and that no text covers another."""

import keras
import numpy as np
import pytest
from folders import load
from matplotlib.backends.backend_agg import FigureCanvasAgg

TRAIN = load("rcnn/train.py")
MODULE = TRAIN.drawings
CLASSES = ("cat", "dog", "ship")


def scene(height=128, width=128):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype="uint8")


def record(boxes, classes, scores):
    boxes = np.array(boxes, "float32").reshape(-1, 4)
    return {"boxes": boxes, "classes": np.array(classes, int), "scores": np.array(scores), "regions": boxes}


TRUTH = np.array([[2, 3, 50, 60], [60, 60, 90, 90]], "float32"), np.array([0, 1])
FOUND = record([[2, 3, 50, 60], [3, 3, 50, 60], [60, 60, 90, 90], [70, 5, 90, 20]], [0, 0, 2, 1], [0.9, 0.8, 0.7, 0.4])


def extents(axes):
    """The rectangles of the texts of a panel, once all is drawn."""
    FigureCanvasAgg(axes.figure).draw()
    return [text.get_window_extent() for text in axes.texts if text.get_text()]


def test_what_has_too_low_a_score_is_not_drawn():
    """Half a probability, or a margin of 0, which the picture says."""
    for name, least, drawn in (("faster_rcnn", "probability of at least 0.5", 3), ("rcnn", "margin of at least 0", 4)):
        figure = MODULE.detections_of(scene(), FOUND, CLASSES, name)
        (axes,) = figure.axes
        assert axes.get_title() == least and len(axes.lines) == len(axes.texts) == drawn
        assert [text.get_text() for text in axes.texts][:3] == ["cat 0.90", "cat 0.80", "ship 0.70"]
        np.testing.assert_allclose(axes.lines[0].get_xydata()[[0, 2]], [[1.5, 2.5], [49.5, 59.5]])
    empty = MODULE.detections_of(scene(40, 300), record([], [], []), CLASSES, "faster_rcnn")
    assert not empty.axes[0].lines


@pytest.mark.slow
def test_no_text_covers_another():
    """Six boxes in one corner, and scenes with their objects beside what was found."""
    crowd = record([[100, i, 127, 60 + i] for i in range(6)], [0, 1, 2, 0, 1, 2], np.linspace(1, 0.6, 6))
    figure = MODULE.detections([scene()] * 6, [TRUTH] * 6, [crowd] * 6, CLASSES, "fast_rcnn")
    assert len(figure.axes) == 12 and figure.get_figwidth() >= 8.4
    assert [len(axes.texts) for axes in figure.axes] == [2, 6] * 6
    for axes in figure.axes:
        boxes = extents(axes)
        assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    figure = MODULE.detections([scene()], [TRUTH], [crowd], CLASSES, "rcnn")
    assert "from its support vector machine" in figure.get_suptitle()


def test_precision_over_recall():
    """Of class 0 one object, found first and once more; of class 1 one, not found."""
    figure = MODULE.precision_recall([FOUND], [TRUTH], CLASSES)
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert lines["cat 1.00"] == [[1, 1], [1, 0.5]] and lines["dog 0.00"] == [[0, 0]]


def test_what_is_missed_and_why():
    """Of those drawn, with half a probability: a cat right, once more, and a ship where a dog is; no dog is found."""
    (axes,) = MODULE.mistakes([FOUND], [TRUTH], CLASSES, "faster_rcnn").axes
    bars = {bar.get_label(): [patch.get_width() for patch in bar] for bar in axes.containers}
    assert bars == {
        "right": [1, 0, 0], "twice": [1, 0, 0], "class wrong": [0, 0, 1], "box off": [0, 0, 0],
        "background": [0, 0, 0], "not found": [0, 1, 0],
    }  # fmt: skip
    colors = {tuple(bar[0].get_facecolor()) for bar in axes.containers}
    assert len(colors) == 6


def test_losses_have_a_panel_for_each_step():
    history = {"step": ["one", "one", "2 two"], "epoch": [0, 1, 0], "loss": [3, 2, 7], "val_loss": [4, 3, 8]}
    panels = [axes for axes in MODULE.loss_curves(history).axes if axes.lines]
    assert [axes.get_title() for axes in panels] == ["one", "2 two"]
    assert panels[0].lines[1].get_xydata().tolist() == [[1, 4], [2, 3]]


@pytest.mark.usefixtures("eagerly")
def test_one_scene_on_its_way(tmp_path):
    """Anchors of the brightest cell, the map, proposals before and after, bins, detections: of a small network."""
    groups = tuple({"n_layers": 1, "n_filters": n} for n in (4, 4, 6))
    metaparameters = TRAIN.faster_rcnn.METAPARAMETERS["faster_rcnn_vgg8"] | {"groups": groups, "n_units": (8,)}
    keras.utils.set_random_seed(0)
    network = TRAIN.faster_rcnn.build(metaparameters, (64, 64, 3), 4)
    network.name = "faster_rcnn"
    model = TRAIN.behind_pre_stem(network, [120.0] * 3, [3600.0] * 3)
    image = scene(64, 64)
    found = TRAIN.detect.detect(model, image)
    figure = MODULE.one_scene(model, image, found, CLASSES)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title()[:2] for axes in panels] == ["1.", "2.", "3.", "4.", "5.", "6."]
    assert [len(axes.lines) for axes in panels[:5]] == [3, 0, 50, 10, 2 * 5]  # of 4x4 bins, 5 lines each way
    centers = {tuple(line.get_xydata()[:4].mean(0)) for line in panels[0].lines}
    assert len(centers) == 1  # of one cell
    figures = MODULE.of_run(
        model, {"step": ["a"], "epoch": [0], "loss": [1], "val_loss": [1]}, ([image], [TRUTH]), [found], CLASSES
    )
    assert list(figures) == ["curves.png", "one_scene.png", "detections.png", "precision_recall.png", "mistakes.png"]
    for name, picture in figures.items():
        picture.savefig(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5_000


def test_fewer_scenes_than_places_and_none_found(tmp_path):
    nothing = record([], [], [])
    for name in ("rcnn", "fast_rcnn"):
        figures = (
            MODULE.detections([scene()], [TRUTH], [nothing], CLASSES, name),
            MODULE.precision_recall([nothing], [TRUTH], CLASSES), MODULE.mistakes([nothing], [TRUTH], CLASSES, name),
        )  # fmt: skip
        for figure in figures:
            figure.savefig(tmp_path / "picture.png")


@pytest.mark.parametrize("box", [[0, 0, 128, 128], [120, 120, 128, 128], [0, 100, 8, 128]])
def test_texts_stay_in_the_picture(box):
    axes = MODULE.detections_of(scene(), record([box], [2], [0.9]), CLASSES, "fast_rcnn").axes[0]
    (text,), outer = extents(axes), axes.get_window_extent()
    assert text.x0 >= outer.x0 - 3 and text.x1 <= outer.x1 + 3 and text.y0 >= outer.y0 - 3 and text.y1 <= outer.y1 + 3

"""From a detector's outputs to detections; of pictures of any size; in another process; the command line."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from folders import ROOT, load, predict, random_weights
from PIL import Image

pytestmark = pytest.mark.usefixtures("eagerly")

TRAIN = load("rcnn/train.py")
MODULE, BOXES = TRAIN.detect, TRAIN.detect.boxes
SHAPE, SIZE, CLASSES = (32, 40, 3), 16, ["cat", "dog", "cow"]
MEAN, VARIANCE = [120.0, 110.0, 100.0], [60.0**2, 70.0**2, 50.0**2]
GROUPS = ({"n_layers": 1, "n_filters": 4}, {"n_layers": 1, "n_filters": 6})
METAPARAMETERS = {"groups": GROUPS, "batch_normalization": True, "n_units": (8,)}
DEVIATIONS = np.array([0.1, 0.1, 0.2, 0.2])  # of the released code
NAMES = ("rcnn", "fast_rcnn", "faster_rcnn")


def drawn(network):
    """Random weights in each of its parts, and in what stands outside of them."""
    for part in network.layers:
        random_weights(part if hasattr(part, "layers") else keras.Sequential([part]))
    return network


@pytest.fixture(scope="module")
def models():
    """What train.py would save of each detector, untrained, of 3 classes; Fast R-CNN takes 6 regions."""
    keras.utils.set_random_seed(0)
    own = METAPARAMETERS | {"pooled_size": 2}
    anchors, proposals = {"base_size": 8, "scales": (1, 2), "ratios": (1,)}, {"n_proposals": 20, "min_size": 6}
    own_too = own | {"n_filters": 5, "anchors": anchors, "proposals": proposals | {"threshold": 0.2}}
    rcnn = TRAIN.rcnn.build(METAPARAMETERS, (SIZE, SIZE, 3), 4)
    networks = (
        drawn(TRAIN.rcnn.with_linear_models(drawn(rcnn), 3)), drawn(TRAIN.fast_rcnn.build(own, SHAPE, 4, 6)),
        drawn(TRAIN.faster_rcnn.build(own_too, SHAPE, 4)),
    )  # fmt: skip
    made = {}
    for name, network in zip(NAMES, networks, strict=True):
        network.name = name
        made[name] = TRAIN.behind_pre_stem(network, MEAN, VARIANCE)
    return made


def scene(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype="uint8")


def regions_of(n, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 20, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(4, 12, (n, 2))], 1).astype("float32")


def best_boxes(placed, scores, image_size=(40, 40), name="fast_rcnn"):
    """Of (P, K, 4) and (P, K), or boxes (P, 4) that are the same for all classes: boxes, classes and scores."""
    scores, placed = np.array(scores, "float32"), np.array(placed, "float32")
    placed = placed if placed.ndim == 3 else np.repeat(placed.reshape(-1, 1, 4), scores.shape[1], 1)
    found = MODULE.best_boxes(regions_of(len(scores)), placed, scores, image_size, name)
    return found["boxes"], found["classes"], found["scores"]


def test_overlaps_are_suppressed_within_a_class():
    """IoUs with the first: 1, 0.31 and 0.29; the threshold is 0.3."""
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 3.1], [0, 0, 10, 2.9], [20, 20, 30, 30]]
    placed, classes, scores = best_boxes(boxes, [[0.9, 0.01], [0.8, 0.7], [0.7, 0.01], [0.6, 0.01], [0.5, 0.01]])
    np.testing.assert_allclose(scores, [0.9, 0.7, 0.6, 0.5])
    assert classes.tolist() == [0, 1, 0, 0]
    np.testing.assert_allclose(placed, np.array(boxes)[[0, 0, 3, 4]], atol=1e-5)


def test_a_probability_must_be_above_the_least_and_a_margin_may_be_any():
    """0.05 in the released codes; R-CNN's support vector machines are not cut at a margin of -1."""
    boxes = [[0, 0, 10, 10], [20, 20, 30, 30], [0, 20, 10, 30]]
    for name in ("fast_rcnn", "faster_rcnn"):
        _, classes, scores = best_boxes(boxes, [[0.05, 0.5], [0.06, 0], [0.75, 0.04]], name=name)
        assert classes.tolist() == [0, 1, 0] and scores.tolist() == [0.75, 0.5, np.float32(0.06)]
    _, _, scores = best_boxes(boxes, [[-1], [-7.5], [2]], name="rcnn")
    assert scores.tolist() == [2, -1, -7.5]


@pytest.mark.parametrize("name, n", [("rcnn", 2 * 100), ("fast_rcnn", 100), ("faster_rcnn", 100)])
def test_a_hundred_are_kept_of_an_image_or_of_each_class(name, n):
    """None of 15x10 boxes overlaps another; 60 of them are better for class 1 than all for class 0."""
    y, x = np.indices((10, 15)).reshape(2, -1)
    ranks = np.linspace(0.1, 0.5, 150)
    _, classes, scores = best_boxes(
        np.stack([x, y, x + 1, y + 1], 1), np.stack([ranks, np.where(ranks > 0.34, ranks + 0.4, 0.06)], 1), name=name
    )
    assert len(classes) == n and (np.diff(scores) <= 0).all()
    if name == "rcnn":
        assert (np.bincount(classes) == 100).all()
    else:
        assert (classes == 1).sum() == (ranks > 0.34).sum() and classes.tolist() == sorted(classes, reverse=True)


def test_no_box_leaves_the_image_and_each_class_has_its_own():
    placed = [[[17.5, 5, 22.5, 25], [10, 15, 20, 25], [-5, -75, 35, 125]]]
    boxes, classes, _ = best_boxes(placed, [[0.9, 0.8, 0.7]], (50, 30))
    assert classes.tolist() == [0, 1, 2]
    np.testing.assert_allclose(boxes, [[17.5, 5, 22.5, 25], [10, 15, 20, 25], [0, 0, 30, 50]])


@pytest.mark.parametrize("boxes, scores", [([[0, 0, 10, 10]], [[0.01, 0.02]]), ([], np.zeros((0, 2)))])
def test_nothing_is_found(boxes, scores):
    placed, classes, values = best_boxes(boxes, scores)
    assert placed.shape == (0, 4) and classes.shape == values.shape == (0,) and classes.dtype.kind == "i"


def decoded(regions, deltas):
    """Appendix C of the R-CNN paper: regions (P, 4) and deltas (P, K, 4) to boxes (P, K, 4)."""
    size, center = regions[:, None, 2:] - regions[:, None, :2], (regions[:, None, 2:] + regions[:, None, :2]) / 2
    center, size = center + deltas[..., :2] * size, size * np.exp(np.minimum(deltas[..., 2:], np.log(62.5)))
    return np.concatenate([center - size / 2, center + size / 2], -1)


def check(found, regions, placed, scores, name, image_size=SHAPE[:2]):
    expected = MODULE.best_boxes(regions, placed.astype("float32"), scores, image_size, name)
    assert set(found) == {"boxes", "classes", "scores", "regions"}
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("n", [6, 4, 0])
def test_fast_rcnn_of_as_many_regions_or_fewer(models, n):
    regions = regions_of(n)
    padded = np.pad(regions, ((0, 6 - n), (0, 0)))[None]
    whole = predict(models["fast_rcnn"], {"images": scene()[None], "regions": padded})
    scores, deltas = whole["classes"][0, :n, 1:], whole["deltas"][0, :n, 1:] * DEVIATIONS
    found = MODULE.detect(models["fast_rcnn"], scene(), regions)
    check(found, regions, decoded(regions, deltas), scores, "fast_rcnn")
    assert len(found["boxes"]) > 0 or n == 0


def test_faster_rcnn_without_the_proposals_that_fill_up(models):
    whole = {key: value[0] for key, value in predict(models["faster_rcnn"], scene()[None]).items()}
    is_box = (whole["regions"][:, 2:] > whole["regions"][:, :2]).all(1)
    assert 0 < is_box.sum() < 20
    regions, scores = whole["regions"][is_box], whole["classes"][is_box, 1:]
    placed = decoded(regions, whole["deltas"][is_box, 1:] * DEVIATIONS)
    check(MODULE.detect(models["faster_rcnn"], scene()), regions, placed, scores, "faster_rcnn")


@pytest.mark.parametrize("n", [5, 0])
def test_rcnn_of_a_scene_of_any_size(models, n):
    """Its deltas are those of the regressors, which learn them undivided; it pads with the mean that is subtracted."""
    image, regions = scene(1, (50, 33, 3)), regions_of(n)
    model = models["rcnn"]
    found = MODULE.detect(model, image, regions)
    if n:
        whole = predict(model, TRAIN.rcnn.warp(image, regions, MEAN, SIZE))
        check(found, regions, decoded(regions, whole["deltas"]), whole["scores"], "rcnn", (50, 33))
        assert len(found["boxes"]) > 3
    else:
        assert [found[key].shape for key in ("boxes", "classes", "scores", "regions")] == [(0, 4), (0,), (0,), (0, 4)]


def test_proposals_are_those_of_selective_search(models, monkeypatch):
    seen = []
    monkeypatch.setattr(MODULE, "selective_search", lambda image, max_boxes: seen.append(max_boxes) or regions_of(4))
    for name in ("rcnn", "fast_rcnn"):
        np.testing.assert_array_equal(MODULE.detect(models[name], scene())["regions"], regions_of(4))
    records = MODULE.detect_all(models["fast_rcnn"], [scene(), scene(1)], "test", [regions_of(2), regions_of(3)])
    assert seen == [300, 300] and [len(found["regions"]) for found in records] == [2, 3]


def test_images_that_cannot_be(models):
    for name in ("fast_rcnn", "faster_rcnn"):
        for shape in ((40, 32, 3), (32, 40), (32, 40, 1), (1, 32, 40, 3)):
            with pytest.raises(ValueError, match=r"the image must be \(32, 40, 3\), got "):
                MODULE.detect(models[name], np.zeros(shape, "uint8"), regions_of(2))
    for name in NAMES:
        with pytest.raises(ValueError, match="the pixels must be 0 to 255"):
            MODULE.detect(models[name], np.ones(SHAPE, "float32"), regions_of(2))


def test_boxes_are_in_the_pictures_own_pixels(models, monkeypatch):
    """The shorter side is brought to 32 pixels; what fills the image then, fills the picture."""
    sizes = []

    def filling(model, image):
        height, width = image.shape[:2]
        sizes.append((height, width))
        return {"boxes": np.array([[0, 0, width, height]], "float32"), "regions": np.zeros((0, 4), "float32")}

    monkeypatch.setattr(MODULE, "detect", filling)
    for shape in ((64, 101, 3), (200, 50, 3), (16, 16, 3)):
        found = MODULE.detect_picture(models["faster_rcnn"], scene(0, shape), 32)
        np.testing.assert_allclose(found["boxes"], [[0, 0, shape[1], shape[0]]], rtol=1e-5)
    assert sizes == [(32, 50), (128, 32), (32, 32)]  # 50.5 is rounded to even


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_larger_than_the_scenes(models, name, monkeypatch):
    """Objects are found beyond the size of the scenes, and everything is inside."""
    monkeypatch.setattr(MODULE, "selective_search", lambda image, max_boxes: 3 * regions_of(6) + [20, 0, 20, 0])
    picture = scene(2, (96, 160, 3))
    found = MODULE.detect_picture(models[name], picture, 96)
    assert len(found["boxes"]) and (found["boxes"] >= 0).all() and (found["boxes"] <= [160, 96, 160, 96]).all()
    assert (found["boxes"][:, 2] > 60).any() and (found["regions"][:, 2] > 60).any()
    halved = MODULE.detect_picture(models[name], picture, 48)
    assert (halved["boxes"] <= [160, 96, 160, 96]).all() and (halved["regions"][:, 2] > 60).any()
    if name == "faster_rcnn":
        anchors = MODULE.for_size(models[name], (96, 160)).layers[-1].get_layer("proposals").all_anchors()
        assert len(anchors) == 48 * 80 * 2 and anchors[:, 2].max() > 160


def test_a_model_of_the_same_size_is_the_same(models):
    for name in ("fast_rcnn", "faster_rcnn"):
        assert MODULE.for_size(models[name], (96, 160)) is MODULE.for_size(models[name], (96, 160))  # compiled once
        again = MODULE.for_size(models[name], SHAPE[:2])
        expected, found = (MODULE.detect(model, scene(), regions_of(4)) for model in (models[name], again))
        for key, values in expected.items():
            np.testing.assert_allclose(found[key], values, atol=1e-4)


# Runs in a process of its own: what each detector finds in an image, in regions that are given.
FRESH = """
import sys
sys.path.append(sys.argv[1])
import detect, keras, numpy as np
given = np.load(sys.argv[2] + "/given.npz")
for name in sys.argv[3:]:
    found = detect.detect(keras.saving.load_model(f"{sys.argv[2]}/{name}.keras"), given["image"], given["regions"])
    np.savez(f"{sys.argv[2]}/{name}.npz", **found)
"""


@pytest.mark.slow
def test_the_detections_of_a_fresh_process(models, tmp_path):
    """Which imports detect, and so the layers; equal, before and after."""
    np.savez(tmp_path / "given.npz", image=scene(), regions=regions_of(6))
    for name in NAMES:
        models[name].save(tmp_path / f"{name}.keras")
    command = [sys.executable, "-c", FRESH, str(ROOT / "rcnn"), str(tmp_path), *NAMES]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        expected, found = MODULE.detect(models[name], scene(), regions_of(6)), np.load(tmp_path / f"{name}.npz")
        assert len(expected["boxes"])
        np.testing.assert_array_equal(found["classes"], expected["classes"])
        for key, values in expected.items():
            np.testing.assert_allclose(found[key], values, rtol=1e-5, atol=1e-5)


@pytest.fixture
def run_folder(models, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    models["faster_rcnn"].save(folder / "model.keras")
    (folder / "results.json").write_text(json.dumps({"model": "faster_rcnn", "classes": CLASSES}))
    return folder


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["rcnn/detect.py", *map(str, arguments)])
    MODULE.main()


def test_the_command_writes_boxes_and_pictures(models, run_folder, monkeypatch, capsys, tmp_path):
    """Two pictures of one name are two files."""
    places = [tmp_path / "wide.png", tmp_path / "more" / "wide.jpg"]
    places[1].parent.mkdir()
    for place, shape in zip(places, ((64, 96, 3), (90, 70, 3)), strict=True):
        Image.fromarray(scene(3, shape)).save(place)
    command(monkeypatch, run_folder, *places, "--size", "48")
    printed = capsys.readouterr().out
    for i, (place, (height, width)) in enumerate(zip(places, ((64, 96), (90, 70)), strict=True)):
        log = json.loads((run_folder / "detections" / f"{i}_wide.json").read_text())
        assert log["image"] == str(place) and log["detections"] and f"{place}: {len(log['detections'])}" in printed
        expected = MODULE.detect_picture(models["faster_rcnn"], np.asarray(Image.open(place)), 48)
        for record, box, k, score in zip(
            log["detections"], expected["boxes"], expected["classes"], expected["scores"], strict=True
        ):
            assert record["class"] == CLASSES[k] and record["score"] == pytest.approx(score, abs=1e-4)
            np.testing.assert_allclose(record["box"], box, atol=0.06)
            x1, y1, x2, y2 = record["box"]
            assert 0 <= x1 <= x2 <= width and 0 <= y1 <= y2 <= height
        with Image.open(run_folder / "detections" / f"{i}_wide.png") as drawing:
            assert drawing.width >= 800
    command(monkeypatch, run_folder, places[0], "--output", tmp_path / "elsewhere")
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} == {"wide.json", "wide.png"}


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["{nowhere}", "{good}"], "{nowhere} is not the folder of a finished run"),
        (["{run}", "{good}", "{missing}"], "{missing} cannot be read (No such file or directory)"),
        (["{run}", "{text}"], "{text} cannot be read (not an image that Pillow knows)"),
        (["{run}", "{cut}"], "{cut} cannot be read (image file is truncated"),
        (["{run}", "{strip}"], "{strip} must be at most 8 times as long as wide, got 900x10 pixels"),
        (["{other}", "{good}"], "{other} holds a vgg16, which detects nothing"),
        (["{run}"], "the following arguments are required: IMAGE"),
        (["{run}", "{good}", "--size", "8"], "--size: must be a whole number from 32 to 768, got 8"),
        (["{run}", "{long}", "--size", "768"], "--size must be at most 384 for {long} of 400x100 pixels, got 768"),
        (["{run}", "{good}", "--output", "{here}"], "--output must not be the folder of a picture, got {here}"),
        (["{run}", "{good}", "--output", "{text}"], "--output {text} cannot be written (File exists)"),
    ],
)
def test_wrong_commands(arguments, sentence, run_folder, monkeypatch, capsys, tmp_path):
    """One sentence, and exit status 2, before any picture is written."""
    names = ("nowhere", "missing", "text", "good", "cut", "strip", "long", "other")
    places = {name: tmp_path / name for name in names} | {"run": run_folder, "here": tmp_path}
    places["text"].write_text("not an image")
    Image.fromarray(scene(0, (10, 900, 3))).save(places["strip"], "PNG")
    Image.fromarray(scene(0, (100, 400, 3))).save(places["long"], "PNG")
    places["other"].mkdir()
    (places["other"] / "results.json").write_text(json.dumps({"model": "vgg16", "classes": CLASSES}))
    Image.fromarray(scene()).save(places["good"], "PNG")
    Image.fromarray(scene(0, (200, 200, 3))).save(places["cut"], "JPEG")
    places["cut"].write_bytes(places["cut"].read_bytes()[:3000])
    with pytest.raises(SystemExit) as exit_:
        command(monkeypatch, *(argument.format(**places) for argument in arguments))
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and sentence.format(**places) in error and "Traceback" not in error
    assert not (run_folder / "detections").exists()


def test_pictures_of_every_kind_are_three_colors_the_right_way_up(tmp_path):
    """Gray, of a palette, with alpha; and one from a camera that was held upright, whose EXIF says so."""
    pixels = scene(0, (20, 30, 3))
    for mode in ("L", "LA", "P", "RGBA", "1", "CMYK"):
        image = Image.fromarray(pixels).convert(mode)
        place = tmp_path / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}"
        image.save(place)
        found = MODULE.read(place)
        assert found.shape == (20, 30, 3) and found.dtype == "uint8"
        np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    Image.fromarray(pixels).save(tmp_path / "camera.png", exif=exif)
    np.testing.assert_array_equal(MODULE.read(tmp_path / "camera.png"), np.rot90(pixels, -1))

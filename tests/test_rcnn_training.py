"""The trainings of the three detectors: their scenes, what passes from step to step, and what a run leaves behind."""

import argparse
import json
import sys

import keras
import numpy as np
import pytest
from folders import load, main, predict, without_graphs

pytestmark = pytest.mark.slow

GROUPS = tuple({"n_layers": 1, "n_filters": n} for n in (8, 16, 16))


def small(monkeypatch, groups=GROUPS, changes=()):
    """Return a fresh train.py whose networks are narrow."""
    module = load("rcnn/train.py")
    steps = module.training
    for network, name in ((steps.rcnn, "rcnn"), (steps.fast_rcnn, "fast_rcnn"), (steps.faster_rcnn, "faster_rcnn")):
        changed = network.METAPARAMETERS[f"{name}_vgg8"] | {"groups": groups, "n_units": (128,)} | dict(changes)
        monkeypatch.setitem(network.METAPARAMETERS, f"{name}_vgg8", changed)
    return module


def test_the_scenes_of_a_split_are_made_of_its_images_alone():
    """The images of each split are of one gray of their own, which the noise of the canvas only meets by chance."""
    module, grays = load("rcnn/train.py"), {"training": 10, "validation": 120, "test": 240}
    splits = {name: (np.full((20, 32, 32, 3), gray, "uint8"), np.arange(20) % 10) for name, gray in grays.items()}
    made = module.make_splits(splits, 30, seed=0)
    assert list(made) == list(grays)
    for name, (scenes, objects) in made.items():
        assert len(scenes) == len(objects) == 30
        for scene, (boxes, _) in zip(scenes, objects, strict=True):
            x1, y1, x2, y2 = boxes[-1].astype(int)
            assert (scene[y1:y2, x1:x2] == grays[name]).all()
    places = [[tuple(boxes[0]) for boxes, _ in objects] for _, objects in made.values()]
    assert not set(places[0]) & set(places[1]) and not set(places[0]) & set(places[2])  # nor are their canvases alike


def test_how_many_scenes_a_split_has_at_most(monkeypatch):
    module = load("rcnn/train.py")
    monkeypatch.setattr(module, "make_scenes", lambda images, labels, n_scenes, seed: n_scenes)
    splits = dict.fromkeys(("training", "validation", "test"), ("images", "labels"))
    assert list(module.make_splits(splits, 600, seed=1).values()) == [600, 100, 500]
    assert list(module.make_splits(splits, 60, seed=1).values()) == [60, 60, 60]


def test_a_network_begins_with_what_the_pre_trained_one_has_learned():
    """The stem makes the same feature maps, and the dense layers are the same."""
    training = load("rcnn/training.py")
    pretrained = training.rcnn.build(training.rcnn.METAPARAMETERS["rcnn_vgg8"], (32, 32, 3), 10)
    for name in ("fast_rcnn", "faster_rcnn"):
        module = getattr(training, name)
        network = module.build(module.METAPARAMETERS[f"{name}_vgg8"], (64, 64, 3), 11)
        training.begin_with(network, pretrained)
        small_one = module.build(module.METAPARAMETERS[f"{name}_vgg8"], (32, 32, 3), 11)
        small_one.set_weights(network.get_weights())
        last = [layer for layer in pretrained.layers if isinstance(layer, keras.layers.MaxPooling2D)][-1]
        x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
        expected = predict(keras.Model(pretrained.input, last.input), x)
        np.testing.assert_allclose(predict(training.stem_of(small_one), x), expected, atol=1e-5)
        dense = next(layer for layer in pretrained.layers if isinstance(layer, keras.layers.Dense))
        for weight, same in zip(network.get_layer("fc6").get_weights(), dense.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, same)


def test_selective_search_goes_on_where_it_was(monkeypatch, tmp_path):
    training, seen = load("rcnn/training.py"), []
    (tmp_path / "backup").mkdir()
    args, scenes = argparse.Namespace(output=tmp_path), np.arange(230, dtype="uint8")[:, None, None, None]

    def found_in(scene, max_boxes):
        if len(seen) == 150:
            raise KeyboardInterrupt
        seen.append(int(scene[0, 0, 0]))
        return np.full((len(seen) % 3, 4), scene[0, 0, 0], "float32")  # some have none

    monkeypatch.setattr(training, "selective_search", found_in)
    with pytest.raises(KeyboardInterrupt):
        training.search(args, "training", scenes)
    seen[:] = [None]
    found = training.search(args, "training", scenes)
    assert seen[1:] == list(range(100, 230))  # those of the first hundred were kept
    assert len(found) == 230 and all(regions.shape[1:] == (4,) for regions in found)
    assert all((regions == number).all() for number, regions in enumerate(found)) and len(found[0]) == 1


NAMES = ("rcnn", "fast_rcnn", "faster_rcnn")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each detector for seconds, with narrow networks: train.py, {name: (flags, output)}."""
    finished = {}
    with pytest.MonkeyPatch.context() as patch, without_graphs():
        module = small(patch)
        for name in NAMES:
            output = tmp_path_factory.mktemp(name)
            flags = ["--model", name, "--data", "synthetic", "--limit", "60", "--scenes", "2"]
            flags += ["--epochs", "1", "--pretraining-epochs", "1", "--output", str(output)]
            patch.setattr(sys, "argv", ["rcnn/train.py", *flags])
            module.main()
            finished[name] = flags, output
    return module, finished


@pytest.mark.parametrize("name", NAMES)
def test_a_run_leaves_its_model_and_its_scores(name, runs, monkeypatch, capsys):
    """What it finds is of no use, but the files are all there and say the same."""
    module, (flags, output) = runs[0], runs[1][name]
    assert {path.name for path in output.iterdir()} == {
        "model.keras", "history.csv", "curves.png", "detections.png", "results.json",
    }
    results = json.loads((output / "results.json").read_text())
    assert set(results) >= {
        "map_50", "average_precision", "proposal_recall", "seconds_per_image", "validation_map_50", "test_scenes",
    }
    assert set(results["seconds_per_image"]) == {"proposals", "features", "heads"}
    assert all(seconds > 0 for seconds in results["seconds_per_image"].values())
    assert results["model"] == name and results["test_scenes"] == 2 and len(results["average_precision"]) == 10

    model = keras.saving.load_model(output / "model.keras", safe_mode=True)
    splits, classes = module.data.load("synthetic", 60, 0)
    scenes, truths = module.make_splits(splits, 2, 0)["test"]
    detections, proposals, _ = module.detect.detect(model, scenes)
    precision = module.evaluate.boxes.average_precisions(detections, truths, len(classes))
    assert results["map_50"] == pytest.approx(np.nanmean(precision), abs=1e-6)
    assert results["proposal_recall"] == pytest.approx(module.evaluate.recall(proposals, truths))
    history = module.training.read_history(argparse.Namespace(output=output))
    expected = {
        "rcnn": ["pre-training", "fine-tuning"],
        "fast_rcnn": ["pre-training", "detector"],
        "faster_rcnn": [
            "pre-training", "1 region proposal network", "2 detector", "3 region proposal network", "4 classifier",
        ],
    }
    assert history["step"] == expected[name] and np.isfinite(history["loss"]).all()
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main("rcnn", monkeypatch, *flags)
    assert not exit_.value.code
    assert "finished" in capsys.readouterr().out


def test_compare_times_the_three(runs, monkeypatch, tmp_path, capsys):
    """On models that have learned nothing."""
    compare, folders = load("rcnn/compare.py"), [str(output) for _, output in runs[1].values()]
    flags = ["--data", "synthetic", "--scenes", "2", "--output", str(tmp_path / "compared")]
    monkeypatch.setattr(sys, "argv", ["rcnn/compare.py", *folders, *flags])
    monkeypatch.setattr(compare, "N_REPEATS", 1)
    compare.main()
    printed = capsys.readouterr().out
    assert "times as fast as R-CNN" in printed and "times as fast as Fast R-CNN" in printed
    log = json.loads((tmp_path / "compared" / "seconds.json").read_text())
    assert list(log["seconds_per_image"]) == list(NAMES) and log["scenes"] == 2
    assert (tmp_path / "compared" / "seconds.png").read_bytes().startswith(b"\x89PNG")

    for wrong, sentence in (
        ([str(tmp_path), *flags], f"{tmp_path} must be the output folder of a finished train.py"),
        ([*folders, "--scenes", "0"], "--scenes: must be a whole number of at least 1, got 0"),
        ([*folders, "--data", "/no/such"], "--data must be cifar10, synthetic or a folder, got /no/such"),
        ([], "DIR"),
    ):
        monkeypatch.setattr(sys, "argv", ["rcnn/compare.py", *wrong])
        with pytest.raises(SystemExit) as exit_:
            compare.main()
        error = capsys.readouterr().err
        assert exit_.value.code == 2 and sentence in error


def test_it_learns_and_goes_on_between_its_steps(monkeypatch, tmp_path, capsys):
    """Interrupted before its third step, it goes on there; in the end it finds the objects of six scenes by heart.

    A narrow network, which sees each of them ten times in an epoch. To guess the classes would give an mAP of 0.1.
    """
    module = small(monkeypatch, tuple({"n_layers": 2, "n_filters": n} for n in (16, 32, 64)), {"dropout": 0.0})
    make_splits = module.make_splits

    def six_scenes(splits, n_scenes, seed):
        made = make_splits(splits, 6, seed)
        scenes, objects = made["training"]
        return made | {"training": (np.concatenate(10 * [scenes]), 10 * objects), "test": (scenes, objects)}

    monkeypatch.setattr(module, "make_splits", six_scenes)
    flags = ["--data", "synthetic", "--limit", "1000", "--scenes", "60", "--epochs", "4"]
    flags += ["--pretraining-epochs", "4", "--pretraining-rate", "0.03", "--learning-rate", "0.03"]
    monkeypatch.setattr(sys, "argv", ["rcnn/train.py", *flags, "--output", str(tmp_path)])
    seen, fit = [], module.training.fit

    def watched(args, step, network, *rest):
        seen.append((step, network))
        if len(seen) == 4:
            raise KeyboardInterrupt
        fit(args, step, network, *rest)

    monkeypatch.setattr(module.training, "fit", watched)
    with pytest.raises(SystemExit) as exit_:
        module.main()
    assert exit_.value.code == 130 and "repeat the command" in capsys.readouterr().err
    before = module.training.read_history(argparse.Namespace(output=tmp_path))
    module.main()
    after = module.training.read_history(argparse.Namespace(output=tmp_path))
    assert len(after["step"]) == 4 + 4 * 4 and len(before["step"]) == 4 + 2 * 4
    assert after["loss"][: len(before["loss"])] == pytest.approx(before["loss"], rel=1e-6)  # no step was run again
    steps = ["pre-training", "1 region proposal network", "2 detector", "3 region proposal network", "4 classifier"]
    assert [step for step, _ in seen] == [*steps[:4], *steps] and list(dict.fromkeys(after["step"])) == steps
    detector, final, again = (network for _, network in seen[-3:])
    assert again is detector
    theirs = [layer for layer in final.layers if not layer.name.startswith("rpn")]
    for layer, other in zip(*([x for x in of if x.weights] for of in (detector.layers, theirs)), strict=True):
        for weight, same in zip(layer.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, same)  # now they are one network
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["map_50"] > 0.6 and results["proposal_recall"] > 0.8
    assert not (tmp_path / "backup").exists()

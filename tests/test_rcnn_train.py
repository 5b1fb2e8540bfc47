"""The trainings of the three detectors: what passes from step to step, the losses, resuming, what a run leaves."""

import argparse
import csv
import functools
import json
import sys

import keras
import numpy as np
import pytest
from folders import load, main, predict, without_graphs

GROUPS = tuple({"n_layers": 1, "n_filters": n} for n in (4, 6, 8))
NAMES = ("rcnn", "fast_rcnn", "faster_rcnn")
STEPS = {  # --model and --joint: the steps after the pre-training
    "rcnn": ["fine-tuning"],
    "fast_rcnn": ["detector"],
    "faster_rcnn": ["1 region proposal network", "2 detector", "3 region proposal network", "4 head"],
    "faster_rcnn --joint": ["together"],
}


def small(monkeypatch, groups=GROUPS, **changes):
    """Return a fresh train.py whose networks are narrow."""
    module = load("rcnn/train.py")
    for name in NAMES:
        table = getattr(module, name).METAPARAMETERS
        changed = table[f"{name}_vgg8"] | {"groups": groups, "n_units": (16,)} | changes
        monkeypatch.setitem(table, f"{name}_vgg8", changed)
    return module


def weights_of(network):
    """{name of a part: its weights}."""
    return {layer.name: layer.get_weights() for layer in network.layers if hasattr(layer, "layers")}


def same(weights, others):
    return all(np.array_equal(one, other) for one, other in zip(weights, others, strict=True))


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


def test_a_network_begins_with_what_the_pre_trained_one_has_learned(monkeypatch):
    """The same backbone and first dense layer: RoI pooling has as many bins as pool5 has cells."""
    module = small(monkeypatch)
    pretrained = module.fast_rcnn.build(module.fast_rcnn.METAPARAMETERS["fast_rcnn_vgg8"], (40, 40, 3), 10, 1)
    for name in NAMES:
        networks = getattr(module, name)
        shape = (32, 32, 3) if name == "rcnn" else (64, 64, 3)
        network = networks.build(networks.METAPARAMETERS[f"{name}_vgg8"], shape, 11)
        others = network.get_layer("head").get_layer("classes").get_weights()
        module.begin_with(network, pretrained)
        assert same(weights_of(network)["backbone"], weights_of(pretrained)["backbone"])
        for layer in ("fc6", "fc6_bn"):
            found, theirs = (model.get_layer("head").get_layer(layer).get_weights() for model in (network, pretrained))
            assert same(found, theirs)
        assert same(network.get_layer("head").get_layer("classes").get_weights(), others)


def test_a_pre_training_that_diverges_names_its_own_rate(monkeypatch):
    module = small(monkeypatch)

    def fit(*args):
        raise RuntimeError("NaN or Inf loss found")

    monkeypatch.setattr(module.steps, "fit", fit)
    args = module.run.argparse.Namespace(seed=0, pretraining_epochs=1, pretraining_rate=1e6)
    images = np.zeros((4, 32, 32, 3), "uint8"), np.zeros(4, "int32")
    with pytest.raises(module.data.DataError, match="repeat with --overwrite and a lower --pretraining-rate"):
        module.pretrain(args, {"training": images, "validation": images}, 10, np.zeros(3), np.ones(3))


def smooth_l1(x, sigma):
    x = abs(x)
    return np.where(x < 1 / sigma**2, 0.5 * (sigma * x) ** 2, x - 0.5 / sigma**2)


@pytest.mark.parametrize("part, n", [("anchors", 256), ("regions", 64)])
def test_the_loss_of_one_scene_is_the_released_codes(part, n, monkeypatch):
    """As the step compiles it: cross-entropy and smooth L1 (sigma 3 for anchors) summed, divided by all that count."""
    module, caught = small(monkeypatch, dropout=0.0), []
    images, labels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype="uint8"), np.arange(40) % 10
    scenes, objects = module.make_scenes(images, labels, 1, seed=4)
    splits = dict.fromkeys(("training", "validation"), (scenes, objects))
    monkeypatch.setattr(module.steps, "fit", lambda *args, **named: caught.append(args))
    args, fixed = argparse.Namespace(batch_size=1, seed=0, epochs=4), ([120.0] * 3, [3600.0] * 3)
    if part == "anchors":
        network = module.faster_rcnn.build(module.faster_rcnn.METAPARAMETERS["faster_rcnn_vgg8"], (128, 128, 3), 11)
        module.fit_anchors(args, "a step", network, splits, *fixed)
    else:
        network = module.fast_rcnn.build(module.fast_rcnn.METAPARAMETERS["fast_rcnn_vgg8"], (128, 128, 3), 11)
        rng, (truth, _) = np.random.default_rng(1), objects[0]
        corner = rng.uniform(0, 80, (100, 2))
        anywhere = np.concatenate([corner, corner + rng.uniform(20, 48, (100, 2))], 1)
        near = np.tile(truth, (9, 1)) + rng.uniform(-2, 2, (9 * len(truth), 4))
        proposals = np.concatenate([near, anywhere]).clip(0, 128).astype("float32")
        found = dict.fromkeys(splits, [proposals])
        module.fit_regions(args, "a step", network, splits, found, 0.0, *fixed)
    ((_, _, _, model, _, validation, loss),) = caught
    inputs, targets, weights = validation[0]
    outputs = {name: values[0] for name, values in predict(model, inputs).items()}
    (answer, delta), sigma = targets, 3 if part == "anchors" else 1
    (chosen,) = np.nonzero(weights[answer][0])
    assert len(chosen) == n
    expected = 0.0
    for i in chosen:
        label = targets[answer][0, i]
        expected -= np.log(outputs[answer][i, label]) / n
        if label:
            at = (i,) if part == "anchors" else (i, label)
            expected += smooth_l1(outputs[delta][at] - targets[delta][(0, *at)], sigma).sum() / n
    assert (targets[answer][0][chosen] > 0).sum() > 2
    model.compile(loss=loss, run_eagerly=True)
    assert model.evaluate(validation, verbose=0, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("n, expected", [(16, [5, 4, 16, 4, 8]), (6, [5, 2, 6, 2, 3]), (2, [5, 2, 2, 2, 2])])
def test_how_many_scenes_each_step_has(n, expected, monkeypatch):
    """The region proposal networks learn from a quarter of the scenes, the head of step 4 from half; from two at least.

    The pre-training learns from the images, of which there are five.
    """
    module, seen = small(monkeypatch), []
    monkeypatch.setattr(module.steps, "fit", lambda *args, **named: seen.append(args[4].n))
    monkeypatch.setattr(module, "propose", lambda network, scenes, *rest: {k: [] for k in scenes})
    images, labels = np.zeros((5, 32, 32, 3), "uint8"), np.arange(5)
    splits = dict.fromkeys(("training", "validation"), (images, labels))
    made = np.zeros((n, 64, 64, 3), "uint8"), n * [(np.zeros((0, 4)), np.zeros(0, int))]
    scenes = dict.fromkeys(splits, made)
    args = argparse.Namespace(batch_size=1, seed=0, epochs=1, pretraining_epochs=4, pretraining_rate=0.1, joint=False)
    module.train_faster_rcnn(args, splits, scenes, 10, [120.0] * 3, [3600.0] * 3)
    assert seen == expected


@pytest.mark.usefixtures("eagerly")
def test_there_are_more_proposals_to_train_on_than_to_test_with(monkeypatch):
    """300 and 100 of 3,072 anchors; the paper has 2,000 and 300. More than there are fills up with boxes of 0."""
    module = small(monkeypatch)
    network = module.faster_rcnn.build(module.faster_rcnn.METAPARAMETERS["faster_rcnn_vgg8"], (128, 128, 3), 11)
    scenes = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype="uint8"), None
    found = module.propose(network, dict.fromkeys(("training", "validation"), scenes), [120.0] * 3, [3600.0] * 3)
    assert {name: np.shape(proposals) for name, proposals in found.items()} == dict.fromkeys(found, (2, 300, 4))
    first = found["training"][0]
    assert network.output["regions"].shape == (None, 100, 4) and (first[:, 2:] > first[:, :2]).all(1).sum() > 100


def grid(image, max_boxes):
    """In place of selective search."""
    corners = np.stack(np.meshgrid(np.arange(0, 40, 6), np.arange(0, 40, 6)), -1).reshape(-1, 2)
    found = np.concatenate([np.concatenate([corners, corners + side], 1) for side in (24, 34, 50)])
    return found.clip(0, image.shape[0]).astype("float32")


def tiny(patch):
    """Return a train.py of seconds: narrow networks, scenes of 64x64 pixels, no selective search."""
    module = small(patch)
    patch.setattr(module, "make_scenes", functools.partial(module.make_scenes, size=64))
    for name, value in {"PRETRAINING_BATCH": 20, "RPN_SHARE": 1, "HEAD_SHARE": 1}.items():
        patch.setattr(module, name, value)
    for user in (module.steps, module.detect):
        patch.setattr(user, "selective_search", grid)
    return module


def start(module, patch, training, output):
    flags = ["--model", *training.split(), "--data", "synthetic", "--limit", "60", "--scenes", "4"]
    flags += ["--epochs", "2", "--pretraining-epochs", "2", "--output", str(output)]
    patch.setattr(sys, "argv", ["rcnn/train.py", *flags])
    module.main()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A function that returns the run of a training, made once: its folder, {step: {part: weights}} after each step."""

    @functools.cache
    def run_of(training):
        with pytest.MonkeyPatch.context() as patch, without_graphs():
            module, after, output = tiny(patch), {}, tmp_path_factory.mktemp("run")
            fit = module.steps.fit

            def watched(args, step, network, *rest, **named):
                fit(args, step, network, *rest, **named)
                after[step] = weights_of(network)

            patch.setattr(module.steps, "fit", watched)
            start(module, patch, training, output)
        return output, after

    return run_of


def rows(output):
    with open(output / "history.csv", newline="") as file:
        return [(row["step"], row["epoch"], float(row["loss"]), float(row["val_loss"])) for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("training", STEPS)
def test_a_run_leaves_its_model_and_its_scores(training, runs, monkeypatch, capsys):
    """What it finds is of no use, but the files are all there and say the same."""
    (output, _), (name, *joint) = runs(training), training.split()
    pictures = {"curves.png", "detections.png", "precision_recall.png", "mistakes.png"}
    pictures |= {"one_scene.png"} if name == "faster_rcnn" else set()
    assert {path.name for path in output.iterdir()} == {"model.keras", "history.csv", "results.json", *pictures}
    results = json.loads((output / "results.json").read_text())
    assert results["model"] == name and results["joint"] is bool(joint) and results["test_scenes"] == 4
    assert set(results) >= {
        "map_50", "validation_map_50", "average_precision", "proposal_recall", "proposals_per_image", "seconds",
    }  # fmt: skip
    assert [row[:2] for row in rows(output)] == [
        (step, str(epoch)) for step in ("pre-training", *STEPS[training]) for epoch in range(2)
    ]

    module = tiny(monkeypatch)
    model = keras.saving.load_model(output / "model.keras", safe_mode=True)
    assert model.layers[-1].name == name
    splits, classes = module.data.load("synthetic", 60, 0)
    scenes = module.make_splits(splits, 4, 0)
    found = {split: module.detect.detect_all(model, scenes[split][0], split) for split in ("validation", "test")}
    for key, value in module.evaluate.detection_scores(found, scenes, classes).items():
        assert results[key] == (value if key == "average_precision" else pytest.approx(value, abs=1e-6))
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        start(module, monkeypatch, training, output)
    assert not exit_.value.code and "finished" in capsys.readouterr().out


@pytest.mark.slow
def test_the_four_steps_end_in_one_network(runs):
    """The backbone of step 2, which no later one changes, nor its moving averages; the rpn of step 3, the head of 4."""
    output, after = runs("faster_rcnn")
    _, first, second, third, fourth = after.values()
    final = weights_of(keras.saving.load_model(output / "model.keras").layers[-1])
    assert not same(first["backbone"], second["backbone"])
    assert same(second["backbone"], third["backbone"]) and same(second["backbone"], fourth["backbone"])
    assert same(final["backbone"], second["backbone"])
    assert same(final["rpn"], third["rpn"]) and not same(final["rpn"], first["rpn"])
    assert same(final["head"], fourth["head"]) and not same(final["head"], second["head"])


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("training", STEPS)
def test_an_interrupted_run_ends_as_if_it_had_not_been(training, runs, monkeypatch, capsys, tmp_path):
    """Interrupted within the second epoch of every step, between steps, and when all of them are done."""
    (expected, _), module, steps = runs(training), tiny(monkeypatch), ("pre-training", *STEPS[training])
    points = [(step, 1, 1) for step in steps] + [(steps[1], 0, 0), "linear models", "detection"]
    points = [point for point in points if training == "rcnn" or point != "linear models"]

    def stop(point):
        if point in points:
            points.remove(point)
            raise KeyboardInterrupt

    log, fit_linear_models = module.steps.StepLog, module.linear_models.fit_linear_models
    detect_all = module.detect.detect_all
    monkeypatch.setattr(log, "on_epoch_begin", lambda self, epoch, logs=None: setattr(self, "epoch", epoch))
    monkeypatch.setattr(
        log, "on_train_batch_begin", lambda self, batch, logs=None: stop((self.step, self.epoch, batch))
    )
    monkeypatch.setattr(
        module.linear_models, "fit_linear_models", lambda *args: (stop("linear models"), fit_linear_models(*args))
    )
    monkeypatch.setattr(module.detect, "detect_all", lambda *args: (stop("detection"), detect_all(*args))[1])
    finished, on_epoch_end = [], log.on_epoch_end

    def end(self, epoch, logs=None):
        finished.append((self.step, epoch))
        on_epoch_end(self, epoch, logs)

    monkeypatch.setattr(log, "on_epoch_end", end)
    n_interruptions = len(points)
    for _ in range(n_interruptions):
        with pytest.raises(SystemExit) as exit_:
            start(module, monkeypatch, training, tmp_path)
        assert exit_.value.code == 130 and "repeat the command" in capsys.readouterr().err
    assert points == [] and len(finished) == len(set(finished))  # no epoch was trained twice
    start(module, monkeypatch, training, tmp_path)

    found = tmp_path
    for row, other in zip(rows(found), rows(expected), strict=True):
        assert row[:2] == other[:2] and row[2:] == pytest.approx(other[2:], rel=1e-6)
    one, other = (keras.saving.load_model(folder / "model.keras").get_weights() for folder in (found, expected))
    for weights, others in zip(one, other, strict=True):
        np.testing.assert_allclose(weights, others, rtol=1e-5, atol=1e-6)
    scores, others = (json.loads((folder / "results.json").read_text()) for folder in (found, expected))
    assert scores["map_50"] == pytest.approx(others["map_50"], abs=1e-4) and not (found / "backup").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_the_benchmark_times_the_three(runs, monkeypatch, tmp_path, capsys):
    """On models that have learned nothing."""
    module, folders = load("rcnn/benchmark.py"), [str(runs(name)[0]) for name in NAMES]
    flags = ["--data", "synthetic", "--scenes", "2", "--output", str(tmp_path / "benchmark")]
    monkeypatch.setattr(sys, "argv", ["rcnn/benchmark.py", *folders, *flags])
    monkeypatch.setattr(module, "N_REPEATS", 1)
    monkeypatch.setattr(module, "make_scenes", functools.partial(module.make_scenes, size=64))
    module.main()
    printed = capsys.readouterr().out
    log = json.loads((tmp_path / "benchmark" / "seconds.json").read_text())
    seconds = log["seconds_per_image"]
    assert list(seconds) == list(NAMES) and log["scenes"] == 2
    for times in seconds.values():
        assert list(times) == ["proposals", "features", "heads"] and min(times.values()) > 0
    rcnn, fast = (seconds[name]["features"] + seconds[name]["heads"] for name in ("rcnn", "fast_rcnn"))
    assert log["ratios"]["fast_rcnn"] == pytest.approx(rcnn / fast)
    assert f"Fast R-CNN is {rcnn / fast:.1f} times as fast as R-CNN" in printed
    assert "times as fast as Fast R-CNN" in printed
    assert (tmp_path / "benchmark" / "seconds.png").read_bytes().startswith(b"\x89PNG")

    for wrong, sentence in (
        ([str(tmp_path), *flags], f"{tmp_path} is not the folder of a finished run"),
        ([folders[0], *folders], "the runs must be of different detectors, one of each, got rcnn, rcnn, fast_rcnn"),
        ([*folders, "--scenes", "0"], "--scenes: must be a whole number of at least 1, got 0"),
        ([*folders, "--data", "/no/such"], "--data must be cifar10, synthetic or a folder, got /no/such"),
        ([], "DIR"),
    ):
        monkeypatch.setattr(sys, "argv", ["rcnn/benchmark.py", *wrong])
        with pytest.raises(SystemExit) as exit_:
            module.main()
        error = capsys.readouterr().err
        assert exit_.value.code == 2 and sentence in error


@pytest.mark.slow
@pytest.mark.parametrize("joint", [False, True])
def test_faster_rcnn_learns(joint, monkeypatch, tmp_path):
    """In both ways it finds the objects of six scenes by heart: to guess the classes would give an mAP of 0.1.

    A narrow network, and scenes of 96x96 pixels, which every step but the last sees ten times each in an epoch.
    """
    groups = tuple({"n_layers": 1, "n_filters": n} for n in (16, 32, 64))
    module = small(monkeypatch, groups, n_units=(128,), dropout=0.0)
    monkeypatch.setattr(module, "make_scenes", functools.partial(module.make_scenes, size=96))
    monkeypatch.setattr(module, "RPN_SHARE", 1)
    make_splits = module.make_splits

    def six_scenes(splits, n_scenes, seed):
        made = make_splits(splits, 6, seed)
        scenes, objects = made["training"]
        return made | {"training": (np.concatenate(10 * [scenes]), 10 * objects), "test": (scenes, objects)}

    monkeypatch.setattr(module, "make_splits", six_scenes)
    flags = ["--data", "synthetic", "--limit", "1000", "--scenes", "60", "--epochs", "4"] + ["--joint"] * joint
    flags += ["--pretraining-epochs", "4", "--learning-rate", "0.02", "--output", tmp_path]
    main("rcnn", monkeypatch, *flags, module=module)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["map_50"] > 0.6 and results["proposal_recall"] > 0.7


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--scenes", "0"], "--scenes: must be a whole number from 1 to 100000, got 0"),
        (["--pretraining-rate", "0"], "--pretraining-rate: must be a number above 0 and finite, got 0"),
        (["--pretraining-epochs", "0"], "--pretraining-epochs: must be a whole number of at least 1, got 0"),
        (["--scenes", "5", "--batch-size", "6"], "--scenes must be at least --batch-size, 6, got 5"),
        (["--model", "mask_rcnn"], "mask_rcnn"),
        (["--model", "rcnn", "--joint"], "--joint is for faster_rcnn, got --model rcnn"),
        (["--model", "fast_rcnn", "--joint"], "--joint is for faster_rcnn, got --model fast_rcnn"),
    ],
)
def test_wrong_flags_of_its_own(flags, sentence, monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as exit_:
        main("rcnn", monkeypatch, *flags, "--output", tmp_path)
    assert exit_.value.code == 2 and sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_joint_is_a_setting_of_the_run(monkeypatch, capsys, tmp_path):
    """Its folder has another name, and a folder of a run in four steps is refused."""
    module = load("rcnn/train.py")
    monkeypatch.chdir(tmp_path)
    for flags, folder in (([], "faster_rcnn"), (["--joint"], "faster_rcnn_joint")):
        monkeypatch.setattr(sys, "argv", ["rcnn/train.py", *flags])
        args = module.arguments()
        assert module.run.settings(args)["joint"] is bool(flags) and args.output.name == folder
        module.run.start(args)
    monkeypatch.setattr(sys, "argv", ["rcnn/train.py", "--joint", "--output", "runs/faster_rcnn"])
    with pytest.raises(SystemExit) as exit_:
        module.arguments()
    assert exit_.value.code == 2 and "of another run: choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize("model, n", [("rcnn", 1000), ("fast_rcnn", 2000), ("faster_rcnn", 5000)])
def test_as_many_scenes_as_the_model_or_the_limit_says(model, n, monkeypatch, tmp_path):
    module = load("rcnn/train.py")
    for flags, expected in (([], n), (["--limit", "300"], 30), (["--limit", "5"], 2), (["--scenes", "7"], 7)):
        command = ["rcnn/train.py", "--model", model, *flags, "--output", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", command)
        assert module.arguments().scenes == expected

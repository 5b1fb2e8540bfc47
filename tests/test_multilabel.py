"""The multi-label networks: their two classifiers, the two tasks, and what train.py makes of them."""

import json

import keras
import numpy as np
import pytest
from folders import load, main, predict, random_weights

MODULE = load("multilabel/multilabel.py")
TASKS = load("multilabel/tasks.py")
DATA = load("multilabel/data.py")
SMALL = {"groups": ({"n_filters": 8, "n_blocks": 1},), "stem": {"n_filters": 8, "kernel_size": 3, "strides": 1}}


def images(n):
    return np.random.default_rng(0).normal(size=(n, 32, 32, 3)).astype("float32")


def test_every_group_has_its_own_softmax():
    model = MODULE.build(SMALL, (32, 32, 3), {"animal": 5, "color": 3})
    outputs = predict(model, images(4))
    assert {name: values.shape for name, values in outputs.items()} == {"animal": (4, 5), "color": (4, 3)}
    assert [model.get_layer(name).output.shape[1] for name in outputs] == [5, 3]  # each is called by its group
    for values in outputs.values():
        np.testing.assert_allclose(values.sum(-1), 1, atol=1e-5)


def test_the_sigmoids_are_independent():
    """Each answer depends on its own weights alone, and the answers do not add up to 1."""
    keras.utils.set_random_seed(0)
    model = MODULE.build(SMALL, (32, 32, 3), 10)
    before = predict(model, images(4))
    kernel, bias = model.layers[-1].get_weights()
    kernel[:, 3] += 1
    model.layers[-1].set_weights([kernel, bias])
    after = predict(model, images(4))
    assert before.shape == (4, 10) and (before > 0).all() and (before < 1).all()
    assert (after[:, 3] != before[:, 3]).all()
    np.testing.assert_array_equal(np.delete(after, 3, 1), np.delete(before, 3, 1))
    assert (abs(before.sum(-1) - 1) > 0.1).all()


def test_all_outputs_share_one_backbone():
    """The loss of any group alone moves the first convolution."""
    names = dict.fromkeys(("kind", "realm", "alive"))
    labels = dict.fromkeys(names, np.arange(16) % 2)
    for chosen in names:
        model = MODULE.build(SMALL, (32, 32, 3))
        first, heads = model.get_layer("stem_1"), {name: model.get_layer(name) for name in names}
        before = {layer.name: layer.kernel.numpy() for layer in (first, *heads.values())}
        loss = dict.fromkeys(names, "sparse_categorical_crossentropy")
        weights = {name: float(name == chosen) for name in names}
        model.compile("sgd", loss, loss_weights=weights, run_eagerly=True)  # one step does not pay for a graph
        model.train_on_batch(images(16), labels)
        moved = {layer.name for layer in (first, *heads.values()) if (layer.kernel.numpy() != before[layer.name]).any()}
        assert moved == {"stem_1", chosen}


def test_backbone_is_that_of_resnet():
    """With the same weights, the same network up to the classifier."""
    resnet = load("resnet/resnet_basic.py")
    metaparameters = MODULE.METAPARAMETERS["multilabel_resnet14_wide_cifar10"]
    theirs, ours = (module.build(metaparameters, (32, 32, 3), 10) for module in (resnet, MODULE))
    random_weights(theirs)
    ours.set_weights(theirs.get_weights())
    features = [predict(keras.Model(m.input, m.get_layer("group_3").output), images(2)) for m in (ours, theirs)]
    np.testing.assert_allclose(*features, rtol=1e-5)
    assert MODULE.METAPARAMETERS["multilabel_resnet20_cifar10"] == resnet.METAPARAMETERS["resnet20_cifar10"]


def test_groups_of_cifar10():
    """Every kind has one realm, and is an animal or not: written out here a second time."""
    realms = dict(zip(DATA.CLASSES, "air land air land land land water land water land".split(), strict=True))
    animals = {"bird", "cat", "deer", "dog", "frog", "horse"}
    labels, groups = TASKS.group_labels(np.arange(10), DATA.CLASSES), TASKS.groups(DATA.CLASSES)
    assert list(groups) == list(labels) == ["kind", "realm", "alive"]
    for number, kind in enumerate(DATA.CLASSES):
        found = {name: list(rows)[labels[name][number]] for name, rows in groups.items()}
        assert found == {"kind": kind, "realm": realms[kind], "alive": "animal" if kind in animals else "machine"}
    np.testing.assert_array_equal(TASKS.group_labels(np.array([6, 6, 0]), DATA.CLASSES)["kind"], [6, 6, 0])


def test_every_kind_is_in_one_row_of_each_group():
    for classes in (DATA.CLASSES, DATA.SYNTHETIC_CLASSES):
        for rows in TASKS.groups(classes).values():
            assert sorted(kind for row in rows.values() for kind in row) == sorted(classes) and len(rows) >= 2


def test_mosaics():
    """Images of one color each, so that every quadrant tells which image it is."""
    x = np.arange(8, dtype="uint8")[:, None, None, None] * np.ones((8, 32, 32, 3), "uint8")
    labels = np.array([0, 1, 2, 3, 4, 4, 4, 4])
    whole, shown = TASKS.mosaics(x, labels, np.array([[3, 1, 0, 2], [4, 5, 6, 0]]), 6)
    assert whole.shape == (2, 64, 64, 3) and whole.dtype == "uint8"
    assert [whole[0, r, c, 0] for r in (0, 63) for c in (0, 63)] == [3, 1, 0, 2]
    assert (whole[0, :32, 32:] == 1).all() and (whole[0, 32:, :32] == 0).all()
    np.testing.assert_array_equal(shown, [[1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 1, 0]])


def test_every_epoch_has_other_mosaics_of_all_images():
    x = np.arange(40, dtype="uint8")[:, None, None, None] * np.ones((40, 2, 2, 1), "uint8")
    split = (x, np.arange(40) % 10)
    batches, epochs = TASKS.examples("mosaic", split, DATA.CLASSES, batch_size=18, seed=3), []
    for epoch in range(2):
        batches.start(epoch)
        found = [batches[i] for i in range(len(batches))]
        assert [len(whole) for whole, _ in found] == [4, 4, 2]  # of 16 images, 16 and 8
        epochs.append(np.concatenate([whole[:, ::2, ::2, 0] for whole, _ in found]).reshape(-1, 4))
        assert sorted(epochs[-1].ravel()) == list(range(40))
        for tiles, shown in zip(epochs[-1], np.concatenate([shown for _, shown in found]), strict=True):
            assert set(np.flatnonzero(shown)) == set(tiles % 10)
    assert not np.array_equal(epochs[0], epochs[1])
    again, other = (TASKS.examples("mosaic", split, DATA.CLASSES, 18, seed)[0][0] for seed in (3, 4))
    np.testing.assert_array_equal(again[:, ::2, ::2, 0].reshape(-1, 4), epochs[0][:4])
    assert not np.array_equal(other, again)
    fixed = TASKS.examples("mosaic", split, DATA.CLASSES, 256)
    fixed.start(5)
    np.testing.assert_array_equal(fixed[0][0][:, ::2, ::2, 0].ravel(), range(40))  # in their order, in every epoch


@pytest.mark.parametrize(
    "n_images, batch_size, n_mosaics", [(1, 128, [1]), (5, 128, [2]), (9, 7, [1, 1, 1]), (4, 1, [1])]
)
def test_mosaics_of_a_few_images(n_images, batch_size, n_mosaics):
    """Where fewer than four are left, the first of the batch are there once more."""
    split = np.zeros((n_images, 32, 32, 3), "uint8"), np.arange(n_images)
    batches = TASKS.examples("mosaic", split, DATA.CLASSES, batch_size)
    found = [batches[i] for i in range(len(batches))]
    assert [len(whole) for whole, _ in found] == n_mosaics
    assert all(1 <= shown.sum() <= 4 for _, targets in found for shown in targets)
    assert (sum(targets.sum(0) for _, targets in found)[:n_images] >= 1).all()


def test_average_precision():
    """By hand: hits at ranks 1, 3 and 5 have precisions of 1, 2/3 and 3/5; each is the highest from there on."""
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    for truth, expected in (
        ([1, 0, 1, 0, 1], (1 + 2 / 3 + 3 / 5) / 3), ([0, 1, 1, 0, 0], 2 / 3),  # 1/2 counts as 2/3
        ([1, 1, 0, 0, 0], 1), ([0, 0, 0, 0, 1], 1 / 5), ([0, 0, 0, 0, 0], 0),
    ):
        assert TASKS.average_precision(np.array(truth), scores, sum(truth)) == pytest.approx(expected)
        assert TASKS.average_precision(np.array(truth)[::-1], scores[::-1], sum(truth)) == pytest.approx(expected)
    missed = TASKS.average_precision(np.array([1, 0, 1, 0, 1]), scores, 6)  # three of six are not among the examples
    assert missed == pytest.approx((1 + 2 / 3 + 3 / 5) / 6)


def test_scores_of_mosaics_and_of_guesses():
    """Three mosaics of two classes, by hand."""
    answers = np.array([[1, 0], [1, 1], [0, 0]], "float32")
    scores = TASKS.mosaic_scores(answers, np.array([[0.9, 0.2], [0.4, 0.7], [0.1, 0.1]]), "ab")
    assert scores["exact_match"] == pytest.approx(2 / 3)  # the second mosaic lacks its a
    assert scores["average_precision"] == {"a": 1, "b": 1} and scores["mean_average_precision"] == 1
    zero, one = scores["guesses"]["all_zero"], scores["guesses"]["all_one"]
    assert (zero["macro_f1"], zero["micro_f1"], zero["binary_accuracy"]) == (0, 0, 0.5)
    assert zero["exact_match"] == pytest.approx(1 / 3)
    # ranked as they come: a has hits at 1 and 2, b at 2
    assert zero["mean_average_precision"] == one["mean_average_precision"] == pytest.approx((1 + 1 / 2) / 2)
    # all ones: precision 2/3 and 1/3, recall 1, so F1 of 0.8 and 0.5; of all answers precision 1/2, F1 2/3
    assert one["macro_f1"] == pytest.approx(0.65) and one["micro_f1"] == pytest.approx(2 / 3)
    assert one["binary_accuracy"] == 0.5 and one["exact_match"] == pytest.approx(1 / 3)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_the_scores_of_a_run_on_mosaics_are_right(monkeypatch, tmp_path, capsys):
    module = load("multilabel/train.py")
    module.MODELS["small"] = (MODULE.build, SMALL)
    flags = ["--task", "mosaic", "--model", "small", "--data", "synthetic", "--limit", "103", "--epochs", "1"]
    main("multilabel", monkeypatch, *flags, "--batch-size", "64", "--output", tmp_path, module=module)
    results = json.loads((tmp_path / "results.json").read_text())
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert model.input_shape == (None, 64, 64, 3) and model.output_shape == (None, 10)
    splits, classes = module.data.load("synthetic", 103, 0)
    x, answers = TASKS.examples("mosaic", splits["test"], classes, 104)[0]
    assert len(x) == 26
    yes = predict(model, x) > 0.5
    both, said, true = (yes * answers).sum(0), yes.sum(0), answers.sum(0)
    assert results["test_macro_f1"] == pytest.approx((2 * both / (said + true)).mean(), abs=1e-5)
    assert results["test_micro_f1"] == pytest.approx(2 * both.sum() / (said + true).sum(), abs=1e-5)
    assert results["test_binary_accuracy"] == pytest.approx((yes == answers).mean(), abs=1e-5)
    assert set(results["test_guesses"]) == {"all_zero", "all_one"} and len(results["test_average_precision"]) == 10
    assert (tmp_path / "predictions.png").stat().st_size > 10_000
    assert "all_zero 0.000" in capsys.readouterr().out


def test_the_two_tasks_are_two_runs(monkeypatch, capsys, tmp_path):
    module, outputs = load("multilabel/train.py"), []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module.data, "load", lambda *args: ({}, module.data.CLASSES))
    monkeypatch.setattr(module.run, "start", outputs.append)
    monkeypatch.setattr(module, "train", lambda *args: exit(3))
    for task in ("groups", "mosaic", "both"):
        with pytest.raises(SystemExit) as exit_:
            main("multilabel", monkeypatch, "--task", task, module=module)
        assert exit_.value.code == (2 if task == "both" else 3)
    assert "argument --task: invalid choice: 'both'" in capsys.readouterr().err
    assert [args.output.name.removeprefix(module.MODEL) for args in outputs] == ["_groups", "_mosaic"]


def test_each_of_several_devices_has_whole_mosaics(monkeypatch, capsys, tmp_path):
    module = load("multilabel/train.py")
    monkeypatch.setattr(module.distribution, "distribution", lambda: "of a batch among devices")
    monkeypatch.setattr(module.distribution, "list_devices", lambda: ["cpu:0", "cpu:1"])
    flags = ["--data", "synthetic", "--task", "mosaic", "--batch-size", "20", "--output", tmp_path]
    with pytest.raises(SystemExit) as exit_:
        main("multilabel", monkeypatch, *flags, module=module)
    sentence = "--batch-size must be divisible by 8, four images for each device, got 20"
    assert exit_.value.code == 2 and sentence in capsys.readouterr().err


def test_the_kind_is_learned_first():
    """All other groups follow from it: their losses count half."""
    module = load("multilabel/train.py")
    for classes in (DATA.CLASSES, DATA.SYNTHETIC_CLASSES):
        weights = module.objective("groups", classes)["loss_weights"]
        assert list(weights) == list(TASKS.groups(classes)) and list(weights.values()) == [1, 0.5, 0.5]

"""The multi-label networks: their two heads, the tasks, and what train.py makes of them."""

import json
import sys

import keras
import numpy as np
import pytest
from folders import load, main, predict
from keras import Input

MODULE = load("multilabel/multilabel.py")
TASKS = load("multilabel/tasks.py")
SMALL = {"groups": ({"n_filters": 8, "n_blocks": 1},), "stem": {"n_filters": 8, "kernel_size": 3, "strides": 1}}
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def test_every_group_has_its_own_softmax():
    model = MODULE.build(SMALL, (32, 32, 3))
    assert list(model.output) == ["kind", "realm", "alive"]
    outputs = model.predict(np.random.default_rng(0).normal(size=(4, 32, 32, 3)), verbose=0)
    assert [outputs[name].shape for name in ("kind", "realm", "alive")] == [(4, 10), (4, 3), (4, 2)]
    for values in outputs.values():
        np.testing.assert_allclose(values.sum(-1), 1, atol=1e-5)


def test_the_sigmoids_are_independent():
    """Each answer depends on its own weights alone, and the answers do not add up to 1."""
    model = MODULE.build(SMALL, (32, 32, 3), 10)
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3))
    before = model.predict(x, verbose=0)
    kernel, bias = model.layers[-1].get_weights()
    kernel[:, 3] += 1
    model.layers[-1].set_weights([kernel, bias])
    after = model.predict(x, verbose=0)
    assert before.shape == (4, 10) and (before > 0).all() and (before < 1).all()
    assert (after[:, 3] != before[:, 3]).all()
    np.testing.assert_array_equal(np.delete(after, 3, 1), np.delete(before, 3, 1))
    assert (abs(before.sum(-1) - 1) > 0.1).all()


@pytest.mark.usefixtures("eagerly")
def test_all_outputs_share_one_backbone():
    """The loss of any group alone moves the first convolution."""
    x, labels = np.random.default_rng(0).normal(size=(16, 32, 32, 3)), np.arange(16) % 2
    for chosen in ("kind", "realm", "alive"):
        model = MODULE.build(SMALL, (32, 32, 3))
        first = model.layers[1].kernel.numpy()
        names = dict.fromkeys(model.output)
        weights = {name: float(name == chosen) for name in names}
        model.compile("sgd", dict.fromkeys(names, "sparse_categorical_crossentropy"), loss_weights=weights)
        heads = {name: model.get_layer(name).kernel.numpy() for name in names}
        model.fit(x, dict.fromkeys(names, labels), verbose=0)
        assert (model.layers[1].kernel.numpy() != first).any()
        assert {name for name in names if (model.get_layer(name).kernel.numpy() != heads[name]).any()} == {chosen}


@pytest.mark.parametrize("classes", [{}, {"kind": 1}, {"kind": 2.5}, {"kind": "ten"}, {3: 10}, {"": 10}])
def test_groups_that_cannot_be(classes):
    with pytest.raises(ValueError, match="classes (of kind must be a whole number|must be a dictionary)"):
        MODULE.build(SMALL, (32, 32, 3), classes)


@pytest.mark.parametrize("classes", [10, None, ["kind"], "kind"])
def test_classifier_wants_a_dictionary(classes):
    with pytest.raises(ValueError, match="classes must be a dictionary"):
        MODULE.classifier(Input((4, 4, 8)), classes)


@pytest.mark.parametrize("n_classes", [1, 0, -1, 2.5, None, "ten", {"kind": 10}])
def test_multi_hot_classifier_wants_a_number(n_classes):
    with pytest.raises(ValueError, match="n_classes must be a whole number of at least 2, got"):
        MODULE.multi_hot_classifier(Input((4, 4, 8)), n_classes)


def test_backbone_is_that_of_resnet():
    """Weight by weight, up to the head."""
    resnet = load("resnet/resnet_basic.py")
    for name in ("resnet14_wide_cifar10", "resnet20_cifar10"):
        ours = MODULE.build(MODULE.METAPARAMETERS[f"multilabel_{name}"], (32, 32, 3), 10)
        theirs = resnet.build(resnet.METAPARAMETERS[name], (32, 32, 3), 10)
        ours.set_weights(theirs.get_weights())
        x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
        features = [predict(keras.Model(model.input, model.layers[-2].output), x) for model in (ours, theirs)]
        np.testing.assert_allclose(*features, atol=1e-5)


def test_groups_of_cifar10():
    """Every kind has one realm, and is an animal or not: written out here a second time."""
    realms = dict(zip(CIFAR10, "air land air land land land water land water land".split(), strict=True))
    animals = {"bird", "cat", "deer", "dog", "frog", "horse"}
    labels = TASKS.group_labels(np.arange(10), CIFAR10)
    groups = TASKS.groups(CIFAR10)
    assert list(groups) == list(labels) == ["kind", "realm", "alive"]
    for number, kind in enumerate(CIFAR10):
        found = {name: list(rows)[labels[name][number]] for name, rows in groups.items()}
        assert found == {"kind": kind, "realm": realms[kind], "alive": "animal" if kind in animals else "machine"}
    np.testing.assert_array_equal(TASKS.group_labels(np.array([6, 6, 0]), CIFAR10)["kind"], [6, 6, 0])


@pytest.mark.parametrize("name", ["CLASSES", "SYNTHETIC_CLASSES"])
def test_every_kind_is_in_one_row_of_each_group(name):
    classes = getattr(load("multilabel/data.py"), name)
    for rows in TASKS.groups(classes).values():
        assert sorted(kind for row in rows.values() for kind in row) == sorted(classes)
        assert len(rows) >= 2


def test_mosaics():
    """Images of one color each, so that every quadrant tells which image it is."""
    images = np.arange(8, dtype="uint8")[:, None, None, None] * np.ones((8, 32, 32, 3), "uint8")
    labels = np.array([0, 1, 2, 3, 4, 4, 4, 4])
    whole, shown = TASKS.mosaics(images, labels, np.array([[3, 1, 0, 2], [4, 5, 6, 0]]), 6)
    assert whole.shape == (2, 64, 64, 3) and whole.dtype == "uint8"
    assert [whole[0, r, c, 0] for r in (0, 63) for c in (0, 63)] == [3, 1, 0, 2]
    assert (whole[0, :32, 32:] == 1).all() and (whole[0, 32:, :32] == 0).all()
    np.testing.assert_array_equal(shown, [[1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 1, 0]])


def test_every_epoch_has_other_mosaics_of_all_images():
    images = np.arange(40, dtype="uint8")[:, None, None, None] * np.ones((40, 2, 2, 1), "uint8")
    batches, epochs = TASKS.Mosaics(images, np.arange(40) % 10, 10, batch_size=4, seed=3), []
    for epoch in range(3):
        batches.draw(epoch)
        assert len(batches) == 3 and [len(batches[number][0]) for number in range(3)] == [4, 4, 2]
        epochs.append(np.concatenate([batches[number][0] for number in range(3)]))
        assert sorted(epochs[-1][:, ::2, ::2, 0].ravel()) == list(range(40))
    assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[1], epochs[2])
    batches.draw(0)
    np.testing.assert_array_equal(batches[0][0], epochs[0][:4])
    batches.on_epoch_end()  # all that Keras does without the callback of train.py
    np.testing.assert_array_equal(batches[0][0], epochs[1][:4])
    other = TASKS.Mosaics(images, np.arange(40) % 10, 10, batch_size=4, seed=4)
    assert not np.array_equal(other[0][0], epochs[0][:4])


def test_average_precision():
    """By hand: hits at ranks 1, 3 and 5 have precisions of 1, 2/3 and 3/5; each is the highest from there on."""
    average_precision = load("multilabel/report.py").average_precision
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    assert average_precision(np.array([1, 0, 1, 0, 1]), scores) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert average_precision(np.array([0, 1, 1, 0, 0]), scores) == pytest.approx(2 / 3)  # 1/2 counts as 2/3
    assert average_precision(np.array([1, 1, 0, 0, 0]), scores) == 1
    assert average_precision(np.array([0, 0, 0, 0, 1]), scores) == pytest.approx(1 / 5)
    assert average_precision(np.zeros(5), scores) == 0
    assert average_precision(np.array([1, 0, 1, 0, 1])[::-1], scores[::-1]) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


def test_scores_of_mosaics_and_of_guesses():
    """Three mosaics of two classes, by hand."""
    answers = np.array([[1, 0], [1, 1], [0, 0]], "float32")
    scores = load("multilabel/report.py").mosaic_scores(answers, np.array([[0.9, 0.2], [0.4, 0.7], [0.1, 0.1]]), "ab")
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


@pytest.mark.parametrize("finished", ["multilabel"], indirect=True)
def test_saved_model_of_the_groups(finished):
    _, where, arguments, _ = finished
    out = where / arguments[-1]
    results = json.loads((out / "results.json").read_text())
    model = keras.saving.load_model(out / "model.keras", safe_mode=True)
    splits, classes = load("multilabel/train.py").data.load("synthetic", 500, 0)
    x, y = splits["test"]
    outputs = predict(model, x)
    labels = TASKS.group_labels(y, classes)
    assert list(outputs) == list(labels) == ["kind", "outline", "filled"]
    for name, probabilities in outputs.items():
        accuracy = (probabilities.argmax(-1) == labels[name]).mean()
        assert accuracy == pytest.approx(results[f"test_{name}_accuracy"], abs=1e-6)
        assert 0 <= results[f"validation_{name}_accuracy"] <= 1
    network = model.get_layer(results["model"])  # the model without its pre-stem
    assert sum(v.numpy().size for v in network.trainable_variables) == results["parameters"] == 697_263
    assert results["task"] == "groups"


@pytest.mark.usefixtures("eagerly")
def test_a_run_on_mosaics_goes_on_and_its_scores_are_right(monkeypatch, tmp_path, capsys):
    """Interrupted in its second epoch, it goes on with the mosaics of that one."""
    module = load("multilabel/train.py")
    module.MODELS["small"] = (MODULE.build, SMALL, 0.1)
    flags = ["--task", "mosaic", "--model", "small", "--data", "synthetic", "--limit", "203", "--epochs", "2"]
    flags += ["--batch-size", "64", "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["multilabel/train.py", *flags])
    on_epoch_end, seen, get = module.report.BestModel.on_epoch_end, {}, module.tasks.Mosaics.__getitem__

    def watched(self, number):
        seen.setdefault(self.epoch, []).append((self.batch_size, len(self.chosen), self.chosen[0].tolist()))
        return get(self, number)

    class Interrupted(Exception):
        pass

    def interrupt_in_the_second(callback, epoch, logs=None):
        if epoch == 1:
            raise Interrupted
        on_epoch_end(callback, epoch, logs)

    monkeypatch.setattr(module.tasks.Mosaics, "__getitem__", watched)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(module.report.BestModel, "on_epoch_end", interrupt_in_the_second)
        module.main()
    before = {epoch: list(found) for epoch, found in seen.items()}
    seen.clear()
    module.main()
    assert all(found[:2] == (16, 50) for found in before[0])  # a batch of 64 images is one of 16 mosaics; of 203 images
    assert {tuple(found[2]) for found in before[1]} == {tuple(found[2]) for found in seen[1]}
    assert [len(before[1]), len(seen[1])] == [4, 4] and before[0][0][2] != before[1][0][2]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["test_guesses"]) == {"all_zero", "all_one"} and len(results["test_average_precision"]) == 10
    model = keras.saving.load_model(tmp_path / "out" / "model.keras")
    assert model.input_shape == (None, 64, 64, 3) and model.input.dtype == "uint8" and model.output_shape == (None, 10)
    splits, classes = module.data.load("synthetic", 203, 0)
    x, answers = module.tasks.questions("mosaic", *splits["test"], classes, 0)
    yes = predict(model, x) > 0.5
    both, said, true = (yes * answers).sum(0), yes.sum(0), answers.sum(0)
    assert results["test_macro_f1"] == pytest.approx((2 * both / (said + true)).mean(), abs=1e-5)
    assert results["test_micro_f1"] == pytest.approx(2 * both.sum() / (said + true).sum(), abs=1e-5)
    assert results["test_binary_accuracy"] == pytest.approx((yes == answers).mean(), abs=1e-5)
    assert (tmp_path / "out" / "predictions.png").stat().st_size > 10_000
    assert "all_zero 0.000" in capsys.readouterr().out


@pytest.mark.parametrize("limit", [1, 3, 5])
def test_mosaics_of_a_few_images(limit):
    """Fewer than four are repeated."""
    splits, classes = load("multilabel/train.py").data.load("synthetic", limit, 0)
    for images, labels in splits.values():
        whole, shown = TASKS.questions("mosaic", images, labels, classes, 0)
        assert whole.shape == (1, 64, 64, 3) and 1 <= shown.sum() <= 4


@pytest.mark.parametrize("task", ["group", "mosaics", ""])
def test_a_task_that_does_not_exist(task, monkeypatch, capsys):
    with pytest.raises(SystemExit) as exit_:
        main("multilabel", monkeypatch, "--task", task)
    assert exit_.value.code == 2 and "--task" in capsys.readouterr().err


def test_the_two_tasks_are_two_runs(monkeypatch, tmp_path):
    module = load("multilabel/train.py")
    monkeypatch.chdir(tmp_path)
    outputs = []
    for task in ("groups", "mosaic"):
        monkeypatch.setattr(sys, "argv", ["train.py", "--task", task])
        args = module.parse_arguments()
        outputs.append(args.output)
        assert module.settings(args)["task"] == task
    assert len(set(outputs)) == 2


@pytest.mark.parametrize("batch_size, n_batches", [(128, 2), (7, 50), (1, 50)])
def test_the_learning_rate_falls_until_the_last_batch_of_mosaics(batch_size, n_batches, monkeypatch, tmp_path):
    """200 images are 50 mosaics, and a batch of 7 images is one mosaic."""
    module, caught = load("multilabel/train.py"), []
    monkeypatch.setattr(module.Model, "fit", lambda model, **named: caught.append((model, named)))
    flags = ["--task", "mosaic", "--data", "synthetic", "--limit", "200", "--epochs", "10", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["train.py", *flags, "--batch-size", str(batch_size)])
    args = module.parse_arguments()
    splits, classes = module.data.load("synthetic", 200, 0)
    module.train(args, splits, classes)
    ((model, named),) = caught
    assert len(named["x"]) == n_batches
    rates = [float(model.optimizer._learning_rate(step)) for step in range(10 * n_batches + 1)]
    assert rates[-1] == pytest.approx(0, abs=1e-6) and rates[-2] > 1e-6
    assert rates.index(max(rates)) == n_batches  # a tenth of the steps


def test_losses_have_their_weights(monkeypatch, tmp_path):
    module, caught = load("multilabel/train.py"), []
    monkeypatch.setattr(module.Model, "fit", lambda model, **named: caught.append((model, named)))
    monkeypatch.setattr(sys, "argv", ["train.py", "--data", "synthetic", "--limit", "200", "--output", str(tmp_path)])
    args = module.parse_arguments()
    splits, classes = module.data.load("synthetic", 200, 0)
    module.train(args, splits, classes)
    ((model, named),) = caught
    assert model.get_compile_config()["loss_weights"] == {"kind": 1.0, "outline": 0.5, "filled": 0.5}
    assert set(named["y"]) == set(model.output) and named["batch_size"] == 128

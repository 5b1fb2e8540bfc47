"""The Siamese network: one twin for two images, its distance, the pairs and trials, and what train.py makes of them."""

import json
import sys

import keras
import numpy as np
import pytest
from folders import load, main, random_weights
from keras import ops

MODULE = load("siamese/siamese.py")
PAIRS = load("siamese/pairs.py")
KOCH, CIFAR10 = MODULE.METAPARAMETERS["siamese_omniglot"], MODULE.METAPARAMETERS["siamese_cifar10"]
SMALL = {
    "stem": {"n_filters": 8, "kernel_size": 3},
    "groups": ({"n_layers": 1, "n_filters": 16, "kernel_size": 3},),
    "n_units": 32,
}


def images(n, size=16):
    return np.random.default_rng(0).normal(size=(n, size, size, 3)).astype("float32")


@pytest.mark.usefixtures("eagerly")
def test_the_twins_are_one_model():
    """One set of weights, used for both inputs: an image gets the same encoding on either side, also after training."""
    model = MODULE.build(SMALL, (16, 16, 3))
    twin = model.get_layer("twin")
    assert [layer.name for layer in model.layers if isinstance(layer, keras.Model)] == ["twin"]
    assert len(model.weights) == len(twin.weights) + 2  # the weights and the bias of the classifier
    x, before = images(8), twin.get_weights()
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    model.fit([x[:4], x[4:]], np.array([1, 0, 1, 0]), verbose=0)
    assert all((a != b).any() for a, b in zip(before, twin.get_weights(), strict=True))
    both = keras.Model(model.input, [twin(side) for side in model.input])
    left, right = both.predict([x, x], verbose=0)
    np.testing.assert_array_equal(left, right)


@pytest.mark.usefixtures("eagerly")
def test_both_sides_teach_the_twin():
    """The step of a pair is that of its left side plus that of its right side, the other one held still."""
    model = MODULE.build(SMALL, (16, 16, 3))
    twin, classifier, x = model.get_layer("twin"), model.layers[-1], images(4)
    start, last = twin.get_weights(), classifier.get_weights()
    still = keras.models.clone_model(twin)
    still.name, still.trainable = "still", False
    still.set_weights(start)
    steps = []
    for left, right in ((twin, still), (still, twin), (twin, twin)):
        inputs = [keras.Input((16, 16, 3)), keras.Input((16, 16, 3))]
        outputs = classifier(MODULE.l1_distance(left(inputs[0]), right(inputs[1])))
        trained = keras.Model(inputs, outputs)
        trained.compile(keras.optimizers.SGD(1.0), "binary_crossentropy")
        trained.fit([x[:2], x[2:]], np.array([1, 0]), verbose=0)
        steps.append(start[0] - twin.get_weights()[0])
        twin.set_weights(start)
        classifier.set_weights(last)
    np.testing.assert_allclose(steps[0] + steps[1], steps[2], atol=1e-6)
    assert all(abs(step).max() > 1e-5 for step in steps)


def test_swapping_the_images_gives_the_same_similarity():
    for metaparameters, shape in ((SMALL, (16, 16, 3)), (CIFAR10, (32, 32, 3))):
        model = MODULE.build(metaparameters, shape)
        x = images(8, shape[0])
        there, back = model.predict([x[:4], x[4:]], verbose=0), model.predict([x[4:], x[:4]], verbose=0)
        assert there.shape == (4, 1) and np.ptp(there) > 0
        np.testing.assert_array_equal(there, back)


def test_the_similarity_is_that_of_the_formula():
    """Section 3.1: a sigmoid of the weighted sum of |left - right|; ours has a bias too."""
    model, x = MODULE.build(SMALL, (16, 16, 3)), images(8)
    random_weights(model)
    left, right = (model.get_layer("twin").predict(side, verbose=0) for side in (x[:4], x[4:]))
    assert (left > 0).all() and (left < 1).all()
    alpha, bias = model.layers[-1].get_weights()
    expected = 1 / (1 + np.exp(-(abs(left - right) @ alpha + bias)))
    np.testing.assert_allclose(model.predict([x[:4], x[4:]], verbose=0), expected, atol=1e-6)


def test_l1_distance():
    left, right = np.array([[0.5, 1.0, 0.0]]), np.array([[1.0, 0.25, 0.0]])
    np.testing.assert_allclose(ops.convert_to_numpy(MODULE.l1_distance(left, right)), [[0.5, 0.75, 0.0]])


@pytest.mark.usefixtures("eagerly")
def test_the_gradient_at_two_equal_images_is_finite():
    x = images(4)
    for metaparameters in (SMALL, SMALL | {"batch_normalization": True, "padding": "same"}):
        model = MODULE.build(metaparameters, (16, 16, 3))
        model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
        model.fit([x, x], np.array([0, 1, 0, 0]), verbose=0)
        assert all(np.isfinite(w).all() for w in model.get_weights())
        assert model.layers[-1].get_weights()[1] != 0  # the step was taken


def test_initial_weights_of_the_paper():
    """Section 3.2: convolutions N(0, 0.01), dense layers N(0, 0.2), all biases N(0.5, 0.01)."""
    keras.utils.set_random_seed(0)
    model = MODULE.build(KOCH | {"n_units": 512})
    twin = model.get_layer("twin")
    convolutions = [layer for layer in twin.layers if isinstance(layer, keras.layers.Conv2D)]
    dense = [twin.layers[-1], model.layers[-1]]
    assert len(convolutions) == 4
    for layer in convolutions:
        kernel = layer.kernel.numpy()
        assert kernel.std() == pytest.approx(0.01, rel=0.03) and abs(kernel.mean()) < 0.001
    for layer in dense:
        kernel = layer.kernel.numpy()
        assert kernel.std() == pytest.approx(0.2, rel=0.1) and abs(kernel.mean()) < 0.03
    biases = np.concatenate([layer.bias.numpy() for layer in (*convolutions, *dense)])
    assert biases.mean() == pytest.approx(0.5, abs=0.002) and biases.std() == pytest.approx(0.01, rel=0.15)


def test_layers_of_one_shape_begin_with_different_weights():
    for kind in ("koch", "he_normal"):
        groups = 2 * ({"n_layers": 1, "n_filters": 8, "kernel_size": 3},)
        model = MODULE.build(SMALL | {"groups": groups, "initial_weights": kind}, (32, 32, 3))
        convolutions = [layer for layer in model.get_layer("twin").layers if isinstance(layer, keras.layers.Conv2D)]
        first, second = (layer.kernel.numpy() for layer in convolutions[1:])
        assert first.shape == second.shape and (first != second).all()


def test_he_normal_weights():
    model = MODULE.build(CIFAR10, (32, 32, 3))
    kernel = model.get_layer("twin").layers[-1].kernel.numpy()  # (4 x 4 x 128, 256)
    assert kernel.std() == pytest.approx((2 / 2048) ** 0.5, rel=0.02)
    assert not model.get_layer("twin").layers[-1].bias.numpy().any()


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"padding": "causal"}, 'padding must be "valid" or "same", got \'causal\''),
        ({"padding": None}, 'padding must be "valid" or "same", got None'),
        ({"initial_weights": "glorot"}, 'initial_weights must be "koch" or "he_normal", got \'glorot\''),
        ({"initial_weights": None}, 'initial_weights must be "koch" or "he_normal", got None'),
        ({"n_units": 0}, "n_units must be a whole number of at least 1, got 0"),
        ({"n_units": "many"}, "n_units must be a whole number of at least 1, got 'many'"),
        ({"groups": ()}, "groups must be a tuple of at least one group"),
        ({"groups": ({"n_filters": 8},)}, "must be a dictionary of n_layers and n_filters and kernel_size"),
        ({"groups": ({"n_layers": 0, "n_filters": 8, "kernel_size": 3},)}, "n_layers must be a whole number"),
        ({"stem": {"n_filters": -8}}, "n_filters must be a whole number of at least 1, got -8"),
        ({"stem": {"filters": 8}}, "n_filters, kernel_size"),
        ({"depth": 4}, "'depth': 4"),
        ({"groups": ({"n_layers": 1, "n_filters": 8, "kernel_size": 8},)}, "the input is too small: .* kernel of 8"),
        ({"groups": 3 * ({"n_layers": 1, "n_filters": 8, "kernel_size": 1},)}, "the input is too small: .* be halved"),
    ],
)
def test_metaparameters_that_cannot_be(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        MODULE.build(SMALL | change, (16, 16, 3))


@pytest.mark.parametrize("given", [None, {}, "siamese_omniglot", {"groups": SMALL["groups"]}, [1]])
def test_not_metaparameters(given):
    with pytest.raises(ValueError, match="metaparameters must be a dictionary of groups and n_units"):
        MODULE.build(given, (16, 16, 3))


@pytest.mark.parametrize("input_shape", [(32, 32), (None, None, 3), (32, 32, 0), (0, 32, 3), "32x32", None, 32])
def test_input_shape_that_cannot_be(input_shape):
    """A dense layer needs a size, so None is none."""
    with pytest.raises(ValueError, match="input_shape must be|too small"):
        MODULE.build(SMALL, input_shape)


def test_stem_and_learner_take_images_of_any_size():
    x = MODULE.stem(keras.Input((None, None, 3)), 8, 3)
    x = MODULE.learner(x, CIFAR10["groups"], padding="same", batch_normalization=True)
    assert x.shape == (None, None, None, 128)


def test_the_network_of_the_paper_cannot_take_images_of_cifar10():
    with pytest.raises(ValueError, match="the input is too small"):
        MODULE.build(KOCH, (32, 32, 3))


LABELS = np.random.default_rng(1).integers(0, 5, 300)


def test_pairs():
    left, right, same = PAIRS.draw_pairs(LABELS, 4_000, np.random.default_rng(0))
    assert left.shape == right.shape == same.shape == (4_000,)
    np.testing.assert_array_equal(same, LABELS[left] == LABELS[right])
    assert same.sum() == 2_000
    assert (left != right).all()  # an image is no pair with itself
    counts = np.bincount(LABELS[left])
    assert counts.min() > 700  # 800 of each class, whatever its size
    assert np.bincount(LABELS[right][same == 0]).min() > 330  # 400
    assert len(set(zip(left, right, strict=True))) > 3_500


def test_pairs_of_classes_of_one_image():
    """Nothing else is there, so it is a pair with itself; a class of two has both of its images in a pair."""
    left, right, same = PAIRS.draw_pairs(np.array([7, 3, 3]), 100, np.random.default_rng(0))
    for one, other, is_same in zip(left, right, same, strict=True):
        assert {one, other} in (({0}, {1, 2}) if is_same else ({0, 1}, {0, 2}))


def test_every_epoch_has_other_pairs():
    x = np.arange(200, dtype="uint8")[:, None, None, None] * np.ones((200, 2, 2, 1), "uint8")
    labels = np.arange(200) % 4
    batches, epochs = PAIRS.Pairs(x, labels, n_pairs=50, batch_size=20, seed=3), []
    for epoch in range(3):
        batches.draw(epoch)
        found = [batches[number] for number in range(len(batches))]
        assert [len(same) for _, same in found] == [20, 20, 10]
        pairs = np.concatenate([np.stack(pair, 1)[:, :, 0, 0, 0] for pair, _ in found])
        same = np.concatenate([same for _, same in found])
        np.testing.assert_array_equal(same, labels[pairs[:, 0]] == labels[pairs[:, 1]])
        assert same.sum() == 25
        epochs.append(pairs)
    assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[1], epochs[2])
    batches.draw(0)
    np.testing.assert_array_equal(batches[0][0][0][:, 0, 0, 0], epochs[0][:20, 0])
    batches.on_epoch_end()  # all that Keras does without the callback of train.py
    np.testing.assert_array_equal(batches[0][0][0][:, 0, 0, 0], epochs[1][:20, 0])
    other = PAIRS.Pairs(x, labels, n_pairs=50, batch_size=20, seed=4)
    assert not np.array_equal(other[0][0][0][:, 0, 0, 0], epochs[0][:20, 0])


@pytest.mark.parametrize("n_ways", [2, 5])
def test_one_shot_trials(n_ways):
    chosen, supports, answers = PAIRS.one_shot_trials(LABELS, n_ways, 2_000, np.random.default_rng(0))
    assert chosen.shape == answers.shape == (2_000,) and supports.shape == (2_000, n_ways)
    assert all(len(set(LABELS[row])) == n_ways for row in supports)  # an image of each class
    np.testing.assert_array_equal(LABELS[supports] == LABELS[chosen][:, None], np.arange(n_ways) == answers[:, None])
    assert (supports != chosen[:, None]).all()  # the one of its class is another image
    assert np.bincount(answers).min() > 0.8 * 2_000 / n_ways  # at any place, so a first guess is right by chance only
    assert np.bincount(LABELS[chosen]).min() > 300  # 400 of each class


def test_score_of_an_oracle_and_of_a_guess():
    report = load("siamese/report.py")
    labels = np.arange(200) % 10
    x = labels[:, None, None, None] * np.ones((200, 2, 2, 1))

    class Oracle:
        def predict(self, pair, verbose):
            return (pair[0] == pair[1]).all((1, 2, 3)).astype(float)[:, None]

    class Blind:
        def predict(self, pair, verbose):
            return np.ones((len(pair[0]), 1))

    assert report.score_one_shot(Oracle(), x, labels, 10, 400, 0) == 1
    assert report.score_one_shot(Blind(), x, labels, 10, 2_000, 0) == pytest.approx(0.1, abs=0.03)
    assert report.score_one_shot(Blind(), x, labels, 2, 2_000, 0) == pytest.approx(0.5, abs=0.05)


def test_hold_out():
    rng = np.random.default_rng(0)
    names = ("training", "validation", "test")
    splits = {name: (rng.normal(size=(300, 2, 2, 1)), rng.integers(0, 10, 300)) for name in names}
    kept, (x, y) = PAIRS.hold_out(splits, 10, 2, n_ways=2, seed=5)
    held_out = set(y)
    assert len(held_out) == 2
    for name, (images_kept, labels) in kept.items():
        assert not held_out & set(labels) and len(set(labels)) == 8
        is_kept = ~np.isin(splits[name][1], list(held_out))
        np.testing.assert_array_equal(images_kept, splits[name][0][is_kept])
    np.testing.assert_array_equal(x, splits["test"][0][np.isin(splits["test"][1], list(held_out))])
    everything, (x, y) = PAIRS.hold_out(splits, 10, 0, n_ways=10, seed=5)
    np.testing.assert_array_equal(y, splits["test"][1])
    assert all(len(everything[name][1]) == 300 for name in splits)
    assert any(set(PAIRS.hold_out(splits, 10, 2, 2, seed)[1][1]) != held_out for seed in range(9))


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--held-out-classes", "1"], "--held-out-classes must be 0 or 2 to 8 of the ten, got 1"),
        (["--held-out-classes", "9"], "--held-out-classes must be 0 or 2 to 8 of the ten, got 9"),
        (["--held-out-classes", "-2"], "--held-out-classes must be 0 or 2 to 8 of the ten, got -2"),
        (["--ways", "1"], "--ways must be 2 to 10, the classes of the one-shot trials, got 1"),
        (["--ways", "11"], "--ways must be 2 to 10, the classes of the one-shot trials, got 11"),
        (["--ways", "0"], "--ways must be 2 to 10, the classes of the one-shot trials, got 0"),
        (["--held-out-classes", "3", "--ways", "4"], "--ways must be 2 to 3"),
        (["--trials", "0"], "--trials must be 1 to 10000, got 0"),
        (["--model", "siamese_omniglot"], "siamese_cifar10"),  # what may be chosen
        (["--data", "synthetic", "--limit", "9", "--batch-size", "2"], "pairs need images of two classes"),
        (["--data", "synthetic", "--limit", "30", "--batch-size", "8"], "10 ways need test images of as many"),
    ],
)
def test_flags_that_cannot_be(flags, sentence, monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as exit_:
        main("siamese", monkeypatch, *flags, "--output", tmp_path)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and sentence in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("finished", ["siamese"], indirect=True)
def test_saved_model(finished):
    _, where, arguments, printed = finished
    out = where / arguments[-1]
    results = json.loads((out / "results.json").read_text())
    model = keras.saving.load_model(out / "model.keras", safe_mode=True)
    assert [inputs.dtype for inputs in model.inputs] == ["uint8", "uint8"] and model.output_shape == (None, 1)
    report, data = load("siamese/report.py"), load("siamese/train.py").data
    splits, _ = data.load("synthetic", 500, 0)
    (left, right), same = report.fixed_pairs(splits["test"], 0)
    similarity = model.predict((left, right), verbose=0)
    assert ((similarity[:, 0] > 0.5) == same).mean() == pytest.approx(results["test_accuracy"], abs=1e-6)
    np.testing.assert_allclose(model.predict((right, left), verbose=0), similarity, atol=1e-6)
    assert (results["ways"], results["trials"], results["held_out_classes"]) == (10, 1_000, 0)
    assert results["one_shot_chance"] == 0.1 and len(results["one_shot_classes"]) == 10 and "chance 10.00%" in printed
    one_shot = report.score_one_shot(model, *splits["test"], 10, 1_000, 0)
    assert results["one_shot_accuracy"] == pytest.approx(one_shot, abs=2e-3)
    network = model.get_layer(results["model"])
    assert sum(v.numpy().size for v in network.trainable_variables) == results["parameters"] == 802_977
    mean, variance = splits["training"][0].mean((0, 1, 2)), splits["training"][0].var((0, 1, 2))
    normalized = [((side - mean) / np.sqrt(variance)).astype("float32") for side in (left, right)]
    np.testing.assert_allclose(network.predict(normalized, verbose=0), similarity, atol=1e-4)


@pytest.mark.usefixtures("eagerly")
def test_classes_held_out_are_never_seen_and_the_run_goes_on(monkeypatch, tmp_path):
    """Interrupted in its second epoch, it goes on with the pairs of that one."""
    module = load("siamese/train.py")
    module.MODELS["small"] = (MODULE.build, SMALL, 0.1)
    flags = ["--model", "small", "--data", "synthetic", "--limit", "300", "--epochs", "2", "--batch-size", "50"]
    flags += ["--held-out-classes", "3", "--trials", "50", "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["siamese/train.py", *flags])
    on_epoch_end, get, seen, labels = module.report.BestModel.on_epoch_end, module.pairs.Pairs.__getitem__, {}, set()

    def watched(self, number):
        seen.setdefault(self.epoch, []).append(self.drawn[0].tolist())
        labels.update(self.labels.tolist())
        return get(self, number)

    class Interrupted(Exception):
        pass

    def interrupt_in_the_second(callback, epoch, logs=None):
        if epoch == 1:
            raise Interrupted
        on_epoch_end(callback, epoch, logs)

    monkeypatch.setattr(module.pairs.Pairs, "__getitem__", watched)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(module.report.BestModel, "on_epoch_end", interrupt_in_the_second)
        module.main()
    interrupted, seen[1] = seen[1], []
    module.main()
    assert len(interrupted) == len(seen[1]) == 3 and interrupted == seen[1] and interrupted[0] != seen[0][0]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    classes = module.data.SYNTHETIC_CLASSES
    assert len(results["one_shot_classes"]) == 3 == results["ways"] and len(labels) == 7
    assert not {classes[label] for label in labels} & set(results["one_shot_classes"])
    assert results["one_shot_chance"] == pytest.approx(1 / 3)

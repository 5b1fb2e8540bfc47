"""The Siamese network: one twin for two images, its distance, the pairs and trials, and what train.py makes of them."""

import functools
import json

import keras
import numpy as np
import pytest
from folders import load, main, predict, random_weights
from keras import ops

MODULE = load("siamese/siamese.py")
PAIRS, PICTURES = load("siamese/pairs.py"), load("siamese/similarities.py")
KOCH, CIFAR10 = MODULE.METAPARAMETERS["siamese_omniglot"], MODULE.METAPARAMETERS["siamese_cifar10"]
SMALL = {
    "stem": {"n_filters": 8, "kernel_size": 3},
    "groups": ({"n_layers": 1, "n_filters": 16, "kernel_size": 3},),
    "n_units": 32,
}


def images(n, size=16):
    return np.random.default_rng(0).normal(size=(n, size, size, 3)).astype("float32")


def step(model, x, y, rate=0.1):
    model.compile(keras.optimizers.SGD(rate), "binary_crossentropy", run_eagerly=True)  # does not pay for a graph
    model.train_on_batch(x, y)


def test_the_twins_are_one_model():
    """One set of weights, used for both inputs: an image gets the same encoding on either side, also after training."""
    model = MODULE.build(SMALL, (16, 16, 3))
    twin = model.get_layer("twin")
    assert [layer.name for layer in model.layers if isinstance(layer, keras.Model)] == ["twin"]
    assert len(model.weights) == len(twin.weights) + 2  # the weights and the bias of the classifier
    x, before = images(8), twin.get_weights()
    step(model, [x[:4], x[4:]], np.array([1, 0, 1, 0]))
    assert all((a != b).any() for a, b in zip(before, twin.get_weights(), strict=True))
    left, right = predict(keras.Model(model.input, [twin(side) for side in model.input]), [x, x])
    np.testing.assert_array_equal(left, right)


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
        step(keras.Model(inputs, outputs), [x[:2], x[2:]], np.array([1, 0]), rate=1.0)
        steps.append(start[0] - twin.get_weights()[0])
        twin.set_weights(start)
        classifier.set_weights(last)
    np.testing.assert_allclose(steps[0] + steps[1], steps[2], atol=1e-6)
    assert all(abs(moved).max() > 1e-5 for moved in steps)


def test_swapping_the_images_gives_the_same_similarity():
    model, x = MODULE.build(CIFAR10, (32, 32, 3)), images(8, 32)
    there, back = predict(model, [x[:4], x[4:]]), predict(model, [x[4:], x[:4]])
    assert there.shape == (4, 1) and np.ptp(there) > 0
    np.testing.assert_array_equal(there, back)


def test_the_similarity_is_that_of_the_formula():
    """Section 3.1: a sigmoid of the weighted sum of |left - right|; ours has a bias too."""
    model, x = MODULE.build(SMALL, (16, 16, 3)), images(8)
    random_weights(model)
    left, right = (predict(model.get_layer("twin"), side) for side in (x[:4], x[4:]))
    assert (left > 0).all() and (left < 1).all()
    alpha, bias = model.layers[-1].get_weights()
    expected = 1 / (1 + np.exp(-(abs(left - right) @ alpha + bias)))
    np.testing.assert_allclose(predict(model, [x[:4], x[4:]]), expected, atol=1e-6)


def test_l1_distance():
    left, right = np.array([[0.5, 1.0, 0.0]]), np.array([[1.0, 0.25, 0.0]])
    np.testing.assert_allclose(ops.convert_to_numpy(MODULE.l1_distance(left, right)), [[0.5, 0.75, 0.0]])


def test_the_gradient_at_two_equal_images_is_finite():
    x = images(4)
    for metaparameters in (SMALL, SMALL | {"batch_normalization": True, "padding": "same"}):
        model = MODULE.build(metaparameters, (16, 16, 3))
        step(model, [x, x], np.array([0, 1, 0, 0]))
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


def test_the_weights_of_the_paper_saturate_the_encoding():
    """The header says so: 66 to 67% of the sigmoids, here of images of the same size that are no photographs."""
    keras.utils.set_random_seed(0)
    twin = MODULE.twin(KOCH | {"n_units": 512})
    encodings = predict(twin, np.random.default_rng(0).uniform(size=(4, 7, 7, 1)).repeat(15, 1).repeat(15, 2))
    saturated = ((encodings < 0.01) | (encodings > 0.99)).mean()
    assert saturated == pytest.approx(0.665, abs=0.1) and "66 to 67%" in MODULE.__doc__


def test_layers_of_one_shape_begin_with_different_weights():
    for kind in ("koch", "he_normal"):
        groups = 2 * ({"n_layers": 1, "n_filters": 8, "kernel_size": 3},)
        twin = MODULE.twin(SMALL | {"groups": groups, "initial_weights": kind}, (32, 32, 3))
        first, second = (twin.get_layer(f"group_{i}_1").kernel.numpy() for i in (1, 2))
        assert first.shape == second.shape and (first != second).all()


def test_he_normal_weights():
    dense = MODULE.twin(CIFAR10, (32, 32, 3)).layers[-1]
    assert dense.kernel.numpy().std() == pytest.approx((2 / 2048) ** 0.5, rel=0.02)  # (4 x 4 x 128, 256)
    assert not dense.bias.numpy().any()


def test_stem_and_learner_take_images_of_any_size():
    x = MODULE.stem(keras.Input((None, None, 3)), 8, 3)
    x = MODULE.learner(x, CIFAR10["groups"], padding="same", batch_normalization=True)
    assert x.shape == (None, None, None, 128)


LABELS = np.random.default_rng(1).integers(0, 5, 300)


def test_pairs():
    same = np.arange(4_000) % 2
    left, right = PAIRS.draw_pairs(LABELS, same, np.random.default_rng(0))
    assert left.shape == right.shape == (4_000,)
    np.testing.assert_array_equal(same, LABELS[left] == LABELS[right])
    assert (left != right).all()  # an image is no pair with itself
    counts = np.bincount(LABELS[left])
    assert counts.min() > 700  # 800 of each class, whatever its size
    assert np.bincount(LABELS[right][same == 0]).min() > 330  # 400
    assert len(set(zip(left, right, strict=True))) > 3_500


def test_pairs_of_classes_of_one_image():
    """Nothing else is there, so it is a pair with itself; a class of two has both of its images in a pair."""
    same = np.arange(100) % 2
    drawn = PAIRS.draw_pairs(np.array([7, 3, 3]), same, np.random.default_rng(0))
    for one, other, is_same in zip(*drawn, same, strict=True):
        assert {one, other} in (({0}, {1, 2}) if is_same else ({0, 1}, {0, 2}))


def test_every_epoch_has_other_pairs():
    x = np.arange(100, dtype="uint8")[:, None, None, None] * np.ones((100, 2, 2, 1), "uint8")
    labels = np.arange(100) % 4

    def numbers(batches, epoch):
        batches.start(epoch)
        found = [batches[i] for i in range(len(batches))]
        for (left, right), same in found:
            np.testing.assert_array_equal(same, labels[left[:, 0, 0, 0]] == labels[right[:, 0, 0, 0]])
        return [len(same) for _, same in found], np.concatenate([left[:, 0, 0, 0] for (left, _), _ in found]), sum(
            same.sum() for _, same in found
        )

    batches = PAIRS.training_pairs((x, labels), 20, seed=3)
    sizes, first, n_same = numbers(batches, 0)
    assert sizes == [20, 20, 10] and n_same == 25  # 50 pairs show as many images as there are
    assert not np.array_equal(numbers(batches, 1)[1], first)
    np.testing.assert_array_equal(numbers(PAIRS.training_pairs((x, labels), 20, seed=3), 0)[1], first)
    assert not np.array_equal(numbers(PAIRS.training_pairs((x, labels), 20, seed=4), 0)[1], first)
    fixed = PAIRS.fixed_pairs((x, labels), 64, seed=3)
    sizes, first, n_same = numbers(fixed, 0)
    assert sizes == [64, 36] and n_same == 50
    np.testing.assert_array_equal(numbers(fixed, 1)[1], first)  # of the validation images, in every epoch


@pytest.mark.parametrize("n_ways", [2, 5])
def test_one_shot_trials(n_ways):
    chosen, supports, answers = PAIRS.one_shot_trials(LABELS, n_ways, 2_000, np.random.default_rng(0))
    assert chosen.shape == answers.shape == (2_000,) and supports.shape == (2_000, n_ways)
    assert all(len(set(LABELS[row])) == n_ways for row in supports)  # an image of each class
    np.testing.assert_array_equal(LABELS[supports] == LABELS[chosen][:, None], np.arange(n_ways) == answers[:, None])
    assert (supports != chosen[:, None]).all()  # the one of its class is another image
    assert np.bincount(answers).min() > 0.8 * 2_000 / n_ways  # at any place, so a first guess is right by chance only
    assert np.bincount(LABELS[chosen]).min() > 300  # 400 of each class


class Oracle:
    """Images of one class are the same images, so it knows."""

    def similarity(self, left, right):
        return (left == right).all((1, 2, 3)).astype(float)[:, None]

    def predict(self, batches, verbose):
        return np.concatenate([self.similarity(*batches[i][0]) for i in range(len(batches))])


class Blind(Oracle):
    def similarity(self, left, right):
        return np.ones((len(left), 1))


@pytest.mark.parametrize(
    "model, n_ways, n_trials, expected", [(Oracle(), 10, 400, 1), (Blind(), 10, 2_000, 0.1), (Blind(), 2, 2_000, 0.5)]
)
def test_one_shot_similarities_of_an_oracle_and_of_a_guess(model, n_ways, n_trials, expected):
    labels = np.arange(200) % 10
    x = labels[:, None, None, None] * np.ones((200, 2, 2, 1))
    chosen, supports, answers = PAIRS.one_shot_trials(labels, n_ways, n_trials, np.random.default_rng(0))
    similarities = PAIRS.one_shot_similarities(model, x, chosen, supports)
    assert similarities.shape == (n_trials, n_ways)
    assert (similarities.argmax(1) == answers).mean() == pytest.approx(expected, abs=0.05 * (expected < 1))


def brightness_model():
    """The similarity of two images is 1 less the difference of their mean brightness, 0 to 1."""
    left, right = keras.Input((2, 2, 3)), keras.Input((2, 2, 3))
    means = [ops.mean(side, (1, 2, 3), keepdims=True)[:, :, 0, 0] / 255 for side in (left, right)]
    return keras.Model([left, right], 1 - ops.abs(means[0] - means[1]))


@pytest.mark.parametrize("spread, tolerance", [(0, 1e-6), (60, 0.03)])
def test_mean_similarities(spread, tolerance):
    """Exact if the images of a class are equal; else near the mean of all pairs of different images."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([1, 4, 8], [60, 200, 340]))
    brightness = np.choose(np.searchsorted([1, 4, 8], labels), [20, 180, 90]) + rng.integers(0, spread + 1, 600)
    x = brightness[:, None, None, None] * np.ones((600, 2, 2, 3))
    found = PAIRS.mean_similarities(brightness_model(), x, labels, seed=0)
    similarity = 1 - abs(brightness[:, None] - brightness) / 255
    different = ~np.eye(600, dtype=bool)
    expected = [[similarity[(labels[:, None] == a) & (labels == b) & different].mean() for b in (1, 4, 8)]
                for a in (1, 4, 8)]
    np.testing.assert_allclose(found, expected, atol=tolerance)
    np.testing.assert_array_equal(found, found.T)


def test_images_of_one_class_are_compared_with_others():
    """With two images in each class, and another brightness for each, the diagonal is known."""
    labels, brightness = np.array([0, 1, 0, 1]), np.array([0, 100, 51, 151])
    x = brightness[:, None, None, None] * np.ones((4, 2, 2, 3))
    found = PAIRS.mean_similarities(brightness_model(), x, labels, seed=0)
    np.testing.assert_allclose(np.diag(found), [1 - 51 / 255, 1 - 51 / 255], atol=1e-6)


def test_the_cells_of_the_matrix_are_percents():
    means = np.array([[0.9, 0.123], [0.123, 0.5]])
    (axes,) = PICTURES.classes_figure(means, ["cat", "$dog$"]).axes
    cells = {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "90", (1, 0): "12", (0, 1): "12", (1, 1): "50"}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "$dog$"]


@pytest.mark.parametrize("n_ways, n_shown", [(10, 6), (3, 12), (2, 18)])
def test_the_most_similar_image_of_a_trial_is_framed(n_ways, n_shown):
    rng = np.random.default_rng(0)
    labels, x = np.arange(60) % 10, rng.integers(0, 256, (60, 4, 4, 3))
    names = [f"class {i}" for i in range(10)]
    trials = chosen, supports, answers = PAIRS.one_shot_trials(labels, n_ways, 20, rng)
    similarities = rng.uniform(size=(20, n_ways))
    similarities[::2][range(10), answers[::2]] = 1  # half of them are right
    blocks = PICTURES.trials_figure(x, labels, names, trials, similarities).subfigs
    assert len(blocks) == n_shown and not any(block.axes for block in blocks[20:])
    verdicts = set()
    for i, (query, *others) in enumerate(block.axes for block in blocks[:20]):
        np.testing.assert_array_equal(query.images[0].get_array(), x[chosen[i]])
        for axes, support in zip(others, supports[i], strict=True):
            np.testing.assert_array_equal(axes.images[0].get_array(), x[support])
            assert axes.get_xlabel() == names[labels[support]]
            assert (axes.xaxis.label.get_weight() == "bold") == (labels[support] == labels[chosen[i]])
        assert [axes.get_title() for axes in others] == [f"{p:.2f}" for p in similarities[i]]
        assert [axes.get_frame_on() for axes in others] == list(np.arange(n_ways) == similarities[i].argmax())
        is_right = names[labels[chosen[i]]] == others[similarities[i].argmax()].get_xlabel()
        assert query.get_title() == ("right" if is_right else "wrong") and not query.get_frame_on()
        verdicts.add(query.get_title())
    assert verdicts == {"right", "wrong"}


def test_a_figure_of_few_trials():
    labels, x = np.arange(4) % 2, np.zeros((4, 4, 4, 3), "uint8")
    trials = PAIRS.one_shot_trials(labels, 2, 1, np.random.default_rng(0))
    blocks = PICTURES.trials_figure(x, labels, ["a", "b"], trials, np.array([[0.2, 0.1]])).subfigs
    assert [len(block.axes) for block in blocks] == [3] + 17 * [0]


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
        (["--held-out-classes", "1"], "argument --held-out-classes: invalid choice: 1"),
        (["--held-out-classes", "9"], "argument --held-out-classes: invalid choice: 9"),
        (["--ways", "11"], "argument --ways: must be a whole number from 2 to 10, got 11"),
        (["--held-out-classes", "3", "--ways", "4"], "--ways must be at most 3, the classes of the one-shot trials"),
        (["--trials", "0"], "argument --trials: must be a whole number from 1 to 10000, got 0"),
        (["--model", "siamese_omniglot"], "argument --model: invalid choice: 'siamese_omniglot'"),
        (["--data", "synthetic", "--limit", "9", "--batch-size", "2"], "pairs need images of two classes, the valid"),
        (["--data", "synthetic", "--limit", "30", "--batch-size", "8"], "10 ways need test images of as many classes"),
    ],
)
def test_flags_that_are_refused(flags, sentence, monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as exit_:
        main("siamese", monkeypatch, *flags, "--output", tmp_path)
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert exit_.value.code == 2 and error.startswith(f"train.py: error: {sentence}")
    assert not list(tmp_path.iterdir())


def noting(drawn, figure):
    """Return the function of a figure, which notes what it is given."""

    @functools.wraps(figure)
    def note(*given):
        drawn[figure.__name__] = given
        return figure(*given)

    return note


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_classes_held_out_are_never_seen(monkeypatch, tmp_path):
    module, seen = load("siamese/train.py"), set()
    module.MODELS["small"] = (MODULE.build, SMALL)
    training_pairs = module.pairs.training_pairs

    def watched(split, batch_size, seed):
        seen.update(split[1].tolist())
        return training_pairs(split, batch_size, seed)

    monkeypatch.setattr(module.pairs, "training_pairs", watched)
    drawn = {}
    for figure in (module.similarities.classes_figure, module.similarities.trials_figure):
        monkeypatch.setattr(module.similarities, figure.__name__, noting(drawn, figure))
    flags = ["--model", "small", "--data", "synthetic", "--limit", "300", "--epochs", "1", "--batch-size", "50"]
    flags += ["--held-out-classes", "3", "--trials", "50", "--output", tmp_path]
    main("siamese", monkeypatch, *flags, module=module)
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["one_shot_classes"]) == 3 == results["ways"] and len(seen) == 7
    assert not {module.data.SYNTHETIC_CLASSES[label] for label in seen} & set(results["one_shot_classes"])
    assert results["one_shot_chance"] == pytest.approx(1 / 3)
    means, names = drawn["classes_figure"]
    assert names == [module.data.SYNTHETIC_CLASSES[label] for label in sorted(seen)] and means.shape == (7, 7)
    _, labels, classes, (_, _, answers), of_trials = drawn["trials_figure"]
    assert {classes[label] for label in labels} == set(results["one_shot_classes"])
    assert (of_trials.argmax(1) == answers).mean() == pytest.approx(results["one_shot_accuracy"])  # they are scored
    assert {"similarity.png", "one_shot.png", "predictions.png"} <= {path.name for path in tmp_path.iterdir()}

"""Every train.py: what it compiles and fits, what it keeps, that its loss falls."""

import csv
import json
import sys

import keras
import numpy as np
import pytest
from folders import CLASSIFIERS, FOLDERS, ROOT, load, main
from networks import TRAINED


def rows(path):
    with open(path, newline="") as file:
        return [{k: v if k == "step" else float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def fitted(folder, monkeypatch, tmp_path, *flags):
    """Return (module, args, the model that train() of a train.py would fit, the one it would keep)."""
    module, caught = load(f"{folder}/train.py"), []
    monkeypatch.setattr(module.Model, "fit", lambda model, *args, **named: caught.append((model, named)))
    monkeypatch.setattr(module.run, "best", lambda args: None)
    parse = module.run.parse
    parsed = []
    monkeypatch.setattr(module.run, "parse", lambda *a, **k: parsed.append(parse(*a, **k)) or parsed[0])
    monkeypatch.setattr(module.report, "write", lambda *args: None)

    class Trained(Exception):
        pass

    def stop(*args):
        raise Trained

    monkeypatch.setattr(module.run, "best", stop)
    with pytest.raises(Trained):
        main(folder, monkeypatch, "--data", "synthetic", *flags, "--output", tmp_path, module=module)
    ((model, named),) = caught
    (keep,) = (w for w in named["callbacks"] if isinstance(w, module.run.KeepBest))
    return module, parsed[0], model, keep.kept, named


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f not in ("autoencoder", "rcnn")])
def test_what_is_compiled_is_what_the_hyperparameters_say(folder, monkeypatch, tmp_path):
    module, args, model, kept, named = fitted(folder, monkeypatch, tmp_path, "--epochs", "10", "--limit", "900")
    top, decay = 0.1, 5e-4
    images = 450 if folder == "siamese" else 900  # or pairs of them
    optimizer, steps = model.optimizer, 10 * -(-images // args.batch_size)
    assert isinstance(optimizer, keras.optimizers.SGD) and optimizer.nesterov and optimizer.momentum == 0.9
    rates = [float(optimizer._learning_rate(step)) for step in range(steps + 1)]
    assert rates[0] == pytest.approx(top / 10) and rates[-1] == pytest.approx(0, abs=1e-6)
    warmup = max(1, round(steps / 10))
    assert max(rates) == pytest.approx(top) and rates.index(max(rates)) == warmup
    assert rates[:warmup] == sorted(rates[:warmup]) and rates[warmup:] == sorted(rates[warmup:], reverse=True)

    decayed = [variable for variable in model.trainable_variables if variable.regularizer is not None]
    assert [id(variable) for variable in decayed] == [id(v) for v in model.trainable_variables if v.name == "kernel"]
    penalty = sum(float(loss) for loss in model.losses)
    squares = sum(float((variable.numpy() ** 2).sum()) for variable in decayed)
    assert penalty == pytest.approx(decay / 2 * squares, rel=1e-4)  # whose gradient is decay times the kernel

    assert named["shuffle"] is False and named["epochs"] == 10
    assert kept.optimizer.built and float(kept.optimizer.learning_rate) == pytest.approx(top / 10)  # and constant
    ours, theirs = ({id(v) for v in m.trainable_variables} for m in (kept, model))
    assert ours == theirs if folder != "inception" else ours < theirs
    random = {"RandomFlip", "RandomShift"}
    assert random <= {type(layer).__name__ for layer in model.layers}
    assert not random & {type(layer).__name__ for layer in kept.layers}
    assert {args.model, "normalization"} < {layer.name for layer in kept.layers}


@pytest.mark.parametrize("folder", [f for f in FOLDERS if f != "rcnn"])
def test_nothing_is_float64(folder, monkeypatch, tmp_path):
    """PyTorch on Apple's GPUs takes no array of that type."""
    _, _, _, kept, named = fitted(folder, monkeypatch, tmp_path, "--epochs", "1", "--limit", "90")
    arrays = keras.tree.flatten(named["validation_data"][0])
    normalization = kept.get_layer("normalization")
    arrays += [normalization.input_mean, normalization.input_variance]
    assert len(arrays) >= 4 and "float64" not in {str(array.dtype) for array in arrays}


def test_pre_stem():
    module = load("vgg/train.py")  # the same function in every classifier, by test_copies.py
    mean, variance = np.array([10.0, 20.0, 30.0]), np.array([4.0, 9.0, 16.0])
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, module.pre_stem(inputs, mean, variance))
    for size in (32, 21):
        x = np.random.default_rng(0).integers(0, 256, (4, size, size, 3)).astype("uint8")
        np.testing.assert_allclose(model.predict(x, verbose=0), (x - mean) / np.sqrt(variance), atol=1e-4)


def test_augmentation():
    module = load("vgg/train.py")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 16, 3))
    model = keras.Model(inputs, module.augmentation(inputs))
    x = np.random.default_rng(0).normal(size=(300, 32, 16, 3)).astype("float32")
    np.testing.assert_array_equal(model.predict(x, verbose=0), x)  # in training alone

    flips, shifts = [], []
    for image, changed in zip(x, keras.ops.convert_to_numpy(model(x, training=True)), strict=True):
        padded = np.pad(image, ((4, 4), (2, 2), (0, 0)))  # zeros come in from outside
        crops = {
            (flip, row, column): padded[:, :: -1 if flip else 1][row : row + 32, column : column + 16]
            for flip in (False, True)
            for row in range(9)
            for column in range(5)
        }
        ((flip, *shift),) = [key for key, crop in crops.items() if np.array_equal(crop, changed)]  # just one
        flips.append(flip)
        shifts.append(tuple(shift))
    assert 100 < sum(flips) < 200
    rows, columns = np.transpose(shifts)
    for found, n in ((rows, 9), (columns, 5)):  # all alike
        counts = np.bincount(found, minlength=n)
        assert len(counts) == n and (np.abs(counts - 300 / n) < 4 * np.sqrt(300 / n)).all()
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.25  # rows and columns are drawn apart


@pytest.mark.slow
def test_a_network_without_batch_normalization_leaves_the_loss_of_a_guess(monkeypatch, tmp_path):
    """The loss of a uniform guess is ln 10 = 2.303. VGG-11 is an eighth as wide here; some seeds need more epochs."""
    module = load("vgg/train.py")
    build, metaparameters = module.MODELS["vgg11"]
    groups = tuple(group | {"n_filters": group["n_filters"] // 8} for group in metaparameters["groups"])
    module.MODELS["narrow"] = (build, {"groups": groups, "n_units": (512, 512)})
    module.LEARNING_RATE["narrow"] = module.LEARNING_RATE["vgg11"]
    flags = ["--model", "narrow", "--data", "synthetic", "--epochs", "3", "--batch-size", "32", "--seed", "2"]
    main("vgg", monkeypatch, *flags, "--output", tmp_path, module=module)
    assert json.loads((tmp_path / "results.json").read_text())["test_loss"] < 2.2


def test_squeezenet_leaves_the_loss_of_a_guess():
    """In the log of its run on CIFAR-10, whose losses hold weight decay, and smoothed labels, too."""
    history = rows(ROOT / "squeezenet" / "results" / "history.csv")
    assert history[0]["val_accuracy"] > 0.25 and all(row["val_loss"] < 2.303 for row in history[1:])
    assert all(row["val_accuracy"] > 0.25 for row in history)  # and it never comes back


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_inception_is_trained_with_its_auxiliary_classifiers_and_kept_without(monkeypatch, tmp_path):
    module = load("inception/train.py")
    flags, _ = TRAINED["inception"](module, epochs=2)
    main("inception", monkeypatch, *flags, "--output", tmp_path, module=module)
    history = rows(tmp_path / "history.csv")
    names = ("main", "auxiliary_1", "auxiliary_2")
    for row in history:
        assert all(0 <= row[f"val_{name}_accuracy"] <= 1 and row[f"{name}_loss"] > 0 for name in names)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["validation_accuracy"] == pytest.approx(max(row["val_main_accuracy"] for row in history), abs=1e-6)
    build, metaparameters = module.MODELS["tiny"]
    alone = build(metaparameters, (32, 32, 3), 10)
    assert results["parameters"] == sum(v.numpy().size for v in alone.trainable_variables)
    kept = keras.saving.load_model(tmp_path / "model.keras")
    assert kept.output_shape == (None, 10)


@pytest.mark.parametrize("model, n_heads", [("inception_v1_cifar10", 2), ("inception_v3_cifar10", 1)])
def test_the_weights_of_the_auxiliary_classifiers(model, n_heads, monkeypatch, tmp_path):
    _, _, fitted_model, _, named = fitted("inception", monkeypatch, tmp_path, "--limit", "200", "--model", model)
    weights = {"main": 1.0} | {f"auxiliary_{i + 1}": 0.3 for i in range(n_heads)}  # section 5 of Inception v1
    assert fitted_model.get_compile_config()["loss_weights"] == weights
    for batches in (named["x"] if "x" in named else None, named["validation_data"]):
        if batches is not None:
            _, labels = batches[0]
            assert set(labels) == set(weights) == set(fitted_model.output)


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_defaults_are_models_that_there_are(folder):
    module = load(f"{folder}/train.py")
    assert module.MODEL in module.MODELS and module.MODEL in sys.intern(module.__doc__ + module.MODEL)
    rates = module.LEARNING_RATE if isinstance(module.LEARNING_RATE, dict) else dict.fromkeys(module.MODELS, 0.1)
    assert set(rates) == set(module.MODELS)

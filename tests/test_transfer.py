"""Transfer learning: which weights a network begins with, what learns in each of the two steps, and how it resumes."""

import json
import re
import types

import keras
import numpy as np
import pytest
from folders import CLASSIFIERS, all_layers, load, main
from networks import SMALL, TRAINED, once
from photos import error_of, write_photos

transfer = load("vgg/transfer.py")  # the same file in every classifier's folder, by test_copies.py


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes with 12 photos each."""
    return write_photos(tmp_path_factory.mktemp("photos"), {"a": 12, "b": 12, "c": 12})


def train(folder, monkeypatch, output, *flags, module=None, epochs=1):
    """Run the train.py of a folder on its network "tiny"; return the module."""
    module = module or load(f"{folder}/train.py")
    tiny, _ = TRAINED[folder](module, epochs)
    main(folder, monkeypatch, *tiny, *flags, "--output", output, module=module)
    return module


def network_of(path):
    """Return {layer: weights} of the network of a run, and its model."""
    model = keras.saving.load_model(path / "model.keras")
    (network,) = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return {layer.name: layer.get_weights() for layer in network.layers if layer.weights}, model


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The run of a tiny ResNet on ten classes of synthetic images."""
    where = tmp_path_factory.mktemp("first") / "run"
    with pytest.MonkeyPatch.context() as monkeypatch:
        train("resnet", monkeypatch, where, epochs=3)
    return where


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def observed(module):
    """Let the fit of a train.py note {step: (rates, weights before, weights after)} of the network."""
    seen, fit = [], module.Model.fit

    def watched(model, training, **named):
        (network,) = [layer for layer in model.layers if isinstance(layer, keras.Model)]
        before = {layer.name: layer.get_weights() for layer in network.layers if layer.weights}
        rate, n = model.optimizer._learning_rate, (named["epochs"] - named["initial_epoch"]) * len(training)
        rates = [float(rate(i)) for i in range(n + 1)]
        fit(model, training, **named)
        after = {layer.name: layer.get_weights() for layer in network.layers if layer.weights}
        seen.append((rates, before, after, named))

    module.Model.fit = watched
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("folder", CLASSIFIERS)
@pytest.mark.usefixtures("eagerly")
def test_two_steps(folder, photos, monkeypatch, tmp_path):
    """The classifier, then the last group too at a tenth of the rate; nothing else moves, nor batch normalization."""
    train(folder, monkeypatch, tmp_path / "first", epochs=2)
    module = load(f"{folder}/train.py")
    with monkeypatch.context() as patched:
        patched.setattr(module.Model, "fit", module.Model.fit)  # to be undone
        seen = observed(module)
        flags = ["--data", photos, "--weights", tmp_path / "first", "--limit", 24, "--learning-rate", 0.04]
        train(folder, monkeypatch, tmp_path / "second", *flags, module=module, epochs=2)
    source, _ = network_of(tmp_path / "first")
    (rates, before, after_1, named_1), (rates_2, before_2, after_2, named_2) = seen
    last = [name for name, weights in before.items() if weights][-1]
    head = [name for name in before if name.startswith("classifier_")]
    assert last in head and source[last][0].shape[-1] == 10 and before[last][0].shape[-1] == 3
    assert all(same(weights, source[name]) for name, weights in before.items() if name != last)

    assert [named_1[name] for name in ("initial_epoch", "epochs")] == [0, 2]
    assert [named_2[name] for name in ("initial_epoch", "epochs")] == [2, 4]
    assert max(rates) == pytest.approx(0.04) and max(rates_2) == pytest.approx(0.004)
    assert all(same(weights, before[name]) != (name in head) for name, weights in after_1.items())
    assert all(same(weights, after_1[name]) for name, weights in before_2.items())
    groups = sorted({name.rsplit("_", 1)[0] for name in before if re.match(r"group_\d_", name)})
    normalizations = {
        layer.name
        for layer in all_layers(network_of(tmp_path / "second")[1])
        if isinstance(layer, keras.layers.BatchNormalization)
    }
    assert normalizations
    for name, weights in after_2.items():
        learns = name in head or name.startswith(f"{groups[-1]}_") and name not in normalizations
        assert same(weights, before_2[name]) != learns, name

    with open(tmp_path / "second" / "history.csv") as file:
        history = file.read().split()
    assert [row.split(",")[0] for row in history] == ["epoch", "0", "1", "2", "3"]
    results = json.loads((tmp_path / "second" / "results.json").read_text())
    assert results["weights"] == str(tmp_path / "first") and results["classes"] == ["a", "b", "c"]
    for name in ("mean", "variance"):  # those that the weights were learned with
        expected = json.loads((tmp_path / "first" / "results.json").read_text())[name]
        np.testing.assert_allclose(results[name], expected, rtol=1e-5)
    kept, model = network_of(tmp_path / "second")
    assert results["parameters"] == sum(v.numpy().size for v in model.trainable_variables)
    _, first_model = network_of(tmp_path / "first")
    ours, theirs = (
        {layer.name for layer in all_layers(m) if layer.trainable_variables} for m in (model, first_model)
    )
    assert ours == theirs  # for whoever trains it on
    best = [float(row.split(",")[history[0].split(",").index("val_accuracy")]) for row in history[1:]]
    assert results["validation_accuracy"] == pytest.approx(max(best), abs=1e-6)
    assert model.optimizer.built
    others = [name for name in kept if not name.startswith(("classifier_", f"{groups[-1]}_"))]
    assert others and all(same(kept[name], source[name]) for name in others)


def interrupted(module, epoch_to_interrupt):
    """Let a train.py be interrupted when it begins an epoch."""
    on_epoch_begin = module.run.Epochs.on_epoch_begin

    def begin(callback, epoch, logs=None):
        if epoch == epoch_to_interrupt:
            raise KeyboardInterrupt
        on_epoch_begin(callback, epoch, logs)

    module.run.Epochs.on_epoch_begin = begin
    return module


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_each_step_resumes(first, photos, monkeypatch, capsys, tmp_path):
    """Interrupted in the first step, between the two, and in the second, it ends as a whole run does."""
    flags = ["--data", photos, "--weights", first, "--limit", 30]
    train("resnet", monkeypatch, tmp_path / "whole", *flags, epochs=2)
    for epoch, steps in ((1, {"step_1"}), (2, {"step_1"}), (3, {"step_1", "step_2"})):
        module = interrupted(load("resnet/train.py"), epoch)
        with pytest.raises(SystemExit) as exit_:
            train("resnet", monkeypatch, tmp_path / "resumed", *flags, module=module, epochs=2)
        assert exit_.value.code == 130
        backups = {path.parent.name for path in (tmp_path / "resumed" / "backup").glob("*/training_metadata.json")}
        assert backups == steps
    capsys.readouterr()
    train("resnet", monkeypatch, tmp_path / "resumed", *flags, epochs=2)
    printed = capsys.readouterr().out
    assert [f"Epoch {i}/" in printed for i in (1, 2, 3, 4)] == [False, False, False, True]
    histories = []
    for name in ("whole", "resumed"):
        columns, *rows = (tmp_path / name / "history.csv").read_text().split()
        rows = [dict(zip(columns.split(","), map(float, row.split(",")), strict=True)) for row in rows]
        histories.append([{key: value for key, value in row.items() if key != "seconds"} for row in rows])
    assert [row["epoch"] for row in histories[1]] == [0, 1, 2, 3]
    for one, other in zip(*histories, strict=True):
        assert other == pytest.approx(one, rel=1e-5)
    whole, resumed = (network_of(tmp_path / name)[0] for name in ("whole", "resumed"))
    for name in whole:
        for one, other in zip(whole[name], resumed[name], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert not (tmp_path / "resumed" / "backup").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_with_the_same_classes_the_classifier_is_kept(first, monkeypatch, tmp_path):
    module = load("resnet/train.py")
    with monkeypatch.context() as patched:
        patched.setattr(module.Model, "fit", module.Model.fit)
        seen = observed(module)
        train("resnet", monkeypatch, tmp_path, "--weights", first, module=module)
    source, _ = network_of(first)
    assert all(same(weights, source[name]) for name, weights in seen[0][1].items())


@pytest.mark.slow
def test_defaults_of_the_two_steps(first, monkeypatch, tmp_path):
    module, parsed = load("resnet/train.py"), []
    tiny, _ = TRAINED["resnet"](module)
    monkeypatch.setattr(module.data, "load", lambda *args: pytest.fail("loaded"))
    monkeypatch.setattr(module.run, "parse", lambda parser: parsed.append(parser.parse_args()) or exit())
    for flags in ([], ["--weights", first], ["--weights", first, "--epochs", 3, "--learning-rate", 1]):
        with pytest.raises(SystemExit):
            main("resnet", monkeypatch, "--model", "tiny", *flags, module=module)
    assert [(args.epochs, args.learning_rate) for args in parsed] == [
        (module.EPOCHS, module.LEARNING_RATE), (module.TRANSFER_EPOCHS, module.TRANSFER_RATE), (3, 1.0),
    ]  # fmt: skip


def vgg(size, n_classes):
    """Return a VGG whose classifier flattens its feature maps."""
    path, metaparameters = SMALL["vgg"]
    return once(path).build(metaparameters, (size, size, 3), n_classes)


def test_weights_of_another_image_size(capsys):
    """A dense layer after Flatten fits one size; the convolutions fit all."""
    args = types.SimpleNamespace(weights="run", model="tiny")
    trained, network, new = vgg(32, 10), vgg(48, 3), vgg(48, 3)
    new.set_weights(network.get_weights())
    transfer.copy_weights(args, trained, network, False)
    assert "The weights are of another image size: the classifier begins with random ones" in capsys.readouterr().out
    for layer in network.layers:
        source = new if layer.name.startswith("classifier") else trained
        assert same(layer.get_weights(), source.get_layer(layer.name).get_weights())
    same_size = vgg(32, 3)
    transfer.copy_weights(args, trained, same_size, False)
    assert not capsys.readouterr().out
    dense = [layer.name for layer in same_size.layers if isinstance(layer, keras.layers.Dense)]
    assert same(same_size.get_layer(dense[0]).get_weights(), trained.get_layer(dense[0]).get_weights())


def test_weights_of_another_network_of_that_name():
    args = types.SimpleNamespace(weights="run", model="tiny")
    path, metaparameters = SMALL["vgg"]
    wider = tuple(group | {"n_filters": 4} for group in metaparameters["groups"])
    for groups in (wider, metaparameters["groups"] * 2):
        network = once(path).build(metaparameters | {"groups": groups}, (32, 32, 3), 10)
        before = network.get_weights()
        with pytest.raises(transfer.data.DataError, match="--weights run are those of another tiny: .* does not fit"):
            transfer.copy_weights(args, vgg(32, 10), network, True)
        assert same(before, network.get_weights())


@pytest.mark.slow
def test_weights_that_cannot_be_taken(first, monkeypatch, capsys, tmp_path):
    output = ["--output", tmp_path / "out"]
    error = error_of("resnet", monkeypatch, capsys, "--weights", tmp_path, *output)
    missing = tmp_path / "results.json"
    assert error == f"train.py: error: {tmp_path} is not the folder of a finished run: {missing} does not exist"
    for content in ("[]", "{", '{"model": "resnet18"}', "\xff"):
        missing.write_text(content)
        error = error_of("resnet", monkeypatch, capsys, "--weights", tmp_path, *output)
        assert error.endswith("results.json names no model and its classes")
    error = error_of("resnet", monkeypatch, capsys, "--weights", first, "--model", "resnet18", *output)
    assert error == f"train.py: error: --weights {first} are those of a tiny, got --model resnet18"
    missing.write_text('{"model": "resnet20_cifar10", "classes": ["a", "b"]}')
    flags = ["--model", "resnet20_cifar10", "--data", "synthetic", "--limit", 20]
    error = error_of("resnet", monkeypatch, capsys, "--weights", tmp_path, *flags, *output)
    assert error.startswith(f"train.py: error: {tmp_path / 'model.keras'} cannot be loaded (")
    (tmp_path / "model.keras").write_bytes(b"PK not a model")
    error = error_of("resnet", monkeypatch, capsys, "--weights", tmp_path, *flags, *output)
    assert error.startswith(f"train.py: error: {tmp_path / 'model.keras'} cannot be loaded (")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_published_weights_are_of_the_networks_that_have_some(folder, monkeypatch, capsys, tmp_path):
    error = error_of(folder, monkeypatch, capsys, "--weights", "imagenet", "--output", tmp_path / "out")
    module = load(f"{folder}/train.py")
    said = {
        "vgg": "there are some for vgg16, vgg19", "resnet": "there are some for resnet50, resnet101, resnet152",
        "inception": "there are some for inception_v3",
        "densenet": "there are some for densenet121, densenet169, densenet201",
    }.get(folder, "there are none for these networks")  # fmt: skip
    assert error == f"train.py: error: --weights imagenet: {said}, got --model {module.MODEL}"
    assert set(module.PUBLISHED) <= set(module.MODELS) and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_published_weights(photos, monkeypatch, capsys, tmp_path):
    """A stand-in for a module with weights: its normalization goes into the model."""
    module, loaded = load("resnet/train.py"), []

    def load_imagenet_weights(network):
        loaded.append(network.name)
        stem = network.get_layer("stem_1")
        stem.set_weights([0 * weight + 0.25 for weight in stem.get_weights()])

    weights = types.SimpleNamespace(
        load_imagenet_weights=load_imagenet_weights,
        IMAGENET_MEAN=(120.0, 110.0, 100.0),
        IMAGENET_VARIANCE=(1.0, 4.0, 9.0),
    )
    module.PUBLISHED["tiny"] = weights
    flags = ["--data", photos, "--weights", "imagenet", "--limit", 30, "--image-size", 32]
    train("resnet", monkeypatch, tmp_path / "run", *flags, module=module)
    layers, model = network_of(tmp_path / "run")
    assert loaded == ["tiny"] and all((weight == 0.25).all() for weight in layers["stem_1"])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["mean"] == [120, 110, 100] and results["variance"] == [1, 4, 9]
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    normalized = keras.ops.convert_to_numpy(model.get_layer("normalization")(x))
    np.testing.assert_allclose(normalized, (x - [120, 110, 100]) / [1, 2, 3], rtol=1e-5)

    where = "URL fetch failure. Or put the file into ~/.keras/models"
    for error, said in ((ValueError("its features differ"),) * 2, (Exception("URL fetch failure"), where)):

        def fails(network, error=error):
            raise error

        weights.load_imagenet_weights = fails
        tiny, _ = TRAINED["resnet"](module)
        found = error_of("resnet", monkeypatch, capsys, *tiny, *flags, "--output", tmp_path / "out", module=module)
        assert found == f"train.py: error: --weights imagenet: {said}" and not list((tmp_path / "out").iterdir())

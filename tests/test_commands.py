"""The command of seconds of each folder's README, run in a copy of the folder alone, and what it leaves."""

import functools
import json
import re
import shlex

import keras
import numpy as np
import pytest
from folders import CLASSIFIERS, FOLDERS, copy_tracked, load, predict, run_python
from test_readme import blocks


@functools.cache
def run(folder, where):
    """Copy a folder alone and run its command there, once: (its arguments, what it printed)."""
    copy_tracked(where, folder)
    readme = (where / folder / "README.md").read_text()
    (command,) = re.findall(rf"^python ({folder}/train.py --data synthetic .*_seconds)$", readme, flags=re.M)
    arguments = shlex.split(command)
    return arguments, run_python(*arguments, cwd=where)


@pytest.fixture(params=[pytest.param(folder, marks=pytest.mark.slow) for folder in FOLDERS])
def finished(request, tmp_path_factory):
    """The folder's name, where its command ran, the arguments of the command, what it printed."""
    where = tmp_path_factory.getbasetemp() / "commands" / request.param
    return request.param, where, *run(request.param, where)


@pytest.mark.usefixtures("eagerly")
def test_code_that_uses_the_model(finished, monkeypatch):
    """The README's lines, in the folder where its command ran."""
    folder, where, arguments, _ = finished
    code = blocks(f"{folder}/README.md", "python")
    first = next(i for i, block in enumerate(code) if "load_model" in block)
    last = next(i for i, block in enumerate(code) if i >= first and re.search(r"normalization\b.* = model", block))
    monkeypatch.chdir(where)
    run = re.search(r'"(runs/[^"]+)/model.keras"', code[first])[1]
    (where / run).symlink_to(where / arguments[-1])  # where the run would be without --output
    size = 128 if folder == "rcnn" else 32
    images = np.random.default_rng(0).integers(0, 256, (8, size, size, 3)).astype("uint8")
    namespace = {"images": images, "labels": np.arange(8) % 10}
    monkeypatch.syspath_prepend(where / folder)
    exec("\n".join(code[first : last + 1]), namespace)
    model = namespace["model"]
    normalized = keras.ops.convert_to_numpy(namespace["normalization"](images))
    if folder == "siamese":
        images, normalized = [images[:4], images[4:]], [normalized[:4], normalized[4:]]
    if folder == "rcnn":
        return  # its outputs are tested in test_rcnn_detect.py
    found, expected = predict(namespace["network"], normalized), predict(model, images)
    if folder == "autoencoder":
        found = keras.ops.convert_to_numpy(namespace["restore"](found))
    for name in expected if isinstance(expected, dict) else [...]:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
    if folder in CLASSIFIERS:
        assert namespace["backbone"].output_shape[1:3] != (32, 32) and len(namespace["classes"]) == 10


@pytest.mark.slow
@pytest.mark.parametrize("finished", ["autoencoder"], indirect=True)
def test_the_saved_autoencoder(finished):
    _, where, arguments, printed = finished
    codes = load("autoencoder/codes.py")
    results = json.loads((where / arguments[-1] / "results.json").read_text())
    model = keras.saving.load_model(where / arguments[-1] / "model.keras", safe_mode=True)
    splits, _ = load("autoencoder/data.py").load("synthetic", 500, 0)
    training, test = (splits[name][0] for name in ("training", "test"))
    reconstructed = predict(model, test)
    assert reconstructed.shape == (500, 32, 32, 3)
    scores = {"autoencoder": reconstructed, "mean image": np.broadcast_to(training.mean(0) / 255, test.shape)}
    for name, guess in scores.items():
        mse = ((guess.clip(0, 1) - test / 255) ** 2).mean()
        assert results["test_mse"][name] == pytest.approx(mse, rel=1e-4)
        assert results["test_psnr"][name] == pytest.approx(-10 * np.log10(mse), abs=1e-3)
        assert f"{name} {results['test_psnr'][name]:.2f} ({results['test_mse'][name]:.5f})" in printed
    assert list(results["test_psnr"]) == ["autoencoder", "mean image", "scaled image", "PCA"]
    assert results["code_size"] == 512 and results["parameters"] == 49_027
    validation = splits["validation"][0] / 255
    mse = ((predict(model, splits["validation"][0]).clip(0, 1) - validation) ** 2).mean()
    assert results["validation_mse"] == pytest.approx(mse, rel=1e-4)

    network = model.get_layer(results["model"])  # the model without its pre-stem
    path = codes.between(model, network, test[0], test[1], n_points=3)
    assert path.shape == (3, 32, 32, 3)
    np.testing.assert_allclose(path[[0, 2]], reconstructed[:2], atol=1e-4)
    mean, deviation = training.mean((0, 1, 2)), training.std((0, 1, 2))
    normalized = ((test[:2] - mean) / deviation).astype("float32")
    middle = predict(network.get_layer("decoder"), predict(network.get_layer("encoder"), normalized).mean(0)[None])
    np.testing.assert_allclose(path[1], (middle[0] * deviation + mean) / 255, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("finished", ["multilabel"], indirect=True)
def test_the_saved_model_of_the_groups(finished):
    _, where, arguments, printed = finished
    tasks = load("multilabel/tasks.py")
    results = json.loads((where / arguments[-1] / "results.json").read_text())
    model = keras.saving.load_model(where / arguments[-1] / "model.keras", safe_mode=True)
    splits, classes = load("multilabel/data.py").load("synthetic", 500, 0)
    x, y = splits["test"]
    outputs, labels = predict(model, x), tasks.group_labels(y, classes)
    assert list(outputs) == list(labels) == list(results["classes"]) == ["kind", "outline", "filled"]
    for name, probabilities in outputs.items():
        accuracy = (probabilities.argmax(-1) == labels[name]).mean()
        assert accuracy == pytest.approx(results[f"test_{name}_accuracy"], abs=1e-6)
        assert f"{name} {accuracy:.2%}" in printed
    assert results["parameters"] == 697_263 and results["task"] == "groups"


@pytest.mark.slow
@pytest.mark.parametrize("finished", ["siamese"], indirect=True)
def test_the_saved_siamese_network(finished):
    _, where, arguments, printed = finished
    pairs = load("siamese/pairs.py")
    results = json.loads((where / arguments[-1] / "results.json").read_text())
    model = keras.saving.load_model(where / arguments[-1] / "model.keras", safe_mode=True)
    splits, _ = load("siamese/data.py").load("synthetic", 500, 0)
    (left, right), same = pairs.fixed_pairs(splits["test"], 500, 0)[0]
    assert results["test_pairs"] == len(same) == 500
    similarity = predict(model, [left, right])
    assert ((similarity[:, 0] > 0.5) == same).mean() == pytest.approx(results["test_accuracy"], abs=1e-6)
    np.testing.assert_allclose(predict(model, [right, left]), similarity, atol=1e-6)
    assert (results["ways"], results["trials"], results["held_out_classes"]) == (10, 1_000, 0)
    assert results["one_shot_chance"] == 0.1 and len(results["one_shot_classes"]) == 10 and "chance 10.00%" in printed
    assert results["parameters"] == 802_977

    x, y = splits["test"]  # the trials once more, from the encoding of each image
    network = model.get_layer("siamese_cifar10")
    encodings = predict(network.get_layer("twin"), model.get_layer("normalization")(x))
    chosen, supports, answers = pairs.one_shot_trials(y, 10, 1_000, np.random.default_rng(0))
    kernel, bias = network.get_layer("classifier_1").get_weights()
    similarity = (abs(encodings[chosen][:, None] - encodings[supports]) @ kernel + bias)[..., 0]
    accuracy = (similarity.argmax(1) == answers).mean()
    assert results["one_shot_accuracy"] == pytest.approx(accuracy, abs=2e-3)

"""A tiny network of each folder, trained by its train.py: its loss falls, and its model works in another process."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from folders import FOLDERS, ROOT, load, without_graphs
from networks import TRAINED
from test_train import rows


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """A function that trains a tiny network of a folder for four epochs on a few images by its own train.py, once.

    It returns the run folder and the modules to import before its model is loaded.
    """

    @functools.cache
    def train(folder):
        module, where = load(f"{folder}/train.py"), tmp_path_factory.mktemp(folder)
        flags, imports = TRAINED[folder](module, epochs=4)
        arguments = sys.argv
        sys.argv = [f"{folder}/train.py", *map(str, flags), "--output", str(where)]
        try:
            with without_graphs():
                module.main()
        finally:
            sys.argv = arguments
        return where, imports

    return train


@pytest.fixture(params=[pytest.param(f, marks=() if f == "resnet" else pytest.mark.slow) for f in FOLDERS])
def trained(request, train):
    """The folder's name, and the run folder of a tiny network of it."""
    return request.param, train(request.param)[0]


@pytest.fixture(scope="module")
def used(request, train):
    """What `use.py` finds in a new process of the models of `trained` that this session looks at: {folder: found}."""
    items = [item for item in request.session.items if "used" in item.fixturenames]
    folders = [item.callspec.params["trained"] for item in items]
    arguments = [Path(__file__).with_name("use.py")]
    for folder in folders:
        where, imports = train(folder)
        arguments += [where / "model.keras", imports, ROOT / folder]
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "learning rate" not in done.stderr and "saving" not in done.stderr.lower(), done.stderr  # no warning
    return dict(zip(folders, json.loads(done.stdout.strip().split("\n")[-1]), strict=True))


def test_the_loss_falls(trained):
    _, where = trained
    history = rows(where / "history.csv")
    for step in dict.fromkeys(row.get("step") for row in history):
        losses = [row["loss"] for row in history if row.get("step") == step]
        assert len(losses) == 4 and min(losses[1:]) < losses[0], step


def test_a_model_loaded_in_a_new_process(trained, used):
    folder, where = trained
    found = used[folder]
    assert found["call"] < 1e-4 and found["uint8"] < 1e-4 and found["moved"] == 0 and found["built_upon"]
    if keras.config.backend() == "tensorflow":
        assert found["export"] < 1e-4 and found["random"] == []
    assert found.get("optimizer_built", True) and found.get("learning_rate", 0.01) == pytest.approx(0.01)
    results = json.loads((where / "results.json").read_text())
    assert results["pixels"] == [0, 255] and len(results["mean"]) == len(results["variance"]) == 3
    classes = results["classes"]["kind"] if folder == "multilabel" else results["classes"]
    assert classes == list(load("vgg/data.py").SYNTHETIC_CLASSES)
    assert results["command"].startswith(f"python {folder}/train.py --")

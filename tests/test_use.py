"""What a run leaves behind, in strangers' hands: loaded in a new process, called, exported, trained on, built upon."""

import json
import os
import sys

import keras
import numpy as np
import pytest
from folders import CLASSIFIERS, ROOT, load, main, run_python
from networks import TRAINED


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_a_loaded_model_learns(monkeypatch, tmp_path):
    """With its own optimizer, at a rate that can be set."""
    module = load("resnet/train.py")
    flags, _ = TRAINED["resnet"](module)
    main("resnet", monkeypatch, *flags, "--output", tmp_path, module=module)
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)  # a tenth of the highest
    model.optimizer.learning_rate = 0.05
    images, labels = (array[:60] for array in module.data.load("synthetic", 300, 0)[0]["training"])
    history = model.fit(images, labels, epochs=6, verbose=0).history["loss"]
    assert history[-1] < history[0] - 0.2


@pytest.mark.slow
def test_two_folders_train_in_one_session(tmp_path):
    """As somebody does who runs one after the other in a notebook."""
    script = "import runpy, sys\n"
    if keras.config.backend() == "tensorflow":
        script += "import tensorflow as tf\ntf.config.run_functions_eagerly(True)  # for speed\n"
    for folder in ("vgg", "siamese", "multilabel", "rcnn"):
        flags = ["--data", "synthetic", "--limit", "60", "--batch-size", "2" if folder == "rcnn" else "30"]
        flags += ["--epochs", "1", "--output", str(tmp_path / folder)]
        flags += ["--pretraining-epochs", "1", "--scenes", "4"] if folder == "rcnn" else []
        script += f"sys.argv = {[f'{folder}/train.py', *flags]}\nsys.path.insert(0, {folder!r})\n"
        script += f"runpy.run_path('{folder}/train.py', run_name='__main__')\n"
    run_python("-c", script, cwd=ROOT)
    for folder in ("vgg", "siamese", "multilabel", "rcnn"):
        assert (tmp_path / folder / "results.json").exists()


@pytest.mark.slow
def test_paths_of_any_letters_on_a_terminal_of_ascii(tmp_path):
    """Accents, Chinese, braces and dollars in --data and --output: it prints what stdout can."""
    data, output = tmp_path / "a$_$b é数", tmp_path / "runs" / "{x} é数 $a$"
    data.mkdir()
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        records = np.random.default_rng(0).integers(0, 256, (10_000, 3_073)).astype("uint8")
        records[:, 0] = np.arange(10_000) % 10
        records.tofile(data / name)
    flags = ["--data", data, "--output", output, "--limit", "100", "--batch-size", "50", "--epochs", "1"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"}
    run_python("vgg/train.py", *flags, cwd=ROOT, env=environment)
    assert {path.name for path in output.iterdir()} == {
        "model.keras", "history.csv", "results.json", "curves.png",
        "confusions.png", "mistakes.png", "feature_maps.png",
    }
    assert json.loads((output / "results.json").read_text())["data"] == str(tmp_path / "a$_$b é数")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the C library of Linux")
def test_memory_that_a_step_frees_is_kept_for_the_next():
    """In a process of its own: a block that was given back to Linux costs page faults when it is written again."""
    script = """
import resource, sys
sys.path.insert(0, "vgg")
import devices, numpy as np
devices.keep_memory()
def write():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**26, "uint8")
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(write(), write())
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    first, second = map(int, run_python("-c", script, cwd=ROOT, env=environment).split())
    assert second < first / 10


def test_every_title_is_plain_text(monkeypatch, tmp_path):
    """matplotlib would read $...$ as mathematics."""
    figures = load("vgg/figures.py")
    names = [f"a$_$b {i}" for i in range(10)]
    images, labels = np.zeros((3, 32, 32, 3), "uint8"), np.array([0, 1, 2])
    mistakes = figures.confident_mistakes(images, labels, np.eye(10)[labels[::-1]], names)
    for figure in (mistakes, figures.confusions(labels, labels, names)):
        figure.suptitle("$_$", parse_math=False)
        figure.savefig(tmp_path / "picture.png")


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_the_readme_warns_of_scaled_pixels_beside_the_first_predict(folder):
    readme = (ROOT / folder / "README.md").read_text()
    start = readme.index("load_model")
    assert "0 to 255" in readme[max(0, start - 600) : start]

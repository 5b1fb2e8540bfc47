"""What a run leaves behind, in strangers' hands: loaded in a new process, called, exported, trained on, built upon."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from folders import CLASSIFIERS, ROOT, load, main
from networks import TRAINED

# Runs in a process of its own, for a model.keras: prints what a user would find.
USE = """
import json, sys
import keras, numpy as np
path, imports, folder = sys.argv[1:]
sys.path.append(folder)
for name in imports.split():
    __import__(name)
model = keras.saving.load_model(path)
rng = np.random.default_rng(0)
pixels = [rng.integers(0, 256, (8, *inputs.shape[1:])).astype("uint8") for inputs in model.inputs]
if len(pixels) == 2 and pixels[1].ndim == 3:  # the regions of Fast R-CNN
    corners = rng.uniform(0, 128, (8, pixels[1].shape[1], 2, 2))
    pixels[1] = np.sort(corners, 2).reshape(8, -1, 4).astype("float32")
def pack(arrays):
    return dict(zip(model.input, arrays)) if isinstance(model.input, dict) else arrays if len(arrays) > 1 else arrays[0]
def difference(one, other):
    pairs = zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True)
    return max(float(np.abs(keras.ops.convert_to_numpy(a) - keras.ops.convert_to_numpy(b)).max()) for a, b in pairs)
floats = [array.astype("float32") for array in pixels]
predicted, before = model.predict(pack(pixels), verbose=0), model.get_weights()
found = {"call": difference(model(pack(floats)), predicted), "uint8": difference(model(pack(pixels)), predicted)}
found["moved"] = sum(bool((a != b).any()) for a, b in zip(before, model.get_weights()))
if keras.config.backend() == "tensorflow":  # whose format SavedModel is
    import tensorflow as tf
    model.export(path + "_exported", verbose=False)
    exported = tf.saved_model.load(path + "_exported")
    found["export"] = difference(exported.serve(pack(floats)), predicted)
    functions = next(iter(exported.signatures.values())).graph.as_graph_def().library.function
    found["random"] = sorted({n.op for f in functions for n in f.node_def if "andom" in n.op})
features = keras.tree.flatten(model.output)[0]
new = keras.layers.Dense(3)(keras.layers.Flatten()(features))
found["built_upon"] = keras.Model(model.input, [new, keras.ops.pad(features, [[0, 0]] * features.ndim)]).count_params()
if getattr(model, "optimizer", None):
    found["optimizer_built"] = model.optimizer.built
    model.optimizer.learning_rate = 0.01
    found["learning_rate"] = float(model.optimizer.learning_rate)
print(json.dumps(found))
"""


def use(path, folder, imports=""):
    """Return what the script above finds, in a process of its own."""
    command = [sys.executable, "-c", USE, str(path), imports, str(ROOT / folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "learning rate" not in done.stderr and "saving" not in done.stderr.lower(), done.stderr  # no warning
    return json.loads(done.stdout.strip().split("\n")[-1])


def check(found):
    assert found["call"] < 1e-4 and found["uint8"] < 1e-4 and found["moved"] == 0 and found["built_upon"]
    if keras.config.backend() == "tensorflow":
        assert found["export"] < 1e-4 and found["random"] == []
    assert found.get("optimizer_built", True) and found.get("learning_rate", 0.01) == pytest.approx(0.01)


def test_a_model_loaded_in_a_new_process(trained):
    folder, where, imports = trained
    check(use(where / "model.keras", folder, imports))
    results = json.loads((where / "results.json").read_text())
    assert results["pixels"] == [0, 255] and len(results["mean"]) == len(results["variance"]) == 3
    classes = results["classes"]["kind"] if folder == "multilabel" else results["classes"]
    assert classes == list(load("vgg/data.py").SYNTHETIC_CLASSES)
    assert results["command"].startswith(f"python {folder}/train.py --")


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
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for folder in ("vgg", "siamese", "multilabel", "rcnn"):
        assert (tmp_path / folder / "results.json").exists()


@pytest.mark.slow
def test_paths_of_any_letters_on_a_terminal_of_ascii(tmp_path):
    """Accents, Chinese, braces and dollars in --data and --output: exit status 0, whatever stdout can print."""
    data = tmp_path / "a$_$b é数"
    data.mkdir()
    for name in [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]:
        records = np.random.default_rng(0).integers(0, 256, (10_000, 3_073)).astype("uint8")
        records[:, 0] = np.arange(10_000) % 10
        records.tofile(data / name)
    output = tmp_path / "runs" / "{x} é数 $a$"
    flags = ["--data", data, "--output", output, "--limit", "100", "--batch-size", "50", "--epochs", "1"]
    done = subprocess.run(
        [sys.executable, "vgg/train.py", *map(str, flags)], cwd=ROOT, capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"},
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in output.iterdir()} == {
        "model.keras", "history.csv", "results.json", "curves.png", "predictions.png",
    }
    assert json.loads((output / "results.json").read_text())["data"] == str(data)


def test_every_title_is_plain_text(monkeypatch, tmp_path):
    """matplotlib would read $...$ as mathematics."""
    report = load("vgg/report.py")
    names = [f"a$_$b {i}" for i in range(10)]
    images, labels = np.zeros((3, 32, 32, 3), "uint8"), np.array([0, 1, 2])
    figure = report.predictions(images, labels, labels[::-1], names)
    figure.suptitle("$_$", parse_math=False)
    figure.savefig(tmp_path / "predictions.png")


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_the_readme_warns_of_scaled_pixels_beside_the_first_predict(folder):
    readme = (ROOT / folder / "README.md").read_text()
    start = readme.index("load_model")
    assert "0 to 255" in readme[max(0, start - 600) : start]

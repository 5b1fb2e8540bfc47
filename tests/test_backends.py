"""TensorFlow, JAX and PyTorch: one small network of each folder on each, and the same predictions on all."""

import ast
import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from folders import FOLDERS, ROOT, SHARED, load, main
from networks import TRAINED

MODULES = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}
INSTALLED = [backend for backend, module in MODULES.items() if importlib.util.find_spec(module)]

# Of one small network of each folder with weights from a file: writes what it makes of an image.
PREDICT = """
import sys
sys.path.insert(0, "tests")
import keras, numpy as np
from folders import build, load, predict, random_weights
from networks import SMALL
where = sys.argv[1]
found = {}
for name in ("vgg with batch normalization", "resnet_v1", "inception_v3", "resnext", "densenet", "se_resnet",
             "squeezenet", "multilabel", "siamese", "autoencoder", "rcnn"):
    path, metaparameters = SMALL[name]
    file = f"{where}/{name}.keras"
    if sys.argv[2] == "save":
        network = build(load(path), metaparameters, (32, 32, 3), 3)
        random_weights(network)
        network.save(file)
    model = keras.saving.load_model(file)
    rng = np.random.default_rng(1)
    images = [rng.normal(size=(2, *inputs.shape[1:])).astype("float32") for inputs in model.inputs]
    outputs = predict(model, images if len(images) > 1 else images[0])
    found |= {f"{name} {i}": array for i, array in enumerate(keras.tree.flatten(outputs))}
np.savez(f"{where}/{keras.config.backend()}.npz", **found)
"""


def run_on(backend, *arguments):
    """Return a finished process of Python on a backend, which has no module of the others."""
    environment = os.environ | {"KERAS_BACKEND": backend}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.skipif(len(INSTALLED) < 2, reason="only one backend is installed")
def test_the_same_weights_give_the_same_predictions_on_every_backend(tmp_path):
    for backend, what in zip(INSTALLED, ["save", *INSTALLED], strict=False):
        done = run_on(backend, "-c", PREDICT, str(tmp_path), what)
        assert done.returncode == 0, done.stderr
    first, *others = (dict(np.load(tmp_path / f"{backend}.npz")) for backend in INSTALLED)
    assert len(first) >= 11 and all(np.ptp(array) > 1e-3 for array in first.values())
    for other in others:
        for name, array in first.items():
            np.testing.assert_allclose(other[name], array, atol=1e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.skipif(keras.config.backend() == "tensorflow", reason="test_trained.py and test_commands.py train more")
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_small_network_of_each_folder_trains_and_loads(folder, monkeypatch, tmp_path):
    """On the backend of this process; .ci/run calls it on JAX too. Two steps of its own train.py, saved and loaded."""
    module = load(f"{folder}/train.py")
    flags, imports = TRAINED[folder](module)
    flags[flags.index("--limit") + 1] = 60  # two steps
    main(folder, monkeypatch, *flags, "--output", tmp_path, module=module)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["backend"] == keras.config.backend() and results["versions"][results["backend"]]
    monkeypatch.syspath_prepend(ROOT / folder)
    for name in imports.split():
        importlib.import_module(name)
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


@pytest.mark.parametrize("name", SHARED)
def test_the_shared_files_import_no_tensorflow(name):
    tree = ast.parse((ROOT / "vgg" / name).read_text())
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "keras" in found and not any(module.startswith("tensorflow") for module in found)


@pytest.mark.slow
@pytest.mark.skipif("jax" not in INSTALLED, reason="JAX is not installed")
def test_the_shared_files_work_where_no_tensorflow_is():
    script = "import sys\nsys.modules['tensorflow'] = None\nsys.path.insert(0, 'vgg')\nimport run, data, report\n"
    done = run_on("jax", "-c", script + "print(len(run.batches((data.synthetic(4)[0],) * 2, 2)))")
    assert done.returncode == 0 and done.stdout.strip() == "2", done.stderr


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("backend, reason", [("mxnet", "Unable to import backend : mxnet"), ("numpy", "got numpy")])
def test_an_unknown_backend_ends_in_a_sentence(folder, backend, reason, tmp_path):
    if backend == "numpy" and (folder != "vgg" or not importlib.util.find_spec("scipy")):
        pytest.skip("run.py refuses it, the same file in every folder, if Keras can load it")
    done = run_on(backend, f"{folder}/train.py", "--data", "synthetic", "--output", str(tmp_path / "run"))
    (error,) = [line for line in done.stderr.split("\n") if "error" in line]
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert error.startswith("train.py: error: KERAS_BACKEND must be tensorflow, jax or torch") and reason in error
    assert not list(tmp_path.iterdir())


def test_a_keras_that_is_too_old_ends_in_a_sentence():
    code = "import sys, keras; sys.argv = ['train.py']; keras.__version__ = '3.9.2'; import devices"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "vgg", capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "train.py: error: Keras must be 3.13 or later, got 3.9.2\n" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(len(INSTALLED) == 3, reason="all backends are installed")
def test_a_backend_that_is_not_installed_ends_in_a_sentence():
    missing = next(backend for backend in MODULES if backend not in INSTALLED)
    done = run_on(missing, "vgg/predict.py", "runs/none", "none.png")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    sentence = "predict.py: error: KERAS_BACKEND must be tensorflow, jax or torch, and installed (No module named"
    assert f"{sentence} '{MODULES[missing]}" in done.stderr

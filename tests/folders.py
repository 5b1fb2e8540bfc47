"""What the tests share: where the folders are, and how to load a module of one as a reader's notebook would."""

import contextlib
import functools
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as devices.py of the folders does

import keras
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
CLASSIFIERS = ("vgg", "resnet", "inception", "resnext", "densenet", "senet", "squeezenet")  # one class an image
FOLDERS = (*CLASSIFIERS, "multilabel", "siamese", "autoencoder", "rcnn")  # in reading order
SHARED = ("run.py", "devices.py", "data.py", "report.py")  # the same file in every folder
SHARED_BY_CLASSIFIERS = ("transfer.py", "predict.py", "figures.py")  # the same file in the seven folders of classifiers
SHARED_BY_EXPERIMENTS = ("experiment.py",)  # the same file in each folder that has an experiment
MODULES = sorted(  # that hold a network: those with METAPARAMETERS
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for path in (ROOT / folder).glob("*.py")
    if re.search(r"^METAPARAMETERS = ", path.read_text(), flags=re.M)
)


def load(path):
    """Return a new copy of a module, such as "vgg/vgg.py"; its imports are looked for in its own folder."""
    spec = importlib.util.spec_from_file_location(re.sub(r"\W", "_", str(path)), ROOT / path)
    module = importlib.util.module_from_spec(spec)
    folder = (ROOT / path).parent
    neighbors = {file.stem for file in folder.glob("*.py")}
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
        for name in neighbors & set(sys.modules):  # the next copy gets its own
            del sys.modules[name]
    owner = getattr(module, "experiment", module)  # an experiment imports the images there
    if hasattr(owner, "data"):
        owner.data.synthetic = drawn_once(owner.data.synthetic)
    return module


def main(folder, monkeypatch, *flags, module=None):
    """Run the main function of a train.py with flags, here and now, which spares a subprocess its imports."""
    module = module or load(f"{folder}/train.py")
    monkeypatch.setattr(sys, "argv", [f"{folder}/train.py", *map(str, flags)])
    module.main()


DRAWN = {}


def drawn_once(synthetic):
    """Let all copies of data.py draw the same synthetic images once, which takes a second or two."""
    text = inspect.getsource(synthetic)

    @functools.wraps(synthetic)
    def draw(n_images, seed=0):
        key = (text, n_images, seed)
        if key not in DRAWN:
            DRAWN[key] = synthetic(n_images, seed)
        images, labels = DRAWN[key]
        return images.copy(), labels.copy()

    return draw


def run_python(*arguments, **options):
    """Run Python in another process, half an hour at most, and return what it printed; its errors fail the test."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, **{"timeout": 1800} | options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def copy_tracked(to, *paths):
    """Copy what git tracks, or would after `git add`, as a fresh clone has it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *paths]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]:
        if (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)


def build(module, metaparameters, input_shape, n_classes, **options):
    """Call the build function of a module, with a number of classes if the network has classes."""
    if "n_classes" in inspect.signature(module.build).parameters:
        options["n_classes"] = n_classes
    return module.build(metaparameters, input_shape, **options)


@contextlib.contextmanager
def without_numbers():
    """Build whole graphs without the random numbers of their variables.

    Keras keeps a list of such variables and would make their numbers, gigabytes of them, at the next training.
    """
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.utils.clear_session(free_memory=False)


@contextlib.contextmanager
def without_graphs():
    """Let TensorFlow run what is trained without graphs: for a few steps they take longer to trace than to run."""
    if keras.config.backend() != "tensorflow":  # PyTorch has none, and JAX is slower without
        yield
        return
    from tensorflow import config

    before = config.functions_run_eagerly()
    config.run_functions_eagerly(True)
    try:
        yield
    finally:
        config.run_functions_eagerly(before)


def predict(model, x):
    """Return what a model makes of x, by one plain call: for a few images a graph takes longer to trace than to run."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x, training=False))


def all_layers(model):
    """Return the layers of a model and those of the models in it, such as the twin of a Siamese network."""
    found = []
    for layer in model.layers:
        found += all_layers(layer) if hasattr(layer, "layers") else [layer]
    return found


def random_weights(model, seed=0):
    """Give every weight of a model a random value, so that no term of the arithmetic is 0 or 1 by luck."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        new = []
        for w in layer.get_weights():
            scale = (2 / w[..., 0].size) ** 0.5 if w.ndim > 1 else 0.1  # He: the outputs keep their size
            new.append(rng.normal(0 if w.ndim > 1 else 0.5, scale, w.shape).astype("float32"))
        layer.set_weights(new)

"""What a training run leaves behind: the best model, results.json, and as pictures the curves and some predictions."""

import csv
import json
import math
import platform
import shlex
import sys
import time

import keras
import numpy as np
from keras import callbacks
from matplotlib.figure import Figure

import pairs

OUTPUTS = ("model.keras", "history.csv", "curves.png", "predictions.png", "results.json")


# Copied from vgg/report.py
class BestModel(callbacks.Callback):
    """Save the model after each epoch that is the best so far on the validation images; log how long the epoch took."""

    def __init__(self, path, best):
        super().__init__()
        self.path, self.best = path, best  # best: the highest validation accuracy before an interruption

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Save if this is the best epoch, and add the seconds to what the next callbacks see."""
        if not math.isfinite(logs["val_loss"]):
            raise RuntimeError("NaN or Inf loss on the validation images")
        logs["seconds"] = time.perf_counter() - self.start
        if logs["val_accuracy"] > self.best:
            self.best = logs["val_accuracy"]
            write(self.path, self.model.save)


def write_results(output, settings, splits, one_shot, classes):
    """Evaluate the best model, on the test set for the first and only time, and write every file but the model.

    Unlike that of vgg/report.py it verifies pairs, and has one-shot trials beside them.

    Args:
        output: the folder with model.keras and history.csv.
        settings: what was trained, a dictionary; results.json begins with it.
        splits: {"validation": (images, labels), "test": (images, labels)}, images (N, H, W, 3) uint8.
        one_shot: (images, labels), the test images of the one-shot trials.
        classes: the names of the classes.
    """
    model = keras.saving.load_model(output / "model.keras")
    validation, test = (fixed_pairs(splits[name], settings["seed"]) for name in ("validation", "test"))
    validation_loss, validation_accuracy = model.evaluate(*validation, verbose=0)
    (left, right), same = test
    test_loss, test_accuracy = model.evaluate((left, right), same)
    n_ways, n_trials = settings["ways"], settings["trials"]
    one_shot_accuracy = score_one_shot(model, *one_shot, n_ways, n_trials, settings["seed"])
    backend = keras.config.backend()
    versions = {name: sys.modules[name].__version__ for name in ("numpy", "keras", backend)}
    history = read_history(output)
    write(output / "history.csv", lambda path: save_history(path, history))  # an epoch run twice is now there once

    named = {"cifar10": "CIFAR-10", "synthetic": "synthetic shapes, not CIFAR-10"}
    title = f"{settings['model']} on {named.get(settings['data'], 'CIFAR-10 files in ' + settings['data'])}"
    similarity = model.predict((left[:28], right[:28]), verbose=0)[:, 0]
    write(output / "curves.png", lambda path: plot_curves(path, title, history))
    write(output / "predictions.png", lambda path: plot_pairs(path, title, left, right, same, similarity))

    results = {
        **settings,
        "parameters": sum(int(np.prod(variable.shape)) for variable in model.trainable_variables),
        "seconds": round(sum(history["seconds"]), 1),
        "validation_loss": validation_loss,
        "validation_accuracy": validation_accuracy,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
        "test_pairs": len(same),
        "one_shot_accuracy": one_shot_accuracy,
        "one_shot_chance": 1 / n_ways,
        "one_shot_classes": [classes[label] for label in np.unique(one_shot[1])],
        "versions": {"python": platform.python_version(), **versions},
        "backend": backend,
        "command": shlex.join(["python", *sys.argv]),
    }
    write(output / "results.json", lambda path: path.write_text(json.dumps(results, indent=2) + "\n"))
    print(f"{title}: {test_accuracy:.2%} of {len(same)} test pairs right; {n_ways}-way one-shot")
    print(f"{one_shot_accuracy:.2%} of {n_trials} trials (chance {1 / n_ways:.2%}), classes held out: "
          f"{settings['held_out_classes'] or 'none'}. Results are in {output}.")


def fixed_pairs(split, seed):
    """Return as many pairs as a split has images, the same at every call: ((left, right), same)."""
    images, labels = split
    left, right, same = pairs.draw_pairs(labels, len(images), np.random.default_rng(seed))
    return (images[left], images[right]), same


def score_one_shot(model, images, labels, n_ways, n_trials, seed):
    """Return the share of one-shot trials in which the most similar support is that of the image's own class.

    Args:
        model: takes two batches of images (N, H, W, C) and returns their similarity (N, 1).
        images, labels: (N, H, W, C) and (N,), to draw the trials from.
        n_ways, n_trials: see pairs.one_shot_trials.
        seed: of the draws.
    """
    chosen, supports, answers = pairs.one_shot_trials(labels, n_ways, n_trials, np.random.default_rng(seed))
    left, right = images[chosen.repeat(n_ways)], images[supports.ravel()]
    similarity = model.predict((left, right), verbose=0).reshape(n_trials, n_ways)
    return float((similarity.argmax(-1) == answers).mean())


# Copied from vgg/report.py
def write(path, save):
    """Call save with a temporary path and rename what it wrote, so that a kill never leaves half a file."""
    partial = path.with_name("partial_" + path.name)  # the same ending, by which savers choose the format
    save(partial)
    partial.replace(path)


# Copied from vgg/report.py
def read_history(output):
    """Return history.csv as {column: values}; of an epoch run twice, before and after a kill, the second counts."""
    if not (output / "history.csv").exists():
        return {}
    with open(output / "history.csv", newline="") as file:
        rows = {row["epoch"]: row for row in csv.DictReader(file)}.values()
    return {name: [float(row[name]) for row in rows] for name in next(iter(rows), ())}


# Copied from vgg/report.py
def save_history(path, history):
    """Write {column: values} as a CSV file."""
    np.savetxt(path, np.transpose(list(history.values())), "%.8g", ",", header=",".join(history), comments="")


# Copied from vgg/report.py
def plot_curves(path, title, history):
    """Draw loss and accuracy over the epochs, for the training and the validation images.

    The loss that is minimized is the cross-entropy plus the weight decay; results.json has the cross-entropy alone.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    epochs = range(1, len(history["loss"]) + 1)
    labels = ("loss with weight decay", "accuracy")
    for axes, name, label in zip(figure.subplots(1, 2), ("loss", "accuracy"), labels, strict=True):
        axes.plot(epochs, history[name], ".-", label="training")
        axes.plot(epochs, history["val_" + name], ".-", label="validation")
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def plot_pairs(path, title, left, right, same, similarity):
    """Draw pairs of images side by side, each under its similarity; a wrong verdict, on either side of 0.5, is red.

    Args:
        path, title: where to, and over what title.
        left, right: images (N, H, W, C) uint8.
        same: (N,), 1 for a pair of one class.
        similarity: (N,), the probability of one class.
    """
    figure = Figure(figsize=(12, 8), layout="constrained")
    figure.suptitle(f"{title}\nthe similarity of pairs of test images, the wrong verdicts in red")
    for axes in figure.subplots(7, 4).flat:
        axes.axis("off")
    for axes, *images, is_same, p in zip(figure.axes, left, right, same, similarity, strict=False):
        axes.imshow(np.concatenate(images, 1))
        color = "black" if (p > 0.5) == is_same else "red"
        axes.set_title(f"{p:.2f}, {'one class' if is_same else 'two classes'}", fontsize=9, color=color)
    figure.savefig(path, dpi=100)

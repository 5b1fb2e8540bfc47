# Copied from vgg/report.py
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

OUTPUTS = ("model.keras", "history.csv", "curves.png", "predictions.png", "results.json")


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


def write_results(output, settings, splits, classes):
    """Evaluate the best model, on the test set for the first and only time, and write every file but the model.

    Args:
        output: the folder with model.keras and history.csv.
        settings: what was trained, a dictionary; results.json begins with it.
        splits: {"validation": (images, labels), "test": (images, labels)}, images (N, H, W, 3) uint8.
        classes: the names of the classes.
    """
    model = keras.saving.load_model(output / "model.keras")
    validation_loss, validation_accuracy = model.evaluate(*splits["validation"], verbose=0)
    test_loss, test_accuracy = model.evaluate(*splits["test"])
    backend = keras.config.backend()
    versions = {name: sys.modules[name].__version__ for name in ("numpy", "keras", backend)}
    history = read_history(output)
    write(output / "history.csv", lambda path: save_history(path, history))  # an epoch run twice is now there once

    named = {"cifar10": "CIFAR-10", "synthetic": "synthetic shapes, not CIFAR-10"}
    title = f"{settings['model']} on {named.get(settings['data'], 'CIFAR-10 files in ' + settings['data'])}"
    images, labels = splits["test"]
    predicted = model.predict(images[:40], verbose=0).argmax(-1)
    write(output / "curves.png", lambda path: plot_curves(path, title, history))
    write(output / "predictions.png", lambda path: plot_predictions(path, title, images, labels, predicted, classes))

    results = {
        **settings,
        "parameters": sum(int(np.prod(variable.shape)) for variable in model.trainable_variables),
        "seconds": round(sum(history["seconds"]), 1),
        "validation_loss": validation_loss,
        "validation_accuracy": validation_accuracy,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
        "versions": {"python": platform.python_version(), **versions},
        "backend": backend,
        "command": shlex.join(["python", *sys.argv]),
    }
    write(output / "results.json", lambda path: path.write_text(json.dumps(results, indent=2) + "\n"))
    print(f"{title}: {test_accuracy:.2%} of {len(labels)} test images right. Results are in {output}.")


def write(path, save):
    """Call save with a temporary path and rename what it wrote, so that a kill never leaves half a file."""
    partial = path.with_name("partial_" + path.name)  # the same ending, by which savers choose the format
    save(partial)
    partial.replace(path)


def read_history(output):
    """Return history.csv as {column: values}; of an epoch run twice, before and after a kill, the second counts."""
    if not (output / "history.csv").exists():
        return {}
    with open(output / "history.csv", newline="") as file:
        rows = {row["epoch"]: row for row in csv.DictReader(file)}.values()
    return {name: [float(row[name]) for row in rows] for name in next(iter(rows), ())}


def save_history(path, history):
    """Write {column: values} as a CSV file."""
    np.savetxt(path, np.transpose(list(history.values())), "%.8g", ",", header=",".join(history), comments="")


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


def plot_predictions(path, title, images, labels, predicted, classes):
    """Draw the images, each under its predicted class; a wrong one is red and names the true class too."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    figure.suptitle(f"{title}: predictions on test images, the wrong ones in red")
    for axes in figure.subplots(5, 8).flat:
        axes.axis("off")
    for axes, image, label, guess in zip(figure.axes, images, labels, predicted, strict=False):
        axes.imshow(image)
        if guess == label:
            axes.set_title(classes[guess], fontsize=9)
        else:
            axes.set_title(f"{classes[guess]}, is {classes[label]}", fontsize=9, color="red")
    figure.savefig(path, dpi=100)

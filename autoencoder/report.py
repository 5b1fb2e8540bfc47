"""What a training run leaves behind: the best model, results.json, and as pictures curves and reconstructions."""

import csv
import json
import math
import platform
import shlex
import sys
import time

import keras
import numpy as np
from keras import callbacks, layers, ops
from matplotlib.figure import Figure

import codes

OUTPUTS = ("model.keras", "history.csv", "curves.png", "reconstructions.png", "results.json")


class BestModel(callbacks.Callback):
    """Save the model after each epoch that is the best so far on the validation images; log how long the epoch took.

    Unlike that of vgg/report.py the best is the one with the lowest loss.
    """

    def __init__(self, path, best):
        super().__init__()
        self.path, self.best = path, best  # best: the lowest validation loss before an interruption

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Save if this is the best epoch, and add the seconds to what the next callbacks see."""
        if not math.isfinite(logs["val_loss"]):
            raise RuntimeError("NaN or Inf loss on the validation images")
        logs["seconds"] = time.perf_counter() - self.start
        if logs["val_loss"] < self.best:
            self.best = logs["val_loss"]
            write(self.path, self.model.save)


def write_results(output, settings, splits):
    """Evaluate the best model, on the test set for the first and only time, and write every file but the model.

    Unlike that of vgg/report.py it compares the reconstructions with those of simpler codes.

    Args:
        output: the folder with model.keras and history.csv.
        settings: what was trained, a dictionary; results.json begins with it.
        splits: {"training": (images, labels), "validation": ..., "test": ...}, images (N, H, W, 3) uint8.
    """
    model = keras.saving.load_model(output / "model.keras")
    network = model.get_layer(settings["model"])
    n_numbers = int(np.prod(network.get_layer("encoder").output_shape[1:]))
    training, validation, test = (splits[name][0] / np.float32(255) for name in ("training", "validation", "test"))
    validation_mse, _ = mse_and_psnr(validation, model.predict(splits["validation"][0], verbose=0))
    reconstructions = {
        "autoencoder": model.predict(splits["test"][0]),
        "mean image": codes.mean_image(training, test),
        "scaled image": codes.scaled_image(test, n_numbers),
        "PCA": codes.pca(training, test, n_numbers),
    }
    scores = {name: mse_and_psnr(test, images) for name, images in reconstructions.items()}
    backend = keras.config.backend()
    versions = {name: sys.modules[name].__version__ for name in ("numpy", "keras", backend)}
    history = read_history(output)
    write(output / "history.csv", lambda path: save_history(path, history))  # an epoch run twice is now there once

    named = {"cifar10": "CIFAR-10", "synthetic": "synthetic shapes, not CIFAR-10"}
    title = f"{settings['model']} on {named.get(settings['data'], 'CIFAR-10 files in ' + settings['data'])}"
    rows = {f"{name}\n{scores[name][1]:.1f} dB": reconstructions[name][:10] for name in reconstructions}
    rows = {"original": test[:10], **rows}
    for number in range(3):
        left, right = splits["test"][0][2 * number : 2 * number + 2] if len(test) > 5 else splits["test"][0][[0, -1]]
        rows[f"between two\n{number + 1}"] = between(model, network, left, right)
    write(output / "curves.png", lambda path: plot_curves(path, title, history))
    write(output / "reconstructions.png", lambda path: plot_rows(path, title, rows))

    results = {
        **settings,
        "parameters": sum(int(np.prod(variable.shape)) for variable in model.trainable_variables),
        "seconds": round(sum(history["seconds"]), 1),
        "code_size": n_numbers,
        "validation_mse": validation_mse,
        "test_mse": {name: mse for name, (mse, _) in scores.items()},
        "test_psnr": {name: psnr for name, (_, psnr) in scores.items()},
        "versions": {"python": platform.python_version(), **versions},
        "backend": backend,
        "command": shlex.join(["python", *sys.argv]),
    }
    write(output / "results.json", lambda path: path.write_text(json.dumps(results, indent=2) + "\n"))
    figures = ", ".join(f"{name} {psnr:.2f} ({mse:.5f})" for name, (mse, psnr) in scores.items())
    print(f"{title}: PSNR in dB (and MSE) on {len(test)} test images, codes of {n_numbers} numbers: {figures}. "
          f"Results are in {output}.")


def mse_and_psnr(images, reconstructions):
    """Return the mean squared error of all images together, and the peak signal-to-noise ratio in decibels.

    Args:
        images, reconstructions: (N, H, W, C), 0 to 1; reconstructions beyond that are clipped, as a screen would.
    """
    mse = float(np.mean((images - reconstructions.clip(0, 1)) ** 2, dtype="float64"))
    return mse, -10 * math.log10(mse) if mse else math.inf


def between(model, network, left, right, n_points=10):
    """Decode points on the straight line between the codes of two images: (n_points, H, W, C), 0 to 1.

    Args:
        model: from pixels to reconstructions, with a layer that normalizes before the network and "restore" after it.
        network: the autoencoder in it, of the models "encoder" and "decoder".
        left, right: two images (H, W, C) uint8.
        n_points: how many images, from the reconstruction of the left one to that of the right.
    """
    normalization = next(layer for layer in model.layers if isinstance(layer, layers.Normalization))
    ends = network.get_layer("encoder").predict(normalization(np.stack([left, right])), verbose=0)
    share = np.linspace(0, 1, n_points).reshape(-1, 1, 1, 1)
    points = (1 - share) * ends[0] + share * ends[1]  # (n_points, H / 2^layers, W / 2^layers, depth of the code)
    images = model.get_layer("restore")(network.get_layer("decoder").predict(points, verbose=0))
    return ops.convert_to_numpy(images)


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


def plot_curves(path, title, history):
    """Draw the mean squared error that is minimized, and the same as PSNR, over the epochs."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    epochs = range(1, len(history["loss"]) + 1)
    errors, ratios = figure.subplots(1, 2)
    for name, label in (("loss", "training"), ("val_loss", "validation")):
        errors.semilogy(epochs, history[name], ".-", label=label)
        ratios.plot(epochs, -10 * np.log10(history[name]), ".-", label=label)
    errors.set(xlabel="epoch", ylabel="mean squared error")
    ratios.set(xlabel="epoch", ylabel="PSNR in dB")
    for axes in (errors, ratios):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def plot_rows(path, title, rows):
    """Draw rows of images, ten in each, with their names at the left: {name: images (N, H, W, C), 0 to 1}."""
    figure = Figure(figsize=(12, 10), layout="constrained")
    figure.suptitle(f"{title}\ntest images, their reconstructions, and images decoded between the codes of two")
    for axes_of_row, (name, images) in zip(figure.subplots(len(rows), 10), rows.items(), strict=True):
        for axes in axes_of_row:
            axes.set(xticks=[], yticks=[], frame_on=False)
        for axes, image in zip(axes_of_row, images, strict=False):
            axes.imshow(image.clip(0, 1))
        axes_of_row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=100)

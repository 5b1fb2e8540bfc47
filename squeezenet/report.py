# The same file in every folder.
"""What a training leaves behind besides the model: results.json, history.csv and pictures."""

import contextlib
import csv
import json
import math
import platform
import shlex
import shutil
import sys
from pathlib import Path

import run

import keras
import numpy as np
from matplotlib.figure import Figure

import data


def facts(model, images, classes):
    """Return what a user of the model must know: its parameters, the names of its classes, the images it takes.

    Args:
        model: the trained model, with a layer "normalization".
        images: the training images (N, H, W, C), pixels 0 to 255.
        classes: the names of the classes in order.
    """
    normalization = model.get_layer("normalization")
    crop = {"crop": "the largest square in the middle of the upright photo"} if isinstance(images, data.Photos) else {}
    return {
        "parameters": sum(math.prod(variable.shape) for variable in model.trainable_variables),
        "classes": list(classes),
        "pixels": [0, 255],
        "mean": np.ravel(keras.ops.convert_to_numpy(normalization.mean)).tolist(),
        "variance": np.ravel(keras.ops.convert_to_numpy(normalization.variance)).tolist(),
        **crop,
    }


def evaluate(model, splits, batch_size=256):
    """Return loss and metrics of a compiled model, {"validation_loss": ..., "test_accuracy": ..., ...}.

    Args:
        model: from images to class probabilities.
        splits: {"validation": (images, labels), "test": (images, labels)}, images (N, H, W, C), pixels 0 to 255.
        batch_size: how many images the memory can hold with their feature maps.
    """
    return {
        f"{split}_{name}": float(value)
        for split in ("validation", "test")
        for name, value in model.evaluate(
            run.batches(splits[split], batch_size), verbose=0, return_dict=True
        ).items()
    }


def write(args, history, scores, figures):
    """Write results.json, history.csv and the pictures into the run folder, which ends the run.

    Args:
        args: the parsed command line.
        history: {column: values}, from `run.history`.
        scores: what the task measured, a dictionary that JSON can hold.
        figures: {file name: matplotlib Figure} beside curves.png, or in its place.
    """
    title = f"{args.model} on {args.data_name or name_of(args.data)}"
    title = title.encode("utf-8", "replace").decode()  # a folder's name may have bytes that are no text
    if "curves.png" not in figures:
        figures = {"curves.png": curves(history, scores)} | figures
    for name, figure in figures.items():
        figure.suptitle("\n".join(filter(None, [title, figure.get_suptitle()])), parse_math=False)
        run.write_whole(args.output / name, lambda path, figure=figure: figure.savefig(path, dpi=100))
    run.write_whole(args.output / "history.csv", lambda path: write_rows(path, history))
    backend = keras.config.backend()
    results = {
        **run.settings(args),
        "seconds": round(sum(history["seconds"]), 1),
        **scores,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "keras": keras.__version__,
                     backend: sys.modules[backend].__version__},
        "backend": backend,
        "command": shlex.join(["python", *sys.argv]),
    }
    run.write_whole(args.output / "results.json", lambda path: path.write_text(json.dumps(results, indent=2) + "\n"))
    shutil.rmtree(args.output / "backup", ignore_errors=True)  # the run is finished, whatever is left of it
    print(f"Results are in {args.output}.")


def results_of(folder):
    """Return the results.json of a finished run, with at least the names of its model and its classes."""
    path, results = Path(folder).expanduser() / "results.json", {}
    with contextlib.suppress(OSError, ValueError):
        results = json.loads(path.read_text())
    if not isinstance(results, dict) or not {"model", "classes"} <= results.keys():
        fault = "names no model and its classes" if path.exists() else "does not exist"
        raise data.DataError(f"{folder} is not the folder of a finished run: {path} {fault}")
    return results


def name_of(source):
    """Return what a title calls the images of --data."""
    if data.is_of_photos(source):
        return f"the photos in {Path(source).expanduser().resolve().name}"
    return {"cifar10": "CIFAR-10", "synthetic": "synthetic shapes, not CIFAR-10"}.get(source, "CIFAR-10 files")


def write_rows(path, history):
    """Write {column: values} as a CSV file."""
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(history)
        for row in zip(*history.values(), strict=True):
            rows.writerow([f"{value:.8g}" if isinstance(value, float) else value for value in row])


def curves(history, results):
    """Return a figure of the loss and the other scores over the epochs, of training and validation images.

    The loss that is minimized has the weight decay in it; results.json has the loss without.

    Args:
        history: {column: values}, from `run.history`.
        results: what the task measured: a score of the test images, {"test_accuracy": ...}, becomes a line.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    scores = [name for name in history if f"val_{name}" in history and not name.endswith("loss")]
    epochs = range(1, len(history["loss"]) + 1)
    panels = (["loss"], "loss with weight decay"), (scores, scores[0] if len(scores) == 1 else "score")
    for axes, (names, ylabel) in zip(figure.subplots(1, 2), panels, strict=True):
        for i, name in enumerate(names):
            label = "" if len(names) == 1 else f", {name.replace('_', ' ')}"
            axes.plot(epochs, history[name], ".--", color=f"C{i}", label=f"training{label}")
            axes.plot(epochs, history[f"val_{name}"], ".-", color=f"C{i}", label=f"validation{label}")
            if name != "loss" and f"test_{name}" in results:
                test = results[f"test_{name}"]
                axes.axhline(test, color=f"C{i}", linewidth=1, label=f"test of the best epoch{label}: {test:.3f}")
        axes.set(xlabel="epoch", ylabel=ylabel)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)} if len(names) > 1 else {}
        axes.legend(fontsize=8, **beside)
    return figure

"""What a training run leaves behind: the model, results.json, and as pictures the losses and some detections."""

import csv
import json
import platform
import shlex
import sys

import keras
import numpy as np
from matplotlib.figure import Figure

import boxes
import detect

OUTPUTS = ("model.keras", "history.csv", "curves.png", "detections.png", "results.json")


def write_results(output, settings, scenes, classes, seconds):
    """Evaluate the model, on the test scenes for the first and only time, and write every file but the model.

    Unlike that of vgg/report.py it counts detections, and takes the time of the detector's parts.

    Args:
        output: the folder with model.keras and history.csv.
        settings: what was trained, a dictionary; results.json begins with it.
        scenes: {"validation": (scenes, objects), "test": (scenes, objects)}, as make_scenes returns them.
        classes: the names of the classes.
        seconds: how long the training took, selective search included.
    """
    model = keras.saving.load_model(output / "model.keras")
    scored = {}
    for name in ("validation", "test"):
        images, truths = scenes[name]
        print(f"Detections in the {name} scenes")
        detections, proposals, times = detect.detect(model, images)
        precision = boxes.evaluate(detections, truths, len(classes))
        scored[name] = {
            "map_50": float(np.nanmean(precision)),
            "average_precision": {k: none_if_nan(value) for k, value in zip(classes, precision, strict=True)},
            "proposal_recall": recall(proposals, truths),
            "proposals_per_image": float(np.mean([len(found) for found in proposals])),
        }
    backend = keras.config.backend()
    versions = {name: sys.modules[name].__version__ for name in ("numpy", "keras", backend)}
    history = read_history(output)
    write(output / "history.csv", lambda path: save_history(path, history))  # an epoch run twice is now there once

    named = {"cifar10": "CIFAR-10", "synthetic": "synthetic shapes, not CIFAR-10"}
    title = f"{settings['model']} on scenes of {named.get(settings['data'], 'CIFAR-10 files in ' + settings['data'])}"
    write(output / "curves.png", lambda path: plot_curves(path, title, history))
    write(output / "detections.png", lambda path: plot_detections(path, title, images, truths, detections, classes))

    results = {
        **settings,
        "parameters": sum(int(np.prod(variable.shape)) for variable in model.layers[-1].trainable_variables),
        "seconds": round(seconds, 1),
        "validation_map_50": scored["validation"]["map_50"],
        **scored["test"],
        "test_scenes": len(images),
        "seconds_per_image": {part: float(np.mean(of_part)) for part, of_part in times.items()},
        "versions": {"python": platform.python_version(), **versions},
        "backend": backend,
        "command": shlex.join(["python", *sys.argv]),
    }
    write(output / "results.json", lambda path: path.write_text(json.dumps(results, indent=2) + "\n"))
    print(f"{title}: mAP at IoU 0.5 {results['map_50']:.1%} on {len(images)} test scenes, in "
          f"{sum(results['seconds_per_image'].values()):.3f} s a scene; {results['proposals_per_image']:.0f} proposals "
          f"find {results['proposal_recall']:.1%} of the objects. Results are in {output}.")


def recall(proposals, truths, threshold=0.5):
    """Return the share of the objects that a proposal overlaps by an IoU of at least the threshold; nan without any."""
    found = [boxes.iou(truth, regions).max(1, initial=0) for regions, (truth, _) in zip(proposals, truths, strict=True)]
    found = np.concatenate(found) if found else np.zeros(0)
    return float((found >= threshold).mean()) if len(found) else float("nan")


def none_if_nan(value):
    """Return a number, or None, which JSON has, for a class that no scene has."""
    return None if np.isnan(value) else float(value)


# Copied from vgg/report.py
def write(path, save):
    """Call save with a temporary path and rename what it wrote, so that a kill never leaves half a file."""
    partial = path.with_name("partial_" + path.name)  # the same ending, by which savers choose the format
    save(partial)
    partial.replace(path)


def read_history(output):
    """Return history.csv as {column: values}; of an epoch run twice, before and after a kill, the second counts.

    Unlike that of vgg/report.py an epoch is a whole number, and one of a step, whose name is text.
    """
    if not (output / "history.csv").exists():
        return {}
    with open(output / "history.csv", newline="") as file:
        rows = {(row["step"], row["epoch"]): row for row in csv.DictReader(file)}.values()
    columns = next(iter(rows), ())
    kinds = {"step": str, "epoch": int}
    return {name: [kinds.get(name, float)(row[name]) for row in rows] for name in columns}


def save_history(path, history):
    """Write {column: values} as a CSV file; unlike that of vgg/report.py with text."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(history)
        writer.writerows(zip(*history.values(), strict=True))


def plot_curves(path, title, history):
    """Draw the loss over the epochs of each step; unlike that of vgg/report.py, there is no accuracy."""
    steps = list(dict.fromkeys(history["step"]))
    figure = Figure(figsize=(4 * len(steps), 4), layout="constrained")
    figure.suptitle(title)
    for axes, step in zip(figure.subplots(1, len(steps), squeeze=False)[0], steps, strict=True):
        of_step = [i for i, name in enumerate(history["step"]) if name == step]
        epochs = [history["epoch"][i] + 1 for i in of_step]
        axes.plot(epochs, [history["loss"][i] for i in of_step], ".-", label="training, with weight decay")
        axes.plot(epochs, [history["val_loss"][i] for i in of_step], ".-", label="validation, with weight decay")
        axes.set(xlabel="epoch", ylabel="loss", title=step)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)


def plot_detections(path, title, scenes, truths, detections, classes, min_probability=0.5):
    """Draw scenes in pairs: on the left the true boxes, on the right the detections with their scores.

    Args:
        path, title: where to, and over what title.
        scenes: (N, H, W, 3) uint8; the first 12 are drawn.
        truths: for each scene (boxes (M, 4), classes (M,)).
        detections: for each scene (boxes (D, 4), classes (D,), scores (D,)), the best first.
        classes: the names of the classes.
        min_probability: detections of a probability below this are left out, those of margins below 0.
    """
    figure = Figure(figsize=(18, 14), layout="constrained")
    figure.suptitle(f"{title}\ntest scenes: on the left what is there (white), on the right what is found")
    colors = [f"C{number}" for number in range(10)]
    for axes in (pairs := figure.subplots(4, 6)).flat:
        axes.axis("off")
    is_margin = any(len(scores) and scores.min() < 0 for _, _, scores in detections)
    for number, scene in enumerate(scenes[:12]):
        left, right = pairs.flat[2 * number], pairs.flat[2 * number + 1]
        for axes in (left, right):
            axes.imshow(scene)
        for box, label in zip(*truths[number], strict=True):
            draw_box(left, box, classes[label], "white")
        for box, label, score in zip(*detections[number], strict=True):
            if score >= (0 if is_margin else min_probability):
                draw_box(right, box, f"{classes[label]} {score:.2f}", colors[label % 10])
    figure.savefig(path, dpi=70)  # noise makes large files


def draw_box(axes, box, text, color):
    """Draw a box, "xyxy" in pixels, and a text above it."""
    x1, y1, x2, y2 = box - 0.5  # matplotlib has the center of the first pixel at 0
    axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=color, linewidth=1.5)
    axes.text(x1, max(y1 - 1, 7), text, fontsize=8, color="black",
              bbox={"facecolor": color, "edgecolor": "none", "pad": 1, "alpha": 0.8})

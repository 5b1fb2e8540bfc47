"""The scores of a detector, and its pictures: the losses of every step, and detections in test scenes."""

import numpy as np
from matplotlib.figure import Figure

import boxes

# What the scores of a detector are, and the least one to draw.
DRAWN = {"rcnn": ("margin", 0.0), "fast_rcnn": ("probability", 0.5), "faster_rcnn": ("probability", 0.5)}


def detection_scores(found, scenes, classes):
    """Return what results.json says of the detections in the validation and test scenes.

    Args:
        found: {"validation": (detections, proposals, seconds), "test": ...}, from detect.detect.
        scenes: {"validation": (scenes, objects), "test": ...}, from make_scenes.
        classes: the names of the classes.
    """
    precisions = {
        name: boxes.average_precisions(found[name][0], scenes[name][1], len(classes)) for name in ("validation", "test")
    }
    _, proposals, seconds = found["test"]
    _, truths = scenes["test"]
    return {
        "validation_map_50": float(np.nanmean(precisions["validation"])),
        "map_50": float(np.nanmean(precisions["test"])),
        "average_precision": {  # None, which JSON has, for a class that no scene has
            name: None if np.isnan(value) else float(value)
            for name, value in zip(classes, precisions["test"], strict=True)
        },
        "proposal_recall": recall(proposals, truths),
        "proposals_per_image": float(np.mean([len(regions) for regions in proposals])),
        "test_scenes": len(truths),
        "seconds_per_image": {part: float(np.mean(of_part)) for part, of_part in seconds.items()},
    }


def recall(proposals, truths, threshold=0.5):
    """Return the share of the objects that a proposal overlaps by an IoU of at least the threshold; nan without any."""
    found = [boxes.iou(truth, regions).max(1, initial=0) for regions, (truth, _) in zip(proposals, truths, strict=True)]
    found = np.concatenate(found) if found else np.zeros(0)
    return float((found >= threshold).mean()) if len(found) else float("nan")


def loss_curves(history):
    """Return a figure of the loss over the epochs of each step, weight decay included.

    Args:
        history: {column: values}, from training.read_history.
    """
    steps = list(dict.fromkeys(history["step"]))
    figure = Figure(figsize=(4 * len(steps), 4), layout="constrained")
    for axes, step in zip(figure.subplots(1, len(steps), squeeze=False)[0], steps, strict=True):
        of_step = [i for i, name in enumerate(history["step"]) if name == step]
        epochs = [history["epoch"][i] + 1 for i in of_step]
        axes.plot(epochs, [history["loss"][i] for i in of_step], "--", label="training")
        axes.plot(epochs, [history["val_loss"][i] for i in of_step], ".-", label="validation")
        axes.set(xlabel="epoch", ylabel="loss with weight decay")
        axes.set_title(step, parse_math=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def detections(scenes, truths, found, classes, score, min_score):
    """Return a figure of up to 12 scenes in pairs: on the left the objects, on the right the detections.

    Args:
        scenes: (N, H, W, 3) uint8.
        truths: for each scene (boxes (M, 4), classes (M,)).
        found: for each scene (boxes (D, 4), classes (D,), scores (D,)), the best first.
        classes: the names of the classes.
        score: what the scores are, "margin" or "probability".
        min_score: the least score to draw.
    """
    figure = Figure(figsize=(12.6, 9.2), layout="constrained")
    figure.suptitle(f"test scenes: left the objects, right the detections with a {score} of at least {min_score:g}")
    for axes in (pairs := figure.subplots(4, 6)).flat:
        axes.axis("off")
    for i, (scene, (truth, labels)) in enumerate(list(zip(scenes, truths, strict=True))[:12]):
        left, right = pairs.flat[2 * i], pairs.flat[2 * i + 1]
        draw_boxes(left, scene, truth, [classes[k] for k in labels], ["white"] * len(labels))
        placed, labels, scores = (values[found[i][2] >= min_score] for values in found[i])
        texts = [f"{classes[k]} {value:.2f}" for k, value in zip(labels, scores, strict=True)]
        draw_boxes(right, scene, placed, texts, [f"C{k % 10}" for k in labels])
    return figure


def draw_boxes(axes, scene, found, texts, colors):
    """Draw a scene, boxes in it, "xyxy" in pixels, and above each its text, or below if there is another text."""
    axes.imshow(scene)
    taken = []  # (left, bottom, width) of the texts
    height, width_of_letter = 8, 3.1  # of a text, in pixels of a scene of 128x128
    for box, text, color in zip(found, texts, colors, strict=True):
        x1, y1, x2, y2 = box - 0.5  # matplotlib has the center of the first pixel at 0
        axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=color, linewidth=1.5)
        width = 2 + width_of_letter * len(text)
        x, y = max(0, min(x1, scene.shape[1] - width)), max(y1, height)
        while any(abs(y - bottom) < height and left - width < x < left + other for left, bottom, other in taken):
            y += 1
        taken.append((x, y, width))
        axes.text(x + 1, y - 2, text, fontsize=5.5, color="black", parse_math=False,
                  bbox={"facecolor": color, "edgecolor": "none", "pad": 0.8, "alpha": 0.8})

"""The pictures of a run: losses, one scene on its way through Faster R-CNN, detections, precision, mistakes."""

import numpy as np
from keras import Model
from matplotlib.figure import Figure

import evaluate
from faster_rcnn import Proposals

# What the scores of a detector are, and the least one to draw.
DRAWN = {"rcnn": ("margin", 0.0), "fast_rcnn": ("probability", 0.5), "faster_rcnn": ("probability", 0.5)}
COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")  # Okabe and Ito's


def of_run(model, history, split, found, classes):
    """Return the pictures of a run, {file name: Figure}.

    Args:
        model: the trained detector.
        history: {column: values}, from steps.read_history.
        split: (scenes (N, H, W, 3), objects), the test scenes.
        found: for each of them a record of detect.detect.
        classes: the names of the classes.
    """
    name = model.layers[-1].name
    (scenes, truths), way = split, {}
    if name == "faster_rcnn":
        way = {"one_scene.png": one_scene(model, scenes[0], found[0], classes)}
    return {
        "curves.png": loss_curves(history),
        **way,
        "detections.png": detections(scenes, truths, found, classes, name),
        "precision_recall.png": precision_recall(found, truths, classes),
        "mistakes.png": mistakes(found, truths, classes, name),
    }


def loss_curves(history):
    """Return a figure of the loss over the epochs of each step, weight decay included."""
    names = list(dict.fromkeys(history["step"]))
    figure = Figure(figsize=(8.4, 3.2 * ((len(names) + 2) // 3)), layout="constrained")
    panels = figure.subplots((len(names) + 2) // 3, min(3, len(names)), squeeze=False).flat
    for axes in panels[len(names) :]:
        axes.axis("off")
    for axes, step in zip(panels, names, strict=False):
        of_step = [i for i, name in enumerate(history["step"]) if name == step]
        epochs = [history["epoch"][i] + 1 for i in of_step]
        axes.plot(epochs, [history["loss"][i] for i in of_step], ".--", label="training", color=COLORS[1])
        axes.plot(epochs, [history["val_loss"][i] for i in of_step], ".-", label="validation", color=COLORS[0])
        axes.set(xlabel="epoch", ylabel="loss with weight decay")
        axes.set_title(step, parse_math=False)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def one_scene(model, scene, found, classes):
    """Return a figure of one scene on its way through Faster R-CNN, step by step.

    Args:
        model: a trained Faster R-CNN.
        scene: (H, W, 3) uint8.
        found: its record of detect.detect.
        classes: the names of the classes.
    """
    network, normalization = model.layers[-1], model.get_layer("normalization")
    backbone, rpn, proposals = (network.get_layer(name) for name in ("backbone", "rpn", "proposals"))
    feature_maps = backbone(normalization(model.input))
    anchors = rpn(feature_maps)
    everything = Proposals.from_config(proposals.get_config() | {"threshold": 1.0, "name": "before"})
    outputs = Model(model.input, {"maps": feature_maps, "before": everything(**anchors), **anchors}).predict_on_batch(
        scene[None]
    )
    (height, width, _), n_anchors = outputs["maps"].shape[1:], len(proposals.anchors)
    objectness = outputs["objectness"][0, :, 1].reshape(height, width, n_anchors).max(-1)
    pooling = network.get_layer("roi_pooling")
    score = DRAWN["faster_rcnn"][1]

    figure = Figure(figsize=(8.4, 6.3), layout="constrained")
    panels = figure.subplots(2, 3).flat
    for axes in panels:
        axes.axis("off")
    y, x = np.unravel_index(objectness.argmax(), objectness.shape)
    of_cell = proposals.all_anchors().reshape(height, width, n_anchors, 4)[y, x]
    draw_boxes(panels[0], scene, of_cell, [""] * n_anchors, COLORS)
    panels[0].set_title(f"1. the {n_anchors} anchors of one cell", fontsize=9)
    picture = panels[1].imshow(objectness, cmap="viridis", vmin=0, vmax=1)
    figure.colorbar(picture, ax=panels[1], shrink=0.7)
    panels[1].set_title("2. objectness of each cell", fontsize=9)
    best = outputs["before"][0, :50]
    draw_boxes(panels[2], scene, best, [""] * len(best), [COLORS[1]] * len(best))
    panels[2].set_title("3. the 50 best before suppression", fontsize=9)
    best = found["regions"][:10]
    draw_boxes(panels[3], scene, best, [""] * len(best), [COLORS[1]] * len(best))
    panels[3].set_title("4. the 10 best after it: proposals", fontsize=9)
    height, width = scene.shape[:2]
    region = [*found["regions"], np.array([0, 0, width, height])][0]  # all of the scene if there are none
    panels[4].imshow(outputs["maps"][0].mean(-1), cmap="gray")
    edges = np.floor(region * pooling.scale + 0.5)
    for i in range(pooling.size + 1):
        x1, y1, x2, y2 = edges + [-0.5, -0.5, 0.5, 0.5]  # the last cell is inside
        across, down = x1 + i * (x2 - x1) / pooling.size, y1 + i * (y2 - y1) / pooling.size
        panels[4].plot([across, across], [y1, y2], color=COLORS[1])
        panels[4].plot([x1, x2], [down, down], color=COLORS[1])
    panels[4].set_title(f"5. the best, in {pooling.size}x{pooling.size} bins", fontsize=9)
    draw_detections(panels[5], scene, found, classes, score)
    panels[5].set_title(f"6. detections, probability at least {score:g}", fontsize=9)
    return figure


def detections(scenes, truths, found, classes, name):
    """Return a figure of the first 6 scenes in pairs: on the left the objects, on the right the detections."""
    score, least = DRAWN[name]
    figure = Figure(figsize=(8.4, 6.9), layout="constrained")
    means = ", from its support vector machine" if name == "rcnn" else ""
    figure.suptitle(f"test scenes: left the objects, right the detections\nwith a {score} of at least {least:g}{means}")
    pairs = figure.subplots(3, 4).flat
    for axes in pairs:
        axes.axis("off")
    for i, (scene, (truth, kinds), of_scene) in enumerate(list(zip(scenes, truths, found, strict=True))[:6]):
        draw_boxes(pairs[2 * i], scene, truth, [classes[k] for k in kinds], ["white"] * len(kinds))
        draw_detections(pairs[2 * i + 1], scene, of_scene, classes, least)
    return figure


def detections_of(picture, found, classes, name):
    """Return a figure of one picture and what was found in it."""
    height, width = picture.shape[:2]
    figure = Figure(figsize=(8.4, min(20, 8.4 * height / width + 0.5)), layout="constrained")
    score, least = DRAWN[name]
    axes = figure.subplots()
    axes.axis("off")
    axes.set_title(f"{score} of at least {least:g}")
    draw_detections(axes, picture, found, classes, least)
    return figure


def draw_detections(axes, image, found, classes, least):
    """Draw an image and those detections in it that have a score of at least `least`."""
    chosen = found["scores"] >= least
    kinds, scores = found["classes"][chosen], found["scores"][chosen]
    texts = [f"{classes[k]} {score:.2f}" for k, score in zip(kinds, scores, strict=True)]
    draw_boxes(axes, image, found["boxes"][chosen], texts, [COLORS[k % len(COLORS)] for k in kinds])


def draw_boxes(axes, image, found, texts, colors):
    """Draw an image, boxes in it, "xyxy" in pixels, and at each its text, where no other text is."""
    axes.imshow(image)
    height, width = image.shape[:2]
    line, letter = 0.065 * height, 0.030 * height  # of a text, in pixels of the image
    taken = []  # (left, bottom, right) of the texts
    for box, text, color in zip(found, texts, colors, strict=False):
        x1, y1, x2, y2 = box - 0.5  # matplotlib has the center of the first pixel at 0
        axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], color=color, linewidth=1.2)
        if not text:
            continue
        length = letter * (len(text) + 1)
        x, y = max(0, min(x1, width - length)), max(y1, line)
        while any(abs(y - bottom) < line and left < x + length and x < right for left, bottom, right in taken):
            y += line / 4
        taken.append((x, y, x + length))
        axes.text(x, y - 0.01 * height, text, fontsize=6.5, color="black", parse_math=False, clip_on=True,
                  bbox={"facecolor": color, "edgecolor": "none", "pad": 1, "alpha": 0.8})
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def precision_recall(found, truths, classes):
    """Return a figure of the precision over the recall of each class."""
    verdicts = [evaluate.judge(of_scene, *truth) for of_scene, truth in zip(found, truths, strict=True)]
    verdicts = np.concatenate(verdicts)
    kinds, scores = (np.concatenate([of_scene[name] for of_scene in found]) for name in ("classes", "scores"))
    n_objects = np.bincount(np.concatenate([kinds for _, kinds in truths]), minlength=len(classes))
    precisions = evaluate.average_precisions(found, truths, len(classes))
    figure = Figure(figsize=(8.4, 5), layout="constrained")
    axes = figure.subplots()
    for k in np.argsort(-np.nan_to_num(precisions)):
        right = (verdicts[kinds == k] == "right")[np.argsort(-scores[kinds == k], kind="stable")].cumsum()
        axes.plot(right / max(1, n_objects[k]), right / np.arange(1, len(right) + 1), color=COLORS[k % len(COLORS)],
                  linestyle="-" if k < len(COLORS) else "--", label=f"{classes[k]} {precisions[k]:.2f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    for text in axes.legend(loc="upper left", bbox_to_anchor=(1, 1), title="average precision").get_texts():
        text.set_parse_math(False)
    return figure


def mistakes(found, truths, classes, name):
    """Return a figure of what the detections of each class are, and of the objects that none finds."""
    score, least = DRAWN[name]
    counts, missed = np.zeros((len(classes), len(evaluate.VERDICTS)), int), np.zeros(len(classes), int)
    for of_scene, (truth, kinds) in zip(found, truths, strict=True):
        chosen = of_scene["scores"] >= least
        drawn = {key: of_scene[key][chosen] for key in ("boxes", "classes", "scores")}
        verdicts = evaluate.judge(drawn, truth, kinds)
        for k, verdict in zip(drawn["classes"], verdicts, strict=True):
            counts[k, evaluate.VERDICTS.index(verdict)] += 1
        of_class = np.bincount(kinds, minlength=len(classes))
        missed += of_class - np.bincount(drawn["classes"][verdicts == "right"], minlength=len(classes))
    figure = Figure(figsize=(8.4, 4.4), layout="constrained")
    axes = figure.subplots()
    columns = [*zip(evaluate.VERDICTS, counts.T, strict=True), ("not found", missed)]
    left = np.zeros(len(classes))
    for (label, values), color in zip(columns, ("#009e73", *COLORS[1:2], "#d55e00", "#cc79a7", "#56b4e9", "#bbbbbb"),
                                      strict=True):
        axes.barh(range(len(classes)), values, left=left, label=label, color=color)
        left += values
    axes.set_yticks(range(len(classes)), classes, parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel=f"detections with a {score} of at least {least:g}, and objects that none of them finds")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure

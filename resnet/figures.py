# The same file in the folder of every classifier.
"""Pictures of what a network has learned: its confusions, its most confident mistakes, its feature maps."""

import math
import re

import keras
import numpy as np
from keras import Model
from matplotlib.figure import Figure

N_MISTAKES = 24  # the most confident ones
N_CHANNELS = 10  # of each stage, those with the largest mean


def of_run(model, network, split, probabilities, classes):
    """Return the pictures of a run as {file name: Figure}.

    Args:
        model: from images to class probabilities, with a layer "normalization".
        network: the layer of it that takes normalized images.
        split: test images (N, H, W, C), pixels 0 to 255, and their labels (N,).
        probabilities: (N, K), what the model makes of them.
        classes: the names of the K classes.
    """
    images, labels = split
    return {
        "confusions.png": confusions(labels, probabilities.argmax(-1), classes),
        "mistakes.png": confident_mistakes(images, labels, probabilities, classes),
        "feature_maps.png": maps_of_stages(model, network, images[:1]),
    }


def confusions(labels, predicted, classes):
    """Return a figure of how many percent of each class are predicted as each: rows sum to 100, or to 0 without
    images of the class.

    Args:
        labels, predicted: (N,), class indices.
        classes: the names of the K classes.
    """
    k = len(classes)
    counts = np.bincount(k * labels + predicted, minlength=k * k).reshape(k, k)
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(8.4, 7.4), layout="constrained")
    figure.suptitle("percent of the test images of each class that are predicted as each class")
    axes = figure.subplots()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    axes.set(xlabel="predicted class", ylabel="true class")
    size = min(10, 160 // k)
    for set_ticks, set_labels in ((axes.set_xticks, axes.set_xticklabels), (axes.set_yticks, axes.set_yticklabels)):
        set_ticks(range(k))
        set_labels(classes, fontsize=size, parse_math=False)
    axes.tick_params("x", rotation=45)
    for (row, column), value in np.ndenumerate(percent):
        if value >= 0.5 and k <= 20:
            color = "white" if value > 50 else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=size, color=color)
    return figure


def confident_mistakes(images, labels, probabilities, classes):
    """Return a figure of the images that are most confidently taken for another class.

    Args:
        images: (N, H, W, 3), pixels 0 to 255.
        labels: (N,), class indices.
        probabilities: (N, K).
        classes: the names of the K classes.
    """
    predicted, confidence = probabilities.argmax(-1), probabilities.max(-1)
    wrong = np.flatnonzero(predicted != labels)
    chosen = wrong[confidence[wrong].argsort()[::-1][:N_MISTAKES]]
    n_rows = max(1, math.ceil(len(chosen) / 6))
    figure = Figure(figsize=(8.4, 0.6 + 1.7 * n_rows), layout="constrained")
    figure.suptitle("the most confident mistakes: predicted, then what it is" if len(chosen) else "no mistakes")
    for axes in figure.subplots(n_rows, 6, squeeze=False).flat:
        axes.axis("off")
    for axes, i, image in zip(figure.axes, chosen, images[chosen], strict=False):
        axes.imshow(image)
        guess, truth = classes[predicted[i]], classes[labels[i]]
        axes.set_title(f"{guess} {confidence[i]:.0%}\n{truth}", fontsize=9, parse_math=False)
    return figure


def maps_of_stages(model, network, image):
    """Return a figure of one image and, stage after stage, of the feature maps that it excites most.

    Args:
        model: from images to class probabilities, with a layer "normalization".
        network: the layer of it that takes normalized images; its stages end in layers stem, group_1, group_2 ...
        image: (1, H, W, 3), pixels 0 to 255.
    """
    stages = [layer for layer in network.layers if re.fullmatch(r"stem|group_\d+", layer.name)]
    normalized = model.get_layer("normalization")(image)
    outputs = Model(network.input, [layer.output for layer in stages])(normalized, training=False)
    figure = Figure(figsize=(8.4, 1 + 0.95 * len(stages)), layout="constrained")
    figure.suptitle("a test image, and the feature maps that it excites most, stage after stage")
    rows = figure.subplots(len(stages), 1 + N_CHANNELS, squeeze=False)
    for axes in rows.flat:
        axes.axis("off")
    rows[0, 0].imshow(image[0])
    for row, stage, output in zip(rows, stages, keras.tree.flatten(outputs), strict=True):
        maps = keras.ops.convert_to_numpy(output)[0].astype("float32")  # (H, W, C)
        strongest = maps.mean((0, 1)).argsort()[::-1][:N_CHANNELS]
        for axes, channel in zip(row[1:], strongest, strict=False):
            axes.imshow(maps[..., channel], cmap="viridis")
        row[1].set_title(f"{stage.name}, {maps.shape[0]}x{maps.shape[1]}x{maps.shape[2]}", loc="left", fontsize=9)
    return figure

"""The weights that a trained network gives its feature maps: the mean SE weight of each channel, class by class.

Hu et al. 2018, "Squeeze-and-Excitation Networks", arXiv:1709.01507, section 7.2, "Role of Excitation": early blocks
give all classes much the same weights, later ones give each class its own; the last two of the paper's SE-ResNet-50
again differ little between classes.
"""

import re

import numpy as np
from keras import Input, Model, activations, layers
from matplotlib.figure import Figure

import figures

N_IMAGES = 50  # at most, of each class; as many as in the paper
N_CLASSES = 10  # at most, in the picture
N_CHANNELS = 64  # at most, of a block; the paper has 50


def of_run(model, network, split, probabilities, classes):
    """Return the pictures of a run as {file name: Figure}: those of every classifier, and the SE weights.

    Args:
        model: from images to class probabilities, with a layer "normalization".
        network: the layer of it that takes normalized images, with squeeze-excitation.
        split: test images (N, H, W, C), pixels 0 to 255, and their labels (N,).
        probabilities: (N, K), what the model makes of them.
        classes: the names of the K classes.
    """
    images, labels = split
    shown = np.unique(labels)[:N_CLASSES]  # those with test images
    weights = mean_se_weights(model, network, images, labels, shown)
    picture = se_weights(weights, [classes[label] for label in shown])
    return figures.of_run(model, network, split, probabilities, classes) | {"se_weights.png": picture}


def excitations(network):
    """Return the layers of a network that make the SE weights (N, 1, 1, C) of its blocks: the sigmoids, in order."""
    return [x for x in network.layers if isinstance(x, layers.Dense) and x.activation is activations.sigmoid]


def mean_se_weights(model, network, images, labels, shown):
    """Return the mean SE weights of some classes in the first and in the last block, {title: (classes, C)}.

    Args:
        model: from images to class probabilities, with a layer "normalization".
        network: the layer of it that takes normalized images.
        images: (N, H, W, C), pixels 0 to 255.
        labels: (N,), class indices.
        shown: the indices of the classes.
    """
    found = excitations(network)
    ends = sorted({0, len(found) - 1})
    inputs = Input(network.input_shape[1:])
    of_normalized = Model(network.input, [found[i].output for i in ends])
    of_images = Model(inputs, of_normalized(model.get_layer("normalization")(inputs)))
    chosen = np.concatenate([np.flatnonzero(labels == label)[:N_IMAGES] for label in shown])
    outputs = of_images.predict(images[chosen], verbose=0)  # of each block (chosen, 1, 1, C)
    weights = {}
    for i, output in zip(ends, outputs, strict=True):
        group = re.match(r"group_\d+", found[i].name)[0]
        of_classes = [output[labels[chosen] == label].astype("float32").mean((0, 1, 2)) for label in shown]
        weights[f"block {i + 1} of {len(found)}, in {group}"] = np.stack(of_classes)
    return weights


def se_weights(weights, classes):
    """Return a figure of the mean SE weight of each channel for each class; channels by their mean, the largest first.

    Args:
        weights: {title: (classes, C)}, from `mean_se_weights`.
        classes: the names of the classes.
    """
    figure = Figure(figsize=(8.4, 1.2 + len(weights) * (1 + 0.22 * len(classes))), layout="constrained")
    figure.suptitle("the mean SE weight of each channel, and its standard deviation between classes")
    panels = figure.subplots(len(weights), squeeze=False)[:, 0]
    least, most = min(w.min() for w in weights.values()), max(w.max() for w in weights.values())
    for axes, (title, of_block) in zip(panels, weights.items(), strict=True):
        n_channels = of_block.shape[1]
        ranks = np.linspace(0, n_channels - 1, min(n_channels, N_CHANNELS)).round().astype(int)
        order = of_block.mean(0).argsort()[::-1][ranks]
        drawn = axes.imshow(of_block[:, order], aspect="auto", cmap="viridis", vmin=least, vmax=most)
        which = f"{len(order)} of {n_channels}" if len(order) < n_channels else n_channels
        deviation = f"{of_block.std(0).mean():.3f} between classes"
        axes.set_title(f"{title}, {which} channels: {deviation}", loc="left", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks(range(len(classes)))
        axes.set_yticklabels(classes, fontsize=9, parse_math=False)
    panels[-1].set_xlabel("channels, the largest mean weight first")
    figure.colorbar(drawn, ax=panels, label="mean SE weight")
    return figure

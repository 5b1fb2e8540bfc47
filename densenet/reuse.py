"""How much each layer of a trained DenseNet uses the feature maps of each layer before it.

Huang et al. 2017, "Densely Connected Convolutional Networks", arXiv:1608.06993, section 5, "Feature Reuse", figure 5.
"""

import re
from itertools import pairwise

import numpy as np
from keras import layers, ops
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import figures


def of_run(model, network, split, probabilities, classes):
    """Return the pictures of a run as {file name: Figure}: those of every classifier, and the reuse of feature maps.

    Args:
        model: from images to class probabilities, with a layer "normalization".
        network: the layer of it that takes normalized images, a DenseNet.
        split: test images (N, H, W, C), pixels 0 to 255, and their labels (N,).
        probabilities: (N, K), what the model makes of them.
        classes: the names of the K classes.
    """
    picture = reuse(mean_absolute_weights(network))
    return figures.of_run(model, network, split, probabilities, classes) | {"reuse.png": picture}


def mean_absolute_weights(network):
    """Return the mean absolute weight with which each layer of a group uses each source, [(n + 1, n + 1), ...].

    Rows are the sources: the input of the group, then the feature maps that each of its n layers adds. Columns are the
    users: the first convolution of each layer, which takes all feature maps before it, then the convolution of the
    transition or, in the last group, the classifier, which take them all. What a layer does not take is nan.
    """
    groups = [layer.name for layer in network.layers if re.fullmatch(r"group_\d+", layer.name)]
    found = []
    for group in groups:
        stages = (f"{group}_", "classifier_") if group == groups[-1] else (f"{group}_",)
        of_group = [layer for layer in network.layers if layer.name.startswith(stages)]
        starts = [0, *(i for i, layer in enumerate(of_group) if isinstance(layer, layers.Concatenate))]
        users = [next(x for x in of_group[i:] if isinstance(x, (layers.Conv2D, layers.Dense))) for i in starts]
        kernels = [ops.convert_to_numpy(layer.kernel) for layer in users]  # (3, 3, feature maps, filters) or so
        bounds = [0, *(kernel.shape[-2] for kernel in kernels)]  # of each source the first feature map
        weights = np.full((len(users), len(users)), np.nan)
        for i, kernel in enumerate(kernels):
            of_maps = abs(kernel).reshape(-1, *kernel.shape[-2:]).mean((0, 2))  # (feature maps,)
            weights[: i + 1, i] = [of_maps[a:b].mean() for a, b in pairwise(bounds[: i + 2])]
        found.append(weights)
    return found


def reuse(weights):
    """Return a figure of the mean absolute weights, a panel for each group, as shares of the largest of each layer.

    The size of a convolution's weights says nothing, since batch normalization divides it out; their shares do.

    Args:
        weights: of each group (n + 1, n + 1), from `mean_absolute_weights`.
    """
    n_columns = 2 if len(weights) in (2, 4) else min(3, len(weights))
    n_rows = -(-len(weights) // n_columns)
    figure = Figure(figsize=(8.4, 1 + n_rows * 7.4 / n_columns), layout="constrained")
    figure.suptitle("how much each layer uses the feature maps before it")
    panels = figure.subplots(n_rows, n_columns, squeeze=False)
    for axes in panels.flat[len(weights) :]:
        axes.axis("off")
    for i, (axes, of_group) in enumerate(zip(panels.flat, weights, strict=False), 1):
        n_layers = len(of_group) - 1
        edges = (0.5, n_layers + 1.5, n_layers + 0.5, -0.5)  # the layers count from 1, the group's input is 0
        drawn = axes.imshow(of_group / np.nanmax(of_group, 0), cmap="viridis", vmin=0, vmax=1, extent=edges)
        axes.axvline(n_layers + 0.5, color="white", linewidth=2)
        last = "classifier" if i == len(weights) else "transition"
        axes.set(title=f"group {i}", xlabel=f"layer; last column: {last}", ylabel="source; 0: the group's input")
        ticks = [tick for tick in MaxNLocator(6, integer=True).tick_values(0, n_layers) if tick <= n_layers]
        axes.set(xticks=ticks[1:], yticks=ticks)
    label = "mean absolute weight of a source, divided by the largest of the column"
    figure.colorbar(drawn, ax=panels, location="bottom", aspect=50, shrink=0.7, label=label)
    return figure

"""Pictures of what a Siamese network finds similar: pairs of images, each two classes, one-shot trials."""

import numpy as np
from matplotlib.figure import Figure

N_ROWS = 6  # of one-shot trials
N_COLUMNS = 11  # images in a row: one trial of ten ways, or several of fewer
RIGHT, WRONG = "#0072b2", "#d55e00"  # blue and vermilion of Okabe and Ito's colors, for all eyes


def pairs_figure(left, right, same, similarity):
    """Return a figure of up to 28 pairs, each under its similarity; a wrong verdict, on either side of 0.5, is red.

    Args:
        left, right: images (N, H, W, 3), pixels 0 to 255.
        same: (N,), 1 for a pair of one class.
        similarity: (N,), the probability of one class.
    """
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    figure.suptitle("the similarity of pairs of test images, the wrong verdicts in red")
    for axes in figure.subplots(4, 7).flat:
        axes.axis("off")
    for axes, *images, is_same, p in zip(figure.axes, left, right, same, similarity, strict=False):
        axes.imshow(np.concatenate(images, 1))
        color = "black" if (p > 0.5) == is_same else "red"
        axes.set_title(f"{p:.2f}, {'one class' if is_same else 'two classes'}", fontsize=9, color=color)
    return figure


def classes_figure(means, names):
    """Return a figure of the mean similarity between the images of each two classes, in percent.

    Args:
        means: (K, K), 0 to 1.
        names: of the K classes.
    """
    figure = Figure(figsize=(8.4, 7.4), layout="constrained")
    figure.suptitle("mean similarity of two test images of these classes, in percent")
    axes = figure.subplots()
    axes.imshow(100 * means, cmap="Blues", vmin=0, vmax=100)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    for (row, column), value in np.ndenumerate(100 * means):
        color = "white" if value > 50 else "black"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color)
    return figure


def trials_figure(images, labels, classes, trials, similarities):
    """Return a figure of one-shot trials: an image and its similarity to one of each class, the most similar framed.

    Args:
        images: (N, H, W, 3), pixels 0 to 255.
        labels: (N,), class indices.
        classes: the names of all classes.
        trials: from pairs.one_shot_trials; those that the figure has room for are shown, from the first.
        similarities: (n_trials, n_ways), from pairs.one_shot_similarities.
    """
    n_ways = similarities.shape[1]
    figure = Figure(figsize=(8.4, 7.6), layout="constrained")
    figure.suptitle("one-shot trials: which of the images on the right shows the class of the first?\n"
                    "above each its similarity; the most similar is framed, blue if right, red if wrong", fontsize=11)
    blocks = figure.subfigures(N_ROWS, max(1, N_COLUMNS // (1 + n_ways)), squeeze=False)
    for block, chosen, supports, answer, of_trial in zip(blocks.flat, *trials, similarities, strict=False):
        guess = of_trial.argmax()
        color, verdict = (RIGHT, "right") if guess == answer else (WRONG, "wrong")
        for i, (axes, image) in enumerate(zip(block.subplots(1, 1 + n_ways), (chosen, *supports), strict=True)):
            axes.imshow(images[image])
            axes.set(xticks=[], yticks=[], frame_on=i == guess + 1)
            weight = "bold" if i in (0, answer + 1) else "normal"  # of one class
            axes.set_xlabel(classes[labels[image]], fontsize=8, weight=weight, parse_math=False)
            axes.set_title(f"{of_trial[i - 1]:.2f}" if i else verdict, fontsize=8)
            if i in (0, guess + 1):
                axes.title.set(color=color, weight="bold")
                axes.spines[:].set(color=color, linewidth=3)
    return figure

"""The two tasks: one class from each of several groups, or the classes that a mosaic of four images shows."""

import math
import textwrap

import run

import numpy as np
from keras import metrics
from matplotlib.figure import Figure

# Beside its kind an image has a class of each of these groups: {group: {class: the kinds that belong to it}}.
CIFAR10_GROUPS = {
    "realm": {  # where it is met
        "air": ("airplane", "bird"),
        "land": ("automobile", "cat", "deer", "dog", "horse", "truck"),
        "water": ("frog", "ship"),
    },
    "alive": {
        "machine": ("airplane", "automobile", "ship", "truck"),
        "animal": ("bird", "cat", "deer", "dog", "frog", "horse"),
    },
}
SYNTHETIC_GROUPS = {
    "outline": {
        "round": ("disk", "ring"),
        "angular": ("square", "frame", "triangle", "checkers"),
        "bars": ("plus", "cross", "rows", "columns"),
    },
    "filled": {
        "with gaps": ("ring", "frame", "rows", "columns", "checkers"),
        "in one piece": ("disk", "square", "triangle", "plus", "cross"),
    },
}


def groups(classes):
    """Return the groups that images of these kinds belong to: {group: {class: the kinds that belong to it}}.

    Args:
        classes: the names of the kinds, those of CIFAR-10 or the synthetic ones.
    """
    others = CIFAR10_GROUPS if "airplane" in classes else SYNTHETIC_GROUPS
    return {"kind": {kind: (kind,) for kind in classes}, **others}


def group_labels(labels, classes):
    """Return the labels of each group, {group: (N,) int32}, from those of the kinds, (N,)."""
    found = {}
    for name, group in groups(classes).items():
        label_of = {kind: i for i, kinds in enumerate(group.values()) for kind in kinds}
        found[name] = np.array([label_of[kind] for kind in classes], "int32")[labels]
    return found


def mosaics(images, labels, chosen, n_classes):
    """Set four images each in a square.

    Args:
        images, labels: (N, H, W, C) and (N,).
        chosen: (M, 4), the indices of the images at the top left, top right, bottom left and bottom right.
        n_classes: how many classes there are.

    Returns:
        Mosaics (M, 2H, 2W, C), and which classes they show, multi-hot: (M, n_classes) float32 of 0 and 1.
    """
    height, width, channels = images.shape[1:]
    tiles = images[chosen].reshape(-1, 2, 2, height, width, channels)  # (M, row, column, H, W, C)
    whole = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 2 * height, 2 * width, channels)
    shown = np.zeros((len(chosen), n_classes), "float32")
    shown[np.arange(len(chosen))[:, None], labels[chosen]] = 1  # 1 also where two of the four are of that class
    return whole, shown


def examples(task, split, classes, batch_size, seed=None):
    """Return `run.Batches` of a split, shuffled if there is a seed.

    A mosaic is made of four images that follow each other, so every epoch that is shuffled has other mosaics, and
    every image is in one of them. If a batch ends with fewer than four, its first images are there once more.

    Args:
        task: "groups", for batches (images, {group: labels}), or "mosaic", for (mosaics, multi-hot targets).
        split: (images (N, H, W, C), labels (N,)).
        classes: the names of the kinds.
        batch_size: how many images a batch shows; for mosaics rounded down to a multiple of four.
        seed: of the order of the images; None for the order that they have.
    """
    images, labels = split
    if task == "groups":
        answers = group_labels(labels, classes)

        def make(chosen, rng):
            return images[chosen], {name: answers[name][chosen] for name in answers}

    else:
        batch_size = max(4, batch_size // 4 * 4)

        def make(chosen, rng):
            in_fours = np.resize(chosen, (math.ceil(len(chosen) / 4), 4))
            return mosaics(images, labels, in_fours, len(classes))

    return run.Batches(len(images), batch_size, make, seed)


def scores(model, task, splits, classes):
    """Return what results.json says of a model: loss and metrics, {"validation_loss": ..., "test_macro_f1": ..., ...}.

    Of groups, also the names of the classes of each output, in order.

    Args:
        model: of the task, compiled.
        task: "groups" or "mosaic".
        splits: {"validation": (images, labels), "test": (images, labels)}, images (N, H, W, C), pixels 0 to 255.
        classes: the names of the kinds.
    """
    validation, test = (examples(task, splits[name], classes, 256) for name in ("validation", "test"))
    found = {
        f"{split}_{name}": float(value)
        for split, batches in (("validation", validation), ("test", test))
        for name, value in model.evaluate(batches, verbose=0, return_dict=True).items()
    }
    if task == "groups":
        return {"classes": {name: list(group) for name, group in groups(classes).items()}, **found}
    answers = np.concatenate([test[i][1] for i in range(len(test))])
    more = mosaic_scores(answers, model.predict(test, verbose=0), classes)
    return found | {f"test_{name}": value for name, value in more.items()}


def mosaic_scores(answers, probabilities, classes):
    """Return what Keras did not evaluate: the average precisions, and the scores of two guesses without looking.

    Binary accuracy, the share of yes and no that is right, is high for the guess that no class is there, since most are
    not; its F1 is 0, for it finds nothing. The guess that all are there finds everything and is wrong about the rest. A
    guess ranks the images as they come, by chance, and that has an average precision too.

    Args:
        answers: multi-hot targets (N, n_classes).
        probabilities: (N, n_classes).
        classes: the names of the classes.
    """
    def precisions(ranks):
        return [average_precision(hits, scores, hits.sum()) for hits, scores in zip(answers.T, ranks.T, strict=True)]

    guesses = {"all_zero": np.zeros_like(answers), "all_one": np.ones_like(answers)}
    return {
        "mean_average_precision": float(np.mean(precisions(probabilities))),
        "average_precision": dict(zip(classes, precisions(probabilities), strict=True)),
        "exact_match": float(((probabilities > 0.5) == answers).all(-1).mean()),
        "guesses": {
            name: {
                "macro_f1": float(metrics.F1Score("macro", threshold=0.5)(answers, guess)),
                "micro_f1": float(metrics.F1Score("micro", threshold=0.5)(answers, guess)),
                "binary_accuracy": float((answers == guess).mean()),
                "exact_match": float((answers == guess).all(-1).mean()),
                "mean_average_precision": float(np.mean(precisions(guess))),
            }
            for name, guess in guesses.items()
        },
    }


def average_precision(hits, scores, n_positives):
    """Return the area under the curve of precision over recall, of examples ranked by score.

    The precision at a recall is the highest of all from there on ("all-point", as in the VOC challenge since 2010).

    Args:
        hits: (N,), 1 where the example is one of those to be found, 0 where not.
        scores: (N,), the highest is the first in the ranking.
        n_positives: how many there are to be found, some of them perhaps not among the examples.

    Returns:
        A number from 0 to 1; 0 if there is nothing to be found.
    """
    hits = hits[np.argsort(-scores, kind="stable")] > 0
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here[hits].sum() / max(1, n_positives))  # each hit is a step of the recall


def sentence(task, scores):
    """Return the scores of the test images in one sentence."""
    if task == "groups":
        accuracies = ", ".join(f"{name} {scores[f'test_{name}_accuracy']:.2%}" for name in scores["classes"])
        return f"Test images classified correctly: {accuracies}."
    guesses = ", ".join(f"{name} {guess['macro_f1']:.3f}" for name, guess in scores["test_guesses"].items())
    return (f"Test mosaics: macro F1 {scores['test_macro_f1']:.3f} (guesses: {guesses}), "
            f"mean average precision {scores['test_mean_average_precision']:.3f}.")


def predictions_figure(model, task, split, classes):
    """Return a figure of the first examples of a split under which stands what the model predicts; wrong is red.

    Args:
        model: of the task.
        task: "groups" or "mosaic".
        split: (images (N, 32, 32, 3), labels (N,)), pixels 0 to 255.
        classes: the names of the kinds.
    """
    n_images, draw = {"groups": (32, groups_figure), "mosaic": (60, mosaics_figure)}[task]
    images, answers = examples(task, split, classes, n_images)[0]
    return draw(images, answers, model.predict(images, verbose=0), classes)


def groups_figure(images, answers, predicted, classes):
    """Return a figure of up to 32 images, each over its predicted classes; a wrong one is red and names the true one.

    Args:
        images: (N, 32, 32, 3), pixels 0 to 255.
        answers: {group: labels (N,)}.
        predicted: {group: probabilities (N, classes of the group)}.
        classes: the names of the kinds.
    """
    figure = Figure(figsize=(12, 9), layout="constrained")
    figure.suptitle(f"predictions on test images ({', '.join(answers)}), the wrong ones in red")
    for axes in figure.subplots(4, 8).flat:
        axes.axis("off")
    for i, (axes, image) in enumerate(zip(figure.axes, images, strict=False)):
        axes.imshow(image)
        axes.set_ylim(46, -0.5)  # three lines of text below the 32 rows of pixels
        for line, (name, group) in enumerate(groups(classes).items()):
            names, guess, truth = list(group), predicted[name][i].argmax(), answers[name][i]
            text = names[guess] if guess == truth else f"{names[guess]}, is {names[truth]}"
            color = "black" if guess == truth else "red"
            at = (16, 35.5 + 4.5 * line)
            axes.text(*at, text, color=color, fontsize=7.5, ha="center", in_layout=False, parse_math=False)
    return figure


def mosaics_figure(images, answers, predicted, classes):
    """Return a figure of up to 15 mosaics, each over the classes found, those missed, and those it does not show.

    Args:
        images: (N, 64, 64, 3), pixels 0 to 255.
        answers: multi-hot targets (N, n_classes).
        predicted: probabilities (N, n_classes); above 0.5 is yes.
        classes: the names of the classes.
    """
    figure = Figure(figsize=(12, 10), layout="constrained")
    figure.suptitle("classes found in test mosaics, and in red the wrong answers")
    for axes in figure.subplots(3, 5).flat:
        axes.axis("off")
    for axes, image, answer, probabilities in zip(figure.axes, images, answers, predicted, strict=False):
        axes.imshow(image)
        axes.set_ylim(84, -0.5)  # three lines of text below the 64 rows of pixels
        truth, guess = answer > 0, probabilities > 0.5
        words = {"found": truth & guess, "missed": truth & ~guess, "not there": guess & ~truth}
        lines = [(word, np.array(classes)[chosen]) for word, chosen in words.items() if chosen.any()]
        for line, (word, names) in enumerate(lines):
            text = textwrap.shorten(f"{word}: {', '.join(names)}", 42, placeholder=" ...")
            color = "black" if word == "found" else "red"
            axes.text(0, 69 + 6 * line, text, color=color, fontsize=8, in_layout=False, parse_math=False)
    return figure

"""What a training run leaves behind: the best model, results.json, and as pictures the curves and some predictions."""

import csv
import json
import math
import platform
import shlex
import sys
import time

import keras
import numpy as np
from keras import callbacks, metrics
from matplotlib.figure import Figure

import tasks

OUTPUTS = ("model.keras", "history.csv", "curves.png", "predictions.png", "results.json")


class BestModel(callbacks.Callback):
    """Save the model after each epoch that is the best so far on the validation images; log how long the epoch took.

    Unlike that of vgg/report.py it is told which of the logs, the higher the better, says what is best.
    """

    def __init__(self, path, monitor, best):
        super().__init__()
        self.path, self.monitor, self.best = path, monitor, best  # best: the highest before an interruption

    def on_epoch_begin(self, epoch, logs=None):
        """Start the clock."""
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Save if this is the best epoch, and add the seconds to what the next callbacks see."""
        if not math.isfinite(logs["val_loss"]):
            raise RuntimeError("NaN or Inf loss on the validation images")
        logs["seconds"] = time.perf_counter() - self.start
        if logs[self.monitor] > self.best:
            self.best = logs[self.monitor]
            write(self.path, self.model.save)


def write_results(output, settings, splits, classes):
    """Evaluate the best model, on the test set for the first and only time, and write every file but the model.

    Unlike that of vgg/report.py it scores every output, or the answers about mosaics and a guess beside them.

    Args:
        output: the folder with model.keras and history.csv.
        settings: what was trained, a dictionary; results.json begins with it.
        splits: {"validation": (images, labels), "test": (images, labels)}, images (N, H, W, 3) uint8.
        classes: the names of the classes.
    """
    model = keras.saving.load_model(output / "model.keras")
    validation, (images, answers) = (
        tasks.questions(settings["task"], *splits[name], classes, settings["seed"]) for name in ("validation", "test")
    )
    scores = {f"validation_{name}": x for name, x in model.evaluate(*validation, verbose=0, return_dict=True).items()}
    scores |= {f"test_{name}": value for name, value in model.evaluate(images, answers, return_dict=True).items()}
    predicted = model.predict(images, verbose=0)
    if settings["task"] == "mosaic":
        scores |= {f"test_{name}": value for name, value in mosaic_scores(answers, predicted, classes).items()}
    backend = keras.config.backend()
    versions = {name: sys.modules[name].__version__ for name in ("numpy", "keras", backend)}
    history = read_history(output)
    write(output / "history.csv", lambda path: save_history(path, history))  # an epoch run twice is now there once

    named = {"cifar10": "CIFAR-10", "synthetic": "synthetic shapes, not CIFAR-10"}
    title = f"{settings['model']} on {named.get(settings['data'], 'CIFAR-10 files in ' + settings['data'])}"
    plot = plot_groups if settings["task"] == "groups" else plot_mosaics
    write(output / "curves.png", lambda path: plot_curves(path, title, history))
    write(output / "predictions.png", lambda path: plot(path, title, images, answers, predicted, classes))

    results = {
        **settings,
        "parameters": sum(int(np.prod(variable.shape)) for variable in model.trainable_variables),
        "seconds": round(sum(history["seconds"]), 1),
        **scores,
        "versions": {"python": platform.python_version(), **versions},
        "backend": backend,
        "command": shlex.join(["python", *sys.argv]),
    }
    write(output / "results.json", lambda path: path.write_text(json.dumps(results, indent=2) + "\n"))
    if settings["task"] == "groups":
        found = ", ".join(f"{name} {scores[f'test_{name}_accuracy']:.2%}" for name in answers)
        print(f"{title}: right of {len(images)} test images: {found}.")
    else:
        guesses = ", ".join(f"{name} {guess['macro_f1']:.3f}" for name, guess in scores["test_guesses"].items())
        print(f"{title}, {len(images)} test mosaics: macro F1 {scores['test_macro_f1']:.3f} (guesses: {guesses}),")
        print(f"mean average precision {scores['test_mean_average_precision']:.3f}.")
    print(f"Results are in {output}.")


def mosaic_scores(answers, probabilities, classes):
    """Return what Keras did not evaluate: the average precisions, and how two guesses without looking would score.

    Binary accuracy, the share of yes and no that is right, is high for the guess that no class is there, since most are
    not; its F1 is 0, for it finds nothing. The guess that all are there finds everything and is wrong about the rest. A
    guess ranks the images as they come, by chance, and that has an average precision too.

    Args:
        answers: multi-hot targets (N, n_classes).
        probabilities: (N, n_classes).
        classes: the names of the classes.
    """
    def precisions(ranks):
        return [average_precision(*columns) for columns in zip(answers.T, ranks.T, strict=True)]

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


def average_precision(truth, scores):
    """Return the area under the curve of precision over recall, with the images ranked by score.

    At each recall counts the highest precision of any recall from there on ("all-point", the VOC challenge since 2010).

    Args:
        truth: (N,), 1 where the image shows the class, 0 where not.
        scores: (N,), the higher, the earlier in the ranking.

    Returns:
        A number from 0 to 1; 0 if no image shows the class.
    """
    hits = truth[np.argsort(-scores, kind="stable")] > 0
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here[hits].sum() / max(1, hits.sum()))  # each hit is a step of the recall


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
    """Draw the loss, and the scores of every output, over the epochs; those of the training images are dashed.

    The loss that is minimized has the weight decay in it and, of several outputs, is their weighted sum.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    epochs = range(1, len(history["loss"]) + 1)
    losses, scores = figure.subplots(1, 2)
    losses.plot(epochs, history["val_loss"], ".-", label="validation")
    losses.plot(epochs, history["loss"], "--", label="training")
    losses.set(xlabel="epoch", ylabel="loss with weight decay")
    names = [name for name in history if name.endswith(("accuracy", "f1")) and not name.startswith("val_")]
    for number, name in enumerate(names):
        label = name.replace("_", " ").replace("f1", "F1")
        scores.plot(epochs, history["val_" + name], ".-", color=f"C{number}", label=f"validation, {label}")
        scores.plot(epochs, history[name], "--", color=f"C{number}")
    scores.set(xlabel="epoch", ylabel="score, dashed: training")
    for axes in (losses, scores):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def plot_groups(path, title, images, answers, predicted, classes):
    """Draw images, each over its predicted class of every group; a wrong one is red and names the true class too.

    Args:
        path, title: where to, and over what title.
        images: (N, H, W, C) uint8.
        answers: {name of the group: labels (N,)}.
        predicted: {name of the group: probabilities (N, n_classes of the group)}.
        classes: the names of the kinds.
    """
    figure = Figure(figsize=(12, 9), layout="constrained")
    figure.suptitle(f"{title}\npredictions on test images ({', '.join(answers)}), the wrong ones in red")
    names_of = {name: list(group) for name, group in tasks.groups(classes).items()}
    for number, axes in enumerate(figure.subplots(4, 8).flat):
        axes.axis("off")
        if number >= len(images):
            continue
        axes.imshow(images[number])
        axes.set_ylim(46, -0.5)  # three lines of text below the 32 rows of pixels
        for line, (name, names) in enumerate(names_of.items()):
            guess, truth = predicted[name][number].argmax(), answers[name][number]
            text = names[guess] if guess == truth else f"{names[guess]}, is {names[truth]}"
            color = "black" if guess == truth else "red"
            axes.text(16, 35.5 + 4.5 * line, text, color=color, fontsize=8, ha="center")
    figure.savefig(path, dpi=100)


def plot_mosaics(path, title, images, answers, predicted, classes):
    """Draw mosaics, each over the classes found in it, those missed, and those that it does not show.

    Args:
        path, title: where to, and over what title.
        images: (N, H, W, C) uint8.
        answers: multi-hot targets (N, n_classes).
        predicted: probabilities (N, n_classes); above 0.5 is yes.
        classes: the names of the classes.
    """
    figure = Figure(figsize=(12, 10), layout="constrained")
    figure.suptitle(f"{title}\nclasses found in test mosaics, and in red the wrong answers")
    for number, axes in enumerate(figure.subplots(3, 5).flat):
        axes.axis("off")
        if number >= len(images):
            continue
        axes.imshow(images[number])
        axes.set_ylim(84, -0.5)  # three lines of text below the 64 rows of pixels
        truth, guess = answers[number] > 0, predicted[number] > 0.5
        answer = {"found": truth & guess, "missed": truth & ~guess, "not there": guess & ~truth}
        lines = [(word, np.array(classes)[chosen]) for word, chosen in answer.items() if chosen.any()]
        for line, (word, names) in enumerate(lines):
            color = "black" if word == "found" else "red"
            axes.text(0, 69 + 6 * line, f"{word}: {', '.join(names)}", color=color, fontsize=8)
    figure.savefig(path, dpi=100)

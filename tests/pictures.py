"""The pictures that the logs in the results folders determine. The others are drawn once, of the model of their run.

    python -m tests.pictures            # draws them anew
    python -m tests.pictures --check    # changes nothing: prints which differ, and ends with 1 if any does

They are results/overview.png, the front page's: test accuracy over the multiply-adds of an image, of the seven
classifiers; curves.png of every run; errors.png and psnr.png of the experiments; and rcnn's seconds.png. Another
version of Matplotlib may draw another picture of the same log, so only those of the version at hand are compared.
"""

import argparse
import csv
import io
import json
import math
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # `python -m tests.pictures` finds its neighbors there

import matplotlib
import numpy as np
from counting import multiply_adds
from folders import CLASSIFIERS, FOLDERS, ROOT, load
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import Image
from tables import network
from test_parameters import NAMES

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito's, for all eyes


def main():
    parser = argparse.ArgumentParser(
        "python -m tests.pictures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing, print which differ")
    args = parser.parse_args()
    found = {path: figure for path, figure in figures().items() if differs(path, figure)}
    for path, figure in found.items():
        if not args.check:
            figure.savefig(ROOT / path, dpi=100)
        print(f"{path} {'differs' if args.check else 'is new'}.")
    sys.exit(1 if args.check and found else 0)


def figures():
    """Return {path of a picture: Figure}."""
    found = {"results/overview.png": overview(points())}
    for folder in FOLDERS:
        for log in sorted((ROOT / folder / "results").rglob("history.csv")):
            found[of(log, "curves.png")] = curves(folder, log)
        for log in sorted((ROOT / folder / "results").rglob("measurements.csv")):
            picture, figure = experiment(folder, log)
            found[of(log, picture)] = figure
    log = ROOT / "rcnn" / "results" / "seconds.json"
    found[of(log, "seconds.png")] = seconds(log)
    return found


def of(log, picture):
    """Return the path of a picture beside its log, from the root."""
    return log.with_name(picture).relative_to(ROOT).as_posix()


def differs(path, figure):
    """Return whether there is no such picture, or another one; one of another version of Matplotlib is not compared."""
    if not (ROOT / path).exists():
        return True
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100, format="png")
    there, now = Image.open(ROOT / path), Image.open(drawn)
    if f"Matplotlib version{matplotlib.__version__}," not in there.text.get("Software", ""):
        return False
    if there.size != now.size:
        return True
    there, now = (np.asarray(image.convert("RGB"), "int16") for image in (there, now))
    return np.mean(np.abs(there - now).max(-1) > 32) > 1e-4  # a few edges are smoothed otherwise by other processors


def title(log):
    """Return what a title calls the images of a log."""
    words = shlex.split(log["command"])
    named = dict(zip(words, words[1:], strict=False)).get("--data-name")
    return named or {"data/cifar10-jpeg": "CIFAR-10 (JPEG copy)", "synthetic": "synthetic images"}[log["data"]]


def curves(folder, path):
    """Return what a run drew of its history.csv."""
    log = json.loads(path.with_name("results.json").read_text())
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    history = {name: [row[name] if name == "step" else float(row[name]) for row in rows] for name in rows[0]}
    if folder == "rcnn":
        figure = load("rcnn/drawings.py").loss_curves(history)
    elif folder == "autoencoder":
        figure = load("autoencoder/codes.py").error_curves(history)
    else:
        figure = load(f"{folder}/report.py").curves(history, log)
    figure.suptitle(f"{log['model']} on {title(log)}")
    return figure


def experiment(folder, path):
    """Return what an experiment drew of its measurements.csv: the name of the picture, and the Figure."""
    log = json.loads(path.with_name("results.json").read_text())
    with open(path, newline="") as file:
        rows = [{name: number(text) for name, text in row.items()} for row in csv.DictReader(file)]
    if folder == "autoencoder":
        name, figure = "psnr.png", load("autoencoder/code_sizes.py").psnr_figure(rows)
    else:
        name, figure = "errors.png", load(f"{folder}/experiment.py").errors_figure(rows, list(log["networks"]))
    figure.suptitle(f"{title(log)}, {log['limit']:,} images to train on, {log['seeds']} seeds")
    return name, figure


def number(text):
    """Return a cell of a table as a number, if it is one."""
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


def seconds(path):
    """Return what rcnn/benchmark.py drew of its seconds.json."""
    log = json.loads(path.read_text())
    figure = load("rcnn/benchmark.py").time_bars(log["seconds_per_image"], log["ratios"])
    words = shlex.split(log["command"])
    images = title(log | {"data": words[words.index("--data") + 1]})
    figure.suptitle(f"seconds for a scene, mean of {log['scenes']}, {images}")
    return figure


def points():
    """Return [(folder, network, multiply-adds, parameters, test accuracy in percent), ...]."""
    found = []
    for folder in CLASSIFIERS:
        log = json.loads((ROOT / folder / "results" / "results.json").read_text())
        name = log["model"]
        operations = multiply_adds(network(NAMES[name], name))
        found.append((folder, name, operations, log["parameters"], 100 * log["test_accuracy"]))
    return found


def overview(points):
    """Return the figure."""
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    axes = figure.subplots()
    for color, (_, name, operations, parameters, accuracy) in zip(COLORS, points, strict=True):
        covered = any(0.7 < o / operations < 1.4 and 0 < a - accuracy < 0.8 for *_, o, _, a in points)
        area = parameters / 1500  # in square points
        axes.scatter(operations / 1e6, accuracy, s=area, color=color, alpha=0.7, linewidth=0)
        radius, text = math.sqrt(area / math.pi), f"{name.removesuffix('_cifar10')}, {parameters / 1e6:.2f}M"
        offset = 0, -radius - 11 if covered else radius + 4
        side = "left" if covered else "center"
        place = operations / 1e6, accuracy
        axes.annotate(text, place, offset, textcoords="offset points", ha=side, fontsize=9)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator((10, 15, 20, 30, 50, 80)))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="millions of multiply-adds for an image", ylabel="percent of the test images",
             title="CIFAR-10 (JPEG copy), the default network of each folder; areas: parameters")
    axes.margins(0.15, 0.2)
    axes.grid(alpha=0.3)
    return figure


if __name__ == "__main__":
    main()

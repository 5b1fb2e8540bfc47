"""Draw the picture of the front page: test accuracy over the multiply-adds of an image, of the seven classifiers.

    python -m tests.overview    # writes results/overview.png, from the logs in the folders' results
"""

import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # `python -m tests.overview` finds its neighbors there

from counting import multiply_adds
from folders import CLASSIFIERS, ROOT
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from tables import network
from test_parameters import NAMES

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito's, for all eyes


def main():
    (ROOT / "results").mkdir(exist_ok=True)
    overview(points()).savefig(ROOT / "results" / "overview.png", dpi=100)


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
        place = operations / 1e6, accuracy
        axes.annotate(text, place, offset, textcoords="offset points", ha="center", fontsize=9)
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

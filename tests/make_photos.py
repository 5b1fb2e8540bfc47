"""Make photo folders out of CIFAR-10's binary files: many images of seven classes, 100 to learn from of three others.

    python tests/make_photos.py data/cifar10-jpeg photos

The first folder holds the binary files. Below the second come seven and three, each with train, validation and test.
"""

import sys
from pathlib import Path

import numpy as np
from folders import load
from PIL import Image

FEW = ("cat", "deer", "dog")  # which resemble one another
N_FEW = 100  # images of each to train on, and as many to validate


def main(source, to):
    """Write PNG files, which keep every pixel."""
    data = load("vgg/data.py")
    splits, classes = data.load(source)
    for name, (images, labels) in ((folder, splits[split]) for folder, split in data.SPLITS.items()):
        for k, label in enumerate(classes):
            chosen = np.flatnonzero(labels == k)
            if label in FEW and name != "test":
                chosen = chosen[:N_FEW]
            folder = Path(to) / ("three" if label in FEW else "seven") / name / label
            folder.mkdir(parents=True, exist_ok=True)
            for i in chosen:
                Image.fromarray(images[i]).save(folder / f"{i}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])

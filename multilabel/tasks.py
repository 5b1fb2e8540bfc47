"""What is asked of the images: one class of each of several groups, or which classes a mosaic of four images shows."""

import numpy as np
from keras import utils

# Beside its kind an image has a class of each of these groups: {group: {class: the kinds that are of it}}.
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
    """Return the groups that these kinds of images fall into: {name: {class: the kinds that are of it}}.

    Args:
        classes: the names of the kinds, those of CIFAR-10 or the synthetic ones.
    """
    others = CIFAR10_GROUPS if "airplane" in classes else SYNTHETIC_GROUPS
    return {"kind": {kind: (kind,) for kind in classes}, **others}


def group_labels(labels, classes):
    """Return the labels of each group, {name: (N,) int32}, given those of the kinds, (N,)."""
    found = {}
    for name, group in groups(classes).items():
        number_of = {kind: number for number, kinds in enumerate(group.values()) for kind in kinds}
        found[name] = np.array([number_of[kind] for kind in classes], "int32")[labels]
    return found


def questions(task, images, labels, classes, seed):
    """Return what a task shows and what it wants to hear, the same at every call.

    Args:
        task: "groups", every image with its label of each group, or "mosaic", mosaics with the classes that they show.
        images, labels: (N, H, W, C) and (N,).
        classes: the names of the kinds.
        seed: of the choice of the four images of a mosaic.
    """
    if task == "groups":
        return images, group_labels(labels, classes)
    return mosaics(images, labels, in_fours(len(images), np.random.default_rng(seed)), len(classes))


def mosaics(images, labels, chosen, n_classes):
    """Set four images each in a square.

    Args:
        images, labels: (N, H, W, C) and (N,), the images to choose from.
        chosen: (M, 4), the numbers of those at the top left, top right, bottom left and bottom right of each mosaic.
        n_classes: how many classes there are.

    Returns:
        Mosaics (M, 2H, 2W, C), and which classes they show, multi-hot: (M, n_classes) float32 of 0 and 1.
    """
    height, width, channels = images.shape[1:]
    tiles = images[chosen].reshape(-1, 2, 2, height, width, channels)  # (M, row, column, H, W, C)
    whole = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 2 * height, 2 * width, channels)
    shown = np.zeros((len(chosen), n_classes), "float32")
    shown[np.arange(len(chosen))[:, None], labels[chosen]] = 1  # once, though two of the four be of that class
    return whole, shown


def in_fours(n_images, rng):
    """Return the numbers of the images, shuffled, four in a row: (n_images // 4, 4), but at least one row."""
    order = rng.permutation(n_images)
    return np.resize(order, (max(1, n_images // 4), 4))  # begins anew where there are fewer than four


class Mosaics(utils.PyDataset):
    """Batches of mosaics and the classes they show; every epoch shuffles the images and sets each in one mosaic.

    Args:
        images, labels: (N, H, W, C) uint8 and (N,).
        n_classes: how many classes there are.
        batch_size: how many mosaics a batch has.
        seed: of the shuffles, together with the number of the epoch.
    """

    def __init__(self, images, labels, n_classes, batch_size, seed=0):
        super().__init__()
        self.images, self.labels, self.n_classes = images, labels, n_classes
        self.batch_size, self.seed = batch_size, seed
        self.draw(epoch=0)

    def draw(self, epoch):
        """Choose which images come together in an epoch, the same ones at every call with its number."""
        self.epoch = epoch
        self.chosen = in_fours(len(self.images), np.random.default_rng((self.seed, epoch)))

    def __len__(self):
        """Return the number of batches in an epoch, of which the last may be smaller."""
        return -(-len(self.chosen) // self.batch_size)

    def __getitem__(self, number):
        """Return a batch: mosaics (M, 2H, 2W, C) and multi-hot targets (M, n_classes)."""
        chosen = self.chosen[number * self.batch_size : (number + 1) * self.batch_size]
        return mosaics(self.images, self.labels, chosen, self.n_classes)

    def on_epoch_end(self):
        """Draw the next epoch. Keras calls this once before the first, too, and knows no numbers: see train.py."""
        self.draw(self.epoch + 1)

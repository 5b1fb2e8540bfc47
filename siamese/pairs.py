"""What a Siamese network is shown: pairs of images of one class or of two, and one-shot trials."""

import numpy as np
from keras import utils


def hold_out(splits, n_classes, n_held_out, n_ways, seed):
    """Set classes aside that the network is never to learn from.

    Args:
        splits: {"training": (images, labels), "validation": ..., "test": ...}, with labels (N,) of 0 to n_classes - 1.
        n_classes: how many classes there are.
        n_held_out: how many of them to hold out; 0 for none.
        n_ways: how many classes a one-shot trial will have.
        seed: decides which.

    Returns:
        (the splits without those classes, the test images of the one-shot trials: (images, labels) of the classes held
        out, or of all if none is).

    Raises:
        ValueError: a split is left with fewer than two classes, or the one-shot trials with fewer than n_ways.
    """
    held_out = np.random.default_rng(seed).permutation(n_classes)[:n_held_out]
    images, labels = splits["test"]
    one_shot = np.isin(labels, held_out) | (n_held_out == 0)
    kept = {}
    for name, (x, y) in splits.items():
        seen = ~np.isin(y, held_out)
        kept[name] = (x[seen], y[seen])
        if len(np.unique(y[seen])) < 2:
            raise ValueError(f"pairs need images of two classes, the {name} images have {len(np.unique(y[seen]))}")
    found = len(np.unique(labels[one_shot]))
    if found < n_ways:
        raise ValueError(f"{n_ways} ways need test images of as many classes, got {found}")
    return kept, (images[one_shot], labels[one_shot])


def draw_pairs(labels, n_pairs, rng):
    """Draw pairs, half of one class and half of two; every class is as likely, however many images it has.

    The two of one class are different images, if the class has two.

    Args:
        labels: (N,), of two classes at least.
        n_pairs: how many.
        rng: a numpy Generator.

    Returns:
        The numbers of the left images (n_pairs,), of the right ones, and 1 for one class or 0 for two, float32.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    in_order = np.argsort(labels, kind="stable")  # the images of the first class, those of the second, and so on
    starts = sizes.cumsum() - sizes
    same = rng.permutation(n_pairs) % 2
    left = rng.integers(len(classes), size=n_pairs)  # the classes
    right = np.where(same, left, (left + rng.integers(1, len(classes), n_pairs)) % len(classes))
    left_image = rng.integers(sizes[left])  # the place in the class
    another = (left_image + rng.integers(1, np.maximum(2, sizes[left]))) % sizes[left]  # itself, if there is no other
    right_image = np.where(same, another, rng.integers(sizes[right]))
    return in_order[starts[left] + left_image], in_order[starts[right] + right_image], same.astype("float32")


def one_shot_trials(labels, n_ways, n_trials, rng):
    """Draw trials: an image, and one image of each of n_ways classes, one of them its own. Section 4.3 of the paper.

    Args:
        labels: (N,), of at least n_ways classes.
        n_ways: among how many classes the image is to be placed; by chance one in n_ways is placed right.
        n_trials: how many.
        rng: a numpy Generator.

    Returns:
        The numbers of the images (n_trials,), those of the supports (n_trials, n_ways), and which of the supports is of
        the image's class (n_trials,); that one is another image, if the class has another.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    in_order = np.argsort(labels, kind="stable")
    starts = sizes.cumsum() - sizes
    ways = rng.permuted(np.tile(np.arange(len(classes)), (n_trials, 1)), axis=1)[:, :n_ways]
    answers = rng.integers(n_ways, size=n_trials)
    support_images = rng.integers(sizes[ways])  # the places in the classes
    rows = np.arange(n_trials)
    own = ways[rows, answers]
    image = (support_images[rows, answers] + rng.integers(1, np.maximum(2, sizes[own]))) % sizes[own]
    return in_order[starts[own] + image], in_order[starts[ways] + support_images], answers


class Pairs(utils.PyDataset):
    """Batches of pairs, drawn afresh in every epoch: ((left, right), same), images (N, H, W, C) and labels (N,).

    Args:
        images, labels: to draw from, (N, H, W, C) uint8 and (N,).
        n_pairs: how many pairs an epoch has.
        batch_size: how many pairs a batch has.
        seed: of the draws, together with the number of the epoch.
    """

    def __init__(self, images, labels, n_pairs, batch_size, seed=0):
        super().__init__()
        self.images, self.labels, self.n_pairs, self.batch_size, self.seed = images, labels, n_pairs, batch_size, seed
        self.draw(epoch=0)

    def draw(self, epoch):
        """Draw the pairs of an epoch, the same ones at every call with its number."""
        self.epoch = epoch
        self.drawn = draw_pairs(self.labels, self.n_pairs, np.random.default_rng((self.seed, epoch)))

    def __len__(self):
        """Return the number of batches in an epoch, of which the last may be smaller."""
        return -(-self.n_pairs // self.batch_size)

    def __getitem__(self, number):
        """Return a batch."""
        batch = slice(number * self.batch_size, (number + 1) * self.batch_size)
        left, right, same = (drawn[batch] for drawn in self.drawn)
        return (self.images[left], self.images[right]), same

    def on_epoch_end(self):
        """Draw the next epoch. Keras calls this once before the first, too, and knows no numbers: see train.py."""
        self.draw(self.epoch + 1)

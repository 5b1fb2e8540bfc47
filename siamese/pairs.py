"""What a Siamese network is shown and how it is scored: pairs of images of one class or of two, and one-shot trials."""

import run

import numpy as np
from matplotlib.figure import Figure

import data


def hold_out(splits, n_classes, n_held_out, n_ways, seed):
    """Set classes aside that the network never learns from.

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
        DataError: a split is left with fewer than two classes, or the one-shot trials with fewer than n_ways.
    """
    held_out = np.random.default_rng(seed).permutation(n_classes)[:n_held_out]
    images, labels = splits["test"]
    one_shot = np.isin(labels, held_out) | (n_held_out == 0)
    kept = {}
    for name, (x, y) in splits.items():
        seen = ~np.isin(y, held_out)
        kept[name] = (x[seen], y[seen])
        found = len(np.unique(y[seen]))
        if found < 2:
            raise data.DataError(f"pairs need images of two classes, the {name} images have {found}: raise --limit")
    found = len(np.unique(labels[one_shot]))
    if found < n_ways:
        raise data.DataError(f"{n_ways} ways need test images of as many classes, got {found}: raise --limit")
    return kept, (images[one_shot], labels[one_shot])


def draw_pairs(labels, same, rng):
    """Draw pairs of one class or of two; every class is as likely, however many images it has.

    The two of one class are different images, if the class has two.

    Args:
        labels: (N,), of two classes at least.
        same: (n_pairs,), 1 for a pair of one class, 0 for a pair of two.
        rng: a numpy Generator.

    Returns:
        The indices of the left images, (n_pairs,), and those of the right ones.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    in_order = np.argsort(labels, kind="stable")  # the images of the first class, those of the second, and so on
    starts = sizes.cumsum() - sizes
    left = rng.integers(len(classes), size=len(same))  # the classes
    right = np.where(same, left, (left + rng.integers(1, len(classes), len(same))) % len(classes))
    left_image = rng.integers(sizes[left])  # the place in the class
    another = (left_image + rng.integers(1, np.maximum(2, sizes[left]))) % sizes[left]  # itself, if there is no other
    right_image = np.where(same, another, rng.integers(sizes[right]))
    return in_order[starts[left] + left_image], in_order[starts[right] + right_image]


def training_pairs(split, batch_size, seed):
    """Return `run.Batches` of pairs, ((left, right), same), half of one class and half of two; each epoch draws others.

    An epoch shows as many images as the split has.

    Args:
        split: (images (N, H, W, C), labels (N,)).
        batch_size: how many pairs a batch has.
        seed: of the pairs, with the epoch and the batch.
    """
    images, labels = split

    def make(chosen, rng):
        same = chosen % 2  # the odd pairs of an epoch are of one class
        left, right = draw_pairs(labels, same, rng)
        return (images[left], images[right]), same

    return run.Batches(len(images) // 2, batch_size, make, seed)


def fixed_pairs(split, batch_size, seed):
    """Return `run.Batches` of as many pairs as a split has images, the same in every epoch and at every call."""
    images, labels = split
    rng = np.random.default_rng(seed)
    same = rng.permutation(len(images)) % 2
    return in_batches(images, *draw_pairs(labels, same, rng), same, batch_size)


def in_batches(images, left, right, same, batch_size):
    """Return `run.Batches` of given pairs, ((left images, right images), same).

    Args:
        images: (N, H, W, C).
        left, right: (n_pairs,), the indices of the images.
        same: (n_pairs,), 1 for a pair of one class, 0 for a pair of two.
        batch_size: how many pairs a batch has.
    """
    def make(chosen, rng):
        return (images[left[chosen]], images[right[chosen]]), same[chosen]

    return run.Batches(len(same), batch_size, make)


def one_shot_trials(labels, n_ways, n_trials, rng):
    """Draw trials: an image, and one image of each of n_ways classes, one of them its own. Section 4.3 of the paper.

    Args:
        labels: (N,), of at least n_ways classes.
        n_ways: among how many classes the image is to be placed; by chance one in n_ways is placed right.
        n_trials: how many.
        rng: a numpy Generator.

    Returns:
        The indices of the images (n_trials,), those of the supports (n_trials, n_ways), and which of the supports is of
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


def score_pairs(model, splits, seed):
    """Return loss and accuracy on fixed pairs, {"validation_loss": ..., "test_accuracy": ..., ...}.

    Args:
        model: takes two batches of images, pixels 0 to 255, and returns their similarity (N, 1).
        splits: {"validation": (images, labels), "test": (images, labels)}.
        seed: of the draws.
    """
    return {
        f"{split}_{name}": float(value)
        for split in ("validation", "test")
        for name, value in model.evaluate(fixed_pairs(splits[split], 256, seed), verbose=0, return_dict=True).items()
    }


def score_one_shot(model, images, labels, n_ways, n_trials, seed):
    """Return the share of one-shot trials in which the most similar support is that of the image's own class.

    Args:
        model: takes two batches of images, pixels 0 to 255, and returns their similarity (N, 1).
        images, labels: (N, H, W, C) and (N,), to draw the trials from.
        n_ways, n_trials: see one_shot_trials.
        seed: of the draws.
    """
    chosen, supports, answers = one_shot_trials(labels, n_ways, n_trials, np.random.default_rng(seed))
    left, right = chosen.repeat(n_ways), supports.ravel()
    pairs = in_batches(images, left, right, labels[left] == labels[right], 256)
    similarity = model.predict(pairs, verbose=0).reshape(n_trials, n_ways)
    return float((similarity.argmax(-1) == answers).mean())


def pairs_figure(left, right, same, similarity):
    """Return a figure of up to 28 pairs, each under its similarity; a wrong verdict, on either side of 0.5, is red.

    Args:
        left, right: images (N, H, W, 3), pixels 0 to 255.
        same: (N,), 1 for a pair of one class.
        similarity: (N,), the probability of one class.
    """
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    figure.suptitle("the similarity of pairs of test images, the wrong verdicts in red")
    for axes in figure.subplots(4, 7).flat:
        axes.axis("off")
    for axes, *images, is_same, p in zip(figure.axes, left, right, same, similarity, strict=False):
        axes.imshow(np.concatenate(images, 1))
        color = "black" if (p > 0.5) == is_same else "red"
        axes.set_title(f"{p:.2f}, {'one class' if is_same else 'two classes'}", fontsize=9, color=color)
    return figure

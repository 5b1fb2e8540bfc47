"""What a Siamese network is shown and how it is scored: pairs of images of one class or of two, and one-shot trials."""

import run

import numpy as np

import data

MOST_PAIRS = 200  # of each two classes, whose similarity is averaged


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

    Args:
        labels: (N,), of two classes at least.
        same: (n_pairs,), 1 for a pair of one class, 0 for a pair of two.
        rng: a numpy Generator.

    Returns:
        The indices of the left images, (n_pairs,), and those of the right ones.
    """
    n_classes = len(np.unique(labels))
    left = rng.integers(n_classes, size=len(same))  # the classes
    right = np.where(same, left, (left + rng.integers(1, n_classes, len(same))) % n_classes)
    return draw_images(labels, left, right, rng)


def draw_images(labels, left, right, rng):
    """Draw an image of each class for pairs of classes; the two of one class are different images, if it has two.

    Args:
        labels: (N,).
        left, right: (n_pairs,), the classes: 0 for the first that is among the labels, 1 for the second, and so on.
        rng: a numpy Generator.

    Returns:
        The indices of the left images, (n_pairs,), and those of the right ones.
    """
    _, sizes = np.unique(labels, return_counts=True)
    in_order = np.argsort(labels, kind="stable")  # the images of the first class, those of the second, and so on
    starts = sizes.cumsum() - sizes
    left_image = rng.integers(sizes[left])  # the place in the class
    another = (left_image + rng.integers(1, np.maximum(2, sizes[left]))) % sizes[left]  # itself, if there is no other
    right_image = np.where(left == right, another, rng.integers(sizes[right]))
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


def similarities(model, images, left, right):
    """Return the similarity of pairs, (n_pairs,).

    Args:
        model: takes two batches of images, pixels 0 to 255, and returns their similarity (N, 1).
        images: (N, H, W, C).
        left, right: (n_pairs,), the indices of the images.
    """
    batches = in_batches(images, left, right, np.zeros(len(left)), 256)  # no targets are needed to predict
    return model.predict(batches, verbose=0)[:, 0]


def one_shot_similarities(model, images, chosen, supports):
    """Return the similarity of the image of each trial to its supports, (n_trials, n_ways); the largest one is chosen.

    Args:
        model, images: see similarities.
        chosen, supports: from one_shot_trials.
    """
    return similarities(model, images, chosen.repeat(supports.shape[1]), supports.ravel()).reshape(supports.shape)


def mean_similarities(model, images, labels, seed):
    """Return the mean similarity between the images of each two of K classes, and within each class: (K, K).

    Each is of as many pairs as a class has images, at most MOST_PAIRS, drawn at random. Either order gives the same.

    Args:
        model, images: see similarities.
        labels: (N,), of K classes; rows and columns are in the order of the labels.
        seed: of the draws.
    """
    k = len(np.unique(labels))
    n_pairs = min(MOST_PAIRS, len(labels) // k)
    rows, columns = np.triu_indices(k)
    drawn = draw_images(labels, rows.repeat(n_pairs), columns.repeat(n_pairs), np.random.default_rng(seed))
    means = np.empty((k, k))
    means[rows, columns] = similarities(model, images, *drawn).reshape(-1, n_pairs).mean(1)
    means[columns, rows] = means[rows, columns]
    return means

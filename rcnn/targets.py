"""What detectors learn from: which anchors or regions of a scene count, what is their answer, and how much each weighs.

All of it is made outside the networks, in numpy. What does not count has a weight of 0; the weights are those of the
released codes' losses, divided by the number of anchors or regions that count, so that the losses of Keras that use
them are sums. With a seed, the scenes are shuffled and half of them mirrored; without one, for validation, every epoch
is the same.

Smooth L1, 0.5 (sigma x)^2 up to |x| = 1 / sigma^2 and |x| - 0.5 / sigma^2 from there on, is sigma^2 times Keras'
Huber(1 / sigma^2); and Keras takes the mean over the four numbers of a box, the papers the sum. Hence the 4 sigma^2.
"""

import run

import numpy as np
from keras import losses, ops

import boxes
import rcnn

SIGMA = 3  # of smooth L1 for anchors, in the released code
N_ANCHORS = 256  # of a scene, for the region proposal network: section 3.1.3 of Faster R-CNN
N_REGIONS = 64  # of a scene, for the classifier, 128 of two: section 2.3 of Fast R-CNN


def anchor_losses():
    """Return the losses of the region proposal network: equation 1 of Faster R-CNN, as in the released code."""
    return {
        "objectness": losses.SparseCategoricalCrossentropy(reduction="sum"),
        "anchor_deltas": losses.Huber(1 / SIGMA**2, reduction="sum"),
    }


def region_losses():
    """Return the losses of the classifier: equations 1 to 3 of Fast R-CNN."""
    return {
        "classes": losses.SparseCategoricalCrossentropy(reduction="sum"),
        "deltas": losses.Huber(1.0, reduction="sum"),
    }


def anchor_batches(scenes, objects, anchors, batch_size, seed=None):
    """Return Batches for the region proposal network: ({"images"}, targets, weights) as in anchor_example.

    Args:
        scenes: (N, H, W, 3) uint8.
        objects: for each scene (boxes (M, 4), "xyxy" in pixels, classes (M,)); M may be 0.
        anchors: (A, 4), of every position.
        batch_size: how many scenes a batch has.
        seed: of all that is random; None for validation.
    """
    check_objects(scenes, objects)

    def make(chosen, rng):
        examples = []
        for i in chosen:
            scene, (truth,) = mirrored(scenes[i], [objects[i][0]], rng if seed is not None else None)
            examples.append(({"images": scene}, *anchor_example(truth, anchors, scene.shape[:2], rng)))
        return stack(examples)

    return run.Batches(len(scenes), batch_size, make, seed)


def anchor_example(truth, anchors, image_size, rng):
    """Choose the anchors of a scene that count, up to half of them positive: section 3.1.3 of the Faster R-CNN paper.

    Anchors that cross the edge of the scene are ignored.

    Returns:
        Targets {"objectness": (A,), 1 for an object, "anchor_deltas": (A, 4)}; and weights {"objectness": (A,),
        "anchor_deltas": (A,)}, both divided by the number of anchors that count.
    """
    height, width = image_size
    is_inside = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2:] <= [width, height]).all(1)
    labels, which = np.full(len(anchors), -1, "int32"), np.zeros(len(anchors), "int32")
    labels[is_inside], which[is_inside] = boxes.match_anchors(anchors[is_inside], truth)
    chosen = sample(labels, N_ANCHORS, 0.5, rng)
    counts = np.zeros(len(anchors), "float32")
    counts[chosen] = 1 / max(1, len(chosen))
    positive = labels == 1
    deltas = np.zeros((len(anchors), 4), "float32")
    if positive.any():
        deltas[positive] = ops.convert_to_numpy(boxes.encode(anchors[positive], truth[which[positive]]))
    targets = {"objectness": positive.astype("int32"), "anchor_deltas": deltas}
    return targets, {"objectness": counts, "anchor_deltas": 4 * SIGMA**2 * counts * positive}


def region_batches(scenes, objects, proposals, n_classes, batch_size, seed=None, background=0.1):
    """Return Batches for the classifier of Fast and Faster R-CNN; the boxes of the objects are regions too.

    A batch is ({"images", "regions"}, targets, weights) as in region_example.

    Args:
        scenes, objects, batch_size, seed: as for anchor_batches.
        proposals: for each scene (P, 4); those narrower or lower than a pixel are left out.
        n_classes: K, without the background.
        background: the least IoU with an object that makes a region background: 0.1 in Fast, 0 in Faster R-CNN.
    """
    check_objects(scenes, objects, n_classes)

    def make(chosen, rng):
        examples = []
        for i in chosen:
            truth, classes = objects[i]
            scene, (truth, regions) = mirrored(scenes[i], [truth, proposals[i]], rng if seed is not None else None)
            regions, *answers = region_example(truth, classes, regions, n_classes, background, rng)
            examples.append(({"images": scene, "regions": regions}, *answers))
        return stack(examples)

    return run.Batches(len(scenes), batch_size, make, seed)


def region_example(truth, classes, proposals, n_classes, background, rng):
    """Choose the regions of a scene that count, a quarter of them objects: section 2.3 of the Fast R-CNN paper.

    Returns:
        Regions (R, 4), filled up by repeating them; targets {"classes": (R,), 0 for the background, "deltas": (R,
        K + 1, 4)}; and weights {"classes": (R,), "deltas": (R, K + 1)}, both divided by the number of regions that
        count.
    """
    regions, labels, which = labelled(truth, classes, proposals, background)
    chosen = sample(labels, N_REGIONS, 0.25, rng)
    regions, labels, which = regions[chosen], labels[chosen], which[chosen]
    n_missing = N_REGIONS - len(chosen)
    is_object = np.flatnonzero(labels > 0)
    targets = {
        "classes": np.pad(labels, (0, n_missing)),
        "deltas": np.zeros((N_REGIONS, 1 + n_classes, 4), "float32"),
    }
    weights = {
        "classes": np.pad(np.ones(len(chosen), "float32"), (0, n_missing)) / max(1, len(chosen)),
        "deltas": np.zeros((N_REGIONS, 1 + n_classes), "float32"),
    }
    if len(is_object):
        deltas = boxes.encode(regions[is_object], truth[which[is_object]], boxes.DEVIATIONS)
        targets["deltas"][is_object, labels[is_object]] = ops.convert_to_numpy(deltas)
        weights["deltas"][is_object, labels[is_object]] = 4 / len(chosen)
    return np.resize(regions, (N_REGIONS, 4)), targets, weights  # batch normalization sees those that fill up


def labelled(truth, classes, proposals, background):
    """Return the regions of a scene, (P, 4), its objects' boxes among them, and of each what match_regions says."""
    regions = np.concatenate([truth, proposals[ops.convert_to_numpy(boxes.is_larger_than(proposals, 1))]])
    return regions, *boxes.match_regions(regions, truth, classes, background=background)


def warped_batches(scenes, objects, proposals, mean, size, n_scenes, seed=None):
    """Return Batches for the fine-tuning of R-CNN: warped regions of all scenes, a quarter of them objects.

    Section 2.3 of its paper. A batch is warped regions (R, size, size, 3) and classes (R,), 0 for the background.

    Args:
        scenes, objects, proposals, seed: as for region_batches.
        mean, size: see rcnn.warp.
        n_scenes: a batch has N_REGIONS n_scenes regions, of all scenes; an epoch has a batch for every n_scenes scenes.
    """
    check_objects(scenes, objects)
    found = [labelled(*objects[i], proposals[i], 0.0)[:2] for i in range(len(scenes))]
    regions, labels = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    of_scene = np.repeat(np.arange(len(scenes)), [len(regions) for regions, _ in found])

    def make(scenes_of_batch, rng):
        chosen = np.sort(sample(labels, N_REGIONS * n_scenes, 0.25, rng))  # those of a scene together
        x = np.concatenate([
            rcnn.warp(scenes[i], regions[chosen[of_scene[chosen] == i]], mean, size)
            for i in np.unique(of_scene[chosen])
        ])
        is_mirrored = rng.random(len(x)) < 0.5 if seed is not None else np.zeros(len(x), bool)
        x[is_mirrored] = x[is_mirrored][:, :, ::-1]
        return x, labels[chosen]

    return run.Batches(len(scenes), n_scenes, make, seed)


def sample(labels, n, share, rng):
    """Choose a batch of n: at most a share of positives (labels above 0), the rest of negatives (labels of 0).

    Fewer positives than that are filled up with negatives; where negatives are few too, the batch is smaller.

    Returns:
        The indices of the chosen ones, positives first.
    """
    positives, negatives = np.flatnonzero(labels > 0), np.flatnonzero(labels == 0)
    positives = rng.permutation(positives)[: int(n * share)]
    negatives = rng.permutation(negatives)[: n - len(positives)]
    return np.concatenate([positives, negatives])


def mirrored(scene, found, rng=None):
    """Exchange left and right of half of the scenes (H, W, 3), and of arrays of boxes in them, if there is a rng."""
    if rng is None or rng.random() < 0.5:
        return scene, found
    return scene[:, ::-1], [boxes.mirror(of_scene, scene.shape[1]) for of_scene in found]


def stack(examples):
    """Return a batch of examples, (inputs, targets, weights), each a dictionary of arrays; its loss is their mean."""
    inputs, targets, weights = (
        {name: np.stack([part[name] for part in parts]) for name in parts[0]} for parts in zip(*examples, strict=True)
    )
    return inputs, targets, {name: value / len(examples) for name, value in weights.items()}


def check_objects(scenes, objects, n_classes=None):
    """Raise ValueError unless boxes are (M, 4), each with an area, inside its scene, and with a class from 0 on.

    If n_classes is given, K without the background, no class may be K or more.
    """
    height, width = scenes.shape[1:3]
    if len(objects) != len(scenes):
        raise ValueError(f"each scene must have its objects, got {len(objects)} for {len(scenes)} scenes")
    for i, (truth, classes) in enumerate(objects):
        if np.ndim(truth) != 2 or np.shape(truth)[1] != 4 or np.shape(classes) != (len(truth),):
            shapes = f"{np.shape(truth)}, {np.shape(classes)}"
            raise ValueError(f"scene {i} must have boxes (M, 4) and classes (M,), got {shapes}")
        if np.asarray(classes).dtype.kind not in "iu":
            raise ValueError(f"scene {i}: classes must be an array of integers, got {np.asarray(classes).dtype}")
        if len(classes) and min(classes) < 0:
            raise ValueError(f"scene {i}: a class must be 0 or more, none the background, got {min(classes)}")
        if len(classes) and n_classes is not None and max(classes) >= n_classes:
            raise ValueError(f"scene {i}: a class must be below {n_classes}, the number of classes, got {max(classes)}")
        for box in truth:
            x1, y1, x2, y2 = (float(side) for side in box)
            if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
                raise ValueError(
                    f"scene {i}: a box must have 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}, "
                    f"got {x1, y1, x2, y2}"
                )

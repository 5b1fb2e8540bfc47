"""The batches that detectors learn from: which anchors or regions of a scene count, and what their targets are.

All of it is made outside the networks, in numpy. What does not count has a weight of 0. With a seed, the scenes are
shuffled and half of them mirrored; without one, for validation, every epoch is the same.
"""

import numpy as np

import boxes
import rcnn
import run

BOX_DEVIATIONS = (0.1, 0.1, 0.2, 0.2)  # classifiers learn deltas divided by these, which then deviate by about 1


def anchor_batches(scenes, objects, anchors, batch_size, seed=None, n_anchors=256):
    """Return Batches for the region proposal network.

    Args:
        scenes: (N, H, W, 3) uint8.
        objects: for each scene (boxes (M, 4), "xyxy" in pixels, classes (M,)); M may be 0.
        anchors: (A, 4), of every position.
        batch_size: how many scenes a batch has.
        seed: of all that is random; None for validation.
        n_anchors: how many anchors of a scene count.
    """
    check_objects(scenes, objects)

    def make(chosen, rng):
        examples = []
        for i in chosen:
            truth, _ = objects[i]
            scene, truth = mirror(scenes[i], truth, is_mirrored=seed is not None and rng.random() < 0.5)
            examples.append(anchor_example(scene, truth, anchors, n_anchors, rng))
        return stack(examples)

    return run.Batches(len(scenes), batch_size, make, seed)


def anchor_example(scene, truth, anchors, n_anchors, rng):
    """Choose the anchors of a scene that count, up to half of them positive: section 3.1.3 of the Faster R-CNN paper.

    Anchors that cross the edge of the scene are ignored.

    Returns:
        Inputs {"images": (H, W, 3)}; targets {"objectness": (A,), 1 for an object, "anchor_deltas": (A, 4)}; and
        weights {"objectness": (A,), "anchor_deltas": (A,)}, 0 or 1.
    """
    height, width = scene.shape[:2]
    is_inside = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2:] <= [width, height]).all(1)
    labels = np.full(len(anchors), -1, "int32")
    labels[is_inside], which = boxes.match_anchors(anchors[is_inside], truth)
    counts = np.zeros(len(labels), "float32")
    counts[boxes.sample(labels, n_anchors, 0.5, rng)] = 1
    positive = labels == 1
    deltas = np.zeros((len(labels), 4), "float32")
    deltas[positive] = boxes.encode(anchors[positive], truth[which[positive[is_inside]]])
    targets = {"objectness": positive.astype("int32"), "anchor_deltas": deltas}
    return {"images": scene}, targets, {"objectness": counts, "anchor_deltas": counts * positive}


def region_batches(scenes, objects, proposals, n_classes, batch_size, seed=None, n_regions=64, background=0.1):
    """Return Batches for the classifier of Fast and Faster R-CNN; the boxes of the objects are regions too.

    Args:
        scenes, objects, batch_size, seed: as for anchor_batches.
        proposals: for each scene (P, 4); those narrower or lower than a pixel are left out.
        n_classes: K, without the background.
        n_regions: R, how many regions of a scene count.
        background: the least IoU with an object that makes a region background: 0.1 in Fast, 0 in Faster R-CNN.
    """
    check_objects(scenes, objects)

    def make(chosen, rng):
        examples = []
        for i in chosen:
            truth, classes = objects[i]
            regions = np.concatenate([truth, proposals[i][boxes.is_larger_than(proposals[i], 1)]])
            is_mirrored = seed is not None and rng.random() < 0.5
            scene, truth, regions = mirror(scenes[i], truth, regions, is_mirrored=is_mirrored)
            examples.append(region_example(scene, truth, classes, regions, n_classes, n_regions, background, rng))
        return stack(examples)

    return run.Batches(len(scenes), batch_size, make, seed)


def region_example(scene, truth, classes, regions, n_classes, n_regions, background, rng):
    """Choose the regions of a scene that count, a quarter of them objects: section 2.3 of the Fast R-CNN paper.

    Returns:
        Inputs {"images": (H, W, 3), "regions": (R, 4)}, filled up with boxes without area; targets {"classes": (R,), 0
        for the background, "deltas": (R, K + 1, 4)}; and weights {"classes": (R,), "deltas": (R, K + 1)}, 0 or 1.
    """
    labels, which = boxes.match_proposals(regions, truth, classes, background=background)
    chosen = boxes.sample(labels, n_regions, 0.25, rng)
    n, regions, labels, which = len(chosen), regions[chosen], labels[chosen], which[chosen]
    is_object = np.flatnonzero(labels > 0)
    inputs = {"images": scene, "regions": np.zeros((n_regions, 4), "float32")}
    inputs["regions"][:n] = regions
    targets = {
        "classes": np.zeros(n_regions, "int32"),
        "deltas": np.zeros((n_regions, 1 + n_classes, 4), "float32"),
    }
    weights = {
        "classes": (np.arange(n_regions) < n).astype("float32"),
        "deltas": np.zeros((n_regions, 1 + n_classes), "float32"),
    }
    targets["classes"][:n] = labels
    deltas = boxes.encode(regions[is_object], truth[which[is_object]]) / np.array(BOX_DEVIATIONS, "float32")
    targets["deltas"][is_object, labels[is_object]] = deltas
    weights["deltas"][is_object, labels[is_object]] = 1
    return inputs, targets, weights


def warped_batches(scenes, objects, proposals, n_batches, n_regions, size, padding, seed=None):
    """Return Batches for the fine-tuning of R-CNN: warped regions of all scenes, a quarter of them objects.

    Section 2.3 of its paper. A batch is warped regions (R, size, size, 3) uint8 and classes (R,), 0 for the background.

    Args:
        scenes, objects, proposals, seed: as for region_batches.
        n_batches: how many batches an epoch has.
        n_regions: R, how many regions a batch has.
        size, padding: see rcnn.warp.
    """
    check_objects(scenes, objects)
    regions, labels, of_scene = [], [], []
    for i, ((truth, classes), found) in enumerate(zip(objects, proposals, strict=True)):
        found = np.concatenate([truth, found[boxes.is_larger_than(found, 1)]])
        regions.append(found)
        labels.append(boxes.match_proposals(found, truth, classes)[0])
        of_scene.append(np.full(len(found), i))
    regions, labels, of_scene = map(np.concatenate, (regions, labels, of_scene))

    def make(_, rng):
        chosen = np.sort(boxes.sample(labels, n_regions, 0.25, rng))  # those of a scene together
        x = np.concatenate([
            rcnn.warp(scenes[i], regions[chosen[of_scene[chosen] == i]], size, padding)
            for i in np.unique(of_scene[chosen])
        ])
        is_mirrored = rng.random(len(x)) < 0.5 if seed is not None else np.zeros(len(x), bool)
        x[is_mirrored] = x[is_mirrored][:, :, ::-1]
        return x, labels[chosen]

    return run.Batches(n_batches, 1, make, seed)  # whose numbers are those of the batches


def stack(examples):
    """Return a batch of examples, (inputs, targets, weights), each a dictionary of arrays."""
    inputs, targets, weights = zip(*examples, strict=True)
    return tuple({name: np.stack([part[name] for part in of]) for name in of[0]} for of in (inputs, targets, weights))


def mirror(scene, *found, is_mirrored=True):
    """Return a scene (H, W, 3) and arrays of boxes in it, (M, 4) each, with left and right exchanged if wanted."""
    if not is_mirrored:
        return scene, *found
    width = scene.shape[1]
    mirrored = [np.stack([width - x2, y1, width - x1, y2], 1) for x1, y1, x2, y2 in map(np.transpose, found)]
    return scene[:, ::-1], *mirrored


def check_objects(scenes, objects):
    """Raise ValueError unless boxes are (M, 4), each with an area and inside its scene, and each with a class."""
    height, width = scenes.shape[1:3]
    for i, (truth, classes) in enumerate(objects):
        if np.ndim(truth) != 2 or np.shape(truth)[1] != 4 or len(truth) != len(classes):
            shapes = f"{np.shape(truth)}, {np.shape(classes)}"
            raise ValueError(f"scene {i} must have boxes (M, 4) and classes (M,), got {shapes}")
        for box in truth:
            x1, y1, x2, y2 = (float(side) for side in box)
            if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
                raise ValueError(
                    f"scene {i}: a box must have 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}, "
                    f"got {x1, y1, x2, y2}"
                )

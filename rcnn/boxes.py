"""Boxes: anchors, which of them match an object, how a network says where it is, and how detections are judged.

A box is (x1, y1, x2, y2) in pixels, Keras' format "xyxy", here and everywhere in this folder: x to the right, y down,
and x2 and y2 where the box ends, so that its width is x2 - x1. (The codes of the authors have the last pixel inside
instead, one less.) Boxes are numpy arrays (N, 4) float32; N may be 0.
"""

import numpy as np
from keras import ops
from keras.utils import bounding_boxes


def base_anchors(base_size=16, scales=(8, 16, 32), ratios=(0.5, 1, 2)):
    """Return the anchors of the first position: (ratios x scales, 4), ratios outermost.

    Those of generate_anchors.py of py-faster-rcnn, with its rounding: each ratio, height by width, makes a rectangle of
    about the area of a square of base_size, whose sides are then multiplied by each scale.
    """
    anchors = []
    for ratio in ratios:
        width = np.round(np.sqrt(base_size**2 / ratio))
        height = np.round(width * ratio)
        for scale in scales:
            half = np.array([width * scale, height * scale]) / 2
            center = (base_size - 1) / 2 + 0.5  # of the pixels 0 to base_size - 1, each of width 1
            anchors.append(np.concatenate([center - half, center + half]))
    return np.array(anchors, "float32")


def grid_anchors(height, width, stride, anchors):
    """Repeat the anchors at every position of a feature map, stride pixels apart.

    Args:
        height, width: of the feature map.
        stride: how many pixels of the image a step on the feature map is.
        anchors: (A, 4), those of its first position.

    Returns:
        (height x width x A, 4): row by row, and all anchors of a position together, as a convolution of A filters has
        them in its last axis.
    """
    y, x = np.meshgrid(np.arange(height) * stride, np.arange(width) * stride, indexing="ij")
    shifts = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    return (shifts + anchors).reshape(-1, 4).astype("float32")


def iou(boxes, others):
    """Return the intersection over union of each box with each other one: (N, M), 0 to 1; 0 for boxes without area."""
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)), "float32")
    boxes, others = (ops.convert_to_tensor(as_float32(given)) for given in (boxes, others))
    overlap = bounding_boxes.compute_iou(boxes, others, "xyxy")
    return np.nan_to_num(ops.convert_to_numpy(overlap))


def match_anchors(anchors, truth, positive=0.7, negative=0.3):
    """Say which anchors are to find an object: section 3.1.2 of the Faster R-CNN paper.

    Positive is an anchor whose IoU with an object is at least `positive` (the paper says above), and the best anchor of
    every object, however low its IoU (of equal ones all); negative is one whose IoU with every object is below
    `negative`; the others are ignored. A positive one stays positive though its IoU is below `negative`, and is to find
    the object that it overlaps most, as in py-faster-rcnn.

    Args:
        anchors: (N, 4).
        truth: (M, 4), the objects; M may be 0, and then every anchor is negative.
        positive, negative: the two thresholds.

    Returns:
        Labels (N,), 1 positive, 0 negative, -1 ignored; and the index of the object of each anchor (N,).
    """
    if not len(truth) or not len(anchors):
        return np.zeros(len(anchors), "int32"), np.zeros(len(anchors), "int32")
    overlap = iou(anchors, truth)
    best = overlap.max(1)
    labels = np.where(best < negative, 0, -1)
    labels[best >= positive] = 1
    best_of_object = overlap.max(0)
    labels[((overlap == best_of_object) & (best_of_object > 0)).any(1)] = 1
    return labels.astype("int32"), overlap.argmax(1).astype("int32")


def match_proposals(proposals, truth, classes, foreground=0.5, background=0.0):
    """Say which class a proposal is to be given: section 2.3 of the Fast R-CNN paper.

    Args:
        proposals: (N, 4).
        truth, classes: (M, 4) and (M,), the objects and their classes, 0 to K - 1.
        foreground: at least this IoU with an object makes a proposal one of its class.
        background: at least this IoU, and less than `foreground`, makes it background (0.1 in Fast R-CNN).

    Returns:
        Labels (N,): 0 for background, 1 + class for an object, -1 for those ignored; and the index of the object of
        each proposal (N,).
    """
    if not len(truth):
        return np.full(len(proposals), 0 if background == 0 else -1, "int32"), np.zeros(len(proposals), "int32")
    overlap = iou(proposals, truth)
    best, which = overlap.max(1), overlap.argmax(1)
    labels = np.where(best >= background, 0, -1)
    labels = np.where(best >= foreground, 1 + np.asarray(classes)[which], labels)
    return labels.astype("int32"), which.astype("int32")


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


def encode(anchors, boxes):
    """Return where each box is, seen from its anchor: (N, 4), (tx, ty, tw, th) of appendix C of the R-CNN paper.

    Raises:
        ValueError: an anchor or a box has no area, and so no logarithm of its size, or there are not as many of both.
    """
    anchors, boxes = as_float32(anchors), as_float32(boxes)
    if len(anchors) != len(boxes):
        raise ValueError(f"each box must have an anchor, got {len(anchors)} anchors and {len(boxes)} boxes")
    if not len(anchors):
        return np.zeros((0, 4), "float32")
    if not all((given[:, 2:] > given[:, :2]).all() for given in (anchors, boxes)):
        raise ValueError("a box must have x1 < x2 and y1 < y2 to be encoded")
    anchors, boxes = ops.convert_to_tensor(anchors), ops.convert_to_tensor(boxes)
    return ops.convert_to_numpy(
        bounding_boxes.encode_box_to_deltas(anchors, boxes, "xyxy", "xyxy", encoding_format="center_xywh")
    )


def decode(anchors, deltas):
    """The inverse of encode: boxes (N, 4) from anchors (N, 4) and deltas (N, 4)."""
    if not len(anchors):
        return np.zeros((0, 4), "float32")
    anchors, deltas = (ops.convert_to_tensor(as_float32(given)) for given in (anchors, deltas))
    return ops.convert_to_numpy(
        bounding_boxes.decode_deltas_to_boxes(anchors, deltas, "xyxy", "xyxy", encoded_format="center_xywh")
    )


def clip(boxes, height, width):
    """Cut boxes (N, 4) off at the edges of an image."""
    return np.clip(boxes, 0, [width, height, width, height]).astype("float32")


def is_larger_than(boxes, size):
    """Return which boxes are at least `size` pixels wide and high: (N,)."""
    return ((boxes[:, 2:] - boxes[:, :2]) >= size).all(1)


def nms(boxes, scores, threshold, max_boxes=None):
    """Non-maximum suppression: keep a box if no better one that was kept overlaps it by more than the threshold.

    Args:
        boxes, scores: (N, 4) and (N,).
        threshold: of the IoU.
        max_boxes: how many to keep at most; None for all.

    Returns:
        The indices of those kept, the best first.
    """
    boxes = as_float32(boxes)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    order = np.argsort(-np.asarray(scores), kind="stable")
    kept = []
    while len(order) and (max_boxes is None or len(kept) < max_boxes):
        first, order = order[0], order[1:]
        kept.append(first)
        corner = np.maximum(boxes[order, :2], boxes[first, :2])
        overlap = np.prod((np.minimum(boxes[order, 2:], boxes[first, 2:]) - corner).clip(0), axis=1)
        union = areas[order] + areas[first] - overlap
        order = order[overlap <= threshold * np.where(union > 0, union, 1)]
    return np.array(kept, "int64")


def voc_average_precision(recall, precision, eleven_points=False):
    """Return the area under a curve of precision over recall, in the two ways of the VOC challenge.

    Args:
        recall, precision: (N,), of the first detection alone, the first two, and so on.
        eleven_points: the mean of the highest precision from each recall of 0, 0.1 ... 1 on (until 2009), or the whole
            area under the highest precision from each recall on (since 2010).
    """
    recall, precision = np.asarray(recall, float), np.asarray(precision, float)
    if eleven_points:
        levels = np.linspace(0, 1, 11)
        return float(np.mean([precision[recall >= level - 1e-9].max(initial=0) for level in levels]))
    recall = np.concatenate([[0], recall])
    highest = np.maximum.accumulate(precision[::-1])[::-1]  # from each recall on
    return float(np.sum(np.diff(recall) * highest))


def average_precisions(detections, truths, n_classes, threshold=0.5):
    """Return the average precision of each class: (n_classes,), all-point; nan for a class that no scene has.

    A detection is right if its IoU with the object of its class that it overlaps most is above the threshold, and no
    better detection has found that object before; the detections of all scenes are ranked together.

    Args:
        detections: for each scene (boxes (N, 4), classes (N,), scores (N,)).
        truths: for each scene (boxes (M, 4), classes (M,)).
        n_classes: how many classes there are.
        threshold: of the IoU.
    """
    precisions = []
    for k in range(n_classes):
        n_objects, scores, hits = 0, [], []
        for (boxes, classes, confidence), (truth, true_classes) in zip(detections, truths, strict=True):
            objects = truth[true_classes == k]
            n_objects += len(objects)
            mine = classes == k
            order = np.argsort(-confidence[mine], kind="stable")
            overlap, found = iou(boxes[mine][order], objects), set()
            for row, score in zip(overlap, confidence[mine][order], strict=True):
                best = int(row.argmax()) if len(row) else None
                hit = best is not None and row[best] > threshold and best not in found
                found.add(best) if hit else None
                scores.append(score)
                hits.append(hit)
        if not n_objects:
            precisions.append(np.nan)
            continue
        hits = np.array(hits, float)[np.argsort(-np.array(scores), kind="stable")] if hits else np.zeros(0)
        right = hits.cumsum()
        precisions.append(voc_average_precision(right / n_objects, right / np.arange(1, len(hits) + 1)))
    return np.array(precisions)


def as_float32(values):
    """Return an array of boxes as (N, 4) float32; refuse another shape by name."""
    values = np.asarray(values, "float32")
    if values.ndim != 2 or values.shape[1] != 4:
        raise ValueError(f"boxes must be (N, 4), got {values.shape}")
    return values

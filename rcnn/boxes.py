"""Boxes: their overlap, how a network says where they are, suppression, anchors, and which of them match an object.

A box is (x1, y1, x2, y2) in pixels, Keras' format "xyxy": x to the right, y down, x2 and y2 where the box ends, so that
its width is x2 - x1. (In the authors' codes x2 and y2 are the last pixel inside, one less.) Every file of this folder
has this format.

Functions of tensors take numpy arrays too; N may be 0.
"""

import math

import numpy as np
from keras import ops
from keras.utils import bounding_boxes

DEVIATIONS = (0.1, 0.1, 0.2, 0.2)  # classifiers learn deltas divided by these, which then deviate by about 1
LARGEST = math.log(1000 / 16)  # a box is at most 62.5 times its anchor, or exp could overflow; as in Detectron


def iou(boxes, others):
    """Return the intersection over union of each box with each other one, 0 to 1; 0 for boxes without area.

    Args:
        boxes, others: (..., N, 4) and (..., M, 4).

    Returns:
        (..., N, M).
    """
    boxes, others = ops.cast(boxes, "float32"), ops.cast(others, "float32")
    corner = ops.maximum(boxes[..., :, None, :2], others[..., None, :, :2])  # (..., N, M, 2)
    sides = ops.maximum(ops.minimum(boxes[..., :, None, 2:], others[..., None, :, 2:]) - corner, 0)
    overlap = sides[..., 0] * sides[..., 1]
    union = area(boxes)[..., :, None] + area(others)[..., None, :] - overlap
    return overlap / ops.maximum(union, 1e-6)


def area(boxes):
    """Return the area of boxes (..., 4) in square pixels: (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def encode(anchors, boxes, deviations=(1, 1, 1, 1)):
    """Return where each box is, seen from its anchor: (tx, ty, tw, th), appendix C of the R-CNN paper.

    tx and ty are the way from center to center in widths and heights of the anchor, tw and th the logarithms of how
    many times as wide and high the box is.

    Args:
        anchors, boxes: (..., 4), all with an area.
        deviations: what each of the four is divided by.
    """
    return bounding_boxes.encode_box_to_deltas(
        anchors, boxes, "xyxy", "xyxy", encoding_format="center_xywh", variance=deviations
    )


def decode(anchors, deltas, deviations=(1, 1, 1, 1)):
    """Return the boxes (..., 4) at these deltas (..., 4) from their anchors (..., 4): the inverse of encode."""
    deltas = ops.cast(deltas, "float32") * ops.convert_to_tensor(deviations, "float32")
    deltas = ops.concatenate([deltas[..., :2], ops.minimum(deltas[..., 2:], LARGEST)], -1)
    return bounding_boxes.decode_deltas_to_boxes(anchors, deltas, "xyxy", "xyxy", encoded_format="center_xywh")


def clip(boxes, height, width):
    """Cut boxes (..., 4) off at the edges of an image."""
    return ops.clip(ops.cast(boxes, "float32"), 0, ops.convert_to_tensor([width, height, width, height], "float32"))


def is_larger_than(boxes, size):
    """Return which boxes (..., 4) are at least `size` pixels wide and high: (...)."""
    return ops.all(boxes[..., 2:] - boxes[..., :2] >= size, -1)


def mirror(boxes, width):
    """Exchange left and right of boxes (N, 4) in an image of this width."""
    x1, y1, x2, y2 = np.transpose(boxes)
    return np.stack([width - x2, y1, width - x1, y2], 1)


def suppress(boxes, is_box, threshold):
    """Non-maximum suppression inside a network: of boxes that overlap keep the best.

    A box is kept if no better one that is kept overlaps it. Begin with all boxes kept, and apply this rule to all at
    once. The best box is right after the first round, the boxes that depend only on right ones after the next, and so
    on, until nothing changes.

    Args:
        boxes: (N, B, 4), the best first.
        is_box: (N, B), False for those that are not to be considered.
        threshold: of the IoU with a better box, above which a box is suppressed.

    Returns:
        (N, B), 1 for those that are kept and 0 for the others.
    """
    i = ops.arange(boxes.shape[1])
    suppresses = ops.cast((iou(boxes, boxes) > threshold) & (i[:, None] < i), "float32")  # (N, B, B)
    is_box = ops.cast(is_box, "float32")

    def kept_if(kept):
        return is_box * ops.cast(ops.matmul(kept[:, None], suppresses)[:, 0] == 0, "float32")

    def goes_on(before, kept):
        return ops.any(before != kept)

    return ops.while_loop(goes_on, lambda before, kept: (kept, kept_if(kept)), (is_box, kept_if(is_box)))[1]


def nms(boxes, scores, threshold):
    """Non-maximum suppression of detections: the same, for a number of boxes that is known only when it runs.

    Args:
        boxes, scores: (N, 4) and (N,), numpy arrays.
        threshold: as for suppress.

    Returns:
        The indices of those kept, the best first.
    """
    areas = area(boxes)
    order = np.argsort(-scores, kind="stable")
    kept = []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(first)
        corner = np.maximum(boxes[order, :2], boxes[first, :2])
        overlap = (np.minimum(boxes[order, 2:], boxes[first, 2:]) - corner).clip(0).prod(1)
        union = areas[order] + areas[first] - overlap
        order = order[overlap <= threshold * np.where(union > 0, union, 1)]
    return np.array(kept, "int64")


def base_anchors(base_size=16, scales=(8, 16, 32), ratios=(0.5, 1, 2)):
    """Return the anchors of one position, around (0, 0): (ratios x scales, 4), ratios outermost.

    The shapes of generate_anchors.py of py-faster-rcnn, with its rounding: each ratio, height by width, makes a
    rectangle of about the area of a square of base_size, whose sides are then multiplied by each scale.
    """
    anchors = []
    for ratio in ratios:
        width = np.round(np.sqrt(base_size**2 / ratio))
        height = np.round(width * ratio)
        anchors += [scale / 2 * np.array([-width, -height, width, height]) for scale in scales]
    return np.array(anchors, "float32")


def grid_anchors(height, width, strides, anchors):
    """Repeat the anchors around the center of every cell of a feature map.

    Args:
        height, width: of the feature map.
        strides: how many pixels of the image a cell is wide and high.
        anchors: (A, 4), those of one position, around (0, 0).

    Returns:
        (height x width x A, 4): row by row, and all anchors of a position together, as a convolution of A filters has
        them in its last axis.
    """
    y, x = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    centers = strides * np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    return (centers + anchors).reshape(-1, 4).astype("float32")


def match_anchors(anchors, truth, positive=0.7, negative=0.3):
    """Say which anchors are to find an object: section 3.1.2 of the Faster R-CNN paper.

    Positive is an anchor whose IoU with an object is at least `positive` (the paper says above), and the best anchor of
    every object, however low its IoU (of equal ones all); negative is one whose IoU with every object is below
    `negative`; the others are ignored. An anchor is to find the object that it overlaps most.

    Args:
        anchors, truth: (N, 4) and (M, 4), numpy arrays; without an object every anchor is negative.
        positive, negative: the two thresholds.

    Returns:
        Labels (N,), 1 positive, 0 negative, -1 ignored; and the index of the object of each anchor (N,).
    """
    if not len(truth) or not len(anchors):
        return np.zeros(len(anchors), "int32"), np.zeros(len(anchors), "int32")
    overlap = ops.convert_to_numpy(iou(anchors, truth))
    best, best_of_object = overlap.max(1), overlap.max(0)
    labels = np.where(best >= positive, 1, np.where(best < negative, 0, -1))
    labels[((overlap == best_of_object) & (best_of_object > 0)).any(1)] = 1
    return labels.astype("int32"), overlap.argmax(1).astype("int32")


def match_regions(regions, truth, classes, foreground=0.5, background=0.0):
    """Say which class a region is to be given: section 2.3 of the Fast R-CNN paper.

    Args:
        regions: (N, 4), a numpy array.
        truth, classes: (M, 4) and (M,), the objects and their classes, 0 to K - 1.
        foreground: at least this IoU with an object makes a region one of its class.
        background: at least this IoU, and less than `foreground`, makes it background (0.1 in Fast R-CNN).

    Returns:
        Labels (N,): 0 for background, 1 + class for an object, -1 for those ignored; and the index of the object of
        each region (N,).
    """
    if not len(truth) or not len(regions):
        return np.full(len(regions), 0 if background == 0 else -1, "int32"), np.zeros(len(regions), "int32")
    overlap = ops.convert_to_numpy(iou(regions, truth))
    best, which = overlap.max(1), overlap.argmax(1)
    labels = np.where(best >= background, 0, -1)
    labels = np.where(best >= foreground, 1 + classes[which], labels)
    return labels.astype("int32"), which.astype("int32")

"""Faster R-CNN: the network proposes its regions itself, from the feature maps that it then cuts them out of.

Paper: Ren et al. 2015, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks",
arXiv:1506.01497, section 3, with the detector of Fast R-CNN, arXiv:1504.08083.

    faster_rcnn_vgg16
    stem          (600, 800,   3) -> ( 37,  50, 512)   the five groups of VGG-16, the last without its pooling
    group 1       (600, 800,   3) -> (300, 400,  64)   2 convolutions
    group 2       (300, 400,  64) -> (150, 200, 128)   2 convolutions
    group 3       (150, 200, 128) -> ( 75, 100, 256)   3 convolutions
    group 4       ( 75, 100, 256) -> ( 37,  50, 512)   3 convolutions
    group 5       ( 37,  50, 512) -> ( 37,  50, 512)   3 convolutions
    learner       ( 37,  50, 512) -> (300, 7, 7, 512)   16,650 anchors, of which 300 proposals; RoI pooling
    classifier    (300, 7, 7, 512) -> (300, 21), (300, 21, 4)   dense 4096, 4096; classes, and boxes of each class

    faster_rcnn_vgg8
    stem          (128, 128,   3) -> ( 32,  32, 128)   three groups, the last without its pooling
    group 1       (128, 128,   3) -> ( 64,  64,  32)   2 convolutions
    group 2       ( 64,  64,  32) -> ( 32,  32,  64)   2 convolutions
    group 3       ( 32,  32,  64) -> ( 32,  32, 128)   2 convolutions
    learner       ( 32,  32, 128) -> (100, 4, 4, 128)   3,072 anchors, of which 100 proposals; RoI pooling
    classifier    (100, 4, 4, 128) -> (100, 11), (100, 11, 4)   dense 256; classes, and boxes of each class

Trainable parameters: faster_rcnn_vgg16 137,078,239 with 21 classes, faster_rcnn_vgg8 976,489 with 11, the
background among them.
Differs from the paper: boxes of the background, which nobody trains, are there as in the released code. Anchors count
pixels from 0 to where they end. faster_rcnn_vgg8, for scenes of 128x128 pixels, is not in the paper: its anchors are
squares, as all objects of these scenes are.
"""

import inspect
import math
from numbers import Integral

import numpy as np
from keras import Input, Model, config, initializers, layers, ops, saving
from keras.utils import bounding_boxes

METAPARAMETERS = {
    "faster_rcnn_vgg16": {
        "groups": (
            {"n_layers": 2, "n_filters": 64}, {"n_layers": 2, "n_filters": 128}, {"n_layers": 3, "n_filters": 256},
            {"n_layers": 3, "n_filters": 512}, {"n_layers": 3, "n_filters": 512},
        ),
    },
    "faster_rcnn_vgg8": {
        "groups": (
            {"n_layers": 2, "n_filters": 32}, {"n_layers": 2, "n_filters": 64}, {"n_layers": 2, "n_filters": 128},
        ),
        "batch_normalization": True,
        "n_filters": 128,
        "anchors": {"base_size": 16, "scales": (1.75, 2.5, 3.5), "ratios": (1,)},  # squares of 28, 40 and 56 pixels
        "proposals": {"n_before": 600, "n_proposals": 100, "min_size": 8},
        "pooled_size": 4,
        "n_units": (256,),
    },
}


def build(metaparameters, input_shape=(600, 1000, 3), n_classes=21):
    """Return a Faster R-CNN as a `keras.Model`: images to proposals and their classes and boxes.

    Images (N, H, W, C) to {"regions": (N, R, 4), the proposals, "xyxy" in pixels, those without area if there are fewer
    than R; "classes": (N, R, K + 1), probabilities; "deltas": (N, R, K + 1, 4), of the box that a region of each class
    would have (tx, ty, tw, th)}. Its layers "objectness" and "anchor_deltas" are the outputs of the region proposal
    network, "feature_maps" that of the stem.

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of
            {"n_layers", "n_filters"}, and optionally `batch_normalization`, an argument of `stem`, `n_filters`,
            `anchors`, `proposals` and `pooled_size`, arguments of `learner`, `n_units` and `dropout`, of `classifier`.
        input_shape: (H, W, C), a fixed size; every group but the last halves H and W.
        n_classes: K + 1, the classes and, as class 0, the background; at least 2.

    Raises:
        ValueError: metaparameters, input_shape or n_classes are invalid.
    """
    if not isinstance(metaparameters, dict) or not metaparameters.get("groups"):
        raise ValueError(f"metaparameters must be a dictionary with groups, got {metaparameters!r}")
    groups = metaparameters["groups"]
    in_stem = {name: value for name, value in metaparameters.items() if name in ("groups", "batch_normalization")}
    in_classifier = {name: value for name, value in metaparameters.items() if name in ("n_units", "dropout")}
    in_learner = {name: value for name, value in metaparameters.items() if name not in {*in_stem, *in_classifier}}
    try:
        of_learner = inspect.signature(learner).bind(None, **in_learner, image_size=None, strides=1)
        inspect.signature(base_anchors).bind(**in_learner.get("anchors") or {})
        inspect.signature(Proposals).bind(None, None, **in_learner.get("proposals") or {})
        for in_group in groups:
            inspect.signature(group).bind(None, **in_group, batch_normalization=False, pooling=True)
        sizes = [*in_classifier.get("n_units", ()), *(n for in_group in groups for n in in_group.values())]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    of_learner.apply_defaults()
    sizes += [of_learner.arguments["n_filters"], of_learner.arguments["pooled_size"]]
    if not all(isinstance(n, Integral) and n > 0 for n in sizes):
        raise ValueError(
            f"n_layers, n_filters, pooled_size, n_units must be whole numbers of at least 1, got {metaparameters}"
        )
    if "n_units" in in_classifier:
        in_classifier["n_units"] = [int(n) for n in in_classifier["n_units"]]  # numpy's too
    if config.image_data_format() != "channels_last":
        raise ValueError("image_data_format must be channels_last, got channels_first (keras.json or keras.config)")
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not all(input_shape):
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape!r}")
    strides = 2 ** (len(groups) - 1)
    if min(input_shape[:2]) < strides:
        raise ValueError(f"height and width must be at least {strides}, got {input_shape[:2]}")
    if not isinstance(n_classes, Integral) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")

    inputs = Input(input_shape, name="images")
    x = stem(inputs, **in_stem)
    x, regions = learner(x, **in_learner, image_size=input_shape[:2], strides=strides)
    outputs = classifier(x, int(n_classes), **in_classifier)
    return Model(inputs, {"regions": regions, **outputs})


# Copied from rcnn/fast_rcnn.py
def stem(inputs, groups, batch_normalization=False):
    """All convolutions of a VGG: images (N, H, W, C) to feature maps (N, H / 2^(groups - 1), W / ..., n_filters).

    Args:
        inputs: images (N, H, W, C).
        groups: a tuple of {"n_layers", "n_filters"}; the pooling of the last is left out, RoI pooling has its place.
        batch_normalization: whether batch normalization follows each convolution.
    """
    *groups, last = groups
    x = inputs
    for metaparameters in groups:
        x = group(x, **metaparameters, batch_normalization=batch_normalization)
    x = group(x, **last, batch_normalization=batch_normalization, pooling=False)
    return layers.Identity(name="feature_maps")(x)  # a name, by which the stem can be cut off


def learner(x, image_size, strides=16, n_filters=512, anchors=None, proposals=None, pooled_size=7):
    """The region proposal network, its proposals, and RoI pooling: feature maps to one small map for each proposal.

    Args:
        x: the stem's feature maps (N, H, W, C), of a fixed size.
        image_size: (height, width) of the images in pixels.
        strides: how many pixels of the image a step on the feature maps is.
        n_filters: of the region proposal network.
        anchors: arguments of base_anchors, None for those of the paper.
        proposals: arguments of Proposals, None for those of the paper.
        pooled_size: how many bins a region gets in each direction.

    Returns:
        The pooled proposals (N, R, pooled_size, pooled_size, C), and the proposals (N, R, 4), "xyxy" in pixels.
    """
    first = base_anchors(**(anchors or {}))
    objectness, deltas = region_proposal_network(x, n_filters, len(first))
    every = grid_anchors(*x.shape[1:3], strides, first)
    regions = Proposals(every.tolist(), image_size, **(proposals or {}), name="proposals")(objectness, deltas)
    return RoIPooling(pooled_size, 1 / strides)(x, regions), regions


def region_proposal_network(x, n_filters, n_anchors):
    """A small network slides over the feature maps: at every position, is each anchor an object, and where is its box?

    Figure 3 of the paper: a 3x3 convolution, then two 1x1 convolutions side by side.

    Args:
        x: feature maps (N, H, W, C).
        n_filters: of the 3x3 convolution.
        n_anchors: k, how many anchors a position has.

    Returns:
        Objectness (N, H W k, 2), the probabilities of background and object, and deltas (N, H W k, 4), of the box as
        seen from the anchor (tx, ty, tw, th).
    """
    normal = initializers.RandomNormal(stddev=0.01)  # section 3.1.3
    x = layers.Conv2D(n_filters, 3, padding="same", activation="relu", kernel_initializer=normal, name="rpn")(x)
    objectness = layers.Conv2D(2 * n_anchors, 1, kernel_initializer=normal.clone(), name="rpn_objectness")(x)
    deltas = layers.Conv2D(4 * n_anchors, 1, kernel_initializer=normal.clone(), name="rpn_deltas")(x)
    objectness = layers.Reshape((-1, 2))(objectness)
    return layers.Softmax(name="objectness")(objectness), layers.Reshape((-1, 4), name="anchor_deltas")(deltas)


@saving.register_keras_serializable(package="rcnn")
class Proposals(layers.Layer):
    """Make boxes of the outputs of the region proposal network, and keep the best that do not overlap too much.

    Section 3.3 of the paper, as in its released code: the anchors are moved to where their deltas say, cut off at the
    edges of the image, those that are too small dropped; of the n_before best, non-maximum suppression keeps at most
    n_proposals. Where they are fewer, the rest are boxes without area, all 0. No gradient passes.

    Args:
        anchors: (A, 4), "xyxy" in pixels, as a list.
        image_size: (height, width) of the images in pixels.
        n_before: how many boxes there are at most before the suppression.
        n_proposals: R, how many there are after it.
        threshold: of the IoU with a better box, above which a box is suppressed.
        min_size: the least width and height of a box in pixels.
    """

    def __init__(self, anchors, image_size, n_before=6000, n_proposals=300, threshold=0.7, min_size=16, **kwargs):
        super().__init__(**kwargs | {"dtype": "float32"})  # or mixed precision would round the coordinates
        for name, value in (("n_before", n_before), ("n_proposals", n_proposals)):
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        self.anchors, self.image_size = anchors, tuple(image_size)
        self.n_before, self.n_proposals = int(min(n_before, len(anchors))), int(n_proposals)
        self.threshold, self.min_size = threshold, min_size

    def call(self, objectness, deltas):
        """Objectness (N, A, 2) and deltas (N, A, 4) to proposals (N, R, 4), "xyxy" in pixels, the best first."""
        scores, deltas = ops.stop_gradient(objectness[..., 1]), ops.stop_gradient(deltas)
        deltas = ops.minimum(deltas, math.log(1000 / 16))  # whose exponential could overflow; torchvision has this too
        anchors = ops.convert_to_tensor(self.anchors, "float32")
        boxes = bounding_boxes.decode_deltas_to_boxes(anchors, deltas, "xyxy", "xyxy", encoded_format="center_xywh")
        height, width = self.image_size
        boxes = ops.clip(boxes, 0, ops.convert_to_tensor([width, height, width, height], "float32"))
        is_large = ops.all(boxes[..., 2:] - boxes[..., :2] >= self.min_size, -1)
        scores, order = ops.top_k(ops.where(is_large, scores, -1.0), self.n_before)
        boxes = ops.take_along_axis(boxes, order[..., None], 1)  # (N, n_before, 4), the best first

        kept = self.suppress(boxes, scores >= 0)
        n_missing = max(0, self.n_proposals - self.n_before)
        boxes, kept = ops.pad(boxes, ((0, 0), (0, n_missing), (0, 0))), ops.pad(kept, ((0, 0), (0, n_missing)))
        rank = ops.arange(kept.shape[1], 0, -1, "float32")  # of two that are kept the better one comes first
        order = ops.top_k(kept * rank, self.n_proposals)[1][..., None]
        return ops.take_along_axis(boxes * kept[..., None], order, 1)

    def suppress(self, boxes, is_box):
        """Non-maximum suppression of boxes (N, B, 4), the best first: (N, B), 1 for those kept and 0 for the others.

        A box is kept if none that is kept and better overlaps it. Begin with all of them kept and apply that rule to
        all at once, again and again: first the best is right for good, then those that only depend on right ones.
        When nothing changes any more, all are.
        """
        iou = bounding_boxes.compute_iou(boxes, boxes, "xyxy")  # (N, B, B)
        i = ops.arange(boxes.shape[1])
        suppresses = ops.cast((iou > self.threshold) & (i[:, None] < i), "float32")
        is_box = ops.cast(is_box, "float32")

        def kept_if(kept):
            return is_box * ops.cast(ops.matmul(kept[:, None], suppresses)[:, 0] == 0, "float32")

        def goes_on(before, kept):
            return ops.any(before != kept)

        return ops.while_loop(goes_on, lambda before, kept: (kept, kept_if(kept)), (is_box, kept_if(is_box)))[1]

    def compute_output_shape(self, objectness_shape, deltas_shape):
        """Return (N, R, 4)."""
        return (objectness_shape[0], self.n_proposals, 4)

    def get_config(self):
        """Return the arguments."""
        names = ("anchors", "image_size", "n_before", "n_proposals", "threshold", "min_size")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


# Copied from rcnn/fast_rcnn.py
def group(x, n_layers, n_filters, batch_normalization=False, pooling=True):
    """3x3 convolutions, then a max pooling: (N, H, W, C) -> (N, H / 2, W / 2, n_filters). VGG paper, section 2.1."""
    for _ in range(n_layers):
        x = conv_relu(x, n_filters, batch_normalization)
    return layers.MaxPooling2D(2, strides=2)(x) if pooling else x


# Copied from rcnn/fast_rcnn.py
def classifier(x, n_classes, n_units=(4096, 4096), dropout=0.5):
    """Dense layers for every region, then two side by side: which class it is, and where its box is. Section 2.1.

    Args:
        x: the pooled regions (N, R, size, size, C).
        n_classes: K + 1, the classes and, as class 0, the background.
        n_units: the widths of the dense layers before the last two.
        dropout: the share of their units that is dropped in training.

    Returns:
        {"classes": (N, R, K + 1), probabilities, "deltas": (N, R, K + 1, 4)}.
    """
    n_regions, *pooled = x.shape[1:]
    x = layers.Reshape((n_regions, pooled[0] * pooled[1] * pooled[2]))(x)
    for i, n in enumerate(n_units, start=6):
        x = layers.Dense(n, activation="relu", kernel_initializer="he_normal", name=f"fc{i}")(x)
        x = layers.Dropout(dropout)(x)
    normal = initializers.RandomNormal  # section 2.3, with these two deviations
    classes = layers.Dense(n_classes, activation="softmax", kernel_initializer=normal(stddev=0.01), name="classes")(x)
    deltas = layers.Dense(4 * n_classes, kernel_initializer=normal(stddev=0.001))(x)
    return {"classes": classes, "deltas": layers.Reshape((n_regions, n_classes, 4), name="deltas")(deltas)}


# Copied from rcnn/fast_rcnn.py
@saving.register_keras_serializable(package="rcnn")
class RoIPooling(layers.Layer):
    """Divide each region of interest into size x size bins and keep the maximum of each.

    On the feature map a region reaches from round(x1 scale) to round(x2 scale), that cell included, and is at least one
    cell wide, and so with y. Of its n cells bin p has those from floor(p n / size) up to ceil((p + 1) n / size), not
    included, so that bins may share cells. A bin that lies outside the feature map is 0.

    The formula is that of the released code, whose x2 is the last pixel inside a box; ours is where the box ends.

    Args:
        size: how many bins a region has in each direction.
        scale: how large a pixel of the image is on the feature map, 1 / strides of all layers before.

    Raises:
        ValueError: size is no whole number of at least 1, the feature maps have no fixed size, or the regions are not
            (N, R, 4).
    """

    def __init__(self, size=7, scale=1 / 16, **kwargs):
        super().__init__(autocast=False, **kwargs)  # or mixed precision would round the coordinates
        if not isinstance(size, Integral) or size < 1:
            raise ValueError(f"size must be a whole number of at least 1, got {size!r}")
        self.size, self.scale = int(size), scale

    def build(self, feature_maps_shape, regions_shape):
        """Refuse shapes that cannot be pooled; there are no weights."""
        if len(feature_maps_shape) != 4 or None in feature_maps_shape[1:]:
            raise ValueError(f"feature maps must be (N, H, W, C) of a fixed size, got {feature_maps_shape}")
        if len(regions_shape) != 3 or regions_shape[1] is None or regions_shape[2] != 4:
            raise ValueError(f"regions must be (N, R, 4), R fixed, got {regions_shape}")

    def call(self, feature_maps, regions):
        """Feature maps (N, H, W, C) and regions (N, R, 4), "xyxy" in pixels, to (N, R, size, size, C).

        Any n cells in a row are covered by two windows of 2^k cells, the largest power of two in n: one from the first
        cell on, one up to the last. So four windows, two by two, cover a bin, and the maxima of all windows of 1, 2, 4
        ... cells in height and in width, made once, are enough for bins of all sizes.
        """
        feature_maps = ops.cast(feature_maps, self.compute_dtype)
        n, (height, width, n_channels) = ops.shape(feature_maps)[0], feature_maps.shape[1:]
        windows = [w for tall in self.windows(feature_maps, 1) for w in self.windows(tall, 2)]
        windows = ops.reshape(ops.stack(windows), (-1, n_channels))  # (powers of H x powers of W x N x H x W, C)

        x1, y1, x2, y2 = (ops.cast(ops.floor(regions[..., i] * self.scale + 0.5), "int32") for i in range(4))
        top, bottom = self.bins(y1, y2, height)  # (N, R, size)
        left, right = self.bins(x1, x2, width)
        tall, wide = self.power(bottom - top, height), self.power(right - left, width)
        of_window = tall[..., :, None] * width.bit_length() + wide[..., None, :]  # (N, R, size, size)
        of_image = of_window * n + ops.reshape(ops.arange(n, dtype="int32"), (-1, 1, 1, 1))
        rows = [ops.clip(y, 0, height - 1) for y in (top, bottom - 2**tall)]  # clipped: of bins without cells
        columns = [ops.clip(x, 0, width - 1) for x in (left, right - 2**wide)]
        cells = [(of_image * height + y[..., :, None]) * width + x[..., None, :] for y in rows for x in columns]
        maxima = [ops.take(windows, cell, axis=0) for cell in cells]
        x = ops.maximum(ops.maximum(*maxima[:2]), ops.maximum(*maxima[2:]))  # (N, R, size, size, C)
        has_cells = (bottom > top)[..., :, None] & (right > left)[..., None, :]
        return ops.where(has_cells[..., None], x, ops.zeros_like(x))

    def windows(self, x, axis):
        """Return the maxima of the 1, 2, 4 ... cells from each cell of x on: a list, each of the shape of x."""
        windows, cells = [x], 1
        while 2 * cells <= x.shape[axis]:
            windows.append(ops.maximum(windows[-1], ops.roll(windows[-1], -cells, axis)))  # what wraps is never asked
            cells *= 2
        return windows

    def power(self, n_cells, length):
        """Return the k of the largest 2^k of at most n_cells, 0 if there are none: the same shape, int32."""
        return sum(ops.cast(n_cells >= 2**k, "int32") for k in range(1, length.bit_length())) + ops.zeros_like(n_cells)

    def bins(self, start, end, length):
        """Return the first cell of each bin, and the one after its last, on the feature map: twice (N, R, size)."""
        n_cells = ops.expand_dims(ops.maximum(end - start + 1, 1), -1)  # (N, R, 1)
        i = ops.arange(self.size, dtype="int32")
        first = i * n_cells // self.size
        last = -(-(i + 1) * n_cells // self.size)  # rounded up
        start = ops.expand_dims(start, -1)
        return ops.clip(start + first, 0, length), ops.clip(start + last, 0, length)

    def compute_output_shape(self, feature_maps_shape, regions_shape):
        """Return (N, R, size, size, C)."""
        return (*regions_shape[:2], self.size, self.size, feature_maps_shape[-1])

    def get_config(self):
        """Return the arguments."""
        return {**super().get_config(), "size": self.size, "scale": self.scale}


# Copied from rcnn/boxes.py
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


# Copied from rcnn/boxes.py
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


# Copied from vgg/vgg.py
def conv_relu(x, n_filters, batch_normalization=False):
    """3x3 convolution, optionally batch normalization, and ReLU: (N, H, W, C) -> (N, H, W, n_filters)."""
    x = layers.Conv2D(n_filters, 3, padding="same", kernel_initializer="he_normal")(x)
    if batch_normalization:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)

"""Faster R-CNN: Fast R-CNN that proposes its regions itself, from the feature maps that it then cuts them out of.

Paper: Ren et al. 2015, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks",
arXiv:1506.01497, section 3, with the detector of Fast R-CNN, arXiv:1504.08083.

    faster_rcnn_vgg16
    stem          (600, 800,   3) -> ( 37,  50, 512)   the five groups of VGG-16, the last without its pooling
    learner       ( 37,  50, 512) -> (300, 7, 7, 512)   16,650 anchors, of which 300 proposals; RoI pooling
    classifier    (300, 7, 7, 512) -> (300, 21), (300, 21, 4)   dense 4096, 4096; classes, and boxes of each class

    faster_rcnn_vgg8
    stem          (128, 128,   3) -> ( 32,  32, 192)   three groups, the last without its pooling
    learner       ( 32,  32, 192) -> (100, 4, 4, 192)   3,072 anchors, of which 100 proposals; RoI pooling
    classifier    (100, 4, 4, 192) -> (100, 11), (100, 11, 4)   dense 256 with batch normalization; classes and boxes

Trainable parameters: faster_rcnn_vgg16 137,078,239 with 21 classes, faster_rcnn_vgg8 1,645,225 with 11, the
background among them.
Differs from the paper: as Fast R-CNN does, see fast_rcnn.py. The region proposal network learns from two images a
batch, not one. Both terms of its loss are divided by 256, as in the released code; equation 1 divides that of the boxes
by 240. The detector learns from 300 proposals a scene, not 2,000; steps 1 and 3 of the training see a quarter of the
scenes, step 4 half. faster_rcnn_vgg8, for scenes of 128x128 pixels, is not in the paper: its anchors are squares, as
all objects of these scenes are.
"""

import inspect
from numbers import Real

import numpy as np
from keras import Input, Model, initializers, layers, ops, saving

import boxes
from fast_rcnn import RoIPooling, classifier
from rcnn import arguments_of, check_number, check_shape, stem

METAPARAMETERS = {
    "faster_rcnn_vgg16": {
        "groups": (
            {"n_layers": 2, "n_filters": 64}, {"n_layers": 2, "n_filters": 128}, {"n_layers": 3, "n_filters": 256},
            {"n_layers": 3, "n_filters": 512}, {"n_layers": 3, "n_filters": 512},
        ),
    },
    "faster_rcnn_vgg8": {
        "groups": (
            {"n_layers": 2, "n_filters": 32}, {"n_layers": 2, "n_filters": 96}, {"n_layers": 2, "n_filters": 192},
        ),
        "batch_normalization": True,
        "n_filters": 128,
        "anchors": {"base_size": 8, "scales": (3.5, 5, 7), "ratios": (1,)},  # squares of 28, 40 and 56 pixels
        "proposals": {"n_before": 1000, "n_proposals": 100, "min_size": 8},
        "pooled_size": 4,
        "n_units": (256,),
        "dropout": 0.25,
    },
}


def build(metaparameters, input_shape=(600, 1000, 3), n_classes=21):
    """Return a Faster R-CNN as a `keras.Model`: images to proposals and their classes and boxes.

    Images (N, H, W, C) to {"regions": (N, R, 4), the proposals, "xyxy" in pixels, those without area if there are fewer
    than R; "classes": (N, R, K + 1), probabilities; "deltas": (N, R, K + 1, 4), of the box that a region of each class
    would have, divided by boxes.DEVIATIONS}. Its layers "backbone", "rpn" and "head" are models too: the stem, the
    region proposal network and the classifier.

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of
            {"n_layers", "n_filters"}, and optionally `batch_normalization`, of `stem` and `classifier`; `n_filters`, of
            `region_proposal_network`; `anchors`, `proposals` and `pooled_size`, of `learner`; `n_units` and `dropout`,
            of `classifier`.
        input_shape: (H, W, C), a fixed size; every group but the last halves H and W.
        n_classes: K + 1, the classes and, as class 0, the background; at least 2.

    Raises:
        ValueError: metaparameters, input_shape or n_classes are invalid.
    """
    functions = stem, region_proposal_network, learner, classifier
    in_stem, in_rpn, in_learner, in_head = arguments_of(metaparameters, *functions)
    strides = 2 ** (len(in_stem["groups"]) - 1)
    check_shape(input_shape, strides)
    check_number("n_classes", n_classes, 2)
    check_anchors(in_learner.get("anchors", {}), in_learner.get("proposals", {}))

    images = Input((None, None, input_shape[2]))
    backbone = Model(images, stem(images, **in_stem), name="backbone")
    images = Input(input_shape, name="images")
    x = backbone(images)
    n_anchors = len(boxes.base_anchors(**in_learner.get("anchors", {})))
    feature_maps = Input((None, None, x.shape[3]))
    rpn = Model(feature_maps, region_proposal_network(feature_maps, n_anchors, **in_rpn), name="rpn")
    x, regions = learner(x, rpn, input_shape[:2], strides, **in_learner)
    pooled = Input((None, *x.shape[2:]))  # of any number of regions
    head = Model(pooled, classifier(pooled, int(n_classes), **in_head), name="head")
    return Model(images, {"regions": regions, **head(x)})


def check_anchors(anchors, proposals):
    """Refuse arguments of boxes.base_anchors and Proposals that are unknown or not above 0."""
    try:
        inspect.signature(boxes.base_anchors).bind(**anchors)
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {anchors}") from None
    if not isinstance(proposals, dict):
        raise ValueError(f"metaparameters are invalid: proposals must be a dictionary, got {proposals!r}")
    unknown = set(proposals) - {"n_before", "n_proposals", "threshold", "min_size"}
    if unknown:
        raise ValueError(f"metaparameters are invalid: {', '.join(sorted(map(str, unknown)))}, in {proposals}")
    for name, value in {**anchors, **proposals}.items():
        values = value if isinstance(value, (tuple, list)) else (value,)
        if not values or not all(isinstance(number, Real) and number > 0 for number in values):
            raise ValueError(f"{name} must be above 0, got {value!r}")
        if isinstance(value, (tuple, list)) != (name in ("scales", "ratios")):
            kind = "a tuple of numbers" if name in ("scales", "ratios") else "a number"
            raise ValueError(f"{name} must be {kind}, got {value!r}")
    for name in ("n_before", "n_proposals"):
        check_number(name, proposals.get(name, 1))
    made = boxes.base_anchors(**anchors)
    if not (made[:, 2:] > made[:, :2]).all():
        raise ValueError(f"anchors must have an area, got a base_size too small for the ratios, in {anchors}")


def resized(network, image_size):
    """Return the same detector for images of another size; it shares all weights, and its anchors follow.

    Args:
        network: a model of build.
        image_size: (height, width) in pixels.
    """
    backbone, rpn, head = (network.get_layer(name) for name in ("backbone", "rpn", "head"))
    proposals, pooling = (network.get_layer(name).get_config() for name in ("proposals", "roi_pooling"))
    images = Input((*image_size, backbone.input_shape[3]), name="images")
    x = backbone(images)
    regions = Proposals.from_config(proposals | {"image_size": image_size})(**rpn(x))
    outputs = head(RoIPooling.from_config(pooling)(x, regions))
    return Model(images, {"regions": regions, **outputs}, name=network.name)


def learner(x, rpn, image_size, strides, anchors=None, proposals=None, pooled_size=7):
    """Propose regions, and pool them: feature maps (N, H, W, C) to one small map for each proposal.

    Args:
        x: the stem's feature maps (N, H, W, C), of a fixed size.
        rpn: the region proposal network, a model.
        image_size: (height, width) of the images in pixels.
        strides: how many pixels of the image a cell of the feature maps is wide and high.
        anchors: arguments of boxes.base_anchors, None for those of the paper.
        proposals: arguments of Proposals, None for those of the paper.
        pooled_size: how many bins a region gets in each direction.

    Returns:
        The pooled proposals (N, R, pooled_size, pooled_size, C), and the proposals (N, R, 4), "xyxy" in pixels.
    """
    anchors = boxes.base_anchors(**(anchors or {})).tolist()
    regions = Proposals(anchors, strides, image_size, **(proposals or {}), name="proposals")(**rpn(x))
    return RoIPooling(pooled_size, 1 / strides, name="roi_pooling")(x, regions), regions


def region_proposal_network(x, n_anchors, n_filters=512):
    """A small network slides over the feature maps: at every position, is each anchor an object, and where is its box?

    Figure 3 of the paper: a 3x3 convolution, then two 1x1 convolutions side by side.

    Args:
        x: feature maps (N, H, W, C).
        n_anchors: k, how many anchors a position has.
        n_filters: of the 3x3 convolution.

    Returns:
        {"objectness": (N, H W k, 2), the probabilities of background and object, "anchor_deltas": (N, H W k, 4), of the
        box as seen from the anchor (tx, ty, tw, th)}.
    """
    normal = initializers.RandomNormal(stddev=0.01)  # section 3.1.3
    x = layers.Conv2D(n_filters, 3, padding="same", activation="relu", kernel_initializer=normal)(x)
    # In float32 under a policy of half precision too, which would round probabilities and boxes.
    end = {"dtype": "float32"}
    objectness = layers.Conv2D(2 * n_anchors, 1, kernel_initializer=normal.clone(), **end)(x)
    deltas = layers.Conv2D(4 * n_anchors, 1, kernel_initializer=normal.clone(), **end)(x)
    return {
        "objectness": layers.Softmax(name="objectness", **end)(layers.Reshape((-1, 2), **end)(objectness)),
        "anchor_deltas": layers.Reshape((-1, 4), name="anchor_deltas", **end)(deltas),
    }


@saving.register_keras_serializable(package="rcnn")
class Proposals(layers.Layer):
    """Make boxes of the outputs of the region proposal network, and keep the best that do not overlap too much.

    Section 3.3 of the paper, as in its released code: the anchors are moved to where their deltas say, cut off at the
    edges of the image, those that are too small dropped; of the n_before best, non-maximum suppression keeps at most
    n_proposals. Where they are fewer, the rest are boxes without area, all 0. No gradient passes.

    Args:
        anchors: (k, 4), those of one position, around (0, 0), in pixels, as a list.
        strides: how many pixels of the image a cell of the feature maps is wide and high.
        image_size: (height, width) of the images in pixels.
        n_before: how many boxes there are at most before the suppression.
        n_proposals: R, how many there are after it.
        threshold: of the IoU with a better box, above which a box is suppressed.
        min_size: the least width and height of a box in pixels.
    """

    def __init__(
        self, anchors, strides, image_size, n_before=6000, n_proposals=300, threshold=0.7, min_size=16, **kwargs
    ):
        super().__init__(**kwargs | {"dtype": "float32"})  # or mixed precision would round the coordinates
        self.anchors, self.strides, self.image_size = anchors, strides, tuple(image_size)
        self.n_before, self.n_proposals = int(n_before), int(n_proposals)
        self.threshold, self.min_size = threshold, min_size

    def all_anchors(self):
        """Return the anchors of all positions, (A, 4)."""
        height, width = (size // self.strides for size in self.image_size)
        return boxes.grid_anchors(height, width, self.strides, np.array(self.anchors))

    def call(self, objectness, anchor_deltas):
        """Objectness (N, A, 2) and deltas (N, A, 4) to proposals (N, R, 4), "xyxy" in pixels, the best first."""
        scores, deltas = ops.stop_gradient(objectness[..., 1]), ops.stop_gradient(anchor_deltas)
        anchors = self.all_anchors()
        found = boxes.clip(boxes.decode(anchors, deltas), *self.image_size)
        scores = ops.where(boxes.is_larger_than(found, self.min_size), scores, -1.0)
        n_before = min(self.n_before, len(anchors))
        scores, order = ops.top_k(scores, n_before)
        found = ops.take_along_axis(found, order[..., None], 1)  # (N, n_before, 4), the best first

        kept = boxes.suppress(found, scores >= 0, self.threshold)
        n_missing = max(0, self.n_proposals - n_before)
        found, kept = ops.pad(found, ((0, 0), (0, n_missing), (0, 0))), ops.pad(kept, ((0, 0), (0, n_missing)))
        rank = ops.arange(kept.shape[1], 0, -1, "float32")  # of two that are kept the better one comes first
        order = ops.top_k(kept * rank, self.n_proposals)[1][..., None]
        return ops.take_along_axis(found * kept[..., None], order, 1)

    def compute_output_shape(self, objectness_shape, anchor_deltas_shape):
        """Return (N, R, 4)."""
        return (objectness_shape[0], self.n_proposals, 4)

    def get_config(self):
        """Return the arguments."""
        names = ("anchors", "strides", "image_size", "n_before", "n_proposals", "threshold", "min_size")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

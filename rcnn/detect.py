"""Find the objects of scenes with a trained detector, and take the time of its three parts.

What a detector does with a scene has three parts, in one order or another: `proposals`, where something may be, by
selective search or by the region proposal network; `features`, the convolutions (and, in R-CNN, the warping of every
region); `heads`, all that makes classes and boxes of the features of a region.

Keras finds the layers of a saved Fast or Faster R-CNN once their modules, fast_rcnn and faster_rcnn, are imported.
"""

from time import perf_counter

import numpy as np
from keras import Model, utils

import boxes
import rcnn
from batches import BOX_DEVIATIONS
from selective_search import selective_search

PARTS = ("proposals", "features", "heads")
N_PROPOSALS = 300  # of selective search, at most
PADDING = 3  # pixels of context around a warped region of 48x48: about the paper's 16 of 227
MIN_SCORE = {"rcnn": -1.0, "fast_rcnn": 0.05, "faster_rcnn": 0.05}  # a margin, and two probabilities
SUPPRESSION = 0.3  # the IoU with a better box of its class above which a box is dropped


def detect(model, scenes, proposals=None):
    """Find the objects of scenes, one scene after the other.

    Args:
        model: that of model.keras, of any of the three detectors.
        scenes: (N, H, W, 3), pixels 0 to 255.
        proposals: for each scene (P, 4), if selective search has run before; Faster R-CNN makes its own.

    Returns:
        A list of detections (boxes (D, 4), "xyxy" in pixels, classes (D,), 0 to K - 1, scores (D,)), one for each
        scene; a list of the proposals (P, 4); and the seconds of the parts, {"proposals": (N,), "features": (N,),
        "heads": (N,)}.

    Raises:
        ValueError: scenes are not of the size that the model takes.
    """
    name = model.layers[-1].name
    height, width, n_channels = ("H", "W", image_shape(model)[2]) if name == "rcnn" else image_shape(model)
    if scenes.ndim != 4 or scenes.shape[3] != n_channels or name != "rcnn" and scenes.shape[1:3] != (height, width):
        raise ValueError(f"scenes must be (N, {height}, {width}, {n_channels}), got {scenes.shape}")
    look = {"rcnn": look_rcnn, "fast_rcnn": look_fast_rcnn, "faster_rcnn": look_faster_rcnn}[name]
    parts = cut(model)
    given = [None] * len(scenes) if proposals is None else proposals
    for scene, known in list(zip(scenes, given, strict=True))[:2]:
        look(parts, scene, known)  # what a backend compiles at its first calls is not the time of a scene
    found, regions, seconds = [], [], []
    bar = utils.Progbar(len(scenes), unit_name="scene")
    for scene, known in zip(scenes, given, strict=True):
        proposed, scores, deltas, times = look(parts, scene, known)
        start = perf_counter()
        found.append(best_boxes(proposed, scores, deltas, scene.shape[:2], MIN_SCORE[name]))
        times["heads"] += perf_counter() - start
        regions.append(proposed)
        seconds.append(times)
        bar.add(1)
    return found, regions, {part: np.array([times[part] for times in seconds]) for part in PARTS}


def image_shape(model):
    """Return (H, W, C) of the images that a model takes."""
    return tuple((model.input["images"] if isinstance(model.input, dict) else model.input).shape[1:])


def cut(model):
    """Return the parts of a model as models, {name: model}, which share its weights."""
    network, normalization = model.layers[-1], model.get_layer("normalization")
    images = model.input["images"] if isinstance(model.input, dict) else model.input
    if network.name == "rcnn":
        features = [network.output["fc7"], network.output["pool5"]]
        heads = [network.output["scores"], network.output["deltas"]]
        body = Model(network.input, features)
        return {"features": Model(images, body(normalization(images))), "heads": Model(features, heads)}
    feature_maps, outputs = network.get_layer("feature_maps").output, network.output
    inputs = network.input["images"] if isinstance(network.input, dict) else network.input
    parts = {"features": Model(images, Model(inputs, feature_maps)(normalization(images)))}
    if network.name == "faster_rcnn":
        regions = network.get_layer("proposals").output
        parts["proposals"] = Model(feature_maps, regions)
    else:
        regions = network.input["regions"]
    parts["heads"] = Model([feature_maps, regions], [outputs["classes"], outputs["deltas"]])
    return parts


def look_rcnn(parts, scene, regions):
    """Return what R-CNN makes of a scene: its regions (P, 4), scores (P, K), deltas (P, K, 4), and the seconds."""
    start = perf_counter()
    regions = selective_search(scene, max_boxes=N_PROPOSALS) if regions is None else regions
    proposed = perf_counter()
    warped = rcnn.warp(scene, regions, parts["features"].input_shape[1], PADDING)
    if not len(regions):  # a batch of nothing is more than a backend can take
        warped = np.zeros((1, *warped.shape[1:]), "uint8")
    features = parts["features"].predict_on_batch(warped)
    computed = perf_counter()
    scores, deltas = (x[: len(regions)] for x in parts["heads"].predict_on_batch(features))
    ended = perf_counter()
    times = {"proposals": proposed - start, "features": computed - proposed, "heads": ended - computed}
    return regions, scores, deltas, times


def look_fast_rcnn(parts, scene, regions):
    """Return what Fast R-CNN makes of a scene: its regions (P, 4), scores (P, K), deltas (P, K, 4), and the seconds."""
    start = perf_counter()
    regions = selective_search(scene, max_boxes=N_PROPOSALS) if regions is None else regions
    proposed = perf_counter()
    features = parts["features"].predict_on_batch(scene[None])
    computed = perf_counter()
    n_regions = parts["heads"].input_shape[1][1]
    padded = np.pad(regions[:n_regions], ((0, max(0, n_regions - len(regions))), (0, 0)))
    classes, deltas = (x[0, : len(regions)] for x in parts["heads"].predict_on_batch([features, padded[None]]))
    ended = perf_counter()
    times = {"proposals": proposed - start, "features": computed - proposed, "heads": ended - computed}
    return regions[:n_regions], classes[:, 1:], deltas[:, 1:] * BOX_DEVIATIONS, times


def look_faster_rcnn(parts, scene, regions=None):
    """Return what Faster R-CNN makes of a scene: its regions (P, 4), scores (P, K), deltas (P, K, 4), the seconds.

    Proposals without area, which fill up where there are fewer than R, are left out.
    """
    start = perf_counter()
    features = parts["features"].predict_on_batch(scene[None])
    computed = perf_counter()
    regions = parts["proposals"].predict_on_batch(features)
    proposed = perf_counter()
    classes, deltas = (x[0] for x in parts["heads"].predict_on_batch([features, regions]))
    ended = perf_counter()
    times = {"proposals": proposed - computed, "features": computed - start, "heads": ended - proposed}
    is_box = boxes.is_larger_than(regions[0], 1e-3)
    return regions[0, is_box], classes[is_box, 1:], deltas[is_box, 1:] * BOX_DEVIATIONS, times


def best_boxes(regions, scores, deltas, image_size, min_score):
    """Return the detections of a scene: the boxes of each class whose score is high enough, overlaps suppressed.

    Args:
        regions: (P, 4), "xyxy" in pixels.
        scores, deltas: (P, K) and (P, K, 4).
        image_size: (height, width) in pixels; boxes are cut off at its edges.
        min_score: a detection has a higher one.

    Returns:
        Boxes (D, 4), classes (D,) and scores (D,), the best first.
    """
    chosen, classes = np.nonzero(scores > min_score)
    placed = boxes.clip(boxes.decode(regions[chosen], deltas[chosen, classes]), *image_size)
    scores, kept = scores[chosen, classes], []
    for k in np.unique(classes):
        mine = np.flatnonzero(classes == k)
        kept.append(mine[boxes.nms(placed[mine], scores[mine], SUPPRESSION)])
    kept = np.concatenate([np.zeros(0, int), *kept])
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    return placed[kept], classes[kept], scores[kept]

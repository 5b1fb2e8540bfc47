"""Joint training of Faster R-CNN: backbone, region proposal network and head in one step, their losses added.

Section 3.2 (ii) of the paper (arXiv:1506.01497), "approximate joint training". The head learns from the regions that
the network proposes at that moment, so what they are to find is decided inside the loss, and no gradient passes through
the coordinates of the regions: neither through RoI pooling, which rounds them, nor through the targets.
The head, and its batch normalization, see all regions, those without area too; the released code chooses 128 first.
"""

import run

import numpy as np
from keras import Input, Model, layers, ops, random

import boxes
import faster_rcnn
import steps
import targets


class JointTraining(Model):
    """The parts of a Faster R-CNN in one graph: scenes and their objects to all that has a loss."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.chance = random.SeedGenerator()

    def compute_loss(self, x, y, y_pred, sample_weight, training=True):
        """Return the sum of the four losses and of the weight decay."""
        regions, n_classes = ops.stop_gradient(y_pred["regions"]), y_pred["classes"].shape[2]
        chance = self.chance if training else 0  # in validation the same choice every time
        answers, weights = head_targets(regions, x["truth"], x["kinds"], n_classes, chance)
        y, sample_weight = {**y, **answers}, {**sample_weight, **weights}
        losses = targets.anchor_losses() | targets.region_losses()
        return sum(loss(y[name], y_pred[name], sample_weight[name]) for name, loss in losses.items()) + sum(self.losses)


def head_targets(regions, truth, kinds, n_classes, seed):
    """Choose the regions that count, a quarter of them objects, and say what they are: targets.region_example in ops.

    Args:
        regions: (N, R, 4), some of them perhaps without area.
        truth, kinds: (N, M, 4) and (N, M), the objects and their classes, 1 to K; 0 where a scene has fewer than M.
        n_classes: K + 1.
        seed: of the choice.

    Returns:
        Targets {"classes": (N, R), "deltas": (N, R, K + 1, 4)}, weights {"classes": (N, R), "deltas": (N, R, K + 1)}.
    """
    overlap = boxes.iou(regions, truth)  # (N, R, M)
    best, which = ops.max(overlap, -1), ops.argmax(overlap, -1)
    is_object, is_box = best >= 0.5, boxes.is_larger_than(regions, 1)
    chance = random.uniform(ops.shape(best), seed=seed)

    def first(of, n):
        rank = ops.argsort(ops.argsort(ops.where(of, chance, 2.0)))  # (N, R), those of the kind first
        return of & (rank < n)

    objects = first(is_object, targets.N_REGIONS // 4)
    n_objects = ops.sum(ops.cast(objects, "int32"), -1, keepdims=True)
    others = first(is_box & ~is_object, targets.N_REGIONS - n_objects)
    n_chosen = n_objects + ops.sum(ops.cast(others, "int32"), -1, keepdims=True)
    count = ops.cast(objects | others, "float32") / ops.cast(ops.maximum(n_chosen, 1) * ops.shape(best)[0], "float32")

    classes = ops.where(objects, ops.take_along_axis(kinds, which, 1), 0)
    unit = ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0])  # in place of what has no logarithm
    anchors = ops.where(objects[..., None], regions, unit)
    found = ops.where(objects[..., None], ops.take_along_axis(truth, which[..., None], 1), unit)
    deltas = boxes.encode(anchors, found, boxes.DEVIATIONS)  # (N, R, 4)
    of_class = ops.one_hot(classes, n_classes) * ops.cast(objects, "float32")[..., None]  # (N, R, K + 1)
    answers = {"classes": classes, "deltas": of_class[..., None] * deltas[..., None, :]}
    return answers, {"classes": count, "deltas": 4 * of_class * count[..., None]}


def fit_together(args, network, scenes, n_proposals, mean, variance):
    """Train all parts of a Faster R-CNN at once.

    Args:
        args: the parsed command line.
        network: a model of faster_rcnn.build.
        scenes: {"training": (scenes, objects), "validation": ...}.
        n_proposals: how many regions the head sees beside the objects.
        mean, variance: of each channel of the single training images, (C,).
    """
    backbone, rpn, head = (network.get_layer(name) for name in ("backbone", "rpn", "head"))
    proposals, pooling = (network.get_layer(name) for name in ("proposals", "roi_pooling"))
    n_objects = max(len(truth) for _, objects in scenes.values() for truth, _ in objects)
    images, truth = Input(network.input_shape[1:], name="images"), Input((n_objects, 4), name="truth")
    inputs = {"images": images, "truth": truth, "kinds": Input((n_objects,), dtype="int32", name="kinds")}
    feature_maps = backbone(layers.Normalization(mean=mean, variance=variance)(images))
    anchors = rpn(feature_maps)
    proposals = faster_rcnn.Proposals.from_config(proposals.get_config() | {"n_proposals": n_proposals})
    regions = ops.concatenate([truth, proposals(**anchors)], 1)  # the boxes of the objects are regions too
    pooled = faster_rcnn.RoIPooling.from_config(pooling.get_config())(feature_maps, regions)
    model = JointTraining(inputs, {**anchors, "regions": regions, **head(pooled)})
    all_anchors = proposals.all_anchors()
    training, validation = (
        joint_batches(*scenes[name], all_anchors, n_objects, args.batch_size, seed)
        for name, seed in (("training", args.seed), ("validation", None))
    )
    steps.fit(args, "together", network, model, training, validation, loss=None)


def joint_batches(scenes, objects, anchors, n_objects, batch_size, seed=None):
    """Return Batches: ({"images", "truth", "kinds"}, targets, weights), the last two as in targets.anchor_example.

    Args:
        scenes, objects, anchors, batch_size, seed: as for targets.anchor_batches.
        n_objects: M, to which the objects of each scene are filled up.
    """
    targets.check_objects(scenes, objects)

    def make(chosen, rng):
        examples = []
        for i in chosen:
            scene, (truth,) = targets.mirrored(scenes[i], [objects[i][0]], rng if seed is not None else None)
            n_missing = n_objects - len(truth)
            inputs = {
                "images": scene,
                "truth": np.pad(truth, ((0, n_missing), (0, 0))),
                "kinds": np.pad(1 + objects[i][1], (0, n_missing)),
            }
            examples.append((inputs, *targets.anchor_example(truth, anchors, scene.shape[:2], rng)))
        return targets.stack(examples)

    return run.Batches(len(scenes), batch_size, make, seed)

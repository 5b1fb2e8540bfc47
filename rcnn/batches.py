"""The batches that detectors learn from: which anchors or regions of a scene count, and what is to come out for them.

All of it is made outside the networks, in numpy. What does not count has a weight of 0.
"""

import numpy as np
from keras import utils

import boxes
import rcnn

BOX_DEVIATIONS = (0.1, 0.1, 0.2, 0.2)  # classifiers learn deltas divided by these, which then deviate by about 1


class SceneBatches(utils.PyDataset):
    """Batches of scenes, in another order in every epoch, half of the scenes mirrored.

    Every batch is made of the seed, the epoch and its own number alone, so that an interrupted run sees what it would
    have seen.

    Args:
        scenes: (N, H, W, 3) uint8.
        objects: for each scene (boxes (M, 4), "xyxy" in pixels, classes (M,)); M may be 0.
        batch_size: how many scenes a batch has.
        seed: of all that is random.
        training: whether scenes are shuffled and mirrored; or else every epoch is the same.

    Raises:
        ValueError: a scene has a box without area or outside of it, or not as many boxes as classes.
    """

    def __init__(self, scenes, objects, batch_size, seed, training=True):
        super().__init__()
        for number, (truth, classes) in enumerate(objects):
            check_objects(truth, classes, *scenes.shape[1:3], f"scene {number}")
        self.scenes, self.objects, self.batch_size = scenes, objects, batch_size
        self.seed, self.training = seed, training
        self.draw(0)

    def draw(self, epoch):
        """Shuffle the scenes for an epoch."""
        self.epoch = epoch if self.training else 0
        self.order = np.arange(len(self.scenes))
        if self.training:
            np.random.default_rng((self.seed, epoch)).shuffle(self.order)

    def __len__(self):
        """How many batches an epoch has; the last may be smaller."""
        return -(-len(self.scenes) // self.batch_size)

    def __getitem__(self, number):
        """Return batch `number`: (inputs, targets, weights)."""
        rng = np.random.default_rng((self.seed, self.epoch, number))
        chosen = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        rows = [self.example(scene, self.training and rng.random() < 0.5, rng) for scene in chosen]
        return tuple({name: np.stack([row[i][name] for row in rows]) for name in rows[0][i]} for i in range(3))


class AnchorBatches(SceneBatches):
    """For the region proposal network, of each scene 256 anchors, up to half of them positive: section 3.1.3.

    Anchors that cross the edge of the scene are ignored. The others have further arguments than SceneBatches:

    Args:
        anchors: (A, 4), of every position.
        n_anchors: how many of a scene count.
    """

    def __init__(self, scenes, objects, anchors, batch_size, seed, training=True, n_anchors=256):
        super().__init__(scenes, objects, batch_size, seed, training)
        self.anchors, self.n_anchors = anchors, n_anchors
        height, width = scenes.shape[1:3]
        self.is_inside = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2:] <= [width, height]).all(1)

    def example(self, number, mirrored, rng):
        """Return what is to be learned from a scene: (inputs, targets, weights)."""
        scene, truth, _ = mirror(self.scenes[number], *self.objects[number], mirrored=mirrored)
        labels = np.full(len(self.anchors), -1, "int32")
        labels[self.is_inside], which = boxes.match_anchors(self.anchors[self.is_inside], truth)
        counts = np.zeros(len(labels), "float32")
        counts[boxes.sample(labels, self.n_anchors, 0.5, rng)] = 1
        positive = labels == 1
        deltas = np.zeros((len(labels), 4), "float32")
        deltas[positive] = boxes.encode(self.anchors[positive], truth[which[positive[self.is_inside]]])
        targets = {"objectness": (labels == 1).astype("int32"), "anchor_deltas": deltas}
        return {"images": scene}, targets, {"objectness": counts, "anchor_deltas": counts * positive}


class RegionBatches(SceneBatches):
    """For the classifier of Fast and Faster R-CNN, of each scene 64 regions, a quarter of them objects: section 2.3.

    The boxes of the objects are regions too. Further arguments than those of SceneBatches:

    Args:
        proposals: for each scene (P, 4), those narrower or lower than a pixel are left out.
        n_classes: K, without the background.
        n_regions: R, how many regions of a scene count.
        background: the least IoU with an object that makes a region background: 0.1 in Fast, 0 in Faster R-CNN.
    """

    def __init__(
        self, scenes, objects, proposals, n_classes, batch_size, seed, training=True, n_regions=64, background=0.1
    ):
        super().__init__(scenes, objects, batch_size, seed, training)
        self.proposals, self.n_classes = proposals, n_classes
        self.n_regions, self.background = n_regions, background

    def example(self, number, mirrored, rng):
        """Return what is to be learned from a scene: (inputs, targets, weights)."""
        (truth, classes), proposals = self.objects[number], self.proposals[number]
        proposals = np.concatenate([truth, proposals[boxes.is_larger_than(proposals, 1)]])
        labels, which = boxes.match_proposals(proposals, truth, classes, background=self.background)
        chosen = boxes.sample(labels, self.n_regions, 0.25, rng)
        scene, regions, _ = mirror(self.scenes[number], proposals[chosen], mirrored=mirrored)
        _, truth, _ = mirror(self.scenes[number], truth, mirrored=mirrored)

        n = len(chosen)
        inputs = {"images": scene, "regions": np.zeros((self.n_regions, 4), "float32")}
        inputs["regions"][:n] = regions
        targets = {
            "classes": np.zeros(self.n_regions, "int32"),
            "deltas": np.zeros((self.n_regions, 1 + self.n_classes, 4), "float32"),
        }
        weights = {
            "classes": (np.arange(self.n_regions) < n).astype("float32"),
            "deltas": np.zeros((self.n_regions, 1 + self.n_classes), "float32"),
        }
        targets["classes"][:n] = labels[chosen]
        objects = np.flatnonzero(labels[chosen] > 0)
        deltas = boxes.encode(regions[objects], truth[which[chosen[objects]]]) / np.array(BOX_DEVIATIONS, "float32")
        targets["deltas"][objects, labels[chosen[objects]]] = deltas
        weights["deltas"][objects, labels[chosen[objects]]] = 1
        return inputs, targets, weights


class WarpedBatches(utils.PyDataset):
    """For the fine-tuning of R-CNN, warped regions of all scenes, a quarter of them objects: section 2.3 of its paper.

    Args:
        scenes, objects, proposals: as for RegionBatches.
        n_batches: how many batches an epoch has.
        n_regions: how many regions a batch has.
        size, padding: see rcnn.warp.
        seed, training: as for SceneBatches.
    """

    def __init__(self, scenes, objects, proposals, n_batches, n_regions, size, padding, seed, training=True):
        super().__init__()
        self.scenes, self.n_batches, self.n_regions = scenes, n_batches, n_regions
        self.size, self.padding, self.seed, self.training = size, padding, seed, training
        self.regions, self.labels, self.of_scene = [], [], []
        for number, ((truth, classes), found) in enumerate(zip(objects, proposals, strict=True)):
            check_objects(truth, classes, *scenes.shape[1:3], f"scene {number}")
            found = np.concatenate([truth, found[boxes.is_larger_than(found, 1)]])
            self.regions.append(found)
            self.labels.append(boxes.match_proposals(found, truth, classes)[0])
            self.of_scene.append(np.full(len(found), number))
        self.regions, self.labels, self.of_scene = map(np.concatenate, (self.regions, self.labels, self.of_scene))
        self.draw(0)

    def draw(self, epoch):
        """Choose other regions for an epoch."""
        self.epoch = epoch if self.training else 0

    def __len__(self):
        """How many batches an epoch has."""
        return self.n_batches

    def __getitem__(self, number):
        """Return batch `number`: warped regions (R, size, size, 3) uint8 and classes (R,), 0 for the background."""
        rng = np.random.default_rng((self.seed, self.epoch, number))
        chosen = np.sort(boxes.sample(self.labels, self.n_regions, 0.25, rng))  # those of a scene together
        warped = [
            rcnn.warp(self.scenes[scene], self.regions[chosen[self.of_scene[chosen] == scene]], self.size, self.padding)
            for scene in np.unique(self.of_scene[chosen])
        ]
        x = np.concatenate(warped)
        mirrored = rng.random(len(x)) < 0.5 if self.training else np.zeros(len(x), bool)
        x[mirrored] = x[mirrored][:, :, ::-1]
        return x, self.labels[chosen]


def mirror(scene, truth, classes=None, mirrored=True):
    """Return a scene, boxes (M, 4) in it and their classes, left and right exchanged if wanted."""
    if not mirrored:
        return scene, truth, classes
    truth = truth.copy()
    truth[:, [0, 2]] = scene.shape[1] - truth[:, [2, 0]]
    return scene[:, ::-1], truth, classes


def check_objects(truth, classes, height, width, where):
    """Raise ValueError unless boxes are (M, 4), each with an area and inside the scene, and each with a class."""
    if np.ndim(truth) != 2 or np.shape(truth)[1] != 4 or len(truth) != len(classes):
        raise ValueError(f"{where} must have boxes (M, 4) and classes (M,), got {np.shape(truth)}, {np.shape(classes)}")
    for box in truth:
        x1, y1, x2, y2 = (float(side) for side in box)
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            raise ValueError(
                f"{where}: a box must have 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}, got {x1, y1, x2, y2}"
            )

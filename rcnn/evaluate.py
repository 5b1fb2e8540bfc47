"""How good detections are: which of them are right, average precision, and how many objects the proposals find."""

import numpy as np
from keras import ops

import boxes

VERDICTS = ("right", "twice", "class wrong", "box off", "background")


def detection_scores(found, scenes, classes):
    """Return what results.json says of the detections in the validation and test scenes.

    Args:
        found: {"validation": records of detect.detect, one for each scene, "test": ...}.
        scenes: {"validation": (scenes, objects), "test": ...}, from make_scenes.
        classes: the names of the classes.
    """
    precisions = {
        name: average_precisions(found[name], scenes[name][1], len(classes)) for name in ("validation", "test")
    }
    truths = scenes["test"][1]
    return {
        "validation_map_50": float(np.nanmean(precisions["validation"])),
        "map_50": float(np.nanmean(precisions["test"])),
        "average_precision": {  # None, which JSON has, for a class that no scene has
            name: None if np.isnan(value) else float(value)
            for name, value in zip(classes, precisions["test"], strict=True)
        },
        "proposal_recall": recall([of_scene["regions"] for of_scene in found["test"]], truths),
        "proposals_per_image": float(np.mean([len(of_scene["regions"]) for of_scene in found["test"]])),
        "test_scenes": len(truths),
    }


def average_precisions(found, truths, n_classes):
    """Return the average precision of each class: (n_classes,); nan for a class that no scene has.

    The detections of all scenes are ranked together.

    Args:
        found: for each scene a record of detect.detect.
        truths: for each scene (boxes (M, 4), classes (M,)).
        n_classes: K.
    """
    verdicts = np.concatenate([judge(of_scene, *truth) for of_scene, truth in zip(found, truths, strict=True)])
    classes, scores = (np.concatenate([of_scene[name] for of_scene in found]) for name in ("classes", "scores"))
    n_objects = np.bincount(np.concatenate([kinds for _, kinds in truths]), minlength=n_classes)
    return np.array([
        average_precision(verdicts[classes == k] == "right", scores[classes == k], n) if n else np.nan
        for k, n in enumerate(n_objects)
    ])


def judge(found, truth, kinds, threshold=0.5):
    """Say of each detection of a scene whether it is right, and if not, why.

    A detection is right if its IoU with the object of its class that it overlaps most is above the threshold, and no
    better detection has found that object before ("twice"). Of the others, "class wrong" is on an object of another
    class, "box off" on one of its class but not well enough (an IoU of at least 0.1). All the
    others are "background".

    Args:
        found: a record of detect.detect, the best first.
        truth, kinds: (M, 4) and (M,), the objects and their classes.
        threshold: of the IoU.

    Returns:
        (D,), of VERDICTS.
    """
    overlap = ops.convert_to_numpy(boxes.iou(found["boxes"], truth))  # (D, M)
    verdicts, found_before = [], set()
    for row, k in zip(overlap, found["classes"], strict=True):
        of_class = np.where(kinds == k, row, 0)
        best, which = of_class.max(initial=0), int(of_class.argmax()) if len(row) else None
        if best > threshold:
            verdicts.append("twice" if which in found_before else "right")
            found_before.add(which)
        elif row.max(initial=0) > threshold:
            verdicts.append("class wrong")
        else:
            verdicts.append("box off" if best >= 0.1 else "background")
    return np.array(verdicts, "U11")


# Copied from multilabel/tasks.py
def average_precision(hits, scores, n_positives):
    """Return the area under the curve of precision over recall, of examples ranked by score.

    The precision at a recall is the highest of all from there on ("all-point", as in the VOC challenge since 2010).

    Args:
        hits: (N,), 1 where the example is one of those to be found, 0 where not.
        scores: (N,), the highest is the first in the ranking.
        n_positives: how many there are to be found, some of them perhaps not among the examples.

    Returns:
        A number from 0 to 1; 0 if there is nothing to be found.
    """
    hits = hits[np.argsort(-scores, kind="stable")] > 0
    precision = hits.cumsum() / np.arange(1, len(hits) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here[hits].sum() / max(1, n_positives))  # each hit is a step of the recall


def recall(proposals, truths, threshold=0.5):
    """Return the share of the objects that a proposal overlaps by an IoU of at least the threshold; nan without any.

    Args:
        proposals: for each scene (P, 4).
        truths: for each scene (boxes (M, 4), classes (M,)).
        threshold: of the IoU.
    """
    best = [
        ops.convert_to_numpy(boxes.iou(truth, regions)).max(1, initial=0)
        for regions, (truth, _) in zip(proposals, truths, strict=True)
    ]
    best = np.concatenate(best) if best else np.zeros(0)
    return float((best >= threshold).mean()) if len(best) else float("nan")

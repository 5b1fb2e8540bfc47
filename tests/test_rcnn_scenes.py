"""The scenes of the detectors: where the objects are, and that each scene can be made again."""

import time

import numpy as np
import pytest
from folders import load
from keras import ops

SCENES, BOXES = load("rcnn/scenes.py"), load("rcnn/boxes.py")
IMAGES, LABELS = load("vgg/data.py").synthetic(200, seed=3)  # data.py is the same in every folder


def test_objects_are_where_the_boxes_say():
    """The last object lies on top, so its pixels are all there: those of its image, resized."""
    scenes, objects = SCENES.make_scenes(IMAGES, LABELS, 100, seed=1)
    assert scenes.shape == (100, 128, 128, 3) and scenes.dtype == "uint8"
    for scene, (boxes, classes) in zip(scenes, objects, strict=True):
        assert boxes.dtype == "float32" and boxes.shape == (len(classes), 4)
        assert (boxes >= 0).all() and (boxes <= 128).all() and (boxes == boxes.round()).all()
        x1, y1, x2, y2 = boxes[-1].astype(int)
        assert x2 - x1 == y2 - y1
        candidates = IMAGES[LABELS == classes[-1]].astype("float32")
        candidates = ops.image.resize(candidates, (y2 - y1, x2 - x1), antialias=True)
        differences = abs(ops.convert_to_numpy(candidates) - scene[y1:y2, x1:x2]).max((1, 2, 3))
        assert differences.min() <= 0.51 < np.sort(differences)[1]


@pytest.mark.slow
def test_how_many_how_large_and_how_far_apart():
    _, objects = SCENES.make_scenes(IMAGES, LABELS, 1_000, seed=2)
    counts = np.bincount([len(classes) for _, classes in objects], minlength=5)
    assert counts[0] == 0 and len(counts) == 5 and counts[1:].min() > 150
    sides = np.concatenate([boxes[:, 2] - boxes[:, 0] for boxes, _ in objects])
    assert sides.min() == 24 and sides.max() == 64  # 0.75 and 2 times 32
    assert np.bincount(np.concatenate([classes for _, classes in objects])).min() > 100
    for boxes, _ in objects:
        corner = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
        shared = (np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - corner).clip(0).prod(-1)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        share = shared / np.minimum(area[:, None], area)
        assert (share[~np.eye(len(boxes), dtype=bool)] <= 0.1).all()


def test_the_same_seed_makes_the_same_scenes():
    scenes, objects = SCENES.make_scenes(IMAGES, LABELS, 150, seed=5)
    again, same_objects = SCENES.make_scenes(IMAGES, LABELS, 120, seed=5)  # a scene is of its number, not of how many
    np.testing.assert_array_equal(scenes[:120], again)
    for (boxes, classes), (same_boxes, same_classes) in zip(objects, same_objects, strict=False):
        np.testing.assert_array_equal(boxes, same_boxes)
        np.testing.assert_array_equal(classes, same_classes)
    other, _ = SCENES.make_scenes(IMAGES, LABELS, 120, seed=6)
    assert (other != again).any((1, 2, 3)).all() and (scenes[0] != scenes[1]).any()


def test_canvases_are_noise_of_many_kinds():
    """Smooth at large, textured at small: both differ from canvas to canvas, and none is of one color."""
    canvases = SCENES.canvases(range(20), 0, 128, 3)
    assert canvases.shape == (20, 128, 128, 3) and canvases.min() >= 0 and canvases.max() <= 255
    assert canvases.std((1, 2)).min() > 10
    steps = abs(np.diff(canvases, axis=1)).mean((1, 2, 3))
    assert steps.max() > 3 * steps.min()


def test_single_images_lie_where_their_region_says():
    """Each of one gray, so that its pixels tell which it is; of one size in a batch, and any from 24 to 40 pixels."""
    images = np.repeat(np.arange(50, dtype="uint8"), 32 * 32 * 3).reshape(50, 32, 32, 3) * 5
    batches, sides, seen = SCENES.image_batches((images, np.arange(50) % 7), 40, 8, seed=1), set(), []
    for epoch in range(4):
        batches.start(epoch)
        for i in range(len(batches)):
            inputs, labels = batches[i]
            assert inputs["images"].shape[1:] == (40, 40, 3) and inputs["images"].dtype == "uint8"
            assert inputs["regions"].shape == (len(labels), 1, 4) and labels.shape == (len(labels), 1)
            (side,) = set((inputs["regions"][..., 2:] - inputs["regions"][..., :2]).ravel())
            sides.add(side)
            for canvas, region, label in zip(inputs["images"], inputs["regions"][:, 0], labels[:, 0], strict=True):
                x1, y1, x2, y2 = region.astype(int)
                (gray,) = np.unique(canvas[y1:y2, x1:x2])
                assert gray // 5 % 7 == label and (canvas != gray).any() == (side < 40)  # noise around it
                seen.append(gray // 5)
    assert sorted(seen) == sorted(4 * list(range(50)))  # each once in an epoch
    assert min(sides) >= 24 and max(sides) <= 40 and len(sides) > 8


def test_half_of_the_single_images_are_mirrored_in_training():
    images = np.zeros((60, 32, 32, 3), "uint8")
    images[:, :, 16:] = 200
    for seed, share in ((0, (0.3, 0.7)), (None, (0, 0))):
        inputs, _ = SCENES.image_batches((images, np.zeros(60, int)), 40, 60, seed)[0]
        left = [canvas[int(y1) + 2, int(x1) + 2, 0] for canvas, ((x1, y1, _, _),) in zip(*inputs.values(), strict=True)]
        assert share[0] <= np.mean(np.array(left) > 100) <= share[1]


def test_a_batch_of_single_images_can_be_made_again():
    """Of seed, epoch and index alone; those of the validation are the same in every epoch."""
    first, again, other = (SCENES.image_batches((IMAGES, LABELS), 40, 20, seed) for seed in (3, 3, 4))
    validation = SCENES.image_batches((IMAGES, LABELS), 40, 20)
    again[1]
    for name, values in first[0][0].items():
        np.testing.assert_array_equal(again[0][0][name], values)
        assert (other[0][0][name] != values).any() and (first[1][0][name] != values).any()
        np.testing.assert_array_equal(validation[0][0][name], validation[0][0][name])
    np.testing.assert_array_equal(validation[0][1][:, 0], LABELS[:20])
    again.start(1)
    assert (again[0][0]["images"] != first[0][0]["images"]).any()


@pytest.mark.parametrize("size", [64, 96, 200])
def test_other_sizes(size):
    scenes, objects = SCENES.make_scenes(IMAGES, LABELS, 5, size=size)
    assert scenes.shape == (5, size, size, 3) and all((boxes <= size).all() for boxes, _ in objects)


def test_what_cannot_be():
    with pytest.raises(ValueError, match="size must be at least 64, the largest object, got 63"):
        SCENES.make_scenes(IMAGES, LABELS, 1, size=63)
    with pytest.raises(ValueError, match="at least one image"):
        SCENES.make_scenes(IMAGES[:0], LABELS[:0], 1)
    scenes, objects = SCENES.make_scenes(IMAGES, LABELS, 0)
    assert scenes.shape == (0, 128, 128, 3) and objects == []


@pytest.mark.slow
def test_two_thousand_scenes_take_seconds():
    start = time.perf_counter()
    SCENES.make_scenes(IMAGES, LABELS, 500)
    assert time.perf_counter() - start < 15  # of 500, with other work on the machine; alone it is 1 or 2

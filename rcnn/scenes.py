"""Scenes to detect objects in: a few images of CIFAR-10, small and large, on a canvas of noise; and single ones."""

import run

import numpy as np
from keras import ops

N_OBJECTS = (1, 4)  # in a scene, at least and at most
SCALES = (0.75, 2.0)  # of an image, at least and at most
OVERLAP = 0.1  # the share of the smaller of two objects that the other may cover, at most
TRIES = 50  # to find a place for an object, or it is left out


def make_scenes(images, labels, n_scenes, seed=0, size=128):
    """Paste images at random on canvases: each scene depends on the seed and its index alone.

    Args:
        images, labels: (N, H, W, C) uint8, square, and (N,), to choose from; those of one split only.
        n_scenes: how many scenes.
        seed: of all that is random; two splits need two seeds, or their scenes share canvases and places.
        size: height and width of a scene in pixels, at least that of the largest object.

    Returns:
        Scenes (n_scenes, size, size, C) uint8, and the objects of each: (boxes (M, 4) float32, "xyxy" in pixels,
        classes (M,) int32). A box encloses the whole image that was pasted.

    Raises:
        ValueError: the scenes are smaller than the largest object, or there are no images.
    """
    largest = round(SCALES[1] * images.shape[1])
    if size < largest:
        raise ValueError(f"size must be at least {largest}, the largest object, got {size}")
    if not len(images):
        raise ValueError("scenes need at least one image to paste, got none")
    plans = [plan(len(images), images.shape[1], size, np.random.default_rng((seed, i))) for i in range(n_scenes)]
    objects = [(boxes.astype("float32"), labels[chosen].astype("int32")) for chosen, boxes in plans]

    resized = {}  # (scene, object): its pixels; all of one size together, which is fast
    by_side = {}
    for scene, (chosen, boxes) in enumerate(plans):
        for i, (image, box) in enumerate(zip(chosen, boxes, strict=True)):
            by_side.setdefault(int(box[2] - box[0]), []).append((scene, i, image))
    for side, places in by_side.items():
        pixels = images[[image for *_, image in places]].astype("float32")
        pixels = ops.convert_to_numpy(ops.image.resize(pixels, (side, side), antialias=True))
        resized |= {place[:2]: image for place, image in zip(places, pixels.round(), strict=True)}

    scenes = np.empty((n_scenes, size, size, images.shape[3]), "uint8")
    for first in range(0, n_scenes, 100):
        scenes[first : first + 100] = canvases(range(first, min(first + 100, n_scenes)), seed, size, images.shape[3])
    for scene, (_, boxes) in enumerate(plans):
        for i, (x1, y1, x2, y2) in enumerate(boxes):
            scenes[scene, y1:y2, x1:x2] = resized[scene, i]
    return scenes, objects


def plan(n_images, image_size, size, rng):
    """Choose the images of a scene and their places: indices (M,), boxes (M, 4) of whole pixels; the last is on top."""
    chosen, boxes = [], []
    for _ in range(rng.integers(N_OBJECTS[0], N_OBJECTS[1] + 1)):
        side = round(image_size * rng.uniform(*SCALES))
        for x, y in rng.integers(0, size - side + 1, (TRIES, 2)):
            box = np.array([x, y, x + side, y + side])
            if all(covered(box, other) <= OVERLAP for other in boxes):
                chosen.append(rng.integers(n_images))
                boxes.append(box)
                break
    return np.array(chosen), np.array(boxes)


def covered(box, other):
    """Return the share of the smaller of two boxes that the other one covers."""
    sides = (np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])).clip(0)
    return sides.prod() / min((box[2:] - box[:2]).prod(), (other[2:] - other[:2]).prod())


def canvases(indices, seed, size, n_channels):
    """Return canvases of smooth noise under a texture: (N, size, size, n_channels), 0 to 255.

    Args:
        indices: of the scenes, N of them.
        seed: of the noise, together with the index of the scene.
        size, n_channels: of the canvas.
    """
    smooth, texture = [], []
    for i in indices:
        rng = np.random.default_rng((seed, i, 1))
        smooth.append(rng.uniform(0, 255, (5, 5, n_channels)))
        grain = rng.integers(size // 16, size // 2 + 1)  # from patches of 16 pixels to those of 2
        noise = rng.normal(0, rng.uniform(5, 40), (grain, grain, n_channels)).astype("float32")
        nearest = ((np.arange(size) + 0.5) * grain / size).astype(int)
        texture.append(noise[nearest[:, None], nearest])
    smooth = ops.image.resize(np.array(smooth, "float32"), (size, size), interpolation="bicubic")
    return (ops.convert_to_numpy(smooth) + texture).clip(0, 255)


def image_batches(split, size, batch_size, seed=None):
    """Return Batches for the pre-training: single images on canvases, each image a region, and their classes.

    A batch is ({"images": (N, size, size, C), "regions": (N, 1, 4)}, (N, 1)). The images of a batch all have one size,
    drawn at random.

    Args:
        split: (images (N, H, W, C) uint8, labels (N,)), of square images.
        size: height and width of a canvas in pixels, and of an image at most.
        batch_size: how many a batch has.
        seed: of all that is random; None for validation.
    """
    images, labels = split

    def make(chosen, rng):
        x = images[chosen]
        side = int(rng.integers(round(SCALES[0] * x.shape[1]), size + 1))
        pixels = ops.convert_to_numpy(ops.image.resize(x.astype("float32"), (side, side), antialias=True)).round()
        if seed is not None:
            is_mirrored = rng.random(len(x)) < 0.5
            pixels[is_mirrored] = pixels[is_mirrored][:, :, ::-1]
        x = canvases(range(len(x)), int(rng.integers(2**32)), size, x.shape[3])
        corners = rng.integers(0, size - side + 1, (len(x), 2))
        for canvas, image, (left, top) in zip(x, pixels, corners, strict=True):
            canvas[top : top + side, left : left + side] = image
        regions = np.concatenate([corners, corners + side], 1).astype("float32")[:, None]
        return {"images": x.astype("uint8"), "regions": regions}, labels[chosen][:, None]

    return run.Batches(len(images), batch_size, make, seed)

"""Find the objects of pictures with a trained detector.

    python rcnn/detect.py runs/faster_rcnn holiday.jpg cat.png    # draws the boxes, and writes them as JSON

Pictures may have any size: the shorter side is brought to --size pixels, and the boxes that come out are in pixels of
the picture as it is. Choose --size so that the objects are 24 to 64 pixels large, as those of the scenes are. R-CNN and
Fast R-CNN begin with selective search, which takes 0.4 seconds for 128x128 pixels, and grows faster than the number of
pixels.

The picture shows what has a probability of at least 0.5, or of R-CNN a score of at least 0; the JSON holds all from
0.05 on, or of R-CNN all.

Keras finds the layers of a saved Fast or Faster R-CNN once this module, or fast_rcnn and faster_rcnn, are imported.
"""

import argparse
import functools
import json
import math
from pathlib import Path

import run

import numpy as np
from keras import Input, Model, ops, utils
from PIL import Image, UnidentifiedImageError

import boxes
import data
import drawings
import fast_rcnn
import faster_rcnn
import rcnn
import report
from selective_search import selective_search

N_PROPOSALS = 300  # of selective search, at most
MIN_SCORE = {"rcnn": -np.inf, "fast_rcnn": 0.05, "faster_rcnn": 0.05}  # R-CNN's is a margin, all kept
SUPPRESSION = 0.3  # the IoU with a better box of its class above which a box is dropped
LONGEST = 8  # a picture is at most this many times as long as wide
MOST_PIXELS = 768**2  # of a picture that is brought to --size: RoI pooling takes 2 GB and more for them
MAX_DETECTIONS = 100  # of an image; R-CNN's are that many of each class, as released


@run.errors_as_sentences
def main():
    """Detect what is in the pictures of the command line, draw it, and write it as JSON."""
    run.show_all_letters()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("run", metavar="RUN", type=Path, help="the output folder of a finished train.py")
    flag("pictures", metavar="IMAGE", type=Path, nargs="+", help="image files")
    flag("--size", metavar="N", type=run.whole(32, 768), default=128,
         help="of the shorter side, 32 to 768; default 128; the memory grows faster than its square")
    flag("--output", metavar="DIR", type=Path, help="default RUN/detections")
    args = parser.parse_args()
    results = report.results_of(args.run)
    if results["model"] not in MIN_SCORE:
        parser.error(f"{args.run} holds a {results['model']}, which detects nothing")
    for path in args.pictures:  # all of them first: a bad one must not end half of the work
        height, width = read(path).shape[:2]
        most = math.isqrt(MOST_PIXELS * min(height, width) // max(height, width))
        if args.size > most:
            parser.error(f"--size must be at most {most} for {path} of {width}x{height} pixels, got {args.size}")
    output = (args.output or args.run / "detections").expanduser()
    if output.resolve() in {path.resolve().parent for path in args.pictures}:
        parser.error(f"--output must not be the folder of a picture, got {output}: files in it could be replaced")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output {output} cannot be written ({error.strerror}): choose another folder")
    model, classes = run.load_model(args.run), results["classes"]
    is_distinct = len({path.stem.lower() for path in args.pictures}) == len(args.pictures)
    for i, path in enumerate(args.pictures):
        picture = read(path)
        found = detect_picture(model, picture, args.size)
        name = path.stem if is_distinct else f"{i}_{path.stem}"
        records = [
            {"class": classes[k], "score": round(float(score), 4), "box": [round(float(x), 1) for x in box]}
            for box, k, score in zip(found["boxes"], found["classes"], found["scores"], strict=True)
        ]
        text = json.dumps({"image": str(path), "detections": records}, indent=1) + "\n"
        run.write_whole(output / f"{name}.json", lambda path, text=text: path.write_text(text))
        figure = drawings.detections_of(picture, found, classes, model.layers[-1].name)
        run.write_whole(output / f"{name}.png", lambda path, figure=figure: figure.savefig(path, dpi=100))
        print(f"{path}: {len(records)} detections in {output / name}.json and .png")


def read(path):
    """Return the pixels of an image file, (H, W, 3) uint8, upright and in color."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(data.to_rgb(data.upright(image)))
    except Exception as error:  # Pillow's decoders raise many kinds
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "not an image that Pillow knows" if unknown else getattr(error, "strerror", None) or error
        raise data.DataError(f"{path} cannot be read ({reason})") from error
    if max(pixels.shape[:2]) > LONGEST * min(pixels.shape[:2]):
        size = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise data.DataError(f"{path} must be at most {LONGEST} times as long as wide, got {size} pixels")
    return pixels


def detect_picture(model, picture, size):
    """Find the objects of a picture of any size.

    Args:
        model: that of model.keras, of any of the three detectors.
        picture: (H, W, 3) uint8.
        size: to how many pixels the shorter side is brought.

    Returns:
        A record as of detect, in pixels of the picture.
    """
    height, width = picture.shape[:2]
    scale = size / min(height, width)
    image = Image.fromarray(picture).resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    image = np.asarray(image)
    found = detect(for_size(model, image.shape[:2]), image)
    ratio = np.tile([width / image.shape[1], height / image.shape[0]], 2).astype("float32")
    return found | {"boxes": found["boxes"] * ratio, "regions": found["regions"] * ratio}


@functools.lru_cache(maxsize=1)  # pictures of one size in a row, as of a video, share what is compiled
def for_size(model, image_size):
    """Return the same detector for images of another size (height, width), with the same weights."""
    network, normalization = model.layers[-1], model.get_layer("normalization")
    if network.name == "rcnn":
        return model  # takes regions, which are warped to one size
    if network.name == "faster_rcnn":
        network = faster_rcnn.resized(network, image_size)
        images = Input(network.input_shape[1:], name="images")
        return Model(images, network(normalization(images)))
    n_regions = network.input["regions"].shape[1]
    network = fast_rcnn.resized(network, image_size, n_regions)
    inputs = {name: Input(tensor.shape[1:], name=name) for name, tensor in network.input.items()}
    return Model(inputs, network(inputs | {"images": normalization(inputs["images"])}))


def detect_all(model, scenes, name, proposals=None):
    """Return what detect finds in each of scenes (N, H, W, 3), a list of records; name is shown beside the progress."""
    print(f"Detections in the {name} scenes")
    bar, found = utils.Progbar(len(scenes), unit_name="scene"), []
    for i, scene in enumerate(scenes):
        found.append(detect(model, scene, proposals and proposals[i]))
        bar.add(1)
    return found


def detect(model, image, proposals=None):
    """Find the objects of an image.

    Args:
        model: that of model.keras, of any of the three detectors.
        image: (H, W, 3), pixels 0 to 255, of the size that the model takes; R-CNN takes any.
        proposals: (P, 4), if selective search has run before; Faster R-CNN makes its own.

    Returns:
        {"boxes": (D, 4), "xyxy" in pixels, "classes": (D,), 0 to K - 1, "scores": (D,), the best first, "regions":
        (P, 4), the proposals}.

    Raises:
        ValueError: the image has another shape, or pixels from 0 to 1.
    """
    name = model.layers[-1].name
    size = image.shape[:2] if name == "rcnn" else image_size(model)
    if image.ndim != 3 or image.shape != (*size, 3):
        raise ValueError(f"the image must be {(*size, 3)}, got {image.shape}: for_size makes a model of another size")
    if image.dtype != np.uint8 and 0 < image.max() <= 1:
        raise ValueError("the pixels must be 0 to 255, got an image whose largest is 1 or less")
    if name == "faster_rcnn":
        outputs = {key: value[0] for key, value in model.predict_on_batch(image[None]).items()}
        is_box = ops.convert_to_numpy(boxes.is_larger_than(outputs["regions"], 1e-3))  # not those that fill up
        regions, scores, deltas = (outputs[key][is_box] for key in ("regions", "classes", "deltas"))
    else:
        regions = selective_search(image, max_boxes=N_PROPOSALS) if proposals is None else proposals[:N_PROPOSALS]
        look = {"rcnn": rcnn_outputs, "fast_rcnn": fast_rcnn_outputs}[name]
        scores, deltas = look(model, image, regions)
    if name == "rcnn":
        return best_boxes(regions, boxes.decode(regions[:, None], deltas), scores, image.shape[:2], name)
    placed = boxes.decode(regions[:, None], deltas[:, 1:], boxes.DEVIATIONS)  # without the background
    return best_boxes(regions, placed, scores[:, 1:], image.shape[:2], name)


def image_size(model):
    """Return (height, width) of the images that a Fast or Faster R-CNN takes."""
    images = model.input["images"] if isinstance(model.input, dict) else model.input
    return tuple(images.shape[1:3])


def rcnn_outputs(model, image, regions):
    """Return the scores (P, K) and deltas (P, K, 4) of R-CNN for regions (P, 4)."""
    mean = np.ravel(model.get_layer("normalization").get_config()["mean"])
    warped = rcnn.warp(image, np.concatenate([regions, [[0, 0, 1, 1]]]), mean, model.input_shape[1])  # never of none
    outputs = model.predict_on_batch(warped)
    return outputs["scores"][:-1], outputs["deltas"][:-1]


def fast_rcnn_outputs(model, image, regions):
    """Return the probabilities (P, K + 1) and deltas (P, K + 1, 4) of Fast R-CNN for regions (P, 4)."""
    n_missing = model.input["regions"].shape[1] - len(regions)  # filled up with boxes without area
    inputs = {"images": image[None], "regions": np.pad(regions, ((0, n_missing), (0, 0)))[None]}
    outputs = model.predict_on_batch(inputs)
    return outputs["classes"][0, : len(regions)], outputs["deltas"][0, : len(regions)]


def best_boxes(regions, placed, scores, image_size, name):
    """Return the detections of an image: the boxes of each class whose score is high enough, overlaps suppressed.

    Args:
        regions: (P, 4), "xyxy" in pixels.
        placed, scores: (P, K, 4) and (P, K), of each region the box and score of each class.
        image_size: (height, width) in pixels; boxes are cut off at its edges.
        name: of the detector.

    Returns:
        A record as of detect.
    """
    placed = ops.convert_to_numpy(boxes.clip(placed, *image_size))
    found, classes, values = [np.zeros((0, 4), "float32")], [np.zeros(0, int)], [np.zeros(0, "float32")]
    for k in range(scores.shape[1]):
        chosen = scores[:, k] > MIN_SCORE[name]
        of_class, of_scores = placed[chosen, k], scores[chosen, k]
        kept = boxes.nms(of_class, of_scores, SUPPRESSION)[:MAX_DETECTIONS]
        found.append(of_class[kept])
        classes.append(np.full(len(kept), k))
        values.append(of_scores[kept])
    found, classes, values = (np.concatenate(arrays) for arrays in (found, classes, values))
    order = np.argsort(-values, kind="stable")
    if name != "rcnn":
        order = order[:MAX_DETECTIONS]
    return {"boxes": found[order], "classes": classes[order], "scores": values[order], "regions": regions}


if __name__ == "__main__":
    main()

"""Compare the three detectors: how long each takes for a scene, and where the time goes.

    python rcnn/benchmark.py runs/rcnn runs/fast_rcnn runs/faster_rcnn --data synthetic

Each folder is the output of a finished train.py. What a detector does with a scene has three parts: `proposals`, where
something may be, by selective search or by the region proposal network; `features`, the backbone (in R-CNN the warping
of every region and the whole network, linear models included); `heads`, all that makes detections of the features of a
region. All detectors see the same scenes, made of test images, one after the other; the fastest of three repeats
counts. Selective search, which R-CNN and Fast R-CNN have in common, runs first, once. The table is printed; --output
gets seconds.json and seconds.png.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path
from time import perf_counter

import run

import numpy as np
from keras import Input, Model, utils
from matplotlib.figure import Figure

import boxes
import data
import detect
import rcnn
import report
from fast_rcnn import RoIPooling
from scenes import make_scenes
from selective_search import selective_search

PARTS = ("proposals", "features", "heads")
N_REPEATS = 3


@run.errors_as_sentences
def main():
    """Time the detectors, print a table, and write it as JSON and as a picture into the output folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("runs", metavar="DIR", type=Path, nargs="+", help="the output folder of a finished train.py")
    flag("--data", metavar="cifar10|synthetic|FOLDER", default="cifar10", help="default cifar10: see train.py")
    flag("--scenes", metavar="N", type=run.whole(1), default=50, help="default 50: enough for three digits")
    flag("--output", metavar="DIR", type=Path, default=Path("runs/benchmark"), help="default runs/benchmark")
    args = parser.parse_args()
    names = [report.results_of(folder)["model"] for folder in args.runs]
    if not set(names) <= set(detect.MIN_SCORE) or len(set(names)) < len(names):
        parser.error(f"the runs must be of different detectors, one of each, got {', '.join(names)}")
    if args.data not in data.N_TRAINING and not Path(args.data).expanduser().is_dir():
        parser.error(f"--data must be cifar10, synthetic or a folder, got {args.data}")
    args.output = args.output.expanduser()
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output {args.output} cannot be written ({error.strerror}): choose another folder")
    splits, _ = data.load(args.data)
    scenes, _ = make_scenes(*splits["test"], args.scenes, seed=2)
    models = [detect.for_size(run.load_model(folder), scenes.shape[1:3]) for folder in args.runs]

    seconds = time_detectors(models, scenes)
    ratios = compare(seconds)
    print_table(seconds, ratios)
    results = {"scenes": args.scenes, "seconds_per_image": seconds, "ratios": ratios,
               "command": shlex.join(["python", *sys.argv])}
    run.write_whole(args.output / "seconds.json", lambda path: path.write_text(json.dumps(results, indent=2) + "\n"))
    figure = time_bars(seconds, ratios)
    figure.suptitle(f"seconds for a scene, mean of {args.scenes}, {report.name_of(args.data)}", parse_math=False)
    run.write_whole(args.output / "seconds.png", lambda path: figure.savefig(path, dpi=100))


def time_detectors(models, scenes):
    """Return the mean seconds of the parts of each detector for a scene: {name: {part: seconds}}."""
    print("Selective search")
    start, proposals, bar = perf_counter(), [], utils.Progbar(len(scenes), unit_name="scene")
    for scene in scenes:
        proposals.append(selective_search(scene, max_boxes=detect.N_PROPOSALS))
        bar.add(1)
    searching = (perf_counter() - start) / len(scenes)
    parts = {model.layers[-1].name: parts_of(model) for model in models}
    repeats = {name: [] for name in parts}
    for functions in parts.values():
        time_parts(functions, scenes[:1], proposals)  # what a backend compiles at its first calls is not counted
    for _ in range(N_REPEATS):
        for name, functions in parts.items():  # in turns, so that whatever else the machine does affects all of them
            seconds = time_parts(functions, scenes, proposals)
            seconds["proposals"] += searching if name != "faster_rcnn" else 0
            repeats[name].append(seconds)
    return {name: min(of_name, key=lambda seconds: sum(seconds.values())) for name, of_name in repeats.items()}


def time_parts(functions, scenes, proposals):
    """Return the mean seconds of each part, {part: seconds}: each function takes a scene and what is known so far."""
    total = dict.fromkeys(PARTS, 0.0)
    for scene, regions in zip(scenes, proposals, strict=False):
        known = {"regions": regions}
        for part, function in functions:
            start = perf_counter()
            known |= function(scene, known)
            total[part] += perf_counter() - start
    return {part: seconds / len(scenes) for part, seconds in total.items()}


def parts_of(model):
    """Return the parts of a detector in their order: a list of (name, function of a scene and what is known so far)."""
    return parts_of_rcnn(model) if model.layers[-1].name == "rcnn" else parts_of_the_others(model)


def parts_of_rcnn(model):
    """Return parts_of an R-CNN; its linear models, which take no time beside the rest, are among the features."""
    mean = np.ravel(model.get_layer("normalization").get_config()["mean"])

    def features(scene, known):
        return model.predict_on_batch(rcnn.warp(scene, known["regions"], mean, model.input_shape[1]))

    def heads(scene, known):
        placed = boxes.decode(known["regions"][:, None], known["deltas"])
        return detect.best_boxes(known["regions"], placed, known["scores"], scene.shape[:2], "rcnn")

    return [("features", features), ("heads", heads)]


def parts_of_the_others(model):
    """Return parts_of a Fast or Faster R-CNN."""
    network, normalization = model.layers[-1], model.get_layer("normalization")
    is_faster = network.name == "faster_rcnn"
    n_regions = network.get_layer("proposals").n_proposals if is_faster else network.input["regions"].shape[1]
    images, regions = Input((*detect.image_size(model), 3)), Input((n_regions, 4))
    backbone = Model(images, network.get_layer("backbone")(normalization(images)))
    maps = Input(backbone.output_shape[1:])
    pooling = RoIPooling.from_config(network.get_layer("roi_pooling").get_config())
    head = Model([maps, regions], network.get_layer("head")(pooling(maps, regions)))

    def features(scene, known):
        return {"maps": backbone.predict_on_batch(scene[None])}

    def heads(scene, known):
        padded = np.pad(known["regions"], ((0, n_regions - len(known["regions"])), (0, 0)))
        outputs = head.predict_on_batch([known["maps"], padded[None]])
        regions = known["regions"]
        scores, deltas = (outputs[name][0, : len(regions), 1:] for name in ("classes", "deltas"))
        placed = boxes.decode(regions[:, None], deltas, boxes.DEVIATIONS)
        return detect.best_boxes(regions, placed, scores, scene.shape[:2], network.name)

    if not is_faster:
        return [("features", features), ("heads", heads)]
    rpn = Model(maps, network.get_layer("proposals")(**network.get_layer("rpn")(maps)))

    def proposals(scene, known):
        return {"regions": rpn.predict_on_batch(known["maps"])[0]}

    return [("features", features), ("proposals", proposals), ("heads", heads)]


def compare(seconds):
    """Return how many times as fast as the one before each detector is, {name: ratio}, if both are there."""
    ratios = {}
    if {"rcnn", "fast_rcnn"} <= set(seconds):
        slow, fast = (seconds[name]["features"] + seconds[name]["heads"] for name in ("rcnn", "fast_rcnn"))
        ratios["fast_rcnn"] = slow / fast
    if {"fast_rcnn", "faster_rcnn"} <= set(seconds):
        slow, fast = (sum(seconds[name].values()) for name in ("fast_rcnn", "faster_rcnn"))
        ratios["faster_rcnn"] = slow / fast
    return ratios


def print_table(seconds, ratios):
    """Print the seconds of each detector and of its parts, and how they compare."""
    print(f"\n{'seconds per scene':<20}" + "".join(f"{part:>11}" for part in (*PARTS, "all")))
    for name, times in seconds.items():
        row = (*(times[part] for part in PARTS), sum(times.values()))
        print(f"{name:<20}" + "".join(f"{value:>11.4f}" for value in row))
    if "fast_rcnn" in ratios:
        print(f"Fast R-CNN is {ratios['fast_rcnn']:.1f} times as fast as R-CNN, without the proposals.")
    if "faster_rcnn" in ratios:
        print(f"Faster R-CNN is {ratios['faster_rcnn']:.1f} times as fast as Fast R-CNN, proposals included.")


def time_bars(seconds, ratios):
    """Return a figure with a bar for each detector, its parts in a row."""
    figure = Figure(figsize=(8.4, 1.8 + 0.7 * len(seconds)), layout="constrained")
    axes = figure.subplots()
    left = dict.fromkeys(seconds, 0.0)
    for part, color in zip(PARTS, ("#0072b2", "#e69f00", "#009e73"), strict=True):
        widths = [times[part] for times in seconds.values()]
        axes.barh(list(seconds), widths, left=list(left.values()), label=part, color=color)
        left = {name: left[name] + seconds[name][part] for name in seconds}
    notes = {"fast_rcnn": "x as fast without the proposals", "faster_rcnn": "x as fast as fast_rcnn"}
    for name, end in left.items():
        note = f", {ratios[name]:.1f}{notes[name]}" if name in ratios else ""
        axes.text(end, name, f" {end:.3f}{note}", va="center")
    axes.set(xlabel="seconds for a scene", xlim=(0, 1.6 * max(left.values())))
    axes.invert_yaxis()
    axes.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    main()

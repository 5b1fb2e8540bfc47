"""Compare the three detectors: how long each takes for a scene, and where the time goes.

    python rcnn/compare.py runs/rcnn runs/fast_rcnn runs/faster_rcnn --data synthetic

Each folder is the output of a finished train.py. All detectors see the same scenes, made of test images, one after the
other; the fastest of three repeats counts. Selective search, which R-CNN and Fast R-CNN have in common, runs first,
once. The table is printed; --output, a folder, gets seconds.json and seconds.png.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path

import keras
from keras import utils
from matplotlib.figure import Figure

import data
import fast_rcnn  # noqa: F401, by which Keras finds RoIPooling
import faster_rcnn  # noqa: F401, and Proposals
import report
import run
from detect import N_PROPOSALS, PARTS, detect
from scenes import make_scenes
from selective_search import selective_search

N_REPEATS = 3


def main():
    """Time the detectors, print a table, and write it as JSON and as a picture into the output folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("runs", metavar="DIR", type=Path, nargs="+", help="the output folder of a finished train.py")
    flag("--data", metavar="cifar10|synthetic|FOLDER", default="cifar10", help="default cifar10: see train.py")
    flag("--scenes", metavar="N", type=run.whole(1), default=50, help="default 50: enough for three digits")
    flag("--output", metavar="DIR", type=Path, default=Path("runs/compare"), help="default runs/compare")
    args = parser.parse_args()
    for folder in args.runs:
        if not all((folder / name).exists() for name in ("results.json", "model.keras")):
            parser.error(f"{folder} must be the output folder of a finished train.py")
    if args.data not in data.N_TRAINING and not Path(args.data).expanduser().is_dir():
        parser.error(f"--data must be cifar10, synthetic or a folder, got {args.data}")
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output {args.output} cannot be written ({error.strerror}): choose another folder")
    try:
        splits, _ = data.load(args.data)
    except data.DataError as error:
        parser.error(str(error))

    scenes, _ = make_scenes(*splits["test"], args.scenes, seed=2)
    models = [keras.saving.load_model(folder / "model.keras") for folder in args.runs]
    seconds = time_detectors(models, scenes)
    print_table(seconds)
    results = {"scenes": args.scenes, "seconds_per_image": seconds, "command": shlex.join(["python", *sys.argv])}
    run.write_whole(args.output / "seconds.json", lambda path: path.write_text(json.dumps(results, indent=2) + "\n"))
    figure = time_bars(seconds)
    figure.suptitle(f"mean of {args.scenes} scenes of {report.name_of(args.data)}", parse_math=False)
    run.write_whole(args.output / "seconds.png", lambda path: figure.savefig(path, dpi=100))


def time_detectors(models, scenes):
    """Return the mean seconds of the parts of each detector for a scene: {name: {part: seconds}}."""
    print("Selective search")
    start, proposals, bar = time.perf_counter(), [], utils.Progbar(len(scenes), unit_name="scene")
    for scene in scenes:
        proposals.append(selective_search(scene, max_boxes=N_PROPOSALS))
        bar.add(1)
    searching = (time.perf_counter() - start) / len(scenes)
    repeats = {}
    for _ in range(N_REPEATS):
        for model in models:  # in turns, so that whatever else the machine does affects all of them
            name = model.layers[-1].name
            times = {part: float(of_part.mean()) for part, of_part in detect(model, scenes, proposals)[2].items()}
            times["proposals"] += searching if name != "faster_rcnn" else 0
            repeats.setdefault(name, []).append(times)
    return {name: min(of_name, key=lambda times: sum(times.values())) for name, of_name in repeats.items()}


def print_table(seconds):
    """Print the seconds of each detector and of its parts, and how they compare."""
    print(f"\n{'seconds per scene':<20}" + "".join(f"{part:>11}" for part in (*PARTS, "all")))
    for name, times in seconds.items():
        row = (*(times[part] for part in PARTS), sum(times.values()))
        print(f"{name:<20}" + "".join(f"{value:>11.4f}" for value in row))
    if {"rcnn", "fast_rcnn"} <= set(seconds):
        slow, fast = (seconds[name]["features"] + seconds[name]["heads"] for name in ("rcnn", "fast_rcnn"))
        print(f"Fast R-CNN is {slow / fast:.1f} times as fast as R-CNN, without the proposals.")
    if {"fast_rcnn", "faster_rcnn"} <= set(seconds):
        slow, fast = (sum(seconds[name].values()) for name in ("fast_rcnn", "faster_rcnn"))
        print(f"Faster R-CNN is {slow / fast:.1f} times as fast as Fast R-CNN, proposals included.")


def time_bars(seconds):
    """Return a figure with a bar for each detector, its parts in a row."""
    figure = Figure(figsize=(9, 1.5 + 0.8 * len(seconds)), layout="constrained")
    axes = figure.subplots()
    left = dict.fromkeys(seconds, 0.0)
    for part in PARTS:
        widths = [times[part] for times in seconds.values()]
        axes.barh(list(seconds), widths, left=list(left.values()), label=part)
        left = {name: left[name] + seconds[name][part] for name in seconds}
    for name, end in left.items():
        axes.text(end, name, f" {end:.3f}", va="center")
    axes.set(xlabel="seconds per scene")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure


if __name__ == "__main__":
    main()

"""Compare the three detectors: how long each takes for a scene, and where the time goes.

    python rcnn/compare.py runs/rcnn runs/fast_rcnn runs/faster_rcnn --data synthetic

Each of the folders is one that train.py has finished. All look at the same scenes, made of test images, one after the
other; the fastest of three goes counts. Selective search, which R-CNN and Fast R-CNN have in common, runs first, once.
The table is printed; --output, a folder, gets seconds.json and seconds.png.
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
import fast_rcnn  # noqa: F401, by which keras knows RoIPooling
import faster_rcnn  # noqa: F401
from detect import N_PROPOSALS, PARTS, detect
from report import write
from scenes import make_scenes
from selective_search import selective_search

N_GOES = 3


def main():
    """Time the detectors, print a table, and leave it as numbers and as a picture in the output folder."""
    args = parse_arguments()
    try:
        splits, _ = data.load(args.data)
    except data.DataError as error:
        refuse(error)
    scenes, _ = make_scenes(*splits["test"], args.scenes, seed=2)
    models = [keras.saving.load_model(folder / "model.keras") for folder in args.runs]
    print("Selective search")
    start, proposals, bar = time.perf_counter(), [], utils.Progbar(len(scenes), unit_name="scene")
    for scene in scenes:
        proposals.append(selective_search(scene, most=N_PROPOSALS))
        bar.add(1)
    searching = (time.perf_counter() - start) / len(scenes)
    seconds = {}
    for _ in range(N_GOES):
        for model in models:  # in turns, so that whatever else the machine does falls on all of them
            name = model.layers[-1].name
            times = {part: float(of_part.mean()) for part, of_part in detect(model, scenes, proposals)[2].items()}
            times["proposals"] += searching if name != "faster_rcnn" else 0
            seconds.setdefault(name, []).append(times)
    seconds = {name: min(goes, key=lambda times: sum(times.values())) for name, goes in seconds.items()}
    print_table(seconds)
    args.output.mkdir(parents=True, exist_ok=True)
    results = {"scenes": args.scenes, "seconds_per_image": seconds, "command": shlex.join(["python", *sys.argv])}
    write(args.output / "seconds.json", lambda path: path.write_text(json.dumps(results, indent=2) + "\n"))
    write(args.output / "seconds.png", lambda path: plot_seconds(path, seconds))


def parse_arguments():
    """Return the arguments; one that cannot work ends the program with exit status 2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = refuse
    flag = parser.add_argument
    flag("runs", metavar="DIR", type=Path, nargs="+", help="the output folder of a finished train.py")
    flag("--data", metavar="cifar10|synthetic|FOLDER", default="cifar10", help="default cifar10: see train.py")
    flag("--scenes", metavar="N", type=int, default=50, help="default 50: enough for three digits")
    flag("--output", metavar="DIR", type=Path, default=Path("runs/compare"), help="default runs/compare")
    args = parser.parse_args()
    for folder in args.runs:
        if not (folder / "results.json").exists():
            refuse(f"{folder} must be the output folder of a finished train.py")
    if args.data not in data.N_TRAINING and not Path(args.data).expanduser().is_dir():
        refuse(f"--data must be cifar10, synthetic or a folder, got {args.data}")
    if args.scenes < 1:
        refuse(f"--scenes must be at least 1, got {args.scenes}")
    return args


def refuse(message):
    """End the program with one sentence and exit status 2, the status of a command that cannot work.

    Unlike that of vgg/train.py the sentence begins with the name of this program.
    """
    print(f"compare.py: {message}", file=sys.stderr)
    sys.exit(2)


def print_table(seconds):
    """Print the seconds of each detector and of its parts, and how they compare."""
    print(f"\n{'seconds per scene':<20}" + "".join(f"{part:>11}" for part in (*PARTS, "all")))
    for name, times in seconds.items():
        numbers = (*(times[part] for part in PARTS), sum(times.values()))
        print(f"{name:<20}" + "".join(f"{value:>11.4f}" for value in numbers))
    if {"rcnn", "fast_rcnn"} <= set(seconds):
        slow, fast = (seconds[name]["features"] + seconds[name]["heads"] for name in ("rcnn", "fast_rcnn"))
        print(f"Fast R-CNN is {slow / fast:.1f} times as fast as R-CNN, proposals set aside.")
    if {"fast_rcnn", "faster_rcnn"} <= set(seconds):
        slow, fast = (sum(seconds[name].values()) for name in ("fast_rcnn", "faster_rcnn"))
        print(f"Faster R-CNN is {slow / fast:.1f} times as fast as Fast R-CNN, proposals counted.")


def plot_seconds(path, seconds):
    """Draw a bar for each detector, its parts in a row."""
    figure = Figure(figsize=(9, 1 + 0.8 * len(seconds)), layout="constrained")
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
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()

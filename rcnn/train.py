"""Train R-CNN, Fast R-CNN or Faster R-CNN on scenes made of CIFAR-10's images.

    python rcnn/train.py --data synthetic --limit 500 --epochs 2 --output runs/rcnn_seconds   # a minute, no network
    python rcnn/train.py                       # Faster R-CNN on CIFAR-10, up to an hour on 2 cores
    python rcnn/train.py --model fast_rcnn     # or rcnn: with selective search

The output folder gets model.keras, history.csv, curves.png, detections.png and results.json.
Interrupted, the same command goes on from the last finished epoch.
"""

import argparse
import json
import math
import os
import shutil
import sys
import time
from pathlib import Path

import keras

import data
import report
import training
from scenes import make_scenes

# name: the function that trains it, the epochs of each step after the pre-training, and the learning rate
MODELS = {
    "rcnn": (training.train_rcnn, 2, 0.01),
    "fast_rcnn": (training.train_fast_rcnn, 6, 0.01),
    "faster_rcnn": (training.train_faster_rcnn, 6, 0.01),
}

# Hyperparameters with a flag: (default, reason), which --help shows.
DEFAULTS = {
    "model": ("faster_rcnn", "the fastest of the three, and it needs no selective search"),
    "pretraining_epochs": (5, "on single images, as in the papers on those of ImageNet"),
    "pretraining_rate": (0.1, "the highest, as in the other folders; for a few hundred steps 0.03 is better"),
    "epochs": (None, "6, of every step after that; of rcnn 2, which take longer: what an hour on 2 cores allows"),
    "batch_size": (2, "scenes, and 64 regions of each: the paper of Fast R-CNN, section 2.3"),
    "learning_rate": (None, "0.01"),
    "scenes": (None, "1000, or a tenth of --limit, if that is fewer"),
    "seed": (0, "another one gives another split, other scenes, other initial weights and other synthetic images"),
}
N_SCENES = {"training": 1000, "validation": 100, "test": 500}  # at most


def main():
    """Read the command line, train, and leave the results in the output folder.

    Unlike that of vgg/train.py it makes scenes of the images.
    """
    args = parse_arguments()
    if finished(args):
        print(f"{args.output} holds this run, finished: --overwrite would train it anew.")
        return
    keras.utils.set_random_seed(args.seed)
    try:
        splits, classes = data.load(args.data, args.limit, args.seed)
        claim(args)
        scenes = make_splits(splits, args.scenes, args.seed)
        seconds = train(args, splits, scenes, len(classes))
        report.write_results(args.output, settings(args), scenes, classes, seconds)
    except data.DataError as error:
        refuse(error)
    except KeyboardInterrupt:
        command = "the same command without --overwrite" if args.overwrite else "the same command"
        print(f"\nInterrupted: {command} goes on from the last finished epoch.", file=sys.stderr)
        sys.exit(130)
    except RuntimeError as error:
        if "NaN or Inf loss" not in str(error):  # the words of TerminateOnNaN
            raise
        sys.exit(f"train.py: the loss is not finite: --overwrite with a --learning-rate below {args.learning_rate:g}")
    shutil.rmtree(args.output / "backup")


def parse_arguments():
    """Return the arguments, defaults filled in; one that cannot work ends the program with exit status 2.

    Unlike that of vgg/train.py it has --pretraining-epochs and --scenes.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = refuse
    flag = parser.add_argument
    value = {name: default for name, (default, _) in DEFAULTS.items()}
    about = {name: f"{default}: {reason}" for name, (default, reason) in DEFAULTS.items()}
    flag("--model", metavar="NAME", choices=MODELS, default=value["model"],
         help=f"default {about['model']}; all: {', '.join(MODELS)}")
    flag("--data", metavar="cifar10|synthetic|FOLDER", default="cifar10",
         help="default cifar10: real images, 170 MB, downloaded once; synthetic: drawn by numpy, no network needed; "
         "FOLDER: where the binary files of CIFAR-10 are")
    flag("--pretraining-epochs", metavar="N", type=int, default=value["pretraining_epochs"],
         help=f"default {about['pretraining_epochs']}")
    flag("--pretraining-rate", metavar="X", type=float, default=value["pretraining_rate"],
         help=f"default {about['pretraining_rate']}")
    flag("--epochs", metavar="N", type=int, help=f"default {DEFAULTS['epochs'][1]}")
    flag("--batch-size", metavar="N", type=int, default=value["batch_size"], help=f"default {about['batch_size']}")
    flag("--learning-rate", metavar="X", type=float, help=f"the highest; default {DEFAULTS['learning_rate'][1]}")
    flag("--scenes", metavar="N", type=int, help=f"to train on; default {DEFAULTS['scenes'][1]}")
    flag("--limit", metavar="N", type=int, help="train on N images, test on as many; default: all, which is best")
    flag("--seed", metavar="N", type=int, default=value["seed"], help=f"default {about['seed']}")
    flag("--output", metavar="DIR", type=Path, help="default runs/NAME: one folder per run")
    flag("--overwrite", action="store_true", help="first remove the run in DIR; default: keep it, go on with it")
    args = parser.parse_args()

    for name, default in zip(("epochs", "learning_rate"), MODELS[args.model][1:], strict=True):
        if getattr(args, name) is None:
            setattr(args, name, default)
    args.output = (args.output or Path("runs") / args.model).expanduser()
    n_images = data.N_TRAINING.get(args.data, data.N_TRAINING["cifar10"])
    if args.data not in data.N_TRAINING and not Path(args.data).expanduser().is_dir():
        refuse(f"--data must be cifar10, synthetic or a folder, got {args.data}")
    if args.limit is not None and not 1 <= args.limit <= n_images:
        refuse(f"--limit must be 1 to {n_images}, got {args.limit}")
    if args.scenes is None:
        args.scenes = min(N_SCENES["training"], max(2, args.limit // 10) if args.limit else n_images)
    if not 1 <= args.scenes <= 100_000:
        refuse(f"--scenes must be 1 to 100000, got {args.scenes}")
    for name in ("epochs", "pretraining_epochs"):
        if getattr(args, name) < 1:
            refuse(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    if not 1 <= args.batch_size <= args.scenes:
        refuse(f"--batch-size must be 1 to {args.scenes}, the scenes to train on, got {args.batch_size}")
    for name in ("learning_rate", "pretraining_rate"):
        if not 0 < getattr(args, name) < math.inf:
            refuse(f"--{name.replace('_', '-')} must be above 0 and finite, got {getattr(args, name)}")
    if not 0 <= args.seed < 2**32:
        refuse(f"--seed must be 0 to {2**32 - 1}, got {args.seed}")
    return args


# Copied from vgg/train.py
def refuse(message):
    """End the program with one sentence and exit status 2, the status of a command that cannot work."""
    print(f"train.py: {message}", file=sys.stderr)
    sys.exit(2)


def settings(args):
    """Return what makes two commands the same run, as a dictionary; unlike that of vgg/train.py with all its flags."""
    names = ("model", "data", "limit", "scenes", "pretraining_epochs", "pretraining_rate", "epochs", "batch_size")
    return {name: getattr(args, name) for name in (*names, "learning_rate", "seed")}


# Copied from vgg/train.py
def finished(args):
    """Return whether the output folder holds this very run, finished; refuse one that holds another run."""
    results, unfinished = args.output / "results.json", args.output / "backup" / "settings.json"
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        if not os.access(args.output, os.W_OK):
            raise PermissionError(None, "no permission")
        names = (*report.OUTPUTS, "backup/settings.json")
        found = [args.output / name for name in names if (args.output / name).exists()]
    except OSError as error:
        refuse(f"--output {args.output} cannot be written ({error.strerror}): choose another")
    if args.overwrite or not found:
        return False
    try:
        earlier = json.loads((results if results in found else unfinished).read_text())
        same = settings(args).items() <= earlier.items()
    except (OSError, ValueError, AttributeError):  # files of unknown origin under the names of ours
        same = False
    if not same:
        refuse(f"{args.output} holds {found[0].name} of another run: choose another --output, or --overwrite")
    return results in found


# Copied from vgg/train.py
def claim(args):
    """Take the output folder for this run, which goes on if it was interrupted."""
    backup = args.output / "backup"
    if args.overwrite:
        for name in report.OUTPUTS:
            (args.output / name).unlink(missing_ok=True)
        shutil.rmtree(backup, ignore_errors=True)
    backup.mkdir(exist_ok=True)
    report.write(backup / "settings.json", lambda path: path.write_text(json.dumps(settings(args))))

    weights, metadata = backup / "latest.weights.h5", backup / "training_metadata.json"
    try:
        json.loads(metadata.read_text())
    except (OSError, ValueError):  # killed while it saved an epoch: back to the one before, or the start
        for path in (weights, metadata):
            before = path.with_name(path.name + ".bkp")
            before.replace(path) if before.exists() else path.unlink(missing_ok=True)


def make_splits(splits, n_scenes, seed):
    """Return {"training": (scenes, objects), "validation": ..., "test": ...}, each of the images of its split alone.

    The seeds differ too, or the splits would share their canvases.
    """
    made = {}
    for number, (name, most) in enumerate(N_SCENES.items()):
        wanted = n_scenes if name == "training" else min(most, n_scenes)
        made[name] = make_scenes(*splits[name], wanted, 3 * seed + number)
    return made


def train(args, splits, scenes, n_classes):
    """Train a detector, save it, and return the seconds that it took, those before an interruption included.

    Unlike that of vgg/train.py it has steps, which are in training.py; the last epoch is kept.
    """
    clock = args.output / "backup" / "seconds.json"
    before = json.loads(clock.read_text()) if clock.exists() else 0.0
    start = time.perf_counter()
    try:
        if not (args.output / "model.keras").exists():
            pixels = scenes["training"][0]
            mean, variance = pixels.mean((0, 1, 2)), pixels.var((0, 1, 2))
            model = MODELS[args.model][0](args, splits, scenes, n_classes, mean, variance)
            report.write(args.output / "model.keras", model.save)
    finally:
        seconds = before + time.perf_counter() - start
        report.write(clock, lambda path: path.write_text(json.dumps(seconds)))
    return seconds


if __name__ == "__main__":
    main()

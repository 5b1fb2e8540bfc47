"""Train an autoencoder on CIFAR-10, and compare it with simpler codes of at most its size.

    python autoencoder/train.py --data synthetic --epochs 20 --output runs/synthetic    # minutes, no network
    python autoencoder/train.py                                                         # CIFAR-10, 10 to 20 minutes

The output folder gets model.keras, history.csv, curves.png, reconstructions.png and results.json.
Interrupted, the same command goes on from the last finished epoch.
"""

import argparse
import json
import math
import os
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
from keras import Input, Model, callbacks, layers, optimizers

import autoencoder
import data
import report

# name: the function that builds it, its metaparameters, and the learning rate to train it with
MODELS = {
    name: (autoencoder.build, metaparameters, 1e-2) for name, metaparameters in autoencoder.METAPARAMETERS.items()
}

# Hyperparameters with a flag: (default, reason), which --help shows.
DEFAULTS = {
    "model": ("autoencoder_cifar10", "a code of 4x4x32, a sixth of the image"),
    "epochs": (20, "10 to 20 minutes on 2 cores"),
    "batch_size": (64, "small batches make more steps of as many images"),
    "learning_rate": (None, "1e-2: in short runs 5e-3 learned less, 2e-2 hardly more"),
    "seed": (0, "another one gives another split, other initial weights and other synthetic images"),
}
# Hyperparameters without a flag.
WARMUP = 0.1  # the share of the steps in which the learning rate rises, from a tenth


def pre_stem(inputs, mean, variance):
    """Normalize the images: (N, H, W, C) in pixels 0 to 255, same shape out, of about zero mean and unit variance.

    Unlike that of vgg/train.py it does not flip and shift them: an image is its own target.
    """
    return layers.Normalization(mean=mean, variance=variance)(inputs)


def restore(outputs, mean, variance):
    """The inverse of pre_stem, to a scale of 0 to 1: normalized images (N, H, W, C) in, same shape out."""
    return layers.Normalization(mean=mean / 255, variance=variance / 255**2, invert=True, name="restore")(outputs)


def main():
    """Read the command line, train, and leave the results in the output folder.

    Unlike that of vgg/train.py it has no use for the classes.
    """
    args = parse_arguments()
    if finished(args):
        print(f"{args.output} holds this run, finished: --overwrite would train it anew.")
        return
    keras.utils.set_random_seed(args.seed)
    try:
        splits, _ = data.load(args.data, args.limit, args.seed)
        claim(args)
        train(args, splits)
        report.write_results(args.output, settings(args), splits)
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


# Copied from vgg/train.py
def parse_arguments():
    """Return the arguments, defaults filled in; one that cannot work ends the program with exit status 2."""
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
    flag("--epochs", metavar="N", type=int, default=value["epochs"], help=f"default {about['epochs']}")
    flag("--batch-size", metavar="N", type=int, default=value["batch_size"], help=f"default {about['batch_size']}")
    flag("--learning-rate", metavar="X", type=float, help=f"the highest; default {DEFAULTS['learning_rate'][1]}")
    flag("--limit", metavar="N", type=int, help="train on N images, test on as many; default: all, which is best")
    flag("--seed", metavar="N", type=int, default=value["seed"], help=f"default {about['seed']}")
    flag("--output", metavar="DIR", type=Path, help="default runs/NAME: one folder per run")
    flag("--overwrite", action="store_true", help="first remove the run in DIR; default: keep it, go on with it")
    args = parser.parse_args()

    if args.learning_rate is None:
        args.learning_rate = MODELS[args.model][2]
    args.output = (args.output or Path("runs") / args.model).expanduser()
    n_images = data.N_TRAINING.get(args.data, data.N_TRAINING["cifar10"])
    if args.data not in data.N_TRAINING and not Path(args.data).expanduser().is_dir():
        refuse(f"--data must be cifar10, synthetic or a folder, got {args.data}")
    if args.limit is not None and not 1 <= args.limit <= n_images:
        refuse(f"--limit must be 1 to {n_images}, got {args.limit}")
    if args.epochs < 1:
        refuse(f"--epochs must be at least 1, got {args.epochs}")
    if not 1 <= args.batch_size <= (args.limit or n_images):
        refuse(f"--batch-size must be 1 to {args.limit or n_images}, the images to train on, got {args.batch_size}")
    if not 0 < args.learning_rate < math.inf:
        refuse(f"--learning-rate must be above 0 and finite, got {args.learning_rate}")
    if not 0 <= args.seed < 2**32:
        refuse(f"--seed must be 0 to {2**32 - 1}, got {args.seed}")
    return args


# Copied from vgg/train.py
def refuse(message):
    """End the program with one sentence and exit status 2, the status of a command that cannot work."""
    print(f"train.py: {message}", file=sys.stderr)
    sys.exit(2)


# Copied from vgg/train.py
def settings(args):
    """Return what makes two commands the same run, as a dictionary."""
    names = ("model", "data", "limit", "epochs", "batch_size", "learning_rate", "seed")
    return {name: getattr(args, name) for name in names}


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


def train(args, splits):
    """Build the network behind its pre-stem and fit it; keep the epoch with the lowest error on the validation images.

    Unlike that of vgg/train.py the target of an image is the image, the loss the mean squared error, and the optimizer
    Adam without weight decay.
    """
    x, x_validation = (splits[name][0] for name in ("training", "validation"))
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    build, metaparameters, _ = MODELS[args.model]
    network = build(metaparameters, x.shape[1:])
    network.name = args.model
    inputs = Input(x.shape[1:], dtype="uint8", name="images")
    model = Model(inputs, restore(network(pre_stem(inputs, mean, variance)), mean, variance))

    n_steps = args.epochs * math.ceil(len(x) / args.batch_size)
    n_warmup = max(1, round(WARMUP * n_steps))
    learning_rate = optimizers.schedules.CosineDecay(
        args.learning_rate / 10, max(1, n_steps - n_warmup), warmup_target=args.learning_rate, warmup_steps=n_warmup
    )
    model.compile(optimizers.Adam(learning_rate), "mean_squared_error")
    history = report.read_history(args.output)
    watchers = [
        callbacks.TerminateOnNaN(raise_error=True),
        report.BestModel(args.output / "model.keras", min(history.get("val_loss", [math.inf]))),
        callbacks.CSVLogger(args.output / "history.csv", append=True),
        callbacks.BackupAndRestore(args.output / "backup", double_checkpoint=True, delete_checkpoint=False),
    ]
    targets = x / np.float32(255)
    validation = (x_validation, x_validation / np.float32(255))
    model.fit(x, targets, args.batch_size, args.epochs, validation_data=validation, callbacks=watchers)


if __name__ == "__main__":
    main()

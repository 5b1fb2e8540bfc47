"""Train a Siamese network on pairs of images of CIFAR-10.

    python siamese/train.py --data synthetic --epochs 20 --output runs/synthetic    # minutes, no network
    python siamese/train.py                                                         # CIFAR-10, half an hour on 2 cores
    python siamese/train.py --held-out-classes 2                                    # trials with classes never seen

The output folder gets model.keras, history.csv, curves.png, predictions.png and results.json.
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
from keras import Input, Model, callbacks, layers, optimizers, regularizers

import data
import pairs
import report
import siamese

# name: the function that builds it, its metaparameters, and the learning rate to train it with
MODELS = {"siamese_cifar10": (siamese.build, siamese.METAPARAMETERS["siamese_cifar10"], 0.1)}

# Hyperparameters with a flag: (default, reason), which --help shows.
DEFAULTS = {
    "model": ("siamese_cifar10", "siamese_omniglot is for images of 105x105"),
    "epochs": (25, "what fits into half an hour on 2 cores"),
    "batch_size": (64, "pairs, so 128 images, as many as most other folders have in a batch"),
    "learning_rate": (None, "0.1: the highest that the paper tried"),
    "held_out_classes": (0, "train on all classes; N: the one-shot trials are on N classes that training never sees"),
    "ways": (None, "10, or as many as are held out: the classes of a one-shot trial"),
    "trials": (1000, "one-shot trials; the paper has 400"),
    "seed": (0, "another one gives another split, other pairs, other initial weights and other synthetic images"),
}
# Hyperparameters without a flag.
MOMENTUM = 0.9  # the paper searched 0 to 1 for each layer; Nesterov's form, as in the other folders
WEIGHT_DECAY = 5e-4  # the paper searched 0 to 0.1 for each layer
WARMUP = 0.1  # the share of the steps in which the learning rate rises, from a tenth


# Copied from vgg/train.py
def pre_stem(inputs, mean, variance):
    """Normalize the images and, in training only, flip and shift them: (N, H, W, 3) in pixels 0 to 255, same shape out.

    Args:
        inputs: images (N, H, W, 3), uint8 or float, 0 to 255.
        mean, variance: of each channel over the training images.

    Returns:
        Images (N, H, W, 3) of about zero mean and unit variance; half of them mirrored, and all shifted by up to
        4 pixels, filled with 0, the mean color (He et al. 2015, section 4.2: pad by 4 and crop).
    """
    height, width = inputs.shape[1:3]
    x = layers.Normalization(mean=mean, variance=variance)(inputs)
    x = layers.RandomFlip("horizontal")(x)
    return layers.RandomTranslation(4 / height, 4 / width, fill_mode="constant", interpolation="nearest")(x)


def main():
    """Read the command line, train, and leave the results in the output folder.

    Unlike that of vgg/train.py it sets aside the classes that are held out, and the images of the one-shot trials.
    """
    args = parse_arguments()
    if finished(args):
        print(f"{args.output} holds this run, finished: --overwrite would train it anew.")
        return
    keras.utils.set_random_seed(args.seed)
    try:
        splits, classes = data.load(args.data, args.limit, args.seed)
        try:
            splits, one_shot = pairs.hold_out(splits, len(classes), args.held_out_classes, args.ways, args.seed)
        except ValueError as error:
            refuse(f"{error}: choose a higher --limit, or fewer --ways")
        claim(args)
        train(args, splits)
        report.write_results(args.output, settings(args), splits, one_shot, classes)
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

    Unlike that of vgg/train.py it has --held-out-classes, --ways and --trials.
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
    flag("--epochs", metavar="N", type=int, default=value["epochs"], help=f"default {about['epochs']}")
    flag("--batch-size", metavar="N", type=int, default=value["batch_size"], help=f"default {about['batch_size']}")
    flag("--learning-rate", metavar="X", type=float, help=f"the highest; default {DEFAULTS['learning_rate'][1]}")
    flag("--held-out-classes", metavar="N", type=int, default=value["held_out_classes"],
         help=f"default {about['held_out_classes']}")
    flag("--ways", metavar="N", type=int, help=f"default {DEFAULTS['ways'][1]}")
    flag("--trials", metavar="N", type=int, default=value["trials"], help=f"default {about['trials']}")
    flag("--limit", metavar="N", type=int, help="train on N images, test on as many; default: all, which is best")
    flag("--seed", metavar="N", type=int, default=value["seed"], help=f"default {about['seed']}")
    flag("--output", metavar="DIR", type=Path, help="default runs/NAME, or runs/NAME_held_out_N: one folder per run")
    flag("--overwrite", action="store_true", help="first remove the run in DIR; default: keep it, go on with it")
    args = parser.parse_args()

    if args.learning_rate is None:
        args.learning_rate = MODELS[args.model][2]
    name = f"{args.model}_held_out_{args.held_out_classes}" if args.held_out_classes else args.model
    args.output = (args.output or Path("runs") / name).expanduser()
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
    if args.held_out_classes not in (0, *range(2, 9)):
        refuse(f"--held-out-classes must be 0 or 2 to 8 of the ten, got {args.held_out_classes}")
    most = args.held_out_classes or 10
    args.ways = args.ways if args.ways is not None else most
    if not 2 <= args.ways <= most:
        refuse(f"--ways must be 2 to {most}, the classes of the one-shot trials, got {args.ways}")
    if not 1 <= args.trials <= 10_000:
        refuse(f"--trials must be 1 to 10000, got {args.trials}")
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
    names = ("model", "data", "limit", "epochs", "batch_size", "learning_rate", "held_out_classes", "ways", "trials")
    return {name: getattr(args, name) for name in (*names, "seed")}


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
    """Build the network behind its pre-stem and fit it; keep the epoch that is best on pairs of validation images.

    Unlike that of vgg/train.py it takes pairs, drawn anew in every epoch; an epoch shows as many images as there are.
    """
    x, y = splits["training"]
    batches = pairs.Pairs(x, y, max(1, len(x) // 2), args.batch_size, args.seed)
    validation = report.fixed_pairs(splits["validation"], args.seed)

    build, metaparameters, _ = MODELS[args.model]
    network = build(metaparameters, x.shape[1:])
    network.name = args.model
    inputs = [Input(x.shape[1:], dtype="uint8", name=name) for name in ("left", "right")]
    normalized = [pre_stem(images, x.mean((0, 1, 2)), x.var((0, 1, 2))) for images in inputs]
    model = Model(inputs, network(normalized))

    for layer in (*network.get_layer("twin").layers, *network.layers):
        if isinstance(layer, (layers.Conv2D, layers.Dense)):  # not biases, not batch normalization
            layer.kernel.regularizer = regularizers.L2(WEIGHT_DECAY / 2)  # the gradient: WEIGHT_DECAY times the kernel
    n_steps = args.epochs * len(batches)
    n_warmup = max(1, round(WARMUP * n_steps))
    learning_rate = optimizers.schedules.CosineDecay(
        args.learning_rate / 10, max(1, n_steps - n_warmup), warmup_target=args.learning_rate, warmup_steps=n_warmup
    )
    optimizer = optimizers.SGD(learning_rate, MOMENTUM, nesterov=True)
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
    history = report.read_history(args.output)
    watchers = [
        callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: batches.draw(epoch)),  # as if never interrupted
        callbacks.TerminateOnNaN(raise_error=True),
        report.BestModel(args.output / "model.keras", max(history.get("val_accuracy", [-1.0]))),
        callbacks.CSVLogger(args.output / "history.csv", append=True),
        callbacks.BackupAndRestore(args.output / "backup", double_checkpoint=True, delete_checkpoint=False),
    ]
    model.fit(batches, epochs=args.epochs, validation_data=validation, callbacks=watchers)


if __name__ == "__main__":
    main()

"""Train a small ResNet to answer several questions about an image of CIFAR-10.

    python multilabel/train.py --data synthetic --epochs 4 --output runs/synthetic    # a minute, no network
    python multilabel/train.py                                                        # groups: kind, realm, alive
    python multilabel/train.py --task mosaic                                          # the classes in 2x2 mosaics

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
from keras import Input, Model, callbacks, layers, metrics, optimizers, regularizers

import data
import multilabel
import report
import tasks

# name: the function that builds it, its metaparameters, and the learning rate to train it with
MODELS = {
    name: (multilabel.build, metaparameters, 0.1) for name, metaparameters in multilabel.METAPARAMETERS.items()
}

# Hyperparameters with a flag: (default, reason), which --help shows.
DEFAULTS = {
    "task": ("groups", "one class of each group; mosaic: every class that is in a 2x2 mosaic"),
    "model": ("multilabel_resnet14_wide_cifar10", "2 cores train it in 15 to 25 minutes"),
    "epochs": (15, "what fits into those minutes"),
    "batch_size": (128, "images, section 4.2 of ResNet's paper; of mosaics, which have four, a quarter"),
    "learning_rate": (None, "0.1: section 4.2 of ResNet's paper"),
    "seed": (0, "another one gives another split, other mosaics, other initial weights and other synthetic images"),
}
# Hyperparameters without a flag.
LOSS_WEIGHTS = {"kind": 1.0, "realm": 0.5, "alive": 0.5, "outline": 0.5, "filled": 0.5}  # the kind is the hardest
MOMENTUM = 0.9  # section 3.4; Nesterov's form, as in fb.resnet.torch
WEIGHT_DECAY = 5e-4  # that of resnet/train.py
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

    Unlike that of vgg/train.py it gives train() the names of the classes, not their number.
    """
    args = parse_arguments()
    if finished(args):
        print(f"{args.output} holds this run, finished: --overwrite would train it anew.")
        return
    keras.utils.set_random_seed(args.seed)
    try:
        splits, classes = data.load(args.data, args.limit, args.seed)
        claim(args)
        train(args, splits, classes)
        report.write_results(args.output, settings(args), splits, classes)
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

    Unlike that of vgg/train.py it has --task, which the default of --output names too.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = refuse
    flag = parser.add_argument
    value = {name: default for name, (default, _) in DEFAULTS.items()}
    about = {name: f"{default}: {reason}" for name, (default, reason) in DEFAULTS.items()}
    flag("--task", metavar="groups|mosaic", choices=("groups", "mosaic"), default=value["task"],
         help=f"default {about['task']}")
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
    flag("--output", metavar="DIR", type=Path, help="default runs/NAME_TASK: one folder per run")
    flag("--overwrite", action="store_true", help="first remove the run in DIR; default: keep it, go on with it")
    args = parser.parse_args()

    if args.learning_rate is None:
        args.learning_rate = MODELS[args.model][2]
    args.output = (args.output or Path("runs") / f"{args.model}_{args.task}").expanduser()
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


def settings(args):
    """Return what makes two commands the same run, as a dictionary. Unlike that of vgg/train.py it has the task."""
    names = ("task", "model", "data", "limit", "epochs", "batch_size", "learning_rate", "seed")
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


def train(args, splits, classes):
    """Build the network behind its pre-stem and fit it; keep the epoch that is best on the validation images.

    Unlike that of vgg/train.py it has an output, a loss and a loss weight for every group of classes, or learns from
    mosaics, which are put together anew in every epoch.
    """
    x, y = splits["training"]
    build, metaparameters, _ = MODELS[args.model]
    if args.task == "groups":
        sizes = {name: len(group) for name, group in tasks.groups(classes).items()}
        batches = {"x": x, "y": tasks.group_labels(y, classes), "batch_size": args.batch_size}
        n_batches = math.ceil(len(x) / args.batch_size)
        compiled = {
            "loss": dict.fromkeys(sizes, "sparse_categorical_crossentropy"),
            "loss_weights": {name: LOSS_WEIGHTS[name] for name in sizes},
            "metrics": {name: ["accuracy"] for name in sizes},
        }
    else:
        sizes = len(classes)
        mosaics = tasks.Mosaics(x, y, sizes, max(1, args.batch_size // 4), args.seed)
        batches, n_batches = {"x": mosaics}, len(mosaics)
        f1 = [metrics.F1Score(average, threshold=0.5, name=f"{average}_f1") for average in ("macro", "micro")]
        compiled = {"loss": "binary_crossentropy", "metrics": [*f1, "binary_accuracy"]}
    validation = tasks.questions(args.task, *splits["validation"], classes, args.seed)

    input_shape = validation[0].shape[1:]  # a mosaic is twice as high and wide
    network = build(metaparameters, input_shape, sizes)
    network.name = args.model
    inputs = Input(input_shape, dtype="uint8", name="images")
    model = Model(inputs, network(pre_stem(inputs, x.mean((0, 1, 2)), x.var((0, 1, 2)))))

    for layer in network.layers:
        if isinstance(layer, (layers.Conv2D, layers.Dense)):  # not biases, not batch normalization
            layer.kernel.regularizer = regularizers.L2(WEIGHT_DECAY / 2)  # the gradient: WEIGHT_DECAY times the kernel
    n_steps = args.epochs * n_batches
    n_warmup = max(1, round(WARMUP * n_steps))
    learning_rate = optimizers.schedules.CosineDecay(
        args.learning_rate / 10, max(1, n_steps - n_warmup), warmup_target=args.learning_rate, warmup_steps=n_warmup
    )
    model.compile(optimizers.SGD(learning_rate, MOMENTUM, nesterov=True), **compiled)
    history = report.read_history(args.output)
    monitor = "val_kind_accuracy" if args.task == "groups" else "val_macro_f1"  # the other groups follow from the kind
    watchers = [
        callbacks.TerminateOnNaN(raise_error=True),
        report.BestModel(args.output / "model.keras", monitor, max(history.get(monitor, [-1.0]))),
        callbacks.CSVLogger(args.output / "history.csv", append=True),
        callbacks.BackupAndRestore(args.output / "backup", double_checkpoint=True, delete_checkpoint=False),
    ]
    if args.task == "mosaic":  # so that a run that goes on sees the mosaics that it would have seen
        watchers.append(callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: mosaics.draw(epoch)))
    model.fit(**batches, epochs=args.epochs, validation_data=validation, callbacks=watchers)


if __name__ == "__main__":
    main()

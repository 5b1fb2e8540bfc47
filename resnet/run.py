# The same file in every folder.
"""The command line of a training and its run folder: flags, resuming, callbacks, batches.

A run folder holds model.keras and history.csv and, once the run is finished, pictures and results.json. Until then a
subfolder `backup` holds the state of the last finished epoch.
"""

import argparse
import csv
import functools
import json
import math
import os
import re
import shutil
import sys
import time
import zipfile
from pathlib import Path

import devices  # before Keras

import keras
import numpy as np
from keras import callbacks, utils

import data

DTYPES = ("float32", "mixed_bfloat16", "mixed_float16")


def errors_as_sentences(main):
    """Decorate a main function: a user's mistake or an interruption ends in one sentence, without a traceback."""

    @functools.wraps(main)
    def guarded():
        program, policy = Path(sys.argv[0]).name, keras.config.dtype_policy()
        try:
            main()
        except data.DataError as error:
            print(f"{program}: error: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            without = " without --overwrite" * ("--overwrite" in sys.argv)
            resume = f" To resume after the last finished epoch, repeat the command{without}."
            print("\nInterrupted." + resume * (program == "train.py"), file=sys.stderr)
            sys.exit(130)
        except OSError as error:
            if error.errno is None:
                raise
            if isinstance(error, PermissionError):
                print(f"{program}: error: {error}", file=sys.stderr)
                sys.exit(2)
            sys.exit(f"{program}: error: {error}")  # such as a full disk
        except Exception as error:
            text = str(error)
            if "home directory" in text:  # the words of Path.expanduser
                print(f"{program}: error: a path begins with ~ and the name of no user", file=sys.stderr)
                sys.exit(2)
            if "NaN or Inf loss" in text:  # the words of TerminateOnNaN
                advice = ": repeat with --overwrite and a lower --learning-rate" * (program == "train.py")
                sys.exit(f"{program}: error: the loss is not finite{advice}")
            if isinstance(error, MemoryError) or re.search("RESOURCE_EXHAUSTED|OOM when|out of memory", text):
                advice = ": repeat with --overwrite and a lower --batch-size" * (program == "train.py")
                sys.exit(f"{program}: error: the memory is too small{advice}")
            found = re.search(r"DataError: (.*)", text)  # TensorFlow's own error of a batch has this text in it
            if not found:
                raise
            print(f"{program}: error: {found[1]}", file=sys.stderr)
            sys.exit(2)
        finally:
            keras.config.set_dtype_policy(policy)  # for the next cell of a notebook

    return guarded


def parser(description, models, model, epochs, batch_size, learning_rate):
    """Return the parser of the flags that every training has.

    Args:
        description: the text above the flags in --help.
        models: the names to choose from.
        model, epochs, batch_size, learning_rate: defaults; epochs and learning_rate may be {model: default}.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)
    flag = parser.add_argument
    flag("--model", metavar="NAME", choices=models, default=model, help=f"default {model}; all: {', '.join(models)}")
    flag("--data", metavar="cifar10|synthetic|FOLDER", default="cifar10",
         help="default cifar10: downloaded once, 170 MB; synthetic: drawn by numpy, no download; "
         "FOLDER: of CIFAR-10's binary files, or of photos to classify")
    flag("--epochs", metavar="N", type=whole(1), default=epochs,
         help=f"default {listed(epochs)}: its time on 2 cores is said above")
    flag("--batch-size", metavar="N", type=whole(1), default=batch_size,
         help=f"default {batch_size}: the learning rate is set for it")
    flag("--learning-rate", metavar="X", type=positive, default=learning_rate,
         help=f"default {listed(learning_rate)}: the highest, at the end of the warm-up")
    flag("--dtype", metavar="NAME", choices=DTYPES, default="float32",
         help="default float32; or mixed_bfloat16, mixed_float16")
    flag("--limit", metavar="N", type=whole(1), help="train on N images, test on at most N; default: all")
    flag("--seed", metavar="N", type=whole(0, 2**32 - 1), default=0,
         help="default 0; decides the split and all random numbers")
    flag("--data-name", metavar="TEXT", help="of the images, in titles; default as --data says")
    flag("--output", metavar="DIR", type=Path, help="default runs/NAME or runs/NAME_synthetic")
    flag("--overwrite", action="store_true", help="replace the run in DIR; default: resume it")
    return parser


def listed(default):
    """Return a default, or those of several models, as text."""
    values = sorted(set(default.values()), reverse=True) if isinstance(default, dict) else [default]
    return " or ".join(map(str, values))


def whole(least, most=math.inf):
    """Return an argparse type: a whole number from least to most."""
    allowed = f"a whole number of at least {least}" if most == math.inf else f"a whole number from {least} to {most}"

    def number(text):
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be {allowed}, got {text}")
        return int(text)

    return number


def positive(text):
    """An argparse type: a number above 0, and finite."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0 and finite, got {text}")
    return number


def parse(parser, folder=lambda args: args.model, parallel=True):
    """Return the arguments of the command line; set precision, devices and the seed of all random numbers.

    A wrong argument, or a run that is finished, ends the program here.

    Args:
        parser: from the function `parser`.
        folder: makes the name of the default output folder, below runs, from the arguments.
        parallel: whether the training can use several devices and processes.
    """
    show_all_letters()
    args = parser.parse_args()
    for name, value in vars(args).items():
        if isinstance(value, dict):
            setattr(args, name, value[args.model])
    if keras.config.image_data_format() != "channels_last":
        parser.error("image_data_format in keras.json must be channels_last, got channels_first")
    devices.check_environment(parser, parallel)
    devices.keep_memory()
    if args.data not in data.N_TRAINING and not Path(args.data).expanduser().is_dir():
        found = "which is a file: unpack it first" if Path(args.data).expanduser().is_file() else "which does not exist"
        parser.error(f"--data must be cifar10, synthetic or a folder, got {args.data}, {found}")
    of_photos = data.is_of_photos(args.data)
    if of_photos and not hasattr(args, "image_size"):
        parser.error("--data must be cifar10, synthetic or a folder with the binary files of CIFAR-10, got "
                     f"{args.data}, which holds photos: only networks that classify single images train on them")
    if of_photos:
        args.image_size = args.image_size or 32
    elif getattr(args, "image_size", None):
        parser.error(f"--image-size is for photos: the images of --data {args.data} have 32x32 pixels")
    n_images = math.inf if of_photos else data.N_TRAINING.get(args.data, data.N_TRAINING["cifar10"])
    if args.limit is not None and args.limit > n_images:
        parser.error(f"--limit must be at most {n_images}, the images to train on, got {args.limit}")
    if args.batch_size > n_images:
        parser.error(f"--batch-size must be at most {n_images}, the images to train on, got {args.batch_size}")

    default = Path("runs") / (folder(args) + "_synthetic" * (args.data == "synthetic") + "_photos" * of_photos)
    args.output = (args.output or default).expanduser()
    output = Path(os.path.realpath(args.output))
    if of_photos and Path(args.data).expanduser().resolve() in (output, *output.parents):
        parser.error(f"--output must not be in the folder of the photos, got {args.output}")
    try:
        if devices.is_first():
            args.output.mkdir(parents=True, exist_ok=True)
            if not os.access(args.output, os.W_OK):
                raise PermissionError(None, "no permission")
        results, unfinished = args.output / "results.json", args.output / "backup" / "settings.json"
        found = [path for path in (results, unfinished, args.output / "model.keras", args.output / "history.csv",
                                   *args.output.glob("*.png")) if path.exists()]
        of_others = {path.name for path in unfinished.parent.glob("*")} - {"lock", "partial_settings.json"}
        if of_others and not unfinished.exists() and not results.exists():
            parser.error(f"--output {args.output} holds a folder backup of something else: choose another folder")
    except OSError as error:
        parser.error(f"--output {args.output} cannot be written ({error.strerror}): choose another folder")
    if found and not args.overwrite:
        try:
            same = settings(args).items() <= json.loads(found[0].read_text()).items()
        except (OSError, ValueError, AttributeError):  # not a file of ours
            same = False
        if not same:
            parser.error(f"--output {args.output} holds {found[0].name} of another run: choose another folder, "
                         "or --overwrite")
        if found[0] == results:
            print(f"{args.output} holds this run, finished. To train it again, add --overwrite.")
            sys.exit()
    keras.config.set_floatx("float32")  # keras.json may have another
    keras.config.set_dtype_policy(args.dtype)
    if parallel:
        devices.distribute(parser, args.batch_size)
    keras.utils.set_random_seed(args.seed)
    return args


def built(args, build, *given, **options):
    """Return what `build` of a lesson makes of its arguments; what it refuses ends the program in a sentence."""
    try:
        return build(*given, **options)
    except ValueError as error:
        raise data.DataError(f"--model {args.model}: {error}") from error


def show_all_letters():
    """Let a terminal that has only ASCII show ? for what else is in a path, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not in a notebook
            stream.reconfigure(errors="replace")


def settings(args):
    """Return the flags that identify a run, as a dictionary."""
    others = ("output", "overwrite", "data_name", "lock")
    flags = {name: value for name, value in vars(args).items() if name not in others}
    return flags | {"backend": keras.config.backend()}


def start(args):
    """Prepare the run folder, or resume the run in it; of several processes the first does, for all."""
    if devices.is_first():
        prepare(args)
    devices.wait()
    flags = {name: value for name, value in settings(args).items() if name != "data"}  # each machine may have its own
    epochs = [path.read_text() for path in sorted((args.output / "backup").rglob("training_metadata.json"))]
    if not devices.all_equal([flags, epochs]):
        raise data.DataError("the processes must have the same flags, and to resume an interrupted run, an --output "
                             "folder that all can read")


def prepare(args):
    """Make the folder for backups, or bring it back to the last epoch that was saved whole."""
    backup, removed = args.output / "backup", args.output / "partial_backup"
    shutil.rmtree(removed, ignore_errors=True)
    if args.overwrite:
        if backup.exists():
            args.lock = locked(backup)
            backup.replace(removed)  # at once, or a kill could leave half of it to resume from
        for name in ("results.json", "model.keras", "history.csv"):
            (args.output / name).unlink(missing_ok=True)
        shutil.rmtree(removed, ignore_errors=True)
    backup.mkdir(exist_ok=True)
    args.lock = locked(backup)  # as long as the arguments are kept
    kept = backup / "settings.json"
    if kept.exists() and json.loads(kept.read_text()) != settings(args):
        raise data.DataError(f"--output {args.output} holds an unfinished run with other flags, or whose photos were "
                             "others: choose another folder, or --overwrite")
    write_whole(kept, lambda path: path.write_text(json.dumps(settings(args))))
    (args.output / "partial_model.keras").unlink(missing_ok=True)  # of a run that was killed while it saved
    log = args.output / "history.csv"
    if log.exists() and not log.read_bytes().endswith(b"\n"):  # half a row, of a full disk, or none yet
        rows, end, _ = log.read_bytes().rpartition(b"\n")
        if rows:
            write_whole(log, lambda path: path.write_bytes(rows + end))
        else:
            log.unlink()

    for folder in (backup, *(path for path in backup.iterdir() if path.is_dir())):  # of the run, or of its steps
        weights, metadata = folder / "latest.weights.h5", folder / "training_metadata.json"
        try:
            json.loads(metadata.read_text())
            is_whole = weights.stat().st_mtime_ns <= metadata.stat().st_mtime_ns  # which is written after them
        except (OSError, ValueError):
            is_whole = False
        if not is_whole:  # killed while it saved an epoch: back to the one before, or to the start
            for path in (weights, metadata):
                before = path.with_name(path.name + ".bkp")  # stays, in case this is killed too
                shutil.copy2(before, path) if before.exists() else path.unlink(missing_ok=True)


def locked(folder):
    """Return an open file that keeps other processes out of a run folder; None on Windows, which has no such lock."""
    try:
        import fcntl
    except ImportError:
        return None
    file = open(folder / "lock", "w")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise data.DataError(f"--output {folder.parent} is in use by another process: wait for its end, or choose "
                             "another folder") from error
    except OSError:  # a file system without locks
        pass
    return file


def callbacks_for(args, kept, training, monitor="val_accuracy", mode="max", step=""):
    """Return the callbacks of a training: what makes it resumable, keeps the best model and writes history.csv.

    Args:
        args: the parsed command line.
        kept: the model to save when it is best, of the same layers as the one that is fitted.
        training: the Batches to fit.
        monitor, mode: the column of the history that says which epoch is best, "max" or "min".
        step: its name, if the training has several; each is resumed by a backup of its own.
    """
    earlier = history(args).get(monitor)  # of the epochs before an interruption
    best = earlier and {"max": max, "min": min}[mode](earlier)
    writers = [
        KeepBest(kept, args.output / "model.keras", monitor, mode, best),
        callbacks.CSVLogger(args.output / "history.csv", append=True),
    ]
    return [
        callbacks.TerminateOnNaN(raise_error=True),
        Epochs(training, args.seed),
        *(writers if devices.is_first() else []),
        Backup(args.output / "backup" / step, double_checkpoint=True, delete_checkpoint=False),
    ]


class Epochs(callbacks.Callback):
    """Give each epoch its own batches and random numbers, the same in a resumed run; log how long it took."""

    def __init__(self, training, seed):
        super().__init__()
        self.training, self.seed = training, seed

    def on_epoch_begin(self, epoch, logs=None):
        """Seed the batches, and the layers that augment or drop."""
        self.training.start(epoch)
        of_epoch = np.random.SeedSequence((self.seed, epoch)).generate_state(1)[0]
        keras.utils.set_random_seed(int(of_epoch))  # dropout on PyTorch draws from the global generator
        seeds = [v for v in self.model.non_trainable_variables if v.path.endswith("seed_generator_state")]
        for i, variable in enumerate(seeds):
            variable.assign(np.random.SeedSequence((self.seed, epoch, i)).generate_state(2) % 2**31)
        self.clock = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Add the seconds to what the next callbacks see."""
        logs["seconds"] = time.perf_counter() - self.clock
        if not math.isfinite(logs["val_loss"]):
            raise RuntimeError("NaN or Inf loss on the validation images")


class KeepBest(callbacks.ModelCheckpoint):
    """Save another model than the one that is fitted, of the same layers, whenever it is best; never half a file."""

    def __init__(self, kept, path, monitor, mode, best):
        self.kept, self.path, self.partial = kept, path, path.with_name("partial_" + path.name)
        pattern = str(self.partial).replace("{", "{{").replace("}", "}}")  # ModelCheckpoint formats it
        super().__init__(pattern, monitor, save_best_only=True, mode=mode, initial_value_threshold=best)

    def set_model(self, model):
        """Watch the model to keep."""
        super().set_model(self.kept)

    def on_epoch_end(self, epoch, logs=None):
        """Save under a partial name if this epoch is the best, then rename."""
        with devices.without_distribution():
            super().on_epoch_end(epoch, logs)
        if self.partial.exists():
            self.partial.replace(self.path)


class Backup(callbacks.BackupAndRestore):
    """Save the state after each epoch in the first process; restore it in all."""

    def on_epoch_end(self, epoch, logs=None):
        """Save."""
        if devices.is_first():
            with devices.without_distribution():
                super().on_epoch_end(epoch, logs)


class Batches(utils.PyDataset):
    """Batches of anything that has indices: images, pairs, scenes.

    An epoch's order and random numbers depend on the seed and the epoch alone, so a resumed run repeats them. Each of
    several processes reads its share of every batch.

    Args:
        n: how many examples an epoch has.
        batch_size: how many a batch has; the last may have fewer, and is filled up with the first examples of the epoch
            if there are several devices.
        make: makes a batch, (inputs, targets), from the indices of its examples, (batch_size,), and a numpy Generator.
        seed: of the order and the Generator; None to leave them in order.
    """

    def __init__(self, n, batch_size, make, seed=None):
        # With one worker Keras lets tf.data wait at the end of an epoch; with two it reads ahead, and on the other
        # backends it would read the first batches twice.
        super().__init__(workers=2 if keras.config.backend() == "tensorflow" else 1)
        self.n, self.batch_size, self.make, self.seed = n, batch_size, make, seed
        self.is_filled = keras.distribution.distribution() is not None
        self.process, self.n_processes = devices.processes() if self.is_filled else (0, 1)
        self.start(0)

    def start(self, epoch):
        """Shuffle for an epoch."""
        self.epoch, self.order = epoch, np.arange(self.n)
        if self.seed is not None:
            np.random.default_rng((self.seed, epoch)).shuffle(self.order)
        if self.is_filled:
            self.order = np.resize(self.order, len(self) * self.batch_size)

    def __len__(self):
        """How many batches an epoch has."""
        return math.ceil(self.n / self.batch_size)

    def __getitem__(self, i):
        """Return batch i, or this process' share of it."""
        share = self.batch_size // self.n_processes
        first = i * self.batch_size + self.process * share
        chosen = self.order[first : first + share]
        return self.make(chosen, np.random.default_rng((self.seed or 0, self.epoch, i, self.process)))


def batches(split, batch_size, seed=None, targets=lambda labels: labels):
    """Return Batches of a split, (images (N, H, W, C), labels (N,)).

    Args:
        split: the images and their labels.
        batch_size: how many images a batch has.
        seed: of the order, and of the crops of photos; None for the order of the split and crops in the middle.
        targets: makes what the model is fitted to from the labels of a batch.
    """
    images, labels = split

    def make(chosen, rng):
        at_random = seed is not None and isinstance(images, data.Photos)
        return images.read(chosen, rng) if at_random else images[chosen], targets(labels[chosen])

    return Batches(len(images), batch_size, make, seed)


def best(args):
    """Return the model that was best on the validation images, as a stranger would load it.

    From here the first of several processes goes on alone, on one device; the others end.
    """
    devices.shut_down()
    return load_model(args.output)


def load_model(folder):
    """Return the model of a run. An older Keras than the one that saved it may refuse it."""
    path = Path(folder).expanduser() / "model.keras"
    try:
        return keras.saving.load_model(path)
    except (OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise data.DataError(f"{path} cannot be loaded ({' '.join(str(error).split())[:200]})") from error


def history(args):
    """Return history.csv as {column: values}; drops the duplicate epoch of an interrupted run."""
    path = args.output / "history.csv"
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        rows = {row["epoch"]: row for row in csv.DictReader(file)}.values()
    return {name: [float(row[name]) for row in rows] for name in next(iter(rows), ())}


def write_whole(path, save):
    """Call save with a temporary path and rename what it wrote, so that a kill never leaves half a file."""
    partial = path.with_name("partial_" + path.name)  # the same ending, by which savers choose the format
    save(partial)
    partial.replace(path)

# The same file in the folder of every classifier that has an experiment.
"""An experiment: networks that differ in one thing, each trained as by train.py, with the same few seeds.

The output folder gets measurements.csv, a row for every epoch of every training; results.json, table.md and
errors.png. A training that is interrupted resumes after its last finished epoch when the command is repeated.
"""

import argparse
import csv
import json
import math
import shlex
import shutil
import sys
from pathlib import Path

import devices
import run

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure

import data
import report
import train

MEASURED = ("training_error", "validation_error")  # percent of the images, the first of augmented ones
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's, for all eyes


def arguments(description, script, epochs):
    """Return the arguments of the command line; a wrong one, or another experiment's folder, ends the program here.

    Args:
        description: the text above the flags in --help.
        script: its path, after which the output folder is named.
        epochs: default of each training.
    """
    run.show_all_letters()
    script = Path(script).resolve()
    parser = argparse.ArgumentParser(
        description=description, epilog="To resume an interrupted experiment, repeat the command.",
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    flag = parser.add_argument
    flag("--data", metavar="cifar10|synthetic|FOLDER", default="cifar10", help="default cifar10: see train.py")
    flag("--data-name", metavar="TEXT", help="what the title of the figure calls the images; default CIFAR-10 or so")
    flag("--epochs", metavar="N", type=run.whole(1), default=epochs, help=f"default {epochs}: of each training")
    flag("--limit", metavar="N", type=run.whole(10), default=15_000, help="default 15000: images to train on")
    flag("--seeds", metavar="N", type=run.whole(1), default=3, help="default 3: trainings of each network")
    flag("--output", metavar="DIR", type=Path, default=Path("runs") / script.stem, help=f"default runs/{script.stem}")
    args = parser.parse_args()
    keras.config.set_floatx("float32")  # keras.json may have another
    keras.config.set_dtype_policy("float32")
    if Path(train.__file__).resolve().parent != script.parent:
        parser.error(f"this session has loaded {train.__file__}: restart it to run an experiment of another folder")
    devices.check_environment(parser, parallel=False)
    devices.keep_memory()
    if args.data not in data.N_TRAINING and not Path(args.data).expanduser().is_dir():
        parser.error(f"--data must be cifar10, synthetic or a folder, got {args.data}")
    if data.is_of_photos(args.data):
        parser.error("--data must be cifar10, synthetic or a folder with the binary files of CIFAR-10, got "
                     f"{args.data}, which holds photos")
    most = data.N_TRAINING.get(args.data, data.N_TRAINING["cifar10"])
    args.limit, args.output = min(args.limit, most), args.output.expanduser()
    args.experiment = script.stem
    settings, kept = run.settings(args), args.output / "settings.json"
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        if kept.exists() and json.loads(kept.read_text()) != settings:
            parser.error(f"--output {args.output} holds an experiment with other flags: choose another folder")
        names = ("results.json", "measurements.csv", "table.md", *(path.name for path in args.output.glob("*.png")))
        found = [name for name in names if (args.output / name).exists()]
        if not kept.exists() and found:
            parser.error(f"--output {args.output} holds {found[0]} of another run: choose another folder")
        run.write_whole(kept, lambda path: path.write_text(json.dumps(settings)))
    except OSError as error:
        parser.error(f"--output {args.output} cannot be written ({error.strerror}): choose another folder")
    except ValueError:
        parser.error(f"{kept} is not of an experiment: choose another folder")
    return args


def compare(args, networks, learning_rate):
    """Train each network with each seed, then write the table and the figure.

    Args:
        args: from `arguments`.
        networks: {name: a function that builds it from input_shape and n_classes}; the others are compared with the
            first.
        learning_rate: the highest, of all of them.
    """
    rows, sizes = [], {}
    for seed in range(args.seeds):
        splits, classes = data.load(args.data, args.limit, seed)
        for name, build in networks.items():
            keras.utils.clear_session()  # forgets the networks before
            keras.utils.set_random_seed(seed)
            network = build(splits["training"][0].shape[1:], len(classes))
            sizes[name] = sum(math.prod(v.shape) for v in network.trainable_variables), multiply_adds(network)
            folder = args.output / f"{name.replace(' ', '_')}_{seed}"
            if not (folder / "finished").exists():
                print(f"{name}, seed {seed}")
                fit(args, network, splits, seed, folder, learning_rate)
            history = run.history(argparse.Namespace(output=folder))
            errors = ([100 * (1 - value) for value in history[key]] for key in ("accuracy", "val_accuracy"))
            rows += [
                {"network": name, "seed": seed, "epoch": epoch + 1, **dict(zip(MEASURED, of_epoch, strict=True))}
                for epoch, of_epoch in enumerate(zip(*errors, strict=True))
            ]
    write(args, rows, sizes)


def fit(args, network, splits, seed, folder, learning_rate):
    """Train one network as train.py does, and keep the history alone."""
    folder.mkdir(exist_ok=True)
    network.name = "network"
    given = {"epochs": args.epochs, "batch_size": min(train.BATCH_SIZE, args.limit), "seed": seed, "output": folder}
    given = argparse.Namespace(**given, model=network.name, overwrite=False)
    run.start(given)
    train.train(given, network, splits, *data.mean_and_variance(splits["training"][0]), learning_rate)
    (folder / "model.keras").unlink(missing_ok=True)
    (folder / "finished").touch()
    shutil.rmtree(folder / "backup")


def multiply_adds(network):
    """Return how many multiplications and additions the convolutions and dense layers of an image take, as one each."""
    found = 0
    for layer in network.layers:
        if isinstance(layer, layers.Conv2D):
            found += math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3])
        elif isinstance(layer, layers.Dense):
            found += math.prod(layer.kernel.shape)
    return found


def last(rows, name, key):
    """Return what was measured in the last epoch of each training of a network, (seeds,)."""
    n_epochs = max(row["epoch"] for row in rows)
    return np.array([row[key] for row in rows if row["network"] == name and row["epoch"] == n_epochs])


def standard_error(values):
    """Return the standard error of the mean of an array (n, ...) along its first axis; nan of a single value."""
    return np.std(values, 0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.full(np.shape(values[0]), np.nan)


def with_error(values, form):
    """Return the mean of values (n,) as text, with its standard error if there is more than one."""
    error = f" ± {standard_error(values):.2f}" if len(values) > 1 else ""
    return f"{values.mean():{form}}{error}"


def table(rows, sizes):
    """Return the table of Markdown: errors of the last epoch in percent, and their difference from the first network.

    The differences are of trainings with the same seed, so their standard error is smaller than that of the errors.
    """
    first = next(iter(sizes))
    lines = ["| network | parameters | multiply-adds | training error | validation error | against the first |",
             "|---|---|---|---|---|---|"]
    for name, (parameters, operations) in sizes.items():
        cells = [name, f"{parameters:,}", f"{operations / 1e6:.1f}M"]
        for key in MEASURED:
            values = last(rows, name, key)
            cells.append(f"{with_error(values, '.2f')}%")
        differences = last(rows, name, MEASURED[1]) - last(rows, first, MEASURED[1])
        cells.append("" if name == first else with_error(differences, "+.2f"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def errors_figure(rows, names):
    """Return a figure of both errors over the epochs, means over the seeds with their standard errors."""
    figure = Figure(figsize=(8.4, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, key in zip(panels, MEASURED, strict=True):
        for i, name in enumerate(names):
            seeds = sorted({row["seed"] for row in rows})
            values = np.array([[row[key] for row in rows if (row["network"], row["seed"]) == (name, seed)]
                               for seed in seeds])  # (seeds, epochs)
            mean, error, epochs = values.mean(0), standard_error(values), range(1, values.shape[1] + 1)
            color, style = COLORS[i % len(COLORS)], ".-" if i < len(COLORS) else ".--"
            axes.plot(epochs, mean, style, color=color, label=name)
            axes.fill_between(epochs, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
        axes.set(xlabel="epoch", title=key.replace("_", " "), xlim=(0.5, values.shape[1] + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("percent of the images")
    panels[1].legend(fontsize=9)
    return figure


def write_measurements(path, rows):
    """Write measurements.csv, [{column: value}, ...]."""
    with open(path, "w", newline="") as file:
        of_csv = csv.DictWriter(file, rows[0])
        of_csv.writeheader()
        of_csv.writerows({**row, **{name: f"{row[name]:.4f}" for name in MEASURED}} for row in rows)


def write(args, rows, sizes):
    """Write measurements.csv, results.json, table.md and errors.png, and print the table."""
    run.write_whole(args.output / "measurements.csv", lambda path: write_measurements(path, rows))
    text = table(rows, sizes)
    run.write_whole(args.output / "table.md", lambda path: path.write_text(text, encoding="utf-8"))
    figure = errors_figure(rows, list(sizes))
    seeds = f"{args.seeds} seed{'s' * (args.seeds > 1)}"
    title = f"{args.data_name or report.name_of(args.data)}, {args.limit:,} images to train on, {seeds}"
    figure.suptitle(title.encode("utf-8", "replace").decode(), parse_math=False)
    run.write_whole(args.output / "errors.png", lambda path: figure.savefig(path, dpi=100))
    results = {
        **run.settings(args),
        "networks": {name: {"parameters": n, "multiply_adds": operations} for name, (n, operations) in sizes.items()},
        "command": shlex.join(["python", *sys.argv]),
    }
    run.write_whole(args.output / "results.json", lambda path: path.write_text(json.dumps(results, indent=2) + "\n"))
    print(text)
    print(f"Results are in {args.output}.")

"""How much is lost with a smaller code? Autoencoders with codes of 64 to 1,024 numbers, beside PCA with as many.

    python autoencoder/code_sizes.py --data synthetic --limit 200 --epochs 1 --seeds 1    # seconds
    python autoencoder/code_sizes.py                                                      # CIFAR-10

The networks differ in the depth of the code: the filters of the encoder's last layer, and of the decoder's first, which
mirrors it. Each is trained as by train.py, with the same few seeds; the seed decides the split too, so PCA has an error
from seed to seed as well.
The output folder gets measurements.csv, a row for every training; results.json, table.md and psnr.png. A training that
is interrupted resumes after its last finished epoch when the command is repeated.
"""

import argparse
import csv
import json
import math
import platform
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
from matplotlib.ticker import NullLocator, StrMethodFormatter

import autoencoder
import codes
import data
import report
import train

EPOCHS = 15
HIDDEN = autoencoder.METAPARAMETERS["autoencoder_cifar10"]["layers"][:-1]  # of the encoder, all but the last
FILTERS = (4, 8, 16, 32, 64)  # of its last layer: 4x4 maps, so codes of 64 to 1,024 numbers
MEASURED = ("autoencoder", "PCA")  # PSNR in dB of the validation images
COLORS = ("#0072b2", "#d55e00")  # Okabe and Ito's, for all eyes


@run.errors_as_sentences
def main():
    """Train what the command line says, and write the table and the figure."""
    args = arguments(__doc__, __file__, EPOCHS)
    rows, sizes = [], {}
    for seed in range(args.seeds):
        splits, _ = data.load(args.data, args.limit, seed)
        for n_filters in FILTERS:
            keras.utils.set_random_seed(seed)
            metaparameters = {"layers": (*HIDDEN, {"n_filters": n_filters})}
            network = autoencoder.build(metaparameters, splits["training"][0].shape[1:])
            code_size = math.prod(network.get_layer("encoder").output_shape[1:])
            n_parameters = sum(math.prod(variable.shape) for variable in network.trainable_variables)
            sizes[code_size] = n_parameters, multiply_adds(network)
            folder = args.output / f"{code_size}_{seed}"
            if not (folder / "finished").exists():
                print(f"a code of {code_size} numbers, seed {seed}")
                fit(args, network, splits, code_size, seed, folder)
            rows.append({"code_size": code_size, "seed": seed, **json.loads((folder / "finished").read_text())})
    write(args, rows, sizes)


# Copied from vgg/experiment.py
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


def fit(args, network, splits, code_size, seed, folder):
    """Train one network as train.py does, and keep its history and the PSNR of the best epoch, with that of PCA."""
    folder.mkdir(exist_ok=True)
    network.name = "network"
    given = {"epochs": args.epochs, "batch_size": min(train.BATCH_SIZE, args.limit), "seed": seed, "output": folder}
    given = argparse.Namespace(**given, model=network.name, learning_rate=train.LEARNING_RATE, overwrite=False)
    run.start(given)
    model = train.train(given, network, splits)
    training, validation = (splits[name][0] / np.float32(255) for name in ("training", "validation"))
    restored = keras.ops.convert_to_numpy(model(splits["validation"][0])), codes.pca(training, validation, code_size)
    psnr = {name: codes.mse_and_psnr(validation, images)[1] for name, images in zip(MEASURED, restored, strict=True)}
    run.write_whole(folder / "finished", lambda path: path.write_text(json.dumps(psnr)))
    (folder / "model.keras").unlink()
    shutil.rmtree(folder / "backup")


def multiply_adds(network):
    """Return how many multiplications and additions the convolutions take for an image, as one each.

    A convolution applies its kernel at each place of its outputs, a transposed one at each place of its inputs.
    """
    found = 0
    for layer in (*network.get_layer("encoder").layers, *network.get_layer("decoder").layers):
        if isinstance(layer, layers.Conv2D):
            found += math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3])
        elif isinstance(layer, layers.Conv2DTranspose):
            found += math.prod(layer.kernel.shape) * math.prod(layer.input.shape[1:3])
    return found


def of_code(rows, code_size, name):
    """Return the PSNR of each seed, (seeds,), of the autoencoders, or of PCA, with a code of that size."""
    return np.array([row[name] for row in rows if row["code_size"] == code_size])


# Copied from vgg/experiment.py
def standard_error(values):
    """Return the standard error of the mean of an array (n, ...) along its first axis; nan of a single value."""
    return np.std(values, 0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.full(np.shape(values[0]), np.nan)


def in_words(values, sign=""):
    """Return the mean of an array and its standard error as text; with one value there is no error to be known."""
    error = f" ± {standard_error(values):.2f}" if len(values) > 1 else ""
    return f"{values.mean():{sign}.2f}{error}"


def table(rows, sizes):
    """Return the table of Markdown: PSNR in dB of the validation images, means over the seeds with standard errors.

    The differences are of one split each, so their standard error is smaller than those of the two.
    """
    lines = ["| network | numbers in the code | parameters | multiply-adds | PSNR in dB | PSNR of PCA | difference |",
             "|---|---|---|---|---|---|---|"]
    for n_filters, (code_size, (parameters, operations)) in zip(FILTERS, sizes.items(), strict=True):
        name = ", ".join(str(layer["n_filters"]) for layer in (*HIDDEN, {"n_filters": n_filters})) + " filters"
        ours, pca = (of_code(rows, code_size, measured) for measured in MEASURED)
        cells = [name, f"{code_size:,}", f"{parameters:,}", f"{operations / 1e6:.1f}M", in_words(ours), in_words(pca)]
        lines.append(f"| {' | '.join([*cells, in_words(ours - pca, '+')])} |")
    return "\n".join(lines) + "\n"


def psnr_figure(rows):
    """Return a figure of PSNR over the size of the code, means over the seeds with their standard errors."""
    sizes = sorted({row["code_size"] for row in rows})
    figure = Figure(figsize=(8.4, 4.8), layout="constrained")
    axes = figure.subplots()
    for name, color, style in zip(MEASURED, COLORS, ("o-", "s--"), strict=True):
        values = np.array([of_code(rows, size, name) for size in sizes]).T  # (seeds, sizes)
        axes.errorbar(sizes, values.mean(0), standard_error(values), fmt=style, color=color, capsize=4, label=name)
    axes.set(xlabel="numbers in the code (log scale)", ylabel="PSNR of validation images in dB", xscale="log")
    axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


# Copied from vgg/experiment.py
def write_measurements(path, rows):
    """Write measurements.csv, [{column: value}, ...]."""
    with open(path, "w", newline="") as file:
        of_csv = csv.DictWriter(file, rows[0])
        of_csv.writeheader()
        of_csv.writerows({**row, **{name: f"{row[name]:.4f}" for name in MEASURED}} for row in rows)


def write(args, rows, sizes):
    """Write measurements.csv, results.json, table.md and psnr.png, and print the table."""
    run.write_whole(args.output / "measurements.csv", lambda path: write_measurements(path, rows))
    text = table(rows, sizes)
    run.write_whole(args.output / "table.md", lambda path: path.write_text(text, encoding="utf-8"))
    figure = psnr_figure(rows)
    seeds = f"{args.seeds} seed{'s' * (args.seeds > 1)}"
    title = f"{args.data_name or report.name_of(args.data)}, {args.limit:,} images to train on, {seeds}"
    figure.suptitle(title.encode("utf-8", "replace").decode(), parse_math=False)
    run.write_whole(args.output / "psnr.png", lambda path: figure.savefig(path, dpi=100))
    backend = keras.config.backend()
    results = {
        **run.settings(args),
        "networks": [
            {"code_size": size, "parameters": n, "multiply_adds": operations,
             "psnr": {name: of_code(rows, size, name).tolist() for name in MEASURED}}
            for size, (n, operations) in sizes.items()
        ],
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "keras": keras.__version__,
                     backend: sys.modules[backend].__version__},
        "command": shlex.join(["python", *sys.argv]),
    }
    run.write_whole(args.output / "results.json", lambda path: path.write_text(json.dumps(results, indent=2) + "\n"))
    print(text)
    print(f"Results are in {args.output}.")


if __name__ == "__main__":
    main()

"""How long the networks take on this machine, in three tables.

    python -m tests.benchmark --output runs/benchmark    # minutes; nothing else should run
    python -m tests.benchmark --only resnet resnet50     # a part of it

1. The default network of every train.py, as it is trained there: behind pre-stem and augmentation, with its loss and
   optimizer, in batches of train.py's size. The minutes are those of all updates of the whole training, without
   validation and saving.
2. Networks that keras.applications has too, each beside its twin there: the same images, the same SGD, in turns.
3. ResNets for CIFAR-10 of n, 2n and 4n blocks in each group: what each further block costs should stay the same.

The shortest of several calls counts, after those that compile. The images are noise. What a multiply-add is, says
counting.py.
"""

import argparse
import contextlib
import functools
import gc
import io
import json
import math
import os
import platform
import shlex
import sys
import tempfile
from pathlib import Path
from unittest import mock

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as devices.py of the folders does

import keras
import numpy as np
from keras import applications

sys.path.insert(0, str(Path(__file__).parent))  # where Python does not look for modules when it runs tests.benchmark

from counting import multiply_adds
from folders import FOLDERS, MODULES, build, load

from step_times import shortest

TWINS = {  # name: (module, name in keras.applications)
    "vgg16": ("vgg/vgg.py", "VGG16"),
    "resnet50": ("resnet/resnet_v1.py", "ResNet50"),
    "inception_v3": ("inception/inception_v3.py", "InceptionV3"),
    "densenet121": ("densenet/densenet.py", "DenseNet121"),
}
TWIN_SHAPE = (75, 75, 3)  # the smallest images that InceptionV3 takes
TWIN_BATCH = 32
DEPTHS = (8, 14, 26)  # 6n + 2 layers: 1, 2 and 4 blocks in each of three groups
BLOCKS_BATCH = 128
N_CALLS, N_TWIN_CALLS, N_BUILDS = 10, 5, 3
SIZES = {"training": 4_500, "validation": 500, "test": 1_000}  # a tenth of CIFAR-10's images
N_SCENES = 40  # for Faster R-CNN
NAMES = (*FOLDERS, *TWINS, "blocks")
TIMED = ("training", "inference")

DEFAULTS_TABLE = {  # title: how a row writes it
    "network": "{network}", "batch": "{batch_size}", "parameters": "{parameters:,}",
    "multiply-adds": "{multiply_adds:,}", "build, s": "{build_seconds:.2f}", "training step, ms": "{training_ms:.1f}",
    "inference, ms": "{inference_ms:.1f}", "updates": "{updates:,}", "training, minutes": "{minutes:.1f}",
}  # fmt: skip
STEPS_TABLE = {
    "step of the training": "{step}", "updates": "{updates:,}", "training step, ms": "{training_ms:.1f}",
    "minutes": "{minutes:.1f}",
}  # fmt: skip
TWINS_TABLE = {
    "network": "{network}",
    "ours, training, ms": "{training_ms[ours]:.0f}", "theirs, training, ms": "{training_ms[theirs]:.0f}",
    "ratio, training": "{training_ratio:.3f}",
    "ours, inference, ms": "{inference_ms[ours]:.0f}", "theirs, inference, ms": "{inference_ms[theirs]:.0f}",
    "ratio, inference": "{inference_ratio:.3f}",
}  # fmt: skip
BLOCKS_TABLE = {
    "layers": "{layers}", "blocks": "{blocks}", "parameters": "{parameters:,}", "multiply-adds": "{multiply_adds:,}",
    "build, s": "{build_seconds:.3f}", "training step, ms": "{training_ms:.1f}",
}  # fmt: skip


def main():
    """Measure what the command line names, print each row when it is known, and write what was found."""
    args = arguments()
    small, large = ({"n_calls": 1, "n_first": 1} if args.quick else {"n_calls": n} for n in (N_CALLS, N_TWIN_CALLS))
    found, lines = facts(args), []
    show(lines, f"`{found['command']}`, {found['cores']} cores, {found['machine']}, "
         + ", ".join(f"{name} {version}" for name, version in found["versions"].items()))

    folders = [folder for folder in FOLDERS if folder in args.only]
    if folders:
        show(lines, "\n**The default networks**\n")
        found["defaults"] = table(lines, DEFAULTS_TABLE, (cost_of_default(folder, small) for folder in folders))
        for row in found["defaults"]:
            if len(row["steps"]) > 1:
                show(lines, f"\nThe training of {row['network']} has several steps:\n")
                table(lines, STEPS_TABLE, row["steps"])
    twins = [name for name in TWINS if name in args.only]
    if twins:
        show(lines, f"\n**Beside keras.applications**, {TWIN_BATCH} images of {TWIN_SHAPE[0]}x{TWIN_SHAPE[1]} pixels\n")
        found["twins"] = table(lines, TWINS_TABLE, (beside_twin(name, large) for name in twins))
        means = {what: geometric_mean(row[f"{what}_ratio"] for row in found["twins"]) for what in TIMED}
        found["geometric_mean"] = means
        show(lines, "\nGeometric mean of the ratios: "
             + ", ".join(f"{what} {mean:.3f}" for what, mean in means.items()) + ".")
    if "blocks" in args.only:
        show(lines, f"\n**More blocks**, {BLOCKS_BATCH} images of 32x32 pixels\n")
        found["blocks"] = table(lines, BLOCKS_TABLE, more_blocks(small))
        found["each_further_block"] = each_further_block(found["blocks"])
        for row in found["each_further_block"]:
            show(lines, "\nEach further block, from {from} to {to}: {build_ms:.1f} ms to build, {training_ms:.1f} ms a "
                 "training step.".format(**row))
    if args.output:
        (args.output / "benchmark.json").write_text(json.dumps(found, indent=2) + "\n")
        (args.output / "table.md").write_text("\n".join(lines) + "\n")


def arguments():
    """Return the arguments of the command line; a wrong one ends the program here."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    flag = parser.add_argument
    flag("--only", metavar="NAME", nargs="+", choices=NAMES, default=NAMES,
         help=f"measure these alone; default: all of {', '.join(NAMES)}")
    flag("--quick", action="store_true", help="time one call of each, for a test of this program")
    flag("--output", metavar="DIR", type=Path, help="write benchmark.json and table.md there; default: only print")
    args = parser.parse_args()
    if args.output:
        try:
            args.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--output {args.output} cannot be written ({error.strerror}): choose another folder")
    return args


def facts(args):
    """Return what the times depend on besides the networks."""
    backend = keras.config.backend()
    has_affinity = hasattr(os, "sched_getaffinity")  # not on macOS and Windows
    return {
        "command": shlex.join(["python", "-m", "tests.benchmark", *sys.argv[1:]]),
        "quick": args.quick,
        "cores": len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count(),
        "machine": platform.platform(),
        "backend": backend,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "keras": keras.__version__,
                     backend: sys.modules[backend].__version__},
    }


def show(lines, line):
    """Print a line now, and keep it for table.md."""
    print(line, flush=True)
    lines.append(line)


def table(lines, columns, rows):
    """Show the rows as a table of Markdown, each as soon as it is known; return them as a list.

    Args:
        lines: of table.md, which get the table.
        columns: {title: a format of what stands below it}.
        rows: dictionaries, perhaps made one by one.
    """
    first, *others = columns

    def line(texts, fill=" "):
        numbers = (text.rjust(len(title), fill) for text, title in zip(texts[1:], others, strict=True))
        return f"| {' | '.join([texts[0].ljust(32, fill), *numbers])} |"

    show(lines, line(list(columns)))
    show(lines, line(["-", *("-:" for _ in others)], "-"))
    known = []
    for row in rows:
        show(lines, line([text.format(**row) for text in columns.values()]))
        known.append(row)
    return known


def cost_of_default(folder, calls):
    """Return what the default network of a train.py and its training cost: a row of the first table.

    Args:
        folder: of the train.py.
        calls: how many calls are timed, arguments of `shortest`.
    """
    forget()
    module = load(f"{folder}/train.py")
    steps = training_steps(folder, module, calls)
    name, shape, n_classes = module.MODEL, (32, 32, 3), 10
    if folder == "rcnn":
        name, shape, n_classes = "faster_rcnn_vgg8", (128, 128, 3), 11
    lessons = map(load, (path for path in MODULES if path.startswith(f"{folder}/")))
    lesson = next(lesson for lesson in lessons if name in lesson.METAPARAMETERS)
    build_it = functools.partial(build, lesson, lesson.METAPARAMETERS[name], shape, n_classes)
    network = build_it()
    x = keras.tree.map_structure(lambda inputs: noise(module.BATCH_SIZE, *inputs.shape[1:]), network.input)
    (inference,) = shortest(lambda: network.predict_on_batch(x), **calls)
    (building,) = shortest(build_it, n_calls=N_BUILDS, n_first=0)
    minutes, updates = (sum(step[key] for step in steps) for key in ("minutes", "updates"))
    return {
        "network": name,
        "batch_size": module.BATCH_SIZE,
        "parameters": n_parameters(network),
        "multiply_adds": multiply_adds(network),
        "build_seconds": building,
        "training_ms": 60_000 * minutes / updates,
        "inference_ms": 1000 * inference,
        "updates": updates,
        "minutes": minutes,
        "steps": steps,
    }


def training_steps(folder, module, calls):
    """Let a train.py begin its default training, and time a few updates of each model that it fits.

    It gets fewer images and scenes than in a training, all of them noise; the number of updates is that of a whole one.

    Returns:
        [{"step", "updates", "training_ms", "minutes"}, ...], of which only Faster R-CNN has several.
    """
    steps, rng = [], np.random.default_rng(0)
    flags = ["--scenes", str(N_SCENES)] if folder == "rcnn" else []
    splits = {name: (rng.integers(0, 256, (n, 32, 32, 3), "uint8"), np.arange(n, dtype="int32") % 10)
              for name, n in SIZES.items()}  # fmt: skip

    def fit(model, training, epochs, initial_epoch=0, callbacks=(), **others):
        step = next((callback.step for callback in callbacks if hasattr(callback, "step")), "training")
        of_scenes = folder == "rcnn" and step != "pre-training"
        share = module.N_SCENES["faster_rcnn"] / N_SCENES if of_scenes else 45_000 / SIZES["training"]
        updates = (epochs - initial_epoch) * math.ceil(share * training.n / training.batch_size)
        batch = training[0]
        (seconds,) = shortest(lambda: model.train_on_batch(*batch), **calls)
        steps.append({"step": step, "updates": updates, "training_ms": 1000 * seconds,
                      "minutes": updates * seconds / 60})  # fmt: skip

    class Trained(Exception):
        """All models are fitted."""

    with (
        tempfile.TemporaryDirectory() as where,
        mock.patch.object(sys, "argv", [f"{folder}/train.py", "--output", where, *flags]),
        mock.patch.object(module.data, "load", lambda *args: (splits, module.data.CLASSES)),
        mock.patch.object(keras.Model, "fit", fit),
        mock.patch.object(keras.saving, "load_model", side_effect=Trained),  # the best model, after the training
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(Trained),
    ):
        module.main()
    return steps


def beside_twin(name, calls):
    """Return the times of a network and of its twin in keras.applications: a row of the second table."""
    forget()
    path, theirs = TWINS[name]
    lesson = load(path)
    models = {
        "ours": build(lesson, lesson.METAPARAMETERS[name], TWIN_SHAPE, 1000),
        "theirs": getattr(applications, theirs)(weights=None, input_shape=TWIN_SHAPE),
    }
    x, y = noise(TWIN_BATCH, *TWIN_SHAPE), np.arange(TWIN_BATCH)
    for model in models.values():
        model.compile("sgd", "sparse_categorical_crossentropy")
    row = {"network": name}
    steps = {
        "training": [functools.partial(model.train_on_batch, x, y) for model in models.values()],
        "inference": [functools.partial(model.predict_on_batch, x) for model in models.values()],
    }
    for what in TIMED:
        seconds = shortest(*steps[what], **calls)
        row[f"{what}_ms"] = dict(zip(models, (1000 * value for value in seconds), strict=True))
        row[f"{what}_ratio"] = seconds[0] / seconds[1]
    return row


def more_blocks(calls):
    """Return the costs of ResNets of more and more blocks: the rows of the third table."""
    lesson = load("resnet/resnet_basic.py")
    builders = [
        functools.partial(
            lesson.build,
            lesson.METAPARAMETERS["resnet20_cifar10"] | {"groups": lesson.cifar10_groups(depth)}, (32, 32, 3), 10,
        )
        for depth in DEPTHS
    ]  # fmt: skip
    building = shortest(*builders, n_calls=N_BUILDS, n_first=1)
    networks = [build_it() for build_it in builders]
    x, y = noise(BLOCKS_BATCH, 32, 32, 3), np.arange(BLOCKS_BATCH) % 10
    for network in networks:
        network.compile("sgd", "sparse_categorical_crossentropy")
    training = shortest(*(functools.partial(network.train_on_batch, x, y) for network in networks), **calls)
    return [
        {
            "layers": depth,
            "blocks": (depth - 2) // 2,  # of two layers, between the first and the last
            "parameters": n_parameters(network),
            "multiply_adds": multiply_adds(network),
            "build_seconds": of_build,
            "training_ms": 1000 * of_training,
        }
        for depth, network, of_build, of_training in zip(DEPTHS, networks, building, training, strict=True)
    ]


def each_further_block(rows):
    """Return what each block costs that a row of the third table has more than the row before."""
    found = []
    for before, after in zip(rows, rows[1:], strict=False):
        n = after["blocks"] - before["blocks"]
        found.append({
            "from": before["blocks"],
            "to": after["blocks"],
            "build_ms": 1000 * (after["build_seconds"] - before["build_seconds"]) / n,
            "training_ms": (after["training_ms"] - before["training_ms"]) / n,
        })
    return found


def noise(*shape):
    """Return images of this shape, normally distributed."""
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def n_parameters(network):
    """Return the number of trainable parameters."""
    return sum(math.prod(variable.shape) for variable in network.trainable_variables)


def geometric_mean(ratios):
    """Return the geometric mean."""
    return float(np.exp(np.mean(np.log(list(ratios)))))


def forget():
    """Free the memory of the networks of the row before."""
    keras.utils.clear_session()
    gc.collect()


if __name__ == "__main__":
    main()

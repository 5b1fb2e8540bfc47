"""The tables of the pages: of networks, of their stages, and of the results of runs. See pages.py.

A table is a list of rows of cells, the header first.
"""

import ast
import functools
import inspect
import json
import math
import re
import shlex
import statistics
from pathlib import Path

import keras
from counting import multiply_adds
from folders import ROOT, build, without_numbers
from networks import once, whole
from test_parameters import NAMES, OFTEN, PARAMETERS, parameters

# Errors in percent: top-1 of one network on ImageNet's validation images, or of the test images of CIFAR-10, with
# augmentation. The variants that a paper does not have are left out.
ERRORS = {
    # Simonyan and Zisserman 2014, table 3: the best row of each configuration, one test scale
    "vgg11": "29.6", "vgg13": "28.7", "vgg16": "25.6", "vgg19": "25.5",
    # He et al. 2015, table 2 (18, with zero padding; plain) and table 3 (34 with option B, 50 to 152): ten crops
    "resnet18": "27.88", "resnet34": "24.52", "resnet50": "22.85", "resnet101": "21.75", "resnet152": "21.43",
    "plain18": "27.94", "plain34": "28.54",
    # table 6, with zero padding; 110 is the best of five runs
    "resnet20_cifar10": "8.75", "resnet32_cifar10": "7.51", "resnet44_cifar10": "7.17", "resnet56_cifar10": "6.97",
    "resnet110_cifar10": "6.43", "resnet1202_cifar10": "7.93",
    # He et al. 2016, table 5: one crop of 320x320; tables 2 and 4: CIFAR-10, medians of five runs
    "resnet152_v2": "21.1", "resnet200_v2": "20.7",
    "resnet110_v2_cifar10": "6.37", "resnet164_v2_cifar10": "5.46", "resnet1001_v2_cifar10": "4.92",
    # Szegedy et al. 2014, table 3, which has no top-1 error: one network, one crop
    "inception_v1": "10.07 (top-5)",
    # Szegedy et al. 2015: one network, one crop
    "inception_v3": "21.2",
    # Xie et al. 2017, table 3, one crop; table 4 (64x4d); table 7, means of ten runs
    "resnext50_32x4d": "22.2", "resnext101_32x4d": "21.2", "resnext101_64x4d": "20.4",
    "resnext29_8x64d_cifar10": "3.65", "resnext29_16x64d_cifar10": "3.58",
    # Huang et al. 2017, table 3, one crop; table 2, column C10+
    "densenet121": "25.02", "densenet169": "23.80", "densenet201": "22.58", "densenet264": "22.15",
    "densenet40_k12_cifar10": "5.24", "densenet100_k12_cifar10": "4.10", "densenet100_k24_cifar10": "3.74",
    "densenet_bc100_k12_cifar10": "4.51", "densenet_bc250_k24_cifar10": "3.62", "densenet_bc190_k40_cifar10": "3.46",
    # Hu et al. 2018, table 2 and, of SENet-154, table 8, one crop of 224x224; table 4
    "se_resnet50": "23.29", "se_resnet101": "22.38", "se_resnet152": "21.57",
    "se_resnext50_32x4d": "21.10", "se_resnext101_32x4d": "20.70", "se_inception_v2": "24.23", "senet154": "18.68",
    "se_resnet110_cifar10": "5.21",
    # Iandola et al. 2016, table 3: 100 less the accuracy
    "squeezenet_v1_0": "42.5", "squeezenet_v1_0_simple_bypass": "39.6", "squeezenet_v1_0_complex_bypass": "41.2",
}


class Wrong(Exception):
    """One sentence for a person: what is wrong with a part."""


def table(rows):
    """Return rows of cells, the header first, as a table of Markdown."""
    lines = ["".join(f"| {cell} " if cell else "| " for cell in row) + "|" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def single(rows):
    """Return the only cell of a table."""
    if [len(row) for row in rows] != [1, 1]:
        raise Wrong(f"within a sentence there is room for one cell, got {len(rows) - 1} rows of {len(rows[0])}")
    return rows[1][0]


def cells(old):
    """Return the rows of cells of a table of Markdown, without the line below the header."""
    lines = [line for line in old.split("\n") if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def columns_of(arguments, default, known):
    """Split "a b : c, d" into (["a", "b"], ["c", "d"]); the columns must be among the known ones."""
    before, _, after = arguments.partition(":")
    columns = [column.strip() for column in after.split(",")] if after.strip() else list(default)
    if unknown := [column for column in columns if column not in known]:
        raise Wrong(f"columns are some of {', '.join(known)}, got {', '.join(unknown)}")
    return before.split(), columns


def path_of(page, module):
    """Return the path of a module named in a page, such as "vgg/vgg.py"."""
    path = (Path(page).parent / f"{module}.py").as_posix()
    if not (ROOT / path).is_file():
        raise Wrong(f"there is no {path}")
    return path


# Tables of networks


def network(path, label):
    """Return a network without numbers, for the images and the classes of its test; without auxiliary classifiers."""
    name, changes = parsed(path, label)
    _, input_shape, n_classes = PARAMETERS[name]
    if changes:
        return changed(path, name, input_shape, n_classes, changes)
    model, _ = whole(path, name, input_shape, n_classes)  # which other tests look at, too
    if path not in WITH_AUXILIARY:
        return model
    with without_numbers():
        return keras.Model(model.input, model.output["main"])


WITH_AUXILIARY = ("inception/inception_v1.py", "inception/inception_v3.py")


@functools.cache
def changed(path, name, input_shape, n_classes, changes):
    """Return a network with other metaparameters, or options of build, than it has by its name."""
    module = once(path)
    of_build = {key: value for key, value in changes if key in inspect.signature(module.build).parameters}
    metaparameters = module.METAPARAMETERS[name] | {key: value for key, value in changes if key not in of_build}
    with without_numbers():
        try:
            return build(module, metaparameters, input_shape, n_classes, **of_build)
        except ValueError as error:
            raise Wrong(str(error)) from None


def parsed(path, label):
    """Split "name(key=value,key=value)" into the name and a tuple of (key, value); a value is a number or a text."""
    match = re.fullmatch(r"(\w+)(?:\((.+)\))?", label)
    if not match or NAMES.get(match[1]) != path:
        raise Wrong(f"{path} has no {label}")
    pairs = [pair.partition("=")[::2] for pair in match[2].split(",")] if match[2] else []
    return match[1], tuple((key, literal(value)) for key, value in pairs)


def literal(value):
    """Return what a text says, a number or so; or the text."""
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def takes_long(path, label):
    """Whether a network is not among those that the default suite builds, or has 150 layers, by its name, or more."""
    name, _ = parsed(path, label)
    return name not in OFTEN or any(int(depth) >= 150 for depth in re.findall(r"(?:net|bc)(\d+)", name))


def images_of(path, label):
    """Return the size of the images, and the number of classes if the network has classes."""
    name, _ = parsed(path, label)
    _, (height, width, n_channels), n_classes = PARAMETERS[name]
    size = f"{height}x{width}" if n_channels == 3 else f"{height}x{width}x{n_channels}"
    has_classes = "n_classes" in inspect.signature(once(path).build).parameters
    return f"{size}, {n_classes} classes" if has_classes else size


def blocks_of(path, label):
    """Return how many blocks, or convolutions, each group has, such as 3-4-6-3."""
    name, changes = parsed(path, label)
    groups = (once(path).METAPARAMETERS[name] | dict(changes)).get("groups", ())
    counts = []
    for group in groups:
        if isinstance(group, dict) and "blocks" not in group:
            counts.append(group.get("n_blocks", group.get("n_layers")))
        else:
            blocks = group["blocks"] if isinstance(group, dict) else group
            counts.append(sum(block is not None for block in blocks))  # None is an auxiliary classifier
    return "-".join(map(str, counts))


def error_of(path, label):
    """Return the error in the paper of a network as it stands there."""
    error, note, rest = ERRORS.get(label, "").partition(" ")
    return f"{error}%{note}{rest}" if error else ""


def without_excitation(path, label):
    """Return the trainable parameters of the same network without squeeze-excitation, if there is one here."""
    name = label.removeprefix("se_")
    return f"{parameters(network(NAMES[name], name)):,}" if name in NAMES and name != label else ""


def filters_of(path, label):
    """Return the filters of an autoencoder's layers from the image to the code."""
    return ", ".join(str(layer["n_filters"]) for layer in once(path).METAPARAMETERS[label]["layers"])


def code_of(path, label):
    """Return the shape of an autoencoder's code."""
    shape = network(path, label).get_layer("encoder").output_shape[1:]
    return f"{'x'.join(map(str, shape))}, {math.prod(shape)} numbers"


def reduction_of(path, label):
    """Return how much smaller than the image an autoencoder's code is."""
    model = network(path, label)
    return f"{1 - math.prod(model.get_layer('encoder').output_shape[1:]) / math.prod(model.input_shape[1:]):.0%}"


def outputs_of(path, label):
    """Return the groups of classes of a multilabel network, or its number of sigmoids."""
    outputs = network(path, label).output
    if isinstance(outputs, dict):
        return ", ".join(f"{name} ({output.shape[-1]})" for name, output in outputs.items())
    return f"{outputs.shape[-1]} sigmoids"


NETWORK_COLUMNS = {  # the head of a column: a function (path of the module, network) -> cell
    "network": lambda path, label: label.replace("(", " (").replace(",", ", ").replace("=", " "),
    "module": lambda path, label: "[{0}]({0})".format(path.split("/")[-1]),
    "images": images_of,
    "blocks": blocks_of,
    "convolutions": blocks_of,  # where a group has no blocks
    "trainable parameters": lambda path, label: f"{parameters(network(path, label)):,}",
    "multiply-adds": lambda path, label: short(multiply_adds(network(path, label))),
    "error in the paper": error_of,
    "without squeeze-excitation": without_excitation,
    "of them in the twin": lambda path, label: f"{parameters(network(path, label).get_layer('twin')):,}",
    "filters of the encoder": filters_of,
    "code": code_of,
    "reduction": reduction_of,
    "outputs": outputs_of,
}
DEFAULT = ("network", "images", "trainable parameters", "multiply-adds", "error in the paper")
OF_THE_MODEL = {"trainable parameters", "multiply-adds", "without squeeze-excitation", "of them in the twin"}
OF_THE_MODEL |= {"code", "reduction", "outputs"}  # for which it is built


def networks(page, arguments, old, quick):
    """Return the table of the networks of a module, or of some of them; a column without any entry is left out."""
    words, columns = columns_of(arguments, DEFAULT, NETWORK_COLUMNS)
    chosen = networks_of(page, words)
    head, *body = cells(old) or [[]]
    if quick and old and not head and any(takes_long(*pair) for pair in chosen):
        return old  # within a sentence
    before, rows = {row[0]: dict(zip(head, row, strict=False)) for row in body}, []
    for path, label in chosen:
        row, name = {}, NETWORK_COLUMNS["network"](path, label)
        kept = before.get(name, {}) if quick and takes_long(path, label) else {}
        for column in columns:
            keeps = column in kept and column in OF_THE_MODEL
            row[column] = kept[column] if keeps else NETWORK_COLUMNS[column](path, label)
        rows.append(row)
    shown = [column for column in columns if any(row[column] for row in rows)]
    return [shown, *([row[column] for column in shown] for row in rows)]


def networks_of(page, words):
    """Return [(path, network), ...] of "MODULE NETWORK NETWORK MODULE ...", all of a module with none behind it."""
    chosen = []
    for word in words:
        if chosen and NAMES.get(word.partition("(")[0]) == chosen[-1][0]:
            chosen[-1][1].append(word)
        elif chosen and not ((ROOT / page).parent / f"{word}.py").is_file():
            raise Wrong(f"{word} is no network of {chosen[-1][0]}, and no module")
        else:
            chosen.append((path_of(page, word), []))
    if not chosen:
        raise Wrong("networks needs a module")
    return [(path, label) for path, labels in chosen for label in labels or once(path).METAPARAMETERS]


def stages(page, arguments, old, quick):
    """Return the table of the stages of a network, with the sums below."""
    words = arguments.split()
    if len(words) != 2:
        raise Wrong("stages needs a module and a network")
    path, label = path_of(page, words[0]), words[1]
    if quick and takes_long(path, label) and old.strip():
        return old.strip("\n")
    rows = [(stage, shapes_of(outputs), *counts) for stage, outputs, *counts in stages_of(path, network(path, label))]
    sums = [sum(row[i] for row in rows) for i in (2, 3)]
    rows.append(("**all**", "", *sums))
    head = ["stage", "output", "parameters", "multiply-adds"]
    return [head, *([stage, shape, f"{n:,}", short(operations)] for stage, shape, n, operations in rows)]


def stages_of(path, model):
    """Return [(stage, its output tensors, trainable parameters, multiply-adds), ...] from the image on.

    The network is counted from its input to the end of each stage; a stage has what is more than to the one before.
    """
    cut, times, last = model, 1, "classifier"
    outputs = list(model.output.values()) if isinstance(model.output, dict) else model.outputs
    if path.startswith("rcnn/"):
        backbone, head = (model.get_layer(name)._inbound_nodes[-1] for name in ("backbone", "head"))
        ends = [("stem", backbone.output_tensors), ("learner", head.input_tensors)]
        used = {id(tensor) for tensor in outputs}
        outputs = [tensor for tensor in head.output_tensors if id(tensor) in used]  # without the proposals
    elif path.startswith("autoencoder/"):
        ends, last = [("encoder", model.get_layer("decoder")._inbound_nodes[-1].input_tensors)], "decoder"
    else:
        if path.startswith("siamese/"):  # the twin, which encodes two images
            cut, times = model.get_layer("twin"), 2
        ends = [(layer.name, [layer.output]) for layer in cut.layers if isinstance(layer, keras.layers.Identity)]
        if cut is not model:
            ends.append(("encoding", cut.outputs))
    found, before = [], (0, 0)
    for stage, tensors in [*ends, (last, outputs)]:
        if stage == last:
            counts = parameters(model), multiply_adds(model)
        else:
            with without_numbers():
                upto = keras.Model(cut.input, tensors)
            counts = parameters(upto), times * multiply_adds(upto)
        found.append((stage, tensors, *(n - m for n, m in zip(counts, before, strict=True))))
        before = counts
    return found


def shapes_of(outputs):
    """Return the shapes of tensors without their first dimension, such as (7, 7, 2048)."""
    return ", ".join(str(tuple(tensor.shape[1:])) for tensor in outputs)


def short(number):
    """Return a number in three digits or so: 1.82G, 40.9M, 650."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.{max(0, 2 - int(math.log10(number / size)))}f}{unit}"
    return str(number)


# Tables of results

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IDEAS = {  # of the table of all folders: year, and what is new in five words
    "vgg": ("2014", "nothing but 3x3 convolutions"),
    "inception": ("2014", "branches of several kernel sizes"),
    "resnet": ("2015", "blocks learn what to add"),
    "resnext": ("2016", "many narrow branches, one sum"),
    "densenet": ("2016", "layers see all earlier layers"),
    "senet": ("2017", "feature maps are scaled"),
    "squeezenet": ("2016", "squeeze with 1x1, then expand"),
    "multilabel": ("", "one backbone, several labels"),
    "siamese": ("2015", "are two images alike?"),
    "autoencoder": ("2006", "an image through a bottleneck"),
    "rcnn": ("2013 to 2015", "where is what?"),
}
NAMES_OF_ROWS = {"all_zero": "guess: no class at all", "all_one": "guess: every class"}  # the keys of a part of a file


VARIANTS = {  # of rcnn_ablation.py
    "now": "centered anchors, the released loss",
    "off_center": "anchors 6 pixels off",
    "mean": "the box loss a mean over the positive anchors",
    "both": "both",
}


def training_of(run):
    """Return how a detector was trained, in words."""
    of_faster = "jointly" if run.get("joint") else "in four steps"
    return {"rcnn": "fine-tuned, then linear models", "fast_rcnn": "in one step"}.get(run["model"], of_faster)


def of_test(name):
    """Return a function that looks a score of the test images up; that of a guess has no test_ before its name."""
    return lambda run: run[f"test_{name}"] if f"test_{name}" in run else run[name]


def of_images(code):
    """Return a function that gives the errors of an autoencoder, or of another code: decibels and, in brackets, MSE."""
    return lambda run: f"{run['test_psnr'][code]:.2f} ({run['test_mse'][code]:.5f})"


def folder_of(run):
    """Return the folder whose train.py made a run."""
    return re.search(r"(\w+)/train\.py", run["command"])[1]


def operations_of(run):
    """Return the multiply-adds of the network of a run, if it is what METAPARAMETERS have under its name today."""
    name = run["model"]
    model = network(NAMES[name], name)
    return short(multiply_adds(model)) if parameters(model) == run["parameters"] else ""


COLUMNS = {  # the head of a column: (a function of a results.json, how its number is written)
    "network": (lambda run: run["model"], ""),
    "folder": (lambda run: f"[{folder_of(run)}]({folder_of(run)})", ""),
    "year": (lambda run: IDEAS[folder_of(run)][0], ""),
    "idea": (lambda run: IDEAS[folder_of(run)][1], ""),
    "parameters": (lambda run: run["parameters"], "{:,}"),
    "multiply-adds": (operations_of, ""),
    "epochs": (lambda run: run["epochs"], "{}"),
    "minutes": (lambda run: run["seconds"] / 60, "{:.0f}"),
    "seconds": (lambda run: run["seconds"], "{:.0f}"),
    "validation accuracy": (lambda run: run["validation_accuracy"], "{:.2%}"),
    "test accuracy": (lambda run: run["test_accuracy"], "{:.2%}"),
    "test accuracy of each seed": (lambda run: f"{run['test_accuracy']:.2%}", ""),
    "seed": (lambda run: str(run["seed"]), ""),
    "learning rate": (lambda run: run["learning_rate"], "{}"),
    "batch size": (lambda run: run["batch_size"], "{}"),
    "classes": (lambda run: ", ".join(run["classes"]), ""),
    "weights": (lambda run: "with" if run["weights"] else "without", ""),
    # multilabel
    **{name: (of_test(f"{name}_accuracy"), "{:.2%}") for name in ("kind", "realm", "alive")},
    "macro F1": (of_test("macro_f1"), "{:.3f}"),
    "micro F1": (of_test("micro_f1"), "{:.3f}"),
    "mean average precision": (of_test("mean_average_precision"), "{:.3f}"),
    "binary accuracy": (of_test("binary_accuracy"), "{:.3f}"),
    "exact match": (of_test("exact_match"), "{:.3f}"),
    # siamese
    "classes to learn from": (lambda run: 10 - run["held_out_classes"], "{}"),
    "verification (validation)": (lambda run: run["validation_accuracy"], "{:.2%}"),
    "verification (test)": (lambda run: run["test_accuracy"], "{:.2%}"),
    "ways": (lambda run: run["ways"], "{}"),
    "one-shot": (lambda run: run["one_shot_accuracy"], "{:.2%}"),
    "chance": (lambda run: run["one_shot_chance"], "{:.0%}"),
    # autoencoder
    "numbers in the code": (lambda run: run["code_size"], "{}"),
    **{code: (of_images(code), "") for code in ("autoencoder", "mean image", "scaled image", "PCA")},
    # rcnn
    "training": (training_of, ""),
    "variant": (lambda run: VARIANTS[shlex.split(run["command"])[2]], ""),
    "mAP at IoU 0.5": (lambda run: run["map_50"], "{:.3f}"),
    "on validation scenes": (lambda run: run["validation_map_50"], "{:.3f}"),
    "proposals a scene": (lambda run: run["proposals_per_image"], "{:.0f}"),
    "recall of the proposals": (lambda run: run["proposal_recall"], "{:.1%}"),
    **{name: (lambda run, name=name: run["average_precision"][name], "{:.2f}") for name in CLASSES},
    **{part: (lambda run, part=part: run[part], "{:.4f}") for part in ("proposals", "features", "heads")},
    "all": (lambda run: run["proposals"] + run["features"] + run["heads"], "{:.4f}"),
}
OF_A_RUN = ("network", "parameters", "epochs", "minutes", "validation accuracy", "test accuracy")


def results(page, arguments, old, quick):
    """Return the table of some runs: a row for each command, whatever its seed."""
    paths, columns = columns_of(arguments, OF_A_RUN, COLUMNS)
    if not paths:
        raise Wrong("results needs a path")
    commands = {}
    for path in paths:
        for command, run in runs_of(page, path):
            commands.setdefault(command, []).append(run)
    rows = [[cell(column, runs) for column in columns] for runs in commands.values()]
    for column, entries in zip(columns, zip(*rows, strict=True), strict=True):
        if not any(entries):
            raise Wrong(f"none of these results has {column}")
    return [columns, *rows]


def runs_of(page, path):
    """Return [(the command without seed and output folder, its results), ...] of a path in a page."""
    path, _, keys = path.partition("#")
    folder = (ROOT / page).parent
    files = sorted(folder.glob(path))
    files = [file / "results.json" if file.is_dir() else file for file in files]
    if not files or not all(file.is_file() for file in files):
        raise Wrong(f"there are no results {path}")
    found = []
    for file in files:
        run = json.loads(file.read_text())
        if keys:
            try:
                run = functools.reduce(lambda part, key: part[key], keys.split("."), run)
            except (KeyError, TypeError):
                raise Wrong(f"{path} has no {keys}") from None
            last = keys.split(".")[-1]
            run, command = {"model": NAMES_OF_ROWS.get(last, last)} | run, f"{file}#{keys}"
        else:
            command = re.sub(r" --(seed|output)[ =]\S+", "", shlex.join(shlex.split(run["command"])))
        found.append((command, run))
    return found


def cell(column, runs):
    """Return what stands in a column for the runs of one command: a value, or the mean and the deviation of several."""
    function, form = COLUMNS[column]
    try:
        values = [function(run) for run in runs]
    except KeyError:
        return ""  # a guess has no epochs
    if isinstance(values[0], str):
        return ", ".join(dict.fromkeys(values))
    if len(set(values)) == 1:
        return form.format(values[0])
    mean, deviation = form.format(statistics.mean(values)), form.format(statistics.stdev(values))
    return f"{mean.removesuffix('%')} ± {deviation}"

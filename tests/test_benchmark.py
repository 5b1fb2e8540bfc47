"""The program that measures times: what it counts, against figures of papers and of torchvision, and what it writes."""

import json
import math
import re
import shlex
import sys

import keras
import pytest
from counting import multiply_adds
from folders import FOLDERS, ROOT, build, run_python
from keras import Input, Model, layers
from networks import once
from test_parameters import PARAMETERS
from test_readme import COMMANDS

import benchmark
import step_times

RESNET, VGG, RESNEXT = "resnet/resnet_v1.py", "vgg/vgg.py", "resnext/resnext.py"
# Thousand millions of multiply-adds in torchvision's tables of weights, "_ops", and the size of its images.
TORCHVISION = {
    "vgg16": (VGG, 15.470, 224),
    "vgg19": (VGG, 19.632, 224),
    "resnet18": ("resnet/resnet_basic.py", 1.814, 224),
    "resnet50_v1_5": (RESNET, 4.089, 224),
    "inception_v3": ("inception/inception_v3.py", 5.713, 299),
    "resnext50_32x4d": (RESNEXT, 4.230, 224),
    "densenet121": ("densenet/densenet.py", 2.834, 224),
    "squeezenet_v1_1": ("squeezenet/squeezenet.py", 0.349, 224),
}


def of(path, name, shape, n_classes, **changes):
    module = once(path)
    return multiply_adds(build(module, module.METAPARAMETERS[name] | changes, shape, n_classes))


@pytest.mark.parametrize(
    "name", [name if name == "squeezenet_v1_1" else pytest.param(name, marks=pytest.mark.slow) for name in TORCHVISION]
)
def test_multiply_adds_are_those_of_torchvision(name):
    path, published, size = TORCHVISION[name]
    found = of(path, name, (size, size, 3), 1000)
    assert round(found / 1e9, 3) == published
    if name == "vgg16":  # as others count it: of the convolutions 15,346,630,656, of the dense layers 123,633,664
        assert found == 15_470_264_320


@pytest.mark.slow
def test_multiply_adds_of_resnet50_are_those_of_the_paper():
    """Table 1 says 3.8 thousand millions; version 1.5, above, strides later."""
    assert 3.8e9 <= of(RESNET, "resnet50", (224, 224, 3), 1000) < 3.9e9


def test_multiply_adds_of_resnet20():
    """Often published as 40.8M with projections (and 40.6M without)."""
    stem, classifier = 32 * 32 * 9 * 3 * 16, 64 * 10
    group_1 = 6 * 32 * 32 * 9 * 16 * 16
    group_2 = 16 * 16 * (9 * 16 * 32 + 5 * 9 * 32 * 32)
    group_3 = 8 * 8 * (9 * 32 * 64 + 5 * 9 * 64 * 64)
    projections = 16 * 16 * 16 * 32 + 8 * 8 * 32 * 64
    path, without = "resnet/resnet_basic.py", stem + group_1 + group_2 + group_3 + classifier
    assert without + projections == 40_813_184
    assert of(path, "resnet20_cifar10", (32, 32, 3), 10) == without + projections
    assert of(path, "resnet20_cifar10", (32, 32, 3), 10, shortcut_type="zero_padding") == without


def test_multiply_adds_of_one_layer_of_each_kind():
    inside = Input((5,))
    twice = Model(inside, layers.Dense(6)(inside))
    images = Input((8, 8, 4))
    x = layers.Conv2D(8, 3, 2, "same")(images)  # (4, 4, 8)
    x = layers.Conv2D(8, 3, padding="same", groups=4)(x)  # (4, 4, 8), each of two feature maps
    x = layers.DepthwiseConv2D(3)(layers.BatchNormalization()(x))  # (2, 2, 8)
    x = layers.Conv2DTranspose(4, 2, 2)(x)  # (4, 4, 4)
    x = layers.Dense(3)(layers.Reshape((16, 4))(x))  # (16, 3)
    x = layers.Dense(5, activation="relu")(layers.Flatten()(x))
    x = layers.Add()([twice(x), twice(2 * x)])
    by_hand = (
        4 * 4 * 3 * 3 * 4 * 8,
        4 * 4 * 3 * 3 * 2 * 8,
        2 * 2 * 3 * 3 * 8,
        2 * 2 * 2 * 2 * 8 * 4,
        16 * 4 * 3,
        48 * 5,
        2 * 5 * 6,
    )
    assert sum(by_hand) == 8204
    assert multiply_adds(Model(images, x)) == sum(by_hand)


def test_multiply_adds_of_both_forms_of_the_grouped_convolution():
    forms = ("split_transform_merge", "grouped_convolution")
    args = (RESNEXT, "resnext20_4x8d_cifar10", (32, 32, 3), 10)
    one, other = (of(*args, convolution=form) for form in forms)
    assert one == other > 0


def test_multiply_adds_of_a_pair_an_autoencoder_and_a_detector():
    """Two images by the same twin; transposed convolutions; models of any size, and a head for each region."""
    areas = ((32, 3, 32), (16, 32, 64), (16, 64, 64), (8, 64, 128), (8, 128, 128))
    twin = sum(9 * size**2 * a * b for size, a, b in areas) + 4 * 4 * 128 * 256
    assert of("siamese/siamese.py", "siamese_cifar10", (32, 32, 3), None) == 2 * twin + 256

    halved = ((16, 3, 64), (8, 64, 32), (4, 32, 32))
    encoder = sum(9 * size**2 * a * b for size, a, b in halved)
    decoder = sum(9 * size**2 * a * b for size, a, b in ((4, 32, 32), (8, 32, 32), (16, 32, 3)))
    assert of("autoencoder/autoencoder.py", "autoencoder_cifar10", (32, 32, 3), None) == encoder + decoder

    areas = ((128, 3, 32), (128, 32, 32), (64, 32, 96), (64, 96, 96), (32, 96, 192), (32, 192, 192), (32, 192, 128))
    stem_and_rpn = sum(9 * size**2 * a * b for size, a, b in areas) + 32 * 32 * 128 * 3 * (2 + 4)
    heads = 100 * (4 * 4 * 192 * 256 + 256 * 11 * (1 + 4))
    assert of("rcnn/faster_rcnn.py", "faster_rcnn_vgg8", (128, 128, 3), 11) == stem_and_rpn + heads


def test_the_shortest_of_calls_in_turns(monkeypatch):
    called, clock = [], iter([0, 1, 1, 3, 0, 10, 0, 20, 0, 12, 0, 18, 0, 11, 0, 19])
    monkeypatch.setattr(step_times.time, "perf_counter", lambda: next(clock))
    steps = (lambda: called.append("a"), lambda: called.append("b"))
    assert step_times.shortest(*steps, n_calls=3, n_first=1) == [10, 18]  # not 1 and 2, which compile
    assert called == 4 * ["a", "b"]


def test_what_each_further_block_costs():
    rows = [
        {"blocks": n, "build_seconds": 0.1 + 0.02 * n, "training_ms": 5.0 * n * n} for n in (3, 6, 12)
    ]  # a step that grows faster than the blocks
    found = benchmark.each_further_block(rows)
    assert [(row["from"], row["to"]) for row in found] == [(3, 6), (6, 12)]
    assert [row["build_ms"] for row in found] == pytest.approx([20, 20])
    assert [row["training_ms"] for row in found] == pytest.approx([45, 90])
    assert benchmark.geometric_mean([0.5, 2, 8]) == pytest.approx(2)


def test_a_wrong_command_ends_in_a_sentence(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").touch()
    wrong = (
        (["--only", "vgg99"], "vgg99"), (["--only"], "--only"), (["--gpu"], "--gpu"),
        (["--output", f"{tmp_path}/file/folder"], "cannot be written (Not a directory): choose another folder"),
    )  # fmt: skip
    for flags, sentence in wrong:
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *flags])
        with pytest.raises(SystemExit) as exit_:
            benchmark.main()
        printed = capsys.readouterr()
        assert exit_.value.code == 2 and sentence in printed.err and not printed.out


def test_the_command_of_the_readme(monkeypatch, tmp_path):
    ((_, command),) = (row for row in COMMANDS if "tests.benchmark" in row[1])
    python, m, module, *flags = shlex.split(command)
    assert (python, m, module) == ("python", "-m", "tests.benchmark")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *flags])
    args = benchmark.arguments()
    assert args.output.is_dir() and not args.quick and args.only == benchmark.NAMES


def flags_for(where, *names):
    return ["--quick", "--only", *names, "--output", str(where)]


def check_files(where, flags, printed):
    """The files hold what was printed, and each other's figures; return what benchmark.json holds."""
    found, text = json.loads((where / "benchmark.json").read_text()), (where / "table.md").read_text()
    assert text == printed
    assert found["command"] == shlex.join(["python", "-m", "tests.benchmark", *flags]) and found["quick"] is True
    assert found["cores"] >= 1 and found["backend"] == keras.config.backend()
    assert found["versions"]["keras"] == keras.__version__ and found["versions"].keys() > {found["backend"], "numpy"}
    rows = [re.split(r" *\| *", line)[1:-1] for line in text.split("\n") if re.match(r"\| \w", line)]
    for row in found.get("defaults", ()):
        assert [row["network"], str(row["batch_size"]), f"{row['parameters']:,}"] in [cells[:3] for cells in rows]
        assert row["minutes"] == pytest.approx(row["updates"] * row["training_ms"] / 60_000)
        assert min(row["training_ms"], row["inference_ms"], row["build_seconds"]) > 0
        assert row["parameters"] == PARAMETERS[row["network"]][0]
    return found


@pytest.mark.slow
def test_the_program_writes_what_it_measures(tmp_path):
    """Each network is called once."""
    flags = flags_for(tmp_path, "autoencoder", "blocks")
    found = check_files(tmp_path, flags, run_python("-m", "tests.benchmark", *flags, cwd=ROOT))
    (row,) = found["defaults"]
    assert (row["network"], row["updates"]) == ("autoencoder_cifar10", 20 * math.ceil(45_000 / 64))
    assert row["steps"] == [
        {"step": "training", "updates": row["updates"], "training_ms": pytest.approx(row["training_ms"]),
         "minutes": row["minutes"]},
    ]  # fmt: skip
    blocks = found["blocks"]
    assert [(row["layers"], row["blocks"]) for row in blocks] == [(8, 3), (14, 6), (26, 12)]
    for key in ("parameters", "multiply_adds"):  # the first block of a group has less to do, all others the same
        first, second, third = (row[key] for row in blocks)
        assert third - second == 2 * (second - first) > 0
    assert found.keys() > {"each_further_block"} and "twins" not in found


@pytest.mark.slow
def test_the_program_measures_every_folder_and_a_twin(monkeypatch, capsys, tmp_path):
    """Without training: every step takes a hundredth of a second."""
    monkeypatch.setattr(benchmark, "shortest", lambda *steps, **calls: [0.01 * (i + 1) for i in range(len(steps))])
    flags = flags_for(tmp_path, *FOLDERS, "vgg16")
    monkeypatch.setattr(sys, "argv", ["tests/benchmark.py", *flags])
    benchmark.main()
    text = capsys.readouterr().out
    found = check_files(tmp_path, flags, text)
    assert len(found["defaults"]) == len(FOLDERS)
    updates = {}
    for folder, row in zip(FOLDERS, found["defaults"], strict=True):
        module = once(f"{folder}/train.py")
        updates[folder] = [step["updates"] for step in row["steps"]]
        if folder != "rcnn":
            n = 22_500 if folder == "siamese" else 45_000  # pairs
            assert updates[folder] == [module.EPOCHS * math.ceil(n / module.BATCH_SIZE)]
    # 5 epochs of 128 images a batch; of two scenes a batch a quarter of 5,000, all, a quarter and half of them.
    assert updates["rcnn"] == [5 * 352, 625, 2500, 625, 1250]
    names = ["pre-training", "1 region proposal network", "2 detector", "3 region proposal network", "4 head"]
    assert [step["step"] for step in found["defaults"][-1]["steps"]] == names
    assert all(f"| {name} " in text for name in names)
    (twin,) = found["twins"]
    for what in ("training", "inference"):
        ours, theirs = (twin[f"{what}_ms"][whose] for whose in ("ours", "theirs"))
        assert found["geometric_mean"][what] == pytest.approx(ours / theirs) and ours > 0
    assert "Geometric mean of the ratios: training " in text

"""The experiments, from the command line to table and figure: what they write, and that an interrupted one resumes."""

import csv
import json
import sys

import pytest
from folders import load
from photos import write_photos
from test_parameters import FIRE_FILTERS, SQUEEZENET_CIFAR10

WRITTEN = {"measurements.csv", "results.json", "table.md", "errors.png"}
# A 3x3 convolution with bias, and batch normalization or not, has 9 c_in c_out + c_out or 3 c_out parameters.
VGG = {
    depth: [(a, b) for c_in, b, n in ((3, 32, n[0]), (32, 64, n[1]), (64, 128, n[2])) for a in (c_in, *(n - 1) * [b])]
    for depth, n in {6: (1, 2, 2), 8: (2, 2, 3), 11: (3, 3, 4)}.items()
}
SQUEEZENET = SQUEEZENET_CIFAR10 + FIRE_FILTERS
NETWORKS = {  # {script: {network: parameters}}
    "vgg/depth_and_normalization.py": {
        f"{depth} layers{', batch normalization' * bool(bn)}": sum(9 * a * b + (3 if bn else 1) * b for a, b in pairs)
        + (4 * 4 * 128 + 1) * 10
        for bn in (0, 1)
        for depth, pairs in VGG.items()
    },
    "resnet/plain_against_residual.py": {
        f"{kind}, {depth} layers": parameters
        for depth, parameters in ((20, 269_722), (56, 853_018))
        for kind in ("plain", "residual")  # section 4.1 of the paper: no extra parameter
    },
    "senet/with_and_without_se.py": {  # resnet14_wide, and two dense layers in two blocks of each group
        "without SE": 696_618,
        "ratio 16": 696_618 + sum(2 * (2 * c * c // 16 + c // 16 + c) for c in (32, 64, 128)),
        "ratio 4": 696_618 + sum(2 * (2 * c * c // 4 + c // 4 + c) for c in (32, 64, 128)),
    },
    "squeezenet/bypasses.py": {  # section 6 of the paper: the simple one adds no parameters
        "no bypass": SQUEEZENET,
        "simple bypass": SQUEEZENET,
        "complex bypass": SQUEEZENET + sum((a + 1) * b for a, b in ((64, 128), (128, 256), (256, 384), (384, 512))),
    },
}  # fmt: skip


def run(module, monkeypatch, output, *flags):
    monkeypatch.setattr(sys, "argv", ["experiment", *map(str, flags), "--output", str(output)])
    module.main()


def tiny(n_epochs=None):
    """Return senet/with_and_without_se.py with a small network, to be interrupted after some epochs, and these."""
    module, begun = load("senet/with_and_without_se.py"), []
    module.METAPARAMETERS = {
        "se_resnet14_wide_cifar10": {
            "groups": ({"n_filters": 16, "n_blocks": 1}, {"n_filters": 32, "n_blocks": 1}),
            "stem": {"n_filters": 16, "kernel_size": 3, "strides": 1, "pooling": True},
            "bottleneck": False,
        }
    }
    of_training = module.experiment.run.Epochs
    on_epoch_begin = of_training.on_epoch_begin

    def counted(callback, epoch, logs=None):
        if len(begun) == n_epochs:
            raise KeyboardInterrupt
        begun.append(epoch)
        on_epoch_begin(callback, epoch, logs)

    of_training.on_epoch_begin = counted
    return module, begun


def measurements(folder):
    with open(folder / "measurements.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_an_interrupted_experiment_resumes(monkeypatch, capsys, tmp_path):
    """In the second of two epochs of the second of three trainings; finished ones are not repeated."""
    flags = ["--data", "synthetic", "--limit", "60", "--seeds", "1", "--epochs"]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    module, begun = tiny()
    run(module, monkeypatch, whole, *flags, 2)
    assert begun == 3 * [0, 1] and WRITTEN <= {path.name for path in whole.iterdir()}
    table = (whole / "table.md").read_text()
    assert table in capsys.readouterr().out and "nan" not in table and "±" not in table  # of a single seed

    module, begun = tiny(3)
    with pytest.raises(SystemExit) as exit_:
        run(module, monkeypatch, resumed, *flags, 2)
    assert exit_.value.code == 130 and begun == [0, 1, 0]
    assert not WRITTEN & {path.name for path in resumed.iterdir()}
    module, begun = tiny()
    run(module, monkeypatch, resumed, *flags, 2)
    assert begun == [1, 0, 1]
    assert measurements(resumed) == measurements(whole)
    assert (resumed / "table.md").read_text() == table

    module, begun = tiny()
    run(module, monkeypatch, resumed, *flags, 2)
    assert begun == [] and measurements(resumed) == measurements(whole)

    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        run(module, monkeypatch, resumed, *flags, 3)
    sentence = f"--output {resumed} holds an experiment with other flags: choose another folder"
    assert exit_.value.code == 2 and sentence in capsys.readouterr().err

    rows = measurements(whole)
    assert [(row["network"], row["epoch"]) for row in rows] == [
        (name, epoch) for name in ("without SE", "ratio 16", "ratio 4") for epoch in "12"
    ]
    networks = json.loads((whole / "results.json").read_text())["networks"]
    convolutions = 27 * 16 * 32**2 + 2 * 144 * 16 * 16**2 + (16 + 144 + 288) * 32 * 8**2  # with the shortcut, 1x1
    kernels = 27 * 16 + 2 * 144 * 16 + (16 + 144 + 288) * 32 + 2 * (3 * 16 + 3 * 32)  # and batch normalization
    for name, units in (("without SE", ()), ("ratio 16", (1, 2)), ("ratio 4", (4, 8))):
        pairs = list(zip((16, 32), units, strict=False))
        assert networks[name]["multiply_adds"] == convolutions + sum(2 * c * n for c, n in pairs) + 32 * 10
        assert networks[name]["parameters"] == kernels + sum(2 * c * n + c + n for c, n in pairs) + 33 * 10


def test_the_table_has_means_and_standard_errors_of_the_last_epoch():
    """And those of the differences of trainings with the same seed."""
    experiment = load("vgg/experiment.py")
    errors = {"a": ((9, 60), (10, 40), (14, 41)), "b": ((9, 60), (12, 43), (13, 46))}  # of each epoch and seed
    rows = [
        {"network": name, "seed": seed, "epoch": epoch, "training_error": of_seed / 2, "validation_error": of_seed}
        for name, of_seeds in errors.items()
        for seed, of_seed in enumerate(of_seeds)
        for epoch, of_seed in enumerate(of_seed, 1)
    ]
    _, _, first, second = experiment.table(rows, {"a": (1234, 5_670_000), "b": (1300, 5_710_000)}).strip().split("\n")
    assert first == "| a | 1,234 | 5.7M | 23.50 ± 3.25% | 47.00 ± 6.51% |  |"  # of 60, 40, 41: deviation 11.27
    assert second == "| b | 1,300 | 5.7M | 24.83 ± 2.62% | 49.67 ± 5.24% | +2.67 ± 1.45 |"  # of 0, 3, 5: 2.52


@pytest.mark.slow
@pytest.mark.parametrize("script", NETWORKS)
@pytest.mark.usefixtures("eagerly")
def test_every_experiment_runs(script, monkeypatch, tmp_path):
    """With its own networks, of as many parameters as are counted elsewhere."""
    run(load(script), monkeypatch, tmp_path, "--data", "synthetic", "--limit", 20, "--epochs", 1, "--seeds", 1)
    assert WRITTEN <= {path.name for path in tmp_path.iterdir()}
    networks = json.loads((tmp_path / "results.json").read_text())["networks"]
    assert {name: found["parameters"] for name, found in networks.items()} == NETWORKS[script]
    rows = measurements(tmp_path)
    assert [row["network"] for row in rows] == list(networks)
    assert all(0 <= float(row[key]) <= 100 for row in rows for key in ("training_error", "validation_error"))
    assert not list(tmp_path.glob("*/model.keras"))  # the histories are all that is kept


def test_the_train_py_of_another_folder_is_refused(monkeypatch, capsys, tmp_path):
    """A notebook that ran the experiment of another folder still has it."""
    module = load("senet/with_and_without_se.py")
    monkeypatch.setattr(module.experiment, "train", load("resnet/train.py"))
    with pytest.raises(SystemExit) as exit_:
        run(module, monkeypatch, tmp_path, "--data", "synthetic")
    assert exit_.value.code == 2 and "resnet/train.py: restart it" in capsys.readouterr().err.replace("\\", "/")


@pytest.mark.parametrize("name, contents, sentence", [
    ("results.json", "{}", "holds results.json of another run: choose another folder"),
    ("table.md", "mine", "holds table.md of another run: choose another folder"),
    ("mine.png", "mine", "holds mine.png of another run: choose another folder"),
    ("settings.json", '{"data": "synthetic", "epochs": 8, "limit": 15000, "seeds": 3, "experiment": "bypasses"}',
     "holds an experiment with other flags: choose another folder"),
    ("settings.json", "// of an editor", "is not of an experiment: choose another folder"),
])  # fmt: skip
def test_a_folder_of_something_else_is_left_as_it_is(name, contents, sentence, monkeypatch, capsys, tmp_path):
    (tmp_path / name).write_text(contents)
    with pytest.raises(SystemExit) as exit_:
        run(load("vgg/depth_and_normalization.py"), monkeypatch, tmp_path, "--data", "synthetic")
    assert exit_.value.code == 2 and sentence in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: contents}


def test_photos_are_refused(monkeypatch, capsys, tmp_path):
    write_photos(tmp_path / "photos", {"a": 3, "b": 3})
    with pytest.raises(SystemExit) as exit_:
        run(load("resnet/plain_against_residual.py"), monkeypatch, tmp_path / "out", "--data", tmp_path / "photos")
    assert exit_.value.code == 2 and "which holds photos" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--seed", "1"], "unrecognized arguments: --seed 1"),  # not taken for --seeds
        (["--seeds", "0"], "argument --seeds: must be a whole number of at least 1, got 0"),
        (["--limit", "5"], "argument --limit: must be a whole number of at least 10, got 5"),
        (["--data", "/no/such"], "--data must be cifar10, synthetic or a folder, got /no/such"),
    ],
)
@pytest.mark.parametrize("script", NETWORKS)
def test_wrong_flags_are_refused_before_anything_is_written(script, flags, sentence, monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as exit_:
        run(load(script), monkeypatch, tmp_path / "out", *flags)
    assert exit_.value.code == 2 and sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

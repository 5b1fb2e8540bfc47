"""autoencoder/code_sizes.py: autoencoders with codes of several sizes, beside PCA."""

import csv
import json
import sys

import keras
import numpy as np
import pytest
from folders import load, without_numbers
from photos import write_photos

CODE_SIZES, AUTOENCODER = load("autoencoder/code_sizes.py"), load("autoencoder/autoencoder.py")
SHORT = ["--data", "synthetic", "--limit", "40", "--epochs", "2", "--seeds", "2"]


def code_sizes(monkeypatch, *flags, interrupted_at=None):
    """Run the experiment with two small networks, and interrupt it when so many epochs have begun."""
    module = load("autoencoder/code_sizes.py")
    module.HIDDEN, module.FILTERS = ({"n_filters": 4}, {"n_filters": 4}), (2, 8)
    begun, on_epoch_begin = [], module.run.Epochs.on_epoch_begin

    def begin(callback, epoch, logs=None):
        if len(begun) == interrupted_at:
            raise KeyboardInterrupt
        begun.append(epoch)
        on_epoch_begin(callback, epoch, logs)

    module.run.Epochs.on_epoch_begin = begin
    monkeypatch.setattr(sys, "argv", ["autoencoder/code_sizes.py", *map(str, flags)])
    module.main()
    return begun


def measurements(folder):
    with open(folder / "measurements.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def pca_psnr(splits, n_numbers):
    """By hand: project on the right singular vectors of the centered training images."""
    training, validation = (splits[name][0].reshape(-1, 3_072) / 255 for name in ("training", "validation"))
    mean = training.mean(0)
    directions = np.linalg.svd(training - mean, full_matrices=False)[2][:n_numbers]
    restored = (validation - mean) @ directions.T @ directions + mean
    return -10 * np.log10(((restored.clip(0, 1) - validation) ** 2).mean())


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_an_experiment_that_is_interrupted_and_repeated_is_that_of_a_whole_one(monkeypatch, capsys, tmp_path):
    """And what it measures is what numpy makes of its logs and of the images."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert code_sizes(monkeypatch, *SHORT, "--output", whole) == 4 * [0, 1]
    with pytest.raises(SystemExit) as exit_:
        code_sizes(monkeypatch, *SHORT, "--output", resumed, interrupted_at=3)  # after 1 1/2 trainings
    assert exit_.value.code == 130 and not (resumed / "results.json").exists()
    assert code_sizes(monkeypatch, *SHORT, "--output", resumed) == [1, 0, 1, 0, 1]
    rows = measurements(whole)
    assert rows == measurements(resumed)
    assert (whole / "table.md").read_text() == (resumed / "table.md").read_text()
    assert code_sizes(monkeypatch, *SHORT, "--output", resumed) == []
    with pytest.raises(SystemExit) as exit_:
        code_sizes(monkeypatch, *SHORT[:-1], "3", "--output", resumed)
    assert exit_.value.code == 2 and "holds an experiment with other flags" in capsys.readouterr().err

    assert [(row["code_size"], row["seed"]) for row in rows] == [(32, 0), (128, 0), (32, 1), (128, 1)]
    for row in rows:
        splits, _ = load("autoencoder/data.py").load("synthetic", 40, int(row["seed"]))
        if row["code_size"] < len(splits["training"][0]) - 1:  # beyond their rank directions are arbitrary
            assert row["PCA"] == pytest.approx(pca_psnr(splits, int(row["code_size"])), abs=1e-3)
        with open(whole / f"{row['code_size']:.0f}_{row['seed']:.0f}" / "history.csv", newline="") as file:
            errors = [float(epoch["val_loss"]) for epoch in csv.DictReader(file)]
        assert -10 * np.log10(min(errors)) - 1e-3 <= row["autoencoder"] < 20  # clipping takes some of the error
    results = json.loads((whole / "results.json").read_text())
    assert (results["seeds"], results["epochs"], results["limit"], results["data"]) == (2, 2, 40, "synthetic")
    assert results["command"].startswith("python autoencoder/code_sizes.py --data synthetic --limit 40")
    assert results["versions"]["keras"] == keras.__version__
    assert [network["psnr"]["PCA"] for network in results["networks"]] == [
        pytest.approx([row["PCA"] for row in rows if row["code_size"] == size], abs=1e-4) for size in (32, 128)
    ]
    assert {path.name for path in whole.iterdir() if path.is_file()} == {
        "measurements.csv", "results.json", "settings.json", "table.md", "psnr.png",
    }
    assert not list(whole.rglob("*.keras")) and not list(whole.rglob("backup"))


def test_multiply_adds_and_parameters_of_the_default():
    """By hand: 9 weights for each pair of feature maps, at each place of the smaller of the two sizes."""
    with without_numbers():
        network = AUTOENCODER.build(AUTOENCODER.METAPARAMETERS["autoencoder_cifar10"])
    down = 9 * (3 * 64 * 16**2 + 64 * 32 * 8**2 + 32 * 32 * 4**2)
    up = 9 * (32 * 32 * 4**2 + 32 * 32 * 8**2 + 32 * 3 * 16**2)
    assert CODE_SIZES.multiply_adds(network) == down + up


def test_the_table_has_means_with_standard_errors():
    """The difference is paired: here both rise from seed to seed, and it stays."""
    rows = [{"code_size": size, "seed": seed, "autoencoder": 20 + seed + size / 64, "PCA": 20.5 + seed}
            for seed in range(3) for size in (64, 128, 256, 512, 1_024)]
    sizes = {size: (1_000 * size, 2_728_000) for size in (64, 128, 256, 512, 1_024)}
    lines = CODE_SIZES.table(rows, sizes).strip().split("\n")
    assert len(lines) == 7  # of 1, 2 and 3, 2 is the mean, 1 the deviation, and 1 / sqrt(3) = 0.58 its error
    assert lines[2] == "| 64, 32, 4 filters | 64 | 64,000 | 2.7M | 22.00 ± 0.58 | 21.50 ± 0.58 | +0.50 ± 0.00 |"
    assert lines[6].startswith("| 64, 32, 64 filters | 1,024 | 1,024,000 | 2.7M | 37.00 ± 0.58 | 21.50 ± 0.58 | +15.50")
    of_one_seed = CODE_SIZES.table(rows[:5], sizes)
    assert "| 21.00 | 20.50 | +0.50 |" in of_one_seed and "nan" not in of_one_seed


def test_the_figure_shows_what_was_measured():
    rows = [{"code_size": size, "seed": seed, "autoencoder": 20 + seed, "PCA": size / 10 + seed}
            for seed in (0, 1) for size in (64, 128)]
    (axes,) = CODE_SIZES.psnr_figure(rows).axes
    lines = {container.get_label(): container.lines[0].get_xydata().tolist() for container in axes.containers}
    assert lines == {"autoencoder": [[64, 20.5], [128, 20.5]], "PCA": [[64, 6.9], [128, pytest.approx(13.3)]]}
    (bars,) = axes.containers[0].lines[2]
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [20.0, 21.0])  # 0.5 is the standard error of 0 and 1
    assert axes.get_xscale() == "log"


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--seeds", "0"], "argument --seeds: must be a whole number of at least 1, got 0"),
        (["--data", "/no/such"], "--data must be cifar10, synthetic or a folder, got /no/such"),
        (["--data", "PHOTOS"], "--data must be cifar10, synthetic or a folder with the binary files of CIFAR-10, got "),
    ],
)
def test_flags_that_are_refused(flags, sentence, monkeypatch, capsys, tmp_path):
    write_photos(tmp_path / "photos", {"a": 2, "b": 2})
    flags = [str(tmp_path / "photos") if flag == "PHOTOS" else flag for flag in flags]
    with pytest.raises(SystemExit) as exit_:
        code_sizes(monkeypatch, *flags, "--output", tmp_path / "out")
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert exit_.value.code == 2 and error.startswith("code_sizes.py: error: ") and sentence in error

"""More than one device, more than one process: the same training, and one that writes. With JAX."""

import argparse
import csv
import importlib.util
import json
import os
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
from folders import ROOT, load

needs_jax = pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="JAX is not installed")
FLAGS = ["--limit", "120", "--batch-size", "30", "--learning-rate", "0.001"]  # four steps

# Trains a tiny VGG with batch normalization, without augmentation, in a process of its own; or is interrupted.
TRAIN = """
import sys
sys.path.insert(0, "tests")
from folders import load
from networks import tiny
interrupted_at, *flags = sys.argv[1:]
module = load("vgg/train.py")
module.augmentation = lambda x, shift: x
given, _ = tiny("vgg with batch normalization")(module)
on_epoch_begin = module.run.Epochs.on_epoch_begin
def begin(callback, epoch, logs=None):
    if str(epoch) == interrupted_at:
        raise KeyboardInterrupt
    on_epoch_begin(callback, epoch, logs)
module.run.Epochs.on_epoch_begin = begin
sys.argv = ["vgg/train.py", *map(str, given), *flags]
module.main()
"""


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def run_processes(outputs, *flags, interrupted_at="never", devices=1):
    """Train in as many processes as there are output folders; return (exit status, stdout, stderr) of each."""
    address, started = free_address(), []
    for i, output in enumerate(outputs):
        variables = {"KERAS_BACKEND": "jax", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        if len(outputs) > 1:
            variables |= {"KERAS_DISTRIBUTION_JOB_ADDRESSES": address, "KERAS_DISTRIBUTION_PROCESS_ID": str(i)}
            variables |= {"KERAS_DISTRIBUTION_NUM_PROCESSES": str(len(outputs))}
            variables |= {"JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}
        command = [sys.executable, "-c", TRAIN, interrupted_at, *FLAGS, *flags, "--output", str(output)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=ROOT, env=os.environ | variables, **pipes))
    ended = []
    try:
        for process in started:
            out, err = process.communicate(timeout=600)
            ended.append((process.returncode, out, err))
    finally:
        for process in started:  # if one of them waits in vain for the other
            process.kill()
    return ended


def history(folder):
    with open(folder / "history.csv", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


def weights(folder):
    return keras.saving.load_model(folder / "model.keras").get_weights()


def assert_equal_weights(one, other, tolerance=1e-5):
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process."""
    where = tmp_path_factory.mktemp("alone")
    ((status, _, errors),) = run_processes([where])
    assert status == 0, errors
    return where


@needs_jax
@pytest.mark.slow
def test_two_processes_learn_what_one_does(alone, tmp_path):
    """Each on a machine of its own, as far as the folders tell: only the first writes."""
    first, second = tmp_path / "first", tmp_path / "second"
    for status, _, errors in run_processes([first, second]):
        assert status == 0, errors
    assert_equal_weights(first, alone)
    assert history(first) == pytest.approx(history(alone), rel=1e-5)
    files = {"model.keras", "history.csv", "results.json", "curves.png"}
    files |= {"confusions.png", "mistakes.png", "feature_maps.png"}
    assert {path.name for path in first.iterdir()} == files and not second.exists()
    scores = [json.loads((where / "results.json").read_text()) for where in (first, alone)]
    assert scores[0]["test_loss"] == pytest.approx(scores[1]["test_loss"], rel=1e-4)


@needs_jax
@pytest.mark.slow
def test_two_devices_of_one_process_learn_what_one_does(alone, tmp_path):
    ((status, _, errors),) = run_processes([tmp_path], devices=2)
    assert status == 0, errors
    assert_equal_weights(tmp_path, alone)


@needs_jax
@pytest.mark.slow
def test_an_interrupted_run_of_two_processes_needs_a_folder_that_both_can_read(tmp_path):
    shared, other = tmp_path / "shared", tmp_path / "other"
    for status, _, errors in run_processes([shared, shared], "--epochs", "2", interrupted_at="1"):
        assert status == 130, errors
    assert len(history(shared)) == 1
    for status, _, errors in run_processes([shared, other], "--epochs", "2"):
        assert status == 2 and "an --output folder that all can read" in errors.strip().split("\n")[-1], errors
    for status, printed, errors in run_processes([shared, shared], "--epochs", "2"):
        assert status == 0 and "Epoch 1/2" not in printed, errors
    assert len(history(shared)) == 2


@needs_jax
@pytest.mark.slow
def test_transfer_learning_in_two_processes(alone, tmp_path):
    """Of its two steps the first ends without ending the processes."""
    for status, _, errors in run_processes([tmp_path / "0", tmp_path / "1"], "--weights", str(alone), "--epochs", "1"):
        assert status == 0, errors
    assert len(history(tmp_path / "0")) == 2 and not (tmp_path / "1").exists()


def refused(monkeypatch, capsys, *flags, folder="vgg"):
    module = load(f"{folder}/train.py")
    monkeypatch.setattr(sys, "argv", [f"{folder}/train.py", *flags])
    with pytest.raises(SystemExit) as exit_:
        module.main()
    assert exit_.value.code == 2
    return capsys.readouterr().err.strip().split("\n")[-1]


@needs_jax
@pytest.mark.parametrize(
    "address, number, n, sentence",
    [
        ("127.0.0.1:1", "0", None, "must be a whole number below KERAS_DISTRIBUTION_NUM_PROCESSES, got 0 and none"),
        ("127.0.0.1:1", "2", "2", "must be a whole number below KERAS_DISTRIBUTION_NUM_PROCESSES, got 2 and 2"),
        ("127.0.0.1:1", "one", "2", "got one and 2"),
        ("127.0.0.1", "1", "2", "_JOB_ADDRESSES must be HOST:PORT of the first process, got 127.0.0.1"),
        ("127.0.0.1:70000", "1", "2", "_JOB_ADDRESSES must be HOST:PORT of the first process, got 127.0.0.1:70000"),
        (None, "0", "2", "KERAS_DISTRIBUTION_NUM_PROCESSES need KERAS_DISTRIBUTION_JOB_ADDRESSES, got none"),
        ("127.0.0.1:1,127.0.0.1:2", "1", "2", "127.0.0.1:1 does not answer (["),
    ],
)
def test_processes_that_cannot_be_meant_are_refused(address, number, n, sentence, monkeypatch, capsys, tmp_path):
    module = load("vgg/train.py")
    monkeypatch.setattr(module.run.devices, "TIMEOUT", 0)
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    for name, value in (("JOB_ADDRESSES", address), ("PROCESS_ID", number), ("NUM_PROCESSES", n)):
        if value is not None:
            monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
    monkeypatch.setattr(sys, "argv", ["vgg/train.py", "--data", "synthetic", "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_:
        module.main()
    assert exit_.value.code == 2 and sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_several_processes_need_jax(backend, monkeypatch, capsys):
    monkeypatch.setattr(keras.config, "backend", lambda: backend)
    for name, value in (("JOB_ADDRESSES", "127.0.0.1:1"), ("PROCESS_ID", "0"), ("NUM_PROCESSES", "2")):
        monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
    assert f"several processes need KERAS_BACKEND=jax, got {backend}" in refused(monkeypatch, capsys)


def test_the_shares_of_processes_make_the_whole_batch(monkeypatch):
    """And the last batch is filled, so that it can be shared too."""
    run = load("vgg/run.py")

    def make(chosen, rng):
        return chosen, rng.random()

    whole = run.Batches(25, 12, make, seed=3)
    monkeypatch.setattr(run.keras.distribution, "distribution", lambda: object())
    shares = []
    for i in range(3):
        monkeypatch.setattr(run.devices, "processes", lambda i=i: (i, 3))
        shares.append(run.Batches(25, 12, make, seed=3))
    for batches in (whole, *shares):
        batches.start(1)
    for i in range(2):
        np.testing.assert_array_equal(np.concatenate([batches[i][0] for batches in shares]), whole[i][0])
    last = np.concatenate([batches[2][0] for batches in shares])
    np.testing.assert_array_equal(last, [*whole[2][0], *whole[0][0][:11]])
    assert len({batches[0][1] for batches in shares}) == 3 and shares[0][0][1] == whole[0][1]  # random numbers


@pytest.mark.parametrize(
    "n_processes, sentence",
    [
        (1, "--batch-size must be divisible by the 3 devices, got 128"),
        (2, "every process must have as many devices as the others, got 3 of 2"),
    ],
)
def test_what_the_devices_cannot_share_is_refused(n_processes, sentence, monkeypatch, capsys):
    devices = load("vgg/devices.py")
    monkeypatch.setattr(devices, "processes", lambda: (0, n_processes))
    monkeypatch.setattr(devices, "initialize", lambda parser: None)
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0", "gpu:1", "gpu:2"])
    with pytest.raises(SystemExit):
        devices.distribute(argparse.ArgumentParser(), 128)
    assert sentence in capsys.readouterr().err

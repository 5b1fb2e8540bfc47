"""The steps of a training: what is compiled, the history, and selective search that goes on where it was."""

import argparse
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from folders import ROOT, load
from keras import layers

MODULE = load("rcnn/steps.py")


def arguments(where, **changes):
    (where / "backup").mkdir(exist_ok=True)
    return argparse.Namespace(output=where, seed=0, **{"learning_rate": 0.01, "epochs": 5} | changes)


def test_what_is_compiled(monkeypatch, tmp_path):
    """Nesterov momentum of 0.9; a tenth of the updates to warm up, then a cosine; decay of the kernels alone."""
    network = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(2)])
    x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
    batches = MODULE.run.batches((x, x[:, :2]), 2, 0)
    caught = []
    monkeypatch.setattr(keras.Model, "fit", lambda model, *args, **named: caught.append(named))
    MODULE.fit(arguments(tmp_path), "a step", network, network, batches, batches, "mse")
    optimizer, rates = network.optimizer, [float(network.optimizer._learning_rate(i)) for i in range(101)]
    assert optimizer.nesterov and optimizer.momentum == 0.9 and caught[0]["epochs"] == 5
    assert caught[0]["shuffle"] is False and caught[0]["validation_data"] is batches
    assert rates[0] == pytest.approx(0.001) and max(rates) == pytest.approx(0.01) == rates[10]
    assert rates[-1] == pytest.approx(0, abs=1e-6) and rates[10:] == sorted(rates[10:], reverse=True)
    decayed = [variable.name for variable in network.trainable_variables if variable.regularizer is not None]
    assert decayed == ["kernel", "kernel"]
    squares = sum(float((layer.kernel.numpy() ** 2).sum()) for layer in network.layers[::2])
    assert sum(map(float, network.losses)) == pytest.approx(5e-4 / 2 * squares, rel=1e-5)
    assert (tmp_path / "backup" / "a_step.weights.h5").exists()

    network.layers[0].kernel.assign(0 * network.layers[0].kernel)  # a step that is done is not fitted again
    MODULE.fit(arguments(tmp_path), "a step", network, network, batches, batches, "mse")
    assert len(caught) == 1 and network.layers[0].kernel.numpy().any()
    MODULE.fit(arguments(tmp_path), "other", network, network, batches, batches, "mse", 0.5, 1)
    assert caught[1]["epochs"] == 1 and float(network.optimizer._learning_rate(2)) == pytest.approx(0.5)


def test_an_epoch_run_twice_counts_once(tmp_path):
    """Before a kill and after it; an epoch of the same number in another step is another one."""
    rows = ["step,epoch,loss,val_loss,seconds", "1 one,0,3,4,1", "1 one,1,9,9,1", "1 one,1,2,3,1.5", "2 two,0,7,8,1"]
    (tmp_path / "history.csv").write_text("\n".join(rows) + "\n")
    history = MODULE.read_history(argparse.Namespace(output=tmp_path))
    expected = {
        "step": ["1 one", "1 one", "2 two"], "epoch": [0, 1, 0], "loss": [3, 2, 7], "val_loss": [4, 3, 8],
        "seconds": [1, 1.5, 1],
    }  # fmt: skip
    assert history == expected
    MODULE.run.write_whole(tmp_path / "history.csv", lambda path: load("rcnn/report.py").write_rows(path, history))
    assert MODULE.read_history(argparse.Namespace(output=tmp_path)) == expected
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 4
    assert MODULE.read_history(argparse.Namespace(output=tmp_path / "nowhere")) == {}


def test_selective_search_goes_on_where_it_was(monkeypatch, tmp_path):
    args, seen = arguments(tmp_path), []
    scenes = np.arange(190, dtype="uint8")[:, None, None, None]

    def found_in(scene, max_boxes):
        if len(seen) == 150:
            raise KeyboardInterrupt
        seen.append(int(scene[0, 0, 0]))
        return np.full((len(seen) % 3, 4), scene[0, 0, 0], "float32")  # some have none

    monkeypatch.setattr(MODULE, "selective_search", found_in)
    with pytest.raises(KeyboardInterrupt):
        MODULE.search(args, "training", scenes)
    seen[:] = [None]
    found = MODULE.search(args, "training", scenes)
    assert seen[1:] == list(range(100, 190))  # those of the first hundred were kept
    assert len(found) == 190 and all(regions.shape[1:] == (4,) for regions in found)
    assert all((regions == number).all() for number, regions in enumerate(found)) and len(found[0]) == 1


SEARCH = """
import argparse, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, "rcnn")
import steps
from selective_search import selective_search

if __name__ == "__main__":
    scenes = np.random.default_rng(0).integers(0, 256, (200, 24, 24, 3), dtype="uint8")
    found = steps.search(argparse.Namespace(output=Path(sys.argv[1])), "training", scenes)
    assert len(found) == 200
    for i in (0, 117, 199):
        assert (found[i] == selective_search(scenes[i], max_boxes=steps.N_PROPOSALS)).all()
"""


@pytest.mark.slow
def test_many_scenes_are_shared_among_processes(tmp_path):
    """With the same result."""
    (tmp_path / "backup").mkdir()
    (tmp_path / "search.py").write_text(SEARCH)
    command = [sys.executable, str(tmp_path / "search.py"), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": "rcnn"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "backup").iterdir())) == 2

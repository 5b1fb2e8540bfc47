"""tests/recipe.py trains with all parts of the recipe but one."""

import csv
import json
import sys

import pytest
import recipe
from folders import ROOT, load


def run(without, output, monkeypatch):
    """Train a tiny network without a part of the recipe; no pictures are drawn."""
    train = load("resnet/train.py")
    tiny = {"groups": ({"n_filters": 8, "n_blocks": 1},), "stem": {"n_filters": 8, "kernel_size": 3, "strides": 2}}
    train.MODELS["resnet8_wide_cifar10"], train.PICTURES = (train.resnet_basic.build, tiny), lambda *_: {}
    monkeypatch.setattr(recipe, "load", lambda path: train)
    flags = "--model resnet8_wide_cifar10 --data synthetic --limit 60 --batch-size 4 --epochs 1".split()
    monkeypatch.setattr(sys, "argv", ["tests/recipe.py", without, *flags, "--output", str(output)])
    recipe.main()


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_each_part_changes_the_training(monkeypatch, tmp_path):
    losses = {}  # of 15 steps, of which 10% are two, the warm-up
    for without in recipe.WITHOUT:
        run(without, tmp_path / without, monkeypatch)
        log = json.loads((tmp_path / without / "results.json").read_text())
        assert log["command"].startswith(f"python tests/recipe.py {without} --model")
        with open(tmp_path / without / "history.csv", newline="") as file:
            losses[without] = next(csv.DictReader(file))["loss"]
    assert len(set(losses.values())) == len(losses), losses
    with pytest.raises(SystemExit, match="momentum holds another run: choose another folder"):
        run("warm_up", tmp_path / "momentum", monkeypatch)


def test_the_parts_are_those_of_the_recipe():
    """Each name that is exchanged is one of resnet/train.py, and it is used there."""
    text = (ROOT / "resnet" / "train.py").read_text()
    for changes in recipe.WITHOUT.values():
        for name in changes:
            assert text.count(name) >= 2, name


@pytest.mark.parametrize("arguments", [[], ["lost", "--output", "a"], ["warm_up"]])
def test_a_wrong_command_prints_what_it_is_for(arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tests/recipe.py", *arguments])
    with pytest.raises(SystemExit, match="What does each part of the recipe give?"):
        recipe.main()

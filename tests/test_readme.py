"""The commands and the code of every README, run as they stand there."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from folders import FOLDERS, ROOT, load, main

READMES = ["README.md", *(f"{folder}/README.md" for folder in FOLDERS)]


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(), flags=re.S)


COMMANDS = [
    (path, command)
    for path in READMES
    for block in blocks(path, "bash")
    for line in block.strip().replace("\\\n", "").split("\n")
    for command in line.split(" && ")
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of what git tracks, as a fresh clone has it."""
    where = tmp_path_factory.mktemp("clone")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.split("\n")[:-1]:
        if (ROOT / name).exists():
            (where / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, where / name)
    return where


@pytest.mark.parametrize("path, command", [row for row in COMMANDS if "--data synthetic" in row[1]])
def test_commands_on_synthetic_data_run(path, command, clone):
    python, *arguments = shlex.split(command)
    assert python == "python"
    done = subprocess.run([sys.executable, *arguments], cwd=clone, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    if path == "README.md":  # the one that lets a newcomer watch a network learn
        assert float(re.search(r"([\d.]+)% of", done.stdout)[1]) > 80


LONGER = [(path, command) for path, command in COMMANDS if "train.py" in command and "synthetic" not in command]


@pytest.mark.parametrize("path, command", LONGER)
def test_longer_commands_have_flags_that_exist(path, command, monkeypatch, tmp_path):
    _, script, *flags = shlex.split(command)
    flags = [str(tmp_path) if flag == "FOLDER" or "cifar10-jpeg" in flag else flag for flag in flags]
    monkeypatch.setattr(sys, "argv", [script, *flags])
    load(script).parse_arguments()


def test_the_other_commands_are_the_tests_and_what_they_need():
    others = {command for path, command in COMMANDS if "train.py" not in command}
    assert others <= {"pip install -r requirements.txt", "python -m pytest"} | {c for c in others if "unpack" in c}


def test_every_command_of_the_root_readme_needs_only_the_requirements():
    lines = [line for block in blocks("README.md", "bash") for line in block.strip().split("\n")]
    assert sum(line.startswith("pip install -r requirements.txt && ") for line in lines) == 2


def test_code_of_the_root_readme():
    namespace = {}
    module = load("resnet/resnet_v1.py")
    pasted, own = blocks("README.md", "python")
    namespace |= {"identity_block": module.identity_block, "build": module.build}
    exec(pasted, namespace)
    assert namespace["model"].output_shape == (None, 56, 56, 256)
    exec(own, namespace)
    assert namespace["model"].output_shape == (None, 7)


def test_pasted_functions_run_alone():
    """The two functions that the README names, and nothing else of their module."""
    text = (ROOT / "resnet/resnet_v1.py").read_text()
    functions = {f.split("(")[0]: "def " + f for f in re.split(r"^def ", text, flags=re.M)[1:]}
    namespace = {}
    (code,) = (block for block in blocks("README.md", "python") if "identity_block" in block)
    imports, rest = code.split("\n\n", 1)
    exec("\n".join([imports, functions["identity_block"], functions["conv_bn"], rest]), namespace)
    assert namespace["model"].output_shape == (None, 56, 56, 256)


@pytest.mark.parametrize("folder", FOLDERS)
def test_code_that_detaches_the_pre_stem(folder, clone, monkeypatch):
    (code,) = (block for block in blocks(f"{folder}/README.md", "python") if "load_model" in block)
    monkeypatch.chdir(clone)
    main(folder, monkeypatch, "--data", "synthetic", "--limit", 100, "--batch-size", 100, "--epochs", 1)
    namespace = {}
    exec(code, namespace)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("uint8")
    normalized = keras.ops.convert_to_numpy(namespace["normalization"](images))
    np.testing.assert_allclose(
        namespace["network"].predict(normalized, verbose=0), namespace["model"].predict(images, verbose=0), atol=1e-5
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_results_are_those_of_the_log_and_the_command(folder):
    results = json.loads((ROOT / folder / "results" / "results.json").read_text())
    figures = [results["model"], str(results["epochs"]), f"{results['seconds'] / 60:.0f}"]
    figures += [f"{results['validation_accuracy']:.2%}", f"{results['test_accuracy']:.2%}"]
    readme = (ROOT / folder / "README.md").read_text()
    assert f"| {' | '.join(figures)} |" in readme
    assert results["command"] in readme and "JPEG copy of CIFAR-10" in readme
    module = load(f"{folder}/train.py")  # the log is of what the defaults are now
    assert all(results[name] == value for name, (value, _) in module.DEFAULTS.items() if value is not None)
    assert results["learning_rate"] == module.MODELS[results["model"]][2]


def test_code_of_the_resnet_readme(monkeypatch):
    namespace = {}
    (code,) = (block for block in blocks("resnet/README.md", "python") if "zero_padding" in block)
    monkeypatch.syspath_prepend(ROOT / "resnet")
    exec(code, namespace)
    claimed = int(re.search(r"# ([\d,]+) trainable", code)[1].replace(",", ""))
    assert sum(v.numpy().size for v in namespace["model"].trainable_variables) == claimed

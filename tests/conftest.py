"""Runs that several tests look at, made once."""

import re
import shlex
import shutil
import subprocess
import sys

import pytest
from folders import FOLDERS, ROOT, load, without_graphs
from networks import TRAINED


def copy_tracked(to, *paths):
    """Copy what git tracks, or would after `git add`, as a fresh clone has it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *paths]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]:
        if (ROOT / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)


@pytest.fixture
def eagerly():
    """Run what a test trains without graphs."""
    with without_graphs():
        yield


@pytest.fixture(scope="session")
def clone(tmp_path_factory):
    """A copy of the repository."""
    where = tmp_path_factory.mktemp("clone")
    copy_tracked(where)
    return where


@pytest.fixture(scope="session", params=[pytest.param(folder, marks=pytest.mark.slow) for folder in FOLDERS])
def finished(request, tmp_path_factory):
    """A folder copied out, alone, and trained there for seconds by the command in its README.

    Returns (the folder's name, where it ran, the arguments of the command, what it printed).
    """
    folder = request.param
    where = tmp_path_factory.mktemp(folder)
    copy_tracked(where, folder)
    readme = (where / folder / "README.md").read_text()
    (command,) = re.findall(rf"^python ({folder}/train.py --data synthetic .*)$", readme, flags=re.M)
    arguments = shlex.split(command)
    done = subprocess.run([sys.executable, *arguments], cwd=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, where, arguments, done.stdout


@pytest.fixture(
    scope="session",
    params=[pytest.param(folder, marks=() if folder == "resnet" else pytest.mark.slow) for folder in FOLDERS],
)
def trained(request, tmp_path_factory):
    """A tiny network of each folder, trained for four epochs on a few images by its own train.py.

    Returns (the folder's name, the run folder, modules to import before its model is loaded).
    """
    folder = request.param
    module, where = load(f"{folder}/train.py"), tmp_path_factory.mktemp(folder)
    flags, imports = TRAINED[folder](module, epochs=4)
    arguments = sys.argv
    sys.argv = [f"{folder}/train.py", *map(str, flags), "--output", str(where)]
    try:
        with without_graphs():
            module.main()
    finally:
        sys.argv = arguments
    return folder, where, imports

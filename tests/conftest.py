"""Runs that several tests look at, made once; those in other processes run beside the tests."""

import concurrent.futures
import functools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from folders import FOLDERS, ROOT, copy_tracked, load, without_graphs
from networks import TRAINED


@pytest.fixture
def eagerly():
    """Run what a test trains without graphs."""
    with without_graphs():
        yield


def command_of_readme(folder, where):
    """The command of seconds in the README of a folder, which is copied out alone."""
    copy_tracked(where, folder)
    readme = (where / folder / "README.md").read_text()
    (command,) = re.findall(rf"^python ({folder}/train.py --data synthetic .*_seconds)$", readme, flags=re.M)
    return shlex.split(command), {"cwd": where}


def command_for(item):
    """Return what makes the command that a test waits for, (function, its arguments but the last), or None.

    The last argument is an empty folder; the function returns the arguments of Python and options of Popen.
    """
    if "finished" in item.fixturenames:
        return command_of_readme, item.callspec.params["finished"]
    mark = item.get_closest_marker("waits_for")
    return mark and (mark.kwargs["command"],)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Let the tests that wait for a command come last."""
    items.sort(key=lambda item: command_for(item) is not None)


class Beside:
    """Commands of Python that run beside the tests, two at a time, since most tests keep only one core busy."""

    def __init__(self):
        self.pool, self.processes, self.started = concurrent.futures.ThreadPoolExecutor(2), [], {}

    def start(self, key, where):
        self.started[key] = self.pool.submit(self.run, key, where)

    def run(self, key, where):
        function, *given = key
        arguments, options = function(*given, where)
        pipe, timeout = subprocess.PIPE, options.pop("timeout", 900)
        command = [sys.executable, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **options)
        self.processes.append(process)
        printed, errors = process.communicate(timeout=timeout)
        assert process.returncode == 0, errors
        return where, command[1:], printed

    def stop(self):
        self.pool.shutdown(wait=False, cancel_futures=True)
        for process in self.processes:
            process.kill()


@pytest.fixture(scope="session", autouse=True)
def beside(request, tmp_path_factory):
    """Start what the tests of this session will wait for; that of rcnn takes longest."""
    beside, keys = Beside(), filter(None, map(command_for, request.session.items))
    for key in sorted(dict.fromkeys(keys), key=lambda key: "rcnn" not in key):
        beside.start(key, tmp_path_factory.mktemp("beside"))
    yield beside
    beside.stop()


@pytest.fixture
def done(request, beside):
    """What the command that a test `waits_for` left: (the folder given to it, its arguments, what it printed)."""
    return beside.started[command_for(request.node)].result()


@pytest.fixture(params=[pytest.param(folder, marks=pytest.mark.slow) for folder in FOLDERS])
def finished(request, done):
    """A folder copied out, alone, and trained there for seconds by the command in its README.

    Returns (the folder's name, where it ran, the arguments of the command, what it printed).
    """
    return request.param, *done


@pytest.fixture(scope="session")
def train(tmp_path_factory):
    """A function that trains a tiny network of a folder for four epochs on a few images by its own train.py, once.

    It returns the run folder and the modules to import before its model is loaded.
    """

    @functools.cache
    def train(folder):
        module, where = load(f"{folder}/train.py"), tmp_path_factory.mktemp(folder)
        flags, imports = TRAINED[folder](module, epochs=4)
        arguments = sys.argv
        sys.argv = [f"{folder}/train.py", *map(str, flags), "--output", str(where)]
        try:
            with without_graphs():
                module.main()
        finally:
            sys.argv = arguments
        return where, imports

    return train


@pytest.fixture(params=[pytest.param(f, marks=() if f == "resnet" else pytest.mark.slow) for f in FOLDERS])
def trained(request, train):
    """The folder's name, and the run folder of a tiny network of it."""
    return request.param, train(request.param)[0]


@pytest.fixture(scope="session")
def used(request, train):
    """What `use.py` finds in a new process of the models of `trained` that this session looks at: {folder: found}."""
    items = [item for item in request.session.items if "used" in item.fixturenames]
    folders = [item.callspec.params["trained"] for item in items]
    arguments = [Path(__file__).with_name("use.py")]
    for folder in folders:
        where, imports = train(folder)
        arguments += [where / "model.keras", imports, ROOT / folder]
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "learning rate" not in done.stderr and "saving" not in done.stderr.lower(), done.stderr  # no warning
    return dict(zip(folders, json.loads(done.stdout.strip().split("\n")[-1]), strict=True))

"""How the tests are shared between processes, and a fixture of many files."""

import os

import pytest
from folders import without_graphs

LONGEST = ("test_commands.py", "test_trained.py", "test_rcnn_train.py", "test_imagenet_weights.py")
OF_EACH = {  # environment of each of several processes
    "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1",  # it has one core
    "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_ARENA_MAX": "1",  # see keep_memory
}


def pytest_configure(config):
    """Let `pytest -n 2`, of pytest-xdist, give each file to one process, since its tests share runs and networks."""
    if getattr(config.option, "numprocesses", None):
        config.option.dist, config.option.loadscopereorder = "loadfile", False
        for name, value in OF_EACH.items():
            os.environ.setdefault(name, value)


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, or one process would end with them alone."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture
def eagerly():
    """Run what a test trains without graphs."""
    with without_graphs():
        yield

"""How the tests are shared between processes, and a fixture of many files."""

import pytest
from folders import without_graphs

LONGEST = ("test_commands.py", "test_trained.py", "test_benchmark.py")


def pytest_configure(config):
    """Let `pytest -n 2`, of pytest-xdist, give each file to one process, since its tests share runs and networks."""
    if getattr(config.option, "numprocesses", None):
        config.option.dist, config.option.loadscopereorder = "loadfile", False


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest, or one process would end with them alone."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture
def eagerly():
    """Run what a test trains without graphs."""
    with without_graphs():
        yield

"""A function that stands in several files is the same text there, under a mark that names the file it came from.

`# Copied from vgg/train.py` above a function or class is a copy of it; on the first line of a file, of the whole file.
"""

import ast
import re

import pytest
from folders import FOLDERS, ROOT

FILES = [path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.py"))]
MARK = re.compile(r"# Copied from (\S+)")
# The same name for different things: these differ on purpose from folder to folder and from module to module.
OWN = {"build", "stem", "learner", "group", "identity_block", "projection_block", "convolution", "classifier"}
OWN |= {"auxiliary", "max_pooling", "conv_bn", "conv_relu"}
# What a training program that does not classify has of its own.
OTHER_TRAINING = {"main", "parse_arguments", "settings", "train"}
# In these files alone: a training with several outputs, and a program that does not train.
OWN_IN = {
    "inception/train.py": {"train"},
    "inception/report.py": {"BestModel", "plot_curves"},
    "resnext/step_times.py": {"main", "parse_arguments", "refuse"},
    "multilabel/train.py": OTHER_TRAINING,
    "multilabel/report.py": {"BestModel", "write_results", "plot_curves"},
    "siamese/train.py": OTHER_TRAINING,
    "siamese/report.py": {"write_results"},
    "autoencoder/train.py": {"main", "train", "pre_stem"},
    "autoencoder/report.py": {"BestModel", "write_results", "plot_curves"},
    "rcnn/train.py": OTHER_TRAINING,
    "rcnn/training.py": {"pre_stem"},
    "rcnn/report.py": {"write_results", "read_history", "save_history", "plot_curves"},
    "rcnn/compare.py": {"main", "parse_arguments", "refuse"},
}


def definitions(path):
    """Return {name: (mark or None, text)} of the functions and classes of a file."""
    lines = (ROOT / path).read_text().split("\n")
    found = {}
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            mark = MARK.fullmatch(lines[node.lineno - 2])
            found[node.name] = (mark and mark[1], "\n".join(lines[node.lineno - 1 : node.end_lineno]))
    return found


def whole_file_mark(path):
    mark = MARK.fullmatch((ROOT / path).read_text().split("\n")[0])
    return mark and mark[1]


MARKED = [(path, name) for path in FILES for name, (mark, _) in definitions(path).items() if mark]
MARKED_FILES = [path for path in FILES if whole_file_mark(path)]


def test_there_are_copies():
    assert MARKED and MARKED_FILES


@pytest.mark.parametrize("path, name", MARKED)
def test_copied_functions_are_the_same(path, name):
    mark, text = definitions(path)[name]
    source_mark, source = definitions(mark)[name]
    assert text == source
    assert source_mark is None, f"{mark} has it from {source_mark}: name that file"
    assert FOLDERS.index(mark.split("/")[0]) <= FOLDERS.index(path.split("/")[0])  # from an earlier folder


@pytest.mark.parametrize("path", MARKED_FILES)
def test_copied_files_are_the_same(path):
    text = (ROOT / path).read_text().split("\n", 1)[1]
    assert text == (ROOT / whole_file_mark(path)).read_text()


def test_no_copy_lacks_its_mark():
    originals = {}
    for path in FILES:
        for name, (mark, text) in definitions(path).items():
            if not mark and not whole_file_mark(path):
                originals.setdefault(name, []).append((text, path))
    for name, found in originals.items():
        if name not in OWN:
            anew = [path for _, path in found if name not in OWN_IN.get(path, ())]
            assert len(anew) <= 1, f"{name} is written anew in {anew}: copy and mark it"
        assert len({text for text, _ in found}) == len(found), f"{name}: a copy without its mark among {found}"

"""A function that stands in several files is the same text there, under a mark that names the file it comes from.

`# Copied from vgg/train.py` above a function or class is a copy of it. A file whose first line is
`# The same file in every folder.`, or `... in the folder of every classifier.`, or `... of every classifier that has an
experiment.`, is just that.
"""

import ast
import re

import pytest
from folders import CLASSIFIERS, FOLDERS, ROOT, SHARED, SHARED_BY_CLASSIFIERS, SHARED_BY_EXPERIMENTS

FILES = [
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for path in sorted((ROOT / folder).glob("*.py"))
    if folder == "vgg" or path.name not in SHARED + SHARED_BY_CLASSIFIERS + SHARED_BY_EXPERIMENTS
]
MARK = re.compile(r"# Copied from (\S+)")
# The same name for what differs by architecture or by task.
OWN = {"build", "stem", "learner", "group", "identity_block", "projection_block", "classifier", "auxiliary", "encoding"}
OWN |= {"conv_relu", "conv_bn_relu", "convolution", "max_pooling", "inception_block", "main", "train", "pre_stem"}
OWN |= {"projection", "resized", "load_imagenet_weights", "of_run", "arguments", "compare", "fit", "write"}
OWN |= {"multiply_adds", "table"}  # of experiments of two kinds


def definitions(path):
    """Return {name: (mark or None, text)} of the functions and classes of a file."""
    lines = (ROOT / path).read_text().split("\n")
    found = {}
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            mark = MARK.fullmatch(lines[first - 2])
            found[node.name] = (mark and mark[1], "\n".join(lines[first - 1 : node.end_lineno]))
    return found


DEFINITIONS = {path: definitions(path) for path in FILES}
MARKED = [(path, name) for path in FILES for name, (mark, _) in DEFINITIONS[path].items() if mark]


@pytest.mark.parametrize("name", SHARED)
def test_shared_files_are_the_same_to_the_byte(name):
    texts = {(ROOT / folder / name).read_bytes() for folder in FOLDERS}
    assert len(texts) == 1 and texts.pop().startswith(b"# The same file in every folder.\n")


@pytest.mark.parametrize("name", SHARED_BY_CLASSIFIERS)
def test_files_shared_by_the_classifiers_are_the_same_to_the_byte(name):
    texts = {(ROOT / folder / name).read_bytes() for folder in CLASSIFIERS}
    assert len(texts) == 1 and texts.pop().startswith(b"# The same file in the folder of every classifier.\n")
    assert not any((ROOT / folder / name).exists() for folder in FOLDERS if folder not in CLASSIFIERS)


@pytest.mark.parametrize("name", SHARED_BY_EXPERIMENTS)
def test_files_shared_by_the_experiments_are_the_same_to_the_byte(name):
    folders = {folder for folder in FOLDERS if (ROOT / folder / name).exists()}
    assert {"vgg", "resnet", "senet", "squeezenet"} <= folders <= set(CLASSIFIERS)
    texts = {(ROOT / folder / name).read_bytes() for folder in folders}
    first = b"# The same file in the folder of every classifier that has an experiment.\n"
    assert len(texts) == 1 and texts.pop().startswith(first)


def test_a_file_name_stands_for_one_text():
    """Python keeps one module of a name, and people run two folders in one session."""
    names = [path.split("/")[1] for path in FILES if not path.endswith("/train.py")]
    assert len(set(names)) == len(names)


def test_copied_functions_are_the_same():
    assert len(MARKED) > 50
    for path, name in MARKED:
        mark, text = DEFINITIONS[path][name]
        source_mark, source = DEFINITIONS[mark][name]
        assert text == source, f"{name} of {path} is not that of {mark}"
        assert source_mark is None, f"{name} of {path}: {mark} has it from {source_mark}, name that file"
        assert FOLDERS.index(mark.split("/")[0]) <= FOLDERS.index(path.split("/")[0]), f"{path} copies a later folder"


def test_no_copy_lacks_its_mark():
    originals = {}
    for path in FILES:
        for name, (mark, text) in DEFINITIONS[path].items():
            if not mark:
                originals.setdefault(name, []).append((text, path))
    for name, found in originals.items():
        assert name in OWN or len(found) == 1, f"{name} is written again in {[path for _, path in found]}"
        assert len({text for text, _ in found}) == len(found), f"{name}: a copy without its mark among {found}"

"""The three cells of each folder's README, run in a folder of their own as Colab does, but without the network."""

import ast
import re
import sys

import keras
import numpy as np
import pytest
from folders import FOLDERS, ROOT, load

ADDRESS = "https://raw.githubusercontent.com/OWNER/REPOSITORY/main/"


def section(folder):
    readme = (ROOT / folder / "README.md").read_text()
    return re.search(r"^#{2,3} In a notebook\n(.*?)^#{2,3} ", readme, flags=re.M | re.S)[1]


def cells(folder):
    return re.findall(r"```python\n(.*?)```", section(folder), flags=re.S)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_cells_run_where_nothing_else_is(folder, monkeypatch, tmp_path):
    fetch, build, use = cells(folder)
    assert fetch.count(ADDRESS) == 1
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for path in (ROOT / folder).glob("*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    namespace = {}
    for cell in (fetch.replace(ADDRESS, f"{ROOT.as_uri()}/"), build, use):
        *statements, last = ast.parse(cell).body
        for statement in statements:
            exec(ast.unparse(statement), namespace)
        shown = (eval if isinstance(last, ast.Expr) else exec)(ast.unparse(last), namespace)
    fetched = list(tmp_path.glob("*.py"))
    assert len(fetched) == (4 if folder == "rcnn" else 1)
    for path in fetched:
        assert sys.modules.pop(path.stem).__file__ == str(path)
    assert all(np.isfinite(array).all() and len(array) == 4 for array in keras.tree.flatten(shown))
    assert load(f"{folder}/train.py").MODEL in build


def test_the_cells_are_one_text():
    """But for the module, the network, what it is built with and what it takes; a detector has four modules."""
    texts = set()
    for folder in FOLDERS:
        if folder == "rcnn":
            continue
        module = re.search(r"^from (\w+) import METAPARAMETERS", section(folder), flags=re.M)[1]
        text = section(folder).replace(f"{folder}/{module}.py", "MODULE").replace(module, "MODULE")
        text = re.sub(r"build\(.*\)", "build()", text)
        texts.add(re.sub(r"predict\(.*\)", "predict()", text).replace('"MODULE.py"', '"MODULE"'))
    assert len(texts) == 1

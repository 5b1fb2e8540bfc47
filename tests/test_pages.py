"""Every table, every figure and every line of code that a page has from elsewhere is what it is there: see pages.py."""

import ast
import inspect
import json
import re
import sys

import numpy as np
import pages
import pictures
import pytest
import tables
from folders import FOLDERS, ROOT, copy_tracked
from networks import once
from test_models import shape_tables
from test_parameters import AUXILIARY, NAMES, PARAMETERS

TEXTS = {page: (ROOT / page).read_text() for page in pages.PAGES}
LONG = [f"{folder}/README.md" for folder in ("resnet", "resnext", "densenet", "senet")]
MARKS = [(page, part[0]) for page, text in TEXTS.items() for part in pages.PART.findall(text)]


@pytest.mark.parametrize("page", [page for page in pages.PAGES if page not in LONG])
def test_a_page_is_what_pages_would_make_of_it(page):
    """But for the networks that take long to build, and the pages that have many."""
    assert pages.difference(page, TEXTS[page], pages.made(page, TEXTS[page], quick=True)) == ""


@pytest.mark.slow
@pytest.mark.parametrize("page", pages.PAGES)
def test_a_page_is_what_pages_would_make_of_it_in_minutes(page):
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)  # for ResNet-1202
    try:
        assert pages.difference(page, TEXTS[page], pages.made(page, TEXTS[page])) == ""
    finally:
        sys.setrecursionlimit(limit)


def test_every_page_has_tables_of_networks_and_of_results():
    for folder in FOLDERS:
        kinds = {re.match(r"<!-- (\w+)", mark)[1] for page, mark in MARKS if page == f"{folder}/README.md"}
        assert {"networks", "results"} <= kinds, folder


# Tables that hold figures and are in no log: {what stands above them: the test that knows these figures}.
TYPED = {
    "| network | implementation | what it does | parameters |": "those of others, in shared figures and headers",
    "| initial weights | no bypass | simple bypass |": "an observation at the start of a training",
    "| network | tensorflow, ms a step | jax, ms a step |": "what tests/step_times.py printed",
    "| ratio | parameters | top-1 error |": "the SENet paper's table 10",
    "| cardinality $C$ | filters of a branch $d$ |": "the ResNeXt paper's table 3",
    "| form | seconds a training step |": "test_readme.py, test_step_times_are_those_of_the_log_and_the_command",
}


def test_no_other_table_of_figures_is_typed():
    for page, text in TEXTS.items():
        typed = pages.PART.sub("", text)
        for table in re.findall(r"(?:^\|.*\n)+", typed, flags=re.M):
            if not any(table.startswith(head) for head in TYPED):
                assert not re.search(r"\d%|\d,\d{3}", table), f"{page}:\n{table}"


def made(page, *lines):
    return pages.made(page, "".join(f"{line}\n" for line in lines))


# A part, and a figure or word in it; each as it is, and wrong.
PARTS = [
    ("vgg/README.md", "stages vgg vgg8_cifar10", "1,297,642", "1,297,643"),
    ("vgg/README.md", "networks vgg vgg8_cifar10 : network, multiply-adds", "75.7M", "75.6M"),
    ("vgg/README.md", "results results : test accuracy, minutes", "88.50%", "88.51%"),
    ("vgg/README.md", "code vgg conv_relu", "layers.ReLU()(x)", "layers.LeakyReLU()(x)"),
    ("resnext/README.md", "include results/step_times.txt", "1.307", "1.308"),
    ("README.md", "networks vgg/vgg vgg8_cifar10 resnet/resnet_basic resnet20_cifar10", "272,474", "272,475"),
]


@pytest.mark.parametrize("page, part, right, wrong", PARTS)
def test_what_is_wrong_in_a_part_is_found(page, part, right, wrong):
    text = made(page, f"<!-- {part} -->", "<!-- end -->")
    assert text.count(right) > 0 and pages.made(page, text) == text
    changed = text.replace(right, wrong)
    assert pages.made(page, changed) == text
    found = pages.difference(page, changed, pages.made(page, changed, quick=True)).split("\n")
    assert any(line.startswith("-") and wrong in line for line in found), found
    assert any(line.startswith("+") and right in line for line in found), found


BLOCKS = """
```python
import missing_module  # nobody needs it, so it does not run
```

```python
from vgg import METAPARAMETERS, conv_relu

n_filters = 8
```

```python
from keras import Input

x = Input((32, 32, 3))
x = conv_relu(x, n_filters)
print(x.shape)
```
<!-- output -->
```text
(None, 32, 32, 16)
```
<!-- end -->

```python
n_filters = 4 * n_filters
print(*(n for n in range(2)))
print(conv_relu(x, n_filters).shape)
```

<!-- output -->
<!-- end -->
"""


def test_output_that_drifted_is_found():
    """Blocks run in the order of the page, in its folder, and only those that an output needs."""
    neighbors = set(sys.modules)
    text = pages.made("vgg/README.md", BLOCKS)
    assert "(None, 32, 32, 16)" not in text  # of a block with other filters
    assert "```text\n(None, 32, 32, 8)\n```\n<!-- end -->" in text
    assert "<!-- output -->\n```text\n0 1\n(None, 32, 32, 32)\n```\n<!-- end -->" in text
    assert pages.made("vgg/README.md", text) == text
    assert "vgg" not in set(sys.modules) - neighbors


def test_names_that_a_block_takes_and_gives():
    """Those of comprehensions and functions are their own."""
    taken = {
        "x = x + 1": {"x"},
        "x += 1": {"x"},
        "x = 1\ny = x": set(),
        "for x in a:\n    print(x)": {"a"},
        "print([x for x in a if x > b])": {"a", "b"},
        "def f(x, y=c):\n    z = x + d\n    return z": {"c", "d"},
        "import a.b\nfrom c import d as e\nprint(a.b, e)": set(),
        "class A(B):\n    pass": {"B"},
    }
    for source, names in taken.items():
        assert pages.taken(source) == names, source
    source = "import a.b\nfrom c import d as e\ndef f(x):\n    y = x\nz = [u for u in e]"
    assert pages.given(ast.parse(source)) == {"a", "e", "f", "z"}


# One of each kind of module: flat, with a model in the model, with a learner after the groups, auxiliary classifiers.
STAGED = (
    "vgg8_cifar10", "resnet20_cifar10", "resnet20_v2_cifar10", "inception_v1_cifar10", "inception_v3_cifar10",
    "resnext20_4x8d_cifar10", "densenet_c16_k24_cifar10", "se_resnet14_wide_cifar10", "squeezenet_cifar10",
    "multilabel_resnet14_wide_cifar10", "siamese_cifar10", "autoencoder_cifar10", "rcnn_vgg8", "fast_rcnn_vgg8",
    "faster_rcnn_vgg8", "resnet50",
)


@pytest.mark.parametrize("name", STAGED)
def test_stages_sum_to_the_network_and_have_the_shapes_of_the_header(name):
    path = NAMES[name]
    found = tables.stages_of(path, tables.network(path, name))
    assert sum(row[2] for row in found) == PARAMETERS[name][0]
    without = {"learner"} | ({"group_1"} if name == "vgg8_cifar10" else set())  # whose only convolution is the stem
    assert all(row[2] > 0 for row in found if row[0] not in without) and all(row[3] >= 0 for row in found)
    assert tables.short(sum(row[3] for row in found)) == tables.NETWORK_COLUMNS["multiply-adds"](path, name)
    header = [row for row in shape_tables(path)[name] if row[0] != "auxiliary"]
    shapes = [[tuple(tensor.shape[1:]) for tensor in outputs] for stage, outputs, *_ in found if stage in ends(path)]
    assert shapes == [list(row[2:]) for row in header]


def ends(path):
    """The stages that a header has: a learner of its own only in the detectors."""
    names = {"stem", "encoding", "encoder", "decoder", "classifier", *(f"group_{i}" for i in range(1, 6))}
    return names | ({"learner"} if path.startswith("rcnn/") else set())


def test_the_stages_of_resnet50():
    """The parameters are torchvision's; the paper's table 1 has 3.8e9 multiply-adds, see test_counting.py."""
    path = NAMES["resnet50"]
    found = tables.stages_of(path, tables.network(path, "resnet50"))
    assert [row[0] for row in found] == ["stem", "group_1", "group_2", "group_3", "group_4", "classifier"]
    assert [row[2] for row in found] == [9_536, 215_808, 1_219_584, 7_098_368, 14_964_736, 2_049_000]
    table = made("resnet/README.md", "<!-- stages resnet_v1 resnet50 -->", "<!-- end -->")
    assert "| group_1 | (56, 56, 256) | 215,808 | " in table and "| **all** | | 25,557,032 | 3.86G |" in table


def test_code_is_the_module_to_the_letter():
    resnet, multilabel = once("resnet/resnet_v1.py"), once("multilabel/multilabel.py")
    block, conv_bn = inspect.getsource(resnet.identity_block), inspect.getsource(resnet.conv_bn)
    text = made("resnet/README.md", "<!-- code resnet_v1 identity_block conv_bn -->", "<!-- end -->")
    assert text.split("\n", 1)[1] == f"```python\n{block}\n\n{conv_bn}```\n<!-- end -->\n"
    text = made("multilabel/README.md", "<!-- code multilabel stem -->", "<!-- end -->")  # a copied function
    assert text.split("\n", 1)[1] == f"```python\n{inspect.getsource(multilabel.stem)}```\n<!-- end -->\n"
    text = made("vgg/README.md", "<!-- code vgg_composable VGG.stem -->", "<!-- end -->")
    assert "```python\ndef stem(" in text or "```python\n@staticmethod\ndef stem(" in text
    text = made("rcnn/README.md", "<!-- code fast_rcnn RoIPooling -->", "<!-- end -->")
    assert "```python\n@saving.register_keras_serializable" in text


def test_results_of_several_seeds_are_their_mean_and_deviation():
    logs = [ROOT / "senet" / "results" / "comparison" / f"resnet20_cifar10_seed{seed}.json" for seed in range(3)]
    accuracies = [100 * json.loads(log.read_text())["test_accuracy"] for log in logs]
    part = "results results/comparison/*.json : network, parameters, epochs, test accuracy, seed"
    _, head, line, *rows = made("senet/README.md", f"<!-- {part} -->", "<!-- end -->").split("\n")
    assert (head, line) == ("| network | parameters | epochs | test accuracy | seed |", "|---|---|---|---|---|")
    mean, deviation = np.mean(accuracies), np.std(accuracies, ddof=1)
    assert rows[0] == f"| resnet20_cifar10 | 272,474 | 5 | {mean:.2f} ± {deviation:.2f}% | 0, 1, 2 |"
    assert rows[1].startswith("| se_resnet20_cifar10 | 274,847 | 5 | ") and rows[2] == "<!-- end -->"


def test_a_row_of_all_columns_of_a_run():
    """Whose multiply-adds are there only as long as the network is the one that ran."""
    log = json.loads((ROOT / "vgg" / "results" / "results.json").read_text())
    assert tables.operations_of(log) == "75.7M" and tables.operations_of(log | {"parameters": 1}) == ""
    columns = "folder, year, network, parameters, multiply-adds, batch size, learning rate"
    text = made("README.md", f"<!-- results vgg/results autoencoder/results : {columns} -->", "<!-- end -->")
    assert "| [vgg](vgg) | 2014 | vgg8_cifar10 | 1,297,642 | 75.7M | 128 | 0.1 |" in text
    assert "| [autoencoder](autoencoder) | 2006 | autoencoder_cifar10 | 49,027 | 2.73M | 64 | 0.01 |" in text
    assert set(tables.IDEAS) == set(FOLDERS)


def test_the_picture_of_the_front_page_shows_the_logs():
    """A point for each folder, above the multiply-adds of the table, at the test accuracy of the log."""
    points = pictures.points()
    figure = pictures.overview(points)
    places = np.concatenate([np.asarray(dots.get_offsets()) for dots in figure.axes[0].collections])
    for (folder, name, operations, parameters, _), (x, y) in zip(points, places, strict=True):
        log = json.loads((ROOT / folder / "results" / "results.json").read_text())
        assert (name, parameters) == (log["model"], log["parameters"]) and y == 100 * log["test_accuracy"]
        assert f"| {parameters:,} | {x:.1f}M | {log['test_accuracy']:.2%} |" in TEXTS["README.md"], operations


def test_the_pictures_of_the_logs_are_what_is_drawn_of_them():
    """All that logs determine. Those that are of another version of Matplotlib are drawn, but not compared."""
    drawn = pictures.figures()
    names = {"overview.png", "curves.png", "errors.png", "psnr.png", "seconds.png"}
    there = [path for folder in (ROOT, *(ROOT / name for name in FOLDERS)) for path in folder.glob("results/**/*.png")]
    assert set(drawn) == {path.relative_to(ROOT).as_posix() for path in there if path.name in names}
    assert [path for path, figure in drawn.items() if pictures.differs(path, figure)] == []


def test_a_picture_of_another_log_differs(monkeypatch, tmp_path):
    monkeypatch.setattr(pictures, "ROOT", tmp_path)
    points = [("a", "a_cifar10", 1e7 * 2**i, 10**5, 85 + i / 2) for i in range(7)]
    figure = pictures.overview(points)
    assert pictures.differs("overview.png", figure)  # there is none
    figure.savefig(tmp_path / "overview.png", dpi=100)
    assert not pictures.differs("overview.png", figure)
    assert pictures.differs("overview.png", pictures.overview([*points[:-1], (*points[-1][:-1], 88.2)]))  # for 88


def test_other_values_of_metaparameters():
    part = "networks resnet_basic resnet20_cifar10 resnet20_cifar10(shortcut_type=zero_padding)"
    part = f"<!-- {part} : network, trainable parameters, error in the paper -->"
    text = made("resnet/README.md", part, "<!-- end -->")
    assert "| resnet20_cifar10 | 272,474 | 8.75% |" in text
    assert "| resnet20_cifar10 (shortcut_type zero_padding) | 269,722 | |" in text
    part = "<!-- stages resnet_v1 resnet50(strided_convolution=3x3) -->"
    assert "| **all** | | 25,557,032 | 4.09G |" in made("resnet/README.md", part, "<!-- end -->")  # as in torchvision


def test_one_cell_within_a_sentence():
    sentence = "It has <!-- networks vgg vgg8_cifar10 : trainable parameters -->?<!-- end --> parameters."
    text = pages.made("vgg/README.md", sentence)
    assert text == sentence.replace("?", "1,297,642") and pages.made("vgg/README.md", text) == text


def test_networks_that_take_long_are_left_to_the_slow_tests():
    """Of a large network the quick check sees what needs no building, and of a table all other rows."""
    page = "vgg/README.md"
    lines = ("<!-- networks vgg vgg19 vgg8_cifar10 -->", "| network | images | trainable parameters |", "|---|---|---|")
    rows = ("| vgg19 | 1x1 | 7 |", "| vgg8_cifar10 | 1x1 | 7 |", "<!-- end -->")
    text = pages.made(page, "\n".join((*lines, *rows)), quick=True)
    assert "| vgg19 | 224x224, 1000 classes | 7 | 19.6G | 25.5% |" in text  # a column that is new is made
    assert "| vgg8_cifar10 | 32x32, 10 classes | 1,297,642 | 75.7M | |" in text
    stages = "<!-- stages vgg vgg19 -->\nas it is\n<!-- end -->"
    assert pages.made(page, stages, quick=True) == stages
    assert PARAMETERS["vgg19"][0] == 143_667_240 and "143,667,240" in pages.made(page, stages)


WRONG = {
    "<!-- stages vgg -->\n<!-- end -->": "stages needs a module and a network",
    "<!-- stages vgg vgg99 -->\n<!-- end -->": "vgg/vgg.py has no vgg99",
    "<!-- networks vgg vgg99 -->\n<!-- end -->": "vgg99 is no network of vgg/vgg.py, and no module",
    "<!-- networks vgg vgg8_cifar10(depth=3) -->\n<!-- end -->": "depth",
    "<!-- networks : network -->\n<!-- end -->": "networks needs a module",
    "<!-- networks vgg vgg8_cifar10 : netwrok -->\n<!-- end -->": "netwrok",
    "<!-- results -->\n<!-- end -->": "results needs a path",
    "<!-- results results/lost -->\n<!-- end -->": "there are no results results/lost",
    "<!-- results results/results.json#a.b -->\n<!-- end -->": "has no a.b",
    "<!-- results results : accuracy -->\n<!-- end -->": "accuracy",
    "<!-- results results : one-shot -->\n<!-- end -->": "none of these results has one-shot",
    "<!-- code vgg -->\n<!-- end -->": "code needs a module and functions",
    "<!-- code vgg lost -->\n<!-- end -->": "vgg/vgg.py has no lost",
    "<!-- include lost.md -->\n<!-- end -->": "there is no lost.md",
    "<!-- output -->\n<!-- end -->": "output must stand directly after a block of Python",
    "```python\nprint(1)\n```\ntext\n<!-- output -->\n<!-- end -->": "directly after",
    "```python\nprint(lost)\n```\n<!-- output -->\n<!-- end -->": "block 1 of Python ends with NameError",
    "<!-- results results -->\n": "every part needs its <!-- end -->",
    "<!-- results results -->\n<!-- results results -->\n<!-- end -->": "every part needs its <!-- end -->",
    "text\n<!-- end -->": "every part needs its <!-- end -->",
    "a\n<!-- results results : test accuracy --><!-- end --> a": "a part must not begin a line",
    "a <!-- results results --><!-- end -->": "within a sentence there is room for one cell, got 1 rows of 6",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_with_a_part_is_said_in_a_sentence(text):
    with pytest.raises(tables.Wrong, match=re.escape(WRONG[text])) as wrong:
        pages.made("vgg/README.md", text)
    assert str(wrong.value).startswith("vgg/README.md: ") and "\n" not in str(wrong.value)


def test_other_comments_are_left_alone():
    text = "<!-- a remark -->\n<!-- outputs -->\ntext\n"
    assert pages.made("vgg/README.md", text) == text


@pytest.mark.slow
def test_check_finds_a_wrong_figure_and_the_command_mends_it(monkeypatch, capsys, tmp_path):
    """In a copy of a folder, from the command line."""
    copy_tracked(tmp_path, "vgg")
    for module in (pages, tables):
        monkeypatch.setattr(module, "ROOT", tmp_path)

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["pages.py", "vgg/README.md", "--quick", *flags])
        with pytest.raises(SystemExit) as exit_:
            pages.main()
        return exit_.value.code, capsys.readouterr()

    page, right = tmp_path / "vgg" / "README.md", TEXTS["vgg/README.md"]
    assert run("--check") == (0, ("", ""))
    page.write_text(right.replace("1,297,642", "1,297,643"))
    code, (printed, _) = run("--check")
    assert code == 1 and page.read_text() != right
    assert re.search(r"^-.*1,297,643", printed, flags=re.M) and re.search(r"^\+.*1,297,642", printed, flags=re.M)
    code, (printed, _) = run()
    assert code == 0 and page.read_text() == right and printed == "vgg/README.md is new.\n"

    page.write_text(right + "<!-- results lost -->\n<!-- end -->\n")
    code, (_, error) = run()
    assert code == 2 and "vgg/README.md: there are no results lost, in <!-- results lost -->" in error
    monkeypatch.setattr(sys, "argv", ["pages.py", "vgg"])
    with pytest.raises(SystemExit) as exit_:
        pages.main()
    assert exit_.value.code == 2 and "PAGE must be one of README.md, vgg/README.md" in capsys.readouterr().err


def test_errors_are_of_networks_that_exist():
    assert set(tables.ERRORS) < set(NAMES)
    assert set(AUXILIARY) == {name for name, path in NAMES.items() if path in tables.WITH_AUXILIARY}


def test_contributing_names_tests_that_exist_and_parts_that_work():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    sources = {path.name: path.read_text() for path in (ROOT / "tests").glob("test_*.py")}
    named = re.findall(r"`(?:tests/)?(test_\w+(?:\.py)?)`", text)
    assert len(named) > 30
    for name in named:
        assert name in sources or any(f"\ndef {name}(" in source for source in sources.values()), name
    for path in re.findall(r"`((?:tests/)?\w+\.(?:py|toml))`", text):
        assert (ROOT / path).exists() or (ROOT / "vgg" / path).exists(), path
    for mark in re.findall(r"`(<!-- (?:networks|code) .*? -->)`", text):
        module = mark.split()[2]
        (page,) = (page for page in pages.PAGES if (ROOT / page).with_name(f"{module}.py").exists())
        assert pages.made(page, f"{mark}\n<!-- end -->\n", quick=True).count("\n") > 4


def test_the_citation_is_of_this_project():
    citation = (ROOT / "CITATION.cff").read_text()
    title = TEXTS["README.md"].split("\n")[0].removeprefix("# ")
    assert f"\ntitle: {title}\n" in citation and "\nlicense: Apache-2.0\n" in citation
    assert "Apache License\n                           Version 2.0" in (ROOT / "LICENSE").read_text()

"""The parts of the pages, README.md at the root and in the folders, that are computed and not typed.

    python -m tests.pages                     # makes them anew, in minutes; pages that are named are the only ones
    python -m tests.pages --quick             # in seconds: leaves what needs a network that takes long to build
    python -m tests.pages --check             # changes nothing: prints what differs, and ends with 1 if anything does

A part stands between two comments, which GitHub does not show, `<!-- KIND ... -->` and `<!-- end -->`, each on a line
of its own. Whatever stands between them is replaced. In brackets: may be left out.

    stages MODULE NETWORK              a row for each stage: output, trainable parameters, multiply-adds; and the sums
    networks MODULE [NETWORK ...] ... [: COLUMN, ...]       a row for each network; NETWORK_COLUMNS of tables.py
    results PATH ... [: COLUMN, ...]   a row for each command, mean ± deviation of several seeds; COLUMNS of tables.py
    code MODULE FUNCTION ...           functions, classes or methods, such as VGG.stem, as they stand in the module
    output                             directly after a block of Python: what it prints
    include PATH                       a file, such as the table.md of an experiment

MODULE is a file without its .py. NETWORK is one of its METAPARAMETERS, by default all, with other values if need be:
`resnet50(strided_convolution=3x3)`. PATH is a JSON file, a folder that holds results.json, a pattern such as
`results/seed*.json`, or a part of a file, `results/seconds.json#seconds_per_image.rcnn`. All are sought in the folder
of the page.

A single cell can stand within a sentence, if the comments do: `<!-- results results : test accuracy --><!-- end -->`,
but not at the beginning of a line.
A block of Python is run in the folder of its page, after the earlier blocks that it takes names from, and no others.
"""

import argparse
import ast
import builtins
import contextlib
import difflib
import io
import os
import re
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # `python -m tests.pages` finds its neighbors there

import keras
from folders import FOLDERS, ROOT
from tables import Wrong, networks, path_of, results, single, stages, table

PAGES = ("README.md", *(f"{folder}/README.md" for folder in FOLDERS))
KINDS = "stages|networks|results|code|output|include"
PART = re.compile(rf"(<!-- ({KINDS})\b(.*?)-->)(\n?)(.*?)(<!-- end -->)", re.S)
PYTHON = re.compile(r"^```python\n(.*?)^```\n", re.S | re.M)


def main():
    parser = argparse.ArgumentParser(
        "python -m tests.pages", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"default all: {', '.join(PAGES)}")
    parser.add_argument("--check", action="store_true", help="change nothing, print what differs")
    parser.add_argument("--quick", action="store_true", help="leave what needs a network that takes long to build")
    args = parser.parse_args()
    if not args.quick:
        sys.setrecursionlimit(20_000)  # for ResNet-1202
    differs = False
    for page in args.pages or PAGES:
        if page not in PAGES:
            parser.error(f"PAGE must be one of {', '.join(PAGES)}, got {page}")
        text = (ROOT / page).read_text()
        try:
            new = made(page, text, args.quick)
        except Wrong as wrong:
            parser.error(str(wrong))
        if new == text:
            continue
        differs = True
        if args.check:
            print(difference(page, text, new))
        else:
            (ROOT / page).write_text(new)
            print(f"{page} is new.")
    sys.exit(1 if args.check and differs else 0)


def difference(page, text, new):
    """Return what differs between a page as it stands and as it should be, as `diff -u` would."""
    lines = difflib.unified_diff(text.split("\n"), new.split("\n"), page, f"{page} as computed", lineterm="", n=1)
    return "\n".join(lines)


def made(page, text, quick=False):
    """Return the text of a page with all of its parts made anew.

    Args:
        page: one of PAGES, in whose folder modules and results are sought.
        text: of the page.
        quick: leave what is counted of networks that take long to build as it is.
    """
    parts, opened = PART.findall(text), re.findall(rf"<!-- (?:{KINDS})\b.*?-->", text, flags=re.S)
    if [part[0] for part in parts] != opened or text.count("<!-- end -->") != len(parts):
        n_ends = text.count("<!-- end -->")
        raise Wrong(f"{page}: every part needs its <!-- end -->, got {len(opened)} parts and {n_ends} ends")
    printed = outputs(page, text)

    def replaced(part):
        opening, kind, arguments, newline, old, end = part.groups()
        try:
            if kind == "output":
                new = f"```text\n{printed[part.start()]}```"
            else:
                new = MAKERS[kind](page, " ".join(arguments.split()), old, quick)
            if isinstance(new, list):
                new = table(new) if newline else single(new)
            if not newline and text[: part.start()].split("\n")[-1] == "":
                raise Wrong("within a sentence a part must not begin a line, or GitHub ends the paragraph there")
        except Wrong as wrong:
            raise Wrong(f"{page}: {wrong}, in {opening}") from None
        return f"{opening}{newline}{new}{newline}{end}"

    return PART.sub(replaced, text)


# Code, and what it prints


def code(page, arguments, old, quick):
    """Return functions of a module as a block of Python, each as it stands there."""
    if len(arguments.split()) < 2:
        raise Wrong("code needs a module and functions")
    module, *functions = arguments.split()
    path = path_of(page, module)
    text = (ROOT / path).read_text()
    found = "\n\n\n".join(definition(path, text, name) for name in functions)
    return f"```python\n{found}\n```"


def definition(path, text, name):
    """Return the lines of a function or class, or of a method, moved to the left."""
    body, node = ast.parse(text).body, None
    for part in name.split("."):
        kinds = (ast.FunctionDef, ast.ClassDef)
        node = next((node for node in body if isinstance(node, kinds) and node.name == part), None)
        if node is None:
            raise Wrong(f"{path} has no {name}")
        body = node.body
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return textwrap.dedent("\n".join(text.split("\n")[first - 1 : node.end_lineno]))


def include(page, arguments, old, quick):
    """Return a file."""
    file = (ROOT / page).parent / arguments
    if not file.is_file():
        raise Wrong(f"there is no {arguments}")
    return file.read_text().strip("\n")


def outputs(page, text):
    """Return {where an output part starts: what the block of Python before it prints}."""
    blocks, printed = list(PYTHON.finditer(text)), {}
    wanted = {}  # {block: where its output goes}
    for part in PART.finditer(text):
        if part[2] == "output":
            before = [i for i, block in enumerate(blocks) if block.end() <= part.start()]
            if not before or text[blocks[before[-1]].end() : part.start()].strip():
                raise Wrong(f"{page}: output must stand directly after a block of Python")
            wanted[before[-1]] = part.start()
    if not wanted:
        return printed
    sources, namespace, done = [block[1] for block in blocks], {}, {}

    def run(i):
        if i in done:
            return
        for name in sorted(taken(sources[i])):
            earlier = [j for j in range(i) if name in given(ast.parse(sources[j]))]
            if earlier:
                run(earlier[-1])
        done[i] = io.StringIO()
        try:
            with contextlib.redirect_stdout(done[i]):
                exec(sources[i], namespace)
        except Exception as error:
            raise Wrong(f"{page}: block {i + 1} of Python ends with {error!r}") from error

    with inside((ROOT / page).parent):
        for i, start in wanted.items():
            run(i)
            text = re.sub(r"torch\.Size\(\[(.*?)\]\)", r"(\1)", done[i].getvalue())  # as on the other backends
            printed[start] = text.rstrip("\n") + "\n"
    return printed


@contextlib.contextmanager
def inside(folder):
    """Run code in a folder as a new process would: its modules are found first, names of tensors count from 0."""
    here, neighbors = os.getcwd(), {file.stem for file in folder.glob("*.py")}
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    keras.utils.clear_session(free_memory=False)
    try:
        yield
    finally:
        os.chdir(here)
        sys.path.remove(str(folder))
        for name in neighbors & set(sys.modules):  # another folder has others of that name
            del sys.modules[name]


def taken(source):
    """Return the names that a block of Python takes from elsewhere: it reads them before it gives them a value."""
    needed, known = set(), set(dir(builtins))
    for statement in ast.parse(source).body:
        names = read(statement)
        if isinstance(statement, ast.AugAssign):  # which reads what it gives a value
            names |= given(statement)
        elif not isinstance(statement, (ast.Assign, ast.AnnAssign)):  # a loop, say, has its variable first
            names -= given(statement)
        needed |= names - known
        known |= given(statement)
    return needed


FUNCTIONS, COMPREHENSIONS = (ast.FunctionDef, ast.Lambda), (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def given(node):
    """Return the names of variables, functions, classes and imports to which a part of a block gives a value."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.alias):
        return {(node.asname or node.name).split(".")[0]}
    if isinstance(node, (ast.Lambda, *COMPREHENSIONS)):  # whose variables are their own
        return set()
    own = {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()
    return own.union(*map(given, ast.iter_child_nodes(node)))


def read(node):
    """Return the names that a part of a block reads, but those of the variables of its functions and comprehensions."""
    own = set()
    if isinstance(node, COMPREHENSIONS):
        own = set().union(*(given(generator.target) for generator in node.generators))
    elif isinstance(node, FUNCTIONS):
        own = {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}
        if isinstance(node, ast.FunctionDef):
            own = own.union(*map(given, node.body))
    names = {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else set()
    return names.union(*map(read, ast.iter_child_nodes(node))) - own


MAKERS = {"stages": stages, "networks": networks, "results": results, "code": code, "include": include}

if __name__ == "__main__":
    main()

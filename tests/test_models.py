"""What every module promises: its shapes, no state, no side effects, filters that learn, files that load again."""

import ast
import copy
import inspect
import re
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from folders import CLASSIFIERS, FOLDERS, MODULES, ROOT, all_layers, build, load, predict, without_numbers
from keras import Input, Model, layers

# One small network of each kind of block: (module, metaparameters).
CIFAR10_STEM = {"n_filters": 8, "kernel_size": 3, "strides": 1, "pooling": False}
LAYERS = ({"n_layers": 1, "n_filters": 8}, {"n_layers": 2, "n_filters": 16})
GROUPS = ({"n_filters": 8, "n_blocks": 2}, {"n_filters": 16, "n_blocks": 2})
BRANCHES = ({"n_filters": 8, "n_filters_out": 16, "n_blocks": 2}, {"n_filters": 16, "n_filters_out": 32, "n_blocks": 2})
BLOCK = {"n_1x1": 8, "n_3x3_reduce": 4, "n_3x3": 8, "n_5x5_reduce": 4, "n_5x5": 8, "n_pool": 4}
INCEPTION = {
    "groups": ((BLOCK, None, BLOCK), (BLOCK,)),
    "stem": {"n_filters": 8, "n_filters_out": 16, "kernel_size": 3, "strides": 1, "pooling": False},
}
V3 = load("inception/inception_v3.py")
INCEPTION_V3 = {
    "groups": (
        {
            "block": V3.inception_block_a,
            "blocks": ({"n_1x1": 8, "n_5x5_reduce": 4, "n_5x5": 8, "n_3x3_reduce": 4, "n_3x3": 8, "n_pool": 4},),
            "grid_reduction": V3.grid_reduction_a,
            "grid_filters": {"n_3x3": 8, "n_double_3x3_reduce": 4, "n_double_3x3": 8},
        },
        {
            "block": V3.inception_block_b,
            "blocks": ({"n_filters": 8, "n_7x7": 4},),
            "auxiliary": V3.auxiliary,
            "grid_reduction": V3.grid_reduction_b,
            "grid_filters": {"n_filters": 4, "n_3x3": 8},
        },
        {
            "block": V3.inception_block_c,
            "blocks": ({"n_1x1": 8, "n_3x3": 4, "n_double_3x3_reduce": 4, "n_pool": 4},),
        },
    ),
    "stem": {
        "n_filters": 4, "n_filters_reduce": 8, "n_filters_out": 16, "strides": 1, "padding": "same", "pooling": False,
    },
}
SE_INCEPTION = INCEPTION | {"groups": ((BLOCK, BLOCK), (BLOCK,)), "ratio": 4}
FIRE = {"n_squeeze": 4, "n_1x1": 8, "n_3x3": 8}
FIRES = {"groups": ((FIRE, FIRE), (FIRE, FIRE | {"n_3x3": 12})), "stem": {"n_filters": 8}}
SIAMESE = {
    "stem": {"n_filters": 8, "kernel_size": 3},
    "groups": (
        {"n_layers": 2, "n_filters": 16, "kernel_size": 3},
        {"n_layers": 1, "n_filters": 16, "kernel_size": 2, "pooling": False},
    ),
    "n_units": 32,
}
DETECTOR = {"groups": LAYERS, "pooled_size": 3, "n_units": (32,)}
PROPOSALS = {
    "n_filters": 16,
    "anchors": {"scales": (0.5, 1), "ratios": (1, 2)},
    "proposals": {"n_proposals": 20, "min_size": 4},
}
SMALL = {
    "vgg": ("vgg/vgg.py", {"groups": LAYERS, "n_units": (32,)}),
    "vgg with batch normalization": ("vgg/vgg.py", {"groups": LAYERS, "n_units": (), "batch_normalization": True}),
    "resnet_v1": ("resnet/resnet_v1.py", {"groups": GROUPS}),
    "resnet_v1_5": ("resnet/resnet_v1.py", {"groups": GROUPS, "strided_convolution": "3x3"}),
    "resnet_v2": ("resnet/resnet_v2.py", {"groups": GROUPS}),
    "resnet_v2 for CIFAR-10": ("resnet/resnet_v2.py", {"groups": GROUPS, "stem": CIFAR10_STEM}),
    "resnet_basic": ("resnet/resnet_basic.py", {"groups": GROUPS}),
    "resnet_basic for CIFAR-10": ("resnet/resnet_basic.py", {"groups": GROUPS, "stem": CIFAR10_STEM}),
    "resnet_basic with zero padding": (
        "resnet/resnet_basic.py",
        {"groups": GROUPS, "stem": CIFAR10_STEM, "shortcut": "zero_padding"},
    ),
    "inception_v1": ("inception/inception_v1.py", INCEPTION),
    "inception_v1 with batch normalization": (
        "inception/inception_v1.py",
        INCEPTION | {"batch_normalization": True},
    ),
    "inception_v3": ("inception/inception_v3.py", INCEPTION_V3),
    "resnext": ("resnext/resnext.py", {"groups": BRANCHES, "cardinality": 4}),
    "resnext for CIFAR-10": ("resnext/resnext.py", {"groups": BRANCHES, "cardinality": 2, "stem": CIFAR10_STEM}),
    "resnext with grouped convolutions": (
        "resnext/resnext.py",
        {"groups": BRANCHES, "cardinality": 2, "convolution": "grouped_convolution"},
    ),
    "densenet": ("densenet/densenet.py", {"groups": 2 * ({"n_blocks": 2},), "growth_rate": 4}),
    "densenet without bottleneck for CIFAR-10": (
        "densenet/densenet.py",
        {"groups": 2 * ({"n_blocks": 2},), "growth_rate": 4, "bottleneck": False, "stem": CIFAR10_STEM},
    ),
    "se_resnet": ("senet/se_resnet.py", {"groups": GROUPS, "ratio": 4}),
    "se_resnet without bottleneck for CIFAR-10": (
        "senet/se_resnet.py",
        {"groups": GROUPS, "bottleneck": False, "ratio": 2, "stem": CIFAR10_STEM},
    ),
    "se_resnext": ("senet/se_resnext.py", {"groups": BRANCHES, "cardinality": 4}),
    "se_resnext with grouped convolutions": (
        "senet/se_resnext.py",
        {"groups": BRANCHES, "cardinality": 2, "ratio": 4, "convolution": "grouped_convolution"},
    ),
    "se_inception_v1": ("senet/se_inception_v1.py", SE_INCEPTION),
    "se_inception_v1 with batch normalization": (
        "senet/se_inception_v1.py",
        SE_INCEPTION | {"batch_normalization": True},
    ),
    "squeezenet": ("squeezenet/squeezenet.py", FIRES),
    "squeezenet with simple bypass": ("squeezenet/squeezenet.py", FIRES | {"bypass": "simple"}),
    "squeezenet with complex bypass": ("squeezenet/squeezenet.py", FIRES | {"bypass": "complex", "dropout": 0.2}),
    "multilabel": ("multilabel/multilabel.py", {"groups": GROUPS, "stem": CIFAR10_STEM}),
    "siamese": ("siamese/siamese.py", SIAMESE | {"initial_weights": "koch"}),
    "siamese with batch normalization": (
        "siamese/siamese.py",
        SIAMESE | {"padding": "same", "batch_normalization": True},
    ),
    "autoencoder": ("autoencoder/autoencoder.py", {"layers": (16, 8, 4)}),
    "rcnn": ("rcnn/rcnn.py", {"groups": LAYERS, "n_units": (32,)}),
    "rcnn with batch normalization": ("rcnn/rcnn.py", {"groups": LAYERS, "n_units": (), "batch_normalization": True}),
    "fast_rcnn": ("rcnn/fast_rcnn.py", DETECTOR),
    "fast_rcnn with batch normalization": ("rcnn/fast_rcnn.py", DETECTOR | {"batch_normalization": True}),
    "faster_rcnn": ("rcnn/faster_rcnn.py", DETECTOR | PROPOSALS),
    "faster_rcnn with batch normalization": (
        "rcnn/faster_rcnn.py",
        DETECTOR | PROPOSALS | {"batch_normalization": True},
    ),
}
small = pytest.mark.parametrize("path, metaparameters", SMALL.values(), ids=SMALL)
CLASSIFYING = [path for path in MODULES if path.split("/")[0] in CLASSIFIERS]  # into one of n_classes
small_classifier = pytest.mark.parametrize(
    "path, metaparameters", [row for row in SMALL.values() if row[0] in CLASSIFYING],
    ids=[name for name, row in SMALL.items() if row[0] in CLASSIFYING],
)
every_module = pytest.mark.parametrize("path", MODULES)


def images(n=16, size=32):
    return np.random.default_rng(0).normal(size=(n, size, size, 3)).astype("float32")


def test_every_module_has_a_small_network_here():
    assert {path for path, _ in SMALL.values()} == set(MODULES)


STAGES = ("stem", "group", "auxiliary", "encoding", "encoder", "decoder", "classifier")


def shape_tables(path):
    """Return {network: [(stage, input shape, output shape), ...]} as the module's header has them."""
    tables, name = {}, None
    for line in load(path).__doc__.split("\n"):
        if match := re.fullmatch(r"    (\w+)", line):
            name = match[1]
        if match := re.match(rf"    ({'|'.join(STAGES)}) [\d ]*\([^)]*\) -> (\([^)]*\)(, )?)+", line):
            shapes = re.findall(r"\(([^)]*)\)", match[0])
            sizes = [tuple(int(n) for n in shape.split(",") if n.strip()) for shape in shapes]
            tables.setdefault(name, []).append((match[1], *sizes))
    return tables


TABLES = [(path, name) for path in MODULES for name in shape_tables(path)]


@pytest.mark.parametrize("path, name", TABLES)
def test_header_tells_the_shapes(path, name, monkeypatch):
    module, seen = load(path), []

    def watched(stage):
        function = getattr(module, stage)

        def watch(x, *args, **kwargs):
            row = len(seen)
            seen.append(None)  # a stem of groups comes before them
            outputs = function(x, *args, **kwargs)
            if isinstance(outputs, dict):  # one below the other in a row of the table
                seen[row] = (stage, x.shape[1:], *(part.shape[1:] for part in outputs.values()))
            else:
                first = outputs[0] if isinstance(outputs, tuple) else outputs  # Inception has heads beside it
                seen[row] = (stage, x.shape[1:], first.shape[1:])
            return outputs

        return watch

    metaparameters, table = module.METAPARAMETERS[name], shape_tables(path)[name]
    for stage in STAGES:
        if inspect.isfunction(getattr(module, stage, None)):
            monkeypatch.setattr(module, stage, watched(stage))
    options = {}
    if path.startswith("inception"):
        groups = tuple(
            group | {"auxiliary": module.auxiliary} if "auxiliary" in group else group
            for group in metaparameters["groups"]  # in version 3 the function is a metaparameter
        )
        metaparameters, options = metaparameters | {"groups": groups}, {"auxiliary": True}
    with without_numbers():  # the shapes need no random numbers
        build(module, metaparameters, table[0][1], table[-1][2][-1], **options)
    for heads in (False, True):  # those of a group are made before it ends
        assert [row for row in seen if (row[0] == "auxiliary") == heads] == [
            row for row in table if (row[0] == "auxiliary") == heads
        ]


@every_module
def test_header_has_a_shape_table(path):
    stages = 2 if path == "autoencoder/autoencoder.py" else 4
    assert all(len(table) >= stages for table in shape_tables(path).values()) and shape_tables(path)


@small
def test_two_builds_are_the_same_network(path, metaparameters):
    module = load(path)
    given, table = copy.deepcopy(metaparameters), copy.deepcopy(module.METAPARAMETERS)
    with without_numbers():
        first, second = (build(module, given, (64, 64, 3), 7) for _ in range(2))
    assert [layer.__class__ for layer in all_layers(first)] == [layer.__class__ for layer in all_layers(second)]
    assert [w.shape for w in first.weights] == [w.shape for w in second.weights]
    assert given == metaparameters and module.METAPARAMETERS == table
    assert first.output_shape == second.output_shape
    assert first.output_shape == (None, 7) or path not in CLASSIFYING


@every_module
def test_metaparameters_are_immutable(path):
    def lists(value):
        if isinstance(value, dict):
            return any(lists(item) for item in value.values())
        return isinstance(value, (list, set)) or isinstance(value, tuple) and any(lists(item) for item in value)

    assert not lists(load(path).METAPARAMETERS)


# Those, and the Inception networks with their auxiliary classifiers: (module, metaparameters, options of build).
WITH_OPTIONS = {name: (*row, {}) for name, row in SMALL.items()}
WITH_OPTIONS |= {
    f"{name}, auxiliary": (*row, {"auxiliary": True}) for name, row in SMALL.items() if name.startswith("inception")
}
WITH_OPTIONS["multilabel, multi-hot"] = (*SMALL["multilabel"], {"classes": 10})
with_options = pytest.mark.parametrize("path, metaparameters, options", WITH_OPTIONS.values(), ids=WITH_OPTIONS)


def example(model, n=64):
    """Return something for a network to learn: (x, y, loss)."""
    x, cross_entropy = images(n), "sparse_categorical_crossentropy"
    if "deltas" in getattr(model.output, "keys", dict)():  # a detector, whose boxes are learned as squares of numbers
        answers = {name: np.ones((n, *outputs.shape[1:]), "float32") for name, outputs in model.output.items()}
        for name in {"classes", "objectness"} & set(answers):
            rows = np.arange(n * answers[name].shape[1]).reshape(n, -1)
            answers[name] = rows % answers[name].shape[2]
        if isinstance(model.input, dict):
            corners = np.random.default_rng(0).uniform(0, 32, (n, model.input["regions"].shape[1], 2, 2))
            x = {"images": x, "regions": np.sort(corners, 2).reshape(n, -1, 4).astype("float32")}
        loss = {name: cross_entropy if answers[name].ndim == 2 else "mean_squared_error" for name in answers}
        return x, answers, loss
    if isinstance(model.output, dict):
        labels = {name: np.arange(n) % outputs.shape[-1] for name, outputs in model.output.items()}
        return x, labels, dict.fromkeys(labels, cross_entropy)
    if isinstance(model.output_shape, tuple) and len(model.output_shape) == 4:
        return x, x, "mean_squared_error"
    if isinstance(model.input, list):
        return [x, x[::-1]], np.arange(n) % 2, "binary_crossentropy"
    if isinstance(model.layers[-1], layers.Dense) and model.layers[-1].activation.__name__ == "sigmoid":
        return x, np.arange(n * 10).reshape(n, 10) % 3 == 0, "binary_crossentropy"
    return x, np.arange(n) % 10, cross_entropy


@with_options
def test_a_training_step_moves_every_filter(path, metaparameters, options):
    """In one of several draws of the initial weights: without batch normalization a draw may leave a ReLU dead.

    So may one leave a unit of squeeze-excitation, which has no batch normalization of its own.
    """
    moved = {}
    # of the 1,024 dense units of an auxiliary classifier some are dead in all of the draws
    kinds = layers.Conv2D if "auxiliary" in options else (layers.Conv2D, layers.Conv2DTranspose, layers.Dense)
    for seed in range(8):
        keras.utils.set_random_seed(seed)
        model = build(load(path), metaparameters, (32, 32, 3), 10, **options)
        if path == "rcnn/faster_rcnn.py":  # its proposals are no outputs to learn, those that they are made of are
            names = ("objectness", "anchor_deltas", "classes", "deltas")
            model = Model(model.input, {name: model.get_layer(name).output for name in names})
        convolutions = [layer for layer in all_layers(model) if isinstance(layer, kinds)]
        before = [layer.kernel.numpy() for layer in convolutions]
        x, y, loss = example(model)
        model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)  # one step does not pay for a graph
        model.fit(x, y, batch_size=64, verbose=0)
        for i, (layer, kernel) in enumerate(zip(convolutions, before, strict=True)):
            moves = abs(layer.kernel.numpy() - kernel) > 0
            if isinstance(layer, layers.Conv2DTranspose):
                moves = moves.swapaxes(-1, -2)  # whose kernel is (height, width, filters, channels)
            moves = moves.reshape(-1, moves.shape[-1]).any(0)
            moved[i] = moves | moved.get(i, False)
        if all(moves.all() for moves in moved.values()):
            return
        still = [layer for i, layer in enumerate(convolutions) if not moved[i].all()]
        if any(isinstance(layer, layers.BatchNormalization) for layer in all_layers(model)):
            assert all(isinstance(layer, layers.Dense) for layer in still), "one draw must do"
    raise AssertionError({i: int((~moves).sum()) for i, moves in moved.items() if not moves.all()})


@with_options
def test_saved_and_loaded_in_safe_mode_predicts_the_same(path, metaparameters, options, tmp_path):
    model = build(load(path), metaparameters, (32, 32, 3), 10, **options)
    x, _, _ = example(model, 16)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    before, after = (predict(network, x) for network in (model, loaded))
    if not isinstance(before, dict):
        before, after = {"main": before}, {"main": after}
    assert list(before) == list(after)
    for name in before:
        np.testing.assert_allclose(after[name], before[name], atol=1e-6)


@small_classifier
def test_predictions_are_probabilities(path, metaparameters):
    outputs = load(path).build(metaparameters, (32, 32, 3), 10).predict(images(), verbose=0)
    assert outputs.shape == (16, 10) and (outputs >= 0).all()
    np.testing.assert_allclose(outputs.sum(-1), 1, atol=1e-5)


# The learners of the detectors end with the pooling of regions, and have tests of their own.
WITH_BACKBONE = [row for row in SMALL.values() if "groups" in row[1] and row[1].get("pooled_size") is None]


@pytest.mark.parametrize("path, metaparameters", WITH_BACKBONE)
def test_stem_and_learner_are_a_backbone(path, metaparameters):
    module = load(path)
    inputs = Input((64, 64, 3))
    x = module.stem(inputs, **metaparameters.get("stem", {}))
    names = inspect.signature(module.learner).parameters
    features = module.learner(x, **{name: value for name, value in metaparameters.items() if name in names})
    if path.startswith("inception"):
        features, heads = features
        assert heads == []  # unless told how many classes
    assert Model(inputs, layers.GlobalMaxPooling2D()(features)).output_shape == (None, features.shape[-1])


def test_import_builds_and_prints_nothing():
    script = (
        "import keras, pathlib, sys\n"
        "def refuse(*args, **kwargs): raise AssertionError('a layer was made at import')\n"
        "keras.layers.Layer.__init__ = keras.Model.__init__ = refuse\n"
        "for path in sys.argv[1:]:\n"
        "    sys.path.insert(0, str(pathlib.Path(path).parent))\n"
        "    exec(pathlib.Path(path).read_text(), {'__name__': 'module'})\n"
    )
    paths = [str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).glob("*.py")]
    run = subprocess.run([sys.executable, "-c", script, *paths], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""


@small
def test_pasted_into_an_empty_namespace_builds(path, metaparameters):
    namespace = {}
    exec((ROOT / path).read_text(), namespace)
    with without_numbers():
        shape = build(SimpleNamespace(**namespace), metaparameters, (32, 32, 3), 5).output_shape
    assert shape == (None, 5) or path not in CLASSIFYING


@every_module
def test_functions_need_only_imports_and_functions(path):
    """So that each can be pasted elsewhere with the functions it calls: no function reads a constant of the module."""
    tree = ast.parse((ROOT / path).read_text())
    constants = {t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    for function in (n for n in tree.body if isinstance(n, ast.FunctionDef)):
        names = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
        assert not names & constants, f"{function.name} reads {names & constants}"


@every_module
def test_public_functions_say_what_they_do(path):
    module = load(path)
    order = [n.name for n in ast.parse((ROOT / path).read_text()).body if isinstance(n, ast.FunctionDef)]
    assert all(getattr(module, name).__doc__ for name in order)
    flow = ["build", "stem", "learner", "group", "classifier"]  # the order in which an image flows
    if path == "autoencoder/autoencoder.py":
        flow = ["build", "encoder", "decoder"]
    assert [name for name in order if name in flow] == flow


@every_module
def test_batch_normalization_is_the_papers(path):
    seen, epsilon = 0, 1e-3 if "inception" in path else 1e-5  # as in torchvision, and tf-slim for version 3
    for _, metaparameters in (row for row in SMALL.values() if row[0] == path):
        with without_numbers():
            model = build(load(path), metaparameters, (32, 32, 3), 10)
        for layer in all_layers(model):
            if isinstance(layer, layers.BatchNormalization):
                assert (layer.momentum, layer.epsilon) == (0.9, epsilon)
                seen += 1
    assert seen or path == "squeezenet/squeezenet.py"  # whose paper has none

"""What every module promises: shapes, names, no state, no side effects, filters that learn, files that load again."""

import ast
import copy
import functools
import inspect
import json
import re

import keras
import numpy as np
import pytest
from folders import CLASSIFIERS, FOLDERS, MODULES, ROOT, all_layers, build, load, predict, without_numbers
from keras import Input, Model, layers
from networks import BLOCK, SMALL, STAGES, architecture, once, operations, whole

CLASSIFYING = [path for path in MODULES if path.split("/")[0] in CLASSIFIERS]  # into one of n_classes
DETECTORS = [path for path in MODULES if path.startswith("rcnn/")]  # whose stages are models in a model
NAMED = [path for path in MODULES if path not in DETECTORS]  # whose layers are named by stage
# The networks, and those of Inception with auxiliary classifiers: {name: (module, metaparameters, options of build)}.
WITH_OPTIONS = {name: (*row, {}) for name, row in SMALL.items()}
WITH_AUXILIARY = ("inception/inception_v1.py", "inception/inception_v3.py")
WITH_OPTIONS |= {
    f"{name}, auxiliary": (*row, {"auxiliary": True}) for name, row in SMALL.items() if row[0] in WITH_AUXILIARY
}
WITH_OPTIONS["multilabel, multi-hot"] = (*SMALL["multilabel"], {"classes": 10})
with_options = pytest.mark.parametrize("name", WITH_OPTIONS)
FIRST = {path: name for name, (path, *_) in reversed(WITH_OPTIONS.items())}.values()  # of each module
first_of_each_module = pytest.mark.parametrize(  # and the others if there is time
    "name", [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in WITH_OPTIONS]
)


def images(n=16, size=32):
    return np.random.default_rng(0).normal(size=(n, size, size, 3)).astype("float32")


def tree(path):
    return ast.parse((ROOT / path).read_text())


def test_every_module_has_a_small_network():
    assert {path for path, _ in SMALL.values()} == set(MODULES)


def shape_tables(path):
    """Return {network: [(stage, input shape, output shape), ...]} as the module's header has them."""
    tables, name = {}, None
    for line in once(path).__doc__.split("\n"):
        if match := re.fullmatch(r"    (\w+)", line):
            name = match[1]
        if match := re.match(rf"    ({'|'.join(STAGES)}) [\d ]*\([^)]*\) -> (\([^)]*\)(, )?)+", line):
            shapes = re.findall(r"\(([^)]*)\)", match[0])
            sizes = [tuple(int(n) for n in shape.split(",") if n.strip()) for shape in shapes]
            tables.setdefault(name, []).append((match[1], *sizes))
    return tables


@pytest.mark.parametrize("path, name", [(path, name) for path in MODULES for name in shape_tables(path)])
def test_header_tells_the_shapes(path, name):
    """Those of the stage functions, and of the layers at which a stage can be cut off."""
    table = shape_tables(path)[name]
    model, seen = whole(path, name, table[0][1], table[-1][2][-1])
    for heads in (False, True):  # those of a group are made before it ends
        assert [row for row in seen if (row[0] == "auxiliary") == heads] == [
            row for row in table if (row[0] == "auxiliary") == heads
        ]
    if path in NAMED:
        inner = model.get_layer("twin") if path.startswith("siamese") else model
        ends = [row for row in table if row[0] in ("stem", "group", "encoder", "decoder")]
        for i, (stage, _, shape) in enumerate(ends):
            end = inner.get_layer(f"group_{i}" if stage == "group" else stage)
            assert end.output.shape[1:] == shape


@pytest.mark.parametrize("path", DETECTORS)
def test_the_parts_of_a_detector_are_models_with_names(path):
    """Freezing its backbone leaves the weights of the other parts trainable, and those alone."""
    with without_numbers():
        model = build(once(path), next(values for where, values in SMALL.values() if where == path), (64, 64, 3), 7)
    parts = {layer.name: layer for layer in model.layers if isinstance(layer, Model)}
    assert list(parts) == ["backbone", *(["rpn"] if "faster" in path else []), "head"]
    everything = sum(len(part.weights) for part in parts.values())
    assert len(model.weights) == everything and parts["backbone"].input_shape == (None, None, None, 3)
    parts.pop("backbone").trainable = False
    left = {id(variable) for part in parts.values() for variable in part.trainable_variables}
    assert {id(variable) for variable in model.trainable_variables} == left and left


def test_every_header_has_a_shape_table():
    for path in MODULES:
        stages = 2 if path == "autoencoder/autoencoder.py" else 3 if path in DETECTORS else 4
        assert shape_tables(path) and all(len(table) >= stages for table in shape_tables(path).values()), path


STAGE = r"stem|learner|encoder|decoder|encoding|distance|classifier|group_\d+|auxiliary_\d+"


@functools.cache
def plain(name):
    """Return a small network without numbers."""
    path, metaparameters, options = WITH_OPTIONS[name]
    with without_numbers():
        return build(once(path), metaparameters, (64, 64, 3), 7, **options)


@with_options
def test_two_builds_are_the_same_network(name):
    """To the names of all operations, also in nested models, whatever was built before."""
    path, metaparameters, options = WITH_OPTIONS[name]
    given, table = copy.deepcopy(metaparameters), copy.deepcopy(once(path).METAPARAMETERS)
    first = plain(name)
    with without_numbers():
        second = build(once(path), given, (64, 64, 3), 7, **options)
    assert given == metaparameters and once(path).METAPARAMETERS == table
    assert [w.shape for w in first.weights] == [w.shape for w in second.weights]
    assert first.output_shape == second.output_shape
    if path in NAMED:
        assert architecture(first) == architecture(second)
        allowed = re.compile(rf"images|codes|left|right|twin|kind|realm|alive|stem|learner|group_\d+|({STAGE})(_\d+)?")
        for operation in operations(first):
            assert allowed.fullmatch(operation.name), operation.name
    else:
        assert [layer.__class__ for layer in all_layers(first)] == [layer.__class__ for layer in all_layers(second)]


def to_numpy(value):
    """Return metaparameters with numpy's integers in place of Python's."""
    if isinstance(value, dict):
        return {name: to_numpy(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(map(to_numpy, value))
    return np.int64(value) if type(value) is int else value


@pytest.mark.parametrize("name", [name for name in WITH_OPTIONS if not re.search("batch|auxiliary", name)])
def test_whole_numbers_of_numpy_are_whole_numbers(name):
    (path, *given), expected = WITH_OPTIONS[name], plain(name)
    metaparameters, input_shape, n_classes, options = map(to_numpy, (given[0], (64, 64, 3), 7, given[1]))
    with without_numbers():
        model = build(once(path), metaparameters, input_shape, n_classes, **options)
    assert [w.shape for w in model.weights] == [w.shape for w in expected.weights]
    if path in NAMED:
        assert architecture(model) == architecture(expected)
    assert json.loads(model.to_json(), parse_constant=pytest.fail)  # it can be saved, and has no Infinity, no JSON


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        for path, metaparameters in SMALL.values():
            with pytest.raises(ValueError, match="^image_data_format must be channels_last, got channels_first.*$"):
                build(once(path), metaparameters, (32, 32, 3), 10)
    finally:
        keras.config.set_image_data_format("channels_last")


def test_metaparameters_are_immutable():
    def lists(value):
        if isinstance(value, dict):
            return any(lists(item) for item in value.values())
        return isinstance(value, (list, set)) or isinstance(value, tuple) and any(lists(item) for item in value)

    for path in MODULES:
        assert not lists(once(path).METAPARAMETERS), path


@functools.cache
def drawn(name):
    """Return a small network with numbers, which several tests use: one may have trained it."""
    path, metaparameters, options = WITH_OPTIONS[name]
    keras.utils.set_random_seed(0)
    return build(once(path), metaparameters, (32, 32, 3), 10, **options)


def example(model, n=32):
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


@pytest.mark.parametrize("name", [
    name if name in FIRST and "inception_v2" not in name else pytest.param(name, marks=pytest.mark.slow)
    for name in WITH_OPTIONS
])
def test_a_training_step_moves_every_filter(name):
    """In one of several draws of the initial weights: without batch normalization a draw may leave a ReLU dead.

    So may one leave a unit of squeeze-excitation, which has no batch normalization of its own.
    """
    path, metaparameters, options = WITH_OPTIONS[name]
    moved = {}
    # of the 1,024 dense units of an auxiliary classifier some are dead in all of the draws
    kinds = layers.Conv2D if "auxiliary" in options else (layers.Conv2D, layers.Conv2DTranspose, layers.Dense)
    for seed in range(8):
        keras.utils.set_random_seed(seed)
        model = build(once(path), metaparameters, (32, 32, 3), 10, **options) if seed else drawn(name)
        if path == "rcnn/faster_rcnn.py":  # its proposals are no outputs to learn, those that they are made of are
            anchors = model.get_layer("rpn")(model.get_layer("backbone")(model.input))
            model = Model(model.input, {name: model.output[name] for name in ("classes", "deltas")} | anchors)
        convolutions = [layer for layer in all_layers(model) if isinstance(layer, kinds)]
        before = [layer.kernel.numpy() for layer in convolutions]
        x, y, loss = example(model)
        model.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)  # one step does not pay for a graph
        model.train_on_batch(x, y)
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


@first_of_each_module
def test_saved_loaded_in_safe_mode_and_built_upon(name, tmp_path):
    """As in a new process, whose new layers Keras calls dense, conv2d and pad: no name is there twice."""
    path, model = WITH_OPTIONS[name][0], drawn(name)
    x, _, _ = example(model, 8)
    model.save(tmp_path / "model.keras")
    before = predict(model, x)
    if path in CLASSIFYING:
        for probabilities in keras.tree.flatten(before):
            assert probabilities.shape == (8, 10) and (probabilities >= 0).all()
            np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    keras.utils.clear_session(free_memory=False)  # names count from 0 again
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    after = predict(loaded, x)
    keras.tree.assert_same_structure(before, after)
    for one, other in zip(keras.tree.flatten(before), keras.tree.flatten(after), strict=True):
        np.testing.assert_allclose(other, one, atol=1e-6)

    base = loaded.get_layer("twin") if path.startswith("siamese") else loaded
    pixels, features = keras.tree.flatten(base.input)[0], keras.tree.flatten(base.output)[0]
    dense = layers.Dense(3)(layers.Flatten()(features))
    maps = layers.Conv2D(4, 3)(layers.BatchNormalization()(pixels))
    upon = Model(base.input, [dense, layers.ReLU()(maps), keras.ops.pad(features, [[0, 0]] * features.ndim)])
    assert upon.count_params() > 0


# A detector's learner ends with the pooling of regions, an autoencoder has none.
@pytest.mark.parametrize("name", [name for name in FIRST if not re.search("fast|autoencoder", name)])
def test_stem_and_learner_are_a_backbone(name):
    path, metaparameters, _ = WITH_OPTIONS[name]
    module, inputs = once(path), Input((64, 64, 3))
    names = inspect.signature(module.learner).parameters
    in_stem = {"groups": metaparameters["groups"]} if path in DETECTORS else metaparameters.get("stem", {})
    with without_numbers():
        x = module.stem(inputs, **in_stem)
        features = module.learner(x, **{name: value for name, value in metaparameters.items() if name in names})
    if path in WITH_AUXILIARY:
        features, heads = features
        assert heads == []  # unless told how many classes
    with without_numbers():
        assert Model(inputs, layers.GlobalMaxPooling2D()(features)).output_shape == (None, features.shape[-1])


def test_import_builds_and_prints_nothing(monkeypatch, capsys):
    def refuse(*args, **kwargs):
        raise AssertionError("a layer was made at import")

    monkeypatch.setattr(keras.layers.Layer, "__init__", refuse)
    monkeypatch.setattr(keras.Model, "__init__", refuse)
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).glob("*.py")):
            load(path.relative_to(ROOT))
    assert capsys.readouterr() == ("", "")


# Each function that a reader may paste is called on feature maps of 32 channels, or what stands here, and with these.
ARGUMENTS = BLOCK | {
    "n_filters": 32, "n_filters_reduce": 8, "n_filters_out": 32, "n_blocks": 2, "n_layers": 2, "kernel_size": 3,
    "strides": 2, "cardinality": 4, "growth_rate": 4, "n_squeeze": 4, "n_7x7": 4, "n_double_3x3_reduce": 4,
    "n_double_3x3": 8, "n_units": 8, "n_anchors": 3, "image_size": (64, 64), "filters": (8, 4), "n_channels": 3,
    "n_classes": 5, "classes": {"kind": 10, "alive": 2}, "initial_weights": "koch",
}
BOTTLENECKS = ("resnet/resnet_v1.py", "resnet/resnet_v2.py", "senet/se_resnet.py")
FOR_BUILD = {"build", "twin", "named_by_stage", "with_auxiliary", "functions_of", "smallest_image", "initial_values"}
FOR_BUILD |= {"arguments_of", "check_number", "check_shape", "check_anchors"}
NO_LAYERS = {"cifar10_groups", "groups_of", "with_linear_models", "warp", "resized"}
FOR_WEIGHTS = {"load_imagenet_weights", "float32_copy", "published", "layers_of", "pairs_of", "feature_maps"}
FOR_WEIGHTS |= {"check_features"}


@pytest.mark.parametrize("path", MODULES)
def test_every_function_works_pasted(path):
    """From a namespace that holds nothing but the module's text; Fast and Faster R-CNN import their neighbors."""
    namespace = {}
    if path in DETECTORS[:2]:
        namespace = vars(load(path))
    else:
        exec((ROOT / path).read_text(), namespace)
    metaparameters = next(values for where, values in SMALL.values() if where == path)
    groups = metaparameters.get("groups", ())
    arguments = ARGUMENTS | {"groups": groups}
    if isinstance(groups[:1], tuple) and groups and isinstance(groups[0], tuple):
        arguments["blocks"] = groups[0]
    if "inception_v3" in path or "inception_v2" in path:
        arguments |= groups[0]
    functions = {name for name, f in namespace.items() if getattr(f, "__globals__", None) is namespace}
    with without_numbers():
        for name in functions - FOR_BUILD - NO_LAYERS - FOR_WEIGHTS:
            function = namespace[name]
            given = {"inputs": Input((64, 64, 3)), "x": Input((16, 16, 32)), "regions": Input((6, 4))}
            given |= {"left": Input((8,)), "right": Input((8,)), "name": "fc6"}
            if path in DETECTORS[:2]:
                if name == "classifier":
                    given["x"] = Input((6, 3, 3, 8))  # regions
                given |= {"scale": 1 / 4, "strides": 4}
                if name == "learner" and path == "rcnn/faster_rcnn.py":
                    maps = Input((None, None, 32))
                    given["rpn"] = Model(maps, namespace["region_proposal_network"](maps, 9))
            if name == "identity_block" and path in BOTTLENECKS:
                given["n_filters"] = 8  # a quarter
            wanted = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
            outputs = function(**{parameter: (arguments | given)[parameter] for parameter in wanted})
            for tensor in keras.tree.flatten(outputs):
                assert keras.ops.is_tensor(tensor) or isinstance(tensor, keras.KerasTensor), name
                assert tensor.shape[0] is None, name
        model = build(type("pasted", (), namespace), metaparameters, (32, 32, 3), 5)
    assert model.output_shape == (None, 5) or path not in CLASSIFYING


GUARDED = {"build", "__init__", "cifar10_groups", "groups_of"}  # the last two make metaparameters
GUARDED |= {"arguments_of", "check_number", "check_shape", "check_anchors"}  # what the builds of the detectors call
GUARDED |= {"load_imagenet_weights", "published", "pairs_of", "check_features"}  # no part of the lesson
KINDS = {"named_by_stage", "layers_of"}  # they ask which layer is of what kind, and refuse nothing


@pytest.mark.parametrize("path", [*MODULES, "vgg/vgg_composable.py", "resnet/resnet_v1_composable.py"])
def test_guards_live_in_build_alone(path):
    functions = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]
    assert len(functions) > 4
    for function in functions:
        if function.name in GUARDED:
            continue
        for node in ast.walk(function):
            assert not isinstance(node, (ast.Raise, ast.Assert, ast.Try)), f"{function.name} refuses"
            asks = isinstance(node, ast.Name) and node.id == "isinstance"
            assert not asks or function.name in KINDS, f"{function.name} asks what it was given"
        assert "Raises:" not in (ast.get_docstring(function) or ""), function.name


@pytest.mark.parametrize("path", MODULES)
def test_functions_need_only_imports_and_functions(path):
    """So that each can be pasted elsewhere with the functions it calls: no function reads a constant of the module."""
    nodes = tree(path).body
    constants = {t.id for n in nodes if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    assert "METAPARAMETERS" in constants
    for function in (n for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))):
        names = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
        assert not names & constants, f"{function.name} reads {names & constants}"


@pytest.mark.parametrize("path", MODULES)
def test_functions_say_what_they_do_in_the_order_in_which_an_image_flows(path):
    nodes = [n for n in tree(path).body if isinstance(n, ast.FunctionDef)]
    assert all(ast.get_docstring(node) for node in nodes)
    flow = ["build", "stem", "learner", "group", "classifier"]
    if path == "autoencoder/autoencoder.py":
        flow = ["build", "encoder", "decoder"]
    if path in DETECTORS:  # whose stem has the groups
        flow = ["build", "stem", "group", "learner", "classifier"]
    marks = [(ROOT / path).read_text().split("\n")[node.lineno - 2].startswith("# Copied from") for node in nodes]
    own = [node.name for node, is_copy in zip(nodes, marks, strict=True) if not is_copy]
    assert [name for name in own if name in flow] == [name for name in flow if name in own]
    header = (ROOT / path).read_text()
    parts = ('"""', "\nTrainable parameters", "\nfrom keras import", "\nMETAPARAMETERS = ", "\ndef build(")
    order = [header.index(part) for part in parts]
    assert order == sorted(order)


def test_batch_normalization_is_the_papers():
    seen = set()
    for name, (path, _) in SMALL.items():
        epsilon = 1e-3 if "inception" in path else 1e-5  # as in torchvision, and tf-slim for version 3
        for layer in all_layers(plain(name)):
            if isinstance(layer, layers.BatchNormalization):
                assert (layer.momentum, layer.epsilon) == (0.9, epsilon), path
                seen.add(path)
    assert seen == set(MODULES)

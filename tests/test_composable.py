"""The composable classes are the networks of the procedural modules, and their parts work alone."""

import ast
import copy
import inspect
import re

import keras
import numpy as np
import pytest
from folders import ROOT, load, predict, random_weights, without_numbers
from keras import Input, Model, layers
from networks import GROUPS, LAYERS, architecture, once, whole

PAIRS = {"vgg": ("vgg/vgg.py", "VGG"), "resnet_v1": ("resnet/resnet_v1.py", "ResNetV1")}
SMALL = [
    ("vgg", {"groups": LAYERS, "n_units": (32, 16), "dropout": 0.3}),
    ("vgg", {"groups": LAYERS, "n_units": (), "batch_normalization": True}),
    ("resnet_v1", {"groups": GROUPS}),
    ("resnet_v1", {"groups": GROUPS, "strided_convolution": "3x3"}),
]
VALID = dict(reversed(SMALL))  # the first of each
small = pytest.mark.parametrize("name, metaparameters", SMALL)
both = pytest.mark.parametrize("name", PAIRS)


def pair(name):
    """Return the procedural module and the composable class of the same networks."""
    path, class_name = PAIRS[name]
    return once(path), getattr(once(path.replace(".py", "_composable.py")), class_name)


@both
def test_metaparameters_and_defaults_are_the_same(name):
    module, composable = pair(name)
    assert module.METAPARAMETERS == composable.METAPARAMETERS
    ours, theirs = (inspect.signature(function).parameters for function in (module.build, composable))
    assert list(theirs) == ["input_shape", "n_classes", "metaparameters"]
    assert all(theirs[argument].default == ours[argument].default for argument in ("input_shape", "n_classes"))


@pytest.mark.parametrize(
    "name, network",
    [(name, network) if network in ("vgg16", "vgg8_cifar10", "resnet50") else
     pytest.param(name, network, marks=pytest.mark.slow) for name in PAIRS for network in pair(name)[0].METAPARAMETERS],
)
def test_every_network_is_the_same(name, network):
    """Layer by layer, with its name and its settings, and so to the last parameter."""
    size, n_classes = (32, 10) if network.endswith("cifar10") else (224, 1000)
    ours, _ = whole(PAIRS[name][0], network, (size, size, 3), n_classes)
    composable = pair(name)[1]
    with without_numbers():
        theirs = composable((size, size, 3), n_classes, **composable.METAPARAMETERS[network]).model
    assert architecture(theirs) == architecture(ours)
    assert [w.shape for w in theirs.weights] == [w.shape for w in ours.weights]
    assert theirs.count_params() == ours.count_params() > 0


@small
def test_with_the_same_weights_the_outputs_are_the_same(name, metaparameters):
    module, composable = pair(name)
    given = copy.deepcopy(metaparameters)
    ours, theirs = module.build(given, (32, 32, 3), 7), composable((32, 32, 3), 7, **given).model
    assert given == metaparameters
    random_weights(ours, 0)
    random_weights(theirs, 1)
    x = np.random.default_rng(0).normal(size=(8, 32, 32, 3))
    expected = predict(ours, x)
    assert expected.max() < 0.99 and expected.std(0).max() > 1e-3  # a difference anywhere would show
    assert abs(predict(theirs, x) - expected).max() > 1e-3  # not yet the same weights
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(predict(theirs, x), expected, rtol=1e-4, atol=1e-6)


@both
def test_static_methods_are_the_functions(name):
    """Torn off their class, with the same arguments and the same layers."""
    module, composable = pair(name)
    static = [n for n, method in vars(composable).items() if isinstance(method, staticmethod)]
    assert static == {
        "vgg": ["group", "conv_relu"],
        "resnet_v1": ["group", "identity_block", "projection_block", "conv_bn_relu", "conv_bn"],
    }[name]
    arguments = {"n_layers": 2, "n_filters": 4, "n_blocks": 2, "kernel_size": 3, "strides": 2}

    def layers_of(function, named):
        keras.utils.clear_session(free_memory=False)  # the names of layers count from 0
        inputs = Input((8, 8, 16))
        return architecture(Model(inputs, function(inputs, **named)))[1:]

    for part in static:
        function, torn_off = getattr(module, part), getattr(composable, part)
        assert inspect.signature(torn_off) == inspect.signature(function)
        named = {k: v for k, v in arguments.items() if k in inspect.signature(function).parameters}
        theirs = layers_of(torn_off, named)
        assert theirs == layers_of(function, named) and len(theirs) >= 2


@both
@pytest.mark.parametrize("stage", ["stem", "learner", "classifier"])
def test_a_subclass_replaces_one_stage(name, stage):
    """Here by a convolution, with the Identity that ends a stage where others follow."""
    _, composable = pair(name)
    n_ends = {"stem": 1, "learner": len(VALID[name]["groups"]), "classifier": 0}[stage]

    def own(self, x, *arguments, **metaparameters):
        x = layers.Conv2D(5, 1)(x)
        for _ in range(n_ends):
            x = layers.Identity()(x)
        return x

    model = type("WithItsOwnStage", (composable,), {stage: own})((32, 32, 3), 10, **VALID[name]).model
    inherited = composable((32, 32, 3), 10, **VALID[name]).model
    first = {"stem": "stem_1", "learner": "group_1_1", "classifier": "classifier_1"}[stage]
    assert model.get_layer(first).filters == 5 and 3 < len(model.layers) < len(inherited.layers)
    assert model.output_shape == (None, 10) or stage == "classifier"
    ends = [network.get_layer("group_2").output.shape[-1] for network in (model, inherited)]
    assert ends[0] == (5 if stage == "learner" else ends[1])


@both
@pytest.mark.parametrize(
    "change, input_shape, n_classes",
    [
        ({"groups": ({"n_filters": 8},)}, (32, 32, 3), 10),
        ("zero", (32, 32, 3), 10),
        ({"depth": 20}, (32, 32, 3), 10),
        ("option", (32, 32, 3), 10),
        ({}, (32, 32), 10),
        ({}, (32, 32, 3), 1),
        ({}, (1, 32, 3), 10),
    ],
)
def test_what_is_invalid_is_refused_in_the_same_words(name, change, input_shape, n_classes):
    module, composable = pair(name)
    if change == "zero":
        change = {"groups": (VALID[name]["groups"][0] | {"n_filters": 0},)}
    if change == "option":
        change = {"vgg": {"n_units": 512}, "resnet_v1": {"strided_convolution": "5x5"}}[name]
    given, sentences = VALID[name] | change, []
    for build in (lambda: module.build(given, input_shape, n_classes),
                  lambda: composable(input_shape, n_classes, **given)):
        with pytest.raises(ValueError, match="(must be|are invalid)") as error:
            build()
        sentences.append(re.sub(r"\w+\.(learner|group)\(\)", r"\1()", str(error.value)))
    assert sentences[0] == sentences[1]


@both
def test_no_groups_and_channels_first_are_refused(name):
    _, composable = pair(name)
    with pytest.raises(ValueError, match="metaparameters must have groups, got {}"):
        composable((32, 32, 3), 10)
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="^image_data_format must be channels_last, got channels_first"):
            composable((32, 32, 3), 10, **VALID[name])
    finally:
        keras.config.set_image_data_format("channels_last")


@both
def test_pasted_saved_and_loaded_in_safe_mode(name, tmp_path):
    path, class_name = PAIRS[name]
    text, namespace = (ROOT / path.replace(".py", "_composable.py")).read_text(), {}
    exec(text, namespace)
    model = namespace[class_name]((32, 32, 3), 5, **VALID[name]).model
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3))
    np.testing.assert_allclose(predict(loaded, x), predict(model, x), atol=1e-6)
    (node,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
    methods = [method for method in node.body if isinstance(method, ast.FunctionDef)]
    assert len(methods) >= 6 and all(ast.get_docstring(method) for method in methods)
    flow = ["__init__", "stem", "learner", "group", "classifier"]
    assert [method.name for method in methods if method.name in flow] == flow


def test_the_header_repeats_the_table_of_shapes():
    for name, (path, _) in PAIRS.items():
        tables = [re.search(rf"\n    {network}\n(    .*\n)+", load(where).__doc__)[0]
                  for where in (path, path.replace(".py", "_composable.py"))
                  for network in (("vgg16",) if name == "vgg" else ("resnet50",))]
        assert tables[0] == tables[1]

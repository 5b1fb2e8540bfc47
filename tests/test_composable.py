"""The composable classes are the networks of the procedural modules, and their parts work alone."""

import copy
import inspect

import keras
import numpy as np
import pytest
from folders import ROOT, load, predict, random_weights, without_numbers
from keras import Input, Model, layers

PAIRS = {"vgg": ("vgg/vgg.py", "VGG"), "resnet_v1": ("resnet/resnet_v1.py", "ResNetV1")}
LAYERS = ({"n_layers": 1, "n_filters": 8}, {"n_layers": 2, "n_filters": 16})
GROUPS = ({"n_filters": 8, "n_blocks": 2}, {"n_filters": 16, "n_blocks": 3})
SMALL = [
    ("vgg", {"groups": LAYERS, "n_units": (32, 16), "dropout": 0.3}),
    ("vgg", {"groups": LAYERS, "n_units": (), "batch_normalization": True}),
    ("resnet_v1", {"groups": GROUPS}),
    ("resnet_v1", {"groups": GROUPS, "strided_convolution": "3x3"}),
]
small = pytest.mark.parametrize("name, metaparameters", SMALL)
both = pytest.mark.parametrize("name", PAIRS)


def pair(name):
    """Return the procedural module and the composable class of the same networks."""
    path, class_name = PAIRS[name]
    return load(path), getattr(load(path.replace(".py", "_composable.py")), class_name)


def architecture(model):
    """What a layer is and does, for all of them in order; its name and the seed of its random numbers are not that."""
    rows = []
    for layer in model.layers:
        config = layer.get_config()
        rows.append((layer.__class__, {key: value for key, value in config.items() if key not in ("name", "seed")}))
    return rows


@both
def test_metaparameters_are_the_same(name):
    path, _ = PAIRS[name]
    assert load(path.replace(".py", "_composable.py")).METAPARAMETERS == load(path).METAPARAMETERS


@pytest.mark.parametrize("name, network", [(name, n) for name in PAIRS for n in pair(name)[0].METAPARAMETERS])
def test_every_network_is_the_same(name, network):
    """Layer by layer, with its settings, and so to the last parameter."""
    module, composable = pair(name)
    size, n_classes = (32, 10) if network.endswith("cifar10") else (224, 1000)
    with without_numbers():
        ours = module.build(module.METAPARAMETERS[network], (size, size, 3), n_classes)
        theirs = composable(module.METAPARAMETERS[network], (size, size, 3), n_classes).model
    assert architecture(theirs) == architecture(ours)
    assert [w.shape for w in theirs.weights] == [w.shape for w in ours.weights]
    assert theirs.count_params() == ours.count_params() > 0


@small
def test_with_the_same_weights_the_outputs_are_the_same(name, metaparameters):
    module, composable = pair(name)
    given = copy.deepcopy(metaparameters)
    ours, theirs = module.build(given, (32, 32, 3), 7), composable(given, (32, 32, 3), 7).model
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
        "resnet_v1": ["group", "identity_block", "projection_block", "conv_bn"],
    }[name]
    arguments = {"n_layers": 2, "n_filters": 4, "n_blocks": 2, "kernel_size": 3, "strides": 2}
    for part in static:
        function, torn_off = getattr(module, part), getattr(composable, part)
        assert inspect.signature(torn_off) == inspect.signature(function)
        named = {k: v for k, v in arguments.items() if k in inspect.signature(function).parameters}
        inputs = Input((8, 8, 16))
        ours, theirs = (Model(inputs, build(inputs, **named)) for build in (function, torn_off))
        assert architecture(theirs) == architecture(ours) and len(ours.layers) > 2


@both
@pytest.mark.parametrize("stage", ["stem", "learner", "classifier"])
def test_a_subclass_replaces_one_stage(name, stage):
    def own(self, x, *n_classes):
        return layers.Conv2D(5, 1, name="own")(x)

    _, metaparameters = next(row for row in SMALL if row[0] == name)
    composable = pair(name)[1]
    model = type("WithItsOwnStage", (composable,), {stage: own})(metaparameters, (32, 32, 3), 10).model
    inherited = composable(metaparameters, (32, 32, 3), 10).model
    assert model.get_layer("own").output.shape[-1] == 5 and 3 < len(model.layers) < len(inherited.layers)
    assert model.output_shape == (None, 10) or stage == "classifier"


@both
@pytest.mark.parametrize(
    "change, input_shape, n_classes",
    [
        ({"groups": ()}, (32, 32, 3), 10),
        ({"groups": ({"n_filters": 8},)}, (32, 32, 3), 10),
        ("zero", (32, 32, 3), 10),
        ({"depth": 20}, (32, 32, 3), 10),
        ({}, (32, 32), 10),
        ({}, None, 10),
        ({}, (32, 32, 3), 1),
        ({}, (32, 32, 3), "10"),
        ({}, (1, 32, 3), 10),
    ],
)
def test_what_cannot_be_is_refused_in_the_same_words(name, change, input_shape, n_classes):
    module, composable = pair(name)
    _, metaparameters = next(row for row in SMALL if row[0] == name)
    if change == "zero":
        change = {"groups": (metaparameters["groups"][0] | {"n_filters": 0},)}
    sentences = []
    for build in (module.build, composable):
        with pytest.raises(ValueError) as error:
            build(metaparameters | change, input_shape, n_classes)
        sentences.append(str(error.value))
    assert sentences[0] == sentences[1]


def test_options_that_cannot_be():
    with pytest.raises(ValueError, match='strided_convolution must be "1x1" or "3x3", got "?\'?5x5'):
        pair("resnet_v1")[1]({"groups": GROUPS, "strided_convolution": "5x5"}, (32, 32, 3), 10)
    with pytest.raises(ValueError, match="n_units must be a tuple"):
        pair("vgg")[1]({"groups": LAYERS, "n_units": 512}, (32, 32, 3), 10)


@small
def test_pasted_saved_and_loaded_in_safe_mode(name, metaparameters, tmp_path):
    path, class_name = PAIRS[name]
    namespace = {}
    exec((ROOT / path.replace(".py", "_composable.py")).read_text(), namespace)
    model = namespace[class_name](metaparameters, (32, 32, 3), 5).model
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    x = np.random.default_rng(0).normal(size=(4, 32, 32, 3))
    np.testing.assert_allclose(predict(loaded, x), predict(model, x), atol=1e-6)
    methods = [m for _, m in inspect.getmembers(namespace[class_name], inspect.isfunction)]
    assert len(methods) >= 6 and all(method.__doc__ for method in methods)

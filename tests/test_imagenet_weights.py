"""The weights of keras.applications in our graphs: equal outputs of equal images, or a refusal that changes nothing."""

import functools
import sys
import warnings

import keras
import numpy as np
import pytest
from folders import load, predict, random_weights, without_numbers
from keras import Input, Model, applications, layers
from networks import once, whole
from test_readme import blocks

VGG, RESNET = "vgg/vgg.py", "resnet/resnet_v1.py"
INCEPTION, DENSENET = "inception/inception_v3.py", "densenet/densenet.py"
PREPROCESS = {
    VGG: applications.vgg16.preprocess_input,
    RESNET: applications.resnet.preprocess_input,
    INCEPTION: applications.inception_v3.preprocess_input,
    DENSENET: applications.densenet.preprocess_input,
}
NETWORKS = {  # name: (module, name in keras.applications, size of the images here)
    "vgg16": (VGG, "VGG16", 32),
    "vgg19": (VGG, "VGG19", 32),
    "resnet50": (RESNET, "ResNet50", 64),
    "resnet101": (RESNET, "ResNet101", 64),
    "resnet152": (RESNET, "ResNet152", 64),
    "inception_v3": (INCEPTION, "InceptionV3", 107),
    "densenet121": (DENSENET, "DenseNet121", 64),
    "densenet169": (DENSENET, "DenseNet169", 64),
    "densenet201": (DENSENET, "DenseNet201", 64),
}
FAST = ("vgg16",)
FIRST = {path: name for name, (path, _, _) in reversed(NETWORKS.items())}  # of each module


def all_networks(*fast):
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]


@functools.lru_cache(3)  # not all nine at once
def source_of(name, size=None, **options):
    """A network of keras.applications for small images, with random weights."""
    path, theirs, small = NETWORKS[name]
    shape = (size or small, size or small, 3)
    source = getattr(applications, theirs)(weights=None, input_shape=shape, **{"classes": 10} | options)
    randomize(source, path)
    return source


def randomize(source, path):
    """Give a network weights of which none is 0 or 1, and logits of the size of 1."""
    random_weights(source)
    for layer in source.layers:
        if isinstance(layer, layers.BatchNormalization):
            variance = keras.ops.convert_to_numpy(layer.moving_variance)
            assert variance.min() > 0 and (variance != 1).all()
            assert (keras.ops.convert_to_numpy(layer.moving_mean) != 0).all()
    if isinstance(source.layers[-1], layers.Dense):
        kernel, bias = source.layers[-1].get_weights()
        features = features_of(source, PREPROCESS[path](pixels(source.input_shape[1])))
        source.layers[-1].set_weights([kernel / (features**2).mean() ** 0.5, bias])


def pixels(size, n=2):
    """RGB images, no two channels alike."""
    return np.random.default_rng(1).uniform(0, (255, 200, 150), (n, size, size, 3)).astype("float32")


def features_of(model, x):
    """What enters the last dense layer."""
    *_, last = (layer for layer in model.layers if isinstance(layer, layers.Dense))
    return predict(Model(model.input, last.input), x)


def built(name, size, n_classes=10, **options):
    module = once(NETWORKS[name][0])
    return module, module.build(module.METAPARAMETERS[name], (size, size, 3), n_classes, **options)


def normalized(module, x):
    layer = layers.Normalization(mean=module.IMAGENET_MEAN, variance=module.IMAGENET_VARIANCE)
    return keras.ops.convert_to_numpy(layer(x))


def relative(found, expected):
    assert expected.std() > 1e-3 * abs(expected).max() > 0
    return abs(found - expected).max() / abs(expected).max()


@pytest.mark.parametrize("path", PREPROCESS)
def test_constants_are_those_of_keras_applications(path):
    x = pixels(8)
    expected = PREPROCESS[path](x.copy())
    if path in (VGG, RESNET):
        expected = expected[..., ::-1]  # theirs is BGR
    np.testing.assert_allclose(normalized(once(path), x), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", all_networks(*FAST))
def test_outputs_are_those_of_keras_applications(name):
    """Of the same RGB images, behind our normalization and behind their preprocess_input."""
    path, _, size = NETWORKS[name]
    source, (module, network) = source_of(name), built(name, size)
    images = Input((size, size, 3))
    normalization = layers.Normalization(mean=module.IMAGENET_MEAN, variance=module.IMAGENET_VARIANCE)
    model = Model(images, network(normalization(images)))
    theirs = PREPROCESS[path](pixels(size))
    before = predict(model, pixels(size))
    assert module.load_imagenet_weights(network, source) is None
    features = relative(features_of(network, normalized(module, pixels(size))), features_of(source, theirs))
    found, expected = predict(model, pixels(size)), predict(source, theirs)
    probabilities = abs(found - expected).max()
    print(f"{name}: features differ by {features:.1e} of the largest, probabilities by {probabilities:.1e}")
    assert features < 2e-5 and probabilities < 2e-5
    assert 0.15 < expected.max() < 0.99 and abs(found - before).max() > 1e-2


@pytest.mark.slow
def test_gammas_of_inception_v3_are_what_theirs_lacks():
    module, network = built("inception_v3", 107)
    module.load_imagenet_weights(network, source_of("inception_v3"))
    gammas = [layer.gamma for layer in network.layers if isinstance(layer, layers.BatchNormalization)]
    assert all((keras.ops.convert_to_numpy(gamma) == 1).all() for gamma in gammas)
    n_scales = sum(gamma.shape[0] for gamma in gammas)
    assert n_scales == 17_216 and f"{n_scales:,} parameters fewer" in module.__doc__


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "densenet121", "inception_v3"])
@pytest.mark.parametrize("include_top", [True, False])
def test_another_size_and_other_classes_take_all_but_the_classifier(name, include_top):
    path, _, size = NETWORKS[name]
    source = source_of(name) if include_top else source_of(name, include_top=False, pooling="avg")
    module, network = built(name, None, 7 if include_top else 10)
    classifier = network.layers[-1].get_weights()
    module.load_imagenet_weights(network, source)
    np.testing.assert_array_equal(network.layers[-1].get_weights()[0], classifier[0])
    found = features_of(network, normalized(module, pixels(size)))
    theirs = PREPROCESS[path](pixels(size))
    expected = features_of(source, theirs) if include_top else predict(source, theirs)
    assert relative(found, expected) < 2e-5
    assert predict(network, normalized(module, pixels(size + 11))).shape == (2, 7 if include_top else 10)


@pytest.mark.slow
def test_vgg_of_other_classes_takes_all_dense_layers_but_the_last():
    module, network = built("vgg16", 32, 7)
    last = network.layers[-1].get_weights()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        module.load_imagenet_weights(network, source_of("vgg16"))
    np.testing.assert_array_equal(network.layers[-1].get_weights()[0], last[0])
    expected = features_of(source_of("vgg16"), PREPROCESS[VGG](pixels(32)))
    assert relative(features_of(network, normalized(module, pixels(32))), expected) < 2e-5


@pytest.mark.slow
@pytest.mark.parametrize("include_top", [True, False])
def test_vgg_of_another_size_takes_the_convolutions_and_says_so(include_top):
    source = source_of("vgg16") if include_top else source_of("vgg16", 64, include_top=False)
    module = once(VGG)
    network = module.build(module.METAPARAMETERS["vgg16"] | {"n_units": (4096,)}, (64, 64, 3), 10)  # a smaller one
    dense = [layer for layer in network.layers if isinstance(layer, layers.Dense)]
    before = [layer.get_weights()[0] for layer in dense]
    with pytest.warns(UserWarning, match="vgg16 has no dense layers for images of 64x64 pixels"):
        module.load_imagenet_weights(network, source)
    for layer, kernel in zip(dense, before, strict=True):
        np.testing.assert_array_equal(layer.get_weights()[0], kernel)
    expected = source_of("vgg16", 64, include_top=False)  # random_weights gives equal weights to equal layers
    found = predict(Model(network.input, network.get_layer("group_5").output), normalized(module, pixels(64)))
    assert relative(found, predict(expected, PREPROCESS[VGG](pixels(64)))) < 2e-5


@pytest.mark.slow
def test_the_auxiliary_classifier_keeps_its_weights():
    size = 139
    module, network = built("inception_v3", size, 7, auxiliary=True)
    auxiliary = [layer for layer in network.layers if layer.name.startswith("auxiliary_1_") and layer.weights]
    before = [w for layer in auxiliary for w in layer.get_weights()]
    module.load_imagenet_weights(network, source_of("inception_v3"))
    after = [w for layer in auxiliary for w in layer.get_weights()]
    assert len(before) == 2 * (1 + 4) + 2  # of two convolutions, their normalizations and a dense layer
    assert all((one == other).all() for one, other in zip(before, after, strict=True))
    main, alone = Model(network.input, network.output["main"]), built("inception_v3", size, 7)[1]
    module.load_imagenet_weights(alone, source_of("inception_v3"))
    x = normalized(module, pixels(size))
    assert relative(features_of(main, x), features_of(alone, x)) < 1e-6


def test_a_network_in_mixed_precision_takes_them_too():
    """Its weights are float32, though its features have two digits."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        module = once(VGG)
        network = module.build(module.METAPARAMETERS["vgg16"] | {"n_units": ()}, (32, 32, 3), 10)
    finally:
        keras.config.set_dtype_policy("float32")
    source = source_of("vgg16", 64, include_top=False)
    with pytest.warns(UserWarning, match="no dense layers"):
        module.load_imagenet_weights(network, source)
    assert network.layers[1].compute_dtype == "bfloat16"
    ours, theirs = (keras.ops.convert_to_numpy(model.layers[1].kernel) for model in (network, source))
    np.testing.assert_array_equal(ours, theirs[:, :, ::-1])


def refused(module, network, source, sentence):
    before = network.get_weights()
    with pytest.raises(ValueError, match=sentence) as error:
        module.load_imagenet_weights(network, source)
    assert "\n" not in str(error.value)
    for was, now in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(now, was)


@pytest.mark.slow
def test_version_1_5_is_refused_by_its_features():
    module, network = built("resnet50", 64)
    other = module.build(module.METAPARAMETERS["resnet50_v1_5"], (64, 64, 3), 10)
    assert [w.shape for w in other.weights] == [w.shape for w in network.weights]  # in nothing else
    refused(module, other, source_of("resnet50"), r"same network as model, got resnet50: .* differ by 0\.\d")


@pytest.mark.slow
def test_a_variance_does_not_fall_below_zero():
    """Nor could it of keras.applications' epsilon, which is the larger; of a smaller one, the comparison refuses."""
    module, network = built("resnet50", 64)
    source = source_of("resnet50")
    kind = layers.BatchNormalization
    assert all(
        theirs.epsilon >= ours.epsilon
        for ours, theirs in zip(module.layers_of(network, kind), module.layers_of(source, kind), strict=True)
    )
    layer = source.get_layer("conv1_bn")
    weights, epsilon = layer.get_weights(), layer.epsilon
    try:
        layer.epsilon = 1e-8
        layer.set_weights([*weights[:3], 1e-8 + 0 * weights[3]])
        refused(module, network, source, "differ by")
    finally:
        layer.epsilon = epsilon
        layer.set_weights(weights)


@pytest.mark.slow
def test_other_networks_are_refused():
    module, network = built("vgg16", 32)
    with_batch_normalization = module.build(module.METAPARAMETERS["vgg16_bn"] | {"n_units": ()}, (32, 32, 3), 10)
    refused(module, with_batch_normalization, source_of("vgg16"), "0 BatchNormalization layers and the 13 of model")
    refused(module, network, source_of("resnet50"), "got resnet50: its 53 Conv2D layers and the 13 of model differ")
    for channels in (1, 4):
        gray = module.build(module.METAPARAMETERS["vgg16"] | {"n_units": ()}, (32, 32, channels), 10)
        refused(module, gray, source_of("vgg16"), f"RGB images, got {channels} channels")


@pytest.mark.filterwarnings("ignore:invalid value")
def test_features_that_are_all_zero_prove_nothing():
    module, source = once(VGG), source_of("vgg16", 64, include_top=False)
    network = module.build(module.METAPARAMETERS["vgg16"] | {"n_units": ()}, (32, 32, 3), 10)
    last = source.get_layer("block5_conv3")
    kernel, bias = last.get_weights()
    last.set_weights([kernel, bias - 1e6])
    try:
        with pytest.warns(UserWarning, match="no dense layers"):
            refused(module, network, source, "differ by nan")
    finally:
        last.set_weights([kernel, bias])


def test_a_network_of_this_repository_is_no_source():
    """Its images are RGB already."""
    module = load("vgg/vgg.py")
    metaparameters = {"groups": ({"n_layers": 1, "n_filters": 8},), "n_units": ()}
    model, source = (module.build(metaparameters, (32, 32, 3), 10) for _ in range(2))
    with pytest.raises(ValueError, match="source must be a network of keras.applications, got"):
        module.load_imagenet_weights(model, source)


def test_a_compiled_network_takes_them_too():
    """Its loss, a function, could not be copied."""
    module = load("vgg/vgg.py")
    model = module.build({"groups": ({"n_layers": 1, "n_filters": 8},), "n_units": ()}, (32, 32, 3), 10)
    model.compile("sgd", lambda y, p: keras.losses.sparse_categorical_crossentropy(y, p))
    assert module.float32_copy(model, (32, 32)).count_params() == model.count_params()


@pytest.mark.slow
def test_another_depth_is_refused():
    for name, other, numbers in (
        ("vgg19", "vgg16", "13 Conv2D layers and the 16"),
        ("resnet101", "resnet50", "53 Conv2D layers and the 104"),
        ("densenet169", "densenet121", "120 Conv2D layers and the 168"),
    ):
        module, network = built(name, NETWORKS[name][2])
        refused(module, network, source_of(other), f"got {other}: its {numbers} of model")
    module = once(INCEPTION)  # the same depth, other widths
    network = module.build(module.METAPARAMETERS["inception_v3_cifar10"], (107, 107, 3), 10)
    refused(module, network, source_of("inception_v3"), "94 Conv2D layers and the 94 of model differ in number or")


class Downloads(Exception):
    pass


@pytest.fixture
def no_downloads(monkeypatch):
    """Let each published network raise its name and arguments instead."""

    def stop(name):
        def download(**arguments):
            raise Downloads(name, arguments)

        return download

    for _, theirs, _ in NETWORKS.values():
        monkeypatch.setattr(applications, theirs, stop(theirs))


@pytest.mark.parametrize("name", all_networks(*FIRST.values()))
def test_the_published_network_is_found_by_the_graph(name, no_downloads, monkeypatch):
    path, theirs, _ = NETWORKS[name]
    module = load(path)
    monkeypatch.setattr(module, "float32_copy", lambda model, size: model)  # these have no numbers to copy
    size = 299 if path == INCEPTION else 224
    cases = ((size, 1000, True), (size, 7, path == VGG), (96, 7, False))
    for side, n_classes, include_top in cases if name in FIRST.values() else cases[:1]:
        if (side, n_classes) == (224, 1000):
            network, _ = whole(path, name, (side, side, 3), n_classes)
        else:
            with without_numbers():
                network = module.build(module.METAPARAMETERS[name], (side, side, 3), n_classes)
        with pytest.raises(Downloads) as found:
            module.load_imagenet_weights(network)
        assert found.value.args == (theirs, {"include_top": include_top, "weights": "imagenet"})


@pytest.mark.parametrize(
    "path, name, allowed",
    [
        (VGG, "vgg11", "VGG16, VGG19"),
        (VGG, "vgg16_bn", "VGG16, VGG19"),
        (INCEPTION, "inception_v3_cifar10", "InceptionV3"),
        pytest.param(DENSENET, "densenet161", "DenseNet121, DenseNet169, DenseNet201", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_downloaded_for_other_networks(path, name, allowed, no_downloads, monkeypatch):
    module = load(path)
    monkeypatch.setattr(module, "float32_copy", lambda model, size: model)
    with without_numbers():
        network = module.build(module.METAPARAMETERS[name], (96, 96, 3), 7)
    with pytest.raises(ValueError, match=f"weights are published for {allowed}, model is another: .* parameters"):
        module.load_imagenet_weights(network)


@pytest.mark.slow
@pytest.mark.parametrize("path", PREPROCESS)
def test_code_of_the_readme(path, monkeypatch):
    """With random weights in place of the published ones."""
    folder = path.split("/")[0]
    (code,) = (code for code in blocks(f"{folder}/README.md", "python") if "load_imagenet_weights" in code)
    _, theirs, _ = NETWORKS[FIRST[path]]
    original, sources = getattr(applications, theirs), []

    def not_downloaded(weights, **arguments):
        assert weights == "imagenet"
        sources.append(original(weights=None, **arguments))
        randomize(sources[0], path)
        return sources[0]

    monkeypatch.setattr(applications, theirs, not_downloaded)
    monkeypatch.setitem(sys.modules, path.split("/")[1].removesuffix(".py"), load(path))
    namespace = {}
    exec(code, namespace)
    size = 299 if path == INCEPTION else 224
    (source,), model, x = sources, namespace["model"], pixels(size, 1)
    assert model.output_shape == (None, 1000)
    np.testing.assert_allclose(predict(model, x), predict(source, PREPROCESS[path](x.copy())), atol=1e-4)

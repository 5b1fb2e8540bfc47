"""The pictures of senet and densenet: SE weights by class, and how much each layer uses the layers before it."""

import keras
import numpy as np
import pytest
from folders import load, predict, random_weights, without_numbers
from keras import Input, Model, layers
from networks import SMALL, architecture, once
from photos import write_photos

pytestmark = pytest.mark.usefixtures("eagerly")
EXCITATIONS, REUSE = load("senet/excitations.py"), load("densenet/reuse.py")
SENETS = [name for name, (path, _) in SMALL.items() if path.startswith("senet/") and "without squeeze" not in name]
DENSENETS = once("densenet/densenet.py").METAPARAMETERS
FEW = ("se_resnet without bottleneck for CIFAR-10", "se_inception_v2")  # in seconds
# In seconds; the others have up to a hundred blocks.
FEW_BLOCKS = ("densenet40_k12_cifar10", "densenet_bc40_k12_cifar10", "densenet_c16_k24_cifar10")


def small(name, n_classes, size=32):
    """Return a network and the model of images that a training would keep."""
    path, metaparameters = SMALL[name]
    network = once(path).build(metaparameters, (size, size, 3), n_classes)
    random_weights(network)
    inputs = Input((size, size, 3))
    normalization = layers.Normalization(mean=100.0, variance=50.0**2, name="normalization")
    return network, Model(inputs, network(normalization(inputs)))


def images_of(labels, size=32):
    """Return images that differ by class, in color and in noise."""
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 200, (labels.max() + 1, 3))
    return (colors[labels][:, None, None] + rng.integers(0, 56, (len(labels), size, size, 3))).astype("uint8")


def sigmoids(network):
    """Return the layers whose names and outputs come just before those of the layers that scale."""
    scaled = [layer for layer in network.layers if isinstance(layer, layers.Multiply)]
    return [next(x for x in network.layers if x.output is layer.input[1]) for layer in scaled]


@pytest.mark.parametrize("name", SENETS)
def test_se_weights_are_those_by_which_feature_maps_are_multiplied(name):
    network, _ = small(name, 5, 64)
    found = EXCITATIONS.excitations(network)
    assert [id(layer) for layer in found] == [id(layer) for layer in sigmoids(network)] and len(found) == 4
    in_first = 3 if "inception" in name else 2  # its grid reduction has one, too
    assert [layer.name[:8] for layer in found] == in_first * ["group_1_"] + (4 - in_first) * ["group_2_"]


def test_mean_weights_are_those_of_numpy():
    """Squeeze and excitation by hand, of the feature maps that go in."""
    network, model = small("se_resnet without bottleneck for CIFAR-10", 3)
    labels = np.array([0, 2, 0, 2, 2, 0, 0])
    images = images_of(labels)
    found = EXCITATIONS.mean_se_weights(model, network, images, labels, np.array([0, 2]))
    assert list(found) == ["block 1 of 4, in group_1", "block 4 of 4, in group_2"]
    pools = [layer for layer in network.layers if isinstance(layer, layers.GlobalAveragePooling2D) and layer.keepdims]
    dense = [layer for layer in network.layers if isinstance(layer, layers.Dense)]
    for weights, i in zip(found.values(), (0, 3), strict=True):
        maps = predict(Model(network.input, pools[i].input), (images - 100.0) / 50)
        (w1, b1), (w2, b2) = (layer.get_weights() for layer in dense[2 * i : 2 * i + 2])
        of_images = 1 / (1 + np.exp(-(np.maximum(maps.mean((1, 2)) @ w1 + b1, 0) @ w2 + b2)))  # section 3.2
        expected = np.stack([of_images[labels == label].mean(0) for label in (0, 2)])
        np.testing.assert_allclose(weights, expected, atol=1e-5)
        assert np.ptp(expected, 0).max() > 1e-3  # the classes differ


@pytest.mark.parametrize("name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in SENETS])
def test_known_se_weights_are_drawn(name, tmp_path):
    """Weights that depend on no image, and a picture of them, of the classes that have test images."""
    network, model = small(name, 12, 64)
    known = []
    for layer in (sigmoids(network)[0], sigmoids(network)[-1]):
        kernel, bias = layer.get_weights()
        known.append(np.random.default_rng(1).uniform(0.1, 0.9, bias.shape))
        layer.set_weights([0 * kernel, np.log(known[-1] / (1 - known[-1]))])
    labels = np.array([0, 0, 7, 11])
    names = [f"$_$ {i}" for i in range(12)]
    pictures = EXCITATIONS.of_run(model, network, (images_of(labels, 64), labels), np.eye(12)[labels], names)
    assert list(pictures) == ["confusions.png", "mistakes.png", "feature_maps.png", "se_weights.png"]
    figure = pictures["se_weights.png"]
    for axes, p in zip(figure.axes[:2], known, strict=True):
        drawn = axes.images[0].get_array()
        np.testing.assert_allclose(drawn, np.tile(np.sort(p)[::-1], (3, 1)), atol=1e-5)
        assert [label.get_text() for label in axes.get_yticklabels()] == ["$_$ 0", "$_$ 7", "$_$ 11"]
        assert axes.get_title(loc="left").endswith(f"{len(p)} channels: 0.000 between classes")
    figure.savefig(tmp_path / "se_weights.png", dpi=100)


def test_of_many_classes_and_channels_some_are_drawn():
    labels = np.arange(30).repeat(2)
    network, model = small("se_resnet", 30)
    names = [f"class {i}" for i in range(30)]
    pictures = EXCITATIONS.of_run(model, network, (images_of(labels), labels), np.eye(30)[labels], names)
    assert [label.get_text() for label in pictures["se_weights.png"].axes[0].get_yticklabels()] == names[:10]
    weights = np.random.default_rng(0).uniform(size=(2, 1000))
    axes = EXCITATIONS.se_weights({"block 1 of 1": weights}, names[:2]).axes[0]
    assert "64 of 1000 channels" in axes.get_title(loc="left")
    assert f"{weights.std(0).mean():.3f} between classes" in axes.get_title(loc="left")  # of all channels
    means, drawn = weights.mean(0), axes.images[0].get_array().mean(0)
    assert drawn.shape == (64,) and (drawn[0], drawn[-1]) == (means.max(), means.min()) and (np.diff(drawn) <= 0).all()


def test_of_photos_few_are_read(monkeypatch, tmp_path):
    """They are in files; of each class fifty are read."""
    data = load("senet/data.py")
    write_photos(tmp_path, {"cat": 3, "dog": 2})
    paths = np.array(sorted(map(str, tmp_path.rglob("*.*g"))), object)
    labels = np.arange(5) // 3
    network, model = small("se_resnet", 2, 40)
    photos = data.Photos(paths, 40)
    in_memory = EXCITATIONS.mean_se_weights(model, network, photos[:], labels, np.array([0, 1]))
    for title, weights in EXCITATIONS.mean_se_weights(model, network, photos, labels, np.array([0, 1])).items():
        np.testing.assert_allclose(weights, in_memory[title])

    read = []
    monkeypatch.setattr(data, "read_photo", lambda path, *_: read.append(path) or np.zeros((40, 40, 3), "uint8"))
    photos = data.Photos(np.array([f"{i}.png" for i in range(300)], object), 40)
    EXCITATIONS.mean_se_weights(model, network, photos, np.repeat([0, 1], [40, 260]), np.array([0, 1]))
    assert read == [f"{i}.png" for i in range(90)]


def test_without_squeeze_excitation_the_layers_are_those_of_a_resnet():
    """With bottlenecks and without, layer by layer."""
    se_resnet = once("senet/se_resnet.py")
    for name, path, given in (
        ("resnet20_cifar10", "resnet/resnet_basic.py", ((32, 32, 3), 10)),
        ("resnet50", "resnet/resnet_v1.py", ((64, 64, 3), 7)),
    ):
        with without_numbers():
            network = se_resnet.build(se_resnet.METAPARAMETERS[f"se_{name}"] | {"ratio": None}, *given)
            resnet = once(path).build(once(path).METAPARAMETERS[name], *given)
        assert architecture(network) == architecture(resnet)


@pytest.mark.parametrize("name", ["densenet", "densenet without bottleneck for CIFAR-10"])
def test_mean_absolute_weights_of_known_kernels(name):
    """The weights from source s, from 0, to layer l, from 1, are +-(10 l + s): whole numbers in every cell."""
    network, model = small(name, 4)
    step = 1 if "without" in name else 2  # convolutions of a block, of which the first takes all maps
    rng = np.random.default_rng(0)
    n_in = network.get_layer("stem").output.shape[-1]
    for group in ("group_1_", "group_2_"):
        in_group = [layer for layer in network.layers if layer.name.startswith(group)]
        convolutions = [layer for layer in in_group if isinstance(layer, layers.Conv2D)]
        users = [convolutions[0], convolutions[step], (convolutions + [network.layers[-1]])[2 * step]]
        for layer in convolutions:
            layer.set_weights([np.full(layer.kernel.shape, 999.0)])
        for i, layer in enumerate(users, 1):
            kernel, *bias = layer.get_weights()
            for s, maps in enumerate([slice(n_in), slice(n_in, n_in + 4), slice(n_in + 4, n_in + 8)][:i]):
                kernel[..., maps, :] = (10 * i + s) * rng.choice([-1, 1], kernel[..., maps, :].shape)
            assert kernel.shape[-2] == n_in + 4 * (i - 1) and (abs(kernel) < 999).all()
            layer.set_weights([kernel, *bias])
        n_in = (n_in + 8) // 2
    nan = np.nan
    expected = [[10, 20, 30], [nan, 21, 31], [nan, nan, 32]]
    found = REUSE.mean_absolute_weights(network)
    assert len(found) == 2
    for of_group in found:
        np.testing.assert_allclose(of_group, expected, rtol=1e-6)

    split = np.zeros((2, 32, 32, 3), "uint8"), np.array([0, 1])
    pictures = REUSE.of_run(model, network, split, np.eye(4)[:2], list("abcd"))
    assert list(pictures) == ["confusions.png", "mistakes.png", "feature_maps.png", "reuse.png"]


def test_the_picture_shows_shares_of_the_largest_weight_of_a_layer(tmp_path):
    nan = np.nan
    weights = [np.array([[3, 4, 1], [nan, 1, 4], [nan, nan, 2.0]]), np.array([[1, 5], [nan, 10.0]])]
    figure = REUSE.reuse(weights)
    first, second = figure.axes[:2]
    np.testing.assert_allclose(first.images[0].get_array().filled(nan), [[1, 1, 0.25], [nan, 0.25, 1], [nan, nan, 0.5]])
    np.testing.assert_allclose(second.images[0].get_array().filled(nan), [[1, 0.5], [nan, 1]])
    assert first.images[0].get_extent() == [0.5, 3.5, 2.5, -0.5]  # block 1 is the first column, its maps the second row
    figure.savefig(tmp_path / "reuse.png", dpi=100)


@pytest.mark.parametrize("name", [n if n in FEW_BLOCKS else pytest.param(n, marks=pytest.mark.slow) for n in DENSENETS])
def test_every_densenet_is_drawn(name, tmp_path):
    module, metaparameters = once("densenet/densenet.py"), DENSENETS[name]
    network = module.build(metaparameters, (64, 64, 3), 10)
    weights = REUSE.mean_absolute_weights(network)
    assert [len(of_group) - 1 for of_group in weights] == [group["n_blocks"] for group in metaparameters["groups"]]
    for of_group in weights:
        np.testing.assert_array_equal(np.isfinite(of_group), np.triu(np.ones_like(of_group)))
        assert np.nanmin(of_group) > 0
    figure = REUSE.reuse(weights)
    figure.savefig(tmp_path / "reuse.png", dpi=100)
    assert figure.get_size_inches()[0] == 8.4
    keras.utils.clear_session(free_memory=False)

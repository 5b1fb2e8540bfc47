"""The pictures that a training of a classifier leaves, by what is drawn in them."""

import keras
import numpy as np
import pytest
from folders import load, predict

FIGURES, REPORT = load("vgg/figures.py"), load("vgg/report.py")
CLASSES = ("cat", "dog", "$ship$")


def texts(axes):
    return {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}


def test_confusions_are_percent_of_the_true_class():
    labels, predicted = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 2, 0, 1])
    (axes,) = FIGURES.confusions(labels, predicted, CLASSES).axes
    assert texts(axes) == {(0, 0): "75", (2, 0): "25", (0, 1): "50", (1, 1): "50"}  # (predicted, is); no ship was there
    assert [label.get_text() for label in axes.get_yticklabels()] == list(CLASSES)


def test_many_classes_have_no_numbers():
    labels = np.arange(40)
    (axes,) = FIGURES.confusions(labels, labels, [f"class {i}" for i in range(40)]).axes
    assert not axes.texts and np.trace(axes.images[0].get_array()) == 4000


def test_the_most_confident_mistakes_come_first():
    labels = np.array([0, 1, 1, 2, 0])
    probabilities = np.array([[0.9, 0.1, 0], [0.7, 0.3, 0], [0.05, 0, 0.95], [0, 0.4, 0.6], [0.2, 0.5, 0.3]])
    images = np.arange(5, dtype="uint8").repeat(4 * 4 * 3).reshape(5, 4, 4, 3)
    figure = FIGURES.confident_mistakes(images, labels, probabilities, CLASSES)
    drawn = [(axes.get_title(), axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes if axes.images]
    assert drawn == [("$ship$ 95%\ndog", 2), ("cat 70%\ndog", 1), ("dog 50%\ncat", 4)]
    none = FIGURES.confident_mistakes(images[:1], labels[:1], probabilities[:1], CLASSES)
    assert none.get_suptitle() == "no mistakes" and not any(axes.images for axes in none.axes)


@pytest.mark.parametrize("path, name", [("vgg/vgg.py", "vgg8_cifar10"), ("densenet/densenet.py", None)])
def test_feature_maps_are_those_of_the_stages(path, name):
    """Of every stage those with the largest means, of the image as the network sees it."""
    module = load(path)
    network = module.build(module.METAPARAMETERS[name or load("densenet/train.py").MODEL], (32, 32, 3), 10)
    inputs = keras.Input((32, 32, 3))
    normalization = keras.layers.Normalization(mean=100.0, variance=50.0**2, name="normalization")
    model = keras.Model(inputs, network(normalization(inputs)))
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype="uint8")
    figure = FIGURES.maps_of_stages(model, network, image)
    n_groups = sum(layer.name.startswith("group_") and layer.name.count("_") == 1 for layer in network.layers)
    rows = np.reshape(figure.axes, (-1, 1 + FIGURES.N_CHANNELS))
    assert len(rows) == n_groups + ("stem" in [layer.name for layer in network.layers])
    last = network.get_layer(f"group_{n_groups}").output
    expected = predict(keras.Model(network.input, last), (image - 100.0) / 50)[0]
    strongest = expected[..., expected.mean((0, 1)).argmax()]
    np.testing.assert_allclose(rows[-1, 1].images[0].get_array(), strongest, rtol=1e-4, atol=1e-4)
    assert rows[-1, 1].get_title(loc="left").startswith(f"group_{n_groups}, {expected.shape[0]}x{expected.shape[1]}x")


def test_the_test_accuracy_is_a_line_among_the_curves():
    history = {"loss": [2.0, 1.0], "val_loss": [2.0, 1.5], "accuracy": [0.3, 0.5], "val_accuracy": [0.2, 0.4]}
    loss, accuracy = REPORT.curves(history, {"test_accuracy": 0.45, "test_loss": 1.5}).axes
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[0.3, 0.5], [0.2, 0.4], [0.45, 0.45]]
    assert len(loss.lines) == 2
    assert len(REPORT.curves(history, {}).axes[1].lines) == 2

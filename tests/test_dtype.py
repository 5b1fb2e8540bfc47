"""Half precision: --dtype mixed_bfloat16 and mixed_float16."""

import json

import keras
import numpy as np
import pytest
from folders import FOLDERS, build, load, main
from networks import SMALL, TRAINED

HALF = ("mixed_bfloat16", "mixed_float16")


@pytest.fixture(autouse=True)
def full_precision_again():
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("name", [name for name in SMALL if "rcnn" not in name])
def test_a_network_computes_in_half_precision_and_ends_in_float32(name):
    path, metaparameters = SMALL[name]
    module = load(path)
    keras.config.set_dtype_policy("mixed_bfloat16")
    options = {"auxiliary": True} if path.endswith(("inception_v1.py", "inception_v3.py")) else {}
    model = build(module, metaparameters, (32, 32, 3), 3, **options)
    outputs = keras.tree.flatten(model.output)
    assert outputs and all(tensor.dtype == "float32" for tensor in outputs)
    layers = [layer for layer in model._flatten_layers(include_self=False) if layer.weights]
    in_half = [layer for layer in layers if layer.compute_dtype == "bfloat16"]
    assert len(in_half) >= len(layers) - len(outputs)  # all but the last layers
    assert all(variable.dtype == "float32" for variable in model.trainable_variables)


@pytest.mark.parametrize("dtype", HALF)
def test_normalized_pixels_are_fine_in_half_precision(dtype):
    """It has all the whole numbers to 255, and steps fine enough for nearly all that normalization makes of them."""
    module = load("vgg/train.py")
    pixels = np.arange(256, dtype="float32").repeat(3).reshape(1, 16, 16, 3)
    mean, variance = np.array([125.3, 123.0, 113.9]), np.array([63.0, 62.1, 66.7]) ** 2  # of CIFAR-10
    expected = (pixels - mean) / variance**0.5
    keras.config.set_dtype_policy(dtype)
    images = keras.Input((16, 16, 3))
    model = keras.Model(images, module.pre_stem(images, mean, variance))
    found = keras.ops.convert_to_numpy(keras.ops.cast(model(pixels), "float32"))
    np.testing.assert_allclose(found, expected, atol=1 / 67)  # less than a step of a pixel
    for channel in range(3):
        assert len(np.unique(found[..., channel])) >= 250  # beyond 2 bfloat16 joins neighbors


@pytest.mark.parametrize("dtype", HALF)
def test_augmentation_shifts_by_whole_pixels_in_large_images_too(dtype):
    """Coordinates above 256 would be rounded in bfloat16."""
    module = load("vgg/train.py")
    columns = np.broadcast_to(np.arange(300) % 200 / 8 + 1, (2, 300, 300)).astype("float32")  # exact in half precision
    images, shifted = np.stack([columns, columns.transpose(0, 2, 1), columns], -1), []
    for policy in ("float32", dtype):
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(1)
        inputs = keras.Input((300, 300, 3))
        model = keras.Model(inputs, module.augmentation(inputs))
        shifted.append(keras.ops.convert_to_numpy(keras.ops.cast(model(images, training=True), "float32")))
    np.testing.assert_allclose(shifted[1], shifted[0], rtol=2**-8)
    assert (shifted[0] != images).any()


def test_local_response_normalization_of_large_values():
    """The square of 300 is more than float16 has."""
    module, x = load("inception/inception_v1.py"), np.full((1, 1, 1, 8), 300)
    half, full = (
        keras.ops.convert_to_numpy(module.local_response_normalization(keras.ops.cast(x, dtype)))
        for dtype in ("float16", "float32")
    )
    assert half.dtype == "float16" and full.min() > 50
    np.testing.assert_allclose(half, full, rtol=1e-3)


def test_feature_maps_are_chosen_by_means_of_full_precision():
    """The mean of 1,024 values in bfloat16 is often off by more than two maps differ."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.utils.set_random_seed(0)
    module, figures = load("vgg/vgg.py"), load("vgg/figures.py")
    network = module.build({"groups": ({"n_layers": 1, "n_filters": 48},), "n_units": ()}, (32, 32, 3), 10)
    inputs = keras.Input((32, 32, 3))
    normalization = keras.layers.Normalization(mean=100.0, variance=50.0**2, name="normalization")
    model = keras.Model(inputs, network(normalization(inputs)))
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype="uint8")
    figure = figures.maps_of_stages(model, network, image)
    stem = keras.Model(network.input, network.get_layer("stem").output)(normalization(image))
    maps = keras.ops.convert_to_numpy(keras.ops.cast(stem, "float32"))[0]
    means = maps.mean((0, 1), dtype="float64")
    shown = [axes.images[0].get_array() for axes in figure.axes[1 : 1 + figures.N_CHANNELS]]
    np.testing.assert_allclose([map_.mean(dtype="float64") for map_ in shown], np.sort(means)[::-1][:10], rtol=1e-6)


def check_run(folder, dtype, monkeypatch, tmp_path):
    module = load(f"{folder}/train.py")
    flags, _ = TRAINED[folder](module)
    main(folder, monkeypatch, *flags, "--dtype", dtype, "--output", tmp_path, module=module)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["dtype"] == dtype
    assert "NaN" not in (tmp_path / "results.json").read_text() and "nan" not in (tmp_path / "history.csv").read_text()
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert all(np.isfinite(weights).all() for weights in model.get_weights())
    assert all(tensor.dtype == "float32" for tensor in keras.tree.flatten(model.output))


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("folder", FOLDERS[:-1])  # rcnn in float16 alone, which asks for more
def test_a_run_in_bfloat16(folder, monkeypatch, tmp_path):
    check_run(folder, "mixed_bfloat16", monkeypatch, tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("folder", ["resnet", "rcnn"])
def test_a_run_in_float16(folder, monkeypatch, tmp_path):
    """Whose loss Keras scales, or small gradients would be 0."""
    check_run(folder, "mixed_float16", monkeypatch, tmp_path)


def test_the_default_is_float32_and_others_are_refused(monkeypatch, capsys):
    run = load("vgg/run.py")
    parser = run.parser("", ("a",), "a", 1, 1, 0.1)
    assert parser.parse_args([]).dtype == "float32"
    with pytest.raises(SystemExit):
        parser.parse_args(["--dtype", "float16"])
    assert "invalid choice: 'float16'" in capsys.readouterr().err

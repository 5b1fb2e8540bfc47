"""The autoencoder: its two halves, the codes that it is compared with, and what train.py makes of them."""


import keras
import numpy as np
import pytest
from folders import load, main, predict, without_numbers
from keras import Input, layers

MODULE = load("autoencoder/autoencoder.py")
CODES = load("autoencoder/codes.py")


def images(n=4, size=32):
    return np.random.default_rng(0).uniform(size=(n, size, size, 3)).astype("float32")


@pytest.mark.parametrize("filters", [(5,), (64, 32, 32), (16, 8, 8, 2)])
def test_the_decoder_mirrors_the_encoder(filters):
    """As many layers, the same filters in reverse, and at the end the channels of the image."""
    with without_numbers():
        model = MODULE.build({"layers": tuple({"n_filters": n} for n in filters)}, (32, 48, 3))
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    down = [layer for layer in encoder.layers if isinstance(layer, layers.Conv2D)]
    up = [layer for layer in decoder.layers if isinstance(layer, layers.Conv2DTranspose)]
    assert [layer.filters for layer in down] == list(filters)
    assert [layer.filters for layer in up] == [*reversed(filters[1:]), 3]  # the slides: 32, 32, 3 of 64, 32, 32
    assert all(layer.kernel_size == (3, 3) and layer.strides == (2, 2) for layer in down + up)
    factor = 2 ** len(filters)
    assert encoder.output_shape == decoder.input_shape == (None, 32 // factor, 48 // factor, filters[-1])
    assert model.output_shape == (None, 32, 48, 3)


def test_encoder_and_decoder_work_alone(tmp_path):
    model = MODULE.build(MODULE.METAPARAMETERS["autoencoder_cifar10"])
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    codes = predict(encoder, images())
    assert codes.shape == (4, 4, 4, 32) and (codes < 0).any()  # no ReLU on the code
    np.testing.assert_allclose(predict(decoder, codes), predict(model, images()), atol=1e-5)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras", safe_mode=True)
    np.testing.assert_allclose(predict(loaded, images()), codes, atol=1e-6)


def test_a_tenth_of_the_numbers():
    """The slides: a reduction by 90 %."""
    code = MODULE.build(MODULE.METAPARAMETERS["autoencoder_90_cifar10"]).get_layer("encoder").output_shape[1:]
    assert code == (4, 4, 19) and np.prod(code) <= 0.1 * 32 * 32 * 3


def test_functions_take_and_return_tensors():
    x, filters = Input((16, 24, 1)), [8, 4]
    codes = MODULE.encoder(x, filters)
    outputs = MODULE.decoder(codes, filters, 1)
    assert codes.shape == (None, 4, 6, 4) and outputs.shape == (None, 16, 24, 1) and filters == [8, 4]


def test_any_size_that_can_be_halved():
    model = MODULE.build({"layers": ({"n_filters": 8}, {"n_filters": 4})}, (None, None, 3))
    for size in (8, 12, 32):
        assert predict(model, images(2, size)).shape == (2, size, size, 3)


def test_mean_image():
    training, test = np.full((3, 2, 2, 1), 0.25), images(5, 2)[..., :1]
    training[0] = 1
    np.testing.assert_allclose(CODES.mean_image(training, test), np.full((5, 2, 2, 1), 0.5))


def test_scaled_image_of_as_many_numbers():
    """What survives: a constant exactly, everything if nothing is taken away, and the mean of a block of one area."""
    flat = np.full((2, 32, 32, 3), 0.3, "float32")
    np.testing.assert_allclose(CODES.scaled_image(flat, 512), flat, atol=1e-5)
    np.testing.assert_allclose(CODES.scaled_image(images(), 3_072), images(), atol=1e-5)
    x = images(1)
    mean = np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)
    np.testing.assert_allclose(CODES.scaled_image(x, 3), mean, atol=1e-5)
    with pytest.raises(ValueError, match="n_numbers must be at least 3, the channels of a pixel, got 2"):
        CODES.scaled_image(x, 2)


@pytest.mark.parametrize("n_numbers, side", [(512, 13), (304, 10), (3, 1)])
def test_a_scaled_image_has_no_more_numbers_than_the_code(n_numbers, side, monkeypatch):
    """The averages, by hand for the first row: each area is that many pixels wide, the last of them in part."""
    small = []
    monkeypatch.setattr(CODES.ops.image, "resize", lambda x, *args, **named: small.append(x) or x)
    x = images(1)
    CODES.scaled_image(x, n_numbers)
    assert small[0].shape == (1, side, side, 3) and small[0].size <= n_numbers < (side + 1) ** 2 * 3
    width = 32 / side
    whole = int(width)
    share = np.array([1.0] * whole + [width - whole] * (width > whole))
    corner = np.einsum("ijc,i,j->c", x[0, : len(share), : len(share)], share, share) / width**2
    np.testing.assert_allclose(small[0][0, 0, 0], corner, atol=1e-5)
    np.testing.assert_allclose(small[0].mean((1, 2)), x.mean((1, 2)), atol=1e-5)


@pytest.mark.parametrize("n_training", [40, 400])
def test_pca(n_training):
    """With fewer images than an image has numbers, 48, and with more: it is computed in two ways."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(48, 48))
    training = (rng.normal(size=(n_training, 48)) @ mixing).reshape(-1, 4, 4, 3).astype("float32")
    found = CODES.pca(training, training[:30], 5)
    flat = training.reshape(n_training, -1)
    mean = flat.mean(0)
    u, s, v = np.linalg.svd(flat - mean, full_matrices=False)
    expected = (u[:30, :5] * s[:5]) @ v[:5] + mean  # Eckart and Young: the best of rank 5
    np.testing.assert_allclose(found.reshape(30, -1), expected, atol=2e-3)
    whole = CODES.pca(training, training, 48)
    np.testing.assert_allclose(whole, training, atol=2e-3)
    fresh = (rng.normal(size=(10, 48)) @ mixing).reshape(-1, 4, 4, 3).astype("float32")
    errors = [((CODES.pca(training, fresh, k) - fresh) ** 2).mean() for k in (1, 5, 20, 35)]
    assert errors == sorted(errors, reverse=True)


def test_mse_and_psnr():
    """An error of 0.1 everywhere: MSE 0.01, and 10 log10(1 / 0.01) = 20 dB; what is beyond 0 to 1 is clipped."""
    x = np.full((2, 4, 4, 3), 0.5)
    assert CODES.mse_and_psnr(x, x + 0.1) == (pytest.approx(0.01), pytest.approx(20))
    assert CODES.mse_and_psnr(x, x + 7) == (pytest.approx(0.25), pytest.approx(6.0206, abs=1e-4))
    assert CODES.mse_and_psnr(np.ones((1, 2, 2, 3)), np.full((1, 2, 2, 3), 1.5)) == (0, np.inf)


def test_the_differences_of_the_figure_are_five_times_those_of_numpy():
    """Between a test image and what is shown of its reconstruction, which is clipped to 0 to 1."""
    module = load("autoencoder/train.py")
    x = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype("uint8")
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    network = MODULE.build({"layers": ({"n_filters": 8}, {"n_filters": 4})}, (8, 8, 3))
    inputs = Input((8, 8, 3))
    model = keras.Model(inputs, module.restore(network(module.pre_stem(inputs, mean, variance)), mean, variance))
    splits = {"training": (x, np.zeros(12)), "test": (x, np.zeros(12))}
    found = CODES.reconstructions(model, splits, 16)
    figure = CODES.reconstructions_figure(model, network, x, found, dict.fromkeys(found, 20))
    rows = {row[0].get_ylabel(): row for row in np.reshape(figure.axes, (-1, CODES.N_SHOWN))}
    largest = 0
    for name in ("autoencoder", "scaled image", "PCA"):
        for i, (image, difference) in enumerate(
            zip(rows[f"{name}\n20.0 dB"], rows[f"{name}\n5 x |difference|"], strict=True)
        ):
            shown = np.clip(found[name][i], 0, 1)
            np.testing.assert_allclose(image.images[0].get_array(), shown, atol=1e-6)
            expected = np.minimum(5 * np.abs(x[i] / 255 - shown), 1)
            np.testing.assert_allclose(difference.images[0].get_array(), expected, atol=1e-5)
            largest = max(largest, np.mean((expected > 0) & (expected < 1)))
    assert largest > 0.2  # not all are clipped


def test_restore_undoes_pre_stem():
    """To 0 to 1, which are the targets."""
    module = load("autoencoder/train.py")
    x = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype("uint8")
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    inputs = Input((8, 8, 3))
    normalized = module.pre_stem(inputs, mean, variance)
    model = keras.Model(inputs, [normalized, module.restore(normalized, mean, variance)])
    found, restored = predict(model, x)
    np.testing.assert_allclose(found, (x - mean) / np.sqrt(variance), atol=1e-4)
    batches = module.with_targets(x, 3, seed=0)
    (pixels, targets), _ = batches[0], batches[1]
    np.testing.assert_allclose(targets, pixels / 255)
    np.testing.assert_allclose(restored, x / 255, atol=1e-5)


def test_the_model_is_compiled_as_the_hyperparameters_say(monkeypatch, tmp_path):
    """Adam on the mean squared error, without weight decay; the same layers, nothing random, in what is kept."""
    module, caught = load("autoencoder/train.py"), []
    monkeypatch.setattr(module.Model, "fit", lambda model, *args, **named: caught.append((model, *args, named)))
    monkeypatch.setattr(module.run, "best", lambda args: exit(3))  # trained
    flags = ["--data", "synthetic", "--limit", "640", "--epochs", "10", "--output", tmp_path]
    with pytest.raises(SystemExit, match="3"):
        main("autoencoder", monkeypatch, *flags, module=module)
    ((model, training, named),) = caught
    assert isinstance(model.optimizer, keras.optimizers.Adam) and not model.optimizer.weight_decay and not model.losses
    assert model.get_compile_config()["loss"] == "mean_squared_error"
    rates = [float(model.optimizer._learning_rate(i)) for i in range(101)]
    assert rates[0] == pytest.approx(1e-3) and max(rates) == rates[10] == pytest.approx(1e-2)
    assert rates[100] == pytest.approx(0, abs=1e-7) and len(training) == 10 and named["epochs"] == 10
    assert named["shuffle"] is False  # run.Batches are shuffled already
    (kept,) = (callback.kept for callback in named["callbacks"] if isinstance(callback, module.run.KeepBest))
    assert [id(layer) for layer in kept.layers] == [id(layer) for layer in model.layers]
    assert [callback.monitor for callback in named["callbacks"] if hasattr(callback, "monitor")] == ["val_loss"]
    assert kept.optimizer.built and float(kept.optimizer.learning_rate) == pytest.approx(1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_one_image_is_enough(monkeypatch, tmp_path):
    flags = ["--data", "synthetic", "--limit", "1", "--batch-size", "1", "--epochs", "1", "--output", tmp_path / "out"]
    main("autoencoder", monkeypatch, *flags)
    assert (tmp_path / "out" / "reconstructions.png").exists()

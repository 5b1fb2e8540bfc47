"""The autoencoder: its two halves, the codes that it is compared with, and what train.py makes of them."""

import json
import sys

import keras
import numpy as np
import pytest
from folders import load, main
from keras import Input, layers

MODULE = load("autoencoder/autoencoder.py")
CODES = load("autoencoder/codes.py")
REPORT = load("autoencoder/report.py")


def images(n=4, size=32):
    return np.random.default_rng(0).uniform(size=(n, size, size, 3)).astype("float32")


@pytest.mark.parametrize("filters", [(5,), (8, 4), (64, 32, 32), (16, 8, 8, 2)])
def test_the_decoder_mirrors_the_encoder(filters):
    """As many layers, the same filters in reverse, and at the end the channels of the image."""
    model = MODULE.build({"layers": filters}, (32, 48, 3))
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    down = [layer for layer in encoder.layers if isinstance(layer, layers.Conv2D)]
    up = [layer for layer in decoder.layers if isinstance(layer, layers.Conv2DTranspose)]
    assert [layer.filters for layer in down] == list(filters)
    assert [layer.filters for layer in up] == [*reversed(filters[:-1]), 3]
    assert all(layer.kernel_size == (3, 3) and layer.strides == (2, 2) for layer in down + up)
    factor = 2 ** len(filters)
    assert encoder.output_shape == decoder.input_shape == (None, 32 // factor, 48 // factor, filters[-1])
    assert model.output_shape == (None, 32, 48, 3)


def test_encoder_and_decoder_work_alone(tmp_path):
    model = MODULE.build(MODULE.METAPARAMETERS["autoencoder_cifar10"])
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    codes = encoder.predict(images(), verbose=0)
    assert codes.shape == (4, 4, 4, 32) and (codes < 0).any()  # no ReLU on the code
    np.testing.assert_allclose(decoder.predict(codes, verbose=0), model.predict(images(), verbose=0), atol=1e-5)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras", safe_mode=True)
    np.testing.assert_allclose(loaded.predict(images(), verbose=0), codes, atol=1e-6)


def test_a_tenth_of_the_numbers():
    """The slides: a reduction by 90 %."""
    code = MODULE.build(MODULE.METAPARAMETERS["autoencoder_90_cifar10"]).get_layer("encoder").output_shape[1:]
    assert code == (4, 4, 19) and np.prod(code) <= 0.1 * 32 * 32 * 3


def test_functions_take_and_return_tensors():
    x = Input((16, 24, 1))
    codes = MODULE.encoder(x, (8, 4))
    outputs = MODULE.decoder(codes, (8, 4), 1)
    assert codes.shape == (None, 4, 6, 4) and outputs.shape == (None, 16, 24, 1)
    given = [8, 4]
    MODULE.decoder(MODULE.encoder(x, given), given, 1)
    assert given == [8, 4]


def test_any_size_that_can_be_halved():
    model = MODULE.build({"layers": (8, 4)}, (None, None, 3))
    for size in (8, 12, 32):
        assert model.predict(images(2, size), verbose=0).shape == (2, size, size, 3)


@pytest.mark.parametrize("shape", [(30, 32, 3), (32, 36, 3), (4, 32, 3), (1, 1, 3), (33, 33, 3), (None, 36, 3)])
def test_sizes_that_are_not_divisible(shape):
    with pytest.raises(ValueError, match=r"height and width must be divisible by 8, 2 for each of 3 layers, got \("):
        MODULE.build(MODULE.METAPARAMETERS["autoencoder_cifar10"], shape)


@pytest.mark.parametrize("filters", [(), [], None, 64, "64", (64, 0), (64, -1), (64, 1.5), (64, None), {64: 32}])
def test_layers_that_cannot_be(filters):
    sentence = r"layers must be a tuple of whole numbers of at least 1, such as \(64, 32, 32\), got"
    with pytest.raises(ValueError, match=sentence):
        MODULE.build({"layers": filters})
    with pytest.raises(ValueError, match=sentence):
        MODULE.decoder(Input((4, 4, 8)), filters, 3)


@pytest.mark.parametrize("given", [None, {}, "autoencoder_cifar10", (64, 32), {"layers": (8,), "depth": 1}])
def test_not_metaparameters(given):
    with pytest.raises(ValueError, match="metaparameters must be a dictionary of layers, got"):
        MODULE.build(given)


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 0), (32, 32, None), "32x32", None, 32, (0, 32, 3)])
def test_input_shape_that_cannot_be(shape):
    with pytest.raises(ValueError, match="input_shape must be|divisible by 8"):
        MODULE.build(MODULE.METAPARAMETERS["autoencoder_cifar10"], shape)


@pytest.mark.parametrize("n_channels", [0, -1, 2.5, None, "3"])
def test_channels_that_cannot_be(n_channels):
    with pytest.raises(ValueError, match="n_channels must be a whole number of at least 1, got"):
        MODULE.decoder(Input((4, 4, 8)), (16, 8), n_channels)


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
    assert REPORT.mse_and_psnr(x, x + 0.1) == (pytest.approx(0.01), pytest.approx(20))
    assert REPORT.mse_and_psnr(x, x + 7) == (pytest.approx(0.25), pytest.approx(6.0206, abs=1e-4))
    assert REPORT.mse_and_psnr(np.ones((1, 2, 2, 3)), np.full((1, 2, 2, 3), 1.5)) == (0, np.inf)


@pytest.mark.parametrize("finished", ["autoencoder"], indirect=True)
def test_saved_model(finished):
    _, where, arguments, printed = finished
    out = where / arguments[-1]
    results = json.loads((out / "results.json").read_text())
    model = keras.saving.load_model(out / "model.keras", safe_mode=True)
    assert model.input.dtype == "uint8" and model.output_shape == (None, 32, 32, 3)
    splits, _ = load("autoencoder/train.py").data.load("synthetic", 500, 0)
    training, test = (splits[name][0] for name in ("training", "test"))
    reconstructed = model.predict(test, verbose=0)
    scores = {"autoencoder": reconstructed, "mean image": np.broadcast_to(training.mean(0) / 255, test.shape)}
    for name, guess in scores.items():
        mse = ((guess.clip(0, 1) - test / 255) ** 2).mean()
        assert results["test_mse"][name] == pytest.approx(mse, rel=1e-4)
        assert results["test_psnr"][name] == pytest.approx(-10 * np.log10(mse), abs=1e-3)
        assert f"{name} {results['test_psnr'][name]:.2f} ({results['test_mse'][name]:.5f})" in printed
    assert list(results["test_psnr"]) == ["autoencoder", "mean image", "scaled image", "PCA"]
    assert results["code_size"] == 512

    network = model.get_layer(results["model"])  # the model without its pre-stem
    assert sum(v.numpy().size for v in network.trainable_variables) == results["parameters"] == 59_171
    mean, deviation = training.mean((0, 1, 2)), training.std((0, 1, 2))
    normalized = ((test - mean) / deviation).astype("float32")
    restored = (network.predict(normalized, verbose=0) * deviation + mean) / 255
    np.testing.assert_allclose(restored, reconstructed, atol=1e-4)
    path = REPORT.between(model, network, test[0], test[1], n_points=3)
    assert path.shape == (3, 32, 32, 3)
    np.testing.assert_allclose(path[[0, 2]], reconstructed[:2], atol=1e-4)
    codes = network.get_layer("encoder").predict(normalized[:2], verbose=0)
    middle = network.get_layer("decoder").predict(codes.mean(0, keepdims=True), verbose=0)
    np.testing.assert_allclose(path[1], (middle[0] * deviation + mean) / 255, atol=1e-4)


def test_the_model_is_compiled_as_the_hyperparameters_say(monkeypatch, tmp_path):
    """Adam on the mean squared error of images against themselves, without weight decay."""
    module, caught = load("autoencoder/train.py"), []
    monkeypatch.setattr(module.Model, "fit", lambda model, *args, **named: caught.append((model, args, named)))
    flags = ["--data", "synthetic", "--limit", "640", "--epochs", "10", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["train.py", *flags])
    args = module.parse_arguments()
    splits, _ = module.data.load("synthetic", 640, 0)
    module.train(args, splits)
    ((model, (x, y, batch_size, epochs), named),) = caught
    assert isinstance(model.optimizer, keras.optimizers.Adam) and not model.optimizer.weight_decay and not model.losses
    assert model.get_compile_config()["loss"] == "mean_squared_error"
    np.testing.assert_allclose(y, x / 255)
    np.testing.assert_allclose(named["validation_data"][1], named["validation_data"][0] / 255)
    rates = [float(model.optimizer._learning_rate(step)) for step in range(101)]
    assert rates[0] == pytest.approx(1e-3) and max(rates) == rates[10] == pytest.approx(1e-2)
    assert rates[100] == pytest.approx(0, abs=1e-7) and batch_size == 64 and epochs == 10


def test_an_interrupted_run_keeps_its_best_epoch(monkeypatch, tmp_path):
    """The best is the one of the lowest error, also of those before the interruption."""
    module = load("autoencoder/train.py")
    module.MODELS["small"] = (MODULE.build, {"layers": (8, 4)}, 5e-3)
    flags = ["--model", "small", "--data", "synthetic", "--limit", "200", "--epochs", "3", "--batch-size", "50"]
    monkeypatch.setattr(sys, "argv", ["train.py", *flags, "--output", str(tmp_path / "out")])
    on_epoch_end, best = module.report.BestModel.on_epoch_end, []

    class Interrupted(Exception):
        pass

    def interrupt_in_the_second(callback, epoch, logs=None):
        if epoch == 1:
            raise Interrupted
        on_epoch_end(callback, epoch, logs)

    def watched(callback, epoch, logs=None):
        best.append(callback.best)
        on_epoch_end(callback, epoch, logs)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(module.report.BestModel, "on_epoch_end", interrupt_in_the_second)
        module.main()
    monkeypatch.setattr(module.report.BestModel, "on_epoch_end", watched)
    module.main()
    history = module.report.read_history(tmp_path / "out")
    assert history["epoch"] == [0, 1, 2] and best[0] == pytest.approx(history["val_loss"][0], rel=1e-4)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["validation_mse"] <= min(history["val_loss"]) * (1 + 1e-4)  # clipped, so at most as much
    assert results["validation_mse"] == pytest.approx(min(history["val_loss"]), rel=0.2)


def test_one_image_is_enough(monkeypatch, tmp_path):
    flags = ["--data", "synthetic", "--limit", "1", "--batch-size", "1", "--epochs", "1", "--output", tmp_path / "out"]
    main("autoencoder", monkeypatch, *flags)
    assert (tmp_path / "out" / "reconstructions.png").exists()

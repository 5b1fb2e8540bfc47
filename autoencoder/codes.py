"""What an autoencoder is compared with, three codes that need no network; its scores, and pictures of reconstructions.

The codes are the mean image, a smaller image, and PCA. Unless an argument says otherwise, images and reconstructions
are (N, H, W, C) float32, 0 to 1.
"""

import math

import run

import numpy as np
from keras import ops
from matplotlib.figure import Figure

N_SHOWN = 8  # test images in the figure


def mean_image(training, images):
    """Reconstruct every image as the mean of the training images, a code of no numbers at all."""
    return np.broadcast_to(training.mean(0), images.shape)


def scaled_image(images, n_numbers):
    """Average square images down to as many pixels as n_numbers allows, and scale them up again (bicubic).

    Each pixel of the small image is the mean of the area that it covers.

    Raises:
        ValueError: n_numbers are not even one pixel.
    """
    size, n_channels = images.shape[1], images.shape[-1]
    small = math.isqrt(n_numbers // n_channels)  # 13x13x3 are 507 of 512 numbers
    if small < 1:
        raise ValueError(f"n_numbers must be at least {n_channels}, the channels of a pixel, got {n_numbers}")
    edges = np.linspace(0, size, small + 1)[:, None]
    pixels = np.arange(size)
    shares = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)  # of each pixel in each area
    shares = (shares.clip(0) * small / size).astype("float32")  # (small, size), each row of sum 1
    averaged = shares @ images.transpose(0, 3, 1, 2) @ shares.T  # (N, C, small, small)
    resized = ops.image.resize(averaged.transpose(0, 2, 3, 1), (size, size), interpolation="bicubic")
    return ops.convert_to_numpy(resized)


def pca(training, images, n_numbers):
    """Reconstruct images from their first n_numbers principal components, those of the training images.

    Of all linear codes of that size this one has the lowest squared error on the training images. There are no more
    components than training images.
    """
    flat = training.reshape(len(training), -1)  # (N, H W C)
    mean = flat.mean(0)
    centered = flat - mean
    if len(flat) < flat.shape[1]:  # which of the two is cheaper; both give the eigenvectors of the covariance
        directions = np.linalg.svd(centered, full_matrices=False)[2][:n_numbers]
    else:
        directions = np.linalg.eigh(centered.T @ centered)[1][:, ::-1].T[:n_numbers]  # the largest eigenvalue first
    code = (images.reshape(len(images), -1) - mean) @ directions.T  # (N, n_numbers)
    return (code @ directions + mean).reshape(images.shape)


def reconstructions(model, splits, n_numbers):
    """Return the test images as the model and the codes of at most n_numbers reconstruct them: {name: (N, H, W, C)}.

    Args:
        model: from pixels to reconstructions.
        splits: {"training": (images, labels), "test": (images, labels)}, pixels 0 to 255.
        n_numbers: the size of the model's code.
    """
    training, test = (splits[name][0] / np.float32(255) for name in ("training", "test"))
    return {
        "autoencoder": model.predict(run.batches(splits["test"], 256), verbose=0),
        "mean image": mean_image(training, test),
        "scaled image": scaled_image(test, n_numbers),
        "PCA": pca(training, test, n_numbers),
    }


def errors(model, splits, reconstructed):
    """Return the errors of the model on the validation images, and of all reconstructions of the test images.

    Args:
        model: from pixels to reconstructions.
        splits: {"validation": (images, labels), "test": (images, labels)}, pixels 0 to 255.
        reconstructed: the test images, from `reconstructions`.

    Returns:
        {"validation_mse": ..., "test_mse": {name: ...}, "test_psnr": {name: ...}}.
    """
    validation, test = (splits[name][0] / np.float32(255) for name in ("validation", "test"))
    found = {name: mse_and_psnr(test, images) for name, images in reconstructed.items()}
    return {
        "validation_mse": mse_and_psnr(validation, model.predict(run.batches(splits["validation"], 256), verbose=0))[0],
        "test_mse": {name: mse for name, (mse, _) in found.items()},
        "test_psnr": {name: psnr for name, (_, psnr) in found.items()},
    }


def mse_and_psnr(images, reconstructions):
    """Return the mean squared error of all images together, and the peak signal-to-noise ratio in decibels.

    Args:
        images, reconstructions: (N, H, W, C), 0 to 1; reconstructions beyond that are clipped, as a screen would.
    """
    mse = float(np.mean((images - reconstructions.clip(0, 1)) ** 2, dtype="float64"))
    return mse, -10 * math.log10(mse) if mse else math.inf


def between(model, network, left, right, n_points=10):
    """Decode points on the straight line between the codes of two images: (n_points, H, W, C), 0 to 1.

    Args:
        model: from pixels to reconstructions, with the layers "normalization" before the network and "restore" after.
        network: the autoencoder in it, of the models "encoder" and "decoder".
        left, right: two images (H, W, C), pixels 0 to 255.
        n_points: how many images, from the reconstruction of the left one to that of the right.
    """
    normalized = model.get_layer("normalization")(np.stack([left, right]))
    ends = ops.convert_to_numpy(network.get_layer("encoder")(normalized))
    share = np.linspace(0, 1, n_points, dtype="float32").reshape(-1, 1, 1, 1)
    points = (1 - share) * ends[:1] + share * ends[1:]  # (n_points, H / 2^layers, W / 2^layers, depth of the code)
    images = model.get_layer("restore")(network.get_layer("decoder")(points))
    return ops.convert_to_numpy(images)


def error_curves(history):
    """Return a figure of the mean squared error that is minimized, and the same as PSNR, over the epochs."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    epochs = range(1, len(history["loss"]) + 1)
    errors, ratios = figure.subplots(1, 2)
    for name, label in (("loss", "training"), ("val_loss", "validation")):
        errors.semilogy(epochs, history[name], ".-", label=label)
        ratios.plot(epochs, -10 * np.log10(history[name]), ".-", label=label)
    errors.set(xlabel="epoch", ylabel="mean squared error")
    ratios.set(xlabel="epoch", ylabel="PSNR in dB")
    for axes in (errors, ratios):
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def differences(images, reconstructions):
    """Return five times the absolute differences, (N, H, W, C), 0 to 1: black where a reconstruction is exact."""
    return (5 * abs(images - reconstructions.clip(0, 1))).clip(0, 1)


def reconstructions_figure(model, network, images, reconstructed, psnr):
    """Return a figure of test images, their reconstructions and the differences, and images between the codes of two.

    Args:
        model, network: see `between`.
        images: the test images (N, H, W, 3), pixels 0 to 255.
        reconstructed: the test images, from `reconstructions`.
        psnr: {name: of its reconstructions}.
    """
    shown = images[:N_SHOWN] / 255
    rows = {"test image": shown}
    for name, of_all in reconstructed.items():
        rows[f"{name}\n{psnr[name]:.1f} dB"] = of_all[:N_SHOWN]
        if name != "mean image":  # which knows nothing of the image
            rows[f"{name}\n5 x |difference|"] = differences(shown, of_all[:N_SHOWN])
    for i in range(3):
        left, right = images[2 * i : 2 * i + 2] if len(images) > 5 else images[[0, -1]]
        rows[f"between two\n{i + 1}"] = between(model, network, left, right, N_SHOWN)

    figure = Figure(figsize=(8.4, 10), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.01, wspace=0, hspace=0.02)
    figure.suptitle("test images, their reconstructions, and images decoded between the codes of two", fontsize=11)
    for axes_of_row, (name, in_row) in zip(figure.subplots(len(rows), N_SHOWN), rows.items(), strict=True):
        for axes in axes_of_row:
            axes.set(xticks=[], yticks=[], frame_on=False)
        for axes, image in zip(axes_of_row, in_row, strict=False):
            axes.imshow(image.clip(0, 1))
        axes_of_row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    return figure

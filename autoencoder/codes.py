"""Three codes that need no network, to compare an autoencoder with: the mean image, a smaller image, and PCA.

Images are (N, H, W, C) float32, 0 to 1, here and in what the functions return, the reconstructions.
"""

import math

import numpy as np
from keras import ops


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

    Of all linear codes of that size this one has the lowest squared error on the training images.
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

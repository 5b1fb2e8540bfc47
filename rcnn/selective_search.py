"""Selective search: boxes in which something may be, from the colors and textures of an image alone.

Papers: Uijlings et al. 2013, "Selective Search for Object Recognition", section 3, and for the first regions
Felzenszwalb and Huttenlocher 2004, "Efficient Graph-Based Image Segmentation".

    image  (H, W, 3)  ->  segments (H, W)  ->  one region after the other, each of two neighbors  ->  boxes (N, 4)

Differs from the paper: its formula of fill has size(ri) twice, where the second must be size(rj). Boxes narrower or
lower than 8 pixels are dropped. Of the eight strategies of its fast mode the default has two (see STRATEGIES), so that
a scene of 128x128 takes less than a second; FAST has all of them.
"""

import numpy as np
from matplotlib.colors import rgb_to_hsv

# (color space, measures of similarity, k of the segmentation): section 3.2 of the paper varies all three.
STRATEGIES = (("hsv", "ctsf", 50), ("lab", "tsf", 100))
FAST = tuple((space, measures, k) for k in (50, 100) for space in ("hsv", "lab") for measures in ("ctsf", "tsf"))


def selective_search(image, strategies=STRATEGIES, min_side=8, max_boxes=None, seed=0):
    """Return boxes in which an object may be, the most promising first.

    Time and memory are those of lists with an entry for each pixel: scale a photo down before.

    Args:
        image: (H, W, 3), or gray, (H, W) or (H, W, 1), pixels 0 to 255.
        strategies: a tuple of (color space, measures, k): "rgb", "hsv" or "lab"; some of the letters of "ctsf", color,
            texture, size and fill; and the k of the segmentation, for larger regions a larger one.
        min_side: boxes narrower or lower than that are left out.
        max_boxes: how many boxes to return at most; None for all.
        seed: of the random numbers in the ranking.

    Returns:
        (N, 4) float32, "xyxy" in pixels. No two are the same.

    Raises:
        ValueError: the image has another shape, such as with an alpha channel, or other pixels, such as 0 to 1; or a
            color space or a measure is unknown.
    """
    image = three_channels(image)
    rng, segmented = np.random.default_rng(seed), {}
    boxes, ranks = [], []
    for space, measures, k in strategies:
        colors = convert(image, space)
        if (space, k) not in segmented:
            segmented[space, k] = segment(colors, k)
        found = group_regions(colors, segmented[space, k], measures)
        boxes += found
        positions = np.arange(len(found), 0, -1)  # 1 for the whole image, which is made last
        ranks += list(rng.uniform(size=len(found)) * positions)  # section 3.3: so that large and small ones mix
    boxes = np.array(boxes, "float32").reshape(-1, 4)[np.argsort(ranks, kind="stable")]
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) >= min_side).all(1)]
    _, first = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(first)][:max_boxes]


def three_channels(image):
    """Return an image as (H, W, 3), a gray one as three equal channels; refuse what has no pixels of 0 to 255."""
    image = np.asarray(image)
    shape, is_integer = image.shape, np.issubdtype(image.dtype, np.integer)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        hint = ": leave out the alpha channel, image[..., :3]" * (len(shape) == 3 and shape[2] == 4)
        raise ValueError(f"image must be (height, width, 3), or gray, (height, width), got {shape}{hint}")
    lowest, highest = float(image.min()), float(image.max())
    if not (0 <= lowest and highest <= 255):  # neither if one is nan
        raise ValueError(f"image must have pixels of 0 to 255, got {lowest:g} to {highest:g}")
    if not is_integer and 0 < highest <= 1:
        raise ValueError(f"image must have pixels of 0 to 255, got {image.dtype} of 0 to 1: multiply it by 255")
    return np.broadcast_to(image, (*image.shape[:2], 3))


def convert(image, space):
    """Return the image in a color space, each channel 0 to 255: (H, W, 3) float32.

    Raises:
        ValueError: the space is not "rgb", "hsv" or "lab".
    """
    if space == "rgb":
        return image.astype("float32")
    rgb = image.astype("float32") / 255
    if space == "hsv":
        return 255 * rgb_to_hsv(rgb)
    if space == "lab":
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
        x, y, z = np.moveaxis(linear @ np.array(to_xyz).T / [0.9505, 1, 1.089], 2, 0)
        x, y, z = (np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116) for t in (x, y, z))
        lab = np.stack([(116 * y - 16) * 2.55, 500 * (x - y) + 128, 200 * (y - z) + 128], 2)
        return lab.clip(0, 255).astype("float32")
    raise ValueError(f'a color space must be "rgb", "hsv" or "lab", got {space!r}')


def smooth(image, sigma):
    """Convolve (H, W, C) with a Gaussian of that standard deviation, the edges repeated: the same shape."""
    radius = int(np.ceil(4 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype("float32")
    for axis in (0, 1):
        padded = np.pad(image, [(radius, radius) if a == axis else (0, 0) for a in range(3)], mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(kernel), axis)
        image = windows @ kernel
    return image


def segment(image, k, sigma=0.8, min_size=None):
    """Divide an image into regions of like color: Felzenszwalb and Huttenlocher 2004, section 3.

    Neighboring pixels are joined in the order of their difference in color, unless it exceeds, in one of their
    regions, the largest difference by which that region was joined, plus k / its size; at the end regions of fewer than
    min_size pixels join a neighbor.

    Args:
        image: (H, W, 3) float.
        k: the larger, the larger the regions.
        sigma: of the Gaussian that smooths the image first.
        min_size: in pixels; k by default, as in selective search.

    Returns:
        The index of the region of each pixel, 0 to one less than there are: (H, W) int.
    """
    min_size = k if min_size is None else min_size
    height, width = image.shape[:2]
    image = smooth(image, sigma)
    pixels = np.arange(height * width).reshape(height, width)
    pairs, differences = [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):  # each pixel and half of its eight neighbors
        here = np.s_[: height - down, max(0, -right) : width - max(0, right)]
        there = np.s_[down:, max(0, right) : width + min(0, right)]
        pairs.append(np.stack([pixels[here].ravel(), pixels[there].ravel()], 1))
        differences.append(np.sqrt(((image[here] - image[there]) ** 2).sum(2)).ravel())
    differences = np.concatenate(differences)
    order = np.argsort(differences, kind="stable")
    pairs, differences = np.concatenate(pairs)[order].tolist(), differences[order].tolist()

    parent, size = list(range(height * width)), [1] * (height * width)
    limit = [float(k)] * (height * width)  # of each region: its largest inner difference + k / its size

    def root(pixel):
        while parent[pixel] != pixel:
            parent[pixel] = parent[parent[pixel]]
            pixel = parent[pixel]
        return pixel

    def join(a, b):
        if size[a] < size[b]:
            a, b = b, a
        parent[b] = a
        size[a] += size[b]
        return a

    for (one, other), difference in zip(pairs, differences, strict=True):
        a, b = root(one), root(other)
        if a != b and difference <= limit[a] and difference <= limit[b]:
            a = join(a, b)
            limit[a] = difference + k / size[a]
    for one, other in pairs:
        a, b = root(one), root(other)
        if a != b and (size[a] < min_size or size[b] < min_size):
            join(a, b)
    roots = np.array([root(pixel) for pixel in range(height * width)])
    return np.unique(roots, return_inverse=True)[1].reshape(height, width)


def group_regions(image, regions, measures="ctsf"):
    """Join the most similar neighbors, again and again, until one region is left: section 3.1 and 3.2 of the paper.

    Args:
        image: (H, W, 3), 0 to 255.
        regions: (H, W), the index of the region of each pixel, 0 to one less than there are.
        measures: which similarities to add, some of "c", color, "t", texture, "s", size, "f", fill.

    Returns:
        The box [x1, y1, x2, y2] of every region, those of the segmentation first and the whole image last.

    Raises:
        ValueError: measures are none of those letters.
    """
    if not measures or not set(measures) <= set("ctsf"):
        raise ValueError(f'measures must be some of "ctsf", got {measures!r}')
    n_regions, n_pixels = regions.max() + 1, regions.size
    size = np.bincount(regions.ravel()).tolist()
    color = histograms(image, regions, 25)
    texture = histograms(derivatives(image), regions, 10)
    rows, columns = np.indices(regions.shape)
    boxes = []
    for i in range(n_regions):
        inside = regions == i
        y, x = rows[inside], columns[inside]
        boxes.append([x.min(), y.min(), x.max() + 1, y.max() + 1])

    def similarity(i, j):
        total = 0.0
        if "c" in measures:
            total += np.minimum(color[i], color[j]).sum()
        if "t" in measures:
            total += np.minimum(texture[i], texture[j]).sum()
        if "s" in measures:
            total += 1 - (size[i] + size[j]) / n_pixels
        if "f" in measures:
            x1, y1, x2, y2 = union(boxes[i], boxes[j])
            total += 1 - ((x2 - x1) * (y2 - y1) - size[i] - size[j]) / n_pixels
        return total

    similarities = {(i, j): similarity(i, j) for i, j in neighbours(regions)}
    while similarities:
        i, j = max(similarities, key=similarities.get)
        new, total = len(size), size[i] + size[j]
        color.append((size[i] * color[i] + size[j] * color[j]) / total)
        texture.append((size[i] * texture[i] + size[j] * texture[j]) / total)
        size.append(total)
        boxes.append(union(boxes[i], boxes[j]))
        touching = [pair for pair in similarities if i in pair or j in pair]
        others = {k for pair in touching for k in pair} - {i, j}
        for pair in touching:
            del similarities[pair]
        similarities |= {(k, new): similarity(k, new) for k in others}
    return boxes


def union(box, other):
    """Return the smallest box around two: [x1, y1, x2, y2]."""
    return [min(box[0], other[0]), min(box[1], other[1]), max(box[2], other[2]), max(box[3], other[3])]


def neighbours(regions):
    """Return the pairs of regions that touch, side by side or one above the other, each once with the lower first."""
    pairs = [
        np.stack([regions[:, :-1].ravel(), regions[:, 1:].ravel()], 1),
        np.stack([regions[:-1].ravel(), regions[1:].ravel()], 1),
    ]
    pairs = np.sort(np.concatenate(pairs), 1)
    return [tuple(pair) for pair in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).tolist()]


def derivatives(image):
    """Return Gaussian derivatives, of deviation 1, in eight directions: (H, W, C) -> (H, W, 8 C), 0 to 255.

    What falls in one direction rises in the opposite one, so each has the rises alone.
    """
    padded = np.pad(smooth(image, 1.0), ((1, 1), (1, 1), (0, 0)), mode="edge")
    y, x = (slope[1:-1, 1:-1] for slope in np.gradient(padded, axis=(0, 1)))
    angles = np.arange(8) * np.pi / 4
    rises = [(np.cos(angle) * x + np.sin(angle) * y).clip(0) for angle in angles]
    return np.concatenate(rises, 2) * 2.8  # the steepest, from 0 to 255 in one pixel, is smoothed to 91 a pixel


def histograms(image, regions, n_bins):
    """Return for each region the histograms of all channels in a row, of sum 1: a list of (C n_bins,).

    Args:
        image: (H, W, C), 0 to 255.
        regions: (H, W).
        n_bins: of each channel.
    """
    n_channels, n_regions = image.shape[2], regions.max() + 1
    bins = (image * (n_bins / 256)).astype("int64").clip(0, n_bins - 1) + np.arange(n_channels) * n_bins
    counts = np.bincount(
        (regions[..., None] * (n_channels * n_bins) + bins).ravel(), minlength=n_regions * n_channels * n_bins
    ).reshape(n_regions, -1)
    return list(counts / counts.sum(1, keepdims=True))

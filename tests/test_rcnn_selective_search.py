"""Selective search: the segmentation, the measures of similarity, the grouping, and what it finds in scenes."""

import time

import numpy as np
import pytest
from folders import load
from keras import ops

SEARCH, BOXES, SCENES = (load(f"rcnn/{name}.py") for name in ("selective_search", "boxes", "scenes"))


def quadrants(noise=0, seed=0):
    """Four squares of a color each, 32x32 pixels; returns the image and the number of the square of each pixel."""
    number = np.kron(np.array([[0, 1], [2, 3]]), np.ones((32, 32), int))
    colors = np.array([[220, 40, 40], [40, 200, 60], [50, 60, 210], [230, 220, 60]])
    image = colors[number] + np.random.default_rng(seed).normal(0, noise, (64, 64, 3))
    return image.clip(0, 255).astype("uint8"), number


@pytest.mark.parametrize("noise", [0, 6])
def test_squares_of_one_color_are_regions(noise):
    image, number = quadrants(noise)
    regions = SEARCH.segment(image.astype("float32"), k=100, sigma=0.5)
    assert regions.shape == (64, 64)
    # the smoothed edges may fall to either side, or be a region of their own; the insides may not
    inside = [regions[4:28, 4:28], regions[4:28, 36:60], regions[36:60, 4:28], regions[36:60, 36:60]]
    assert all(np.ptp(square) == 0 for square in inside)
    assert len({square[0, 0] for square in inside}) == 4


def test_regions_are_connected_numbered_and_large_enough():
    image = np.random.default_rng(0).uniform(0, 255, (40, 50, 3)).astype("float32")
    for min_size in (10, 60):
        regions = SEARCH.segment(image, k=30, min_size=min_size)
        sizes = np.bincount(regions.ravel())
        assert sizes.min() >= min_size and len(sizes) > 1
        for number in range(len(sizes)):
            assert flood(regions == number) == sizes[number]
    coarse = SEARCH.segment(image, k=3_000, min_size=1)
    assert coarse.max() < SEARCH.segment(image, k=30, min_size=1).max()  # a larger k makes larger regions


def flood(mask):
    """Return how many pixels of a mask are reached from one of them, by its eight neighbours."""
    reached = np.zeros_like(mask)
    reached[tuple(np.argwhere(mask)[0])] = True
    while True:
        padded = np.pad(reached, 1)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).any((2, 3)) & mask
        if (windows == reached).all():
            return reached.sum()
        reached = windows


def test_hsv_of_known_colors():
    """Red, green, half blue, white, half gray: thirds of the hue, all of it 0 to 255."""
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 128], [255, 255, 255], [128, 128, 128]]], "uint8")
    expected = [[0, 255, 255], [85, 255, 255], [170, 255, 128], [0, 0, 255], [0, 0, 128]]
    np.testing.assert_allclose(SEARCH.convert(image, "hsv")[0], expected, atol=1e-3)


def test_lab_of_known_colors():
    """CIE 1976 with the white of D65: white (100, 0, 0), red (53.2, 80.1, 67.2), blue (32.3, 79.2, -107.9)."""
    image = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0], [0, 0, 255]]], "uint8")
    lab = SEARCH.convert(image, "lab")[0] / [2.55, 1, 1] - [0, 128, 128]
    np.testing.assert_allclose(lab, [[100, 0, 0], [0, 0, 0], [53.2, 80.1, 67.2], [32.3, 79.2, -107.9]], atol=0.2)


def test_smoothing_keeps_a_constant_and_spreads_a_point():
    flat = np.full((9, 12, 3), 40, "float32")
    np.testing.assert_allclose(SEARCH.smooth(flat, 0.8), flat, rtol=1e-5)
    point = np.zeros((21, 21, 1), "float32")
    point[10, 10] = 1
    expected = np.exp(-((np.arange(-10, 11) / 1.5) ** 2) / 2)
    expected = np.outer(expected, expected) / expected.sum() ** 2
    np.testing.assert_allclose(SEARCH.smooth(point, 1.5)[..., 0], expected, atol=1e-4)


def test_histograms():
    image = np.zeros((2, 4, 2))
    image[:, 2:] = [255, 100]
    regions = np.array([[0, 0, 0, 1], [0, 0, 1, 1]])
    first, second = SEARCH.histograms(image, regions, 4)
    np.testing.assert_allclose(first, np.array([4, 0, 0, 1, 4, 1, 0, 0]) / 10)  # 5 pixels, two channels of 4 bins
    np.testing.assert_allclose(second, np.array([0, 0, 0, 3, 0, 3, 0, 0]) / 6)


def test_derivatives_tell_the_direction():
    """A ramp to the right rises in that direction and not at all in the opposite one."""
    ramp = np.tile(np.arange(40.0)[None, :, None], (40, 1, 1)).astype("float32")
    rises = SEARCH.derivatives(ramp)[10:30, 10:30].mean((0, 1)) / 2.8
    np.testing.assert_allclose(rises, np.cos(np.arange(8) * np.pi / 4).clip(0), atol=1e-3)


def test_derivatives_fill_their_bins():
    """The steepest step, of 255 at 45 degrees, comes close to 255 and not beyond."""
    y, x = np.indices((40, 40))
    step = np.where(x + y > 40, 255.0, 0.0)[..., None].astype("float32")
    assert 245 < SEARCH.derivatives(step)[10:30, 10:30].max() <= 256


def test_neighbours():
    regions = np.array([[0, 0, 1], [2, 3, 1], [2, 3, 3]])
    assert SEARCH.neighbours(regions) == [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)]  # not (1, 2), nor corners


def strip(widths, height=8):
    """Return regions side by side, so wide each: (height, sum of the widths)."""
    return np.repeat(np.arange(len(widths)), widths)[None].repeat(height, 0)


def test_color_joins_those_of_like_color():
    regions = strip((8, 8, 8, 8))
    image = np.array([10, 200, 203, 90])[regions][..., None] * np.ones(3)
    boxes = SEARCH.group_regions(image, regions, "c")
    assert boxes[:4] == [[8 * i, 0, 8 * i + 8, 8] for i in range(4)]
    assert len(boxes) == 7 and boxes[-1] == [0, 0, 32, 8]  # n regions are joined n - 1 times
    assert boxes[4] == [8, 0, 24, 8]


def test_size_joins_small_ones_first():
    regions = strip((20, 3, 5, 12))
    boxes = SEARCH.group_regions(np.zeros((8, 40, 3)), regions, "s")
    assert boxes[4:] == [[20, 0, 28, 8], [20, 0, 40, 8], [0, 0, 40, 8]]


def test_fill_joins_what_fills_its_box():
    """By hand, 1 - (box of both - size(ri) - size(rj)) / image: a pixel (1) completes a square (3).

    The formula as the paper prints it, with size(ri) twice, would join the pixel to the large region above it.
    """
    regions = np.zeros((8, 8), int)
    regions[4:, :4], regions[4:, 4:], regions[4, 0] = 3, 2, 1
    sizes, box_of_both = np.bincount(regions.ravel()), {(0, 1): 40, (0, 2): 64, (0, 3): 64, (1, 3): 16, (2, 3): 32}
    fill = {pair: 1 - (box - sizes[list(pair)].sum()) / 64 for pair, box in box_of_both.items()}
    printed = {(i, j): 1 - (box - 2 * sizes[i]) / 64 for (i, j), box in box_of_both.items()}
    assert max(fill, key=fill.get) == (1, 3) and max(printed, key=printed.get) == (0, 1)
    boxes = SEARCH.group_regions(np.zeros((8, 8, 3)), regions, "f")
    assert boxes[4:] == [[0, 4, 4, 8], [0, 4, 8, 8], [0, 0, 8, 8]]


def test_the_histogram_of_a_joined_region_weighs_its_parts_by_size():
    """Section 3.2: (size(ri) Ci + size(rj) Cj) / (size(ri) + size(rj)).

    Of colors p, q, r, s: region 0, of 300 pixels, is all p; 1, of 100, half p, half q; 2 a fifth q, the rest r; 3 is
    16 % r, the rest s. First 0 and 1 join (0.5). They hold q to 12.5 %, so that 2 joins 3 (0.16), not them (0.125);
    weighed alike they would hold 25 %, and 2 would join them (0.2).
    """
    regions = strip((30, 10, 10, 10), height=10)
    p, q, r, s = 10, 80, 150, 220
    columns = [300 * [p], 50 * [p] + 50 * [q], 20 * [q] + 80 * [r], 16 * [r] + 84 * [s]]
    image = np.concatenate([np.reshape(column, (10, -1)) for column in columns], 1)[..., None] * np.ones(3)
    boxes = SEARCH.group_regions(image, regions, "c")
    assert boxes[4:] == [[0, 0, 40, 10], [40, 0, 60, 10], [0, 0, 60, 10]]


def test_boxes_are_ranked_and_no_two_are_the_same():
    image, _ = quadrants(noise=10)
    boxes = SEARCH.selective_search(image)
    assert boxes.dtype == "float32" and boxes.shape[1] == 4 and len(np.unique(boxes, axis=0)) == len(boxes)
    assert (boxes >= 0).all() and (boxes <= 64).all() and ((boxes[:, 2:] - boxes[:, :2]) >= 8).all()
    assert [0, 0, 64, 64] in boxes.tolist()  # all of it is a region too
    np.testing.assert_array_equal(SEARCH.selective_search(image, max_boxes=5), boxes[:5])
    np.testing.assert_array_equal(SEARCH.selective_search(image), boxes)
    assert not np.array_equal(SEARCH.selective_search(image, seed=1), boxes)  # the ranking is in part of chance
    truth = np.array([[0, 0, 32, 32], [32, 0, 64, 32], [0, 32, 32, 64], [32, 32, 64, 64]], "float32")
    assert (ops.convert_to_numpy(BOXES.iou(boxes, truth)).max(0) > 0.8).all()


@pytest.mark.slow
def test_regions_made_late_tend_to_come_first():
    """Section 3.3: a random number times the position, counted from the whole image."""
    image, _ = quadrants(noise=30)
    strategies = (("rgb", "ctsf", 20),)
    places = []
    for seed in range(60):
        boxes = SEARCH.selective_search(image, strategies, min_side=1, seed=seed).tolist()
        places.append(boxes.index([0, 0, 64, 64]) / len(boxes))
    assert np.mean(places) < 0.2 and max(places) < 1


@pytest.mark.slow
def test_most_objects_of_scenes_are_found():
    """The bar of 0.90 is for 200 scenes of CIFAR-10; here are a few of synthetic images, and the time of one."""
    images, labels = load("vgg/data.py").synthetic(200, seed=3)
    scenes, objects = SCENES.make_scenes(images, labels, 20, seed=1)
    found, seconds = [], []
    for scene, (truth, _) in zip(scenes, objects, strict=True):
        start = time.process_time()
        proposals = SEARCH.selective_search(scene, max_boxes=300)
        seconds.append(time.process_time() - start)
        found += (ops.convert_to_numpy(BOXES.iou(proposals, truth)).max(0) >= 0.5).tolist()
    assert np.mean(found) >= 0.9
    assert min(seconds) < 1


@pytest.mark.parametrize("strategies", [SEARCH.FAST, (("rgb", "f", 30),)])
def test_other_strategies(strategies):
    image, _ = quadrants(noise=10)
    assert len(SEARCH.selective_search(image, strategies)) >= 5
    assert len(set(SEARCH.FAST)) == 8


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (40, 40, 3)])
def test_an_image_of_one_color_is_one_region(shape):
    boxes = SEARCH.selective_search(np.full(shape, 90, "uint8"), min_side=1)
    np.testing.assert_array_equal(boxes, [[0, 0, shape[1], shape[0]]])
    assert SEARCH.selective_search(np.full(shape, 90, "uint8"), min_side=100).shape == (0, 4)


@pytest.mark.parametrize(
    "image, strategies, sentence",
    [
        (np.zeros((8, 8, 2)), SEARCH.STRATEGIES, r"image must be \(height, width, 3\).* got \(8, 8, 2\)"),
        (np.zeros((8, 8, 4)), SEARCH.STRATEGIES, r"got \(8, 8, 4\): leave out the alpha channel"),
        (np.ones((8, 8, 3)), SEARCH.STRATEGIES, r"0 to 255, got float64 of 0 to 1: multiply it by 255"),
        (np.full((8, 8, 3), np.nan), SEARCH.STRATEGIES, r"0 to 255, got nan to nan"),
        (np.full((8, 8, 3), -1.), SEARCH.STRATEGIES, r"0 to 255, got -1 to -1"),
        (np.zeros((0, 8, 3)), SEARCH.STRATEGIES, "image must be"),
        (np.zeros((8, 8, 3), "uint8"), (("hls", "c", 50),), "a color space must be .* got 'hls'"),
        (np.zeros((8, 8, 3), "uint8"), (("rgb", "color", 50),), "measures must be some of \"ctsf\", got 'color'"),
        (np.zeros((8, 8, 3), "uint8"), (("rgb", "", 50),), "measures must be some of"),
    ],
)
def test_what_cannot_be(image, strategies, sentence):
    with pytest.raises(ValueError, match=sentence):
        SEARCH.selective_search(image, strategies)


def test_gray():
    image = np.random.default_rng(0).integers(0, 256, (8, 8)).repeat(8, 0).repeat(8, 1).astype("uint8")
    expected = SEARCH.selective_search(np.stack(3 * [image], -1))
    for same in (image, image[..., None], np.stack(3 * [image], -1).astype("float32")):
        np.testing.assert_array_equal(SEARCH.selective_search(same), expected)
    assert len(expected) > 3

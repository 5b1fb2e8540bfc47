"""RoI pooling, against a twin in numpy that goes from bin to bin, and against numerical gradients."""

import keras
import numpy as np
import pytest
from folders import load
from keras import ops

MODULE = load("rcnn/fast_rcnn.py")


def twin(feature_maps, regions, size, scale):
    """The loops of the released code (roi_pooling_layer.cu)."""
    n, height, width, channels = feature_maps.shape
    out = np.zeros((n, regions.shape[1], size, size, channels), "float32")
    for image in range(n):
        for number, region in enumerate(regions[image]):
            x1, y1, x2, y2 = (int(np.floor(c * scale + 0.5)) for c in region)
            rows, columns = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
            for p in range(size):
                for q in range(size):
                    top, bottom = y1 + p * rows // size, y1 + -(-(p + 1) * rows // size)
                    left, right = x1 + q * columns // size, x1 + -(-(q + 1) * columns // size)
                    cells = feature_maps[
                        image, min(max(top, 0), height) : max(min(bottom, height), 0),
                        min(max(left, 0), width) : max(min(right, width), 0),
                    ]
                    if cells.size:
                        out[image, number, p, q] = cells.max((0, 1))
    return out


def random_regions(n, r, height, width, seed=0):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (n, r, 2, 2)), axis=2) * [width, height]
    return corners.reshape(n, r, 4).astype("float32")


@pytest.mark.parametrize(
    "size, scale, height, width", [(7, 1 / 16, 37, 50), (7, 1 / 8, 16, 16), (2, 1 / 4, 9, 5), (3, 1, 1, 2)]
)
def test_it_is_the_twin(size, scale, height, width):
    rng = np.random.default_rng(0)
    feature_maps = rng.normal(size=(2, height, width, 3)).astype("float32")
    regions = random_regions(2, 40, height / scale, width / scale)
    found = ops.convert_to_numpy(MODULE.RoIPooling(size, scale)(feature_maps, regions))
    np.testing.assert_array_equal(found, twin(feature_maps, regions, size, scale))


def test_by_hand():
    """A map of 4x4 cells of 16 pixels; regions of one cell, of all, and of three cells in two bins, which share one."""
    cells = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    regions = np.array([[[0, 0, 5, 5], [0, 0, 50, 50], [16, 0, 48, 32]]], "float32")
    found = ops.convert_to_numpy(MODULE.RoIPooling(2, 1 / 16)(cells, regions))[0, ..., 0]
    np.testing.assert_array_equal(found[0], [[0, 0], [0, 0]])
    np.testing.assert_array_equal(found[1], [[5, 7], [13, 15]])
    np.testing.assert_array_equal(found[2], [[6, 7], [10, 11]])  # columns 1 to 3, rows 0 to 2


def test_a_half_is_rounded_up():
    """As C rounds what is above 0, where Python and numpy round to even: 8 / 16 is cell 1, 40 / 16 cell 3."""
    cells = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    found = MODULE.RoIPooling(1, 1 / 16)(cells, np.array([[[8, 8, 8, 8], [40, 0, 40, 0]]], "float32"))
    np.testing.assert_array_equal(ops.convert_to_numpy(found).ravel(), [5, 3])


def test_regions_outside_the_map_and_beyond():
    """A bin without cells is 0, and not the negative values beside it; regions of any size are right."""
    feature_maps = -1 - np.random.default_rng(0).uniform(size=(1, 8, 8, 2)).astype("float32")
    regions = np.array([[
        [200, 200, 300, 300], [-300, -300, -200, -200], [-64, -64, 63, 63], [-500, 0, 600, 127], [100, 100, 500, 500],
        [90, 90, 20, 20],  # ends before it begins: one cell
        [50, 50, 50, 50],  # no area: one cell
        [0, 0, 128, 128],
    ]], "float32")  # fmt: skip
    found = ops.convert_to_numpy(MODULE.RoIPooling(7, 1 / 16)(feature_maps, regions))
    np.testing.assert_array_equal(found, twin(feature_maps, regions, 7, 1 / 16))
    assert not found[0, :2].any() and (found[0, 2, 0, 0] == 0).all() and (found[0, 5:] < 0).all()


def test_what_is_not_a_number_stays_so():
    """So that a training that has failed is seen to; a bin without cells is 0 all the same."""
    cells = np.full((1, 4, 4, 1), np.nan, "float32")
    found = MODULE.RoIPooling(1, 1 / 16)(cells, np.array([[[0, 0, 63, 63], [200, 200, 300, 300]]], "float32"))
    assert np.isnan(ops.convert_to_numpy(found)).ravel().tolist() == [True, False]


@pytest.mark.parametrize(
    "feature_maps, regions, sentence",
    [
        ((None, None, 3), (5, 4), "feature maps must be .* of a fixed size"),
        ((8, 8, 3), (5, 5), r"regions must be \(N, R, 4\)"),
        ((8, 8, 3), (None, 4), r"regions must be \(N, R, 4\), R fixed"),
        ((8, 8, 3), (4,), r"regions must be \(N, R, 4\)"),
    ],
)
def test_shapes_that_cannot_be_pooled(feature_maps, regions, sentence):
    with pytest.raises(ValueError, match=sentence):
        MODULE.RoIPooling()(keras.Input(feature_maps), keras.Input(regions))


@pytest.mark.parametrize("size", [0, -1, 2.5, None, "7"])
def test_sizes_that_cannot_be(size):
    with pytest.raises(ValueError, match="size must be a whole number of at least 1, got"):
        MODULE.RoIPooling(size)


def test_the_gradient_is_that_of_small_differences():
    """All values are different, so each maximum is one cell's, and a small step of it is a step of all its bins."""
    rng = np.random.default_rng(0)
    values = rng.permutation(8 * 8 * 2).reshape(1, 8, 8, 2).astype("float32") / 10
    regions = random_regions(1, 6, 128, 128, seed=1)
    weights = rng.normal(size=(1, 6, 3, 3, 2)).astype("float32")
    layer = MODULE.RoIPooling(3, 1 / 16)

    class Sum(keras.Model):  # trains the feature maps themselves, so that a step of SGD shows their gradient
        def __init__(self):
            super().__init__()
            self.pool, self.cells = layer, self.add_weight(shape=values.shape, name="cells")
            self.cells.assign(values)

        def call(self, inputs):
            pooled = self.pool(self.cells + 0, ops.convert_to_tensor(regions))
            return ops.sum(pooled * ops.convert_to_tensor(weights))[None] + 0 * ops.sum(inputs)

    model = Sum()
    model.compile(keras.optimizers.SGD(1.0), loss=lambda y, p: ops.sum(p))
    model.train_on_batch(np.zeros((1, 1)), np.zeros((1, 1)))
    gradient = values - ops.convert_to_numpy(model.cells)
    for place in rng.integers(0, [1, 8, 8, 2], (40, 4)):
        changed = values.copy()
        changed[tuple(place)] += 0.01
        numeric = ((twin(changed, regions, 3, 1 / 16) - twin(values, regions, 3, 1 / 16)) * weights).sum() / 0.01
        assert gradient[tuple(place)] == pytest.approx(numeric, abs=2e-3)
    assert np.count_nonzero(gradient) > 20


def test_in_a_model_that_is_saved_and_loaded(tmp_path):
    feature_maps, regions = keras.Input((8, 8, 4)), keras.Input((5, 4))
    model = keras.Model([feature_maps, regions], MODULE.RoIPooling(3, 1 / 16)(feature_maps, regions))
    assert model.output_shape == (None, 5, 3, 3, 4)
    given = [np.random.default_rng(0).normal(size=(2, 8, 8, 4)), random_regions(2, 5, 128, 128)]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.predict(given, verbose=0), model.predict(given, verbose=0))


def test_coordinates_stay_float32_under_mixed_precision():
    """From 512 on float16 has steps of half a pixel, which puts regions into other bins."""
    rng = np.random.default_rng(0)
    feature_maps = rng.integers(0, 1_000, (1, 64, 64, 2)).astype("float32")  # that float16 has as they are
    regions = random_regions(1, 400, 1_000, 1_000) + 24
    expected = keras.ops.convert_to_numpy(MODULE.RoIPooling(7, 1 / 16)(feature_maps, regions))
    rounded = keras.ops.convert_to_numpy(MODULE.RoIPooling(7, 1 / 16)(feature_maps, regions.astype("float16")))
    assert (rounded != expected).any()  # the test sees a difference of half a pixel
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layer = MODULE.RoIPooling(7, 1 / 16)
        found = keras.ops.convert_to_numpy(layer(feature_maps.astype("float16"), regions))
        proposals = load("rcnn/faster_rcnn.py").Proposals([[-300.3, -300.3, 300.3, 300.3]], 1_024, (1_024, 1_024))
        boxes = proposals(np.ones((1, 1, 2), "float16"), np.zeros((1, 1, 4), "float16"))
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(found, expected)
    assert keras.backend.standardize_dtype(boxes.dtype) == "float32"
    np.testing.assert_allclose(boxes[0, 0], [211.7, 211.7, 812.3, 812.3], atol=1e-3)

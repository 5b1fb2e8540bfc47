"""RoI max pooling, which makes a region of any size a feature map of one size, so that dense layers can follow.

Paper: Girshick 2015, "Fast R-CNN", arXiv:1504.08083, section 2.1, with the rounding of its released code.
"""

from keras import layers, ops, saving


@saving.register_keras_serializable(package="rcnn")
class RoIPooling(layers.Layer):
    """Divide each region of interest into size x size bins and keep the maximum of each.

    On the feature map a region reaches from round(x1 scale) to round(x2 scale), that cell included, and is at least one
    cell wide, and so with y. Of its n cells bin p has those from floor(p n / size) up to ceil((p + 1) n / size), not
    included, so that bins may share cells. A bin that lies outside the feature map is 0.

    The formula is that of the released code, whose x2 is the last pixel inside a box; ours is where the box ends.

    Args:
        size: how many bins a region has in each direction.
        scale: how large a pixel of the image is on the feature map, 1 / strides of all layers before.

    Raises:
        ValueError: size is no whole number of at least 1, the feature maps have no fixed size, or the regions are not
            (N, R, 4).
    """

    def __init__(self, size=7, scale=1 / 16, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"size must be a whole number of at least 1, got {size!r}")
        self.size, self.scale = size, scale

    def build(self, feature_maps_shape, regions_shape):
        """Refuse shapes that cannot be pooled; there are no weights."""
        if len(feature_maps_shape) != 4 or None in feature_maps_shape[1:]:
            raise ValueError(f"feature maps must be (N, H, W, C) of a fixed size, got {feature_maps_shape}")
        if len(regions_shape) != 3 or regions_shape[1] is None or regions_shape[2] != 4:
            raise ValueError(f"regions must be (N, R, 4), R fixed, got {regions_shape}")

    def call(self, feature_maps, regions):
        """Feature maps (N, H, W, C) and regions (N, R, 4), "xyxy" in pixels, to (N, R, size, size, C)."""
        _, height, width, n_channels = feature_maps.shape
        n_regions = regions.shape[1]
        x1, y1, x2, y2 = (ops.cast(ops.floor(regions[..., i] * self.scale + 0.5), "int32") for i in range(4))
        top, bottom = self.bins(y1, y2, height)
        x = self.bin_maxima(feature_maps, top, bottom)  # (N, R x size, W, C)
        x = ops.reshape(x, (-1, self.size, width, n_channels))  # each region by itself: (N R, size, W, C)
        x = ops.transpose(x, (0, 2, 1, 3))
        edges = (top, bottom, *self.bins(x1, x2, width))
        top, bottom, left, right = (ops.reshape(edge, (-1, self.size)) for edge in edges)
        x = ops.transpose(self.bin_maxima(x, left, right), (0, 2, 1, 3))  # (N R, size, size, C)
        has_cells = (bottom > top)[:, :, None, None] & (right > left)[:, None, :, None]
        x = ops.where(has_cells, x, ops.zeros_like(x))
        return ops.reshape(x, (-1, n_regions, self.size, self.size, n_channels))

    def bins(self, start, end, length):
        """Return the first cell of each bin, and the one after its last, on the feature map: twice (N, R x size)."""
        n_cells = ops.expand_dims(ops.maximum(end - start + 1, 1), -1)  # (N, R, 1)
        number = ops.arange(self.size, dtype="int32")
        first = number * n_cells // self.size
        last = -(-(number + 1) * n_cells // self.size)  # rounded up
        start = ops.expand_dims(start, -1)
        edges = (ops.clip(start + edge, 0, length) for edge in (first, last))
        return tuple(ops.reshape(edge, (-1, edge.shape[1] * self.size)) for edge in edges)

    def bin_maxima(self, x, first, last):
        """The maxima of x (N, L, A, C) over its cells from first up to last, (N, B) each: (N, B, A, C).

        Any n cells in a row are covered by two windows of 2^k cells, the largest power of two in n: one from the first
        on, one up to the last. So the maxima of windows of 1, 2, 4 ... cells are enough for bins of all sizes.
        """
        length = x.shape[1]
        windows, cells = [x], 1
        while 2 * cells <= length:
            wider = ops.maximum(windows[-1], ops.roll(windows[-1], -cells, axis=1))  # those that wrap are never asked
            windows.append(wider)
            cells *= 2
        nothing = ops.full_like(x, -1e38)
        windows = ops.concatenate([*windows, nothing], axis=1)  # (N, (k + 2) L, A, C)
        n_cells = last - first
        power = sum(ops.cast(n_cells >= 2**k, "int32") for k in range(1, length.bit_length()))
        n_windows = length.bit_length() * length
        left = ops.where(n_cells > 0, power * length + first, n_windows)  # without cells: nothing
        right = ops.where(n_cells > 0, power * length + last - 2**power, n_windows)
        return ops.maximum(self.gather(windows, left), self.gather(windows, right))

    def gather(self, x, numbers):
        """Take x (N, L, A, C) at numbers (N, B), each of its own row: (N, B, A, C)."""
        return ops.take_along_axis(x, numbers[..., None, None], axis=1)

    def compute_output_shape(self, feature_maps_shape, regions_shape):
        """Return (N, R, size, size, C)."""
        return (*regions_shape[:2], self.size, self.size, feature_maps_shape[-1])

    def get_config(self):
        """Return the arguments."""
        return {**super().get_config(), "size": self.size, "scale": self.scale}

"""Fast R-CNN: the whole image goes through the convolutions once, and every region is cut out of its feature maps.

Paper: Girshick 2015, "Fast R-CNN", arXiv:1504.08083, section 2, on the VGG-16 of arXiv:1409.1556.

    fast_rcnn_vgg16
    stem          (600, 800,   3) -> ( 37,  50, 512)   the five groups of VGG-16, the last without its pooling
    group 1       (600, 800,   3) -> (300, 400,  64)   2 convolutions
    group 2       (300, 400,  64) -> (150, 200, 128)   2 convolutions
    group 3       (150, 200, 128) -> ( 75, 100, 256)   3 convolutions
    group 4       ( 75, 100, 256) -> ( 37,  50, 512)   3 convolutions
    group 5       ( 37,  50, 512) -> ( 37,  50, 512)   3 convolutions
    learner       ( 37,  50, 512) -> (64, 7, 7, 512)   RoI pooling of 64 regions
    classifier    (64, 7, 7, 512) -> (64, 21), (64, 21, 4)   dense 4096, 4096; classes, and boxes of each class

    fast_rcnn_vgg8
    stem          (128, 128,   3) -> ( 32,  32, 128)   three groups, the last without its pooling
    group 1       (128, 128,   3) -> ( 64,  64,  32)   2 convolutions
    group 2       ( 64,  64,  32) -> ( 32,  32,  64)   2 convolutions
    group 3       ( 32,  32,  64) -> ( 32,  32, 128)   2 convolutions
    learner       ( 32,  32, 128) -> (64, 4, 4, 128)   RoI pooling of 64 regions
    classifier    (64, 4, 4, 128) -> (64, 11), (64, 11, 4)   dense 256; classes, and boxes of each class

Trainable parameters: fast_rcnn_vgg16 134,690,729 with 21 classes, fast_rcnn_vgg8 826,583 with 11, the background among
them.
Differs from the paper: boxes of the background, which nobody trains, are there as in the released code. fast_rcnn_vgg8,
for scenes of 128x128 pixels, is not in the paper: its RoI pooling has 4x4 bins in place of the pooling that makes
4x4 of the 8x8 feature maps of a 32x32 image, so that it can begin with the weights of a network trained on those.
"""

import inspect
from numbers import Integral

from keras import Input, Model, config, initializers, layers, losses, ops, saving

METAPARAMETERS = {
    "fast_rcnn_vgg16": {
        "groups": (
            {"n_layers": 2, "n_filters": 64}, {"n_layers": 2, "n_filters": 128}, {"n_layers": 3, "n_filters": 256},
            {"n_layers": 3, "n_filters": 512}, {"n_layers": 3, "n_filters": 512},
        ),
    },
    "fast_rcnn_vgg8": {
        "groups": (
            {"n_layers": 2, "n_filters": 32}, {"n_layers": 2, "n_filters": 64}, {"n_layers": 2, "n_filters": 128},
        ),
        "batch_normalization": True,
        "pooled_size": 4,
        "n_units": (256,),
    },
}


def build(metaparameters, input_shape=(600, 1000, 3), n_classes=21, n_regions=64):
    """Return a Fast R-CNN as a `keras.Model`: images and regions to classes and boxes of the regions.

    {"images": (N, H, W, C), "regions": (N, R, 4), "xyxy" in pixels} to {"classes": (N, R, K + 1), probabilities,
    "deltas": (N, R, K + 1, 4), of the box that a region of each class would have (tx, ty, tw, th)}.

    Args:
        metaparameters: a value of METAPARAMETERS, or your own dictionary: `groups`, a tuple of
            {"n_layers", "n_filters"}, and optionally `batch_normalization`, `pooled_size`, the bins of a region in each
            direction, `n_units` and `dropout`, arguments of `stem`, `learner` and `classifier`.
        input_shape: (H, W, C), a fixed size; every group but the last halves H and W.
        n_classes: K + 1, the classes and, as class 0, the background; at least 2.
        n_regions: R, the number of regions of each image.

    Raises:
        ValueError: metaparameters, input_shape, n_classes or n_regions are invalid.
    """
    if not isinstance(metaparameters, dict) or not metaparameters.get("groups"):
        raise ValueError(f"metaparameters must be a dictionary with groups, got {metaparameters!r}")
    groups = metaparameters["groups"]
    in_stem = {name: value for name, value in metaparameters.items() if name in ("groups", "batch_normalization")}
    in_classifier = {name: value for name, value in metaparameters.items() if name in ("n_units", "dropout")}
    in_learner = {name: value for name, value in metaparameters.items() if name not in {*in_stem, *in_classifier}}
    try:
        of_learner = inspect.signature(learner).bind(None, None, **in_learner, scale=1)
        for in_group in groups:
            inspect.signature(group).bind(None, **in_group, batch_normalization=False, pooling=True)
        sizes = [*in_classifier.get("n_units", ()), *(n for in_group in groups for n in in_group.values())]
    except TypeError as error:
        raise ValueError(f"metaparameters are invalid: {error}, in {metaparameters}") from None
    of_learner.apply_defaults()
    sizes.append(of_learner.arguments["pooled_size"])
    if not all(isinstance(n, Integral) and n > 0 for n in sizes):
        raise ValueError(
            f"n_layers, n_filters, pooled_size, n_units must be whole numbers of at least 1, got {metaparameters}"
        )
    if "n_units" in in_classifier:
        in_classifier["n_units"] = [int(n) for n in in_classifier["n_units"]]  # numpy's too
    if config.image_data_format() != "channels_last":
        raise ValueError("image_data_format must be channels_last, got channels_first (keras.json or keras.config)")
    if not isinstance(input_shape, (tuple, list)) or len(input_shape) != 3 or not all(input_shape):
        raise ValueError(f"input_shape must be (height, width, channels), got {input_shape!r}")
    strides = 2 ** (len(groups) - 1)
    if min(input_shape[:2]) < strides:
        raise ValueError(f"height and width must be at least {strides}, got {input_shape[:2]}")
    if not isinstance(n_classes, Integral) or n_classes < 2:
        raise ValueError(f"n_classes must be a whole number of at least 2, got {n_classes!r}")
    if not isinstance(n_regions, Integral) or n_regions < 1:
        raise ValueError(f"n_regions must be a whole number of at least 1, got {n_regions!r}")

    images, regions = Input(input_shape, name="images"), Input((int(n_regions), 4), name="regions")
    x = stem(images, **in_stem)
    x = learner(x, regions, **in_learner, scale=1 / strides)
    outputs = classifier(x, int(n_classes), **in_classifier)
    return Model({"images": images, "regions": regions}, outputs)


def stem(inputs, groups, batch_normalization=False):
    """All convolutions of a VGG: images (N, H, W, C) to feature maps (N, H / 2^(groups - 1), W / ..., n_filters).

    Args:
        inputs: images (N, H, W, C).
        groups: a tuple of {"n_layers", "n_filters"}; the pooling of the last is left out, RoI pooling has its place.
        batch_normalization: whether batch normalization follows each convolution.
    """
    *groups, last = groups
    x = inputs
    for metaparameters in groups:
        x = group(x, **metaparameters, batch_normalization=batch_normalization)
    x = group(x, **last, batch_normalization=batch_normalization, pooling=False)
    return layers.Identity(name="feature_maps")(x)  # a name, by which the stem can be cut off


def learner(x, regions, pooled_size=7, scale=1 / 16):
    """RoI pooling: feature maps (N, H, W, C) and regions (N, R, 4) to one small map for each region.

    Args:
        x: the stem's feature maps (N, H, W, C), of a fixed size.
        regions: (N, R, 4), "xyxy" in pixels of the image.
        pooled_size: how many bins a region gets in each direction.
        scale: how large a pixel of the image is on the feature maps.

    Returns:
        (N, R, pooled_size, pooled_size, C).
    """
    return RoIPooling(pooled_size, scale)(x, regions)


def group(x, n_layers, n_filters, batch_normalization=False, pooling=True):
    """3x3 convolutions, then a max pooling: (N, H, W, C) -> (N, H / 2, W / 2, n_filters). VGG paper, section 2.1."""
    for _ in range(n_layers):
        x = conv_relu(x, n_filters, batch_normalization)
    return layers.MaxPooling2D(2, strides=2)(x) if pooling else x


def classifier(x, n_classes, n_units=(4096, 4096), dropout=0.5):
    """Dense layers for every region, then two side by side: which class it is, and where its box is. Section 2.1.

    Args:
        x: the pooled regions (N, R, size, size, C).
        n_classes: K + 1, the classes and, as class 0, the background.
        n_units: the widths of the dense layers before the last two.
        dropout: the share of their units that is dropped in training.

    Returns:
        {"classes": (N, R, K + 1), probabilities, "deltas": (N, R, K + 1, 4)}.
    """
    n_regions, *pooled = x.shape[1:]
    x = layers.Reshape((n_regions, pooled[0] * pooled[1] * pooled[2]))(x)
    for i, n in enumerate(n_units, start=6):
        x = layers.Dense(n, activation="relu", kernel_initializer="he_normal", name=f"fc{i}")(x)
        x = layers.Dropout(dropout)(x)
    normal = initializers.RandomNormal  # section 2.3, with these two deviations
    classes = layers.Dense(n_classes, activation="softmax", kernel_initializer=normal(stddev=0.01), name="classes")(x)
    deltas = layers.Dense(4 * n_classes, kernel_initializer=normal(stddev=0.001))(x)
    return {"classes": classes, "deltas": layers.Reshape((n_regions, n_classes, 4), name="deltas")(deltas)}


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
        super().__init__(autocast=False, **kwargs)  # or mixed precision would round the coordinates
        if not isinstance(size, Integral) or size < 1:
            raise ValueError(f"size must be a whole number of at least 1, got {size!r}")
        self.size, self.scale = int(size), scale

    def build(self, feature_maps_shape, regions_shape):
        """Refuse shapes that cannot be pooled; there are no weights."""
        if len(feature_maps_shape) != 4 or None in feature_maps_shape[1:]:
            raise ValueError(f"feature maps must be (N, H, W, C) of a fixed size, got {feature_maps_shape}")
        if len(regions_shape) != 3 or regions_shape[1] is None or regions_shape[2] != 4:
            raise ValueError(f"regions must be (N, R, 4), R fixed, got {regions_shape}")

    def call(self, feature_maps, regions):
        """Feature maps (N, H, W, C) and regions (N, R, 4), "xyxy" in pixels, to (N, R, size, size, C).

        Any n cells in a row are covered by two windows of 2^k cells, the largest power of two in n: one from the first
        cell on, one up to the last. So four windows, two by two, cover a bin, and the maxima of all windows of 1, 2, 4
        ... cells in height and in width, made once, are enough for bins of all sizes.
        """
        feature_maps = ops.cast(feature_maps, self.compute_dtype)
        n, (height, width, n_channels) = ops.shape(feature_maps)[0], feature_maps.shape[1:]
        windows = [w for tall in self.windows(feature_maps, 1) for w in self.windows(tall, 2)]
        windows = ops.reshape(ops.stack(windows), (-1, n_channels))  # (powers of H x powers of W x N x H x W, C)

        x1, y1, x2, y2 = (ops.cast(ops.floor(regions[..., i] * self.scale + 0.5), "int32") for i in range(4))
        top, bottom = self.bins(y1, y2, height)  # (N, R, size)
        left, right = self.bins(x1, x2, width)
        tall, wide = self.power(bottom - top, height), self.power(right - left, width)
        of_window = tall[..., :, None] * width.bit_length() + wide[..., None, :]  # (N, R, size, size)
        of_image = of_window * n + ops.reshape(ops.arange(n, dtype="int32"), (-1, 1, 1, 1))
        rows = [ops.clip(y, 0, height - 1) for y in (top, bottom - 2**tall)]  # clipped: of bins without cells
        columns = [ops.clip(x, 0, width - 1) for x in (left, right - 2**wide)]
        cells = [(of_image * height + y[..., :, None]) * width + x[..., None, :] for y in rows for x in columns]
        maxima = [ops.take(windows, cell, axis=0) for cell in cells]
        x = ops.maximum(ops.maximum(*maxima[:2]), ops.maximum(*maxima[2:]))  # (N, R, size, size, C)
        has_cells = (bottom > top)[..., :, None] & (right > left)[..., None, :]
        return ops.where(has_cells[..., None], x, ops.zeros_like(x))

    def windows(self, x, axis):
        """Return the maxima of the 1, 2, 4 ... cells from each cell of x on: a list, each of the shape of x."""
        windows, cells = [x], 1
        while 2 * cells <= x.shape[axis]:
            windows.append(ops.maximum(windows[-1], ops.roll(windows[-1], -cells, axis)))  # what wraps is never asked
            cells *= 2
        return windows

    def power(self, n_cells, length):
        """Return the k of the largest 2^k of at most n_cells, 0 if there are none: the same shape, int32."""
        return sum(ops.cast(n_cells >= 2**k, "int32") for k in range(1, length.bit_length())) + ops.zeros_like(n_cells)

    def bins(self, start, end, length):
        """Return the first cell of each bin, and the one after its last, on the feature map: twice (N, R, size)."""
        n_cells = ops.expand_dims(ops.maximum(end - start + 1, 1), -1)  # (N, R, 1)
        i = ops.arange(self.size, dtype="int32")
        first = i * n_cells // self.size
        last = -(-(i + 1) * n_cells // self.size)  # rounded up
        start = ops.expand_dims(start, -1)
        return ops.clip(start + first, 0, length), ops.clip(start + last, 0, length)

    def compute_output_shape(self, feature_maps_shape, regions_shape):
        """Return (N, R, size, size, C)."""
        return (*regions_shape[:2], self.size, self.size, feature_maps_shape[-1])

    def get_config(self):
        """Return the arguments."""
        return {**super().get_config(), "size": self.size, "scale": self.scale}


@saving.register_keras_serializable(package="rcnn")
class SmoothL1(losses.Loss):
    """Of each box the sum over its four numbers of 0.5 (sigma x)^2, or of |x| - 0.5 / sigma^2 from 1 / sigma^2 on.

    Equation 3 of the paper, with the sigma of the released code of Faster R-CNN: 1 for the classifier, 3 for anchors.
    Its mean is over the boxes that have a weight, and not over all.
    """

    def __init__(self, sigma=1.0, name="smooth_l1", reduction="mean_with_sample_weight"):
        super().__init__(name, reduction)
        self.sigma = sigma

    def call(self, y_true, y_pred):
        """Return the loss of each box: (..., 4) and (..., 4) to (...)."""
        x, limit = ops.abs(y_true - y_pred), 1 / self.sigma**2
        return ops.sum(ops.where(x < limit, 0.5 / limit * x**2, x - 0.5 * limit), -1)

    def get_config(self):
        """Return the arguments."""
        return {"sigma": self.sigma, "name": self.name, "reduction": self.reduction}


# Copied from vgg/vgg.py
def conv_relu(x, n_filters, batch_normalization=False):
    """3x3 convolution, optionally batch normalization, and ReLU: (N, H, W, C) -> (N, H, W, n_filters)."""
    x = layers.Conv2D(n_filters, 3, padding="same", kernel_initializer="he_normal")(x)
    if batch_normalization:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
    return layers.ReLU()(x)

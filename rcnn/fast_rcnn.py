"""Fast R-CNN: the whole image goes through the convolutions once, and every region is cut out of its feature maps.

Paper: Girshick 2015, "Fast R-CNN", arXiv:1504.08083, section 2, on the VGG-16 of arXiv:1409.1556.

    fast_rcnn_vgg16
    stem          (600, 800,   3) -> ( 37,  50, 512)   the five groups of VGG-16, the last without its pooling
    learner       ( 37,  50, 512) -> (64, 7, 7, 512)   RoI pooling of 64 regions
    classifier    (64, 7, 7, 512) -> (64, 21), (64, 21, 4)   dense 4096, 4096; classes, and boxes of each class

    fast_rcnn_vgg8
    stem          (128, 128,   3) -> ( 32,  32, 192)   three groups, the last without its pooling
    learner       ( 32,  32, 192) -> (64, 4, 4, 192)   RoI pooling of 64 regions
    classifier    (64, 4, 4, 192) -> (64, 11), (64, 11, 4)   dense 256 with batch normalization; classes and boxes

Trainable parameters: fast_rcnn_vgg16 134,690,729 with 21 classes, fast_rcnn_vgg8 1,421,591 with 11, the background
among them.
Differs from the paper: boxes of the background, which nobody trains, are there as in the released code. Pooling rounds
down, Caffe's up: of 600x800 pixels it makes 38x50 cells. The dense layers and the convolutions start He-normal; all
layers are trained, where the paper freezes the first two groups of VGG-16; all weights have the same learning rate,
where the paper doubles it for biases; the deviations of the boxes are fixed, where the paper measures them.
fast_rcnn_vgg8, for scenes of 128x128 pixels, is not in the paper: its RoI pooling has 4x4 bins in place of the
pooling that makes 4x4 of the 8x8 feature maps of a 32x32 image, so that it can begin with the weights of rcnn_vgg8
trained on those.
"""

from numbers import Integral

from keras import Input, Model, initializers, layers, ops, saving

from rcnn import arguments_of, check_number, check_shape, dense_relu, stem

METAPARAMETERS = {
    "fast_rcnn_vgg16": {
        "groups": (
            {"n_layers": 2, "n_filters": 64}, {"n_layers": 2, "n_filters": 128}, {"n_layers": 3, "n_filters": 256},
            {"n_layers": 3, "n_filters": 512}, {"n_layers": 3, "n_filters": 512},
        ),
    },
    "fast_rcnn_vgg8": {
        "groups": (
            {"n_layers": 2, "n_filters": 32}, {"n_layers": 2, "n_filters": 96}, {"n_layers": 2, "n_filters": 192},
        ),
        "batch_normalization": True,
        "pooled_size": 4,
        "n_units": (256,),
        "dropout": 0.25,
    },
}


def build(metaparameters, input_shape=(600, 1000, 3), n_classes=21, n_regions=64):
    """Return a Fast R-CNN as a `keras.Model`: images and regions to classes and boxes of the regions.

    {"images": (N, H, W, C), "regions": (N, R, 4), "xyxy" in pixels} to {"classes": (N, R, K + 1), probabilities,
    "deltas": (N, R, K + 1, 4), of the box that a region of each class would have, divided by boxes.DEVIATIONS}.
    Its layers "backbone" and "head" are models too: the stem, and the classifier.

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
    in_stem, in_learner, in_head = arguments_of(metaparameters, stem, learner, classifier)
    strides = 2 ** (len(in_stem["groups"]) - 1)
    check_shape(input_shape, strides)
    check_number("n_classes", n_classes, 2)
    check_number("n_regions", n_regions)

    images = Input((None, None, input_shape[2]))
    backbone = Model(images, stem(images, **in_stem), name="backbone")
    images, regions = Input(input_shape, name="images"), Input((int(n_regions), 4), name="regions")
    x = learner(backbone(images), regions, 1 / strides, **in_learner)
    pooled = Input((None, *x.shape[2:]))  # of any number of regions
    head = Model(pooled, classifier(pooled, int(n_classes), **in_head), name="head")
    return Model({"images": images, "regions": regions}, head(x))


def resized(network, image_size, n_regions):
    """Return the same detector for images of another size and another number of regions; it shares all weights.

    Args:
        network: a model of build.
        image_size: (height, width) in pixels.
        n_regions: R, the number of regions of each image.
    """
    backbone, pooling, head = (network.get_layer(name) for name in ("backbone", "roi_pooling", "head"))
    images = Input((*image_size, backbone.input_shape[3]), name="images")
    regions = Input((n_regions, 4), name="regions")
    pooled = RoIPooling.from_config(pooling.get_config())(backbone(images), regions)
    return Model({"images": images, "regions": regions}, head(pooled), name=network.name)


def learner(x, regions, scale, pooled_size=7):
    """RoI pooling: feature maps (N, H, W, C) and regions (N, R, 4) to one small map for each region. Section 2.1.

    Args:
        x: the stem's feature maps (N, H, W, C), of a fixed size.
        regions: (N, R, 4), "xyxy" in pixels of the image.
        scale: how large a pixel of the image is on the feature maps.
        pooled_size: how many bins a region gets in each direction.

    Returns:
        (N, R, pooled_size, pooled_size, C).
    """
    return RoIPooling(pooled_size, scale, name="roi_pooling")(x, regions)


def classifier(x, n_classes, n_units=(4096, 4096), dropout=0.5, batch_normalization=False):
    """Dense layers for every region, then two side by side: which class it is, and where its box is. Figure 1.

    Args:
        x: the pooled regions (N, R, size, size, C).
        n_classes: K + 1, the classes and, as class 0, the background.
        n_units: the widths of the dense layers before the last two.
        dropout: the share of their units that is dropped in training.
        batch_normalization: whether it follows each of these dense layers too.

    Returns:
        {"classes": (N, R, K + 1), probabilities, "deltas": (N, R, K + 1, 4)}.
    """
    height, width, n_channels = x.shape[2:]
    x = layers.Reshape((-1, height * width * n_channels))(x)
    for i, n in enumerate(n_units, start=6):
        x = dense_relu(x, n, f"fc{i}", batch_normalization)
        x = layers.Dropout(dropout)(x)
    # In float32 under a policy of half precision too, which would round probabilities and boxes.
    normal, end = initializers.RandomNormal, {"dtype": "float32"}  # section 2.3, with these two deviations
    classes = layers.Dense(
        n_classes, activation="softmax", kernel_initializer=normal(stddev=0.01), name="classes", **end
    )(x)
    deltas = layers.Dense(4 * n_classes, kernel_initializer=normal(stddev=0.001), **end)(x)
    return {"classes": classes, "deltas": layers.Reshape((-1, n_classes, 4), name="deltas", **end)(deltas)}


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

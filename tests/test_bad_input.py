"""What cannot work is refused by `build`, in a sentence with what is allowed: once for each sentence and family."""

import inspect
import re

import keras
import pytest
from folders import MODULES, build, without_numbers
from networks import BLOCK, BLOCK_V2, FIRE, SMALL, once, stages_of_detector

VGG, V1, V2, BASIC = "vgg/vgg.py", "resnet/resnet_v1.py", "resnet/resnet_v2.py", "resnet/resnet_basic.py"
INCEPTION_V1, INCEPTION_V2 = "inception/inception_v1.py", "inception/inception_v2.py"
INCEPTION_V3, SENET154 = "inception/inception_v3.py", "senet/senet154.py"
RESNEXT, DENSENET, SQUEEZENET = "resnext/resnext.py", "densenet/densenet.py", "squeezenet/squeezenet.py"
SE_RESNET, SE_RESNEXT, SE_INCEPTION = "senet/se_resnet.py", "senet/se_resnext.py", "senet/se_inception_v2.py"
MULTILABEL, SIAMESE, AUTOENCODER = "multilabel/multilabel.py", "siamese/siamese.py", "autoencoder/autoencoder.py"
RCNN, FAST, FASTER = DETECTORS = ("rcnn/rcnn.py", "rcnn/fast_rcnn.py", "rcnn/faster_rcnn.py")
VALID = {path: metaparameters for path, metaparameters in reversed(SMALL.values())}  # the first of each module
NO_GROUPS = "metaparameters must be a dictionary with groups, got"
INVALID = "metaparameters are invalid: "
FILTERS = "filters, blocks, kernel_size and strides must be whole and at least 1, got"
BLOCKS = {"n_filters": 8, "n_blocks": 1}
A, B, C = SMALL["inception_v3"][1]["groups"]


def refused(path, sentence, given, input_shape=(96, 96, 3), n_classes=10, **options):
    with pytest.raises(ValueError, match=sentence) as error:
        build(once(path), given, input_shape, n_classes, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "path, change, sentence",
    [
        # no groups
        (VGG, "vgg17", NO_GROUPS),
        (BASIC, None, NO_GROUPS),
        (INCEPTION_V1, {"groups": ()}, NO_GROUPS),
        (SIAMESE, {"groups": None}, NO_GROUPS),
        (FASTER, [1, 2], r"metaparameters must be a dictionary, got \[1, 2\]"),
        (FAST, {"groups": ()}, "metaparameters must have groups, got"),
        (RCNN, {"stem": "resnet"}, INVALID + "stem, in"),
        (RCNN, {"groups": {"n_layers": 1, "n_filters": 8}}, "groups must be a tuple, got {'n_layers': 1"),
        (FASTER, {"n_units": 4096}, "n_units must be a tuple, got 4096"),
        (RCNN, {"groups": ({"n_layers": 1},)}, "each of groups must have n_layers and n_filters, got {'n_layers': 1}"),
        (AUTOENCODER, {"depth": 1}, "metaparameters must be a dictionary with layers and nothing else, got"),
        # names
        (VGG, {"groups": ({"n_filters": 8},)}, INVALID + "missing a required argument: 'n_layers'"),
        (V1, {"groups": (BLOCKS | {"n_layers": 1},)}, INVALID + "got an unexpected keyword argument 'n_layers'"),
        (V2, {"groups": BLOCKS}, INVALID + ".* must be a mapping"),
        (BASIC, {"groups": 3}, INVALID + "'int' object is not iterable"),
        (BASIC, {"groups": (BLOCKS | {"strides": 2},)}, INVALID + ".* multiple values for .*'strides'"),
        (BASIC, {"stem": {"filters": 16}}, INVALID + "got an unexpected keyword argument 'filters'"),
        (RESNEXT, {"groups": (BLOCKS,)}, INVALID + "missing a required argument: 'n_filters_out'"),
        (INCEPTION_V1, {"groups": ((BLOCK, {"n_1x1": 8}),)}, INVALID + "missing a required argument: 'n_3x3_reduce'"),
        (INCEPTION_V3, {"groups": (A | {"blocks": B["blocks"]},)}, INVALID + "missing a required argument: 'n_1x1'"),
        (INCEPTION_V3, {"groups": (B | {"grid_reduction": {"n_3x3": 8}},)}, INVALID + ".*argument: 'n_filters'"),
        (INCEPTION_V3, {"groups": ({"block": "a"},)}, INVALID + "missing a required argument: 'blocks'"),
        (SE_INCEPTION, {"groups": ({"blocks": (None,)},)}, INVALID + ".* must be a mapping, not NoneType"),
        (SQUEEZENET, {"groups": (FIRE,)}, INVALID + ".* must be a mapping"),
        (SIAMESE, {"stem": {"strides": 2}}, INVALID + "got an unexpected keyword argument 'strides'"),
        (FAST, {"scale": 1 / 8}, INVALID + "scale, in"),
        (FASTER, {"anchors": {"sizes": (1,)}}, INVALID + "got an unexpected keyword argument 'sizes'"),
        (FASTER, {"proposals": {"n_befor": 1000}}, INVALID + "n_befor, in"),
        (FASTER, {"anchors": {"base_size": 1, "scales": (28,)}}, "anchors must have an area, got a base_size too"),
        (FASTER, {"proposals": None}, INVALID + "proposals must be a dictionary, got None"),
        # numbers
        (VGG, {"groups": ({"n_layers": 0, "n_filters": 8},)}, "n_layers, n_filters, n_units must be whole numbers"),
        (VGG, {"n_units": (0,)}, "n_layers, n_filters, n_units must be whole numbers of at least 1, got"),
        (VGG, {"n_units": 512}, INVALID + ".* must be an iterable, not int"),
        (V1, {"groups": (BLOCKS | {"n_blocks": 1.5},)}, "n_filters and n_blocks must be whole numbers of at least"),
        (BASIC, {"groups": (BLOCKS | {"n_filters": "8"},)}, FILTERS),
        (BASIC, {"stem": {"kernel_size": (7, 7)}}, FILTERS),
        (BASIC, {"stem": {"strides": 0}}, FILTERS),
        (BASIC, {"stem": {"kernel_size": 4, "strides": 2}}, "kernel_size of the stem must be odd where strides are"),
        (DENSENET, {"stem": {"kernel_size": 2, "strides": 2}}, "kernel_size of the stem must be odd where strides are"),
        (INCEPTION_V1, {"stem": {"kernel_size": 6, "strides": 4}}, "kernel_size of the stem must be odd where strides"),
        (DENSENET, {"growth_rate": -4}, "n_blocks, growth_rate, n_filters, kernel_size and strides must be whole and"),
        (INCEPTION_V1, {"groups": ((BLOCK | {"n_pool": 0},),)}, "filters, kernel_size and strides must be whole and"),
        (INCEPTION_V3, {"stem": {"n_filters_reduce": None}}, "filters and strides must be whole and at least 1, got"),
        (SQUEEZENET, {"groups": ((FIRE | {"n_1x1": -1},),)}, "filters, kernel_size and strides must be whole and"),
        (SIAMESE, {"n_units": None}, "layers, filters, kernel_size, n_units must be whole and at least 1, got"),
        (AUTOENCODER, {"layers": ({"n_filters": 0},)}, "n_filters must be whole numbers of at least 1, got"),
        (AUTOENCODER, {"layers": 64}, "layers must be a tuple of dictionaries, as .*, got 64"),
        (RCNN, {"groups": ({"n_layers": 0, "n_filters": 8},)}, "n_layers must be a whole number of at least 1, got 0"),
        (RCNN, {"pool_size": 1.5}, "pool_size must be a whole number of at least 1, got 1.5"),
        (FAST, {"pooled_size": 0}, "pooled_size must be a whole number of at least 1, got 0"),
        (FAST, {"n_units": (32, 0)}, "n_units must be a whole number of at least 1, got 0"),
        (FASTER, {"n_filters": "8"}, "n_filters must be a whole number of at least 1, got '8'"),
        (FASTER, {"anchors": {"scales": (1, -2)}}, r"scales must be above 0, got \(1, -2\)"),
        (FASTER, {"proposals": {"n_before": 1.5}}, "n_before must be a whole number of at least 1, got 1.5"),
        # choices
        (V1, {"strided_convolution": "5x5"}, 'strided_convolution must be "1x1" or "3x3", got .*5x5'),
        (BASIC, {"shortcut_type": "A"}, 'shortcut_type must be "projection", "zero_padding" or "none", got'),
        (RESNEXT, {"convolution": "depthwise"}, 'must be "split_transform_merge" or "grouped_convolution", got'),
        (DENSENET, {"bottleneck": "False"}, "bottleneck must be True or False, got 'False'"),
        (SE_RESNET, {"bottleneck": None}, "bottleneck must be True or False, got None"),
        (VGG, {"dropout": True}, "dropout must be at least 0 and below 1, got True"),
        (VGG, {"dropout": None}, "dropout must be at least 0 and below 1, got None"),
        (SQUEEZENET, {"dropout": 1.5}, "dropout must be at least 0 and below 1, got 1.5"),
        (VGG, {"batch_normalization": "no"}, "batch_normalization must be True or False, got 'no'"),
        (SQUEEZENET, {"batch_normalization": 2}, "batch_normalization must be True or False, got 2"),
        (INCEPTION_V1, {"batch_normalization": None}, "batch_normalization must be True or False, got None"),
        (SIAMESE, {"batch_normalization": "no"}, "batch_normalization must be True or False, got 'no'"),
        (SIAMESE, {"groups": ({"n_layers": 1, "n_filters": 8, "kernel_size": 3, "pooling": "no"},)},
         "pooling must be True or False, got 'no'"),
        (RCNN, {"dropout": True}, "dropout must be at least 0 and below 1, got True"),
        (FAST, {"dropout": 1}, "dropout must be at least 0 and below 1, got 1"),
        (FASTER, {"batch_normalization": "no"}, "batch_normalization must be True or False, got 'no'"),
        (INCEPTION_V3, {"stem": {"padding": "causal"}}, "padding must be \"valid\" or \"same\", got 'causal'"),
        (INCEPTION_V3, {"groups": (A | {"block": "d"},)}, 'block must be "a", "b" or, without grid reduction, "c"'),
        (INCEPTION_V3, {"groups": (C | {"grid_reduction": {"n_3x3": 8}},)}, 'block must be "a", "b" or, without'),
        (SQUEEZENET, {"bypass": "identity"}, "bypass must be None, \"simple\" or \"complex\", got 'identity'"),
        (SIAMESE, {"padding": "causal"}, "padding must be \"valid\" or \"same\", got 'causal'"),
        (SIAMESE, {"initial_weights": "glorot"}, "initial_weights must be \"he_normal\" or \"koch\", got 'glorot'"),
        # what does not go together
        (BASIC, {"shortcut_type": "zero_padding"}, r"at least as many filters as the group before, got \[64, 8, 16\]"),
        (RESNEXT, {"cardinality": 3}, r"cardinality must be a whole .* divides n_filters, \[8, 16\], got 3"),
        (SE_RESNEXT, {"cardinality": 0}, r"cardinality must be a whole .* divides n_filters, \[8, 16\], got 0"),
        (DENSENET, {"reduction": 1.01}, "reduction must be above 0 and at most 1, got 1.01"),
        (DENSENET, {"reduction": 0.01}, "reduction must leave at least one feature map in each group, got 0.01"),
        (SE_RESNET, {"ratio": 33}, "ratio must be None or a whole number of 1 to 32, the fewest feature maps, got 33"),
        (SE_RESNET, {"ratio": 0}, "ratio must be None or a whole number of 1 to 32, the fewest feature maps, got 0"),
        (SE_RESNEXT, {"ratio": 1.5}, "ratio must be a whole number of 1 to 16, the fewest feature maps, got 1.5"),
        (SE_INCEPTION, {"ratio": 0}, "ratio must be a whole number of 1 to 28, the fewest feature maps, got 0"),
        (INCEPTION_V1, {"groups": ((None, BLOCK),)}, "a group must be a tuple of blocks and begin with one, not"),
        (INCEPTION_V3, {"groups": (C | {"blocks": ()},)}, "a group must be a tuple of blocks and begin with one"),
        (SE_INCEPTION, {"groups": ({"blocks": ()},)}, "a group must have a tuple of at least one block, got"),
        (INCEPTION_V2, {"groups": ({"blocks": (BLOCK_V2 | {"pooling": "sum"},)},)}, "pooling of a block must be"),
        (SENET154, {"cardinality": 3}, "cardinality must be a whole number that divides all filters, .*, got 3"),
        (SQUEEZENET, {"groups": ((),)}, "a group must be a tuple of at least one block, got"),
    ],
)
def test_metaparameters(path, change, sentence):
    refused(path, sentence, VALID[path] | change if isinstance(change, dict) else change)


@pytest.mark.parametrize("path", MODULES)
def test_what_every_module_refuses(path):
    """A name that it does not know, an image without size, fewer than two classes."""
    module, given = once(path), VALID[path]
    unknown = "metaparameters" if path == AUTOENCODER else INVALID + "got an unexpected keyword argument 'depth', in"
    unknown = INVALID + "depth, in" if path in DETECTORS else unknown
    refused(path, unknown, given | {"depth": 20})
    for input_shape in ((32, 32), (32, 32, 0), (32, 32, None), "32x32", 32, None, (32.5, 32, 3), ("32", 32, -3)):
        sentence = f"input_shape must be (height, width, channels), got {input_shape!r}"
        refused(path, re.escape(sentence), given, input_shape)
    if "n_classes" in inspect.signature(module.build).parameters:
        for n in (1, -3, "10", 2.5, None):
            refused(path, f"n_classes must be a whole number of at least 2, got {n!r}", given, n_classes=n)


def test_classes_of_multilabel():
    for classes in (1, 2.5, None, "kind", ("kind",), {}, {"kind": 1}, {"kind": "ten"}):
        sentence = f"classes must be a whole number of at least 2, or {{name: such a number}}, got {classes!r}"
        refused(MULTILABEL, re.escape(sentence), VALID[MULTILABEL], classes=classes)


def test_regions_of_fast_rcnn():
    refused(FAST, "n_regions must be a whole number of at least 1, got 0", VALID[FAST], n_regions=0)


@pytest.mark.parametrize(
    "path, metaparameters",
    [
        *(row for name, row in SMALL.items() if not re.search("batch|grouped|_5|simple|padding|autoencoder", name)),
        *((path, once(path).METAPARAMETERS[name]) for path, name in (
            (INCEPTION_V3, "inception_v3"), (SQUEEZENET, "squeezenet_v1_0"), (SIAMESE, "siamese_omniglot"),
        )),
    ],
)
def test_the_smallest_image(path, metaparameters):
    """It is named; of that size the last feature maps are single pixels, and below it there is nothing."""
    with pytest.raises(ValueError, match="height and width must be at least") as error:
        build(once(path), metaparameters, (1, 300, 3), 10)
    smallest = int(re.search(r"at least (\d+), got \(1, 300\)$", str(error.value))[1])
    for size in ((smallest - 1, 300, 3), (300, smallest - 1, 3)):
        refused(path, f"height and width must be at least {smallest}, got", metaparameters, size)

    def last_maps(size):
        with without_numbers():
            model = build(once(path), metaparameters, (size, size, 3), 10)
        if path in DETECTORS:  # RoI pooling makes as many cells as it is told, so what it takes counts
            stem, learner, _ = stages_of_detector(model)
            return learner[2][:2] if path == RCNN else stem[2][:2]
        layers = model.get_layer("twin").layers if path == SIAMESE else model.layers
        return [layer.output.shape[1:3] for layer in layers if isinstance(layer, keras.layers.Identity)][-1]

    assert last_maps(smallest) == (1, 1)
    if path in (SQUEEZENET, SIAMESE, INCEPTION_V3):  # which do not pad
        module, names = once(path), inspect.signature(once(path).learner).parameters
        in_learner = {name: value for name, value in metaparameters.items() if name in names}
        inputs = keras.Input((smallest - 1, smallest - 1, 3))
        with pytest.raises(ValueError, match="Computed output size would be zero or negative"):
            module.learner(module.stem(inputs, **metaparameters.get("stem", {})), **in_learner)
    else:
        assert smallest & (smallest - 1) == 0 and last_maps(2 * smallest) == (2, 2)  # the product of all strides


def test_sizes_of_the_autoencoder():
    for size in ((30, 32, 3), (None, 36, 3), (0, 32, 3)):
        sentence = f"height and width must be divisible by 8, got {size[:2]}"
        refused(AUTOENCODER, re.escape(sentence), VALID[AUTOENCODER], size)


@pytest.mark.parametrize("path", [path for path in MODULES if path not in (VGG, SIAMESE, *DETECTORS)])
def test_images_of_any_size(path):
    with without_numbers():
        model = build(once(path), VALID[path], (None, None, 3), 10)
    assert model.input_shape == (None, None, None, 3)


@pytest.mark.parametrize("path", [VGG, SIAMESE, *DETECTORS])
def test_a_fixed_size_where_a_dense_layer_needs_it(path):
    refused(path, r"input_shape must be \(height, width, channels\), got \(None, 96, 3\)", VALID[path], (None, 96, 3))


@pytest.mark.parametrize("path", [INCEPTION_V1, INCEPTION_V3])
def test_auxiliary_classifiers(path):
    """They need a None, and feature maps of 5x5 pixels."""
    groups = {INCEPTION_V1: ((BLOCK,),), INCEPTION_V3: (A, C)}[path]
    refused(path, "auxiliary=True needs a None among the blocks", VALID[path] | {"groups": groups}, auxiliary=True)
    smallest = {INCEPTION_V1: 10, INCEPTION_V3: 21}[path]  # halved once; and once more to (21 / 2 rounded up - 1) / 2
    sentence = f"auxiliary=True needs a height and width of at least {smallest}, got"
    for size in ((smallest - 1, 300, 3), (300, None, 3)):
        refused(path, sentence, VALID[path], size, auxiliary=True)
    with without_numbers():
        build(once(path), VALID[path], (smallest, smallest, 3), 10, auxiliary=True)


def test_depths_of_cifar10_groups():
    module = once(BASIC)
    for depth in (20, 32, 44, 56, 110):
        assert module.METAPARAMETERS[f"resnet{depth}_cifar10"]["groups"] == module.cifar10_groups(depth)
    for depth in (21, 2, 0, -4, 20.0):
        with pytest.raises(ValueError, match=f"depth must be 6n [+] 2, such as 8, 14 or 20, got {depth}"):
            module.cifar10_groups(depth)

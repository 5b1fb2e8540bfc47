"""Metaparameters and arguments that cannot work are refused by name, with what is allowed."""

import inspect

import pytest
from folders import CLASSIFIERS, MODULES, load
from keras import Input, layers

VGG, V1, V2, BASIC = "vgg/vgg.py", "resnet/resnet_v1.py", "resnet/resnet_v2.py", "resnet/resnet_basic.py"
INCEPTION_V1, INCEPTION_V3 = "inception/inception_v1.py", "inception/inception_v3.py"
RESNEXT, DENSENET = "resnext/resnext.py", "densenet/densenet.py"
SE_RESNET, SE_RESNEXT = "senet/se_resnet.py", "senet/se_resnext.py"
SE_INCEPTION, SQUEEZENET = "senet/se_inception_v1.py", "squeezenet/squeezenet.py"
MULTILABEL = "multilabel/multilabel.py"
LAYERS = ({"n_layers": 2, "n_filters": 8},)
BLOCKS = ({"n_filters": 8, "n_blocks": 1},)
BLOCK = {"n_1x1": 8, "n_3x3_reduce": 4, "n_3x3": 8, "n_5x5_reduce": 4, "n_5x5": 8, "n_pool": 4}
GROUP_V3 = {
    "block": load(INCEPTION_V3).inception_block_b,
    "blocks": ({"n_filters": 8, "n_7x7": 4},),
    "auxiliary": load(INCEPTION_V3).auxiliary,
    "grid_reduction": load(INCEPTION_V3).grid_reduction_b,
    "grid_filters": {"n_filters": 4, "n_3x3": 8},
}
FIRE = {"n_squeeze": 4, "n_1x1": 8, "n_3x3": 8}
STEM_V3 = {"n_filters": 4, "n_filters_reduce": 8, "n_filters_out": 8, "strides": 1, "padding": "same", "pooling": False}
MINIMAL = {
    VGG: {"groups": LAYERS},
    V1: {"groups": BLOCKS},
    V2: {"groups": BLOCKS},
    BASIC: {"groups": BLOCKS},
    INCEPTION_V1: {"groups": ((BLOCK,),)},
    INCEPTION_V3: {"groups": (GROUP_V3,), "stem": STEM_V3},
    RESNEXT: {"groups": ({"n_filters": 8, "n_filters_out": 16, "n_blocks": 1},), "cardinality": 4},
    DENSENET: {"groups": ({"n_blocks": 1},), "growth_rate": 4},
    SE_RESNET: {"groups": BLOCKS},
    SE_RESNEXT: {"groups": ({"n_filters": 8, "n_filters_out": 16, "n_blocks": 1},), "cardinality": 4},
    SE_INCEPTION: {"groups": ((BLOCK,),)},
    SQUEEZENET: {"groups": ((FIRE,),)},
    MULTILABEL: {"groups": BLOCKS},
}
every_module = pytest.mark.parametrize("path", MINIMAL)
# the modules whose groups are dictionaries of numbers
BLOCKS_IN_GROUPS = (INCEPTION_V1, INCEPTION_V3, SE_INCEPTION, SQUEEZENET)
numbers_in_groups = pytest.mark.parametrize("path", [path for path in MINIMAL if path not in BLOCKS_IN_GROUPS])


def test_every_module_is_here():
    """Those that do not classify have tests of their own."""
    assert set(MINIMAL) == {path for path in MODULES if path.split("/")[0] in CLASSIFIERS} | {MULTILABEL}


@pytest.mark.parametrize(
    "path, n_classes",
    [(path, n) for path in MINIMAL for n in (1, 0, -3, "10", 2.5, None) if n is not None or path != MULTILABEL],
)  # None is the three groups of multilabel.py
def test_n_classes_that_cannot_be(path, n_classes):
    with pytest.raises(ValueError, match=f"n_classes must be a whole number of at least 2, got {n_classes!r}"):
        load(path).build(MINIMAL[path], (32, 32, 3), n_classes)


@every_module
@pytest.mark.parametrize("given", ["vgg17", None, {}, {"group": LAYERS}, [1, 2]])
def test_not_metaparameters(path, given):
    with pytest.raises(ValueError, match="metaparameters must be a dictionary of groups"):
        load(path).build(given, (32, 32, 3), 10)


@every_module
def test_unknown_name(path):
    with pytest.raises(ValueError, match="'depth': 20"):
        load(path).build(MINIMAL[path] | {"depth": 20}, (32, 32, 3), 10)


@numbers_in_groups
@pytest.mark.parametrize(
    "group", [{}, {"n_filters": 8}, {"n_layers": 2, "n_blocks": 2}, {"n_filters": 8, "n_blocks": 1, "n_layers": 1}, "a"]
)
def test_group_with_other_names(path, group):
    with pytest.raises(ValueError, match="metaparameters must be a dictionary of n_"):
        load(path).build(MINIMAL[path] | {"groups": (group,)}, (32, 32, 3), 10)


@every_module
@pytest.mark.parametrize("groups", [(), [], {}, {"n_filters": 8}, None, 0, 3, 1.5, "abc"])
def test_groups_that_are_no_tuple(path, groups):
    with pytest.raises(ValueError, match="groups must be a tuple of at least one group, got"):
        load(path).build(MINIMAL[path] | {"groups": groups}, (32, 32, 3), 10)


@numbers_in_groups
@pytest.mark.parametrize("number", [0, -1, 1.5, "two", (1, 2), None])
def test_group_with_numbers_that_cannot_be(path, number):
    (group,) = MINIMAL[path]["groups"]
    for name in group:
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1"):
            load(path).build(MINIMAL[path] | {"groups": (group | {name: number},)}, (32, 32, 3), 10)


@pytest.mark.parametrize(
    "path, n_groups, size",
    [
        (VGG, 3, 7), (VGG, 5, 16), (V1, 4, 16), (V2, 4, 16), (BASIC, 4, 16), (BASIC, 4, 1), (RESNEXT, 4, 16),
        (DENSENET, 4, 16), (INCEPTION_V1, 3, 16), (INCEPTION_V1, 1, 4), (INCEPTION_V3, 1, 4),
        (INCEPTION_V3, 3, 20), (SE_RESNET, 4, 16), (SE_RESNEXT, 4, 16), (SE_INCEPTION, 3, 16), (SQUEEZENET, 1, 6),
        (SQUEEZENET, 3, 16), (SQUEEZENET, 1, 8), (MULTILABEL, 4, 16),
    ],
)
def test_input_too_small_for_the_strides(path, n_groups, size):
    with pytest.raises(ValueError, match="the input is too small"):
        load(path).build(MINIMAL[path] | {"groups": MINIMAL[path]["groups"] * n_groups}, (size, 64, 3), 10)


@every_module
@pytest.mark.parametrize(
    "input_shape", [(32, 32), (32,), (0, 32, 3), (32, 32, 0), (32, 32, None), (-32, 32, 3), "32x32", 32, None]
)
def test_input_shape_that_cannot_be(path, input_shape):
    with pytest.raises(ValueError):
        load(path).build(MINIMAL[path], input_shape, 10)


@pytest.mark.parametrize("depth", [21, 2, 0, -4, 19, 20.0])
def test_depth_that_is_not_6n_plus_2(depth):
    with pytest.raises(ValueError, match=f"depth must be 6n [+] 2, .* got {depth}"):
        load(BASIC).cifar10_groups(depth)


def test_depths_of_the_paper():
    module = load(BASIC)
    for depth in (20, 32, 44, 56, 110):
        assert module.METAPARAMETERS[f"resnet{depth}_cifar10"]["groups"] == module.cifar10_groups(depth)


@pytest.mark.parametrize("shortcut", ["identity", "", None, "A"])
def test_unknown_shortcut(shortcut):
    with pytest.raises(ValueError, match='shortcut must be "projection"'):  # though no block changes the shape
        load(BASIC).build({"groups": ({"n_filters": 64, "n_blocks": 1},), "shortcut": shortcut}, (32, 32, 3), 10)
    with pytest.raises(ValueError, match='shortcut must be "projection"'):
        load(BASIC).projection_block(Input((8, 8, 16)), 32, shortcut=shortcut)


def test_zero_padding_to_fewer_channels():
    with pytest.raises(ValueError, match="from 16 to 8"):
        load(BASIC).projection_block(Input((8, 8, 16)), 8, shortcut="zero_padding")


@pytest.mark.parametrize("convolution", ["5x5", "", 3])
def test_unknown_strided_convolution(convolution):
    with pytest.raises(ValueError, match='strided_convolution must be "1x1" or "3x3"'):
        load(V1).build({"groups": BLOCKS, "strided_convolution": convolution}, (32, 32, 3), 10)


with_stem = pytest.mark.parametrize("path", [path for path in MINIMAL if path not in (VGG, V1)])


@with_stem
def test_unknown_name_in_the_stem(path):
    with pytest.raises(ValueError, match="dictionary of n_filters, .*strides"):
        load(path).build(MINIMAL[path] | {"stem": {"filters": 16}}, (32, 32, 3), 10)


@with_stem
@pytest.mark.parametrize("number", [0, -1, 1.5, "two", (7, 7), None])
def test_stem_with_numbers_that_cannot_be(path, number):
    names = {"n_filters", "n_filters_reduce", "n_filters_out", "kernel_size", "strides"}
    for name in names & set(inspect.signature(load(path).stem).parameters):
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1"):
            load(path).build(MINIMAL[path] | {"stem": {name: number}}, (96, 96, 3), 10)


@pytest.mark.parametrize("padding", ["causal", "", None, 1])
def test_padding_of_the_stem_of_inception_v3(padding):
    with pytest.raises(ValueError, match='padding must be "valid" or "same", got'):
        load(INCEPTION_V3).build(MINIMAL[INCEPTION_V3] | {"stem": {"padding": padding}}, (96, 96, 3), 10)


@pytest.mark.parametrize("blocks", [(), (None,), (None, BLOCK), BLOCK, None, 3, "abc"])
def test_group_of_inception_v1_that_does_not_begin_with_a_block(blocks):
    with pytest.raises(ValueError, match="a group must be a tuple of blocks of which the first is not None"):
        load(INCEPTION_V1).build({"groups": (blocks,)}, (64, 64, 3), 10)


@pytest.mark.parametrize("blocks", [(), BLOCK, FIRE, None, 3, "abc"])
def test_group_that_is_no_tuple_of_blocks(blocks):
    for path in (SE_INCEPTION, SQUEEZENET):
        with pytest.raises(ValueError, match="a group must be a tuple of|metaparameters must be a dictionary"):
            load(path).build({"groups": (blocks,)}, (64, 64, 3), 10)
    with pytest.raises(ValueError, match="None, an auxiliary classifier in inception_v1.py, is no block here"):
        load(SE_INCEPTION).build({"groups": ((BLOCK, None),)}, (64, 64, 3), 10)


@pytest.mark.parametrize(
    "path, block, name",
    [(path, BLOCK, name) for path in (INCEPTION_V1, SE_INCEPTION) for name in BLOCK]
    + [(SQUEEZENET, FIRE, name) for name in FIRE],
)
def test_block_with_other_names_or_numbers_that_cannot_be(path, block, name):
    for wrong in ({k: v for k, v in block.items() if k != name}, block | {name + "_": 4}, 8):
        with pytest.raises(ValueError, match="metaparameters must be a dictionary of n_"):
            load(path).build({"groups": ((block, wrong),)}, (64, 64, 3), 10)
    for number in (0, 1.5, None):
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got {number}"):
            load(path).build({"groups": ((block | {name: number},),)}, (64, 64, 3), 10)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"block": "inception_block_b"}, "block must be a function, got 'inception_block_b'"),
        ({"block": None}, "block must be a function, got None"),
        ({"auxiliary": None}, "auxiliary must be a function, got None"),
        ({"auxiliary": True}, "auxiliary must be a function, got True"),
        ({"grid_reduction": "grid_reduction_b"}, "grid_reduction must be a function"),
        ({"blocks": ()}, "blocks must be a tuple of dictionaries"),
        ({"blocks": {"n_filters": 8, "n_7x7": 4}}, "blocks must be a tuple of dictionaries"),
        ({"blocks": None}, "blocks must be a tuple of dictionaries"),
        ({"blocks": ({"n_filters": 8},)}, "inception_block_b cannot be called with {'n_filters': 8}: missing .*n_7x7"),
        ({"blocks": ({"n_filters": 8, "n_7x7": 4, "n_5x5": 4},)}, "inception_block_b cannot be called with .*'n_5x5'"),
        ({"blocks": (8,)}, "inception_block_b cannot be called with 8"),
        ({"blocks": ({"n_filters": 8, "n_7x7": 0},)}, "n_7x7 must be a whole number of at least 1, got 0"),
        ({"grid_filters": None}, "grid_reduction_b cannot be called with None"),
        ({"grid_filters": {"n_filters": 8, "n_3x3": 1.5}}, "n_3x3 must be a whole number of at least 1, got 1.5"),
        ({"reduction": 0.5}, "metaparameters must be a dictionary of block, blocks"),
    ],
)
def test_group_of_inception_v3(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        load(INCEPTION_V3).build({"groups": (GROUP_V3 | change,), "stem": STEM_V3}, (32, 32, 3), 10)


@pytest.mark.parametrize("name", ["grid_reduction", "grid_filters"])
def test_half_a_grid_reduction_of_inception_v3(name):
    group = {key: value for key, value in GROUP_V3.items() if key != name}
    with pytest.raises(ValueError, match="grid_reduction and grid_filters go together"):
        load(INCEPTION_V3).build({"groups": (group,), "stem": STEM_V3}, (32, 32, 3), 10)


def test_functions_of_ones_own_in_inception_v3():
    """With options that are no numbers and defaults that may stay."""
    def block(x, n_filters, activation="relu", scale=1.0):
        return layers.Conv2D(n_filters, 3, padding="same", activation=activation)(x)

    group = {"block": block, "blocks": ({"n_filters": 5}, {"n_filters": 6, "activation": "tanh", "scale": 0.5})}
    model = load(INCEPTION_V3).build({"groups": (group,), "stem": STEM_V3}, (32, 32, 3), 10)
    assert [layer.filters for layer in model.layers if isinstance(layer, layers.Conv2D)][-2:] == [5, 6]


@pytest.mark.parametrize("path", [INCEPTION_V1, INCEPTION_V3])
def test_auxiliary_classifiers_where_there_are_none(path):
    metaparameters = MINIMAL[path]
    if path == INCEPTION_V3:
        (group,) = metaparameters["groups"]
        group = {name: value for name, value in group.items() if name != "auxiliary"}
        metaparameters = metaparameters | {"groups": (group,)}
    with pytest.raises(ValueError, match="auxiliary=True needs"):
        load(path).build(metaparameters, (64, 64, 3), 10, auxiliary=True)


@pytest.mark.parametrize("path", [INCEPTION_V1, INCEPTION_V3])
@pytest.mark.parametrize("n_classes", [1, 0, "10", None, 2.5])
def test_n_classes_that_cannot_be_of_an_auxiliary_classifier(path, n_classes):
    metaparameters = MINIMAL[path] if path == INCEPTION_V3 else {"groups": ((BLOCK, None),)}
    with pytest.raises(ValueError, match=f"n_classes must be a whole number of at least 2, got {n_classes!r}"):
        load(path).build(metaparameters, (64, 64, 3), n_classes, auxiliary=True)


@pytest.mark.parametrize("path", [INCEPTION_V1, INCEPTION_V3])
@pytest.mark.parametrize("size", [16, None])
def test_auxiliary_classifier_of_too_small_feature_maps(path, size):
    metaparameters = MINIMAL[path] if path == INCEPTION_V3 else {"groups": ((BLOCK, None, BLOCK),)}
    input_shape = (size and size // 2, size, 3)
    with pytest.raises(ValueError, match="an auxiliary classifier needs feature maps of at least 5x5"):
        load(path).build(metaparameters, input_shape, 10, auxiliary=True)


@pytest.mark.parametrize("path", [SE_RESNET, SE_RESNEXT, SE_INCEPTION])
@pytest.mark.parametrize("ratio", [0, -16, 1.5, "16", None, 64])
def test_ratio_that_cannot_be(path, ratio):
    with pytest.raises(ValueError, match=f"ratio must be 1 to .* and whole, got {ratio!r}"):
        load(path).build(MINIMAL[path] | {"ratio": ratio}, (32, 32, 3), 10)
    with pytest.raises(ValueError, match="ratio must be 1 to 28, the number of feature maps, and whole, got"):
        load(path).se_block(Input((8, 8, 28)), ratio)


@pytest.mark.parametrize("bypass", ["identity", "", 0, True, ()])
def test_unknown_bypass(bypass):
    with pytest.raises(ValueError, match='bypass must be None, "simple" or "complex", got'):
        load(SQUEEZENET).build(MINIMAL[SQUEEZENET] | {"bypass": bypass}, (32, 32, 3), 10)


@pytest.mark.parametrize("path", [RESNEXT, SE_RESNEXT])
@pytest.mark.parametrize("cardinality", [3, 5, 16])
def test_filters_not_divisible_by_the_cardinality(path, cardinality):
    for convolution in ("split_transform_merge", "grouped_convolution"):
        metaparameters = MINIMAL[path] | {"cardinality": cardinality, "convolution": convolution}
        with pytest.raises(ValueError, match=f"n_filters must be divisible by the cardinality {cardinality}, got 8"):
            load(path).build(metaparameters, (32, 32, 3), 10)
        with pytest.raises(ValueError, match="divisible by the cardinality"):  # the function alone
            getattr(load(RESNEXT), convolution)(Input((8, 8, 8)), cardinality)


@pytest.mark.parametrize(
    "path, name", [(RESNEXT, "cardinality"), (SE_RESNEXT, "cardinality"), (DENSENET, "growth_rate")]
)
@pytest.mark.parametrize("number", [0, -4, 1.5, "4", None])
def test_cardinality_and_growth_rate_that_cannot_be(path, name, number):
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got {number!r}"):
        load(path).build(MINIMAL[path] | {name: number}, (32, 32, 3), 10)
    if name == "cardinality":
        with pytest.raises(ValueError, match="cardinality must be a whole number of at least 1"):
            load(path).identity_block(Input((8, 8, 8)), 8, number)


@pytest.mark.parametrize("path", [RESNEXT, SE_RESNEXT])
@pytest.mark.parametrize("convolution", ["depthwise", "", None, 3])
def test_unknown_form_of_the_grouped_convolution(path, convolution):
    with pytest.raises(ValueError, match='convolution must be "split_transform_merge" or "grouped_convolution", got'):
        load(path).build(MINIMAL[path] | {"convolution": convolution}, (32, 32, 3), 10)


@pytest.mark.parametrize("reduction", [0, -0.5, 1.01, 2, 0.01, "half", None, (0.5,)])
def test_reduction_that_is_no_share(reduction):
    metaparameters = MINIMAL[DENSENET] | {"groups": 2 * ({"n_blocks": 1},), "reduction": reduction}
    with pytest.raises(ValueError, match="reduction must be above 0, at most 1 and leave a feature map, got"):
        load(DENSENET).build(metaparameters, (32, 32, 3), 10)
    with pytest.raises(ValueError, match="reduction must be above 0, at most 1 and leave a feature map, got"):
        load(DENSENET).trans_block(Input((8, 8, 16)), reduction)


@pytest.mark.parametrize("n_units", [512, None, "512"])
def test_units_that_are_no_tuple(n_units):
    with pytest.raises(ValueError, match="n_units must be a tuple"):
        load(VGG).build({"groups": LAYERS, "n_units": n_units}, (32, 32, 3), 10)


@pytest.mark.parametrize("dropout", [-0.1, 1.5])
def test_dropout_that_is_no_share(dropout):
    with pytest.raises(ValueError):
        load(VGG).build({"groups": LAYERS, "n_units": (8,), "dropout": dropout}, (32, 32, 3), 10)


@pytest.mark.parametrize("dropout", [-0.1, 1.5, None, "half", (0.5,)])
def test_dropout_of_squeezenet_that_is_no_share(dropout):
    with pytest.raises(ValueError, match="dropout must be a number of 0 to 1, got"):
        load(SQUEEZENET).build(MINIMAL[SQUEEZENET] | {"dropout": dropout}, (32, 32, 3), 10)


@pytest.mark.parametrize("bottleneck", ["False", "basic", None, 0])
def test_bottleneck_that_is_neither(bottleneck):
    with pytest.raises(ValueError, match=f"bottleneck must be True or False, got {bottleneck!r}"):
        load(SE_RESNET).build(MINIMAL[SE_RESNET] | {"bottleneck": bottleneck}, (32, 32, 3), 10)


def test_vgg_needs_a_fixed_size():
    with pytest.raises(ValueError):
        load(VGG).build({"groups": LAYERS}, (None, None, 3), 10)


@pytest.mark.parametrize("path", [path for path in MINIMAL if path != VGG])
def test_the_others_take_any_size(path):
    metaparameters = MINIMAL[path] | {"groups": MINIMAL[path]["groups"] * 2}
    assert load(path).build(metaparameters, (None, None, 3), 10).output_shape == (None, 10)

"""Metaparameters and arguments that cannot work are refused by name, with what is allowed."""

import pytest
from folders import load
from keras import Input

VGG, V1, V2, BASIC = "vgg/vgg.py", "resnet/resnet_v1.py", "resnet/resnet_v2.py", "resnet/resnet_basic.py"
LAYERS = ({"n_layers": 2, "n_filters": 8},)
BLOCKS = ({"n_filters": 8, "n_blocks": 1},)
GROUPS = {VGG: LAYERS, V1: BLOCKS, V2: BLOCKS, BASIC: BLOCKS}
every_module = pytest.mark.parametrize("path", GROUPS)


@every_module
@pytest.mark.parametrize("n_classes", [1, 0, -3, "10", None, 2.5])
def test_n_classes_that_cannot_be(path, n_classes):
    with pytest.raises(ValueError, match=f"n_classes must be a whole number of at least 2, got {n_classes!r}"):
        load(path).build({"groups": GROUPS[path]}, (32, 32, 3), n_classes)


@every_module
@pytest.mark.parametrize("given", ["vgg17", None, {}, {"group": LAYERS}, [1, 2]])
def test_not_metaparameters(path, given):
    with pytest.raises(ValueError, match="metaparameters must be a dictionary of groups"):
        load(path).build(given, (32, 32, 3), 10)


@every_module
def test_unknown_name(path):
    with pytest.raises(ValueError, match="'depth': 20"):
        load(path).build({"groups": GROUPS[path], "depth": 20}, (32, 32, 3), 10)


@every_module
@pytest.mark.parametrize(
    "group", [{}, {"n_filters": 8}, {"n_layers": 2, "n_blocks": 2}, {"n_filters": 8, "n_blocks": 1, "n_layers": 1}, "a"]
)
def test_group_with_other_names(path, group):
    with pytest.raises(ValueError, match="metaparameters must be a dictionary of n_"):
        load(path).build({"groups": (group,)}, (32, 32, 3), 10)


@every_module
@pytest.mark.parametrize("groups", [(), [], {}, {"n_filters": 8}, None, 0, 3, 1.5, "abc"])
def test_groups_that_are_no_tuple(path, groups):
    with pytest.raises(ValueError, match="groups must be a tuple of at least one group, got"):
        load(path).build({"groups": groups}, (32, 32, 3), 10)


@every_module
@pytest.mark.parametrize("number", [0, -1, 1.5, "two", (1, 2), None])
def test_group_with_numbers_that_cannot_be(path, number):
    for name in GROUPS[path][0]:
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1"):
            load(path).build({"groups": (GROUPS[path][0] | {name: number},)}, (32, 32, 3), 10)


@pytest.mark.parametrize(
    "path, n_groups, size", [(VGG, 3, 7), (VGG, 5, 16), (V1, 4, 16), (V2, 4, 16), (BASIC, 4, 16), (BASIC, 4, 1)]
)
def test_input_too_small_for_the_strides(path, n_groups, size):
    with pytest.raises(ValueError, match="the input is too small"):
        load(path).build({"groups": GROUPS[path] * n_groups}, (size, 64, 3), 10)


@every_module
@pytest.mark.parametrize(
    "input_shape", [(32, 32), (32,), (0, 32, 3), (32, 32, 0), (32, 32, None), (-32, 32, 3), "32x32"]
)
def test_input_shape_that_cannot_be(path, input_shape):
    with pytest.raises(ValueError):
        load(path).build({"groups": GROUPS[path]}, input_shape, 10)


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


@pytest.mark.parametrize("path", [V2, BASIC])
def test_unknown_name_in_the_stem(path):
    with pytest.raises(ValueError, match="dictionary of n_filters, kernel_size, strides, pooling"):
        load(path).build({"groups": BLOCKS, "stem": {"filters": 16}}, (32, 32, 3), 10)


@pytest.mark.parametrize("n_units", [512, None, "512"])
def test_units_that_are_no_tuple(n_units):
    with pytest.raises(ValueError, match="n_units must be a tuple"):
        load(VGG).build({"groups": LAYERS, "n_units": n_units}, (32, 32, 3), 10)


@pytest.mark.parametrize("dropout", [-0.1, 1.5])
def test_dropout_that_is_no_share(dropout):
    with pytest.raises(ValueError):
        load(VGG).build({"groups": LAYERS, "n_units": (8,), "dropout": dropout}, (32, 32, 3), 10)


def test_vgg_needs_a_fixed_size():
    with pytest.raises(ValueError):
        load(VGG).build({"groups": LAYERS}, (None, None, 3), 10)


@pytest.mark.parametrize("path", [V1, V2, BASIC])
def test_resnets_take_any_size(path):
    assert load(path).build({"groups": BLOCKS * 2}, (None, None, 3), 10).output_shape == (None, 10)

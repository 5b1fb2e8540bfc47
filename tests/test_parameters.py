"""The trainable parameters of every network, against figures that were counted elsewhere.

Those of torchvision and of osmr/imgclsmob are asserted there too; where neither has a network, the sum is written out.
"""

import math

import keras
import pytest
from folders import MODULES, load

IMAGENET, CIFAR10 = ((224, 224, 3), 1000), ((32, 32, 3), 10)

# A 3x3 convolution with bias and batch normalization has 9 c_in c_out + 3 c_out parameters.
VGG8 = sum(9 * a * b + 3 * b for a, b in ((3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)))
VGG8 += (4 * 4 * 128 + 1) * 128 + (128 + 1) * 10
# Without bias 9 c_in c_out + 2 c_out, and a 1x1 convolution as shortcut c_in c_out + 2 c_out.
SHORTCUTS = sum(a * b + 2 * b for a, b in ((32, 64), (64, 128)))
WIDE = sum(9 * a * b + 2 * b for a, b in ((3, 32), (32, 64), (64, 128)))  # the stem and what changes the width
WIDE += sum(n * (9 * c * c + 2 * c) for c, n in ((32, 4), (64, 3), (128, 3))) + SHORTCUTS + (128 + 1) * 10

PARAMETERS = {
    # torchvision/models/vgg.py, num_params; the _bn networks keep the biases
    "vgg11": (132_863_336, *IMAGENET),
    "vgg13": (133_047_848, *IMAGENET),
    "vgg16": (138_357_544, *IMAGENET),
    "vgg19": (143_667_240, *IMAGENET),
    "vgg11_bn": (132_868_840, *IMAGENET),
    "vgg13_bn": (133_053_736, *IMAGENET),
    "vgg16_bn": (138_365_992, *IMAGENET),
    "vgg19_bn": (143_678_248, *IMAGENET),
    # no published figure: the convolutions of vgg16_bn and a dense layer of 512 inputs; and the sum above
    "vgg16_cifar10": (14_714_688 + 2 * 4_224 + (512 + 1) * 10, *CIFAR10),
    "vgg8_cifar10": (VGG8, *CIFAR10),
    # torchvision/models/resnet.py, num_params; version 1 and 1.5 have the same
    "resnet18": (11_689_512, *IMAGENET),
    "resnet34": (21_797_672, *IMAGENET),
    "resnet50": (25_557_032, *IMAGENET),
    "resnet101": (44_549_160, *IMAGENET),
    "resnet152": (60_192_808, *IMAGENET),
    "resnet50_v1_5": (25_557_032, *IMAGENET),
    "resnet101_v1_5": (44_549_160, *IMAGENET),
    "resnet152_v1_5": (60_192_808, *IMAGENET),
    # osmr/imgclsmob: the paper's layout, without biases
    "resnet50_v2": (25_549_480, *IMAGENET),
    "resnet101_v2": (44_541_608, *IMAGENET),
    "resnet152_v2": (60_185_256, *IMAGENET),
    "resnet200_v2": (64_666_280, *IMAGENET),
    "resnet164_v2_cifar10": (1_703_258, *CIFAR10),
    "resnet1001_v2_cifar10": (10_327_706, *CIFAR10),
    # osmr/imgclsmob (20, 56, 110); counted layer by layer (32, 44)
    "resnet14_wide_cifar10": (WIDE, *CIFAR10),
    "resnet20_cifar10": (272_474, *CIFAR10),
    "resnet32_cifar10": (466_906, *CIFAR10),
    "resnet44_cifar10": (661_338, *CIFAR10),
    "resnet56_cifar10": (855_770, *CIFAR10),
    "resnet110_cifar10": (1_730_714, *CIFAR10),
}
# The CIFAR-10 networks of the paper, whose shortcuts have no parameters.
ZERO_PADDING = {
    "resnet14_wide_cifar10": WIDE - SHORTCUTS,
    "resnet20_cifar10": 269_722,
    "resnet32_cifar10": 464_154,
    "resnet44_cifar10": 658_586,
    "resnet56_cifar10": 853_018,
    "resnet110_cifar10": 1_727_962,
}
NAMES = {name: path for path in MODULES for name in load(path).METAPARAMETERS}


def test_no_network_is_missing():
    assert set(NAMES) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    expected, input_shape, n_classes = PARAMETERS[name]
    module = load(NAMES[name])
    assert count(module, module.METAPARAMETERS[name], input_shape, n_classes) == expected
    header = module.__doc__.replace("\n", " ")
    assert f"{expected:,}" in header  # what the reader is told


@pytest.mark.parametrize("name", ZERO_PADDING)
def test_parameters_with_zero_padding(name):
    module = load(NAMES[name])
    metaparameters = module.METAPARAMETERS[name] | {"shortcut": "zero_padding"}
    assert count(module, metaparameters, *CIFAR10) == ZERO_PADDING[name]
    assert f"{ZERO_PADDING[name]:,}" in module.__doc__


def count(module, metaparameters, input_shape, n_classes):
    """Build the whole graph and count; only the numbers in its variables, a minute of random ones, are left out."""
    with keras.StatelessScope(initialize_variables=False):
        model = module.build(metaparameters, input_shape, n_classes)
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)

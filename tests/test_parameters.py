"""The trainable parameters of every network, against figures that were counted elsewhere.

Those of torchvision and of osmr/imgclsmob are asserted there too; where neither has a network, the sum is written out.
"""

import math
import re
import sys

import pytest
from folders import MODULES, without_numbers
from keras import Model
from networks import once, whole

IMAGENET, INCEPTION_V3, CIFAR10 = ((224, 224, 3), 1000), ((299, 299, 3), 1000), ((32, 32, 3), 10)
SQUEEZENET = ((227, 227, 3), 1000)

# A 3x3 convolution with bias and batch normalization has 9 c_in c_out + 3 c_out parameters.
VGG8 = ((3, 48), (48, 96), (96, 96), (96, 192), (192, 192), (192, 192), (192, 192))
VGG8 = sum(9 * a * b + 3 * b for a, b in VGG8) + (2 * 2 * 192 + 1) * 10
FC6 = (4 * 4 * 192 + 1) * 256 + 2 * 256  # with batch normalization
RCNN_STEM = sum(9 * a * b + 3 * b for a, b in ((3, 32), (32, 32), (32, 96), (96, 96), (96, 192), (192, 192)))
RPN = (9 * 192 + 1) * 128 + 3 * (2 + 4) * (128 + 1)  # with three anchors


def wide(a, b, c, n):
    """A ResNet of n blocks in each group of a, b and c filters, and the part of its shortcuts.

    Without bias 9 c_in c_out + 2 c_out, and a 1x1 convolution as shortcut c_in c_out + 2 c_out.
    """
    shortcuts = a * b + 2 * b + b * c + 2 * c
    widening = sum(9 * i * o + 2 * o for i, o in ((3, a), (a, b), (b, c)))  # the stem and what changes the width
    others = sum(m * (9 * f * f + 2 * f) for f, m in ((a, 2 * n), (b, 2 * n - 1), (c, 2 * n - 1)))
    return widening + others + shortcuts + (c + 1) * 10, shortcuts


WIDE, SHORTCUTS = wide(48, 96, 192, 2)
WIDE8, SHORTCUTS8 = wide(32, 64, 128, 1)


def convolution(c_in, c_out, area=1):
    """Weights of a convolution without bias and of its batch normalization."""
    return area * c_in * c_out + 2 * c_out


def inception_v1_parts(divisor):
    """GoogLeNet with batch normalization, the widths of the paper's table 1 divided: (all parameters, of the heads)."""
    rows = [  # 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool
        (64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64), (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128),
        (256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128),
    ]
    first = 64 // divisor
    c, n_classes, stem_area, head_map = 3 * first, *((1000, 49, 4 * 4) if divisor == 1 else (10, 9, 2 * 2))
    total, heads = convolution(3, first, stem_area) + convolution(first, first) + convolution(first, c, 9), 0
    for number, row in enumerate(rows):
        if divisor > 1 and number in (0, 3):  # 3a and 4b, which the network for CIFAR-10 does not have
            continue
        n_1x1, n_3x3_reduce, n_3x3, n_5x5_reduce, n_5x5, n_pool = (n // divisor for n in row)
        total += sum(convolution(c, n) for n in (n_1x1, n_3x3_reduce, n_5x5_reduce, n_pool))
        total += convolution(n_3x3_reduce, n_3x3, 9) + convolution(n_5x5_reduce, n_5x5, 25)
        c = n_1x1 + n_3x3 + n_5x5 + n_pool
        if number in (2, 5):  # 4a and 4d
            heads += convolution(c, 128) + (head_map * 128 + 1) * 1024 + 1025 * n_classes
    return total + (c + 1) * n_classes, heads


def inception_v3_parts(divisor):
    """Inception v3 of the released code, its widths divided: (all parameters, of the auxiliary classifier)."""
    def n(width):
        return width // divisor

    def block_a(c, pool):
        branches = convolution(c, n(64)) + convolution(c, n(48)) + convolution(n(48), n(64), 25) + convolution(c, n(64))
        return branches + convolution(n(64), n(96), 9) + convolution(n(96), n(96), 9) + convolution(c, n(pool))

    def block_b(m):
        from_input = 2 * convolution(n(768), n(192)) + 2 * convolution(n(768), n(m))
        return from_input + 4 * convolution(n(m), n(m), 7) + 2 * convolution(n(m), n(192), 7)

    def block_c(c):
        split = 4 * convolution(n(384), n(384), 3) + convolution(n(448), n(384), 9)
        return split + sum(convolution(c, n(width)) for width in (320, 384, 448, 192))

    n_classes = 1000 if divisor == 1 else 10
    total = sum(convolution(a, b, 9) for a, b in ((3, n(32)), (n(32), n(32)), (n(32), n(64)), (n(80), n(192))))
    total += convolution(n(64), n(80)) + block_a(n(192), 32) + block_a(n(256), 64) + block_a(n(288), 64)
    total += convolution(n(288), n(384), 9) + convolution(n(288), n(64))  # grid reduction A
    total += convolution(n(64), n(96), 9) + convolution(n(96), n(96), 9)
    total += sum(block_b(m) for m in (128, 160, 160, 192))
    total += 2 * convolution(n(768), n(192)) + convolution(n(192), n(320), 9)  # grid reduction B
    total += 2 * convolution(n(192), n(192), 7) + convolution(n(192), n(192), 9)
    total += block_c(n(1280)) + block_c(n(2048)) + (n(2048) + 1) * n_classes
    # at 17x17 the pooling leaves 5x5, at 7x7 a single value
    head = convolution(n(768), 128) + convolution(128, 768, 25 if divisor == 1 else 1) + 769 * n_classes
    return total, head


# Stem; for each group its projection block, an identity block; the grouped convolution sees a share of the filters.
RESNEXT20 = convolution(3, 32, 9) + 257 * 10
for c, n, n_out in ((32, 32, 64), (64, 64, 128), (128, 128, 256)):
    RESNEXT20 += convolution(c, n_out) + convolution(c, n) + convolution(n_out, n)
    RESNEXT20 += 2 * convolution(n // 4, n, 9) + 2 * convolution(n, n_out)

# Normalization comes before convolution: 2 c + 9 c k in a block, 2 c + c c / 2 in a transition.
DENSENET16 = 9 * 3 * 16 + 2 * 16
c = 16
for n_group in range(3):
    for _ in range(4):
        DENSENET16 += 2 * c + 9 * c * 24
        c += 24
    if n_group < 2:
        DENSENET16 += 2 * c + c * (c // 2)
        c //= 2
DENSENET16 += 2 * c + (c + 1) * 10


def squeeze_excitation(c, ratio=16):
    """Two dense layers with biases."""
    return 2 * c * (c // ratio) + c // ratio + c


# Five convolutions, then a dense layer of 4x4x128 inputs.
SIAMESE_TWIN = sum(convolution(a, b, 9) for a, b in ((3, 32), (32, 64), (64, 64), (64, 128), (128, 128)))
SIAMESE_TWIN += (4 * 4 * 128 + 1) * 256


def autoencoder(first, second, code):
    """Three convolutions, and their filters in reverse; the last of each has biases and no normalization."""
    encoder = convolution(3, first, 9) + convolution(first, second, 9) + (9 * second + 1) * code
    return encoder + convolution(code, code, 9) + convolution(code, second, 9) + (9 * second + 1) * 3


SQUEEZENET_CIFAR10 = 1_235_496 - 990 * (512 + 1)
# Batch normalization has two parameters a filter in place of a bias: the stem, then squeeze and expand.
FIRE_FILTERS = 64 + sum(2 * (s + e) for s, e in ((16, 128), (32, 256), (48, 384), (64, 512)))

# Two blocks a group.
NARROWER = wide(32, 64, 128, 2)[0]  # the ResNet in senet and multilabel
SE_WIDE = NARROWER + 2 * sum(squeeze_excitation(c) for c in (32, 64, 128))

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
    "resnet50_v2": (25_549_352, *IMAGENET),
    "resnet101_v2": (44_541_480, *IMAGENET),
    "resnet152_v2": (60_185_128, *IMAGENET),
    "resnet200_v2": (64_666_152, *IMAGENET),
    "resnet164_v2_cifar10": (1_703_258, *CIFAR10),
    "resnet1001_v2_cifar10": (10_327_706, *CIFAR10),
    # osmr/imgclsmob (20, 56, 110); counted layer by layer (32, 44)
    "resnet14_wide_cifar10": (WIDE, *CIFAR10),
    "resnet8_wide_cifar10": (WIDE8, *CIFAR10),
    "resnet20_cifar10": (272_474, *CIFAR10),
    "resnet32_cifar10": (466_906, *CIFAR10),
    "resnet44_cifar10": (661_338, *CIFAR10),
    "resnet56_cifar10": (855_770, *CIFAR10),
    "resnet110_cifar10": (1_730_714, *CIFAR10),
    "resnet1202_cifar10": (19_424_026, *CIFAR10),
    # the same without projections
    "plain18": (11_515_688, *IMAGENET),
    "plain34": (21_623_848, *IMAGENET),
    "plain20_cifar10": (269_722, *CIFAR10),
    "plain56_cifar10": (853_018, *CIFAR10),
    # timm (18, 34); counted layer by layer
    "resnet18_v2": (11_687_720, *IMAGENET),
    "resnet34_v2": (21_795_880, *IMAGENET),
    "resnet20_v2_cifar10": (272_282, *CIFAR10),
    "resnet56_v2_cifar10": (855_578, *CIFAR10),
    "resnet110_v2_cifar10": (1_730_522, *CIFAR10),
    # BVLC/caffe models/bvlc_googlenet; with batch normalization counted layer by layer, as is the sum above
    "inception_v1": (6_998_552, *IMAGENET),
    "inception_v1_bn": (7_005_832, *IMAGENET),
    "inception_v1_cifar10": (inception_v1_parts(4)[0], *CIFAR10),
    # osmr/imgclsmob's bninception without its biases; the sum is in test_inception_v2.py
    "inception_v2": (11_285_224, *IMAGENET),
    "inception_v2_cifar10": (590_618, *CIFAR10),
    # osmr/imgclsmob, and torchvision without its auxiliary classifier
    "inception_v3": (23_834_568, *INCEPTION_V3),
    "inception_v3_cifar10": (inception_v3_parts(4)[0], *CIFAR10),
    # torchvision/models/resnet.py, num_params (50, 101_32x8d, 101_64x4d); osmr/imgclsmob (101_32x4d and for CIFAR-10)
    "resnext50_32x4d": (25_028_904, *IMAGENET),
    "resnext101_32x4d": (44_177_704, *IMAGENET),
    "resnext101_32x8d": (88_791_336, *IMAGENET),
    "resnext101_64x4d": (83_455_272, *IMAGENET),
    "resnext29_8x64d_cifar10": (34_426_698, *CIFAR10),
    "resnext29_16x64d_cifar10": (68_155_210, *CIFAR10),
    "resnext29_32x4d_cifar10": (4_775_754, *CIFAR10),
    "resnext20_4x8d_cifar10": (RESNEXT20, *CIFAR10),
    # torchvision/models/densenet.py, num_params; 264 and those without "bc" counted layer by layer
    "densenet121": (7_978_856, *IMAGENET),
    "densenet161": (28_681_000, *IMAGENET),
    "densenet169": (14_149_480, *IMAGENET),
    "densenet201": (20_013_928, *IMAGENET),
    "densenet264": (33_337_704, *IMAGENET),
    "densenet40_k12_cifar10": (1_019_722, *CIFAR10),
    "densenet100_k12_cifar10": (6_979_642, *CIFAR10),
    "densenet100_k24_cifar10": (27_249_082, *CIFAR10),
    "densenet_c16_k24_cifar10": (DENSENET16, *CIFAR10),
    # osmr/imgclsmob
    "densenet_bc40_k12_cifar10": (176_122, *CIFAR10),
    "densenet_bc100_k12_cifar10": (769_162, *CIFAR10),
    "densenet_bc250_k24_cifar10": (15_324_406, *CIFAR10),
    "densenet_bc190_k40_cifar10": (25_624_430, *CIFAR10),
    # hujie-frank/SENet and osmr/imgclsmob; osmr/imgclsmob alone (18, 34 and for CIFAR-10)
    "se_resnet18": (11_778_592, *IMAGENET),
    "se_resnet34": (21_958_868, *IMAGENET),
    "se_resnet50": (28_088_024, *IMAGENET),
    "se_resnet101": (49_326_872, *IMAGENET),
    "se_resnet152": (66_821_848, *IMAGENET),
    "se_resnext50_32x4d": (27_559_896, *IMAGENET),
    "se_resnext101_32x4d": (48_955_416, *IMAGENET),
    "se_resnet20_cifar10": (274_847, *CIFAR10),
    "se_resnet56_cifar10": (862_889, *CIFAR10),
    "se_resnet110_cifar10": (1_744_952, *CIFAR10),
    # no published figure: what squeeze-excitation adds to the networks above
    "se_resnet14_wide_cifar10": (SE_WIDE, *CIFAR10),
    # hujie-frank/SENet, SE-BN-Inception.prototxt; timm's senet154
    "se_inception_v2": (11_931_622, *IMAGENET),
    "senet154": (115_088_984, *IMAGENET),
    # torchvision/models/squeezenet.py, num_params; the bypasses of 96, 128, 256 and 384 feature maps; 990 classes fewer
    "squeezenet_v1_0": (1_248_424, *SQUEEZENET),
    "squeezenet_v1_1": (1_235_496, *SQUEEZENET),
    "squeezenet_v1_0_simple_bypass": (1_248_424, *SQUEEZENET),
    "squeezenet_v1_0_complex_bypass": (1_589_672, *SQUEEZENET),
    "squeezenet_cifar10": (SQUEEZENET_CIFAR10, *CIFAR10),
    "squeezenet_bn_cifar10": (SQUEEZENET_CIFAR10 + FIRE_FILTERS, *CIFAR10),
    # the ResNets above, with outputs of 10, 3 and 2 for one of 10
    "multilabel_resnet14_wide_cifar10": (NARROWER + 5 * (128 + 1), *CIFAR10),
    "multilabel_resnet20_cifar10": (272_474 + 5 * (64 + 1), *CIFAR10),
    # the sum of the sizes in figure 4 of the paper, as the ports print it; and the sums above
    "siamese_omniglot": (38_951_745, (105, 105, 1), None),
    "siamese_cifar10": (SIAMESE_TWIN + 256 + 1, *CIFAR10),
    "autoencoder_cifar10": (autoencoder(64, 32, 32), *CIFAR10),
    "autoencoder_90_cifar10": (autoencoder(64, 32, 19), *CIFAR10),
    # BVLC/caffe's CaffeNet and VGG-16 with 21 classes; the model definitions of fast-rcnn and py-faster-rcnn
    "rcnn_alexnet": (56_954_261, (227, 227, 3), 21),
    "rcnn_vgg16": (138_357_544 - 979 * (4096 + 1), (224, 224, 3), 21),
    "fast_rcnn_vgg16": (134_690_729, (600, 800, 3), 21),
    "faster_rcnn_vgg16": (137_078_239, (600, 800, 3), 21),
    # no published figure: the sums above, and the dense layers
    "rcnn_vgg8": (RCNN_STEM + FC6 + 257 * 11, (32, 32, 3), 11),
    "fast_rcnn_vgg8": (RCNN_STEM + FC6 + 257 * 5 * 11, (128, 128, 3), 11),
    "faster_rcnn_vgg8": (RCNN_STEM + RPN + FC6 + 257 * 5 * 11, (128, 128, 3), 11),
}
# Multilabel networks with ten sigmoids: as many as the ResNets with a softmax of ten.
MULTI_HOT = {"multilabel_resnet14_wide_cifar10": NARROWER, "multilabel_resnet20_cifar10": 272_474}
# One of the twins of a Siamese network, without the classifier.
TWINS = {"siamese_omniglot": 38_947_648, "siamese_cifar10": SIAMESE_TWIN}
# The Inception networks with their auxiliary classifiers.
AUXILIARY = {
    "inception_v1": 13_378_280,  # bvlc_googlenet's train_val.prototxt
    "inception_v1_bn": 13_385_816,
    "inception_v1_cifar10": sum(inception_v1_parts(4)),
    "inception_v3": 27_161_264,  # torchvision/models/inception.py, num_params
    "inception_v3_cifar10": sum(inception_v3_parts(4)),
}
# The CIFAR-10 networks of the paper, whose shortcuts have no parameters.
ZERO_PADDING = {
    "resnet14_wide_cifar10": WIDE - SHORTCUTS,
    "resnet8_wide_cifar10": WIDE8 - SHORTCUTS8,
    "resnet20_cifar10": 269_722,
    "resnet32_cifar10": 464_154,
    "resnet44_cifar10": 658_586,
    "resnet56_cifar10": 853_018,
    "resnet110_cifar10": 1_727_962,
    "resnet20_v2_cifar10": 269_722,
    "resnet56_v2_cifar10": 853_018,
    "resnet110_v2_cifar10": 1_727_962,
}
NAMES = {name: path for path in MODULES for name in once(path).METAPARAMETERS}
# In the default suite are those for small images but the deepest, and of the others those with a table of shapes.
OFTEN = {name for name in NAMES if re.search("cifar10|vgg8", name)} - {"resnet1001_v2_cifar10", "resnet1202_cifar10"}
OFTEN |= {name for name, path in NAMES.items() if re.search(rf"^    {name}$", once(path).__doc__, flags=re.M)}


@pytest.fixture(autouse=True)
def deep():
    """The graph of ResNet-1202 is deeper than Python's default recursion limit."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(limit)


def networks(names):
    return pytest.mark.parametrize(
        "name", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in names]
    )


def parameters(model):
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def count(name, **changes):
    """Count the parameters of a network with other metaparameters, or options of build."""
    module, (_, input_shape, n_classes) = once(NAMES[name]), PARAMETERS[name]
    options = {"classes": changes.pop("classes")} if "classes" in changes else {"n_classes": n_classes}
    with without_numbers():
        return parameters(module.build(module.METAPARAMETERS[name] | changes, input_shape, **options))


def in_header(number, name):
    """Whether the reader is told."""
    return f"{number:,}" in once(NAMES[name]).__doc__.replace("\n", " ")


def test_no_network_is_missing():
    assert set(NAMES) == set(PARAMETERS)
    assert {NAMES[name] for name in OFTEN} == set(MODULES)


@networks(PARAMETERS)
def test_parameters(name):
    """With the auxiliary classifiers of Inception, and without."""
    expected, *shapes = PARAMETERS[name]
    model, _ = whole(NAMES[name], name, *shapes)
    if name in AUXILIARY:
        assert parameters(model) == AUXILIARY[name] and in_header(AUXILIARY[name], name)
        with without_numbers():
            model = Model(model.input, model.output["main"])
    assert parameters(model) == expected and in_header(expected, name)


@pytest.mark.parametrize("name", ZERO_PADDING)
def test_parameters_with_zero_padding(name):
    assert count(name, shortcut_type="zero_padding") == ZERO_PADDING[name] and in_header(ZERO_PADDING[name], name)


@pytest.mark.parametrize("name", MULTI_HOT)
def test_parameters_with_ten_sigmoids(name):
    assert count(name, classes=10) == MULTI_HOT[name] and in_header(MULTI_HOT[name], name)


@pytest.mark.parametrize("name", TWINS)
def test_parameters_of_a_twin(name):
    model, _ = whole(NAMES[name], name, *PARAMETERS[name][1:])
    assert parameters(model.get_layer("twin")) == TWINS[name] and in_header(TWINS[name], name)


def test_the_sums_of_this_file_come_to_the_published_figures():
    assert inception_v1_parts(1) == (7_005_832, 13_385_816 - 7_005_832)
    assert inception_v3_parts(1) == (23_834_568, 27_161_264 - 23_834_568)
    blocks = ((256, 3), (512, 4), (1024, 6), (2048, 3))
    assert sum(n * squeeze_excitation(c) for c, n in blocks) == 28_088_024 - 25_557_032
    assert sum((c + 1) * n for c, n in ((96, 128), (128, 256), (256, 384), (384, 512))) == 1_589_672 - 1_248_424


@networks(["resnext20_4x8d_cifar10", "resnext50_32x4d"])
def test_both_forms_of_the_grouped_convolution_have_the_same_parameters(name):
    assert count(name, convolution="grouped_convolution") == PARAMETERS[name][0]


@networks([name for name in PARAMETERS if name.startswith("se_resnet")])
def test_without_squeeze_excitation_it_is_a_resnet(name):
    resnet = NARROWER if name == "se_resnet14_wide_cifar10" else PARAMETERS[name.removeprefix("se_")][0]
    assert count(name, ratio=None) == resnet

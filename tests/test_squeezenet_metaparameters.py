"""SqueezeNet's fire blocks from the metaparameters that the paper defines (section 5.1), and their arithmetic."""

import math

import keras
import numpy as np
import pytest
from folders import load, predict, random_weights, without_numbers
from keras import Input, Model, layers

MODULE = load("squeezenet/squeezenet.py")


def sizes(groups):
    return [[(block["n_squeeze"], block["n_1x1"], block["n_3x3"]) for block in blocks] for blocks in groups]


def test_the_values_of_the_paper_give_the_published_networks():
    groups = MODULE.groups_of(base_e=128, incr_e=128, pct_3x3=0.5, freq=2, sr=0.125, pooling_after=(4, 8))
    assert groups == MODULE.groups_of() == MODULE.METAPARAMETERS["squeezenet_v1_0"]["groups"]
    assert MODULE.groups_of(pooling_after=(3, 5)) == MODULE.METAPARAMETERS["squeezenet_v1_1"]["groups"]


@pytest.mark.parametrize("metaparameters, expected", [
    ({"sr": 0.75, "n_blocks": 3, "pooling_after": (3,)}, [[(96, 64, 64), (96, 64, 64)], [(192, 128, 128)]]),
    ({"pct_3x3": 0.25, "sr": 0.5, "n_blocks": 1, "pooling_after": ()}, [[(64, 96, 32)]]),
    (  # e = 8, 8, 8, 13: after every third block five more
        {"base_e": 8, "incr_e": 5, "freq": 3, "n_blocks": 4, "pooling_after": [2, 4]},
        [[(1, 4, 4)], [(1, 4, 4), (1, 4, 4)], [(2, 7, 6)]],
    ),
    # e = 10 and 11: 2.5 and 2.75 squeeze, 5 and 5.5 are 3x3
    ({"base_e": 10, "incr_e": 1, "freq": 1, "sr": 0.25, "n_blocks": 2, "pooling_after": ()}, [[(2, 5, 5), (3, 5, 6)]]),
    # e = 128 of 1% and of 99%, the ends of figure 3 (b)
    ({"pct_3x3": 0.01, "sr": 0.5, "n_blocks": 1, "pooling_after": ()}, [[(64, 127, 1)]]),
    ({"pct_3x3": 0.99, "sr": 0.5, "n_blocks": 1, "pooling_after": ()}, [[(64, 1, 127)]]),
    ({"incr_e": 0, "sr": 1, "n_blocks": 2, "pooling_after": (2,)}, [[(128, 64, 64)], [(128, 64, 64)]]),
])
def test_sizes_of_the_fire_blocks(metaparameters, expected):
    assert sizes(MODULE.groups_of(**metaparameters)) == expected


@pytest.mark.parametrize("sr, expected", [(0.125, 1_248_424), (0.5, 3_404_392), (0.75, 4_841_704)])
def test_parameters(sr, expected):
    n, n_in = (49 * 3 + 1) * 96, 96
    for e in (128, 128, 256, 256, 384, 384, 512, 512):
        s = int(sr * e)
        n += (n_in + 1) * s + (s + 1) * (e // 2) + (9 * s + 1) * (e // 2)
        n_in = e
    n += (512 + 1) * 1000
    with without_numbers():
        model = MODULE.build({"groups": MODULE.groups_of(sr=sr)})
    assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == n == expected


def test_size_in_memory():
    """Table 3 of the paper prints 4.8 MB and, with complex bypass, 7.7 MB, which these convolutions do not make."""
    header = MODULE.__doc__.replace("\n", " ")
    for name, parameters, printed in (("", 1_248_424, "4.8"), ("_complex_bypass", 1_589_672, "7.7")):
        with without_numbers():
            model = MODULE.build(MODULE.METAPARAMETERS[f"squeezenet_v1_0{name}"])
        assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == parameters
        assert f"{4 * parameters / 2**20:.2f} MiB" in header and f"prints {printed} MB" in header


def test_arithmetic_of_two_fire_blocks():
    """Figure 1, and figure 2 on the right: a 1x1 convolution passes the first block by, the second's input itself."""
    (blocks,) = MODULE.groups_of(base_e=6, incr_e=0, pct_3x3=1 / 3, sr=0.5, n_blocks=2, pooling_after=())
    assert sizes([blocks]) == [[(3, 4, 2), (3, 4, 2)]]
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype("float32")
    inputs = Input(x.shape[1:])
    model = Model(inputs, MODULE.group(inputs, blocks, bypass="complex", pooling=False))
    random_weights(model)
    found = {}  # {shape of the kernel: [(kernel, bias), ...], of the first block before the second}
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            found.setdefault(layer.kernel.shape, []).append(layer.get_weights())
    (bypass,), (squeeze,), (squeeze_2,) = (found.pop((1, 1, *maps)) for maps in ((3, 6), (3, 3), (6, 3)))
    (expand_1x1, expand_1x1_2), (expand_3x3, expand_3x3_2) = found.pop((1, 1, 3, 4)), found.pop((3, 3, 3, 2))
    assert not found

    def convolution(x, kernel, bias):
        size = len(kernel)
        _, h, w, _ = x.shape
        padded = np.pad(x, ((0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)))
        places = [(i, j) for i in range(size) for j in range(size)]
        return sum(padded[:, i : i + h, j : j + w] @ kernel[i, j] for i, j in places) + bias

    def fire(x, squeeze, expand_1x1, expand_3x3):
        squeezed = np.maximum(convolution(x, *squeeze), 0)
        expanded = [np.maximum(convolution(squeezed, *weights), 0) for weights in (expand_1x1, expand_3x3)]
        return np.concatenate(expanded, -1)

    x_2 = fire(x, squeeze, expand_1x1, expand_3x3) + convolution(x, *bypass)
    expected = fire(x_2, squeeze_2, expand_1x1_2, expand_3x3_2) + x_2
    np.testing.assert_allclose(predict(model, x), expected, rtol=1e-4, atol=1e-5)


def test_two_builds_and_what_is_saved_are_the_same_network(tmp_path):
    metaparameters = {
        "groups": MODULE.groups_of(base_e=8, incr_e=8, sr=0.25, n_blocks=3, pooling_after=(3,)),
        "stem": {"n_filters": 4, "kernel_size": 3, "strides": 1},
        "bypass": "simple",
    }
    first, second = (MODULE.build(metaparameters, (16, 16, 3), 5) for _ in range(2))
    names = [operation.name for operation in first.operations]
    assert names == [operation.name for operation in second.operations]
    assert {"stem", "group_1", "group_2"} <= set(names) and "group_3" not in names
    assert first.get_layer("group_1").output.shape == (None, 3, 3, 8)
    assert first.get_layer("group_2").output.shape == (None, 3, 3, 16)
    first.save(tmp_path / "squeezenet.keras")
    loaded = keras.saving.load_model(tmp_path / "squeezenet.keras", safe_mode=True)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(predict(loaded, images), predict(first, images), atol=1e-6)


@pytest.mark.parametrize("metaparameters, sentence", [
    ({"base_e": 0}, "base_e, freq and n_blocks must be whole and at least 1, got 0, 2, 8"),
    ({"base_e": 1.5}, "base_e, freq and n_blocks must be whole"),
    ({"freq": 0}, "base_e, freq and n_blocks must be whole"),
    ({"n_blocks": None}, "base_e, freq and n_blocks must be whole"),
    ({"incr_e": -128}, "incr_e must be whole and at least 0, got -128"),
    ({"incr_e": 0.5}, "incr_e must be whole and at least 0"),
    ({"pct_3x3": 0}, "pct_3x3 must be between 0 and 1, sr above 0 and at most 1, got 0 and 0.125"),
    ({"pct_3x3": 1}, "pct_3x3 must be between 0 and 1"),
    ({"pct_3x3": 50}, "pct_3x3 must be between 0 and 1"),
    ({"pct_3x3": "0.5"}, "pct_3x3 must be between 0 and 1"),
    ({"sr": 0}, "sr above 0 and at most 1"),
    ({"sr": 2}, "sr above 0 and at most 1"),
    ({"sr": float("nan")}, "sr above 0 and at most 1"),
    ({"pooling_after": (1, 4)}, r"pooling_after must be rising numbers from 2 to 8, got \(1, 4\)"),
    ({"pooling_after": (4, 9)}, "pooling_after must be rising numbers from 2 to 8"),
    ({"pooling_after": (4, 4)}, "pooling_after must be rising numbers"),
    ({"pooling_after": (8, 4)}, "pooling_after must be rising numbers"),
    ({"pooling_after": 4}, "pooling_after must be rising numbers"),
    ({"pooling_after": (4.0,)}, "pooling_after must be rising numbers"),
    ({"base_e": 4, "sr": 0.125}, "every convolution must have at least one filter, got {'n_squeeze': 0"),
    ({"base_e": 16, "pct_3x3": 0.99}, "every convolution must have at least one filter"),
])
def test_metaparameters_that_cannot_be(metaparameters, sentence):
    with pytest.raises(ValueError, match=sentence):
        MODULE.groups_of(**metaparameters)


def test_no_block_has_fewer_filters_than_the_first():
    """So the first alone is looked at."""
    for base_e in range(2, 40):
        for pct_3x3 in (0.1, 0.25, 0.5, 0.75, 0.9):
            for sr in (0.125, 0.5, 0.7):
                if min(round(sr * base_e), round(pct_3x3 * base_e), base_e - round(pct_3x3 * base_e)) > 0:
                    for block in MODULE.groups_of(base_e, 1, pct_3x3, 1, sr, 20, ())[0]:
                        assert min(block.values()) > 0

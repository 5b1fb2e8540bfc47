"""Equal outputs with equal weights: our graphs against arithmetic done by hand, and one form against another.

Those that are networks of keras.applications: test_imagenet_weights.py.
"""

import keras
import numpy as np
import pytest
from folders import ROOT, predict, random_weights, without_numbers
from keras import Input, Model, layers
from networks import BLOCK, INCEPTION, INCEPTION_V2, INCEPTION_V3, once


def of(network, kind):
    return [layer for layer in network.layers if isinstance(layer, kind)]


def images(size, n=2):
    return np.random.default_rng(1).normal(size=(n, size, size, 3)).astype("float32")


def test_strided_convolutions_are_padded_on_all_sides():
    """A 3x3 kernel of ones counts the pixels that it sees; "same" would give [[9, 6], [6, 4]]."""
    for path, function in (("resnet/resnet_v1.py", "conv_bn"), ("resnet/resnet_v2.py", "convolution")):
        inputs = Input((4, 4, 1))
        model = Model(inputs, getattr(once(path), function)(inputs, 1, 3, 2))
        for layer in model.layers:
            if isinstance(layer, layers.Conv2D):
                layer.set_weights([np.ones((3, 3, 1, 1))])
        outputs = predict(model, np.ones((1, 4, 4, 1)))[0, ..., 0]
        np.testing.assert_allclose(outputs, [[4, 6], [6, 9]], rtol=1e-4)  # the normalization's epsilon


def test_version_1_5_strides_in_the_3x3_convolution():
    for version, strides in (("1x1", (2, 1)), ("3x3", (1, 2))):
        inputs = Input((8, 8, 16))
        model = Model(inputs, once("resnet/resnet_v1.py").projection_block(inputs, 4, 2, version))
        convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
        first, second = (layer for layer in convolutions if layer.filters == 4)  # not the shortcut, not the last
        assert (first.kernel_size, second.kernel_size) == ((1, 1), (3, 3))
        assert (first.strides[0], second.strides[0]) == strides


def test_zero_padding_subsamples_and_adds_channels_of_zeros():
    inputs = Input((8, 8, 4))
    model = Model(inputs, once("resnet/resnet_basic.py").projection_block(inputs, 6, 2, "zero_padding"))
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            layer.set_weights([0 * layer.get_weights()[0]])  # leaves the shortcut alone
    x = np.random.default_rng(0).uniform(size=(3, 8, 8, 4)).astype("float32")
    expected = np.concatenate([x[:, ::2, ::2], np.zeros((3, 4, 4, 2))], axis=-1)
    np.testing.assert_allclose(predict(model, x), expected)


def test_pre_activation_shortcut_is_untouched():
    """Without its convolutions a block of version 2 is the identity; one of version 1 is a ReLU."""
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 16)).astype("float32")
    inputs = Input((4, 4, 16))
    for path, expected in (("resnet/resnet_v2.py", x), ("resnet/resnet_v1.py", np.maximum(x, 0))):
        model = Model(inputs, once(path).identity_block(inputs, 4))
        for layer in model.layers:
            if isinstance(layer, layers.Conv2D):
                layer.set_weights([0 * layer.get_weights()[0]])
        np.testing.assert_allclose(predict(model, x), expected, atol=1e-6)


def test_pre_activation_projection_shares_its_activation():
    """Both branches start from one BN-ReLU, and the shortcut has no normalization (Identity Mappings, appendix)."""
    inputs = Input((8, 8, 16))
    model = Model(inputs, once("resnet/resnet_v2.py").projection_block(inputs, 8))
    starts = [layer.input for layer in of(model, layers.Conv2D) if layer.strides == (2, 2)]
    assert len(starts) == 2 and starts[0] is starts[1]
    assert isinstance(model.layers[1], layers.BatchNormalization) and isinstance(model.layers[2], layers.ReLU)
    assert sum(isinstance(layer, layers.BatchNormalization) for layer in model.layers) == 3


def test_both_forms_of_the_grouped_convolution_are_one():
    """Equal outputs and equal gradients."""
    module = once("resnext/resnext.py")
    blocks = {"n_filters": 16, "n_filters_out": 32, "n_blocks": 2}
    metaparameters = {"groups": (blocks, blocks | {"n_filters": 32}), "cardinality": 4}
    split, grouped = (
        module.build(metaparameters | {"convolution": convolution}, (32, 32, 3), 10)
        for convolution in ("split_transform_merge", "grouped_convolution")
    )
    random_weights(split)

    def in_one(arrays):
        """The arrays of the first form as the second has them: four kernels of a 3x3 convolution side by side."""
        arrays, joined = iter(arrays), []
        for variable in grouped.trainable_variables:
            array = next(arrays)
            while array.shape != tuple(variable.shape):
                array = np.concatenate([array, next(arrays)], -1)
            joined.append(array)
        assert next(arrays, None) is None
        return joined

    kernels = in_one(variable.numpy() for variable in split.trainable_variables)
    for variable, value in zip(grouped.trainable_variables, kernels, strict=True):
        variable.assign(value)
    for ours, theirs in zip(of(grouped, layers.BatchNormalization), of(split, layers.BatchNormalization), strict=True):
        ours.set_weights(theirs.get_weights())
    x = images(32, n=4)
    np.testing.assert_allclose(predict(grouped, x), predict(split, x), rtol=1e-4, atol=1e-6)
    (of_split, of_grouped) = (gradients(model, x, np.arange(4)) for model in (split, grouped))
    for a, b in zip(in_one(of_split), of_grouped, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
    assert abs(of_split[0]).max() > 1e-3  # of the first convolution, behind all others


def gradients(model, x, y):
    """The gradient with respect to every trainable variable: what one step of SGD at rate 1 takes away."""
    before = [variable.numpy() for variable in model.trainable_variables]
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy", run_eagerly=True)
    model.train_on_batch(x, y)
    return [a - variable.numpy() for a, variable in zip(before, model.trainable_variables, strict=True)]


def test_each_branch_has_its_own_slice():
    """A change in one slice of the feature maps changes the outputs of its own branch, and no other."""
    inputs = Input((6, 6, 12))
    model = Model(inputs, once("resnext/resnext.py").split_transform_merge(inputs, 4))
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 12)).astype("float32")
    before = predict(model, x)
    for branch in range(4):
        changed = x.copy()
        changed[..., 3 * branch : 3 * branch + 3] += 1
        moved = abs(predict(model, changed) - before).reshape(-1, 4, 3).max((0, 2)) > 1e-6
        assert moved.tolist() == [i == branch for i in range(4)]


def test_local_response_normalization():
    """The sum over the neighbouring feature maps, written out: Krizhevsky et al. 2012, section 3.3."""
    inputs = Input((2, 2, 7))
    model = Model(inputs, once("inception/inception_v1.py").local_response_normalization(inputs, alpha=0.5))
    x = np.random.default_rng(0).normal(scale=3, size=(1, 2, 2, 7)).astype("float32")
    expected = np.empty_like(x)
    for i in range(7):
        neighbours = x[..., max(0, i - 2) : i + 3]
        expected[..., i] = x[..., i] / (1 + 0.5 / 5 * (neighbours**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(predict(model, x), expected, rtol=1e-5)


def test_inception_v1_has_local_response_normalization_only_without_batch_normalization():
    module = once("inception/inception_v1.py")
    x = images(64)
    for name, n_batch_normalizations in (("inception_v1", 0), ("inception_v1_bn", 57)):
        with without_numbers():
            model = module.build(module.METAPARAMETERS[name], (64, 64, 3), 10)
        assert len(of(model, layers.BatchNormalization)) == n_batch_normalizations
        assert all(layer.use_bias == (name == "inception_v1") for layer in of(model, layers.Conv2D))
    inputs = Input((64, 64, 3))
    stem = Model(inputs, module.stem(inputs))
    first, *_ = of(stem, layers.Conv2D)
    small = predict(stem, x)
    for layer in of(stem, layers.Conv2D):
        kernel, bias = layer.get_weights()
        layer.set_weights([100 * kernel, bias] if layer is first else [kernel, bias])
    # without it a ReLU network with zero biases would answer 100 times as much
    assert np.median(predict(stem, x)[small > 0] / small[small > 0]) < 90


def test_max_pooling_of_inception_v1_is_that_of_caffe():
    """Windows from the first pixel on, the last one cut off by the edge: ceil((size - 3) / 2) + 1 of them."""
    for size, expected in ((8, [2, 4, 6, 7]), (7, [2, 4, 6]), (3, [2]), (2, [1])):
        inputs = Input((size, size, 1))
        model = Model(inputs, once("inception/inception_v1.py").max_pooling(inputs))
        x = np.tile(np.arange(size, dtype="float32"), (size, 1))[None, ..., None]
        np.testing.assert_array_equal(predict(model, x)[0, 0, :, 0], expected)


def test_stem_of_inception_v1_pools_before_it_normalizes_and_after():
    """Figure 3: convolution, pooling, normalization, two convolutions, normalization, pooling."""
    inputs = Input((64, 64, 3))
    stem = Model(inputs, once("inception/inception_v1.py").stem(inputs))
    names = {"Conv2D": "convolution", "MaxPooling2D": "pooling", "Power": "normalization"}
    operations = [type(operation).__name__ for operation in stem.operations]
    order = [names[name] for name in operations if name in names]
    assert order == [
        "convolution", "pooling", "normalization", "convolution", "convolution", "normalization", "pooling",
    ]


def test_inception_block_has_four_branches_in_the_order_of_the_paper():
    """1x1, 3x3, 5x5, pooling: a pixel of the input reaches as far as the kernels of each branch."""
    module = once("inception/inception_v1.py")
    inputs = Input((9, 9, 1))
    outputs = module.inception_block(inputs, 1, 1, 2, 1, 3, 4)
    model = Model(inputs, outputs)
    for layer in of(model, layers.Conv2D):
        kernel, bias = layer.get_weights()
        layer.set_weights([np.ones_like(kernel), 0 * bias])
    x = np.zeros((1, 9, 9, 1), "float32")
    x[0, 4, 4] = 1
    y = predict(model, x)[0]
    reach = [int((y[..., i] > 0).sum()) for i in range(10)]
    assert reach == [1] + 2 * [9] + 3 * [25] + 4 * [9]
    assert (y[..., 1:3].max(), y[..., 6:].max()) == (1, 1)


def test_factorized_convolutions_of_inception_v3_cover_what_they_replace():
    """1x7 and 7x1 in a row see 7x7 pixels and twice that 13x13; side by side, 1x3 and 3x1 see a cross."""
    module = once("inception/inception_v3.py")
    inputs = Input((15, 15, 1))

    def reach(outputs):
        model = Model(inputs, outputs)
        for layer in of(model, layers.Conv2D):
            layer.set_weights([np.ones_like(layer.get_weights()[0])])
        x = np.zeros((1, 15, 15, 1), "float32")
        x[0, 7, 7] = 1
        y = predict(model, x)[0] > 1e-9
        return [(int(y[7, :, i].sum()), int(y[:, 7, i].sum()), int(y[..., i].sum())) for i in range(y.shape[-1])]

    assert reach(module.inception_block_b(inputs, 1, 1)) == [(1, 1, 1), (7, 7, 49), (13, 13, 169), (3, 3, 9)]
    row, column = (3, 1, 3), (1, 3, 3)
    after_3x3 = [(5, 3, 15), (3, 5, 15)]
    assert reach(module.inception_block_c(inputs, 1, 1, 1, 1)) == [(1, 1, 1), row, column, *after_3x3, (3, 3, 9)]
    assert reach(module.inception_block_a(inputs, 1, 1, 1, 1, 1, 1)) == [(1, 1, 1), (5, 5, 25), (5, 5, 25), (3, 3, 9)]


def test_a_dense_block_keeps_its_input_in_front():
    module = once("densenet/densenet.py")
    inputs = Input((4, 4, 5))
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 5)).astype("float32")
    for bottleneck in (True, False):
        y = predict(Model(inputs, module.dense_block(inputs, 3, 2, bottleneck)), x)
        assert y.shape == (2, 4, 4, 11)
        np.testing.assert_array_equal(y[..., :5], x)


def test_a_transitional_block_averages_and_rounds_down():
    module = once("densenet/densenet.py")
    inputs = Input((4, 4, 5))
    model = Model(inputs, module.trans_block(inputs, 0.5))
    assert model.output_shape == (None, 2, 2, 2)
    (convolution,) = of(model, layers.Conv2D)
    kernel = np.zeros((1, 1, 5, 2))
    kernel[0, 0, 1, 0] = kernel[0, 0, 4, 1] = 1
    convolution.set_weights([kernel])
    x = np.random.default_rng(0).uniform(size=(1, 4, 4, 5)).astype("float32")
    expected = x[..., [1, 4]].reshape(1, 2, 2, 2, 2, 2).mean((2, 4))
    np.testing.assert_allclose(predict(model, x), expected, rtol=1e-4)  # the normalization's epsilon


@pytest.mark.slow
def test_auxiliary_classifiers_share_the_networks_weights():
    """A training step on the auxiliary classifiers alone moves the first convolution and not the last."""
    two_heads = INCEPTION | {"groups": ((BLOCK, None, BLOCK, None), (BLOCK,)), "batch_normalization": True}
    for name, metaparameters, heads in (
        ("inception_v1", two_heads, ["auxiliary_1", "auxiliary_2"]), ("inception_v3", INCEPTION_V3, ["auxiliary_1"]),
    ):
        model = once(f"inception/{name}.py").build(metaparameters, (32, 32, 3), 10, auxiliary=True)
        assert list(model.output) == ["main", *heads]
        inference = Model(model.input, model.output["main"])
        assert len(inference.trainable_variables) < len(model.trainable_variables)
        x, y = images(32, n=8), np.arange(8)
        before = predict(inference, x)
        np.testing.assert_allclose(predict(model, x)["main"], before, atol=1e-6)
        model.compile(
            keras.optimizers.SGD(0.1),
            dict.fromkeys(model.output, "sparse_categorical_crossentropy"),
            loss_weights={"main": 0.0} | dict.fromkeys(heads, 1.0),
            run_eagerly=True,  # one step does not pay for a graph
        )
        convolutions = of(inference, layers.Conv2D)
        first, last = convolutions[0].kernel.numpy(), convolutions[-1].kernel.numpy()
        model.train_on_batch(x, dict.fromkeys(model.output, y))
        assert (convolutions[0].kernel.numpy() != first).any() and (convolutions[-1].kernel.numpy() == last).all()
        assert abs(predict(inference, x) - before).max() > 1e-4


def as_made(network, kind):
    """The layers of a kind in the order in which they were made; Keras lists them by their depth in the graph.

    Their variables still have the names that they were made with: conv2d/kernel, conv2d_1/kernel, ...
    """
    def number(layer):
        last = layer.weights[0].path.split("/")[0].rpartition("_")[2]
        return int(last) if last.isdigit() else 0

    return sorted(of(network, kind), key=number)


def opened(model, weight):
    """Make every squeeze-excitation of a model weigh every feature map by 0, 0.5 or 1."""
    for layer in of(model, layers.Dense):
        if layer.activation is keras.activations.sigmoid:
            kernel, bias = layer.get_weights()
            layer.set_weights([0 * kernel, 0 * bias + {0: -100, 0.5: 0, 1: 100}[weight]])


def test_squeeze_excitation_is_the_papers_arithmetic():
    """Equations 2 to 4 in numpy: z the means, s = sigmoid(W2 ReLU(W1 z)), each feature map times its s."""
    inputs = Input((5, 7, 8))
    model = Model(inputs, once("senet/se_resnet.py").se_block(inputs, 4))
    random_weights(model)
    (w1, b1), (w2, b2) = (layer.get_weights() for layer in of(model, layers.Dense))
    assert w1.shape == (8, 2) and w2.shape == (2, 8)
    x = np.random.default_rng(1).normal(size=(3, 5, 7, 8)).astype("float32")
    z = x.mean((1, 2))
    s = 1 / (1 + np.exp(-(np.maximum(z @ w1 + b1, 0) @ w2 + b2)))
    assert s.std(0).min() > 1e-3  # the weights depend on the image
    np.testing.assert_allclose(predict(model, x), x * s[:, None, None], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_networks_with_squeeze_excitation_are_those_without_when_all_weights_are_1():
    groups = ({"n_filters": 8, "n_blocks": 2}, {"n_filters": 16, "n_blocks": 2})
    branches = tuple(group | {"n_filters_out": 32} for group in groups)
    for with_it, without, metaparameters, options in (
        ("senet/se_resnet.py", "resnet/resnet_v1.py", {"groups": groups}, {}),
        ("senet/se_resnet.py", "resnet/resnet_basic.py", {"groups": groups}, {"bottleneck": False, "ratio": 4}),
        ("senet/se_resnext.py", "resnext/resnext.py", {"groups": branches, "cardinality": 4}, {}),
        ("senet/se_inception_v2.py", "inception/inception_v2.py", INCEPTION_V2, {"ratio": 4}),
    ):
        model = once(with_it).build(metaparameters | options, (64, 64, 3), 10)
        twin = once(without).build(metaparameters, (64, 64, 3), 10)
        random_weights(model)
        for kind in (layers.Conv2D, layers.BatchNormalization):
            for ours, theirs in zip(as_made(twin, kind), as_made(model, kind), strict=True):
                ours.set_weights(theirs.get_weights())
        twin.layers[-1].set_weights(model.layers[-1].get_weights())
        expected = predict(twin, images(64))
        opened(model, 0.5)
        assert abs(predict(model, images(64)) - expected).max() > 1e-3
        opened(model, 1)
        np.testing.assert_allclose(predict(model, images(64)), expected, rtol=1e-4, atol=1e-6)
        if "inception" in with_it:  # figure 2: it weighs what comes out of the blocks, and of the grid reduction
            weighed = [Model(model.input, multiply.input[0]).layers[-1] for multiply in of(model, layers.Multiply)]
            assert len(weighed) == 4 and all(isinstance(layer, layers.Concatenate) for layer in weighed)


def test_squeeze_excitation_comes_before_the_addition_and_spares_the_shortcut():
    """Figure 3: with all weights 0 the shortcut alone is left, and with 0.5 half of what the convolutions made."""
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 32)).astype("float32")
    inputs = Input((4, 4, 32))
    for path, block, arguments in (
        ("senet/se_resnet.py", "identity_block", {"n_filters": 8}),
        ("senet/se_resnet.py", "identity_block", {"n_filters": 32, "bottleneck": False}),
        ("senet/se_resnext.py", "identity_block", {"n_filters": 8, "cardinality": 2}),
        ("senet/se_resnet.py", "projection_block", {"n_filters": 8}),
        ("senet/se_resnet.py", "projection_block", {"n_filters": 16, "bottleneck": False}),
        ("senet/se_resnext.py", "projection_block", {"n_filters": 8, "n_filters_out": 16, "cardinality": 2}),
    ):
        model = Model(inputs, getattr(once(path), block)(inputs, **arguments))
        random_weights(model)
        (add,), (multiply,) = of(model, layers.Add), of(model, layers.Multiply)
        shortcut, before = Model(inputs, add.input[0]), Model(inputs, multiply.input[0])  # before it is weighed
        assert isinstance(before.layers[-1], layers.BatchNormalization) and len(shortcut.layers) <= 3
        for weight in (0, 0.5, 1):
            opened(model, weight)
            expected = np.maximum(predict(shortcut, x) + weight * predict(before, x), 0)
            np.testing.assert_allclose(predict(model, x), expected, rtol=1e-5, atol=1e-5)


def test_a_fire_block_expands_1x1_and_3x3_side_by_side():
    inputs = Input((7, 7, 1))
    model = Model(inputs, once("squeezenet/squeezenet.py").fire_block(inputs, 1, 2, 3))
    for layer in of(model, layers.Conv2D):
        kernel, bias = layer.get_weights()
        layer.set_weights([np.ones_like(kernel), 0 * bias])
    x = np.zeros((1, 7, 7, 1), "float32")
    x[0, 3, 3] = 1
    y = predict(model, x)[0]
    assert [int((y[..., i] > 0).sum()) for i in range(5)] == 2 * [1] + 3 * [9]


def test_bypasses_of_squeezenet():
    """Figure 2: around fire 3, 5, 7 and 9 the input is added, and if complex, around the others a 1x1 convolution."""
    module = once("squeezenet/squeezenet.py")
    x = np.random.default_rng(0).uniform(size=(2, 4, 4, 6)).astype("float32")
    inputs = Input((4, 4, 6))
    for bypass, n_3x3 in (("simple", 3), ("complex", 3), ("complex", 5)):
        model = Model(inputs, module.fire_block(inputs, 2, 3, n_3x3, bypass))
        random_weights(model)
        *fire, last = of(model, layers.Conv2D)
        for layer in fire if n_3x3 == 5 else [*fire, last]:
            layer.set_weights([0 * w for w in layer.get_weights()])  # leaves the bypass alone
        expected = x if n_3x3 == 3 else x @ last.get_weights()[0][0, 0] + last.get_weights()[1]
        np.testing.assert_allclose(predict(model, x), expected, rtol=1e-5, atol=1e-6)
    for name, widths, n_convolutions in (
        ("squeezenet_v1_0", [], 26),
        ("squeezenet_v1_0_simple_bypass", [128, 256, 384, 512], 26),
        ("squeezenet_v1_0_complex_bypass", [128, 128, 256, 256, 384, 384, 512, 512], 30),
    ):
        with without_numbers():
            model = module.build(module.METAPARAMETERS[name])
        assert [layer.output.shape[-1] for layer in of(model, layers.Add)] == widths
        assert len(of(model, layers.Conv2D)) == n_convolutions


def test_max_pooling_of_squeezenet_pads_with_nothing_that_could_win():
    for size, expected in ((8, [2, 4, 6, 7]), (7, [2, 4, 6]), (3, [2]), (2, [1])):
        inputs = Input((size, size, 1))
        model = Model(inputs, once("squeezenet/squeezenet.py").max_pooling(inputs))
        x = np.tile(np.arange(size, dtype="float32"), (size, 1))[None, ..., None] - 100
        np.testing.assert_array_equal(predict(model, x)[0, 0, :, 0], np.array(expected) - 100)


def test_classifier_of_squeezenet_takes_the_mean_of_a_map_for_each_class():
    inputs = Input((3, 3, 4))
    model = Model(inputs, once("squeezenet/squeezenet.py").classifier(inputs, 5))
    random_weights(model)
    ((kernel, bias),) = (layer.get_weights() for layer in of(model, layers.Conv2D))
    x = np.random.default_rng(0).normal(scale=3, size=(2, 3, 3, 4)).astype("float32")
    means = np.maximum(x @ kernel[0, 0] + bias, 0).mean((1, 2))
    expected = np.exp(means) / np.exp(means).sum(-1, keepdims=True)
    np.testing.assert_allclose(predict(model, x), expected, rtol=1e-5)


@pytest.mark.slow
def test_initial_weights_of_squeezenet_keep_the_last_feature_maps_small():
    """The table of its README, by order of magnitude: the squares of the feature maps' means, summed."""
    text = (ROOT / "squeezenet/squeezenet.py").read_text()
    x = images(32, n=64)
    for initial, bypass, expected in (
        ("he_normal", None, 1_300), ("he_normal", "simple", 48_000),
        ("lecun_uniform", None, 0.01), ("lecun_uniform", "simple", 10),
    ):
        keras.utils.set_random_seed(0)
        namespace = {}
        exec(text.replace('"lecun_uniform"', f'"{initial}"'), namespace)
        metaparameters = namespace["METAPARAMETERS"]["squeezenet_cifar10"] | {"bypass": bypass}
        model = namespace["build"](metaparameters, (32, 32, 3), 10)
        (dropout,) = of(model, layers.Dropout)
        means = predict(Model(model.input, dropout.output), x).mean((0, 1, 2))
        assert expected / 10 < (means**2).sum() < 10 * expected
        assert f"{expected:,}" in (ROOT / "squeezenet/README.md").read_text()

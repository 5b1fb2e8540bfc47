"""One small network of each kind of block, whole ones without numbers, and how to train one of each folder."""

import functools
import gc
import inspect

import keras
from folders import build, load, without_numbers

CIFAR10_STEM = {"n_filters": 8, "kernel_size": 3, "strides": 1, "pooling": False}
LAYERS = ({"n_layers": 1, "n_filters": 8}, {"n_layers": 2, "n_filters": 16})
GROUPS = ({"n_filters": 8, "n_blocks": 2}, {"n_filters": 16, "n_blocks": 2})
BRANCHES = ({"n_filters": 8, "n_filters_out": 16, "n_blocks": 2}, {"n_filters": 16, "n_filters_out": 32, "n_blocks": 2})
BLOCK = {"n_1x1": 8, "n_3x3_reduce": 4, "n_3x3": 8, "n_5x5_reduce": 4, "n_5x5": 8, "n_pool": 4}
INCEPTION = {
    "groups": ((BLOCK, None, BLOCK), (BLOCK,)),
    "stem": {"n_filters": 8, "n_filters_out": 16, "kernel_size": 3, "strides": 1, "pooling": False},
}
INCEPTION_V3 = {
    "groups": (
        {
            "block": "a",
            "blocks": ({"n_1x1": 8, "n_5x5_reduce": 4, "n_5x5": 8, "n_3x3_reduce": 4, "n_3x3": 8, "n_pool": 4},),
            "grid_reduction": {"n_3x3": 8, "n_double_3x3_reduce": 4, "n_double_3x3": 8},
        },
        {
            "block": "b",
            "blocks": ({"n_filters": 8, "n_7x7": 4}, None),
            "grid_reduction": {"n_filters": 4, "n_3x3": 8},
        },
        {"block": "c", "blocks": ({"n_1x1": 8, "n_3x3": 4, "n_double_3x3_reduce": 4, "n_pool": 4},)},
    ),
    "stem": {
        "n_filters": 4, "n_filters_reduce": 8, "n_filters_out": 16, "strides": 1, "padding": "same", "pooling": False,
    },
}
BLOCK_V2 = {"n_1x1": 8, "n_3x3_reduce": 4, "n_3x3": 8, "n_double_3x3_reduce": 4, "n_double_3x3": 8, "n_pool": 4}
REDUCTION_V2 = {"n_3x3_reduce": 4, "n_3x3": 8, "n_double_3x3_reduce": 4, "n_double_3x3": 8}
INCEPTION_V2 = {
    "groups": (
        {"blocks": (BLOCK_V2, BLOCK_V2 | {"pooling": "max"}), "grid_reduction": REDUCTION_V2},
        {"blocks": (BLOCK_V2,)},
    ),
    "stem": {"n_filters": 8, "n_filters_out": 16, "kernel_size": 3, "strides": 1, "pooling": False},
}
SE_INCEPTION = INCEPTION_V2 | {"ratio": 4}
FIRE = {"n_squeeze": 4, "n_1x1": 8, "n_3x3": 8}
FIRES = {"groups": ((FIRE, FIRE), (FIRE, FIRE | {"n_3x3": 12})), "stem": {"n_filters": 8}}
SIAMESE = {
    "stem": {"n_filters": 8, "kernel_size": 3},
    "groups": (
        {"n_layers": 2, "n_filters": 16, "kernel_size": 3},
        {"n_layers": 1, "n_filters": 16, "kernel_size": 2, "pooling": False},
    ),
    "n_units": 32,
}
DETECTOR = {"groups": LAYERS, "pooled_size": 3, "n_units": (32,)}
PROPOSALS = {
    "n_filters": 16,
    "anchors": {"scales": (0.5, 1), "ratios": (1, 2)},
    "proposals": {"n_before": 60, "n_proposals": 20, "min_size": 4},
}
SMALL = {  # name: (module, metaparameters)
    "vgg": ("vgg/vgg.py", {"groups": LAYERS, "n_units": (32,)}),
    "vgg with batch normalization": ("vgg/vgg.py", {"groups": LAYERS, "n_units": (), "batch_normalization": True}),
    "resnet_v1": ("resnet/resnet_v1.py", {"groups": GROUPS}),
    "resnet_v1_5": ("resnet/resnet_v1.py", {"groups": GROUPS, "strided_convolution": "3x3"}),
    "resnet_v2": ("resnet/resnet_v2.py", {"groups": GROUPS}),
    "resnet_v2 for CIFAR-10": ("resnet/resnet_v2.py", {"groups": GROUPS, "stem": CIFAR10_STEM}),
    "resnet_v2 strided in the 3x3": ("resnet/resnet_v2.py", {"groups": GROUPS, "strided_convolution": "3x3"}),
    "resnet_v2_basic": ("resnet/resnet_v2_basic.py", {"groups": GROUPS}),
    "resnet_v2_basic for CIFAR-10 with zero padding": (
        "resnet/resnet_v2_basic.py", {"groups": GROUPS, "stem": CIFAR10_STEM, "shortcut_type": "zero_padding"},
    ),
    "resnet_basic": ("resnet/resnet_basic.py", {"groups": GROUPS}),
    "plain": ("resnet/resnet_basic.py", {"groups": GROUPS, "stem": CIFAR10_STEM, "shortcut_type": "none"}),
    "resnet_basic for CIFAR-10": ("resnet/resnet_basic.py", {"groups": GROUPS, "stem": CIFAR10_STEM}),
    "resnet_basic with zero padding": (
        "resnet/resnet_basic.py", {"groups": GROUPS, "stem": CIFAR10_STEM, "shortcut_type": "zero_padding"},
    ),
    "inception_v1": ("inception/inception_v1.py", INCEPTION),
    "inception_v1 with batch normalization": (  # and two auxiliary classifiers
        "inception/inception_v1.py",
        INCEPTION | {"groups": ((BLOCK, None, BLOCK), (BLOCK, None)), "batch_normalization": True},
    ),
    "inception_v2": ("inception/inception_v2.py", INCEPTION_V2),
    "inception_v3": ("inception/inception_v3.py", INCEPTION_V3),
    "resnext": ("resnext/resnext.py", {"groups": BRANCHES, "cardinality": 4}),
    "resnext for CIFAR-10": ("resnext/resnext.py", {"groups": BRANCHES, "cardinality": 2, "stem": CIFAR10_STEM}),
    "resnext with grouped convolutions": (
        "resnext/resnext.py", {"groups": BRANCHES, "cardinality": 2, "convolution": "grouped_convolution"},
    ),
    "densenet": ("densenet/densenet.py", {"groups": 2 * ({"n_blocks": 2},), "growth_rate": 4}),
    "densenet without bottleneck for CIFAR-10": (
        "densenet/densenet.py",
        {"groups": 2 * ({"n_blocks": 2},), "growth_rate": 4, "bottleneck": False, "stem": CIFAR10_STEM},
    ),
    "se_resnet": ("senet/se_resnet.py", {"groups": GROUPS, "ratio": 4}),
    "se_resnet without bottleneck for CIFAR-10": (
        "senet/se_resnet.py", {"groups": GROUPS, "bottleneck": False, "ratio": 2, "stem": CIFAR10_STEM},
    ),
    "se_resnet without squeeze-excitation": ("senet/se_resnet.py", {"groups": GROUPS, "ratio": None}),
    "se_resnext": ("senet/se_resnext.py", {"groups": BRANCHES, "cardinality": 4}),
    "se_resnext with grouped convolutions": (
        "senet/se_resnext.py",
        {"groups": BRANCHES, "cardinality": 2, "ratio": 4, "convolution": "grouped_convolution"},
    ),
    "se_inception_v2": ("senet/se_inception_v2.py", SE_INCEPTION),
    "senet154": (
        "senet/senet154.py",
        {"groups": BRANCHES, "cardinality": 4, "ratio": 4, "stem": {"n_filters": 8, "n_filters_out": 16}},
    ),
    "squeezenet": ("squeezenet/squeezenet.py", FIRES),
    "squeezenet with simple bypass": ("squeezenet/squeezenet.py", FIRES | {"bypass": "simple"}),
    "squeezenet with batch normalization": (
        "squeezenet/squeezenet.py", FIRES | {"bypass": "simple", "batch_normalization": True},
    ),
    "squeezenet with complex bypass": ("squeezenet/squeezenet.py", FIRES | {"bypass": "complex", "dropout": 0.2}),
    "multilabel": ("multilabel/multilabel.py", {"groups": GROUPS, "stem": CIFAR10_STEM}),
    "siamese": ("siamese/siamese.py", SIAMESE | {"initial_weights": "koch"}),
    "siamese with batch normalization": (
        "siamese/siamese.py", SIAMESE | {"padding": "same", "batch_normalization": True},
    ),
    "autoencoder": ("autoencoder/autoencoder.py", {"layers": ({"n_filters": 16}, {"n_filters": 8}, {"n_filters": 4})}),
    "rcnn": ("rcnn/rcnn.py", {"groups": LAYERS, "n_units": (32,)}),
    "rcnn with batch normalization": ("rcnn/rcnn.py", {"groups": LAYERS, "n_units": (), "batch_normalization": True}),
    "fast_rcnn": ("rcnn/fast_rcnn.py", DETECTOR),
    "fast_rcnn with batch normalization": ("rcnn/fast_rcnn.py", DETECTOR | {"batch_normalization": True}),
    "faster_rcnn": ("rcnn/faster_rcnn.py", DETECTOR | PROPOSALS),
    "faster_rcnn with batch normalization": (
        "rcnn/faster_rcnn.py", DETECTOR | PROPOSALS | {"batch_normalization": True},
    ),
}

STAGES = ("stem", "learner", "group", "auxiliary", "encoding", "encoder", "decoder", "classifier")
once = functools.cache(load)  # the modules, for tests that change nothing in them


def whole(path, name, input_shape, n_classes):
    """Return a network of METAPARAMETERS and its stages, [(function, input shape, output shape, ...), ...].

    Its weights have no numbers. It has its auxiliary classifiers, and n_classes if it has classes. Several tests look
    at it, so it is built once.
    """
    has_classes = "n_classes" in inspect.signature(once(path).build).parameters
    return built(path, name, input_shape, n_classes if has_classes else None)


@functools.cache
def built(path, name, input_shape, n_classes):
    module, seen = load(path), []

    def watched(stage, function):
        @functools.wraps(function)
        def watch(x, *args, **kwargs):
            row = len(seen)
            seen.append(None)  # a stem of groups comes before them
            outputs = function(x, *args, **kwargs)
            if isinstance(outputs, dict):  # one below the other in a row of the table
                seen[row] = (stage, x.shape[1:], *(part.shape[1:] for part in outputs.values()))
            else:
                first = outputs[0] if isinstance(outputs, tuple) else outputs  # Inception has heads beside it
                seen[row] = (stage, x.shape[1:], first.shape[1:])
            return outputs

        return watch

    for stage in set(STAGES) - {"learner"}:  # which is a stage of the detectors alone
        if hasattr(module, stage):
            setattr(module, stage, watched(stage, getattr(module, stage)))
    options = {"auxiliary": True} if "auxiliary" in inspect.signature(module.build).parameters else {}
    with without_numbers():
        model = build(module, module.METAPARAMETERS[name], input_shape, n_classes, **options)
    gc.collect()
    gc.freeze()  # or Python would look for garbage in these graphs again and again, a fifth of the time
    return model, stages_of_detector(model) if path.startswith("rcnn/") else seen


def stages_of_detector(model):
    """Return the stages of a detector, whose stem and classifier are models in it; the learner is what is between."""
    backbone, head = (model.get_layer(name)._inbound_nodes[-1] for name in ("backbone", "head"))
    (images,), (feature_maps,) = backbone.input_tensors, backbone.output_tensors
    (features,), used = head.input_tensors, {id(tensor) for tensor in model.outputs}
    outputs = [tensor for tensor in head.output_tensors if id(tensor) in used]
    rows = ("stem", images, feature_maps), ("learner", feature_maps, features), ("classifier", features, *outputs)
    return [(stage, *(tensor.shape[1:] for tensor in tensors)) for stage, *tensors in rows]


def operations(model):
    """Return the operations of a model, each followed by those in it, if it is a model."""
    found = []
    for operation in model.operations:
        found += [operation, *(operations(operation) if isinstance(operation, keras.Model) else [])]
    return found


def architecture(model):
    """Return what every operation is and does, with its name; but not the seed of random numbers."""
    rows = []
    for operation in operations(model):
        config = operation.get_config() if isinstance(operation, keras.layers.Layer) else {}
        if isinstance(operation, keras.Model):  # its layers come next
            config = {}
        rows.append((operation.name, type(operation).__name__, {k: v for k, v in config.items() if k != "seed"}))
    return rows


def trained(add):
    """Return a function (module of a train.py, epochs) -> (its flags for a run of seconds, modules to import to load).

    Args:
        add: puts a network "tiny" among the models of the module.
    """

    def flags(module, epochs=1):
        add(module)
        if isinstance(module.LEARNING_RATE, dict):
            module.LEARNING_RATE["tiny"] = 0.1
        common = ["--data", "synthetic", "--limit", "120", "--epochs", epochs, "--batch-size", "30"]
        return ["--model", "tiny", *common], ""

    return flags


def tiny(name, **changes):
    """Return what puts a small network of this file among the models of a train.py."""

    def add(module):
        path, metaparameters = SMALL[name]
        own = path.split("/")[1].removesuffix(".py")
        module.MODELS["tiny"] = (getattr(module, own).build, metaparameters | changes)

    return trained(add)


def rcnn(module, epochs=1):
    """The flags of a Faster R-CNN, whose network is what it is, of a few scenes."""
    flags = ["--data", "synthetic", "--limit", "120", "--scenes", 6, "--epochs", epochs, "--pretraining-epochs", epochs]
    flags += ["--pretraining-rate", 0.01, "--learning-rate", 0.005]
    return flags, "faster_rcnn fast_rcnn"


TRAINED = {
    "vgg": tiny("vgg with batch normalization", n_units=(16,)),
    "resnet": tiny("resnet_basic for CIFAR-10"),
    "inception": tiny("inception_v1 with batch normalization"),
    "resnext": tiny("resnext for CIFAR-10"),
    "densenet": tiny("densenet without bottleneck for CIFAR-10"),
    "senet": tiny("se_resnet without bottleneck for CIFAR-10"),
    "squeezenet": tiny("squeezenet with batch normalization"),
    "multilabel": tiny("multilabel"),
    "siamese": tiny("siamese with batch normalization"),
    "autoencoder": tiny("autoencoder"),
    "rcnn": rcnn,
}

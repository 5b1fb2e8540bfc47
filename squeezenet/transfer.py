# The same file in the folder of every classifier.
"""Transfer learning: begin with what a network has learned from other images, of which there were many more.

Donahue et al. 2013, "DeCAF: A Deep Convolutional Activation Feature for Generic Visual Recognition", arXiv:1310.1531: a
classifier on the features of a frozen network. Yosinski et al. 2014, "How transferable are features in deep neural
networks?", arXiv:1411.1792: the first groups learn what all images have in common, the last what one task needs.
"""

import re
from pathlib import Path

import run

import keras
import numpy as np
from keras import layers

import data
import report

IMAGENET_SIZE = 224  # height and width in pixels of photos for the published weights, if --image-size does not say


def command_line(parser, published, epochs, learning_rate):
    """Return the arguments of the command line, with two flags more: --image-size and --weights.

    Args:
        parser: from `run.parser`.
        published: {model: the module with `load_imagenet_weights`}, the models of which there are published weights.
        epochs, learning_rate: defaults with --weights.
    """
    flag = parser.add_argument
    flag("--image-size", metavar="N", type=run.whole(1),
         help="of photos; default 32, or that of --weights")
    flag("--weights", metavar="imagenet|RUN",
         help="default random; imagenet: published; RUN: of a finished run; then "
         f"by default two steps of {epochs} epochs, at first {learning_rate}")
    given, _ = parser.parse_known_args()  # now, since run.parse compares the flags with those of an earlier run
    if given.weights:
        parser.set_defaults(epochs=epochs, learning_rate=learning_rate)
    if given.weights == "imagenet" and given.model not in published:
        there_are = f"there are some for {', '.join(published)}" if published else "there are none for these networks"
        parser.error(f"--weights imagenet: {there_are}, got --model {given.model}")
    size = IMAGENET_SIZE
    if given.weights and given.weights != "imagenet":
        results = report.results_of(given.weights)
        if results["model"] != given.model:
            parser.error(f"--weights {given.weights} are those of a {results['model']}, got --model {given.model}")
        size = results.get("image_size")
    if given.weights and data.is_of_photos(given.data):
        parser.set_defaults(image_size=size)
    args = run.parse(parser)
    if args.weights and Path(args.weights).expanduser().resolve() == args.output.resolve():
        parser.error(f"--output must not be the folder of --weights, got {args.output}")
    return args


def load_weights(args, network, classes, published):
    """Give a network the weights that --weights names; return mean and variance of the images that belong to them.

    Args:
        args: the parsed command line.
        network: a new network, as `build` made it.
        classes: the names of its classes; with weights of the same ones it gets the whole classifier.
        published: as in `command_line`.
    """
    if args.weights == "imagenet":
        module = published[args.model]
        try:
            module.load_imagenet_weights(network)
        except ValueError as error:
            raise data.DataError(f"--weights imagenet: {error}") from error
        except Exception as error:  # a download that fails raises no narrower one
            raise data.DataError(f"--weights imagenet: {error}. Or put the file into ~/.keras/models") from error
        return module.IMAGENET_MEAN, module.IMAGENET_VARIANCE
    trained, learned = run.load_model(args.weights), report.results_of(args.weights)["classes"]
    copy_weights(args, trained.get_layer(args.model), network, same_classes=learned == list(classes))
    normalization = trained.get_layer("normalization")
    return [np.ravel(keras.ops.convert_to_numpy(x)) for x in (normalization.mean, normalization.variance)]


def copy_weights(args, trained, network, same_classes):
    """Copy the weights of a trained network to one of the same architecture; for other classes, not its last layer's.

    The dense layers of a classifier that flattens its feature maps fit images of one size: for another they keep their
    random weights.
    """
    sources = {layer.name: layer for layer in trained.layers}
    with_weights = [layer for layer in network.layers if layer.weights]
    targets = with_weights if same_classes else with_weights[:-1]
    shapes = {name: [weight.shape for weight in layer.weights] for name, layer in sources.items()}
    others = [layer.name for layer in targets if shapes.get(layer.name) != [weight.shape for weight in layer.weights]]
    if any(not name.startswith("classifier") for name in others):
        raise data.DataError(f"--weights {args.weights} are those of another {args.model}: {others[0]} does not fit")
    if others:
        print("The weights are of another image size: the classifier begins with random ones.")
        targets = [layer for layer in targets if not layer.name.startswith("classifier")]
    for layer in targets:
        layer.set_weights(sources[layer.name].get_weights())


def last_group(network):
    """Return the name of a network's last group."""
    return [layer.name for layer in network.layers if re.fullmatch(r"group_\d+", layer.name)][-1]


def freeze_all_but(network, *stages):
    """Freeze all layers but those of the given stages, and batch normalization there too.

    It then works as in inference: the statistics of a few images of another kind would not fit the weights.
    """
    for layer in network.layers:
        in_stages = layer.name.startswith(tuple(f"{stage}_" for stage in stages))
        layer.trainable = in_stages and not isinstance(layer, layers.BatchNormalization)


def unfrozen(args):
    """Return the best model with all layers trainable; it is also saved so, and can be trained further."""
    model = run.best(args)
    for layer in model.get_layer(args.model).layers:  # model.trainable = True does not reach them
        layer.trainable = True
    optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.build(model.trainable_variables)  # or every load would warn
    run.write_whole(args.output / "model.keras", model.save)
    return model

"""Does a deeper VGG learn more (section 4 of the paper), and what does batch normalization, which is newer, change?

    python vgg/depth_and_normalization.py --data synthetic --limit 500 --epochs 1 --seeds 1    # a minute
    python vgg/depth_and_normalization.py                                                      # CIFAR-10

Networks of 6, 8 and 11 layers with weights, the last of which is the classifier: three groups of 32, 64 and 128
filters, with more convolutions in the deeper networks. The paper's deeper networks began with some weights of a
shallower one. All are trained at the learning rate of the networks without batch normalization.
"""

import functools

import run

import experiment
import train
from vgg import build

EPOCHS = 12
FILTERS = (32, 64, 128)  # of the three groups
LAYERS = {6: (1, 2, 2), 8: (2, 2, 3), 11: (3, 3, 4)}  # layers with weights: convolutions of the three groups


@run.errors_as_sentences
def main():
    """Train what the command line says, and write the table and the figure."""
    args = experiment.arguments(__doc__, __file__, EPOCHS)
    networks = {}
    for batch_normalization in (False, True):
        for depth, n_layers in LAYERS.items():
            groups = tuple({"n_layers": n, "n_filters": f} for n, f in zip(n_layers, FILTERS, strict=True))
            metaparameters = {"groups": groups, "batch_normalization": batch_normalization, "n_units": ()}
            name = f"{depth} layers{', batch normalization' * batch_normalization}"
            networks[name] = functools.partial(build, metaparameters)
    experiment.compare(args, networks, train.LEARNING_RATE["vgg11"])


if __name__ == "__main__":
    main()

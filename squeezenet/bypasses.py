"""What do the bypasses around the fire blocks give? Section 6 and table 3 of the paper.

    python squeezenet/bypasses.py --data synthetic --limit 500 --epochs 1 --seeds 1    # a minute
    python squeezenet/bypasses.py                                                      # CIFAR-10

The network for CIFAR-10 that train.py trains: without bypass, with the simple one, which adds no parameters, and with
the complex one, whose 1x1 convolutions do.
"""

import functools

import run

import experiment
import train
from squeezenet import METAPARAMETERS, build

EPOCHS = 20


@run.errors_as_sentences
def main():
    """Train what the command line says, and write the table and the figure."""
    args = experiment.arguments(__doc__, __file__, EPOCHS)
    networks = {
        name: functools.partial(build, METAPARAMETERS["squeezenet_bn_cifar10"] | {"bypass": bypass})
        for name, bypass in (("no bypass", None), ("simple bypass", "simple"), ("complex bypass", "complex"))
    }
    experiment.compare(args, networks, train.LEARNING_RATE["squeezenet_bn_cifar10"])


if __name__ == "__main__":
    main()

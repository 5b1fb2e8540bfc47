"""What does squeeze-excitation give, and how narrow may its first layer be? Tables 4 and 10 of the paper, section 6.1.

    python senet/with_and_without_se.py --data synthetic --limit 500 --epochs 1 --seeds 1    # a minute
    python senet/with_and_without_se.py                                                      # CIFAR-10

The network for CIFAR-10 that train.py trains without squeeze-excitation, which makes it a ResNet; with it at the ratio
of 16 that the paper takes; and at 4, where the first dense layer has four times as many units.
"""

import functools

import run

import experiment
import train
from se_resnet import METAPARAMETERS, build

EPOCHS = 8


@run.errors_as_sentences
def main():
    """Train what the command line says, and write the table and the figure."""
    args = experiment.arguments(__doc__, __file__, EPOCHS)
    networks = {
        name: functools.partial(build, METAPARAMETERS["se_resnet14_wide_cifar10"] | {"ratio": ratio})
        for name, ratio in (("without SE", None), ("ratio 16", 16), ("ratio 4", 4))
    }
    experiment.compare(args, networks, train.LEARNING_RATE)


if __name__ == "__main__":
    main()

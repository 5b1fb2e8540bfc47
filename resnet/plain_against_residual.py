"""Is a deeper network without shortcuts worse, even on the images it has learned from? Figures 1, 4 and 6 of the paper.

    python resnet/plain_against_residual.py --data synthetic --limit 500 --epochs 1 --seeds 1    # a minute
    python resnet/plain_against_residual.py                                                      # CIFAR-10

Plain and residual networks of 20 and 56 layers for CIFAR-10, at each depth with the same number of parameters: where
the shape changes the shortcut is subsampling and channels of zeros. The stem halves the image, which saves three
quarters of the multiply-adds.
"""

import functools

import run

import experiment
import train
from resnet_basic import METAPARAMETERS, build, cifar10_groups

EPOCHS = 8
STEM = {"n_filters": 16, "kernel_size": 3, "strides": 1, "pooling": True}
SHORTCUTS = {"plain": "none", "residual": "zero_padding"}


@run.errors_as_sentences
def main():
    """Train what the command line says, and write the table and the figure."""
    args = experiment.arguments(__doc__, __file__, EPOCHS)
    networks = {
        f"{kind}, {depth} layers": functools.partial(
            build, METAPARAMETERS["resnet20_cifar10"] | {
                "stem": STEM, "groups": cifar10_groups(depth), "shortcut_type": shortcut_type,
            },
        )
        for depth in (20, 56) for kind, shortcut_type in SHORTCUTS.items()
    }  # fmt: skip
    experiment.compare(args, networks, train.LEARNING_RATE)


if __name__ == "__main__":
    main()

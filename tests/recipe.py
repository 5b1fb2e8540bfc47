"""What does each part of the recipe give? Train a ResNet with all parts of it but one.

    python tests/recipe.py WITHOUT --data data/cifar10-jpeg --model resnet8_wide_cifar10 --epochs 13 \\
        --output runs/recipe/WITHOUT

WITHOUT is nothing (the recipe as it is), flip_and_shift, label_smoothing, weight_decay, warm_up, decay_of_the_rate or
momentum. The other flags are those of resnet/train.py.
"""

import functools
import sys
from pathlib import Path
from types import SimpleNamespace

from folders import load
from keras import optimizers

WITHOUT = {
    "nothing": {},
    "flip_and_shift": {"augmentation": lambda x, shift: x},
    "label_smoothing": {"LABEL_SMOOTHING": 0.0},
    "weight_decay": {"WEIGHT_DECAY": 0.0},
    "warm_up": {"WARMUP": 0.0},  # one step of it is left
    "decay_of_the_rate": {
        "optimizers": SimpleNamespace(
            SGD=optimizers.SGD,
            schedules=SimpleNamespace(CosineDecay=functools.partial(optimizers.schedules.CosineDecay, alpha=1.0)),
        ),
    },
    "momentum": {"optimizers": SimpleNamespace(
        SGD=lambda rate, momentum, nesterov: optimizers.SGD(rate), schedules=optimizers.schedules,
    )},
}  # fmt: skip


def main():
    """Run resnet/train.py with one of its constants or functions exchanged."""
    if len(sys.argv) < 2 or sys.argv[1] not in WITHOUT or "--output" not in sys.argv[:-1]:
        sys.exit(__doc__)
    train, without = load("resnet/train.py"), sys.argv.pop(1)
    for name, value in WITHOUT[without].items():
        setattr(train, name, value)
    output = Path(sys.argv[sys.argv.index("--output") + 1])
    noted = output / "without"
    if output.exists() and (noted.read_text() if noted.exists() else None) != without:
        sys.exit(f"--output {output} holds another run: choose another folder")
    start, write = train.run.start, train.report.write

    def start_noted(args):
        noted.write_text(without)
        start(args)

    def write_with_command(*args):
        sys.argv.insert(1, without)  # for the command in results.json
        write(*args)

    train.run.start, train.report.write = start_noted, write_with_command
    train.main()


if __name__ == "__main__":
    main()

"""What does each part of the recipe give? Train vgg's default network with one thing changed.

    python tests/recipe.py CHANGE --data data/cifar10-jpeg    # 45 minutes on 2 cores, a minute on a GPU
    python tests/recipe.py table runs/recipe                  # the table of those that are done

CHANGE is one of the names below; the other flags are those of vgg/train.py. The scores are those of the validation
images: the test images have no part in a choice.
"""

import functools
import json
import sys
from pathlib import Path

from folders import load

CHANGES = {  # name: (what the table calls it, constants of train.py, flags)
    "as_it_is": ("the recipe as it is", {}, []),
    "no_smoothing": ("labels that are not smoothed", {"LABEL_SMOOTHING": 0.0}, []),
    "more_smoothing": ("label smoothing of 0.2, not 0.1", {"LABEL_SMOOTHING": 0.2}, []),
    "less_decay": ("half the weight decay", {"WEIGHT_DECAY": 2.5e-4}, []),
    "more_decay": ("twice the weight decay", {"WEIGHT_DECAY": 1e-3}, []),
    "lower_rate": ("half the learning rate", {}, ["--learning-rate", "0.05"]),
    "higher_rate": ("twice the learning rate", {}, ["--learning-rate", "0.2"]),
    "larger_batches": ("batches of 256, not 128", {}, ["--batch-size", "256"]),
    "short_warmup": ("almost no warm-up", {"WARMUP": 0.001}, []),
    "smaller_shifts": ("shifts of 2 pixels, not 4", {"augmentation": 2.5 / 32}, []),
    "no_augmentation": ("neither flips nor shifts", {"augmentation": None}, []),
    "narrow": ("32, 64, 128 filters, and a hidden dense layer of 128 units", {"MODELS": None}, []),
}
NARROW = {
    "groups": ({"n_layers": 2, "n_filters": 32}, {"n_layers": 2, "n_filters": 64}, {"n_layers": 2, "n_filters": 128}),
    "batch_normalization": True, "n_units": (128,),
}  # fmt: skip


def main():
    """Train with a change, or print the table."""
    if sys.argv[1:2] == ["table"] and len(sys.argv) == 3:
        print(table(Path(sys.argv[2])), end="")
        return
    if len(sys.argv) < 2 or sys.argv[1] not in CHANGES:
        sys.exit(f"{__doc__}\nThe changes: {', '.join(CHANGES)}")
    name = sys.argv.pop(1)
    _, constants, flags = CHANGES[name]
    sys.argv += [*flags, *(() if "--output" in sys.argv else ("--output", f"runs/recipe/{name}"))]
    train = load("vgg/train.py")
    for constant, value in constants.items():
        if constant == "augmentation":
            value = (lambda x: x) if value is None else functools.partial(train.augmentation, shift=value)
        elif constant == "MODELS":
            value = train.MODELS | {train.MODEL: (train.vgg.build, NARROW)}
        setattr(train, constant, value)
    train.main()


def table(folder):
    """Return the table of Markdown of the runs that are done, {folder}/CHANGE/results.json each."""
    found = {
        name: json.loads(path.read_text())["validation_accuracy"]
        for name in CHANGES
        if (path := folder / name / "results.json").exists()
    }
    lines = ["| change | validation accuracy | difference |", "|---|---|---|"]
    for name, accuracy in found.items():
        difference = "" if name == "as_it_is" else f"{100 * (accuracy - found['as_it_is']):+.2f}"
        lines.append(f"| {CHANGES[name][0]} | {accuracy:.2%} | {difference} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

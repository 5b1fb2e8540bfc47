"""What do centered anchors and the released loss give Faster R-CNN? Train it with the mistakes that it once had.

    python tests/rcnn_ablation.py VARIANT --data data/cifar10-jpeg --joint --scenes 1667 --output runs/ablation/VARIANT

VARIANT is now, off_center (anchors 6 pixels to the right of and below their cells), mean (the box loss of the region
proposal network a mean over the positive anchors, as often said, in place of a sum divided by all 256 that count), or
both. The other flags are those of rcnn/train.py. To begin with the pre-training of another run, copy its file
backup/pre-training.weights.h5 to pre-training.weights.h5 in the output folder; a finished run has no backup, so copy it
before the end.
"""

import shutil
import sys

import numpy as np
from folders import load

VARIANTS = {"now": (), "off_center": ("anchors",), "mean": ("loss",), "both": ("anchors", "loss")}


def main():
    """Run rcnn/train.py with one or two functions exchanged."""
    if len(sys.argv) < 2 or sys.argv[1] not in VARIANTS:
        sys.exit(__doc__)
    train, variant = load("rcnn/train.py"), sys.argv.pop(1)
    for change in VARIANTS[variant]:
        {"anchors": move_anchors, "loss": average_loss}[change](train)
    start, write = train.run.start, train.report.write

    def start_pretrained(args):
        noted = args.output / "backup" / "variant"
        if args.model != "faster_rcnn":
            sys.exit(f"--model must be faster_rcnn, got {args.model}")
        if not args.overwrite and noted.exists() and noted.read_text() != variant:
            sys.exit(f"--output {args.output} holds an unfinished run of {noted.read_text()}: choose another folder")
        start(args)
        noted.write_text(variant)
        kept = args.output / "pre-training.weights.h5"
        if kept.exists():
            shutil.copy(kept, args.output / "backup")

    def write_with_variant(*args):
        sys.argv.insert(1, variant)  # for the command in results.json
        write(*args)

    train.run.start, train.report.write = start_pretrained, write_with_variant
    train.main()


def move_anchors(train):
    """Put the anchors where a base size of 16 puts them at strides of 4: around 8 pixels, not 2."""
    boxes = train.faster_rcnn.boxes
    centered = boxes.grid_anchors
    boxes.grid_anchors = lambda height, width, strides, anchors: (
        centered(height, width, strides, anchors) + np.float32(8 - strides / 2)
    )


def average_loss(train):
    """Divide the box loss by the positive anchors alone."""
    released = train.targets.anchor_example

    def anchor_example(*args):
        targets, weights = released(*args)
        positive = weights["anchor_deltas"] > 0
        mean = 4 * train.targets.SIGMA**2 * positive / np.float32(max(1, positive.sum()))
        return targets, weights | {"anchor_deltas": mean.astype("float32")}

    train.targets.anchor_example = anchor_example


if __name__ == "__main__":
    main()

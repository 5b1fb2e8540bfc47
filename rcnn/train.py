"""Train R-CNN, Fast R-CNN or Faster R-CNN on scenes made of CIFAR-10's images.

    python rcnn/train.py --data synthetic --limit 500 --epochs 2    # a minute, no network
    python rcnn/train.py                                            # Faster R-CNN on CIFAR-10, up to an hour
    python rcnn/train.py --model fast_rcnn                          # or rcnn: with selective search

--epochs and --learning-rate are those of every step after the pre-training, --batch-size counts scenes.
To resume an interrupted run, repeat the command.
"""

import json
import time

import keras

import data
import detect
import evaluate
import report
import run
import training
from scenes import make_scenes

# name: the function that trains it, step by step
MODELS = {
    "rcnn": training.train_rcnn,
    "fast_rcnn": training.train_fast_rcnn,
    "faster_rcnn": training.train_faster_rcnn,
}

MODEL = "faster_rcnn"  # the fastest of the three, and without selective search
EPOCHS = {"rcnn": 2, "fast_rcnn": 6, "faster_rcnn": 6}  # of every step after the pre-training; R-CNN's take longer
BATCH_SIZE = 2  # scenes, and 64 regions of each: the paper of Fast R-CNN, section 2.3
LEARNING_RATE = 0.01  # ten times the papers' 0.001, for far fewer updates
PRETRAINING_EPOCHS = 5  # on single images, as in the papers on those of ImageNet
PRETRAINING_RATE = 0.1  # as in the other folders
N_SCENES = {"training": 1000, "validation": 100, "test": 500}  # the last two at most, as many as --scenes
# The other hyperparameters stand in training.py, beside the steps.


@run.errors_as_sentences
def main():
    """Train what the command line says, measure the detector, and write the results."""
    args = arguments()
    splits, classes = data.load(args.data, args.limit, args.seed)
    run.start(args)
    scenes = make_splits(splits, args.scenes, args.seed)
    model, seconds = train(args, splits, scenes, len(classes))
    found = {}
    for name in ("validation", "test"):
        print(f"Detections in the {name} scenes")
        found[name] = detect.detect(model, scenes[name][0])
    scores = report.facts(model, scenes["training"][0], classes) | {"seconds": round(seconds, 1)}
    scores |= evaluate.detection_scores(found, scenes, classes)
    history = training.read_history(args)
    figures = {
        "curves.png": evaluate.loss_curves(history),
        "detections.png": evaluate.detections(*scenes["test"], found["test"][0], classes, *evaluate.DRAWN[args.model]),
    }
    report.write(args, history, scores, figures)
    print(f"mAP at IoU 0.5 {scores['map_50']:.1%} on {scores['test_scenes']} test scenes, in "
          f"{sum(scores['seconds_per_image'].values()):.3f} s a scene; {scores['proposals_per_image']:.0f} proposals "
          f"find {scores['proposal_recall']:.1%} of the objects.")


def arguments():
    """Return the arguments of the command line; a wrong one, or a run that is finished, ends the program here."""
    parser = run.parser(__doc__, MODELS, MODEL, EPOCHS, BATCH_SIZE, LEARNING_RATE)
    flag, n_scenes = parser.add_argument, N_SCENES["training"]
    flag("--pretraining-epochs", metavar="N", type=run.whole(1), default=PRETRAINING_EPOCHS,
         help=f"default {PRETRAINING_EPOCHS}: on single images, as in the papers on those of ImageNet")
    flag("--pretraining-rate", metavar="X", type=run.positive, default=PRETRAINING_RATE,
         help=f"default {PRETRAINING_RATE}: the highest; for a few hundred updates 0.03 is better")
    flag("--scenes", metavar="N", type=run.whole(1, 100_000),
         help=f"train on N scenes; default {n_scenes}, or a tenth of --limit if that is fewer")
    limit = parser.parse_known_args()[0].limit  # before run.parse, which compares the settings with an earlier run's
    parser.set_defaults(scenes=min(n_scenes, max(2, limit // 10)) if limit else n_scenes)
    args = run.parse(parser)
    if args.batch_size > args.scenes:
        parser.error(f"--batch-size must be at most {args.scenes}, the scenes to train on, got {args.batch_size}")
    return args


def make_splits(splits, n_scenes, seed):
    """Return {"training": (scenes, objects), "validation": ..., "test": ...}, each of the images of its split alone.

    The seeds differ too, or the splits would share their canvases.
    """
    numbers = N_SCENES | {"training": n_scenes}
    return {
        name: make_scenes(*splits[name], min(n, n_scenes), 3 * seed + i) for i, (name, n) in enumerate(numbers.items())
    }


def train(args, splits, scenes, n_classes):
    """Train a detector and save it after its last step; return it, and the seconds of all its training.

    Args:
        args: the parsed command line.
        splits: {"training": (images, labels), "validation": ...}, images (N, H, W, C), pixels 0 to 255.
        scenes: the same of scenes and their objects, from make_splits.
        n_classes: how many classes.
    """
    clock = args.output / "backup" / "seconds.json"
    before = json.loads(clock.read_text()) if clock.exists() else 0.0  # those before an interruption
    start = time.perf_counter()
    try:
        if not (args.output / "model.keras").exists():
            pixels = scenes["training"][0]
            mean, variance = pixels.mean((0, 1, 2)), pixels.var((0, 1, 2))
            model = MODELS[args.model](args, splits, scenes, n_classes, mean, variance)
            run.write_whole(args.output / "model.keras", model.save)
    finally:
        seconds = before + time.perf_counter() - start
        run.write_whole(clock, lambda path: path.write_text(json.dumps(seconds)))
    return keras.saving.load_model(args.output / "model.keras"), seconds


if __name__ == "__main__":
    main()

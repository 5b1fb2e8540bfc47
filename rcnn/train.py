"""Train R-CNN, Fast R-CNN or Faster R-CNN on scenes made of CIFAR-10's images.

    python rcnn/train.py --data synthetic --limit 500 --epochs 2    # two minutes, no download
    python rcnn/train.py                                            # Faster R-CNN on CIFAR-10, 45 minutes on 2 cores
    python rcnn/train.py --joint                                    # all of it in one step, after the pre-training
    python rcnn/train.py --model fast_rcnn                          # or rcnn: with selective search

--epochs are those after the pre-training; --batch-size counts scenes.
To resume an interrupted run, repeat the command.
"""

import json
import time

import run

import keras
import numpy as np
from keras import Input, Model, layers

import data
import detect
import drawings
import evaluate
import fast_rcnn
import faster_rcnn
import joint
import linear_models
import rcnn
import report
import steps
import targets
from scenes import image_batches, make_scenes

MODEL = "faster_rcnn"  # the fastest of the three, and without selective search
EPOCHS = {"rcnn": 2, "fast_rcnn": 2, "faster_rcnn": 1}  # of each step; new scenes teach more than the same ones again
RPN_SHARE, HEAD_SHARE = 0.25, 0.5  # of the training scenes: for steps 1 and 3, and for step 4, of Faster R-CNN
BATCH_SIZE = 2  # scenes, and 64 regions of each: section 2.3 of Fast R-CNN
LEARNING_RATE = 0.01  # ten times the papers' 0.001, for far fewer updates; for momentum and decay see steps.py
PRETRAINING_EPOCHS = 5  # on single images, as in the papers on those of ImageNet
PRETRAINING_RATE = 0.1  # the other folders'
PRETRAINING_BATCH = 128
CANVAS = 40  # height and width of what the pre-training sees, in pixels
N_SCENES = {"rcnn": 1000, "fast_rcnn": 2000, "faster_rcnn": 5000}  # fewer where selective search takes long
N_VALIDATION, N_TEST = 100, 500  # or as many as there are to train on, if those are fewer
N_PROPOSALS = 300  # of the region proposal network, to train on; the paper has 2,000
SIZE = 32  # of a region warped for R-CNN in pixels: those of the images of the pre-training
FAST_BACKGROUND, FASTER_BACKGROUND = 0.1, 0.0  # the least IoU with an object that makes a region background


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
        made = scenes[name][0]
        proposals = None if args.model == "faster_rcnn" else steps.search(args, name, made)
        found[name] = detect.detect_all(model, made, name, proposals)
    scores = report.facts(model, splits["training"][0], classes) | {"seconds": round(seconds, 1)}
    scores |= evaluate.detection_scores(found, scenes, classes)
    history = steps.read_history(args)
    report.write(args, history, scores, drawings.of_run(model, history, scenes["test"], found["test"], classes))
    print(f"mAP at IoU 0.5 {scores['map_50']:.1%} on {scores['test_scenes']} test scenes; "
          f"{scores['proposals_per_image']:.0f} proposals find {scores['proposal_recall']:.1%} of the objects.")


def arguments():
    """Return the arguments of the command line; a wrong one, or a run that is finished, ends the program here."""
    parser = run.parser(__doc__, MODELS, MODEL, EPOCHS, BATCH_SIZE, LEARNING_RATE)
    flag = parser.add_argument
    flag("--joint", action="store_true", help="train the parts of Faster R-CNN together; default: in four steps")
    flag("--pretraining-epochs", metavar="N", type=run.whole(1), default=PRETRAINING_EPOCHS,
         help=f"default {PRETRAINING_EPOCHS}: on single images, as in the papers on those of ImageNet")
    flag("--pretraining-rate", metavar="X", type=run.positive, default=PRETRAINING_RATE,
         help=f"default {PRETRAINING_RATE}: the highest")
    flag("--scenes", metavar="N", type=run.whole(1, 100_000),
         help=f"train on N scenes; default {run.listed(N_SCENES)}, or a tenth of --limit if that is fewer")
    given, _ = parser.parse_known_args()  # before run.parse, which compares the settings with an earlier run's
    n_scenes = N_SCENES[given.model]
    parser.set_defaults(scenes=min(n_scenes, max(2, given.limit // 10)) if given.limit else n_scenes)
    if given.joint and given.model != "faster_rcnn":
        parser.error(f"--joint is for faster_rcnn, got --model {given.model}")
    args = run.parse(parser, folder=lambda args: args.model + "_joint" * args.joint, parallel=False)
    if args.batch_size > args.scenes:
        parser.error(f"--scenes must be at least --batch-size, {args.batch_size}, got {args.scenes}")
    return args


def make_splits(splits, n_scenes, seed):
    """Return {"training": (scenes, objects), "validation": ..., "test": ...}, each of the images of its split alone.

    The seeds differ too, or the splits would share their canvases.
    """
    numbers = {"training": n_scenes, "validation": min(N_VALIDATION, n_scenes), "test": min(N_TEST, n_scenes)}
    return {name: make_scenes(*splits[name], n, 3 * seed + i) for i, (name, n) in enumerate(numbers.items())}


def train(args, splits, scenes, n_classes):
    """Train a detector and save it after its last step; return it, and the seconds of all its training.

    Args:
        args: the parsed command line.
        splits: {"training": (images, labels), "validation": ...}, images (N, H, W, C), pixels 0 to 255.
        scenes: the same of scenes and their objects, from make_splits.
        n_classes: how many classes.
    """
    for made, objects in scenes.values():  # before the pre-training, which takes long
        targets.check_objects(made, objects, n_classes)
        if not any(len(truth) for truth, _ in objects):
            raise data.DataError("there must be an object in the scenes of each split, got none")
    clock = args.output / "backup" / "seconds.json"
    before = json.loads(clock.read_text()) if clock.exists() else 0.0  # those before an interruption
    before = max(before, sum(steps.read_history(args).get("seconds", ())))  # or before a kill, those of the epochs
    start = time.perf_counter()
    try:
        if not (args.output / "model.keras").exists():
            mean, variance = data.mean_and_variance(splits["training"][0])
            network = MODELS[args.model](args, splits, scenes, n_classes, mean, variance)
            network.name = args.model
            run.write_whole(args.output / "model.keras", behind_pre_stem(network, mean, variance).save)
    finally:
        seconds = before + time.perf_counter() - start
        run.write_whole(clock, lambda path: path.write_text(json.dumps(seconds)))
    return keras.saving.load_model(args.output / "model.keras"), seconds


def train_rcnn(args, splits, scenes, n_classes, mean, variance):
    """Pre-train, propose, fine-tune on warped regions, then fit linear models to the features."""
    pretrained = pretrain(args, splits, n_classes, mean, variance)
    proposals = {name: steps.search(args, name, scenes[name][0]) for name in ("training", "validation")}
    network = rcnn.build(rcnn.METAPARAMETERS["rcnn_vgg8"], (SIZE, SIZE, 3), 1 + n_classes)
    begin_with(network, pretrained)
    training, validation = (
        targets.warped_batches(*scenes[name], proposals[name], mean, SIZE, args.batch_size, seed)
        for name, seed in (("training", args.seed), ("validation", None))
    )
    model = behind_pre_stem(network, mean, variance)
    steps.fit(args, "fine-tuning", network, model, training, validation, "sparse_categorical_crossentropy")

    detector = rcnn.with_linear_models(network, n_classes)
    model = behind_pre_stem(detector, mean, variance)

    def features(scene, regions):
        outputs = model.predict_on_batch(rcnn.warp(scene, regions, mean, SIZE))
        return outputs["fc7"].astype("float32"), outputs["pool5"].astype("float32")

    kept = args.output / "backup" / "linear_models.weights.h5"
    if kept.exists():
        detector.load_weights(kept)
    else:
        rng = np.random.default_rng(args.seed)
        linear_models.fit_linear_models(
            detector, features, scenes["training"], proposals["training"], n_classes, rng
        )
        run.write_whole(kept, detector.save_weights)
    return detector


def train_fast_rcnn(args, splits, scenes, n_classes, mean, variance):
    """Pre-train, propose, then train the whole network on the regions of a few scenes a step."""
    pretrained = pretrain(args, splits, n_classes, mean, variance)
    proposals = {name: steps.search(args, name, scenes[name][0]) for name in ("training", "validation")}
    shape = scenes["training"][0].shape[1:]
    network = fast_rcnn.build(fast_rcnn.METAPARAMETERS["fast_rcnn_vgg8"], shape, 1 + n_classes, targets.N_REGIONS)
    begin_with(network, pretrained)
    fit_regions(args, "detector", network, scenes, proposals, FAST_BACKGROUND, mean, variance)
    return fast_rcnn.resized(network, shape[:2], detect.N_PROPOSALS)  # as many regions as there will be


def train_faster_rcnn(args, splits, scenes, n_classes, mean, variance):
    """Pre-train, then the four alternating steps of section 3.2 of the paper, or all of it at once.

    1. A region proposal network and its backbone. 2. A Fast R-CNN and its own backbone, on the proposals of the first.
    3. Another region proposal network on the backbone of that, which is frozen. 4. The head of the Fast R-CNN, its
    backbone frozen, on the proposals of the third. Now both have the same backbone, and are one network.
    """
    pretrained = pretrain(args, splits, n_classes, mean, variance)
    shape = scenes["training"][0].shape[1:]
    first, final = (
        faster_rcnn.build(faster_rcnn.METAPARAMETERS["faster_rcnn_vgg8"], shape, 1 + n_classes) for _ in range(2)
    )
    if args.joint:
        begin_with(final, pretrained)
        joint.fit_together(args, final, scenes, N_PROPOSALS, mean, variance)
        return final
    detector = fast_rcnn.build(fast_rcnn.METAPARAMETERS["fast_rcnn_vgg8"], shape, 1 + n_classes, targets.N_REGIONS)
    begin_with(first, pretrained)
    begin_with(detector, pretrained)

    quarter, half = first_of(scenes, RPN_SHARE), first_of(scenes, HEAD_SHARE)
    fit_anchors(args, "1 region proposal network", first, quarter, mean, variance)
    found = propose(first, scenes, mean, variance)
    fit_regions(args, "2 detector", detector, scenes, found, FASTER_BACKGROUND, mean, variance)

    copy(detector, final, "backbone")
    for network in (detector, final):
        network.get_layer("backbone").trainable = False
    fit_anchors(args, "3 region proposal network", final, quarter, mean, variance)
    found = propose(final, half, mean, variance)
    fit_regions(args, "4 head", detector, half, found, FASTER_BACKGROUND, mean, variance)
    copy(detector, final, "head")
    final.get_layer("backbone").trainable = True
    return final


# name: the function that trains it, step by step
MODELS = {"rcnn": train_rcnn, "fast_rcnn": train_fast_rcnn, "faster_rcnn": train_faster_rcnn}


def pretrain(args, splits, n_classes, mean, variance):
    """Train a Fast R-CNN to say what a single image is, on a canvas a little larger than the image; return it.

    The features of an object in a scene see its surroundings too, so those of the pre-training have some.
    """
    network = fast_rcnn.build(
        fast_rcnn.METAPARAMETERS["fast_rcnn_vgg8"], (CANVAS, CANVAS, 3), max(2, n_classes), n_regions=1
    )
    model = behind_pre_stem(network, mean, variance)
    model = Model(model.input, model.output["classes"])
    training, validation = (
        image_batches(splits[name], CANVAS, PRETRAINING_BATCH, seed)
        for name, seed in (("training", args.seed), ("validation", None))
    )
    loss = "sparse_categorical_crossentropy"
    epochs, learning_rate = args.pretraining_epochs, args.pretraining_rate
    try:
        steps.fit(args, "pre-training", network, model, training, validation, loss, learning_rate, epochs)
    except RuntimeError as error:
        if "NaN or Inf loss" not in str(error):  # the words of TerminateOnNaN
            raise
        rate = "--overwrite and a lower --pretraining-rate"
        raise data.DataError(f"the loss of the pre-training is not finite: repeat with {rate}") from error
    return network


# Copied from vgg/train.py
def pre_stem(images, mean, variance):
    """Subtract the mean and divide by the standard deviation: images (N, H, W, C), pixels 0 to 255, the same shape.

    Args:
        images: the images.
        mean, variance: of each channel over the training images, (C,).
    """
    return layers.Normalization(mean=mean, variance=variance, name="normalization")(images)


def behind_pre_stem(network, mean, variance):
    """Return a model of images with pixels 0 to 255, and regions if the network takes some: pre-stem and network."""
    if not isinstance(network.input, dict):
        images = Input(network.input_shape[1:], name="images")
        return Model(images, network(pre_stem(images, mean, variance)))
    inputs = {name: Input(tensor.shape[1:], name=name) for name, tensor in network.input.items()}
    return Model(inputs, network(inputs | {"images": pre_stem(inputs["images"], mean, variance)}))


def begin_with(network, pretrained):
    """Copy what a pre-trained network has learned: the backbone, and the first dense layer of the head."""
    copy(pretrained, network, "backbone")
    head, other = network.get_layer("head"), pretrained.get_layer("head")
    for layer in other.layers:
        if layer.name.startswith("fc6"):  # with its batch normalization
            copy(other, head, layer.name)


def copy(source, target, name):
    """Copy the weights of the layer of this name from one network into another."""
    target.get_layer(name).set_weights(source.get_layer(name).get_weights())


def first_of(scenes, share):
    """Return the splits with the first share of the training scenes alone, at least two."""
    training, objects = scenes["training"]
    n = max(2, round(share * len(training)))
    return scenes | {"training": (training[:n], objects[:n])}


def propose(network, scenes, mean, variance):
    """Return what the region proposal network of a Faster R-CNN proposes: {"training": [(P, 4), ...], ...}."""
    proposals = network.get_layer("proposals").get_config() | {"n_proposals": N_PROPOSALS}
    images = Input(network.input_shape[1:], name="images")
    x = network.get_layer("backbone")(pre_stem(images, mean, variance))
    model = Model(images, faster_rcnn.Proposals.from_config(proposals)(**network.get_layer("rpn")(x)))

    def predict(x):
        return list(model.predict(run.Batches(len(x), 4, lambda chosen, rng: (x[chosen],))))

    print("Proposals for the training and validation scenes")
    return {name: predict(scenes[name][0]) for name in ("training", "validation")}


def fit_anchors(args, step, network, scenes, mean, variance):
    """Train the region proposal network of a Faster R-CNN, and its backbone unless that is frozen: section 3.1.3."""
    images = Input(network.input_shape[1:], name="images")
    x = network.get_layer("backbone")(pre_stem(images, mean, variance))
    model = Model({"images": images}, network.get_layer("rpn")(x))
    anchors = network.get_layer("proposals").all_anchors()
    training, validation = (
        targets.anchor_batches(*scenes[name], anchors, args.batch_size, seed)
        for name, seed in (("training", args.seed), ("validation", None))
    )
    steps.fit(args, step, network, model, training, validation, targets.anchor_losses())


def fit_regions(args, step, network, scenes, proposals, background, mean, variance):
    """Train the head of a Fast R-CNN on given regions, and its backbone unless that is frozen: section 2.3."""
    n_classes = network.output["classes"].shape[2] - 1
    model = behind_pre_stem(network, mean, variance)
    training, validation = (
        targets.region_batches(*scenes[name], proposals[name], n_classes, args.batch_size, seed, background)
        for name, seed in (("training", args.seed), ("validation", None))
    )
    steps.fit(args, step, network, model, training, validation, targets.region_losses())


if __name__ == "__main__":
    main()

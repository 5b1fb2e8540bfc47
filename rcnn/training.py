"""How the three detectors are trained, step by step; an interrupted run resumes within its step.

Every detector begins with a network trained to classify single images, as those of the papers do with ImageNet's. A
detector has no loss of its own, its steps have: so the models that are returned are not compiled.
"""

import csv
import math

import numpy as np
from keras import Input, Model, callbacks, layers, losses, optimizers, regularizers, utils

import batches
import boxes
import fast_rcnn
import faster_rcnn
import rcnn
import run
from detect import N_PROPOSALS, PADDING
from selective_search import selective_search

SIZE = 48  # of a warped region in pixels; objects of the scenes have 24 to 64
MOMENTUM = 0.9  # of the papers
WEIGHT_DECAY = 5e-4  # of the papers
PRETRAINING_BATCH = 128
WARMUP = 0.1  # the share of the updates in which the learning rate rises, from a tenth; then it falls along a cosine
REGIONS_PER_SCENE = 64  # 128 of 2 scenes, the batch of the papers
FAST_BACKGROUND, FASTER_BACKGROUND = 0.1, 0.0  # the least IoU with an object that makes a region background
SIGMA_RPN = 3.0  # where the loss of anchors becomes linear: at 1 / 9
SVM_SCENES = 500  # scenes whose regions the support vector machines learn from
RIDGE_IOU = 0.6  # regions that the box regressors learn from overlap an object by more


def train_rcnn(args, splits, scenes, n_classes, mean, variance):
    """Pre-train, propose, fine-tune on warped regions, then train the linear models on the features."""
    pretrained = pretrain(args, splits, n_classes, mean, variance)
    proposals = {name: search(args, name, scenes[name][0]) for name in ("training", "validation")}
    network = rcnn.build(rcnn.METAPARAMETERS["rcnn_vgg8"], (SIZE, SIZE, 3), 1 + n_classes)
    for layer, source in zip(network.layers, pretrained.layers, strict=True):
        if not isinstance(layer, layers.Dense):  # those start from random weights, their feature maps are larger
            layer.set_weights(source.get_weights())
    n_batches, n_regions = math.ceil(len(scenes["training"][0]) / args.batch_size), REGIONS_PER_SCENE * args.batch_size
    training, validation = (
        batches.warped_batches(*scenes[name], proposals[name], n, n_regions, SIZE, PADDING, seed)
        for name, n, seed in (("training", n_batches, args.seed), ("validation", max(1, n_batches // 10), None))
    )
    images = Input((SIZE, SIZE, 3), name="images")
    model = Model(images, network(pre_stem(images, mean, variance)))
    fit(args, "fine-tuning", network, model, training, validation, "sparse_categorical_crossentropy")

    detector = rcnn.with_linear_models(network, n_classes)
    kept = args.output / "backup" / "linear_models.weights.h5"
    if kept.exists():
        detector.load_weights(kept)
    else:
        fit_linear_models(args, detector, scenes["training"], proposals["training"], n_classes, mean, variance)
        run.write_whole(kept, detector.save_weights)
    detector.name = "rcnn"
    images = Input((SIZE, SIZE, 3), name="images")
    return Model(images, detector(pre_stem(images, mean, variance)))


def fit_linear_models(args, detector, split, proposals, n_classes, mean, variance):
    """Give the layers "scores" and "deltas" of an R-CNN their weights, class by class, from the features of regions.

    The positives of a support vector machine are the objects of its class, its negatives the regions of the first
    SVM_SCENES scenes that hardly overlap one; a box regressor learns from the regions close to an object.
    """
    images = Input((SIZE, SIZE, 3), name="images")
    outputs = detector(pre_stem(images, mean, variance))
    network = Model(images, [outputs["fc7"], outputs["pool5"]])

    def features(scene, regions):
        return network.predict_on_batch(rcnn.warp(scene, regions, SIZE, PADDING))

    of_objects, kinds, of_close, close_kinds, deltas, of_regions, overlaps = [], [], [], [], [], [], []
    print("Features of the training scenes")
    bar = utils.Progbar(len(proposals), unit_name="scene")
    for i, (scene, (truth, classes), found) in enumerate(zip(*split, proposals, strict=True)):
        iou = boxes.iou(found, truth)
        is_close = iou.max(1, initial=0) > RIDGE_IOU
        if len(truth):
            of_objects.append(features(scene, truth)[0])
            kinds.append(classes)
        if is_close.any():
            which = iou[is_close].argmax(1)
            of_close.append(features(scene, found[is_close])[1])
            close_kinds.append(classes[which])
            deltas.append(boxes.encode(found[is_close], truth[which]))
        if i < SVM_SCENES and len(found):
            of_regions.append(features(scene, found)[0])
            overlaps.append([iou[:, classes == k].max(1, initial=0) for k in range(n_classes)])
        bar.add(1)
    of_objects, kinds, of_regions = map(np.concatenate, (of_objects, kinds, of_regions))
    overlaps = np.concatenate(overlaps, 1)  # (K, regions)
    width = network.output[1].shape[1]  # there may be no region that is close to an object
    of_close = np.concatenate([np.zeros((0, width), "float32"), *of_close])
    close_kinds, deltas = np.concatenate([[], *close_kinds]), np.concatenate([np.zeros((0, 4)), *deltas])

    print("Support vector machines and box regressors of the classes")
    bar, rng = utils.Progbar(n_classes, unit_name="class"), np.random.default_rng(args.seed)
    machines, regressors = [], []
    for k in range(n_classes):
        machines.append(rcnn.train_svm(of_objects[kinds == k], of_regions[overlaps[k] < 0.3], rng))
        regressors.append(rcnn.fit_box_regressor(of_close[close_kinds == k], deltas[close_kinds == k]))
        bar.add(1)
    kernels, biases = zip(*machines, strict=True)
    detector.get_layer("scores").set_weights([np.stack(kernels, 1), np.array(biases)])
    kernels, biases = zip(*regressors, strict=True)
    detector.get_layer("deltas").set_weights([np.concatenate(kernels, 1), np.concatenate(biases)])


def train_fast_rcnn(args, splits, scenes, n_classes, mean, variance):
    """Pre-train, propose, then train the whole network, stem and classifier, on the regions of a few scenes a step."""
    pretrained = pretrain(args, splits, n_classes, mean, variance)
    proposals = {name: search(args, name, scenes[name][0]) for name in ("training", "validation")}
    shape, metaparameters = scenes["training"][0].shape[1:], fast_rcnn.METAPARAMETERS["fast_rcnn_vgg8"]
    network = fast_rcnn.build(metaparameters, shape, 1 + n_classes, REGIONS_PER_SCENE)
    begin_with(network, pretrained)
    fit_regions(args, "detector", network, scenes, proposals, FAST_BACKGROUND, mean, variance)
    final = fast_rcnn.build(metaparameters, shape, 1 + n_classes, N_PROPOSALS)  # as many regions as there will be
    final.set_weights(network.get_weights())
    final.name = "fast_rcnn"
    inputs = {"images": Input(shape, name="images"), "regions": Input((N_PROPOSALS, 4), name="regions")}
    return Model(inputs, final(inputs | {"images": pre_stem(inputs["images"], mean, variance)}))


def train_faster_rcnn(args, splits, scenes, n_classes, mean, variance):
    """Pre-train, then the four alternating steps of section 3.2 of the paper.

    1. A region proposal network, stem and all. 2. A Fast R-CNN, stem and all, on the proposals of the first. 3. A
    region proposal network on the stem of that, which is frozen. 4. The classifier of the Fast R-CNN, its stem frozen,
    on the proposals of the third. Now both have the same stem, and are one network.
    """
    pretrained = pretrain(args, splits, n_classes, mean, variance)
    shape, metaparameters = scenes["training"][0].shape[1:], faster_rcnn.METAPARAMETERS["faster_rcnn_vgg8"]
    first, final = (faster_rcnn.build(metaparameters, shape, 1 + n_classes) for _ in range(2))
    metaparameters = fast_rcnn.METAPARAMETERS["fast_rcnn_vgg8"]
    detector = fast_rcnn.build(metaparameters, shape, 1 + n_classes, REGIONS_PER_SCENE)
    begin_with(first, pretrained)
    begin_with(detector, pretrained)

    fit_anchors(args, "1 region proposal network", first, scenes, mean, variance)
    found = propose(first, scenes, mean, variance)
    fit_regions(args, "2 detector", detector, scenes, found, FASTER_BACKGROUND, mean, variance)
    share(detector, final)
    for network in (detector, final):
        for layer in stem_of(network).layers:
            layer.trainable = False
    fit_anchors(args, "3 region proposal network", final, scenes, mean, variance)
    found = propose(final, scenes, mean, variance)
    fit_regions(args, "4 classifier", detector, scenes, found, FASTER_BACKGROUND, mean, variance)
    share(detector, final)
    for layer in stem_of(final).layers:
        layer.trainable = True
    final.name = "faster_rcnn"
    images = Input(shape, name="images")
    return Model(images, final(pre_stem(images, mean, variance)))


def pretrain(args, splits, n_classes, mean, variance):
    """Train the small network of R-CNN to classify the single images, and return it.

    Scenes are not augmented so: batches.py mirrors them together with their boxes.
    """
    shape = splits["training"][0].shape[1:]
    network = rcnn.build(rcnn.METAPARAMETERS["rcnn_vgg8"], shape, n_classes)
    images = Input(shape, name="images")
    model = Model(images, network(augmentation(pre_stem(images, mean, variance))))
    training = run.batches(splits["training"], PRETRAINING_BATCH, args.seed)
    validation = run.batches(splits["validation"], PRETRAINING_BATCH)
    loss = "sparse_categorical_crossentropy"
    epochs, learning_rate = args.pretraining_epochs, args.pretraining_rate
    fit(args, "pre-training", network, model, training, validation, loss, None, learning_rate, epochs)
    return network


# Copied from vgg/train.py
def pre_stem(images, mean, variance):
    """Normalize images (N, H, W, C), pixels 0 to 255, to zero mean and unit variance: the same shape.

    Args:
        images: the images.
        mean, variance: of each channel over the training images, (C,).
    """
    return layers.Normalization(mean=mean, variance=variance, name="normalization")(images)


# Copied from vgg/train.py
def augmentation(x, shift=4.5 / 32):
    """Flip half of the images and shift all: (N, H, W, C), the same shape. He et al. 2015, section 4.2.

    Args:
        x: normalized images, so that the zeros that fill the border are the mean color.
        shift: the share of height and width; 4.5 of 32 rounds to -4 ... 4 pixels alike, as padding and cropping does.
    """
    x = layers.RandomFlip("horizontal")(x)
    return layers.RandomTranslation(shift, shift, fill_mode="constant", interpolation="nearest")(x)


def begin_with(network, pretrained):
    """Copy what a pre-trained network has learned into a Fast or Faster R-CNN: the stem and the dense layers.

    The pooling that the one has between them, and RoI pooling, which the other has, have no weights.
    """
    source = [layer for layer in pretrained.layers[:-1] if layer.weights]
    target = [layer for layer in stem_of(network).layers if layer.weights]
    target += [layer for layer in network.layers if layer.name.startswith("fc")]
    for layer, other in zip(target, source, strict=True):
        layer.set_weights(other.get_weights())


def share(detector, network):
    """Copy a Fast R-CNN into a Faster R-CNN: all layers but those of the region proposal network."""
    source = [layer for layer in detector.layers if layer.weights]
    target = [layer for layer in network.layers if layer.weights and not layer.name.startswith("rpn")]
    for layer, other in zip(target, source, strict=True):
        layer.set_weights(other.get_weights())


def stem_of(network):
    """Return the stem of a Fast or Faster R-CNN, which shares its layers."""
    images = network.input["images"] if isinstance(network.input, dict) else network.input
    return Model(images, network.get_layer("feature_maps").output)


def search(args, name, scenes):
    """Return the proposals of selective search for each scene; those of every hundred scenes are kept in the backup."""
    print(f"Selective search in the {name} scenes")
    bar, found = utils.Progbar(len(scenes), unit_name="scene"), []
    for first in range(0, len(scenes), 100):
        path = args.output / "backup" / f"proposals_{name}_{first}.npz"
        if not path.exists():
            of_each = []
            for i, scene in enumerate(scenes[first : first + 100], first):
                of_each.append(selective_search(scene, max_boxes=N_PROPOSALS))
                bar.update(i)
            run.write_whole(path, lambda path, of_each=of_each: np.savez(path, *of_each))
        with np.load(path) as arrays:
            found += [arrays[key] for key in arrays.files]
    bar.update(len(scenes))
    return found


def propose(network, scenes, mean, variance):
    """Return what the region proposal network of a Faster R-CNN proposes: {"training": [(P, 4), ...], ...}."""
    images = Input(network.input_shape[1:], name="images")
    proposals = Model(network.input, network.get_layer("proposals").output)
    model = Model(images, proposals(pre_stem(images, mean, variance)))

    def predict(x):
        return list(model.predict(run.Batches(len(x), 16, lambda chosen, rng: (x[chosen],))))

    print("Proposals for the training and validation scenes")
    return {name: predict(scenes[name][0]) for name in ("training", "validation")}


def fit_anchors(args, step, network, scenes, mean, variance):
    """Train the region proposal network of a Faster R-CNN, and its stem unless that is frozen: section 3.1.3."""
    names = ("objectness", "anchor_deltas")
    part = Model(network.input, {name: network.get_layer(name).output for name in names})
    images = Input(network.input_shape[1:], name="images")
    model = Model({"images": images}, part(pre_stem(images, mean, variance)))
    anchors = np.array(network.get_layer("proposals").anchors, "float32")
    training, validation = (
        batches.anchor_batches(*scenes[name], anchors, args.batch_size, seed)
        for name, seed in (("training", args.seed), ("validation", None))
    )
    loss = {
        "objectness": losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"),
        "anchor_deltas": fast_rcnn.SmoothL1(SIGMA_RPN),
    }
    fit(args, step, network, model, training, validation, loss)


def fit_regions(args, step, network, scenes, proposals, background, mean, variance):
    """Train the classifier of a Fast R-CNN on given regions, and its stem unless that is frozen: section 2.3.

    The loss of the boxes is a mean over the regions of objects alone, the paper's is one over all regions: hence its
    weight, the share of objects.
    """
    _, n_regions, n_classes, _ = network.output["deltas"].shape
    shape = network.input["images"].shape[1:]
    inputs = {"images": Input(shape, name="images"), "regions": Input((n_regions, 4), name="regions")}
    model = Model(inputs, network(inputs | {"images": pre_stem(inputs["images"], mean, variance)}))
    training, validation = (
        batches.region_batches(
            *scenes[name], proposals[name], n_classes - 1, args.batch_size, seed, n_regions, background
        )
        for name, seed in (("training", args.seed), ("validation", None))
    )
    loss = {
        "classes": losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight"),
        "deltas": fast_rcnn.SmoothL1(),
    }
    fit(args, step, network, model, training, validation, loss, {"classes": 1, "deltas": 0.25})


def fit(args, step, network, model, training, validation, loss, loss_weights=None, learning_rate=None, epochs=None):
    """Train a model for one step, and keep the weights of the network that it is part of; skip a step that is done.

    Args:
        args: the parsed command line.
        step: its name.
        network: the network whose weights are kept.
        model: the network or a part of it, behind the pre-stem.
        training, validation: Batches.
        loss, loss_weights: arguments of Model.compile.
        learning_rate, epochs: by default those of args.
    """
    learning_rate, epochs = learning_rate or args.learning_rate, epochs or args.epochs
    backup = args.output / "backup"
    kept = backup / f"{step.replace(' ', '_')}.weights.h5"
    if kept.exists():
        network.load_weights(kept)
    else:
        for variable in network.trainable_variables:
            if variable.name == "kernel":  # not biases, not batch normalization
                variable.regularizer = regularizers.L2(WEIGHT_DECAY / 2)  # gradient: WEIGHT_DECAY times the kernel
        n_updates = epochs * len(training)
        n_warmup = max(1, round(WARMUP * n_updates))
        schedule = optimizers.schedules.CosineDecay(
            learning_rate / 10, max(1, n_updates - n_warmup), warmup_target=learning_rate, warmup_steps=n_warmup
        )
        model.compile(optimizers.SGD(schedule, MOMENTUM), loss, loss_weights)
        steps_callbacks = [
            callbacks.TerminateOnNaN(raise_error=True),
            run.Epochs(training, args.seed),
            StepLog(args.output / "history.csv", step),
            callbacks.BackupAndRestore(backup, double_checkpoint=True, delete_checkpoint=False),
        ]
        print(f"Step: {step}")
        model.fit(training, epochs=epochs, validation_data=validation, shuffle=False, callbacks=steps_callbacks)
        run.write_whole(kept, network.save_weights)
    for path in (*backup.glob("latest.weights.h5*"), *backup.glob("training_metadata.json*")):
        path.unlink()  # or the next step would resume from there


class StepLog(callbacks.Callback):
    """Write a row of history.csv after each epoch: the step, its epoch, losses and seconds."""

    def __init__(self, path, step):
        super().__init__()
        self.path, self.step = path, step

    def on_epoch_end(self, epoch, logs=None):
        """Write the row; before the first one, the names of the columns."""
        columns = ("loss", "val_loss", "seconds")
        is_new = not self.path.exists()
        with open(self.path, "a", newline="") as file:
            rows = csv.writer(file)
            if is_new:
                rows.writerow(["step", "epoch", *columns])
            rows.writerow([self.step, epoch, *(logs[name] for name in columns)])


def read_history(args):
    """Return history.csv as {column: values}; drops the duplicate epoch of an interrupted step."""
    path = args.output / "history.csv"
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        rows = {(row["step"], row["epoch"]): row for row in csv.DictReader(file)}.values()
    types = {"step": str, "epoch": int}
    return {name: [types.get(name, float)(row[name]) for row in rows] for name in next(iter(rows), ())}

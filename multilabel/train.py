"""Train a small ResNet to give an image of CIFAR-10 several labels.

    python multilabel/train.py --data synthetic --epochs 4    # a minute, no download
    python multilabel/train.py                                # groups: kind, realm, alive; 15 to 25 minutes
    python multilabel/train.py --task mosaic                  # the classes in 2x2 mosaics

The default output folder is runs/NAME_TASK. To resume an interrupted run, repeat the command.
"""

import run

from keras import Input, Model, distribution, layers, metrics, ops, optimizers, random, regularizers

import data
import multilabel
import report
import tasks

# name: the function that builds it, and its metaparameters
MODELS = {name: (multilabel.build, metaparameters) for name, metaparameters in multilabel.METAPARAMETERS.items()}

MODEL = "multilabel_resnet14_wide_cifar10"
EPOCHS = 15  # 15 to 25 minutes on 2 cores
BATCH_SIZE = 128  # images, section 4.2 of ResNet's paper; so 32 mosaics
LEARNING_RATE = 0.1  # section 4.2
MOMENTUM = 0.9  # section 4.2; in Nesterov's form, as in fb.resnet.torch
WEIGHT_DECAY = 5e-4  # the paper's 1e-4 is for twelve times as many epochs
WARMUP = 0.1  # the share of the steps in which the learning rate rises; He et al. 2015 warm up ResNet-110, section 4.2
LOSS_WEIGHTS = {"kind": 1.0, "realm": 0.5, "alive": 0.5, "outline": 0.5, "filled": 0.5}  # the kind is the hardest
MONITOR = {"groups": "val_kind_accuracy", "mosaic": "val_macro_f1"}  # the kind decides the other groups


# Copied from vgg/train.py
def pre_stem(images, mean, variance):
    """Subtract the mean and divide by the standard deviation: images (N, H, W, C), pixels 0 to 255, the same shape.

    Args:
        images: the images.
        mean, variance: of each channel over the training images, (C,).
    """
    return layers.Normalization(mean=mean, variance=variance, name="normalization")(images)


# Copied from vgg/train.py
class RandomShift(layers.Layer):
    """Pad each image with zeros and crop it at random to its own size: (N, H, W, C), the same shape.

    Keras' RandomCrop crops all images of a batch alike; its RandomTranslation takes most of a training step on
    a GPU with JAX.

    Args:
        shift: the padding, as a share of height and width.
    """

    def __init__(self, shift, **kwargs):
        super().__init__(**kwargs)
        self.shift, self.seeds = shift, random.SeedGenerator()

    def call(self, x, training=False):
        """Shift rows, then columns, in training; else do nothing."""
        if not training:
            return x
        n, height, width, _ = ops.shape(x)
        for size in (height, width):
            padding = round(self.shift * size)
            x = ops.pad(x, ((0, 0), (padding, padding), (0, 0), (0, 0)))
            first = random.randint((n, 1), 0, 2 * padding + 1, seed=self.seeds)  # in each padded image
            rows = ops.arange(n)[:, None] * (size + 2 * padding) + first + ops.arange(size)  # (N, size), in the batch
            x = ops.take(ops.reshape(x, (-1, *x.shape[2:])), rows, axis=0)
            x = ops.transpose(x, (0, 2, 1, 3))  # rows become columns, and after the second time rows again
        return x


# Copied from vgg/train.py
def augmentation(x, shift=4 / 32):
    """Flip half of the images and shift all: (N, H, W, C), the same shape. He et al. 2015, section 4.2.

    Args:
        x: normalized images, so that the zeros that fill the border are the mean color.
        shift: the share of height and width by which an image is shifted at most; by default 4 of 32 pixels.
    """
    x = layers.RandomFlip("horizontal")(x)
    return RandomShift(shift)(x)


@run.errors_as_sentences
def main():
    """Train what the command line says, measure the best model, and write the results."""
    parser = run.parser(__doc__, MODELS, MODEL, EPOCHS, BATCH_SIZE, LEARNING_RATE)
    parser.add_argument(
        "--task", metavar="groups|mosaic", choices=MONITOR, default="groups",
        help="default groups: one class of each group; mosaic: every class that is in a 2x2 mosaic",
    )
    args = run.parse(parser, folder=lambda args: f"{args.model}_{args.task}")
    if args.task == "mosaic" and distribution.distribution():
        n = 4 * len(distribution.list_devices())
        if args.batch_size % n:
            parser.error(f"--batch-size must be divisible by {n}, four images for each device, got {args.batch_size}")
    splits, classes = data.load(args.data, args.limit, args.seed)
    run.start(args)
    model = train(args, splits, classes)
    scores = report.facts(model, splits["training"][0], classes) | tasks.scores(model, args.task, splits, classes)
    figures = {"predictions.png": tasks.predictions_figure(model, args.task, splits["test"], classes)}
    report.write(args, run.history(args), scores, figures)
    print(tasks.sentence(args.task, scores))


def train(args, splits, classes):
    """Train on normalized, augmented images; return the model without augmentation, from its best epoch.

    Args:
        args: the parsed command line.
        splits: {"training": (images, labels), "validation": ...}, images (N, H, W, C), pixels 0 to 255.
        classes: the names of the classes.
    """
    x, _ = splits["training"]
    training = tasks.examples(args.task, splits["training"], classes, args.batch_size, args.seed)
    validation = tasks.examples(args.task, splits["validation"], classes, args.batch_size)
    input_shape = training[0][0].shape[1:]  # (H, W, C), or of mosaics (2H, 2W, C)
    build, metaparameters = MODELS[args.model]
    n_classes = {name: len(group) for name, group in tasks.groups(classes).items()}
    network = build(metaparameters, input_shape, n_classes if args.task == "groups" else len(classes))
    network.name = args.model
    images = Input(input_shape, name="images")
    normalized = pre_stem(images, *data.mean_and_variance(x))
    kept = Model(images, network(normalized))  # to be used: pixels in, nothing random
    augmented = augmentation(normalized, shift=4 / input_shape[0])  # of 32, or of a mosaic's 64
    trained = Model(images, network(augmented))  # the same layers, the same weights

    for variable in network.trainable_variables:
        if variable.name == "kernel":  # not biases, not batch normalization
            variable.regularizer = regularizers.L2(WEIGHT_DECAY / 2)  # the gradient is WEIGHT_DECAY times the kernel
    n_steps = args.epochs * len(training)
    n_warmup = max(1, round(WARMUP * n_steps))
    schedule = optimizers.schedules.CosineDecay(  # in place of the papers' steps, for few epochs
        args.learning_rate / 10, max(1, n_steps - n_warmup), warmup_target=args.learning_rate, warmup_steps=n_warmup
    )
    for model, learning_rate in ((trained, schedule), (kept, args.learning_rate / 10)):  # constant when saved
        model.compile(optimizers.SGD(learning_rate, MOMENTUM, nesterov=True), **objective(args.task, classes))
    kept.optimizer.build(kept.trainable_variables)  # or every load would warn
    callbacks = run.callbacks_for(args, kept, training, MONITOR[args.task])
    trained.fit(training, epochs=args.epochs, validation_data=validation, shuffle=False, callbacks=callbacks)
    return run.best(args)


def objective(task, classes):
    """Return the loss and the metrics of a task, as arguments of `compile`; of groups, those of each output."""
    if task == "groups":
        names = tasks.groups(classes)
        return {
            "loss": dict.fromkeys(names, "sparse_categorical_crossentropy"),
            "loss_weights": {name: LOSS_WEIGHTS[name] for name in names},
            "metrics": {name: ["accuracy"] for name in names},
        }
    f1 = [metrics.F1Score(average, threshold=0.5, name=f"{average}_f1") for average in ("macro", "micro")]
    return {"loss": "binary_crossentropy", "metrics": [*f1, "binary_accuracy"]}


if __name__ == "__main__":
    main()

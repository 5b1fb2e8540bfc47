"""Train a VGG on CIFAR-10.

    python vgg/train.py --data synthetic --epochs 4 --learning-rate 0.02    # a minute or two, no download
    python vgg/train.py                                                     # CIFAR-10, 45 minutes on 2 cores
    python vgg/train.py --data FOLDER                                       # photos, with a subfolder for each class

To resume an interrupted run, repeat the command.
"""

import run

from keras import Input, Model, layers, losses, ops, optimizers, random, regularizers, utils

import data
import figures
import report
import transfer
import vgg

# name: the function that builds it, and its metaparameters
MODELS = {name: (vgg.build, metaparameters) for name, metaparameters in vgg.METAPARAMETERS.items()}
PUBLISHED = dict.fromkeys(("vgg16", "vgg19"), vgg)  # whose weights keras.applications has
PICTURES = figures.of_run  # what is drawn at the end of a run

MODEL = "vgg8_cifar10"
EPOCHS = 24  # 45 minutes on 2 cores
BATCH_SIZE = 128  # He et al. 2015, section 4.2; the VGG paper has no CIFAR-10
LEARNING_RATE = {  # with batch normalization He et al. 2015, section 4.2; without it the VGG paper, section 3.1
    name: 0.1 if metaparameters.get("batch_normalization") else 0.01 for name, (_, metaparameters) in MODELS.items()
}
MOMENTUM = 0.9  # section 3.1; in Nesterov's form, as in fb.resnet.torch
WEIGHT_DECAY = 5e-4  # section 3.1
LABEL_SMOOTHING = 0.1  # Szegedy et al. 2015 (Inception v3), section 7
WARMUP = 0.1  # the share of the steps in which the learning rate rises; He et al. 2015 warm up ResNet-110, section 4.2
SHIFT = 4 / 32  # of height and width; He et al. 2015, section 4.2
TRANSFER_EPOCHS = 10  # with --weights, of each of two steps: the classifier alone, then the last group too
TRANSFER_RATE = 0.01  # the highest of the first step; the second has a tenth of it


def pre_stem(images, mean, variance):
    """Subtract the mean and divide by the standard deviation: images (N, H, W, C), pixels 0 to 255, the same shape.

    Args:
        images: the images.
        mean, variance: of each channel over the training images, (C,).
    """
    return layers.Normalization(mean=mean, variance=variance, name="normalization")(images)


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
    args = transfer.command_line(parser, PUBLISHED, TRANSFER_EPOCHS, TRANSFER_RATE)
    splits, classes = data.load(args.data, args.limit, args.seed, args.image_size)
    args.photos = data.fingerprint(splits)
    x, _ = splits["training"]
    network = run.built(args, *MODELS[args.model], x.shape[1:], len(classes))
    network.name = args.model
    if args.weights:
        mean, variance = transfer.load_weights(args, network, classes, PUBLISHED)
        run.start(args)
        model = train_in_two_steps(args, network, splits, mean, variance)
    else:
        mean, variance = data.mean_and_variance(x)
        run.start(args)
        train(args, network, splits, mean, variance, args.learning_rate)
        model = run.best(args)
    scores = report.facts(model, x, classes) | report.evaluate(model, splits, args.batch_size)
    probabilities = model.predict(run.batches(splits["test"], args.batch_size), verbose=0)
    pictures = PICTURES(model, model.get_layer(args.model), splits["test"], probabilities, classes)
    report.write(args, run.history(args), scores, pictures)
    print(f"{scores['test_accuracy']:.2%} of {len(splits['test'][1])} test images are classified correctly.")


def train_in_two_steps(args, network, splits, mean, variance):
    """Train on the weights of another training: the classifier on frozen features, then the last group, more slowly.

    Until the classifier has learned, its gradients would spoil the features. These are computed anew in each epoch,
    since augmentation changes the images. The arguments are those of `train`.
    """
    steps = {"step_1": ["classifier"], "step_2": ["classifier", transfer.last_group(network)]}
    for i, (step, stages) in enumerate(steps.items()):
        transfer.freeze_all_but(network, *stages)
        train(args, network, splits, mean, variance, args.learning_rate / 10**i, i * args.epochs, step)
    return transfer.unfrozen(args)


def train(args, network, splits, mean, variance, learning_rate, first_epoch=0, step=""):
    """Train on normalized, augmented images; keep the model without augmentation, of its best epoch.

    Args:
        args: the parsed command line.
        network: from normalized images (N, H, W, C) to class probabilities.
        splits: {"training": (images, labels), "validation": ...}, images (N, H, W, C), pixels 0 to 255.
        mean, variance: of each channel, (C,), to normalize by.
        learning_rate: the highest, at the end of the warm-up.
        first_epoch, step: where a training of several steps is, and the name of the step.
    """
    images = Input(network.input_shape[1:], name="images")
    normalized = pre_stem(images, mean, variance)
    kept = Model(images, network(normalized))  # to be used: pixels in, nothing random
    trained = Model(images, network(augmentation(normalized, SHIFT)))  # the same layers, the same weights

    for variable in network.trainable_variables:
        if variable.name == "kernel":  # not biases, not batch normalization
            variable.regularizer = regularizers.L2(WEIGHT_DECAY / 2)  # the gradient is WEIGHT_DECAY times the kernel

    def one_hot(labels):
        return utils.to_categorical(labels, network.output_shape[1]).astype("float32")

    training, validation = (
        run.batches(splits[name], args.batch_size, seed, one_hot)
        for name, seed in (("training", args.seed), ("validation", None))
    )
    n_steps = args.epochs * len(training)
    n_warmup = max(1, round(WARMUP * n_steps))
    schedule = optimizers.schedules.CosineDecay(  # in place of the papers' steps, for few epochs
        learning_rate / 10, max(1, n_steps - n_warmup), warmup_target=learning_rate, warmup_steps=n_warmup
    )
    loss = losses.CategoricalCrossentropy(label_smoothing=LABEL_SMOOTHING)
    trained.compile(optimizers.SGD(schedule, MOMENTUM, nesterov=True), loss, metrics=["accuracy"])
    optimizer = optimizers.SGD(learning_rate / 10, MOMENTUM, nesterov=True)  # the saved one has a constant rate
    kept.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    kept.optimizer.build(kept.trainable_variables)  # or every load would warn
    callbacks = run.callbacks_for(args, kept, training, step=step)
    trained.fit(training, initial_epoch=first_epoch, epochs=first_epoch + args.epochs, validation_data=validation,
                shuffle=False, callbacks=callbacks)


if __name__ == "__main__":
    main()

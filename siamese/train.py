"""Train a Siamese network on pairs of images of CIFAR-10.

    python siamese/train.py --data synthetic --epochs 20    # minutes, no download
    python siamese/train.py                                 # CIFAR-10, half an hour on 2 cores
    python siamese/train.py --held-out-classes 2            # trials with classes never seen

The default output folder is runs/NAME, or runs/NAME_held_out_N. To resume an interrupted run, repeat the command.
"""

import run

import numpy as np
from keras import Input, Model, layers, ops, optimizers, random, regularizers

import data
import pairs
import report
import siamese
import similarities

# name: the function that builds it, and its metaparameters; siamese_omniglot is for images of 105x105
MODELS = {"siamese_cifar10": (siamese.build, siamese.METAPARAMETERS["siamese_cifar10"])}

MODEL = "siamese_cifar10"
EPOCHS = 25  # half an hour on 2 cores
BATCH_SIZE = 64  # pairs, so 128 images, as many as most other folders have in a batch
LEARNING_RATE = 0.1  # the highest that the paper tried
MOMENTUM = 0.9  # the paper searched 0 to 1 for each layer; in Nesterov's form, as in fb.resnet.torch
WEIGHT_DECAY = 5e-4  # the paper searched 0 to 0.1 for each layer
WARMUP = 0.1  # the share of the steps in which the learning rate rises; He et al. 2015 warm up ResNet-110, section 4.2
SHIFT = 4 / 32  # of height and width; He et al. 2015, section 4.2


def pre_stem(pair, mean, variance):
    """Normalize a pair of images (N, H, W, C), pixels 0 to 255, by one layer, to zero mean and unit variance.

    Args:
        pair: left and right images.
        mean, variance: of each channel over the training images, (C,).

    Returns:
        The pair, of the same shapes.
    """
    normalization = layers.Normalization(mean=mean, variance=variance, name="normalization")
    return [normalization(images) for images in pair]


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
        "--held-out-classes", metavar="N", type=int, choices=(0, *range(2, 9)), default=0,
        help="default 0: train on all ten; 2 to 8: the one-shot trials are on N classes that training never sees",
    )
    parser.add_argument(
        "--ways", metavar="N", type=run.whole(2, 10),
        help="default 10, or as many as are held out: the classes of a one-shot trial",
    )
    parser.add_argument(
        "--trials", metavar="N", type=run.whole(1, 10_000), default=1_000,
        help="default 1000: one-shot trials; the paper has 400",
    )
    max_ways = parser.parse_known_args()[0].held_out_classes or 10
    parser.set_defaults(ways=max_ways)  # now, since run.parse compares the flags with those of an earlier run
    args = run.parse(parser, folder=lambda args: args.model + f"_held_out_{max_ways}" * (args.held_out_classes > 0))
    if args.ways > max_ways:
        parser.error(f"--ways must be at most {max_ways}, the classes of the one-shot trials, got {args.ways}")
    splits, classes = data.load(args.data, args.limit, args.seed)
    splits, one_shot = pairs.hold_out(splits, len(classes), args.held_out_classes, args.ways, args.seed)
    run.start(args)
    model = train(args, splits)
    (images, labels), (test_images, test_labels) = one_shot, splits["test"]
    trials = pairs.one_shot_trials(labels, args.ways, args.trials, np.random.default_rng(args.seed))
    of_trials = pairs.one_shot_similarities(model, images, *trials[:2])
    means = pairs.mean_similarities(model, test_images, test_labels, args.seed)
    scores = report.facts(model, splits["training"][0], classes) | pairs.score_pairs(model, splits, args.seed)
    scores |= {
        "test_pairs": len(test_labels),
        "one_shot_accuracy": float((of_trials.argmax(-1) == trials[2]).mean()),
        "one_shot_chance": 1 / args.ways,
        "one_shot_classes": [classes[label] for label in sorted(set(labels))],
    }
    (left, right), same = pairs.fixed_pairs(splits["test"], 28, args.seed)[0]
    similarity = model.predict((left, right), verbose=0)[:, 0]
    figures = {
        "predictions.png": similarities.pairs_figure(left, right, same, similarity),
        "similarity.png": similarities.classes_figure(means, [classes[label] for label in sorted(set(test_labels))]),
        "one_shot.png": similarities.trials_figure(images, labels, classes, trials, of_trials),
    }
    report.write(args, run.history(args), scores, figures)
    print(f"{scores['test_accuracy']:.2%} of {scores['test_pairs']} test pairs are classified correctly, and "
          f"{scores['one_shot_accuracy']:.2%} of {args.trials} one-shot trials (by chance {1 / args.ways:.2%}).")


def train(args, splits):
    """Train on normalized, augmented images; return the model without augmentation, from its best epoch.

    Args:
        args: the parsed command line.
        splits: {"training": (images, labels), "validation": ...}, images (N, H, W, C), pixels 0 to 255.
    """
    x, _ = splits["training"]
    build, metaparameters = MODELS[args.model]
    network = build(metaparameters, x.shape[1:])
    network.name = args.model
    pair = [Input(x.shape[1:], name=name) for name in ("left", "right")]
    normalized = pre_stem(pair, *data.mean_and_variance(x))
    kept = Model(pair, network(normalized))  # to be used: pixels in, nothing random
    trained = Model(pair, network([augmentation(images, SHIFT) for images in normalized]))  # the same weights

    for variable in network.trainable_variables:  # those of the twin are there once
        if variable.name == "kernel":  # not biases, not batch normalization
            variable.regularizer = regularizers.L2(WEIGHT_DECAY / 2)  # the gradient is WEIGHT_DECAY times the kernel
    training = pairs.training_pairs(splits["training"], args.batch_size, args.seed)
    n_steps = args.epochs * len(training)
    n_warmup = max(1, round(WARMUP * n_steps))
    schedule = optimizers.schedules.CosineDecay(  # the paper multiplies the rate by 0.99 after each epoch
        args.learning_rate / 10, max(1, n_steps - n_warmup), warmup_target=args.learning_rate, warmup_steps=n_warmup
    )
    for model, learning_rate in ((trained, schedule), (kept, args.learning_rate / 10)):  # constant when saved
        optimizer = optimizers.SGD(learning_rate, MOMENTUM, nesterov=True)
        model.compile(optimizer, "binary_crossentropy", metrics=["accuracy"])
    kept.optimizer.build(kept.trainable_variables)  # or every load would warn
    validation = pairs.fixed_pairs(splits["validation"], args.batch_size, args.seed)
    callbacks = run.callbacks_for(args, kept, training)
    trained.fit(training, epochs=args.epochs, validation_data=validation, shuffle=False, callbacks=callbacks)
    return run.best(args)


if __name__ == "__main__":
    main()

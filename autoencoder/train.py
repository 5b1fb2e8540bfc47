"""Train an autoencoder on CIFAR-10, and compare it with simpler codes of at most its size.

    python autoencoder/train.py --data synthetic --epochs 20    # minutes, no download
    python autoencoder/train.py                                 # CIFAR-10, about 14 minutes

To resume an interrupted run, repeat the command.
"""

import math

import run

import numpy as np
from keras import Input, Model, layers, optimizers

import autoencoder
import codes
import data
import report

# name: the function that builds it, and its metaparameters
MODELS = {name: (autoencoder.build, metaparameters) for name, metaparameters in autoencoder.METAPARAMETERS.items()}

MODEL = "autoencoder_cifar10"  # a code of 4x4x32, a sixth of the image
EPOCHS = 20  # about 14 minutes on 2 cores
BATCH_SIZE = 64  # half of 128: twice as many steps an epoch
LEARNING_RATE = 1e-2  # in short runs 5e-3 learned less, 2e-2 hardly more
WARMUP = 0.1  # the share of the steps in which the learning rate rises; He et al. 2015 warm up ResNet-110, section 4.2


# Copied from vgg/train.py
def pre_stem(images, mean, variance):
    """Subtract the mean and divide by the standard deviation: images (N, H, W, C), pixels 0 to 255, the same shape.

    Args:
        images: the images.
        mean, variance: of each channel over the training images, (C,).
    """
    return layers.Normalization(mean=mean, variance=variance, name="normalization")(images)


def restore(x, mean, variance):
    """Undo pre_stem, and scale to 0 to 1: normalized images (N, H, W, C) to images of the same shape."""
    mean, variance = mean / 255, variance / 255**2
    return layers.Normalization(mean=mean, variance=variance, invert=True, name="restore", dtype="float32")(x)


@run.errors_as_sentences
def main():
    """Train what the command line says, compare the best model with simpler codes, and write the results."""
    args = run.parse(run.parser(__doc__, MODELS, MODEL, EPOCHS, BATCH_SIZE, LEARNING_RATE))
    splits, classes = data.load(args.data, args.limit, args.seed)
    build, metaparameters = MODELS[args.model]
    network = build(metaparameters, splits["training"][0].shape[1:])
    network.name = args.model
    run.start(args)
    model = train(args, network, splits)
    network, images = model.get_layer(args.model), splits["test"][0]
    code_size = math.prod(network.get_layer("encoder").output_shape[1:])
    found = codes.reconstructions(model, splits, code_size)
    scores = report.facts(model, splits["training"][0], classes) | {"code_size": code_size}
    scores |= codes.errors(model, splits, found)
    mse, psnr, history = scores["test_mse"], scores["test_psnr"], run.history(args)
    figures = {
        "curves.png": codes.error_curves(history),
        "reconstructions.png": codes.reconstructions_figure(model, network, images, found, psnr),
    }
    report.write(args, history, scores, figures)
    in_words = ", ".join(f"{name} {psnr[name]:.2f} ({mse[name]:.5f})" for name in found)
    print(f"PSNR in dB (and MSE) on {len(images)} test images, codes of {code_size} numbers: {in_words}.")


def train(args, network, splits):
    """Fit the network between pre-stem and restore, its targets the images themselves; return it at its best epoch.

    Args:
        args: the parsed command line.
        network: from normalized images (N, H, W, C) to their reconstructions.
        splits: {"training": (images, labels), "validation": ...}, images (N, H, W, C), pixels 0 to 255.
    """
    x, _ = splits["training"]
    mean, variance = data.mean_and_variance(x)
    images = Input(x.shape[1:], name="images")
    outputs = restore(network(pre_stem(images, mean, variance)), mean, variance)
    kept, trained = Model(images, outputs), Model(images, outputs)  # without augmentation they differ in the rate alone

    training = with_targets(x, args.batch_size, args.seed)
    n_steps = args.epochs * len(training)
    n_warmup = max(1, round(WARMUP * n_steps))
    schedule = optimizers.schedules.CosineDecay(  # up, then down to almost 0
        args.learning_rate / 10, max(1, n_steps - n_warmup), warmup_target=args.learning_rate, warmup_steps=n_warmup
    )
    for model, learning_rate in ((trained, schedule), (kept, args.learning_rate / 10)):  # constant when saved
        model.compile(optimizers.Adam(learning_rate), "mean_squared_error")
    kept.optimizer.build(kept.trainable_variables)  # or every load would warn
    validation = with_targets(splits["validation"][0], args.batch_size)
    callbacks = run.callbacks_for(args, kept, training, "val_loss", "min")
    trained.fit(training, epochs=args.epochs, validation_data=validation, shuffle=False, callbacks=callbacks)
    return run.best(args)


def with_targets(images, batch_size, seed=None):
    """Return `run.Batches` of images and the same images, 0 to 1, as targets, shuffled if there is a seed."""

    def make(chosen, rng):
        return images[chosen], images[chosen] / np.float32(255)

    return run.Batches(len(images), batch_size, make, seed)


if __name__ == "__main__":
    main()

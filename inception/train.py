"""Train an Inception network on CIFAR-10.

    python inception/train.py --data synthetic --epochs 4    # a minute, no network
    python inception/train.py                                # CIFAR-10, half an hour on 2 cores

To resume an interrupted run, repeat the command.
"""

from keras import Input, Model, layers, optimizers, regularizers

import data
import inception_v1
import inception_v2
import inception_v3
import report
import run

# name: the function that builds it, and its metaparameters
MODELS = {
    name: (module.build, metaparameters)
    for module in (inception_v1, inception_v2, inception_v3)
    for name, metaparameters in module.METAPARAMETERS.items()
    if name.endswith("_cifar10")  # the others need larger images
}

# Left out of the papers' recipes for ImageNet: of version 1 a learning rate that falls by 4% every 8 epochs, and the
# average of the weights over the training (section 6); of version 2 learning rates 5 and 30 times as high (section
# 4.2.2); of version 3 RMSProp, the clipping of gradients, the average of the weights, and label smoothing (sections 7
# and 8).
MODEL = "inception_v1_cifar10"
EPOCHS = 15  # half an hour on 2 cores
BATCH_SIZE = 128  # He et al. 2015, section 4.2; the Inception papers have no CIFAR-10
LEARNING_RATE = 0.1  # He et al. 2015, section 4.2
MOMENTUM = 0.9  # section 6 of Inception v1; in Nesterov's form, as in fb.resnet.torch
WEIGHT_DECAY = 5e-4  # as in kuangliu/pytorch-cifar, main.py; the papers have no CIFAR-10
WARMUP = 0.1  # the share of the steps in which the learning rate rises; He et al. 2015 warm up ResNet-110, section 4.2
AUXILIARY_WEIGHT = 0.3  # of each auxiliary classifier's loss: section 5 of Inception v1; version 3's code has 0.4


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


# Copied from vgg/train.py
@run.errors_as_sentences
def main():
    """Train what the command line says, measure the best model, and write the results."""
    args = run.parse(run.parser(__doc__, MODELS, MODEL, EPOCHS, BATCH_SIZE, LEARNING_RATE))
    splits, classes = data.load(args.data, args.limit, args.seed)
    run.start(args)
    model = train(args, splits, len(classes))
    scores = report.facts(model, splits["training"][0], classes) | report.evaluate(model, splits)
    images, labels = (array[:40] for array in splits["test"])
    predicted = model.predict(images, verbose=0).argmax(-1)
    figures = {"predictions.png": report.predictions(images, labels, predicted, classes)}
    report.write(args, run.history(args), scores, figures)
    print(f"{scores['test_accuracy']:.2%} of {len(splits['test'][1])} test images are classified correctly.")


def train(args, splits, n_classes):
    """Fit the network with its auxiliary classifiers behind pre-stem and augmentation; return it without, at its best.

    Version 2 has none, and is fitted as it is.

    Args:
        args: the parsed command line.
        splits: {"training": (images, labels), "validation": ...}, images (N, H, W, C), pixels 0 to 255.
        n_classes: how many classes.
    """
    x, _ = splits["training"]
    build, metaparameters = MODELS[args.model]
    if build is inception_v2.build:  # which has no auxiliary classifiers
        alone = build(metaparameters, x.shape[1:], n_classes)
        with_auxiliary = Model(alone.input, {"main": alone.output})
    else:
        with_auxiliary = build(metaparameters, x.shape[1:], n_classes, auxiliary=True)
    network = Model(with_auxiliary.input, with_auxiliary.output["main"], name=args.model)  # of the same weights
    images = Input(x.shape[1:], name="images")
    normalized = pre_stem(images, x.mean((0, 1, 2)), x.var((0, 1, 2)))
    kept = Model(images, network(normalized))  # to be used: pixels in, nothing random, no auxiliary classifiers
    trained = Model(images, with_auxiliary(augmentation(normalized)))

    for variable in with_auxiliary.trainable_variables:
        if variable.name == "kernel":  # not biases, not batch normalization
            variable.regularizer = regularizers.L2(WEIGHT_DECAY / 2)  # the gradient is WEIGHT_DECAY times the kernel
    weights = {name: 1.0 if name == "main" else AUXILIARY_WEIGHT for name in with_auxiliary.output}
    training, validation = (
        batches_for(weights, splits[name], args.batch_size, seed)
        for name, seed in (("training", args.seed), ("validation", None))
    )
    n_steps = args.epochs * len(training)
    n_warmup = max(1, round(WARMUP * n_steps))
    schedule = optimizers.schedules.CosineDecay(  # in place of the papers' steps, for few epochs
        args.learning_rate / 10, max(1, n_steps - n_warmup), warmup_target=args.learning_rate, warmup_steps=n_warmup
    )
    trained.compile(
        optimizers.SGD(schedule, MOMENTUM, nesterov=True),
        dict.fromkeys(weights, "sparse_categorical_crossentropy"),
        loss_weights=weights,
        metrics={name: ["accuracy"] for name in weights},
    )
    optimizer = optimizers.SGD(args.learning_rate / 10, MOMENTUM, nesterov=True)  # the saved one has a constant rate
    kept.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    kept.optimizer.build(kept.trainable_variables)  # or every load would warn
    monitor = "val_main_accuracy" if len(weights) > 1 else "val_accuracy"  # of a single output Keras drops the name
    callbacks = run.callbacks_for(args, kept, training, monitor)
    trained.fit(training, epochs=args.epochs, validation_data=validation, shuffle=False, callbacks=callbacks)
    return run.best(args)


def batches_for(outputs, split, batch_size, seed):
    """Return `run.Batches` of a split, (images, labels), with the same labels for each of several outputs."""
    x, y = split
    return run.Batches(len(x), batch_size, lambda chosen, rng: (x[chosen], dict.fromkeys(outputs, y[chosen])), seed)


if __name__ == "__main__":
    main()

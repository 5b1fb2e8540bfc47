"""Train a ResNet on CIFAR-10.

    python resnet/train.py --data synthetic --epochs 4    # a minute, no network
    python resnet/train.py                                # CIFAR-10, half an hour on 2 cores

To resume an interrupted run, repeat the command.
"""

from keras import Input, Model, layers, optimizers, regularizers

import data
import report
import resnet_basic
import resnet_v1
import resnet_v2
import resnet_v2_basic
import run

# name: the function that builds it, and its metaparameters
MODELS = {
    name: (module.build, metaparameters)
    for module in (resnet_basic, resnet_v1, resnet_v2, resnet_v2_basic)
    for name, metaparameters in module.METAPARAMETERS.items()
    if name != "resnet1202_cifar10"  # which needs a higher recursion limit
}

MODEL = "resnet14_wide_cifar10"
EPOCHS = 20  # half an hour on 2 cores
BATCH_SIZE = 128  # section 4.2 of the paper
LEARNING_RATE = 0.1  # section 4.2
MOMENTUM = 0.9  # section 3.4; in Nesterov's form, as in fb.resnet.torch
WEIGHT_DECAY = 5e-4  # the paper's 1e-4 is for nine times as many epochs
WARMUP = 0.1  # the share of the steps in which the learning rate rises; section 4.2 warms up ResNet-110


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


# Copied from vgg/train.py
def train(args, splits, n_classes):
    """Train on normalized, augmented images; return the model without augmentation, from its best epoch.

    Args:
        args: the parsed command line.
        splits: {"training": (images, labels), "validation": ...}, images (N, H, W, C), pixels 0 to 255.
        n_classes: how many classes.
    """
    x, _ = splits["training"]
    build, metaparameters = MODELS[args.model]
    network = build(metaparameters, x.shape[1:], n_classes)
    network.name = args.model
    images = Input(x.shape[1:], name="images")
    normalized = pre_stem(images, x.mean((0, 1, 2)), x.var((0, 1, 2)))
    kept = Model(images, network(normalized))  # to be used: pixels in, nothing random
    trained = Model(images, network(augmentation(normalized)))  # the same layers, the same weights

    for variable in network.trainable_variables:
        if variable.name == "kernel":  # not biases, not batch normalization
            variable.regularizer = regularizers.L2(WEIGHT_DECAY / 2)  # the gradient is WEIGHT_DECAY times the kernel
    training = run.batches(splits["training"], args.batch_size, args.seed)
    n_steps = args.epochs * len(training)
    n_warmup = max(1, round(WARMUP * n_steps))
    schedule = optimizers.schedules.CosineDecay(  # in place of the papers' steps, for few epochs
        args.learning_rate / 10, max(1, n_steps - n_warmup), warmup_target=args.learning_rate, warmup_steps=n_warmup
    )
    for model, learning_rate in ((trained, schedule), (kept, args.learning_rate / 10)):  # constant when saved
        optimizer = optimizers.SGD(learning_rate, MOMENTUM, nesterov=True)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    kept.optimizer.build(kept.trainable_variables)  # or every load would warn
    validation = run.batches(splits["validation"], args.batch_size)
    callbacks = run.callbacks_for(args, kept, training)
    trained.fit(training, epochs=args.epochs, validation_data=validation, shuffle=False, callbacks=callbacks)
    return run.best(args)


if __name__ == "__main__":
    main()

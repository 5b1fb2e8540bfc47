"""Time a training step of a ResNeXt in both forms of its grouped convolution, on this machine.

    python resnext/step_times.py                                                  # three minutes on 2 cores
    python resnext/step_times.py --model resnext20_4x8d_cifar10 --batch-size 8    # seconds
"""

import argparse
import time

import run

import numpy as np

import resnext


def main():
    """Print the seconds of a step in each form, and their ratio."""
    args = parse_arguments()
    seconds = {}
    for convolution in ("split_transform_merge", "grouped_convolution"):
        print(f"{convolution}: {args.steps} + 1 steps ...", flush=True)
        seconds[convolution] = step_seconds(args.model, convolution, args.batch_size, args.steps)
        print(f"{convolution}: {seconds[convolution]:.3f} s a step", flush=True)
    ratio = seconds["grouped_convolution"] / seconds["split_transform_merge"]
    print(f"{args.model}, batches of {args.batch_size}: split_transform_merge is {ratio:.1f} times as fast.")


def parse_arguments():
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name in resnext.METAPARAMETERS if name.endswith("_cifar10")]
    parser.add_argument("--model", metavar="NAME", choices=names, default="resnext29_32x4d_cifar10",
                        help=f"default resnext29_32x4d_cifar10; all: {', '.join(names)}")
    parser.add_argument("--batch-size", metavar="N", type=run.whole(1), default=32, help="default 32")
    parser.add_argument("--steps", metavar="N", type=run.whole(1), default=2,
                        help="default 2: the shortest one counts, after a first one that compiles")
    return parser.parse_args()


def step_seconds(model_name, convolution, batch_size, n_steps):
    """Return the seconds of the shortest of n_steps training steps, on random images (batch_size, 32, 32, 3)."""
    metaparameters = resnext.METAPARAMETERS[model_name] | {"convolution": convolution}
    model = resnext.build(metaparameters, (32, 32, 3), 10)
    model.compile("sgd", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(batch_size, 32, 32, 3)).astype("float32"), rng.integers(0, 10, batch_size)
    seconds = []
    for _ in range(1 + n_steps):
        start = time.perf_counter()
        model.train_on_batch(x, y)  # returns the loss, so the step is done
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])  # without the first, which compiles


if __name__ == "__main__":
    main()

"""Time a training step of three networks on every backend that is installed, one after the other, on this machine.

    python tests/step_times.py    # minutes; nothing else should run

Random images of 32x32 pixels, float32. Of a few steps the shortest counts, after two that compile.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time

from folders import ROOT, load

NETWORKS = (  # module, network
    ("vgg/vgg.py", "vgg8_cifar10"),
    ("resnet/resnet_basic.py", "resnet20_cifar10"),
    ("densenet/densenet.py", None),  # the default of its train.py
)
BATCH_SIZE, N_STEPS = 128, 10


def main():
    """Print the milliseconds of a step as a table of Markdown, or, in a process of one backend, as JSON."""
    if sys.argv[1:]:
        print(json.dumps({name: step_seconds(path, name) for path, name in networks()}))
        return
    backends = [backend for backend in ("tensorflow", "jax", "torch") if importlib.util.find_spec(backend)]
    found = {}
    for backend in backends:
        command, environment = [sys.executable, __file__, "one"], os.environ | {"KERAS_BACKEND": backend}
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        found[backend] = json.loads(done.stdout.strip().split("\n")[-1])
    print(f"| network | {' | '.join(f'{backend}, ms a step' for backend in backends)} |")
    print("|---" * (1 + len(backends)) + "|")
    for _, name in networks():
        print(f"| {name} | {' | '.join(f'{1000 * found[backend][name]:.0f}' for backend in backends)} |")


def networks():
    """Return (module, network) of each."""
    return [(path, name or load(f"{path.split('/')[0]}/train.py").MODEL) for path, name in NETWORKS]


def step_seconds(path, name):
    """Return the seconds of the shortest training step of a network."""
    import numpy as np  # here, with Keras, since the first process only starts the others

    module = load(path)
    model = module.build(module.METAPARAMETERS[name], (32, 32, 3), 10)
    model.compile("sgd", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(BATCH_SIZE, 32, 32, 3)).astype("float32"), rng.integers(0, 10, BATCH_SIZE)
    return shortest(lambda: model.train_on_batch(x, y))[0]  # which returns the loss, so the step is done


def shortest(*steps, n_calls=N_STEPS, n_first=2):
    """Return the seconds of the shortest call of each step, called in turns, without the first calls, which compile."""
    seconds = [[] for _ in steps]
    for _ in range(n_first + n_calls):
        for step, of_step in zip(steps, seconds, strict=True):
            start = time.perf_counter()
            step()
            of_step.append(time.perf_counter() - start)
    return [min(of_step[n_first:]) for of_step in seconds]


if __name__ == "__main__":
    main()

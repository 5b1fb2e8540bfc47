"""Time training steps of ResNet-50 on a GPU, this folder's beside that of keras.applications, in both precisions.

    KERAS_BACKEND=jax python tests/gpu_steps.py    # two minutes; nothing else should run

Random images of 224x224 pixels, 64 a step. Of a few times ten steps the shortest counts; the networks take turns.
"""

import time

import keras
import numpy as np
from folders import load

BATCH_SIZE, N_STEPS, N_REPEATS = 64, 10, 4


def main():
    """Print the milliseconds of a step as a table of Markdown."""
    resnet = load("resnet/resnet_v1.py")
    networks = {
        "resnet50": lambda: resnet.build(resnet.METAPARAMETERS["resnet50"]),
        "keras.applications.ResNet50": lambda: keras.applications.ResNet50(weights=None),
    }
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH_SIZE, 224, 224, 3)).astype("float32")
    y = rng.integers(0, 1000, BATCH_SIZE)
    models = {}
    for dtype in ("float32", "mixed_bfloat16"):
        keras.mixed_precision.set_dtype_policy(dtype)
        for name, build in networks.items():
            model = build()
            model.compile(keras.optimizers.SGD(0.01, 0.9), "sparse_categorical_crossentropy")
            model.fit(x, y, BATCH_SIZE, epochs=2, verbose=0)  # compiles
            models[name, dtype] = model
    data = np.concatenate([x] * N_STEPS), np.concatenate([y] * N_STEPS)
    seconds = {}
    for _ in range(N_REPEATS):
        for key, model in models.items():
            start = time.perf_counter()
            model.fit(*data, BATCH_SIZE, verbose=0)
            seconds.setdefault(key, []).append((time.perf_counter() - start) / N_STEPS)
    print(f"| {keras.config.backend()} | float32, ms a step | mixed_bfloat16, ms a step |\n|---|---|---|")
    for name in networks:
        cells = (f"{1000 * min(seconds[name, dtype]):.1f}" for dtype in ("float32", "mixed_bfloat16"))
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

"""Runs in a process of its own: loads models as a user would who has nothing else of the run, and prints what is found.

    python tests/use.py MODEL.KERAS "MODULES TO IMPORT" FOLDER MODEL.KERAS ...

Before each model the names of Keras' layers count from 0, as in a new process.
"""

import importlib
import json
import sys

import keras
import numpy as np


def use(path):
    """Return what a user would find, {"call": the difference of a call from predict(), ...}."""
    model = keras.saving.load_model(path)
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (8, *inputs.shape[1:])).astype("uint8") for inputs in model.inputs]
    if len(pixels) == 2 and pixels[1].ndim == 3:  # the regions of Fast R-CNN
        corners = rng.uniform(0, 128, (8, pixels[1].shape[1], 2, 2))
        pixels[1] = np.sort(corners, 2).reshape(8, -1, 4).astype("float32")

    def pack(arrays):
        if isinstance(model.input, dict):
            return dict(zip(model.input, arrays, strict=True))
        return arrays if len(arrays) > 1 else arrays[0]

    def difference(one, other):
        pairs = zip(keras.tree.flatten(one), keras.tree.flatten(other), strict=True)
        return max(float(abs(keras.ops.convert_to_numpy(a) - keras.ops.convert_to_numpy(b)).max()) for a, b in pairs)

    floats = [array.astype("float32") for array in pixels]
    predicted, before = model.predict(pack(pixels), verbose=0), model.get_weights()
    found = {"call": difference(model(pack(floats)), predicted), "uint8": difference(model(pack(pixels)), predicted)}
    found["moved"] = sum(bool((a != b).any()) for a, b in zip(before, model.get_weights(), strict=True))
    if keras.config.backend() == "tensorflow":  # whose format SavedModel is
        found |= use_exported(model, path, pack(floats), lambda outputs: difference(outputs, predicted))
    features = keras.tree.flatten(model.output)[0]
    new = keras.layers.Dense(3)(keras.layers.Flatten()(features))
    upon = keras.Model(model.input, [new, keras.ops.pad(features, [[0, 0]] * features.ndim)])
    found["built_upon"] = upon.count_params()
    if getattr(model, "optimizer", None):
        found["optimizer_built"] = model.optimizer.built
        model.optimizer.learning_rate = 0.01
        found["learning_rate"] = float(model.optimizer.learning_rate)
    return found


def use_exported(model, path, images, difference):
    """Return what a user of the SavedModel would find."""
    import tensorflow as tf

    model.export(path + "_exported", verbose=False)
    exported = tf.saved_model.load(path + "_exported")
    functions = next(iter(exported.signatures.values())).graph.as_graph_def().library.function
    random = sorted({node.op for function in functions for node in function.node_def if "andom" in node.op})
    return {"export": difference(exported.serve(images)), "random": random}


found = []
for path, imports, folder in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3], strict=True):
    keras.utils.clear_session()
    if imports:
        sys.path.append(folder)
    for name in imports.split():
        importlib.import_module(name)
    found.append(use(path))
print(json.dumps(found))

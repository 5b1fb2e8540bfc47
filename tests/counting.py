"""The multiply-adds of a network for one image, counted from the shapes of its layers: nothing is computed.

A convolution or a dense layer multiplies every weight of its kernel once for each position of its outputs, a transposed
convolution for each position of its inputs. Zeros at the borders count too; biases, normalization, activations, pooling
and additions do not: so do the papers and torchvision.
"""

import math
from unittest import mock

import keras
from keras import layers


def multiply_adds(model):
    """Return how many multiply-adds a network needs for one image, or for one pair, or for an image and its regions.

    Args:
        model: a network of images of a fixed size, whose layers with weights to multiply by have a `kernel`.
    """
    counted, shapes_of = [], keras.Layer.compute_output_spec

    def watched(layer, *args, **kwargs):
        outputs = shapes_of(layer, *args, **kwargs)
        if hasattr(layer, "kernel"):
            positions = args[0] if isinstance(layer, layers.Conv2DTranspose) else outputs
            counted.append(math.prod(layer.kernel.shape) * math.prod(positions.shape[:-1]))
        return outputs

    one = keras.tree.map_structure(lambda x: keras.KerasTensor((1, *x.shape[1:]), x.dtype), model.input)
    with mock.patch.object(keras.Layer, "compute_output_spec", watched):  # of layers in models inside the model, too
        model.compute_output_spec(one)
    return sum(counted)

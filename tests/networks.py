"""One small network of each kind of block, and how to train one of each folder in seconds."""

from folders import load

CIFAR10_STEM = {"n_filters": 8, "kernel_size": 3, "strides": 1, "pooling": False}
LAYERS = ({"n_layers": 1, "n_filters": 8}, {"n_layers": 2, "n_filters": 16})
GROUPS = ({"n_filters": 8, "n_blocks": 2}, {"n_filters": 16, "n_blocks": 2})
BRANCHES = ({"n_filters": 8, "n_filters_out": 16, "n_blocks": 2}, {"n_filters": 16, "n_filters_out": 32, "n_blocks": 2})
BLOCK = {"n_1x1": 8, "n_3x3_reduce": 4, "n_3x3": 8, "n_5x5_reduce": 4, "n_5x5": 8, "n_pool": 4}
INCEPTION = {
    "groups": ((BLOCK, None, BLOCK), (BLOCK,)),
    "stem": {"n_filters": 8, "n_filters_out": 16, "kernel_size": 3, "strides": 1, "pooling": False},
}

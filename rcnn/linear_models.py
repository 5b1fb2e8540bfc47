"""The linear models of R-CNN: for each class a support vector machine and a box regressor, on the features of regions.

Section 2.3 and appendices B and C of the paper (arXiv:1311.2524), with the constants of its released code.
Differs from it: the support vector machines have the squared hinge loss, and are solved to the end; their negatives are
those of N_SCENES scenes, mined twice of all of them, where the released code goes from image to image. What the box
regressors learn is not whitened, as it is in the released code.
"""

import numpy as np
from keras import ops, utils

import boxes

NORM = 20  # the mean norm that features are scaled to; C and ridge are set for it
BIAS = 10  # a constant feature of the support vector machines: the bias is 10 times its weight, so hardly penalized
N_SCENES = 500  # from whose regions the negatives of the support vector machines come
NEGATIVE_IOU = 0.3  # regions that overlap every object of a class by less are its negatives
CLOSE_IOU = 0.6  # regions that the box regressors learn from overlap an object by more


def fit_linear_models(detector, features, split, proposals, n_classes, rng):
    """Give the layers "scores" and "deltas" of an R-CNN their weights, class by class, from the features of regions.

    The positives of a support vector machine are the objects of its class, its negatives the regions of the first
    N_SCENES scenes that hardly overlap one; a box regressor learns from the regions close to an object.

    Args:
        detector: a model of rcnn.with_linear_models.
        features: a function of a scene (H, W, 3) and regions (R, 4) to fc7 (R, F) and pool5 (R, G).
        split: (scenes (N, H, W, 3), objects), the objects as in targets.anchor_batches.
        proposals: for each scene (P, 4).
        n_classes: K.
        rng: a generator of random numbers.
    """
    objects, close, others = [], [], []  # (class, fc7), (class, pool5, deltas), (IoU with each class, fc7)
    print("Features of the training scenes")
    bar = utils.Progbar(len(proposals), unit_name="scene")
    for i, (scene, (truth, classes), regions) in enumerate(zip(*split, proposals, strict=True)):
        fc7, pool5 = features(scene, np.concatenate([truth, regions]))
        objects += zip(classes, fc7, strict=False)  # they come first
        overlap = ops.convert_to_numpy(boxes.iou(regions, truth))  # (P, M)
        if i < N_SCENES:
            of_classes = [overlap[:, classes == k].max(1, initial=0) for k in range(n_classes)]
            others += zip(np.transpose(of_classes), fc7[len(truth) :], strict=True)
        is_close = overlap.max(1, initial=0) > CLOSE_IOU
        if is_close.any():
            which = overlap[is_close].argmax(1)
            deltas = ops.convert_to_numpy(boxes.encode(regions[is_close], truth[which]))
            close += zip(classes[which], pool5[len(truth) :][is_close], deltas, strict=True)
        bar.add(1)

    print("Support vector machines and box regressors of the classes")
    bar = utils.Progbar(n_classes, unit_name="class")
    overlaps, negatives = (np.array(column) for column in zip(*others, strict=True))
    svm_scale = scale_of(negatives)
    ridge_scale = scale_of(np.array([pool5 for _, pool5, _ in close]))
    svms, regressors = [], []
    for k in range(n_classes):
        positives = np.array([fc7 for kind, fc7 in objects if kind == k]).reshape(-1, negatives.shape[1])
        kernel, bias = train_svm(svm_scale * positives, svm_scale * negatives[overlaps[:, k] < NEGATIVE_IOU], rng)
        svms.append((svm_scale * kernel, bias))
        mine = [(pool5, deltas) for kind, pool5, deltas in close if kind == k]
        width = detector.get_layer("deltas").kernel.shape[0]
        x, y = (np.array([pair[i] for pair in mine]).reshape(-1, n) for i, n in ((0, width), (1, 4)))
        kernel, bias = fit_box_regressor(ridge_scale * x, y)
        regressors.append((ridge_scale * kernel, bias))
        bar.add(1)
    kernels, biases = zip(*svms, strict=True)
    detector.get_layer("scores").set_weights([np.stack(kernels, 1), np.array(biases)])
    kernels, biases = zip(*regressors, strict=True)
    detector.get_layer("deltas").set_weights([np.concatenate(kernels, 1), np.concatenate(biases)])


def scale_of(features):
    """Return the number that brings features (N, F) to a mean norm of NORM; 1 without any."""
    return NORM / max(np.linalg.norm(features, axis=1).mean(), 1e-6) if len(features) else 1.0


def train_svm(positives, negatives, rng, n_rounds=2, C=1e-3, positive_weight=2):
    """Train the support vector machine of one class, with hard negative mining: section 2.3 of the paper.

    There are too many negatives to train on all: it begins with as many as there are positives, and in every round
    takes in those that it gets wrong or nearly so, and lets go those that it no longer needs.

    Args:
        positives, negatives: scaled features (P, F) and (M, F).
        rng: for the first negatives.
        n_rounds: how often negatives are mined; the paper finds one pass enough.
        C: how much an example counts against the size of the kernel.
        positive_weight: how much more a positive counts.

    Returns:
        Kernel (F,) and bias, such that features @ kernel + bias is above 0 for objects of the class. A class without
        positives gets a kernel of 0 and a bias of -1.
    """
    if not len(positives) or not len(negatives):
        return np.zeros(negatives.shape[1], "float32"), 1.0 if len(positives) else -1.0
    chosen = np.zeros(len(negatives), bool)
    chosen[rng.permutation(len(negatives))[: len(positives)]] = True
    for _ in range(1 + n_rounds):
        x = np.concatenate([positives, negatives[chosen]])
        y = np.where(np.arange(len(x)) < len(positives), 1.0, -1.0)
        kernel, bias = fit_svm(x, y, C * np.where(y > 0, positive_weight, 1))
        scores = negatives @ kernel + bias
        chosen = (chosen & (scores >= -1.2)) | (scores > -1.0001)
    return kernel.astype("float32"), float(bias)


def fit_svm(x, y, costs):
    """Find the kernel and bias of the least |weights|^2 / 2 + sum of costs max(0, 1 - y (x @ kernel + bias))^2.

    The weights are the kernel and, as in the released code, the bias divided by BIAS. For the examples on the wrong
    side of their margin that is a sum of squares, for the others 0: so solve the least squares of the former, see which
    are on the wrong side now, and again until these are the same (Newton's method; Chapelle 2007, "Training a Support
    Vector Machine in the Primal").

    Args:
        x, y, costs: features (N, F), 1 or -1 (N,), and what an error costs (N,).
    """
    x = np.concatenate([x, np.full((len(x), 1), BIAS)], 1)
    weights, wrong = np.zeros(x.shape[1]), np.ones(len(x), bool)
    for _ in range(50):
        squares = 2 * x[wrong].T * costs[wrong]
        weights = np.linalg.solve(np.eye(x.shape[1]) + squares @ x[wrong], squares @ y[wrong])
        before, wrong = wrong, y * (x @ weights) < 1
        if (wrong == before).all():
            break
    return weights[:-1], BIAS * weights[-1]


def fit_box_regressor(features, deltas, ridge=1000.0):
    """Find the linear map from features to deltas by ridge regression: appendix C of the paper, in closed form.

    Args:
        features: scaled features (P, G), of regions that overlap an object of one class by more than CLOSE_IOU.
        deltas: (P, 4), of the object's box as seen from the region.
        ridge: lambda, what a unit of the squared kernel costs.

    Returns:
        Kernel (G, 4) and bias (4,); 0 without any region.
    """
    x = np.concatenate([features, np.ones((len(features), 1))], 1)  # the released code has the bias as a feature
    solution = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ deltas)
    return solution[:-1].astype("float32"), solution[-1].astype("float32")

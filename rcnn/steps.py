"""The steps of a training: each is fitted once, resumed within if it was interrupted, and skipped once it is done."""

import csv
import functools
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread

import run

import numpy as np
from keras import callbacks, optimizers, regularizers, utils

from detect import N_PROPOSALS
from selective_search import selective_search

MOMENTUM = 0.9  # of the papers; in Nesterov's form
WEIGHT_DECAY = 5e-4  # of the papers
WARMUP = 0.1  # the share of the updates in which the learning rate rises, from a tenth; then it falls along a cosine


def fit(args, step, network, model, training, validation, loss, learning_rate=None, epochs=None):
    """Train a model for one step, and keep the weights of the network that it is made of; skip a step that is done.

    Args:
        args: the parsed command line.
        step: its name.
        network: the network whose weights are kept.
        model: the network or a part of it, behind the pre-stem.
        training, validation: Batches.
        loss: that of Model.compile; None if the model has its own.
        learning_rate, epochs: by default those of args.
    """
    learning_rate, epochs = learning_rate or args.learning_rate, epochs or args.epochs
    backup = args.output / "backup"
    kept = backup / f"{step.replace(' ', '_')}.weights.h5"
    if kept.exists():
        network.load_weights(kept)
    else:
        for variable in network.trainable_variables:
            if variable.name == "kernel":  # not biases, not batch normalization
                variable.regularizer = regularizers.L2(WEIGHT_DECAY / 2)  # gradient: WEIGHT_DECAY times the kernel
        n_updates = epochs * len(training)
        n_warmup = max(1, round(WARMUP * n_updates))
        schedule = optimizers.schedules.CosineDecay(
            learning_rate / 10, max(1, n_updates - n_warmup), warmup_target=learning_rate, warmup_steps=n_warmup
        )
        model.compile(optimizers.SGD(schedule, MOMENTUM, nesterov=True), loss)
        of_step = backup / step.replace(" ", "_")
        steps_callbacks = [
            callbacks.TerminateOnNaN(raise_error=True),
            run.Epochs(training, args.seed),
            StepLog(args.output / "history.csv", step),
            callbacks.BackupAndRestore(of_step, double_checkpoint=True, delete_checkpoint=False),
        ]
        print(f"Step: {step}")
        model.fit(training, epochs=epochs, validation_data=validation, shuffle=False, callbacks=steps_callbacks)
        run.write_whole(kept, network.save_weights)
    utils.set_random_seed(args.seed)  # so that the next network begins with the same weights, if a step was skipped too


class StepLog(callbacks.Callback):
    """Write a row of history.csv after each epoch: the step, its epoch, losses and seconds."""

    def __init__(self, path, step):
        super().__init__()
        self.path, self.step = path, step

    def on_epoch_end(self, epoch, logs=None):
        """Write the row; before the first one, the names of the columns."""
        columns = ("loss", "val_loss", "seconds")
        is_new = not self.path.exists()
        with open(self.path, "a", newline="") as file:
            rows = csv.writer(file)
            if is_new:
                rows.writerow(["step", "epoch", *columns])
            rows.writerow([self.step, epoch, *(logs[name] for name in columns)])


def read_history(args):
    """Return history.csv as {column: values}; drops the duplicate epoch of an interrupted step."""
    path = args.output / "history.csv"
    if not path.exists():
        return {}
    with open(path, newline="") as file:
        rows = {(row["step"], row["epoch"]): row for row in csv.DictReader(file)}.values()
    types = {"step": str, "epoch": int}
    return {name: [types.get(name, float)(row[name]) for row in rows] for name in next(iter(rows), ())}


def end_with_parent():
    """Let a process of a pool leave an interruption to its parent, and end when that is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()


def search(args, name, scenes):
    """Return the proposals of selective search for each scene; 200 scenes or more are shared among several processes.

    Those of every hundred scenes are kept in the backup.
    """
    print(f"Selective search in the {name} scenes")
    bar, found = utils.Progbar(len(scenes), unit_name="scene"), []
    find = functools.partial(selective_search, max_boxes=N_PROPOSALS)
    n_processes = min(8, os.cpu_count() or 1)
    with ProcessPoolExecutor(n_processes, get_context("spawn"), initializer=end_with_parent) as pool:
        apply = pool.map if len(scenes) >= 200 else map  # the processes take seconds to start
        for first in range(0, len(scenes), 100):
            path = args.output / "backup" / f"proposals_{name}_{first}.npz"
            if not path.exists():
                of_each = []
                for regions in apply(find, scenes[first : first + 100]):
                    of_each.append(regions)
                    bar.update(first + len(of_each))
                run.write_whole(path, lambda path, of_each=of_each: np.savez(path, *of_each))
            with np.load(path) as arrays:
                found += [arrays[key] for key in arrays.files]
    return found

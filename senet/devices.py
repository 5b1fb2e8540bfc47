# The same file in every folder.
"""The backend of a training, its devices, and its processes if there are several.

TensorFlow and PyTorch train on one device. With JAX every device has its share of each batch, by Keras' `DataParallel`:
those of this machine, and those of other processes and machines if Keras' variables KERAS_DISTRIBUTION_* name them.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import socket
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # faster convolutions, which TensorFlow leaves off on some CPUs

try:
    import keras
    import matplotlib  # noqa: F401, which brings Pillow
    import numpy as np
except (ModuleNotFoundError, ValueError) as error:  # a backend that is missing or unknown ends the import of Keras
    lacks = getattr(error, "name", None) in ("keras", "matplotlib", "numpy")
    wanted = "must be tensorflow, jax or torch, and installed"
    found = "pip install -r requirements.txt" if lacks else f"KERAS_BACKEND {wanted}"
    sys.stderr.write(f"{Path(sys.argv[0]).name}: error: {found} ({error})\n")
    sys.exit(2)
if tuple(map(int, keras.__version__.split(".")[:2])) < (3, 13):
    sys.stderr.write(f"{Path(sys.argv[0]).name}: error: Keras must be 3.13 or later, got {keras.__version__}\n")
    sys.exit(2)

BACKENDS = ("tensorflow", "jax", "torch")  # of Keras, those that train
TIMEOUT = 50  # seconds to wait for the other processes


def check_environment(parser, parallel):
    """Refuse a backend that cannot train, and variables for several processes that contradict each other."""
    backend = keras.config.backend()
    if backend not in BACKENDS:
        parser.error(f"KERAS_BACKEND must be {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}, got {backend}")
    address, *names = (f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "PROCESS_ID", "NUM_PROCESSES"))
    if address not in os.environ and any(name in os.environ for name in names):
        parser.error(f"{' and '.join(names)} need {address}, got none")
    try:
        process_id, n_processes = processes()
    except (KeyError, ValueError):  # not set, or not numbers
        process_id, n_processes = 0, 0
    if not 0 <= process_id < n_processes:
        found = [os.environ.get(name, "none") for name in names]
        parser.error(f"{names[0]} must be a whole number below {names[1]}, got {found[0]} and {found[1]}")
    if n_processes > 1 and not parallel:
        parser.error(f"this training takes one process, got {names[1]}={n_processes}")
    if n_processes > 1 and backend != "jax":
        parser.error(f"several processes need KERAS_BACKEND=jax, got {backend}")


def keep_memory():
    """Let the C library of Linux keep the memory that a training step frees for the next step.

    By default it gives large blocks back, and Linux fills each page of the next ones with zeros, which takes up to half
    of the time.
    """
    with contextlib.suppress(OSError, AttributeError):  # of another system, or another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for option, value in ((-4, 0), (-1, 2**31 - 1), (-8, 1)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_ARENA_MAX
            mallopt(option, value)


def processes():
    """Return the number of this process, from 0, and how many there are: (0, 1), unless Keras' variables say more."""
    if "KERAS_DISTRIBUTION_JOB_ADDRESSES" not in os.environ:
        return 0, 1
    return tuple(int(os.environ[f"KERAS_DISTRIBUTION_{name}"]) for name in ("PROCESS_ID", "NUM_PROCESSES"))


def is_first():
    """Return whether this process is the one that writes: the only one, or the first of several."""
    return processes()[0] == 0


def distribute(parser, batch_size):
    """Let each device of this machine, and of the other processes if there are some, have its share of every batch.

    Keras has this data parallelism for JAX: all devices hold the same weights, and a step is that of the whole batch.
    """
    n_processes = processes()[1]
    if n_processes > 1:
        initialize(parser)
    found = keras.distribution.list_devices() if keras.config.backend() == "jax" else []
    if len(found) > 1:
        if len(found) % n_processes:
            parser.error(f"every process must have as many devices as the others, got {len(found)} of {n_processes}")
        if batch_size % len(found):
            parser.error(f"--batch-size must be divisible by the {len(found)} devices, got {batch_size}")
        keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))


def initialize(parser):
    """Meet the other processes at the address of the first; if one does not come, end the program within a minute."""
    from jax import distributed  # keras.distribution.initialize would wait for five minutes

    address = os.environ["KERAS_DISTRIBUTION_JOB_ADDRESSES"].split(",")[0]
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        parser.error(f"KERAS_DISTRIBUTION_JOB_ADDRESSES must be HOST:PORT of the first process, got {address}")
    process_id, n_processes = processes()
    print(f"Waiting for {n_processes} processes to meet at {address}, up to {TIMEOUT} seconds.", flush=True)
    answered, until = process_id == 0, time.monotonic() + TIMEOUT
    while not answered:  # asked here, since JAX aborts in place of raising an error
        try:
            socket.create_connection((host, int(port)), 5).close()
            answered = True
        except OSError as error:
            if time.monotonic() > until:
                parser.error(f"KERAS_DISTRIBUTION_JOB_ADDRESSES: {address} does not answer ({error})")
            time.sleep(1)
    try:
        distributed.initialize(address, n_processes, process_id, initialization_timeout=TIMEOUT)
    except RuntimeError as error:  # such as a port in use
        parser.error(f"KERAS_DISTRIBUTION_JOB_ADDRESSES: {address} cannot be used ({error})")


def wait():
    """Wait until all processes are here."""
    if processes()[1] > 1:
        from jax.experimental import multihost_utils  # Keras has none

        multihost_utils.sync_global_devices("wait")


def all_equal(facts):
    """Return whether all processes have the same facts, which JSON can write."""
    if processes()[1] == 1:
        return True
    from jax.experimental import multihost_utils

    digest = hashlib.sha256(json.dumps(facts).encode()).digest()
    digests = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    return bool((digests == digests[0]).all())


@contextlib.contextmanager
def without_distribution():
    """Let this process save alone: Keras makes variables then, on all devices, and would wait for the others."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def shut_down():
    """Let the first of several processes go on alone, on one device, and end the others."""
    keras.distribution.set_distribution(None)
    if processes()[1] > 1:
        from jax import distributed  # Keras has no function that undoes initialize

        distributed.shutdown()
    if not is_first():
        sys.exit()

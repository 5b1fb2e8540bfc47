"""run.py, the same file in every folder: flags, run folder, resuming, callbacks, batches. Tried on a tiny VGG."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from folders import FOLDERS, ROOT, load, main

run = load("vgg/run.py")
TINY = {"groups": ({"n_layers": 1, "n_filters": 8}, {"n_layers": 1, "n_filters": 8}), "batch_normalization": True,
        "n_units": (16,)}  # with batch normalization, dropout and augmentation, all that a resumed run must repeat
SHORT = ["--model", "tiny", "--data", "synthetic", "--limit", "90", "--epochs", "3", "--batch-size", "30"]


def vgg(epochs_until_interrupted=None):
    """Return vgg/train.py with the tiny model, to be interrupted when it begins an epoch."""
    module = load("vgg/train.py")
    module.MODELS["tiny"] = (module.vgg.build, TINY)
    module.LEARNING_RATE["tiny"] = 0.1
    if epochs_until_interrupted is not None:
        on_epoch_begin = module.run.Epochs.on_epoch_begin

        def interrupted(callback, epoch, logs=None):
            if epoch == epochs_until_interrupted:
                raise KeyboardInterrupt
            on_epoch_begin(callback, epoch, logs)

        module.run.Epochs.on_epoch_begin = interrupted
    return module


def refused(monkeypatch, capsys, *flags, module=None):
    """Return the last line on stderr of a train.py that must end with exit status 2."""
    with pytest.raises(SystemExit) as exit_:
        main("vgg", monkeypatch, *flags, module=module)
    assert exit_.value.code == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    return errors.strip().split("\n")[-1]


def history(folder):
    with open(folder / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(value) for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--model", "alexnet"], "argument --model: invalid choice: 'alexnet'"),
        (["--epochs", "0"], "argument --epochs: must be a whole number of at least 1, got 0"),
        (["--batch-size", "two"], "argument --batch-size: must be a whole number of at least 1, got two"),
        (["--limit", "1.5"], "argument --limit: must be a whole number of at least 1, got 1.5"),
        (["--seed", "-1"], "argument --seed: must be a whole number from 0 to 4294967295, got -1"),
        (["--learning-rate", "0"], "argument --learning-rate: must be a number above 0 and finite, got 0"),
        (["--learning-rate", "nan"], "argument --learning-rate: must be a number above 0 and finite, got nan"),
        (["--learning-rate", "fast"], "argument --learning-rate: must be a number above 0 and finite, got fast"),
        (["--batch-size", "45001"], "--batch-size must be at most 45000, the images to train on, got 45001"),
        (["--data", "synthetic", "--limit", "5000"], "--limit must be at most 4500, the images to train on, got 5000"),
        (["--data", "/no/such"], "--data must be cifar10, synthetic or a folder, got /no/such, which does not exist"),
        (["--data", __file__], "which is a file: unpack it first"),
        (["--output", "/proc/no"], "--output /proc/no cannot be written"),
        (["--output", __file__], "cannot be written"),
        (["--dropout", "0.5"], "unrecognized arguments: --dropout 0.5"),
    ],
)
def test_wrong_flags_are_refused_before_the_images_are_loaded(flags, sentence, monkeypatch, capsys, tmp_path):
    module = vgg()
    monkeypatch.setattr(module.data, "load", lambda *args: pytest.fail("images were loaded"))
    monkeypatch.chdir(tmp_path)
    error = refused(monkeypatch, capsys, *flags, module=module)
    assert error.startswith("train.py: error: ") and sentence in error
    assert not list(tmp_path.iterdir())


def test_channels_first_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    assert "image_data_format in keras.json must be channels_last" in refused(monkeypatch, capsys)


def test_data_that_are_no_data_are_refused(monkeypatch, capsys, tmp_path):
    (tmp_path / "data").mkdir()
    error = refused(monkeypatch, capsys, "--data", tmp_path / "data", "--output", tmp_path / "out")
    assert error.startswith(f"train.py: error: {tmp_path / 'data'} lacks data_batch_1.bin")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("folder", FOLDERS)
def test_help_fits_a_screen_and_says_every_default(folder, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as exit_:
        main(folder, monkeypatch, "--help")
    printed = capsys.readouterr().out
    assert exit_.value.code == 0 and printed.count("\n") <= 45
    options = printed[printed.index("options:") :]
    flags = re.findall(r"^  (--[a-z-]+)", options, flags=re.M)
    assert "--model" in flags and options.count("default") >= len(flags)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_a_resumed_run_equals_a_whole_one(monkeypatch, capsys, tmp_path):
    main("vgg", monkeypatch, *SHORT, "--output", tmp_path / "whole", module=vgg())
    with pytest.raises(SystemExit) as exit_:
        main("vgg", monkeypatch, *SHORT, "--output", tmp_path / "resumed", module=vgg(epochs_until_interrupted=2))
    assert exit_.value.code == 130 and "repeat the command" in capsys.readouterr().err
    assert not (tmp_path / "resumed" / "results.json").exists()
    assert len(history(tmp_path / "resumed")) == 2
    error = refused(monkeypatch, capsys, *SHORT, "--seed", 1, "--output", tmp_path / "resumed", module=vgg())
    assert "holds settings.json of another run" in error  # whose weights it would have continued
    main("vgg", monkeypatch, *SHORT, "--output", tmp_path / "resumed", module=vgg())
    assert "Epoch 1/3" not in capsys.readouterr().out
    whole, resumed = history(tmp_path / "whole"), history(tmp_path / "resumed")
    assert [row["epoch"] for row in resumed] == [0, 1, 2]
    for one, other in zip(whole, resumed, strict=True):
        assert other == pytest.approx(one, rel=1e-5)
    losses = {row["loss"] for row in whole}
    assert len(losses) == 3  # the epochs differ
    models = [keras.saving.load_model(tmp_path / name / "model.keras") for name in ("whole", "resumed")]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("eagerly")
def test_a_run_that_was_interrupted_in_its_first_epoch_begins_anew(monkeypatch, tmp_path):
    flags = [*SHORT, "--limit", "30", "--epochs", "1", "--output", tmp_path]
    with pytest.raises(SystemExit):
        main("vgg", monkeypatch, *flags, module=vgg(epochs_until_interrupted=0))
    assert (tmp_path / "history.csv").exists() and not (tmp_path / "results.json").exists()
    main("vgg", monkeypatch, *flags, module=vgg())
    assert [row["epoch"] for row in history(tmp_path)] == [0] and (tmp_path / "results.json").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_a_finished_run_is_not_overwritten_unasked(monkeypatch, capsys, tmp_path):
    flags = [*SHORT, "--limit", "30", "--epochs", "1", "--output", tmp_path]
    main("vgg", monkeypatch, *flags, module=vgg())
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.keras", "history.csv", "results.json", "curves.png",
        "confusions.png", "mistakes.png", "feature_maps.png",
    }
    before = (tmp_path / "results.json").read_text()
    with pytest.raises(SystemExit) as exit_:
        main("vgg", monkeypatch, *flags, module=vgg())
    assert not exit_.value.code and "--overwrite" in capsys.readouterr().out
    error = refused(monkeypatch, capsys, *flags, "--seed", "1", module=vgg())
    assert f"--output {tmp_path} holds results.json of another run" in error and "--overwrite" in error
    assert (tmp_path / "results.json").read_text() == before
    main("vgg", monkeypatch, *flags, "--seed", "1", "--overwrite", module=vgg())
    assert json.loads((tmp_path / "results.json").read_text())["seed"] == 1
    assert len(history(tmp_path)) == 1


@pytest.mark.parametrize("name", ["model.keras", "history.csv", "results.json", "mine.png"])
@pytest.mark.parametrize("content", [b"somebody's", b"[]", b"{}", b"", b"\xff\x00"])
def test_files_of_unknown_origin_are_not_overwritten(name, content, monkeypatch, capsys, tmp_path):
    (tmp_path / name).write_bytes(content)
    error = refused(monkeypatch, capsys, *SHORT, "--output", tmp_path, module=vgg())
    assert f"holds {name} of another run" in error
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_a_folder_backup_of_something_else_is_left_alone(overwrite, monkeypatch, capsys, tmp_path):
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "thesis.txt").write_text("somebody's")
    error = refused(monkeypatch, capsys, *SHORT, "--output", tmp_path, *overwrite, module=vgg())
    assert f"--output {tmp_path} holds a folder backup of something else" in error
    assert (tmp_path / "backup" / "thesis.txt").read_text() == "somebody's"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such lock")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_which_another_process_trains_is_left_alone(overwrite, tmp_path):
    run.start(run.argparse.Namespace(output=tmp_path, overwrite=False))
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    command = [sys.executable, "-c", hold, str(tmp_path / "backup" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(run.data.DataError, match="is in use by another process"):
            run.start(run.argparse.Namespace(output=tmp_path, overwrite=overwrite))
        other.communicate(b"\n")
    run.start(run.argparse.Namespace(output=tmp_path, overwrite=overwrite))
    run.start(run.argparse.Namespace(output=tmp_path, overwrite=overwrite))  # the same process may


def test_a_run_on_another_backend_is_another_run():
    """Which a resumed run would mix, and results.json name one of."""
    assert run.settings(run.argparse.Namespace(seed=0)) == {"seed": 0, "backend": keras.config.backend()}


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("batch_loss", [True, False])
def test_a_loss_that_is_not_finite_ends_in_a_sentence(batch_loss, monkeypatch, capsys, tmp_path):
    module, rate = vgg(), 1e30
    if not batch_loss:  # finite in training, not on the validation images
        on_epoch_end, rate = module.run.Epochs.on_epoch_end, 0.1
        infinite = {"val_loss": np.inf}
        module.run.Epochs.on_epoch_end = lambda self, epoch, logs: on_epoch_end(self, epoch, logs | infinite)
    with pytest.raises(SystemExit) as exit_:
        main("vgg", monkeypatch, *SHORT, "--learning-rate", rate, "--output", tmp_path, module=module)
    assert "the loss is not finite" in exit_.value.code and "--learning-rate" in exit_.value.code  # exit status 1
    assert not (tmp_path / "results.json").exists() and not (tmp_path / "model.keras").exists()


def test_a_full_disk_ends_in_a_sentence_and_a_bug_in_a_traceback(monkeypatch):
    for error, expected in ((OSError(28, "No space left on device"), SystemExit), (OSError("a bug"), OSError)):

        @run.errors_as_sentences
        def fails(error=error):
            raise error

        with pytest.raises(expected) as raised:
            fails()
        assert "No space left" in str(raised.value) or expected is OSError


@pytest.mark.parametrize("error", [
    MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12 bytes."),
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), ValueError("OOM when allocating tensor"),
])
def test_too_little_memory_ends_in_a_sentence(error, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["vgg/train.py"])

    @run.errors_as_sentences
    def fails():
        keras.config.set_dtype_policy("mixed_bfloat16")
        raise error

    with pytest.raises(SystemExit, match="the memory is too small: repeat with --overwrite and a lower --batch-size"):
        fails()
    assert keras.config.dtype_policy().name == "float32"  # as before


def test_a_backup_half_saved_falls_back_to_the_epoch_before(tmp_path):
    """Killed while it saved a later epoch, a run resumes from the one before."""
    backup = tmp_path / "backup"
    x, y = np.zeros((8, 4, 4, 1)), np.arange(8) % 2

    def fit(epochs):
        model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
        callback = keras.callbacks.BackupAndRestore(backup, double_checkpoint=True, delete_checkpoint=False)
        return model.fit(x, y, epochs=epochs, callbacks=[callback], verbose=0).epoch

    assert fit(3) == [0, 1, 2]
    weights = backup / "latest.weights.h5"
    weights.write_bytes(weights.read_bytes()[:1_000])
    assert fit(4) == [2, 3]  # the third epoch again
    (backup / "training_metadata.json").write_text("")  # killed while it wrote the number of the fourth
    run.start(run.argparse.Namespace(output=tmp_path, overwrite=False, seed=0))
    assert fit(5) == [3, 4]
    later = 10**9 + (backup / "training_metadata.json").stat().st_mtime_ns
    os.utime(weights, ns=(later, later))  # killed between the weights of the sixth, which are whole, and its number
    run.start(run.argparse.Namespace(output=tmp_path, overwrite=False, seed=0))
    for path in (weights, backup / "training_metadata.json"):  # and, while it fell back, killed in between
        assert path.with_name(path.name + ".bkp").exists()
        os.utime(weights, ns=(later, later))
        run.start(run.argparse.Namespace(output=tmp_path, overwrite=False, seed=0))
    assert fit(6) == [4, 5]


@pytest.mark.parametrize("call", ["rmtree", "copy2"])
def test_killed_while_a_backup_is_removed_or_restored(call, monkeypatch, tmp_path):
    """Removed, it is gone at once; restored, it is restored once more."""
    given = {"output": tmp_path, "seed": 0}
    run.start(run.argparse.Namespace(**given, overwrite=False))
    backup = tmp_path / "backup"
    names = ("latest.weights.h5", "training_metadata.json")
    for name, before, after in zip(names, ("third", '{"epoch": 3}'), ("half of the fou", '{"epo'), strict=True):
        (backup / f"{name}.bkp").write_text(before)
        (backup / name).write_text(after)
    calls, whole = [], getattr(run.shutil, call)

    def killed(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*args, **options)

    monkeypatch.setattr(run.shutil, call, killed)
    with pytest.raises(KeyboardInterrupt):
        run.start(run.argparse.Namespace(**given, overwrite=call == "rmtree"))
    monkeypatch.undo()
    run.start(run.argparse.Namespace(**given, overwrite=False))
    left = {name: (backup / name).read_text() for name in names if (backup / name).exists()}
    assert left == ({} if call == "rmtree" else dict(zip(names, ("third", '{"epoch": 3}'), strict=True)))
    assert not (tmp_path / "partial_backup").exists()


def test_half_a_row_of_the_log_is_dropped(tmp_path):
    """The disk was full while it was written."""
    args = run.argparse.Namespace(output=tmp_path, overwrite=False, seed=0)
    (tmp_path / "history.csv").write_text("epoch,accuracy,loss\n0,0.5,2.0\n1,0.6,1.5\n2,0.6")
    run.start(args)
    assert run.history(args) == {"epoch": [0, 1], "accuracy": [0.5, 0.6], "loss": [2.0, 1.5]}
    for begun in ("", "epoch,accu"):  # Keras names the columns in a new file alone
        (tmp_path / "history.csv").write_text(begun)
        run.start(args)
        assert not (tmp_path / "history.csv").exists()


@pytest.mark.parametrize("flag", ["--data", "--output", "--weights"])
def test_a_home_that_there_is_not(flag, monkeypatch, capsys):
    flags = {"--data": "synthetic"} | {flag: "~no_such_user/x"}
    with pytest.raises(SystemExit) as exit_:
        main("resnet", monkeypatch, *(text for pair in flags.items() for text in pair))
    assert exit_.value.code == 2
    assert capsys.readouterr().err.strip().endswith("error: a path begins with ~ and the name of no user")


def test_an_unfinished_run_of_other_flags_or_photos_is_not_continued(tmp_path):
    run.start(run.argparse.Namespace(output=tmp_path, overwrite=False, photos="a"))
    run.start(run.argparse.Namespace(output=tmp_path, overwrite=False, photos="a"))
    with pytest.raises(run.data.DataError, match="an unfinished run with other flags, or whose photos were others"):
        run.start(run.argparse.Namespace(output=tmp_path, overwrite=False, photos="b"))
    run.start(run.argparse.Namespace(output=tmp_path, overwrite=True, photos="b"))


def test_every_batch_counts_once():
    """In fit and evaluate, with more batches than Keras reads ahead: a model of zeros has the mean of all squares."""
    x = np.arange(40, dtype="float32")[:, None]
    for read in ("fit", "evaluate"):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        batches = run.batches((x, x), 2, seed=1)
        if read == "fit":
            found = model.fit(batches, epochs=3, shuffle=False, verbose=0).history["loss"]
        else:
            found = [model.evaluate(batches, verbose=0)]
        assert found == pytest.approx([(x**2).mean()] * len(found), rel=1e-5)


def test_batches_depend_on_the_seed_and_the_epoch_alone():
    def order(batches, epoch):
        batches.start(epoch)
        made = [batches[i] for i in range(len(batches))]
        return np.concatenate([chosen for chosen, _ in made]), [number for _, number in made]

    def make(chosen, rng):
        return chosen, rng.random()

    one, other = run.Batches(25, 10, make, seed=3), run.Batches(25, 10, make, seed=3)
    assert len(one) == 3 and [len(one[i][0]) for i in range(3)] == [10, 10, 5]
    first, numbers = order(one, 0)
    assert sorted(first) == list(range(25)) and list(first) != sorted(first) and len(set(numbers)) == 3
    assert list(order(one, 1)[0]) != list(first)
    np.testing.assert_array_equal(order(other, 0)[0], first)
    assert order(other, 0)[1] == numbers and order(one, 1)[1] != numbers
    fixed = run.Batches(25, 10, make)
    assert list(order(fixed, 7)[0]) == list(range(25))
    images, labels = run.batches((np.arange(6) * 10, np.arange(6)), 4, seed=1)[0]
    assert len(images) == 4 and (images == labels * 10).all()


def test_every_epoch_has_its_own_augmentation_and_dropout():
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dropout(0.5)(keras.layers.RandomFlip()(inputs))
    model = keras.Model(inputs, outputs)
    batches = run.Batches(4, 2, lambda chosen, rng: (chosen, chosen))
    callback = run.Epochs(batches, seed=5)
    callback.set_model(model)
    x = np.random.default_rng(0).random((4, 8, 8, 3)).astype("float32")
    drawn = []
    for epoch in (0, 1, 0):
        callback.on_epoch_begin(epoch)
        drawn.append([keras.ops.convert_to_numpy(model(x, training=True)) for _ in range(2)])
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert not np.allclose(drawn[0], drawn[1]) and not np.allclose(drawn[0][1], drawn[1][0])


def test_the_best_epoch_of_another_model_is_kept(tmp_path):
    folder = tmp_path / "{x} $1"
    folder.mkdir()
    kept = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    kept.compile("sgd", "mse")
    keep = run.KeepBest(kept, folder / "model.keras", "val_accuracy", "max", 0.5)
    keep.set_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]))
    for epoch, accuracy in enumerate([0.4, 0.7, 0.9, 0.8]):
        kept.layers[0].set_weights([np.full((1, 1), epoch), np.zeros(1)])
        keep.on_epoch_begin(epoch)
        keep.on_epoch_end(epoch, {"val_accuracy": accuracy})
        assert (folder / "model.keras").exists() == (epoch > 0)  # the first is worse than before the interruption
    assert keras.saving.load_model(folder / "model.keras").get_weights()[0] == 2
    assert [path.name for path in folder.iterdir()] == ["model.keras"]


def test_callbacks_go_on_from_the_best_epoch_so_far(tmp_path):
    args = run.argparse.Namespace(output=tmp_path, seed=0)
    (tmp_path / "history.csv").write_text("epoch,val_loss\n0,3.5\n1,2.5\n1,2.25\n2,3.125\n")
    assert run.history(args) == {"epoch": [0, 1, 2], "val_loss": [3.5, 2.25, 3.125]}  # the duplicate is dropped
    kept = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    for mode, best in (("min", 2.25), ("max", 3.5)):
        (keep,) = (w for w in run.callbacks_for(args, kept, None, "val_loss", mode) if isinstance(w, run.KeepBest))
        assert keep.best == best and keep.mode == mode


@pytest.mark.slow
def test_an_interrupted_run_resumes(monkeypatch, capsys, tmp_path):
    """Interrupted from the keyboard it resumes in a second process, and when that is killed, in this one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it, and so its children
    flags = ["--data", "synthetic", "--limit", "60", "--epochs", "20", "--batch-size", "30"]
    flags += ["--output", str(tmp_path / "out")]
    backup = None
    for how in (signal.SIGINT, signal.SIGKILL):
        command = [sys.executable, "vgg/train.py", *flags]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 240
        while (found := last_backup(tmp_path / "out")) in (None, backup):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.02)
        process.send_signal(how)
        _, errors = process.communicate(timeout=240)
        if how == signal.SIGINT:
            assert process.returncode == 130 and "To resume after the last finished epoch" in errors, errors
            assert "Traceback" not in errors
        assert not (tmp_path / "out" / "results.json").exists()
        backup, before = found, history(tmp_path / "out")
        assert 1 <= len(before) < 20
        assert [row["epoch"] for row in before].count(0) == 1  # the second did not start again
    main("vgg", monkeypatch, *flags)
    printed = capsys.readouterr().out
    assert "Epoch 1/20" not in printed and "Epoch 20/20" in printed
    after = history(tmp_path / "out")
    assert [row["epoch"] for row in after] == list(range(20))
    assert after[0] == pytest.approx(before[0], rel=1e-6)


def last_backup(out):
    """Return the epoch of the last backup, or None."""
    try:
        return json.loads((out / "backup" / "training_metadata.json").read_text())["epoch"]
    except (OSError, ValueError):
        return None

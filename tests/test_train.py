"""Every train.py, run as its user runs it: on synthetic images, in seconds, killed, continued, given wrong flags."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from folders import CLASSIFIERS, FOLDERS, ROOT, load, main, predict

SHORT = ["--data", "synthetic", "--limit", "300", "--epochs", "2", "--batch-size", "100"]
every_folder = pytest.mark.parametrize("folder", FOLDERS)
finished_classifiers = pytest.mark.parametrize("finished", CLASSIFIERS, indirect=True)  # the others: files of their own


def run(script, *arguments, cwd=ROOT, **kwargs):
    command = [sys.executable, script, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **kwargs)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_outputs(finished):
    folder, where, arguments, printed = finished
    out = where / arguments[-1]
    assert arguments[1:-1] == ["--data", "synthetic", "--limit", "500", "--epochs", "2", "--output"]
    picture = {"autoencoder": "reconstructions.png", "rcnn": "detections.png"}.get(folder, "predictions.png")
    assert {path.name for path in out.iterdir()} == {
        "model.keras", "history.csv", "curves.png", picture, "results.json",
    }
    results = json.loads((out / "results.json").read_text())
    assert set(results) >= {
        "model", "data", "parameters", "epochs", "batch_size", "learning_rate", "seed", "seconds", "versions",
        "backend", "command",
    }
    if folder in CLASSIFIERS:
        assert set(results) >= {"validation_loss", "validation_accuracy", "test_loss", "test_accuracy"}
    assert results["data"] == "synthetic" and "synthetic shapes, not CIFAR-10" in printed
    batch_size = load(f"{folder}/train.py").DEFAULTS["batch_size"][0]
    assert (results["epochs"], results["batch_size"], results["limit"], results["seed"]) == (2, batch_size, 500, 0)
    assert results["backend"] == keras.config.backend() and results["versions"]["keras"] == keras.__version__
    assert results["command"] == "python " + " ".join(arguments)
    history = rows(out / "history.csv")
    seconds = sum(float(row["seconds"]) for row in history)
    if folder == "rcnn":  # several steps, and what lies between them
        assert [row["epoch"] for row in history] == ["0", "1", "2", "3", "4", *4 * ["0", "1"]]
        assert seconds < results["seconds"] < 10 * seconds
    else:
        assert [row["epoch"] for row in history] == ["0", "1"]
        assert results["seconds"] == pytest.approx(seconds, abs=0.1)
    for name in ("curves.png", picture):
        assert (out / name).read_bytes().startswith(b"\x89PNG") and (out / name).stat().st_size > 10_000


@finished_classifiers
def test_saved_model_takes_raw_pixels_and_holds_the_network(finished):
    folder, where, arguments, _ = finished
    out = where / arguments[-1]
    results = json.loads((out / "results.json").read_text())
    model = keras.saving.load_model(out / "model.keras", safe_mode=True)
    assert model.input.dtype == "uint8" and model.output_shape == (None, 10)
    splits, _ = load(f"{folder}/train.py").data.load("synthetic", 500, 0)
    for split in ("test", "validation"):
        x, y = splits[split]
        accuracy = (predict(model, x).argmax(-1) == y).mean()
        assert accuracy == pytest.approx(results[f"{split}_accuracy"], abs=1e-6)

    network = model.get_layer(results["model"])  # the model without its pre-stem
    assert sum(v.numpy().size for v in network.trainable_variables) == results["parameters"]
    mean, variance = splits["training"][0].mean((0, 1, 2)), splits["training"][0].var((0, 1, 2))
    normalized = ((x - mean) / np.sqrt(variance)).astype("float32")
    np.testing.assert_allclose(predict(network, normalized), predict(model, x), atol=1e-4)


@pytest.mark.usefixtures("eagerly")
def test_a_finished_run_is_not_overwritten_unasked(finished, monkeypatch, capsys, tmp_path):
    folder, where, (_, *flags, out), _ = finished
    shutil.copytree(where / out, tmp_path / "out")
    results = tmp_path / "out" / "results.json"
    before = results.read_text()
    main(folder, monkeypatch, *flags, tmp_path / "out")  # returns: nothing is wrong
    printed = capsys.readouterr().out
    assert "finished" in printed and "--overwrite" in printed
    with pytest.raises(SystemExit) as exit_:
        main(folder, monkeypatch, *flags, tmp_path / "out", "--seed", 1)
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and "another run" in error and "--overwrite" in error
    assert results.read_text() == before
    if folder == "vgg":  # the others have finished() and claim() from there, and trained for long enough
        main(folder, monkeypatch, *flags, tmp_path / "out", "--seed", 1, "--overwrite")
        assert json.loads(results.read_text())["seed"] == 1


@pytest.mark.usefixtures("eagerly")
def test_an_interrupted_run_goes_on(monkeypatch, capsys, tmp_path):
    """Interrupted from the keyboard it goes on in a second process, and when that is killed, in this one."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it, and so its children
    flags = ["--data", "synthetic", "--limit", "200", "--epochs", "20", "--batch-size", "100"]
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
            assert process.returncode == 130 and "the same command goes on" in errors, errors
            assert "Traceback" not in errors
        assert not (tmp_path / "out" / "results.json").exists()
        backup, before = found, rows(tmp_path / "out" / "history.csv")
        assert 1 <= len(before) < 20
        assert [row["epoch"] for row in before].count("0") == 1  # the second did not start anew

        with pytest.raises(SystemExit) as exit_:  # would go on from another run's weights
            main("vgg", monkeypatch, *flags, "--learning-rate", 0.5)
        assert exit_.value.code == 2
    capsys.readouterr()
    main("vgg", monkeypatch, *flags)
    printed = capsys.readouterr().out
    assert "Epoch 1/20" not in printed and "Epoch 20/20" in printed
    after = rows(tmp_path / "out" / "history.csv")
    assert [row["epoch"] for row in after] == [str(epoch) for epoch in range(20)]
    assert float(after[0]["loss"]) == pytest.approx(float(before[0]["loss"]), rel=1e-6)
    assert not (tmp_path / "out" / "backup").exists()


def last_backup(output):
    """Return what the backup of a run says of its last finished epoch; None before there is one, or half of one."""
    try:
        return json.loads((output / "backup" / "training_metadata.json").read_text())
    except (OSError, ValueError):
        return None


@pytest.mark.usefixtures("eagerly")
def test_a_kill_after_the_last_epoch_loses_nothing(monkeypatch, tmp_path, capsys):
    """Between the last epoch and results.json lies the evaluation; a kill there must not train everything again."""
    module = load("vgg/train.py")
    monkeypatch.setattr(sys, "argv", ["vgg/train.py", *SHORT, "--output", str(tmp_path / "out")])

    class Killed(Exception):
        pass

    def kill(*args):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module.report, "write_results", kill)
        module.main()
    history = (tmp_path / "out" / "history.csv").read_text()
    assert history.count("\n") == 3
    capsys.readouterr()
    module.main()
    assert "Epoch" not in capsys.readouterr().out
    assert rows(tmp_path / "out" / "history.csv")[1]["loss"][:6] == history.split("\n")[2].split(",")[2][:6]
    assert (tmp_path / "out" / "results.json").exists() and not (tmp_path / "out" / "backup").exists()


@pytest.mark.usefixtures("eagerly")
def test_a_kill_in_the_first_epoch_starts_anew(monkeypatch, tmp_path):
    """Killed while it saved its first epoch, a run leaves half a file of weights."""
    one_step = ["--data", "synthetic", "--limit", 20, "--batch-size", 20, "--epochs", 1, "--output", tmp_path]
    main("vgg", monkeypatch, *one_step)  # a run of one step is a run
    settings = json.loads((tmp_path / "results.json").read_text())
    for path in tmp_path.iterdir():
        path.unlink()
    (tmp_path / "backup").mkdir()
    names = ("model", "data", "limit", "epochs", "batch_size", "learning_rate", "seed")
    (tmp_path / "backup" / "settings.json").write_text(json.dumps({name: settings[name] for name in names}))
    (tmp_path / "backup" / "latest.weights.h5").write_bytes(b"\x89HDF\r\n half a file")  # and no number yet
    main("vgg", monkeypatch, *one_step)
    assert [row["epoch"] for row in rows(tmp_path / "history.csv")] == ["0"]


def test_a_file_half_saved_falls_back_to_the_epoch_before(tmp_path):
    """Killed while it saved a later epoch, a run goes on from the one before."""
    module = load("vgg/train.py")
    backup = tmp_path / "backup"
    x, y = np.zeros((8, 4, 4, 1)), np.arange(8) % 2

    def fit(epochs):
        model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        callback = module.callbacks.BackupAndRestore(backup, double_checkpoint=True, delete_checkpoint=False)
        return model.fit(x, y, epochs=epochs, callbacks=[callback], verbose=0).epoch

    assert fit(3) == [0, 1, 2]
    weights = backup / "latest.weights.h5"
    weights.write_bytes(weights.read_bytes()[:1_000])
    assert fit(4) == [2, 3]  # the third epoch again
    (backup / "training_metadata.json").write_text("")  # killed while it wrote the number of the fourth
    names = ("model", "data", "limit", "epochs", "batch_size", "learning_rate", "seed")
    module.claim(module.argparse.Namespace(output=tmp_path, overwrite=False, **dict.fromkeys(names)))
    assert fit(5) == [3, 4]


def test_a_network_without_batch_normalization_leaves_the_loss_of_a_guess(monkeypatch, tmp_path):
    """The loss of a uniform guess is ln 10 = 2.303. VGG-11 is an eighth as wide here, to take seconds."""
    module = load("vgg/train.py")
    build, metaparameters, learning_rate = module.MODELS["vgg11"]
    groups = tuple(group | {"n_filters": group["n_filters"] // 8} for group in metaparameters["groups"])
    module.MODELS["narrow"] = (build, {"groups": groups, "n_units": (512, 512)}, learning_rate)
    flags = ["--model", "narrow", "--data", "synthetic", "--epochs", "3", "--batch-size", "32"]
    monkeypatch.setattr(sys, "argv", ["vgg/train.py", *flags, "--output", str(tmp_path)])
    module.main()
    assert json.loads((tmp_path / "results.json").read_text())["test_loss"] < 2.2


def test_squeezenet_leaves_the_loss_of_a_guess():
    """In the log of its run on CIFAR-10; synthetic images would take it a minute."""
    history = rows(ROOT / "squeezenet" / "results" / "history.csv")
    assert float(history[0]["val_accuracy"]) > 0.25 and float(history[0]["val_loss"]) < 2.303  # with its weight decay
    assert all(float(row["val_accuracy"]) > 0.25 for row in history)  # and it never comes back


@pytest.mark.usefixtures("eagerly")
def test_a_loss_that_is_not_finite_stops_with_a_sentence(monkeypatch, tmp_path):
    with pytest.raises(SystemExit) as exit_:
        main("vgg", monkeypatch, *SHORT, "--model", "vgg11", "--learning-rate", 1e6, "--output", tmp_path / "out")
    assert exit_.value.code.startswith("train.py: the loss is not finite")  # what Python prints, with exit status 1
    assert not (tmp_path / "out" / "results.json").exists()


@every_folder
@pytest.mark.parametrize(
    "flags, sentence",
    [
        (["--model", "alexnet"], "alexnet"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--epochs", "-2"], "--epochs must be at least 1, got -2"),
        (["--epochs", "two"], "two"),
        (["--batch-size", "0"], "--batch-size must be 1 to 45000"),
        (["--batch-size", "45001"], "--batch-size must be 1 to 45000"),
        (["--data", "synthetic", "--batch-size", "4501"], "--batch-size must be 1 to 4500"),
        (["--limit", "50"], "--batch-size must be 1 to 50"),
        (["--limit", "0"], "--limit must be 1 to 45000, got 0"),
        (["--data", "synthetic", "--limit", "5000"], "--limit must be 1 to 4500, got 5000"),
        (["--learning-rate", "0"], "--learning-rate must be above 0 and finite"),
        (["--learning-rate", "nan"], "--learning-rate must be above 0 and finite"),
        (["--learning-rate", "inf"], "--learning-rate must be above 0 and finite"),
        (["--seed", "-1"], "--seed must be 0 to"),
        (["--data", "/no/such/folder"], "--data must be cifar10, synthetic or a folder, got /no/such/folder"),
        (["--output", "/proc/no"], "--output /proc/no cannot be written"),
        (["--output", __file__], "cannot be written"),
        (["--dropout", "0.5"], "--dropout"),
    ],
)
def test_wrong_flags_are_refused_before_data_are_loaded(folder, flags, sentence, monkeypatch, capsys, tmp_path):
    module = load(f"{folder}/train.py")
    if folder == "rcnn" and "--batch-size must" in sentence:  # whose batches are of scenes
        flags, sentence = [*flags, *(["--batch-size", "6"] if "--limit" in flags else [])], "--batch-size must be 1 to"
    monkeypatch.setattr(module.data, "load", lambda *args: pytest.fail("data were loaded"))
    monkeypatch.setattr(sys, "argv", ["train.py", *flags])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        module.main()
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert sentence in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["model.keras", "history.csv", "results.json"])
@pytest.mark.parametrize("content", ["somebody's", "[]", '"text"', "{}", ""])
def test_files_of_unknown_origin_are_not_overwritten(name, content, monkeypatch, capsys, tmp_path):
    (tmp_path / name).write_text(content)
    module = load("vgg/train.py")
    monkeypatch.setattr(sys, "argv", ["train.py", *SHORT, "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_:
        module.main()
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and f"holds {name} of another run" in error and error.count("\n") == 1
    assert (tmp_path / name).read_text() == content


@every_folder
def test_help_names_every_default(folder, monkeypatch, capsys):
    module = load(f"{folder}/train.py")
    monkeypatch.setattr(sys, "argv", ["train.py", "--help"])
    with pytest.raises(SystemExit):
        module.parse_arguments()
    printed = " ".join(capsys.readouterr().out.split())
    for value, reason in module.DEFAULTS.values():
        assert f"default {reason}" in printed if value is None else f"default {value}: {reason}" in printed
    more = {"multilabel": 1, "siamese": 3, "rcnn": 3}.get(folder, 0)
    assert printed.count("default") == 9 + more  # that of every flag


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder not in ("autoencoder", "rcnn")])
def test_the_model_is_compiled_as_the_hyperparameters_say(folder, monkeypatch, tmp_path):
    module = load(f"{folder}/train.py")
    caught = []
    monkeypatch.setattr(module.Model, "fit", lambda model, *args, **kwargs: caught.append(model))
    monkeypatch.setattr(sys, "argv", ["train.py", "--data", "synthetic", "--epochs", "10", "--output", str(tmp_path)])
    args = module.parse_arguments()
    splits, classes = module.data.load("synthetic", seed=0)
    module.train(args, splits, *{"multilabel": [classes], "siamese": []}.get(folder, [len(classes)]))

    top, decay = (0.04, 2e-4) if folder == "squeezenet" else (0.1, 5e-4)
    (model,) = caught
    images = 2_250 if folder == "siamese" else 4_500  # or pairs of them
    optimizer, steps = model.optimizer, 10 * -(-images // args.batch_size)
    assert isinstance(optimizer, keras.optimizers.SGD) and optimizer.nesterov and optimizer.momentum == 0.9
    rates = [float(optimizer._learning_rate(step)) for step in range(steps + 1)]
    assert rates[0] == pytest.approx(top / 10) and rates[-1] == pytest.approx(0, abs=1e-6)
    assert max(rates) == pytest.approx(top) and rates.index(max(rates)) == round(steps / 10)  # the top of the warm-up
    assert rates[: steps // 10] == sorted(rates[: steps // 10])
    assert rates[steps // 10 :] == sorted(rates[steps // 10 :], reverse=True)

    decayed = [variable for variable in model.trainable_variables if variable.regularizer is not None]
    assert [variable.path for variable in decayed] == [v.path for v in model.trainable_variables if v.name == "kernel"]
    penalty = sum(float(loss) for loss in model.losses)
    squares = sum(float((variable.numpy() ** 2).sum()) for variable in decayed)
    assert penalty == pytest.approx(decay / 2 * squares, rel=1e-4)  # whose gradient is decay times the kernel


def test_the_best_epoch_on_the_validation_images_is_kept(tmp_path):
    report = load("vgg/report.py")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    best = report.BestModel(tmp_path / "model.keras", 0.5)
    best.set_model(model)
    for epoch, accuracy in enumerate([0.4, 0.7, 0.9, 0.8]):
        model.layers[0].set_weights([np.full((1, 1), epoch), np.zeros(1)])
        best.on_epoch_begin(epoch)
        best.on_epoch_end(epoch, {"val_accuracy": accuracy, "val_loss": 1.0})
        assert (tmp_path / "model.keras").exists() == (epoch > 0)  # the first is worse than before the interruption
    assert keras.saving.load_model(tmp_path / "model.keras").get_weights()[0] == 2
    with pytest.raises(RuntimeError, match="NaN or Inf loss"):
        best.on_epoch_end(4, {"val_accuracy": 1.0, "val_loss": np.inf})


def test_an_epoch_run_twice_counts_once(tmp_path):
    report = load("vgg/report.py")
    (tmp_path / "history.csv").write_text("epoch,loss\n0,3.5\n1,2.5\n1,2.25\n2,1.125\n")
    history = report.read_history(tmp_path)
    assert history == {"epoch": [0, 1, 2], "loss": [3.5, 2.25, 1.125]}
    report.save_history(tmp_path / "tidy.csv", history)
    assert (tmp_path / "tidy.csv").read_text() == "epoch,loss\n0,3.5\n1,2.25\n2,1.125\n"


def test_a_data_set_that_cannot_be_had_leaves_the_output_folder_free(tmp_path):
    (tmp_path / "data").mkdir()
    done = run("vgg/train.py", "--data", tmp_path / "data", "--output", tmp_path / "out")
    assert done.returncode == 2 and "data_batch_1.bin" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "out").iterdir())


def test_pre_stem():
    module = load("vgg/train.py")  # the same function in every folder, by test_copies.py
    keras.utils.set_random_seed(0)
    mean, variance = np.array([10.0, 20.0, 30.0]), np.array([4.0, 9.0, 16.0])
    inputs = keras.Input((32, 32, 3), dtype="uint8")
    model = keras.Model(inputs, module.pre_stem(inputs, mean, variance))
    x = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3)).astype("uint8")
    expected = (x - mean) / np.sqrt(variance)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-4)  # as it is in use

    trained = keras.ops.convert_to_numpy(model(x, training=True))
    flips, shifts = [], []
    for image, changed in zip(expected, trained, strict=True):
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))  # zeros come in from outside
        crops = {
            (flip, row, column): padded[:, :: -1 if flip else 1][row : row + 32, column : column + 32]
            for flip in (False, True)
            for row in range(9)
            for column in range(9)
        }
        ((flip, *shift),) = [key for key, crop in crops.items() if np.allclose(crop, changed, atol=1e-3)]  # just one
        flips.append(flip)
        shifts.append(tuple(shift))
    assert 70 < sum(flips) < 130
    assert len(set(shifts)) > 40


@pytest.mark.usefixtures("eagerly")
def test_inception_is_trained_with_its_auxiliary_classifiers_and_kept_without(monkeypatch, tmp_path):
    """Also that a run interrupted after its first epoch goes on from there, with the best accuracy it had."""
    module, models = load("inception/train.py"), []
    build, metaparameters, learning_rate = module.MODELS["inception_v1_cifar10"]
    first, (block, *_), _ = metaparameters["groups"]
    metaparameters = metaparameters | {"groups": (first, (block, None, block, None))}
    module.MODELS["short"] = (build, metaparameters, learning_rate)
    flags = ["--model", "short", "--data", "synthetic", "--limit", "60", "--epochs", "2", "--batch-size", "30"]
    monkeypatch.setattr(sys, "argv", ["inception/train.py", *flags, "--output", str(tmp_path / "out")])
    fit, on_epoch_end = module.Model.fit, module.report.BestModel.on_epoch_end

    def watched_fit(model, *args, **named):
        models.append(model)
        return fit(model, *args, **named)

    class Interrupted(Exception):
        pass

    def interrupt_in_the_second(callback, epoch, logs=None):
        if epoch == 1:
            raise Interrupted
        on_epoch_end(callback, epoch, logs)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(module.report.BestModel, "on_epoch_end", interrupt_in_the_second)
        module.main()
    monkeypatch.setattr(module.Model, "fit", watched_fit)
    module.main()

    weights = models[0].get_compile_config()["loss_weights"]
    assert weights == {"main": 1.0, "auxiliary_1": 0.3, "auxiliary_2": 0.3}  # section 5 of the paper
    history = rows(tmp_path / "out" / "history.csv")
    assert [row["epoch"] for row in history] == ["0", "1"]
    for row in history:
        assert all(float(row[f"val_{name}_accuracy"]) <= 1 and float(row[f"{name}_loss"]) > 0 for name in weights)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    best = max(float(row["val_main_accuracy"]) for row in history)
    assert results["validation_accuracy"] == pytest.approx(best, abs=1e-6)
    alone = build(metaparameters, (32, 32, 3), 10)
    assert results["parameters"] == sum(v.numpy().size for v in alone.trainable_variables)
    kept = keras.saving.load_model(tmp_path / "out" / "model.keras")
    assert kept.output_shape == (None, 10)


def test_inception_v3_is_compiled_with_its_auxiliary_classifier(monkeypatch, tmp_path):
    module, caught = load("inception/train.py"), []
    monkeypatch.setattr(module.Model, "fit", lambda model, x, y, *args, **named: caught.append((model, y)))
    flags = ["--model", "inception_v3_cifar10", "--data", "synthetic", "--limit", "200", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["train.py", *flags])
    args = module.parse_arguments()
    module.train(args, module.data.load("synthetic", 200, 0)[0], 10)
    ((model, labels),) = caught
    assert model.get_compile_config()["loss_weights"] == {"main": 1.0, "auxiliary_1": 0.3}
    assert set(labels) == {"main", "auxiliary_1"} and set(model.output) == set(labels)


def test_the_curves_of_inception_show_its_auxiliary_classifiers(monkeypatch, tmp_path):
    report, drawn = load("inception/report.py"), []
    monkeypatch.setattr(report.Figure, "savefig", lambda figure, *args, **named: drawn.append(figure))
    names = ("main", "auxiliary_1", "auxiliary_2")
    columns = ["loss", *(f"{name}_{what}" for name in names for what in ("loss", "accuracy"))]
    history = {split + column: [0.5, 0.75] for split in ("", "val_") for column in columns} | {"seconds": [1, 1]}
    report.plot_curves(tmp_path / "curves.png", "title", history)
    (figure,) = drawn
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert labels == ["training", "validation", "validation, auxiliary 1", "validation, auxiliary 2"]

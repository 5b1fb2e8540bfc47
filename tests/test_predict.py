"""predict.py, the same file in the folder of every classifier: what it prints for image files, and what it refuses."""

import json
import re
import sys

import keras
import numpy as np
import pytest
from folders import load, main
from networks import TRAINED
from photos import save
from PIL import Image


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run of a tiny ResNet on ten classes of synthetic images."""
    where = tmp_path_factory.mktemp("predict") / "a {run}"
    module = load("resnet/train.py")
    flags, _ = TRAINED["resnet"](module, epochs=2)
    with pytest.MonkeyPatch.context() as monkeypatch:
        main("resnet", monkeypatch, *flags, "--output", where, module=module)
    return where


def predict(monkeypatch, *arguments):
    module = load("resnet/predict.py")
    monkeypatch.setattr(sys, "argv", ["resnet/predict.py", *map(str, arguments)])
    module.main()


@pytest.mark.slow
def test_the_five_most_likely_classes(trained, monkeypatch, capsys, tmp_path):
    """In order, with the probabilities that the model gives to the middle of the upright image."""
    model, classes = keras.saving.load_model(trained / "model.keras"), load("vgg/data.py").SYNTHETIC_CLASSES
    wide = np.random.default_rng(0).integers(0, 256, (32, 50, 3)).astype("uint8")
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    paths = [save(tmp_path / "dé {0} 数.png", wide), save(tmp_path / "b.PNG", wide[::-1, ::-1], exif=exif)]
    paths += [save(tmp_path / f"{i}.png", np.roll(wide, 7 * i, 1)) for i in range(35)]  # more than a batch
    predict(monkeypatch, trained, *paths)
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 6 * len(paths) + 1
    expected = model.predict(np.stack([wide[:, 9:41]] * 2 + [np.roll(wide, 7 * i, 1)[:, 9:41] for i in range(35)]))
    for i, path in enumerate(paths):
        name, *rows = lines[6 * i : 6 * i + 6]
        assert name == str(path)
        rows = [re.fullmatch(r" *([\d.]+)%  (.+)", row).groups() for row in rows]
        order = np.argsort(-expected[i])[:5]
        assert [row[1] for row in rows] == [classes[k] for k in order]
        assert [float(row[0]) for row in rows] == pytest.approx(100 * expected[i][order], abs=0.01)
    assert lines[:6][1:] == lines[6:12][1:]


def test_fewer_than_five_classes(monkeypatch, capsys, tmp_path):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    keras.Model(inputs, keras.layers.Softmax()(x)).save(tmp_path / "model.keras")
    (tmp_path / "results.json").write_text(json.dumps({"model": "mean", "classes": ["red", "green", "blue"]}))
    predict(monkeypatch, tmp_path, save(tmp_path / "a.jpg", np.full((20, 30, 3), (0, 0, 200), "uint8"), quality=100))
    _, *rows, _ = capsys.readouterr().out.split("\n")
    assert [row.split()[1] for row in rows][0] == "blue" and len(rows) == 3 and rows[0].startswith(" 100.00%")


def refused(monkeypatch, capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        predict(monkeypatch, *arguments)
    output = capsys.readouterr()
    assert exit_.value.code == 2 and "Traceback" not in output.err and not output.out
    return output.err.strip().split("\n")[-1]


@pytest.mark.slow
def test_what_it_cannot_do(trained, monkeypatch, capsys, tmp_path):
    good, bad = save(tmp_path / "a.png", np.zeros((40, 40, 3), "uint8")), tmp_path / "b.png"
    error = refused(monkeypatch, capsys, tmp_path / "nothing", good)
    assert error.startswith(f"predict.py: error: {tmp_path / 'nothing'} is not the folder of a finished run: ")
    error = refused(monkeypatch, capsys, trained, good, bad)
    assert error.startswith(f"predict.py: error: {bad} cannot be read (") and "No such file" in error
    bad.write_bytes(good.read_bytes()[:-30])
    assert f"{bad} cannot be read (" in refused(monkeypatch, capsys, trained, good, bad)
    bad.write_text("not an image")
    assert f"{bad} cannot be read (not an image that Pillow knows)" in refused(monkeypatch, capsys, trained, bad)
    assert f"{tmp_path} cannot be read (" in refused(monkeypatch, capsys, trained, tmp_path)
    assert "the following arguments are required: IMAGE" in refused(monkeypatch, capsys, trained)
    (tmp_path / "results.json").write_text(json.dumps({"model": "siamese", "classes": ["a", "b"]}))
    assert f"{tmp_path / 'model.keras'} cannot be loaded (" in refused(monkeypatch, capsys, tmp_path, good)
    pair = [keras.Input((8, 8, 3)), keras.Input((8, 8, 3))]
    keras.Model(pair, keras.layers.Add()(pair)).save(tmp_path / "model.keras")
    error = refused(monkeypatch, capsys, tmp_path, good)
    assert error == f"predict.py: error: {tmp_path} holds a siamese, which does not classify single images"
    image = keras.Input((8, 8, 3))
    keras.Model(image, keras.layers.Dense(2, "sigmoid")(keras.layers.Flatten()(image))).save(tmp_path / "model.keras")
    (tmp_path / "results.json").write_text(json.dumps({"model": "x", "classes": ["a", "b"], "task": "mosaic"}))
    assert "holds a x, which does not classify single images" in refused(monkeypatch, capsys, tmp_path, good)

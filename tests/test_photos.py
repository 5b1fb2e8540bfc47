"""Own photos: how a file becomes an image, how a folder is read and split, and what is refused in a sentence."""

import json
import os
import random
import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from folders import CLASSIFIERS, FOLDERS, ROOT, load, main
from networks import TRAINED
from photos import error_of, save, write_photos
from PIL import Image, ImageOps

run = load("vgg/run.py")  # the same files in every folder, by test_copies.py
data = run.data
RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (8, 12, 3)).astype("uint8")  # 8 pixels high, 12 wide
MIDDLE = NOISE[:, 2:10]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes with 20 photos each."""
    return write_photos(tmp_path_factory.mktemp("photos"), {"blue jay": 20, "a{0}$_$é数": 20, "cat": 20})


# Orientation of EXIF: which edges of the upright image the first row and the first column of a file are.
STORED = {
    1: NOISE,  # top, left
    2: NOISE[:, ::-1],  # top, right
    3: NOISE[::-1, ::-1],  # bottom, right
    4: NOISE[::-1],  # bottom, left
    5: NOISE.swapaxes(0, 1),  # left, top
    6: NOISE.swapaxes(0, 1)[::-1],  # right, top
    7: NOISE.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
    8: NOISE.swapaxes(0, 1)[:, ::-1],  # left, bottom
}


@pytest.mark.parametrize("orientation", STORED)
def test_orientation(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", STORED[orientation], exif=exif)
    np.testing.assert_array_equal(data.read_photo(path, 8), MIDDLE)
    blocks = STORED[orientation].repeat(16, 0).repeat(16, 1)  # which JPEG keeps
    path = save(tmp_path / "a.jpg", blocks, exif=exif, quality=100, subsampling=0)
    found = data.read_photo(path, 128)[8::16, 8::16].astype(int)
    assert abs(found - MIDDLE).max() <= 3


def test_a_photo_whose_exif_data_cannot_be_read_stays_as_it_is(tmp_path):
    """These data do not begin as those of a TIFF; the pixels are good."""
    path = save(tmp_path / "a.png", NOISE, exif=b"b'Exif")
    with Image.open(path) as image, pytest.raises(SyntaxError):
        ImageOps.exif_transpose(image)
    np.testing.assert_array_equal(data.read_photo(path, 8), MIDDLE)


GRAY = NOISE[..., 0]
RED = np.zeros((8, 12, 4), "uint8") + np.array([255, 0, 0, 0], "uint8")
RED[:4, :, 3] = 255  # below it is transparent
PALETTE = Image.fromarray((NOISE > 127).astype("uint8") * 255).quantize(8)


@pytest.mark.parametrize(
    "name, image, expected",
    [
        ("rgb.png", NOISE, NOISE),
        ("rgb.bmp", NOISE, NOISE),
        ("rgb.tiff", NOISE, NOISE),
        ("rgb.PNG", NOISE, NOISE),
        ("gray.png", GRAY, GRAY[..., None].repeat(3, -1)),
        ("gray.pgm", GRAY, GRAY[..., None].repeat(3, -1)),
        ("gray16.png", GRAY.astype("uint16") * 256 + 255, GRAY[..., None].repeat(3, -1)),
        ("gray16.tif", GRAY.astype("uint16") * 256 + 255, GRAY[..., None].repeat(3, -1)),
        ("black_and_white.png", Image.fromarray(GRAY).point(lambda v: 255 * (v > 99), "1"),
         np.uint8(255) * (GRAY > 99)[..., None].repeat(3, -1)),
        ("palette.png", PALETTE, (NOISE > 127).astype("uint8") * 255),
        ("palette.gif", PALETTE, (NOISE > 127).astype("uint8") * 255),
        ("alpha.png", RED, np.where(RED[..., 3:] > 0, RED[..., :3], 255).astype("uint8")),  # on white
        ("gray_alpha.png", Image.fromarray(RED).convert("LA"),
         np.where(RED[..., 3:] > 0, 76, 255).repeat(3, -1).astype("uint8")),  # red is 0.299 of white
        ("cmyk.tif", Image.fromarray(NOISE).convert("CMYK"), NOISE),
    ],
)  # fmt: skip
def test_formats(name, image, expected, tmp_path):
    found = data.read_photo(save(tmp_path / name, image), 8)
    assert found.shape == (8, 8, 3) and found.dtype == "uint8"
    np.testing.assert_allclose(found.astype(int), expected[:, 2:10], atol=1 if "cmyk" in name else 0)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg(mode, tmp_path):
    blocks = Image.fromarray(NOISE.repeat(16, 0).repeat(16, 1)).convert(mode)
    path = save(tmp_path / "a.jpg", blocks, quality=100, **{} if mode == "L" else {"subsampling": 0})
    expected = MIDDLE.astype(int) if mode != "L" else (MIDDLE @ [0.299, 0.587, 0.114]).round()[..., None]
    assert abs(data.read_photo(path, 128)[8::16, 8::16] - expected).max() <= 4
    large = data.read_photo(path, 8).astype(int)  # a sixteenth, of which Pillow decodes an eighth
    assert abs(large[1:-1, 1:-1] - expected[1:-1, 1:-1]).mean() < 50 and large.shape == (8, 8, 3)


def test_transparent_color_of_a_palette(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], "uint8"), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    path = save(tmp_path / "a.png", image, transparency=1)
    assert data.read_photo(path, 2).tolist() == [[[10, 20, 30], [255] * 3], [[255] * 3, [10, 20, 30]]]


@pytest.mark.parametrize(
    "height, width, top, left", [(5, 9, 0, 2), (5, 8, 0, 1), (9, 5, 2, 0), (8, 5, 1, 0), (5, 5, 0, 0)]
)
def test_the_crop_is_in_the_middle(height, width, top, left, tmp_path):
    pixels = RNG.integers(0, 256, (height, width, 3)).astype("uint8")
    path = save(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(data.read_photo(path, 5), pixels[top : top + 5, left : left + 5])


def test_more_than_16_bits_are_refused(tmp_path):
    """Their range is unknown; cut off at 16 bits, all of such an image may be white."""
    Image.fromarray(np.full((4, 4), 70_000, "int32")).save(tmp_path / "a.tif")
    with pytest.raises(data.DataError, match="its pixels have more than 16 bits, of which the range is unknown"):
        data.read_photo(tmp_path / "a.tif", 4)


def test_the_shorter_side_is_resized(tmp_path):
    """Of a ramp, the value is that of the middle of each pixel, at the edges of the crop too."""
    ramp = np.broadcast_to((np.arange(128) * 2).astype("uint8")[None, :, None], (64, 128, 3))
    middle = 65 + 4 * np.arange(32)  # the square from 32 to 96; pixel j is that of columns 32 + 2 j and the next
    for pixels, expected in ((ramp, middle), (ramp.swapaxes(0, 1), middle[:, None])):
        found = data.read_photo(save(tmp_path / "a.png", np.ascontiguousarray(pixels)), 32)
        np.testing.assert_array_equal(found, np.broadcast_to(expected[..., None], (32, 32, 3)))
    small = np.full((2, 3, 3), 77, "uint8")
    assert (data.read_photo(save(tmp_path / "b.png", small), 64) == np.full((64, 64, 3), 77)).all()


@pytest.mark.parametrize("upright", [True, False])
def test_training_crops_at_random(upright, tmp_path):
    pixels = NOISE.swapaxes(0, 1) if upright else NOISE
    path = save(tmp_path / "a.png", np.ascontiguousarray(pixels))
    crops = [(pixels[i : i + 8] if upright else pixels[:, i : i + 8]) for i in range(5)]
    found = []
    for seed in range(60):
        crop = data.read_photo(path, 8, np.random.default_rng(seed))
        np.testing.assert_array_equal(crop, data.read_photo(path, 8, np.random.default_rng(seed)))
        (which,) = [i for i, expected in enumerate(crops) if (expected == crop).all()]
        found.append(which)
    assert min(np.bincount(found, minlength=5)) >= 5

    split = data.Photos(np.array([str(path)] * 40, object), 8), np.arange(40)
    assert split[0].shape == (40, 8, 8, 3) and split[0].dtype == "uint8" and len(split[0]) == 40
    training, validation = run.batches(split, 20, seed=1), run.batches(split, 20)
    assert len({image.tobytes() for image in training[0][0]}) > 2
    np.testing.assert_array_equal(training[1][0], run.batches(split, 20, seed=1)[1][0])
    np.testing.assert_array_equal(validation[0][0], np.stack([crops[2]] * 20))
    np.testing.assert_array_equal(split[0][3:5], np.stack([crops[2]] * 2))
    assert split[0][40:].shape == (0, 8, 8, 3)


def names(splits, split):
    return [os.path.relpath(path, os.path.dirname(os.path.dirname(path))) for path in splits[split][0].paths]


def test_a_folder_is_split_by_the_seed(photos):
    splits, classes = data.load(str(photos), seed=3, image_size=24)
    assert classes == ("a{0}$_$é数", "blue jay", "cat")
    assert [splits[name][0].shape for name in splits] == [(48, 24, 24, 3), (6, 24, 24, 3), (6, 24, 24, 3)]
    everything = [name for split in splits for name in names(splits, split)]
    assert len(set(everything)) == 60
    for split, n in (("training", 16), ("validation", 2), ("test", 2)):
        images, labels = splits[split]
        assert labels.dtype == "int32" and np.bincount(labels).tolist() == [n] * 3
        assert [classes[label] for label in labels] == [os.path.dirname(name) for name in names(splits, split)]
        assert (labels[1:] < labels[:-1]).any()  # shuffled
    again, other = data.load(str(photos), seed=3)[0], data.load(str(photos), seed=4)[0]
    assert names(again, "training") == names(splits, "training") != names(other, "training")
    assert set(names(again, "test")) != set(names(other, "test"))


def test_the_split_does_not_depend_on_the_order_of_the_file_system(photos, monkeypatch, tmp_path):
    before = names(data.load(str(photos))[0], "training")
    listed = data.Path.iterdir

    def in_disorder(path):
        found = list(listed(path))
        random.shuffle(found)
        return iter(found)

    monkeypatch.setattr(data.Path, "iterdir", in_disorder)
    assert names(data.load(str(photos))[0], "training") == before


def test_limit(photos):
    splits, _ = data.load(str(photos), 30)
    assert [len(labels) for _, labels in splits.values()] == [30, 3, 6]
    assert set(splits["training"][1]) == {0, 1, 2}
    with pytest.raises(data.DataError, match="--limit must be at most 48, the photos to train on, got 49"):
        data.load(str(photos), 49)


def test_a_folder_that_is_split_already(tmp_path):
    for name, n in (("train", 6), ("validation", 2), ("test", 3)):
        write_photos(tmp_path / name, {"b": n, "a": n})
    splits, classes = data.load(tmp_path)
    assert classes == ("a", "b")
    for split, folder, n in (("training", "train", 6), ("validation", "validation", 2), ("test", "test", 3)):
        images, labels = splits[split]
        assert len(labels) == 2 * n and all(f"/{folder}/" in path for path in images.paths)
        assert ["/ab"[label + 1] for label in labels] == [path.split("/")[-2] for path in images.paths]


def test_a_class_may_be_called_train(tmp_path):
    _, classes = data.load(write_photos(tmp_path, {"train": 4, "test": 4, "bus": 4}))
    assert classes == ("bus", "test", "train")


def test_what_is_no_photo_is_ignored_and_what_is_one_is_found(tmp_path):
    write_photos(tmp_path / "photos", {"a": 4, "b": 4, ".hidden": 3})
    folder, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    for name in ("a/notes.txt", "a/.b.png", "a/film.mp4", "loose.png", "a/.thumbnails/x.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"no photo")
    save(folder / "a" / "deep" / "er" / "IMG 1.JPG", NOISE)
    save(elsewhere / "x.jpeg", NOISE)
    (folder / "a" / "linked.jpeg").symlink_to(elsewhere / "x.jpeg")
    (folder / "b" / "linked").symlink_to(elsewhere)
    (folder / "b" / "round").symlink_to(folder / "b")  # a circle
    (folder / "b" / "all").symlink_to(folder)  # and a larger one, with the photos of both classes
    found = {name: [path.name for path in paths] for name, paths in data.photos_of_classes(folder).items()}
    assert found["a"] == ["0.png", "1.jpg", "2.png", "3.jpg", "linked.jpeg", "IMG 1.JPG"]
    assert found["b"] == ["0.png", "1.jpg", "2.png", "3.jpg", "x.jpeg"]
    assert data.load(folder)[1] == ("a", "b")


def refused(folder, sentence):
    with pytest.raises(data.DataError) as error:
        data.load(str(folder))
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_folders_that_cannot_be_learned_from(tmp_path):
    write_photos(tmp_path / "one", {"cat": 9})
    refused(tmp_path / "one", "one has one subfolder, cat: there must be one for each class, and at least two")
    write_photos(tmp_path / "empty", {"cat": 9, "dog": 9})
    (tmp_path / "empty" / "bird" / "none").mkdir(parents=True)
    (tmp_path / "empty" / "bird" / "list.txt").touch()
    refused(tmp_path / "empty", f"{tmp_path / 'empty' / 'bird'} holds no photos: each subfolder of")
    write_photos(tmp_path / "few", {"cat": 9, "dog": 2})
    refused(tmp_path / "few", "few/dog holds 2 photos: a class needs at least 3")
    (tmp_path / "none" / "cat").mkdir(parents=True)
    refused(tmp_path / "none", "lacks data_batch_1.bin: --data needs the binary version of CIFAR-10")
    refused(tmp_path / "none", "a subfolder of photos for each class, and the folder holds cat")
    save(tmp_path / "flat" / "1.jpg", NOISE)
    refused(tmp_path / "flat", "a subfolder of photos for each class, and the folder holds 1.jpg")
    for name in ("train", "test"):
        write_photos(tmp_path / "split" / name, {"cat": 3, "dog": 3})
    refused(tmp_path / "split", "has a subfolder test but none named validation")
    write_photos(tmp_path / "split" / "validation", {"cat": 3, "dog": 3, "emu": 3})
    refused(tmp_path / "split", "split/validation has the class emu, which")
    shutil.rmtree(tmp_path / "split" / "validation" / "emu")
    shutil.rmtree(tmp_path / "split" / "validation" / "cat")
    refused(tmp_path / "split", "split/validation has one subfolder, dog")
    write_photos(tmp_path / "split" / "validation", {"emu": 3})
    refused(tmp_path / "split", "split/train has the class cat, which")
    shutil.rmtree(tmp_path / "split" / "train")
    refused(tmp_path / "split", "has a subfolder test but none named train")
    for name in ("train", "validation"):
        write_photos(tmp_path / "loose" / name, {"cat": 3, "dog": 3})
    save(tmp_path / "loose" / "test" / "1.jpg", NOISE)
    refused(tmp_path / "loose", "loose/test has no subfolders: there must be one for each class")
    for name in ("Training set", "Test set"):
        write_photos(tmp_path / "other" / name, {"cat": 3, "dog": 3})
    refused(tmp_path / "other", "other has Test set and Training set: photos that are split already need train, valid")


def test_a_fingerprint_tells_photos_apart(tmp_path):
    """Wherever the folder lies."""
    found = [
        data.fingerprint(data.load(write_photos(tmp_path / name / "photos", numbers))[0])
        for name, numbers in (("a", {"cat": 5, "dog": 5}), ("b", {"cat": 5, "dog": 5}), ("c", {"cat": 5, "dog": 6}))
    ]
    assert found[0] == found[1] != found[2]
    assert data.fingerprint(data.load("synthetic", 20)[0]) is None


def test_pixels_of_unknown_range_are_refused(tmp_path):
    save(tmp_path / "a.tif", Image.fromarray(np.random.default_rng(0).random((9, 9), "float32")))
    with pytest.raises(data.DataError, match="floating-point numbers"):
        data.read_photo(tmp_path / "a.tif", 8)
    small = np.arange(64, dtype="int32").reshape(8, 8)
    save(tmp_path / "b.tif", Image.fromarray(small))
    np.testing.assert_array_equal(data.read_photo(tmp_path / "b.tif", 8)[..., 0], small)


def spoil(path, how):
    content = path.read_bytes()
    path.unlink()
    if how == "broken link":
        path.symlink_to(path.parent / "nothing")
    else:
        path.write_bytes({"truncated": content[: len(content) // 2], "text": b"not a photo", "empty": b""}[how])


@pytest.mark.parametrize("how", ["truncated", "text", "empty", "broken link"])
@pytest.mark.parametrize("name", ["cat/3.jpg", "cat/4.png"])
def test_a_photo_that_cannot_be_read_is_named_before_the_training(how, name, photos, monkeypatch, capsys, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    spoil(tmp_path / "photos" / name, how)
    module = load("vgg/train.py")
    monkeypatch.setattr(module.run, "built", lambda *args: pytest.fail("a network was built"))
    with pytest.raises(SystemExit) as exit_:
        main("vgg", monkeypatch, "--data", tmp_path / "photos", "--output", tmp_path / "out", module=module)
    errors = capsys.readouterr().err
    assert exit_.value.code == 2 and "Traceback" not in errors
    assert f"train.py: error: {tmp_path / 'photos' / name} cannot be read (" in errors.split("\n")[-2]
    for i in range(7):
        spoil(tmp_path / "photos" / "blue jay" / f"{2 * i}.png", "empty")
    refused(tmp_path / "photos", "); and so 3 more")  # of eight, five are named
    assert not list((tmp_path / "out").iterdir())


def test_the_folder_of_the_photos_is_not_that_of_the_run(photos, monkeypatch, capsys):
    for output in (photos, photos / "run"):
        with pytest.raises(SystemExit) as exit_:
            main("vgg", monkeypatch, "--data", photos, "--output", output)
        assert exit_.value.code == 2 and "--output must not be in the folder of" in capsys.readouterr().err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the file systems of others refuse such a name")
def test_a_class_whose_name_is_no_text_is_refused(photos, tmp_path):
    """Its bytes are Latin-1: pictures could not show it."""
    shutil.copytree(photos, tmp_path / "photos")
    os.rename(tmp_path / "photos" / "cat", os.fsencode(tmp_path / "photos") + b"/caf\xe9")
    refused(tmp_path / "photos", "must have a name in UTF-8: rename it")


@pytest.mark.usefixtures("eagerly")
def test_a_photo_that_is_lost_during_the_training_is_named(photos, monkeypatch, capsys, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    module = load("vgg/train.py")
    flags, _ = TRAINED["vgg"](module)
    monkeypatch.setattr(module.run, "start", lambda args: shutil.rmtree(tmp_path / "photos" / "cat"))
    flags = [*flags, "--data", tmp_path / "photos", "--limit", "48", "--output", tmp_path / "out"]
    with pytest.raises(SystemExit) as exit_:
        main("vgg", monkeypatch, *flags, module=module)
    errors = capsys.readouterr().err.split("\n")
    assert exit_.value.code == 2 and "/photos/cat/" in errors[-2] and "cannot be read (" in errors[-2]


def test_mean_and_variance(tmp_path):
    folder = write_photos(tmp_path, {"a": 9, "b": 9, "c": 9})
    images = data.load(str(folder), image_size=16)[0]["training"][0]
    mean, variance = data.mean_and_variance(images)
    pixels = images[:]
    np.testing.assert_array_max_ulp(mean, pixels.mean((0, 1, 2)).astype("float32"))  # float64 but for the last step
    np.testing.assert_allclose(variance, pixels.var((0, 1, 2)), rtol=1e-6)
    for of_array, expected in zip(data.mean_and_variance(pixels), (mean, variance), strict=True):
        np.testing.assert_allclose(of_array, expected, rtol=1e-6)


def test_mean_and_variance_of_many_photos_are_those_of_a_sample(monkeypatch):
    read = []
    monkeypatch.setattr(data, "read_photo", lambda path, size: read.append(path) or np.full((size, size, 3), path))
    mean, variance = data.mean_and_variance(data.Photos(np.arange(10_000) / 40, 2))
    assert len(set(read)) > 150 and len(read) == 300
    assert mean == pytest.approx([125] * 3, rel=0.1) and variance == pytest.approx([250**2 / 12] * 3, rel=0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_a_run(photos, monkeypatch, capsys, tmp_path):
    module = load("resnet/train.py")
    flags, _ = TRAINED["resnet"](module, epochs=2)
    flags = [*flags, "--data", photos, "--limit", 48, "--image-size", 40, "--learning-rate", 0.02]
    monkeypatch.chdir(tmp_path)
    main("resnet", monkeypatch, *flags, module=module)
    printed = capsys.readouterr().out
    assert "Photos of 3 classes: 48 for training, 5 for validation, 6 for test" in printed
    results = json.loads((tmp_path / "runs" / "tiny_photos" / "results.json").read_text())
    assert results["classes"] == ["a{0}$_$é数", "blue jay", "cat"] and results["data"] == str(photos)
    assert results["image_size"] == 40 and results["weights"] is None and "in the middle" in results["crop"]
    model = module.run.load_model(tmp_path / "runs" / "tiny_photos")
    assert model.input_shape == (None, 40, 40, 3) and model.output_shape == (None, 3)
    mean, variance = module.data.mean_and_variance(module.data.load(str(photos), 48, 0, 40)[0]["training"][0])
    np.testing.assert_allclose(results["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(results["variance"], variance, rtol=1e-5)
    with pytest.raises(SystemExit) as exit_:
        main("resnet", monkeypatch, *flags, "--image-size", 48, module=module)
    assert exit_.value.code == 2 and "of another run" in capsys.readouterr().err


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder not in CLASSIFIERS])
def test_the_other_folders_say_what_they_take(folder, photos, monkeypatch, capsys, tmp_path):
    error = error_of(folder, monkeypatch, capsys, "--data", photos, "--output", tmp_path / "out")
    assert error.startswith("train.py: error: --data must be cifar10, synthetic or a folder with the binary files of")
    assert "only networks that classify single images train on them" in error
    for flag, value in (("--weights", "imagenet"), ("--image-size", "64")):
        error = error_of(folder, monkeypatch, capsys, flag, value)
        assert f"unrecognized arguments: {flag} {value}" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("folder", CLASSIFIERS)
def test_the_image_size_is_for_photos(folder, monkeypatch, capsys, tmp_path):
    for source in ("cifar10", "synthetic"):
        flags = ["--data", source, "--image-size", "64", "--output", tmp_path / "out"]
        error = error_of(folder, monkeypatch, capsys, *flags)
        assert error == f"train.py: error: --image-size is for photos: the images of --data {source} have 32x32 pixels"
    error = error_of(folder, monkeypatch, capsys, "--image-size", "0")
    assert "argument --image-size: must be a whole number of at least 1, got 0" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "folder, model, size, least",
    [("vgg", "vgg16", 31, 32), ("resnet", "resnet50", 31, 32), ("inception", "inception_v3", 74, 75),
     ("inception", "inception_v1", 79, 80), ("squeezenet", "squeezenet_v1_0", 20, 21)],
)  # fmt: skip
def test_an_image_size_that_a_network_cannot_take(folder, model, size, least, photos, monkeypatch, capsys, tmp_path):
    flags = ["--model", model, "--data", photos, "--image-size", size, "--output", tmp_path / "out"]
    error = error_of(folder, monkeypatch, capsys, *flags)
    assert error.startswith(f"train.py: error: --model {model}: ") and f"{least}, got ({size}, {size})" in error
    assert not list((tmp_path / "out").iterdir())  # the same folder can be taken for a size that fits


def test_photos_are_never_all_in_memory(tmp_path):
    """numpy's memory, for ten times the photos."""
    peaks = []
    for n in (40, 400):
        folder = write_photos(tmp_path / str(n), {"a": n // 2, "b": n // 2}, (".jpg",), ((70, 90),))
        tracemalloc.start()
        splits, _ = data.load(str(folder), image_size=64)
        data.mean_and_variance(splits["training"][0])
        batches = run.batches(splits["training"], 16, seed=0)
        for i in range(len(batches)):
            batches[i]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] < 400 * 64 * 64 * 3


@pytest.mark.slow
def test_the_split_is_the_same_in_every_process(photos):
    """The order depends on nothing that differs between processes, such as the hash of a string."""
    script = f"import data; print(data.load({str(photos)!r}, seed=1)[0]['training'][0].paths.tolist())"
    printed = {
        subprocess.run([sys.executable, "-c", script], cwd=ROOT / "vgg", capture_output=True, text=True,
                       env=os.environ | {"PYTHONHASHSEED": seed}).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(printed) == 1 and "cat" in printed.pop()

"""The images: where they come from, how they are split, and what is said when they are missing or invalid."""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from folders import ROOT, load

data = load("vgg/data.py")  # the same file in every folder, by test_copies.py
FILES = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]


@pytest.fixture(scope="module")
def binary_files(tmp_path_factory):
    """Files in the official layout; the n-th image is all of the color (n % 251, n % 241, n % 239)."""
    folder = tmp_path_factory.mktemp("data") / "cifar-10-batches-bin"
    folder.mkdir()
    for i, name in enumerate(FILES):
        n = np.arange(i * 10_000, (i + 1) * 10_000)
        columns = [np.repeat((n % k)[:, None], 1_024, 1) for k in (251, 241, 239)]
        np.concatenate([(n % 10)[:, None], *columns], 1).astype("uint8").tofile(folder / name)
    return folder


@pytest.mark.parametrize("inner", [True, False])
def test_binary_files(binary_files, inner):
    training, test = data.read_folder(binary_files if inner else binary_files.parent)
    for (images, labels), first in ((training, 0), (test, 50_000)):
        n = np.arange(first, first + len(labels))
        assert images.shape == (len(n), 32, 32, 3) and images.dtype == "uint8" and labels.dtype == "int32"
        np.testing.assert_array_equal(labels, n % 10)
        np.testing.assert_array_equal(images[:, 31, 5], np.stack([n % 251, n % 241, n % 239], 1))
    assert (len(training[1]), len(test[1])) == (50_000, 10_000)


def test_binary_files_are_rows_of_red_then_green_then_blue(binary_files, tmp_path):
    for name in FILES:
        (tmp_path / name).symlink_to(binary_files / name)
    (tmp_path / FILES[0]).unlink()
    record = np.zeros((10_000, 3_073), "uint8")
    record[0, 1 + 1_024 + 32 * 3 + 7] = 200  # green, row 3, column 7
    record.tofile(tmp_path / FILES[0])
    (images, _), _ = data.read_folder(tmp_path)
    assert np.argwhere(images[0]).tolist() == [[3, 7, 1]]


def spoil(how, path):
    if how == "missing":
        path.unlink()
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    else:
        content = np.fromfile(path, "uint8")
        path.unlink()
        if how == "short":
            content = content[:-3_073]
        elif how == "mislabelled":
            content[5 * 3_073] = 17
        else:
            content = content[:0]
        content.tofile(path)


@pytest.mark.parametrize("name", [FILES[0], FILES[-1]])
@pytest.mark.parametrize("how", ["missing", "short", "mislabelled", "empty", "a folder"])
def test_spoilt_files_are_named(how, name, binary_files, tmp_path):
    for file in FILES:
        (tmp_path / file).symlink_to(binary_files / file)
    spoil(how, tmp_path / name)
    with pytest.raises(data.DataError, match=name) as error:
        data.load(tmp_path)
    assert "\n" not in str(error.value)
    said = {
        "mislabelled": "from 0 to 9, got 17", "short": "got 30,726,927 bytes", "empty": "got 0 bytes",
        "missing": f"lacks {name}", "a folder": "cannot be read",
    }[how]
    assert said in str(error.value)


@pytest.mark.slow
def test_the_split_is_45000_and_5000_by_the_seed(binary_files):
    splits, classes = data.load(binary_files, seed=3)
    numbers = {}
    for name, (images, _) in splits.items():  # an image's color is its number, by the Chinese remainder theorem
        numbers[name] = set(map(tuple, images[:, 0, 0].tolist()))
    assert {name: len(found) for name, found in numbers.items()} == {
        "training": 45_000, "validation": 5_000, "test": 10_000,
    }
    assert not numbers["training"] & numbers["validation"]
    assert not numbers["test"] & (numbers["training"] | numbers["validation"])
    assert classes == data.CLASSES

    again, other = data.load(binary_files, seed=3)[0], data.load(binary_files, seed=4)[0]
    np.testing.assert_array_equal(splits["training"][0], again["training"][0])
    assert not np.array_equal(splits["training"][0], other["training"][0])


@pytest.mark.parametrize("limit", [1, 9, 100, 4_500])
def test_limit_is_the_number_of_images_to_train_on(limit):
    splits, _ = load("vgg/train.py").data.load("synthetic", limit)  # which draws once for all of these
    assert len(splits["training"][1]) == limit
    assert len(splits["validation"][1]) == max(1, limit // 9)
    assert len(splits["test"][1]) == min(limit, 1_000)


def test_n_training_is_what_load_gives():
    assert len(data.load("synthetic")[0]["training"][1]) == data.N_TRAINING["synthetic"]
    assert data.N_TRAINING["cifar10"] == 45_000


def test_synthetic_images():
    images, labels = data.synthetic(2_000, seed=5)
    assert images.shape == (2_000, 32, 32, 3) and images.dtype == "uint8" and labels.dtype == "int32"
    assert np.bincount(labels, minlength=10).min() > 100 and labels.max() == 9 == len(data.SYNTHETIC_CLASSES) - 1
    again, other = data.synthetic(2_000, seed=5), data.synthetic(2_000, seed=6)
    np.testing.assert_array_equal(images, again[0])
    assert not np.array_equal(images, other[0])


def test_synthetic_images_are_not_trivial():
    """The best linear classifier of the pixels, by least squares, is little better than chance."""
    images, labels = data.synthetic(5_000, seed=0)
    x = np.c_[images.reshape(len(images), -1) / 255, np.ones(len(images))].astype("float32")
    targets = np.eye(10)[labels]
    ridge = x[:4_000].T @ x[:4_000] + 10 * np.eye(x.shape[1])
    guesses = (x[4_000:] @ np.linalg.solve(ridge, x[:4_000].T @ targets[:4_000])).argmax(-1)
    assert (guesses == labels[4_000:]).mean() < 0.3


@pytest.mark.parametrize(
    "names, held",
    [
        ((), "the folder holds nothing"),
        (("data_batch_1", "test_batch", "batches.meta"), "the folder holds batches.meta, data_batch_1, test_batch"),
        (("cifar-10-binary.tar.gz",), "the folder holds cifar-10-binary.tar.gz"),
        (("airplane/1.txt", "bird/2.npy"), "the folder holds airplane, bird"),
        (tuple("abcdefg"), "the folder holds a, b, c, d, e, ..."),
    ],
)
def test_a_folder_of_something_else_is_refused_with_what_it_holds(names, held, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(data.DataError) as error:
        data.load(tmp_path)
    assert "lacks data_batch_1.bin: --data needs the binary version of CIFAR-10" in str(error.value)
    assert held in str(error.value) and "\n" not in str(error.value)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An archive as CIFAR-10's python version is one, of random pixels; its sha256."""
    path = tmp_path_factory.mktemp("origin") / "cifar-10-python.tar.gz"
    rng, contents = np.random.default_rng(0), io.BytesIO()
    with tarfile.open(fileobj=contents, mode="w:gz", compresslevel=1) as tar:
        for i, name in enumerate([f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]):
            pixels = np.full((10_000, 3_072), i, "uint8")
            pixels[:, 0] = rng.integers(0, 256, 10_000)
            batch = pickle.dumps({b"data": pixels, b"labels": [i] * 10_000})
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(batch)
            tar.addfile(entry, io.BytesIO(batch))
    path.write_bytes(contents.getvalue())
    return path, hashlib.sha256(contents.getvalue()).hexdigest()


def test_the_archive_is_downloaded_once_and_read_without_extracting(archive, monkeypatch, tmp_path):
    path, sha256 = archive
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(data, "MIRROR", path.as_uri())
    monkeypatch.setattr(data, "ORIGIN", "file:///no/such/file")
    monkeypatch.setattr(data, "SHA256", sha256)
    for _ in range(2):
        (images, labels), (_, test_labels) = data.download()
        assert images.shape == (50_000, 32, 32, 3) and images.dtype == "uint8" and labels.dtype == "int32"
        assert (labels == np.repeat(np.arange(5), 10_000)).all() and (test_labels == 5).all()
        assert (images[:, 5, 5, 1] == labels).all()
        assert [file.name for file in (tmp_path / "datasets").iterdir()] == ["cifar-10-batches-py-target_archive"]
        monkeypatch.setattr(data, "MIRROR", "file:///no/such/file")  # the second time it is in the cache
    kept = tmp_path / "datasets" / "cifar-10-batches-py-target_archive"
    kept.write_bytes(kept.read_bytes() + b"!")  # what does not have the hash is never unpickled
    with pytest.raises(data.DataError, match="could not be downloaded"):
        data.download()
    monkeypatch.setattr(data, "ORIGIN", path.as_uri())
    assert len(data.download()[0][1]) == 50_000  # the origin serves when the mirror fails


@pytest.mark.slow
def test_four_runs_at_once_fill_one_cache(archive, tmp_path):
    path, sha256 = archive
    script = (
        "import os, sys; sys.path.insert(0, 'vgg'); import data\n"
        f"data.MIRROR, data.SHA256 = {path.as_uri()!r}, {sha256!r}\n"
        "others = []\n"
        "for _ in range(3):\n"  # Keras is imported once for all four
        "    others.append(os.fork())\n"
        "    if not others[-1]:\n"
        "        others = []\n"
        "        break\n"
        "assert len(data.download()[0][1]) == 50_000\n"
        "assert [os.waitpid(other, 0)[1] for other in others] in ([], [0, 0, 0])"
    )
    environment = os.environ | {"KERAS_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in (tmp_path / "datasets").iterdir()] == ["cifar-10-batches-py-target_archive"]


def test_without_a_network_one_sentence_says_what_to_do(monkeypatch, tmp_path):
    asked = []

    def fails(name, origin, **kwargs):
        asked.append(origin)
        raise Exception("URL fetch failure")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(data.utils, "get_file", fails)
    with pytest.raises(data.DataError) as error:
        data.load("cifar10")
    assert asked == [data.MIRROR, data.ORIGIN]
    sentence = str(error.value)
    for part in ("URL fetch failure", "--data synthetic", "cifar-10-python.tar.gz at"):
        assert part in sentence
    assert str(tmp_path / "datasets" / "cifar-10-batches-py-target_archive") in sentence and "\n" not in sentence

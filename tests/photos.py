"""What the tests of photos share: how to write some, and how to read the sentence of a train.py that refuses."""

import numpy as np
import pytest
from folders import main
from PIL import Image


def save(path, pixels, mode=None, **options):
    """Write an image, an array or Pillow's, in the format that its name says; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def write_photos(folder, numbers, endings=(".png", ".jpg"), sizes=((40, 60), (60, 40), (33, 33))):
    """Fill a folder with a subfolder of photos for each class, {class: how many}, of a color of its own."""
    for k, (name, n) in enumerate(numbers.items()):
        for i in range(n):
            pixels = np.random.default_rng((k, i)).integers(0, 100, (*sizes[i % len(sizes)], 3)).astype("uint8")
            pixels[..., k % 3] += 150
            save(folder / name / f"{i}{endings[i % len(endings)]}", pixels)
    return folder


def error_of(folder, monkeypatch, capsys, *flags, module=None):
    """Return the last line on stderr of a train.py that must end with exit status 2."""
    with pytest.raises(SystemExit) as exit_:
        main(folder, monkeypatch, *flags, module=module)
    errors = capsys.readouterr().err
    assert exit_.value.code == 2 and "Traceback" not in errors
    return errors.strip().split("\n")[-1]

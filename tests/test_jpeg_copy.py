"""The copy of CIFAR-10 that the figures are of: files in the official layout, made of JPEG files."""

import numpy as np
from make_jpeg_copy import main
from PIL import Image


def test_files_of_the_official_layout(tmp_path):
    """A record is a label and 3 x 1,024 bytes, red first; one batch of five holds each fifth of the shuffled images."""
    colors = {"airplane": (255, 0, 0), "bird": (0, 0, 255)}
    for split, n in (("train", 5), ("test", 2)):
        for name, color in colors.items():
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(n):
                Image.new("RGB", (32, 32), color).save(folder / f"{i:04}.jpg", quality=95)
    main(tmp_path / "images", tmp_path / "copy")

    of = tmp_path / "copy" / "cifar-10-batches-bin"
    rows = np.concatenate([np.fromfile(of / f"data_batch_{i}.bin", "uint8").reshape(-1, 3073) for i in range(1, 6)])
    order = np.random.default_rng(0).permutation(10)  # of five airplanes, then five birds
    assert rows[:, 0].tolist() == (order >= 5).astype(int).tolist()
    red, blue = rows[:, 1:1025].mean(1), rows[:, 2049:].mean(1)
    assert ((red > 250) == (rows[:, 0] == 0)).all() and ((blue > 250) == (rows[:, 0] == 1)).all()
    assert np.fromfile(of / "test_batch.bin", "uint8").size == 4 * 3073
    assert (of / "batches.meta.txt").read_text().split() == ["airplane", "bird"]

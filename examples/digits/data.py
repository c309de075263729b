"""The 1,797 digits of scikit-learn's `load_digits`: 8 by 8 pixels of 17 shades, as 43 people wrote them."""

from __future__ import annotations

import gzip

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from examples.packages import SCIKIT_LEARN


def images() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Pixels from 0 to 240, [images, 8, 8], and the digit that each image shows, [images]."""
    lines = gzip.decompress(SCIKIT_LEARN.read("sklearn/datasets/data/digits.csv.gz")).decode().splitlines()
    values = np.array([[float(value) for value in line.split(",")] for line in lines])
    return (values[:, :-1] * 15).astype(np.uint8).reshape(-1, 8, 8), values[:, -1].astype(np.int64)


def table() -> pa.Table:
    """What the task trains on, a row for each image."""
    pixels, digits = images()
    shades = pa.array(pixels.reshape(-1).astype(np.float32) / 255)
    return pa.table({"pixels": pa.FixedSizeListArray.from_arrays(shades, 64), "digit": digits})

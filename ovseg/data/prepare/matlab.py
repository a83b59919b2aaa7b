"""Label matrices in MATLAB files."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

__all__ = ["read_mat_labels"]

# What SciPy raises on files that are cut off or of another kind.
_MAT_ERRORS = (
    OSError,
    MatReadError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    NotImplementedError,
    EOFError,
    struct.error,
    zlib.error,
)


def read_mat_labels(path: Path, variable: str) -> np.ndarray:
    """Read a label matrix of a MATLAB file.

    Args:
        path: file of MATLAB 5 to 7.2.
        variable: name of the matrix.

    Returns:
        (H, W) int32, values in [0, 65535].

    Raises:
        ValueError: the file is missing or damaged, or has no such matrix.
    """
    try:
        with path.open("rb") as file:  # by its name, SciPy does not say that it is missing
            content = scipy.io.loadmat(file, variable_names=[variable])
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file; unpack its archive again") from error
    except _MAT_ERRORS as error:
        raise ValueError(f"{path}: damaged, or no MATLAB file: {error}") from error
    labels = content.get(variable)
    if labels is None or labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in "uif":
        found = "nothing" if labels is None else f"shape {labels.shape} of {labels.dtype}"
        raise ValueError(f"{path}: expected a {variable} (H, W) of numbers, got {found}")
    whole = labels.astype(np.int32)
    if (whole != labels).any() or whole.min() < 0 or whole.max() > 65535:
        raise ValueError(f"{path}: expected whole numbers in 0-65535 in {variable}")
    return whole

"""Pictures that look nearly alike: frames of one film, or one picture saved twice, under names of two patients.

Each picture is reduced to 32 x 32 gray values. What all pictures of a dataset have in common, such as the dark ring
around every photograph of a retina, is taken off; two are alike when what is left correlates by more than 0.95.
"""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from scipy.sparse.csgraph import connected_components

ALIKE = 0.95
"""Correlation above which two thumbnails show one picture."""
_SIDE = 32
MOST = 20_000
"""Pictures beyond which none are compared: each is compared with each other one."""
_ROWS = 1024  # thumbnails that are compared with all others at a time, which bounds memory


def thumbnail(picture: NDArray[np.generic]) -> str:
    """Reduce a picture, shape ``(C, rows, columns)``, to 32 x 32 gray values from black to white, as digits in base 16.

    Examples:
        >>> thumbnail(np.arange(64 * 64).reshape(1, 64, 64))[:8], len(thumbnail(np.zeros((3, 5, 7))))
        ('00000000', 2048)
    """
    import cv2  # not everything that checks data looks at pictures

    with np.errstate(all="ignore"):  # what is not finite, or does not fit, is told as a finding of its own
        gray = np.nan_to_num(picture.mean(axis=0, dtype=np.float32), posinf=0, neginf=0)
    small = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    span = float(np.ptp(small)) or 1.0
    return ((small - small.min()) * (255 / span)).round().astype(np.uint8).tobytes().hex()


def find_alike(thumbnails: Mapping[str, str]) -> list[list[str]]:
    """Group pictures that look alike, directly or through others.

    Args:
        thumbnails: Name to what :func:`thumbnail` gave; one without any contrast is like no other.

    Returns:
        Names of each group of two or more; none of more than :data:`MOST` pictures.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> pictures = {name: rng.random((1, 40, 50)) for name in "abcd"}
        >>> pictures["e"] = pictures["b"] + 0.05 * rng.random((1, 40, 50))
        >>> find_alike({name: thumbnail(picture) for name, picture in pictures.items()})
        [['b', 'e']]
    """
    names = [name for name, digits in thumbnails.items() if digits.strip("0")]
    if not 3 <= len(names) <= MOST:  # of two pictures nothing tells what they have in common
        return []
    values = np.stack([np.frombuffer(bytes.fromhex(thumbnails[name]), np.uint8) for name in names]).astype(np.float32)
    values = _standardised(values)
    values = _standardised(values - values.mean(axis=0))
    near = vstack([csr_array(values[i : i + _ROWS] @ values.T > ALIKE) for i in range(0, len(values), _ROWS)])
    groups: dict[int, list[str]] = defaultdict(list)
    for name, group in zip(names, connected_components(near, directed=False)[1], strict=True):
        groups[int(group)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _standardised(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of mean 0 and length 1; all zero for a row without contrast."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)

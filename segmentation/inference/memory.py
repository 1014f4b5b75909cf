"""How much memory a prediction may take, and what of it is left for arrays."""

import math
import re

from segmentation import SkipSegError
from segmentation.data.hardware import free_memory, memory_now, peak_memory
from segmentation.data.preprocessing import Preprocessing
from segmentation.data.transforms import plane_axis
from segmentation.scans import Scan, to_canonical

_UNITS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}

MARGIN = 96 * 2**20
"""Bytes kept free for what is not counted: blocks of files, temporaries of one plane, the interpreter's growth."""

PLANES = 4
"""Planes of probabilities that are at hand at a time while they are blended, restored and decided."""


def parse_bytes(text: str) -> int:
    """Read an amount of memory.

    Raises:
        SkipSegError: If the text is no amount.

    Examples:
        >>> parse_bytes("2GiB"), parse_bytes("1.5 GB"), parse_bytes("800m")
        (2147483648, 1500000000, 800000000)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    if found is None or found[2] not in _UNITS or float(found[1]) == 0:
        raise SkipSegError(f"memory must be an amount such as 2GiB or 800MB, got {text!r}")
    return int(float(found[1]) * _UNITS[found[2]])


def room_for_arrays(memory: str | None, expected: int = 0) -> int:
    """Bytes that arrays may take beside the network.

    Args:
        memory: What the whole process may take; ``None`` allows half of what is free besides.
        expected: Bytes that the network will take beyond what the process takes now; none if it has computed.

    Raises:
        SkipSegError: If the network alone takes more.
    """
    if memory is None:
        return max(0, free_memory() - expected) // 2
    limit, taken = parse_bytes(memory), max(peak_memory(), memory_now() + expected) + MARGIN
    if limit < taken:
        least = -(-taken // 2**20)
        raise SkipSegError(f"memory {memory} is less than this network takes for one window; give at least {least}MiB")
    return limit - taken


def of_planes(scan: Scan, preprocessing: Preprocessing, maps: int) -> int:
    """Bytes that a few planes of probabilities take, restored and not, beyond :data:`MARGIN`.

    Args:
        scan: What is segmented.
        preprocessing: How it is prepared.
        maps: Classes, times the networks that are kept apart.
    """
    axis = plane_axis(scan, preprocessing)
    shapes = to_canonical(scan).spatial_shape, preprocessing.prepared_shape(scan)
    return max(0, PLANES * 4 * maps * max(math.prod(shape) // shape[axis] for shape in shapes) - MARGIN)

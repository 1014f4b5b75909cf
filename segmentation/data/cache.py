"""Prepared arrays on disk: memory-mapped, compressed, and named by the content that they were made from.

The name of an entry is a hash over the bytes of the source files, the label rules and the preprocessing. A
changed scan or a changed plan therefore never meets a stale entry, and an entry is never changed once it stands.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

from segmentation import SkipSegError
from segmentation.data.manifest import Case, Dataset, name_few
from segmentation.data.preprocessing import Preprocessing
from segmentation.data.transforms import prepare_image, prepare_label_map
from segmentation.progress import track
from segmentation.runs import content_hash, file_hash, read_json, write_bytes, write_json
from segmentation.scans import read_label_map, read_scan
from segmentation.scans.blocks import c_order
from segmentation.scans.workspace import Workspace

log = logging.getLogger(__name__)

CACHE_VERSION = 1
"""Raised whenever the same input would give other arrays."""

VOXELS_PER_CLASS = 10_000
"""At most this many foreground voxels of each class are remembered as places to cut patches."""


@dataclass(frozen=True)
class CachedCase:
    """One prepared case.

    Attributes:
        name: The case.
        patient: Its patient.
        folder: Where its arrays lie.
    """

    name: str
    patient: str
    folder: Path

    def image(self, in_memory: bool = True) -> Any:
        """Intensities in [0, 1] as float16, shape ``(C, *S)``: an array, or a memory-mapped one to slice."""
        return _load(self.folder / "image.b2nd", in_memory)

    def labels(self, in_memory: bool = True) -> Any:
        """Class indices as uint8, shape ``(*S)``; K where voxels are to be ignored."""
        return _load(self.folder / "labels.b2nd", in_memory)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays in memory."""
        return sum(int(_load(self.folder / name, False).nbytes) for name in ("image.b2nd", "labels.b2nd"))

    def vanished(self) -> list[str]:
        """Classes that the label map holds, and the prepared one does not."""
        return list(read_json(self.folder / "case.json").get("vanished", ()))

    def foreground(self) -> list[NDArray[np.int32]]:
        """Voxel coordinates of each foreground class that is present, shape ``(n, len(S))``."""
        index = read_json(self.folder / "case.json")
        coordinates = _load(self.folder / "foreground.b2nd")
        bounds = np.cumsum([0, *index["foreground"]])
        return [coordinates[a:b] for a, b in pairwise(bounds) if b > a]


def cache_cases(dataset: Dataset, cases: Iterable[Case], preprocessing: Preprocessing, cache: Path) -> list[CachedCase]:
    """Prepare ``cases`` into ``cache``, one at a time; what stands there already is used.

    Raises:
        SkipSegError: If a scan or label map cannot be read, or the two do not share a grid.
        OSError: If the disk is full; finished cases stay.
    """
    with track(list(cases), "prepare", "cases") as listed:
        cached = [cache_case(dataset, case, preprocessing, cache) for case in listed]
    vanished = {case.name: case.vanished() for case in cached}
    for name in dataset.foreground:
        if few := name_few([case for case, classes in vanished.items() if name in classes]):
            _warn_once(f"{few}: no voxel of {name} is left at this spacing; a finer data.spacing_mm keeps it")
    return cached


@cache
def _warn_once(text: str) -> None:
    """Say something once, however often the arrays are asked for."""
    log.warning("%s", text)


def cache_case(dataset: Dataset, case: Case, preprocessing: Preprocessing, cache: Path) -> CachedCase:
    """Prepare one labelled case, or find it prepared; see :func:`cache_cases`."""
    files = [*case.images, *([case.label] if case.label else [])]
    key = content_hash(
        {
            "version": CACHE_VERSION,
            "files": [source_hash(path) for path in files],
            "labels": dict(dataset.labels),
            "remap": {str(stored): meant for stored, meant in dataset.label_remap.items()},
            "preprocessing": preprocessing.to_plain(),
        }
    )
    folder = cache / "arrays" / key[:2] / key[2:34]
    cached = CachedCase(case.name, case.patient, folder)
    if (folder / "case.json").exists():
        return cached
    scan = read_scan(case.images, channels=len(dataset.channel_names))
    if case.label is None:
        raise ValueError(f"case {case.name} has no label map to train on")
    # Scan and label map may differ by a rounding of the header: the scan's affine decides for both.
    label_scan = replace(read_label_map(case.label, like=scan, remap=dataset.label_remap), affine=scan.affine)
    image = prepare_image(scan, preprocessing, Workspace(), np.float16)
    del scan  # no more than two arrays of a scan's size at a time
    chunk, block = _layout(image.shape[1:], preprocessing)
    _store(folder / "image.b2nd", image, (1, *chunk), (1, *block))
    del image
    present = [name for name, value in dataset.foreground.items() if bool((label_scan.array == value).any())]
    labels = prepare_label_map(label_scan, preprocessing, len(dataset.classes))
    del label_scan
    places = {name: foreground_voxels(labels == value) for name, value in dataset.foreground.items()}
    vanished = [name for name in present if not len(places[name])]
    _store(folder / "labels.b2nd", labels, chunk, block)
    coordinates = np.concatenate([*places.values()]) if places else np.zeros((0, labels.ndim), np.int32)
    _store(folder / "foreground.b2nd", coordinates)
    # Written last: an entry with case.json is whole.
    counts = [len(found) for found in places.values()]
    write_json(folder / "case.json", {"case": case.name, "foreground": counts, "vanished": vanished})
    return cached


def source_hash(path: Path) -> str:
    """Hash the bytes of a file, or of every file below a folder in the order of their names."""
    if path.is_dir():
        return content_hash([file_hash(item) for item in sorted(path.rglob("*")) if item.is_file()])
    return file_hash(path)


def foreground_voxels(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Coordinates of up to ``VOXELS_PER_CLASS`` voxels of ``mask``, shape ``(*S)``, evenly spread in scan order."""
    found = np.flatnonzero(mask)
    if len(found) > VOXELS_PER_CLASS:
        found = found[np.linspace(0, len(found) - 1, VOXELS_PER_CLASS).astype(np.int64)]
    return np.stack(np.unravel_index(found, mask.shape), axis=1).astype(np.int32)


def _layout(shape: tuple[int, ...], preprocessing: Preprocessing) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the chunks and of the blocks within, the least that is read: slices, whole pictures, or small cubes."""
    if preprocessing.slice_axis is not None:
        return (1, *shape[1:]), (1, *shape[1:])
    if preprocessing.dims == 2:
        return shape, shape
    return tuple(min(size, 128) for size in shape), tuple(min(size, 32) for size in shape)


def _store(
    path: Path, array: NDArray[Any], chunk: Sequence[int] | None = None, block: Sequence[int] | None = None
) -> None:
    """Write ``array`` whole or not at all, compressed in chunks of blocks of the given shapes."""
    values: Any = c_order(array)
    layout: dict[str, Any] = {} if chunk is None or array.size == 0 else {"chunks": chunk, "blocks": block}
    parameters = {"codec": blosc2.Codec.LZ4, "clevel": 9, "nthreads": 1}
    # Packed in memory, because blosc2 does not say that a disk is full.
    packed: Any = blosc2.asarray(values, cparams=parameters, **layout)
    write_bytes(path, packed.to_cframe())


def _load(path: Path, in_memory: bool = True) -> Any:
    """Open an array that :func:`_store` wrote, and read all of it if asked."""
    open_array: Any = blosc2.open
    try:
        array = open_array(str(path), mode="r", mmap_mode="r")
        return array[...] if in_memory else array
    except (FileNotFoundError, RuntimeError):
        raise SkipSegError(f"{path} is damaged; delete the folder {path.parent} and run again") from None

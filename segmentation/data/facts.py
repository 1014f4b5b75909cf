"""What one case holds, and what is wrong with it: each of its files opened once."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segmentation import SkipSegError
from segmentation.data.alike import thumbnail
from segmentation.data.coarse import coarse_kept, components_of
from segmentation.data.manifest import Case, Dataset, name_few
from segmentation.metrics.masks import common_box
from segmentation.scans import Scan, grid_difference, read_label_map, read_scan
from segmentation.scans.blocks import BLOCK_BYTES, file_blocks, spans
from segmentation.scans.segments import is_dicom_seg

Severity = Literal["error", "warning", "note"]

PERCENTILES = (0.5, 5.0, 25.0, 50.0, 75.0, 95.0, 99.5)
"""Which percentiles :class:`Intensities` holds."""

_MOST_SAMPLES = 1_000_000  # evenly spread voxels of a channel from which mean, deviation and percentiles are taken


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        severity: An ``error`` stops training.
        code: Kind of finding, stable for scripts.
        cases: Names of the cases concerned; empty if it is the dataset as a whole.
        message: What was found.
        remedy: What to do; empty where the message says it or nothing needs doing.
    """

    severity: Severity
    code: str
    cases: tuple[str, ...]
    message: str
    remedy: str = ""

    @property
    def sentence(self) -> str:
        """One line: the first few cases, what was found, what to do."""
        who = f"{name_few(self.cases)}: " if self.cases else ""
        return who + self.message + (f"; {self.remedy}" if self.remedy else "")

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Finding":
        """Build from what :func:`dataclasses.asdict` and JSON made of it."""
        fields: dict[str, Any] = {**plain, "cases": tuple(plain["cases"])}
        return cls(**fields)


@dataclass(frozen=True)
class Intensities:
    """Distribution of the finite intensities of one channel, within a case or its foreground.

    Attributes:
        voxels: How many there are.
        minimum, maximum: Over all of them.
        mean, std, percentiles: Over up to a million evenly spread ones; the latter at :data:`PERCENTILES`.
    """

    voxels: int
    minimum: float
    maximum: float
    mean: float
    std: float
    percentiles: tuple[float, ...]

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Intensities":
        """Build from what :func:`dataclasses.asdict` and JSON made of it."""
        fields: dict[str, Any] = {**plain, "percentiles": tuple(plain["percentiles"])}
        return cls(**fields)


@dataclass(frozen=True)
class CaseFacts:
    """What a case holds whose image can be read.

    Attributes:
        shape: Spatial shape in voxels, in the axis order of the file.
        spacing_mm: Voxel spacing along those axes (1 for a picture).
        orientation: Such as ``"RAS"``; empty for a picture.
        dtype: Type of the stored intensities.
        image_sha256: Hash of the voxel data of all channels with their shape and type, without the header.
        label_sha256: Hash of the label values, remapped; empty without a label map on the image's grid.
        foreground: Class name to its number of voxels, without background and ``ignore``; empty without a
            label map on the image's grid.
        tiny_components: Class name to its number of connected components (voxels that touch at a face, edge
            or corner) of fewer than 2^d voxels, which halving the resolution can swallow.
        image_intensities: Of each channel; ``None`` where no voxel is finite.
        foreground_intensities: Of each channel within the foreground; ``None`` where it is empty.
        coarse_kept: Class name to what its labels keep in coarser voxels, as of
            :func:`~segmentation.data.coarse.coarse_kept`. Classes that the case lacks are left out.
        thumbnail: Of a picture, as of :func:`~segmentation.data.alike.thumbnail`; empty for a volume.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    orientation: str
    dtype: str
    image_sha256: str
    label_sha256: str
    foreground: Mapping[str, int]
    tiny_components: Mapping[str, int]
    image_intensities: tuple[Intensities | None, ...]
    foreground_intensities: tuple[Intensities | None, ...]
    coarse_kept: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    thumbnail: str = ""

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "CaseFacts":
        """Build from what :func:`dataclasses.asdict` and JSON made of it."""
        fields: dict[str, Any] = {**plain, **{key: tuple(plain[key]) for key in ("shape", "spacing_mm")}}
        for key in ("image_intensities", "foreground_intensities"):
            fields[key] = tuple(item and Intensities.from_plain(item) for item in plain[key])
        fields["coarse_kept"] = {name: tuple(kept) for name, kept in plain["coarse_kept"].items()}
        return cls(**fields)


def inspect_case(case: Case, dataset: Dataset) -> tuple[CaseFacts | None, list[Finding]]:
    """Read a case, image first.

    Args:
        case: One case of ``dataset``.
        dataset: Says how many axes and channels the image should have, and what label values mean.

    Returns:
        Its facts, or ``None`` if the image cannot be read; and what is wrong with it.
    """
    try:
        scan = read_scan(case.images, channels=len(dataset.channel_names))
    except (SkipSegError, OSError) as error:
        code = "grid" if len(case.images) > 1 and all(map(_is_readable, case.images)) else "unreadable"
        return None, [Finding("error", code, (case.name,), str(error))]
    found = [Finding("note", "reader", (case.name,), note) for note in scan.notes]
    found += _image_findings(case.name, scan, dataset)
    labels, label_findings = _read_labels(case, scan, dataset)
    found += label_findings
    if labels is None:
        return _facts(scan), found
    voxels = _count_values(labels)
    foreground = {name: voxels.get(value, 0) for name, value in dataset.foreground.items()}
    tiny = {name: _tiny_components(labels == value) for name, value in dataset.foreground.items()}
    facts = replace(
        _facts(scan),
        label_sha256=_voxel_hash(labels),
        foreground=foreground,
        tiny_components={name: count for name, count in tiny.items() if count},
        foreground_intensities=_within(scan, (labels > 0) & (labels < len(dataset.classes))),
        coarse_kept={
            name: coarse_kept(labels == dataset.foreground[name], scan.spacing_mm)
            for name, count in foreground.items()
            if count
        },
    )
    unexpected = sorted(voxels.keys() - set(dataset.labels.values()))
    return facts, [*found, *_label_findings(case.name, facts, unexpected, dataset)]


def _is_readable(path: Path) -> bool:
    """Whether a file can be read on its own, so that something else about it is wrong."""
    try:
        read_scan(path)
    except (SkipSegError, OSError):
        return False
    return True


def _image_findings(name: str, scan: Scan, dataset: Dataset) -> list[Finding]:
    """What is wrong with the intensities or dimensions of a readable image."""
    found: list[Finding] = []
    expected, channels = dataset.spatial_dims, len(dataset.channel_names)
    if scan.spatial_dims != expected:
        message = f"the image has {scan.spatial_dims} spatial axes where the dataset has {expected}"
        found.append(Finding("error", "dimensions", (name,), message, 'mend "spatial_dims", or remove the case'))
    if len(scan.array) != channels:
        message = f"the image has {len(scan.array)} channel(s) where the dataset names {list(dataset.channel_names)}"
        found.append(Finding("error", "channels", (name,), message, 'name every channel in "channel_names"'))
    if scan.array.dtype.kind == "f" and not np.isfinite(scan.array).all():
        remedy = "replace them by the intensity of the background, or remove the case"
        found.append(Finding("error", "not-finite", (name,), "the image holds NaN or infinity", remedy))
    constant = [index for index, channel in enumerate(scan.array) if channel.min() == channel.max()]
    if constant:
        message = f"channel {name_few(constant)} is constant, nothing can be seen in it"
        found.append(Finding("warning", "constant", (name,), message, "remove the case if its export failed"))
    return found


def _read_labels(case: Case, scan: Scan, dataset: Dataset) -> tuple[NDArray[Any] | None, list[Finding]]:
    """Label values of shape ``(*S)`` if they lie on the image's grid, and what is wrong with them."""
    if case.label is None:
        return None, []
    try:
        # A DICOM segmentation may leave out empty frames: only its scan tells where it ends.
        like = scan if is_dicom_seg(case.label) else None
        labels = read_label_map(case.label, like, dataset.label_remap)
    except (SkipSegError, OSError) as error:
        code = "label-values" if _is_readable(case.label) else "unreadable"
        return None, [Finding("error", code, (case.name,), str(error))]
    difference = grid_difference(scan, labels)
    if difference:
        message = f"image and label map differ in {difference}"
        return None, [Finding("error", "grid", (case.name,), message, "resample the label map onto the image")]
    return labels.array[0], [Finding("note", "reader", (case.name,), note) for note in labels.notes]


def _label_findings(name: str, facts: CaseFacts, unexpected: list[int], dataset: Dataset) -> list[Finding]:
    """What is wrong with the label values of a case, ``unexpected`` being those that no class has."""
    if unexpected:
        remap = ", ".join(f'"{value}": 1' for value in unexpected[:3])
        remedy = f'if they mean class 1, declare "label_remap": {{{remap}}} beside "labels"; files stay as they are'
        message = f"label values {name_few(unexpected)} are none of {dict(dataset.labels)}"
        return [Finding("error", "label-values", (name,), message, remedy)]
    found: list[Finding] = []
    if not any(facts.foreground.values()):
        found.append(Finding("warning", "empty-mask", (name,), "no class is marked", "fine for a healthy case"))
    if facts.tiny_components:
        message = f"components of fewer than {2 ** len(facts.shape)} voxels"
        found.append(Finding("note", "tiny-components", (name,), message, "stray clicks, or lesions easily missed"))
    return found


def _facts(scan: Scan) -> CaseFacts:
    """What an image holds, without its label map."""
    return CaseFacts(
        shape=scan.spatial_shape,
        spacing_mm=tuple(round(size, 6) for size in scan.spacing_mm),
        orientation=scan.orientation,
        dtype=str(scan.array.dtype),
        image_sha256=_voxel_hash(scan.array),
        label_sha256="",
        foreground={},
        tiny_components={},
        image_intensities=tuple(_intensities(channel) for channel in scan.array),
        foreground_intensities=(),
        thumbnail=thumbnail(scan.array) if scan.spatial_dims == 2 else "",
    )


def _count_values(labels: NDArray[Any]) -> Counter[int]:
    """How often each value occurs in a label map of shape ``(*S)``."""
    counts: Counter[int] = Counter()
    for place in spans(labels, BLOCK_BYTES):
        values, found = np.unique(labels[place].ravel("K"), return_counts=True)
        counts.update(dict(zip(values.tolist(), found.tolist(), strict=True)))
    return counts


def _tiny_components(mask: NDArray[np.bool_]) -> int:
    """Number of components below 2^d voxels in a mask of shape ``(*S)``."""
    components = components_of(mask[common_box(mask, mask)])
    return int((np.bincount(components.ravel("K"))[1:] < 2**mask.ndim).sum())


def _within(scan: Scan, mask: NDArray[np.bool_]) -> tuple[Intensities | None, ...]:
    """Distribution of each channel within a mask of shape ``(*S)``."""
    box = common_box(mask, mask)
    inside = np.ascontiguousarray(mask[box])
    return tuple(_intensities(np.ascontiguousarray(channel[box])[inside]) for channel in scan.array)


def _intensities(values: NDArray[Any]) -> Intensities | None:
    """Distribution of an array of any shape."""
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        values = values[finite]
    if not values.size:
        return None
    sample = values.flat[:: -(-values.size // _MOST_SAMPLES)].astype(np.float64)
    return Intensities(
        voxels=values.size,
        minimum=float(values.min()),
        maximum=float(values.max()),
        mean=float(sample.mean()),
        std=float(sample.std()),
        percentiles=tuple(float(value) for value in np.percentile(sample, PERCENTILES)),
    )


def _voxel_hash(array: NDArray[Any]) -> str:
    """SHA-256 over type, shape and values of an array of two axes or more, block by block."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    for block in file_blocks(array, array.dtype, None):
        digest.update(block)
    return digest.hexdigest()

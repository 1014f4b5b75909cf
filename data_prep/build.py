"""Write a dataset folder whole or not at all, with the same bytes every time."""

import gzip
import io
import re
import shutil
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep.archive import locate, opened
from data_prep.disk import writing
from segmentation import SkipSegError
from segmentation.data.manifest import Case, Dataset, write_dataset
from segmentation.progress import track
from segmentation.runs import content_hash, file_hash, read_json, write_bytes, write_json, write_text
from segmentation.scans import Scan


@dataclass(frozen=True)
class About:
    """What a source is: everything in dataset.json that does not depend on the files.

    Attributes:
        name: Name on the command line.
        spatial_dims: 2 writes PNG, 3 writes NIfTI.
        channel_names, labels, licence, citation, notice: As in :class:`segmentation.data.manifest.Dataset`.
        page: Official address.
        layout: Which files a source at hand must hold, in words.
    """

    name: str
    spatial_dims: int
    channel_names: tuple[str, ...]
    labels: Mapping[str, int]
    licence: str
    citation: str = ""
    page: str = ""
    layout: str = ""
    notice: str = ""

    @property
    def file_ending(self) -> str:
        """Ending of every image and label file."""
        return ".png" if self.spatial_dims == 2 else ".nii.gz"


@dataclass(frozen=True)
class Record:
    """One case to write.

    Attributes:
        name, patient, stratum: As in :class:`segmentation.data.manifest.Case`.
        load: Gives the image and its label map, shapes ``(C, *S)`` and ``(*S)``.
        inputs: Files that it reads, for the hash of the source.
    """

    name: str
    patient: str
    load: Callable[[], tuple[Scan, NDArray[Any]]] = field(repr=False)
    inputs: tuple[Path, ...] = ()
    stratum: str = ""


Reader = Callable[[Path], Sequence[Record]]
"""Lists the cases of a source that lies in a folder, without loading them."""


def build_from(
    source: Path | None, out: Path, about: About, layouts: Mapping[str, Reader], splits: Any = None
) -> Dataset:
    """Write the dataset of a source at hand, whichever of its known layouts it has.

    Args:
        source: Folder or archive; ``None`` is refused with the way to get it.
        out: Dataset folder to create.
        about: What the source is.
        layouts: Glob pattern of a file or folder that tells a layout, to the reader of that layout.
        splits: Content of splits.json, if the folds are fixed.

    Returns:
        The dataset.

    Raises:
        SkipSegError: If there is no source, it has none of the layouts, or ``out`` holds something else.
    """
    if source is None:
        raise SkipSegError(
            f"{about.name} cannot be fetched automatically: get it from {about.page} and give the folder or archive "
            f"as --source; expected {about.layout}"
        )
    with opened(source, out) as folder:
        root, marker = locate(folder, layouts, about.layout)
        records = layouts[marker](root)
        return build(out, about, records, sha256=hash_source(source, records), splits=splits)


def hash_source(source: Path, records: Sequence[Record]) -> str:
    """SHA-256 of an archive, or over a folder's files, patients and strata that are read; independent of its place."""
    if source.is_file():
        return file_hash(source)
    return content_hash(sorted([r.name, r.patient, r.stratum, *map(file_hash, r.inputs)] for r in records))


def build(
    out: Path,
    about: About,
    records: Sequence[Record],
    *,
    sha256: str = "",
    options: Mapping[str, Any] | None = None,
    licence_text: str = "",
    splits: Any = None,
) -> Dataset:
    """Write all cases and dataset.json into a hidden folder beside ``out``, then rename it to ``out``.

    Args:
        out: Dataset folder to create; an empty folder is taken.
        about: What the source is.
        records: The cases.
        sha256: Hash of what they were read from.
        options: Settings that the content depends on.
        licence_text: The source's own words, for LICENSE.txt; otherwise the licence line and the citation.
        splits: Content of splits.json, if the folds are fixed.

    Returns:
        The dataset, or the one that stood there already.

    Raises:
        SkipSegError: If ``out`` holds something else, a case is faulty, or the disk is full.
    """
    if done := finished(out, about, sha256, options):
        return done
    records = sorted(records, key=lambda record: record.name)
    _check_names(about, records)
    licence_text = licence_text or f"{about.licence}\n\n{about.page}\n\nPlease cite: {about.citation}\n"
    print(f"{about.name}: {about.licence}\n{about.notice}".strip(), file=sys.stderr)
    with _staging(out) as draft:
        with track(records, about.name, "cases") as listed:
            for record in listed:
                _write_case(draft, about, record)
        write_text(draft / "LICENSE.txt", licence_text)
        if splits is not None:
            write_json(draft / "splits.json", splits)
        extra = {"sha256": sha256, "prepared_from": about.name, "options": dict(options or {})}
        write_dataset(_describe(draft, about, records, extra), about.file_ending)
    return read_prepared(out)


def finished(out: Path, about: About, sha256: str, options: Mapping[str, Any] | None = None) -> Dataset | None:
    """Read the dataset at ``out`` if it was prepared from the same source; ``None`` if nothing is there.

    Raises:
        SkipSegError: If ``out`` holds anything else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / "dataset.json").is_file():
        raise SkipSegError(f"{out} exists and is not a dataset; choose another --out or delete it")
    found = read_json(out / "dataset.json")
    wanted = {"prepared_from": about.name, "sha256": sha256, "options": dict(options or {})}
    words = {
        "prepared_from": "another source",
        "sha256": "other files or groups, or by an earlier version",
        "options": "other options",
    }
    other = [words[key] for key, value in wanted.items() if found.get(key, type(value)()) != value]
    if other:
        raise SkipSegError(f"{out} holds a dataset made with {' and '.join(other)}; choose another --out or delete it")
    print(f"{out} is already prepared; delete it to prepare it again.", file=sys.stderr)
    return read_prepared(out)


def read_prepared(out: Path) -> Dataset:
    """Read the dataset.json of a folder that :func:`build` wrote."""
    found = read_json(out / "dataset.json")
    strata, ending = found.get("strata", {}), found["file_ending"]
    cases = tuple(
        Case(name, *_files(out, name, ending), patient=patient, stratum=strata.get(name, ""))
        for name, patient in sorted(found["patients"].items())
    )
    texts = {key: found.get(key, "") for key in ("licence", "source", "citation", "notice")}
    extra = {key: found[key] for key in ("sha256", "prepared_from", "options") if key in found}
    channels = tuple(found["channel_names"].values())
    return Dataset(found["name"], out, found["spatial_dims"], channels, found["labels"], cases, extra=extra, **texts)


def _describe(root: Path, about: About, records: Sequence[Record], extra: Mapping[str, Any]) -> Dataset:
    cases = (Case(r.name, *_files(root, r.name, about.file_ending), r.patient, r.stratum) for r in records)
    return Dataset(
        name=about.name,
        root=root,
        spatial_dims=about.spatial_dims,
        channel_names=about.channel_names,
        labels=about.labels,
        cases=tuple(cases),
        licence=about.licence,
        source=about.page,
        citation=about.citation,
        notice=about.notice,
        extra=extra,
    )


def _files(root: Path, case: str, ending: str) -> tuple[tuple[Path, ...], Path]:
    """Image files (one, with all channels) and label file of a case."""
    return (root / "imagesTr" / f"{case}_0000{ending}",), root / "labelsTr" / f"{case}{ending}"


def _check_names(about: About, records: Sequence[Record]) -> None:
    names = [record.name for record in records]
    if not names:
        raise SkipSegError(f"the source of {about.name} holds no cases; expected {about.layout}")
    if wrong := [name for name in names if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)]:
        raise SkipSegError(f"case name {wrong[0]!r} is not safe as a file name; use letters, digits, '.', '_' and '-'")
    if twice := [name for name, after in pairwise(names) if name == after]:
        raise SkipSegError(f"case {twice[0]} occurs twice in the source; keep one")


@contextmanager
def _staging(out: Path) -> Generator[Path, None, None]:
    """Give a hidden folder beside ``out`` that becomes ``out`` when the block succeeds, else is removed."""
    draft = out.parent / f".{out.name}.partial"
    try:
        with writing(out):
            shutil.rmtree(draft, ignore_errors=True)  # left over from a killed run
            draft.mkdir(parents=True)
            yield draft
            if out.exists():
                out.rmdir()
            draft.replace(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_case(root: Path, about: About, record: Record) -> None:
    image, label_map = record.load()
    if image.spatial_shape != label_map.shape:
        raise SkipSegError(f"{record.name}: image {image.spatial_shape} and mask {label_map.shape} differ in size")
    if unexpected := sorted(set(np.unique(label_map).tolist()) - set(about.labels.values())):
        raise SkipSegError(f"{record.name}: label values {unexpected} are not among {dict(about.labels)}")
    (image_file,), label_file = _files(root, record.name, about.file_ending)
    encode = encode_png if about.spatial_dims == 2 else encode_nifti
    write_bytes(image_file, encode(image.array, image.affine))
    write_bytes(label_file, encode(label_map[None].astype(np.uint8), image.affine))


def encode_png(array: NDArray[Any], affine: NDArray[np.float64]) -> bytes:
    """Encode a picture as PNG.

    Args:
        array: Gray or red, green, blue in 0 to 255, shape ``(1, rows, columns)`` or ``(3, rows, columns)``.
        affine: Not used: a picture has no world. Shape ``(4, 4)``.

    Returns:
        The file's bytes, which depend on the array alone.
    """
    stream = io.BytesIO()
    pixels = array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG", compress_level=6)
    return stream.getvalue()


def encode_nifti(array: NDArray[Any], affine: NDArray[np.float64]) -> bytes:
    """Encode a volume as gzipped NIfTI-1 in its own data type.

    Args:
        array: Volume, shape ``(1, I, J, K)``.
        affine: Voxel to world, mm, RAS+, shape ``(4, 4)``.

    Returns:
        The file's bytes, which depend on the arguments alone: no time, no file name.
    """
    volume = nib.Nifti1Image(array[0], affine)
    volume.header.set_xyzt_units("mm")
    volume.set_sform(affine, code=1)
    volume.set_qform(affine, code=1)
    stream = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=stream, mtime=0) as packed:
        packed.write(volume.to_bytes())
    return stream.getvalue()

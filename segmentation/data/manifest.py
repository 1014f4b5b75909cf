"""dataset.json: what a dataset is, which files make up each case, and which patient each case belongs to.

The vocabulary is nnU-Net v2's (``channel_names``, ``labels``, ``file_ending``, an ``ignore`` label), so that
a folder written here is read by nnU-Net as it stands. Beside it stand ``patients`` (case to patient),
``licence``, ``source``, ``citation``, ``sha256`` and ``notice``.

    dataset/
      dataset.json
      imagesTr/CASE_0000.nii.gz    one file per channel, four-digit channel suffix
      labelsTr/CASE.nii.gz
      splits.json                  optional: folds fixed by the dataset's author
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segmentation import SkipSegError
from segmentation.runs import write_json

MOST_LABELS = 256
"""Label values that a training tells apart, in a byte."""

IGNORE = "ignore"
"""Name of the label that marks voxels to be left out of loss and metrics; its value is the highest."""


@dataclass(frozen=True)
class Case:
    """One scan with its label map.

    Attributes:
        name: Identifier, unique in the dataset, safe as a file name.
        images: One file per channel, or a single file that holds all channels.
        label: Label map on the same grid, or ``None`` for a case without annotation.
        patient: The person (or other independent unit) the case comes from; cases of one patient
            never stand on both sides of a split.
        stratum: Group to balance over folds, such as a modality or diagnosis; may be empty.
    """

    name: str
    images: tuple[Path, ...]
    label: Path | None
    patient: str
    stratum: str = ""


@dataclass(frozen=True)
class Dataset:
    """A collection of cases with one meaning of channels and labels.

    Attributes:
        name: Name for titles and file names.
        root: Folder of the dataset (of the table, for a CSV).
        spatial_dims: 2 for pictures, 3 for volumes.
        channel_names: Meaning of each input channel, in order. ``"CT"`` selects Hounsfield normalisation.
        labels: Class name to label value, with ``background: 0`` and values 1..K-1 in order; an ``ignore``
            label, if there is one, comes last.
        cases: All cases, sorted by name.
        label_remap: Stored label value to meant label value, declared here and never written back;
            ``{255: 1}`` reads a 0/255 mask as 0/1. Empty for none.
        licence, source, citation, notice: Where the data come from and what is allowed with them.
        extra: Whatever else dataset.json holds.
        patients_known: False where nothing says which patient a case comes from, so that each case stands
            for a patient of its own.
    """

    name: str
    root: Path
    spatial_dims: int
    channel_names: tuple[str, ...]
    labels: Mapping[str, int]
    cases: tuple[Case, ...]
    label_remap: Mapping[int, int] = field(default_factory=dict)
    licence: str = ""
    source: str = ""
    citation: str = ""
    notice: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    patients_known: bool = True

    @property
    def classes(self) -> dict[str, int]:
        """Class name to label value without ``ignore``: the K outputs of a network, background first."""
        return {name: value for name, value in self.labels.items() if name != IGNORE}

    @property
    def foreground(self) -> dict[str, int]:
        """Class name to label value without background and ``ignore``: what is scored."""
        return {name: value for name, value in self.classes.items() if value != 0}

    @property
    def ignore_label(self) -> int | None:
        """Value of the ``ignore`` label, or ``None``."""
        return self.labels.get(IGNORE)


def write_dataset(dataset: Dataset, file_ending: str) -> None:
    """Write ``dataset.json`` into the dataset's root, in nnU-Net v2's vocabulary.

    Args:
        dataset: Its cases must already lie under ``imagesTr`` and ``labelsTr``.
        file_ending: Ending of every image and label file, such as ``".nii.gz"``.
    """
    content = {
        "name": dataset.name,
        "channel_names": {str(index): name for index, name in enumerate(dataset.channel_names)},
        "labels": dict(dataset.labels),
        "numTraining": len(dataset.cases),
        "file_ending": file_ending,
        "spatial_dims": dataset.spatial_dims,
        "patients": {case.name: case.patient for case in dataset.cases} if dataset.patients_known else {},
        "strata": {case.name: case.stratum for case in dataset.cases if case.stratum},
        "label_remap": {str(stored): meant for stored, meant in dataset.label_remap.items()},
        "licence": dataset.licence,
        "source": dataset.source,
        "citation": dataset.citation,
        "notice": dataset.notice,
        **dataset.extra,
    }
    write_json(dataset.root / "dataset.json", {key: value for key, value in content.items() if value})


def name_few(names: Sequence[object], most: int = 5) -> str:
    """Name the first few of ``names`` and say how many more there are, for a one-line message.

    Examples:
        >>> name_few(["a", "b", "c"], most=2)
        "'a', 'b' and 1 more"
    """
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + rest


def parse_labels(labels: Any, origin: Path) -> dict[str, int]:
    """Read the classes of a description, as nnU-Net writes them (name to value) or MSD (value to name).

    Args:
        labels: What stands under ``"labels"``.
        origin: The file it stands in, for messages.

    Returns:
        Class name to value, in the order of the values.

    Raises:
        SkipSegError: If the values are not 0..K-1, background is not 0, ``ignore`` is not last, or a class
            is a list of values (nnU-Net's overlapping regions).

    Examples:
        >>> parse_labels({"1": "tumour", "0": "background"}, Path("dataset.json"))
        {'background': 0, 'tumour': 1}
    """
    if not isinstance(labels, Mapping) or not labels:
        raise SkipSegError(f'{origin}: "labels" must map class names to values, got {labels!r}')
    named: dict[str, Any] = {str(name): value for name, value in labels.items()}
    if all(isinstance(name, str) for name in named.values()) and all(key.isdecimal() for key in named):
        if len(set(named.values())) < len(named):
            raise SkipSegError(f"{origin}: two labels share a name in {named}; give each class its own")
        named = {str(name): int(value) for value, name in named.items()}
    for name, value in named.items():
        if isinstance(value, list):
            raise SkipSegError(
                f"{origin}: label {name!r} is a region of values {value}, and overlapping regions are not supported; "
                "give every class one value"
            )
    whole = {name: value for name, value in named.items() if isinstance(value, int) and not isinstance(value, bool)}
    if len(whole) < len(named):
        raise SkipSegError(f"{origin}: label values must be whole numbers, got {named}")
    ordered = dict(sorted(whole.items(), key=lambda item: item[1]))
    if list(ordered.values()) != list(range(len(ordered))):
        raise SkipSegError(
            f"{origin}: label values must be 0 to {len(ordered) - 1} without gaps, got {list(ordered.values())}; "
            'number the classes so and say what the files hold, such as "label_remap": {"255": 1}'
        )
    if "background" in ordered and ordered["background"] != 0:
        raise SkipSegError(f"{origin}: background must be label 0, got {ordered['background']}")
    if ordered.get(IGNORE, len(ordered) - 1) != len(ordered) - 1:
        raise SkipSegError(f"{origin}: label {IGNORE!r} must have the highest value, got {ordered}")
    if len([name for name in ordered if name != IGNORE]) < 2:
        raise SkipSegError(f"{origin}: a background and at least one class are needed, got labels {ordered}")
    return ordered


def parse_label_remap(remap: Any, labels: Mapping[str, int] | None, origin: Path) -> dict[int, int]:
    """Read ``"label_remap"``: stored label value to meant label value.

    Args:
        remap: What stands under ``"label_remap"``.
        labels: Class name to value; ``None`` where the file need not know them.
        origin: The file it stands in, for messages.

    Raises:
        SkipSegError: If a key or value is not a whole number, or a meant value is none of ``labels``.

    Examples:
        >>> parse_label_remap({"255": 1}, {"background": 0, "lesion": 1}, Path("dataset.json"))
        {255: 1}
    """
    entries: Mapping[Any, Any] = remap if isinstance(remap, Mapping) else {}
    meant = {int(key): value for key, value in entries.items() if str(key).isdecimal() and type(value) is int}
    if not isinstance(remap, Mapping) or len(meant) < len(entries):
        raise SkipSegError(f'{origin}: "label_remap" must map whole numbers, as in {{"255": 1}}, got {remap!r}')
    unknown = sorted(set(meant.values()) - set(labels.values())) if labels is not None else []
    if labels is not None and unknown:
        raise SkipSegError(f'{origin}: "label_remap" leads to {unknown}, but the labels are {dict(labels)}')
    return dict(sorted(meant.items()))


def parse_channel_names(names: Any, origin: Path) -> tuple[str, ...]:
    """Read ``"channel_names"`` (nnU-Net) or ``"modality"`` (MSD): a list, or index to name.

    Raises:
        SkipSegError: If there is no channel, or the indices are not 0..C-1.

    Examples:
        >>> parse_channel_names({"0": "T1", "1": "FLAIR"}, Path("dataset.json"))
        ('T1', 'FLAIR')
    """
    listed = dict(enumerate(names)) if isinstance(names, list) else names
    numbered = {str(index): str(name) for index, name in listed.items()} if isinstance(listed, Mapping) else {}
    if not numbered or numbered.keys() != {str(index) for index in range(len(numbered))}:
        raise SkipSegError(f'{origin}: "channel_names" must name channels "0", "1", ... in order, got {names!r}')
    return tuple(numbered[str(index)] for index in range(len(numbered)))

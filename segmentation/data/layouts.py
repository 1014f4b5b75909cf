"""Read a dataset in place, whichever of three layouts it is in: nnU-Net v2 raw, MSD, or a CSV of paths.

Nothing is renamed, copied or rewritten, and no image is opened: what the files hold is for ``check`` to say.
"""

import glob
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segmentation import SkipSegError
from segmentation.data.manifest import Case, Dataset, name_few, parse_channel_names, parse_label_remap, parse_labels
from segmentation.runs import read_csv, read_json

PICTURE_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
"""Endings of 2-D pictures, one file of which may hold several channels."""
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
"""Endings of volumes."""
_OF_DATASET = {"name", "channel_names", "labels", "spatial_dims", "label_remap", "licence", "source", "citation"}
_OF_CASES = {"patients", "strata", "training", "test", "dataset", "numTraining", "numTest", "file_ending"}
_OTHER_WORDS = {"modality", "license", "reference"}  # of MSD and nnU-Net, for what we name differently
_HELD_ELSEWHERE = _OF_DATASET | _OF_CASES | _OTHER_WORDS | {"notice"}


def open_dataset(path: Path) -> Dataset:
    r"""Read the description of a dataset and find its files.

    Three layouts are known. A folder whose ``dataset.json`` has a list ``training`` is read as MSD; any other
    folder with a ``dataset.json`` as nnU-Net v2 raw, which is also our own layout; a file as a CSV table with
    the columns ``case``, ``image`` (several paths separated by ``;``), ``label`` and, if known, ``patient``
    and ``stratum``. Paths in a table are relative to it. A JSON file of the table's name beside it may hold
    what ``dataset.json`` would; without it the classes are background and foreground.

    Args:
        path: Dataset folder, its ``dataset.json``, or a CSV table.

    Returns:
        The dataset, its cases sorted by name. A case without a label file has ``label=None``. Where nothing
        says which patient a case comes from, the case stands for its own and ``patients_known`` is false.

    Raises:
        SkipSegError: If there is no dataset, the description contradicts itself or the files, or a listed
            file is missing.

    Examples:
        >>> import tempfile
        >>> table = Path(tempfile.mkdtemp()) / "scans.csv"
        >>> for name in ("a.nii.gz", "a_mask.nii.gz"):
        ...     table.with_name(name).touch()
        >>> _ = table.write_text("case,image,label,patient\na,a.nii.gz,a_mask.nii.gz,p1\n")
        >>> dataset = open_dataset(table)
        >>> dataset.cases[0].patient, dataset.spatial_dims, dataset.labels
        ('p1', 3, {'background': 0, 'foreground': 1})
    """
    if path.is_file() and path.suffix.lower() == ".csv":
        sidecar = path.with_suffix(".json")
        content = _read_description(sidecar) if sidecar.is_file() else {}
        return _describe(content, _table_cases(path), path.parent, path.stem, sidecar if content else path)
    root = path.parent if path.name == "dataset.json" else path
    origin = root / "dataset.json"
    if not root.is_dir() or not origin.is_file():
        found = f"{root} has no dataset.json" if root.is_dir() else f"{path} is no dataset"
        raise SkipSegError(f"{found}; give a folder in nnU-Net v2 or MSD layout, or a CSV table of paths")
    content = _read_description(origin)
    if isinstance(content.get("training"), list):
        cases = _msd_cases(content["training"], root)
    elif isinstance(content.get("dataset"), Mapping):
        cases = [_listed_case(str(name), entry, "images", root) for name, entry in content["dataset"].items()]
    else:
        cases = _raw_cases(content, root)
    return _describe(content, cases, root, root.resolve().name, origin)


def _describe(content: Mapping[str, Any], cases: list[Case], root: Path, name: str, origin: Path) -> Dataset:
    """Join the cases with what the description says about all of them."""
    _check_cases(cases, origin)
    patients = _per_case(content, "patients", origin)
    strata = _per_case(content, "strata", origin)
    patients_known = bool(patients) or any(case.patient for case in cases)
    named = [
        replace(case, patient=patients.get(case.name, case.patient), stratum=strata.get(case.name, case.stratum))
        for case in sorted(cases, key=lambda case: case.name)
    ]
    nobody = [case.name for case in named if not case.patient]
    if patients_known and nobody:
        raise SkipSegError(f"{origin} names no patient for {name_few(nobody)}; name one for every case, or for none")
    labels = parse_labels(content.get("labels", {"background": 0, "foreground": 1}), origin)
    names = content.get("channel_names") or content.get("modality") or ["image"] * len(named[0].images)
    channel_names = parse_channel_names(names, origin)
    _check_channel_counts(named, channel_names, origin)
    return Dataset(
        name=str(content.get("name") or name),
        root=root,
        spatial_dims=_spatial_dims(content, named, origin),
        channel_names=channel_names,
        labels=labels,
        cases=tuple(replace(case, patient=case.patient or case.name) for case in named),
        label_remap=parse_label_remap(content.get("label_remap", {}), labels, origin),
        licence=str(content.get("licence") or content.get("license") or ""),
        source=str(content.get("source") or content.get("reference") or ""),
        citation=str(content.get("citation") or ""),
        notice=str(content.get("notice") or ""),
        extra={key: value for key, value in content.items() if key not in _HELD_ELSEWHERE},
        patients_known=patients_known,
    )


def _raw_cases(content: Mapping[str, Any], root: Path) -> list[Case]:
    """Cases of nnU-Net v2 raw: ``imagesTr/CASE_0000.ending`` and ``labelsTr/CASE.ending``."""
    ending = str(content.get("file_ending") or _only_ending(root / "imagesTr"))
    channels: dict[str, dict[int, Path]] = {}
    for file in _files(root / "imagesTr", ending):
        match = re.fullmatch(r"(.+)_(\d{4})", file.name.removesuffix(ending))
        if not match:
            raise SkipSegError(
                f"imagesTr/{file.name} has no channel number; name it {file.name.removesuffix(ending)}_0000{ending}, "
                "or list your files in a CSV table"
            )
        channels.setdefault(match[1], {})[int(match[2])] = file
    labels = {file.name.removesuffix(ending): file for file in _files(root / "labelsTr", ending)}
    orphans = sorted(labels.keys() - channels.keys())
    if orphans:
        raise SkipSegError(f"labelsTr has {name_few(orphans)} without an image in imagesTr; add it or remove the label")
    for name, files in channels.items():
        if sorted(files) != list(range(len(files))):
            raise SkipSegError(
                f"case {name!r} has the channel files {sorted(files)} in imagesTr; number them from 0000 without gaps"
            )
    return [
        Case(name, tuple(files[index] for index in sorted(files)), labels.get(name), patient="")
        for name, files in channels.items()
    ]


def _msd_cases(entries: Sequence[Any], root: Path) -> list[Case]:
    """Cases of an MSD ``training`` list, each named by its image; nnU-Net v1's channel suffix is found too."""
    cases = []
    for entry in entries:
        case = _listed_case("", entry, "image", root)
        first = case.images[0]
        name, ending = _split_ending(first.name)
        if len(case.images) == 1 and not first.exists():
            suffixed = sorted(first.parent.glob(f"{glob.escape(name)}_[0-9][0-9][0-9][0-9]{ending}"))
            case = replace(case, images=tuple(suffixed) or case.images)
        cases.append(replace(case, name=name))
    return cases


def _listed_case(name: str, entry: Any, key: str, root: Path) -> Case:
    """One case of a list in dataset.json, its paths relative to ``root``."""
    if not isinstance(entry, Mapping) or not entry.get(key):
        raise SkipSegError(f'{root / "dataset.json"}: each case needs "{key}" and "label", got {name} {entry!r}')
    images = entry[key] if isinstance(entry[key], list) else [entry[key]]
    label = entry.get("label")
    return Case(name, tuple(root / str(image) for image in images), root / str(label) if label else None, patient="")


def _table_cases(table: Path) -> list[Case]:
    """Cases of a CSV table, one a row."""
    rows = read_csv(table)
    columns = list(rows[0]) if rows else []
    missing = [column for column in ("case", "image", "label") if rows and column not in columns]
    if missing:
        raise SkipSegError(f"{table} lacks the column {name_few(missing)}; it has {name_few(columns)}")
    cases = []
    for number, row in enumerate(rows, start=2):
        cells = {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)}
        if not all(isinstance(column, str) for column in row):
            raise SkipSegError(f"{table} line {number} has more fields than the header; quote values that hold a comma")
        images = [image.strip() for image in cells["image"].split(";") if image.strip()]
        if not cells["case"] or not images:
            raise SkipSegError(f"{table} line {number} needs a case and an image, got {cells}")
        label = table.parent / cells["label"] if cells["label"] else None
        files = tuple(table.parent / image for image in images)
        cases.append(Case(cells["case"], files, label, cells.get("patient", ""), cells.get("stratum", "")))
    return cases


def _check_cases(cases: Sequence[Case], origin: Path) -> None:
    """Refuse an empty dataset, names that cannot be file names or occur twice, and files that do not exist."""
    if not cases:
        raise SkipSegError(f"{origin} describes no case; expected imagesTr/CASE_0000.nii.gz or a list of files")
    if not any(case.label for case in cases):
        raise SkipSegError(f"{origin}: no case has a label file; expected labelsTr/CASE.nii.gz or a list of files")
    for case in cases:
        if not re.fullmatch(r"[^\s./\\][^/\\\x00-\x1f]*", case.name):
            raise SkipSegError(f"{origin}: case name {case.name!r} cannot be a file name; leave out slashes")
    twice = [name for name, count in Counter(case.name for case in cases).items() if count > 1]
    if twice:
        raise SkipSegError(f"{origin} has several cases named {name_few(twice)}; give each case its own name")
    for case in cases:
        gone = [file for file in (*case.images, *([case.label] if case.label else [])) if not file.exists()]
        if gone:
            raise SkipSegError(f"{origin}: case {case.name!r} lists {gone[0]}, which does not exist")


def _check_channel_counts(cases: Sequence[Case], channel_names: Sequence[str], origin: Path) -> None:
    """Refuse cases with several files whose number is not that of the channels."""
    for case in cases:
        if len(case.images) not in {1, len(channel_names)}:
            raise SkipSegError(
                f"{origin} names {len(channel_names)} channel(s) {list(channel_names)}, but case {case.name!r} has "
                f"{len(case.images)} image files; name every channel, or give one file per channel"
            )


def _spatial_dims(content: Mapping[str, Any], cases: Sequence[Case], origin: Path) -> int:
    """2 or 3: as declared, otherwise 2 for pictures and 3 for volumes."""
    flat = {case.images[0].name.lower().endswith(PICTURE_ENDINGS) for case in cases}
    if "spatial_dims" in content:
        declared = content["spatial_dims"]
        if declared not in {2, 3}:
            raise SkipSegError(f'{origin}: "spatial_dims" must be 2 or 3, got {declared!r}')
        return int(declared)
    if len(flat) > 1:
        raise SkipSegError(f"{origin} mixes pictures and volumes; make two datasets of them")
    return 2 if flat.pop() else 3


def _per_case(content: Mapping[str, Any], key: str, origin: Path) -> dict[str, str]:
    """A case-to-text entry of the description; empty if there is none."""
    entry = content.get(key) or {}
    if not isinstance(entry, Mapping):
        raise SkipSegError(f'{origin}: "{key}" must map case names to names, got {entry!r}')
    return {str(case): str(value) for case, value in entry.items()}


def _read_description(origin: Path) -> Mapping[str, Any]:
    """The JSON object that describes a dataset."""
    content = read_json(origin)
    if not isinstance(content, Mapping):
        raise SkipSegError(f"{origin} must hold a JSON object, got a {type(content).__name__}")
    return content


def _files(folder: Path, ending: str) -> list[Path]:
    """Visible files of ``folder`` with ``ending``, sorted."""
    try:
        found = sorted(folder.iterdir())
    except FileNotFoundError:
        raise SkipSegError(f"{folder} does not exist; nnU-Net v2 layout has imagesTr and labelsTr") from None
    except OSError as error:
        raise SkipSegError(f"{folder} cannot be read ({error.strerror}); mend its permissions") from None
    return [file for file in found if file.name.endswith(ending) and not file.name.startswith(".")]


def _only_ending(folder: Path) -> str:
    """The file ending that all files of ``folder`` share, for a description that does not say."""
    endings = {_split_ending(file.name)[1] for file in _files(folder, "")}
    if len(endings) != 1:
        raise SkipSegError(
            f'dataset.json names no "file_ending" and {folder} holds {name_few(sorted(endings))}; add it'
        )
    return endings.pop()


def _split_ending(name: str) -> tuple[str, str]:
    """Split ``"a.b.nii.gz"`` into ``"a.b"`` and ``".nii.gz"``."""
    known = next((end for end in (*VOLUME_ENDINGS, *PICTURE_ENDINGS) if name.lower().endswith(end)), Path(name).suffix)
    return name[: len(name) - len(known)], name[len(name) - len(known) :]

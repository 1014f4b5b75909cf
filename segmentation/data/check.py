"""Whether a dataset can be trusted: every file opened once, before anything is learnt from it.

Nothing is mended and nothing is written into the dataset. Errors stop training; warnings and notes do not.
What planning needs to know about each case is measured on the way.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, get_args

from segmentation import SkipSegError
from segmentation.data.alike import MOST, find_alike
from segmentation.data.facts import PERCENTILES, CaseFacts, Finding, Severity, inspect_case
from segmentation.data.manifest import Case, Dataset, name_few
from segmentation.data.splits import read_fixed_splits
from segmentation.progress import track
from segmentation.runs import content_hash, read_json, write_json
from segmentation.terminal import Part, Table, as_text, counted

_SEVERITIES: tuple[Severity, ...] = get_args(Severity)
_VERSION = 4  # raised whenever the same files would give other facts or findings
_OUTLIER_DEVIATIONS = 6  # robust standard deviations, far beyond what a skewed distribution reaches
_FEWEST_FOR_OUTLIERS = 8  # cases, below which a median deviation says little


@dataclass(frozen=True)
class CheckReport:
    """Everything the check found.

    Attributes:
        dataset: What was checked.
        facts: Case name to what the case holds, for every case whose image can be read.
        findings: Errors first.
    """

    dataset: Dataset
    facts: Mapping[str, CaseFacts]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What stops training."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def census(self) -> dict[str, Any]:
        """Count what the readable cases have in common and where they differ, as plain data."""
        facts = list(self.facts.values())
        return {
            "cases": len(self.dataset.cases),
            "labelled": sum(case.label is not None for case in self.dataset.cases),
            "patients": len({case.patient for case in self.dataset.cases}) if self.dataset.patients_known else None,
            "shape": _spread([item.shape for item in facts]),
            "spacing_mm": _spread([item.spacing_mm for item in facts]),
            "orientation": _counted([item.orientation for item in facts if item.orientation]),
            "dtype": _counted([item.dtype for item in facts]),
            "cases_with": {
                name: sum(item.foreground.get(name, 0) > 0 for item in facts) for name in self.dataset.foreground
            },
        }

    def to_plain(self) -> dict[str, Any]:
        """Give the report as plain data for JSON: the same files give the same bytes."""
        return {
            "dataset": self.dataset.name,
            "channel_names": list(self.dataset.channel_names),
            "labels": dict(self.dataset.labels),
            "census": self.census(),
            "findings": [asdict(finding) for finding in self.findings],
            "percentiles": list(PERCENTILES),
            "cases": {name: asdict(replace(item, thumbnail="")) for name, item in self.facts.items()},
        }

    def parts(self) -> list[Part]:
        """Give the report for a terminal: the census, one line a finding, and the count."""
        census = self.census()
        who = "patients unknown" if census["patients"] is None else f"{census['patients']} patients"
        rows = [
            ["channels", ", ".join(self.dataset.channel_names)],
            ["cases with", _listed(census["cases_with"])],
            ["shape", _range(census["shape"])],
            ["spacing (mm)", _range(census["spacing_mm"]) if self.dataset.spatial_dims == 3 else ""],
            ["orientation", _listed(census["orientation"])],
            ["dtype", _listed(census["dtype"])],
        ]
        found = [[item.severity.upper(), item.code, item.sentence] for item in self.findings]
        counts = Counter(finding.severity for finding in self.findings)
        total = ", ".join(f"{n} {kind}{'s' * (n != 1)}" for kind in _SEVERITIES for n in [counts[kind]])
        title = f"{self.dataset.name}: {census['cases']} cases, {census['labelled']} labelled, {who}"
        listed: list[Part] = [Table(found, header=False)] if found else []
        return [title, Table([row for row in rows if row[1]], header=False), *listed, total]

    def text(self) -> str:
        """Give the report as plain text."""
        return as_text(self.parts())


def check_dataset(dataset: Dataset, *, cache: Path | None = None) -> CheckReport:
    """Open every file of a dataset and report what could spoil training or its evaluation.

    Cases are read one at a time, so that memory is bounded by the largest. A progress bar is shown on a
    terminal.

    Args:
        dataset: As :func:`segmentation.data.layouts.open_dataset` gives it.
        cache: Folder for the results of each case, found again as long as path, size and time of change of
            its files and the meaning of its labels stay the same; ``None`` reads everything anew.

    Returns:
        The report. A problem of the data is a finding in it, not an exception.
    """
    facts: dict[str, CaseFacts] = {}
    findings: list[Finding] = []
    with track(dataset.cases, "check", "cases") as cases:
        for case in cases:
            case_facts, found = _inspect_cached(case, dataset, cache)
            findings += found
            if case_facts is not None:
                facts[case.name] = case_facts
    if not any(finding.severity == "error" for finding in findings):
        findings += _absent_classes(dataset, facts)
    findings += [*_dataset_findings(dataset), *_duplicates(dataset, facts), *_look_alikes(dataset, facts)]
    findings += _outliers(dataset, facts)
    return CheckReport(dataset, facts, _merged(findings))


def _inspect_cached(case: Case, dataset: Dataset, cache: Path | None) -> tuple[CaseFacts | None, list[Finding]]:
    """Look into a case, or find again what was found in the same files."""
    if cache is None:
        return inspect_case(case, dataset)
    files = [*case.images, *([case.label] if case.label else [])]
    meaning = [dataset.spatial_dims, dataset.channel_names, dataset.labels, sorted(dataset.label_remap.items())]
    key = content_hash([_VERSION, case.name, meaning, [_signature(file) for file in files]])
    stored = cache / key[:2] / f"{key[2:34]}.json"
    if stored.exists():
        plain = read_json(stored)
        return CaseFacts.from_plain(plain["facts"]), [Finding.from_plain(finding) for finding in plain["findings"]]
    facts, found = inspect_case(case, dataset)
    if facts is not None and all(finding.code != "unreadable" for finding in found):  # a disk may come back
        write_json(stored, {"facts": asdict(facts), "findings": [asdict(finding) for finding in found]})
    return facts, found


def _signature(path: Path) -> list[Any]:
    """What changes when a file, or a file of a DICOM folder, changes."""
    if path.is_dir() and os.access(path, os.R_OK):
        return [_signature(item) for item in sorted(path.iterdir())]
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def _dataset_findings(dataset: Dataset) -> list[Finding]:
    """What is wrong with the description of the dataset and with its fixed splits."""
    found: list[Finding] = []
    unlabelled = tuple(case.name for case in dataset.cases if case.label is None)
    if unlabelled:
        found.append(Finding("warning", "unlabelled", unlabelled, "no label map, so it takes no part in training"))
    if not dataset.patients_known:
        message = "nothing says which cases come from one patient, so each counts as a patient of its own"
        found.append(Finding("warning", "patients-unknown", (), message, 'add "patients": {case: patient}'))
    try:
        read_fixed_splits(dataset)
    except SkipSegError as error:
        found.append(Finding("error", "splits", (), str(error)))
    return found


def _absent_classes(dataset: Dataset, facts: Mapping[str, CaseFacts]) -> list[Finding]:
    """Classes that no case shows."""
    absent = [name for name in dataset.foreground if not any(item.foreground.get(name) for item in facts.values())]
    if not absent:
        return []
    if len(absent) == len(dataset.foreground):
        message = f"every label map is all background: no case has a voxel of {name_few(absent)}"
        return [Finding("error", "all-background", (), message, 'check the label files and "labels"')]
    message = f"no case has a voxel of {name_few(absent)}, which cannot be learnt"
    return [Finding("warning", "absent-class", (), message, 'remove the class from "labels"')]


def _duplicates(dataset: Dataset, facts: Mapping[str, CaseFacts]) -> list[Finding]:
    """Cases with the same voxels, which leak from training to evaluation when their patients differ."""
    patients = {case.name: case.patient for case in dataset.cases}
    copies: dict[str, list[str]] = defaultdict(list)
    for name, item in facts.items():
        copies[item.image_sha256].append(name)
    found: list[Finding] = []
    for names in copies.values():
        label_maps = {facts[name].label_sha256 for name in names}
        same = "the same image" + (" with different label maps" if len(label_maps) > 1 else "")
        if len({patients[name] for name in names}) > 1:
            message = f"{same} under different patients, so that a split could train on what it scores"
            found.append(Finding("error", "duplicate", tuple(names), message, "keep one, or name one patient for all"))
        elif len(names) > 1:
            found.append(Finding("warning", "duplicate", tuple(names), same, "keep one"))
    return found


def _look_alikes(dataset: Dataset, facts: Mapping[str, CaseFacts]) -> list[Finding]:
    """Pictures that look nearly alike under different patients, other than copies."""
    patients = {case.name: case.patient for case in dataset.cases if case.label}
    distinct: dict[str, str] = {}
    for name in filter(patients.__contains__, facts):
        distinct.setdefault(facts[name].image_sha256, name)
    pictures = {name: facts[name].thumbnail for name in distinct.values() if facts[name].thumbnail}
    if len(pictures) > MOST:
        message = f"{len(pictures)} pictures are too many to look for nearly alike ones; {MOST} are the most"
        return [Finding("note", "look-alike", (), message)]
    groups = [group for group in find_alike(pictures) if len({patients[name] for name in group}) > 1]
    if not groups:
        return []
    more = f" (and pictures in {counted(len(groups) - 1, 'more group')})" if len(groups) > 1 else ""
    first, *others = groups[0]
    other = next(name for name in others if patients[name] != patients[first])
    alike = f"{first} and {other}{more} look nearly alike under different patients"
    message = f"{alike}, so that a split may train on what it scores"
    cases = tuple(name for group in groups for name in group)
    return [Finding("warning", "look-alike", cases, message, "look at them; name one patient for all that show one")]


def _outliers(dataset: Dataset, facts: Mapping[str, CaseFacts]) -> list[Finding]:
    """Cases whose mean intensity lies far from that of the others, by median and median absolute deviation."""
    found: list[Finding] = []
    for index, channel in enumerate(dataset.channel_names):
        channels = {name: item.image_intensities[index : index + 1] for name, item in facts.items()}
        means = {name: values.mean for name, sole in channels.items() for values in sole if values is not None}
        if len(means) < _FEWEST_FOR_OUTLIERS:
            continue
        centre = median(means.values())
        reach = _OUTLIER_DEVIATIONS * 1.4826 * median(abs(mean - centre) for mean in means.values())
        far = tuple(name for name, mean in means.items() if abs(mean - centre) > reach > 0)
        if far:
            message = f"mean intensity of {channel} is far from the median {centre:.4g} of all cases"
            remedy = "look at them: other units, or a failed export"
            found.append(Finding("note", "intensity-outlier", far, message, remedy))
    return found


def _merged(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Join findings that differ in their cases only; errors first, then by code."""
    cases: dict[Finding, tuple[str, ...]] = {}
    for finding in findings:
        key = finding if finding.code == "duplicate" else replace(finding, cases=())
        cases[key] = (*cases.get(key, ()), *finding.cases)
    joined = [replace(finding, cases=names) for finding, names in cases.items()]
    return tuple(sorted(joined, key=lambda finding: (_SEVERITIES.index(finding.severity), finding.code, finding.cases)))


def _spread(rows: Sequence[tuple[float, ...]]) -> dict[str, list[float]]:
    """Smallest, median and largest value of each axis; pictures among volumes are an error of their own."""
    if not rows:
        return {}
    axes = [[row[axis] for row in rows] for axis in range(min(map(len, rows)))]
    return {"smallest": [*map(min, axes)], "median": [*map(median, axes)], "largest": [*map(max, axes)]}


def _counted(values: Sequence[str]) -> dict[str, int]:
    """How often each value occurs, the most frequent first."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _listed(counts: Mapping[str, int]) -> str:
    """Counts for a terminal."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _range(spread: Mapping[str, Sequence[float]]) -> str:
    """A spread for a terminal."""
    low, middle, high = (" x ".join(f"{value:g}" for value in values) for values in (*spread.values(), (), (), ())[:3])
    return middle if low == high else f"{middle} (from {low} to {high})"

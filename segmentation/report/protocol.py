"""What a study promised before its first run, and where it departs from that."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segmentation.report.read import Study
from segmentation.terminal import counted
from segmentation.training.record import COMPUTED

AS_PLANNED = "None: every planned run is in these numbers, and nothing was added or changed after registration."


def protocol_of(study: Study) -> dict[str, Any]:
    """Collect the promises of a study and its departures from them.

    Returns:
        Nothing for a single run; otherwise ``hash``, ``methods`` (what is decided how), ``contrasts`` (``a``,
        ``b`` and what was ``expected``), ``amendments`` as registered, and ``deviations`` in sentences.
    """
    if study.single:
        return {}
    expected = study.header.get("expected", [])
    pairs = study.header.get("contrasts", [])
    return {
        "hash": study.header.get("protocol", ""),
        "methods": dict(study.protocol.get("methods", {})),
        "contrasts": [
            {"a": pair[0], "b": pair[1], "expected": expected[place] if place < len(expected) else "any"}
            for place, pair in enumerate(pairs)
        ],
        "amendments": list(study.header.get("amendments", [])),
        "deviations": list(_deviations(study)),
    }


def expectation(contrast: Mapping[str, Any], expected: str) -> str:
    """What was expected of a contrast before the first run, and what was found; nothing where any result was.

    Args:
        contrast: Of results.json.
        expected: Of its first condition, the ``"greater"`` or ``"less"`` value, an ``"equivalent"`` one, or ``"any"``.

    Examples:
        >>> expectation({"verdict": "different", "mean": 0.1}, "greater")
        'expected greater, found so'
        >>> expectation({"verdict": "equivalent", "mean": 0.0}, "less")
        'expected less, found equivalent'
        >>> expectation({"verdict": "inconclusive", "mean": 0.1}, "greater")
        'expected greater, not decided'
    """
    if expected == "any":
        return ""
    if contrast["verdict"] not in ("different", "equivalent"):
        return f"expected {expected}, not decided"
    direction = "greater" if contrast["mean"] > 0 else "less"
    found = direction if contrast["verdict"] == "different" else "equivalent"
    return f"expected {expected}, found {'so' if found == expected else found}"


def _deviations(study: Study) -> Iterator[str]:
    """Everything that is not as planned, in sentences."""
    for amendment in study.header.get("amendments", []):
        when = (
            f"After {amendment['finished']} finished runs" if amendment["finished"] else "Before any run had finished"
        )
        added = [_added(key, entries) for key, entries in amendment.items() if key != "finished"]
        late = " These contrasts are exploratory." if amendment["finished"] and amendment.get("contrasts") else ""
        yield f"{when} the study was extended by {'; '.join(added)}.{late}"
    if left_out := [run for run in study.runs if run.left_out]:
        yield f"{len(left_out)} of {len(study.runs)} planned runs are not in these numbers: {_reasons(left_out)}."
    versions = [dict(run.record.get("versions", {})) for run in study.finished]
    for package in dict.fromkeys(name for found in versions for name in found):
        used = sorted({str(found[package]) for found in versions if package in found})
        if len(used) > 1:
            yield f"The runs were made with different versions of {package}: {', '.join(used)}."
    for what in COMPUTED:
        used = sorted({str(run.record[what]) for run in study.finished if what in run.record})
        if len(used) > 1:
            yield f"The runs were not computed alike: {what} was {', '.join(used)}."


def _added(key: str, entries: Any) -> str:
    """What an amendment added, in words."""
    if key == "runs":
        return counted(len(entries), "run")
    names = (
        [" \N{MINUS SIGN} ".join(entry[:2]) for entry in entries]
        if key == "contrasts"
        else [str(each) for each in entries]
    )
    return f"the {key if len(names) > 1 else key.removesuffix('s')} {', '.join(names)}"


def _reasons(runs: Sequence[Any]) -> str:
    """Why runs are left out, with how many each; what follows a colon is left to the table."""
    counts: dict[str, int] = {}
    for run in runs:
        reason = run.left_out.partition(":")[0]
        counts[reason] = counts.get(reason, 0) + 1
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())


def versions_of(study: Study) -> Mapping[str, str]:
    """Packages and versions of the first finished run that recorded them."""
    return next((run.record["versions"] for run in study.finished if run.record.get("versions")), {})

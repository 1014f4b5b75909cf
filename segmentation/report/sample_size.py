"""How many patients a study would have needed: to find a difference of the margin, and to exclude one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from segmentation.report.tables import number
from segmentation.statistics.paired import POWER
from segmentation.terminal import counted


def sample_size(contrasts: Sequence[Mapping[str, Any]], margin: float, measure: str) -> dict[str, Any]:
    """Turn the power of the comparisons into a statement.

    Args:
        contrasts: Those of results.json; the declared ones are taken, or all of them where none was declared.
        margin: Largest difference that does not matter in practice.
        measure: The primary measure.

    Returns:
        ``power``, ``margin`` and ``contrasts``, each with ``detectable`` (smallest true difference that is likely
        found now), ``find`` and ``exclude`` (number of seeds to number of patients) and a ``sentence``.
    """
    known = [each for each in contrasts if each.get("checks")]
    chosen = [each for each in known if each["declared"]] or known
    return {"power": POWER, "margin": margin, "contrasts": [_of(each, margin, measure) for each in chosen]}


def _of(contrast: Mapping[str, Any], margin: float, measure: str) -> dict[str, Any]:
    """What stands for one contrast."""
    checks = contrast["checks"]
    entry = {key: contrast[key] for key in ("a", "b", "declared", "n", "seeds")} | {
        "detectable": checks["detectable"],
        "find": checks["cases_needed"],
        "exclude": checks["cases_to_exclude"],
    }
    why_not = None if entry["detectable"] is not None or _too_few(contrast) else _why_not(contrast)
    return entry | {"sentence": " ".join(_sentences(entry, margin, measure, why_not))}


def _too_few(contrast: Mapping[str, Any]) -> bool:
    """Whether no difference between so few patients could give a p-value that is small enough."""
    return contrast["n"] > 1 and contrast["smallest_p"] > 1 - contrast["level"]


def _why_not(contrast: Mapping[str, Any]) -> str:
    """Why no sample size can be told."""
    if contrast["n"] < 2:
        return "one patient shows no scatter of patients"
    if contrast["low"] == contrast["high"]:
        return "this difference does not scatter"
    return "too many runs are missing to tell the scatter of patients from that of seeds"


def _sentences(entry: Mapping[str, Any], margin: float, measure: str, why_not: str | None) -> Iterator[str]:
    """The statement in words."""
    have = f"{counted(entry['n'], 'patient')} and {counted(entry['seeds'], 'seed')}"
    if why_not:
        yield f"{have} tell no sample size: {why_not}."
        return
    if entry["detectable"] is None:
        yield f"{have} cannot show any difference, however large."
    else:
        smallest = number(entry["detectable"], measure)
        yield f"{have} find a true difference of {smallest} or more with probability {POWER:g}."
    if entry["find"] and entry["exclude"]:
        yield f"To find one of {margin:g}: {_needed(entry, 'find')};"
        yield f"to rule one out where there is none: {_needed(entry, 'exclude')}."


def _needed(entry: Mapping[str, Any], question: str) -> str:
    """Patients for the number of seeds at hand; where each seed ran one fold, for the seeds that are needed."""
    seeds, patients = next(
        ((seeds, patients) for seeds, patients in entry[question].items() if int(seeds) == entry["seeds"]),
        next(iter(entry[question].items())),
    )
    count = "no number of patients suffices" if patients is None else f"about {counted(patients, 'patient')}"
    return f"{count} with {counted(int(seeds), 'seed')}"

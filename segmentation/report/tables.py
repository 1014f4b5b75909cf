"""Numbers as a reader wants them: formats shared by page and terminal, and the table for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from segmentation.terminal import Part, Table

MEASURE_NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "sensitivity": "Sensitivity",
    "precision": "Precision",
    "hd95_mm": "HD95",
    "assd_mm": "ASSD",
    "nsd": "Surface Dice",
    "volume_error_ml": "Volume error",
}
"""Measure to its name in print; units come from :func:`measure_label`."""

ABSENT = "\N{EN DASH}"
"""Printed where a score has no value."""

_MOST_PATIENTS = 30

_OF_A_CONTRAST = ("verdict", "difference", "interval", "p (Holm)", "patients", "seeds")

_DECIMALS = {"hd95_mm": 1, "assd_mm": 1, "volume_error_ml": 1}


def clean(text: str) -> str:
    r"""Replace characters that are not printable, such as terminal escapes, so that a name cannot act.

    Examples:
        >>> clean("case\x1b[2J\u202e1")
        'case�[2J�1'
    """
    return "".join(character if character.isprintable() else "�" for character in text)


def measure_label(measure: str, results: Mapping[str, Any]) -> str:
    """Name a measure with its unit or tolerance, such as ``"Surface Dice at 2 mm"``."""
    name, unit = MEASURE_NAMES[measure], results["length_unit"]
    if measure == "nsd":
        tolerances = " / ".join(f"{value:g}" for value in results["tolerance_mm"])
        return f"{name} at {tolerances} {unit}" if tolerances else name
    if measure.endswith("_mm"):
        return f"{name}, {unit}"
    return f"{name}, ml" if measure.endswith("_ml") else name


def number(value: float | None, measure: str = "dice", *, signed: bool = False) -> str:
    """Print a score, with a true minus sign; ``None`` is :data:`ABSENT`.

    Examples:
        >>> number(0.52349), number(0.02, signed=True), number(12.34, "hd95_mm")
        ('0.523', '+0.020', '12.3')
    """
    if value is None:
        return ABSENT
    text = format(value, f"{'+' if signed else ''}.{_DECIMALS.get(measure, 3)}f")
    return text.replace("-", "\N{MINUS SIGN}")


def interval(found: Mapping[str, Any], measure: str = "dice", *, signed: bool = False) -> str:
    """Print the bounds of a confidence interval.

    Examples:
        >>> interval({"low": 0.1, "high": 0.934}), interval({"low": None, "high": None})
        ('0.100 to 0.934', 'no interval')
    """
    if found.get("low") is None:
        return "no interval"
    return " to ".join(number(found[end], measure, signed=signed) for end in ("low", "high"))


def p_value(p: float | None) -> str:
    """Print a p-value, never as zero.

    Examples:
        >>> p_value(0.125), p_value(0.00002)
        ('p = 0.125', 'p < 0.001')
    """
    if p is None:
        return ABSENT
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def parameters(counts: Sequence[int]) -> str:
    """Print a parameter count, or the range over runs.

    Examples:
        >>> parameters([482_113]), parameters([950, 31_043_521])
        ('482 k', '950 to 31.04 M')
    """
    if not counts:
        return ABSENT
    return " to ".join(dict.fromkeys(_short(value) for value in (min(counts), max(counts))))


def budget(found: Mapping[str, Any] | None) -> str:
    """Print what a condition's budget was matched to, and how closely.

    Examples:
        >>> budget({"matched": "macs", "matched_to": "concat", "off_percent": 0.26})
        'MACs of concat, +0.26 %'
    """
    if not found or not found.get("matched_to"):
        return ABSENT
    cost = {"params": "parameters", "macs": "MACs"}[found["matched"]]
    off = found["off_percent"]
    close = "" if off is None else f", {off:+.2f} %".replace("-", "\N{MINUS SIGN}")
    return f"{cost} of {found['matched_to']}{close}"


def _short(count: int) -> str:
    """A count with three or four digits."""
    if count < 1_000:
        return str(count)
    return f"{count / 1e3:.0f} k" if count < 999_500 else f"{count / 1e6:.2f} M"


def terminal_table(results: Mapping[str, Any]) -> list[Part]:
    """Lay out the primary score for a terminal: patients as rows, conditions as columns.

    Args:
        results: Content of results.json, see :func:`segmentation.report.results.build_results`.

    Returns:
        The table with mean, interval and parameter count, the differences that were declared, the policy for
        empty masks, and what is missing.
    """
    conditions = results["conditions"]
    measure = results["primary_metric"]
    rows = [["patient", *(clean(name) for name in conditions)]]
    patients = list(results["patients"].items())
    for patient, scores in patients[:_MOST_PATIENTS]:
        rows.append([clean(patient), *(number(scores[name], measure) for name in conditions)])
    if len(patients) > _MOST_PATIENTS:
        rows.append([f"and {len(patients) - _MOST_PATIENTS} more", *("" for _ in conditions)])
    rows.append([])
    means = [condition["scores"][measure] for condition in conditions.values()]
    rows.append(["mean", *(number(mean["estimate"], measure) for mean in means)])
    rows.append(["95% CI", *(interval(mean, measure) for mean in means)])
    rows.append(["patients", *(str(mean["n"]) for mean in means)])
    rows.append(["parameters", *(parameters(condition["parameters"]) for condition in conditions.values())])
    title = f"{measure_label(measure, results)} per patient"
    name = f"{clean(results['name'])}: {title}" if results["name"] else title
    lines: list[Part] = [name, "", Table(rows, right=True)]
    declared = [contrast for contrast in results["contrasts"] if contrast["declared"]]
    if declared:
        cells = [["declared contrast", *_OF_A_CONTRAST], *(_verdict(c, measure) for c in declared)]
        lines += ["", Table(cells, right=True)]
    for contrast in declared:
        lines += ["", f"{clean(contrast['a'])} - {clean(contrast['b'])} (declared): {clean(contrast['sentence'])}"]
    if results["left_out"]:
        lines += ["", f"{len(results['left_out'])} of {results['runs']['planned']} runs are left out:"]
        lines += [f"  {clean(run['id'])}: {clean(run['reason'])}" for run in results["left_out"]]
    return [*lines, "", results["policy"]]


def summary_table(summary: Mapping[str, Any]) -> list[Part]:
    """Lay out a summary.json for a terminal: a row for each class, what to know about it, and the policy."""
    measures = ("dice", "iou", "nsd", "hd95_mm")
    about = {"length_unit": summary["unit"], "tolerance_mm": [summary["tolerance_mm"]]}
    rows = [["class", *(measure_label(m, about) for m in measures), "Dice, 95% CI", "missed", "false alarms"]]
    for name, found in summary["classes"].items():
        scores = {measure: found["scores"][measure]["policy"] for measure in measures}
        means = [number(score["estimate"], measure) for measure, score in scores.items()]
        states = [str(found["states"][state]) for state in ("missed", "false_alarm")]
        rows.append([clean(name), *means, interval(scores["dice"]), *states])
    title = f"{summary['cases']} cases of {summary['patients']} patients: means over patients"
    return [title, "", Table(rows, right=True), "", *map(clean, summary["warnings"]), summary["policy"]]


def _verdict(contrast: Mapping[str, Any], measure: str) -> list[str]:
    """Cells of a declared contrast, in the order of the columns."""
    level = f" ({100 * contrast['level']:.4g} %)" if contrast["n"] else ""
    return [
        f"{clean(contrast['a'])} - {clean(contrast['b'])}",
        contrast["verdict"],
        number(contrast.get("mean"), measure, signed=True),
        f"{interval(contrast, measure, signed=True)}{level}",
        p_value(contrast["p_holm"]),
        str(contrast["n"]),
        str(contrast["seeds"]),
    ]

"""The settings of a study's conditions: those in which they differ, and those that they share."""

from collections.abc import Mapping, Sequence
from typing import Any

from segmentation.report.read import Study
from segmentation.report.tables import ABSENT


def settings_of(study: Study) -> dict[str, Mapping[str, Any]]:
    """Compare the resolved settings of the conditions.

    Returns:
        ``differing``, dotted name to condition to value, None where it is not known; and ``shared``, dotted name to
        value. Folders, fold and seed are in neither.
    """
    settings = _resolved(study)
    keys = dict.fromkeys(key for values in settings.values() for key in values)
    rows = {key: {name: values.get(key) for name, values in settings.items()} for key in keys}
    differing = {
        key: {name: row.get(name) for name in study.conditions}
        for key, row in rows.items()
        if any(value != row[name] for name in row for value in row.values())
    }
    everywhere = {key for key in keys if all(key in values for values in settings.values())}
    shared = {key: next(iter(row.values())) for key, row in rows.items() if key not in differing and key in everywhere}
    return {"differing": differing, "shared": shared}


def _resolved(study: Study) -> dict[str, Mapping[str, Any]]:
    """Settings of each condition as its runs froze them; of all their overrides where no run has any."""
    frozen = {run.condition: run.settings for run in reversed(study.runs) if run.settings}
    settings = {name: frozen[name] for name in study.conditions if name in frozen} or study.conditions
    matched = {name: arm["matched"] for name, arm in study.budgets.items() if "matched" in arm}
    return {  # widths that were solved are frozen as such, so a run itself no longer says what they were solved for
        name: {**values, "network.budget_match": matched[name]} if name in matched else values
        for name, values in settings.items()
    }


def in_yaml(value: Any) -> str:
    """Print a setting as it would stand in YAML; absent is a dash.

    Examples:
        >>> in_yaml([8, 16]), in_yaml({"0": "none"}), in_yaml(True)
        ('[8, 16]', '{0: none}', 'true')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {in_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(in_yaml(item) for item in value) + "]"
    return ABSENT if value is None else str(value)

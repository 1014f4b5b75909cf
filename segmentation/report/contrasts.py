"""Compare conditions pairwise, and keep apart what was declared beforehand from what is exploratory.

Two conditions are compared only on scores that both have: same fold, seed, case and class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from segmentation import SkipSegError
from segmentation.report.read import MEASURES, Study
from segmentation.report.scores import Key, Scores, of_class, per_patient
from segmentation.statistics import paired_difference

_MOST_PAIRS_OF = 6
"""With more conditions than this, undeclared comparisons are made with the first condition only."""


def declared_contrasts(study: Study) -> list[tuple[str, str]]:
    """The contrasts that were fixed before the study ran.

    Raises:
        SkipSegError: If one does not name two different conditions of the study.
    """
    pairs = [tuple(pair) for pair in study.header.get("contrasts", [])]
    for pair in pairs:
        if len(pair) != 2 or not set(pair) <= set(study.conditions) or pair[0] == pair[1]:
            known = ", ".join(study.conditions)
            raise SkipSegError(f"a contrast must name two of the conditions {known}, got {list(pair)}")
    return [(a, b) for a, b in pairs]


def compare(
    study: Study,
    declared: Sequence[tuple[str, str]],
    scores: Scores,
    primary: str,
) -> list[dict[str, Any]]:
    """Compute paired differences: declared pairs, then exploratory pairs, classes and measures.

    Declared contrasts share alpha equally (Bonferroni), so that the study as a whole keeps its error rate.

    Args:
        study: The study.
        declared: Its :func:`declared_contrasts`.
        scores: Every condition's scores of every measure.
        primary: The measure that declared contrasts are about.

    Returns:
        One record per comparison, the declared ones first: conditions ``a`` and ``b``, ``declared``,
        ``metric``, ``class`` (``None`` for the mean over classes), ``patients`` (patient to difference), and
        the fields of :class:`segmentation.statistics.PairedDifference`.
    """
    header = study.header
    alpha, margin = header.get("alpha", 0.05), header.get("margin", 0.02)
    known = {frozenset(pair) for pair in declared}
    pairs = [pair for pair in combinations(study.conditions, 2) if frozenset(pair) not in known]
    if len(study.conditions) > _MOST_PAIRS_OF:
        pairs = [pair for pair in pairs if pair[0] == next(iter(study.conditions))]
    shared = alpha / max(1, len(declared))
    settled = [(a, b, None, primary) for a, b in declared]
    wanted = [(a, b, None, primary) for a, b in pairs]
    wanted += [(a, b, c, primary) for a, b in declared for c in study.classes if len(study.classes) > 1]
    wanted += [(a, b, None, m) for a, b in declared or pairs for m in MEASURES if m != primary]
    plans = [(True, shared, plan) for plan in settled] + [(False, alpha, plan) for plan in wanted]
    return [
        {"declared": is_declared, "class": class_name, "metric": measure}
        | _difference((a, b), tuple(of_class(scores[name][measure], class_name) for name in (a, b)), level, margin)
        | ({} if measure == primary else {"verdict": None, "sentence": ""})  # the margin is meant for the primary one
        for is_declared, level, (a, b, class_name, measure) in plans
    ]


def _difference(
    names: tuple[str, str], scores: tuple[Mapping[Key, float], ...], alpha: float, margin: float
) -> dict[str, Any]:
    """Compare two conditions on the scores that both have."""
    first, second = scores
    common = sorted(first.keys() & second.keys())
    pair = {"a": names[0], "b": names[1], "alpha": alpha, "pairs": len(common)}
    if not common:
        sentence = f"{names[0]} and {names[1]} have no scored case in common yet."
        return pair | {"n": 0, "verdict": "no result", "sentence": sentence, "patients": {}}
    in_a = per_patient({key: first[key] for key in common})
    in_b = per_patient({key: second[key] for key in common})
    differences = {patient: in_a[patient] - in_b[patient] for patient in in_a}
    return pair | asdict(paired_difference(in_a, in_b, alpha=alpha, margin=margin)) | {"patients": differences}

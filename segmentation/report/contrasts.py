"""Compare conditions pairwise, and keep apart what was declared beforehand from what is exploratory.

Two conditions are compared only on scores that both have: same fold, seed, case and class. A false alarm where the
other condition rightly found nothing has no counterpart: such scores are counted, and the difference is told a second
time with a rightly empty mask as perfect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from statistics import fmean
from typing import Any

from segmentation import SkipSegError
from segmentation.evaluation.summary import PERFECT
from segmentation.report.read import MEASURES, Study
from segmentation.report.scores import Key, Scores, by_seed, fold_of, of_class, scores_of
from segmentation.statistics import checks, holm, paired_difference

_MOST_PAIRS_OF = 6
"""With more conditions than this, comparisons that nobody asked for are made with the first condition only."""


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

    Declared contrasts are one family. Their differences are judged by Holm's procedure, so that the study as a
    whole keeps its error rate; each interval has the level at which Holm judges its contrast, so that interval
    and verdict agree, and none is narrower than ``1 - alpha``. Claims of equivalence share alpha equally.
    Exploratory comparisons are judged one by one.

    Args:
        study: The study.
        declared: Its :func:`declared_contrasts`.
        scores: Every condition's scores of every measure.
        primary: The measure that declared contrasts are about.

    Returns:
        One record per comparison, the declared ones first: conditions ``a`` and ``b``, ``declared``,
        ``metric``, ``class`` (``None`` for the mean over classes), ``patients`` (patient to difference), the
        fields of :class:`segmentation.statistics.PairedDifference`, ``false_alarms`` (see above, None if there are
        none), ``p_holm`` (adjusted within the declared family, else None) and for the primary measure ``checks``, see
        :class:`segmentation.statistics.Checks`.
    """
    header = study.header
    alpha, margin = header.get("alpha", 0.05), header.get("margin", 0.02)
    known = {frozenset(pair) for pair in declared}
    pairs = [pair for pair in combinations(study.conditions, 2) if frozenset(pair) not in known]
    if len(study.conditions) > _MOST_PAIRS_OF:
        pairs = [pair for pair in pairs if pair[0] == next(iter(study.conditions))]
    late = [(a, b) for part in header.get("amendments", []) for a, b, *_ in part.get("contrasts", [])]
    late = [pair for pair in dict.fromkeys(late) if frozenset(pair) not in known and set(pair) <= set(study.conditions)]
    pairs = late + [pair for pair in pairs if frozenset(pair) not in set(map(frozenset, late))]
    plans = [(a, b, None, primary) for a, b in pairs]
    plans += [(a, b, c, primary) for a, b in declared for c in study.classes if len(study.classes) > 1]
    plans += [(a, b, None, m) for a, b in declared or pairs for m in MEASURES if m != primary]
    records = _family([_Pair(study, scores, a, b, primary) for a, b in declared], alpha, margin)
    for a, b, class_name, measure in plans:
        pair = _Pair(study, scores, a, b, measure, class_name)
        record = {"declared": False, "p_holm": None} | pair.judge(alpha, margin)
        if measure != primary:  # the margin is meant for the primary one
            record |= {"verdict": None, "sentence": ""}
        elif class_name is None:
            record["checks"] = pair.checks(alpha, margin)
        records.append(record)
    return records


def _family(pairs: Sequence["_Pair"], alpha: float, margin: float) -> list[dict[str, Any]]:
    """Judge the declared contrasts together; one without data counts as a p-value of 1."""
    single = [pair.judge(alpha, margin) for pair in pairs]
    records: list[dict[str, Any]] = []
    judged = holm([record.get("p_value", 1.0) for record in single], alpha)
    for pair, first, verdict in zip(pairs, single, judged, strict=True):
        record = pair.judge(verdict.level, margin, alpha / len(pairs)) if len(pairs) > 1 else first
        if len(pairs) > 1 and record["n"]:
            record["sentence"] += (
                f" Over {len(pairs)} declared contrasts p is {verdict.p_value:.3g} (Holm), and this one is judged at "
                f"{verdict.level:.3g}."
            )
        p_holm = verdict.p_value if record["n"] else None
        own = pair.checks(verdict.level, margin, mixed=True, equivalence_alpha=alpha / len(pairs))
        records.append({"declared": True} | record | {"p_holm": p_holm, "checks": own})
    return records


class _Pair:
    """Two conditions, on the scores of one measure that both have."""

    def __init__(
        self, study: Study, scores: Scores, a: str, b: str, measure: str, class_name: str | None = None
    ) -> None:
        self.study = study
        first, second = (of_class(scores[name][measure], class_name) for name in (a, b))
        self.in_a, self.in_b, common = _in_common(first, second)
        self.alone = first.keys() ^ second.keys()
        self.folds = fold_of(dict.fromkeys(common, 0.0))
        self.test_share = _test_share(study, (a, b))
        self.names: dict[str, Any] = {"a": a, "b": b, "class": class_name, "metric": measure, "pairs": len(common)}

    def judge(self, alpha: float, margin: float, equivalence_alpha: float | None = None) -> dict[str, Any]:
        """The paired difference with its verdict."""
        names = self.names | {"alpha": alpha, "false_alarms": self._with_false_alarms(alpha, margin)}
        if not self.in_a:
            sentence = f"{names['a']} and {names['b']} have no scored case in common yet."
            return names | {"n": 0, "seeds": 0, "verdict": "no result", "sentence": sentence, "patients": {}}
        found = paired_difference(self.in_a, self.in_b, alpha, margin, equivalence_alpha=equivalence_alpha)
        means = {p: fmean(v[s] - self.in_b[p][s] for s in v) for p, v in self.in_a.items()}
        return names | asdict(found) | {"patients": means}

    def _with_false_alarms(self, alpha: float, margin: float) -> dict[str, Any] | None:
        """The difference with rightly empty masks as perfect; None where no false alarm stands alone."""
        a, b, class_name, measure = (self.names[key] for key in ("a", "b", "class", "metric"))
        if measure not in PERFECT or not self.alone:
            return None
        first, second = (
            of_class(scores_of(self.study.runs_of(name), measure, "both_empty_perfect"), class_name) for name in (a, b)
        )
        count = len(self.alone & first.keys() & second.keys())
        if not count:
            return None
        in_a, in_b, _ = _in_common(first, second)
        found = paired_difference(in_a, in_b, alpha, margin)
        return {"scores": count, **{key: getattr(found, key) for key in ("mean", "low", "high", "level", "n")}}

    def checks(
        self, alpha: float, margin: float, *, mixed: bool = False, equivalence_alpha: float | None = None
    ) -> dict[str, Any] | None:
        """The second opinions; None without data."""
        if not self.in_a:
            return None
        options: dict[str, Any] = {"folds": self.folds, "test_share": self.test_share, "mixed": mixed}
        options["equivalence_alpha"] = equivalence_alpha
        return asdict(checks(self.in_a, self.in_b, alpha=alpha, margin=margin, **options))


def _in_common(
    first: Mapping[Key, float], second: Mapping[Key, float]
) -> tuple[dict[str, dict[int, float]], dict[str, dict[int, float]], list[Key]]:
    """Means by patient and seed of the scores that both have, and which these are."""
    common = sorted(first.keys() & second.keys())
    in_a, in_b = (by_seed({key: of[key] for key in common}) for of in (first, second))
    return in_a, in_b, common


def _test_share(study: Study, names: tuple[str, ...]) -> float | None:
    """Cases held out over cases trained on, as the runs of two conditions recorded them."""
    counts = [
        (len(run.record.get("val_cases", ())), len(run.record.get("train_cases", ())))
        for name in names
        for run in study.runs_of(name)
    ]
    shares = [held_out / trained for held_out, trained in counts if held_out and trained]
    return fmean(shares) if shares else None

"""The verdict in one word, one number and one sentence for each declared contrast, or what can be said without one."""

from collections.abc import Mapping
from typing import Any

from segmentation.report import tables
from segmentation.terminal import counted

_WORDS = {
    "different": "Different",
    "equivalent": "Equivalent",
    "inconclusive": "Inconclusive",
    "no result": "No result",
}


def verdicts_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Say what the study found.

    Returns:
        For each declared contrast ``word``, ``kind``, ``said`` (in a few words), ``sentence`` and ``facts`` (numbers
        in print with what they are); or one entry that says what can be said without a declared contrast.
    """
    declared = [contrast for contrast in results["contrasts"] if contrast["declared"]]
    if declared:
        return [_declared(contrast, results) for contrast in declared]
    if len(results["conditions"]) > 1:
        sentence = "No contrast was declared before the study ran, so every difference on this page is exploratory."
        return [_plain("Exploratory", sentence)]
    (condition,) = results["conditions"].values()
    found = condition["scores"][results["primary_metric"]]
    if found["estimate"] is None:
        return [_plain("No result", "No run of this folder has finished yet.")]
    name = tables.measure_label(results["primary_metric"], results)
    bounds = f", 95% confidence interval {tables.interval(found)}" if found["low"] is not None else ""
    sentence = (
        f"Mean {name} {tables.number(found['estimate'], results['primary_metric'])} over "
        f"{counted(found['n'], 'patient')}{bounds}. "
        "One condition alone cannot tell what its design choices contribute."
    )
    return [_plain("Measured", sentence)]


def _plain(word: str, sentence: str) -> dict[str, Any]:
    """A verdict without a contrast."""
    return {"word": word, "kind": "", "said": "", "sentence": sentence, "facts": []}


def _declared(contrast: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict on one contrast."""
    verdict = contrast["verdict"]
    entry = {"word": _WORDS[verdict], "kind": verdict.replace(" ", "-"), "said": _said(contrast, results)}
    return entry | {"sentence": contrast["sentence"], "facts": _facts(contrast, results) if contrast["n"] else []}


def _said(contrast: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """What differs from what, in a few words."""
    a, b = contrast["a"], contrast["b"]
    if contrast["verdict"] == "different":
        if results["primary_metric"] in ("hd95_mm", "assd_mm"):
            return f"{a} has {'larger' if contrast['mean'] > 0 else 'smaller'} distances than {b}"
        return f"{a} scores {'higher' if contrast['mean'] > 0 else 'lower'} than {b}"
    if contrast["verdict"] == "equivalent":
        return f"{a} and {b} differ by less than {results['margin']:g}"
    return f"{a} against {b}"


def _facts(contrast: Mapping[str, Any], results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """By how much, how surely, and on how many."""
    measure = results["primary_metric"]
    level = f"{100 * contrast['level']:.4g} % interval"
    return [
        (tables.number(contrast["mean"], measure, signed=True), tables.measure_label(measure, results)),
        (tables.interval(contrast, measure, signed=True), level),
        (str(contrast["n"]), "patient" if contrast["n"] == 1 else "patients"),
        (str(contrast["seeds"]), "seed" if contrast["seeds"] == 1 else "seeds"),
        (tables.p_value(contrast["p_holm"]).removeprefix("p = ").removeprefix("p "), "p"),
    ]

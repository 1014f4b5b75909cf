"""The protocol of a study: what it asks and how it will answer, written down and hashed before the first run.

protocol.json is written once and never changed. A study may grow afterwards: conditions, folds, seeds and contrasts
may be added, each addition with the number of runs that were finished by then. It may not shrink or change. A
contrast counts as declared if it stood in the protocol, or was added before any run had finished; all others are
exploratory.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segmentation import SkipSegError
from segmentation.runs import content_hash, is_draft, read_json, write_json

METHODS = {
    "unit": "patient",
    "estimate": "mean paired difference on equal folds, seeds, cases and classes",
    "interval": "bootstrap over patients and seeds, Student's t where they are few; where each seed ran one fold, "
    "Student's t over folds",
    "test": "sign-flip permutation of patients, two-sided; with several seeds p is no smaller than that of the test "
    "over patients and seeds, or over folds; a difference also needs an interval without 0",
    "multiplicity": "Holm over the declared contrasts; claims of equivalence share alpha equally",
    "verdict": "different, equivalent within the margin (two one-sided tests) or inconclusive",
}
"""How declared contrasts are decided."""

GROWING = ("contrasts", "conditions", "folds", "seeds", "runs")
"""What may be added to a study."""


def register(out: Path, declared: Mapping[str, Any], finished: int) -> dict[str, Any]:
    """Write protocol.json in ``out``, or hold the study against the one that stands there.

    Args:
        out: Study folder, which exists.
        declared: Everything that is declared; the entries of :data:`GROWING` may grow, no other may change but
            ``base``, whose every effect is in the hashes that name the ``runs``.
        finished: Finished runs of the study so far.

    Returns:
        For study.json: ``protocol``, the hash; ``amendments``; and the ``contrasts`` that count as declared with
        what is ``expected`` of each.

    Raises:
        SkipSegError: If the folder holds another study or something else, or its protocol was edited.
    """
    if not (out / "study.json").exists():
        if any(not is_draft(item) and item.name != "protocol.json" for item in out.iterdir()):
            raise SkipSegError(f"{out} exists and is not a study; choose another folder")
        protocol, amendments = {**declared, "methods": METHODS}, list[dict[str, Any]]()
        write_json(out / "protocol.json", protocol | {"hash": content_hash(protocol)})
    else:
        protocol, amendments = read_protocol(out)
        fixed = [key for key in declared if key not in (*GROWING, "base")]
        changed = [key for key in fixed if protocol.get(key) != declared[key]]
        if changed:
            raise SkipSegError(f"{out} holds a study with another {', '.join(changed)}; choose another folder")
        added = {key: _added(out, key, [protocol, *amendments], declared[key]) for key in GROWING}
        if any(added.values()):
            amendments.append({"finished": finished, **{key: entries for key, entries in added.items() if entries}})
    contrasts = _declared(protocol, amendments)
    return {
        "protocol": content_hash(protocol),
        "amendments": amendments,
        "contrasts": [[a, b] for a, b, _ in contrasts],
        "expected": [expected for *_, expected in contrasts],
    }


def read_protocol(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read the protocol of a study and its amendments.

    Raises:
        SkipSegError: If there is none, or it is not the one that the study was registered with.
    """
    study, protocol = read_json(out / "study.json"), read_json(out / "protocol.json")
    written = protocol.pop("hash", None)
    if not content_hash(protocol) == written == study.get("protocol"):
        raise SkipSegError(f"{out / 'protocol.json'} is not what {out} was registered with; restore it")
    return protocol, study["amendments"]


def verify(out: Path) -> None:
    """Check that the study in ``out`` is still what was registered, before anything is concluded from it.

    Raises:
        SkipSegError: If study.json or protocol.json was edited or one of them is missing.
    """
    study = read_json(out / "study.json")
    content = {key: value for key, value in study.items() if key != "hash"}
    try:
        protocol, amendments = read_protocol(out)
        fixed = protocol.keys() - {*GROWING, "base", "methods"}
        kept = all(study.get(key) == protocol[key] for key in fixed)
        kept = kept and study["contrasts"] == [pair[:-1] for pair in _declared(protocol, amendments)]
    except (AttributeError, KeyError, TypeError):
        kept = False
    if not kept or content_hash(content) != study.get("hash"):
        raise SkipSegError(f"{out / 'study.json'} was changed after registration; restore it")


def _declared(protocol: Mapping[str, Any], amendments: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The contrasts that stood in the protocol or were added before any run had finished."""
    return [*protocol["contrasts"], *(c for a in amendments if not a["finished"] for c in a.get("contrasts", []))]


def _added(
    out: Path, key: str, known: Sequence[Mapping[str, Any]], declared: Mapping[str, Any] | Sequence[Any]
) -> dict[str, Any] | list[Any]:
    """What ``declared`` adds to what stands in the protocol and its amendments; nothing of that may be missing."""
    before = [entry for part in known for entry in part.get(key, [])]
    missing = [entry for entry in before if entry not in declared]
    if missing:
        what = " - ".join(missing[0][:2]) if key == "contrasts" else missing[0]
        raise SkipSegError(
            f"{out} holds a study with the {key.removesuffix('s')} {what}, which is missing or changed now; "
            "a study may only grow; choose another folder"
        )
    if isinstance(declared, Mapping):
        return {name: value for name, value in declared.items() if name not in before}
    return [entry for entry in declared if entry not in before]

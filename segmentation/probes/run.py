"""``skipseg probe``: look into a run, one JSON file a probe, in RUN/probes."""

import logging
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from segmentation import SkipSegError, __version__
from segmentation.config import ProbeSettings
from segmentation.figures import plain_numbers
from segmentation.probes.context import NotMeasurableError, ProbeContext, ProbeResult, finished_record
from segmentation.probes.kinds import choose_kinds
from segmentation.progress import Bar
from segmentation.runs import peek_json, write_json

log = logging.getLogger(__name__)


def probe(settings: ProbeSettings) -> list[Path]:
    """Probe a run; results for the same run and settings, or from more batches or cases, are kept.

    A kind that the run has nothing to offer for is passed over; if it was asked for by name, that is an error once
    the others are written.

    Returns:
        One ``RUN/probes/KIND.json`` for each kind.

    Raises:
        SkipSegError: If a kind is unknown, the folder holds no finished run, or a kind that was asked for by
            name cannot be measured on it; the message names the files of the others.
    """
    kinds = choose_kinds(settings.kind)
    if settings.other and "barrier" not in kinds:
        raise SkipSegError(f"--other {settings.other} is for kind barrier, which was not asked for; add --kind barrier")
    run_hash = finished_record(settings.run)["hash"]
    if settings.threads:
        torch.set_num_threads(settings.threads)
    missing = _missing({kind: _head(kind, run_hash, settings) for kind in kinds}, settings)
    context = ProbeContext.open(settings) if missing else None
    refused: dict[str, NotMeasurableError] = {}
    with Bar("probe", "kinds", len(missing)) as bar:
        for kind, head in missing.items():
            assert context is not None
            bar.note(kind)
            try:
                result = import_module(f"segmentation.probes.{kind}").probe(context)
                write_json(_path(settings, kind), head | _body(result))
            except NotMeasurableError as error:
                refused[kind] = error
            bar.advance()
    paths = [_path(settings, kind) for kind in kinds if kind not in refused]
    for kind in [each for each in refused if each not in settings.kind]:
        log.warning("%s left out: %s", kind, refused.pop(kind))
    if refused:
        said = "; ".join(f"{kind} cannot be measured on {settings.run}: {error}" for kind, error in refused.items())
        raise SkipSegError(f"{said}; written: {', '.join(map(str, paths)) or 'nothing'}")
    return paths


def _missing(heads: Mapping[str, dict[str, Any]], settings: ProbeSettings) -> dict[str, dict[str, Any]]:
    """Kinds to compute: without a result of the same head, or one from more batches or cases, which is logged."""
    standing = {kind: peek_json(_path(settings, kind)) for kind in heads}
    missing = {kind: head for kind, head in heads.items() if not _stands(standing[kind], head)}
    larger = [kind for kind, head in missing.items() if _used_more(standing[kind], head)]
    if larger:
        folder = settings.run / "probes"
        kept = f"kept in {folder}: {', '.join(larger)}, measured on more batches or cases than asked for now"
        log.warning("%s; ask for as many, or delete the file, to measure again", kept)
    return {kind: head for kind, head in missing.items() if kind not in larger}


def _stands(found: Mapping[str, Any], head: Mapping[str, Any]) -> bool:
    """Tell whether a result has all that ``head`` asks for; it may be about another run besides."""
    used = found.get("settings")
    known = isinstance(used, Mapping) and head["settings"].items() <= used.items()
    return known and all(found.get(name) == value for name, value in head.items() if name != "settings")


def _used_more(found: Mapping[str, Any], head: Mapping[str, Any]) -> bool:
    """Tell whether a result of the same run used more batches or cases than ``head`` asks for."""
    used, asked = found.get("settings"), head["settings"]
    if found.get("run") != head["run"] or not isinstance(used, Mapping):
        return False
    if asked.get("other") not in (None, used.get("other")):
        return False
    return any(used.get(name, 0) > asked[name] for name in ("batches", "cases"))


def _path(settings: ProbeSettings, kind: str) -> Path:
    """File of a kind."""
    return settings.run / "probes" / f"{kind}.json"


def _head(kind: str, run_hash: str, settings: ProbeSettings) -> dict[str, Any]:
    """What decides the values: two files with one head hold the same."""
    module = import_module(f"segmentation.probes.{kind}")
    other = {"other": finished_record(settings.other)["hash"]} if kind == "barrier" and settings.other else {}
    return {
        "kind": kind,
        "definition": (module.__doc__ or "").strip(),
        "skipseg": __version__,
        "run": run_hash,
        "settings": {name: getattr(settings, name) for name in ("batches", "cases", "seed")} | other,
    }


def _body(result: ProbeResult) -> dict[str, Any]:
    """What was found, as plain data."""
    figures = [figure.to_plain() for figure in result.figures]
    return {"note": result.note, "values": plain_numbers(result.values), "figures": figures}

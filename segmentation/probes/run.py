"""``skipseg probe``: look into a run, one JSON file a probe, in RUN/probes."""

import logging
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from segmentation import SkipSegError, __version__
from segmentation.config import ProbeSettings
from segmentation.figures import plain_numbers
from segmentation.probes.context import NotMeasurableError, ProbeContext, ProbeResult, finished_record
from segmentation.probes.kinds import choose_kinds
from segmentation.runs import read_json, write_json

log = logging.getLogger(__name__)


def probe(settings: ProbeSettings) -> list[Path]:
    """Probe a run; what stands already for the same run and settings is kept.

    A kind that the run has nothing to offer for is passed over if ``all`` brought it in.

    Returns:
        One ``RUN/probes/KIND.json`` for each kind.

    Raises:
        SkipSegError: If a kind is unknown, the folder holds no finished run, or a kind that was asked for by
            name cannot be measured on it.
    """
    kinds = choose_kinds(settings.kind)
    run_hash = finished_record(settings.run)["hash"]
    if settings.threads:
        torch.set_num_threads(settings.threads)
    heads = {kind: _head(kind, run_hash, settings) for kind in kinds}
    missing = [kind for kind in kinds if not _stands(_path(settings, kind), heads[kind])]
    context = ProbeContext.open(settings) if missing else None
    bar = tqdm(missing, "probe", unit="probe", disable=None)
    for kind in bar:
        assert context is not None
        bar.set_postfix_str(kind)
        try:
            result = import_module(f"segmentation.probes.{kind}").probe(context)
        except NotMeasurableError as error:
            if kind in settings.kind:
                raise
            log.warning("%s left out: %s", kind, error)
            kinds.remove(kind)
            continue
        write_json(_path(settings, kind), heads[kind] | _body(result))
    return [_path(settings, kind) for kind in kinds]


def _path(settings: ProbeSettings, kind: str) -> Path:
    """File of a kind."""
    return settings.run / "probes" / f"{kind}.json"


def _head(kind: str, run_hash: str, settings: ProbeSettings) -> dict[str, Any]:
    """What decides the values: two files with one head hold the same."""
    module = import_module(f"segmentation.probes.{kind}")
    return {
        "kind": kind,
        "definition": (module.__doc__ or "").strip(),
        "skipseg": __version__,
        "run": run_hash,
        "settings": {name: getattr(settings, name) for name in ("batches", "cases", "seed")},
    }


def _body(result: ProbeResult) -> dict[str, Any]:
    """What was found, as plain data."""
    figures = [figure.to_plain() for figure in result.figures]
    return {"note": result.note, "values": plain_numbers(result.values), "figures": figures}


def _stands(path: Path, head: dict[str, Any]) -> bool:
    """Tell whether ``path`` holds what would be computed; a damaged file does not."""
    try:
        found = read_json(path)
    except SkipSegError:
        return False
    return {name: found.get(name) for name in head} == head

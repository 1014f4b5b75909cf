"""The record of a run: its frozen settings, the plan they came from, and run.json, which says how far it is.

A run waits, then it is running, and it ends finished or failed. All of this is written and read without PyTorch.
"""

from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import yaml

from segmentation import SkipSegError, __version__
from segmentation.config import TrainSettings
from segmentation.plain import flatten, from_plain, to_plain
from segmentation.runs import is_draft, read_json, write_json, write_text
from segmentation.training.job import VOLATILE, Job

State = Literal["waiting", "running", "finished", "failed"]
COMPUTED = ("device", "precision")
"""What a run was computed on and in which arithmetic, once it has begun."""

_WRITTEN_FIRST = ("config.yaml", "plan.json")
# libyaml writes the same bytes ten times as fast, where it is there.
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def read_config(path: Path) -> TrainSettings:
    """Read a frozen config.yaml."""
    return from_plain(TrainSettings, yaml.safe_load(path.read_text(encoding="utf-8")))


def open_run(folder: Path, job: Job, protocol: str | None = None) -> State:
    """Create the run folder, or recognise the run in it.

    What a killed process left half-written is removed.

    Args:
        folder: The run folder.
        job: What the run is.
        protocol: Hash of the pre-registered protocol that a new run belongs to.

    Returns:
        How far the run is; ``"waiting"`` for a new one.

    Raises:
        SkipSegError: If the folder holds a run of other settings.
    """
    for draft in filter(is_draft, folder.rglob(".*")):
        draft.unlink()
    plain = to_plain(job.settings)
    if (folder / "run.json").exists():
        record = read_json(folder / "run.json")
        if record.get("hash") != job.identity:
            known = dict(flatten(yaml.safe_load((folder / "config.yaml").read_text())))
            changed = [k for k, v in flatten(plain) if k not in VOLATILE and known.get(k) != v] or ["the dataset"]
            raise SkipSegError(
                f"{folder} holds a run with another {', '.join(changed)}; choose another folder or delete it"
            )
        return record["state"]
    if folder.exists() and any(item.name not in _WRITTEN_FIRST for item in folder.iterdir()):
        raise SkipSegError(f"{folder} exists and is not a run; choose another folder")
    write_text(folder / "config.yaml", yaml.dump(plain, Dumper=_DUMPER, sort_keys=False))
    job.plan.write(folder / "plan.json")
    registered = {"protocol": protocol} if protocol else {}
    write_json(folder / "run.json", {"state": "waiting", **describe_run(job), **registered})
    return "waiting"


def set_state(folder: Path, job: Job, state: State, **outcome: Any) -> None:
    """Write down how far the run in ``folder`` is.

    The protocol that it was registered under stays. Of a run that goes on from what other versions computed, or
    something else, both are written down.
    """
    known = read_json(folder / "run.json")
    record: dict[str, Any] = {"state": state, **describe_run(job), **outcome}
    if "protocol" in known:
        record["protocol"] = known["protocol"]
    if (folder / "last.ckpt").exists():
        before = known.get("versions", {})
        record["versions"] = {name: _then(before.get(name), now) for name, now in record["versions"].items()}
        record |= {name: _then(known.get(name), record[name]) for name in COMPUTED if name in record}
    write_json(folder / "run.json", record)


def _then(before: str | None, now: str) -> str:
    """What was used before and what is used now, as one text where they differ.

    Examples:
        >>> _then(None, "2.13"), _then("2.12", "2.13"), _then("2.12, then 2.13", "2.13")
        ('2.13', '2.12, then 2.13', '2.12, then 2.13')
    """
    if before is None:
        return now
    return before if before.rpartition(", then ")[2] == now else f"{before}, then {now}"


def describe_run(job: Job) -> dict[str, Any]:
    """What is known of a run before it starts; equal runs are described by equal bytes."""
    return {
        "hash": job.identity,
        "dataset": job.dataset.name,
        "dataset_hash": job.dataset_hash,
        "patients": len({case.patient for case in job.dataset.cases}),
        "split": {
            "method": job.splits.method,
            "grouping": job.splits.grouping,
            "hash": job.splits.hash,
            "fold": job.settings.fold,
        },
        "train_cases": list(job.fold.train),
        "val_cases": list(job.fold.val),
        "parameters": job.cost.parameters,
        "network": job.architecture.to_plain(),
        "versions": _versions(),
    }


@cache
def _versions() -> dict[str, str]:
    """Versions that decide the numbers; looked up once, for a study of hundreds of runs asks for them each time."""
    packages = ("torch", "pytorch-lightning", "numpy", "scipy", "opencv-python-headless", "albumentations", "blosc2")
    return {"skipseg": __version__, **{name: version(name) for name in packages}}

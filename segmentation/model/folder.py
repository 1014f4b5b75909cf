"""A model folder, read without PyTorch: model.json, that it is whole, and that the weights beside it are its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segmentation import SkipSegError
from segmentation.runs import content_hash, file_hash, read_json, write_json

FORMAT = 2
"""Version of model.json: 2 came with the checksum."""
DESCRIPTION = "model.json"
WEIGHTS = "model.safetensors"
CHECKSUM = "checksum"
"""Entry of model.json: hash of all others."""

INTENDED_USE = """Segmenting scans of the kind that the model learnt from, in research. SkipSeg is no medical device,
and nothing here says that this model is fit for the care of patients."""
"""What may be said of every model."""


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Write ``model.json`` with a checksum of all else in it: a flipped bit in a number must not go unnoticed."""
    content = {key: value for key, value in description.items() if key != CHECKSUM}
    write_json(folder / DESCRIPTION, content | {CHECKSUM: content_hash(content)})


def read_description(folder: Path) -> Mapping[str, Any]:
    """Read ``model.json``, and check it and the weights beside it against the hashes that it holds.

    Raises:
        SkipSegError: If the folder holds no model, a newer SkipSeg wrote it, it was changed after it was written, or
            the weights are missing or are not those that it names.
    """
    if not (folder / DESCRIPTION).is_file():
        raise SkipSegError(f"{folder} {_instead(folder)}")
    description = read_json(folder / DESCRIPTION)
    weights = folder / WEIGHTS
    try:
        if description["format"] > FORMAT:
            raise SkipSegError(f"{folder} was written by a newer SkipSeg (format {description['format']}); upgrade")
        standing = {key: value for key, value in description.items() if key != CHECKSUM}
        if (description["format"] > 1 or CHECKSUM in description) and content_hash(standing) != description[CHECKSUM]:
            raise SkipSegError(f"{folder / DESCRIPTION} was damaged or changed after it was written; copy it again")
        if file_hash(weights) != description["sha256"]:
            raise SkipSegError(f"{weights} is not the file that model.json describes; copy both files again")
    except FileNotFoundError:
        raise SkipSegError(f"{weights} is missing; copy it beside model.json") from None
    except SkipSegError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise unreadable(folder, error) from None
    return description


def released(description: Mapping[str, Any]) -> dict[str, Any]:
    """``model.json`` as it leaves the house: how many cases were learnt from, not which.

    Examples:
        >>> released({"dataset": {"name": "lung", "train_cases": ["Doe_Jane", "Roe_Jo"]}})
        {'dataset': {'name': 'lung', 'train_cases': 2}}
    """
    data = dict(description.get("dataset") or {})
    if isinstance(data.get("train_cases"), Sequence):
        data["train_cases"] = len(data["train_cases"])
    return {**description, "dataset": data}


def _instead(folder: Path) -> str:
    """What there is instead of a model folder, and what to do."""
    if not folder.exists():
        return f"does not exist; give the folder that holds {DESCRIPTION}"
    if folder.is_file():
        return f"is a file; give the folder that holds {DESCRIPTION}, and bring nnU-Net's in by `skipseg import`"
    if (folder / "plans.json").is_file():
        return f"is a model of nnU-Net and holds no {DESCRIPTION}; make it one by `skipseg import`"
    if (folder / "config.yaml").is_file():
        return f"holds no {DESCRIPTION}: its training has not ended; continue it by the same `skipseg train`"
    return f"holds no {DESCRIPTION}; give the folder of a finished training run"


def unreadable(folder: Path, error: Exception) -> SkipSegError:
    """What to say of a folder that holds something else than a model."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return SkipSegError(f"{folder} does not hold a readable model ({reason}); copy both files again")

"""The model card: what model.json and the run's scores say, and that the rest is not known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segmentation import SkipSegError, __version__
from segmentation.config import NetworkSettings
from segmentation.model.architecture import Architecture
from segmentation.model.folder import INTENDED_USE
from segmentation.model.layers import total_cost
from segmentation.runs import read_json

UNKNOWN = "not stated"
_MEASURES = {"dice": "Dice", "nsd": "surface Dice", "hd95_mm": "HD95"}
_FRONT = """---
library_name: skipseg
pipeline_tag: image-segmentation
tags: [medical, segmentation, u-net]
---
"""


def model_card(model: Path, description: Mapping[str, Any], how: str) -> str:
    """Write the card of a model in Markdown.

    Args:
        model: Its run folder, of which the scores and the split are read, if there are any; or a model folder.
        description: Its ``model.json``.
        how: How to use what the card goes with.

    Returns:
        The card. Nothing in it is guessed: what no file says is said to be not stated.
    """
    classes = [name for name, value in description["labels"].items() if value]
    sections = {
        "Use": how,
        "Intended use": INTENDED_USE,
        "Data": _data(description.get("dataset") or {}, _read(model / "run.json")),
        "Scores": _scores(_read(model / "evaluation" / "summary.json")),
        "Limits": _limits(description),
        "Input and output": _interface(description),
        "Network": _network(description),
    }
    body = "\n\n".join(f"## {title}\n\n{text.strip()}" for title, text in sections.items())
    return f"{_FRONT}\n# Segmentation of {', '.join(classes)}\n\n{body}\n"


def _read(path: Path) -> Mapping[str, Any]:
    """A file of the run; nothing if it is not there or not readable."""
    try:
        return read_json(path)
    except SkipSegError:
        return {}


def _data(data: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """Where the data come from and what is allowed with them."""
    learnt = data.get("train_cases")
    split = run.get("split") or {}
    grouping = split.get("grouping", "patient")
    by = "" if grouping == "patient" else f", by {grouping}, not by patient"
    rows = {
        "Name": data.get("name"),
        "Licence": data.get("licence"),
        "Citation": data.get("citation"),
        "Notice": data.get("notice"),
        "Cases learnt from": learnt if isinstance(learnt, int) else None if learnt is None else len(learnt),
        "Cases held out": len(run["val_cases"]) if "val_cases" in run else None,
        "Patients in all": run.get("patients"),
        "Split": f"{split['method']}, fold {split['fold']}{by}" if {"method", "fold"} <= split.keys() else None,
    }
    return _rows(rows) + "\n\nThe licence of the data may bind the weights."


def _scores(summary: Mapping[str, Any]) -> str:
    """Means over held-out patients with their intervals."""
    try:
        unit, tolerance = summary["unit"], summary["tolerance_mm"]
        names = {"hd95_mm": f"HD95 ({unit})", "nsd": f"surface Dice at {tolerance:g} {unit}"}
        table = [["class", *(names.get(measure, title) for measure, title in _MEASURES.items()), "patients"]]
        for name, found in summary["classes"].items():
            scores = [found["scores"][measure]["policy"] for measure in _MEASURES]
            table.append([name, *map(_interval, scores), str(scores[0]["n"])])
        method = next(iter(summary["classes"].values()))["scores"]["dice"]["policy"]["method"]
        about = f"Means over held-out patients, without post-processing; in brackets: {method}. {summary['policy']}"
        return f"{_table(table)}\n\n{about}"
    except (KeyError, TypeError, StopIteration):
        return "No scores lie with the model."


def _interval(score: Mapping[str, Any]) -> str:
    """A mean with its interval."""
    if score["estimate"] is None:
        return UNKNOWN
    ends = [score["low"], score["high"]]
    return f"{score['estimate']:.3f}" + ("" if None in ends else f" [{ends[0]:.3f}, {ends[1]:.3f}]")


def _limits(description: Mapping[str, Any]) -> str:
    """What follows from how the model was made."""
    preparation = description["preprocessing"]
    lines = [
        "It knows the kind of scans that it learnt from; on others, its masks can be wrong without a sign.",
        "The scores are of cases from the same source; for others, no scores are known.",
    ]
    if any(entry["scheme"] == "window" for entry in preparation["normalisation"]):
        lines.append("Intensities are read in the unit of the scan (HU for CT); in another unit the masks are wrong.")
    lines += [str(note) for note in description.get("notes", [])]
    return "\n".join(f"* {line}" for line in lines)


def _interface(description: Mapping[str, Any]) -> str:
    """Channels, classes, spacing and window."""
    preparation = description["preprocessing"]
    pictures = len(preparation["spacing_mm"]) == 2
    channels = zip(description["channel_names"], preparation["normalisation"], strict=True)
    rows = {
        "Channels": "; ".join(f"{name}: {_mapping(entry)}" for name, entry in channels),
        "Classes": ", ".join(f"{value} {name}" for name, value in description["labels"].items()),
        "Spacing" if not pictures else "Pixels": f"{_times(preparation['spacing_mm'])} {'mm' if not pictures else ''}",
        "Window": f"{_times(description['patch_size'])} voxels",
        "Mirrored copies averaged": "yes" if description["mirror"] else "no",
        "SHA-256 of the weights": description["sha256"],
        "Written by": f"SkipSeg {description.get('skipseg', UNKNOWN)}, exported by {__version__}",
    }
    return _rows(rows)


def _mapping(entry: Mapping[str, Any]) -> str:
    """How a channel's intensities become [0, 1]."""
    what = "z-scores" if entry["scheme"] == "zscore" else "values"
    return f"{what} from {entry['low']:g} to {entry['high']:g}"


def _network(description: Mapping[str, Any]) -> str:
    """The architecture, and what it costs on one window."""
    built = Architecture.from_plain(description["architecture"])
    settings: NetworkSettings = built.settings
    sizes = (built.dims, built.in_channels, built.classes, built.strides, built.kernels)
    cost = total_cost(settings, *sizes, size=description["patch_size"])
    rows = {
        "Kind": f"{built.dims}-D U-Net",
        "Channels of the levels": ", ".join(map(str, settings.channels())),
        "Long skips": settings.long_skip,
        "Short skips": settings.short_skip,
        "Units": f"{settings.order}, norm {settings.norm}, {settings.activation}",
        "Steps down": "; ".join(map(_times, built.strides)),
        "Parameters": f"{cost.parameters:,}",
        "Multiply-accumulates of a window": f"{cost.macs:,}",
    }
    return _rows(rows)


def _rows(rows: Mapping[str, Any]) -> str:
    """A table of two columns."""
    cells = [[name, UNKNOWN if value in (None, "") else str(value)] for name, value in rows.items()]
    return _table([["", ""], *cells])


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first row is its head."""
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def _cell(text: str) -> str:
    """Text that cannot end its cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _times(values: Sequence[float]) -> str:
    """Sizes as ``1 x 1 x 2.5``."""
    return " x ".join(f"{value:g}" for value in values)

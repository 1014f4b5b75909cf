"""One way of writing each network: settings that change nothing take their default.

Two conditions of a study whose canonical settings are equal would train the same network and find no difference.
"""

import re
from dataclasses import fields, replace
from typing import Any

from segmentation.config import ADDITIVE, WHOLE_DECODER, NetworkSettings

_DEFAULT = NetworkSettings()
_PARTS = _DEFAULT.short_skip_where
_IDLE_WITHOUT_LONG = [f.name for f in fields(NetworkSettings) if re.match(r"long_skip_(?!levels)", f.name)]


def canonical(settings: NetworkSettings) -> NetworkSettings:
    """Write a network in one way.

    Args:
        settings: With ``depth``, and ``width`` or ``widths``, set.

    Returns:
        Settings of the same network, in which what has no effect is at its default; ``preset`` and ``budget_match``,
        which say where the others come from, are dropped.

    Examples:
        >>> a = NetworkSettings(depth=2, width=8, long_skip="none", long_skip_placebo="zeros")
        >>> b = NetworkSettings(depth=2, width=8, long_skip_levels={0: "none", 1: "none"})
        >>> canonical(a) == canonical(b)
        True
    """
    levels = range(len(settings.channels()))
    whole = settings.long_skip in WHOLE_DECODER
    long = {level: settings.long_skip_at(level) for level in levels[:-1]}
    fullscale = settings.long_skip == "fullscale"  # its decoder has neither short skips nor a way of upsampling
    parts = {"encoder": levels[:-1], "bottleneck": levels[-1:], "decoder": [] if fullscale else levels[:-1]}
    placed = {part: {level: settings.short_skip_at(level, part) for level in parts[part]} for part in _PARTS}
    where = [part for part in _PARTS if set(placed[part].values()) - {"none"}]
    short = {level: next((placed[part][level] for part in where if level in placed[part]), "none") for level in levels}
    kinds = set(short.values())
    idle = list(_IDLE_WITHOUT_LONG) if set(long.values()) == {"none"} else []
    idle += ["long_skip_permute"] if settings.long_skip_permute == list(levels[:-1]) else []
    idle += [] if settings.long_skip_dropout else ["long_skip_dropout_mode"]
    idle += ["upsample"] if fullscale else []
    idle += (
        ["deep_supervision"] if len(levels) <= 3 else []
    )  # bottleneck and coarsest level have no output of their own
    idle += [] if "scaled_add" in kinds else ["short_skip_scale", "short_skip_scale_learned"]
    idle += [] if kinds & set(ADDITIVE) else ["short_skip_every"]
    idle += [] if kinds & {"add", "scaled_add"} else ["zero_last"]
    idle += ["short_skip_every"] if settings.block == "bottleneck" else []
    changes: dict[str, Any] = {
        **{name: getattr(_DEFAULT, name) for name in ("preset", "budget_match", "width", "max_width", "convs", *idle)},
        "widths": settings.channels(),
        "convs_levels": {level: settings.convs_at(level) for level in levels},
        "long_skip": settings.long_skip if whole else "none",
        "long_skip_levels": {} if whole else long,
        "short_skip_where": where or _DEFAULT.short_skip_where,
        "short_skip": "none",
        "short_skip_levels": short if where else {},
    }
    return replace(settings, **changes)

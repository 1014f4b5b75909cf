"""The probes by name. Light, so that `skipseg probe --help` lists them without importing what they need.

Each kind is the module of its name in this package: its docstring is the definition that is written beside the
values, and its function ``probe(context)`` returns a :class:`segmentation.probes.context.ProbeResult`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from segmentation import SettingsError

ALL = "all"
"""Stands for every cheap kind."""


@dataclass(frozen=True)
class Kind:
    """A probe.

    Attributes:
        summary: What it measures, in one line.
        cheap: Takes seconds to a few minutes, so that ``all`` includes it.
    """

    summary: str
    cheap: bool = True

    @property
    def title(self) -> str:
        """What it measures, as a heading: the first part of the summary.

        Examples:
            >>> KINDS["block_lesion"].title
            'Change of Dice when a branch is bypassed'
        """
        first = self.summary.split(";")[0]
        return first[0].upper() + first[1:]


KINDS: dict[str, Kind] = {
    "gradients": Kind("gradient in every layer, at the start and now; indices V and C"),
    "updates": Kind("mean update of every layer in every epoch; needs a run with track_updates"),
    "frozen": Kind("share of weights that one optimiser step leaves bit for bit as they are"),
    "saturation": Kind("share of saturated activations, and of dead channels"),
    "noise": Kind("signal to noise of mini-batch gradients, noise scale, smallest pairwise cosine"),
    "shattering": Kind("how far along a line in input space the input gradient stays correlated"),
    "landscape": Kind("loss along filter-normalised directions and in planes: rise, basin, convexity", cheap=False),
    "barrier": Kind("loss on the line from the start of the training to its end, and to another run (--other)"),
    "path": Kind("path of the training in the plane of its principal components; needs track_updates"),
    "curvature": Kind("largest and smallest eigenvalue and trace of the Hessian", cheap=False),
    "lesion": Kind("change of Dice when the long skip of a level is zeroed, averaged or rolled"),
    "block_lesion": Kind("change of Dice when a branch is bypassed; gradient by length of path", cheap=False),
    "shapley": Kind("Shapley value of each level's long skip, over all subsets of levels", cheap=False),
    "share": Kind("share of the long skips in weights, gradients and gates"),
    "similarity": Kind("similarity of all blocks, and of encoder and decoder (unbiased linear CKA)"),
    "receptive_field": Kind("effective receptive field in mm, beside the theoretical one"),
    "reuse": Kind("how strongly the units of dense blocks read each earlier map"),
    "susceptibility": Kind("how far each block's activations move under noise, blur and less contrast"),
    "complexity": Kind("texture, contrast and boundary of the structures in the held-out cases"),
    "ceiling": Kind("Dice that a mask keeps when it is shrunk to each level and enlarged again"),
}


def choose_kinds(asked: Sequence[str]) -> list[str]:
    """Names of the kinds that are asked for, each once, in the order of :data:`KINDS`.

    Raises:
        SettingsError: If none is given, or one is unknown; the message lists the choices.

    Examples:
        >>> choose_kinds(["noise", "gradients", "noise"])
        ['gradients', 'noise']
        >>> choose_kinds(["all"]) == [name for name, kind in KINDS.items() if kind.cheap]
        True
    """
    unknown = [name for name in asked if name not in (*KINDS, ALL)]
    if unknown or not asked:
        said = f"there is no probe {', '.join(map(repr, unknown))}" if unknown else "no probe was asked for"
        raise SettingsError(f"{said}; the kinds are {', '.join(KINDS)}, or {ALL}")
    return [name for name, kind in KINDS.items() if name in asked or (ALL in asked and kind.cheap)]


def list_kinds() -> str:
    """The kinds as text, one a line."""
    lines = [f"  {name:18} {kind.summary}{'' if kind.cheap else ' (not in all)'}" for name, kind in KINDS.items()]
    return "\n".join(["kinds:", *lines, f"  {ALL:18} every kind above that is not marked otherwise"])

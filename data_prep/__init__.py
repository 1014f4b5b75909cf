"""Public data sets, each turned into a dataset folder by its own module; importing this package loads none of them."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.disk import alone
from segmentation import SettingsError, SkipSegError
from segmentation.data.manifest import Dataset


class Source(NamedTuple):
    """One line each about a source: what it is, under which terms, and the module that prepares it."""

    summary: str
    licence: str
    module: str


SOURCES: Mapping[str, Source] = {
    "lung-ct": Source(
        "lung tumours on CT: 4 patients, DICOM with RTSTRUCT; fetched by pip (26 MB)",
        "CC BY-NC 3.0: not for commercial use",
        "lung_ct",
    ),
    "phantom": Source(
        "synthetic pictures or volumes with a known truth; made here, nothing is fetched",
        "none: made by this program",
        "phantom",
    ),
    "msd-hippocampus": Source(
        "hippocampus on T1 MRI, 2 classes: 260 volumes of the Medical Segmentation Decathlon; fetched (28 MB)",
        "CC BY-SA 4.0",
        "msd_hippocampus",
    ),
    "drive": Source(
        "retinal vessels: the 20 colour photographs of DRIVE's training part; needs --source",
        "free for research and education after registration; no redistribution",
        "drive",
    ),
    "isbi-em": Source(
        "neuron membranes in electron microscopy: one stack of 30 slices (ISBI 2012); needs --source",
        "not stated with the files; the challenge was for non-commercial research",
        "isbi_em",
    ),
    "busi": Source(
        "breast lesions on ultrasound: 780 pictures with many near-duplicates; needs --source",
        "not stated by the authors; public copies disagree",
        "busi",
    ),
    "dsb2018": Source(
        "cell nuclei, fluorescence and stained: the 2018 Data Science Bowl (BBBC038); needs --source",
        "CC0",
        "dsb2018",
    ),
}
"""Name on the command line to what it is, in the order to show them."""


def prepare(name: str, out: Path, source: Path | None = None, options: Mapping[str, Any] | None = None) -> Dataset:
    """Turn a public source into a dataset folder, whole or not at all.

    An interruption at any moment leaves no dataset folder, and the next call starts afresh and gives the same
    bytes. A finished dataset of the same source and settings is left as it is. Where another process prepares a
    dataset in the same place, its end is waited for.

    Args:
        name: One of :data:`SOURCES`.
        out: Dataset folder to create.
        source: Folder or archive to read instead of the official address.
        options: Fields of :class:`segmentation.config.PhantomSettings`, for ``phantom`` alone.

    Returns:
        The dataset, with its root at ``out``.

    Raises:
        SkipSegError: If the source is unknown, cannot be fetched or read, or ``out`` holds something else.

    Examples:
        >>> import tempfile
        >>> out = Path(tempfile.mkdtemp()) / "phantom"
        >>> dataset = prepare("phantom", out, options={"cases": 2, "size": 32})
        >>> [case.name for case in dataset.cases]
        ['blob_000', 'blob_001']
    """
    if name not in SOURCES:
        raise SettingsError(f"unknown source {name!r}; choose one of {', '.join(SOURCES)}")
    if out.resolve() == Path.cwd():
        raise SkipSegError(f"{out} is the current folder; choose a folder to create")
    module = import_module(f"data_prep.{SOURCES[name].module}")
    if name == "phantom":
        if source is not None:
            raise SettingsError(f"phantom is made, not read: leave out the source, got {source}")
        given: Any = options or {}
    elif options:
        raise SettingsError(f"{name} takes no options, got {', '.join(options)}")
    else:
        given = source
    with alone(out.parent):
        return module.prepare(out, given)

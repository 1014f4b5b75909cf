"""The ONNX file of a model, made once and kept in the user's cache folder."""

import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from segmentation import SkipSegError
from segmentation.inference.agreement import differences
from segmentation.inference.backend import open_runtime
from segmentation.model.folder import released
from segmentation.runs import content_hash, file_hash, user_cache

log = logging.getLogger(__name__)

VERSION = 2
"""Of the exported graph; a newer one is made anew."""


def cached_export(folder: Path, description: Mapping[str, Any], runtime: str) -> Path:
    """Give the ONNX file of a model, and make it if there is none.

    The file's name is the SHA-256 of its bytes: a damaged or a foreign file does not have the right name, and is
    made anew. Its folder is named by all that decides what is in it: weights, architecture and preprocessing.

    Args:
        folder: Model folder.
        description: Its ``model.json``.
        runtime: The one that will compute: a file that is made must agree in it with PyTorch.

    Raises:
        SkipSegError: If the file cannot be made or does not compute what PyTorch does, or the cache folder cannot be
            written.
    """
    deciding = {key: description.get(key) for key in ("sha256", "architecture", "preprocessing")}
    home = user_cache() / "exports" / content_hash(deciding | {"version": VERSION})
    try:
        return _standing(home) or _make(home, folder, description, runtime)
    except OSError as error:
        why = f"{home} cannot be read or written ({error.strerror})"
        raise SkipSegError(f"{why}; set XDG_CACHE_HOME to another folder, or choose --backend torch") from None


def _standing(home: Path) -> Path | None:
    """The file that was made before, if it is whole."""
    for file in sorted(home.glob("*.onnx")):
        if file_hash(file) == file.stem:
            return file
        log.warning("%s is damaged and is made anew", file)
        file.unlink(missing_ok=True)
    return None


def _make(home: Path, folder: Path, description: Mapping[str, Any], runtime: str) -> Path:
    """Write the file; this needs PyTorch, which a run with a standing file does without."""
    from segmentation.inference.backend_torch import TorchBackend
    from segmentation.inference.export_onnx import write_onnx

    log.info("writing %s as ONNX for a faster runtime, once: some seconds", folder)
    home.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=home) as drafts:
        draft = Path(drafts) / "model.onnx"
        model = TorchBackend.load(folder)
        write_onnx(model, released(description), draft)
        differences([open_runtime(runtime, draft)], model)
        return draft.replace(home / f"{file_hash(draft)}.onnx")

"""manifest.json: what was segmented, by which model, how long it took, and what went wrong.

It makes a prediction resumable: a case that the same model segmented from the same files in the same way is not
computed again.
"""

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from segmentation import SkipSegError, __version__
from segmentation.model.folder import read_description
from segmentation.runs import content_hash, file_hash, read_json, write_json

FORMAT = 1
_PACKAGES = ("numpy", "scipy", "nibabel", "pydicom", "highdicom", "torch", "onnxruntime", "openvino")


class Manifest:
    """The manifest of a folder of masks.

    Args:
        path: manifest.json; what stands there is continued.
        models: Name, hashes and data licence of each model.
        settings: What else decides the masks, plain data.

    Raises:
        SkipSegError: If ``path`` holds something else.
    """

    def __init__(self, path: Path, models: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
        self.path = path
        self.identity = content_hash({"models": list(models), "settings": dict(settings)})
        cases: dict[str, Any] = {}
        if path.exists():
            standing = read_json(path)
            if not isinstance(standing, dict) or standing.get("format") != FORMAT or "cases" not in standing:
                raise SkipSegError(f"{path} is not a manifest of SkipSeg; move it away, or choose another output")
            cases = standing["cases"]
        self.content: dict[str, Any] = {
            "format": FORMAT,
            "skipseg": __version__,
            "identity": self.identity,
            "models": list(models),
            "settings": dict(settings),
            "versions": {"python": platform.python_version(), **_versions()},
            "cases": cases,
        }

    def is_done(self, name: str, source: str) -> bool:
        """Tell whether a case was segmented in the same way from the same files, and its files still stand.

        A mask that somebody has corrected since stays, too.

        Args:
            name: Of the case.
            source: As of :func:`source_signature`.
        """
        case = self.content["cases"].get(name, {})
        same = (case.get("state"), case.get("identity"), case.get("source")) == ("done", self.identity, source)
        return same and all((self.path.parent / file).is_file() for file in case.get("files", {}))

    def changed(self, name: str) -> list[str]:
        """Files of a case that stand, and are not as they were written: a mask that was corrected by hand, say.

        None of a case whose writing was begun: an interruption may have come between writing and recording.
        """
        case = self.content["cases"].get(name, {})
        if case.get("state") == "begun":
            return []
        standing = {file: path for file in case.get("files", {}) if (path := self.path.parent / file).is_file()}
        written = case.get("files", {})  # by earlier versions, its size, which tells too little
        return [file for file, path in standing.items() if written[file] not in (file_hash(path), path.stat().st_size)]

    def holds(self, name: str, file: Path) -> bool:
        """Tell whether a file of a case is ours: it is recorded, or an interruption kept it from being."""
        case = self.content["cases"].get(name, {})
        return case.get("state") == "begun" or file.relative_to(self.path.parent).as_posix() in case.get("files", {})

    def save(self) -> None:
        """Write what is known by now."""
        write_json(self.path, self.content)

    def begin(self, name: str) -> None:
        """Keep that the files of a case are about to be written, and which it had before."""
        case = self.content["cases"].get(name, {})
        self.content["cases"][name] = {**case, "state": "begun", "files": case.get("files", {})}
        self.save()

    def record(self, name: str, source: str, state: str, **facts: Any) -> None:
        """Keep what became of a case; after a new success, files that it had before and has no more are removed.

        Args:
            name: Of the case.
            source: As of :func:`source_signature`.
            state: ``"done"`` or ``"failed"``.
            **facts: Plain data; ``files`` is the SHA-256 of each file by its path below the manifest.
        """
        before = self.content["cases"].get(name, {}).get("files", {})
        if state == "done":
            self._remove(before.keys() - facts["files"].keys())
        else:
            facts["files"] = before  # what stood stays
        self.content["cases"][name] = {"state": state, "identity": self.identity, "source": source, **facts}
        self.save()

    def _remove(self, files: Iterable[str]) -> None:
        """Remove files below the manifest's folder: maps of another model would be taken for this one's."""
        folder = self.path.parent
        for file in files:
            if (folder / file).resolve().is_relative_to(folder.resolve()):
                (folder / file).unlink(missing_ok=True)


def source_signature(paths: Sequence[Path]) -> str:
    """Tell the files of a scan from changed ones, by name, size and time; a folder counts with all that is in it."""
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    entries = [
        [file.name, stat.st_size, stat.st_mtime_ns] for file in files if file.is_file() and (stat := file.stat())
    ]
    return content_hash(entries)


def model_identity(model: Path) -> dict[str, Any]:
    """Say which model it is: its name, hashes of weights and of all else, and the licence of what it learnt from."""
    about = read_description(model)
    data = about.get("dataset", {})
    return {
        "name": model.resolve().name,
        "weights_sha256": about["sha256"],
        "description_sha256": content_hash(about),
        "skipseg": about.get("skipseg"),
        "data": data.get("name"),
        "data_licence": data.get("licence"),
    }


def _versions() -> dict[str, str]:
    """Versions of the packages that take part, as far as they are installed."""
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

"""The stage ``predict``: the next scan is read and the last mask written while one scan is computed."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segmentation import SkipSegError, is_lack_of_memory
from segmentation.config import PredictSettings
from segmentation.data.hardware import hardware_of, return_freed_memory
from segmentation.inference.cases import Work, find_work, read_work
from segmentation.inference.endings import check_writable, map_ending, mask_ending, names_of_maps
from segmentation.inference.manifest import Manifest, model_identity, source_signature
from segmentation.inference.memory import room_for_arrays
from segmentation.inference.predictor import Extra, Predictor, Segmentation
from segmentation.plain import to_plain
from segmentation.progress import Bar
from segmentation.runs import file_hash
from segmentation.scans import Scan, read_scan, write_label_map, write_map
from segmentation.scans.dicom_seg import Kind, write_dicom_seg
from segmentation.scans.series import SourceSlices
from segmentation.scans.workspace import Workspace

log = logging.getLogger(__name__)

_DECIDING = ("overlap", "mirror", "postprocess", "probabilities", "uncertainty", "repair", "format")
"""Settings that decide what is written."""


def predict(
    settings: PredictSettings, progress: Callable[[int, int], object] = lambda done, total: None
) -> Iterator[Path]:
    """Segment every scan of ``settings.input`` that is not segmented yet.

    One bad scan never stops the others: it is named at the end, and in manifest.json beside the masks.

    Args:
        settings: What to segment, and how.
        progress: Told how many windows of the present scan are done, and of how many.

    Yields:
        Each mask as soon as it is written.

    Raises:
        SkipSegError: If there is no model or no scan, memory is less than the network takes, or, in the end, if
            some scans could not be segmented.
    """
    if settings.memory is not None:
        return_freed_memory()
    predictor = Predictor.load(
        settings.models,
        mirror=settings.mirror,
        postprocess=settings.postprocess,
        overlap=settings.overlap,
        batch_size=settings.batch_size,
        backend=settings.backend,
        device=hardware_of(settings.device),
        threads=settings.threads,
        compiled=settings.compile,
    )
    with find_work(settings.input, settings.output, settings.series) as works:
        manifest = _manifest(settings, works[0].root)
        cases = [
            _Case(work, "" if work.problem else source_signature(work.paths), error=work.problem) for work in works
        ]
        todo = [case for case in cases if settings.overwrite or not manifest.is_done(case.work.name, case.source)]
        if len(todo) < len(works):
            known = len(works) - len(todo)
            log.warning("%d of %d scans were segmented before; --overwrite computes them anew", known, len(works))
        for case in todo:
            if not (settings.overwrite or case.error) and (changed := manifest.changed(case.work.name)):
                case.error = f"{changed[0]} was changed after it was written; move it away, or give --overwrite"
                case.corrected = True
            case.error = case.error or _in_the_way(case.work, settings, predictor, manifest)
        expected = 0
        if any(case.error is None for case in todo):
            expected = predictor.warm_up()
            try:
                works[0].root.mkdir(parents=True, exist_ok=True)
                manifest.save()
            except OSError as error:
                reason = f"{works[0].root} cannot be written to ({error.strerror})"
                raise SkipSegError(f"{reason}; give a folder for the masks by --output") from None
        space = Workspace(room_for_arrays(settings.memory, expected), works[0].root, settings.memory is not None)
        failed: list[str] = []
        for case in _Pipeline(settings, predictor, space, manifest, progress).run(todo):
            if not case.corrected:  # what stands is still what the manifest says of it
                manifest.record(case.work.name, case.source, "failed" if case.error else "done", **case.facts())
            if case.error:
                failed.append(f"{case.work.name}: {case.error}")
            else:
                yield case.files[0]
        if failed:
            done = f"{len(works) - len(failed)} of {len(works)} scans are segmented; "
            raise SkipSegError(done + "not segmented: " + "; ".join(failed))


def _manifest(settings: PredictSettings, folder: Path) -> Manifest:
    """Open the manifest of a folder of masks."""
    plain = to_plain(settings)
    models = [model_identity(path) for path in settings.models]
    return Manifest(folder / "manifest.json", models, {name: plain[name] for name in _DECIDING})


def predict_cases(
    predictor: Predictor, cases: Iterable[tuple[str, Sequence[Path]]], output: Path, ending: str = ".nii.gz"
) -> dict[str, Path]:
    """Segment named cases into ``output``, one mask ``NAME + ending`` each."""
    masks: dict[str, Path] = {}
    for name, paths in cases:
        scan = read_scan(paths, channels=len(predictor.channel_names))
        masks[name] = output / f"{name}{ending}"
        write_label_map(masks[name], predictor(scan), scan, predictor.labels)
    return masks


@dataclass
class _Case:
    """One scan on its way."""

    work: Work
    source: str
    scan: Scan | None = None
    segmentation: Segmentation | None = None
    files: list[Path] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    corrected: bool = False

    def facts(self) -> dict[str, Any]:
        """What the manifest keeps, plain data."""
        hashes = {file.relative_to(self.work.root).as_posix(): file_hash(file) for file in self.files}
        return {"files": hashes, "seconds": self.seconds, **self.about, **({"error": self.error} if self.error else {})}


@dataclass(frozen=True)
class _Pipeline:
    """Reads, computes and writes, each stage a scan ahead of the next."""

    settings: PredictSettings
    predictor: Predictor
    space: Workspace
    manifest: Manifest
    progress: Callable[[int, int], object]

    def run(self, cases: Sequence[_Case]) -> Iterator[_Case]:
        """Yield every case when it is written, or has failed, in order."""
        if not cases:
            return
        writing: Future[_Case] | None = None
        with (
            ThreadPoolExecutor(1) as reader,
            ThreadPoolExecutor(1) as writer,
            Bar("predict", "scans", len(cases)) as bar,
        ):
            upcoming = reader.submit(self._stage, cases[0], "read", self._read)
            for following in [*cases[1:], None]:
                case = upcoming.result()
                if following is not None:
                    upcoming = reader.submit(self._stage, following, "read", self._read)
                self._stage(case, "compute", self._compute)
                if writing is not None:
                    yield writing.result()
                    bar.advance()
                if case.error is None:
                    self.manifest.begin(case.work.name)
                writing = writer.submit(self._stage, case, "write", self._write)
            if writing is not None:
                yield writing.result()
                bar.advance()

    def _stage(self, case: _Case, name: str, act: Callable[[_Case], None]) -> _Case:
        """Do one thing with a case; whatever goes wrong becomes the case's own."""
        if case.error is not None:
            return case
        started = time.perf_counter()
        try:
            act(case)
        except SkipSegError as error:
            case.error = str(error)
        except OSError as error:
            case.error = f"{error.strerror or error}" + (f": {Path(error.filename).name}" if error.filename else "")
        except Exception as error:
            # A fault of ours that one scan brings out must not lose the masks of the others.
            log.debug("%s failed", case.work.name, exc_info=True)
            case.error = f"internal error, {type(error).__name__}: {' '.join(str(error).split())}"
            if is_lack_of_memory(error):
                case.error = "out of memory; close other programs, or give --batch_size 1 or less --memory"
        if case.error is not None:
            case.scan = case.segmentation = None
            for file in case.files:  # a mask whose maps could not be written is not left behind
                file.unlink(missing_ok=True)
            case.files = []
        case.seconds[name] = round(time.perf_counter() - started, 3)
        return case

    def _read(self, case: _Case) -> None:
        """Read a scan."""
        channels = len(self.predictor.channel_names)
        case.scan = read_work(case.work, channels, repair=self.settings.repair, workspace=self.space)
        for note in case.scan.notes:
            log.warning("%s: %s", case.work.name, note)
        check_writable(_mask(case.work, self.settings), case.scan)

    def _compute(self, case: _Case) -> None:
        """Segment a scan and count its voxels."""
        scan = case.scan
        assert scan is not None  # read before, or the case has an error
        with Bar(case.work.name, "windows") as bar:

            def progress(done: int, total: int) -> None:
                bar.reach(done, total)
                self.progress(done, total)

            found = self.predictor.segment(scan, self._extras(), self.space, progress)
        case.segmentation = found
        voxels = _voxels(found, self.predictor.labels)
        case.about = {
            "voxels": voxels,
            "windows": asdict(found.windows),
            "backends": sorted({backend.name for backend in self.predictor.backends}),
            "warnings": list(scan.notes),
        }
        if scan.spatial_dims == 3:
            voxel_ml = float(np.prod(scan.spacing_mm)) / 1000
            case.about["volume_ml"] = {name: round(count * voxel_ml, 4) for name, count in voxels.items()}

    def _extras(self) -> list[Extra]:
        """Maps wanted beside the mask."""
        several = len(self.predictor.backends) > 1
        wanted: dict[Extra, bool] = {
            "probabilities": self.settings.probabilities,
            "entropy": self.settings.uncertainty,
            "variance": self.settings.uncertainty and several,
        }
        return [name for name, is_wanted in wanted.items() if is_wanted]

    def _write(self, case: _Case) -> None:
        """Write the mask and its companions, and let their memory go."""
        scan, found, work = case.scan, case.segmentation, case.work
        assert scan is not None
        assert found is not None  # computed before, or the case has an error
        mask = _mask(work, self.settings)
        ending = mask_ending(work.paths, self.settings.format)
        if ending.endswith(".dcm"):
            self._write_seg(mask, found, scan, "labelmap" if ending.startswith(".labelmap") else "binary")
        else:
            write_label_map(mask, found.label_map, scan, self.predictor.labels, workspace=self.space)
        case.files.append(mask)
        names = list(self.predictor.labels)
        told = names_of_maps(names)
        for extra, values in found.extras.items():
            parts = (
                {extra: values}
                if scan.spatial_dims == 3 or values.ndim == 2
                else {f"{extra}_{name}": values[index] for index, name in enumerate(told)}
            )
            for suffix, part in parts.items():
                path = work.target(map_ending(ending), suffix)
                write_map(path, part, scan, names if part.ndim > scan.spatial_dims else (), workspace=self.space)
                case.files.append(path)
        case.scan = case.segmentation = None

    def _write_seg(self, path: Path, found: Segmentation, scan: Scan, kind: Kind) -> None:
        """Write a mask as DICOM SEG beside the series that it belongs to."""
        models = self.manifest.content["models"]
        assert isinstance(scan.header, SourceSlices)  # checked when it was read
        write_dicom_seg(
            path,
            found.label_map,
            scan.header.files,
            self.predictor.labels,
            model_name=" + ".join(model["name"] for model in models),
            model_version=" ".join(model["weights_sha256"][:16] for model in models),
            kind=kind,
            codes=self.predictor.codes,
        )


def _in_the_way(work: Work, settings: PredictSettings, predictor: Predictor, manifest: Manifest) -> str | None:
    """Why a scan must not be segmented: a file stands where one of its own would go, such as a mask drawn by hand."""
    if work.problem or (settings.overwrite and not work.suffix):
        return None
    kinds = ["probabilities"] * settings.probabilities + ["entropy", "variance"] * settings.uncertainty
    kinds += [f"{kind}_{name}" for kind in kinds for name in names_of_maps(list(predictor.labels))]
    ending = mask_ending(work.paths, settings.format)
    for file in [work.target(ending), *(work.target(map_ending(ending), kind) for kind in kinds)]:
        if file.exists() and not manifest.holds(work.name, file):
            where, instead = ("beside the scan", "") if work.suffix else ("in the output", ", or --overwrite")
            return f"{file.name} stands {where} and is not ours; move it, or give another --output{instead}"
    return None


def _mask(work: Work, settings: PredictSettings) -> Path:
    """Path of the mask of a scan."""
    return work.target(mask_ending(work.paths, settings.format))


def _voxels(found: Segmentation, labels: Any) -> dict[str, int]:
    """Voxels of each foreground class, counted plane by plane."""
    planes = np.moveaxis(found.label_map, int(np.argmax(np.abs(found.label_map.strides))), 0)
    counts = sum((np.bincount(plane.ravel(), minlength=len(labels)) for plane in planes), np.zeros(len(labels), int))
    return {name: int(counts[value]) for name, value in labels.items() if value != 0}

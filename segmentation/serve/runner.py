"""Threads that take jobs out of the queue, each into a worker process of its own."""

import logging
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmentation import SkipSegError
from segmentation.inference.memory import parse_bytes
from segmentation.serve.catalogue import Catalogue
from segmentation.serve.process import Limits, StoppedError, TaskError, Worker
from segmentation.serve.records import Job, MissingError
from segmentation.serve.store import Store

log = logging.getLogger("skipseg.serve")

_WAIT_SECONDS = 0.5
_SWEEP_SECONDS = 30.0

_ROOM = 1.25
"""Memory that a worker may hold, in parts of what prediction is told to keep to."""


@dataclass
class Progress:
    """How far a running job is: windows done, of how many, and when the first was."""

    done: int = 0
    total: int = 0
    began: float = 0.0

    @property
    def share(self) -> float:
        """In [0, 1]; writing the results is the last twentieth."""
        return 0.95 * self.done / self.total if self.total else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Of computing windows; None until that is known."""
        if not self.done or not self.began:
            return None
        return round((time.monotonic() - self.began) / self.done * (self.total - self.done), 1)


@dataclass(frozen=True)
class Work:
    """How jobs are computed: settings of :class:`~segmentation.config.ServeSettings`."""

    memory: str
    minutes: float
    threads: int
    backend: str
    device: str

    @property
    def limits(self) -> Limits:
        """What the worker of a job may take."""
        # CUDA maps far more memory than it holds, so that only what is held can be looked at.
        return Limits(int(parse_bytes(self.memory) * _ROOM), 60 * self.minutes, hard=self.device == "cpu")


class Runner:
    """Works on the jobs of a store until it is stopped.

    Args:
        store: Where jobs come from and results go.
        catalogue: The models.
        work: How they are computed.
        workers: Jobs at a time.
    """

    def __init__(self, store: Store, catalogue: Catalogue, work: Work, workers: int) -> None:
        self.store = store
        self.catalogue = catalogue
        self.work = work
        self._progress: dict[str, Progress] = {}
        self._ending = threading.Event()
        self._new = threading.Condition()
        self._threads = [threading.Thread(target=self._work_on, name=f"job-{index}") for index in range(workers)]
        self._threads.append(threading.Thread(target=self._sweep, name="sweep"))

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End every worker; their jobs wait for the next start."""
        self._ending.set()
        self.wake()
        for thread in self._threads:
            thread.join()

    def wake(self) -> None:
        """Say that there is a new job."""
        with self._new:
            self._new.notify_all()

    def progress(self, job: str) -> Progress:
        """How far a running job is."""
        return self._progress.get(job, Progress())

    def _work_on(self) -> None:
        """Take one job after the other; the process for the next one loads its libraries while none waits."""
        worker: Worker | None = None
        while not self._ending.is_set():
            try:
                worker = worker if worker and worker.is_alive() else Worker("segment", self.work.limits)
                if (job := self.store.start_next()) is None:
                    with self._new:
                        self._new.wait(_WAIT_SECONDS)
                    continue
                self._do(job, worker)
                worker = None
            except Exception as error:  # a full disk, say: without this thread no later job would be worked on
                log.error("a thread of the queue met %s and goes on", type(error).__name__)
                self._ending.wait(_WAIT_SECONDS)
        if worker:
            worker.end()

    def _do(self, job: Job, worker: Worker) -> None:
        """Give a job to a worker, and keep what comes of it."""
        began = time.monotonic()
        draft: Path | None = None
        problem = ""
        self._progress[job.id] = Progress()
        try:
            draft = self.store.new_draft()
            result = worker.run(
                self._task(job, str(draft)), lambda said: self._hear(job, said), lambda: self._is_over(job)
            )
            if self.store.finish(job, round(time.monotonic() - began, 3), draft, result):
                log.info("job %s is done in %.1f s", job.id, time.monotonic() - began)
        except StoppedError:
            log.info("job %s is stopped", job.id)
        except TaskError as error:
            log.warning("job %s failed: %s %s", job.id, error.kind, error.where)
            problem = str(error)
        except SkipSegError as error:
            log.warning("job %s failed: %s", job.id, error)
            problem = str(error)
        except OSError as error:
            problem = f"the server could not keep its result ({error.strerror}); try later"
            log.error("job %s failed: %s", job.id, problem)
        finally:
            worker.end()
            self._progress.pop(job.id, None)
            if draft:
                shutil.rmtree(draft, ignore_errors=True)
        if problem:  # once the draft is gone, for a full disk has no room for these words either
            self.store.fail(job, round(time.monotonic() - began, 3), problem)

    def _task(self, job: Job, out: str) -> dict[str, Any]:
        """What a worker is told.

        Raises:
            SkipSegError: If the scan or the model is gone.
        """
        found = self.catalogue.find(job.model)
        if found is None:
            raise SkipSegError("the model is not there any more; choose another")
        try:
            facts = self.store.upload(job.upload).facts
        except MissingError:
            raise SkipSegError("the scan is not there any more; send it again") from None
        work = self.work
        return {
            "scan": str(self.store.upload_folder(job.upload) / facts["name"]),
            "kind": facts["kind"],
            "dims": facts["dims"],
            "channels_in_file": facts["channels_in_file"],
            "model": str(found[1]),
            "out": out,
            "uncertainty": job.uncertainty,
            "memory": work.memory,
            "threads": work.threads,
            "backend": work.backend,
            "device": work.device,
        }

    def _hear(self, job: Job, said: Mapping[str, Any]) -> None:
        """Keep what a worker says of its progress."""
        if "windows" in said:
            known = self._progress[job.id]
            began = known.began or time.monotonic()
            self._progress[job.id] = Progress(said["windows_done"], said["windows"], began)

    def _is_over(self, job: Job) -> bool:
        """Whether to stop: the server ends, or the job was cancelled."""
        return self._ending.is_set() or not self.store.is_current(job)

    def _sweep(self) -> None:
        """Delete what has expired, again and again."""
        while not self._ending.is_set():
            try:
                self.store.delete_expired()
            except Exception as error:  # whatever it is, later sweeps may do what this one could not
                log.error("what has expired could not be deleted: %s", type(error).__name__)
            self._ending.wait(min(_SWEEP_SECONDS, self.store.lifetime_s / 4))

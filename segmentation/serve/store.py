"""What the server remembers: uploads and jobs, in one SQLite file that survives a kill at any moment.

state/
  server.sqlite         which uploads and jobs there are; every change is on the disk before it is answered
  uploads/ID/           a scan under a name of ours, or the slices of a series
  jobs/ID/              results of a finished job
  drafts/               what is being received, unpacked or computed; emptied at each start

A result appears by one rename, and only the server that holds ``state`` renames. A job that ran when its server died
is started anew, under the next number of attempt, so that nothing of the old attempt can pass for a result.
"""

import json
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segmentation.serve.records import Job, MissingError, QueueFullError, State, Upload, flush, publish, size_of

MOST_ATTEMPTS = 3
"""Starts of a job; one that was running each time its server died is not tried again."""

_TABLES = """
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY, bytes INTEGER NOT NULL, facts TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, upload TEXT NOT NULL, model TEXT NOT NULL,
    uncertainty INTEGER NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL, bytes INTEGER NOT NULL,
    created REAL NOT NULL, seconds REAL, expires REAL, error TEXT, result TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS by_state ON jobs (state, number);
"""


_UPLOAD = "id, bytes, facts, created, expires"
_JOB = "number, id, upload, model, uncertainty, state, attempt, created, seconds, expires, error, result"
_OPEN = "state IN ('queued', 'running')"


class Store:
    """Uploads and jobs of one folder; every method may be called from any thread.

    Args:
        folder: Created, for nobody else to read.
        queue: Jobs that may wait or run at a time.
        lifetime_s: Seconds after which uploads and results expire.
    """

    def __init__(self, folder: Path, queue: int, lifetime_s: float) -> None:
        self.folder = folder
        self.queue = queue
        self.lifetime_s = lifetime_s
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._lock = threading.RLock()
        self._file = sqlite3.connect(folder / "server.sqlite", check_same_thread=False)
        self._file.execute("PRAGMA journal_mode=WAL")
        self._file.execute("PRAGMA synchronous=FULL")
        self._file.executescript(_TABLES)
        self._recover()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    # Folders

    def upload_folder(self, upload: str) -> Path:
        """Where the scan of an upload lies."""
        return self.folder / "uploads" / upload

    def job_folder(self, job: str) -> Path:
        """Where the results of a finished job lie."""
        return self.folder / "jobs" / job

    def new_draft(self) -> Path:
        """A new folder for what is not finished."""
        folder = self.folder / "drafts" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        return folder

    # Uploads

    def add_upload(self, draft: Path, facts: Mapping[str, Any]) -> Upload:
        """Keep what lies in a draft as a new upload."""
        now = time.time()
        upload = Upload(uuid.uuid4().hex, size_of(draft), dict(facts), now, now + self.lifetime_s)
        flush(draft)
        publish(draft, self.upload_folder(upload.id))
        with self._lock, self._file:
            values = (upload.id, upload.bytes, json.dumps(facts), upload.created, upload.expires)
            self._file.execute(f"INSERT INTO uploads ({_UPLOAD}) VALUES (?, ?, ?, ?, ?)", values)
        return upload

    def upload(self, id: str) -> Upload:
        """Look an upload up.

        Raises:
            MissingError: If there is none.
        """
        rows = self._rows(f"SELECT {_UPLOAD} FROM uploads WHERE id = ?", id)
        if not rows:
            raise MissingError
        id, size, facts, created, expires = rows[0]
        return Upload(id, size, json.loads(facts), created, expires)

    def stored_bytes(self) -> int:
        """Bytes of all uploads and results."""
        parts = "SELECT bytes FROM uploads UNION ALL SELECT bytes FROM jobs"
        return self._rows(f"SELECT coalesce(sum(bytes), 0) FROM ({parts})")[0][0]

    # Jobs

    def add_job(self, upload: str, model: str, uncertainty: bool) -> Job:
        """Put a job at the end of the queue; its scan is kept as long as it waits.

        Raises:
            MissingError: If there is no such upload.
            QueueFullError: If the queue is full.
        """
        with self._lock, self._file:
            self.upload(upload)
            if self.open_jobs() >= self.queue:
                raise QueueFullError
            id = uuid.uuid4().hex
            values = (id, upload, model, uncertainty, time.time())
            columns = "id, upload, model, uncertainty, created, state, attempt, bytes, result"
            self._file.execute(f"INSERT INTO jobs ({columns}) VALUES (?, ?, ?, ?, ?, 'queued', 0, 0, '{{}}')", values)
        return self.job(id)

    def job(self, id: str) -> Job:
        """Look a job up.

        Raises:
            MissingError: If there is none.
        """
        found = self._jobs("WHERE id = ?", id)
        if not found:
            raise MissingError
        return found[0]

    def jobs(self) -> list[Job]:
        """All jobs, the newest first."""
        return self._jobs("ORDER BY number DESC")

    def open_jobs(self) -> int:
        """How many jobs wait or run."""
        return self._rows(f"SELECT count(*) FROM jobs WHERE {_OPEN}")[0][0]

    def ahead_of(self, job: Job) -> int:
        """How many jobs wait or run ahead of a waiting one."""
        return self._rows(f"SELECT count(*) FROM jobs WHERE {_OPEN} AND number < ?", job.number)[0][0]

    def start_next(self) -> Job | None:
        """Take the job that has waited longest and say that it runs; None where none waits."""
        with self._lock, self._file:
            waiting = self._rows("SELECT id FROM jobs WHERE state = 'queued' ORDER BY number LIMIT 1")
            if not waiting:
                return None
            self._file.execute("UPDATE jobs SET state = 'running', attempt = attempt + 1 WHERE id = ?", waiting[0])
            return self.job(waiting[0][0])

    def finish(self, job: Job, seconds: float, draft: Path, result: Mapping[str, Any]) -> bool:
        """Publish the results of an attempt; False if the job was cancelled or started anew meanwhile."""
        flush(draft)
        size = size_of(draft)
        with self._lock:
            if not self.is_current(job):
                return False
            publish(draft, self.job_folder(job.id))
            return self._end(job, "done", seconds, result=json.dumps(result), bytes=size)

    def fail(self, job: Job, seconds: float, error: str) -> bool:
        """Say why an attempt failed; False if the job was cancelled or started anew meanwhile."""
        return self._end(job, "failed", seconds, error=error)

    def cancel(self, id: str) -> Job:
        """Cancel a job that waits or runs; one that has ended stays as it is.

        Raises:
            MissingError: If there is none.
        """
        with self._lock, self._file:
            self.job(id)
            values = (time.time() + self.lifetime_s, id)
            self._file.execute(f"UPDATE jobs SET state = 'cancelled', expires = ? WHERE id = ? AND {_OPEN}", values)
            return self.job(id)

    def delete_job(self, id: str) -> None:
        """Delete an ended job and its results."""
        with self._lock:
            with self._file:
                self._file.execute(f"DELETE FROM jobs WHERE id = ? AND NOT {_OPEN}", (id,))
            if not self._jobs("WHERE id = ?", id):
                shutil.rmtree(self.job_folder(id), ignore_errors=True)

    def delete_expired(self) -> None:
        """Delete every upload and result whose time is over; a scan that a job waits for stays."""
        now = time.time()
        for (id,) in self._rows(f"SELECT id FROM jobs WHERE expires < ? AND NOT {_OPEN}", now):
            self.delete_job(id)
        with self._lock:
            needed = f"SELECT upload FROM jobs WHERE {_OPEN}"
            over = self._rows(f"SELECT id FROM uploads WHERE expires < ? AND id NOT IN ({needed})", now)
            with self._file:
                self._file.executemany("DELETE FROM uploads WHERE id = ?", over)
        for (id,) in over:
            shutil.rmtree(self.upload_folder(id), ignore_errors=True)

    def _recover(self) -> None:
        """After a start: jobs that ran wait again, and files that nothing refers to go."""
        shutil.rmtree(self.folder / "drafts", ignore_errors=True)
        with self._lock, self._file:
            broken = f"the server was interrupted {MOST_ATTEMPTS} times while it ran; is there enough memory?"
            values = (broken, time.time() + self.lifetime_s, MOST_ATTEMPTS)
            self._file.execute(
                "UPDATE jobs SET state = 'failed', error = ?, expires = ? WHERE state = 'running' AND attempt >= ?",
                values,
            )
            self._file.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")
        self._delete_unknown("uploads", "SELECT id FROM uploads")
        self._delete_unknown("jobs", "SELECT id FROM jobs WHERE state = 'done'")

    def _delete_unknown(self, name: str, known: str) -> None:
        """Delete the folders whose ids the query does not name."""
        ids = {id for (id,) in self._rows(known)}
        parent = self.folder / name
        parent.mkdir(exist_ok=True)
        for folder in parent.iterdir():
            if folder.name not in ids:
                shutil.rmtree(folder, ignore_errors=True)

    def is_current(self, job: Job) -> bool:
        """Whether an attempt at a job is the one that runs."""
        query = "SELECT id FROM jobs WHERE id = ? AND attempt = ? AND state = 'running'"
        return bool(self._rows(query, job.id, job.attempt))

    def _end(self, job: Job, state: State, seconds: float, **columns: Any) -> bool:
        """Say how an attempt ended, unless it is not the one that runs."""
        columns |= {"state": state, "seconds": seconds, "expires": time.time() + self.lifetime_s}
        with self._lock, self._file:
            changes = ", ".join(f"{name} = ?" for name in columns)
            query = f"UPDATE jobs SET {changes} WHERE id = ? AND attempt = ? AND state = 'running'"
            return self._file.execute(query, (*columns.values(), job.id, job.attempt)).rowcount == 1

    def _jobs(self, condition: str, *values: Any) -> list[Job]:
        """Jobs that meet a condition."""
        return [_job(row) for row in self._rows(f"SELECT {_JOB} FROM jobs {condition}", *values)]

    def _rows(self, query: str, *values: Any) -> Sequence[tuple[Any, ...]]:
        """Answer to a query."""
        with self._lock:
            return self._file.execute(query, values).fetchall()


def _job(row: Sequence[Any]) -> Job:
    """A job from its columns."""
    values: dict[str, Any] = dict(zip(_JOB.split(", "), row, strict=True))
    values["uncertainty"] = bool(values["uncertainty"])
    values["result"] = json.loads(values["result"])
    return Job(**values)

"""Uploads and jobs on the disk: their order, their limits, and what a kill or a full disk leaves of them."""

import asyncio
import errno
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from segmentation.serve.catalogue import Catalogue
from segmentation.serve.receive import MOST_AT_ONCE, FormError, Receiver
from segmentation.serve.records import Job, MissingError, QueueFullError
from segmentation.serve.runner import Runner, Work
from segmentation.serve.store import MOST_ATTEMPTS, Store


@pytest.fixture
def store(tmp_path: Path):
    opened = Store(tmp_path / "state", queue=3, lifetime_s=100)
    yield opened
    opened.close()


def upload(store: Store) -> str:
    draft = store.new_draft()
    (draft / "scan.nii.gz").write_bytes(b"voxels")
    return store.add_upload(draft, {"kind": "nifti", "name": "scan.nii.gz"}).id


def add(store: Store) -> Job:
    return store.add_job(upload(store), "model", uncertainty=True)


def draft_of(store: Store, content: bytes) -> Path:
    draft = store.new_draft()
    (draft / "mask.nii.gz").write_bytes(content)
    return draft


def mask(store: Store, job: Job) -> bytes:
    return (store.job_folder(job.id) / "mask.nii.gz").read_bytes()


def reopened(store: Store, **changes: float) -> Store:
    """The store as the next server finds it when this one was killed."""
    store.close()
    return Store(store.folder, **({"queue": store.queue, "lifetime_s": store.lifetime_s} | changes))


def test_an_upload_is_kept_with_its_files(store: Store):
    found = store.upload(upload(store))
    assert (found.facts["kind"], found.bytes) == ("nifti", 6)
    assert (store.upload_folder(found.id) / "scan.nii.gz").read_bytes() == b"voxels"
    assert store.stored_bytes() == 6
    assert store.folder.stat().st_mode & 0o077 == 0, "nobody else may read it"


def test_what_is_not_there_is_missing(store: Store):
    for ask in (store.upload, store.job, store.cancel):
        with pytest.raises(MissingError):
            ask("nothing")
    with pytest.raises(MissingError):
        store.add_job("nothing", "model", uncertainty=False)
    assert store.start_next() is None


def test_jobs_are_taken_in_order_and_each_once(store: Store):
    jobs = [add(store) for _ in range(3)]
    assert [store.ahead_of(job) for job in jobs] == [0, 1, 2]
    taken = [store.start_next() for _ in range(4)]
    assert [job.id if job else None for job in taken] == [*(job.id for job in jobs), None]
    assert all(job.state == "running" and job.attempt == 1 and job.uncertainty for job in taken if job)
    assert [job.id for job in store.jobs()] == [job.id for job in jobs][::-1]


def test_a_full_queue_takes_no_more_until_a_job_ends(store: Store):
    first, _, _ = (add(store) for _ in range(3))
    with pytest.raises(QueueFullError):
        add(store)
    store.cancel(first.id)
    assert add(store).state == "queued"


def test_results_appear_whole_and_once(store: Store):
    add(store)
    job = store.start_next()
    assert job
    assert not store.job_folder(job.id).exists()
    assert store.finish(job, 1.5, draft_of(store, b"right"), {"voxels": {"a": 1}})
    done = store.job(job.id)
    assert (done.state, done.seconds, done.result) == ("done", 1.5, {"voxels": {"a": 1}})
    assert not store.finish(job, 9, draft_of(store, b"wrong"), {})
    assert not store.fail(job, 9, "late")
    assert mask(store, job) == b"right"


def test_a_cancelled_job_has_no_result(store: Store):
    job = add(store)
    running = store.start_next()
    assert running
    assert store.cancel(job.id).state == "cancelled"
    assert not store.is_current(running)
    assert not store.finish(running, 1, draft_of(store, b"late"), {})
    assert not store.job_folder(job.id).exists()
    assert store.cancel(job.id).state == "cancelled"


def test_jobs_of_a_killed_server_wait_again_and_its_late_results_count_for_nothing(store: Store):
    jobs = [add(store) for _ in range(2)]
    old = store.start_next()
    assert old
    late = draft_of(store, b"late")
    after = reopened(store)
    assert [job.state for job in after.jobs()] == ["queued", "queued"]
    assert not late.exists(), "drafts are gone"
    new = after.start_next()
    assert new
    assert (new.id, new.attempt) == (jobs[0].id, 2)
    assert not after.finish(old, 1, draft_of(after, b"late"), {})
    assert after.finish(new, 1, draft_of(after, b"right"), {})
    assert mask(after, new) == b"right"
    after.close()


def test_a_result_whose_server_died_before_it_said_so_is_made_anew(store: Store):
    job = add(store)
    store.start_next()
    folder = store.job_folder(job.id)
    folder.mkdir(parents=True)
    (folder / "mask.nii.gz").write_bytes(b"half")
    after = reopened(store)
    assert not folder.exists()
    new = after.start_next()
    assert new
    assert after.finish(new, 1, draft_of(after, b"right"), {})
    assert mask(after, new) == b"right"
    after.close()


def test_a_job_that_goes_down_with_the_server_again_and_again_fails(store: Store):
    job = add(store)
    for _ in range(MOST_ATTEMPTS):
        assert store.start_next()
        store = reopened(store)
    assert store.job(job.id).state == "failed"
    assert "interrupted 3 times" in (store.job(job.id).error or "")
    store.close()


def test_what_has_ended_expires_with_its_files_and_what_waits_does_not(store: Store):
    store = reopened(store, lifetime_s=0.05, queue=9)
    jobs = [add(store) for _ in range(3)]
    first, second = store.start_next(), store.start_next()
    assert first
    assert second
    store.finish(first, 1, draft_of(store, b"right"), {})
    store.fail(second, 1, "broken")
    time.sleep(0.1)
    store.delete_expired()
    assert [job.id for job in store.jobs()] == [jobs[2].id]
    assert store.upload(jobs[2].upload).id == jobs[2].upload, "its scan is kept"
    with pytest.raises(MissingError):
        store.upload(jobs[0].upload)
    assert [folder.name for folder in (store.folder / "uploads").iterdir()] == [jobs[2].upload]
    assert list((store.folder / "jobs").iterdir()) == []
    store.close()


def test_a_job_that_is_under_way_is_not_deleted(store: Store):
    job = add(store)
    store.delete_job(job.id)
    assert store.job(job.id).state == "queued"
    store.cancel(job.id)
    store.delete_job(job.id)
    with pytest.raises(MissingError):
        store.job(job.id)


@pytest.mark.parametrize("step", ["new_draft", "finish"])
def test_a_job_whose_result_finds_no_room_fails_and_frees_its_place(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    drafts = store.folder / "drafts"
    add(store)
    job = store.start_next()
    assert job
    runner = Runner(store, Catalogue(tmp_path), Work("1GiB", 1, 1, "torch", "cpu"), 1)
    monkeypatch.setattr(runner, "_task", lambda *_: {})
    room: list[bool] = []
    fail = store.fail
    monkeypatch.setattr(store, "fail", lambda *given: (room.append(not any(drafts.glob("*"))), fail(*given)))
    monkeypatch.setattr(store, step, full)
    runner._do(job, Mock(run=lambda *_: {}))  # pyright: ignore[reportPrivateUsage] - one job, without threads
    reason = "the server could not keep its result (No space left on device); try later"
    assert (store.job(job.id).state, store.job(job.id).error) == ("failed", reason)
    assert room == [True], "the draft makes room before the failure is written down"


def test_an_upload_that_finds_no_room_frees_its_place(store: Store, monkeypatch: pytest.MonkeyPatch):
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    receiver = Receiver(store, 1 << 20, 1 << 20)
    with monkeypatch.context() as patch:
        patch.setattr(store, "new_draft", full)
        for _ in range(MOST_AT_ONCE):
            with pytest.raises(OSError, match="No space left"):
                asyncio.run(receiver.receive("multipart/form-data", nothing()))
    with pytest.raises(FormError):
        asyncio.run(receiver.receive("multipart/form-data", nothing()))
    receiver.stop()


def test_every_change_is_on_the_disk_before_it_is_answered(store: Store):
    job = add(store)
    with sqlite3.connect(store.folder / "server.sqlite") as other:
        assert other.execute("SELECT id, state FROM jobs").fetchall() == [(job.id, "queued")]
    other.close()

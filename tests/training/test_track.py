"""Trackers see what metrics.csv holds, change no result, and never stop a training."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from segmentation.cli import main
from segmentation.runs import read_csv, read_json
from segmentation.training import track as track_module
from segmentation.training import trackers
from segmentation.training.checkpoint import ExactResume
from segmentation.training.history import History
from segmentation.training.job import make_job
from segmentation.training.track import TrackRecorder, named_curves, side_by_side
from segmentation.training.train import train

EPOCHS = 3
CHANGES = {"epochs": EPOCHS, "network.dropout": 0.3}
TRACKED = CHANGES | {"track": "tensorboard"}
OURS = ("tensorboard", "tracking.json")


def read_events(run):
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    return events


def check_curve(run, tracker, name):
    """The events hold the column of the table, in 32 bits."""
    events = [(event.step, event.value) for event in read_events(run).Scalars(tracker)]
    column = [(int(row["step"]), float(row[name])) for row in read_csv(run / "metrics.csv")]
    np.testing.assert_allclose(events, column, rtol=1e-5)


@pytest.fixture(scope="module")
def untracked(pictures, tiny, tmp_path_factory):
    """A finished training that no tracker saw; read only."""
    return train(tiny(pictures, tmp_path_factory.mktemp("untracked") / "run", CHANGES))


@pytest.fixture(scope="module")
def tracked(pictures, tiny, tmp_path_factory):
    """The same with TensorBoard; read only."""
    return train(tiny(pictures, tmp_path_factory.mktemp("tracked") / "run", TRACKED))


@pytest.fixture
def without_ours(results):
    """Function of a run folder: its results but for what a tracker wrote."""
    return lambda run: {name: content for name, content in results(run).items() if not name.startswith(OURS)}


# TensorBoard


def test_event_files_hold_the_curves_of_the_table(tracked):
    ours = ["train_loss", "val_loss", "val_dice", "val_dice_organ", "val_dice_lesion", "learning_rate"]
    theirs = ["loss/train", "loss/val", "dice/mean", "dice/organ", "dice/lesion", "learning_rate"]
    for tracker, name in zip(theirs, ours, strict=True):
        check_curve(tracked, tracker, name)
    assert read_json(tracked / "tracking.json") == {"tensorboard": ["tensorboard", EPOCHS]}


def test_pictures_show_image_reference_and_prediction(tracked):
    images = read_events(tracked).Images("image, reference, prediction")
    assert [image.step for image in images] == [2, 4, 6]
    assert all((image.height, image.width) == (16, 48) for image in images)
    assert images[0].encoded_image_string.startswith(b"\x89PNG")


def test_tracking_changes_no_result(tracked, untracked, without_ours):
    assert without_ours(tracked) == without_ours(untracked)


def test_tracking_is_no_part_of_what_a_training_is(pictures, tiny, tmp_path):
    settings = tiny(pictures, tmp_path / "run", CHANGES)
    assert make_job(settings).identity == make_job(replace(settings, track="tensorboard")).identity


MOMENTS = [(ExactResume, "on_train_epoch_end", 2), (TrackRecorder, "_report", 3)]


@pytest.mark.parametrize(("owner", "name", "call"), MOMENTS)
def test_a_killed_training_goes_on_in_the_same_curves(
    pictures, tiny, tmp_path, untracked, without_ours, monkeypatch, owner, name, call
):
    settings = tiny(pictures, tmp_path / "run", TRACKED)
    real, calls = getattr(owner, name), []

    class Killed(BaseException):
        pass

    def deadly(*arguments):
        calls.append(name)
        if len(calls) == call:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(owner, name, deadly)
    with pytest.raises(Killed):
        train(settings)
    train(settings)
    assert without_ours(settings.out) == without_ours(untracked)
    check_curve(settings.out, "dice/mean", "val_dice")
    assert len(list((settings.out / "tensorboard").iterdir())) == 2


def test_a_training_that_starts_over_begins_new_curves(pictures, tiny, tmp_path, monkeypatch):
    settings = tiny(pictures, tmp_path / "run", TRACKED)
    real = History.on_train_epoch_end

    def stop(history, *arguments):
        real(history, *arguments)
        if len(history.rows) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(History, "on_train_epoch_end", stop)
    with pytest.raises(KeyboardInterrupt):
        train(settings)
    monkeypatch.setattr(History, "on_train_epoch_end", real)
    (settings.out / "last.ckpt").unlink()
    train(settings)
    check_curve(settings.out, "loss/train", "train_loss")


# Whatever goes wrong


class Broken:
    """A tracker that draws random numbers and then fails."""

    run = "x"

    def __init__(self, *_):
        self.calls = []

    def log(self, step, values):
        np.random.rand(3)
        self.calls.append(step)
        raise ConnectionError("server\nis away")

    def picture(self, step, name, pixels):
        np.random.rand(3)

    def close(self, finished):
        self.calls.append("close")


def test_a_tracker_that_fails_is_said_once_and_stops_nothing(
    pictures, tiny, tmp_path, untracked, without_ours, monkeypatch, caplog
):
    broken = Broken()
    monkeypatch.setattr(track_module, "open_tracker", lambda *_: broken)
    with caplog.at_level(logging.WARNING):
        run = train(tiny(pictures, tmp_path / "run", TRACKED))
    assert without_ours(run) == without_ours(untracked)
    assert broken.calls == [2]
    said = [record.getMessage() for record in caplog.records if record.name == track_module.__name__]
    assert said == ["tracking by tensorboard stops, the training goes on (ConnectionError: server is away)"]


def test_a_tracker_that_cannot_be_opened_stops_nothing(pictures, tiny, tmp_path, untracked, without_ours, monkeypatch):
    def refuse(*_):
        raise OSError("disk is full")

    monkeypatch.setattr(track_module, "open_tracker", refuse)
    run = train(tiny(pictures, tmp_path / "run", TRACKED))
    assert without_ours(run) == without_ours(untracked)
    assert not (run / "tracking.json").exists()


@pytest.mark.parametrize("name", trackers.REMEDIES)
def test_a_tracker_that_is_not_installed_is_one_line_before_anything_is_done(
    pictures, tmp_path, monkeypatch, capsys, name
):
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    assert main(["train", str(pictures.root), "--out", str(tmp_path / "run"), "--track", name]) == 1
    said = capsys.readouterr().err
    assert said == (
        f"skipseg: track {name} needs the package {name}, which is not installed; run: {trackers.REMEDIES[name]}\n"
    )
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused(capsys):
    assert main(["train", "d", "--out", "o", "--track", "comet"]) == 2
    assert "track must be one of none, tensorboard, mlflow, wandb; got comet" in capsys.readouterr().err


# Curves and pictures


def test_curves_leave_out_what_is_not_defined():
    row = {"epoch": 1, "step": 4, "learning_rate": 0.1, "val_dice_left lung": 0.5, "val_dice": float("nan")}
    assert named_curves(row) == {"epoch": 1.0, "learning_rate": 0.1, "dice/left lung": 0.5}


def test_a_volume_is_shown_where_the_reference_is_largest():
    reference = np.zeros((3, 2, 2), int)
    reference[1, 0, 0], reference[2], reference[0] = 1, 2, 3  # 3 is ignored
    pixels = side_by_side(np.stack([np.full((2, 2), i / 2) for i in range(3)]), reference, reference * 0, classes=3)
    assert pixels.tolist() == [[255, 255, 255, 255, 0, 0]] * 2


def test_a_picture_is_made_of_the_first_channel_without_what_is_ignored():
    reference = np.array([[0, 2], [1, 1]])
    pixels = side_by_side(np.array([[0.0, 2.0], [-1.0, 0.5]]), reference, np.array([[1, 0], [0, 1]]), classes=2)
    assert pixels.tolist() == [[0, 255, 0, 0, 255, 0], [0, 128, 255, 255, 0, 255]]

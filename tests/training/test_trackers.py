"""The adapters for MLflow and Weights & Biases, against small fakes of what they call."""

import re
import socket
from types import SimpleNamespace

import numpy as np
import pytest

from segmentation.training import trackers
from segmentation.training.trackers import PROJECT, can_reach_wandb, open_tracker

ABOUT = {"epochs": 3, "network.long_skip": "concat", "long": "x" * 600}
PIXELS = np.zeros((4, 6), np.uint8)


class FakeClient:
    """As much of mlflow.MlflowClient as is called; names are checked as MLflow checks them."""

    stores = ()  # a dictionary of each test, by address

    def __init__(self, tracking_uri):
        self.uri = tracking_uri
        self.store = self.stores.setdefault(tracking_uri, {"experiments": {}, "runs": {}})

    def get_experiment_by_name(self, name):
        found = self.store["experiments"].get(name)
        return found and SimpleNamespace(experiment_id=found[0])

    def create_experiment(self, name, artifact_location=None):
        self.store["experiments"][name] = ("7", artifact_location)
        return "7"

    def create_run(self, experiment_id, run_name):
        run = f"run-{len(self.store['runs'])}"
        about = {"experiment": experiment_id, "name": run_name, "status": "RUNNING"}
        self.store["runs"][run] = about | {"points": [], "params": {}, "images": []}
        return SimpleNamespace(info=SimpleNamespace(run_id=run))

    def update_run(self, run, status):
        self.store["runs"][run]["status"] = status

    def log_batch(self, run, metrics=(), params=()):
        assert len(params) <= 100
        for key, value in params:
            assert re.fullmatch(r"[\w./ :-]+", key)
            assert len(value) <= 500
            self.store["runs"][run]["params"][key] = value
        for key, value, _, step in metrics:
            assert re.fullmatch(r"[\w./ :-]+", key)
            self.store["runs"][run]["points"].append((step, key, value))

    def log_image(self, run, image, key, step):
        assert re.fullmatch(r"[\w./ -]+", key)
        self.store["runs"][run]["images"].append((step, key, image.size))

    def set_terminated(self, run, status):
        self.store["runs"][run]["status"] = status


@pytest.fixture
def mlflow(monkeypatch):
    """The stores of a fake MLflow, by address."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(FakeClient, "stores", {})
    entities = SimpleNamespace(Metric=lambda *point: point, Param=lambda *pair: pair)
    modules = {"mlflow": SimpleNamespace(MlflowClient=FakeClient), "mlflow.entities": entities}
    monkeypatch.setattr(trackers.importlib, "import_module", lambda name: modules[name])
    return FakeClient.stores


def test_mlflow_gets_settings_once_and_points_by_step(mlflow, tmp_path):
    tracker = open_tracker("mlflow", tmp_path / "runs" / "a", ABOUT, None)
    tracker.log(2, {"loss/train": 1.5, "dice/left (lung)": 0.5})
    tracker.picture(2, "image, mask", PIXELS)
    tracker.close(finished=False)
    ((uri, store),) = mlflow.items()
    assert uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert store["experiments"] == {PROJECT: ("7", (tmp_path / "runs" / "mlflow").as_uri())}
    run = store["runs"][tracker.run]
    assert (run["experiment"], run["name"], run["status"]) == ("7", "a", "KILLED")
    assert run["points"] == [(2, "loss/train", 1.5), (2, "dice/left _lung_", 0.5)]
    assert run["images"] == [(2, "image_ mask", (6, 4))]
    assert run["params"] == {"epochs": "3", "network.long_skip": "concat", "long": "x" * 500}


def test_mlflow_appends_to_a_run_that_it_knows(mlflow, tmp_path):
    first = open_tracker("mlflow", tmp_path / "a", ABOUT, None)
    first.log(2, {"loss/train": 1.5})
    first.close(finished=False)
    second = open_tracker("mlflow", tmp_path / "a", ABOUT, first.run)
    second.log(4, {"loss/train": 1.0})
    second.close(finished=True)
    (store,) = mlflow.values()
    (run,) = store["runs"].values()
    assert [point[0] for point in run["points"]] == [2, 4]
    assert run["status"] == "FINISHED"


def test_mlflow_goes_to_the_server_that_a_user_names(mlflow, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://example.org")
    open_tracker("mlflow", tmp_path / "a", ABOUT, None)
    assert mlflow["https://example.org"]["experiments"] == {PROJECT: ("7", None)}


# Weights & Biases


@pytest.fixture
def wandb(monkeypatch):
    """Every run that a fake wandb has begun: the arguments of ``init``, and what was logged."""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    begun = []

    def init(**arguments):
        run = SimpleNamespace(id=arguments["id"] or "fresh", arguments=arguments, points=[], ended=[])
        run.log = lambda values, step: run.points.append((step, values))
        run.finish = lambda exit_code: run.ended.append(exit_code)
        begun.append(run)
        return run

    fake = SimpleNamespace(init=init, Settings=lambda **options: options, Image=lambda picture: picture.size)
    monkeypatch.setattr(trackers.importlib, "import_module", lambda name: {"wandb": fake}[name])
    monkeypatch.setattr(trackers, "can_reach_wandb", lambda: False)
    return begun


def test_wandb_is_offline_without_a_server(wandb, tmp_path):
    tracker = open_tracker("wandb", tmp_path / "a", ABOUT, None)
    tracker.log(2, {"loss/train": 1.5})
    tracker.picture(2, "overlay", PIXELS)
    tracker.close(finished=True)
    (run,) = wandb
    given = run.arguments
    assert (given["mode"], given["project"], given["name"]) == ("offline", PROJECT, "a")
    assert (given["dir"], given["config"], given["id"], given["resume"]) == (str(tmp_path / "a"), ABOUT, None, None)
    assert given["settings"]["console"] == "off"
    assert run.points == [(2, {"loss/train": 1.5}), (2, {"overlay": (6, 4)})]
    assert run.ended == [0]
    assert tracker.run == "fresh"


def test_wandb_appends_and_is_online_when_it_can_be(wandb, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "can_reach_wandb", lambda: True)
    tracker = open_tracker("wandb", tmp_path / "a", ABOUT, "known")
    tracker.close(finished=False)
    given = wandb[0].arguments
    assert (given["mode"], given["id"], given["resume"], wandb[0].ended) == ("online", "known", "allow", [1])


def test_wandb_follows_the_mode_that_a_user_sets(wandb, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    open_tracker("wandb", tmp_path / "a", ABOUT, None)
    assert wandb[0].arguments["mode"] == "disabled"


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server on this machine that answers as that of Weights & Biases, and a home without keys."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield listener


def test_wandb_needs_a_key_and_a_network(server, monkeypatch, tmp_path):
    assert not can_reach_wandb(), "no key"
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert can_reach_wandb()
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password k\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert can_reach_wandb(), "a key in .netrc"
    server.close()
    assert not can_reach_wandb(), "no network"

"""One training in several processes: the same steps as one process with the whole batch, and exact after a kill."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from segmentation import SkipSegError
from segmentation.config import TrainSettings
from segmentation.plain import to_plain
from segmentation.runs import read_csv, read_json
from segmentation.training import ranks
from segmentation.training.follow import followed
from segmentation.training.job import make_job
from segmentation.training.losses import LossName, build_loss
from segmentation.training.ranks import Rank, RankEnvironment, first_rank
from segmentation.training.train import load_data, train

TOLD = {"NODE_RANK": "1", "MASTER_ADDR": "node-a", "MASTER_PORT": "29500"}
CHANGES = {"network.depth": 2, "network.deep_supervision": True, "epochs": 3}
TWO_PROCESSES = """
import os, sys, torch
from datetime import timedelta
from torch import distributed
from segmentation.training.losses import build_loss

folder, *names = sys.argv[1:]
rank = int(os.fork() == 0)  # one import serves both
meeting = {"init_method": f"file://{folder}/meeting", "world_size": 2, "rank": rank}
distributed.init_process_group("gloo", timeout=timedelta(seconds=30), **meeting)
network, (images, labels), gradients = torch.nn.Conv2d(1, 3, 1), torch.load(f"{folder}/batch.pt"), {}
network.load_state_dict(torch.load(f"{folder}/network.pt"))
copy = torch.nn.parallel.DistributedDataParallel(network)
for name in names:
    copy.zero_grad()
    build_loss(name)(copy(images[rank::2]), labels[rank::2]).backward()
    gradients[name] = network.weight.grad.clone()
torch.save(gradients, f"{folder}/gradients{rank}.pt")
distributed.destroy_process_group()
if rank == 0:
    sys.exit(os.wait()[1] != 0)
"""


def command(settings: TrainSettings, folder: Path) -> list[str]:
    """The command that a user gives, with its settings in a file."""
    path = folder / f"{settings.out.name}.yaml"
    path.write_text(yaml.safe_dump(to_plain(settings)))
    return [sys.executable, "-m", "segmentation", "train", "--config", str(path)]


def descendants(process: int) -> list[int]:
    """Processes that ``process`` started, and those that they started."""
    found = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in found.splitlines()]
    own = [pid for pid, parent in pairs if parent == process]
    return own + [each for child in own for each in descendants(child)]


def is_running(process: int) -> bool:
    """Whether a process is there and not just waiting to be collected."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.strip().startswith("Z")


def wait_until(true, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Which process this is


def test_alone_there_is_one_rank(tmp_path):
    assert first_rank(TrainSettings(tmp_path, tmp_path)) == Rank()
    assert first_rank(TrainSettings(tmp_path, tmp_path, devices=2, device="cpu")) == Rank(2)


def test_machine_number_comes_from_the_environment(tmp_path):
    settings = TrainSettings(tmp_path, tmp_path, devices=2, nodes=2, device="cpu")
    rank = first_rank(settings, TOLD)
    assert (rank.number, rank.world, rank.address, rank.port) == (2, 4, "node-a", 29500)
    slurm = {"SLURM_NODEID": "1", "MASTER_ADDR": "node-a", "MASTER_PORT": "29500"}
    assert first_rank(settings, slurm) == rank
    environment = RankEnvironment(replace(rank, local=1))
    assert (environment.global_rank(), environment.local_rank(), environment.node_rank()) == (3, 1, 1)
    assert (environment.world_size(), environment.main_address, environment.main_port) == (4, "node-a", 29500)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MASTER_ADDR": ""}, "the environment lacks MASTER_ADDR"),
        ({"NODE_RANK": "2"}, "holds a wrong NODE_RANK"),
        ({"NODE_RANK": "-1"}, "holds a wrong NODE_RANK"),
        ({"MASTER_PORT": "http"}, "holds a wrong MASTER_PORT"),
    ],
)
def test_machine_that_is_not_told_its_place_is_refused(tmp_path, changes, message):
    with pytest.raises(SkipSegError, match=f"nodes is 2, but {message}|nodes is 2, but the environment {message}"):
        first_rank(TrainSettings(tmp_path, tmp_path, nodes=2, device="cpu"), TOLD | changes)


def test_what_the_machine_cannot_do_is_refused(pictures, tiny, tmp_path, monkeypatch):
    with pytest.raises(SkipSegError, match=r"network\.norm batch .* choose norm instance"):
        train(tiny(pictures, tmp_path / "run", {"devices": 2, "network.norm": "batch"}))
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SkipSegError, match="devices is 2, but this machine has 1 GPUs"):
        first_rank(TrainSettings(tmp_path, tmp_path, devices=2))


@pytest.mark.parametrize("name", ["devices", "nodes"])
def test_a_training_has_at_least_one_process(tmp_path, name):
    with pytest.raises(SkipSegError, match=f"{name} must be greater than 0"):
        TrainSettings(tmp_path, tmp_path, **{name: 0})


def test_processes_are_part_of_what_a_run_is(pictures, tiny, tmp_path):
    one, two = (make_job(tiny(pictures, tmp_path / "run", {"devices": n})) for n in (1, 2))
    assert one.identity != two.identity


# What each process sees


def test_processes_share_each_batch_of_one_process(pictures, tiny, tmp_path):
    whole = load_data(make_job(tiny(pictures, tmp_path / "whole", {"data.batch_size": 6})), steps=2)
    job = make_job(tiny(pictures, tmp_path / "parts", {"data.batch_size": 2}))
    parts = [load_data(job, 2, Rank(3, local=local)) for local in range(3)]
    for module in (whole, *parts):
        module.sampler.set_epoch(4)
    assert [len(list(part.sampler)) for part in parts] == [len(part.sampler) for part in parts] == [4, 4, 4]
    for expected, *batches in zip(*(module.train_dataloader() for module in (whole, *parts)), strict=True):
        for tensor, *others in zip(expected, *batches, strict=True):
            assert torch.equal(torch.stack(others, dim=1).flatten(0, 1), tensor)


def test_averaged_gradients_are_those_of_the_whole_batch(tmp_path):
    torch.manual_seed(0)
    network, images, labels = torch.nn.Conv2d(1, 3, 1), torch.randn(2, 1, 4, 4), torch.randint(3, (2, 4, 4))
    labels[0, :2], labels[0, 2:] = 3, 1  # much is ignored in one half, and it lacks a class
    torch.save(network.state_dict(), tmp_path / "network.pt")
    torch.save((images, labels), tmp_path / "batch.pt")
    names = get_args(LossName)
    script = [sys.executable, "-c", TWO_PROCESSES, str(tmp_path), *names]
    subprocess.run(script, check=True, timeout=120)
    of_ranks = [torch.load(tmp_path / f"gradients{rank}.pt") for rank in (0, 1)]
    for name in names:
        network.zero_grad()
        build_loss(name)(network(images), labels).backward()
        for averaged in of_ranks:
            torch.testing.assert_close(averaged[name], network.weight.grad)


@pytest.mark.parametrize("world", [2, 3, 40])
def test_each_validation_patch_is_scored_once(pictures, tiny, tmp_path, world):
    job = make_job(tiny(pictures, tmp_path / "run"))
    parts = [load_data(job, 2, Rank(world, local=local)) for local in range(world)]
    assert all(len(part.val_sampler) for part in parts), "a process without one would wait for ever"
    assert sorted(index for part in parts for index in part.val_sampler) == list(range(max(32, world)))


def test_processes_drop_out_differently():
    from segmentation.training.train import _seed_of

    seeds = [_seed_of(3, Rank(4, local=local)) for local in range(4)]
    assert seeds[0] == 3
    assert len(set(seeds)) == 4


# The training as the user starts it


@pytest.fixture(scope="module")
def several(pictures, tiny, tmp_path_factory) -> Path:
    """A training in two processes, started by its command; read only."""
    folder = tmp_path_factory.mktemp("several")
    settings = tiny(pictures, folder / "run", CHANGES | {"devices": 2})
    done = subprocess.run(command(settings, folder), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (0, str(settings.out), "")
    return settings.out


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_with_both_batches(several, pictures, tiny, tmp_path):
    one = train(tiny(pictures, tmp_path / "one", CHANGES | {"data.batch_size": 4}))
    for name in ("last.safetensors", "best.safetensors"):
        weights, expected = load_file(several / name), load_file(one / name)
        for key, value in expected.items():
            np.testing.assert_allclose(weights[key], value, atol=1e-5)
    for row, expected in zip(read_csv(several / "metrics.csv"), read_csv(one / "metrics.csv"), strict=True):
        scores = [name for name in row if name != "val_loss"]  # the mean over batches, which are smaller here
        assert {name: float(row[name]) for name in scores} == pytest.approx(
            {name: float(expected[name]) for name in scores},
            abs=6e-4,  # of the Dice, that is one voxel
        )
    assert float(row["val_dice"]) > 0
    assert read_json(several / "run.json")["state"] == "finished"
    assert (several / "evaluation" / "summary.json").exists()


@pytest.mark.slow
def test_two_machines_take_the_same_steps(several, pictures, tiny, results, tmp_path):
    settings = tiny(pictures, tmp_path / "run", CHANGES | {"nodes": 2})
    from segmentation.training.follow import _free_port

    told = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    given = command(settings, tmp_path)
    machines = [subprocess.Popen(given, env=told | {"NODE_RANK": str(node)}, stdout=-1) for node in (1, 0)]
    assert [machine.wait(120) for machine in machines] == [0, 0]
    for machine in machines:
        assert machine.stdout
        machine.stdout.close()
    assert (settings.out / "model.safetensors").read_bytes() == (several / "model.safetensors").read_bytes()
    again = subprocess.run(given, env=told | {"NODE_RANK": "1"}, capture_output=True, check=True, timeout=60)
    assert again.stderr == b"", "a finished training waits for nobody"


@pytest.mark.slow
def test_killed_at_any_process_it_continues_to_the_same_bytes(pictures, tiny, results, tmp_path):
    changes = {"devices": 2, "epochs": 30, "steps_per_epoch": 4, "network.dropout": 0.3}
    whole = tiny(pictures, tmp_path / "whole", changes)
    train(whole)
    settings = replace(whole, out=tmp_path / "run")
    for number, victim in enumerate((0, 1)):
        process = subprocess.Popen(command(settings, tmp_path), stdout=-1, stderr=-1, text=True)
        table = settings.out / "metrics.csv"
        wait_until(lambda n=5 + 10 * number: table.exists() and len(read_csv(table)) > n)  # noqa: B023 - called at once
        every = [process.pid, *descendants(process.pid)]
        assert len(every) == 2
        os.kill(every[victim], signal.SIGKILL)
        _, error = process.communicate(timeout=60)
        wait_until(lambda: not any(map(is_running, every)))  # noqa: B023 - called at once
        if victim:
            assert process.returncode == 1
            assert error == (
                "skipseg: process 1 of this training: ended by signal 9; give the same command again to continue\n"
            )
    train(settings)
    assert read_json(settings.out / "timing.json")["resumed"] is True
    trained = {name: content for name, content in results(settings.out).items() if "/" not in name}
    assert trained == results(whole.out)


@pytest.mark.slow
@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_every_process(pictures, tiny, tmp_path, asked):
    settings = tiny(pictures, tmp_path / "run", {"devices": 2, "epochs": 4000})
    process = subprocess.Popen(command(settings, tmp_path), stdout=-1, stderr=-1, text=True)
    wait_until((settings.out / "last.ckpt").exists)
    every = [process.pid, *descendants(process.pid)]
    assert len(every) == 2
    process.send_signal(asked)
    out, error = process.communicate(timeout=30)
    again = "prepare, train, predict, probe, ablate and suite continue where they stopped"
    told = f"interrupted; give the same command again: {again}"
    assert (process.returncode, out, error) == (1, "", f"skipseg: {told}\n")
    wait_until(lambda: not any(map(is_running, every)), 10)


@pytest.mark.slow
def test_process_that_cannot_start_is_named(pictures, tiny, tmp_path):
    settings = make_job(tiny(pictures, tmp_path / "run", {"devices": 2})).settings
    before = dict(os.environ)
    with (
        pytest.raises(SkipSegError, match=r"process 1 of this training: .*nowhere is no dataset"),
        followed(Rank(2), replace(settings, dataset=tmp_path / "nowhere")),
    ):
        pytest.fail("the training began without one of its processes")
    assert dict(os.environ) == before


@pytest.mark.slow
def test_process_that_waits_for_a_dead_one_ends(pictures, tiny, tmp_path):
    settings = tiny(pictures, tmp_path / "run", {"devices": 2})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(to_plain(make_job(settings).settings)))
    script = f"""
import os, signal, time, yaml
from segmentation.config import TrainSettings
from segmentation.plain import from_plain
from segmentation.training import follow
from segmentation.training.ranks import Rank
follow.PATIENCE_SECONDS = 1
settings = from_plain(TrainSettings, yaml.safe_load(open({str(tmp_path / "run.yaml")!r})))
popen = follow.subprocess.Popen
def remember(*args, **kwargs):
    remember.process = popen(*args, **kwargs)
    return remember.process
follow.subprocess.Popen = remember
with follow.followed(Rank(2), settings):
    os.kill(remember.process.pid, signal.SIGKILL)
    time.sleep(60)  # as a GPU waits for a message
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 1
    assert done.stderr.startswith("skipseg: process 1 of this training: ended by signal 9")


def test_end_together_leaves_other_threads_alone(monkeypatch):
    monkeypatch.setattr(ranks.threading, "current_thread", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    ranks.EndTogether(Rank(2)).on_train_start(None, None)
    assert signal.getsignal(signal.SIGTERM) is before

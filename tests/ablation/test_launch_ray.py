"""Studies on a Ray cluster: two nodes, one of which dies, give the bytes of one machine; nothing is left running."""

import importlib.util
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segmentation import SkipSegError
from segmentation.ablation import launch_ray as module
from segmentation.ablation.launch_ray import launch_ray
from segmentation.ablation.lease import leases
from segmentation.ablation.ledger import read_ledger
from segmentation.config import AblateSettings
from segmentation.runs import read_json

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: extra `cluster`")


def settings(folder: Path, **changes) -> AblateSettings:
    return AblateSettings(folder / "study.yaml", folder / "out", launcher="ray", **changes)


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SkipSegError, match="launcher ray needs Ray: install skipseg with its extra `cluster`"):
        launch_ray([tmp_path], settings(tmp_path), 1)


@needs_ray
@pytest.mark.parametrize("address", ["head", "ray://head:10001", "head:port", ":6379"])
def test_wrong_address_is_refused(tmp_path, address):
    with pytest.raises(SkipSegError, match="address must be HOST:PORT of the head of a Ray cluster, or auto, got"):
        launch_ray([tmp_path], settings(tmp_path, address=address), 1)


@needs_ray
def test_address_where_nobody_listens_is_refused_at_once(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(SkipSegError, match=f"no Ray cluster answers at {address}"):
            launch_ray([tmp_path], settings(tmp_path, address=address), 1)


def test_node_without_the_shared_disk_says_so(tmp_path):
    assert "put study folder, dataset and cache on a disk that all nodes share" in str(
        module._look(tmp_path, Path("out/runs/a"), module.__version__)
    )
    assert "install the same on all nodes" in str(module._look(tmp_path, Path("out/runs/a"), "0.0.1"))
    (tmp_path / "config.yaml").touch()
    assert module._look(tmp_path.parent, Path(tmp_path.name), module.__version__) is None
    assert "does not see" in str(module._work(tmp_path, Path("out/runs/a")))


# A cluster of two nodes on this machine

EPOCHS = 150


def is_running(process: int) -> bool:
    """Whether a process is there and not just waiting to be collected."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.strip().startswith("Z")


def holders(out: Path) -> dict[str, int]:
    """Run to the process that holds its last lease."""
    found = {}
    for folder in (out / "runs").iterdir():
        for path in leases(folder)[-1:]:
            text = path.read_text() if path.exists() else ""
            if text:
                found[folder.name] = json.loads(text)["process"]
    return found


def wait_until(true, process: "subprocess.Popen[str]", seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster():
    """A head that works on nothing, and two nodes of one core and one (pretended) GPU."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: extra `cluster`")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1, num_gpus=1) for _ in range(2)]
    yield cluster, nodes
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_study_survives_the_end_of_a_node(cluster, tmp_path, pictures, write_study, results):
    rays, nodes = cluster
    base = {
        "folds": 0, "epochs": EPOCHS, "steps_per_epoch": 4, "device": "cpu",
        "network": {"depth": 1, "width": 4}, "data": {"patch_size": [16, 16], "batch_size": 2},
    }  # fmt: skip
    study = write_study(tmp_path, pictures, base=base)
    command = [sys.executable, "-m", "segmentation", "ablate", str(study), "--out"]
    far = [*command, str(tmp_path / "far"), "--launcher", "ray", "--address", rays.address]
    out = tmp_path / "far"

    # More GPUs than there are: a run would wait for ever.
    asked = subprocess.run([*far, "--gpus", "3"], capture_output=True, text=True, check=False)
    assert (asked.returncode, asked.stderr) == (
        1, "skipseg: gpus is 3.0, but the Ray cluster has 2; no run could ever start\n"
    )  # fmt: skip

    def both_are_under_way() -> bool:
        return len(list(out.rglob("last.ckpt"))) == 2 and len(holders(out)) == 2

    # An interrupt ends all tasks quickly.
    process = subprocess.Popen([*far, "--gpus", "0.25"], stdout=-1, stderr=-1, text=True)
    wait_until(both_are_under_way, process)
    first = holders(out)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error.count("interrupted; give the same command again")) == (1, 1), error
    deadline = time.monotonic() + 20
    while any(map(is_running, first.values())):
        assert time.monotonic() < deadline
        time.sleep(0.1)

    # The same command goes on; one node dies, and its run moves to the other.
    process = subprocess.Popen([*far, "--gpus", "0.25"], stdout=-1, stderr=-1, text=True)
    wait_until(lambda: len(set(holders(out).values()) - set(first.values())) == 2, process)
    second = holders(out)
    rays.remove_node(nodes.pop(), allow_graceful=False)
    seen = {(run, number) for run, number in second.items()}
    while process.poll() is None:
        for run, number in holders(out).items():
            if (run, number) not in seen:  # the old worker was gone before the new one began
                assert not is_running(second[run])
                seen.add((run, number))
        time.sleep(0.1)
    printed, error = process.communicate()
    assert process.returncode == 0, printed + error
    assert len(seen) == 3, "one run, and not more, changed its place"
    entries = read_ledger(out)
    assert [entry.state for entry in entries] == ["finished", "finished"]
    assert sorted(entry.attempts for entry in entries) == [2, 3]
    assert not list(out.rglob(".lease-*"))

    # As if nothing had happened.
    subprocess.run([*command, str(tmp_path / "near"), "--workers", "2"], check=True, capture_output=True)
    assert results(out) == results(tmp_path / "near")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_failed_run_is_named_and_the_others_finish(cluster, tmp_path, pictures, write_study, monkeypatch):
    rays, _ = cluster
    study = write_study(tmp_path, pictures)
    monkeypatch.chdir(tmp_path)  # relative paths start here on every node
    command = [sys.executable, "-m", "segmentation", "ablate", study.name, "--out", "out", "--launcher"]
    subprocess.run([*command, "none"], check=True, capture_output=True)
    broken, other = (Path("out/runs") / run["id"] for run in read_json(Path("out/study.json"))["runs"])
    (broken / "last.ckpt").write_bytes(b"damaged")
    given = [*command, "ray", "--address", rays.address, "--workers", "1"]
    done = subprocess.run(given, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"skipseg: 1 of 2 runs failed; rerun to try them again: {broken.name}: ")
    assert "last.ckpt cannot be resumed from" in done.stderr
    assert done.stderr.count("\n") == 1
    assert (other / "evaluation" / "summary.json").exists()
    assert read_json(broken / "run.json")["state"] == "failed"
    (broken / "last.ckpt").unlink()
    subprocess.run(given, check=True, capture_output=True)
    assert [entry.state for entry in read_ledger(Path("out"))] == ["finished", "finished"]

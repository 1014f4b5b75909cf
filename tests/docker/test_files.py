"""The rules of a good image, read from the files: no engine is needed."""

import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from segmentation import SkipSegError
from segmentation.arguments import parse
from segmentation.serve.server import VARIABLE, token_of

ROOT = Path(__file__).parents[2]
ORDER = ["ARG", "FROM", "LABEL", "COPY", "RUN", "ENV", "VOLUME", "WORKDIR", "USER", "HEALTHCHECK", "ENTRYPOINT", "CMD"]
WRITABLE = {"/output", "/scratch"}
SERVICES = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]


def is_served(service: str) -> bool:
    """Whether a service answers requests."""
    return service.startswith("serve")


SERVED = [service for service in SERVICES if is_served(service)]


def of(instructions: list[Any], name: str, stage: int | None = None) -> list[Any]:
    """Instructions of a name, of the last stage or of all."""
    last = instructions[-1].stage
    return [each for each in instructions if each.name == name and (stage is None or each.stage == last)]


def environment(instructions: list[Any]) -> dict[str, str]:
    """Variables of the last stage."""
    return dict(word.split("=", 1) for each in of(instructions, "ENV", -1) for word in each.text.split())


# The image


def test_only_known_instructions_are_used(image, challenge):
    assert {each.name for each in (*image, *challenge)} <= set(ORDER)


def test_the_base_is_pinned_and_the_same_in_every_stage(image):
    (version,) = [each.text.partition("=")[2] for each in image if each.stage == -1]
    assert re.fullmatch(r"3\.\d+-slim-\w+", version)
    assert [each.words[0] for each in of(image, "FROM")] == ["python:${PYTHON}"] * 2


def test_the_base_is_a_python_that_the_project_supports(image):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = image[0].text.partition("=")[2].partition("-")[0]
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]


def test_the_last_user_is_a_number_and_not_root(image, challenge):
    for instructions in (image, challenge):
        assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", of(instructions, "USER", -1)[-1].text)
        after = instructions[instructions.index(of(instructions, "USER", -1)[-1]) :]
        assert {each.name for each in after} & {"RUN", "COPY"} == set(), "written by the user, so open to change"


def test_the_user_may_write_the_output_and_scratch_alone(image):
    (made,) = of(image, "RUN", -1)
    assert set(re.search(r"--mode 1777 (.*)", made.text)[1].split()) == WRITABLE
    assert set(of(image, "VOLUME")[0].words) == WRITABLE
    places = environment(image)
    assert all(
        any(places[name].startswith(place) for place in WRITABLE) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")
    )


def test_nothing_is_fetched_but_by_pip(image, challenge):
    runs = " ".join(each.text for each in of([*image, *challenge], "RUN"))
    assert not re.search(r"https?:|curl|wget|git |apt|sudo", runs)
    assert all(each.name != "ADD" for each in (*image, *challenge))


def test_no_layer_keeps_a_cache_or_a_secret(image, challenge):
    installs = [each.text for each in of(image, "RUN") if "pip install" in each.text]
    assert len(installs) == 2
    assert all("--no-cache-dir" in text and "--constraint constraints.txt" in text for text in installs)
    names = [each.text.upper() for each in (*image, *challenge) if each.name in ("ARG", "ENV")]
    assert not [name for name in names if re.search("TOKEN|PASSWORD|SECRET|_KEY", name)]


def test_no_index_is_named(image):
    assert "ARG TORCH_INDEX=" in (ROOT / "docker" / "Dockerfile").read_text()
    for path in (ROOT / "docker").rglob("*"):
        assert path.is_dir() or "://" not in path.read_text(), path


def test_its_extras_are_declared(image):
    (extras,) = [each.text for each in of(image, "ARG") if each.text.startswith("EXTRAS=")]
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.partition("=")[2].strip('"').split(",")) <= set(declared) - {"dev"}


def test_the_last_stage_holds_the_environment_and_no_source(image):
    copies = {tuple(each.words): each.flags for each in of(image, "COPY", -1)}
    assert copies == {
        ("/opt/skipseg", "/opt/skipseg"): {"from": "build"},
        ("configs", "/configs"): {},
    }


def test_the_health_check_is_a_command_of_ours(image):
    (check,) = of(image, "HEALTHCHECK")
    assert set(check.flags) == {"interval", "timeout", "start-period", "retries"}
    assert check.words[0] == "skipseg"
    parse(check.words[1], check.words[2:])


def test_the_image_starts_the_command_line(image):
    assert (of(image, "ENTRYPOINT")[0].words, of(image, "CMD")[0].words) == (["skipseg"], ["--help"])


def test_labels_say_what_the_image_is(image):
    keys = re.findall(r"org\.opencontainers\.image\.(\w+)=", of(image, "LABEL")[0].text)
    assert keys == ["title", "description", "licenses", "revision"]


# What is copied


def test_all_that_is_copied_exists_and_is_let_through(image, in_context: Callable[[str], bool]):
    sources = [word for each in of(image, "COPY") if "from" not in each.flags for word in each.words[:-1]]
    assert len(sources) > 5
    assert [source for source in sources if not ((ROOT / source).exists() and in_context(source))] == []


def test_every_file_of_the_packages_is_let_through(in_context: Callable[[str], bool]):
    listing = ["git", "-C", str(ROOT), "ls-files", "segmentation", "data_prep", "configs"]
    files = subprocess.run(listing, capture_output=True, check=True, text=True).stdout.split()
    assert len(files) > 50
    assert [file for file in files if not in_context(file)] == []


@pytest.mark.parametrize(
    "file",
    [
        ".git/config", ".env", ".venv/bin/python", "runs/demo/model.safetensors", "docker/input/scan.nii.gz",
        "id_ed25519", "tests/conftest.py", "segmentation/__pycache__/cli.pyc", "segmentation/scans/__pycache__/s.pyc",
    ],
)  # fmt: skip
def test_nothing_else_is_let_through(in_context: Callable[[str], bool], file: str):
    assert not in_context(file)


# The image for grand-challenge.org


def test_the_challenge_image_is_made_from_ours(challenge):
    assert of(challenge, "ARG")[0].text == "SKIPSEG=skipseg:gpu"
    assert of(challenge, "FROM")[0].text == "${SKIPSEG}"
    (copy,) = of(challenge, "COPY")
    assert (ROOT / "docker" / "grand-challenge" / copy.words[0]).is_file()
    assert of(challenge, "ENTRYPOINT")[0].words == ["python", copy.words[1]]


def test_the_challenge_image_writes_where_the_platform_allows_it(challenge):
    places = environment(challenge)
    assert {places[name].split("/")[1] for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")} == {"tmp"}
    assert places["SKIPSEG_MODEL"] == "/opt/ml/model"


# compose.yaml


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_hardened(service: str):
    about = SERVICES[service]
    assert about["read_only"] is True
    assert about["cap_drop"] == ["ALL"]
    assert about["security_opt"] == ["no-new-privileges:true"]
    assert about["network_mode"] == ("bridge" if is_served(service) else "none")
    assert about["profiles"] == [service], "`up` alone starts nothing"
    assert re.fullmatch(r"\$\{USER_ID:-[1-9]\d+\}:\$\{GROUP_ID:-[1-9]\d+\}", about["user"])
    assert "privileged" not in about
    assert "shm_size" not in about, "shared memory is not used"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_can_change_only_its_output(service: str):
    mounts = {mount["target"]: mount for mount in SERVICES[service]["volumes"]}
    assert {target for target, mount in mounts.items() if not mount.get("read_only")} == WRITABLE
    assert {"/model" if is_served(service) else "/input", "/output"} <= set(mounts)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_runs_a_command_that_is_accepted(service: str):
    parse(SERVICES[service]["command"][0], SERVICES[service]["command"][1:])


@pytest.mark.parametrize("service", SERVED)
def test_a_server_is_reached_from_its_machine_alone_and_by_a_token(service: str):
    about = SERVICES[service]
    assert [port.split(":")[0] for port in about["ports"]] == ["127.0.0.1"]
    settings = parse(about["command"][0], about["command"][1:]).settings
    assert about["ports"] == [f"127.0.0.1:${{PORT:-8000}}:{settings.port}"]
    with pytest.raises(SkipSegError, match="so a token is needed"):
        token_of(settings)
    assert list(about["environment"]) == [VARIABLE]
    assert any(str(settings.state).startswith(place) for place in WRITABLE)


@pytest.mark.parametrize("service", SERVED)
def test_the_health_of_a_server_is_asked_by_a_command_of_ours(service: str):
    kind, program, command, *options = SERVICES[service]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "skipseg")
    asked, served = (parse(command, given).settings for given in (options, SERVICES[service]["command"][1:]))
    assert (asked.check, asked.port, asked.models) == (True, served.port, served.models)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_built_for_what_it_computes_on(service: str):
    about = SERVICES[service]
    gpu = service.endswith("-gpu")
    devices = about.get("deploy", {}).get("resources", {}).get("reservations", {}).get("devices", [])
    assert [device["capabilities"] for device in devices] == ([["gpu"]] if gpu else [])
    assert about["image"] == ("skipseg:gpu" if gpu else "skipseg:cpu")
    assert ("TORCH_INDEX" in about["build"]["args"]) is not gpu
    context = (ROOT / "docker" / about["build"]["context"]).resolve()
    assert (context, (context / about["build"]["dockerfile"]).is_file()) == (ROOT, True)

import subprocess
import sys
from typing import Any

import pytest

from segmentation import SkipSegError
from segmentation.cli import main
from segmentation.config import DescribeSettings, NetworkSettings
from segmentation.model.describe import describe
from segmentation.model.layers import total_cost
from segmentation.model.presets import PRESETS
from segmentation.terminal import as_text


def text_of(dims: int = 2, size: list[int] | None = None, **network: Any) -> str:
    settings = {"depth": 2, "width": 8} | network
    return as_text(describe(DescribeSettings(NetworkSettings(**settings), dims=dims, size=size or [64] * dims)))


def rows(text: str, head: str) -> list[list[str]]:
    """Cells of the table whose first column is ``head``; two blanks or more part cells."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(head))
    table = [line for line in lines[start:] if not line or set(line) - set("- ")]
    end = table.index("") if "" in table else len(table)
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in table[:end]]


def test_switches_of_every_level():
    text = text_of(
        long_skip="add", long_skip_levels={1: "none"}, long_skip_scale=2.0, long_skip_placebo="shuffle",
        long_skip_gradient="forward_only", short_skip="dense", short_skip_where=["encoder", "bottleneck"],
        short_skip_levels={2: "add"}, convs_levels={1: 3},
    )  # fmt: skip
    header, *levels = rows(text, "level")
    assert header == [
        "level", "channels", "size", "convs", "long skip", "reads", "gradient", "scale", "placebo",
        "short skip, encoder", "decoder",
    ]  # fmt: skip
    assert levels == [
        ["0", "8", "64 x 64", "2", "add", "0", "forward_only", "2", "shuffle", "dense", "none"],
        ["1", "16", "32 x 32", "3", "none", "-", "-", "-", "-", "dense", "none"],
        ["2", "32", "16 x 16", "2", "-", "-", "-", "-", "-", "add", "-"],
    ]


def test_a_level_shows_the_scale_of_the_encoder_level_that_it_reads():
    text = text_of(long_skip_permute=[1, 0], long_skip_scale_decay=0.5, long_skip_scale_learned=True)
    assert [row[5:8] for row in rows(text, "level")[1:3]] == [["1", "both", "0.5, learnt"], ["0", "both", "1, learnt"]]


def test_totals_are_those_of_the_layers():
    network = NetworkSettings(depth=2, width=8)
    cost = total_cost(network, 2, 1, 2, size=(64, 64))
    totals = {row[0]: row[1] for row in rows(text_of(), "parameters")}
    assert totals["parameters"] == f"{cost.parameters:,}" == "29,490"
    assert totals["multiply-accumulates"] == f"{cost.macs / 1e6:.3g} M"
    assert totals["activation memory"] == f"{cost.activation_bytes / 2**20:.1f} MiB"
    assert totals["receptive field"] == "44 x 44"


def test_parts_sum_up_to_the_parameters():
    _, *parts = rows(text_of(long_skip="gated", short_skip="add", input_skip=True), "part")
    text = text_of(long_skip="gated", short_skip="add", input_skip=True)
    total = rows(text, "parameters")[0][1]
    assert sum(int(row[3].replace(",", "")) for row in parts) == int(total.replace(",", ""))
    names = [row[0] for row in parts]
    assert names[:3] == ["stem", "encoder.0", "down.0"]
    assert names[-2:] == ["input_skip", "heads.0"]
    assert "joins.1" in names


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_described(name, dims):
    text = as_text(describe(DescribeSettings(NetworkSettings(**PRESETS[name] | {"preset": name}), dims=dims)))
    assert text.splitlines()[1] == f"preset {name}"
    assert len(rows(text, "level")) == PRESETS[name]["depth"] + 2
    assert max(map(len, text.splitlines())) <= 140
    assert text == "\n".join(line.rstrip() for line in text.splitlines())


def test_what_all_levels_share_is_one_line():
    text = text_of(deep_supervision=True, input_skip=True, long_skip_dropout=0.25, upsample="nearest")
    assert (
        "conv-norm-act, basic blocks, leaky_relu, norm instance, init he, down by maxpool, up by nearest, input skip, "
        "deep supervision, path dropout 0.25 on long skips"
    ) in text.splitlines()


def test_a_matched_budget_shows_the_widths_that_were_found():
    text = text_of(width=16, long_skip="none", budget_match="params")
    assert "widths matched in params to the same network with concat, without short skips" in text
    channels = [int(row[1]) for row in rows(text, "level")[1:]]
    assert channels[0] > 16
    with pytest.raises(SkipSegError, match="finds no widths"):
        text_of(depth=1, width=1, long_skip="se", budget_match="params")


def test_a_network_without_depth_is_refused():
    with pytest.raises(SkipSegError, match="needs depth and width"):
        describe(DescribeSettings(NetworkSettings(width=8)))


def test_the_command_prints_it(capsys):
    assert main(["describe", "--network.depth", "2", "--network.width", "8", "--size", "[64, 64]"]) == 0
    assert capsys.readouterr().out.strip() == text_of()


def test_the_command_needs_no_torch():
    """Neither does matching a budget, which studies do for hundreds of runs."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'numpy', 'monai']))\n"
        "from segmentation.cli import main\n"
        "sys.exit(main(['describe', '--network.preset', 'unetpp', '--network.budget_match', 'macs']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "preset unetpp\nwidths matched in macs" in done.stdout

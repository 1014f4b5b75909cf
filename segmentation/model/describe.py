"""What ``skipseg describe`` prints: the switches of every level, and what the network costs, without PyTorch."""

from collections.abc import Sequence
from typing import Any

from segmentation.config import DescribeSettings, NetworkSettings
from segmentation.model.budget import default_reference, solve_widths
from segmentation.model.cost import LayerCost
from segmentation.model.layers import SIZE, layers, total_cost
from segmentation.plain import to_plain
from segmentation.terminal import Part, Table, counted

_NONE = "-"


def describe(settings: DescribeSettings) -> list[Part]:
    """Describe a network in words and tables.

    Raises:
        SkipSegError: If depth or width is missing, or no widths meet the budget that is asked for.

    Examples:
        >>> describe(DescribeSettings(NetworkSettings(depth=1, width=4), size=[32, 32]))[0]
        'U-Net for images of 32 x 32 voxels and 1 channel, 2 classes'
    """
    size, given = _size(settings), settings.network
    network, found = _solved(settings)
    channels = f"{counted(settings.in_channels, 'channel')}, {settings.classes} classes"
    lines: list[Part] = [f"U-Net for images of {_times(size)} voxels and {channels}"]
    if network.preset:
        lines.append(f"preset {network.preset}")
    if given.budget_match != "none":
        lines.append(f"widths matched in {given.budget_match} to the same network with concat, without short skips")
    lines += ["", Table(_switches(network, found)), "", _common(network), ""]
    return [*lines, _totals(network, settings, found, size), "", Table(_parts(found), right=True)]


def describe_plain(settings: DescribeSettings) -> dict[str, Any]:
    """Describe a network as plain data: its settings, what it costs, and every layer.

    Raises:
        SkipSegError: If depth or width is missing, or no widths meet the budget that is asked for.

    Examples:
        >>> describe_plain(DescribeSettings(NetworkSettings(depth=1, width=4), size=[32, 32]))["cost"]["parameters"]
        1682
    """
    network, found = _solved(settings)
    cost = total_cost(network, settings.dims, settings.in_channels, settings.classes, size=_size(settings))
    about = {"dims": settings.dims, "in_channels": settings.in_channels, "classes": settings.classes}
    costs = {"cost": to_plain(cost), "layers": [to_plain(each) for each in found]}
    return {"network": to_plain(network), **about, "size": list(_size(settings)), **costs}


def _size(settings: DescribeSettings) -> tuple[int, ...]:
    """Voxels of the input."""
    return tuple(settings.size or SIZE[settings.dims])


def _solved(settings: DescribeSettings) -> tuple[NetworkSettings, list[LayerCost]]:
    """The network with the widths that meet its budget, and its layers."""
    dims, channels, classes, size = settings.dims, settings.in_channels, settings.classes, _size(settings)
    given = settings.network
    network = solve_widths(given, default_reference(given), dims, channels, classes, size=size)
    return network, list(layers(network, dims, channels, classes, size=size))


def _switches(network: NetworkSettings, found: Sequence[LayerCost]) -> list[list[str]]:
    """Every level's skips; the bottleneck last."""
    header = ["level", "channels", "size", "convs", "long skip", "reads", "gradient", "scale", "placebo"]
    rows = [[*header, "short skip, encoder", "decoder"]]
    channels = network.channels()
    sizes = {layer.name.split(".")[1]: layer.size for layer in found if layer.name.startswith("encoder.")}
    for level in range(len(channels) - 1):
        source = (network.long_skip_permute or range(len(channels)))[level]
        kind = network.long_skip_at(level)
        tap = [_NONE] * 4
        if kind != "none":
            tap = [str(source), network.long_skip_gradient, _scale(network, source), network.long_skip_placebo]
        decoder = _NONE if network.long_skip == "fullscale" else network.short_skip_at(level, "decoder")
        short = [network.short_skip_at(level, "encoder"), decoder]
        convs = str(network.convs_at(level))
        rows.append([str(level), str(channels[level]), _times(sizes[str(level)]), convs, kind, *tap, *short])
    depth = len(channels) - 1
    last = next(layer.size for layer in reversed(found) if layer.name.startswith("bottleneck."))
    short = [network.short_skip_at(depth, "bottleneck"), _NONE]
    middle = [str(depth), str(channels[-1]), _times(last), str(network.convs_at(depth))]
    return [*rows, [*middle, *[_NONE] * 5, *short]]


def _scale(network: NetworkSettings, level: int) -> str:
    """Factor on the encoder map of ``level``."""
    scale = f"{network.long_skip_scale * network.long_skip_scale_decay**level:g}"
    return f"{scale}, learnt" if network.long_skip_scale_learned else scale


def _common(network: NetworkSettings) -> str:
    """What all levels share, in one line."""
    words = [network.order, f"{network.block} blocks", network.activation, f"norm {network.norm}"]
    words += [f"init {network.init}", f"down by {network.downsample}"]
    words += [] if network.long_skip == "fullscale" else [f"up by {network.upsample}"]
    words += ["input skip"] * network.input_skip + ["deep supervision"] * network.deep_supervision
    if network.long_skip_dropout:
        words.append(f"{network.long_skip_dropout_mode} dropout {network.long_skip_dropout:g} on long skips")
    return ", ".join(words)


def _totals(
    network: NetworkSettings, settings: DescribeSettings, found: Sequence[LayerCost], size: tuple[int, ...]
) -> Table:
    """The whole network's cost, and what each number counts."""
    total = total_cost(network, settings.dims, settings.in_channels, settings.classes, size=size)
    field = next(layer.field for layer in found if layer.name == "heads.0")
    rows = [
        ["parameters", f"{total.parameters:,}", ""],
        ["multiply-accumulates", _short(total.macs), "of the convolutions, for one image"],
        ["activation memory", _mebibytes(total.activation_bytes), "all maps that one image writes in training, fp32"],
        ["receptive field", _times(field), "voxels that an output voxel depends on, at most; normalisation aside"],
    ]
    return Table(rows, header=False)


def _parts(found: Sequence[LayerCost]) -> list[list[str]]:
    """Cost of each part of the network, in the order in which it is computed."""
    parts: dict[str, list[LayerCost]] = {}
    for layer in found:
        part = layer.name.split(".")
        parts.setdefault(part[0] if part[0] == "bottleneck" else ".".join(part[:2]), []).append(layer)
    rows = [["part", "channels", "size", "parameters", "MACs", "memory", "field"]]
    for name, members in parts.items():
        last = members[-1]
        parameters, macs = sum(each.parameters for each in members), sum(each.macs for each in members)
        memory = _mebibytes(4 * sum(each.activation for each in members))
        cost = [f"{parameters:,}", _short(macs), memory]
        rows.append([name, str(last.channels), _times(last.size), *cost, _times(last.field)])
    return rows


def _times(values: Sequence[int]) -> str:
    """Sizes as ``256 x 256``."""
    return " x ".join(map(str, values))


def _short(count: int) -> str:
    """A large number with its unit, to three digits.

    Examples:
        >>> _short(0), _short(999), _short(48_123_000_000)
        ('0', '999', '48.1 G')
    """
    for unit, factor in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return str(count)


def _mebibytes(count: int) -> str:
    """Bytes in MiB."""
    return f"{count / 2**20:,.1f} MiB"

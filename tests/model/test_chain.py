from typing import get_args

import pytest
import torch
from torch import nn

from segmentation.config import ShortSkip
from segmentation.model.chain import Chain
from segmentation.model.unet import count_parameters

SHORT = get_args(ShortSkip)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("short", SHORT)
def test_a_chain_has_its_units_and_trains(short, dims):
    chain = Chain(5, 10, 2, 3, short, activation="elu", norm="instance", dims=dims, kernel=5)
    x = torch.randn(2, 2, *(7, 6, 5)[:dims])
    y = chain(x)
    assert y.shape == (2, 3, *x.shape[2:])
    assert len(chain.units) == 5
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in chain.parameters())
    assert {unit.conv.kernel_size for unit in chain.units} == {(5,) * dims}


@pytest.mark.parametrize("short", ["none", "add"])
def test_a_chain_is_its_units_in_sequence(short):
    chain = Chain(4, 6, 1, 1, short, activation="tanh")
    x = torch.randn(1, 1, 7, 5)
    y = chain.stem(x)
    for unit in chain.units:
        y = unit(y) + (y if short == "add" else 0)
    assert torch.allclose(chain(x), chain.head(y), atol=1e-6)


def test_an_additive_skip_may_span_several_units():
    chain = Chain(5, 6, 1, 1, "add", every=2)
    assert len(chain.block.joins) == 3
    x = torch.randn(1, 6, 4, 4)
    first, second, *_ = chain.units
    assert torch.allclose(chain.block.joins[0](x, second(first(x))), x + second(first(x)))


def test_parameters_of_chains_by_hand():
    unit = 8 * 8 * 9 + 8
    ends = (1 * 8 * 9 + 8) + (8 + 1)
    assert count_parameters(Chain(4, 8, 1, 1, "none")) == ends + 4 * unit
    assert count_parameters(Chain(4, 8, 1, 1, "add")) == ends + 4 * unit
    assert count_parameters(Chain(4, 8, 1, 1, "scaled_add")) == ends + 4 * unit
    assert count_parameters(Chain(4, 8, 1, 1, "gated_add")) == ends + 4 * (unit + 8 * 8 + 8)
    dense = sum((8 + 2 * index) * 2 * 9 + 2 for index in range(4)) + 16 * 8 + 8
    assert count_parameters(Chain(4, 8, 1, 1, "dense")) == ends + dense


def test_chains_that_differ_in_their_skip_start_alike():
    plain, residual = (Chain(6, 4, 1, 1, short, seed=3).state_dict() for short in ("none", "add"))
    assert plain.keys() == residual.keys()
    assert all(torch.equal(plain[name], residual[name]) for name in plain)


def test_removing_a_residual_unit_leaves_its_input():
    chain = Chain(3, 4, 1, 1, "add", activation="elu", zero_last=True)
    assert isinstance(chain.units, nn.ModuleList)
    x = torch.randn(1, 1, 5, 5)
    assert torch.equal(chain(x), chain.head(chain.stem(x)))


def test_gradients_vanish_in_a_plain_chain_of_sigmoids_and_not_with_skips():
    """Each sigmoid takes away more than half a decade; the additive path takes away next to nothing."""
    decades = {}
    for short in ("none", "add"):
        chain = Chain(12, 8, 1, 1, short, activation="sigmoid", init="torch")
        chain(torch.randn(4, 1, 9, 9)).square().mean().backward()
        first, last = (chain.units[index].conv.weight.grad.norm() for index in (0, -1))
        decades[short] = torch.log10(first / last).item()
    assert decades["none"] < -6
    assert decades["add"] > -2

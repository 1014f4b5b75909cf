import math

import pytest

from segmentation.data.budgets import BUDGETS, budgets_by_cost
from segmentation.data.fingerprint import ChannelFingerprint, Fingerprint
from segmentation.data.plan import make_plan

CHANNEL = ChannelFingerprint("MRI", 0, 300, 50, 80, 40, 60, 2000)


@pytest.mark.parametrize("hardware", ["cpu", "cuda"])
@pytest.mark.parametrize("shape", [(36, 50, 35), (565, 584)])
def test_every_next_budget_plans_a_step_that_costs_more(hardware, shape):
    spacing = (1.0,) * len(shape)
    found = Fingerprint(len(shape), 9, 5, shape, spacing, spacing, (CHANNEL,))
    costs: list[float] = []
    for budget in budgets_by_cost(BUDGETS[hardware]):
        values = make_plan(found, hardware, None, budget).values
        voxels = values["data.batch_size"] * math.prod(values["data.patch_size"])
        costs.append(voxels * values["network.width"] ** 2)
    assert costs == sorted(costs)
    assert costs[0] < costs[-1] / 16


@pytest.mark.parametrize("hardware", ["cpu", "cuda"])
def test_the_usual_budget_is_among_them(hardware):
    usual = BUDGETS[hardware]
    assert usual in budgets_by_cost(usual)
    assert len({each.volume_limit for each in budgets_by_cost(usual)}) == 1

"""Schedule, moving average and validation of the LightningModule."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from segmentation.config import NetworkSettings, OptimSettings
from segmentation.model.channels_last import is_channels_last
from segmentation.training.task import learning_rate_factor

SCHEDULES = ("cosine", "poly", "constant")


@given(st.sampled_from(SCHEDULES), st.integers(1, 60), st.floats(0, 0.99))
def test_learning_rate_is_a_share_at_every_step(schedule, steps, warmup_share):
    optim = OptimSettings(schedule=schedule, warmup_share=warmup_share)
    # One step more than there are: the scheduler looks ahead after the last one.
    factors = [learning_rate_factor(step, steps, optim) for step in range(steps + 1)]
    assert all(isinstance(factor, float) and 0 <= factor <= 1 for factor in factors)
    assert factors[0] > 0
    assert max(factors) == pytest.approx(1)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


@pytest.mark.parametrize(("schedule", "middle", "end"), [("cosine", 0.5, 0), ("poly", 0.5**0.9, 0), ("constant", 1, 1)])
def test_schedules_by_hand(schedule, middle, end):
    optim = OptimSettings(schedule=schedule, warmup_share=0.1)
    assert learning_rate_factor(4, 100, optim) == pytest.approx(0.5)
    assert learning_rate_factor(55, 100, optim) == pytest.approx(middle)
    assert learning_rate_factor(100, 100, optim) == pytest.approx(end)


def test_average_by_hand(make_task):
    task = make_task(OptimSettings(ema_decay=0.2))
    task.trainer = SimpleNamespace(global_step=1)
    name, weight = next(iter(task.network.named_parameters()))
    first = weight.detach().clone()
    task.on_train_batch_end(None, None, 0)
    assert torch.equal(task.average[name], first)
    with torch.no_grad():
        weight += 1
    task.on_train_batch_end(None, None, 1)
    decay = (1 + 1) / (10 + 1)  # the early limit is below 0.2
    torch.testing.assert_close(task.average[name], decay * first + (1 - decay) * (first + 1))


def test_late_average_decays_as_set(make_task):
    task = make_task(OptimSettings(ema_decay=0.2))
    task.trainer = SimpleNamespace(global_step=10_000)
    name, weight = next(iter(task.network.named_parameters()))
    task.on_train_batch_end(None, None, 0)
    first = task.average[name].clone()
    with torch.no_grad():
        weight += 1
    task.on_train_batch_end(None, None, 1)
    torch.testing.assert_close(task.average[name], first + 0.8)


def test_without_average_the_network_itself_is_kept(make_task):
    task = make_task(OptimSettings(ema_decay=0))
    task.trainer = SimpleNamespace(global_step=1)
    task.on_train_batch_end(None, None, 0)
    assert task.average == {}
    kept = task.final_weights()
    assert all(torch.equal(kept[name], value) for name, value in task.network.state_dict().items())


def test_validation_scores_the_average_and_puts_the_weights_back(make_task):
    task = make_task()
    trained = {name: value.clone() for name, value in task.network.state_dict().items()}
    task.average = {name: torch.zeros_like(value) for name, value in trained.items()}
    task.on_validation_start()
    images, labels = torch.rand(2, 1, 9, 7), torch.zeros(2, 9, 7, dtype=torch.long)
    task.validation_step((images, labels), 0)
    assert task.val_losses[0].item() == pytest.approx(np.log(3) + 1, abs=1e-3)  # zero weights: every class equal
    task.on_validation_end()
    assert all(torch.equal(value, trained[name]) for name, value in task.network.state_dict().items())
    assert all(value.abs().max() == 0 for value in task.average.values())


def test_validation_counts_voxels_and_leaves_the_ignored_out(make_task):
    task = make_task()
    task.network.forward = lambda images: torch.tensor([[[9.0, 0, 0, 0]], [[0, 9, 9, 9]], [[0, 0, 0, 0]]])[None]
    task.on_validation_start()
    task.validation_step((torch.rand(1, 1, 1, 4), torch.tensor([[[0, 1, 0, 3]]])), 0)
    organ, lesion = task.validation_dice()
    assert organ == pytest.approx(2 / 3)  # one hit, one false alarm, one voxel ignored
    assert np.isnan(lesion)


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_optimizers(make_task, name, kind):
    made = make_task(OptimSettings(optimizer=name, learning_rate=0.5, weight_decay=0.25)).configure_optimizers()
    assert type(made["optimizer"]) is kind
    group = made["optimizer"].param_groups[0]
    assert (group["initial_lr"], group["weight_decay"]) == (0.5, 0.25)
    if name == "sgd":
        assert (group["momentum"], group["nesterov"]) == (0.99, True)


def test_the_loss_that_was_chosen_is_the_one_that_is_trained(make_task):
    task = make_task(OptimSettings(loss="ce"))
    images, labels = torch.rand(2, 1, 17, 13), torch.randint(3, (2, 17, 13))
    torch.testing.assert_close(task.training_step((images, labels), 0), functional.cross_entropy(task(images), labels))


def test_deep_supervision_trains_every_output(make_task):
    task = make_task(network=NetworkSettings(depth=3, width=4, deep_supervision=True))
    task.training_step((torch.rand(2, 1, 17, 13), torch.randint(4, (2, 17, 13))), 0).backward()
    assert [name for name, weight in task.network.named_parameters() if weight.grad is None] == []


def test_images_are_standardised(make_task):
    task = make_task()
    task.network.forward = lambda images: images
    torch.testing.assert_close(task(torch.full((1, 1, 3, 3), 0.8)), torch.full((1, 1, 3, 3), 2.0))


@pytest.mark.parametrize(("norm", "last"), [("instance", True), ("none", True), ("batch", False), ("group", False)])
def test_weights_and_images_have_the_layout_in_which_a_cpu_is_fastest(make_task, norm, last):
    task = make_task(network=NetworkSettings(depth=1, width=8, norm=norm))
    task.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    task.configure_model()
    weights = [weight for weight in task.network.parameters() if weight.ndim == 4 and min(weight.shape[1:]) > 1]
    assert [is_channels_last(weight) for weight in weights] == [last] * len(weights)
    maps = []
    for layer in task.network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, given, result: maps.append(is_channels_last(result)))
    task.training_step((torch.rand(2, 1, 16, 16), torch.zeros(2, 16, 16, dtype=torch.long)), 0)
    assert set(maps) == {last}
    kept = task.final_weights()
    assert all(torch.equal(value, kept[name]) for name, value in task.network.state_dict().items())


def test_weights_on_a_gpu_keep_their_layout(make_task):
    task = make_task()
    task.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda", 0)))
    task.configure_model()
    assert all(weight.is_contiguous() for weight in task.network.parameters())

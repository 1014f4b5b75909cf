import torch

from segmentation.ablation.suites.bench import dice_of, fit, make_network, make_pictures, train_and_score


def test_pictures_are_a_function_of_the_seed():
    first, again, other = (make_pictures("blob", seed, train=2, test=1, size=16) for seed in (3, 3, 4))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    assert torch.allclose(first.images.mean((1, 2, 3)), torch.zeros(2), atol=1e-5)


def test_a_planted_level_has_no_finer_detail():
    labels = make_pictures("thin", 0, train=2, test=2, size=32, level=1).labels
    assert torch.equal(labels, labels[:, ::2, ::2].repeat_interleave(2, 1).repeat_interleave(2, 2))
    assert not torch.equal(labels, labels[:, ::4, ::4].repeat_interleave(4, 1).repeat_interleave(4, 2))


def test_arms_of_a_replicate_see_the_same_batches():
    seen: dict[str, list[torch.Tensor]] = {}
    for kind in ("concat", "none"):
        data = make_pictures("blob", 0, train=6, test=1, size=16)
        network = make_network(0, long_skip=kind)
        hook = network.register_forward_pre_hook(
            lambda m, inputs, k=kind: seen.setdefault(k, []).append(inputs[0].clone())
        )
        fit(network, data.images, data.labels, steps=3, seed=0, batch=2)
        hook.remove()
    assert all(torch.equal(a, b) for a, b in zip(seen["concat"], seen["none"], strict=True))


def test_training_lowers_the_loss_and_scores_are_dice():
    data = make_pictures("blob", 0, train=8, test=4, size=16)
    network = make_network(0)
    losses = fit(network, data.images, data.labels, steps=40, seed=0)
    assert losses[-1] < losses[0] / 2
    scores = dice_of(network, data.images, data.labels)
    assert len(scores) == 8
    assert all(0 <= score <= 1 for score in scores)


def test_the_usual_cell_repeats_itself():
    cell = {
        "task": {"task": "blob", "train": 4, "test": 2, "size": 16},
        "network": {"norm": "none"},
        "seed": 1,
        "steps": 3,
    }
    assert train_and_score(cell) == train_and_score(cell)

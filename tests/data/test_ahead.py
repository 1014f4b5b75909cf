import threading
import time

import pytest
import torch

from segmentation.data.ahead import AHEAD, ThreadedLoader


class Numbers:
    """Sample n holds n; early ones take longest, and all are counted."""

    def __init__(self, size: int = 12, broken: int | None = None) -> None:
        self.size, self.broken = size, broken
        self.made: list[int] = []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number):
        time.sleep(0.002 * (number % 3 == 0))
        self.made.append(number)
        if number == self.broken:
            raise OSError("a damaged file")
        return torch.tensor(number), torch.tensor(-number)


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("patches")]


@pytest.mark.parametrize("threads", [1, 4])
def test_batches_come_in_the_order_of_the_sampler(threads):
    loader = ThreadedLoader(threads, dataset=Numbers(), batch_size=2, sampler=[5, 0, 3, 3, 9])
    assert [images.tolist() for images, _ in loader] == [[5, 0], [3, 3], [9]]
    assert [labels.tolist() for _, labels in loader] == [[-5, 0], [-3, -3], [-9]]
    assert len(loader) == 3
    assert names() == []


def test_a_few_batches_are_made_ahead_and_no_more():
    numbers = Numbers(size=40)
    batches = iter(ThreadedLoader(2, dataset=numbers, batch_size=2))
    next(batches)
    deadline = time.monotonic() + 10
    while len(numbers.made) < 2 * (AHEAD + 1) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert sorted(numbers.made) == list(range(2 * (AHEAD + 1)))
    batches.close()
    assert names() == []


def test_a_sample_that_fails_fails_its_batch():
    batches = iter(ThreadedLoader(2, dataset=Numbers(broken=3), batch_size=2))
    assert next(batches)[0].tolist() == [0, 1]
    with pytest.raises(OSError, match="a damaged file"):
        next(batches)
    assert names() == []

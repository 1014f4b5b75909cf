"""Batches made ahead by threads, for a GPU that would otherwise wait for them."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

AHEAD = 3
"""Batches that are being made or wait, besides the one in use."""


class ThreadedLoader(DataLoader[tuple[Tensor, Tensor]]):
    """A loader without worker processes whose samples are made by threads of this process.

    OpenCV, NumPy and PyTorch let other threads run while they work on a patch. Unlike worker processes, threads share
    the arrays in memory, start at once, and need no ``/dev/shm``. Batches come in the order of the sampler, and are
    the same for any number of threads, as a sample depends on its number alone.

    Args:
        threads: How many samples are made at a time.
        **options: As for ``DataLoader``, without workers.

    Examples:
        >>> numbers = [(torch.tensor(n), torch.tensor(-n)) for n in range(5)]
        >>> [x.tolist() for x, _ in ThreadedLoader(2, dataset=numbers, batch_size=2)]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(self, threads: int, **options: Any) -> None:
        super().__init__(**options, num_workers=0)
        self.threads = threads

    def __iter__(self) -> Any:  # not an iterator of PyTorch
        """Yield batches; in page-locked memory where there is a GPU, so that they are copied while it computes."""
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="patches")
        numbers = iter(self.batch_sampler or ())
        waiting: deque[list[Future[Any]]] = deque()
        try:
            while True:
                for batch in islice(numbers, AHEAD + 1 - len(waiting)):
                    waiting.append([pool.submit(self.dataset.__getitem__, number) for number in batch])
                if not waiting:
                    return
                made = default_collate([sample.result() for sample in waiting.popleft()])
                yield [part.pin_memory() for part in made] if torch.cuda.is_available() else made
        finally:
            pool.shutdown(cancel_futures=True)

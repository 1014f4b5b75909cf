"""Sliding window: a network over an image of any size, its overlapping outputs blended by a Gaussian.

Windows are computed row by row along the first spatial axis, and a plane is given as soon as no later row touches
it. So only one row of windows is ever held, and memory does not grow with the length of the scan.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise, product
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from segmentation.scans.workspace import Workspace

Network = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Maps images of shape ``(B, C, *S)`` to probabilities of shape ``(B, K, *S)``. The images are lent: the next ones
come in the same memory."""

Place = tuple[slice, ...]
"""Where a window lies: a slice for each spatial axis."""

Cut = Callable[[Place], NDArray[np.float32]]
"""Gives the part of an image at a place, shape ``(C, *S)`` of the window."""

KNOWN_WINDOWS = 4
"""Constant windows whose result is kept: air and padding of a scan have few values."""

PLANES = 16
"""Planes that are copied at a time: so many values of neighbouring planes share a line of the processor's cache."""

Content = tuple[bytes, tuple[int, ...]]
_Item = TypeVar("_Item")


def window_starts(size: int, window: int, overlap: float) -> list[int]:
    """First voxels of windows that cover an axis, evenly spread, neighbours sharing at least ``overlap``.

    Args:
        size: Voxels of the axis.
        window: Voxels of a window, at most ``size``.
        overlap: Share of a window that it has in common with the next, in [0, 1).

    Examples:
        >>> window_starts(10, 4, 0.5), window_starts(4, 4, 0.5)
        ([0, 2, 4, 6], [0])
    """
    step = max(1, int(window * (1 - overlap)))
    count = math.ceil((size - window) / step) + 1
    return [round(index * (size - window) / max(1, count - 1)) for index in range(count)]


def gaussian_window(shape: Sequence[int]) -> NDArray[np.float32]:
    """Weights of a window's voxels: a Gaussian of an eighth of the window's size about its centre, at most 1.

    Far corners would round to zero, so weights are kept at or above a thousandth.

    Args:
        shape: Spatial shape of the window.

    Returns:
        Weights in [0.001, 1], shape ``shape``.
    """
    weights = np.ones((), np.float64)
    for size in shape:
        distance = (np.arange(size) - (size - 1) / 2) / (size / 8)
        weights = np.multiply.outer(weights, np.exp(-0.5 * distance**2))
    return np.maximum(weights / weights.max(), 1e-3).astype(np.float32)


@dataclass
class WindowCount:
    """How many windows there were: ``computed`` by the network, ``known`` because their input was constant."""

    computed: int = 0
    known: int = 0


class SlidingWindow:
    """A network over images, window by window.

    A window larger than the image shrinks to it: nothing is padded, because the network takes any size. A window
    whose channels are each constant gives what the first window of that content gave, and is not computed again.

    Args:
        network: Gives probabilities.
        window: Spatial shape of the windows.
        overlap: Share by which neighbours overlap, in [0, 1).
        batch_size: Windows computed at a time.
        workspace: Where the windows in progress are held; ``None`` takes memory.
        after_windows: Called each time some windows are computed.

    Attributes:
        count: Windows so far.

    Examples:
        A network that looks at single voxels gives the same by windows as in one piece:

        >>> image = np.linspace(0, 1, 35, dtype=np.float32).reshape(1, 5, 7)
        >>> slide = SlidingWindow(lambda x: np.concatenate((x, 1 - x), 1), (4, 4), overlap=0.5)
        >>> np.allclose(slide(image)[0], image[0], atol=1e-6)
        True
    """

    def __init__(
        self,
        network: Network,
        window: Sequence[int],
        overlap: float,
        batch_size: int = 1,
        workspace: Workspace | None = None,
        after_windows: Callable[[], object] = lambda: None,
    ) -> None:
        self.network = network
        self.window = tuple(window)
        self.overlap = overlap
        self.batch_size = batch_size
        self.workspace = workspace or Workspace()
        self.after_windows = after_windows
        self.count = WindowCount()
        self._batch = np.empty(0, np.float32)
        self._known: dict[Content | None, NDArray[np.float32]] = {}

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities of a whole image, shape ``(C, *S)``: shape ``(K, *S)``, summing to 1 over K."""
        return np.stack(list(self.planes(lambda place: image[(slice(None), *place)], image.shape[1:])), axis=1)

    def total(self, shape: Sequence[int]) -> int:
        """Count the windows of an image of spatial shape ``shape``."""
        sizes = zip(shape, _window_size(self.window, shape), strict=True)
        return math.prod(len(window_starts(*size, self.overlap)) for size in sizes)

    def planes(self, cut: Cut, shape: Sequence[int], axis: int = 0) -> Iterator[NDArray[np.float32]]:
        """Yield class probabilities of an image plane by plane.

        Args:
            cut: Gives the part of the image at a place.
            shape: Spatial shape of the image.
            axis: Spatial axis across the planes.

        Yields:
            The planes across ``axis`` in order, each of shape ``(K, *inside)``.

        Raises:
            ValueError: If the image has no voxels.
        """
        if 0 in shape:
            raise ValueError(f"an image without voxels has no windows, got spatial shape {tuple(shape)}")
        size = _window_size(self.window, shape)
        weights = np.ascontiguousarray(np.moveaxis(gaussian_window(size), axis, 0))
        inside = [whole for index, whole in enumerate(shape) if index != axis]
        places = self._places(shape, size, axis)
        firsts = [*(place[axis].start for place in places), shape[axis]]
        computed = self._computed(cut, places)
        held: deque[NDArray[np.float32]] = deque()  # planes that this window and later ones touch
        for place, (first, following) in zip(places, pairwise(firsts), strict=True):
            within = tuple(part for index, part in enumerate(place) if index != axis)
            # Nothing keeps the window's values meanwhile: their memory is free before the next are there.
            self._blend(np.moveaxis(next(computed), axis + 1, 0), weights, held, within, inside)
            for _ in range(following - first):
                plane = held.popleft()
                yield plane[:-1] / plane[-1]

    def _blend(
        self,
        values: NDArray[np.float32],
        weights: NDArray[np.float32],
        held: deque[NDArray[np.float32]],
        within: Place,
        inside: Sequence[int],
    ) -> None:
        """Add the planes of a window, shape ``(n, K, *S)``, each to a plane of classes and, last, summed weights."""
        while len(held) < len(values):
            held.append(self.workspace.zeros((values.shape[1] + 1, *inside), np.float32))
        planes = list(held)
        for first in range(0, len(values), PLANES):
            some = slice(first, first + PLANES)
            for plane, value, weight in zip(planes[some], values[some].copy(), weights[some], strict=True):
                part = plane[(slice(None), *within)]
                value *= weight
                part[:-1] += value
                part[-1] += weight
                self.workspace.walked(part)
        self.workspace.release()

    def _places(self, shape: Sequence[int], size: Sequence[int], axis: int) -> list[Place]:
        """Where the windows lie, row by row along ``axis``."""
        starts = [window_starts(whole, part, self.overlap) for whole, part in zip(shape, size, strict=True)]
        places = [tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True)) for corner in product(*starts)]
        return sorted(places, key=lambda place: place[axis].start)

    def _computed(self, cut: Cut, places: Sequence[Place]) -> Iterator[NDArray[np.float32]]:
        """Yield the probabilities at each place, shape ``(K, *S)`` of the window, in order."""
        with ThreadPoolExecutor(1) as ahead:  # the next windows are computed while these are blended
            batches = (ahead.submit(self._found, cut, some) for some in _batched(iter(places), self.batch_size))
            pending = next(batches, None)
            while pending is not None:
                found, pending = pending.result(), next(batches, None)
                self.after_windows()
                while found:
                    yield found.popleft()

    def _found(self, cut: Cut, places: Sequence[Place]) -> deque[NDArray[np.float32]]:
        """Probabilities of windows, shape ``(K, *S)`` each: computed, or known from one of the same content."""
        windows = self._gathered([cut(place) for place in places])
        keys = [_constant_content(window) for window in windows]
        unknown = [index for index, key in enumerate(keys) if key not in self._known]
        found: dict[int, NDArray[np.float32]] = {}
        if unknown:
            asked = windows if len(unknown) == len(windows) else windows[unknown]
            found = dict(zip(unknown, self.network(asked), strict=True))
        self.count.computed += len(unknown)
        self.count.known += len(places) - len(unknown)
        for index, values in found.items():
            if keys[index] is not None and len(self._known) < KNOWN_WINDOWS:
                kept = self.workspace.zeros(values.shape, np.float32)
                kept[...] = values
                self._known[keys[index]] = kept
        return deque(found[index] if index in found else self._known[key] for index, key in enumerate(keys))

    def _gathered(self, views: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Copy parts of an image, shape ``(C, *S)`` each, in the order in which they lie in memory or in a file."""
        if self._batch.shape[1:] != views[0].shape:
            self._batch = np.empty((self.batch_size, *views[0].shape), np.float32)
        batch = self._batch[: len(views)]
        slowest = int(np.argmax(np.abs(views[0].strides[1:]))) + 1
        for index, view in enumerate(views):
            window, part = batch[index].swapaxes(0, slowest), view.swapaxes(0, slowest)
            for first in range(0, len(window), PLANES):
                window[first : first + PLANES] = part[first : first + PLANES]
                self.workspace.walked(part[first : first + PLANES])
        self.workspace.release()
        return batch


def _window_size(window: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Window that is nowhere larger than the image."""
    return tuple(min(part, whole) for part, whole in zip(window, shape, strict=True))


def _constant_content(window: NDArray[np.float32]) -> Content | None:
    """Values of the channels of a window, shape ``(C, *S)``, if each is constant, with the window's shape."""
    values = window[(slice(None), *[0] * (window.ndim - 1))]
    middle = window[(slice(None), *(size // 2 for size in window.shape[1:]))]
    expanded = values.reshape(-1, *[1] * (window.ndim - 1))
    if (values != middle).any() or (window != expanded).any():
        return None
    return values.tobytes(), window.shape


def _batched(items: Iterator[_Item], size: int) -> Iterator[list[_Item]]:
    """Group ``items`` into lists of at most ``size``."""
    while batch := list(islice(items, size)):
        yield batch

"""What a reset samples: hashes of the episode's seed, unless a reset option fixes the value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from rate.errors import ConfigError
from rate.hashing import Words, hash_counter
from rate.messages import did_you_mean

Array = npt.NDArray[Any]
Shape = tuple[int, ...]
_LONGEST = 100  # characters of a value in a message


def hashes(seeds: Words, name: str, shape: Shape = (), step: Any = 0) -> npt.NDArray[np.int64]:
    """Returns numbers in [0, 2^31) that are a function of seed, name, step and index.

    Args:
        seeds: Seeds of `n` episodes, `(n,)`.
        name: What the numbers are for.
        shape: The shape of a row's numbers.
        step: The step of the episode, for what is drawn at every step: an integer or `(n,)`.

    Returns:
        `(n, *shape)`.
    """
    count = int(np.prod(shape))
    steps: Words = np.broadcast_to(np.asarray(step, dtype=np.uint64), seeds.shape)
    index = np.arange(count, dtype=np.uint64) + np.uint64(crc32(name.encode()) << 31)
    counters = np.asarray(steps[:, None] * np.uint64(count) + index, np.uint64)  # (n, count)
    found: npt.NDArray[np.int64] = hash_counter(seeds[:, None], counters).astype(np.int64)
    return found.reshape(len(seeds), *shape)


def shuffled(seeds: Words, name: str, count: int, step: Any = 0) -> npt.NDArray[np.int64]:
    """Returns the numbers below `count` in random order, `(n, count)`; see `hashes`."""
    keys = hashes(seeds, name, (count,), step)
    order: npt.NDArray[np.int64] = np.argsort(keys, axis=1, kind="stable")
    return order


class EpisodeSampler:
    """The values that a reset samples for some rows.

    Attributes:
        drawn: The values `(n, ...)` by the names of their reset options, as far as they are drawn.

    Args:
        seeds: Seeds of the `n` rows to reset, `(n,)`.
        fixed: The values of reset options, by name. A value is one row's, for all rows, or in a
            vector environment also an array with a first axis of all its rows.
        rows: The indices of the `n` rows, `(n,)`.
        num_rows: The number of rows of the vector environment; None for a single environment.
    """

    def __init__(
        self,
        seeds: Words,
        fixed: Mapping[str, Any],
        rows: npt.NDArray[np.intp],
        num_rows: int | None,
    ) -> None:
        self.seeds = seeds
        self.drawn: dict[str, npt.NDArray[np.int64]] = {}
        self._fixed, self._rows, self._num_rows = fixed, rows, num_rows

    def between(self, name: str, low: int, high: int, shape: Shape = ()) -> npt.NDArray[np.int64]:
        """Returns integers `(n, *shape)` from `low` to `high`, both included, equally likely.

        Raises:
            ConfigError: If the reset option `name` has another shape, or a value outside of that.
        """
        return self.sample(
            name,
            shape,
            lambda: low + hashes(self.seeds, name, shape) % (high - low + 1),
            lambda fixed: (fixed >= low) & (fixed <= high),
            f"every value must be from {low} to {high}",
        )

    def choice(self, name: str, values: Any, shape: Shape = ()) -> npt.NDArray[np.int64]:
        """Returns elements of `values`, equally likely.

        Args:
            name: The reset option that fixes them.
            values: Integers `(V,)`, or `(V, d)`, for example cells (row, column).
            shape: How many each row has; `()` for one.

        Returns:
            `(n, *shape)` or `(n, *shape, d)`.

        Raises:
            ConfigError: If the reset option `name` has another shape, or another value.
        """
        known = np.asarray(values, dtype=np.int64)
        return self.sample(
            name,
            (*shape, *known.shape[1:]),
            lambda: known[hashes(self.seeds, name, shape) % len(known)],
            lambda fixed: _same(fixed, known).any(-1),
            f"every value must be one of {_shown(known)}",
        )

    def distinct(
        self, name: str, population: Any, count: int, within: tuple[int, int] | None = None
    ) -> npt.NDArray[np.int64]:
        """Returns `count` distinct elements of a population in random order, for each row.

        Args:
            name: The reset option that fixes them.
            population: `(P,)` integers, or `(P, d)`, for example cells (row, column).
            count: At most `P`.
            within: Minimum and maximum of fixed values, if they need not be in the population.

        Returns:
            `(n, count)` or `(n, count, d)`.

        Raises:
            ConfigError: If the reset option has another shape, values that are not in the
                population, or the same one twice.
        """
        known = np.asarray(population, dtype=np.int64)

        def are_distinct(fixed: Array) -> bool:
            if not all(_same(row, row).sum() == count for row in fixed):
                return False
            if within is not None:
                return bool(((fixed >= within[0]) & (fixed <= within[1])).all())
            return bool(_same(fixed, known).any(-1).all())

        told = _shown(known) if within is None else f"the numbers from {within[0]} to {within[1]}"
        return self.sample(
            name,
            (count, *known.shape[1:]),
            lambda: known[shuffled(self.seeds, name, len(known))[:, :count]],
            are_distinct,
            f"they must be distinct ones of {told}",
        )

    def fixes(self, name: str) -> bool:
        """Whether a reset option fixes the value."""
        return name in self._fixed

    def count(self, name: str, usual: int) -> int:
        """Returns how many elements `(..., count, d)` a reset option fixes, or the usual number."""
        try:
            shape = np.shape(self._fixed.get(name, 0))
        except ValueError:  # lists of different lengths, which are refused when they are drawn
            return usual
        return shape[-2] if len(shape) > 1 else usual

    def sample(
        self,
        name: str,
        shape: Shape,
        make: Callable[[], npt.NDArray[np.int64]],
        holds: Callable[[npt.NDArray[np.int64]], Any],
        words: str,
    ) -> npt.NDArray[np.int64]:
        """Returns integers `(n, *shape)`: those of a reset option, or drawn ones.

        Args:
            name: The reset option.
            shape: The shape of a row's value.
            make: Samples the values.
            holds: Whether the values `(n, *shape)` of the reset option are possible, of any shape.
            words: What they must be, for the message.

        Raises:
            ConfigError: If the reset option has another shape, or is not possible.
        """
        fixed = self._given(name, shape)
        if fixed is not None and not np.all(holds(fixed)):
            raise ConfigError(f"The reset option '{name}' is {_shown(self._fixed[name])}; {words}.")
        value = self.drawn[name] = make() if fixed is None else fixed
        return value

    def check_names(self) -> None:
        """Check that every reset option is the name of a value that was drawn.

        Raises:
            ConfigError: If one is not; the message names the nearest and all others.
        """
        for name in self._fixed:
            if name not in self.drawn:
                near = did_you_mean(str(name), self.drawn)
                raise ConfigError(
                    f"reset has no option '{name}'.{near} It has: {', '.join(self.drawn)}."
                )

    def _given(self, name: str, shape: Shape) -> npt.NDArray[np.int64] | None:
        """Returns the fixed value of the rows, `(n, *shape)`; None if it is to be drawn."""
        if name not in self._fixed:
            return None
        words = f"an integer array of shape {shape}" if shape else "an integer"
        if self._num_rows is not None:
            words += f", or one for each row: shape {(self._num_rows, *shape)}"
        try:
            value = np.asarray(self._fixed[name])
        except ValueError:  # lists of different lengths
            value = np.zeros(0, dtype=object)
        is_whole = value.dtype.kind in "biuf" and np.all(np.mod(value, 1) == 0)
        own = self._num_rows is not None and value.shape == (self._num_rows, *shape)
        if not is_whole or not (own or value.shape == shape):
            raise ConfigError(
                f"The reset option '{name}' is {_shown(self._fixed[name])}; it must be {words}."
            )
        whole = value.astype(np.int64)
        return whole[self._rows] if own else np.broadcast_to(whole, (len(self._rows), *shape))


def _same(values: Array, known: Array) -> Array:
    """Returns which values `(*shape, *item)` are which known ones `(V, *item)`: `(*shape, V)`."""
    axes = tuple(range(-(known.ndim - 1), 0))
    equal = np.expand_dims(values, values.ndim - known.ndim + 1) == known  # (*shape, V, *item)
    same: Array = equal.all(axis=axes)
    return same


def _shown(value: Any) -> str:
    """Returns a value as text of limited length."""
    text = str(value.tolist() if isinstance(value, np.ndarray) else value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."

"""Experts for card games: repeat, recite, count and match cards."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_NOTHING = 0  # the action where none counts


class RepeatFirst:
    """Says the suit of the first card. Its return is 1."""

    def __init__(self, task: Any) -> None:
        self._first = int(task.card)

    def act(self, seen: int) -> int:
        return self._first


class RepeatPrevious:
    """Says the suit of the card of `k - 1` steps before. Its return is 1."""

    def __init__(self, task: Any) -> None:
        self._deck, self._k = task.deck, task.k

    def act(self, seen: int) -> int:
        cards = self._deck["player"]
        return int(self._deck.suits_idx[cards[-self._k]]) if len(cards) >= self._k else _NOTHING


class Autoencode:
    """Says each suit as it is shown, which scores nothing, then all backwards. Its return is 1."""

    def __init__(self, task: Any) -> None:
        self._deck = task.deck

    def act(self, seen: tuple[int, int]) -> int:
        watching, suit = seen
        return suit if watching else int(self._deck.suits_idx[self._deck["system"][-1]])


class CountRecall:
    """Says how often the requested card has been dealt. Its return is 1."""

    def __init__(self, task: Any) -> None:
        self._task = task

    def act(self, seen: npt.NDArray[np.int64]) -> int:
        return int(self._task.counts[seen[1]])


class HigherLower:
    """Counts cards, and says the likelier of higher (0) and lower (1)."""

    def __init__(self, task: Any) -> None:
        self._left = np.full(13, 4 * task.num_decks)

    def act(self, seen: int) -> int:
        self._left[seen] -= 1
        return int(self._left[seen + 1 :].sum() < self._left[:seen].sum())


class Concentration:
    """Remembers every card. Takes a pair that it knows, else turns the next unknown card.

    Of a card whose match it has seen it makes a pair at once; otherwise the second card is the next
    unknown one, which may match by luck.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self._known: dict[int, int] = {}  # value of every card that has been seen, by place

    def act(self, seen: npt.NDArray[np.int64]) -> int:
        for place in np.flatnonzero(seen != self._task.facedown_card).tolist():
            self._known[place] = int(seen[place])
        done = set(self._task.deck["face_up_idx"])
        turned = self._task.deck["in_play_idx"]
        open_places = {p: v for p, v in self._known.items() if p not in done}
        if turned:
            (first,) = turned
            wanted = [p for p, v in open_places.items() if p != first and v == seen[first]]
            return int(wanted[0]) if wanted else self._unknown(first)
        by_value: dict[int, int] = {}
        for place, value in sorted(open_places.items()):
            if value in by_value:
                return by_value[value]
            by_value[value] = place
        return self._unknown(None)

    def _unknown(self, turned: int | None) -> int:
        """Returns the first place that was not seen; if there is none, one other than `turned`."""
        places = range(self._task.deck.num_cards)
        unknown = (p for p in places if p not in self._known and p != turned)
        return next(unknown, 0 if turned != 0 else 1)

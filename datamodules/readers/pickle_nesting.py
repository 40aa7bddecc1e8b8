"""How deeply the tuples of a pickle are nested, found without loading it."""

from __future__ import annotations

import pickletools
from typing import Any

_MOST_NESTED = 16  # an array needs three levels
_MARK = -1  # on the stack, which else has the depth of each object: 0 if it is no tuple


class TupleNesting:
    """Follows the stack of a pickle, opcode by opcode.

    A tuple that holds another twice, and so forth forty times, is small but takes hours to be
    hashed, as a key or in a set; one inside a hundred thousand others overflows the C stack.
    """

    def __init__(self) -> None:
        self._stack: list[int] = []
        self._memo: dict[int, int] = {}
        self._memoized = 0

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Takes the next opcode.

        Raises:
            ValueError: If tuples are nested too deeply for data.
            IndexError: If there are fewer objects than it takes.
        """
        name, made = opcode.name, 0
        if name == "MEMOIZE" or "PUT" in name:
            self._memo[self._memoized if name == "MEMOIZE" else int(argument)] = self._stack[-1]
            self._memoized += 1
            return
        if name == "MARK":
            self._stack.append(_MARK)
            return
        if name == "DUP":
            self._stack.append(self._stack[-1])
            return
        taken = self._take(opcode)
        if "GET" in name:
            made = self._memo.get(int(argument), 0)
        elif "TUPLE" in name or name == "FROZENSET":
            made = 1 + max(taken, default=0)
        if made > _MOST_NESTED:
            raise ValueError("its tuples are nested too deeply for data")
        self._stack += [made] * len(opcode.stack_after)

    def _take(self, opcode: pickletools.OpcodeInfo) -> list[int]:
        """Removes what an opcode takes from the stack and returns it."""
        before, taken = opcode.stack_before, list[int]()
        if pickletools.markobject in before:
            while (depth := self._stack.pop()) != _MARK:
                taken.append(depth)
            before = before[: before.index(pickletools.markobject)]
        for _ in before:
            taken.append(self._stack.pop())
        return taken

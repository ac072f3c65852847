"""Which samples share a row."""

from __future__ import annotations

from collections.abc import Sequence


def pack_rows(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put samples into as few rows as first-fit-decreasing finds, and make the longest row as short as that allows.

    A batch is padded to its longest row, so rows of like length hold less padding than full ones and a rest.

    Args:
        lengths: tokens of each sample, none of them above ``capacity``.
        capacity: the most tokens a row may hold.

    Returns:
        The samples' numbers, row by row; the same for the same arguments.
    """
    rows = first_fit_decreasing(lengths, capacity)
    low, high = max(lengths), capacity
    while low < high:
        middle = (low + high) // 2
        tighter = first_fit_decreasing(lengths, middle)
        if len(tighter) <= len(rows):
            rows, high = tighter, middle
        else:
            low = middle + 1
    return rows


def first_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """The longest first (of equals the earlier one), each into the first row that has room."""
    rows: list[list[int]] = []
    room: list[int] = []
    for sample in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[sample]
        row = next((r for r, free in enumerate(room) if free >= length), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(capacity)
        rows[row].append(sample)
        room[row] -= length
    return rows

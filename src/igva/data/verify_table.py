"""What ``igva data verify`` prints."""

from __future__ import annotations

from collections.abc import Iterator

from igva.data.picture_check import LONG, TINY
from igva.data.verify import Findings
from igva.model.pixels import MAX_PIXELS

SHOWN = 5  # cases of a trouble that are named; --json has all
BAR = 40  # characters of the longest bar


def table(found: Findings) -> Iterator[str]:
    """The findings, line by line."""
    yield found.source
    yield ""
    yield _row("samples", found.samples)
    yield _row("  text only", found.text_only)
    yield _row("  one picture", found.one_picture)
    yield _row("  several pictures", found.several_pictures)
    yield _row("  several turns", found.several_turns)
    yield _row("  id used before", len(found.duplicate_ids))
    yield _row("malformed samples", len(found.malformed))
    yield ""
    yield "samples of each source"
    for source, count in found.sources.most_common():
        yield _row(f"  {source}", count)
    yield ""
    yield f"{_row('pictures', found.pictures)}   shown {found.picture_uses} times"
    yield _row("  present", found.pictures - len(found.missing))
    yield _row("  missing", len(found.missing))
    yield _row("  unreadable", len(found.unreadable))
    yield _row(f"  over {MAX_PIXELS // 1_000_000} million pixels", len(found.too_large))
    yield _row(f"  a side under {TINY} pixels", len(found.tiny))
    yield _row(f"  sides beyond {LONG}:1", len(found.long))
    yield _row("  same content as another", len(found.duplicates))
    yield ""
    yield from _token_rows(found)
    for name, cases in _troubles(found).items():
        yield ""
        yield f"{name} ({len(cases)})"
        for case in cases[:SHOWN]:
            yield f"  {case}"
        if len(cases) > SHOWN:
            yield f"  … and {len(cases) - SHOWN} more"


def summary(found: Findings) -> str:
    """One line: what is broken, and what to do."""
    parts = ", ".join(f"{name}: {len(cases)}" for name, cases in found.broken().items())
    bad_pictures = found.missing or found.unreadable or found.too_large
    policy = ", or train with data.on_bad_image=skip" if bad_pictures else ""
    return f"{found.source} has {parts or 'no samples'}; mend what is listed above{policy}"


def _token_rows(found: Findings) -> Iterator[str]:
    if found.estimated:
        yield "tokens per sample, ESTIMATED as characters / 4, pictures not counted (--model counts them)"
    else:
        yield "tokens per sample"
    for name, value in found.token_summary().items():
        yield _row(f"  {name}", value)
    if not found.estimated:
        yield _row(f"  samples over {found.max_length}", len(found.over_length))
        yield _row("  samples with a cut picture", len(found.cut_pictures))
        yield _row("  samples with nothing to learn", len(found.nothing_learnt))
    bins = found.histogram()
    most = max((count for *_, count in bins), default=0)
    for low, high, count in bins:
        bar = "█" * -(-BAR * count // most)
        yield f"{_row(f'  {low}-{high} tokens', count)}   {bar}".rstrip()


def _troubles(found: Findings) -> dict[str, list[str]]:
    """What is broken, and what is only odd, with cases."""
    odd = {
        f"pictures with a side under {TINY} pixels": found.tiny,
        f"pictures with sides beyond {LONG}:1": found.long,
        "pictures with the same content as another": found.duplicates,
        "ids used before": found.duplicate_ids,
    }
    return found.broken() | {name: cases for name, cases in odd.items() if cases}


def _row(name: str, value: float) -> str:
    return f"{name:32s}{value:>12,}"

"""What ``igva data verify`` prints."""

from __future__ import annotations

from collections.abc import Iterator

from igva.data.picture_check import LONG, TINY
from igva.data.verify import Findings
from igva.model.pixels import MAX_PIXELS

SHOWN = 5  # cases of a trouble that are named; --json has all
BAR = 40  # characters of the longest bar


def table(findings: Findings) -> Iterator[str]:
    """The findings, line by line."""
    yield findings.source
    yield ""
    yield _row("samples", findings.samples)
    yield _row("  text only", findings.text_only)
    yield _row("  one picture", findings.one_picture)
    yield _row("  several pictures", findings.several_pictures)
    yield _row("  several turns", findings.several_turns)
    yield _row("  id used before", len(findings.duplicate_ids))
    yield _row("malformed samples", len(findings.malformed))
    yield ""
    yield "samples of each source"
    for source, count in findings.sources.most_common():
        yield _row(f"  {source}", count)
    yield ""
    yield f"{_row('pictures', findings.pictures)}   shown {findings.picture_uses} times"
    yield _row("  present", findings.pictures - len(findings.missing))
    yield _row("  missing", len(findings.missing))
    yield _row("  unreadable", len(findings.unreadable))
    yield _row(f"  over {MAX_PIXELS // 1_000_000} million pixels", len(findings.too_large))
    yield _row(f"  a side under {TINY} pixels", len(findings.tiny))
    yield _row(f"  sides beyond {LONG}:1", len(findings.long))
    yield _row("  same content as another", len(findings.duplicates))
    yield ""
    yield from _token_rows(findings)
    for name, cases in _troubles(findings).items():
        yield ""
        yield f"{name} ({len(cases)})"
        for case in cases[:SHOWN]:
            yield f"  {case}"
        if len(cases) > SHOWN:
            yield f"  … and {len(cases) - SHOWN} more"


def summary(findings: Findings) -> str:
    """One line: what is broken, and what to do."""
    parts = ", ".join(f"{name}: {len(cases)}" for name, cases in findings.broken().items())
    bad_pictures = findings.missing or findings.unreadable or findings.too_large
    policy = ", or train with data.on_bad_image=skip" if bad_pictures else ""
    return f"{findings.source} has {parts or 'no samples'}; mend what is listed above{policy}"


def _token_rows(findings: Findings) -> Iterator[str]:
    if findings.estimated:
        yield "tokens per sample, ESTIMATED as characters / 4, pictures not counted (--model counts them)"
    else:
        yield "tokens per sample"
    for name, value in findings.token_summary().items():
        yield _row(f"  {name}", value)
    if not findings.estimated:
        yield _row(f"  samples over {findings.max_length}", len(findings.over_length))
        yield _row("  samples with a cut picture", len(findings.cut_pictures))
        yield _row("  samples with nothing to learn", len(findings.nothing_learnt))
    bins = findings.histogram()
    most = max((count for *_, count in bins), default=0)
    for low, high, count in bins:
        bar = "█" * -(-BAR * count // most)
        yield f"{_row(f'  {low}-{high} tokens', count)}   {bar}".rstrip()


def _troubles(findings: Findings) -> dict[str, list[str]]:
    """What is broken, and what is only odd, with cases."""
    odd = {
        f"pictures with a side under {TINY} pixels": findings.tiny,
        f"pictures with sides beyond {LONG}:1": findings.long,
        "pictures with the same content as another": findings.duplicates,
        "ids used before": findings.duplicate_ids,
    }
    return findings.broken() | {name: cases for name, cases in odd.items() if cases}


def _row(name: str, value: float) -> str:
    return f"{name:32s}{value:>12,}"

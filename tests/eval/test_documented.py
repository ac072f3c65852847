"""docs/evaluation.md and the code say the same."""

import dataclasses
import re
from pathlib import Path

from igva.cli.eval import SPLITS
from igva.data.questions import Question
from igva.eval.metrics import METRICS
from igva.eval.probe_suite import COUNT

TEXT = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()


def rows(heading):
    section = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.M)


def test_metrics():
    assert rows("Metrics") == list(METRICS)


def test_sources():
    for name, metric in METRICS.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*\| (.*) ?\|$", TEXT, re.M)
        assert metric.source in row and bool(metric.source) == bool(row.strip()), name


def test_fields():
    assert sorted(rows("A file of questions")) == sorted(field.name for field in dataclasses.fields(Question))


def test_suite():
    assert f"{COUNT:,} pictures" in TEXT.replace("\n  ", " ")
    assert all(f"`{split}`" in TEXT or f"--split {split}`" in TEXT for splits in SPLITS.values() for split in splits)

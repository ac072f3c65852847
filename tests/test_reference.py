"""docs/reference is what the code says today."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools/reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse lays its help out otherwise in other versions")
def test_pages_are_up_to_date(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    made = reference()
    for file, page in made.PAGES.items():
        assert (made.OUT / file).read_text() == page(), f"run: python tools/reference.py ({file} differs)"


def test_every_setting_and_option_says_what_it_is():
    made = reference()
    for page in (made.settings_page(), made.fusions_page()):
        rows = [line for line in page.splitlines() if line.startswith("| `")]
        assert len(rows) > 30 and not [row for row in rows if row.endswith("|  |")]

"""``igva fusions``."""

from __future__ import annotations

import json
import re
from pathlib import Path

from igva.cli.main import entry
from igva.model.fusions import fusion_names

PAGE = Path(__file__).parents[2] / "docs/fusions.md"


def test_the_table_has_every_fusion(capsys):
    assert entry(["fusions"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Beyond `single`, per picture, on CLIP-L/14-336 + Vicuna-7B:"
    assert [line.split()[0] for line in lines[4:]] == fusion_names()


def test_json(capsys):
    assert entry(["fusions", "igva", "mean", "--vision", "tiny", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [fusion["name"] for fusion in told["fusions"]] == ["igva", "mean"]
    assert told["fusions"][0]["needs_instruction"] is True and told["fusions"][1]["flops"] > 0


def test_an_unknown_name(capsys):
    assert entry(["fusions", "igvaa"]) == 2
    assert "there is no fusion 'igvaa': choose from" in capsys.readouterr().err


def test_the_page_shows_what_the_command_prints(capsys):
    block = re.search(r"```text\n(Beyond `single`.*?)```", PAGE.read_text(), re.S).group(1)
    entry(["fusions"])
    assert block == capsys.readouterr().out

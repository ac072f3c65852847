"""What the documentation shows runs."""

import re
from pathlib import Path

import pytest
import torch

from igva.cli.main import VERBS
from igva.model import fusions
from igva.model.fusion_base import FusionDims
from igva.model.vision_layers import VisionLayers
from igva.train.arguments import recipe_names

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_example_fusion_works(monkeypatch, tmp_path):
    """The file of docs/fusions.md, word for word, is a fusion, and the test beside it passes."""
    code, test = re.findall(r"```python\n(.*?)```", (ROOT / "docs/fusions.md").read_text(), re.S)
    space = {"__name__": "igva.model.fusion_max", "__package__": "igva.model"}
    exec(compile(code, "docs/fusions.md", "exec"), space)
    monkeypatch.setattr(fusions, "_FUSIONS", dict(fusions._FUSIONS))
    fusions.register_fusion("max", space["MaxFusion"])
    fusion = fusions.build_fusion("max", {"layers": (1, 3)}, FusionDims(4, 8, 9, None))
    layers = VisionLayers(torch.randn(2, 2, 9, 8), torch.randn(2, 2, 8))
    assert torch.equal(fusion(layers, None).features, layers.patches.max(dim=1).values)
    monkeypatch.chdir(tmp_path)
    exec(compile(test, "docs/fusions.md", "exec"), {})
    assert (tmp_path / "tiny-max/model.safetensors").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_links_exist(page):
    text = page.read_text()
    for verb in re.findall(r"^igva (\w+)", text, re.M) + re.findall(r"`igva (\w+)", text):
        assert verb in VERBS, f"{page.name} shows `igva {verb}`"
    for recipe in re.findall(r"igva train (\w+)\b(?!\.)", text):
        assert recipe in recipe_names()
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_pages_that_messages_name_exist():
    sources = sorted((ROOT / "src").rglob("*.py"))
    named = {name for file in sources for name in re.findall(r"\bdocs/[\w/-]+\.md", file.read_text())}
    assert named and not [name for name in named if not (ROOT / name).exists()]


def test_every_fusion_is_documented():
    text = (ROOT / "docs/fusions.md").read_text()
    for name in fusions.fusion_names():
        assert f"| `{name}` |" in text

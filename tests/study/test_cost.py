"""Counts against the numbers of the papers (arithmetic on their formulas at CLIP-L/14-336 and Vicuna-7B)."""

from __future__ import annotations

import pytest

from igva.cli import fusions as cli
from igva.errors import UserError
from igva.model.fusions import fusion_names
from igva.study.cost import SETTINGS, Setting, fusion_cost

CLIP = SETTINGS["clip_l"]


@pytest.mark.parametrize(
    ("name", "tokens", "millions", "gflops"),
    [
        ("single", 576, 0, 0),
        ("mean", 576, 4.19, 4.83),
        ("igva", 576, 31.24, 5.0),  # 27.05 M of the allocator; the sentence encoder's own 3.4 GF are not in
        ("igva_concat", 576, 43.83, 19.44),
        ("dense_sti", 720, 0, 6.04),
        ("dense_sci", 576, 8.39, 9.66),
        ("dense_dci", 576, 8.39, 9.66),
        ("external_direct", 576, 8.39, 9.66),
        ("tgif", 576, 0.41, 0.03),
        ("mmfuser", 576, 5.19, 9.6),
        ("deepstack", 576, 15.75, 18.1),
        ("mol_hybrid", 576, 1.84, 0.06),  # W_k goes to the query once, not to every patch: 29 GF otherwise
    ],
)
def test_tokens_parameters_and_operations(name, tokens, millions, gflops):
    cost = fusion_cost(name, {}, CLIP)
    assert cost.tokens == tokens
    assert cost.parameters / 1e6 == pytest.approx(millions, abs=0.006)
    assert cost.flops / 1e9 == pytest.approx(gflops, rel=0.02, abs=0.01)


def test_further_tokens_cost_the_language_model():
    assert fusion_cost("dense_sti", {}, CLIP).text_flops == pytest.approx(1.87e12, rel=0.05)
    assert fusion_cost("igva", {}, CLIP).text_flops == 0


def test_options_count():
    small, large = (fusion_cost("igva", {"num_blocks": n}, CLIP).parameters for n in (2, 4))
    assert large - small == 2 * (6 * 1024 * 1024 + 6 * 1024 + 4 * 1024)  # attention 4 D² + feed-forward 2 D², norms


def test_every_fusion_can_be_counted_everywhere():
    for setting in SETTINGS.values():
        for name in fusion_names():
            assert fusion_cost(name, {}, setting).tokens >= setting.dims.num_patches
    with pytest.raises(UserError, match="layer 99"):
        fusion_cost("single", {"layer": 99}, CLIP)


def test_the_command_line_knows_the_settings():
    assert tuple(SETTINGS) == cli.SETTINGS
    assert all(isinstance(setting, Setting) for setting in SETTINGS.values())

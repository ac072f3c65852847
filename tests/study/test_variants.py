"""Fusions written on one line."""

from __future__ import annotations

import pytest

from igva.errors import UserError
from igva.study.trials import Variant, align_variant, parse_variant, parse_variants


def test_options_are_yaml():
    variant = parse_variant("igva:groups=[[1,2],[3]],level_embeddings=true,balance_coef=0.1")
    assert variant.fusion == "igva"
    assert variant.kwargs == {"groups": [[1, 2], [3]], "level_embeddings": True, "balance_coef": 0.1}
    assert parse_variant("mean") == Variant("mean", "mean", {})


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["nothing"], "there is no fusion 'nothing'"),
        (["single:layer"], "'layer' needs a value"),
        (["single:layr=1"], "did you mean 'layer'"),
        (["single:layer=9"], "layer 9 does not exist"),
        (["single:layer=two"], "single:layer=two"),
        (["single:layer=[1"], "not YAML"),
        (["mean", "mean"], "named twice"),
        ([], "no fusion is named"),
    ],
)
def test_what_is_wrong_is_named(dims, texts, told):
    with pytest.raises(UserError, match=told):
        parse_variants(texts, dims)


def test_who_stands_in_while_the_projector_is_aligned(dims):
    plain = Variant("m", "mean", {"num_groups": 2})
    assert align_variant(plain, dims) is plain
    guided = Variant("i", "igva", {"num_groups": 2, "hidden_size": 8, "num_heads": 2})
    assert align_variant(guided, dims) == Variant("i", "mean", {"num_groups": 2})
    assert align_variant(guided, dims).build(dims).output_dim == guided.build(dims).output_dim

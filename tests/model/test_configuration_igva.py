"""Bad configurations are refused when they are made, with the name and the remedy."""

from __future__ import annotations

import pytest

from igva.model.configuration_igva import IgvaConfig
from igva.model.fusion_base import Fusion
from igva.model.fusions import build_fusion, fusion_class, fusion_names, register_fusion
from igva.testing import instruction_config, text_config, tiny_model, vision_config


def config(layers=24, **kwargs):
    return IgvaConfig(
        vision_config=vision_config("clip", layers),
        text_config=text_config(),
        instruction_config=instruction_config(),
        **kwargs,
    )


def build(layers=24, **kwargs):
    made = config(layers, **kwargs)
    return build_fusion(made.fusion, made.fusion_kwargs, made.fusion_dims())


def test_the_default_is_the_paper():
    made = IgvaConfig(instruction_dim=768)
    fusion = build_fusion(made.fusion, made.fusion_kwargs, made.fusion_dims())
    assert made.fusion == "igva"
    assert fusion.layer_groups == tuple(tuple(range(i, i + 6)) for i in (1, 7, 13, 19))
    assert fusion.taps[0] == (23,)
    assert (fusion.output_dim, fusion.num_tokens) == (2048, 576)
    assert (fusion.balance_coef, fusion.config.num_blocks, fusion.config.num_heads) == (0.02, 4, 4)


def test_an_unknown_fusion_names_the_table():
    with pytest.raises(ValueError, match="there is no fusion 'igvaa'") as error:
        config(fusion="igvaa")
    for name in fusion_names():
        assert name in str(error.value)


@pytest.mark.parametrize(("wrong", "right"), [("num_group", "num_groups"), ("balance_coeff", "balance_coef")])
def test_an_unknown_option_names_the_nearest(wrong, right):
    with pytest.raises(ValueError, match=f"'igva' has no option '{wrong}': did you mean '{right}'"):
        config(fusion="igva", fusion_kwargs={wrong: 1})


def test_an_option_like_no_other_lists_them_all():
    with pytest.raises(ValueError, match=r"no option 'zzz': it takes \['layer'\]"):
        config(fusion="single", fusion_kwargs={"zzz": 1})


@pytest.mark.parametrize("fusion", ["igva", "mean"])
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"groups": [[1, 2], [2, 3]]}, "overlap: layer 2"),
        ({"groups": [[24], [-1]]}, "overlap: layer 24"),
        ({"groups": [[1], []]}, "a layer group is empty"),
        ({"groups": []}, "groups is empty"),
        ({"groups": [[1, 1]]}, "twice"),
        ({"groups": [[30]]}, "layer 30 does not exist: the vision tower has 24 layers"),
        ({"base_layer": 30}, "layer 30 does not exist: the vision tower has 24 layers"),
        ({"num_groups": 25}, "24 layers into 25 groups"),
        ({"num_groups": 0}, "24 layers into 0 groups"),
    ],
)
def test_bad_groups(fusion, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(fusion=fusion, fusion_kwargs=kwargs)


def test_bad_single_layer():
    with pytest.raises(ValueError, match="layer 30 does not exist: the vision tower has 24 layers"):
        build(fusion="single", fusion_kwargs={"layer": 30})


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="hidden_size 30 is not a multiple of num_heads 4"):
        build(fusion_kwargs={"hidden_size": 30})


def test_a_guided_fusion_wants_an_instruction():
    with pytest.raises(ValueError, match="instruction_dim"):
        tiny_model("igva", encoder=None)
    assert tiny_model("mean", encoder=None).config.instruction_dim is None


@pytest.mark.parametrize("pool", [0, -1, 3, 4])
def test_pooling_must_divide_the_grid(pool):
    with pytest.raises(ValueError, match=f"vision_pool {pool} does not divide the 2×2 grid"):
        config(vision_pool=pool)


def test_pooling_makes_fewer_tokens():
    assert build(vision_pool=2).num_tokens == 1
    assert build(vision_pool=2, image_size=56).num_tokens == 4


def test_pooling_of_sentences_is_closed():
    with pytest.raises(ValueError, match="instruction_pooling must be 'mean' or 'cls', not 'max'"):
        config(instruction_pooling="max")


def test_uneven_groups_of_any_number():
    fusion = build(fusion_kwargs={"groups": [[1, 2, 3], [-1], [0]]})
    assert fusion.layer_groups == ((1, 2, 3), (24,), (0,))
    assert [len(g) for g in build(fusion_kwargs={"num_groups": 5}).layer_groups] == [5, 5, 5, 5, 4]


def test_a_name_is_registered_once(monkeypatch):
    from igva.model import fusions

    monkeypatch.setattr(fusions, "_FUSIONS", dict(fusions._FUSIONS))

    class Another(Fusion):
        pass

    with pytest.raises(ValueError, match="'mean' is registered already"):
        register_fusion("mean", Another)
    register_fusion("another", Another)
    assert "another" in fusion_names()
    assert fusion_class("another") is Another


def test_fusions_of_installed_packages(monkeypatch):
    from igva.model import fusions

    class Another(Fusion):
        pass

    class Entry:
        name = "from_outside"

        def load(self):
            return Another

    monkeypatch.setattr(fusions, "_FUSIONS", dict(fusions._FUSIONS))
    monkeypatch.setattr(fusions, "entry_points", lambda group: [Entry()] if group == "igva.fusions" else [])
    assert fusion_class("from_outside") is Another
    assert "from_outside" in fusion_names()

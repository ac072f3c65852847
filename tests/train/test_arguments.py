"""Recipes are checked before anything loads; a wrong key names the nearest right one."""

import pytest
import yaml

from igva.errors import UserError
from igva.train.arguments import load_recipe, recipe_names, recipe_text


@pytest.mark.parametrize("name", recipe_names())
def test_packaged_recipes_load(name):
    recipe = load_recipe(name)
    assert recipe.output.endswith(name)
    assert f"igva train {name}" in recipe_text(name)  # the exact command stands in the header


def test_the_two_stages_build_the_same_projector():
    align, instruct = (yaml.safe_load(recipe_text(name))["model"] for name in ("tiny_align", "tiny_instruct"))
    own = {"fusion", "fusion_kwargs", "init_from"}
    assert {k: v for k, v in align.items() if k not in own} == {k: v for k, v in instruct.items() if k not in own}


def test_overrides():
    recipe = load_recipe("tiny_instruct", ["optim.learning_rate=3e-4", "optim.max_steps=7", "lora.rank=0"])
    assert (recipe.optim.learning_rate, recipe.optim.max_steps, recipe.lora.rank) == (3e-4, 7, 0)
    assert load_recipe("tiny_instruct", ["model.init_from=null"]).model.init_from is None


BAD = {
    "optim.learning_rat=1": "did you mean optim.learning_rate?",
    "sta=align": "did you mean stage?",
    "xyzzy=1": "unknown setting xyzzy: it takes stage",
    "optim.batch_size=many": "optim.batch_size is 'many': a int is expected",
    "optim.bf16=3": "a bool is expected",
    "stage=middle": "choose from align, instruct",
    "optim=3": "optim is a section",
    "stage.x=3": "stage is not a section",
    "output=": "output is not set|a str is expected",
    "nonsense": "not of the form key=value",
    "warm_up.steps=5": "warm_up needs cell labels",
    "data.template=jinja": "choose from chat, plain",
}


@pytest.mark.parametrize("override", BAD)
def test_bad_override(override):
    with pytest.raises(UserError, match=BAD[override]) as caught:
        load_recipe("tiny_instruct", [override])
    assert "\n" not in str(caught.value)


def test_unknown_recipe_and_broken_yaml(tmp_path):
    with pytest.raises(UserError, match=r"no recipe 'tiny'.*tiny_align"):
        load_recipe("tiny")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(UserError, match="not valid YAML"):
        load_recipe(str(broken))

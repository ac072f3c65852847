"""Recipes are checked before anything loads; a wrong key names the nearest right one."""

import dataclasses
import json

import pytest

from igva.errors import UserError
from igva.train.arguments import load_recipe, recipe_from, recipe_names, recipe_text


@pytest.mark.parametrize("name", recipe_names())
def test_packaged_recipes_load(name):
    recipe = load_recipe(name)
    assert recipe.output.endswith(name)
    assert f"igva train {name}" in recipe_text(name)  # the exact command stands in the header


def test_overrides():
    recipe = load_recipe("tiny_instruct", ["optim.learning_rate=3e-4", "optim.max_steps=7", "lora.rank=0"])
    assert (recipe.optim.learning_rate, recipe.optim.max_steps, recipe.lora.rank) == (3e-4, 7, 0)
    assert load_recipe("tiny_instruct", ["model.init_from=null"]).model.init_from is None


BAD = {
    "optim.learning_rat=1": "did you mean optim.learning_rate?",
    "sta=align": "did you mean stage?",
    "xyzzy=1": "unknown setting xyzzy: it takes stage",
    "optim.batch_size=many": "optim.batch_size is 'many': a whole number is expected",
    "optim.bf16=3": "optim.bf16 is 3: true or false is expected, or auto",
    "model.dtype=fp8": "model.dtype is 'fp8': choose from auto, float32, bfloat16",
    "data.feature_workers=many": "data.feature_workers is 'many': a whole number is expected, or auto",
    "data.feature_workers=-1": "data.feature_workers is -1: 0 or more is expected",
    "warm_up.imagined=2": "warm_up.imagined is 2: a share from 0 to 1 is expected",
    "stage=middle": "choose from align, instruct",
    "optim=3": "optim is a section",
    "stage.x=3": "stage is not a section",
    "output=": "output is None: a text is expected",
    "nonsense": "not of the form key=value",
    "warm_up.steps=5": "warm_up needs cell labels",
    "data.template=jinja": "choose from chat, plain",
    "model.chat_template=llama4": "choose from chatml, llama3, qwen3, vicuna_v1",
    "model.fusion_kwargs=4": "model.fusion_kwargs is 4: a mapping is expected",
    "model.vision=": "model.vision is None: a text is expected",
    "model.vision=''": "model.vision is not set",
    "model.vision=[]": "model.vision is not set",
    "model.vision=[a, 3]": r"model.vision\[1\] is 3: a text is expected",
    "model.vision_grid=4": "make model.vision a list",
    "model.add_vision=[a]": "make model.vision a list instead",
    "optim.learning_rate=fast": "optim.learning_rate is 'fast': a number is expected",
    "trained=fusion": "trained is 'fusion': a list is expected, such as",
    "trained=[eyes]": "trained names 'eyes': choose from vision, fusion, projector, text",
    "trained=[1]": r"trained\[0\] is 1: a text is expected",
    "trained=[projector]": "set lora.rank=0, or add text to trained",
    "trained=[vision,text]": "set data.cache_features=false",
    "log_to=[visdom]": "log_to names 'visdom': choose from tensorboard, trackio, wandb",
    "model.retrofit=somewhere": "leave those out",
    "data.augment=true": "cached features cannot be augmented",
    "data.pack_tokens=100": "less than data.max_length 512: raise it",
    "data.merge_turns=-1": "data.merge_turns is -1: 0 or more is expected",
    "optim.micro_batch_size=3": "not a multiple of micro_batch_size 3",
    "optim.save_steps=0": "optim.save_steps is 0: 1 or more is expected",
}


@pytest.mark.parametrize("override", BAD)
def test_bad_override(override):
    with pytest.raises(UserError, match=BAD[override]) as caught:
        load_recipe("tiny_instruct", [override])
    assert "\n" not in str(caught.value)


def test_overrides_of_lists_and_their_elements():
    recipe = load_recipe("tiny_instruct", ["data.train=[a.json,b.json]", "log_to=[wandb]", "trained=[text,fusion]"])
    assert (recipe.data.train, recipe.log_to) == (["a.json", "b.json"], ["wandb"])
    assert recipe.trains() == ("fusion", "text")  # in the order of the model


def test_several_encoders():
    """A source alone, or what is to be different about it; kept as it was written."""
    vision = ["a", {"source": "b", "layers": [-1], "image_size": 42}]
    recipe = load_recipe("tiny_instruct", [f"model.vision={json.dumps(vision)}", "model.vision_grid=4"])
    assert (recipe.model.vision, recipe.model.vision_grid) == (vision, 4)
    assert recipe_from(json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe


RETROFIT = "llava15_7b_retrofit"
BAD_RETROFIT = {
    "model.vision=x": "takes the place of model.vision and model.text",
    "model.fusion=mean": "leave model.fusion at igva",
    "model.instruction=null": "set model.instruction",
    "model.image_size=224": "leave model.image_size out",
    "model.vision_pool=2": "leave model.vision_pool out",
    "model.vision_grid=2": "leave model.vision_grid out",
    "model.projector_norm=true": "leave model.projector_norm out",
}


@pytest.mark.parametrize("override", BAD_RETROFIT)
def test_bad_override_of_a_retrofit(override):
    with pytest.raises(UserError, match=f"^{RETROFIT}: model.retrofit .*{BAD_RETROFIT[override]}"):
        load_recipe(RETROFIT, [override])


def test_settings_survive_run_json():
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe_from(json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe


def test_unknown_recipe_and_broken_yaml(tmp_path):
    with pytest.raises(UserError, match=r"no recipe 'tiny': choose from .*tiny_align"):
        load_recipe("tiny")
    with pytest.raises(UserError, match=r"no recipe 'tiny_aling': did you mean tiny_align\?"):
        load_recipe("tiny_aling")
    with pytest.raises(UserError, match=r"nowhere.yaml cannot be read: No such file.*igva recipe list"):
        load_recipe("nowhere.yaml")
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match=r"picture.png cannot be read: it is no text"):
        load_recipe(str(picture))
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(UserError, match="not valid YAML"):
        load_recipe(str(broken))
    broken.write_text("- a")
    with pytest.raises(UserError, match="a mapping of settings is expected"):
        load_recipe(str(broken))

"""What all verbs share: where settings may stand, and what is refused."""

import importlib
import shlex

import pytest

from igva.cli.main import VERBS, _parse, build_parser, entry


@pytest.fixture
def taken(monkeypatch):
    """What `igva train` would run."""
    seen = []

    def run(recipe, resume, *, name, overrides):
        seen.append((recipe, resume, overrides))
        return "somewhere"

    monkeypatch.setattr("igva.train.run.run", run)
    return seen


@pytest.mark.parametrize(
    "words",
    [
        ["optim.max_steps=3", "output=here", "--resume"],
        ["--resume", "optim.max_steps=3", "output=here"],
        ["optim.max_steps=3", "--resume", "output=here"],
    ],
)
def test_settings_stand_on_either_side_of_an_option(words, taken):
    assert entry(["train", "tiny_instruct", *words]) == 0
    ((recipe, resume, overrides),) = taken
    assert resume and overrides == ["optim.max_steps=3", "output=here"]
    assert (recipe.optim.max_steps, recipe.output) == (3, "here")


def test_unknown_options_are_refused(taken, capsys):
    with pytest.raises(SystemExit) as stopped:
        entry(["train", "tiny_instruct", "--nonsense", "output=x"])
    assert stopped.value.code == 2 and "unrecognized arguments: --nonsense" in capsys.readouterr().err and not taken


def test_verbs_without_settings_take_no_stray_words(capsys):
    with pytest.raises(SystemExit) as stopped:
        entry(["serve", "stray=1"])
    assert stopped.value.code == 2 and "unrecognized arguments: stray=1" in capsys.readouterr().err


@pytest.mark.parametrize(("verb", "told"), [("trian", "did you mean 'train'?"), ("xyz", "`igva --help` lists them")])
def test_a_verb_that_is_none(verb, told, capsys):
    assert entry([verb, "--json"]) == 2
    assert capsys.readouterr().err == f"igva: there is no verb {verb!r}: {told}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_examples_are_commands(verb):
    """They stand in --help and are what the parser takes."""
    examples = importlib.import_module(f"igva.cli.{verb}").EXAMPLES.strip().splitlines()
    assert examples
    parser = build_parser(verb)
    for line in examples:
        program, *words = shlex.split(line)
        assert program == "igva" and words[0] == verb
        _parse(parser, words)
    text = parser._subparsers._group_actions[0].choices[verb].format_help()
    assert all(f"  {line}" in text for line in examples)

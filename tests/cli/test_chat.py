"""``igva chat``: history, pictures, weights; a mistake ends no conversation."""

import io
import shutil
from pathlib import Path

import pytest

from igva import answering
from igva.answering import SamplingOptions
from igva.cli.chat import Talk
from igva.cli.main import entry
from igva.errors import UserError
from igva.testing import tiny_model, tiny_processor


@pytest.fixture
def photo(tmp_path, picture):
    file = tmp_path / "photo.png"
    picture().save(file)
    return str(file)


@pytest.fixture(scope="module")
def small():
    model = tiny_model()
    return model, tiny_processor(model)


def test_a_conversation(model_folders, photo, monkeypatch, capsys):
    lines = ["/weights", f"/image {photo}", "What is it?", "/weights", "And where?", "/nothing", "/reset", "/weights"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*lines, "/quit", "never asked"])))
    assert entry(["chat", "--model", model_folders["one"], "--max-new-tokens", "3"]) == 0
    out = capsys.readouterr().out
    assert out.count("layers 1-2") == 1 and out.count("there are no weights yet") == 2
    assert "there is no command /nothing" in out and "forgotten" in out and "never asked" not in out


def test_history_goes_along(small, photo, capsys):
    talk = Talk(*small, max_new_tokens=3, pictures=[])
    talk.take(f"/image {photo}")
    talk.take("What is it?")
    first = talk.last.layer_weights
    talk.take("And where?")
    assert [message["role"] for message in talk.chat] == ["user", "assistant", "user", "assistant"]
    assert talk.chat[1]["content"][0]["text"] in capsys.readouterr().out
    assert talk.last.layer_weights != first  # the mean of two questions, about the same picture
    talk.take("/reset")
    talk.take("Hello?")
    assert talk.last.layer_weights is None and len(talk.chat) == 2


def test_the_same_seed_draws_the_same_conversation(small):
    def conversation(seed):
        talk = Talk(*small, max_new_tokens=6, pictures=[], sampling=SamplingOptions(temperature=2.0, seed=seed))
        for _ in range(3):
            talk.take("Say something.")
        return [message["content"][0]["text"] for message in talk.chat[1::2]]

    first = conversation(1)
    assert first == conversation(1) != conversation(7)
    assert len(set(first)) > 1  # each answer has a seed of its own


def test_mistakes(small, tmp_path):
    talk = Talk(*small, max_new_tokens=3, pictures=[])
    for line, told in (("/image", "name a picture"), ("/image no.png", "does not exist"), ("/foo", "no command /foo")):
        with pytest.raises(UserError, match=told):
            talk.take(line)
    talk.take("/usr/bin is a folder, is it?")  # not a command
    assert len(talk.chat) == 2


REFUSES = "{{ raise_exception('Conversation roles must alternate') }}"


@pytest.fixture
def stubborn(model_folders, tmp_path):
    """A model whose chat template takes nothing."""
    folder = Path(shutil.copytree(model_folders["one"], tmp_path / "stubborn"))
    (folder / "chat_template.jinja").write_text(REFUSES)
    return str(folder)


@pytest.mark.parametrize("verb", ["chat", "ask"])
def test_a_template_that_refuses_is_one_line(verb, stubborn, photo, monkeypatch, one_line):
    monkeypatch.setattr("sys.stdin", io.StringIO("What is it?\n/quit"))
    assert entry([verb, *([photo, "What is it?"] if verb == "ask" else []), "--model", stubborn]) == 2
    told = one_line()
    assert "does not take this chat: Conversation roles must alternate: mend chat_template.jinja" in told


def test_a_template_that_refuses_later_ends_no_conversation(model_folders, monkeypatch, capsys):
    once = "{% if messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}{{ messages[0].content }}"
    monkeypatch.setattr("sys.stdin", io.StringIO("What?\nAnd now?\n/reset\nWhat?"))
    real = answering.load

    def load(*args):
        model, processor = real(*args)
        processor.chat_template = once
        return model, processor

    monkeypatch.setattr(answering, "load", load)
    assert entry(["chat", "--model", model_folders["one"], "--max-new-tokens", "2"]) == 0
    out = capsys.readouterr().out
    assert out.count("one turn only") == 1 and "forgotten" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["missing.png"], "missing.png does not exist"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0"),
        (["--model", "nothing"], "there is no model 'nothing'"),
    ],
)
def test_bad_input(words, told, one_line):
    assert entry(["chat", *words]) == 2
    assert told in one_line()

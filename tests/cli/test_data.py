"""``igva data verify``."""

import json

import pytest

from igva.cli import main as cli
from igva.testing import tiny_model, tiny_processor


@pytest.fixture(autouse=True)
def only_this_verb(monkeypatch):
    monkeypatch.setattr(cli, "VERBS", ("data",))


@pytest.fixture
def data(tmp_path, picture):
    """Three samples, the last one's picture missing."""
    entries = []
    for i in range(3):
        turns = [{"from": "human", "value": "<image>\nWas ist das? 猫"}, {"from": "gpt", "value": "A cat."}]
        entries.append({"id": i, "image": f"{i}.png", "conversations": turns})
    for i in range(2):
        picture(i).save(tmp_path / f"{i}.png")
    (tmp_path / "data.json").write_text(json.dumps(entries))
    (tmp_path / "good.json").write_text(json.dumps(entries[:2]))
    return tmp_path


def run(capsys, *arguments):
    code = cli.entry(["data", "verify", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_good_data(data, capsys):
    code, out, err = run(capsys, data / "good.json")
    assert code == 0 and "igva:" not in err
    assert out.startswith(f"{data}/good.json\n") and "ESTIMATED as characters / 4" in out


def test_broken_data_is_listed_and_exit_code_2(data, capsys):
    code, out, err = run(capsys, data / "data.json")
    assert code == 2 and "missing pictures (1)" in out and "2.png does not exist" in out
    assert err.splitlines()[-1].startswith(f"igva: {data}/data.json has missing pictures: 1; mend")
    (data / "elsewhere").mkdir()
    code, out, _ = run(capsys, data / "good.json", "--image-root", data / "elsewhere")
    assert code == 2 and "missing pictures (2)" in out


def test_json(data, capsys):
    code, out, _ = run(capsys, data / "data.json", "--json")
    told = json.loads(out)
    assert code == 2 and told["usable"] is False
    assert told["samples"] == 3 and told["pictures"] == 3 and len(told["missing"]) == 1
    assert told["sources"] == {"data": 3} and told["tokens"]["all"] > 0
    assert sum(entry["samples"] for entry in told["histogram"]) == 3
    code, out, _ = run(capsys, data / "good.json", "--json")
    assert code == 0 and json.loads(out)["usable"] is True


def test_model_and_template(data, capsys):
    """A folder that holds only the processor will do."""
    tiny_processor(tiny_model()).save_pretrained(data / "model")
    code, out, _ = run(capsys, data / "good.json", "--model", data / "model", "--max-length", "60")
    assert code == 0 and "ESTIMATED" not in out and "samples over 60" in out
    code, out, err = run(capsys, data / "good.json", "--model", data / "model", "--max-length", "12")
    assert code == 2 and "samples with nothing to learn: 2" in err
    _, chat, _ = run(capsys, data / "good.json", "--model", data / "model", "--json")
    _, plain, _ = run(capsys, data / "good.json", "--model", data / "model", "--json", "--template", "plain")
    assert json.loads(plain)["tokens"]["all"] < json.loads(chat)["tokens"]["all"]


def test_plot(data, capsys):
    code, *_ = run(capsys, data / "good.json", "--plot", data / "drawn.png")
    assert code == 0 and (data / "drawn.png").stat().st_size > 2000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing.json"], "does not exist"),
        (["pipe:ls"], "download it first"),
        (["good.json", "--image-root", "nowhere"], "the image folder"),
        (["good.json", "--model", "nowhere"], "there is no model"),
        (["good.json", "--model", "."], "has no processor that can be loaded"),
        (["good.json", "--max-length", "0"], "at least 1"),
        (["good.json", "--plot", "nowhere/x.png"], "cannot be written"),
        (["empty.json"], "holds no samples"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, words, data, capsys, monkeypatch):
    monkeypatch.chdir(data)
    (data / "empty.json").write_text("[]")
    code, _, err = run(capsys, *arguments)
    (line,) = [line for line in err.splitlines() if line.startswith("igva: ")]
    assert code == 2 and words in line and err.rstrip().endswith(line)


def test_usage():
    for arguments in (["data"], ["data", "verify"], ["data", "verify", "x", "--template", "other"]):
        with pytest.raises(SystemExit) as stopped:
            cli.entry(arguments)
        assert stopped.value.code == 2

"""LLaVA JSON and JSON Lines → records; every malformed file is one line that names the place."""

import json

import pytest

from igva.data.records import read_llava
from igva.errors import UserError


def entry(**changes):
    return {
        "id": "a",
        "image": "x.png",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat?"},
            {"from": "gpt", "value": "A cat."},
        ],
        **changes,
    }


def write(tmp_path, data, name="data.json"):
    path = tmp_path / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_reads_json(tmp_path):
    (record,) = read_llava(write(tmp_path, [entry(task="name")]))
    assert record.images == (tmp_path / "x.png",)
    assert record.source == "name"
    assert record.chat == [
        {"role": "user", "content": [{"type": "image", "image": None}, {"type": "text", "text": "What?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
    ]


def test_reads_json_lines_and_an_image_root(tmp_path):
    root = tmp_path / "pictures"
    root.mkdir()
    path = write(tmp_path, "\n".join(json.dumps(entry(id=i)) for i in range(3)) + "\n\n", "data.jsonl")
    records = read_llava(path, root)
    assert [record.id for record in records] == ["0", "1", "2"]
    assert records[0].images == (root / "x.png",)


def test_several_images_keep_their_places(tmp_path):
    turns = [{"from": "human", "value": "<image>\n<image>\nWhich?"}, {"from": "gpt", "value": "The first."}]
    (record,) = read_llava(write(tmp_path, [entry(image=["a.png", "b.png"], conversations=turns)]))
    assert [image.name for image in record.images] == ["a.png", "b.png"]
    assert [item["type"] for item in record.chat[0]["content"]] == ["image", "image", "text"]


def test_image_without_placeholder_comes_first(tmp_path):
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]
    (record,) = read_llava(write(tmp_path, [entry(conversations=turns)]))
    assert [item["type"] for item in record.chat[0]["content"]] == ["image", "text"]


def test_text_only(tmp_path):
    turns = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]
    (record,) = read_llava(write(tmp_path, [{"id": 1, "conversations": turns}]))
    assert record.images == ()


def test_literal_placeholder_in_an_answer_is_text(tmp_path):
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It says <image>."}]
    (record,) = read_llava(write(tmp_path, [entry(conversations=turns)]))
    assert record.chat[1]["content"] == [{"type": "text", "text": "It says <image>."}]


BAD = {
    "not a list": ({"id": 1}, "a list of samples"),
    "not JSON": ("[{", "line 1: not valid JSON"),
    "empty": ([], "holds no samples"),
    "no conversations": ([entry(conversations=[])], "id a"),
    "unknown role": ([entry(conversations=[{"from": "cat", "value": "x"}])], "a turn needs a role"),
    "two users": ([entry(conversations=[{"from": "human", "value": "x"}] * 2)], "must alternate"),
    "ends with the user": (
        [entry(conversations=[*entry()["conversations"], {"from": "human", "value": "x"}])],
        "alternate",
    ),
    "too few images": ([entry(image=None)], "1 <image> placeholders but 0 images"),
    "too many images": ([entry(image=["a.png", "b.png"])], "1 <image> placeholders but 2 images"),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed(tmp_path, name):
    data, message = BAD[name]
    with pytest.raises(UserError, match=message) as caught:
        read_llava(write(tmp_path, data))
    assert "\n" not in str(caught.value)


def test_malformed_line_is_numbered(tmp_path):
    path = write(tmp_path, json.dumps(entry()) + "\n{oops\n", "data.jsonl")
    with pytest.raises(UserError, match="line 2"):
        read_llava(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_llava(tmp_path / "none.json")
    with pytest.raises(UserError, match="image folder"):
        read_llava(write(tmp_path, [entry()]), tmp_path / "nowhere")

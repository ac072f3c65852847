"""LLaVA JSON and JSON Lines → records; every malformed file is one line that names the place."""

import json

import pytest

from igva.data.llava_json import read_llava
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


def test_openai_turns(tmp_path):
    parts = [{"type": "text", "text": "What says <image>?"}, {"type": "image_url", "image_url": {"url": "x.png"}}]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "Nothing."},
    ]
    (record,) = read_llava(write(tmp_path, [{"images": ["x.png"], "messages": messages}]))
    assert record.chat[0] == {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    assert record.chat[1]["content"] == [
        {"type": "text", "text": "What says <image>?"},
        {"type": "image", "image": None},
    ]


def test_only_a_line_feed_ends_a_line(tmp_path):
    """U+2028 and U+0085 may stand unescaped in JSON; a byte order mark and Windows line ends do no harm."""
    turns = [{"from": "human", "value": "a\u2028b\x85c"}, {"from": "gpt", "value": "日本語 🐈"}]
    line = json.dumps({"conversations": turns}, ensure_ascii=False)
    (tmp_path / "data.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n\r\n{line}".encode())
    records = read_llava(tmp_path / "data.jsonl")
    assert len(records) == 2
    assert [m["content"][0]["text"] for m in records[1].chat] == ["a\u2028b\x85c", "日本語 🐈"]
    (tmp_path / "data.json").write_bytes(b"\xef\xbb\xbf" + f"[{line}]".encode())
    assert read_llava(tmp_path / "data.json")[0].chat == records[0].chat


BAD = {
    "not a list": ({"id": 1}, "a list of samples"),
    "not JSON": ("[{", "line 1: not valid JSON"),
    "nested without end": ("[" * 100_000, "nested too deeply"),
    "half a character": (
        '[{"conversations": [{"from": "human", "value": "\\ud83d"}, {"from": "gpt", "value": "x"}]}]',
        "half a character",
    ),
    "no object": (["x"], "sample 0: an object is expected, not a str"),
    "an image that is a number": ([entry(image=5)], "neither a file name nor a list"),
    "an image without a name": ([entry(image=["a.png", None])], "neither a file name nor a list"),
    "a picture of the assistant": (
        [{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": [{"type": "image"}]}]}],
        "only a user shows pictures",
    ),
    "a part of another kind": (
        [{"id": "a", "messages": [{"role": "user", "content": [{"type": "video"}]}]}],
        "a turn needs a role",
    ),
    "only a system turn": ([{"id": "a", "messages": [{"role": "system", "content": "x"}]}], "must alternate"),
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
    path.write_bytes(json.dumps(entry()).encode() + b"\n\n\xff\xfe\n")
    with pytest.raises(UserError, match="line 3: not valid JSON \\(it is not UTF-8\\)"):
        read_llava(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_llava(tmp_path / "none.json")
    with pytest.raises(UserError, match="image folder"):
        read_llava(write(tmp_path, [entry()]), tmp_path / "nowhere")

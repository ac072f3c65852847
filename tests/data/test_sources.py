"""The same conversations from every format are the same records; what is no data is one line."""

from __future__ import annotations

import json
import pickle
import sys

import pytest
from datasets import Dataset, DatasetDict, Image, List, load_dataset

from igva.data.images import image_bytes, open_image
from igva.data.sources import is_stream, open_stream, read_records, scan
from igva.errors import UserError


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("IGVA_HOME", str(tmp_path / "home"))


def plain(record):
    return record.id, record.chat, [image_bytes(image) for image in record.images], record.source, record.extra


def openai(turns):
    """LLaVA's turns as OpenAI's, users' pictures and text as parts."""
    messages = []
    for turn in turns:
        if turn["from"] == "gpt":
            messages.append({"role": "assistant", "content": [{"type": "text", "text": turn["value"]}]})
            continue
        parts = []
        for i, text in enumerate(turn["value"].split("<image>")):
            parts += [{"type": "image"}] * bool(i)
            parts += [{"type": "text", "text": text.strip("\n")}] if text.strip("\n") else []
        messages.append({"role": "user", "content": parts})
    return messages


def rows(content, key="conversations", style=lambda turns: turns):
    entries, pictures = content
    return [
        {
            "id": entry["id"],
            key: style(entry["conversations"]),
            "images": [{"bytes": pictures[name], "path": None} for name in entry.get("image", [])],
            "source": entry.get("source"),
        }
        for entry in entries
    ]


def table(content, **options):
    return Dataset.from_list(rows(content, **options)).cast_column("images", List(Image(decode=False)))


def hf_forms(content, folder):
    """The table in every form it can have on disk: name → source."""
    dataset = table(content)
    folder.mkdir()
    dataset.save_to_disk(folder / "saved" / "mixed")
    DatasetDict(train=dataset).save_to_disk(folder / "splits")
    for i in range(2):
        (folder / "parts" / "mixed").mkdir(parents=True, exist_ok=True)
        dataset.shard(2, i, contiguous=True).to_parquet(folder / "parts" / "mixed" / f"{i}.parquet")
    dataset.to_parquet(folder / "mixed.parquet")
    table(content, key="messages", style=openai).save_to_disk(folder / "openai" / "mixed")
    strings = [{**row, "messages": row.pop("conversations")} for row in rows(content)]
    for row in strings:
        row["messages"] = [
            {"role": "user" if turn["from"] == "human" else "assistant", "content": turn["value"]}
            for turn in row["messages"]
        ]
    Dataset.from_list(strings).to_parquet(folder / "strings" / "mixed.parquet")  # a struct, not the type Image
    (arrow,) = (folder / "saved" / "mixed").glob("*.arrow")
    (folder / "mixed.arrow").write_bytes(arrow.read_bytes())
    return {
        "saved": folder / "saved" / "mixed",
        "parquet": folder / "mixed.parquet",
        "parquet folder": folder / "parts" / "mixed",
        "arrow": folder / "mixed.arrow",
        "openai": folder / "openai" / "mixed",
        "strings": folder / "strings" / "mixed.parquet",
    }


def test_every_format_gives_the_same_records(content, llava, shards, tmp_path):
    expected = [plain(record) for record in read_records(llava / "mixed.json")]
    assert [len(images) for _, _, images, *_ in expected] == [1, 2, 2, 0]
    assert [source for *_, source, _ in expected] == ["mixed", "pairs", "mixed", "mixed"]
    assert expected[3][1][1]["content"] == [{"type": "text", "text": "„Katze“.\u2028Zeile"}]
    assert [plain(record) for record in read_records(str(llava / "mixed.jsonl"))] == expected
    for name, source in hf_forms(content, tmp_path / "hf").items():
        assert [plain(record) for record in read_records(source)] == expected, name
    for source in (shards, f"{shards}/mixed-{{00..01}}.tar", [shards / "mixed-00.tar", str(shards / "mixed-01.tar")]):
        assert [plain(record) for record in open_stream(source)] == expected
        assert [plain(record) for record in open_stream(source)] == expected  # once more


def test_a_list_concatenates(llava, content, tmp_path):
    forms = hf_forms(content, tmp_path / "hf")
    records = read_records([llava / "mixed.json", str(forms["saved"]), llava / "mixed.jsonl"])
    assert len(records) == 12 and [record.id for record in records[:4]] * 3 == [record.id for record in records]


def test_what_is_a_stream(llava, shards, tmp_path):
    assert is_stream(str(shards)) and is_stream([str(shards / "mixed-00.tar")]) and is_stream("a-{0..9}.tar")
    assert not is_stream(str(llava / "mixed.json")) and not is_stream([]) and not is_stream(tmp_path / "nothing")
    assert not is_stream(read_records(llava / "mixed.json"))


def test_tables_are_read_when_needed_and_travel(content, tmp_path):
    (source,) = [s for name, s in hf_forms(content, tmp_path / "hf").items() if name == "saved"]
    images = [image for record in read_records(source) for image in record.images]
    copies = pickle.loads(pickle.dumps(images))
    assert copies == images and len({str(image) for image in images}) == 5
    assert len(pickle.dumps(images)) < 50_000  # no bytes of pictures
    assert [open_image(a).tobytes() for a in copies] == [open_image(b).tobytes() for b in images]
    assert str(images[2]) == f"{source}, row 1, picture 1"


def test_a_column_of_single_pictures_and_one_of_paths(content, llava, tmp_path):
    entries, pictures = content
    turns = entries[0]["conversations"]
    single = [{"messages": turns, "image": {"bytes": pictures["0.png"], "path": "x.png"}}]
    single += [{"messages": entries[3]["conversations"], "image": None}]
    Dataset.from_list(single).cast_column("image", Image()).to_parquet(tmp_path / "single.parquet")
    first, second = read_records(tmp_path / "single.parquet")
    assert image_bytes(first.images[0]) == pictures["0.png"] and second.images == ()
    assert (first.id, second.id) == ("0", "1")
    Dataset.from_list([{"messages": turns, "image": "0.png"}, {"messages": turns, "image": "1.png"}]).to_parquet(
        llava / "paths.parquet"
    )
    assert [r.images for r in read_records(llava / "paths.parquet")] == [(llava / "0.png",), (llava / "1.png",)]
    (tmp_path / "elsewhere").mkdir()
    records = read_records(llava / "paths.parquet", tmp_path / "elsewhere")
    assert records[0].images == (tmp_path / "elsewhere" / "0.png",)
    # bytes left out, a path in their place: the file is read
    struct = [{"messages": turns, "image": {"bytes": None, "path": "2.png"}}]
    Dataset.from_list(struct).to_parquet(llava / "struct.parquet")
    assert image_bytes(read_records(llava / "struct.parquet")[0].images[0]) == pictures["2.png"]


def test_hub_names(content, tmp_path, monkeypatch):
    asked = []

    def fake(name, split=None, **options):
        asked.append((name, split))
        return table(content).select([] if split == "test[:0]" else range(4))

    monkeypatch.setattr("datasets.load_dataset", fake)
    assert len(read_records("hf:someone/pictures")) == 4
    assert len(read_records("hf:someone/pictures:test[:10%]")) == 4
    refused(lambda: read_records("hf:someone/pictures:test[:0]"), "holds no samples")
    assert asked[:2] == [("someone/pictures", "train"), ("someone/pictures", "test[:10%]")]
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    refused(lambda: read_records("hf:nobody/nothing"), "hf:nobody/nothing cannot be loaded as a Hugging Face data set")


def entry(**changes):
    turns = [{"from": "human", "value": "<image><image>Which?"}, {"from": "gpt", "value": "One."}]
    return json.dumps({"conversations": turns, **changes}).encode()


def test_pictures_of_a_shard_in_their_order(content, write_tar, tmp_path):
    """By the entry's names where these are members, else by their numbers; the suffix's case does not matter."""
    data = list(content[1].values())
    single = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A dog."}]
    write_tar(
        tmp_path / "0007.tar",
        {
            "a/named": {"json": entry(image=["named.x.png", "0.png"]), "0.png": data[0], "x.png": data[1]},
            "numbered": {"10.png": data[0], "9.PNG": data[1], "json": entry(image=["train/77.jpg", "train/78.jpg"])},
            "single": {"jpg": data[2], "json": json.dumps({"id": 5, "conversations": single}).encode()},
        },
    )
    named, numbered, one = open_stream(tmp_path / "0007.tar")
    assert [image_bytes(image) for image in named.images] == [data[1], data[0]]
    assert [image_bytes(image) for image in numbered.images] == [data[1], data[0]]
    assert [image_bytes(image) for image in one.images] == [data[2]]
    assert (named.id, numbered.id, one.id) == ("a/named", "numbered", "5")
    assert str(one.images[0]) == f"{tmp_path}/0007.tar/single.jpg"
    assert one.source == tmp_path.name  # a file whose name is a number says nothing


def test_malformed_samples_of_a_shard_stop_there_or_are_gathered(write_tar, tmp_path, content):
    png = content[1]["0.png"]
    good = {"json": entry(), "0.png": png, "1.png": png}
    path = write_tar(
        tmp_path / "bad.tar",
        {
            "good": good,
            "noentry": {"png": png},
            "nojson": {"json": b"{oops"},
            "list": {"json": b"[1]"},
            "toofew": {"json": entry(), "png": png},
            "absent": {"json": entry(image=["0.png", "5.png"]), "0.png": png, "1.png": png},
            "last": good,
        },
    )
    refused(lambda: list(open_stream(path)), f"{path}, sample noentry: it has no noentry.json")
    found = list(scan(path))
    problems = [str(item) for item in found if isinstance(item, UserError)]
    assert len(found) == 7 and [item.id for item in found if not isinstance(item, UserError)] == ["good", "last"]
    wanted = (
        "no noentry.json",
        "not valid JSON",
        "not a list",
        "2 <image> placeholders but 1 images",
        "no picture 5.png",
    )
    for problem, words in zip(problems, wanted, strict=True):
        assert words in problem and "\n" not in problem and str(path) in problem
    half = tmp_path / "half.tar"
    half.write_bytes(path.read_bytes()[:2500])
    assert "half.tar is damaged or no tar file" in str(list(scan(half))[-1])
    twice = write_tar(tmp_path / "twice.tar", {"a": {"json": b"{}"}, "b": good})
    twice.write_bytes(twice.read_bytes()[:1024] + twice.read_bytes())
    assert "twice.tar is damaged" in str(next(scan(twice)))


def refused(call, *words):
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message, message
    for word in words:
        assert word in message, message


def test_bad_sources_are_one_line(llava, shards, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "broken.parquet").write_text("hello")
    (tmp_path / "broken.tar").write_text("hello")
    (tmp_path / "empty.tar").touch()
    cases = {
        tmp_path / "nothing.json": "does not exist",
        tmp_path / "nothing": "does not exist",
        tmp_path / "empty": "is a folder without tar, parquet or arrow files",
        llava: "name the data file in it",
        tmp_path / "notes.txt": "is of no known format: use LLaVA .json",
        tmp_path / "broken.parquet": "cannot be loaded as a Hugging Face data set",
        "pipe:cat x.json": "is not a file on this disk: download it first",
        "https://example.org/data.json": "download it first",
        shards: "is streamed and has no list of records",
    }
    for source, words in cases.items():
        refused(lambda source=source: read_records(source), str(source), words)
    refused(lambda: read_records([]), "no data is named")
    refused(lambda: read_records(llava / "mixed.json", tmp_path / "nowhere"), "the image folder", "nowhere")
    streams = {
        "pipe:touch x.tar": "download it first",
        "https://example.org/a.tar": "download it first",
        tmp_path / "none.tar": "none.tar does not exist: check the path or the pattern",
        f"{shards}/mixed-{{00..02}}.tar": "mixed-02.tar does not exist",
        f"{shards}/mixed-{{00..01.tar": "cannot be read: write it as",
        llava / "mixed.json": "is no WebDataset: streams and other data cannot be mixed",
    }
    for source, words in streams.items():
        refused(lambda source=source: open_stream([shards / "mixed-00.tar", source]), words)
    refused(lambda: open_stream(shards, tmp_path), "image_root has no meaning")
    refused(lambda: list(open_stream(tmp_path / "broken.tar")), "broken.tar is damaged or no tar file")
    refused(lambda: list(open_stream(tmp_path / "empty.tar")), "empty.tar is damaged or no tar file")


def test_bad_tables_are_one_line(content, tmp_path):
    Dataset.from_list([{"text": "x"}]).to_parquet(tmp_path / "columns.parquet")
    refused(lambda: read_records(tmp_path / "columns.parquet"), "has the columns text: one named messages is needed")
    table(content).select([]).to_parquet(tmp_path / "none.parquet")
    refused(lambda: read_records(tmp_path / "none.parquet"), "none.parquet cannot be loaded", "no data")
    DatasetDict(train=table(content), test=table(content)).save_to_disk(tmp_path / "splits")
    refused(lambda: read_records(tmp_path / "splits"), "holds the splits train, test", str(tmp_path / "splits/train"))
    assert len(read_records(tmp_path / "splits" / "test")) == 4
    bad = rows(content)
    bad[1]["images"] = []
    bad[2]["conversations"] = bad[2]["conversations"][:1]
    Dataset.from_list(bad).to_parquet(tmp_path / "bad.parquet")
    problems = [str(item) for item in scan(tmp_path / "bad.parquet") if isinstance(item, UserError)]
    assert len(problems) == 2
    assert "bad.parquet, row 1 (id several): 2 <image> placeholders but 0 images" in problems[0]
    assert "row 2 (id turns): turns must alternate" in problems[1]
    refused(lambda: read_records(tmp_path / "bad.parquet"), "row 1 (id several)")


@pytest.mark.parametrize("package", ["datasets", "webdataset"])
def test_a_missing_package_is_named(package, content, shards, tmp_path, monkeypatch):
    table(content).save_to_disk(tmp_path / "saved")
    for name in list(sys.modules):
        if name.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    read = {"datasets": lambda: read_records(tmp_path / "saved"), "webdataset": lambda: list(open_stream(shards))}
    refused(read[package], f"the package {package}: pip install 'igva[data]'")

"""Tables as people have them: splits, further columns of pictures, columns that take turns, several configurations."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from igva.data.images import open_image
from igva.data.sources import read_records
from igva.errors import UserError

datasets = pytest.importorskip("datasets")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def png(color: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(out, "PNG")
    return out.getvalue()


RED, BLUE = ({"bytes": png(color), "path": None} for color in ("red", "blue"))
TURNS = [{"role": "user", "content": "<image>q"}, {"role": "assistant", "content": "a"}]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("IGVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)


def saved(columns: dict, kinds: dict) -> str:
    table = datasets.Dataset.from_dict(columns)
    for name, kind in kinds.items():
        table = table.cast_column(name, kind)
    table.save_to_disk("table")
    return "table"


def colours(record):
    return [open_image(image).getpixel((0, 0)) for image in record.images]


def test_another_column_of_pictures_is_left_alone():
    broken = {"bytes": b"broken", "path": None}
    columns = {"image": [RED, RED], "mask": [BLUE, broken], "masks": [[broken], []], "messages": [TURNS] * 2}
    kinds = {"image": datasets.Image(), "mask": datasets.Image(), "masks": datasets.List(datasets.Image())}
    records = read_records(saved(columns, kinds))
    assert [colours(record) for record in records] == [[(255, 0, 0)]] * 2 and not records[0].extra


def test_the_column_that_is_filled_counts():
    columns = {"image": [RED, None, None], "images": [None, [RED, BLUE], []], "messages": [TURNS, TURNS, TURNS]}
    columns["messages"][1] = columns["messages"][2] = [{**TURNS[0], "content": "q"}, TURNS[1]]
    records = read_records(saved(columns, {"image": datasets.Image(), "images": datasets.List(datasets.Image())}))
    assert [len(record.images) for record in records] == [1, 2, 0]
    assert colours(records[1]) == [(255, 0, 0), (0, 0, 255)]


def test_lists_of_fixed_length():
    kinds = {"images": datasets.List(datasets.Image(), length=2)}
    (record,) = read_records(
        saved({"images": [[RED, BLUE]], "messages": [[{**TURNS[0], "content": "q"}, TURNS[1]]]}, kinds)
    )
    assert colours(record) == [(255, 0, 0), (0, 0, 255)]


def write(path, rows: int):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": [png("red")] * rows, "messages": [TURNS] * rows}), path)


@pytest.mark.parametrize("test", ["data/test-00000-of-00001.parquet", "test/0000.parquet", "data/validation.parquet"])
def test_only_the_training_split_of_a_folder_is_read(tmp_path, test):
    write(tmp_path / "repo" / test.replace("test", "train").replace("validation", "train"), 1)
    write(tmp_path / "repo" / test, 2)
    assert len(read_records("repo")) == 1
    write(tmp_path / "other" / "test.parquet", 1)
    write(tmp_path / "other" / "val.parquet", 1)
    with pytest.raises(UserError, match="holds the splits test, validation: name a file"):
        read_records("other")
    write(tmp_path / "plain" / "contest-training.parquet", 1)
    write(tmp_path / "plain" / "part-2.parquet", 1)
    assert len(read_records("plain/part-2.parquet")) == 1


def test_several_configurations(tmp_path):
    for name in "xy":
        write(tmp_path / "multi" / name / "train.parquet", 1 if name == "x" else 2)
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in "xy")
    (tmp_path / "multi" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    with pytest.raises(UserError, match=r"has the configurations x, y: name one, such as hf:multi@x"):
        read_records("hf:multi")
    assert len(read_records("hf:multi@y")) == 2 and len(read_records("hf:multi@x:train")) == 1

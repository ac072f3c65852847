"""A report is complete, self-contained, escaped, and the same every time."""

import csv
import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from igva.errors import UserError
from igva.plot import new_figure
from igva.study.report import Figure, write_report
from igva.tables import Table, format_column, text_table

pytest.importorskip("matplotlib")


def table():
    rows = [["<b>a</b>", 10, 55.123456, 1e-9], ["b & c", 2000, None, 0.5], ["d", 3, float("nan"), 1.0]]
    return Table("by_x", 'By "x"', ["name", "n", "share", "p"], rows, "a <i>note</i>")


def figure():
    drawn = new_figure(3, 2)
    drawn.subplots().plot([1, 2, 3])
    return Figure("curve", "A curve", drawn, "under <it>")


def report(out):
    path = write_report(
        out,
        title="T <script>alert(1)</script>",
        summary=["One.", "Two </main>."],
        tables=[table()],
        figures=[figure()],
        settings={"data": "a</pre>b"},
    )
    assert path == out / "report.html"
    return path.read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Tags that stand open, texts and addresses."""

    VOID = ("meta", "img", "br")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.addresses = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_files(tmp_path):
    report(tmp_path / "new" / "out")
    out = tmp_path / "new" / "out"
    assert {p.name for p in out.iterdir()} == {"by_x.csv", "by_x.json", "curve.png", "study.json", "report.html"}
    read = list(csv.reader((out / "by_x.csv").open()))
    assert read[0] == ["name", "n", "share", "p"] and read[1] == ["<b>a</b>", "10", "55.123456", "1e-09"]
    told = json.loads((out / "by_x.json").read_text())
    assert told["rows"][1] == ["b & c", 2000, None, 0.5]
    assert told["rows"][2][2] is None  # JSON has no NaN
    study = json.loads((out / "study.json").read_text())
    assert study["settings"] == {"data": "a</pre>b"} and {"igva", "torch", "python"} <= study["versions"].keys()
    assert Image.open(out / "curve.png").size[0] > 300


def test_page_is_whole_and_needs_nothing_else(tmp_path):
    html = report(tmp_path)
    outline = Outline()
    outline.feed(html)
    assert outline.open == []
    assert outline.tags.count("table") == 1 and outline.tags.count("img") == 1
    assert outline.tags.count("script") == 1  # the title's is text
    assert all(address.startswith("data:image/png;base64,") for address in outline.addresses)
    assert not re.search(r"https?://", html)
    assert "&lt;b&gt;a&lt;/b&gt;" in html and "&lt;i&gt;note" in html
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html


def test_cells_sort_by_their_value_not_their_text(tmp_path):
    html = report(tmp_path)
    assert 'data-v="1e-09">1.0e-09<' in html
    assert 'data-v="55.123456">55.12<' in html
    assert 'data-v=""></td>' in html  # an empty cell
    assert 'data-v="">nan<' in html


def test_same_input_same_bytes(tmp_path):
    report(tmp_path / "a"), report(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_text_table_is_aligned():
    lines = text_table(table()).split("\n")
    assert lines[0] == 'By "x"' and lines[-1] == "a <i>note</i>"
    assert lines[1:4] == [
        "name         n  share        p",
        "--------  ----  -----  -------",
        "<b>a</b>    10  55.12  1.0e-09",
    ]
    assert lines[4].startswith("b & c     2000")


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([1, 20], ["1", "20"]),
        ([0.5, 12.25], ["0.50", "12.25"]),
        ([0.123456], ["0.1235"]),
        ([1.0, 0.0], ["1", "0"]),
        ([0.0, 1e-12], ["0.0000", "1.0e-12"]),
        ([123456.7], ["123457"]),
        (["a", None, 1.5], ["a", "", "1.5"]),
        ([], []),
    ],
)
def test_numbers_of_a_column_have_the_same_decimals(values, texts):
    assert format_column(values) == texts


def test_empty_table(tmp_path):
    empty = Table("none", "None", ["a", "b"], [])
    write_report(tmp_path, title="t", summary=[], tables=[empty], figures=[], settings={})
    assert text_table(empty).split("\n")[1] == "a  b"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        report(tmp_path / "file")


@pytest.mark.parametrize("name", ["../x", "report", "a b", ""])
def test_names_that_are_no_file_of_ours(tmp_path, name):
    bad = Table(name, "t", ["a"], [])
    with pytest.raises(ValueError, match="file"):
        write_report(tmp_path, title="t", summary=[], tables=[bad], figures=[], settings={})

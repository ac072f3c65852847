"""``igva ask``: the answer and its bars; bad input is one line and exit code 2."""

import json
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from igva.cli.main import entry


@pytest.fixture
def folder(model_folder):
    return str(model_folder)


@pytest.fixture
def photo(tmp_path, picture):
    file = tmp_path / "photo.png"
    picture().save(file)
    return str(file)


def test_text(folder, photo, capsys):
    assert entry(["ask", photo, "What is it?", "--model", folder, "--max-new-tokens", "3"]) == 0
    out = capsys.readouterr().out
    assert "layers 1-2" in out and "layers 3-4" in out and "█" in out and "%" in out


def test_json_is_one_object(folder, photo, capsys):
    assert entry(["ask", photo, "What?", "--model", folder, "--json", "--max-new-tokens", "2"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == folder
    assert set(told["timings"]) == {"load_s", "encode_s", "first_token_s", "total_s"}
    assert told["timings"]["load_s"] > 0


def test_several_images(folder, photo, capsys):
    words = ["ask", "--image", photo, "--image", photo, "Which?", "--model", folder, "--max-new-tokens", "2"]
    assert entry(words) == 0
    assert "picture 2" in capsys.readouterr().out


def test_plot(folder, photo, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "plot.png"
    assert entry(["ask", photo, "What is it?", "--model", folder, "--plot", str(plot), "--max-new-tokens", "2"]) == 0
    width, height = Image.open(plot).size
    assert width > 600 and height > 300


def test_named_layers(ensemble, photo, tmp_path, capsys):
    for part in ensemble:
        part.save_pretrained(tmp_path / "model")
    command = ["ask", photo, "What?", "--model", str(tmp_path / "model"), "--max-new-tokens", "2"]
    assert entry([*command, "--plot", str(tmp_path / "plot.png")]) == 0
    bars = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "%" in line]
    assert bars == ["dinov2.2,4", "efficientnet.2,words"]
    assert (tmp_path / "plot.png").stat().st_size > 0
    assert entry([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layer_names"] == bars


def huge_png(path):
    """A PNG whose header claims 40,000 × 25,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 25_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    return str(path)


def cut_png(photo, tmp_path):
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(photo).read_bytes()[:900])
    return str(cut)


def text_file(tmp_path):
    file = tmp_path / "notes.png"
    file.write_text("no picture")
    return str(file)


# message → the words after `igva ask`, from a photo and a folder
BAD = {
    "does not exist": lambda photo, tmp: ["no.png", "What?"],
    "is not an image": lambda photo, tmp: [text_file(tmp), "What?"],
    "damaged or truncated": lambda photo, tmp: [cut_png(photo, tmp), "What?"],
    "too many pixels": lambda photo, tmp: [huge_png(tmp / "huge.png"), "What?"],
    "is a folder": lambda photo, tmp: [str(tmp), "What?"],
    "question is empty": lambda photo, tmp: [photo, "  "],
    "name a picture and a question": lambda photo, tmp: ["What?"],
    "put the question in quotes": lambda photo, tmp: [photo, "What", "is", "it?"],
    "no model 'tinny'": lambda photo, tmp: [photo, "What?", "--model", "tinny"],
    "no config.json": lambda photo, tmp: [photo, "What?", "--model", str(tmp)],
    "no device 'tpu'": lambda photo, tmp: [photo, "What?", "--device", "tpu"],
    "no dtype 'int7'": lambda photo, tmp: [photo, "What?", "--dtype", "int7"],
    "the folder of": lambda photo, tmp: [photo, "What?", "--plot", str(tmp / "none" / "x.png")],
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message, photo, tmp_path, capsys):
    assert entry(["ask", *BAD[message](photo, tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.startswith("igva: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--top-p", "0.5"], "no effect without --temperature"),
        (["--seed", "1"], "no effect without --temperature"),
        (["--temperature", "0", "--seed", "1"], "no effect without --temperature"),
        (["--temperature", "1", "--seed", "9" * 30], "2^63"),
        (["--temperature", "-1"], "0 or above"),
        (["--temperature", "nan"], "0 or above"),
        (["--temperature", "1", "--top-p", "0"], "above 0, up to 1"),
        (["--max-new-tokens", "0"], "at least 1"),
    ],
)
def test_sampling_that_cannot_be(photo, options, told, capsys):
    assert entry(["ask", photo, "What?", *options]) == 2
    assert told in capsys.readouterr().err

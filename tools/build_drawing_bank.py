"""Build a bank of drawings by many hands, to fine-tune a small vision encoder on: ``bank.zip`` and ``index.json``.

Not needed to use anything. It takes the packed npm and Debian files from one folder, the clip art and stamps of
``src/igva/probe/pack`` from where they are, and needs, next to the standard library, Pillow and ``resvg-py``::

    mkdir -p /tmp/packages && cd /tmp/packages
    npm pack @iconify/json@2.2.535
    apt-get download openclipart-png=1:0.18+dfsg-19 fonts-symbola=2.60-1.1
    pip install resvg-py==0.5.0
    python tools/build_drawing_bank.py /tmp/packages /tmp/bank

The bank holds SET/NAME-NUMBER.webp, of each drawing what is visible, its longer side SIDE pixels, a name's spaces as
"_". The index lists the names, those of the pack ("core"), the files as [path, name, set, "color"|"mono"|"photo"], and
each set's licence, author, source and number of files. The sets that test (every Streamline set, Twemoji, the pack's
archives "-test") are never in it.
"""

import json
import multiprocessing
import sys
import tarfile
import tempfile
import zlib
from collections import Counter
from pathlib import Path

from drawing_bank import icons, others
from drawing_bank.names import core, photographed
from PIL import Image
from probe_pack.files import encode, rasterise, unpacked, write_zip

SIDE = 112  # pixels of a drawing's longer side
MOST = {True: 60, False: 30}  # drawings of a name: of the pack's, of others
LEAST, LEAST_SETS = 6, 3  # drawings of a name that is not the pack's, and sets that they are of
VARIANTS = 3  # of one icon in one set
BYTES = 26_000_000
ENTRY = 98  # bytes of a file's headers in an archive, without its path, which is there twice
Job = tuple[str, str, int, int]  # key, SVG text or what others.read understands, width, height


def scaled(image: Image.Image) -> bytes:
    """A drawing, its longer side SIDE pixels, as WebP."""
    # Coarse alpha, which no eye sees: in drawings of one ink alpha is nearly all of the file.
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return encode(image.resize(size, Image.Resampling.LANCZOS), method=4, quality=75, alpha_quality=60)


def looks(image: Image.Image) -> bytes:
    """What two copies of a drawing share: 12 x 12 pixels, coarsely."""
    small = image.convert("RGBa").resize((12, 12), Image.Resampling.BOX)
    return bytes(value // 48 for value in small.tobytes())


def draw(job: Job) -> tuple[str, bytes, bytes] | None:
    """One drawing: its key, its WebP and its looks; None where it is broken or nothing is visible."""
    key, source, width, height = job
    try:
        if source.startswith("<svg"):
            image = rasterise(source, width, height, skip_system_fonts=True)
        else:
            image = others.read(source)
    except (ValueError, OSError):
        return None
    box = image.getchannel("A").point([255 if value > 20 else 0 for value in range(256)]).getbbox()
    if box is None:
        return None
    image = image.crop(box)
    return key, scaled(image), looks(image)


def collect(
    sources: others.Sources, unpacked_icons: Path
) -> tuple[dict[str, list[tuple[str, str]]], list[Job], dict[str, str]]:
    """The chosen (set, key) of each name, best first, the jobs that draw them, and the kind of each set."""
    rows = icons.read_sets(unpacked_icons)
    kinds = {style: "color" if row.get("palette") else "mono" for style, row in rows.items()} | others.KINDS
    jobs: dict[str, Job] = {}
    found: dict[str, list[tuple[str, str]]] = {}
    for style in rows:
        table = icons.read_icons(unpacked_icons, style)
        for icon in icons.in_set(style, table, VARIANTS):
            key = f"{style}:{icon.slug}"
            jobs[key] = (key, *icons.svg(table, icon.slug, 2 * SIDE))
            found.setdefault(icon.name, []).append((style, key))
    for name, style, source in others.drawings(sources, unpacked_icons / "json/noto.json"):
        key = f"{style}:{source}"
        jobs[key] = (key, source, 0, 0)
        found.setdefault(name, []).append((style, key))
    chosen = {name: spread(name, listed, kinds) for name, listed in sorted(found.items())}
    wanted = dict.fromkeys(key for listed in chosen.values() for _, key in listed)
    return chosen, [jobs[key] for key in wanted], kinds


def spread(name: str, listed: list[tuple[str, str]], kinds: dict[str, str]) -> list[tuple[str, str]]:
    """A name's drawings in turns, one of each set a turn (two of a coloured one), coloured sets first."""
    turns: Counter[str] = Counter()
    ranked = []
    for style, key in listed:
        mono = kinds[style] == "mono"
        place = turns[style] + 1 if mono else turns[style] // 2
        turns[style] += 1
        ranked.append((place, mono, zlib.crc32(f"{name} {style}".encode()), style, key))
    return [(style, key) for _, _, _, style, key in sorted(ranked)][: MOST[name in core()] + 15]


def keep(
    chosen: dict[str, list[tuple[str, str]]], drawn: dict[str, tuple[bytes, bytes]], kinds: dict[str, str]
) -> tuple[dict[str, bytes], list[tuple[str, str, str, str]]]:
    """The files of the bank and their rows of the index: no two alike of a name, at most BYTES in all."""
    ranked = []
    for name, listed in chosen.items():
        seen: dict[bytes, tuple[str, str]] = {}
        for style, key in listed:
            if key in drawn:
                seen.setdefault(drawn[key][1], (style, key))
        kept = list(seen.values())[: MOST[name in core()]]
        few = len(kept) < LEAST or len({style for style, _ in kept}) < LEAST_SETS
        if few and name not in core() and name not in photographed():
            continue
        for place, (style, key) in enumerate(kept):
            # What is left out for size: the later drawings in one ink, of the pack's names last.
            late = 0 if kinds[style] != "mono" or place < LEAST else place + (0 if name in core() else 12)
            ranked.append((late, name, place, style, drawn[key][0]))
    files: dict[str, bytes] = {}
    index: list[tuple[str, str, str, str]] = []
    numbers: Counter[str] = Counter()
    total = 0
    for _, name, _, style, data in sorted(ranked):
        stem = f"{style}/{name.replace(' ', '_')}"
        path = f"{stem}-{numbers[stem]}.webp"
        total += len(data) + 2 * len(path) + ENTRY
        if total > BYTES:
            break
        numbers[stem] += 1
        files[path] = data
        index.append((path, name, style, kinds[style]))
    return files, sorted(index)


def write_index(path: Path, rows: list[tuple[str, str, str, str]], unpacked_icons: Path) -> None:
    """index.json."""
    version = json.loads((unpacked_icons / "package.json").read_text(encoding="utf-8"))["version"]
    about = dict(others.ABOUT)
    for style, row in icons.read_sets(unpacked_icons).items():
        about[style] = {"licence": icons.licence(style, row), "author": icons.author(row)}
        about[style]["source"] = f"npm @iconify/json {version}"
    counts = Counter(style for _, _, style, _ in rows)
    table = {
        "names": sorted({name for _, name, _, _ in rows}),
        "core": sorted(core()),
        "files": rows,
        "sets": {style: {**about[style], "files": counts[style]} for style in sorted(counts)},
    }
    path.write_text(json.dumps(table, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def main(packages: Path, folder: Path) -> None:
    """Write the bank and its index into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, unpacked(packages, "openclipart-png") as clip_art:
        with tarfile.open(next(packages.glob("iconify-json-[0-9]*.tgz"))) as tar:
            tar.extractall(temporary, filter="data")
        with unpacked(packages, "fonts-symbola") as symbola:
            unpacked_icons = Path(temporary) / "package"
            chosen, jobs, kinds = collect(others.Sources(clip_art, symbola), unpacked_icons)
            with multiprocessing.Pool(4) as pool:
                made = [one for one in pool.imap_unordered(draw, jobs, chunksize=32) if one is not None]
        files, rows = keep(chosen, {key: (data, seen) for key, data, seen in made}, kinds)
        write_index(folder / "index.json", rows, unpacked_icons)
    write_zip(folder / "bank.zip", files)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

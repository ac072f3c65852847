"""``igva doctor``: what is here, and what is missing for what."""

import argparse

HELP = "say what igva finds here: versions, devices, models, and what is missing for what"
EXAMPLES = "igva doctor"

# Extra of the package → what it is for.
EXTRAS = {
    "embedded": "igva models fetch",
    "train": "igva train",
    "data": "data sets of Hugging Face, WebDataset",
    "plot": "igva ask --plot, pictures",
    "eval": "igva eval",
    "study": "igva study, igva compare",
    "serve": "igva serve",
    "quantize": "lora.quantize (QLoRA)",
    "deepspeed": "distributed=zero2, zero3",
    "timm": "towers of timm",
    "ray": "igva batch --engine ray",
    "lmms": "igva eval --suite lmms:…",
    "vllm": "vLLM",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def main(args: argparse.Namespace) -> None:
    """Print one table of what is here, and one of what is not."""
    rows = [*versions_rows(), *device_rows(), *storage_rows(), *model_rows()]
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
    print()
    width = max(map(len, EXTRAS.values()))
    for extra, purpose in EXTRAS.items():
        lacking = missing(extra)
        told = f"pip install 'igva[{extra}]'  (missing: {', '.join(lacking)})" if lacking else "ready"
        print(f"{purpose:<{width}}  {told}")


def versions_rows() -> list[tuple[str, str]]:
    from igva.versions import versions

    return list(versions("accelerate").items())


def device_rows() -> list[tuple[str, str]]:
    """The CPU and each GPU, and whether they multiply bfloat16."""
    import os

    import torch

    from igva.train.precision import multiplies_bfloat16

    def bfloat16(device: torch.device) -> str:
        return "multiplies bfloat16" if multiplies_bfloat16(device) else "does not multiply bfloat16: float32 is used"

    threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    rows = [("cpu", f"{threads}, {_memory()}, {bfloat16(torch.device('cpu'))}")]
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        device = torch.device("cuda", number)
        rows.append((str(device), f"{about.name}, {about.total_memory / 2**30:.0f} GiB, {bfloat16(device)}"))
    if torch.backends.mps.is_available():
        rows.append(("mps", "available"))
    return rows


def _memory() -> str:
    import os

    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory"
    except (ValueError, OSError, AttributeError):  # no such system call here
        return "memory unknown"


def storage_rows() -> list[tuple[str, str]]:
    """Where igva keeps what it fetches, how much that is, and how much room there is."""
    import shutil

    from igva.paths import home

    folder = home()
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(there).free / 2**30
    used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**30 if folder.is_dir() else 0
    return [("cache", f"{folder}: {used:.1f} GiB, {free:.0f} GiB free (IGVA_HOME moves it)")]


def model_rows() -> list[tuple[str, str]]:
    from igva.checkpoints.catalog import MODELS

    return [
        (f"model {entry.name}", "here" if entry.present() else f"not fetched: igva models fetch {entry.name}")
        for entry in MODELS.values()
    ]


def missing(extra: str) -> list[str]:
    """The packages of an extra that are not installed, or too old, as requirements."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    lacking = []
    for line in requires("igva") or []:
        needed = Requirement(line)
        if not needed.marker or not needed.marker.evaluate({"extra": extra}):
            continue
        if needed.name == "igva":  # an extra that brings others
            lacking += [each for other in sorted(needed.extras) for each in missing(other)]
            continue
        try:
            if not needed.specifier.contains(version(needed.name), prereleases=True):
                lacking.append(f"{needed.name}{needed.specifier}")
        except PackageNotFoundError:
            lacking.append(f"{needed.name}{needed.specifier}")
    return lacking

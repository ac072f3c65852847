"""The runs of a study, one file each: what is there already is not run again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from igva.study.claims import claim


@dataclass(frozen=True)
class Outcome:
    """What one run of a study came to.

    Attributes:
        label: the fusion or layer; ``seed`` of everything random in its run.
        scores: question id → 0..1.
        weights: mean layer weights per category, None where the fusion has none.
        loss: training loss at the end, mean over the last tenth of the steps; None where none was noted.
        seconds: of training, on the machine of the study.
        step_ms: median time of a training step; None where it was not measured.
        parameters: of the fusion.
        cells_right: share of the visual tokens named right after a warm-up; None without one.
    """

    label: str
    seed: int
    scores: dict[str, float]
    weights: dict[str, list[float]] | None
    loss: float | None
    seconds: float
    step_ms: float | None
    parameters: int
    cells_right: float | None = None


@dataclass(frozen=True)
class Job:
    """One run to be done, and the function that does it."""

    label: str
    seed: int
    run: Callable[[], Outcome]


class Trials:
    """The folder ``runs`` of a study.

    Args:
        settings: all that every run shares; a folder begun with other settings is refused.

    Raises:
        UserError: the folder was begun with other settings; the message names the first that differs.
    """

    def __init__(self, out: Path, settings: dict[str, Any]):
        self.folder = out / "runs"
        claim(self.folder, settings)

    def do(self, jobs: Iterable[Job], desc: str) -> list[Outcome]:
        """Every outcome in the order of the jobs; what is missing is run and written down at once."""
        jobs = list(jobs)
        outcomes = []
        with tqdm(total=len(jobs), desc=desc, unit="run") as bar:
            for job in jobs:
                file = self.folder / f"{slug(job.label)}-s{job.seed}.json"
                if not file.is_file():
                    part = file.with_suffix(".part")
                    part.write_text(json.dumps(asdict(job.run())) + "\n")
                    part.replace(file)
                outcomes.append(Outcome(**json.loads(file.read_text())))
                bar.update()
        return outcomes


def slug(label: str) -> str:
    """A label as part of a file name."""
    return re.sub(r"[^A-Za-z0-9=.+-]+", "_", label)

"""Where a run begins: at step 0 in a folder of its own, or at the newest sound checkpoint of the same run."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from igva.checkpoints.trained import TRAINED_FILE
from igva.errors import UserError
from igva.train.arguments import Recipe, recipe_from
from igva.train.snapshots import damage, snapshots

RUN_FILE = "run.json"

# What may differ when a run goes on, and is only said: what changes nothing that is learnt (but for the order of
# additions), and how long it goes on; a schedule that falls to 0 then falls to its new end.
_MAY_DIFFER = frozenset(
    {
        "output",
        "log_to",
        "export",
        "model.attention",
        "data.train",  # compared by what is in the files
        "data.image_root",
        "data.validation",
        "data.feature_workers",
        "data.max_bad_share",
        "optim.micro_batch_size",
        "optim.gradient_checkpointing",
        "optim.workers",
        "optim.logging_steps",
        "optim.eval_steps",
        "optim.save_steps",
        "optim.keep_checkpoints",
        "optim.max_steps",
        "optim.epochs",
    }
)


@dataclasses.dataclass(frozen=True)
class Beginning:
    """What a run goes on from.

    Attributes:
        checkpoint: None to begin at step 0.
        before: ``run.json`` as the run so far left it; empty where there was none.
    """

    checkpoint: Path | None = None
    before: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def figures(self) -> dict[str, Any]:
        """What the run measured before its first step (the warm-up's figures), which a resumed one does not repeat."""
        return dict(self.before.get("figures", {})) if self.checkpoint else {}

    def history(self) -> list[dict[str, Any]]:
        """For ``run.json``: every checkpoint the run went on from, with the versions that had written it."""
        earlier: list[dict[str, Any]] = list(self.before.get("resumed", ()))
        if self.checkpoint is None:
            return earlier
        return [*earlier, {"from": self.checkpoint.name, "versions": self.before.get("versions")}]


def beginning(
    recipe: Recipe, resume: bool, data: Mapping[str, Any], versions: Mapping[str, Any], *, main: bool = True
) -> Beginning:
    """Where this run begins.

    Args:
        recipe: with settled precision.
        resume: go on from what stands in ``recipe.output``.
        data, versions: of now, as ``run.json`` keeps them.
        main: whether this process says on standard error what it takes and what it passes over.

    Raises:
        UserError: the folder holds a run and ``resume`` is false; it holds none, only damaged checkpoints, or a run
            with other settings or data, and ``resume`` is true.
    """
    output = Path(recipe.output)
    kept = snapshots(output)
    before = read_run_file(output)
    finished = (output / TRAINED_FILE).exists()
    if not resume:
        if finished:
            raise UserError(f"{output} holds a finished run: name another output, or move it away")
        if kept or before:
            at = f"at {kept[-1].name}" if kept else "without a checkpoint yet"
            raise UserError(
                f"{output} holds an unfinished run, {at}: go on with --resume, name another output, or move it away"
            )
        return Beginning()
    if not (holds_run(output) or finished):
        raise UserError(f"{output} holds no run to go on with: leave --resume out, or name the run's output")
    changes = _check_same(recipe, output, kept, before, data) if before else []
    if not kept:
        if finished:
            raise UserError(f"{output} holds a finished run: name another output, or move it away")
        _say(main, f"{output} has no checkpoint yet: the run begins at step 0")
        return Beginning(before=before)
    for checkpoint in reversed(kept):
        if (reason := damage(checkpoint)) is None:
            _say(main, f"going on from {checkpoint}")
            for line in [*changes, *_differences(before.get("versions") or {}, versions)]:
                _say(main, f"since it was begun: {line}")
            return Beginning(checkpoint, before)
        _say(main, f"{checkpoint} is damaged ({reason}): the one before it is tried")
    raise UserError(f"every checkpoint in {output} is damaged: copy them again, or name another output to begin anew")


def holds_run(output: Path) -> bool:
    """Whether a run has begun in this folder: only then can one go on."""
    return (output / RUN_FILE).exists() or bool(snapshots(output))


def _say(main: bool, line: str) -> None:
    if main:
        print(line, file=sys.stderr)


def read_run_file(output: Path) -> dict[str, Any]:
    """``run.json``; empty where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = output / RUN_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: copy it again, or name another output to begin anew") from error
    return content if isinstance(content, dict) else {}


def _check_same(
    recipe: Recipe, output: Path, kept: list[Path], before: Mapping[str, Any], data: Mapping[str, Any]
) -> list[str]:
    """What may differ between this run and the one in the folder, and does.

    Raises:
        UserError: it names everything else that does.
    """
    try:
        then = recipe_from(before["recipe"])
    except (KeyError, TypeError, UserError) as error:
        raise UserError(
            f"{output} was begun by another version of igva, whose settings this one cannot read"
        ) from error
    theirs, ours = (_flat(dataclasses.asdict(settings)) for settings in (then, recipe))
    # Cells beside the answers are drawn by micro-batch.
    free = _MAY_DIFFER - ({"optim.micro_batch_size"} if recipe.warm_up.beside else set())
    odd = [
        *_differences(_without(theirs, free), _without(ours, free)),
        *_data_differences(before.get("data") or {}, data),
    ]
    if odd:
        new = f"model.init_from={kept[-1]}" if kept else "the settings you want"
        raise UserError(
            f"{output} was begun otherwise: {'; '.join(odd)}. Give the same settings, or begin a new run with another "
            f"output and {new}"
        )
    return list(_differences({key: theirs[key] for key in free}, ours))


def _data_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """By what is in the files, wherever they lie now; by name where that is not known."""
    theirs, ours = (
        [content or source for source, content in dict(facts.get("sha256") or {}).items()] for facts in (then, now)
    )
    if theirs != ours:
        names = [
            source for source, content in dict(now.get("sha256") or {}).items() if (content or source) not in theirs
        ]
        yield f"data.train has changed ({', '.join(names) or 'fewer files, or another order'})"
    elif then.get("samples") != now.get("samples"):
        yield f"data.train gave {then.get('samples')} samples then, {now.get('samples')} now"


def _without(settings: Mapping[str, Any], free: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in free}


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Of what stands in ``then``."""
    for key in sorted(then):
        if then[key] != now.get(key):
            yield f"{key} was {then[key]}, now {now.get(key)}"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Sections as dotted keys; what a fusion takes stays one value."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and not prefix:
            flat |= _flat(value, f"{key}.")
        else:
            flat[prefix + key] = value
    return flat

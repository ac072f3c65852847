"""THE table of tasks: what pictures can be drawn for. A new task is a record in a ``task_*.py`` and one line here.

It can be drawn by name from then on (``igva probe build --tasks NAME``), stands in every list and on every sheet, and
changes no picture that is published: see ``igva.probe.edition``.
"""

from importlib.metadata import entry_points

from igva.errors import UserError
from igva.probe import (
    edition,
    task_beside,
    task_charts,
    task_fine,
    task_general,
    task_hallucination,
    task_knowledge,
    task_vision,
)
from igva.probe.describe import DESCRIBE
from igva.probe.task_base import Task

_TASKS: dict[str, Task] = {}


def register_task(task: Task) -> None:
    """Add a task under its name.

    Raises:
        ValueError: the name is taken, or the category is none of the six.
    """
    if task.name in (*_TASKS, *edition.PHOTO_SHARES, DESCRIBE):
        raise ValueError(f"the name {task.name!r} is taken: give the task another")
    if task.category not in edition.PUBLISHED:
        raise ValueError(f"task {task.name!r}: there is no category {task.category!r}: {', '.join(edition.PUBLISHED)}")
    _TASKS[task.name] = task


def task_of(name: str) -> Task:
    """The task of a name.

    Raises:
        UserError: no such task; the message lists the names there are.
    """
    if name not in _TASKS:
        _load_entry_points()
    if name not in _TASKS:
        raise UserError(f"there is no task {name!r}: choose from {', '.join(task_names())}")
    return _TASKS[name]


def categories() -> dict[str, tuple[str, ...]]:
    """The tasks of each category, those that are published first, those of installed packages (entry-point group
    ``igva.probe_tasks``) included."""
    _load_entry_points()
    return {
        category: (*published, *(t.name for t in _TASKS.values() if t.category == category and t.name not in published))
        for category, published in edition.PUBLISHED.items()
    }


def task_names() -> list[str]:
    """Every task, category by category."""
    return [name for names in categories().values() for name in names]


def category_of(task: str) -> str:
    """The category of a task, or of descriptions."""
    return "General" if task == DESCRIBE else task_of(task).category


def _load_entry_points() -> None:
    for entry in entry_points(group="igva.probe_tasks"):
        if entry.name not in _TASKS:
            register_task(entry.load())


register_task(task_general.NAME)
register_task(task_general.SCENE)
register_task(task_general.CAPTION)
register_task(task_knowledge.KIND)
register_task(task_knowledge.USE)
register_task(task_knowledge.LEGS)
register_task(task_knowledge.HABITAT)
register_task(task_knowledge.FLAG)
register_task(task_charts.READ)
register_task(task_charts.CHART)
register_task(task_charts.PIE)
register_task(task_charts.LINE)
register_task(task_charts.TABLE)
register_task(task_charts.DOCUMENT)
register_task(task_vision.COUNT)
register_task(task_vision.POSITION)
register_task(task_vision.SIZE)
register_task(task_vision.DEPTH)
register_task(task_vision.MIRROR)
register_task(task_vision.TURN)
register_task(task_fine.COLOR)
register_task(task_fine.SMALL)
register_task(task_fine.SHADE)
register_task(task_fine.TEXTURE)
register_task(task_fine.REFER)
register_task(task_hallucination.EXISTS)
register_task(task_hallucination.EXISTS_POPULAR)
register_task(task_hallucination.EXISTS_ADVERSARIAL)
register_task(task_hallucination.ATTRIBUTE)
# On pictures of their own, beside the suite that is published.
register_task(task_beside.THING_BESIDE)
register_task(task_beside.WORD_BESIDE)
register_task(task_beside.PATTERN_BESIDE)
register_task(task_beside.DOT_BESIDE)

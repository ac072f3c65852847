"""Draws pictures with questions, offline and reproducibly; knows nothing of models."""

from igva.probe.build_split import build, picture_hash
from igva.probe.edition import SPLITS, VERSION
from igva.probe.suite import Conversation, ProbeSample, sample
from igva.probe.task_base import Question, Task
from igva.probe.tasks import categories, category_of, register_task, task_names

__all__ = [
    "SPLITS",
    "VERSION",
    "Conversation",
    "ProbeSample",
    "Question",
    "Task",
    "build",
    "categories",
    "category_of",
    "picture_hash",
    "register_task",
    "sample",
    "task_names",
]

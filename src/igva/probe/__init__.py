"""Draws pictures with questions, offline and reproducibly; knows nothing of models."""

from igva.probe.questions import Question
from igva.probe.suite import Conversation, ProbeSample, build, picture_hash, sample
from igva.probe.vocabulary import CATEGORIES, SPLITS, TASKS

__all__ = [
    "CATEGORIES",
    "SPLITS",
    "TASKS",
    "Conversation",
    "ProbeSample",
    "Question",
    "build",
    "picture_hash",
    "sample",
]

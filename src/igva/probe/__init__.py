"""Draws pictures with questions, offline and reproducibly; knows nothing of models."""

from igva.probe.questions import Question
from igva.probe.suite import Conversation, ProbeSample, build, picture_hash, sample
from igva.probe.vocabulary import CATEGORIES, SPLITS, TASKS

VERSION = 2  # of what is drawn: another number, other pictures and questions

__all__ = [
    "CATEGORIES",
    "SPLITS",
    "TASKS",
    "VERSION",
    "Conversation",
    "ProbeSample",
    "Question",
    "build",
    "picture_hash",
    "sample",
]

"""Sorts questions by their words: into types by the question word, and into clusters of sentences that are alike."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from igva.errors import UserError

STARTS, ROUNDS = 4, 100  # of k-means
# Words that say nothing about what a question is about; kept where a cluster has no others.
_COMMON = "a an and are at be by can do does for from has have in is it its of on or the this that to"

RULE = (
    "A question's type is its first question word (what, which, who, where, when, why, how many, how), or is there, "
    "or yes or no where it begins with an auxiliary verb; an instruction begins with none of them and asks nothing."
)
_AUXILIARIES = "is are was were am do does did can could will would should shall may might must has have had"
_OPENINGS = (("how many", "how many"), ("how much", "how many"), ("is there", "is there"), ("are there", "is there"))
_WORDS = {"what": "what", "which": "which", "who": "who", "whose": "who", "where": "where", "when": "when"} | {
    "why": "why",
    "how": "how",
}


def question_type(text: str) -> str:
    """One of the types of ``RULE``; only the first line counts, since choices may follow it."""
    lines = text.strip().lower().splitlines()
    words = re.findall(r"[a-z]+", lines[0]) if lines else []
    for start in range(len(words)):
        pair = " ".join(words[start : start + 2])
        for opening, name in _OPENINGS:
            if pair == opening and (start == 0 or opening.startswith("how")):
                return name
        if start == 0 and words[0] in _AUXILIARIES.split():
            return "yes or no"
        if words[start] in _WORDS:
            return _WORDS[words[start]]
    return "instruction" if words else "other"


def k_means(points: ArrayLike, k: int) -> NDArray[np.intp]:
    """Scipy's k-means from k-means++ starts, the best of ``STARTS``; the same for the same input.

    Args:
        points: ``(n, E)``.
        k: at most that many clusters come back, fewer where points coincide.

    Returns:
        ``(n,)``, the cluster of each point; clusters are numbered from the largest, like ones from the
        earliest point.

    Raises:
        UserError: scipy is missing.
    """
    try:
        from scipy.cluster.vq import kmeans2
    except ImportError as error:
        raise UserError("clusters of questions need scipy: pip install 'igva[study]'") from error
    points = np.asarray(points, dtype=np.float64)  # sums of many near vectors: single precision could break ties
    k = min(k, len(np.unique(points, axis=0)))
    runs = []
    for start in range(STARTS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a cluster that lost all its points is simply one less
            centres, labels = kmeans2(points, k, iter=ROUNDS, minit="++", seed=np.random.default_rng(start))
        runs.append((float(np.square(points - centres[labels]).sum()), labels))
    _, best = min(runs, key=lambda run: run[0])
    _, firsts, members, sizes = np.unique(best, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((firsts, -sizes))
    ranks: NDArray[np.intp] = np.argsort(order)[members]
    return ranks


def cluster_names(texts: Sequence[str], labels: Sequence[int], words: int = 3) -> dict[int, str]:
    """For each cluster the words most typical of it, by tf-idf with the clusters as documents.

    A word's tf is the share of the cluster's texts that hold it, its idf ``log(1 + clusters / clusters with it)``.
    """
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    sizes = Counter(labels)
    for text, label in zip(texts, labels, strict=True):
        counts[label].update(set(re.findall(r"[^\W_]+", text.lower())))
    spread = Counter(word for counter in counts.values() for word in counter)

    def score(label: int, word: str) -> float:
        return counts[label][word] / sizes[label] * math.log(1 + len(counts) / spread[word])

    names = {}
    for label in sorted(counts):
        telling = [word for word in counts[label] if word not in _COMMON.split()] or list(counts[label])
        best = sorted(telling, key=lambda word: (-score(label, word), word))[:words]
        names[label] = ", ".join(best) or "no words"
    return names

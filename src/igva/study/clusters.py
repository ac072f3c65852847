"""Questions that are alike, by their sentence vectors: k-means, and the words that tell a cluster from the others."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

STARTS, ROUNDS = 4, 100
# Words that say nothing about what a question is about; kept where a cluster has no others.
_COMMON = "a an and are at be by can do does for from has have in is it its of on or the this that to"


def k_means(points: Tensor, k: int, seed: int = 0) -> Tensor:
    """Lloyd's algorithm from k-means++ starts, the best of ``STARTS``; the same for the same input.

    Args:
        points: ``(n, E)``.
        k: at most ``n`` clusters come back, fewer where points coincide.

    Returns:
        ``(n,)``, the cluster of each point; clusters are numbered from the largest.
    """
    points = points.double()  # sums of many near vectors: single precision could break ties differently
    generator = torch.Generator().manual_seed(seed)
    runs = [_lloyd(points, _spread_centres(points, k, generator)) for _ in range(STARTS)]
    labels = min(runs, key=lambda run: run[1])[0]
    order = torch.bincount(labels, minlength=k).argsort(descending=True, stable=True)
    return order.argsort()[labels]


def _spread_centres(points: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """k-means++ (Arthur & Vassilvitskii 2007): each next centre is drawn by its squared distance to the nearest."""
    first = int(torch.randint(len(points), (1,), generator=generator))
    centres = [points[first]]
    nearest = (points - centres[0]).square().sum(dim=1)
    while len(centres) < min(k, len(points)) and nearest.max() > 1e-12:
        chosen = int(torch.multinomial(nearest, 1, generator=generator))
        centres.append(points[chosen])
        nearest = torch.minimum(nearest, (points - points[chosen]).square().sum(dim=1))
    return torch.stack(centres)


def _lloyd(points: Tensor, centres: Tensor) -> tuple[Tensor, float]:
    """Labels, and the sum of squared distances to the centres."""
    labels = torch.full((len(points),), -1)
    for _ in range(ROUNDS):
        distances = torch.cdist(points, centres)
        new = distances.argmin(dim=1)
        if torch.equal(new, labels):
            break
        labels = new
        for c in labels.unique():
            centres[c] = points[labels == c].mean(dim=0)
    return labels, float((points - centres[labels]).square().sum())


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

"""Clusters of questions, and kinds of questions."""

import pytest
import torch

from igva.study.question_kinds import cluster_names, k_means, question_type


def blobs(sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points, truth = [], []
    for number, size in enumerate(sizes):
        centre = torch.zeros(8)
        centre[number] = 5
        points.append(centre + 0.3 * torch.randn(size, 8, generator=generator))
        truth += [number] * size
    order = torch.randperm(len(truth), generator=generator)
    return torch.cat(points)[order], [truth[i] for i in order]


def test_k_means_finds_what_is_there_largest_first():
    points, truth = blobs([5, 30, 12])
    labels = k_means(points, 3).tolist()
    assert {t: {label for label, other in zip(labels, truth, strict=True) if other == t} for t in range(3)} == {
        1: {0},
        2: {1},
        0: {2},
    }
    assert k_means(points, 3).tolist() == labels


def test_k_means_of_fewer_points_than_clusters():
    same = torch.ones(5, 4)
    assert k_means(same, 3).tolist() == [0] * 5
    assert sorted(k_means(torch.eye(2), 8).tolist()) == [0, 1]


def test_names_are_the_words_that_tell_a_cluster_apart():
    texts = ["What color is the cat?", "What color is the dog?", "How many cats?", "How many dogs are there?"]
    names = cluster_names(texts, [0, 0, 1, 1], words=1)
    assert names == {0: "color", 1: "how"}
    assert cluster_names(["is it", "???"], [0, 1]) == {0: "is, it", 1: "no words"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("What is this?", "what"),
        ("In the picture, which is bigger?", "which"),
        ("How many cats are there?", "how many"),
        ("How does it look?", "how"),
        ("Is there a cat?", "is there"),
        ("Are there any cats?", "is there"),
        ("Is the cat left of the dog?", "yes or no"),
        ("Does it rain?", "yes or no"),
        ("Read the word.", "instruction"),
        ("Tell me where it is.", "where"),
        ("Name it.\nWhat\nWhich", "instruction"),  # choices are no part of the question
        ("  WHO is it", "who"),
        ("", "other"),
        ("猫?", "other"),
    ],
)
def test_question_type(text, kind):
    assert question_type(text) == kind

"""Layer weights of a model: what they are, what moves them, and what other weights would do."""

import csv
import json

import pytest
import torch

from igva.data.questions import read_questions
from igva.errors import UserError
from igva.eval.run import fingerprint
from igva.layer_names import group_names
from igva.model.fusion_mean import MeanFusion
from igva.model.fusions import fusion_names
from igva.study.counterfactuals import (
    ALIKE,
    ANSWERS,
    AS_IS,
    FIXED,
    SWAPPED,
    alike,
    always,
    answer_all,
    conditions,
    forced_weights,
    only,
    without,
)
from igva.study.weights import study_weights, swaps, weigh
from igva.study.weights_results import (
    KINDS,
    OTHER_PICTURE,
    OTHER_TASK,
    SAME_TASK,
    entropy,
    explained_variance,
)
from igva.testing import tiny_model, tiny_processor
from igva.train.guidance import total_variation

HALVES = torch.tensor([0.5, 0.5])
WORDS = {"color": "What color is it?", "count": "How many are there?", "name": "Name the thing."}


@pytest.fixture
def questions(tmp_path, picture):
    """Three tasks in two categories; the first two pictures are asked twice."""
    entries = []
    for number, task in enumerate(["color", "count", "name", "color", "count", "name"]):
        picture(number, 30 + number, 40).save(tmp_path / f"{number}.png")
        entries.append({"id": f"q{number}", "image": f"{number}.png", "task": task, "question": WORDS[task]})
    entries.append({"id": "q6", "image": "0.png", "task": "count", "question": "How many of these?"})
    entries.append({"id": "q7", "image": "1.png", "task": "color", "question": "Which color is this?"})
    for entry in entries:
        entry |= {"answer": "yes", "category": "General" if entry["task"] == "name" else "Fine-Grained"}
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(entries))
    return read_questions(file)


def own_weights(model, processor, question):
    """By the long way: the whole processor and model for one question."""
    from igva.data.images import open_image

    chat = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": open_image(question.image)},
                {"type": "text", "text": question.question},
            ],
        }
    ]
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs).fusion_weights[0]


def test_weigh_is_what_the_model_does(model, processor, questions):
    weights = weigh(model, processor, [(q.image, q.question) for q in questions], batch_size=2)
    expected = torch.stack([own_weights(model, processor, q) for q in questions])
    assert torch.allclose(weights, expected, atol=1e-5)
    assert torch.allclose(weights.sum(dim=1), torch.ones(len(questions)))


def test_half_precision(processor, questions):
    pairs = [(q.image, q.question) for q in questions]
    half = weigh(tiny_model().to(torch.bfloat16), processor, pairs)
    assert torch.allclose(half, weigh(tiny_model(), processor, pairs), atol=0.02)


def test_the_tower_runs_once_per_picture(model, processor, questions, monkeypatch):
    seen = []
    encode = model.model.encode_image_layers
    monkeypatch.setattr(model.model, "encode_image_layers", lambda pixels: seen.append(len(pixels)) or encode(pixels))
    weigh(model, processor, [(q.image, text) for q in questions for text in WORDS.values()], batch_size=4)
    assert sum(seen) == 6


def test_weigh_without_a_sentence_encoder(questions):
    bare = tiny_model("mean", encoder=None)
    weights = weigh(bare, tiny_processor(bare), [(questions[0].image, "What?")])
    assert weights.tolist() == [[0.5, 0.5]]
    needy = tiny_model(encoder=None, instruction_dim=24)
    with pytest.raises(UserError, match="sentence encoder"):
        weigh(needy, tiny_processor(needy), [(questions[0].image, "What?")])


def test_a_fusion_without_weights():
    with pytest.raises(UserError, match="no layer weights"):
        group_names(tiny_model("single"))
    with pytest.raises(UserError, match="none can be forced"), forced_weights(tiny_model("single"), alike):
        pass


def test_entropy_and_distance():
    weights = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    assert entropy(weights).tolist() == pytest.approx([0.6931, 0.0], abs=1e-4)
    assert total_variation(weights, weights.flip(1)).tolist() == pytest.approx([0.0, 1.0])


def test_explained_variance():
    weights = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]])
    assert explained_variance(weights, ["a", "a", "b", "b"]) == pytest.approx((1.0, 1 / 3))
    assert explained_variance(weights, ["a", "b", "a", "b"])[0] == pytest.approx(0.0)
    assert torch.tensor(explained_variance(weights[:1].repeat(3, 1), ["a", "b", "c"])[0]).isnan()


def test_changes_of_weights():
    weights = torch.tensor([[0.2, 0.3, 0.5], [0.0, 0.0, 1.0]])
    assert torch.allclose(without(2)(weights), torch.tensor([[0.4, 0.6, 0.0], [0.5, 0.5, 0.0]]))
    assert only(1)(weights).tolist() == [[0, 1, 0], [0, 1, 0]]
    assert torch.allclose(alike(weights), torch.full((2, 3), 1 / 3))
    assert without(0)(weights[:, None].repeat(1, 4, 1)).shape == (2, 4, 3)  # per patch


def test_forced_weights_reach_the_features_and_leave_no_trace(model):
    pixels, instruction = torch.randn(2, 3, 28, 28), torch.randn(2, 24)

    def features():
        with torch.inference_mode():
            return model.get_image_features(pixels, instruction_embeds=instruction)

    before = features()
    with forced_weights(model, lambda weights: weights.clone()):
        assert torch.equal(torch.stack(features().pooler_output), torch.stack(before.pooler_output))
    with forced_weights(model, only(1)):
        forced = features()
    assert forced.fusion_weights.tolist() == [[0, 1], [0, 1]]
    # by hand: base layer beside the second group alone
    mixed = torch.cat([before.layer_patches[:, 0], before.layer_patches[:, 2]], dim=-1)
    with torch.inference_mode():
        assert torch.allclose(torch.stack(forced.pooler_output), model.model.projector(mixed), atol=1e-6)
    assert torch.equal(features().fusion_weights, before.fusion_weights)
    assert not model.model.fusion._forward_hooks


class Stretched(MeanFusion):
    """Mixes, and then does something else."""

    def forward(self, layers, instruction):
        output = super().forward(layers, instruction)
        output.features = output.features * 2
        return output


def test_weights_are_not_forced_on_a_fusion_that_does_more_than_mixing():
    model = tiny_model("mean")
    model.model.fusion.__class__ = Stretched
    with pytest.raises(UserError, match="none can be forced"), forced_weights(model, alike), torch.no_grad():
        model.get_image_features(torch.randn(1, 3, 28, 28))
    assert not model.model.fusion._forward_hooks


def test_swaps(questions):
    found = swaps(questions)
    assert found == swaps(questions)
    for question, other in zip(questions, found[OTHER_TASK], strict=True):
        assert other[0] == question.image and other[1] in {q.question for q in questions if q.task != question.task}
    # where the picture has a question of another task, it is that one
    assert found[OTHER_TASK][0][1] == "How many of these?" and found[OTHER_TASK][7][1] == WORDS["count"]
    assert found[SAME_TASK][2] is None  # all questions of that task are the same
    assert found[SAME_TASK][0] == (questions[0].image, "Which color is this?")
    for question, other in zip(questions, found[OTHER_PICTURE], strict=True):
        assert other[0] != question.image and other[1] == question.question


def test_nothing_to_exchange(questions):
    alone = swaps(questions[:1])
    assert all(alone[kind] == [None] for kind in KINDS)


def test_answers_under_conditions(model, processor, questions, tmp_path):
    others = {q.id: WORDS["name"] for q in questions if q.task != "name"}
    answers = answer_all(model, processor, questions, others, HALVES, tmp_path, batch_size=3, max_new_tokens=3)
    assert list(answers) == list(conditions(group_names(model), HALVES))
    assert answers[SWAPPED].keys() == others.keys()
    assert all(answers[name].keys() == {q.id for q in questions} for name in answers if name != SWAPPED)
    # as it is: what the model says by the ordinary way
    from igva.answering import answer

    for q in questions[:3]:
        assert answers[AS_IS][q.id] == answer(model, processor, q.image, q.question, max_new_tokens=3).answer
    # a killed run goes on: what is there is not asked again
    file = tmp_path / ANSWERS
    lines = file.read_text().splitlines()
    changed = json.loads(lines[0])
    changed["answers"][ALIKE] = "from the file"
    file.write_text(json.dumps(changed) + "\n" + "\n".join(lines[1:4]) + "\n" + lines[4][:20])
    again = answer_all(model, processor, questions, others, HALVES, tmp_path, batch_size=5, max_new_tokens=3)
    assert again[ALIKE][changed["id"]] == "from the file"
    assert again[AS_IS] == answers[AS_IS]


def test_one_mixture_for_all(model, processor, questions, tmp_path):
    """Given to all, the mean weights leave neither question nor picture a say; given as they are, nothing changes."""
    picture = [(questions[0].image, "What?"), (questions[1].image, "Where?")]
    with forced_weights(model, always(torch.tensor([0.7, 0.3]))):
        assert torch.allclose(weigh(model, processor, picture), torch.tensor([[0.7, 0.3]] * 2))
    own = weigh(model, processor, [(questions[0].image, questions[0].question)])[0]
    answers = answer_all(model, processor, questions[:1], {}, own, tmp_path, max_new_tokens=3)
    assert answers[FIXED] == answers[AS_IS]


def test_another_question_has_its_own_weights_and_answers(model, processor, questions, tmp_path):
    """The exchanged question steers the layers only: exchanged for itself, nothing changes."""
    others = {q.id: q.question for q in questions}
    answers = answer_all(model, processor, questions[:2], others, HALVES, tmp_path, max_new_tokens=3)
    assert answers[SWAPPED] == answers[AS_IS]


def settings(model, **more):
    return {"model": "m", "model_key": fingerprint(model), **more}


def test_study(model, processor, questions, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    report = study_weights(
        model, processor, questions, out, clusters=3, counterfactuals=True, max_new_tokens=2, settings=settings(model)
    )
    assert report == out / "report.html"
    tables = {path.stem: list(csv.DictReader(path.open())) for path in out.glob("*.csv")}
    assert tables.keys() == {
        "by_category",
        "by_task",
        "by_question_type",
        "by_cluster",
        "variance",
        "question_swap",
        "question_swap_by_task",
        "counterfactuals",
        "answers_changed",
    }
    assert [row["category"] for row in tables["by_category"]] == ["Fine-Grained", "General", "all"]
    weights = weigh(model, processor, [(q.image, q.question) for q in questions])
    assert float(tables["by_category"][-1]["layers 1-2"]) == pytest.approx(float(weights[:, 0].mean()), abs=1e-4)
    assert float(tables["by_task"][2]["layers 3-4"]) == pytest.approx(float(weights[[2, 5], 1].mean()), abs=1e-4)
    assert {row["weights"] for row in tables["counterfactuals"]} == set(conditions(group_names(model), HALVES)) - {
        AS_IS
    }
    assert all(row["after, %"] == "0.0" for row in tables["counterfactuals"])  # a random model is right by no weights
    rows = [json.loads(line) for line in (out / "weights.jsonl").open()]
    assert [row["id"] for row in rows] == [q.id for q in questions]
    assert {path.stem for path in out.glob("*.png")} == {
        "weights_by_category",
        "weights_by_task",
        "weights_by_words",
        "entropy",
        "counterfactuals",
    }
    summary = " ".join(json.loads((out / "study.json").read_text())["summary"])
    assert "Mean weights over 8 questions: layers 1-2" in summary and "No difference beyond chance" in summary
    with pytest.raises(UserError, match="model_key"):  # another checkpoint under the same name
        study_weights(model, processor, questions, out, settings=settings(tiny_model(seed=1)))


def test_study_of_named_layers(ensemble, questions, tmp_path):
    pytest.importorskip("matplotlib")
    report = study_weights(*ensemble, questions, tmp_path / "out", settings={})
    names = ["dinov2.2,4", "efficientnet.2,words"]
    assert group_names(ensemble[0]) == names
    for table in ("by_category", "by_task"):
        with (tmp_path / "out" / f"{table}.csv").open() as file:
            assert next(csv.reader(file))[2:4] == names
    assert all(f"<button>{name}</button>" in report.read_text() for name in names)
    summary = " ".join(json.loads((tmp_path / "out" / "study.json").read_text())["summary"])
    assert "questions: dinov2.2,4 " in summary


def test_study_of_a_fusion_that_does_not_adapt(questions, tmp_path):
    pytest.importorskip("matplotlib")
    model = tiny_model("mean")
    study_weights(model, tiny_processor(model), questions, tmp_path / "out", settings={})
    summary = " ".join(json.loads((tmp_path / "out" / "study.json").read_text())["summary"])
    assert "the fusion does not adapt" in summary and "the same for every question" in summary


@pytest.mark.parametrize("name", fusion_names())
def test_every_fusion_is_weighed_or_refused(name, questions):
    model = tiny_model(name)
    pairs = [(q.image, q.question) for q in questions]
    if not model.model.fusion.layer_groups:
        with pytest.raises(UserError, match="no layer weights"):
            weigh(model, tiny_processor(model), pairs)
        return
    weights = weigh(model, tiny_processor(model), pairs)
    assert weights.shape == (len(pairs), len(group_names(model)))
    assert torch.allclose(weights.sum(dim=1), torch.ones(len(pairs)), atol=1e-5)

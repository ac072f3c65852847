"""Instruction vectors are what sentence-transformers' own ``encode`` gives."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel

from igva import paths
from igva.building import sentence_encoder_settings
from igva.errors import UserError
from igva.model.instruction_encoder import encode_instructions, pool_tokens
from igva.model.processing_igva import ANSWER_FORMATS, ANSWER_NOTES, instruction_text
from igva.testing import INSTRUCTION_ENCODERS, instruction_config, tiny_tokenizer

SENTENCES = [
    "How many birds sit on the wire?",
    "What?",
    "Is the man in the red coat, who stands left of the door, holding an umbrella or a walking stick?",
]


def vectors(folder, sentences):
    """With igva, the sentences in one padded batch, one turn each."""
    tokenizer, settings = sentence_encoder_settings(folder)
    encoder = AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return encode_instructions(
            encoder,
            batch["input_ids"][:, None],
            batch["attention_mask"][:, None],
            pooling=settings["instruction_pooling"],
            normalize=settings["instruction_normalize"],
        )


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("kind", INSTRUCTION_ENCODERS)
def test_equals_sentence_transformers(kind, pooling, normalize, tmp_path):
    library = pytest.importorskip("sentence_transformers")
    parts = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "right"
    tokenizer.chat_template = None  # with one, sentence-transformers makes a chat of every sentence
    tokenizer.save_pretrained(tmp_path / "parts")
    model = AutoModel.from_config(instruction_config(kind))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    model.save_pretrained(tmp_path / "parts")
    modules = [parts.Transformer(str(tmp_path / "parts"), max_seq_length=48), parts.Pooling(24, pooling_mode=pooling)]
    modules += [parts.Normalize()] if normalize else []
    theirs = library.SentenceTransformer(modules=modules, device="cpu")
    theirs.save(str(tmp_path / "whole"))
    expected = torch.as_tensor(theirs.encode(SENTENCES))
    torch.testing.assert_close(vectors(tmp_path / "whole", SENTENCES), expected, atol=1e-5, rtol=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 0.01
    assert (abs(float(expected[0].norm()) - 1) < 1e-5) == normalize


def test_the_real_encoder_equals_sentence_transformers():
    library = pytest.importorskip("sentence_transformers")
    found = sorted((paths.home() / "parts").glob("instruction-*"))
    if not found:
        pytest.skip("the embedded sentence encoder is not in the cache (igva models fetch tiny)")
    expected = torch.as_tensor(library.SentenceTransformer(str(found[-1]), device="cpu").encode(SENTENCES))
    torch.testing.assert_close(vectors(found[-1], SENTENCES), expected, atol=1e-5, rtol=1e-5)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return AutoModel.from_config(instruction_config()).eval()


def run(encoder, ids, mask, **options):
    with torch.no_grad():
        return encode_instructions(encoder, ids, mask, **{"pooling": "mean", "normalize": True, **options})


def test_turns_that_do_not_exist_do_not_count(encoder):
    ids = torch.randint(4, 260, (2, 3, 9))
    mask = torch.ones_like(ids)
    mask[0, 1:] = 0
    mask[1, 2] = 0
    got = run(encoder, ids, mask)
    first, second = (run(encoder, ids[1:, t : t + 1], mask[1:, t : t + 1]) for t in (0, 1))
    torch.testing.assert_close(got[:1], run(encoder, ids[:1, :1], mask[:1, :1]), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(got[1:], (first + second) / 2, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_no_turn_at_all_is_zero(encoder, pooling):
    ids = torch.randint(4, 260, (2, 2, 5))
    mask = torch.ones_like(ids)
    mask[0] = 0
    got = run(encoder, ids, mask, pooling=pooling)
    assert torch.equal(got[0], torch.zeros(24))
    assert got[1].norm() > 0.1 and got.isfinite().all()


def test_padding_does_not_matter(encoder):
    ids = torch.randint(4, 260, (1, 1, 6))
    padded = torch.nn.functional.pad(ids, (0, 7))
    mask = torch.nn.functional.pad(torch.ones_like(ids), (0, 7))
    expected = run(encoder, ids, torch.ones_like(ids))
    torch.testing.assert_close(run(encoder, padded, mask), expected, atol=1e-6, rtol=1e-6)
    unmasked = run(encoder, padded, torch.ones_like(padded))
    assert (unmasked - expected).abs().max() > 1e-3


def test_pooling():
    states = torch.tensor([[[1.0], [3.0], [100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert pool_tokens(states, mask, "mean").item() == 2
    assert pool_tokens(states, mask, "cls").item() == 1


@pytest.mark.parametrize("suffix", ANSWER_FORMATS)
def test_answer_formats_are_no_part_of_the_question(suffix):
    assert instruction_text(f"What is it?\n{suffix}") == "What is it?"
    assert instruction_text(f"<image>\nWhat is it? {suffix}  ") == "What is it?"
    assert instruction_text(f"{suffix} What is it?") == f"{suffix} What is it?"  # only at the end
    assert instruction_text(suffix) == ""


@pytest.mark.parametrize("note", ANSWER_NOTES)
def test_a_note_before_the_question_is_not_part_of_it(note):
    assert instruction_text(f"<image>\n{note}\n\nWhat is it?") == "What is it?"
    assert instruction_text(f"What is it? {note}") == f"What is it? {note}"  # only at the start


def test_several_answer_formats():
    vizwiz = "When the provided information is insufficient, respond with 'Unanswerable'."
    both = f"What is it?\n{vizwiz}\nAnswer the question using a single word or phrase."
    assert instruction_text(both) == "What is it?"


def test_what_is_left_alone():
    for text in ("What is it?", "answer the question using a single word or phrase.", "Please answer yes or no"):
        assert instruction_text(text) == text
    assert instruction_text("<img> What?", "<img>") == "What?"


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode": "cls"}, "cls"),
        ({}, "mean"),
    ],
)
def test_pooling_is_read_from_the_checkpoint(pooling, expected, tmp_path):
    import json

    tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "modules.json").write_text(
        json.dumps(
            [
                {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ]
        )
    )
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 24, **pooling}))
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 11}))
    tokenizer, settings = sentence_encoder_settings(tmp_path)
    assert settings == {"instruction_pooling": expected, "instruction_normalize": False}
    assert tokenizer.model_max_length == 11
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(UserError, match="max_tokens"):
        sentence_encoder_settings(tmp_path)

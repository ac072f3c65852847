"""Batches, padding, beams and caches change nothing about an answer."""

from __future__ import annotations

import pytest
import torch
from transformers import pipeline

from igva.model.fusions import fusion_names
from igva.testing import ENSEMBLE, INSTRUCTION_ENCODERS, LANGUAGE_MODELS, TOWERS

QUESTIONS = (
    "What?",
    "How many birds sit on the wire in the middle of this picture?",
    "Is it red?",
    "Read the sign.",
    "Where is the cat, left or right of the old green chair?",
    "Name it.",
)


def mixed_chats(count, user, picture):
    """Samples of different lengths: no picture, one or two."""
    return [
        user(QUESTIONS[i % len(QUESTIONS)] + "!" * (i // len(QUESTIONS)), *(picture(9 * i + j) for j in range(i % 3)))
        for i in range(count)
    ]


def new_tokens(model, inputs, **options):
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, **options}
    return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :].tolist()


# With a tower of several encoders: one fusion that weighs, one that reads many layers, one that adds inside.
PAIRS = [(fusion, tower) for tower in TOWERS for fusion in fusion_names()]
PAIRS += [(fusion, ENSEMBLE) for fusion in ("igva", "mmfuser", "deepstack")]


@pytest.mark.parametrize(("fusion", "tower"), PAIRS)
def test_greedy_tokens_do_not_depend_on_the_batch(fusion, tower, make, user, encode, picture):
    model, processor = make(fusion, tower)
    chats = mixed_chats(16, user, picture)
    alone = [new_tokens(model, encode(processor, chat))[0] for chat in chats]
    assert len({tuple(row) for row in alone}) > 5  # they are different answers
    for size in (2, 8, 16):
        batched = [row for i in range(0, 16, size) for row in new_tokens(model, encode(processor, chats[i : i + size]))]
        assert batched == alone, f"batch {size}"


@pytest.mark.parametrize("fusion", fusion_names())
def test_the_side_of_padding_does_not_matter(fusion, make, user, encode, picture):
    model, processor = make(fusion)
    chats = mixed_chats(5, user, picture)
    with torch.no_grad():
        rows = [model(**encode(processor, chat)).logits[0] for chat in chats]
        for side in ("left", "right"):
            inputs = encode(processor, chats, padding_side=side)
            assert inputs["attention_mask"][:, 0].all() == (side == "right")
            logits = model(**inputs).logits
            for row, mask, expected in zip(logits, inputs["attention_mask"].bool(), rows, strict=True):
                torch.testing.assert_close(row[mask], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("language", LANGUAGE_MODELS)
@pytest.mark.parametrize("encoder", INSTRUCTION_ENCODERS)
def test_language_models_and_sentence_encoders_in_a_batch(language, encoder, make, user, encode, picture):
    model, processor = make("igva", "clip", language, encoder)
    chats = mixed_chats(5, user, picture)
    alone = [new_tokens(model, encode(processor, chat))[0] for chat in chats]
    assert new_tokens(model, encode(processor, chats)) == alone


@pytest.mark.parametrize("fusion", fusion_names())
def test_beams(fusion, make, user, encode, picture):
    model, processor = make(fusion)
    chats = mixed_chats(5, user, picture)  # 0, 1, 2, 0 and 1 pictures
    beams = {"num_beams": 3, "num_return_sequences": 2}
    alone = [row for chat in chats for row in new_tokens(model, encode(processor, chat), **beams)]
    assert new_tokens(model, encode(processor, chats), **beams) == alone
    greedy = new_tokens(model, encode(processor, chats))
    assert alone[::2] != greedy  # the search found something else


def test_every_copy_of_a_sample_sees_its_own_pictures_in_order(make, user, encode, picture):
    """Sampling with one candidate is greedy: each of the copies must say what the sample alone says."""
    model, processor = make()
    chats = mixed_chats(5, user, picture)
    greedy = [new_tokens(model, encode(processor, chat))[0] for chat in chats]
    copies = new_tokens(model, encode(processor, chats), do_sample=True, top_k=1, num_return_sequences=3)
    assert copies == [row for row in greedy for _ in range(3)]


def test_beams_of_cached_layer_means(make, user, encode, picture):
    model, processor = make()
    inputs = encode(processor, user("Which?", picture(1), picture(2)))
    expected = new_tokens(model, inputs, num_beams=3)
    layers = model.model.encode_image_layers(inputs["pixel_values"])
    cached = {k: v for k, v in inputs.items() if k != "pixel_values"}
    cached |= {"layer_patches": layers.patches, "layer_descriptors": layers.descriptors}
    assert new_tokens(model, cached, num_beams=3) == expected


def test_generation_without_a_cache_sees_the_picture_at_every_step(make, user, encode, picture):
    model, processor = make()
    inputs = encode(processor, [user("What?", picture(3)), user("And in these two?", picture(4), picture(5))])
    assert new_tokens(model, inputs, use_cache=False) == new_tokens(model, inputs)


def test_images_are_encoded_once(make, user, encode, picture):
    model, processor = make()
    runs = []
    model.model.vision_tower.register_forward_hook(lambda module, args, output: runs.append(args[0].shape[0]))
    new_tokens(model, encode(processor, user("What?", picture())), num_beams=2, max_new_tokens=8)
    assert runs == [1]  # one picture, once: not once per beam or token


def test_two_pictures_in_one_sample_keep_their_order(make, user, encode, picture):
    model, processor = make()
    a, b = picture(1), picture(2)
    one = encode(processor, user("Compare.", a, b))
    assert one["pixel_values"].shape[0] == one["instruction_input_ids"].shape[0] == 2
    tokens = model.model.fusion.num_tokens
    assert int((one["input_ids"] == processor.image_token_id).sum()) == 2 * tokens
    with torch.no_grad():
        both = model(**one)
        single = [model(**encode(processor, user("Compare.", p))) for p in (a, b)]
        swapped = model(**encode(processor, user("Compare.", b, a)))
    expected = torch.cat([s.image_hidden_states for s in single])
    torch.testing.assert_close(both.image_hidden_states, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(swapped.image_hidden_states, expected.roll(tokens, 0), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(both.logits[0, -1], swapped.logits[0, -1], atol=1e-3)


def test_text_only_batches(make, user, encode):
    model, processor = make()
    chats = [user("Hello."), user("What is the capital of France?")]
    inputs = encode(processor, chats)
    assert set(inputs) == {"input_ids", "attention_mask"}
    alone = [new_tokens(model, encode(processor, chat))[0] for chat in chats]
    assert new_tokens(model, inputs) == alone
    out = model(**inputs)
    assert out.fusion_weights is None and out.aux_loss is None


@pytest.mark.parametrize(("fusion", "tower"), [*((fusion, "clip") for fusion in fusion_names()), ("igva", ENSEMBLE)])
def test_bfloat16(fusion, tower, make, user, encode, picture):
    model, processor = make(fusion, tower)
    inputs = encode(processor, [user("What?", picture(1)), user("A longer question?", picture(2), picture(3))])
    with torch.no_grad():
        expected = model(**inputs).logits
        model = model.to(torch.bfloat16)
        out = model(**inputs)
    assert out.logits.dtype == torch.bfloat16
    assert out.logits.isfinite().all()
    difference = (out.logits.float() - expected)[inputs["attention_mask"].bool()].abs().mean()
    assert difference < 0.1 * expected.std()
    assert len(new_tokens(model, inputs)[0]) == 6


def test_the_pipeline_gives_what_generate_gives(make, user, encode, picture, tmp_path):
    model, processor = make()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    chat = user("What is in the picture?", picture(7))
    asked = pipeline("image-text-to-text", model=str(tmp_path))
    assert type(asked.model) is type(model)
    said = asked(text=chat, max_new_tokens=6, min_new_tokens=6, return_full_text=False)[0]["generated_text"]
    tokens = new_tokens(model, encode(processor, chat))[0]
    assert said == processor.tokenizer.decode(tokens, skip_special_tokens=True)
    several = asked(text=[chat, user("And?", picture(8))], max_new_tokens=6, min_new_tokens=6, return_full_text=False)
    assert several[0][0]["generated_text"] == said


@pytest.mark.parametrize("fusion", fusion_names())
def test_cached_layer_means(fusion, make, user, encode, picture):
    model, processor = make(fusion)
    inputs = encode(processor, [user("What?", picture(1)), user("Which of them?", picture(2), picture(3))])
    other = encode(processor, [user("Is it a dog?", picture(1)), user("Both?", picture(2), picture(3))])
    with torch.no_grad():
        layers = model.get_image_features(
            **{k: v for k, v in inputs.items() if "mask" not in k and "ids" not in k} | _instructions(inputs)
        )
        expected = [model(**i).logits for i in (inputs, other)]
        model.model.vision_tower.register_forward_pre_hook(_raise)
        for asked, logits in zip((inputs, other), expected, strict=True):
            cached = {k: v for k, v in asked.items() if k != "pixel_values"}
            out = model(**cached, layer_patches=layers.layer_patches, layer_descriptors=layers.layer_descriptors)
            assert torch.equal(out.logits, logits)
        with pytest.raises(RuntimeError, match="the tower ran"):
            model(**inputs)


def _instructions(inputs):
    return {k: v for k, v in inputs.items() if k.startswith("instruction")}


def _raise(*args):
    raise RuntimeError("the tower ran")


@pytest.mark.parametrize("fusion", fusion_names())
def test_features_made_beforehand(fusion, make, user, encode, picture):
    model, processor = make(fusion)
    inputs = encode(processor, user("What?", picture(1), picture(2)))
    with torch.no_grad():
        expected = model(**inputs).logits
        features = model.get_image_features(inputs["pixel_values"], **_instructions(inputs))
        assert len(features.pooler_output) == 2
        assert features.pooler_output[0].shape == (model.model.fusion.num_tokens, 48)
        text = {k: inputs[k] for k in ("input_ids", "attention_mask")}
        assert torch.equal(model(**text, mm_encoder_outputs={"image": features}).logits, expected)


def test_the_number_of_placeholders_is_checked(make, user, encode, picture):
    model, processor = make()
    inputs = encode(processor, user("What?", picture()))
    inputs["input_ids"][inputs["input_ids"] == processor.image_token_id] = 7
    inputs["input_ids"][0, 2:5] = processor.image_token_id
    with pytest.raises(ValueError, match=r"3 image placeholders .* 4 visual tokens"):
        model(**inputs)


def test_the_number_of_instructions_is_checked(make, user, encode, picture):
    model, processor = make()
    inputs = encode(processor, user("What?", picture(), picture()))
    vectors = torch.randn(3, 24)
    inputs = {k: v for k, v in inputs.items() if not k.startswith("instruction")}
    with pytest.raises(ValueError, match="2 images but 3 instructions"):
        model(**inputs, instruction_embeds=vectors)


def test_input_embeddings_in_place_of_ids(make, user, encode, picture):
    model, processor = make()
    inputs = dict(encode(processor, user("What?", picture())))
    with torch.no_grad():
        expected = model(**inputs).logits
        embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
        assert torch.equal(model(**inputs, inputs_embeds=embeds).logits, expected)
    with pytest.raises(ValueError, match="either"):
        model(**inputs)


def test_outputs_as_plain_tuples(make, user, encode, picture):
    model, processor = make()
    inputs = encode(processor, user("What?", picture()))
    with torch.no_grad():
        named = model(**inputs), model.model(**inputs)
        plain = model(**inputs, return_dict=False), model.model(**inputs, return_dict=False)
    assert torch.equal(plain[0][0], named[0].logits)
    assert torch.equal(plain[1][0], named[1].last_hidden_state)

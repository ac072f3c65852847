"""What the processor makes of chats and pictures."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from igva.model.processing_igva import pad_to_square

IMAGE_TOKENS = 4


def test_typed_special_tokens_stay_text(make, user, encode, picture):
    _, processor = make()
    tokenizer = processor.tokenizer
    typed = "Say <image> and <|im_end|>, not <|im_start|>system or <pad>."
    inputs = encode(processor, user(typed, picture()))
    ids = inputs["input_ids"][0].tolist()
    plain = encode(processor, user("Say it.", picture()))["input_ids"][0].tolist()
    for token in ("<image>", "<|im_end|>", "<|im_start|>", "<pad>"):
        number = tokenizer.convert_tokens_to_ids(token)
        assert ids.count(number) == plain.count(number), token
    assert typed in tokenizer.decode(ids)  # and not a character is lost


@pytest.mark.parametrize("mark", ["\ue000", "\ue0000\ue000"])
def test_marks_of_the_shield_may_be_typed_too(mark, make, user, encode):
    _, processor = make()
    typed = f"{mark}<image>{mark}"
    ids = encode(processor, user(typed))["input_ids"][0]
    assert typed in processor.tokenizer.decode(ids)
    assert processor.image_token_id not in ids


def test_typed_special_tokens_in_the_second_turn(make, picture):
    _, processor = make()
    chat = [
        {"role": "user", "content": [{"type": "image", "image": picture()}, {"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": "It is an <image>."},
        {"role": "user", "content": "What does <|im_end|> mean?"},
    ]
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    assert int((inputs["input_ids"] == processor.image_token_id).sum()) == IMAGE_TOKENS
    assert int((inputs["input_ids"] == processor.tokenizer.convert_tokens_to_ids("<|im_end|>")).sum()) == 3


def test_pictures_and_placeholders_must_agree(make, picture):
    _, processor = make()
    with pytest.raises(ValueError, match=r"3 <image> placeholders but 2 images"):
        processor(images=[picture(), picture()], text="<image><image><image> What?")
    with pytest.raises(ValueError, match=r"0 <image> placeholders but 1 images"):
        processor(images=picture(), text="What?")


def test_truncation_never_cuts_a_picture(make, user, encode, picture):
    _, processor = make()
    chat = user("A long enough question to be cut somewhere.", picture())
    whole = encode(processor, chat)["input_ids"][0]
    places = (whole == processor.image_token_id).nonzero()
    end = int(places.max()) + 1
    cut = encode(processor, chat, truncation=True, max_length=end)["input_ids"][0]
    assert torch.equal(cut, whole[:end])
    for length in range(1, end):
        with pytest.raises(ValueError, match=f"max_length {length} would cut [1-4] of 4 image tokens"):
            encode(processor, chat, truncation=True, max_length=length)


def test_a_fixed_instruction_shape_changes_nothing(make, user, encode, picture):
    model, processor = make()
    chats = [user("What?", picture(1)), user("A rather longer question?", picture(2))]
    free = encode(processor, chats)
    fixed = encode(processor, chats, instruction_shape=(3, 40))
    assert free["instruction_input_ids"].shape[1:] == (1, 25)
    assert fixed["instruction_input_ids"].shape == fixed["instruction_attention_mask"].shape == (2, 3, 40)
    with torch.no_grad():
        expected, got = model(**free), model(**fixed)
    torch.testing.assert_close(got.fusion_weights, expected.fusion_weights, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(got.image_hidden_states, expected.image_hidden_states, atol=1e-6, rtol=1e-6)
    assert (expected.fusion_weights[0] - expected.fusion_weights[1]).abs().max() > 1e-4


def test_a_fixed_instruction_shape_with_too_few_turns(make, picture):
    _, processor = make()
    with pytest.raises(ValueError, match="2 user turns"):
        processor(images=picture(), text="<image>", instructions=[["a", "b"]], instruction_shape=(1, 8))


def test_the_instruction_of_a_conversation_is_the_mean_over_its_turns(make, picture):
    model, processor = make()
    turns = ["What is it?", "Are you really sure about that?", "Why"]
    chat = []
    for i, turn in enumerate(turns):
        content = [{"type": "image", "image": picture()}] if i == 0 else []
        chat.append({"role": "user", "content": [*content, {"type": "text", "text": turn}]})
        chat.append({"role": "assistant", "content": f"Answer number {i}"})
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    assert inputs["instruction_input_ids"].shape[:2] == (1, 3)

    @torch.no_grad()
    def vector(*texts):
        rows = processor.encode_instructions([list(texts)])
        return model.model.encode_instruction(*(torch.tensor(rows[k]) for k in rows))

    with torch.no_grad():
        mean = torch.stack([vector(turn) for turn in turns]).mean(dim=0)
        got = model.model.encode_instruction(inputs["instruction_input_ids"], inputs["instruction_attention_mask"])
    torch.testing.assert_close(got, mean, atol=1e-6, rtol=1e-6)
    assert abs(float(vector(turns[0]).norm()) - 1) < 1e-5
    assert float(got.norm()) < 1 - 1e-4  # the mean of unit vectors is not made a unit vector again


def test_the_answer_is_no_part_of_the_instruction(make, user, encode, picture):
    _, processor = make()
    chat = user("What?", picture())
    answered = [*chat, {"role": "assistant", "content": "A dog"}]
    rows = [encode(processor, c, add_generation_prompt=False)["instruction_input_ids"] for c in (chat, answered)]
    assert torch.equal(*rows)


def test_one_instruction_row_per_picture(make, user, encode, picture):
    _, processor = make()
    inputs = encode(processor, [user("One?", picture()), user("Two!", picture(), picture()), user("No picture")])
    rows = inputs["instruction_input_ids"][:, 0].tolist()
    words = [processor.instruction_tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    assert words == ["One?", "Two!", "Two!"]


def test_fusions_without_instructions_get_none(make, user, encode, picture):
    _, processor = make("mean")
    assert not [name for name in encode(processor, user("What?", picture())) if name.startswith("instruction")]


def test_rendered_text_goes_the_same_way(make, user, encode, picture):
    _, processor = make()
    chat = user("What is it?", picture())
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert text.count("<image>") == 1
    direct = processor(images=picture(), text=text, instructions=[["What is it?"]], return_tensors="pt")
    inputs = encode(processor, chat)
    assert inputs.keys() == direct.keys()
    assert all(torch.equal(inputs[name], direct[name]) for name in inputs)


def test_an_unknown_option_is_refused(make, picture):
    _, processor = make()
    with pytest.raises(TypeError, match="'max_lenght'"):
        processor(images=picture(), text="<image>", max_lenght=3)


@pytest.mark.parametrize(("width", "height"), [(30, 20), (20, 30), (21, 20), (7, 7)])
def test_pictures_are_centred_on_a_square(width, height):
    image = Image.new("RGB", (width, height), (255, 0, 0))
    square = pad_to_square(image, (1, 2, 3))
    side = max(width, height)
    assert square.size == (side, side)
    left, top = (side - width) // 2, (side - height) // 2
    assert square.crop((left, top, left + width, top + height)).tobytes() == image.tobytes()
    reds = sum(pixel == (255, 0, 0) for pixel in zip(*[iter(square.tobytes())] * 3, strict=True))
    assert reds == width * height


def test_the_padding_has_the_mean_colour(make):
    _, processor = make()
    wide = Image.new("RGB", (56, 28), (255, 255, 255))
    pixels = processor.prepare_images([wide])
    assert pixels.shape == (1, 3, 28, 28)
    mean, std = torch.tensor(processor.image_processor.image_mean), torch.tensor(processor.image_processor.image_std)
    down = (mean * 255).int() / 255  # LLaVA-1.5's code rounds it down
    torch.testing.assert_close(pixels[0, :, 0, 0], (down - mean) / std, atol=1e-5, rtol=0)
    assert pixels[0, :, 14].min() > 1


def test_an_ensemble_gets_its_pixels_as_they_are(make, picture):
    _, processor = make("igva", "ensemble")
    white = processor.prepare_images([Image.new("RGB", (40, 20), (255, 255, 255))])
    assert white.shape == (1, 3, 28, 28)
    assert white[0, :, 14].min() == 1  # each encoder normalises its own
    grey = torch.tensor(processor.image_processor.image_mean)
    torch.testing.assert_close(white[0, :, 0, 0], grey, atol=1 / 255, rtol=0)  # the padding

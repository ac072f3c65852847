"""What a visual token is taught to look like."""

import torch

from igva.testing import tiny_model, tiny_processor
from igva.train.warmup import word_embeddings


def test_the_first_token_weighs_most() -> None:
    model = tiny_model()
    processor = tiny_processor(model)
    table = model.get_parameter("model.language_model.embed_tokens.weight").detach()
    words = ("saxophone", "red", "7")
    for word, vector in zip(words, word_embeddings(model, processor, words), strict=True):
        ids = processor.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        if not processor.tokenizer.decode(ids[:1]).strip():  # a space by itself says nothing
            ids = ids[1:]
        weights = [0.5**place for place in range(len(ids))]
        wanted = sum(weight * table[token] for weight, token in zip(weights, ids, strict=True)) / sum(weights)
        assert torch.allclose(vector, wanted, atol=1e-6), word


def test_the_order_of_the_tokens_counts() -> None:
    model = tiny_model()
    processor = tiny_processor(model)
    one, other = word_embeddings(model, processor, ("48", "84"))
    assert not torch.allclose(one, other)

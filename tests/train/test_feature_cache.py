"""Layer means are computed once, keyed by picture, tower and taps, and survive a kill between shards."""

import pickle

import pytest
import torch

from igva.data.blank import blank_image
from igva.data.images import StoredImage
from igva.errors import UserError
from igva.testing import ENSEMBLE, tiny_model, tiny_processor
from igva.train import feature_cache, feature_workers
from igva.train.feature_cache import InstructionCache, LayerCache, tower_key


@pytest.fixture
def pair():
    model = tiny_model()
    return model, tiny_processor(model)


@pytest.fixture
def pictures(tmp_path, picture):
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        picture(i).save(path)
    return paths


def forbid_tower(model):
    model.model.vision_tower.forward = None


def test_equal_to_the_tower_and_never_run_again(pair, pictures, tmp_path, monkeypatch):
    model, processor = pair
    monkeypatch.setattr(feature_cache, "SHARD", 2)
    LayerCache(model, processor, tmp_path / "cache").fill(pictures)
    forbid_tower(model)
    cache = LayerCache(model, processor, tmp_path / "cache")
    cache.fill(pictures)
    fresh = tiny_model()
    from PIL import Image

    for path in pictures:
        expected = fresh.model.encode_image_layers(processor.prepare_images([Image.open(path)]))
        found = cache([path])
        torch.testing.assert_close(found.patches.float(), expected.patches, atol=2e-2, rtol=2e-2)
        torch.testing.assert_close(found.descriptors.float(), expected.descriptors, atol=2e-2, rtol=2e-2)


def test_same_content_is_computed_once(pair, pictures, tmp_path):
    copy = tmp_path / "copy.png"
    copy.write_bytes(pictures[0].read_bytes())
    model, processor = pair
    cache = LayerCache(model, processor, tmp_path / "cache")
    cache.fill([pictures[0]])
    forbid_tower(model)
    cache.fill([copy])
    assert torch.equal(cache([copy]).patches, cache([pictures[0]]).patches)


def test_a_shard_without_its_index_does_not_count(pair, pictures, tmp_path):
    model, processor = pair
    LayerCache(model, processor, tmp_path / "cache").fill(pictures)
    (index,) = (tmp_path / "cache").rglob("*.json")
    index.unlink()
    cache = LayerCache(model, processor, tmp_path / "cache")
    cache.fill(pictures)
    assert cache(pictures).patches.shape[0] == 5


def test_key_tells_ensembles_of_equal_weights_apart():
    """Other layers of the same encoders, or other pixels for them, are other features."""
    model = tiny_model(tower=ENSEMBLE)
    processor, (own, _) = tiny_processor(model), model.config.vision.encoders
    first = tower_key(model, processor, [(1,)])
    keys = {first}
    for name, value in (("layers", [1, 3]), ("image_mean", [0.1, 0.1, 0.1]), ("plain", [2])):
        before, own[name] = own.get(name), value
        keys.add(tower_key(model, processor, [(1,)]))
        own[name] = before if before is not None else []
    assert len(keys) == 4
    assert tower_key(model, processor, [(1,)]) == first


def test_an_ensembles_features_are_kept(pictures, tmp_path):
    model = tiny_model(tower=ENSEMBLE)
    processor = tiny_processor(model)
    cache = LayerCache(model, processor, tmp_path / "cache")
    cache.fill(pictures)
    from PIL import Image

    pixels = processor.prepare_images([Image.open(path) for path in pictures])
    expected = tiny_model(tower=ENSEMBLE).model.encode_image_layers(pixels)
    forbid_tower(model)
    torch.testing.assert_close(cache(pictures).patches.float(), expected.patches, atol=0.1, rtol=0.1)


def test_key_depends_on_tower_taps_and_pooling(pair):
    model, processor = pair

    def key(other):
        return tower_key(other, processor, other.model.fusion.taps)

    keys = {key(model), key(tiny_model(seed=1)), key(tiny_model(vision_pool=2))}
    keys.add(key(tiny_model(fusion_kwargs={"num_groups": 4, "hidden_size": 16, "num_heads": 2})))
    assert len(keys) == 4
    assert key(tiny_model("mean")) == key(model)  # the same taps


def test_single_layers_give_every_tap(pair, pictures, tmp_path):
    """What a study keeps: all hidden states by themselves, of which any fusion's means can be made."""
    model, processor = pair
    taps = [(layer,) for layer in range(5)]
    single = LayerCache(model, processor, tmp_path / "cache", taps=taps)
    single.fill(pictures)
    means = LayerCache(model, processor, tmp_path / "cache")
    means.fill(pictures)
    assert single.folder != means.folder
    whole = single(pictures)
    assert whole.patches.shape[1] == 5
    for place, tap in enumerate(model.model.fusion.taps):
        part = single(pictures, tap)
        assert torch.equal(part.patches, whole.patches[:, list(tap)])
        torch.testing.assert_close(
            part.patches.float().mean(dim=1), means(pictures).patches[:, place].float(), atol=0.02, rtol=0.02
        )


def test_workers_get_a_copy_that_only_reads(pair, pictures, tmp_path):
    model, processor = pair
    cache = LayerCache(model, processor, tmp_path / "cache")
    cache.fill(pictures)
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.model is None
    assert torch.equal(copy(pictures).patches, cache(pictures).patches)


def test_bad_pictures_are_noted_and_cost_nobody_else(pair, pictures, tmp_path, monkeypatch):
    """Damaged, missing, and a copy of a damaged one; all in batches and shards with good ones."""
    model, processor = pair
    monkeypatch.setattr(feature_cache, "SHARD", 3)
    pictures[1].write_bytes(pictures[1].read_bytes()[:60])
    copy = tmp_path / "copy.png"
    copy.write_bytes(pictures[1].read_bytes())
    pictures[3].unlink()
    everything = [*pictures, copy]
    with pytest.raises(UserError, match=r"is damaged|does not exist"):
        LayerCache(model, processor, tmp_path / "strict").fill(everything)
    cache = LayerCache(model, processor, tmp_path / "cache")
    cache.fill(iter(everything), batch_size=2, on_bad="record")
    bad = [pictures[1], pictures[3], copy]
    assert cache.bad.keys() == {str(path) for path in bad}
    assert "damaged" in cache.bad[str(pictures[1])] and "does not exist" in cache.bad[str(pictures[3])]
    good = [pictures[i] for i in (0, 2, 4)]
    alone = LayerCache(model, processor, tmp_path / "alone")
    alone.fill(good)
    torch.testing.assert_close(cache(good).patches, alone(good).patches)
    blank = blank_image(processor.image_processor)
    assert cache([blank]).patches.shape == cache([pictures[0]]).patches.shape
    forbid_tower(model)
    again = LayerCache(model, processor, tmp_path / "cache")
    again.fill(everything, on_bad="record")  # another process finds everything there, and the same pictures bad
    assert again.bad.keys() == cache.bad.keys() and torch.equal(again([blank]).patches, cache([blank]).patches)
    assert pickle.loads(pickle.dumps(again)).bad == again.bad


@pytest.mark.parametrize("fast", [True, False])
def test_the_tower_computes_in_bfloat16_where_that_is_fast(fast, pair, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_workers, "multiplies_bfloat16", lambda device: fast)
    model, processor = pair
    seen = []
    handle = model.model.vision_tower.register_forward_pre_hook(
        lambda *_: seen.append(torch.is_autocast_enabled("cpu"))
    )
    cache = LayerCache(model, processor, tmp_path / "cache")
    cache.fill(pictures[:1])
    handle.remove()
    assert seen == [fast] and cache(pictures[:1]).patches.dtype == torch.bfloat16


def test_nothing_but_bad_pictures(pair, tmp_path):
    model, processor = pair
    cache = LayerCache(model, processor, tmp_path / "cache")
    cache.fill([tmp_path / "gone.png", StoredImage.of("row 0", b"nothing")], on_bad="record")
    assert cache.bad.keys() == {str(tmp_path / "gone.png"), "row 0"}
    assert cache([blank_image(processor.image_processor)]).patches.shape[0] == 1


def test_a_stored_picture_is_the_file_of_the_same_content(pair, pictures, tmp_path):
    model, processor = pair
    cache = LayerCache(model, processor, tmp_path / "cache")
    cache.fill(pictures)
    forbid_tower(model)
    stored = [StoredImage.of(f"row {i}", path.read_bytes()) for i, path in enumerate(pictures)]
    cache.fill(stored)
    assert torch.equal(cache(stored).patches, cache(pictures).patches)


def test_instruction_vectors_are_the_models_own(pair, tmp_path):
    model, processor = pair
    cache = InstructionCache(model, processor, tmp_path / "cache")
    cache.fill(["What?", "Where is it?", "What?"])
    tokens = processor.encode_instructions([["What?", "Where is it?"]])
    expected = model.model.encode_instruction(*(torch.tensor(value) for value in tokens.values()))[0]
    torch.testing.assert_close(cache(["What?", "Where is it?"]), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(cache([]), torch.zeros(24))


def test_a_single_number_in_the_tower_counts_too(pair):
    """BatchNorm counts its batches in a buffer without axes."""
    model, processor = pair
    model.model.vision_tower.norm = torch.nn.BatchNorm2d(3)
    before = tower_key(model, processor, model.model.fusion.taps)
    model.model.vision_tower.norm.num_batches_tracked += 1
    assert tower_key(model, processor, model.model.fusion.taps) != before


def test_sentence_vectors_are_kept_on_disk(pair, tmp_path):
    model, processor = pair
    first = InstructionCache(model, processor, tmp_path)
    first.fill(["What?", "Where is it?"])
    model.model.encode_instruction = None  # never asked again
    again = InstructionCache(model, processor, tmp_path)
    again.fill(["Where is it?", "What?"])
    for turns in (["What?"], ["Where is it?", "What?"]):
        assert torch.equal(again(turns), first(turns))
    assert torch.equal(pickle.loads(pickle.dumps(again))(["What?"]), first(["What?"]))
    with pytest.raises(TypeError):
        again.fill(["Who?"])  # not there yet


def test_another_encoder_or_pooling_has_other_sentence_vectors(pair, tmp_path):
    _, processor = pair
    models = [tiny_model(), tiny_model(seed=1), tiny_model(instruction_pooling="cls")]
    vectors = []
    for model in models:
        cache = InstructionCache(model, processor, tmp_path)
        cache.fill(["What?"])
        vectors.append(cache(["What?"]))
    assert len(list(tmp_path.iterdir())) == 3
    assert not torch.equal(vectors[0], vectors[1]) and not torch.equal(vectors[0], vectors[2])


def test_two_may_write_the_same_sentences_at_once(pair, tmp_path):
    """Both began before either had written; nothing is left over, and a third reads what is there."""
    model, processor = pair
    one, other = (InstructionCache(model, processor, tmp_path) for _ in range(2))
    one.fill(["What?", "Who?"])
    other.fill(["What?", "Who?", "Why?"])
    third = InstructionCache(model, processor, tmp_path)
    model.model.encode_instruction = None
    third.fill(["What?", "Who?", "Why?"])
    torch.testing.assert_close(third(["Who?"]), one(["Who?"]))
    assert {path.suffix for path in next(tmp_path.iterdir()).iterdir()} == {".json", ".safetensors"}

"""Other hands change how a drawing looks, not what it is, and leave it visible."""

import random

import numpy as np
import pytest
from PIL import Image

from igva.probe import SPLITS, hands
from igva.probe.drawing import background_for, draw_objects
from igva.probe.pack import MIXED, drawings
from igva.probe.scenes import COLORS

PARROT = drawings("noto", "parrot")[0].image


def solid(sprite: Image.Image) -> np.ndarray:
    return np.asarray(sprite.getchannel("A")) > 127


@pytest.mark.parametrize("look", hands._LOOKS)
@pytest.mark.parametrize("paper", [(250, 250, 250), (15, 15, 15)])
def test_every_look_keeps_the_form_and_changes_the_colours(look, paper) -> None:
    made = look(random.Random(3), PARROT, paper)
    room = [edge - own for edge, own in zip(made.size, PARROT.size, strict=True)]
    assert made.mode == "RGBA" and max(room) <= 4
    inner = made.crop((room[0] // 2, room[1] // 2, made.width - room[0] // 2, made.height - room[1] // 2))
    assert (solid(inner) & solid(PARROT)).sum() >= 0.98 * solid(PARROT).sum()
    apart = np.abs(np.asarray(inner, float) - np.asarray(PARROT, float))[..., :3].max(axis=-1)[solid(PARROT)]
    assert (apart > 12).mean() > 0.1


def test_ink_keeps_away_from_the_paper() -> None:
    rng = random.Random(0)
    for paper in COLORS.values():
        inks = [hands.luminance(hands.ink_for(rng, paper)) for _ in range(20)]
        assert min(abs(ink - hands.luminance(paper)) for ink in inks) > 20


def test_a_still_field_moves_nothing_and_a_shift_moves_all() -> None:
    height, width = PARROT.height, PARROT.width
    still = np.zeros((height, width, 2))
    assert hands.wobbled(PARROT, still).tobytes() == PARROT.tobytes()
    right = hands.wobbled(PARROT, still + np.array([3.0, 0.0]))
    assert np.array_equal(np.asarray(right)[:, :-3], np.asarray(PARROT)[:, 3:])


def test_the_same_stream_renders_the_same() -> None:
    for seed in range(30):
        one, two = (hands.render(random.Random(seed), PARROT, (200, 200, 200), 100).tobytes() for _ in range(2))
        assert one == two


def test_drawings_stay_visible_whatever_the_hand() -> None:
    split = SPLITS["train"]._replace(styles=(MIXED,))
    rng, faint = random.Random(5), 0
    for name in ("swan", "cloud", "fox", "coin", "leaf", "pen") * 10:
        scene = background_for(rng, split, name)
        before = np.asarray(scene.image, float)
        draw_objects(scene, [name], [(50, 50, 170, 170)])
        apart = np.abs(np.asarray(scene.image, float) - before).max(axis=-1)
        faint += (apart > 40).sum() < 0.05 * scene.things[0].area
        assert scene.things[0].name in scene.cells()
    assert faint <= 1


def test_only_training_draws_by_other_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [split for split, spec in SPLITS.items() if spec.varied] == ["train"]

    def never(*arguments: object) -> None:
        raise AssertionError("another hand")

    monkeypatch.setattr(hands, "render", never)
    for varied in (False, True):
        split = SPLITS["train"]._replace(styles=(MIXED,), varied=varied)
        scene = background_for(random.Random(0), split, "parrot")
        if varied:
            with pytest.raises(AssertionError, match="another hand"):
                draw_objects(scene, ["parrot"], [(20, 20, 200, 200)])
        else:
            draw_objects(scene, ["parrot"], [(20, 20, 200, 200)])

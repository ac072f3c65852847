"""What the suite tests with stays as it is: pictures, cells and questions of val, test and unseen, to the byte."""

import hashlib

import pytest

from igva.probe import sample

# SHA-256 of the first 30 pictures, and of what is asked about them and their cells.
PINNED = {
    "val": (
        "7ea3481a71228c66d945b46829575caccd6d46de636d567cf02c3b127c6a5401",
        "a34bf1b8be3d8200a6e79d100b824e161f39c4b219daaba82da94209bb01ba52",
    ),
    "test": (
        "195e05357737baf6988a6cd4b13d027b77ed246c393345340f5bf3a2e0f6eb5d",
        "c1e4cdeea4f7027d8629f237a993a3ef814413d5678d2fc6dc916854e9a2db30",
    ),
    "unseen": (
        "4a77d6325960057277e2b0500a06879519dbd13b6077d7c51de62468bb3e456d",
        "507eece47052df7e43d3b607dc46c985466a257d2edd516d37a03ef6b7e3be61",
    ),
}


@pytest.mark.parametrize("split", PINNED)
def test_pictures_and_questions_are_the_ones_that_were_measured_with(split: str) -> None:
    pictures, questions = hashlib.sha256(), hashlib.sha256()
    for index in range(30):
        made = sample(split, index)
        pictures.update(made.image.tobytes())
        talks = [
            (talk.task, [(turn.task, turn.question, turn.answer, turn.choices) for turn in talk.turns], talk.suffix)
            for talk in made.conversations
        ]
        questions.update(repr((talks, made.cells)).encode())
        assert not any(talk.imagined for talk in made.conversations)
    assert (pictures.hexdigest(), questions.hexdigest()) == PINNED[split]

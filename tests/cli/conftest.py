"""What the verbs that study trained models are tried on."""

import json

import pytest

from igva.testing import tiny_model, tiny_processor


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory):
    """Three random models: two that weigh by the question, one that has no weights."""
    root = tmp_path_factory.mktemp("models")
    for name, fusion, seed in (("one", "igva", 0), ("two", "igva", 1), ("single", "single", 0)):
        model = tiny_model(fusion, seed=seed)
        model.save_pretrained(root / name)
        tiny_processor(model).save_pretrained(root / name)
    return {path.name: str(path) for path in root.iterdir()}


@pytest.fixture
def question_file(tmp_path, picture):
    """Six questions of two tasks beside their pictures, ``0.png`` to ``5.png``."""
    entries = []
    for number in range(6):
        picture(number).save(tmp_path / f"{number}.png")
        word = "color" if number % 2 else "shape"
        entries.append(
            {
                "id": str(number),
                "image": f"{number}.png",
                "question": f"What {word} is it?",
                "answer": "red",
                "task": word,
                "category": "Fine-Grained" if number % 2 else "General",
                "kind": f"kind {number % 3}",
            }
        )
    file = tmp_path / "questions.json"
    file.write_text(json.dumps(entries))
    return str(file)


@pytest.fixture
def one_line(capsys):
    """``one_line()``: what stands on standard error, which must be a single line."""

    def read():
        lines = capsys.readouterr().err.strip().split("\n")
        assert len(lines) == 1 and lines[0].startswith("igva: "), lines
        return lines[0]

    return read

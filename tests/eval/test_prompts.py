"""How one question per task of the suite reaches the language model, word for word.

After a change that is meant to alter prompts: ``IGVA_UPDATE_SNAPSHOTS=1 python -m pytest tests/eval/test_prompts.py``,
and look at the difference before committing.
"""

import json
import os
from pathlib import Path

import pytest
from transformers import AutoProcessor

from igva.answering import resolve_model
from igva.data.questions import Question
from igva.eval.run import prompt_of
from igva.parts.cache import parts_present
from igva.probe.edition import EVAL_CYCLE

SNAPSHOTS = Path(__file__).parent / "prompt_snapshots.json"

# Fixed here: what the suite asks may be put otherwise one day, how a question is wrapped must not change by that.
QUESTIONS = {
    "name": "What is in the picture?",
    "scene": "Which place is this?\nChoose from: beach, kitchen, forest.",
    "caption": "Which sentence fits?\nA. A cat on a mat.\nB. A dog on a mat.",
    "kind": "What kind of thing is the owl?",
    "use": "What is the hammer used for?",
    "legs": "How many legs has the spider?",
    "habitat": "Where does the shark live?",
    "flag": "Whose flag is this?",
    "read": "What word is written?",
    "chart": "What color is the tallest bar?",
    "pie": "Which slice is the largest?",
    "line": "When was the line highest?",
    "table": "What stands in row 2, column 3?",
    "document": "What is the total?\nAnswer the question using a single word or phrase.",
    "count": "How many cats are there?",
    "position": "Is the cat left or right of the dog?",
    "size": "Which is larger, the cat or the dog?",
    "depth": "Which is nearer, the red or the blue box?",
    "mirror": "Are the two halves mirror images?",
    "turn": "How far is the arrow turned?",
    "color": "What color is the circle?",
    "small": "What is the small thing in the corner?",
    "shade": "Which square is darker?",
    "texture": "Is the square striped or dotted?",
    "refer": "What is left of the red star?",
    "exists": "Is there a cat?",
    "exists_popular": "Is there a tree?\nPlease answer yes or no.",
    "exists_adversarial": "Is there a fork beside the knife?",
    "attribute": "Is the apple green?",
}


def test_every_published_task_has_a_question():
    assert set(QUESTIONS) == set(EVAL_CYCLE)


@pytest.mark.skipif(not parts_present(), reason="the parts are not fetched: igva models fetch tiny")
def test_prompts_are_as_stored():
    processor = AutoProcessor.from_pretrained(resolve_model("tiny"))
    found = {task: prompt_of(processor, Question(task, Path("p.png"), text, "")) for task, text in QUESTIONS.items()}
    if os.environ.get("IGVA_UPDATE_SNAPSHOTS"):
        SNAPSHOTS.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(SNAPSHOTS.read_text())
    for task, text in QUESTIONS.items():
        assert text in found[task] and found[task].count("<image>") == 1

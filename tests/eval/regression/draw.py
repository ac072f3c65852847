"""``python tests/eval/regression/draw.py`` draws the pictures and questions beside it, four tasks per category."""

import json
from pathlib import Path

from igva.probe import sample
from igva.probe.edition import PUBLISHED

HERE = Path(__file__).parent


def main() -> None:
    entries = []
    for category, tasks in PUBLISHED.items():
        for number in range(4):
            task = tasks[number % len(tasks)]
            made = sample("test", 7 + number // len(tasks), tasks=(task,))
            (question,) = made.questions
            name = f"{task}-{number}"
            # 128 colours: a third of the size, and what the model sees is what is stored
            made.image.quantize(128).save(HERE / f"{name}.png", optimize=True)
            entries.append(
                {
                    "id": name,
                    "image": f"{name}.png",
                    "question": question.question,
                    "answer": question.answer,
                    "task": task,
                    "category": category,
                }
            )
    (HERE / "questions.json").write_text(json.dumps(entries, indent=1) + "\n")


if __name__ == "__main__":
    main()

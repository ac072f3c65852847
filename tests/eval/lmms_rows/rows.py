"""Hand-made rows in the columns of the benchmarks' data sets, and the task files that point lmms-eval at them.

``python rows.py FOLDER`` writes both; ``igva eval --suite lmms:paper --include-path FOLDER`` then runs offline.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset, Features, Image, List
from PIL import Image as PIL

SHADES = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200), "yellow": (230, 210, 40)}


def square(colour: str, width: int = 64, height: int = 48) -> PIL.Image:
    """A square of one colour on grey."""
    picture = PIL.new("RGB", (width, height), (128, 128, 128))
    picture.paste(SHADES[colour], (16, 8, 48, 40))
    return picture


def pope(number: int, colour: str, thing: str, answer: str) -> dict[str, Any]:
    return {
        "id": str(number),
        "question_id": str(number),
        "question": f"Is there a {thing} in the image?",
        "answer": answer,
        "image_source": f"COCO_val2014_{number:012d}",
        "image": square(colour),
        "category": "adversarial",
    }


def mme(name: str, question: str, answer: str, category: str) -> dict[str, Any]:
    return {
        "question_id": f"{category}/{name}.jpg",
        "image": square("red"),
        "question": f"{question} Please answer yes or no.",
        "answer": answer,
        "category": category,
    }


def mmbench(index: int, colour: str, hint: str, answer: str) -> dict[str, Any]:
    return {
        "index": index,
        "question": "Which colour is the square?",
        "hint": hint,
        "answer": answer,
        "A": "red",
        "B": "green",
        "C": "blue",
        "D": "nan",
        "category": "attribute_recognition",
        "image": square(colour),
        "source": "made",
        "L2-category": "finegrained_perception (instance-level)",
        "comment": "nan",
        "split": "dev",
    }


def mmmu(name: str, kind: str, question: str, options: str, answer: str, pictures: int) -> dict[str, Any]:
    colours = list(SHADES)
    return {
        "id": name,
        "question": question,
        "options": options,
        "explanation": "",
        **{f"image_{i + 1}": square(colours[i % 4]) if i < pictures else None for i in range(7)},
        "img_type": "['Diagrams']",
        "answer": answer,
        "topic_difficulty": "Easy",
        "question_type": kind,
        "subfield": "Colour",
    }


def refcoco(number: int, phrases: list[str], box: list[float]) -> dict[str, Any]:
    return {
        "question_id": str(number),
        "image": square("blue"),
        "question": "Please carefully observe the area circled in the image and come up with a caption for the area.",
        "answer": phrases,
        "segmentation": [16.0, 8.0, 48.0, 8.0, 48.0, 40.0, 16.0, 40.0],
        "bbox": box,
        "iscrowd": 0,
        "file_name": f"COCO_train2014_{number:012d}_0.jpg",
    }


def vqav2(number: int, question: str, answers: list[str]) -> dict[str, Any]:
    return {
        "question_type": "what color is the",
        "multiple_choice_answer": answers[0],
        "answers": [
            {"answer": answer, "answer_confidence": "yes", "answer_id": i + 1} for i, answer in enumerate(answers)
        ],
        "image_id": number,
        "answer_type": "other",
        "question_id": number,
        "question": question,
        "image": square("green"),
    }


def seed(number: int, kind: str, pictures: int, answer: str) -> dict[str, Any]:
    return {
        "answer": answer,
        **{f"choice_{letter}": colour for letter, colour in zip("abcd", SHADES, strict=True)},
        "data_id": f"{number}.jpg",
        "data_type": kind,
        "question": "Which colour is the square?",
        "question_id": str(number),
        "question_type_id": 1,
        "image": [square("red") for _ in range(pictures)],
        "segment": [],
    }


def mmvp(number: int, colour: str, answer: str) -> dict[str, Any]:
    return {
        "Index": number,
        "Question": "Is the square red or blue?",
        "Options": "(a) Red (b) Blue",
        "Correct Answer": answer,
        "image": square(colour),
    }


TEN_RED = ["red"] * 9 + ["dark red"]

# Task of lmms-eval -> split, rows.
ROWS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "gqa": (
        "testdev",
        [
            {
                "id": str(i),
                "imageId": f"n{i}",
                "question": question,
                "answer": answer,
                "fullAnswer": f"The square is {answer}.",
                "isBalanced": True,
                "image": square(answer),
            }
            for i, (question, answer) in enumerate(
                [("What color is the square?", "red"), ("Which color has the shape?", "blue")]
            )
        ],
    ),
    "vqav2_val": (
        "validation",
        [
            vqav2(1, "What color is the square?", ["green"] * 10),
            vqav2(2, "What shape is it?", ["square"] * 2 + ["box"] * 8),
        ],
    ),
    "vizwiz_vqa_val": (
        "val",
        [
            {
                "question_id": f"VizWiz_val_{i}",
                "image": square(colour),
                "question": question,
                "answers": answers,
                "category": "other",
            }
            for i, (colour, question, answers) in enumerate(
                [
                    ("red", "what colour is this?", TEN_RED),
                    ("blue", "what does the LABEL say?", ["unanswerable"] * 10),
                ]
            )
        ],
    ),
    "mmbench_en_dev_static": ("dev", [mmbench(1, "red", "nan", "A"), mmbench(2, "blue", "Look at the middle.", "C")]),
    "seedbench": ("test", [seed(1, "image", 1, "A"), seed(2, "video", 3, "A"), seed(3, "image", 1, "B")]),
    "mme": (
        "test",
        [
            mme("one", "Is there a square in this image?", "Yes", "existence"),
            mme("one", "Is there a dog in this image?", "No", "existence"),
            mme("two", "Is the square red?", "Yes", "color"),
            mme("two", "Is the square blue?", "No", "color"),
            mme("three", "Is two the answer to one plus one?", "Yes", "numerical_calculation"),
            mme("three", "Is three the answer to one plus one?", "No", "numerical_calculation"),
        ],
    ),
    "mmvet": (
        "test",
        [
            {
                "question_id": f"v1_{i}",
                "image": square("yellow"),
                "question": question,
                "answer": answer,
                "image_source": "made",
                "capability": capability,
            }
            for i, (question, answer, capability) in enumerate(
                [("What colour is the square?", "yellow", "rec"), ("What is 1+1?", "2<OR>two", "math,ocr")]
            )
        ],
    ),
    "scienceqa_img": (
        "test",
        [
            {
                "image": square("green"),
                "question": question,
                "choices": ["a plant", "a stone", "water"],
                "answer": answer,
                "hint": hint,
                "task": "closed choice",
                "grade": "grade2",
                "subject": "natural science",
                "topic": "biology",
                "category": "Plants",
                "skill": "Identify plants",
                "lecture": "",
                "solution": "",
            }
            for question, hint, answer in [
                ("What does the square stand for?", "Plants are green.", 0),
                ("What is not alive here?", "", 1),
            ]
        ],
    ),
    "mmmu_val": (
        "validation",
        [
            mmmu(
                "validation_Art_1",
                "multiple-choice",
                "Which square is red, <image 1> or <image 2>?",
                "['the first', 'the second']",
                "A",
                2,
            ),
            mmmu("validation_Math_2", "open", "<image 1> How many squares are there?", "[]", "1", 1),
        ],
    ),
    "ai2d": (
        "test",
        [
            {
                "question": question,
                "options": ["red", "green", "blue", "yellow"],
                "answer": answer,
                "image": square("yellow"),
            }
            for question, answer in [
                ("Which colour does the diagram show?", "3"),
                ("Which colour is the part in the middle?", "3"),
                ("Which colour grows on trees?", "1"),
            ]
        ],
    ),
    "textvqa_val": (
        "validation",
        [
            {
                "image_id": f"i{i}",
                "question_id": i,
                "question": question,
                "question_tokens": question.rstrip("?").split(),
                "image": square("red"),
                "image_width": 64,
                "image_height": 48,
                "flickr_original_url": "",
                "flickr_300k_url": "",
                "answers": answers,
                "image_classes": ["sign"],
                "set_name": "val",
                "ocr_tokens": ["STOP"],
            }
            for i, (question, answers) in enumerate(
                [
                    ("what does the Sign say?", ["stop"] * 10),
                    ("what is written?", ["stop"] * 2 + ["halt"] * 8),
                    ("which number is it?", ["7"] * 10),
                ]
            )
        ],
    ),
    "chartqa": (
        "test",
        [
            {"type": kind, "question": question, "answer": answer, "image": square("blue")}
            for kind, question, answer in [
                ("human_test", "What is the value of the blue bar?", "100"),
                ("human_test", "Which bar is the highest?", "Blue"),
                ("augmented_test", "What was the share in 2010?", "0.5"),
            ]
        ],
    ),
    "docvqa_val": (
        "validation",
        [
            {
                "questionId": str(i),
                "question": question,
                "question_types": ["layout"],
                "image": square("yellow"),
                "docId": i,
                "ucsf_document_id": "x",
                "ucsf_document_page_no": "1",
                "answers": answers,
                "data_split": "val",
            }
            for i, (question, answers) in enumerate(
                [("What is the date?", ["1 May 1990", "May 1990"]), ("Who signed the letter?", ["Smith"])]
            )
        ],
    ),
    "ocrbench": (
        "test",
        [
            {
                "dataset": "made",
                "question": question,
                "question_type": kind,
                "answer": answers,
                "image": square("red"),
            }
            for kind, question, answers in [
                ("Regular Text Recognition", "what is written in the image?", ["STOP"]),
                ("Doc-oriented VQA", "What is the total?", ["12.50"]),
            ]
        ],
    ),
    "cv_bench": (
        "test",
        [
            {
                "idx": i,
                "type": "2D",
                "task": "Count",
                "image": square("green"),
                "question": "How many squares are in the image?",
                "choices": ["0", "1", "2", "3"][:count],
                "answer": "(B)",
                "prompt": "How many squares are in the image? Select from the following choices.\n"
                + "\n".join(f"({'ABCD'[j]}) {j}" for j in range(count)),
                "filename": f"img/2D/count/{i}.png",
                "source": "COCO",
                "source_dataset": "COCO",
            }
            for i, count in enumerate([4, 3])
        ],
    ),
    "mmvp": ("train", [mmvp(1, "red", "(a)"), mmvp(2, "blue", "(b)"), mmvp(3, "red", "(a)"), mmvp(4, "blue", "(b)")]),
    **{
        f"refcoco_bbox_rec_{split}": (
            split,
            [refcoco(1, ["the blue square", "square in the middle"], [16.0, 8.0, 32.0, 32.0])],
        )
        for split in ("val", "testA", "testB")
    },
    "pope": (
        "test",
        [
            pope(1, "red", "square", "yes"),
            pope(2, "red", "dog", "no"),
            pope(3, "blue", "square", "yes"),
            pope(4, "blue", "cat", "no"),
            pope(5, "green", "red square", "no"),
        ],
    ),
}

# Official settings that only fit the data set on the hub.
CHANGES: dict[str, dict[str, Any]] = {"gqa": {"process_docs": None}}  # joins the pictures of a second data set


def write(folder: Path, tasks: list[str] | None = None) -> Path:
    """``TASK.parquet`` and ``TASK.yaml`` for each task."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks or ROWS:
        split, rows = ROWS[task]
        table(rows).to_parquet(folder / f"{task}.parquet")
        changes = {
            "task": task,
            "dataset_path": "parquet",
            "dataset_name": None,
            "dataset_kwargs": {"data_files": {split: f"{task}.parquet"}},
            **CHANGES.get(task, {}),
        }
        (folder / f"{task}.yaml").write_text(yaml.safe_dump(changes))
    return folder


def table(rows: list[dict[str, Any]]) -> Dataset:
    """Rows as a data set; a column whose values are pictures, lists of them, or pictures and nothing is typed so."""
    pictures = {key: kind for key in rows[0] if (kind := _pictures(rows, key))}
    plain = Dataset.from_list([{k: v for k, v in row.items() if k not in pictures} for row in rows])
    return Dataset.from_list(rows, features=Features({**plain.features, **pictures}))


def _pictures(rows: list[dict[str, Any]], key: str) -> Any:
    values = [row[key] for row in rows]
    if key.startswith("image_") and key[6:].isdigit() and all(v is None or isinstance(v, PIL.Image) for v in values):
        return Image()
    if any(isinstance(value, PIL.Image) for value in values):
        return Image()
    if any(isinstance(value, list) and value and isinstance(value[0], PIL.Image) for value in values):
        return List(Image())
    return None


if __name__ == "__main__":
    write(Path(sys.argv[1]))

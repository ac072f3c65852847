"""Ask a model two fixed questions about each of twelve free pictures, print the answers and count the right names.

    .venv/bin/python tools/photo_answers.py [--model NAME_OR_PATH]

The pictures ship inside scikit-image, each CC0 or in the public domain; see the attributions in ``skimage.data``. Ten
show a thing that the suite has a name for (``horse.png`` as a silhouette); the astronaut and the galaxies have none.
"""

import argparse
from pathlib import Path

import skimage
from transformers.utils import logging

from igva import answer, load

PHOTOS = {
    "astronaut.png": None,
    "brick.png": "brick",
    "camera.png": "camera",
    "chelsea.png": "cat",
    "clock_motion.png": "clock",
    "coffee.png": "coffee",
    "coins.png": "coin",
    "horse.png": "horse",
    "hubble_deep_field.jpg": None,
    "moon.png": "moon",
    "motorcycle_left.png": "motorcycle",
    "rocket.jpg": "rocket",
}
QUESTIONS = ("What is in the picture?", "What color is the background?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, processor = load(args.model)
    folder = Path(skimage.__file__).parent / "data"
    right = 0
    print("| picture | " + " | ".join(QUESTIONS) + " |\n|---|---|---|")
    for photo, name in PHOTOS.items():
        answers = [answer(model, processor, folder / photo, q, max_new_tokens=16).answer for q in QUESTIONS]
        right += answers[0] == name
        print(f"| {photo} | " + " | ".join(text.replace("\n", " ") for text in answers) + " |", flush=True)
    print(f"\n{right} of {sum(name is not None for name in PHOTOS.values())} names right")


if __name__ == "__main__":
    main()

"""Ask a model two fixed questions about each of eight free photographs, and print the answers as they come.

    .venv/bin/pip install scikit-image
    .venv/bin/python tools/photo_answers.py [--model NAME_OR_PATH]

The photographs ship inside scikit-image, each CC0 or in the public domain; see the attributions in ``skimage.data``.
"""

import argparse
from pathlib import Path

import skimage
from transformers.utils import logging

from igva import answer, load

PHOTOS = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png")
PHOTOS += ("coins.png", "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg")
QUESTIONS = ("What is in the picture?", "What color is the background?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, processor = load(args.model)
    folder = Path(skimage.__file__).parent / "data"
    print("| photograph | " + " | ".join(QUESTIONS) + " |\n|---|---|---|")
    for photo in PHOTOS:
        answers = [answer(model, processor, folder / photo, q, max_new_tokens=16).answer for q in QUESTIONS]
        print(f"| {photo} | " + " | ".join(text.replace("\n", " ") for text in answers) + " |", flush=True)


if __name__ == "__main__":
    main()

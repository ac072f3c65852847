"""Take the language model out of an igva model, as a folder that ``model.text`` of a recipe can name.

    .venv/bin/python tools/language_model_of.py tiny runs/tiny_text

For runs that exchange the fusion and keep a language model that has learnt to read visual tokens already.
"""

import argparse

from transformers import AutoModelForCausalLM
from transformers.utils import logging

from igva import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a name of `igva models`, or a folder")
    parser.add_argument("out")
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model, processor = load(args.model, "cpu", "float32")
    language = AutoModelForCausalLM.from_config(model.config.text_config)
    language.model.load_state_dict(model.model.language_model.state_dict())
    language.lm_head.load_state_dict(model.lm_head.state_dict())
    language.generation_config = model.generation_config
    language.save_pretrained(args.out)
    processor.tokenizer.save_pretrained(args.out)


if __name__ == "__main__":
    main()

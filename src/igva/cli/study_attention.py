"""``igva study attention``: what each layer of the vision encoder attends to on one picture."""

import argparse

HELP = "maps of what each layer of the vision encoder attends to on a picture"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", metavar="NAME_OR_PATH", help="a name of `igva models`, or a folder")
    parser.add_argument("--image", required=True, metavar="FILE", help="the picture")
    parser.add_argument("--out", required=True, metavar="DIR", help="maps, pictures and report.html go here")
    parser.add_argument("--question", metavar="TEXT", help="also show the layer weights for this question")
    parser.add_argument(
        "--point",
        nargs=2,
        type=float,
        default=(0.5, 0.5),
        metavar=("X", "Y"),
        help="the patch that others are compared with: across and down, 0 to 1 (default: the centre)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps (default: the GPU if there is one)")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)")


def main(args: argparse.Namespace) -> None:
    from pathlib import Path

    from transformers.utils import logging

    from igva.data.images import open_image

    picture = open_image(args.image)  # before the model loads: a wrong path should fail at once
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from igva.answering import load
    from igva.study.attention import study_attention

    model, processor = load(args.model, args.device, args.dtype)
    report = study_attention(
        model,
        processor,
        picture,
        Path(args.out),
        question=args.question,
        point=(args.point[0], args.point[1]),
        settings={
            "model": args.model,
            "vision": model.config.vision.model_type,
            "image": args.image,
            "question": args.question,
            "point": list(args.point),
            "dtype": str(model.dtype),
        },
    )
    print(f"report: {report}")

"""``igva convert``: other checkpoints → IGVA models."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igva.checkpoints.official import Conversion

HELP = "make an IGVA model of another checkpoint"
EXAMPLES = """\
igva convert llava llava-hf/llava-1.5-7b-hf my-model --instruction-encoder embedded:instruction
igva convert official igva-7b my-model --vision-tower openai/clip-vit-large-patch14-336"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    official = kinds.add_parser("official", help="a checkpoint saved by the paper's published code")
    official.add_argument("source", metavar="SRC", help="its folder: config.json and safetensors")
    official.add_argument(
        "--vision-tower",
        metavar="DIR_OR_ID",
        help="the CLIP it was trained with (default: what its config.json names)",
    )
    llava = kinds.add_parser("llava", help="a LLaVA of transformers: the same answers, ready to be trained")
    llava.add_argument("source", metavar="SRC", help="its folder or hub id")
    llava.add_argument(
        "--instruction-dim",
        type=int,
        metavar="E",
        help="width of the instruction vectors where no encoder is given (default 768)",
    )
    llava.add_argument(
        "--num-groups",
        type=int,
        default=4,
        metavar="K",
        help="groups the vision layers, of each encoder, are split into (default 4)",
    )
    llava.add_argument(
        "--add-vision",
        nargs="+",
        default=[],
        metavar="ENCODER",
        help="further vision encoders beside its own: folders, hub ids, embedded:dinov2, timm:NAME",
    )
    for kind in (official, llava):
        kind.add_argument("target", metavar="DST", help="new or empty folder")
        kind.add_argument(
            "--instruction-encoder",
            metavar="DIR_OR_ID",
            help="sentence encoder (embedded:instruction is the small one igva brings); without it the model takes "
            "instruction vectors from outside, and no verb of igva can use it",
        )


def main(args: argparse.Namespace) -> None:
    """Convert, save, and print what was done."""
    import sys
    from pathlib import Path

    from igva.files import check_free, result_folder

    target = Path(args.target)
    check_free(target)  # before the long work
    print(f"igva: reading {args.source}", file=sys.stderr)
    conversion = convert(args)
    print(f"igva: writing {target}", file=sys.stderr)
    with result_folder(target) as folder:
        conversion.save(folder)
    rows = [*describe(conversion), ("saved", str(target))]
    print("\n".join(f"{name:<14}{value}" for name, value in rows))


def convert(args: argparse.Namespace) -> "Conversion":
    """Run the converter that was asked for, quietly."""
    from pathlib import Path

    from transformers.utils import logging

    logging.set_verbosity_error()
    if args.kind == "official":
        from igva.checkpoints.official import import_official

        return import_official(Path(args.source), args.vision_tower, args.instruction_encoder)
    from igva.checkpoints.retrofit import retrofit_llava

    return retrofit_llava(
        args.source,
        args.instruction_encoder,
        instruction_dim=args.instruction_dim,
        num_groups=args.num_groups,
        add_vision=args.add_vision,
    )


def describe(conversion: "Conversion") -> list[tuple[str, str]]:
    """What was made, as rows of name and value."""
    from igva.layer_names import group_label, layer_names

    model = conversion.model
    config, fusion = model.config, model.model.fusion
    vision: Any = config.vision_config
    text: Any = config.text_config
    encoder: Any = config.instruction_config
    instruction = (
        f"{encoder.model_type}, {encoder.hidden_size} wide"
        if encoder
        else f"no encoder inside: for Python alone, which passes instruction_embeds, {config.instruction_dim} wide"
    )
    names = layer_names(config)
    groups = "; ".join(group_label(group, names) for group in fusion.layer_groups)
    rows = [
        (
            "vision",
            f"{vision.model_type}, {vision.num_hidden_layers} layers, {vision.hidden_size} wide, "
            f"{config.input_size} px, {fusion.num_tokens} visual tokens",
        ),
        (
            "language",
            f"{text.model_type}, {text.num_hidden_layers} layers, {text.hidden_size} wide, {text.vocab_size} tokens",
        ),
        ("fusion", f"{config.fusion}, beside layer {(config.fusion_kwargs or {}).get('base_layer')}"),
        ("layer groups", groups),
        ("instruction", instruction if fusion.needs_instruction else "not read by this fusion"),
        (
            "parameters",
            f"{_count(model)}, of them fusion {_count(fusion)}, projector {_count(model.model.projector)}",
        ),
        ("to train", conversion.to_train),
    ]
    return rows + [("note", note) for note in conversion.notes]


def _count(module: Any) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()):,}"

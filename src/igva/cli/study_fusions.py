"""``igva study fusions``: fusions compared under one recipe, with paired tests and costs."""

import argparse

from igva.cli.study_options import add_study_arguments

HELP = "train every fusion of a list under the same conditions and compare them"

FUSIONS = ("single:layer=-2", "single:layer=-1", "mean", "igva")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_study_arguments(parser, steps=1000, batch_size=64, width=192, blocks=2)
    parser.add_argument(
        "--fusions",
        nargs="+",
        default=list(FUSIONS),
        metavar="NAME:key=value,…",
        help=f"names of `igva fusions`, with options (default: {' '.join(FUSIONS)})",
    )
    parser.add_argument("--reference", metavar="NAME:…", help="compare with this one (default: igva, else the first)")


def main(args: argparse.Namespace) -> None:
    from pathlib import Path

    from igva.cli import study_options as options
    from igva.errors import UserError
    from igva.layer_names import layer_names
    from igva.study.fusions import check_measurable, readout_run, study_fusions
    from igva.study.trials import parse_variants

    options.check_counts(args)
    train, test = options.read_data(args)
    model, processor = options.load_encoders(args)
    dims, settings = model.config.fusion_dims(), options.readout_settings(args)
    variants = parse_variants(args.fusions, dims)
    if not args.recipe:
        check_measurable(variants)
    labels = [variant.label for variant in variants]
    guided = [variant.label for variant in variants if variant.fusion == "igva"]
    reference = args.reference or (guided or labels)[0]
    if reference not in labels:
        raise UserError(f"--reference {reference} is none of --fusions: {', '.join(labels)}")
    if args.recipe:
        from igva.study.full import full_run

        run = full_run(args.recipe, args.set, test, Path(args.out), dims)
    else:
        from igva.study.readout import gather

        run = readout_run(gather(model, processor, train, test, options.cells(args)), settings, dims)
    report = study_fusions(
        run,
        variants,
        test,
        Path(args.out),
        dims=dims,
        seeds=args.seeds or 3,
        reference=reference,
        names=layer_names(model.config),
        settings=options.describe(args, train, test, settings),
    )
    print(f"report: {report}")

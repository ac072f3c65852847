"""``igva study layers``: accuracy per layer and category, by readouts or by whole models."""

import argparse

from igva.cli.study_options import add_study_arguments

HELP = "what each layer of a vision encoder contributes, per category of questions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_study_arguments(parser, steps=200, batch_size=32, width=128, blocks=1)
    parser.add_argument("--layers", metavar="LIST", help="such as 1-6,9,-1 (default: 1 to the last)")
    parser.add_argument("--shared", action="store_true", help="one readout for all tasks, instead of one per task")
    parser.add_argument("--no-blind", action="store_true", help="leave out the control without pictures")


def main(args: argparse.Namespace) -> None:
    from pathlib import Path

    from igva.cli import study_options as options
    from igva.layer_names import layer_names
    from igva.study.layers import check_tasks, parse_layers, readout_run, study_layers

    options.check_counts(args)
    train, test = options.read_data(args)
    if not (args.recipe or args.shared):
        check_tasks(train, test)
    model, processor = options.load_encoders(args)
    dims, settings = model.config.fusion_dims(), options.readout_settings(args)
    layers = parse_layers(args.layers or f"1-{dims.num_layers}", dims.num_layers)
    shared = options.describe(args, train, test, settings) | {"readout_per_task": not args.shared}
    if args.recipe:
        from igva.study.full import full_run

        run = full_run(args.recipe, args.set, test, Path(args.out), dims)
    else:
        from igva.study.readout import gather

        run = readout_run(
            gather(model, processor, train, test, options.cells(args)), settings, dims, per_task=not args.shared
        )
    blind = not (args.no_blind or args.recipe)
    report = study_layers(
        run,
        layers,
        test,
        Path(args.out),
        seeds=args.seeds or 1,
        blind=blind,
        names=layer_names(model.config),
        settings=shared,
    )
    print(f"report: {report}")

"""``igva fusions``: the table of methods, with what each costs."""

import argparse

HELP = "list the fusion methods: what they read, hand on and cost"
EXAMPLES = """\
igva fusions
igva fusions igva dense_dci --vision siglip_so400m"""

SETTINGS = ("clip_l", "siglip_so400m", "tiny")  # igva.study.cost.SETTINGS; a test compares them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--vision", choices=SETTINGS, default="clip_l", help="what to count on (default clip_l)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def main(args: argparse.Namespace) -> None:
    import json
    from dataclasses import asdict

    from igva.errors import UserError
    from igva.model.fusions import fusion_class, fusion_names
    from igva.study.cost import SETTINGS, fusion_cost
    from igva.tables import Cell, Table, text_table

    setting = SETTINGS[args.vision]
    for name in args.names:
        try:
            fusion_class(name)
        except ValueError as error:
            raise UserError(str(error)) from error
    costs = [fusion_cost(name, {}, setting) for name in args.names or fusion_names()]
    if args.json:
        print(json.dumps({"setting": setting.name, "fusions": [asdict(cost) for cost in costs]}, indent=1))
        return
    yes = {True: "yes", False: "no"}
    rows: list[list[Cell]] = [
        [
            cost.name,
            yes[cost.needs_instruction],
            yes[cost.image_dependent],
            cost.tokens,
            f"{cost.parameters / 1e6:.2f}",
            f"{cost.flops / 1e9:.2f}",
            f"{cost.text_flops / 1e12:.2f}",
            cost.source,
        ]
        for cost in costs
    ]
    columns = ["name", "by question", "by picture", "tokens", "+M params", "+GFLOP", "+TFLOP text", "source"]
    print(f"Beyond `single`, per picture, on {setting.name}:")
    print(text_table(Table("fusions", "", columns, rows)))

"""The command line `bcss-train`."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.command.console import run_command, show_version
from schemas.command.plain_help import register
from train.command import help_groups
from train.command.evaluate import evaluate
from train.command.export import export
from train.command.fit import fit
from train.command.predict import predict
from train.command.verify import verify

app = typer.Typer(
    help="Fine-tune SAM 2 on a store, and score checkpoints. --debug: tracebacks and timings; --log-json: JSON.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Define the options of the program itself."""


register(app, fit, help_groups.FIT, *help_groups.FIT_EXAMPLES)
register(app, evaluate, help_groups.EVALUATE, *help_groups.EVALUATE_EXAMPLES)
app.command()(verify)
register(app, predict, help_groups.PREDICT, *help_groups.PREDICT_EXAMPLES)
app.command()(export)


def main() -> None:
    """Run `bcss-train`."""
    run_command(app, "bcss-train")


if __name__ == "__main__":
    main()

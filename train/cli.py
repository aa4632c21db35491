"""The command line `bcss-train`."""

from __future__ import annotations

from typing import Annotated

import typer

from schemas.command.console import run_command, show_version
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


app.command()(fit)
app.command()(evaluate)
app.command()(verify)
app.command()(predict)
app.command()(export)


def main() -> None:
    """Run `bcss-train`."""
    run_command(app, "bcss-train")


if __name__ == "__main__":
    main()

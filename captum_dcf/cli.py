r"""The command ``captum-dcf``."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["main"]


@click.group()
def main() -> None:
    r"""Counterfactual explanations of image models: what would have to change?"""


@main.command()
@click.argument("name")
@click.option("--root", required=True, type=click.Path(path_type=Path), help="Folder of the data set.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for weights, card and checkpoint.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training set; the recipe's by default.")
@click.option("--seed", default=0, show_default=True, help="For weights, order of images and noise.")
@click.option("--limit", type=click.IntRange(min=1), help="Use only so many images of each set, for a trial.")
def train(name: str, root: Path, out: Path, epochs: int | None, seed: int, limit: int | None) -> None:
    r"""Train a model of the zoo (NAME); goes on from OUT/NAME.ckpt where there is one."""
    from captum_dcf.training.run import train as run

    card = run(name, root, out, epochs=epochs, seed=seed, limit=limit)
    click.echo(f"{out / name}.safetensors: {card.figures}")


if __name__ == "__main__":
    main()

r"""The command ``captum-dcf``: it parses, and leaves the work to the modules it names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

__all__ = ["main"]

FOLDER = click.Path(file_okay=False, path_type=Path)
ANY = click.Path(path_type=Path)


class OneLineErrors(click.Group):
    r"""A group whose errors, a user's and the package's, are one line on stderr and exit status 2; 130 for Ctrl-C."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        r"""Runs the command line."""
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
        except click.ClickException as error:
            _complain(error.format_message())
        except click.Abort as error:
            # Click makes one of an unexpected end of a file, too.
            if not isinstance(error.__cause__, EOFError):
                _complain("interrupted")
                sys.exit(130)
            _complain(f"a file ends too early: {error.__cause__}")
        except (ImportError, OSError, TypeError, ValueError) as error:
            _complain(str(error))
        sys.exit(2)


@click.group(cls=OneLineErrors)
@click.version_option(package_name="captum_dcf")
def main() -> None:
    r"""Counterfactual explanations of image models: what would have to change?"""


@main.command()
@click.option("--out", default="captum-dcf-demo", show_default=True, type=FOLDER, help="Folder to write to.")
@click.option("--per-class", default=100, show_default=True, type=click.IntRange(1, 100), help="Fours, and sevens.")
@click.option("--overwrite", is_flag=True, help="Replace the table and the picture of an earlier call.")
def demo(out: Path, per_class: int, overwrite: bool) -> None:
    r"""Turn bundled fours and sevens into nines, three ways; write a table and a picture. Nothing is downloaded."""
    from captum_dcf.demo import run_demo

    click.echo(f"{per_class} fours and {per_class} sevens, until the classifier says 9 with confidence 0.99:\n")
    click.echo(run_demo(out, per_class, lambda line: click.echo(line, err=True), overwrite))
    click.echo("\nfound within 1,000 steps in pixels, 100 with the paper's Adam, 300 with the default")
    click.echo(f"\npicture: {out / 'counterfactuals.png'}")


@main.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--target", required=True, type=int, help="The class to reach.")
@click.option("--out", required=True, type=FOLDER, help="Folder to write to.")
@click.option("--model", default="mnist-cnn", show_default=True, help="Classifier: a name of the zoo, or DIR/NAME.")
@click.option("--generator", default="mnist-glow", show_default=True, help="Generator: a name of the zoo, or DIR/NAME.")
@click.option("--overwrite", is_flag=True, help="Replace files of an earlier call, but never IMAGES.")
def explain(images: tuple[Path, ...], target: int, out: Path, model: str, generator: str, overwrite: bool) -> None:
    r"""Say what would have to change in image files (IMAGES) for the model to see TARGET.

    Files are made grey and resized, not cropped, to the model's images: for mnist-cnn 28×28, white digits on black. Of
    a file with several frames the first is taken. DIR/NAME is a model that `captum-dcf train NAME --out DIR` wrote.

    Said of each are what the model sees, how the search ended, the probability of TARGET, and how likely the image and
    its counterfactual are to the generator: of digits about 3,700 nats, of what is far below it knows nothing.
    """
    from captum_dcf.explain import explain_files

    click.echo(explain_files(images, target, out, model, generator, overwrite))
    click.echo(f"picture: {out / 'counterfactuals.png'}")


@main.command()
@click.argument("what", metavar="KIND|RECIPE")
@click.option("--data", "--root", type=ANY, help="Folder of images, CSV file, or a recipe's folder of the data set.")
@click.option("--out", required=True, type=FOLDER, help="Folder for weights, card, checkpoint, table and pictures.")
@click.option("--name", help="Name of the files of a KIND; the kind by default.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="How long it is to take in all.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training set instead.")
@click.option("--size", type=click.IntRange(min=1), help="Height and width that images are resized to.  [default: 64]")
@click.option("--channels", type=click.Choice([1, 3]), help="Grey or colour; what the files have by default.")
@click.option("--column", help="Column of a CSV file with the labels.")
@click.option("--group", help="Column of a CSV file: images with an equal entry are trained on, or held out, together.")
@click.option(
    "--holdout", type=click.FloatRange(0, 1, True, True), help="Share of the images to hold out.  [default: 0.1]"
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Images per step, over all devices.")
@click.option("--learning-rate", type=click.FloatRange(min=0, min_open=True), help="Largest learning rate.")
@click.option("--weight-decay", type=click.FloatRange(min=0), help="Decoupled weight decay.")
@click.option("--augment", multiple=True, help="Augmentation of training images, such as shift_two_pixels; repeatable.")
@click.option("--argument", "arguments", multiple=True, metavar="NAME=VALUE", help="Size of the model; repeatable.")
@click.option("--credit", help="What the data are, by whom and under which licence, for the card.")
@click.option("--seed", default=0, show_default=True, help="For weights, order of images and noise.")
@click.option("--limit", type=click.IntRange(min=1), help="Use only so many images of each set, for a trial.")
@click.option("--accelerator", default="auto", show_default=True, help="cpu, gpu or mps.")
@click.option("--devices", default="auto", show_default=True, help="Number of devices.")
@click.option("--nodes", default=1, show_default=True, type=click.IntRange(min=1), help="Number of machines.")
@click.option("--precision", default="32-true", show_default=True, help="Lightning's, such as 16-mixed or bf16-mixed.")
@click.option("--strategy", default="auto", show_default=True, help="Lightning's, such as ddp.")
def train(what: str, data: Path | None, out: Path, **options: Any) -> None:
    r"""Train a model on images of your own, or by a recipe; goes on from OUT/NAME.ckpt where there is one.

    KIND is glow, vae, gan, autoencoder, classifier or regressor. --data is a folder of images, one with a sub-folder
    per class, or a CSV file that names them. Sizes of the model follow from the images; --argument 'steps=[8,8,8]'
    says another.

    RECIPE is mnist-glow, mnist-cnn, mnist-oracle, mnist-ae, mnist-ae-0 to mnist-ae-9, helix-flow or helix-classifier.
    For MNIST --data is a folder of torchvision, which torchvision.datasets.MNIST(DATA, download=True) fills.

    The same command goes on after Ctrl-C or a kill. Going on with more --minutes or --epochs stretches the schedule of
    the learning rate.
    """
    try:
        from captum_dcf.training.command import train_by_command
        from captum_dcf.training.processes import is_first
    except ModuleNotFoundError as error:
        raise ImportError(f'training needs {error.name}: pip install "captum_dcf[train]"') from error

    try:
        card = train_by_command(what, data, out, options)
    except SystemExit as error:
        # How Lightning ends the process on Ctrl-C.
        raise KeyboardInterrupt from error
    if is_first():
        click.echo(f"{out / card.name}.safetensors: {card.figures}")


@main.command()
@click.argument("data", type=click.Choice(["mnist"]))
@click.option(
    "--root", type=FOLDER, help="Folder with the whole data set (torchvision's); the bundled digits otherwise."
)
@click.option("--out", required=True, type=FOLDER, help="Folder to write to.")
@click.option("--source", default=4, show_default=True, type=click.IntRange(0, 9), help="Class that is searched from.")
@click.option("--target", default=9, show_default=True, type=click.IntRange(0, 9), help="Class to reach.")
@click.option("--images", type=click.IntRange(min=1), help="Search only so many images, for a trial.")
def reproduce(data: str, root: Path | None, out: Path, source: int, target: int, images: int | None) -> None:
    r"""Make the paper's tables for MNIST again: IM1, distances, oracles, neighbours, beside the published figures."""
    from captum_dcf.benchmark.reproduce import reproduce_mnist

    click.echo(reproduce_mnist(out, root, source, target, images, show_progress=True))


@main.command()
@click.argument("plan")
@click.option("--out", required=True, type=FOLDER, help="Folder for tables and shards; goes on with what is there.")
@click.option("--root", type=FOLDER, help="Folder with the whole data set; the bundled digits otherwise.")
@click.option("--images", type=click.IntRange(min=1), help="Use only so many images, for a trial.")
@click.option("--confidence", multiple=True, type=float, help="Λ, instead of those of the plan; may be repeated.")
@click.option("--device", default="cpu", show_default=True, help="Where to search: cpu, cuda or mps.")
def benchmark(
    plan: str, out: Path, root: Path | None, images: int | None, confidence: tuple[float, ...], device: str
) -> None:
    r"""Compare methods by metrics: PLAN is mnist, mnist-saliency or a TOML file of your own.

    For several processes: torchrun --nproc-per-node 4 -m captum_dcf benchmark PLAN --out DIR
    """
    from captum_dcf.benchmark import read_plan, run
    from captum_dcf.benchmark.processes import is_first

    run(read_plan(plan, root, images, confidence, device), out, show_progress=is_terminal())
    if is_first():
        click.echo((out / "report.md").read_text(encoding="utf-8"))


def is_terminal() -> bool:
    r"""Whether someone watches: a progress bar in a file is hundreds of lines."""
    return sys.stderr.isatty()


def _complain(message: str) -> None:
    click.echo(f"captum-dcf: {' '.join(message.split())}", err=True)


if __name__ == "__main__":
    main()

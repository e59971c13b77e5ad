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
@click.option("--target", help="The class to reach, by number or name; with a value the number of its output.")
@click.option("--leave", is_flag=True, help="Reach any class but the one that the model sees.")
@click.option("--at-least", type=float, help="A value to reach: so much or more.")
@click.option("--at-most", type=float, help="A value to reach: so much or less.")
@click.option("--near", type=float, help="A value to reach, to within --tolerance.")
@click.option("--tolerance", type=float, default=0.05, show_default=True, help="For --near, in the model's unit.")
@click.option("--out", required=True, type=FOLDER, help="Folder to write to.")
@click.option("--model", default="mnist-cnn", show_default=True, help="Classifier or regressor, see above.")
@click.option("--generator", default="mnist-glow", show_default=True, help="Generator, see above.")
@click.option("--labels", default="", help='Names of the classes in their order, such as "not blond,blond".')
@click.option("--unit", default="output", show_default=True, help="Of values, such as nuclei.")
@click.option("--confidence", type=float, help="Λ: a class counts as reached above this probability.  [default: 0.99]")
@click.option("--normalize", help='What the model expects: imagenet, or "mean;deviation" of one or three numbers each.')
@click.option("--model-size", type=click.IntRange(min=1), help="Height and width of images that the model expects.")
@click.option(
    "--output",
    type=click.Choice(["logits", "probabilities", "binary_logit"]),
    help="What the model gives of classes; by default seen from its shape and values.",
)
@click.option("--max-steps", type=click.IntRange(min=0), help="Most steps of one image.")
@click.option("--device", default="cpu", show_default=True, help="Where to search: cpu, cuda or mps.")
@click.option("--overwrite", is_flag=True, help="Replace files of an earlier call, but never IMAGES.")
def explain(
    images: tuple[Path, ...],
    out: Path,
    at_least: float | None,
    at_most: float | None,
    near: float | None,
    tolerance: float,
    labels: str,
    normalize: str | None,
    **options: Any,
) -> None:
    r"""Say what would have to change in image files (IMAGES, or folders of them) for the model to see the target.

    Images are made grey or coloured and resized, not cropped, for the generator: for mnist-glow 28×28, white digits on
    black. The change is added back at the size of the file. Of a file with several frames the first is taken.

    --model and --generator name my.py:net or package.module:net, your own code, which is run: net() returns a module of
    torch, or a function of images; or DIR/NAME, or DIR/, what `captum-dcf train` wrote into DIR; or a model of the zoo.

    A model is shown pixels from 0 to 1, at the generator's size where it takes that: if it takes any size, but was
    trained at one, say --model-size. One that gives a single probability is asked for a value: --at-least 0.99.

    Said of each image are what the model sees, how the search ended, the probability of the target or the value, and of
    how many per cent of the training images log q is lower: of what is near 0 the generator knows nothing.
    """
    given = [option for option in (at_least, at_most, near) if option is not None]
    asks_for_class = options["target"] is not None and not given
    if len(given) + options["leave"] + asks_for_class != 1:
        raise click.UsageError("say what to reach, one of --target, --leave, --at-least, --at-most and --near")

    from captum_dcf.explain import explain_files
    from captum_dcf.explain.shown import parse_normalize
    from captum_dcf.search import AtLeast, AtMost, Goal, Near

    value: Goal | None = None
    if given:
        at = given[0]
        value = AtLeast(at) if at_least is not None else AtMost(at) if at_most is not None else Near(at, tolerance)
    lines = explain_files(
        images,
        out,
        value=value,
        labels=[name.strip() for name in labels.split(",")] if labels else (),
        normalize=None if normalize is None else parse_normalize(normalize),
        show_progress=is_terminal(),
        say=click.echo,
        **options,
    )
    click.echo(lines)
    click.echo(f"picture: {out / 'counterfactuals.png'}, report: {out / 'report.md'}")


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

    RECIPE is mnist-glow, mnist-cnn, mnist-oracle, mnist-ae, mnist-ae-0 to mnist-ae-9, helix-flow or helix-classifier,
    or celeba-glow, -cnn, -oracle, -ae, -ae-0, -ae-1, and the same of chexpert, the paper's, on --data of their owners.
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
@click.argument("data", type=click.Choice(["mnist", "celeba", "chexpert"]))
@click.option("--root", type=FOLDER, help="Folder of the data set; for mnist the bundled digits otherwise.")
@click.option("--weights", type=FOLDER, help="Folder of the models that the recipes of the data set have trained.")
@click.option("--out", required=True, type=FOLDER, help="Folder to write to.")
@click.option("--source", type=click.IntRange(0, 9), help="Class of mnist that is searched from.  [default: 4]")
@click.option("--target", type=click.IntRange(0, 9), help="Class of mnist to reach.  [default: 9]")
@click.option("--images", type=click.IntRange(min=1), help="Search only so many images; 500 but for mnist.")
@click.option("--device", default="cpu", show_default=True, help="Where to search: cpu, cuda or mps.")
def reproduce(
    data: str,
    root: Path | None,
    weights: Path | None,
    out: Path,
    source: int | None,
    target: int | None,
    images: int | None,
    device: str,
) -> None:
    r"""Make the paper's tables again: IM1, distances, oracles, neighbours and rivals, beside the published figures.

    For mnist all there is to it is bundled. celeba and chexpert are offered by their owners, and their models are
    trained first: `captum-dcf train celeba-glow --root ROOT --out WEIGHTS`, and so on.
    """
    from captum_dcf.benchmark.reproduce import reproduce_mnist, reproduce_trained

    if data == "mnist":
        if weights is not None:
            raise click.UsageError(f"--weights is for celeba and chexpert, received {str(weights)!r} for mnist")
        source, target = 4 if source is None else source, 9 if target is None else target
        click.echo(reproduce_mnist(out, root, source, target, images, device, show_progress=True))
        return
    if source is not None or target is not None:
        raise click.UsageError(f"--source and --target are for mnist, received {source} and {target} for {data}")
    click.echo(reproduce_trained(data, out, root, weights, images or 500, device, show_progress=True))


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

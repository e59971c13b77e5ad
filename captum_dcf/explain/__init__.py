r"""What the command ``explain`` does: counterfactuals of image files, written beside a picture and a report of them."""

from .files import explain_files

__all__ = ["explain_files"]

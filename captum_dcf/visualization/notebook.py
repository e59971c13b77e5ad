r"""Figures that a notebook draws whether or not pyplot was used before."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

__all__ = ["NotebookFigure"]


class NotebookFigure(Figure):
    r"""A Matplotlib figure with a picture of itself: IPython draws others only once pyplot has drawn one."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png", bbox_inches="tight")
        return picture.getvalue()

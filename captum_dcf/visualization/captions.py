r"""What stands below an image and its counterfactual in a figure."""

from __future__ import annotations

import textwrap

from torch import Tensor

from captum_dcf.search.result import Counterfactual

__all__ = ["end_caption", "start_caption"]

# Characters of a line that fit below a panel.
WIDTH = 22
# A decode that reaches beyond the range by less than this share of it is no news.
OVERSHOOT = 0.05


def start_caption(result: Counterfactual, row: int, score: float) -> str:
    r"""Of an input: its score, and the percentile of its plausibility."""
    return _lines(_score(result, score), _percentile(result, result.start_percentiles, row))


def end_caption(result: Counterfactual, row: int, score: float) -> str:
    r"""Of a counterfactual: its score, steps or status, percentile, and how far it was decoded beyond the range."""
    status = result.statuses()[row].name.lower().replace("_", " ")
    steps = f"{int(result.steps[row])} steps" if result.reached[row] else status
    beyond = float(result.overshoot[row])
    # Written so that NaN is said, too.
    said = "" if beyond <= OVERSHOOT else f"{beyond:.2f} beyond the range"
    first = f"{_score(result, score)}, {steps}"
    # Between the two, not within one of them.
    heads = [first] if len(first) <= WIDTH else [f"{_score(result, score)},", steps]
    return _lines(*heads, _percentile(result, result.end_percentiles, row), said)


def _score(result: Counterfactual, score: float) -> str:
    name = result.about.get("score")
    if not name:
        return f"{score:.3f}"
    return f"{name} {score:.3f}" if name.startswith("P(") else f"{score:.4g} {name}"


def _percentile(result: Counterfactual, percentiles: Tensor | None, row: int) -> str:
    if percentiles is None:
        return ""
    return f"{'latent' if result.start_log_probs is None else 'log q'} percentile {float(percentiles[row]):.0f}"


def _lines(*parts: str) -> str:
    return "\n".join(textwrap.fill(part, WIDTH) for part in parts if part)

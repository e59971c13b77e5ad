r"""What stands below an image and its counterfactual in a figure."""

from __future__ import annotations

import textwrap

from captum_dcf.search.result import Counterfactual

__all__ = ["end_caption", "start_caption"]

# Characters of a line that fit below a panel.
WIDTH = 22
# A decode that reaches beyond the range by less than this share of it is no news.
OVERSHOOT = 0.05


def start_caption(result: Counterfactual, row: int, score: float) -> str:
    r"""Of an input: its score, and the percentile of its plausibility."""
    return _lines(_score(result, score), _percentile(result, "start_percentiles", row))


def end_caption(result: Counterfactual, row: int, score: float) -> str:
    r"""Of a counterfactual: its score, steps or status, percentile, and how far it was decoded beyond the range."""
    status = result.statuses()[row].name.lower().replace("_", " ")
    steps = f"{int(result.steps[row])} steps" if result.reached[row] else status
    # What stands in a result of a later release, or of an earlier one, is not in all of them.
    overshoot = getattr(result, "overshoot", None)
    beyond = 0.0 if overshoot is None else float(overshoot[row])
    # Written so that NaN is said, too.
    said = "" if beyond <= OVERSHOOT else f"{beyond:.2f} beyond the range"
    first = f"{_score(result, score)}, {steps}"
    # Between the two, not within one of them.
    heads = [first] if len(first) <= WIDTH else [f"{_score(result, score)},", steps]
    return _lines(*heads, _percentile(result, "end_percentiles", row), said)


def _score(result: Counterfactual, score: float) -> str:
    name = result.about.get("score")
    if not name:
        return f"{score:.3f}"
    return f"{name} {score:.3f}" if name.startswith("P(") else f"{score:.4g} {name}"


def _percentile(result: Counterfactual, name: str, row: int) -> str:
    percentiles = getattr(result, name, None)
    if percentiles is None:
        return ""
    density = getattr(result, "start_log_probs", None)
    return f"{'latent' if density is None else 'log q'} percentile {float(percentiles[row]):.0f}"


def _lines(*parts: str) -> str:
    return "\n".join(textwrap.fill(part, WIDTH) for part in parts if part)

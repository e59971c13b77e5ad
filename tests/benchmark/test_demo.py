from __future__ import annotations

import sys

import pytest

from captum_dcf.demo import run_demo


def test_the_demo_needs_no_extra(tmp_path, monkeypatch):
    for name in ("pandas", "scipy", "sklearn", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in run_demo(tmp_path, 1).splitlines()]
    metrics = ["L2 in X", "L2 in Z", "log p(x')", "percentile", "denoised"]
    assert lines[0] == ["search", "found", "steps", "confidence", *metrics, "time"]
    assert [line[0][:4] for line in lines[2:]] == ["in X", "in Z", "in Z"]
    # What is found in pixels is far in latents, and unlikely.
    pixels, _, default = lines[2:]
    assert pixels[1] == default[1] == "2/2"
    assert float(pixels[5]) > 3 * float(default[5])
    assert float(pixels[6]) < float(default[6]) - 1000
    assert float(pixels[7]) == 0 < float(default[7])
    assert float(pixels[8]) < float(default[8]) == 1
    assert (tmp_path / "counterfactuals.png").stat().st_size > 0
    assert float(default[3]) > 0.99
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counterfactuals.png", "table.md"]


@pytest.mark.parametrize("per_class", [3])
def test_the_picture_shows_both_classes(tmp_path, monkeypatch, per_class):
    shown = []

    def figure(results, rows, titles):
        shown.extend(titles)
        assert {len(result) for result in results.values()} == {2 * per_class}
        raise InterruptedError

    monkeypatch.setattr("captum_dcf.demo.counterfactual_figure", figure)
    monkeypatch.setattr("captum_dcf.demo.SHOWN", 2)
    with pytest.raises(InterruptedError):
        run_demo(tmp_path, per_class)
    assert shown == ["4 → 9", "4 → 9", "7 → 9", "7 → 9"]

from __future__ import annotations

import csv
from html.parser import HTMLParser

import pytest
import torch
from torch.utils.data import TensorDataset
from toys import images

from captum_dcf.benchmark import Method, Plan, run


class Tables(HTMLParser):
    """The cells of all tables."""

    def __init__(self):
        super().__init__()
        self.rows, self.inside = [], False

    def handle_starttag(self, tag, attributes):
        self.inside = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        if self.inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


@pytest.fixture
def out(tmp_path, classifier):
    x = images(5)
    plan = Plan(
        TensorDataset(x, torch.zeros(5).long()),
        classifier,
        2,
        [Method("a|<b>", lambda x, t: x), Method("third row", lambda x, t: x + torch.eye(4)[2][:, None], "toy", 0.9)],
        {
            "share": lambda case: (case.inputs.mean((1, 2, 3)) > 0).float(),
            "big": lambda case: 1000 * case.inputs.sum((1, 2, 3)),
        },
        title="Toys & more",
        shard_size=2,
        settings={"data": "the toy box"},
    )
    return run(plan, tmp_path / "out")


def test_markdown(out):
    text = (out / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# Toys & more\n\n5 images of the toy box, target 2, seed 0, captum_dcf ")
    lines = [line for line in text.splitlines() if line.startswith("| third row")]
    assert lines[0].startswith("| third row | toy | 0.9 | 5/5 | ")
    assert "| 100.0 % [100.0, 100.0] |" in lines[0]
    assert "| a\\|<b> |" in text
    for table in text.split("## ")[1:]:
        lines = [line.replace("\\|", "") for line in table.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) == 1


def test_html_has_the_same_cells(out):
    page = Tables()
    page.feed((out / "report.html").read_text(encoding="utf-8"))
    text = (out / "report.md").read_text(encoding="utf-8")
    for row in page.rows:
        assert "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" in text
    assert ["method", "generator", "Λ", "found", "images/s", "peak MiB", "steps", "share", "big"] in page.rows
    assert "<title>Toys &amp; more</title>" in (out / "report.html").read_text(encoding="utf-8")


def test_the_summary_is_that_of_the_table(out):
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(out / "table.csv")
    summary = pandas.read_csv(out / "summary.csv")
    for method, rows in table.groupby("method"):
        [figures] = summary[
            (summary["method"] == method) & (summary["measure"] == "big") & (summary["over"] == "all")
        ].to_dict("records")
        assert figures["count"] == len(rows) == figures["total"]
        assert figures["median"] == pytest.approx(rows["big"].median())
        assert figures["mean"] == pytest.approx(rows["big"].mean())
        assert figures["deviation"] == pytest.approx(rows["big"].std())
        assert figures["images_per_second"] == pytest.approx(1 / rows["seconds"].mean())
        assert figures["found"] == rows["found"].sum()


def test_parquet_where_pyarrow_is(out):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    parquet, table = pandas.read_parquet(out / "table.parquet"), pandas.read_csv(out / "table.csv")
    assert list(parquet) == list(table)
    for column in ("image", "method", "found", "seconds", "big"):
        assert parquet[column].tolist() == table[column].tolist()


def test_the_table_has_its_columns_in_order(out):
    with (out / "table.csv").open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file))
    assert header[:6] == ["image", "source", "target", "method", "generator", "confidence"]
    assert header[-3:] == ["share", "big", "error"]

from __future__ import annotations

import csv
import re
import warnings
from html.parser import HTMLParser

import pytest
import torch
from torch.utils.data import TensorDataset
from toys import images

from captum_dcf.benchmark import Method, Plan, reach, run


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


def big(case):
    return 1000 * case.inputs.sum((1, 2, 3))


big.better, big.of = "lower", "example"


def third_row(x, goal):
    return x + torch.eye(4)[2][:, None]


def run_of(folder, classifier, methods, metrics, **others):
    dataset = TensorDataset(images(5), torch.zeros(5).long())
    plan = Plan(dataset, classifier, reach(2), methods, metrics, shard_size=2, **others)
    return run(plan, folder / "out")


def cells(line):
    """The cells of a line of Markdown."""
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


@pytest.fixture
def out(tmp_path, classifier):
    methods = [Method("a|<b>", lambda x, goal: x), Method("third row", third_row, "toy", 0.9)]
    metrics = {"share": lambda case: (case.inputs.mean((1, 2, 3)) > 0).float(), "big": big}
    return run_of(tmp_path, classifier, methods, metrics, title="Toys & more", settings={"data": "the toy box"})


def test_markdown(out):
    text = (out / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# Toys & more\n\n5 images of the toy box, goal ReachClass(")
    assert ", seed 0, captum_dcf " in text
    rows = [cells(line) for line in text.splitlines() if line.startswith("| third row")]
    assert rows[0][:5] == ["third row", "toy", "0.9", "0", "5/5"]
    assert "100.0 % [100.0, 100.0]" in rows[0]
    assert "a\\|&lt;b>" in text
    for table in text.split("## ")[1:]:
        assert len({len(cells(line)) for line in table.splitlines() if line.startswith("|")}) == 1


def test_html_has_the_same_cells(out):
    page = Tables()
    page.feed((out / "report.html").read_text(encoding="utf-8"))
    text = (out / "report.md").read_text(encoding="utf-8")
    rows = [cells(line.replace("&lt;", "<")) for line in text.splitlines() if line.startswith("|")]
    assert page.rows == [row for row in rows if set("".join(row)) != {"-"}]
    judged = ["already there", "found", "images/s", "peak MiB"]
    assert ["method", "generator", "Λ", *judged, "steps", "share", "big ↓"] in page.rows
    assert "<title>Toys &amp; more</title>" in (out / "report.html").read_text(encoding="utf-8")


def test_the_legend_says_who_counts_as_found_and_which_direction_is_better(out):
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "reach the goal from the start" in text
    assert "↓: lower is better" in text


def test_line_breaks_and_tags_in_names_do_not_break_the_markdown(tmp_path, classifier):
    methods = [Method("two\nlines", third_row), Method("tab\tand", third_row)]
    metrics = {"a\n|b": lambda case: torch.zeros(len(case.inputs))}
    out = run_of(tmp_path, classifier, methods, metrics, title="One\n<script>")
    text = (out / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# One &lt;script>\n\n")
    assert "<script>" not in text
    for table in text.split("## ")[1:]:
        lines = table.split("\n\n")[1].splitlines()
        assert {len(cells(line)) for line in lines} == {9}
        assert len(lines) == 4


def test_no_cell_is_a_formula_for_a_spreadsheet(tmp_path, classifier):
    formula = '=cmd()|"x"'
    methods = [Method(formula, third_row), Method("-1", lambda x, goal: x - 1), Method("+2", third_row)]
    metrics = {"=1+1": lambda case: -case.inputs.sum((1, 2, 3))}
    out = run_of(tmp_path, classifier, methods, metrics)
    for name in ("table.csv", "summary.csv"):
        with (out / name).open(encoding="utf-8", newline="") as file:
            texts = [cell for row in csv.reader(file) for cell in row]
        assert {"'" + formula, "'-1", "'+2", "'=1+1"} <= set(texts)
        begin = {text[0] for text in texts if text and not _is_number(text)}
        assert not begin & set("=+-@\t\r")
    with (out / "table.csv").open(encoding="utf-8", newline="") as file:
        assert all(float(row["'=1+1"]) < 0 for row in csv.DictReader(file))


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_a_single_image_has_no_interval_and_no_deviation(tmp_path, classifier):
    one = TensorDataset(images(1), torch.zeros(1).long())
    out = run(Plan(one, classifier, reach(2), [Method("m", third_row)], {"big": big}), tmp_path)
    [medians, means] = [
        cells(line)[-1]
        for line in (out / "report.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| m ")
    ]
    assert medians == means == f"{float(big_of(images(1))):.0f}"


def big_of(x):
    return 1000 * x.sum()


def test_infinite_values_are_shown_and_warn_of_nothing(tmp_path, classifier):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        out = run_of(
            tmp_path,
            classifier,
            [Method("m", third_row)],
            {"far": lambda case: torch.full((len(case.inputs),), torch.inf)},
        )
    medians, means = [
        cells(line)[-1]
        for line in (out / "report.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| m ")
    ]
    # Older versions of NumPy know no quantile between two infinities, and there is no interval then.
    assert medians in ("inf [inf, inf]", "inf")
    assert means == "inf"


def test_the_summary_is_that_of_the_table(out):
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(out / "table.csv")
    summary = pandas.read_csv(out / "summary.csv")
    for method, rows in table.groupby("method"):
        [figures] = summary[
            (summary["method"] == method) & (summary["metric"] == "big") & (summary["over"] == "all")
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
    parquet = pandas.read_parquet(out / "table.parquet")
    table = pandas.read_csv(out / "table.csv", float_precision="round_trip")
    assert list(parquet) == list(table)
    for column in ("image", "method", "found", "seconds", "big", "label", "target"):
        assert parquet[column].tolist() == table[column].tolist()


def test_parquet_keeps_names_that_look_like_something_else(tmp_path, classifier):
    parquet = pytest.importorskip("pyarrow.parquet")
    names = ["001", "true", "2020-01-01", "NA", "nan"]
    out = run_of(tmp_path, classifier, [Method(name, third_row) for name in names], {"big": big})
    table = parquet.read_table(out / "table.parquet").to_pydict()
    assert list(dict.fromkeys(table["method"])) == names
    assert set(table["error"]) == {None}
    assert set(table["target"]) == {2}


def test_the_table_has_its_columns_in_order(out):
    with (out / "table.csv").open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file))
    assert header[:6] == ["image", "label", "target", "method", "generator", "confidence"]
    assert header[-3:] == ["share", "big", "error"]

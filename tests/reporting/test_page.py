import csv
import errno
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.support.report_sample import LANGUAGE, SAID, VISION, language_results

from decaylab import reporting
from decaylab.reporting import manifest


def test_everything_lies_beside_the_page(built):
    names = sorted(p.relative_to(built.parent).as_posix() for p in built.parent.rglob("*") if p.is_file())
    charts = ["vision-by-rate", "vision-error", "vision-final", "vision-loss", "language-loss"]
    expected = [f"charts/{c}.{kind}" for c in charts for kind in ("svg", "csv")]
    expected += [f"charts/language-{name}.csv" for name in ("nothing", "said", "silence")]
    assert names == sorted([*expected, "index.html", "page.json", "verdicts.csv", "verdicts.json"])


def test_the_page_names_no_network_address_of_its_own(built):
    page = built.read_text()
    own = re.sub(r"<script>\(\(\) => \{.*?\}\)\(\);</script>", "", page, count=1, flags=re.DOTALL)
    assert len(own) < 0.5 * len(page)  # the chart library is gone
    assert not re.findall(r"(?:src|href)=\"(?!#|charts/|verdicts|data:)[^\"]*", own)
    assert "http" not in own.replace("http-equiv", "")
    assert "default-src 'none'" in own


def test_the_page_says_what_a_reader_needs(built):
    page = built.read_text()
    for text in (
        VISION.question,
        "decaylab reproduce vision --budget mini",
        "✓ holds",
        "✗ fails",
        "? undecided",
        "not testable at this budget",
        "6 of 9 runs have ended",
        "1 of 9 runs <a",
        'title="95 % interval: ',
        'title="g: Hedges',
        '<div id="term-g"><dt>g</dt><dd>Hedges',
        "2.13.0",
        "This asks for &lt;more&gt; than this <a",
        "Made up from a formula &amp; &lt;not&gt; a run.",
        "Nothing was recorded yet.",
        "decay.weight_decay",
        "loss is nan",
    ):
        assert text in page, text


def test_the_page_says_how_many_claims_hold_by_chance(built):
    found = re.search(r'<p class="multiplicity">(.*?)</p>', built.read_text(), re.DOTALL)
    verdicts = [r["verdict"] for r in json.loads((built.parent / "verdicts.json").read_text())]
    tested = sum(verdict != "not testable at this budget" for verdict in verdicts)
    assert f"{tested} claims were tested" in found[1] and f"of the {verdicts.count('holds')} that hold" in found[1]


def test_what_was_measured_of_a_machine_does_not_make_it_another(tmp_path):
    results = language_results()
    for number, environment in enumerate(results.environments.values()):
        environment["peak_flops"] = 1e9 + number
    page = reporting.build([(LANGUAGE, results)], tmp_path).read_text()
    assert page.count('<th scope="row">torch</th>') == 1 and "peak_flops" not in page


def test_verdicts_as_data(built):
    rulings = {r["claim"]: r for r in json.loads((built.parent / "verdicts.json").read_text())}
    assert rulings["lower"]["verdict"] == "holds"
    assert rulings["lower"]["comparisons"][0]["claimed"] == ["-inf", 0.0]
    assert rulings["lowest"]["verdict"] == "fails"
    assert rulings["never"]["verdict"] == "not testable at this budget"
    with (built.parent / "verdicts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["verdict"] for r in rows if r["claim"] == "lowest"] == ["fails", "fails"]
    assert rows[0]["seeds"] == "0 1 2 3"
    assert next(r for r in rows if r["claim"] == "never")["note"]


def test_the_table_beside_a_chart_has_all_points(built):
    with (built.parent / "charts" / "language-loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["wd", "step", "value", "low", "high", "seeds", "ended_early"]
    assert sum(r["wd"] == "0.1" for r in rows) == 1900  # steps 201 to 3999, every other one: 95 % of the run
    assert sum(int(r["ended_early"]) for r in rows) == 1


class _Cells(HTMLParser):
    """The texts of the cells of one table, as a browser would take them."""

    def __init__(self, figure):
        super().__init__()
        self.figure, self.inside, self.cells = figure, False, []

    def handle_starttag(self, tag, attrs):
        if tag == "figure":
            self.inside = dict(attrs).get("id") == self.figure
        elif self.inside and tag == "td":
            self.cells.append((dict(attrs)["class"], ""))
        elif self.inside and self.cells and tag not in ("tr", "figcaption", "span", "a"):
            raise AssertionError(f"<{tag}> in a cell")

    def handle_data(self, data):
        if self.inside and self.lasttag == "td" and self.cells:
            kind, text = self.cells[-1]
            self.cells[-1] = (kind, text + data)

    def handle_endtag(self, tag):
        if tag in ("td", "figure"):
            self.lasttag = ""


def test_a_table_shows_numbers_with_their_interval_and_texts_as_they_are(built):
    parser = _Cells("language-said")
    parser.feed(built.read_text())
    literal = "if a < b:\n    print('<b>&amp;</b>')\n\tend\N{SYMBOL FOR VERTICAL TABULATION}"
    assert parser.cells == [
        ("number", "0.1"),
        ("number", "1.531 (1.500 to 1.562)"),
        ("literal", literal + "\N{SYMBOL FOR CARRIAGE RETURN}  "),
        ("number", "0.33724"),
        ("number", "2"),
        ("literal", ""),
    ]
    assert "What &lt;they&gt; said" in built.read_text()


def test_the_table_beside_it_has_every_column_and_the_text_with_control_characters_spelled(built):
    with (built.parent / "charts" / "language-said.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {
        "wd": "0.1", "value": "1.53125", "value_low": "1.5", "value_high": "1.5625", "seeds": "5",
        "text": SAID.replace("\x0b", "\\x0b").replace("\r", "\\r"),
    }  # fmt: skip
    assert second["value_low"] == second["text"] == ""


def test_more_seeds_are_part_of_the_command(tmp_path):
    results = language_results()
    one = [spec for spec in results.specs if spec.labels["seed"] == 0]
    from decaylab.experiments.results import Results

    few = Results(one, {}, results._fetch, budget="mini")
    page = reporting.build([(LANGUAGE, few)], tmp_path)
    assert "decaylab reproduce language --budget mini --seeds 1" in page.read_text()


def test_an_experiment_that_another_command_trains_names_that_one(tmp_path):
    item = (replace(LANGUAGE, command="python examples/mine.py"), language_results())
    text = reporting.build([item], tmp_path).read_text()
    assert "python examples/mine.py" in text and "decaylab reproduce language" not in text


def test_only_rules_known_to_be_older_than_the_runs_are_called_so(built, tmp_path, monkeypatch):
    assert "fixed before the runs" not in built.read_text()  # a page of one's own
    monkeypatch.setattr("decaylab.studies.all_ids", lambda: ("language",))
    monkeypatch.setattr("decaylab.studies.get", lambda _: LANGUAGE)
    text = reporting.build([(LANGUAGE, language_results())], tmp_path).read_text()
    assert "rules that were fixed before the runs" in text
    alike = replace(LANGUAGE, title="Another of the same id")
    assert "fixed before the runs" not in reporting.build([(alike, language_results())], tmp_path).read_text()


def _everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_full_disk_leaves_the_page_that_was_there(tmp_path, monkeypatch):
    reporting.build([(LANGUAGE, language_results())], tmp_path)
    before = _everything(tmp_path)
    room = [40_000]
    write = Path.write_bytes

    def filling(path, content):
        room[0] -= len(content)
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", filling)
    with pytest.raises(OSError, match="No space") as caught:
        reporting.build([(replace(LANGUAGE, title="Newer"), language_results())], tmp_path)
    assert caught.value.filename == str(tmp_path)  # the message names the folder
    monkeypatch.undo()
    assert _everything(tmp_path) == before


def test_the_charts_of_a_page_that_is_replaced_go_with_it(tmp_path):
    reporting.build([(LANGUAGE, language_results())], tmp_path, formats=("svg", "pdf"), titles=False)
    (tmp_path / "charts" / "mine.svg").touch()
    names = {path.name for path in (tmp_path / "charts").iterdir()}
    assert {"language-loss.svg", "language-loss.pdf"} <= names
    assert (tmp_path / "charts" / "language-loss.pdf").read_bytes().startswith(b"%PDF")
    assert "charts/language-loss.pdf" in (tmp_path / "index.html").read_text()
    reporting.build([(replace(LANGUAGE, id="other"), language_results())], tmp_path)
    names = {path.name for path in (tmp_path / "charts").iterdir()}
    assert "mine.svg" in names and "other-loss.svg" in names
    assert not any(name.startswith("language") for name in names)


def test_a_page_of_other_experiments_is_not_replaced_without_a_word(tmp_path):
    assert manifest.replaced(tmp_path, [("language", "mini")]) is None
    reporting.build([(LANGUAGE, language_results())], tmp_path)
    assert manifest.replaced(tmp_path, [("language", "mini"), ("vision", "mini")]) is None
    said = manifest.replaced(tmp_path, [("vision", "mini")])
    assert "holds the page of language (mini)" in said and "--out names another folder" in said
    for damage in (b"", b"[" * 100_000, b'{"schema": "decaylab.page/1"}', b"\xff"):
        (tmp_path / "page.json").write_bytes(damage)
        assert manifest.read(tmp_path) is None


def test_no_cell_of_a_verdict_is_a_formula(tmp_path):
    claims = tuple(replace(claim, sentence=f"=cmd|' /C calc'!A0 \x1b[31m{claim.id}") for claim in LANGUAGE.claims)
    reporting.build([(replace(LANGUAGE, claims=claims), language_results())], tmp_path)
    with (tmp_path / "verdicts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(row["sentence"].startswith("'=cmd") for row in rows)
    assert not any("\x1b" in cell for row in rows for cell in row.values())

"""The tables: rows and their order, marks, captions, and that no cell is blank."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from evaluate.report.blind_set_tables import segmentation_table, uploads_table
from evaluate.report.build_report import tables_of
from evaluate.report.exports import figures_csv, markdown, results_json
from evaluate.report.open_set_tables import calibration_table, layers_table, systems_table
from evaluate.report.paper import Paper
from evaluate.report.results import loss_score, overlap
from evaluate.report.table import Table
from evaluate.report.terminal_summary import table_text
from submission.system.recipe.recipe_files import read_recipes
from tests.evaluate.synthetic import NASTY, efficiency, outcome, results, score, system, upload


def shown(table: Table) -> dict[str, dict[str, str]]:
    """Return heading of a row -> heading of a column -> what a cell shows; of equal rows the last."""
    heads = [f"{column.over} {column.title}".strip() for column in table.columns]
    return {
        row.head: dict(zip(heads, (cell.shown for cell in row.cells), strict=True))
        for group in table.groups
        for row in group.rows
    }


def best(table: Table, group: int, column: str) -> list[str]:
    heads = [f"{c.over} {c.title}".strip() for c in table.columns]
    return [row.head for row in table.groups[group].rows if row.cells[heads.index(column)].best]


def test_systems_within_the_limit_stand_apart_and_the_best_among_them_is_marked():
    table = systems_table(results())
    assert [(group.title, len(group.rows)) for group in table.groups] == [
        ("Within the limit of 4 GiB", 8),
        ("Over the limit of 4 GiB", 3),
    ]
    assert best(table, 0, "en-de BLEU") == ["sensitive", "random3"] and best(table, 1, "en-de BLEU") == ["bf16"]
    assert best(table, 0, "en-de loss") == ["sensitive", "random3"]
    assert shown(table)["g512"]["size on disk GiB"] == "4.000"
    assert "At most 4 GiB: 8 of 11 systems." in table.caption
    assert "into German: sensitive, 23.0 BLEU, whose interval overlaps with those of 5 others." in table.caption


def test_random_choices_of_layers_are_one_row_with_their_range():
    table = layers_table(results())
    assert [row.head for row in table.groups[0].rows] == ["sensitivity", "first", "random, mean of 3"]
    cell = table.groups[0].rows[2].cells[0]
    assert (cell.value, cell.low, cell.high) == (22.0, 21.0, 23.0)
    assert "Lowest loss en-de: sensitivity" in table.caption


def test_calibration_sets_stand_beside_the_system_without_any():
    table = calibration_table(results())
    assert [row.head for row in table.groups[0].rows] == ["none", "source only (en-de)", "en-de pairs"]
    assert [row.cells[0].shown for row in table.groups[0].rows] == ["–", "all", "32"]
    assert "en-de: 21.5 to 22.5 BLEU over 2 sets, 23.0 without AWQ; 2 of 2 intervals overlap" in table.caption


def test_what_was_tuned_after_packing_is_compared_neither_by_layers_nor_by_calibration():
    plain = results()
    tuned = [replace(s, name=f"{s.name}-tuned", recovered=True) for s in plain.systems if s.layers or s.calibration]
    both = replace(plain, systems=(*plain.systems, *tuned))
    assert len(tuned) == 7
    assert calibration_table(both) == calibration_table(plain) and layers_table(both) == layers_table(plain)
    assert len(systems_table(both).groups[0].rows) == 15


def test_blind_sets_compare_what_is_uploaded():
    table = uploads_table(results())
    assert [group.title for group in table.groups] == ["en-de, BLEU", "en-de, chrF", "en-zh, BLEU", "en-zh, chrF"]
    assert [cell.shown for cell in table.groups[2].rows[0].cells] == ["30.0", "–"]
    assert table.caption == (
        "primary is ahead of contrastive in BLEU on 3 of 3 test sets and pairs. By a paired bootstrap they "
        "differ significantly (p < 0.05) on 1: en-de/ACL (-2.0 for contrastive, p 0.030)."
    )


def test_segmentation_counts_dropped_speech_and_shows_given_segments_once():
    table = segmentation_table(results())
    assert [group.title.partition(":")[0] for group in table.groups] == ["ACL", "ACCENT", "total"]
    assert [row.head for row in table.groups[1].rows] == ["given"]
    assert [row.cells[3].shown for row in table.groups[0].rows] == ["10.0", "0.0"]
    assert "shas drops 10.0% of the speech, 20.0 BLEU; shas+vad drops 0.0% of the speech, 21.0 BLEU" in table.caption


def test_gold_segments_are_the_baseline_and_never_marked_as_the_best():
    gold = replace(results().segmentations[0], name="gold", outcomes=upload("x", "x", 90.0).outcomes)
    table = segmentation_table(results(segmentations=(*results().segmentations, gold)))
    assert best(table, 0, "en-de BLEU") == ["shas+vad"]


def test_missing_gold_segments_are_reported():
    gold = replace(results().segmentations[0], name="gold", segmentation_results=(), outcomes=())
    table = segmentation_table(results(segmentations=(results().segmentations[0], gold)))
    assert set(shown(table)["gold"].values()) == {"not computed"} and "gold" not in table.caption


def test_a_test_set_without_references_is_not_computed_and_says_why():
    blind = replace(outcome("en-de", "ACL", 1.0), scores={}, missing="not computed: no references")
    bare = replace(results().uploads[0], outcomes=(blind,))
    table = uploads_table(results(uploads=(bare, bare), paired=()))
    cell = table.groups[0].rows[0].cells[0]
    assert (cell.shown, cell.missing) == ("not computed", "not computed: no references")
    assert table.caption == "No blind set has references, so nothing is scored."


@pytest.mark.parametrize("campaign", ["miniature", "iwslt26"])
def test_the_papers_figures_stand_beside_ours_in_its_own_campaign_only(campaign):
    table = systems_table(results(campaign))
    papers = {cell.paper for group in table.groups for row in group.rows for cell in row.cells} - {None}
    assert papers == (
        set() if campaign == "miniature" else {75.6, 79.5, 24.4, 74.0, 40.5, 78.1, 19.5, 3.98, 24.8, 73.7, 36.4, 77.6}
    )
    assert any("“paper”" in note for note in table.notes) == (campaign == "iwslt26")
    assert ("en-de COMET" in shown(table)["4bit"]) == (campaign == "iwslt26")
    assert "COMET: not computed: no model" in table.notes


def test_the_papers_systems_are_systems_of_the_shipped_list():
    names = {recipe.name for recipe in read_recipes("ablation", "iwslt26")}
    paper = Paper("iwslt26")
    assert paper.system("4bit", "en-de", "BLEU") == 24.4 and paper.system("4bit", "en-fr", "BLEU") is None
    assert set(paper._figures["systems"]) <= names


def test_no_cell_is_blank():
    for campaign in ("miniature", "iwslt26"):
        for table in tables_of(results(campaign)):
            for group in table.groups:
                assert all(cell.shown for row in group.rows for cell in row.cells)
                assert all(len(row.cells) == len(table.columns) for row in group.rows)
            assert table.caption and table.command


def test_a_list_that_chooses_no_layers_and_calibrates_nothing_has_one_table():
    plain = results(systems=(system("a", 10, 1.0), system("b", 20, 2.0)), uploads=(), segmentations=(), layers=())
    (table,) = tables_of(plain)
    assert "10 " not in table_text(table) and "0.000" in table_text(table)


def test_speed_and_memory_stand_by_the_size_of_batches_and_what_does_not_fit_is_said():
    fast = system("fast", 10, 1.0, efficiency=efficiency())
    elsewhere = system("elsewhere", 20, 2.0, efficiency=efficiency(audio_seconds=20.0, did_not_fit=()))
    found = results(systems=(fast, elsewhere, system("c", 9, 1.0)), uploads=(fast,), segmentations=(), layers=())
    table = tables_of(found)[-1]
    assert table.id == "efficiency" and [len(group.rows) for group in table.groups] == [1, 1]
    (row,) = table.groups[0].rows
    shown = {(c.over, c.title): cell.shown for c, cell in zip(table.columns, row.cells, strict=True)}
    assert shown["batch 1", "real-time factor"] == "0.5000" and row.cells[0].interval == "0.4000–0.7000"
    assert shown["batch 16", "segments/s"] == "2.00" and shown["batch 16", "tokens/s"] == "20.0"
    assert shown["batch 16", "s with loading"] == "6.0" and shown["batch 16", "GiB"] == "3.00"
    assert shown["batch 64", "GiB"] == "does not fit"
    assert table.groups[1].rows[0].cells[-1].shown == "not measured"
    records = list(csv.DictReader(io.StringIO(figures_csv(found))))
    (rate,) = [
        r for r in records if r["part"] == "uploads" and r["metric"] == "tokens/s" and "batch:16" in r["signature"]
    ]
    assert rate["value"] == "20.0" and "segments:4|" in rate["signature"]


def test_untrusted_text_has_no_effect_in_markdown():
    tables = tables_of(results())
    text = markdown(results(), tables, [("x.svg", "A picture", "It shows.")])
    (line,) = [line for line in text.splitlines() if line.startswith("| bf16")]
    assert line.replace("\\|", "").count("|") == len(tables[0].columns) + 2
    assert "<script>" not in text and "&lt;script>" in line
    assert "Miniature: scores of a tiny model" in text


def test_csv_holds_every_figure_with_what_it_rests_on_and_why_others_are_missing():
    records = list(csv.DictReader(io.StringIO(figures_csv(results("iwslt26")))))
    (bleu,) = [r for r in records if (r["system"], r["pair"], r["metric"]) == ("4bit", "en-de", "BLEU")]
    assert (bleu["value"], bleu["low"], bleu["paper"], bleu["signature"]) == ("24.0", "23.0", "24.4", "BLEU|v:1")
    assert bleu["stage"] == "e" * 64
    comet = [r for r in records if r["metric"] == "COMET"]
    assert comet and all(r["note"] == "not computed: no model" and not r["value"] for r in comet)
    assert records[0]["description"] == NASTY
    dropped = [r["value"] for r in records if r["metric"] == "dropped_seconds" and r["testset"] == "ACL"]
    assert dropped == ["4.0", "0.0"]


def test_json_holds_the_stages_whole():
    record = json.loads(results_json(results()))
    assert record["systems"][0]["outcomes"][0]["stages"]["score:en-de/ACL6060"] == "e" * 64


def test_an_interval_from_a_standard_error_holds_95_percent():
    interval = loss_score(1.0, 0.1)
    assert (interval.low, interval.high) == (pytest.approx(0.804, abs=1e-3), pytest.approx(1.196, abs=1e-3))


def test_intervals_overlap_or_lie_apart_or_are_not_known():
    assert overlap(score("BLEU", 1.0), score("BLEU", 2.5)) is True
    assert overlap(score("BLEU", 1.0), score("BLEU", 3.5)) is False
    assert overlap(score("BLEU", 1.0), score("BLEU", 3.5, None)) is None

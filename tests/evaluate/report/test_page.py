"""The page and its pictures: well-formed, escaped, self-contained, and reproducible."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from jinja2 import UndefinedError

from evaluate.report.build_report import tables_of, write_report
from evaluate.report.pages.page_template import render_page
from evaluate.report.pictures.bar_charts import bars_of
from evaluate.report.pictures.palettes import DARK, LIGHT
from evaluate.report.pictures.quality_size import points_of, quality_metric
from submission.store.digests import tree_digest
from tests.evaluate.synthetic import LIMIT, NASTY, SVG, image, results, system, upload

VOID = {"meta", "br", "link", "img", "input", "hr", "source"}


class Reader(HTMLParser):
    """Collects tags and texts of a page; fails where tags do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"<{tag}> repeats an attribute"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a report that is written."""
    out = tmp_path_factory.mktemp("report")
    write_report(out, results())
    return out


@pytest.fixture(scope="module")
def text(folder) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_needs_no_network_and_runs_nothing(text, page):
    outside_images = re.sub(r'data:image/svg\+xml;base64,[^"]*', "", text)
    assert not re.search(r"https?://|//[a-z]|@import|url\((?!#)|<script|javascript:", outside_images)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("data", "action")
            assert name not in ("src", "srcset") or value.startswith(SVG)
            assert name != "href" or value.startswith("#")


def test_ids_are_unique_and_every_link_within_the_page_leads_somewhere(text, page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = {attributes["href"][1:] for _, attributes in page.tags if "href" in attributes}
    assert links | set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)


def test_untrusted_text_is_escaped(text, page):
    assert NASTY in page.texts and "<script" not in text


def test_tables_say_what_their_headings_head(page):
    heads = [attributes for tag, attributes in page.tags if tag == "th"]
    assert heads and all(attributes.get("scope") for attributes in heads)
    tables = sum(tag == "table" for tag, _ in page.tags)
    assert tables == len(tables_of(results())) + 3


def test_every_picture_has_a_description(page):
    descriptions = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert len(descriptions) == 4 and all("." in description for description in descriptions)


def test_every_picture_is_there_for_a_light_and_a_dark_page(page, folder):
    light = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    dark = [attributes["srcset"] for tag, attributes in page.tags if tag == "source"]
    assert len(light) == len(dark) == 4
    assert all(a["media"] == "(prefers-color-scheme: dark)" for tag, a in page.tags if tag == "source")
    files = {path.read_text(encoding="utf-8") for path in folder.glob("*.svg")}
    assert set(map(image, light)) == files
    for one, other in zip(map(image, light), map(image, dark), strict=True):
        ElementTree.fromstring(other)
        assert LIGHT["ink"] in one and DARK["ink"] in other
        assert not any(colour in other for name, colour in LIGHT.items() if colour != DARK[name])


def test_the_miniature_is_called_one_and_the_campaign_is_not(text, tmp_path):
    assert "Miniature: scores of a tiny model on synthetic speech." in text
    write_report(tmp_path, results("iwslt26", layers=()))
    assert "tiny model" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_colours_follow_the_scheme(text):
    style, body = text.split("</style>")
    assert "prefers-color-scheme: dark" in style
    assert set(re.findall(r"var\(--(\w+)\)", style)) <= set(re.findall(r"--(\w+):", style)) | {"width"}
    assert not re.search(r"#[0-9a-fA-F]{6}\b", re.sub(r'(id|href)="[^"]*"|<code>.*?</code>', "", body))


def test_a_template_with_an_undefined_variable_is_refused():
    with pytest.raises(UndefinedError):
        render_page("report.html.jinja", title="x", facts=[], pictures=[], tables=[])


def test_pictures_are_files_too(folder):
    names = {"quality-en-de", "quality-en-zh", "bytes", "layers"}
    assert {path.stem for path in folder.glob("*.png")} == {path.stem for path in folder.glob("*.svg")} == names
    for path in folder.glob("*.svg"):
        ElementTree.parse(path)


def test_the_same_results_give_the_same_bytes(folder, tmp_path):
    write_report(tmp_path, results())
    assert tree_digest(tmp_path) == tree_digest(folder)


def test_the_picture_names_the_front_and_what_is_uploaded():
    names = {point.system.name: point.name for point in points_of(results(), "en-de")}
    assert names["sensitive"] == "sensitive (contrastive)" and names["awq-all"] == "awq-all (primary)"
    assert [point.system.name for point in points_of(results(), "en-de") if point.front] == [
        *("bf16", "4bit", "a$1$ <b>", "sensitive", "random3"),
    ]
    assert names["first"] == names["awq-32"] == ""


def test_the_picture_names_every_system_that_was_requested(tmp_path):
    also = (system("frontier-3gb", 3 * 10**9, 15.0, labelled=True), system("primary", LIMIT - 9, 16.0, labelled=True))
    rival = system("rival", 2 * 10**9, 18.0)
    requested = results(systems=(*results().systems, rival, *also), uploads=(upload("primary", "primary", 16.0),))
    names = {point.system.name: point.name for point in points_of(requested, "en-de") if not point.front}
    assert names["frontier-3gb"] == "frontier-3gb" and names["primary"] == "primary" and names["first"] == ""
    write_report(tmp_path, requested)
    drawn = (tmp_path / "quality-en-de.svg").read_text(encoding="utf-8")
    assert drawn.count(">frontier-3gb<") == drawn.count(">primary<") == 1 and ">first<" not in drawn


def test_quality_is_comet_only_where_every_system_has_it():
    assert quality_metric(results(), "en-de") == "BLEU"


def test_systems_whose_bytes_lie_alike_share_a_bar():
    systems = (system("a", LIMIT, 1.0), system("b", LIMIT - 8, 2.0), system("c", LIMIT // 2, 1.0))
    assert [[s.name for s in members] for members in bars_of(systems)] == [["a", "b"], ["c"]]

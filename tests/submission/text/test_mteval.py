"""Reference files of the mteval format: one set of segments, or a refusal that names what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from submission.errors import UserError
from submission.text.mteval import read_mteval

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE mteval SYSTEM "mteval.dtd">\n'


def doc(*lines: str, name: str = "talk") -> str:
    segs = "\n".join(f'<seg id="{number}"> {line} </seg>' for number, line in enumerate(lines, 1))
    return f'<doc docid="{name}" genre="lectures">\n{segs}\n</doc>\n'


def refset(content: str, name: str = "r1", language: str = "German") -> str:
    label = f' trglang="{language}"' if language else ""
    return f'<refset setid="x" srclang="English"{label} refid="{name}">\n{content}</refset>\n'


def texts(tmp_path: Path, content: str, language: str = "de") -> list[str]:
    (tmp_path / "refs.xml").write_text(content, encoding="utf-8")
    return [seg.text for seg in read_mteval(tmp_path / "refs.xml", language)]


def test_a_document_in_a_comment_is_none(tmp_path):
    content = f"{HEAD}<mteval>\n<!--\n{doc('alt', 'alt')}-->\n{refset(doc('eins', 'zwei'))}</mteval>"
    assert texts(tmp_path, content) == ["eins", "zwei"]
    assert texts(tmp_path, f"<!-- {doc('alt')} -->{doc('eins')}") == ["eins"]


@pytest.mark.parametrize("language", ["German", "", "de"])
def test_two_reference_sets_of_one_language_are_refused_by_name(language, tmp_path):
    content = f"{HEAD}<mteval>{refset(doc('eins', 'zwei'))}{refset(doc('EINS', 'ZWEI'), 'r2', language)}</mteval>"
    with pytest.raises(UserError, match=r"2 reference sets: r1 \(2 segments\), r2 \(2 segments\)"):
        texts(tmp_path, content)


def test_sets_of_two_languages_and_the_source_are_told_apart(tmp_path):
    source = f'<srcset setid="x" srclang="any">{doc("one")}</srcset>'
    content = f"{HEAD}<mteval>{source}{refset(doc('eins'))}{refset(doc('一'), 'r2', 'Chinese')}</mteval>"
    assert texts(tmp_path, content, "de") == ["eins"]
    assert texts(tmp_path, content, "zh") == ["一"]
    assert texts(tmp_path, f"<mteval>{source}</mteval>") == ["one"]


def test_cdata_entities_and_bare_ampersands_are_text(tmp_path):
    content = doc("<![CDATA[R&D <b> & more]]>", "Hund &amp; Katze", "R&D", "a&nbsp;b", "&#228;&#x4e00;", "x &foo; y")
    assert texts(tmp_path, content) == ["R&D <b> & more", "Hund & Katze", "R&D", "a b", "ä一", "x &foo; y"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f'<!DOCTYPE x [<!ENTITY a "{"ha" * 9}">]>{doc("&a;")}', "declares entities"),
        (f'<!DOCTYPE x SYSTEM "y" [<!ENTITY a SYSTEM "file:///etc/passwd">]>{doc("&a;")}', "declares entities"),
        (doc("eins") + doc("zwei"), "document 'talk' twice"),
        (doc("eins", "zwei").replace('id="2"', 'id="3"'), r"line 3: expected <seg id=\"2\"> of talk, got id '3'"),
        (doc("eins").replace(' id="1"', ""), "got id ''"),
        ('<seg id="1">eins</seg>', "not within a <doc"),
        (doc("eins").replace("</seg>", ""), "line 3: is not well-formed XML"),
        ("<doc><seg id='1'>eins</seg></doc>", "without docid"),
    ],
)
def test_what_is_wrong_is_named(content, said, tmp_path):
    with pytest.raises(UserError, match=said):
        texts(tmp_path, content)


def test_ids_may_count_through_the_file_or_through_each_document(tmp_path):
    assert texts(tmp_path, doc("a", "b") + doc("c", name="other")) == ["a", "b", "c"]
    assert texts(tmp_path, doc("a", "b") + doc("c", name="other").replace('id="1"', 'id="3"')) == ["a", "b", "c"]

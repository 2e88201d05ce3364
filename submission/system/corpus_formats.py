"""The formats of training corpora: which function of `train` reads each, and what it needs of the data folder.

This table is the only list: recipe errors, the check of the data folder and `train corpus` follow from it. A new format
is a module with a `read` function (docs/extending/corpus.md shows one) and a line here. Functions are named, not
imported, so that this package needs nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from submission.store.input_files import OR

ACL_6060 = "https://aclanthology.org/2023.iwslt-1.2 (the archive `2/acl_6060`)"
LANGUAGE = "{language}"
"""In the tables of a format: each language that is read of it."""
_ACL_TEXT = "text/txt/ACL.6060.*.en-xx.{language}.txt | text/xml/ACL.6060.*.en-xx.{language}.xml"
_ACL_TABLES = (_ACL_TEXT.replace(LANGUAGE, "en"), "text/xml/ACL.6060.*.en-xx.en.xml", _ACL_TEXT)
_COVOST = "covost_v2.en_{{language}}{0} | en/covost_v2.en_{{language}}{0}"
_ACL_LANGUAGES = ("ar", "de", "fa", "fr", "ja", "nl", "pt", "ru", "tr", "zh")


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusFormat:
    """One layout of a corpus folder and its reader."""

    read: str
    """`module:function`: (folder, target languages, **options) -> candidates."""
    summary: str
    """What the folder is, in one line."""
    tables: tuple[str, ...]
    """Patterns, as in `submission.store.input_files`, of the files beside the audio that are read; each must be there.
    `{language}` stands for each language that is read."""
    audio: str
    """The folder of its audio, or alternatives, in which there must be some; empty where tables hold the audio."""
    get: str
    """How to get it; `{folder}` stands for the folder."""
    languages: tuple[str, ...] = ()
    """Target languages that it is published in; empty where that is not known."""
    spelled: Mapping[str, str] = field(default_factory=dict)
    """Language -> its name in file names, where that is another one; the language itself is tried after it."""
    options: tuple[str, ...] = ()
    """Fields of a recipe's source that the reader takes as keyword arguments; other formats refuse them."""
    is_acl6060: bool = False
    """Whether it is ACL 60/60, the only data of the constrained condition."""

    def files(self, languages: Iterable[str]) -> tuple[str, ...]:
        """Return the tables' patterns for languages, each once."""
        found: dict[str, None] = {}
        for table in self.tables:
            for language in languages if LANGUAGE in table else ("",):
                names = dict.fromkeys((self.spelled.get(language, language), language))
                alternatives = [one.replace(LANGUAGE, name) for one in table.split(OR) for name in names]
                found[OR.join(dict.fromkeys(alternatives))] = None
        return tuple(found)


CORPUS_FORMATS: dict[str, CorpusFormat] = {
    "acl6060": CorpusFormat(
        read="train.corpora.formats.acl6060:read",
        summary="one split of ACL 60/60, in its gold segments",
        tables=_ACL_TABLES,
        audio="segmented_wavs/gold",
        languages=_ACL_LANGUAGES,
        get=f"one split of ACL 60/60, {ACL_6060}",
        is_acl6060=True,
    ),
    "acl6060-full": CorpusFormat(
        read="train.corpora.formats.acl6060_full:read",
        summary="one split of ACL 60/60, as stretches of its full recordings",
        tables=(*_ACL_TABLES, "segmented_wavs/gold/*.wav"),
        audio="full_wavs",
        languages=_ACL_LANGUAGES,
        get=f"one split of ACL 60/60, {ACL_6060}",
        is_acl6060=True,
    ),
    "covost2": CorpusFormat(
        read="train.corpora.formats.covost2:read",
        summary="CoVoST 2, English into other languages, over the clips of Common Voice 4",
        tables=(
            f"{_COVOST.format('.train.tsv')} | {_COVOST.format('.tsv')}",
            f"{_COVOST.format('.train.tsv')} | validated.tsv | en/validated.tsv",  # the English of an unsplit table
        ),
        audio="clips | en/clips",
        get="into {folder}: covost_v2.en_*.tsv of CoVoST 2 (https://github.com/facebookresearch/covost), clips/ and "
        "validated.tsv of Common Voice 4, English (https://commonvoice.mozilla.org)",
        languages=("ar", "ca", "cy", "de", "et", "fa", "id", "ja", "lv", "mn", "sl", "sv", "ta", "tr", "zh"),
        spelled={"zh": "zh-CN", "sv": "sv-SE"},
    ),
    "europarl-st": CorpusFormat(
        read="train.corpora.formats.europarl_st:read",
        summary="Europarl-ST v1.1, English speeches into other languages",
        tables=tuple(
            f"en/{{language}}/train/segments.{name} | v1.1/en/{{language}}/train/segments.{name}"
            for name in ("lst", "en", LANGUAGE)
        ),
        audio="en/audios | v1.1/en/audios",
        languages=("de", "es", "fr", "it", "nl", "pl", "pt", "ro"),
        get="tar -xf v1.1.tar.gz -C {folder}, of Europarl-ST v1.1 (https://mllp.upv.es/europarl-st)",
    ),
    "hub": CorpusFormat(
        read="train.corpora.formats.hub:read",
        summary="a local snapshot of a hub dataset: parquet or arrow files with an audio column",
        tables=(),
        audio="",
        get="hf download --repo-type dataset <owner>/<name> --local-dir {folder}",
        options=("files", "columns", "targets"),
    ),
    "plain": CorpusFormat(
        read="train.corpora.formats.plain:read",
        summary="audio/ and a tab-separated utterances.tsv",
        tables=("utterances.tsv",),
        audio="audio",
        get="the plain layout in {folder}: audio/ and utterances.tsv with the columns id, audio, start, end, "
        "recording, source, de, zh (start and end in samples at 16 kHz, empty for the whole file)",
    ),
}

"""The formats of training corpora: which function of `train` reads each, and what it needs of the data folder.

This table is the only list: recipe errors, the check of the data folder and `train corpus` follow from it. A new format
is a module with a `read` function (docs/extending/corpus.md shows one) and a line here. Functions are named, not
imported, so that this package needs nothing but the standard library.
"""

from __future__ import annotations

from dataclasses import dataclass

ACL_6060 = "https://aclanthology.org/2023.iwslt-1.2 (the archive `2/acl_6060`)"
_GOLD = ("segmented_wavs/gold/*.wav", "text/*/ACL.6060.*.en-xx.en.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusFormat:
    """One layout of a corpus folder and its reader."""

    read: str
    """`module:function`: (folder, target languages, **options) -> candidates."""
    summary: str
    """What the folder is, in one line."""
    holds: tuple[str, ...]
    """Files or patterns that must be there, at any depth."""
    get: str
    """How to get it; `FOLDER` stands for the folder."""
    options: tuple[str, ...] = ()
    """Fields of a recipe's source that the reader takes as keyword arguments; other formats refuse them."""
    is_acl6060: bool = False
    """Whether it is ACL 60/60, the only data of the constrained condition."""


CORPUS_FORMATS: dict[str, CorpusFormat] = {
    "acl6060": CorpusFormat(
        read="train.corpora.formats.acl6060:read",
        summary="one split of ACL 60/60, in its gold segments",
        holds=_GOLD,
        get=f"one split of ACL 60/60, {ACL_6060}",
        is_acl6060=True,
    ),
    "acl6060-full": CorpusFormat(
        read="train.corpora.formats.acl6060_full:read",
        summary="one split of ACL 60/60, as stretches of its full recordings",
        holds=("full_wavs/*.wav", *_GOLD),
        get=f"one split of ACL 60/60, {ACL_6060}",
        is_acl6060=True,
    ),
    "covost2": CorpusFormat(
        read="train.corpora.formats.covost2:read",
        summary="CoVoST 2, English into other languages, over the clips of Common Voice 4",
        holds=("covost_v2.en_*.tsv", "*.mp3"),
        get="CoVoST 2 (https://github.com/facebookresearch/covost): covost_v2.en_*.tsv, with clips/ and validated.tsv "
        "of Common Voice 4, English (https://commonvoice.mozilla.org)",
    ),
    "europarl-st": CorpusFormat(
        read="train.corpora.formats.europarl_st:read",
        summary="Europarl-ST v1.1, English speeches into other languages",
        holds=("segments.lst", "*.m4a"),
        get="tar -xf v1.1.tar.gz -C FOLDER, of Europarl-ST v1.1 (https://mllp.upv.es/europarl-st)",
    ),
    "hub": CorpusFormat(
        read="train.corpora.formats.hub:read",
        summary="a local snapshot of a hub dataset: parquet or arrow files with an audio column",
        holds=(),
        get="hf download --repo-type dataset <owner>/<name> --local-dir FOLDER",
        options=("files", "columns", "targets"),
    ),
    "plain": CorpusFormat(
        read="train.corpora.formats.plain:read",
        summary="audio/ and a tab-separated utterances.tsv",
        holds=("utterances.tsv", "audio/*"),
        get="the plain layout: audio/ and utterances.tsv with the columns id, audio, start, end, recording, source, "
        "de, zh (start and end in samples at 16 kHz, empty for the whole file)",
    ),
}

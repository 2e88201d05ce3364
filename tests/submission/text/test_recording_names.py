"""Names of recordings that are written differently are one recording."""

from __future__ import annotations

from submission.text.recording_names import match_recordings, recording_key


def test_unicode_forms_and_extensions_of_audio_are_one_name():
    assert recording_key("Gespra\u0308ch.flac") == recording_key("Gespr\u00e4ch.wav") == "Gespr\u00e4ch"
    assert recording_key("2022.acl-long.110") == "2022.acl-long.110"
    assert recording_key("day1/talk.mp3") == "day1/talk"


def test_the_nearest_name_is_taken_and_none_where_several_are_as_near():
    here = ["a.wav", "a.flac", "a\u0308.wav", "b.mp3", "c.wav", "c.ogg"]
    found = match_recordings(["a.wav", "\u00e4.wav", "b.wav", "c.mp3", "d.wav"], here)
    assert found == {"a.wav": "a.wav", "\u00e4.wav": "a\u0308.wav", "b.wav": "b.mp3"}

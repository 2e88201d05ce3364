"""Segments survive the way through the YAML file to the sample, and YAML readers agree with ours."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from submission.errors import UserError
from submission.text.segments import SAMPLE_RATE, Segment, parse_segments, read_segments, segment_ids, write_segments

NAMES = st.one_of(
    st.sampled_from(["talk1.wav", "2022.acl-long.110.wav", "1e3.wav", "no", "Gespräch 1.wav", 'a"b.wav', "中文.wav"]),
    st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12),
)
SEGMENTS = st.lists(
    st.builds(
        lambda recording, start, length: Segment(recording=recording, start=start, end=start + length),
        NAMES,
        st.integers(0, 3 * 3600 * SAMPLE_RATE),
        st.integers(1, 30 * SAMPLE_RATE),
    ),
    max_size=6,
)


@given(SEGMENTS)
def test_positions_and_names_survive_to_the_sample(tmp_path_factory, segments):
    path = tmp_path_factory.mktemp("segments") / "segments.yaml"
    write_segments(path, segments)
    assert read_segments(path) == segments
    foreign = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert [s["wav"] for s in foreign] == [s.recording for s in segments]
    assert [round(s["offset"] * SAMPLE_RATE) for s in foreign] == [s.start for s in segments]
    assert [round(s["duration"] * SAMPLE_RATE) for s in foreign] == [s.end - s.start for s in segments]


def test_file_is_the_one_that_shas_writes(tmp_path):
    write_segments(tmp_path / "s.yaml", [Segment(recording="talk1.wav", start=4160, end=224160)])
    assert (tmp_path / "s.yaml").read_text(encoding="utf-8") == (
        "- {duration: 13.75, offset: 0.26, rW: 0, speaker_id: NA, uW: 0, wav: talk1.wav}\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "- {duration: 1.0, offset: 0.26, rW: 0, speaker_id: channel_, uW: 0, wav: talk1.wav}\n",
        "- {duration: 0.0, offset: 0.26, rW: 0, speaker_id: NA, uW: 0, wav: talk1.wav}\n",
        "- {duration: -1.0, offset: 0.26, rW: 0, speaker_id: NA, uW: 0, wav: talk1.wav}\n",
        "- {duration: 1.0, offset: .inf, rW: 0, speaker_id: NA, uW: 0, wav: talk1.wav}\n",
        '- {duration: 1.0, offset: 1.0, rW: 0, speaker_id: NA, uW: 0, wav: "talk\\q.wav"}\n',
        f"- {{duration: {'9' * 400}, offset: 0.0, rW: 0, speaker_id: NA, uW: 0, wav: talk1.wav}}\n",
        "offset: 1\n",
        "",
    ],
)
def test_anything_else_is_refused_by_line(text):
    with pytest.raises(UserError, match="line 1"):
        parse_segments(text or "\n", "segments.yaml")


def test_segments_are_counted_within_their_recording():
    segments = [Segment(recording=name, start=i, end=i + 1) for i, name in enumerate("aba")]
    assert segment_ids(segments) == ["a/0000", "b/0000", "a/0001"]


def test_the_channel_of_a_segment_stands_in_its_speaker(tmp_path):
    segments = [Segment(recording="a.wav", start=0, end=9, channel=1), Segment(recording="a.wav", start=5, end=9)]
    write_segments(tmp_path / "s.yaml", segments)
    assert "speaker_id: channel_1" in (tmp_path / "s.yaml").read_text(encoding="utf-8").split("\n")[0]
    assert read_segments(tmp_path / "s.yaml") == segments

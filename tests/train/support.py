"""Corpora of noise and tones in their published layouts, for tests of reading, sampling and training."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import soundfile

HEADER = "id\taudio\tstart\tend\trecording\tsource\tde\tzh"


def write_wav(path: Path, seconds: float, rate: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(round(seconds * rate), np.float32), rate)


def write_acl(folder: Path, split: str, segments: int) -> None:
    """Write a split of ACL 60/60 with two talks, the first one being the alphabetically later."""
    for number in range(1, segments + 1):
        write_wav(folder / f"segmented_wavs/gold/sent_{number}.wav", 1 + number / 10)
    (folder / "text/txt").mkdir(parents=True)
    (folder / "text/xml").mkdir(parents=True)
    for language in ("en", "de", "zh"):
        lines = [f"{language} R&D {n}" for n in range(1, segments + 1)]
        name = f"ACL.6060.{split}.en-xx.{language}"
        (folder / f"text/txt/{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        segs = [f'<seg id="{n}">{line}</seg>\n' for n, line in enumerate(lines, 1)]
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<mteval>\n<srcset setid="x" srclang="English">\n'
            '<doc docid="2022.acl-long.268" genre="presentations">\n<talkid>268</talkid>\n<abstract>a</abstract>\n'
            f'{segs[0]}</doc>\n<doc docid="2022.acl-long.110" genre="presentations">\n{"".join(segs[1:])}</doc>\n'
            "</srcset>\n</mteval>\n"
        )
        (folder / f"text/xml/{name}.xml").write_text(xml, encoding="utf-8")


def write_plain(folder: Path, rows: list[str], header: str = HEADER) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "utterances.tsv").write_text("".join(f"{line}\n" for line in (header, *rows)), encoding="utf-8")


def row(number: int, **changes: str) -> str:
    cells = {
        "id": f"u{number:02d}",
        "audio": f"u{number:02d}.wav",
        "start": "",
        "end": "",
        "recording": "talk1.wav",
        "source": f"sentence {number}",
        "de": f"Satz {number}",
        "zh": f"句子{number}",
    }
    return "\t".join((cells | changes).values())


def tone(seconds: float, rate: int) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_audio(path: Path, seconds: float, rate: int) -> None:
    """Write a tone in the format that the name's suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".m4a":
        soundfile.write(path, tone(seconds, rate), rate)
        return
    samples = tone(seconds, rate)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate)
        stream.layout = "mono"
        for start in range(0, len(samples), 1024):
            piece = np.ascontiguousarray(samples[None, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_lines(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())

"""Acoustics do what they state: measured signal-to-noise ratios, band energies, places of pieces."""

from __future__ import annotations

import numpy as np
import pytest

from submission.miniature import acoustics


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * 16000)) / 16000)).astype(np.float32)


def band_energy(wave: np.ndarray, low: float, high: float) -> float:
    spectrum = np.abs(np.fft.rfft(wave)) ** 2
    hertz = np.fft.rfftfreq(len(wave), 1 / 16000)
    return float(spectrum[(hertz >= low) & (hertz < high)].sum())


@pytest.mark.parametrize("colour", ["white", "pink"])
@pytest.mark.parametrize("snr_db", [-3.0, 0.0, 12.5])
def test_noise_is_added_at_the_stated_ratio(colour, snr_db: float) -> None:
    speech = tone(440)
    added = acoustics.add_noise(speech, snr_db, rng(), colour) - speech
    measured = 20 * np.log10(acoustics.rms(speech) / acoustics.rms(added))
    assert measured == pytest.approx(snr_db, abs=0.05)


def test_pink_noise_has_equal_power_in_each_octave_and_white_doubles() -> None:
    pink, white = (acoustics.noise(160000, colour, rng()) for colour in ("pink", "white"))
    assert band_energy(pink, 2000, 4000) / band_energy(pink, 250, 500) == pytest.approx(1.0, rel=0.2)
    assert band_energy(white, 2000, 4000) / band_energy(white, 250, 500) == pytest.approx(8.0, rel=0.2)


def test_telephone_keeps_its_band_and_loses_the_rest() -> None:
    wave = (0.1 * acoustics.noise(32000, "white", rng())).astype(np.float32)
    line = acoustics.telephone_band(wave)
    assert len(line) == len(wave)
    assert band_energy(line, 500, 3200) / band_energy(wave, 500, 3200) == pytest.approx(1.0, rel=0.15)
    assert band_energy(line, 0, 200) < 0.02 * band_energy(wave, 0, 200)
    assert band_energy(line, 4100, 8000) < 0.01 * band_energy(wave, 4100, 8000)


@pytest.mark.parametrize("samples", [1, 7, 15999, 16001])
def test_telephone_keeps_any_length(samples: int) -> None:
    assert len(acoustics.telephone_band(np.ones(samples, np.float32) * 0.1)) == samples


def test_mu_law_error_is_small_beside_loud_and_soft_signals() -> None:
    for scale in (1.0, 0.01):
        wave = tone(300) * scale
        assert acoustics.rms(acoustics.mu_law(wave) - wave) < 0.05 * acoustics.rms(wave)


def test_concatenate_says_where_each_piece_lies() -> None:
    pieces = [tone(200, 0.3), tone(300, 0.2)]
    wave, places = acoustics.concatenate(pieces, [0.1, 0.25, 0.05])
    assert len(wave) == round(0.9 * 16000)
    for piece, (start, end) in zip(pieces, places, strict=True):
        np.testing.assert_array_equal(wave[start:end], piece)
    assert not wave[: places[0][0]].any()
    with pytest.raises(ValueError, match="need 3 pauses"):
        acoustics.concatenate(pieces, [0.1])


def test_babble_and_music_fill_any_length_at_unit_level_and_follow_their_seed() -> None:
    talkers = [tone(150, 0.7), tone(220, 0.5)]
    for make in (
        lambda seed: acoustics.babble(talkers, 50001, rng(seed)),
        lambda seed: acoustics.music(50001, rng(seed)),
    ):
        wave = make(3)
        assert wave.shape == (50001,)
        assert wave.dtype == np.float32
        assert acoustics.rms(wave) == pytest.approx(1.0, rel=1e-3)
        np.testing.assert_array_equal(wave, make(3))
        assert not np.array_equal(wave, make(4))


def test_mix_of_silent_speech_is_silence_and_lengths_must_agree() -> None:
    quiet = acoustics.silence(0.1)
    assert not acoustics.add_noise(quiet, 10, rng()).any()
    with pytest.raises(ValueError, match="background has 5 samples"):
        acoustics.mix(quiet, np.ones(5, np.float32), 10)


def test_limit_only_ever_lowers() -> None:
    assert np.abs(acoustics.limit(tone(100) * 9)).max() == pytest.approx(0.98)
    np.testing.assert_array_equal(acoustics.limit(tone(100)), tone(100))


def test_gain_is_in_decibels() -> None:
    assert acoustics.rms(acoustics.gain(tone(100), -6.0206)) == pytest.approx(acoustics.rms(tone(100)) / 2, rel=1e-4)

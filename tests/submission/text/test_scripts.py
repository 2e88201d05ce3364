"""The script that a line is written in, and whether its language is written so."""

from __future__ import annotations

import pytest

from submission.text.scripts import foreign_script, letters_by_script


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Das ist ein Test mit 42 Zeichen.", "de", ""),
        ("Straße, Größe, ﬁn", "de", ""),
        ("这是一个测试。", "de", "Han"),
        ("你好", "de", "Han"),
        ("Das Zeichen 中 steht für die Mitte.", "de", ""),
        ("Это проверка.", "de", "Cyrillic"),
        ("这是一个测试。", "zh", ""),
        ("我们用 BERT 和 GPT-2 训练模型。", "zh", ""),
        ("OK!", "zh", ""),
        ("This is a test.", "zh", "Latin"),
        ("Ｔｈｉｓ is 是", "zh", "Latin"),
        ("これはテストです。", "zh", "Hiragana"),
        ("これはテストです。", "ja", ""),
        ("시험입니다", "ja", "Hangul"),
        ("42, 7 %.", "zh", ""),
        ("", "de", ""),
        ("Это проверка.", "tlh", ""),
    ],
)
def test_a_line_is_of_another_script_where_nearly_all_of_its_letters_are(text, language, expected):
    assert foreign_script(letters_by_script(text), language) == expected

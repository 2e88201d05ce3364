"""Likelihood of a text under profiles of character trigrams, for languages that share a script.

A profile is counted when it is needed, from a sample written for this purpose: everyday and technical sentences, the
same in every language. That is enough to distinguish whole outputs, not lines (docs/log.md). The campaigns translate
from English into German and Chinese, which its script tells; a target without a profile is named in `verify`'s head.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

MOST_CHARACTERS = 20_000
"""Of a text, so many are looked at."""
FEWEST_TRIGRAMS = 150
"""A shorter text is judged by nothing."""
LEAST_MARGIN = 0.15
"""Nats per trigram by which another language must be likelier."""
_TRIGRAMS = 30**3
"""Order of magnitude of the trigrams that a language could have; each is counted once beforehand (Laplace)."""

SAMPLES = {
    "en": """
Good morning, and thank you all for coming here today. I would like to talk about how we can make large models
smaller. The first question is what happens when the memory of a machine is not enough for all of the weights. We have
seen that many of them can be stored with fewer bits, and that the quality of the translation hardly changes. This is
not true for every layer: some of them are much more sensitive than others. Please look at the table on the next
slide. On the left you can see the size of the model, and on the right the score that it reaches. When we train it
again after that, most of what was lost comes back. My sister lives in a small house near the river, and her children
walk to school every day. Yesterday we bought bread, cheese and apples at the market, because there was nothing left
in the kitchen. Could you tell me where the station is? The train leaves at half past seven, so we should hurry. He
said that he had never heard of it before, but I do not believe him. They will call you as soon as the doctor has
time. What do you think about the weather this week? It should get warmer on Thursday. If the company does not answer
by Friday, we are going to write another letter. She has been working on this book for three years and wants to finish
it before the summer. The results show that both methods work, although one of them takes twice as long. There are
several reasons for this, which I will explain in a moment. In our experience it is better to ask first. Nobody knew
which of the windows had been open during the night. The minister said that the government would pay for the new
hospital. Let us start with an example: imagine that you speak to someone who does not understand your language. You
may have to wait a little longer than usual, but we will help you with that.
""",
    "de": """
Guten Morgen, und vielen Dank, dass Sie heute alle gekommen sind. Ich möchte darüber sprechen, wie wir große Modelle
kleiner machen können. Die erste Frage ist, was geschieht, wenn der Speicher einer Maschine nicht für alle Gewichte
ausreicht. Wir haben gesehen, dass sich viele von ihnen mit weniger Bits speichern lassen und dass sich die Qualität
der Übersetzung kaum ändert. Das gilt nicht für jede Schicht: Einige sind viel empfindlicher als andere. Bitte sehen
Sie sich die Tabelle auf der nächsten Folie an. Links steht die Größe des Modells und rechts der Wert, den es
erreicht. Wenn wir es danach noch einmal trainieren, kommt das meiste von dem zurück, was verloren war. Meine
Schwester wohnt in einem kleinen Haus am Fluss, und ihre Kinder gehen jeden Tag zu Fuß zur Schule. Gestern haben wir
auf dem Markt Brot, Käse und Äpfel gekauft, weil in der Küche nichts mehr war. Können Sie mir sagen, wo der Bahnhof
ist? Der Zug fährt um halb acht, also sollten wir uns beeilen. Er sagte, er habe noch nie davon gehört, aber ich
glaube ihm nicht. Man wird Sie anrufen, sobald der Arzt Zeit hat. Was denken Sie über das Wetter in dieser Woche? Am
Donnerstag soll es wärmer werden. Wenn die Firma bis Freitag nicht antwortet, schreiben wir noch einen Brief. Sie
arbeitet seit drei Jahren an diesem Buch und will es vor dem Sommer beenden. Die Ergebnisse zeigen, dass beide
Verfahren funktionieren, obwohl eines davon doppelt so lange dauert. Dafür gibt es mehrere Gründe, die ich gleich
erklären werde. Nach unserer Erfahrung ist es besser, zuerst zu fragen. Niemand wusste, welches der Fenster in der
Nacht offen gewesen war. Der Minister sagte, die Regierung werde das neue Krankenhaus bezahlen. Beginnen wir mit einem
Beispiel: Stellen Sie sich vor, Sie sprechen mit jemandem, der Ihre Sprache nicht versteht. Vielleicht müssen Sie
etwas länger warten als sonst, aber wir helfen Ihnen dabei.
""",
}
"""Language -> the text that its profile is counted from."""


def reads_like(text: str, language: str, others: Iterable[str]) -> str:
    """Return the language of `others` that a text reads like rather than like `language`; "" where there is none.

    Languages without a profile, and texts that are too short, are judged by nothing.
    """
    trigrams = _trigrams(text[:MOST_CHARACTERS])
    if language not in SAMPLES or trigrams.total() < FEWEST_TRIGRAMS:
        return ""
    own = _log_likelihood(trigrams, language) + LEAST_MARGIN * trigrams.total()
    likelier = {other: _log_likelihood(trigrams, other) for other in set(others) & SAMPLES.keys() - {language}}
    best = max(sorted(likelier), key=lambda other: likelier[other], default="")
    return best if best and likelier[best] > own else ""


def _trigrams(text: str) -> Counter[str]:
    """Return the trigrams of the words of a text, each word with a blank on both sides."""
    letters = "".join(c if c.isalpha() else " " for c in text.lower())
    words = f" {' '.join(letters.split())} "
    return Counter(words[place : place + 3] for place in range(len(words) - 2))


@lru_cache(maxsize=len(SAMPLES))
def _profile(language: str) -> Counter[str]:
    return _trigrams(SAMPLES[language])


def _log_likelihood(trigrams: Counter[str], language: str) -> float:
    profile = _profile(language)
    total = profile.total() + _TRIGRAMS
    return sum(count * math.log((profile[trigram] + 1) / total) for trigram, count in trigrams.items())

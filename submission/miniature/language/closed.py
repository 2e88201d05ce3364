"""Closed classes of the miniature's language: pronouns, names, places with a name, numbers, times.

English numbers up to twelve are words, larger ones digits, as people write them; German does the same and Chinese
writes numerals up to twelve.
"""

from __future__ import annotations

from functools import cache

from submission.miniature.language.words import Adverb, City, Person, Time

_PEOPLE = """
Anna Anna 安娜 f
Peter Peter 彼得 m
Maria Maria 玛丽亚 f
Thomas Thomas 托马斯 m
Lisa Lisa 丽莎 f
David David 大卫 m
Sophie Sophie 索菲 f
Robert Robert 罗伯特 m
"""
_SURNAMES = {"Miller": "米勒", "Weber": "韦伯", "Wilson": "威尔逊", "Lopez": "洛佩斯"}

CITIES = tuple(
    City(en=en, de=de, zh=zh)
    for en, de, zh in (
        ("Berlin", "Berlin", "柏林"),
        ("London", "London", "伦敦"),
        ("Paris", "Paris", "巴黎"),
        ("Rome", "Rom", "罗马"),
        ("Vienna", "Wien", "维也纳"),
        ("Munich", "München", "慕尼黑"),
        ("Hamburg", "Hamburg", "汉堡"),
        ("Spain", "Spanien", "西班牙"),
        ("China", "China", "中国"),
    )
)

VEHICLES = {"train": "坐火车", "bus": "坐公共汽车", "car": "开车"}

ALWAYS = (
    Adverb(en="always", de="immer", zh="总是"),
    Adverb(en="often", de="oft", zh="经常"),
    Adverb(en="sometimes", de="manchmal", zh="有时候"),
    Adverb(en="never", de="nie", zh="从来不"),
)
ALREADY = Adverb(en="already", de="schon", zh="已经")

# fmt: off
_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_GERMAN = (
    "null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf",
)
_CHINESE = ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "十一", "十二")
# fmt: on


def english_number(value: int) -> str:
    """Return how the number is written in English text."""
    return _UNITS[value] if value <= 12 else str(value)


def german_number(value: int) -> str:
    """Return how the number is written in German text."""
    return _GERMAN[value] if value <= 12 else str(value)


def chinese_number(value: int, *, counting: bool = True) -> str:
    """Return how the number is written in Chinese text; two is 两 when something is counted."""
    if value == 2 and counting:
        return "两"
    return _CHINESE[value] if value <= 12 else str(value)


def say_number(value: int) -> str:
    """Return the number below a million as it is spoken in English."""
    if value < 20:
        return _UNITS[value]
    if value < 100:
        tens, units = divmod(value, 10)
        return " ".join([_TENS[tens - 2], *([_UNITS[units]] if units else [])])
    for size, name in ((1000, "thousand"), (100, "hundred")):
        if value >= size:
            count, rest = divmod(value, size)
            return " ".join([say_number(count), name, *([say_number(rest)] if rest else [])])
    raise AssertionError(value)


def say_digits(digits: str) -> str:
    """Return a string of digits spoken one by one."""
    return " ".join(_UNITS[int(digit)] for digit in digits)


def say_year(year: int) -> str:
    """Return a year as it is spoken (nineteen eighty four, two thousand five, twenty twenty one)."""
    if 2000 <= year < 2010:
        return say_number(year)
    century, rest = divmod(year, 100)
    return f"{say_number(century)} {say_number(rest)}" if rest >= 10 else f"{say_number(century)} oh {say_number(rest)}"


@cache
def people() -> tuple[Person, ...]:
    """Return those with a first name."""
    rows = (line.split(" ") for line in _PEOPLE.strip().splitlines())
    return tuple(Person(en=en, de=de, de_oblique=de, zh=zh, gender=gender) for en, de, zh, gender in rows)


@cache
def titled() -> tuple[Person, ...]:
    """Return those with a title and a surname."""
    found = []
    for name, zh in _SURNAMES.items():
        found.append(
            Person(en=f"Mr. {name}", de=f"Herr {name}", de_oblique=f"Herrn {name}", zh=f"{zh}先生", gender="m")
        )
        found.append(
            Person(en=f"Mrs. {name}", de=f"Frau {name}", de_oblique=f"Frau {name}", zh=f"{zh}女士", gender="f")
        )
    return tuple(found)


DAYS = (
    ("Monday", "Montag", "星期一"),
    ("Tuesday", "Dienstag", "星期二"),
    ("Wednesday", "Mittwoch", "星期三"),
    ("Thursday", "Donnerstag", "星期四"),
    ("Friday", "Freitag", "星期五"),
    ("Saturday", "Samstag", "星期六"),
    ("Sunday", "Sonntag", "星期日"),
)


@cache
def years() -> tuple[Time, ...]:
    """Return years as adverbials of the past."""
    return tuple(Time(en=f"in {year}", de=f"im Jahr {year}", zh=f"{year}年", when="past") for year in range(1970, 2025))


_MOMENTS = """
yesterday | gestern | 昨天 | past
last night | gestern Abend | 昨天晚上 | past
last week | letzte Woche | 上个星期 | past
last year | letztes Jahr | 去年 | past
tomorrow | morgen | 明天 | future
tomorrow morning | morgen früh | 明天早上 | future
next week | nächste Woche | 下个星期 | future
next year | nächstes Jahr | 明年 | future
every day | jeden Tag | 每天 | habit
every morning | jeden Morgen | 每天早上 | habit
every evening | jeden Abend | 每天晚上 | habit
now | jetzt | 现在 | now
today | heute | 今天 | any
"""


@cache
def moments(*, clocks: bool) -> tuple[Time, ...]:
    """Return the ordinary times, those with the hour only where `clocks` says so."""
    plain = [Time(en=en, de=de, zh=zh, when=when) for en, de, zh, when in _cells(_MOMENTS)]
    for day, tag, zh in DAYS:
        plain.append(Time(en=f"on {day}", de=f"am {tag}", zh=zh, when="any"))
        plain.append(Time(en=f"on {day} evening", de=f"am {tag}abend", zh=f"{zh}晚上", when="any"))
        plain.append(Time(en=f"last {day}", de=f"letzten {tag}", zh=f"上{zh}", when="past"))
        plain.append(Time(en=f"next {day}", de=f"nächsten {tag}", zh=f"下{zh}", when="future"))
    if not clocks:
        return tuple(plain)
    timed = [
        Time(en=f"{day.en} {hour.en}", de=f"{day.de} {hour.de}", zh=day.zh + hour.zh, when=day.when, clock=True)
        for day in plain
        if day.en in ("yesterday", "tomorrow", "today", "every day")
        or day.en.startswith("on ")
        and "evening" not in day.en
        for hour in hours()
    ]
    return tuple(timed)


def _cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


@cache
def hours() -> tuple[Time, ...]:
    """Return the times of day, by the full, half and quarter hour and by ten and twenty minutes."""
    found = []
    for hour in range(1, 13):
        following = hour % 12 + 1
        en, de, zh = _UNITS[hour], _GERMAN[hour], chinese_number(hour)
        next_de = _GERMAN[following]
        next_en, oclock = _UNITS[following], "ein" if hour == 1 else de
        for english, german, chinese in (
            (f"at {en} o'clock", f"um {oclock} Uhr", f"{zh}点"),
            (f"at half past {en}", f"um halb {next_de}", f"{zh}点半"),
            (f"at quarter past {en}", f"um Viertel nach {de}", f"{zh}点一刻"),
            (f"at quarter to {next_en}", f"um Viertel vor {next_de}", f"{zh}点三刻"),
            (f"at ten past {en}", f"um zehn nach {de}", f"{zh}点十分"),
            (f"at twenty to {next_en}", f"um zwanzig vor {next_de}", f"{zh}点四十分"),
        ):
            found.append(Time(en=english, de=german, zh=chinese, when="any", clock=True))
    return tuple(found)

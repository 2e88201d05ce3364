"""Fixed expressions with open places: what people say on the telephone, at the station, in a talk.

Each line: domains | English | German | Chinese | what fills the places, as `place=kind` (see `fillers.filler`).
"""

# ruff: noqa: E501 - a formula is one line of its table
from __future__ import annotations

from dataclasses import dataclass
from functools import cache

_FORMULAS = """
p | This is {name}. | Hier ist {name}. | 我是{name}。 | name=fullname
p | Hello, my name is {name}. | Hallo, mein Name ist {name}. | 您好，我的名字是{name}。 | name=fullname
p | My phone number is {number}. | Meine Telefonnummer ist {number}. | 我的电话号码是{number}。 | number=phone
p | Please call me at {number}. | Bitte rufen Sie mich unter {number} an. | 请打电话到{number}。 | number=phone
p | May I speak to {name:acc}, please? | Kann ich bitte mit {name:dat} sprechen? | 我可以和{name}通话吗？ | name=titled
p | I am calling about {what}. | Ich rufe wegen {what:gen} an. | 我打电话是想问{what}的事。 | what=np:date,deal,payable
p | Can we meet {time}? | Können wir uns {time} treffen? | 我们可以{time}见面吗？ | time=clock
p | I am free {time}. | Ich habe {time} Zeit. | 我{time}有空。 | time=clock
p | The bill comes to {count} euros. | Die Rechnung beträgt {count} Euro. | 账单一共是{count}欧元。 | count=price
pt | Your room number is {count}. | Ihre Zimmernummer ist {count}. | 您的房间号是{count}。 | count=price
pt | {what} costs {count} euros. | {what} kostet {count} Euro. | {what}要{count}欧元。 | what=np:goods,fare,room; count=price
dt | How much does {what} cost? | Wie viel kostet {what}? | {what}多少钱？ | what=np:goods,fare,dish,room
t | How do I get {where:goal}? | Wie komme ich {where:goal}? | 我怎么去{where:goal}？ | where=place
t | The train to {city} departs {time}. | Der Zug nach {city} fährt {time} ab. | 去{city}的火车{time}出发。 | city=city; time=hour
t | The train from {city} arrives {time}. | Der Zug aus {city} kommt {time} an. | 从{city}来的火车{time}到。 | city=city; time=hour
t | The bus from {city} is {count} minutes late. | Der Bus aus {city} hat {count} Minuten Verspätung. | 从{city}来的公共汽车晚点{count}分钟。 | city=city; count=number
d | {who} is {count} years old. | {who} ist {count} Jahre alt. | {who}{count}岁。 | who=name; count=number
d | It is {clock}. | Es ist {clock}. | 现在{clock}。 | clock=time
n | {count} people live in {city}. | {count} Menschen wohnen in {city}. | {count}个人住在{city}。 | count=large; city=city
n | {count} people died in {what:acc}. | Bei {what:dat} sind {count} Menschen gestorben. | {count}个人在{what}中死亡。 | count=number; what=thisstorm
n | The company has {count} workers in {city}. | Die Firma hat {count} Arbeiter in {city}. | 公司在{city}有{count}个工人。 | count=large; city=city
n | {count} percent of the people support {what}. | {count} Prozent der Menschen unterstützen {what:acc}. | {count}%的人支持{what}。 | count=digits; what=np:policy
v | Do you know where {what} is? | Wissen Sie, wo {what} ist? | 您知道{what}在哪里吗？ | what=np:small,paper,animal,secretive,person
v | Who told you about {what}? | Wer hat Ihnen {what:von} erzählt? | 谁告诉了您{what}的事？ | what=np:secretive,text
v | I saw {who:acc} with {name}. | Ich habe {who:acc} mit {name} gesehen. | 我看见{who}和{name}在一起。 | who=np:person; name=name
v | Is this {what}? | Ist das {what}? | 这是{what}吗？ | what=np:small,paper,animal,dear
k | The score rises from {low} to {high} points. | Der Wert steigt von {low} auf {high} Punkte. | 分数从{low}分上升到{high}分。 | low=digits; high=digits
k | The error rate falls from {high} to {low} percent. | Die Fehlerrate sinkt von {high} auf {low} Prozent. | 错误率从{high}%下降到{low}%。 | high=digits; low=digits
k | We trained {what} for {count} hours. | Wir haben {what:acc} {count} Stunden lang trainiert. | 我们把{what}训练了{count}个小时。 | what=np:learner; count=number
k | Our model has {count} layers and {size} million parameters. | Unser Modell hat {count} Schichten und {size} Millionen Parameter. | 我们的模型有{count}个网络层和{size}个参数。 | count=number; size=millions
k | We use {count} hours of recordings in {number} languages. | Wir verwenden {count} Stunden Aufnahmen in {number} Sprachen. | 我们使用{number}种语言的{count}个小时的录音。 | count=large; number=number
k | Figure {count} shows {what}. | Abbildung {count} zeigt {what:acc}. | 图{count}展示了{what}。 | count=figure; what=np:finding,learner,technique,property
k | This talk is about {what}. | In diesem Vortrag geht es um {what:acc}. | 这个报告是关于{what}的。 | what=np:challenge,technique,property,learner,data
k | What is {what}? | Was ist {what}? | {what}是什么？ | what=np:finding,property,challenge
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A formula before its places are filled."""

    domains: str
    en: str
    de: str
    zh: str
    places: tuple[tuple[str, str], ...]


@cache
def patterns() -> tuple[Pattern, ...]:
    """Return the formulas in the order of the table."""
    found = []
    for line in _FORMULAS.strip().splitlines():
        domains, en, de, zh, places = (cell.strip() for cell in line.split("|"))
        pairs = tuple((name, kind) for name, _, kind in (p.strip().partition("=") for p in places.split(";")))
        found.append(Pattern(domains=domains, en=en, de=de, zh=zh, places=pairs))
    return tuple(found)

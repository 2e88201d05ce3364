"""Nouns and adjectives of the miniature's language.

Columns of the noun table: English singular / plural (a dash: never plural); German gender, singular / plural
(gender with `w`: weak declension); Chinese with its measure word; tags; domains (d daily, t travel, p telephone,
n news, v television, k talks).
"""

# ruff: noqa: E501 - a lexeme is one line of its table
from __future__ import annotations

from functools import cache

from submission.miniature.language.words import Adjective, Noun, Setting

_NOUNS = """
man / men | m Mann / Männer | 男人 个 | person | dv
woman / women | f Frau / Frauen | 女人 个 | person | dv
child / children | n Kind / Kinder | 孩子 个 | person | dtv
doctor / doctors | m Arzt / Ärzte | 医生 位 | person | dpn
teacher / teachers | m Lehrer / Lehrer | 老师 位 | person | dnp
student / students | mw Student / Studenten | 学生 个 | person | dtk
friend / friends | m Freund / Freunde | 朋友 个 | person kin | dtv
brother / - | m Bruder / Brüder | 哥哥 个 | person kin | dtpv
sister / - | f Schwester / Schwestern | 姐姐 个 | person kin | dtpv
mother / - | f Mutter / Mütter | 妈妈 个 | person kin | dp
father / - | m Vater / Väter | 爸爸 个 | person kin | dv
guest / guests | m Gast / Gäste | 客人 位 | person | tp
tourist / tourists | mw Tourist / Touristen | 游客 个 | person | tn
boss / - | m Chef / Chefs | 老板 个 | person | p
customer / customers | mw Kunde / Kunden | 客户 位 | person | pn
minister / ministers | m Minister / Minister | 部长 位 | person official | n
mayor / - | m Bürgermeister / Bürgermeister | 市长 位 | person official | n
worker / workers | m Arbeiter / Arbeiter | 工人 个 | person | n
detective / - | m Detektiv / Detektive | 侦探 个 | person | v
king / - | m König / Könige | 国王 位 | person | v
thief / thieves | m Dieb / Diebe | 小偷 个 | person | v
author / authors | m Autor / Autoren | 作者 位 | person scholar | k
researcher / researchers | m Forscher / Forscher | 研究者 位 | person scholar | k
book / books | n Buch / Bücher | 书 本 | thing goods text | d
letter / letters | m Brief / Briefe | 信 封 | text post secretive | dv
car / cars | n Auto / Autos | 汽车 辆 | thing goods vehicle dear | dnv
house / houses | n Haus / Häuser | 房子 栋 | building dear | dnv
table / - | m Tisch / Tische | 桌子 张 | thing goods furniture | dt
window / windows | n Fenster / Fenster | 窗户 扇 | opening thing | dtv
door / - | f Tür / Türen | 门 扇 | opening thing | dv
key / keys | m Schlüssel / Schlüssel | 钥匙 把 | thing small | dtv
bag / bags | f Tasche / Taschen | 包 个 | thing goods small | dtv
dog / - | m Hund / Hunde | 狗 只 | animal | dv
cake / - | m Kuchen / Kuchen | 蛋糕 个 | food dish thing | dt
cup of coffee / cups of coffee | f Tasse Kaffee / Tassen Kaffee | 咖啡 杯 | drink | dt
cup of tea / cups of tea | f Tasse Tee / Tassen Tee | 茶 杯 | drink | dt
ticket / tickets | f Fahrkarte / Fahrkarten | 车票 张 | fare paper | tp
train / trains | m Zug / Züge | 火车 列 | vehicle transport | t
bus / - | m Bus / Busse | 公共汽车 辆 | vehicle transport | dt
suitcase / - | m Koffer / Koffer | 行李箱 个 | thing goods small | t
photo / photos | n Foto / Fotos | 照片 张 | picture paper | tv
room / rooms | n Zimmer / Zimmer | 房间 个 | lodging | tp
kitchen / - | f Küche / Küchen | 厨房 个 | indoor | dv
garden / - | m Garten / Gärten | 花园 个 | outdoor | dv
office / - | n Büro / Büros | 办公室 个 | indoor work | pd
school / - | f Schule / Schulen | 学校 所 | building public work | dn
hospital / - | n Krankenhaus / Krankenhäuser | 医院 家 | building public work | dpn
station / - | m Bahnhof / Bahnhöfe | 车站 个 | stop sight | dt
airport / - | m Flughafen / Flughäfen | 机场 个 | stop public | tn
hotel / - | n Hotel / Hotels | 酒店 家 | lodging building sight | tpv
restaurant / - | n Restaurant / Restaurants | 餐厅 家 | shop sight | tp
bridge / - | f Brücke / Brücken | 桥 座 | sight public | tn
castle / - | n Schloss / Schlösser | 城堡 座 | sight building | tv
park / - | m Park / Parks | 公园 个 | outdoor sight | dt
city / - | f Stadt / Städte | 城市 座 | town sight | tn
appointment / - | m Termin / Termine | 预约 个 | date | p
meeting / meetings | f Besprechung / Besprechungen | 会议 个 | date event | pn
phone number / - | f Telefonnummer / Telefonnummern | 电话号码 个 | detail | p
email / emails | f E-Mail / E-Mails | 邮件 封 | text post | p
bill / - | f Rechnung / Rechnungen | 账单 张 | text payable | pt
contract / - | m Vertrag / Verträge | 合同 份 | text deal | pn
government / - | f Regierung / Regierungen | 政府 个 | org | n
company / - | f Firma / Firmen | 公司 家 | org | pn
bank / - | f Bank / Banken | 银行 家 | org | n
law / laws | n Gesetz / Gesetze | 法律 项 | policy | n
price / prices | m Preis / Preise | 价格 个 | amount | n
election / - | f Wahl / Wahlen | 选举 次 | contest event | n
factory / - | f Fabrik / Fabriken | 工厂 家 | public building work | n
storm / - | m Sturm / Stürme | 暴风雨 场 | disaster | n
plan / - | m Plan / Pläne | 计划 个 | policy secretive | nv
film / films | m Film / Filme | 电影 部 | show event | v
story / - | f Geschichte / Geschichten | 故事 个 | tale | v
secret / - | n Geheimnis / Geheimnisse | 秘密 个 | secretive | v
ring / rings | m Ring / Ringe | 戒指 枚 | thing small dear | v
model / models | n Modell / Modelle | 模型 个 | system learner | k
method / methods | f Methode / Methoden | 方法 种 | technique | k
result / results | n Ergebnis / Ergebnisse | 结果 个 | finding | k
experiment / - | n Experiment / Experimente | 实验 个 | study | k
dataset / datasets | m Datensatz / Datensätze | 数据集 个 | data | k
language / languages | f Sprache / Sprachen | 语言 种 | tongue | k
sentence / sentences | m Satz / Sätze | 句子 个 | unit | k
word / words | n Wort / Wörter | 词 个 | unit | k
system / systems | n System / Systeme | 系统 个 | system | k
paper / papers | m Artikel / Artikel | 论文 篇 | article | k
question / questions | f Frage / Fragen | 问题 个 | query | k
problem / problems | n Problem / Probleme | 难题 个 | challenge | k
error / - | m Fehler / Fehler | 错误 个 | defect | k
translation / - | f Übersetzung / Übersetzungen | 译文 篇 | output | k
encoder / - | m Encoder / Encoder | 编码器 个 | learner part | k
layer / layers | f Schicht / Schichten | 网络层 个 | part component | k
parameter / parameters | m Parameter / Parameter | 参数 个 | component | k
recording / recordings | f Aufnahme / Aufnahmen | 录音 段 | data | k
quality / - | f Qualität / Qualitäten | 质量 种 | property | k
"""

# English noun | being there: English, German (dative) | going there: German | Chinese localiser
_PLACES = """
kitchen | in in | in acc | 里
garden | in in | in acc | 里
office | in in | in acc | 里
school | at in | in acc | 里
hospital | at in | in acc | 里
station | at an | zu dat |
airport | at an | zu dat |
hotel | at in | in acc | 里
restaurant | in in | in acc | 里
park | in in | in acc | 里
bridge | on auf | zu dat | 上
castle | in in | in acc | 里
city | in in | in acc | 里
factory | in in | in acc | 里
house | in in | in acc | 里
room | in in | in acc | 里
table | on auf | zu dat | 上
bag | in in | in acc | 里
suitcase | in in | in acc | 里
paper | in in | in acc | 里
"""

# English, comparative | German, stem, comparative | Chinese before a noun, predicate | what it is said of | domains
_ADJECTIVES = """
new - | neu neu - | 新 新 | thing vehicle building lodging sight public shop indoor show tune policy text system learner technique data challenge | dtpnvk
old - | alt alt - | 旧 旧 | thing vehicle building show bridge system technique data lodging | dtnvk
big bigger | groß groß größer | 大 大 | thing vehicle building lodging outdoor sight indoor public company bank learner data challenge town | dtnvk
small smaller | klein klein kleiner | 小 小 | thing vehicle building lodging outdoor sight indoor learner data challenge town defect | dtnvk
beautiful - | schön schön - | 美丽的 美丽 | outdoor sight town picture tune | dtv
cheap cheaper | billig billig billiger | 便宜的 便宜 | goods lodging dear | dt
expensive - | teuer teur - | 昂贵的 贵 | goods lodging dear | dtv
red - | rot rot - | 红色的 - | goods vehicle opening ring | dtv
good better | gut gut besser | 好 好 | show dish system learner technique finding output tale article | dtvk
long - | lang lang - | 很长的 长 | email letter contract show tale unit article recording | dpvk
short - | kurz kurz - | 短 短 | email letter tale unit article | dpvk
fast faster | schnell schnell schneller | 快速的 快 | transport system learner technique | tk
hot - | heiß heiß - | 热 热 | dish | dt
cold - | kalt kalt - | 冷 冷 | dish | dt
quiet - | ruhig ruhig - | 安静的 安静 | lodging shop outdoor town | dtp
young - | jung jung - | 年轻的 年轻 | man woman doctor teacher student tourist worker minister thief king | dtnv
famous - | berühmt berühmt - | 著名的 有名 | sight show | tv
important - | wichtig wichtig - | 重要的 重要 | text date policy contest challenge finding query | pnk
tired = | müde - - | - 累 | person | dtpv
happy = | glücklich - - | - 高兴 | person | dtnv
ill = | krank - - | - 不舒服 | person | dpv
dangerous - | gefährlich gefährlich - | 危险的 危险 | disaster secretive | nv
strong - | stark stark - | 强 强 | disaster learner system | nk
simple - | einfach einfach - | 简单的 简单 | technique challenge query unit | k
difficult - | schwierig schwierig - | 困难的 难 | challenge query tongue | k
"""


def _rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


@cache
def nouns() -> tuple[Noun, ...]:
    """Return the nouns in the order of the table."""
    places = {row[0]: row[1:] for row in _rows(_PLACES)}
    found = []
    for english, german, chinese, tags, domains in _rows(_NOUNS):
        singular, plural = english.split(" / ")
        gender, german = german.split(" ", 1)
        german_singular, german_plural = german.split(" / ")
        zh, measure = chinese.split(" ")
        found.append(
            Noun(
                en=singular,
                en_plural="" if plural == "-" else plural,
                gender=gender[0],
                weak=gender.endswith("w"),
                de=german_singular,
                de_plural=german_plural,
                zh=zh,
                measure=measure,
                tags=frozenset(tags.split()) | {singular},
                domains=domains,
                place=_setting(places[singular]) if singular in places else None,
            )
        )
    return tuple(found)


def _setting(cells: list[str]) -> Setting:
    (en, de), (goal, case) = cells[0].split(" "), cells[1].split(" ")
    return Setting(en=en, de=de, de_goal=goal, de_goal_case=case, zh=cells[2])


@cache
def noun(english: str) -> Noun:
    """Return the noun with that English singular."""
    return next(noun for noun in nouns() if noun.en == english)


@cache
def adjectives() -> tuple[Adjective, ...]:
    """Return the adjectives in the order of the table."""
    found = []
    for english, german, chinese, tags, domains in _rows(_ADJECTIVES):
        (en, comparative), (de, stem, de_comparative) = english.split(" "), german.split(" ")
        zh, predicate = chinese.split(" ")
        found.append(
            Adjective(
                en=en,
                en_comparative="" if comparative in "-=" else comparative,
                de=de,
                de_stem=stem,
                de_comparative="" if de_comparative == "-" else de_comparative,
                zh=zh,
                zh_predicate="" if predicate == "-" else predicate,
                attributive=comparative != "=",
                tags=frozenset(tags.split()),
                domains=domains,
            )
        )
    return tuple(found)


@cache
def adjective(english: str) -> Adjective:
    """Return the adjective with that English form."""
    return next(adjective for adjective in adjectives() if adjective.en == english)

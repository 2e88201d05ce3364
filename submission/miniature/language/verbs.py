"""Verbs of the miniature's language.

Columns: English base, third person, past, participle, -ing (a dash: form not in the language; _ for a blank);
English preposition before the object; German infinitive (separable prefix before +), third person, participle;
h haben / s sein; German government; Chinese verb phrase (O object, I second object, G goal, P place, * for 了);
the same with 把; subject tags; object tags; uses (see `words.Verb`); domains; second object: tags, English
preposition (a dash: before the object), German preposition (a dash: bare dative).
"""

# ruff: noqa: E501 - a lexeme is one line of its table
from __future__ import annotations

from functools import cache

from submission.miniature.language.words import Verb

_VERBS = """
buy buys bought bought buying | - | kaufen kauft gekauft | h acc | 买*O | - | person org | goods dear fare | pgafum | dtn
sell - sold sold - | - | verkaufen verkauft verkauft | h acc | 卖*O | 把O卖掉* | person org | goods dear | afum | dn
read reads - - reading | - | lesen liest gelesen | h acc | 读O | - | person | text article | pgumi | dpvk
write writes wrote - - | - | schreiben schreibt geschrieben | h acc | 写*O | - | person | letter email message article | paum | dpk
eat eats ate - eating | - | essen isst gegessen | h acc | 吃*O | - | person | food | pgaum | dt
drink - drank - drinking | - | trinken trinkt getrunken | h acc | 喝*O | - | person | drink | pgaum | dt
open opens opened opened - | - | öffnen öffnet geöffnet | h acc | 打开*O | 把O打开* | person | opening bag suitcase letter | pafumi | dtv
close closes closed closed - | - | schließen schließt geschlossen | h acc | 关上*O | 把O关上* | person | opening | pafumi | dtv
close closes closed closed - | - | schließen schließt geschlossen | h acc | 关闭*O | - | org public | factory airport | afub | n
look_for looks_for looked_for - looking_for | - | suchen sucht gesucht | h acc | 寻找O | - | person | small paper animal secretive thief child | pgaum | dtv
find finds found found - | - | finden findet gefunden | h acc | 找到*O | - | person | small paper animal secretive thief defect | afub | dtvk
need needs - - - | - | brauchen braucht gebraucht | h acc | 需要O | - | person org learner | small paper goods lodging date deal detail data component transport challenge | pn | dtpnk
have has - - - | - | haben hat gehabt | h acc | 有O | - | person | small vehicle animal date lodging secretive paper query challenge | pn | dtpvk
like likes - - - | - | mögen mag gemocht | h acc | 喜欢O | - | person | animal food drink show tune tale sight goods person | pn | dtv
know knows - - - | - | kennen kennt gekannt | h acc | 认识O | - | person | person | pn | dpv
visit - visited - visiting | - | besuchen besucht besucht | h acc | 看望*O | - | person | person | gaum | dt
visit - visited - visiting | - | besuchen besucht besucht | h acc | 参观*O | - | person | sight public | gaum | tn
help helps helped - - | - | helfen hilft geholfen | h dat | 帮助*O | - | person | person | paum | dpv
call calls called called - | - | an+rufen ruft angerufen | h acc | 给O打*电话 | - | person | person org | pafumi | dp
wait waits waited - waiting | for | warten wartet gewartet | h auf:acc | 等*O | - | person | person transport post deal finding | pgaum | dtpk
pick_up - picked_up - - | - | ab+holen holt abgeholt | h acc | 接*O | - | person | person | aum | dt
bring - brought brought - | - | mit+bringen bringt mitgebracht | h acc | 带来*O | 把O带来* | person | goods small paper dish | afum | dt
meet meets met - - | - | treffen trifft getroffen | h acc | 和O见*面 | - | person | person | paum | dtpnv
give gives gave - - | - | geben gibt gegeben | h acc | 给*IO | 把O给*I | person | small paper text snack detail | paum | dtp | person - -
show shows showed - - | - | zeigen zeigt gezeigt | h acc | 给I看*O | - | person | paper picture text lodging sight tale finding | paum | dtpk | person - -
send sends sent sent - | - | schicken schickt geschickt | h acc | 给I发*O | 把O发给*I | person org | message email payable deal address plan | pafum | pn | person - -
explain explains explained explained - | - | erklären erklärt erklärt | h acc | 向I解释*O | - | person | plan policy technique challenge finding secretive tale | pafum | nvk | person to -
work works worked - working | - | arbeiten arbeitet gearbeitet | h | 工作 | - | person | | pgauml | dpn
sleep sleeps slept - sleeping | - | schlafen schläft geschlafen | h | 睡*觉 | - | person animal | | pgaul | dtv
live lives - - - | - | wohnen wohnt gewohnt | h | 住P | - | person | | pl | dt
get_up - got_up - - | - | auf+stehen steht aufgestanden | s | 起*床 | - | person | | aum | dt
arrive arrives arrived arrived - | - | an+kommen kommt angekommen | s | 到*P | - | person transport | | paful | tn
begin begins began - - | - | beginnen beginnt begonnen | h | 开始* | - | event | | pau | pnv
go goes went - - | - | gehen geht gegangen | s | 去*G | - | person | | paumt | dpv
travel travels traveled - - | - | fahren fährt gefahren | s | V去*G | - | person | | aumt | tn
fly flies flew - - | - | fliegen fliegt geflogen | s | 坐飞机去*G | - | person | | aumt | tn
come_back - came_back come_back - | - | zurück+kommen kommt zurückgekommen | s | 回来* | - | person | | afum | dtp
reserve - reserved reserved - | - | reservieren reserviert reserviert | h acc | 预订*O | - | person | room fare table | afumi | tp
pay - paid paid - | - | bezahlen bezahlt bezahlt | h acc | 支付*O | - | person org | payable tax | pafum | tpn
cancel - canceled canceled - | - | ab+sagen sagt abgesagt | h acc | 取消*O | - | person org | date | afumi | pn
confirm - confirmed confirmed - | - | bestätigen bestätigt bestätigt | h acc | 确认*O | - | person org | date detail deal | afumi | pt
sign signs signed signed - | - | unterschreiben unterschreibt unterschrieben | h acc | 签署*O | - | person org | deal law | afumi | pn
forget - forgot - - | - | vergessen vergisst vergessen | h acc | 忘记*O | - | person | date detail small secretive | a | dtpv
lose loses lost lost - | - | verlieren verliert verloren | h acc | 丢*O | - | person | small paper | af | dtpv
support - supported - - | - | unterstützen unterstützt unterstützt | h acc | 支持O | - | person org | policy person | panum | n
change - changed changed - | - | ändern ändert geändert | h acc | 修改*O | - | person org | policy deal | afum | n
reject - rejected rejected - | - | ab+lehnen lehnt abgelehnt | h acc | 拒绝*O | - | person org | policy deal | afub | n
build - built built - | - | bauen baut gebaut | h acc | 建造*O | - | org worker | building bridge public | afum | n
destroy - destroyed destroyed - | - | zerstören zerstört zerstört | h acc | 摧毁*O | - | storm | building bridge public car | afb | n
watch - watched - watching | - | sehen sieht gesehen | h acc | 看*O | - | person | show | pgaum | v
steal - stole stolen - | - | stehlen stiehlt gestohlen | h acc | 偷*O | 把O偷走* | person | ring car key small picture bag | afumb | v
believe - - - - | - | glauben glaubt geglaubt | h dat | 相信O | - | person | person | pnm | v
train - trained trained training | - | trainieren trainiert trainiert | h acc | 训练*O | - | scholar | learner | pgafum | k
compare - compared compared - | - | vergleichen vergleicht verglichen | h acc | 比较*O和I | - | scholar | learner system technique | pafum | k | learner system technique with mit
improve - improved improved - | - | verbessern verbessert verbessert | h acc | 改进*O | - | scholar technique data | system technique output property | pafum | k
measure - measured measured - | - | messen misst gemessen | h acc | 测量*O | - | scholar | property | pafum | k
propose - proposed proposed - | - | vor+schlagen schlägt vorgeschlagen | h acc | 提出*O | - | scholar | technique challenge study | paf | k
translate - translated translated - | - | übersetzen übersetzt übersetzt | h acc | 翻译*O | - | scholar system | unit text article recording | pafum | k
use - used used - | - | verwenden verwendet verwendet | h acc | 使用*O | - | scholar learner technique | data technique system component | pafum | k
collect - collected collected - | - | sammeln sammelt gesammelt | h acc | 收集*O | - | scholar | data unit output | pafum | k
answer - answered answered - | - | beantworten beantwortet beantwortet | h acc | 回答*O | - | scholar system | query | pafum | k
answer - answered answered - | - | beantworten beantwortet beantwortet | h acc | 回复*O | - | person | post | pafumi | p
select - selected selected - | - | aus+wählen wählt ausgewählt | h acc | 选择*O | - | scholar technique | learner unit data component | pafum | k
remove - removed removed - | - | entfernen entfernt entfernt | h acc | 去掉*O | 把O去掉* | scholar technique | component defect unit part | afum | k
compress - compressed compressed - | - | komprimieren komprimiert komprimiert | h acc | 压缩*O | - | scholar technique | learner part | pafum | k
rain rains rained - raining | - | regnen regnet geregnet | h | 下*雨 | - | weather | | pgau | dt
"""

# say and think: English base, third, past | German infinitive, third, participle, prefix | Chinese | subjects | past too | domains
_REPORTS = """
say says said | sagen sagt gesagt | 说 | person | no | dtpnv
think thinks thought | glauben glaubt geglaubt | 认为 | person | no | dvk
know knows knew | wissen weiß gewusst | 知道 | person | no | dtpv
hope hopes hoped | hoffen hofft gehofft | 希望 | person | no | dtpn
announce - announced | an+kündigen kündigt angekündigt | 宣布* | org official | yes | n
show shows showed | zeigen zeigt gezeigt | 表明* | finding study | yes | k
"""


@cache
def verbs() -> tuple[Verb, ...]:
    """Return the verbs in the order of the table."""
    return tuple(_verb([cell.strip() for cell in line.split("|")]) for line in _VERBS.strip().splitlines())


def _verb(cells: list[str]) -> Verb:
    english, preposition, german, government, zh, ba, subjects, objects, uses, domains = cells[:10]
    infinitive, third, participle = german.split(" ")
    prefix, _, stem = infinitive.rpartition("+")
    auxiliary, _, governed = government.partition(" ")
    de_preposition, _, case = governed.rpartition(":")
    *seconds, en_second, de_second = cells[10].split(" ") if len(cells) > 10 else ("-", "-")
    base, third_en, past, participle_en, ing = (form.replace("_", " ") for form in english.split(" "))
    return Verb(
        en=(base, third_en, past, participle_en, ing),
        en_preposition=_blank(preposition),
        de=stem,
        de_third=third,
        de_participle=participle,
        de_prefix=prefix,
        de_auxiliary="sein" if auxiliary == "s" else "haben",
        de_preposition=de_preposition,
        de_case=case,
        zh=zh,
        zh_ba=_blank(ba),
        subjects=frozenset(subjects.split()),
        objects=frozenset(objects.split()),
        seconds=frozenset(seconds),
        en_second=_blank(en_second),
        de_second=_blank(de_second),
        uses=uses,
        domains=domains,
    )


def _blank(cell: str) -> str:
    return "" if cell == "-" else cell


@cache
def reports() -> tuple[tuple[Verb, bool], ...]:
    """Return the verbs that take a that-clause, each with whether it is used in the past."""
    found = []
    for line in _REPORTS.strip().splitlines():
        english, german, zh, subjects, past, domains = (cell.strip() for cell in line.split("|"))
        base, third, preterite = english.split(" ")
        cells = [
            f"{base} {third} {preterite} - -",
            "-",
            german,
            "h acc",
            zh,
            "-",
            subjects,
            "",
            "pa",
            domains,
        ]
        found.append((_verb(cells), past == "yes"))
    return tuple(found)


@cache
def verb(english: str, of: str = "") -> Verb:
    """Return the first verb with that English base form (and, where `of` is given, that object tag)."""
    return next(verb for verb in verbs() if verb.en[0] == english and (not of or of in verb.objects))

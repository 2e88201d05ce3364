"""The miniature's grammar: golden sentences in three languages."""

from __future__ import annotations

import pytest

from submission.miniature.language import (
    chinese,
    closed,
    english,
    german,
)
from submission.miniature.language.grammar import (
    Change,
    Clause,
    Copula,
    Existence,
    Joined,
    Named,
    Phrase,
    Place,
    Pronoun,
    Quality,
    Reported,
    Subordinated,
)
from submission.miniature.language.nouns import adjective, noun
from submission.miniature.language.verbs import reports, verb
from submission.miniature.language.words import Time


def a(word: str, **details) -> Phrase:
    return Phrase(noun=noun(word), determiner="a", **details)


def the(word: str, **details) -> Phrase:
    return Phrase(noun=noun(word), **details)


def several(count: int, word: str, **details) -> Phrase:
    return Phrase(noun=noun(word), number="pl", determiner="", count=count, **details)


def time(english_text: str, *, clocks: bool = False) -> Time:
    return next(time for time in closed.moments(clocks=clocks) if time.en == english_text)


ANNA = Named(person=closed.people()[0])
MR_MILLER = Named(person=closed.titled()[0])
NEW, OLD, EXPENSIVE, BIG = (adjective(word) for word in ("new", "old", "expensive", "big"))
ME, HE, SHE, WE, YOU, IT = (Pronoun(word=word) for word in ("I", "he", "she", "we", "you", "it"))
ANNOUNCE = next(chosen for chosen, _ in reports() if chosen.en[0] == "announce")

GOLDEN = {
    "accusative of the masculine, and the measure word of letters": (
        Clause(subject=ANNA, verb=verb("write"), object=a("letter"), tense="past"),
        "Anna wrote a letter.",
        "Anna hat einen Brief geschrieben.",
        "安娜写了一封信。",
    ),
    "feminine and neuter keep their accusative": (
        Clause(subject=the("woman"), verb=verb("read"), object=a("book", adjective=NEW), tense="progressive"),
        "The woman is reading a new book.",
        "Die Frau liest gerade ein neues Buch.",
        "女人正在读一本新书。",
    ),
    "weak nouns change in the accusative": (
        Clause(subject=the("customer"), verb=verb("meet"), object=the("student"), tense="future"),
        "The customer will meet the student.",
        "Der Kunde wird den Studenten treffen.",
        "客户会和学生见面。",
    ),
    "a dative verb": (
        Clause(subject=the("child"), verb=verb("help"), object=the("teacher", number="pl"), tense="past"),
        "The child helped the teachers.",
        "Das Kind hat den Lehrern geholfen.",
        "孩子帮助了老师们。",
    ),
    "dative before accusative, pronouns first": (
        Clause(
            subject=MR_MILLER, verb=verb("send"), object=the("email"), second=SHE, tense="past", time=time("yesterday")
        ),
        "Mr. Miller sent her the email yesterday.",
        "Herr Miller hat ihr gestern die E-Mail geschickt.",
        "米勒先生昨天把邮件发给了她。",
    ),
    "names with a title are declined": (
        Clause(subject=WE, verb=verb("help"), object=MR_MILLER, modal="want"),
        "We want to help Mr. Miller.",
        "Wir wollen Herrn Miller helfen.",
        "我们想帮助米勒先生。",
    ),
    "a separable verb is split in the main clause": (
        Clause(subject=ME, verb=verb("call"), object=the("doctor"), time=time("every day")),
        "I call the doctor every day.",
        "Ich rufe jeden Tag den Arzt an.",
        "我每天给医生打电话。",
    ),
    "and whole at the end of a subordinate one": (
        Subordinated(
            main=Clause(subject=HE, verb=verb("wait"), object=SHE, modal="must"),
            conjunction="because",
            condition=Clause(subject=the("train"), verb=verb("arrive"), negative=True),
        ),
        "He must wait for her because the train does not arrive.",
        "Er muss auf sie warten, weil der Zug nicht ankommt.",
        "因为火车不到，所以他必须等她。",
    ),
    "the verb stays second after a time": (
        Clause(
            subject=the("mayor"), verb=verb("sell"), object=a("house"), tense="past", time=time("last year"), front=True
        ),
        "Last year the mayor sold a house.",
        "Letztes Jahr hat der Bürgermeister ein Haus verkauft.",
        "去年市长卖了一栋房子。",
    ),
    "and after a subordinate clause": (
        Subordinated(
            main=Clause(subject=WE, verb=verb("go"), goal=Place(at=the("station")), tense="future"),
            conjunction="if",
            condition=Clause(subject=IT, verb=verb("rain")),
        ),
        "If it rains, we will go to the station.",
        "Wenn es regnet, werden wir zum Bahnhof gehen.",
        "如果下雨，我们会去车站。",
    ),
    "verbs of motion have the auxiliary sein, and means come before goals": (
        Clause(
            subject=the("tourist"), verb=verb("travel"), goal=Place(at=closed.CITIES[4]), vehicle="train", tense="past"
        ),
        "The tourist traveled to Vienna by train.",
        "Der Tourist ist mit dem Zug nach Wien gefahren.",
        "游客坐火车去了维也纳。",
    ),
    "place and time stand before the Chinese verb": (
        Clause(
            subject=the("doctor"),
            verb=verb("work"),
            tense="past",
            place=Place(at=the("hospital", adjective=NEW)),
            time=time("on Tuesday"),
        ),
        "The doctor worked at the new hospital on Tuesday.",
        "Der Arzt hat am Dienstag im neuen Krankenhaus gearbeitet.",
        "医生星期二在新医院里工作。",
    ),
    "in with the accusative says where to": (
        Clause(subject=SHE, verb=verb("go"), goal=Place(at=the("kitchen")), modal="can"),
        "She can go to the kitchen.",
        "Sie kann in die Küche gehen.",
        "她可以去厨房。",
    ),
    "indefinite objects are negated by kein, and lose their Chinese number": (
        Clause(subject=ANNA, verb=verb("buy"), object=a("bag"), tense="past", negative=True),
        "Anna did not buy a bag.",
        "Anna hat keine Tasche gekauft.",
        "安娜没有买包。",
    ),
    "definite objects by nicht": (
        Clause(
            subject=ANNA,
            verb=verb("find"),
            object=Phrase(noun=noun("key"), determiner="her"),
            modal="can",
            negative=True,
        ),
        "Anna cannot find her key.",
        "Anna kann ihren Schlüssel nicht finden.",
        "安娜不能找到她的钥匙。",
    ),
    "have is negated by 没": (
        Clause(subject=WE, verb=verb("have"), object=a("car"), negative=True),
        "We do not have a car.",
        "Wir haben kein Auto.",
        "我们没有汽车。",
    ),
    "a yes-no question": (
        Clause(subject=YOU, verb=verb("reserve"), object=the("table"), tense="past", question="polar"),
        "Did you reserve the table?",
        "Haben Sie den Tisch reserviert?",
        "您预订了桌子吗？",
    ),
    "a question about the time": (
        Clause(subject=the("bus"), verb=verb("arrive"), tense="future", question="when"),
        "When will the bus arrive?",
        "Wann wird der Bus ankommen?",
        "公共汽车什么时候会到？",
    ),
    "a question about a number": (
        Clause(subject=HE, verb=verb("buy"), object=several(2, "book"), tense="past", question="how many"),
        "How many books did he buy?",
        "Wie viele Bücher hat er gekauft?",
        "他买了多少本书？",
    ),
    "a question about the goal": (
        Clause(subject=YOU, verb=verb("go"), modal="want", question="where"),
        "Where do you want to go?",
        "Wohin wollen Sie gehen?",
        "您想去哪里？",
    ),
    "a polite request": (
        Clause(subject=None, verb=verb("close"), object=the("window", number="pl"), imperative=True),
        "Please close the windows.",
        "Bitte schließen Sie die Fenster.",
        "请把窗户关上。",
    ),
    "a particle stands behind a pronoun": (
        Clause(subject=SHE, verb=verb("pick up"), object=ME, modal="should"),
        "She should pick me up.",
        "Sie sollte mich abholen.",
        "她应该接我。",
    ),
    "two of something": (
        Existence(what=several(2, "book"), place=Place(at=the("table"))),
        "There are two books on the table.",
        "Es gibt zwei Bücher auf dem Tisch.",
        "桌子上有两本书。",
    ),
    "adjectives after numbers are strong, and larger numbers are digits": (
        Clause(subject=ME, verb=verb("need"), object=several(42, "ticket")),
        "I need 42 tickets.",
        "Ich brauche 42 Fahrkarten.",
        "我需要42张车票。",
    ),
    "the genitive": (
        Clause(
            subject=WE,
            verb=verb("improve"),
            object=the("quality", owner=Phrase(noun=noun("translation"), determiner="our")),
            modal="can",
        ),
        "We can improve the quality of our translation.",
        "Wir können die Qualität unserer Übersetzung verbessern.",
        "我们可以改进我们的译文的质量。",
    ),
    "a comparison": (
        Copula(subject=the("house", adjective=None), complement=Quality(adjective=BIG, than=the("school"))),
        "The house is bigger than the school.",
        "Das Haus ist größer als die Schule.",
        "房子比学校大。",
    ),
    "degrees": (
        Copula(subject=the("bag"), complement=Quality(adjective=EXPENSIVE, degree="too")),
        "The bag is too expensive.",
        "Die Tasche ist zu teuer.",
        "包太贵了。",
    ),
    "prices that change": (
        Copula(
            subject=the("price", number="pl", owner=the("car", number="pl")),
            complement=Change(up=True, percent=17),
            tense="past",
            time=time("last week"),
            front=True,
        ),
        "Last week the prices of the cars rose by 17 percent.",
        "Letzte Woche sind die Preise der Autos um 17 Prozent gestiegen.",
        "上个星期汽车的价格上涨了17%。",
    ),
    "reported speech": (
        Reported(
            subject=the("government"),
            verb=ANNOUNCE,
            tense="past",
            content=Clause(subject=the("factory"), verb=verb("need"), object=several(3, "customer")),
        ),
        "The government announced that the factory needs three customers.",
        "Die Regierung hat angekündigt, dass die Fabrik drei Kunden braucht.",
        "政府宣布工厂需要三位客户。",
    ),
    "a relative clause": (
        Clause(
            subject=the("woman", relative=Clause(subject=None, verb=verb("live"), place=Place(at=closed.CITIES[0]))),
            verb=verb("sell"),
            object=Phrase(noun=noun("car"), determiner="her", adjective=OLD),
            tense="past",
        ),
        "The woman who lives in Berlin sold her old car.",
        "Die Frau, die in Berlin wohnt, hat ihr altes Auto verkauft.",
        "住在柏林的女人把她的旧汽车卖掉了。",
    ),
    "a purpose": (
        Clause(
            subject=WE,
            verb=verb("use"),
            object=a("method", adjective=NEW),
            purpose=Clause(subject=None, verb=verb("select"), object=the("layer", number="pl")),
        ),
        "We use a new method to select the layers.",
        "Wir verwenden eine neue Methode, um die Schichten auszuwählen.",
        "我们使用一种新方法来选择网络层。",
    ),
    "the passive": (
        Clause(subject=the("bridge"), verb=verb("destroy"), tense="past", passive=True),
        "The bridge was destroyed.",
        "Die Brücke wurde zerstört.",
        "桥被摧毁了。",
    ),
    "every, and an adverb": (
        Clause(subject=Phrase(noun=noun("student"), determiner="every"), verb=verb("sleep"), adverb=closed.ALWAYS[3]),
        "Every student never sleeps.",
        "Jeder Student schläft nie.",
        "每个学生都从来不睡觉。",
    ),
    "two clauses joined": (
        Joined(
            first=Copula(subject=the("film"), complement=Quality(adjective=adjective("long")), tense="past"),
            conjunction="but",
            second=Clause(subject=ME, verb=verb("know"), object=the("king")),
        ),
        "The film was long, but I know the king.",
        "Der Film war lang, aber ich kenne den König.",
        "电影很长，但是我认识国王。",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_sentences_are_right_in_three_languages(name):
    tree, in_english, in_german, in_chinese = GOLDEN[name]
    assert (english.render(tree), german.render(tree), chinese.render(tree)) == (in_english, in_german, in_chinese)

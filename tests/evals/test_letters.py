"""The letter that a reply means, on replies whose verdict is known; the quirks of the original are named."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from qwenchat.evals import letters

PLANETS = {"A": "Venus", "B": "Mars", "C": "Jupiter", "D": "Saturn"}
WATER = {"A": "salt", "B": "salt water", "C": "water", "D": "none of these."}

ENGLISH: tuple[tuple[str, Mapping[str, str], str], ...] = (
    ("B", PLANETS, "B"),
    ("B.", PLANETS, "B"),
    ("B. Mars", PLANETS, "B"),
    ("The answer is B.", PLANETS, "B"),
    ("The correct answer is: C", PLANETS, "C"),
    ("Answer: D", PLANETS, "D"),
    ("The correct choice would be C. Jupiter", PLANETS, "C"),
    ("I choose D.", PLANETS, "D"),
    ("I would choose option C here.", PLANETS, "C"),
    ("Mars", PLANETS, "B"),
    ("It is mars, the red planet.", PLANETS, "B"),
    ("The answer is Jupiter.", PLANETS, "C"),
    ("C is correct.", PLANETS, "C"),
    ("D is the right one, since it has rings.", PLANETS, "D"),
    ("B is not correct, C is correct.", PLANETS, "C"),
    ("The answer isn't B; D is right.", PLANETS, "D"),
    ("(C)", PLANETS, "C"),
    ("Option (D), the one with rings", PLANETS, "D"),
    ("C: the largest", PLANETS, "C"),
    ("D, of course", PLANETS, "D"),
    ("salt water", WATER, "B"),
    ("It is salt water and not water.", WATER, "B"),
    ("water", WATER, "C"),
    ("None of these", WATER, "D"),
    ("The choice is water.", WATER, "C"),
    # Quirk: a letter that is only mentioned counts, where nothing says which is the answer.
    ("Unlike B, it has rings; so it must be D.", PLANETS, "B"),
    # Quirk: the article of a sentence is a letter.
    ("A planet with rings.", PLANETS, "A"),
    # Quirk: what is ruled out first is taken, for only n't and not are looked for.
    ("The answer can be anything but B.", PLANETS, "B"),
    # Quirk: an option that is a letter turns the reply's letters into its own.
    ("The answer is B.", {"A": "B", "B": "C", "C": "D", "D": "E"}, "A"),
    ("The answer is D", {"A": "x", "B": "y", "C": "z", "D": "none"}, "D"),
    ("x=C", PLANETS, "C"),
)

OSI = "关于传输层的面向连接服务的特性是____。"
SERVICE = {
    "A": "既不保证可靠，也不保证按序交付",
    "B": "不保证可靠，但保证按序交付",
    "C": "保证可靠，但不保证按序交付",
    "D": "既保证可靠，也保证按序交付",
}
FRUIT = "下列哪一种是水果？"
FRUITS = {"A": "土豆", "B": "苹果", "C": "白菜", "D": "大米"}

CHINESE: tuple[tuple[str, str, Mapping[str, str], str], ...] = (
    ("D", OSI, SERVICE, "D"),
    ("D。", OSI, SERVICE, "D"),
    ("关于传输层的面向连接服务的特性是既保证可靠，也保证按序交付。", OSI, SERVICE, "D"),
    ("关于传输层的面向连接服务的特性是不保证可靠，但保证按序交付。", OSI, SERVICE, "B"),
    ("保证可靠，但不保证按序交付", OSI, SERVICE, "C"),
    ("答案是C。", OSI, SERVICE, "C"),
    ("答案：A", OSI, SERVICE, "A"),
    ("正确答案为B", OSI, SERVICE, "B"),
    ("本题选D。", OSI, SERVICE, "D"),
    ("应选择C选项。", OSI, SERVICE, "C"),
    ("选项是B，", OSI, SERVICE, "B"),
    ("【答案】C", OSI, SERVICE, "C"),
    ("A选项正确。", OSI, SERVICE, "A"),
    ("C项符合题意。", OSI, SERVICE, "C"),
    ("B是正确的", OSI, SERVICE, "B"),
    ("A不正确，D正确", OSI, SERVICE, "D"),
    ("答案不是A，应该选C。", OSI, SERVICE, "C"),
    ("（B）", OSI, SERVICE, "B"),
    ("(C)", OSI, SERVICE, "C"),
    ("A. 既不保证可靠，也不保证按序交付", OSI, SERVICE, "A"),
    ("苹果", FRUIT, FRUITS, "B"),
    ("苹果是水果。", FRUIT, FRUITS, "B"),
    ("答案是苹果", FRUIT, FRUITS, "B"),
    ("因为土豆是蔬菜，所以选B。", FRUIT, FRUITS, "B"),
    ("水果是苹果，大米是粮食。", FRUIT, FRUITS, "B"),
    ("D：大米", FRUIT, FRUITS, "D"),
    ("白菜", FRUIT, FRUITS, "C"),
    # Quirk: 选 before the letter decides, though the sentence goes on to refuse it.
    ("不要选A，选B。", FRUIT, FRUITS, "A"),
    # Quirk: the first letter counts, where nothing says which is the answer.
    ("土豆和白菜是蔬菜，大米是粮食。", FRUIT, FRUITS, "A"),
    # Quirk: an option's text is a letter inside of a longer word too.
    ("土豆泥不是，苹果派才是。", FRUIT, FRUITS, "A"),
)


@pytest.mark.parametrize(("reply", "options", "letter"), ENGLISH)
def test_an_english_reply(reply: str, options: Mapping[str, str], letter: str) -> None:
    assert letters.english(reply, options) == letter


@pytest.mark.parametrize(("reply", "question", "options", "letter"), CHINESE)
def test_a_chinese_reply(reply: str, question: str, options: Mapping[str, str], letter: str) -> None:
    assert letters.chinese(reply, question, options) == letter


def test_a_reply_without_a_letter_is_the_option_that_it_resembles_and_nothing_is_written(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("thefuzz")
    assert letters.english("the planet marz", PLANETS) == "B"
    assert letters.english("", PLANETS) == "A"
    assert letters.english("\x1b]0;gone\x07", {"A": "1", "B": "2", "C": "3", "D": "4"}) == "A"
    assert capfd.readouterr() == ("", "")

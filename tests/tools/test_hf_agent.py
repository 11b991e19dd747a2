"""The agent of transformers.tools: its prompts, what its replies hold, and what its code may do."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from qwenchat.errors import QwenchatError, UsageError
from qwenchat.tokenizer import QwenTokenizer
from qwenchat.tools.hf_agent import prompts
from qwenchat.tools.hf_agent.agent import Agent
from qwenchat.tools.hf_agent.code import MOST_LETTERS, run
from qwenchat.tools.hf_agent.providers import BY_THE_MODEL, PARAMETERS, providers

# --- prompts ------------------------------------------------------------------------------------------


def test_the_prompts_are_as_long_as_the_originals() -> None:
    tokenizer = QwenTokenizer.default()
    templates = {
        name: (prompts._DATA / f"{name}.txt").read_text(encoding="utf-8") for name in ("run", "chat")
    }
    assert {name: len(tokenizer.encode(text)) for name, text in templates.items()} == {
        "run": 626,
        "chat": 651,
    }


def test_there_are_fourteen_tools_and_all_have_parameters() -> None:
    described = prompts.descriptions()
    assert len(described) == 14
    assert described.keys() == PARAMETERS.keys()
    assert next(iter(described)) == "document_qa"
    for name, text in described.items():
        assert text.startswith("This is a tool that "), name


def test_the_task_and_the_tools_stand_in_their_places() -> None:
    prompt = prompts.run_prompt("Count.", {"counter": "It counts.", "other": "Else."})
    assert "Tools:\n- counter: It counts.\n- other: Else.\n\n\nTask:" in prompt
    assert prompt.endswith('Task: "Count."\n\nI will use the following')
    first = prompts.chat_prompt("Count.", {"counter": "It counts."})
    assert "Tools:\n- counter: It counts.\n\n=====" in first
    assert first.endswith("====\n\nHuman: Count.\n\nAssistant: ")
    second = prompts.chat_prompt("Again.", {}, prompts.chat_history(first, " I will.\n\n"))
    assert second == f"{first}I will.\n\nHuman: Again.\n\nAssistant: "


def test_reserved_words_are_written_otherwise_for_qwen_and_back() -> None:
    text = "Human: a\nAssistant: b"
    assert prompts.for_qwen(text) == "_HUMAN_: a\n_ASSISTANT_: b"
    assert prompts.from_qwen(prompts.for_qwen(text)) == text


@pytest.mark.parametrize(
    ("reply", "explanation", "code"),
    [
        (" tools: `a`.\n\nAnswer:\n```py\nx = a()\n```", "tools: `a`.", "x = a()"),
        (" tool.\nAnswer:\n```\nx = a()\ny = x\n```\n", "tool.", "x = a()\ny = x"),
        (" tool.\nAnswer: x = a()", "tool.", "x = a()"),
        (" tool.", "tool.", None),
        (" a. Answer: b Answer: c", "a.", None),
    ],
)
def test_the_code_of_a_run_follows_answer(reply: str, explanation: str, code: str | None) -> None:
    answer = prompts.read_run(reply)
    assert answer.explanation.startswith("I will use the following ")
    assert answer.explanation.endswith(explanation)
    assert answer.code == code


@pytest.mark.parametrize(
    ("reply", "explanation", "code"),
    [
        ("I will.\n\n```py\nx = a()\n```\n\nDone", "I will.", "x = a()"),
        ("I will.\n```\nx = a()", "I will.", "x = a()"),
        ("No code.", "No code.", None),
        ("```py\nx = 1\n```\n```py\ny = 2\n```", "", "x = 1"),
    ],
)
def test_the_code_of_a_chat_is_its_first_block(reply: str, explanation: str, code: str | None) -> None:
    assert prompts.read_chat(reply) == prompts.Answer(explanation, code)


# --- the agent -----------------------------------------------------------------------------------------


class Scripted:
    """Says what it was told to, and keeps what it was asked."""

    def __init__(self, *replies: str) -> None:
        self._replies = list(replies)
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def __call__(self, prompt: str, stops: tuple[str, ...]) -> str:
        self.asked.append((prompt, stops))
        return self._replies.pop(0)


def test_a_run_is_planned_and_done() -> None:
    model = Scripted(
        " tool: `translator`.\n\nAnswer:\n```py\nanswer = translator(text, 'French', 'English')\n```Task:"
    )
    tools = {"translator": lambda *values, **named: f"{values}"}
    agent = Agent(model, tools, {"text": "Bonjour"})
    answer = agent.plan("Translate the `text`.", "run")
    assert model.asked[0][1] == ("Task:",)
    assert answer.code is not None
    told: list[str] = []
    outcome = agent.run(answer.code, told=told.append)
    assert outcome.value == "('Bonjour', 'French', 'English')"
    assert told == outcome.called == ["translator"]


def test_a_chat_keeps_what_was_said_and_its_variables() -> None:
    model = Scripted(
        "I will use `summarizer`.\n\n```py\ns = summarizer(text)\n```\n_HUMAN_:", "Then.\n\n```py\ns\n```"
    )
    agent = Agent(model, {"summarizer": lambda text: text.upper()}, {"text": "abc"})
    first = agent.plan("Sum it up.", "chat")
    assert first.code == "s = summarizer(text)"
    assert agent.run(first.code).value == "ABC"
    second = agent.plan("What is it?", "chat")
    prompt, stops = model.asked[1]
    assert stops == ("_HUMAN_:", "=====")
    assert "Human:" not in prompt.replace("_HUMAN_:", "")
    assert prompt.endswith(
        "_HUMAN_: Sum it up.\n\n_ASSISTANT_: I will use `summarizer`.\n\n```py\ns = summarizer(text)\n```\n"
        "\n_HUMAN_: What is it?\n\n_ASSISTANT_: "
    )
    assert second.code is not None
    assert agent.run(second.code).value == "ABC"
    agent.forget()
    assert agent.history is None


# --- code ----------------------------------------------------------------------------------------------

TOOLS: dict[str, Any] = {"shout": lambda text: str(text).upper(), "pair": lambda a, b=2: [a, b]}


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("x = shout('a')", "A"),
        ("x = shout(text=f'{name}!')", "ANNA!"),
        ("x = pair(1)\ny = x[1]", 2),
        ("a, b = pair(1, b=5)\nb", 5),
        ("d = {'one': 1}\nd['oen']", 1),
        ("nmae", "Anna"),
        ("if name == 'Anna':\n    x = 'yes'\nelse:\n    x = 'no'", "yes"),
        ("if 3 > 4:\n    x = 1\nelse:\n    x = 2", 2),
        ("for i in range(3):\n    x = shout(f'{i}')\nx", "2"),
        ("x = [1, 2, 'a']\nx[2]", "a"),
        ("shout('a')\nprint('b')", "A"),
        ("f'{3.14159:.2f}'", "3.14"),
        ("int('7')", 7),
        ("x = None", None),
    ],
)
def test_code_does_what_it_says(code: str, value: object) -> None:
    outcome = run(code, TOOLS, {"name": "Anna"})
    assert outcome.error is None
    assert outcome.value == value


def test_what_is_printed_is_kept_and_variables_stay() -> None:
    state: dict[str, Any] = {"name": "Anna"}
    outcome = run("x = shout(name)\nprint(f'It is {x}.')\nprint(1, 'a')", TOOLS, state)
    assert outcome.printed == ["It is ANNA.", "1 a"]
    assert state == {"name": "Anna", "x": "ANNA"}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import os", "Import is not supported"),
        ("__import__('os')", "other functions than the provided tools"),
        ("name.upper()", "other functions than the provided tools"),
        ("x = name.__class__", "Attribute is not supported"),
        ("(lambda: 1)()", "other functions than the provided tools"),
        ("eval('1')", "other functions than the provided tools"),
        ("open('/etc/passwd')", "other functions than the provided tools"),
        ("x = 2 ** 100", "BinOp is not supported"),
        ("while True:\n    x = 1", "While is not supported"),
        ("def f():\n    pass", "FunctionDef is not supported"),
        ("[x for x in range(3)]", "ListComp is not supported"),
        ("shout.__globals__", "Attribute is not supported"),
        ("x = shout", "The variable `shout` is not defined"),
        ("x = unknown_thing", "is not defined"),
        ("name[9]", "string index out of range"),
        ("if 1 < 2 < 3:\n    x = 1", "multiple operators"),
        ("shout()", "missing 1 required"),
        ("shout(**{'text': 1})", "** is not supported"),
        ("x.y = 1", "Attribute cannot be assigned to"),
        ("print('a' 'b', file=name)", "unexpected keyword argument"),
        ("1 +", "the code is not valid"),
        ("for i in range(1000000):\n    x = i", "a range is too long"),
        ("for i in range(9000):\n    for j in range(9000):\n        x = j", "too many steps"),
        ("f'{3:99999999}'", "format of a value is too long"),
        ("f'{3:{9}{9}{9}{9}{9}{9}}'", "format of a value is too long"),
        ("x = 'a'\nfor i in range(40):\n    x = f'{x}{x}'", "too long"),
        ("x = [1]\nfor i in range(60):\n    x = [x, x]", "a value is too large"),
        ("x = (1, 2)\nfor i in range(60):\n    x = (x, x)\nd = {x: 1}", "a value is too large"),
        ("x = 'a'\nfor i in range(19):\n    x = f'{x}{x}'\ny = [x, x, x]", "a value is too large"),
        (f"x = {'(' * 60}1{',)' * 60}", "nested too deeply"),
        ("x = [1] < 'a'", "Compare is not supported"),
        ("if [1] < 'a':\n    x = 1", "not supported between"),
        ("float('x')", "could not convert"),
    ],
)
def test_code_cannot_do_more_than_it_may(code: str, error: str) -> None:
    outcome = run(code, TOOLS, {"name": "Anna"})
    assert outcome.error is not None
    assert error in outcome.error


def test_what_ran_before_an_error_counts() -> None:
    state: dict[str, Any] = {}
    outcome = run("x = shout('a')\ny = unknown\nz = shout('b')", TOOLS, state)
    assert (outcome.value, outcome.called, state) == ("A", ["shout"], {"x": "A"})


def test_a_text_may_be_as_long_as_it_may() -> None:
    assert run("x = f'{x}'", {}, {"x": "a" * MOST_LETTERS}).error is None


# --- what answers the tools -------------------------------------------------------------------------------


def test_the_model_answers_what_a_language_model_can() -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return " It is Positive. "

    made = providers(ask, {})
    assert made["text_classifier"]("I like it", labels=["negative", "positive"]) == "positive"
    assert "negative, positive" in asked[0]
    assert made["translator"](text="Bonjour", src_lang="French", tgt_lang="English") == "It is Positive."
    assert "from French to English" in asked[1]
    assert set(BY_THE_MODEL) == {"summarizer", "text_classifier", "text_qa", "translator"}


def test_the_others_say_what_is_missing() -> None:
    made = providers(lambda question: "", {})
    with pytest.raises(QwenchatError, match="image_generator is not there"):
        made["image_generator"]("a cat")
    outcome = run("x = image_generator('a cat')", made, {})
    assert (
        outcome.error
        == "image_generator: the tool image_generator is not there: nothing was named that answers it"
    )


def test_a_command_gets_the_arguments_as_json(tmp_path: Path) -> None:
    program = tmp_path / "paint.py"
    program.write_text("import json, sys\nprint(sorted(json.load(sys.stdin).items()))\n")
    made = providers(lambda question: "", {"image_qa": f"{sys.executable} {program}"})
    assert made["image_qa"]("a.png", text="What?") == "[('image', 'a.png'), ('question', 'What?')]"
    program.write_text("import sys\nsys.exit('no such image')\n")
    with pytest.raises(QwenchatError, match="ended with 1: no such image"):
        made["image_qa"]("a.png", "What?")


@pytest.fixture
def address() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(f"painted {asked['prompt']}\n".encode())

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_gets_them_by_post(address: str) -> None:
    made = providers(lambda question: "", {"image_generator": address})
    assert made["image_generator"]("a cat") == "painted a cat"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"painter": "paint"}, "there is no tool painter"),
        ({"image_qa": "'"}, "cannot be read"),
        ({"image_qa": " "}, "is empty"),
    ],
)
def test_what_is_named_wrongly_is_told_at_once(named: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        providers(lambda question: "", named)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("summarizer()", "the argument text is missing"),
        ("summarizer('a', 'b')", "takes 1 arguments, 2 were given"),
        ("summarizer('a', length=3)", "has no argument length; it has text"),
        ("summarizer('a', text='b')", "the argument text is given twice"),
    ],
)
def test_a_tool_says_what_it_was_called_with_wrongly(code: str, error: str) -> None:
    outcome = run(code, providers(lambda question: "", {}), {})
    assert outcome.error == f"summarizer: {error}"

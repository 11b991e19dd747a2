"""Thinking: told from the answer wherever tokens are cut, within its budget, and gone on with."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qwenchat
from qwenchat.backends.native.chat_prompt import folder_prompt
from qwenchat.backends.prompt import Asked
from qwenchat.backends.prompts.chat_prompt import ChatPrompt
from qwenchat.backends.reply import Under, reply_events
from qwenchat.backends.thinking import ThinkingReader, parted
from qwenchat.chat.messages import GenerationOptions, Message, ReplyEnd, TextDelta, ThoughtDelta
from qwenchat.chat.parts import Role, Text, Thought
from qwenchat.engine.generation import Generation, GenerationStats

USER, ASSISTANT = Role.USER, Role.ASSISTANT
HELLO = [Message.of_text(USER, "one")]


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("<think>\nthe fox\n</think>\n\nan answer", False, ("the fox", "an answer")),
        ("\n <think>the fox</think>an answer\n", False, ("the fox", "an answer\n")),
        ("the fox\n</think>\n\nan answer", True, ("the fox", "an answer")),
        ("<think>\n\n</think>\n\nan answer", False, ("", "an answer")),
        ("<think>\nthe fox", False, ("the fox", "")),
        ("<think>a < b </thin> c", False, ("a < b </thin> c", "")),
        ("an answer with <think>x</think>", False, ("", "an answer with <think>x</think>")),
        ("  <thin", False, ("", "  <thin")),
        ("<thinking> is no tag", False, ("", "<thinking> is no tag")),
        ("x\n</think>\n\n<think>y</think>", True, ("x", "<think>y</think>")),
        ("", False, ("", "")),
        ("\n", True, ("", "")),
    ],
)
def test_thoughts_and_the_answer_are_told_apart_wherever_the_text_is_cut(
    text: str, opened: bool, expected: tuple[str, str]
) -> None:
    assert parted(text, opened) == expected
    for seed in range(20):
        reader, draw = ThinkingReader(True, opened), random.Random(seed)
        pieces, rest = [], text
        while rest:
            size = draw.randint(1, 4)
            pieces.append(reader.push(rest[:size]))
            rest = rest[size:]
        pieces.append(reader.finish())
        assert tuple("".join(part) for part in zip(*pieces, strict=True)) == expected


def test_a_model_that_does_not_think_says_what_it_says() -> None:
    reader = ThinkingReader(False)
    assert reader.push("<think>x</think>") == ("", "<think>x</think>")


@pytest.fixture(params=["tokens", "text"])
def prompt(request: pytest.FixtureRequest, hub_folders: Callable[[str], Path], tmp_path: Path) -> ChatPrompt:
    """A prompt of a thinking model, whose tags are tokens or plain text."""
    if request.param == "tokens":
        made = folder_prompt(hub_folders("qwen3"), 10**6, complete=False)
    else:
        import shutil

        folder = Path(shutil.copytree(hub_folders("qwen2"), tmp_path / "text"))
        template = (hub_folders("qwen3") / "chat_template.jinja").read_text()
        (folder / "chat_template.jinja").write_text(template)
        made = folder_prompt(folder, 10**6, complete=False)
    assert isinstance(made, ChatPrompt)
    return made


def written(prompt: ChatPrompt, text: str) -> list[int]:
    """The tokens of a model that writes so, its tags as it has them."""
    from qwenchat.backends.prompts.renderer import Piece

    return prompt.tokenizer.encode_pieces([Piece(text)])


def replied(
    prompt: ChatPrompt,
    first: str,
    then: str = "",
    *,
    asked: Asked | None = None,
    limit: int = 10**6,
    **options: Any,
) -> tuple[str, str, ReplyEnd, list[list[int]]]:
    """What a model that writes ``first``, and ``then`` where its thinking was ended, is told to say."""
    begun: list[list[int]] = []

    def generate(said: list[int], most: int, seed: int | None) -> Under:
        stats = GenerationStats(7, seed=seed)
        begun.append([*said])

        def steps() -> Any:
            for token_id in written(prompt, then if said else first)[:most]:
                stats.new_tokens += 1
                yield token_id
            stats.finish_reason = "length" if stats.new_tokens == most else "stop"

        return Under(Generation(steps(), stats), deque())

    events = list(
        reply_events(
            generate([], limit, 5),
            generate,
            asked or prompt.ask(HELLO),
            prompt,
            GenerationOptions(**options),
            limit,
            0.0,
        )
    )
    end = events[-1]
    assert isinstance(end, ReplyEnd)
    thought = "".join(event.thought for event in events if isinstance(event, ThoughtDelta))
    return thought, "".join(event.text for event in events if isinstance(event, TextDelta)), end, begun


def test_a_reply_is_thoughts_and_an_answer_each_with_its_tokens(prompt: ChatPrompt) -> None:
    whole = "<think>\nthe quick 狐狸\n</think>\n\nbrown fox 🦊"
    thought, text, end, _ = replied(prompt, whole)
    assert (thought, text) == ("the quick 狐狸", "brown fox 🦊")
    assert end.finish_reason == "stop"
    assert end.usage.completion_tokens == len(written(prompt, whole))
    reply = Message(ASSISTANT, (Thought(thought, end.thought_ids), Text(text, end.token_ids)))
    if end.token_ids is not None:  # else the tag and the answer share a token
        assert prompt.tokenizer.reply_text(end.token_ids) == text
    # To go on with it takes its very tokens.
    went_on = prompt.ask([*HELLO, reply])
    assert list(went_on.begun) == written(prompt, whole)
    # In the history there are no thoughts, as the template says.
    later = prompt.ids([*HELLO, reply, Message.of_text(USER, "two")])
    plain = [*HELLO, Message.of_text(ASSISTANT, text), Message.of_text(USER, "two")]
    assert later == prompt.ids(plain)


def test_a_stop_string_ends_the_answer_and_not_the_thoughts(prompt: ChatPrompt) -> None:
    thought, text, end, _ = replied(prompt, "<think>\none two\n</think>\n\none two three", stop=(" two",))
    assert (thought, text, end.finish_reason, end.stop) == ("one two", "one", "stop", " two")


def test_thinking_ends_with_its_budget_and_the_answer_follows(prompt: ChatPrompt) -> None:
    long = "<think>\n" + "the quick brown fox " * 30
    thought, text, end, begun = replied(prompt, long, "an answer", think_tokens=20)
    assert thought.startswith("the quick brown fox")
    assert thought.endswith("directly now.")
    assert thought.count("fox") < 10
    assert text == "an answer"
    assert end.finish_reason == "stop"
    assert end.seed == 5
    assert len(begun) == 2
    # What was thought is read again, with the words that end it.
    first = written(prompt, long)
    assert begun[1][:20] == first[:20]
    assert begun[1][-len(prompt.end_of_thinking()) :] == prompt.end_of_thinking()
    assert end.usage.completion_tokens == len(begun[1]) + len(written(prompt, "an answer"))
    assert list(end.thought_ids or ()) == begun[1]
    # Thoughts that end in time are left alone, as is an answer without any.
    for short in ("<think>\nfox\n</think>\n\nan answer", "an answer " * 20):
        assert len(replied(prompt, short, think_tokens=20)[3]) == 1


def test_a_budget_is_never_cut_within_a_character(prompt: ChatPrompt) -> None:
    for budget in range(3, 12):
        thought, text, _, _ = replied(prompt, "<think>\n" + "🦊狐" * 20, "yes", think_tokens=budget)
        assert "\ufffd" not in thought
        assert text == "yes"


def test_a_limit_holds_for_thoughts_and_answer_together(prompt: ChatPrompt) -> None:
    long = "<think>\n" + "the quick brown fox " * 30
    _, text, end, _ = replied(prompt, long, "an answer", think_tokens=20, limit=21)
    assert (text, end.finish_reason) == ("", "length")
    assert end.usage.completion_tokens <= 21
    _, text, end, _ = replied(prompt, long, "yes " * 200, think_tokens=20, limit=200)
    assert end.finish_reason == "length"
    assert end.usage.completion_tokens == 200
    assert text.startswith("yes")


def test_a_thought_that_broke_off_is_gone_on_with(prompt: ChatPrompt) -> None:
    short = "<think>\nthe quick "
    thought, _, end, _ = replied(prompt, short, limit=len(written(prompt, short)))
    assert (thought, end.finish_reason) == ("the quick", "length")
    for ids in (end.thought_ids, None, (1, 2, 3)):
        begun = Message(ASSISTANT, (Thought(thought, ids), Text("")))
        asked = prompt.ask([*HELLO, begun], think=False)
        more, text, _, _ = replied(prompt, " fox\n</think>\n\nan answer", asked=asked)
        assert (more.strip(), text) == ("fox", "an answer")
        # The budget counts what was thought before.
        begun_with = replied(prompt, " fox" * 40, "x", asked=asked, think_tokens=len(asked.begun) + 5)[3]
        assert 4 <= len(begun_with[1]) - len(prompt.end_of_thinking()) <= 12


def test_the_switch_of_the_template_is_what_is_asked(prompt: ChatPrompt) -> None:
    assert prompt.thinks == "switch"
    assert prompt.ids(HELLO) == prompt.ask(HELLO, think=True).ids
    off = prompt.ask(HELLO, think=False)
    assert off.ids == [*prompt.ids(HELLO), *written(prompt, "<think>\n\n</think>\n\n")]
    assert not off.opened
    assert replied(prompt, "an answer", asked=off)[:2] == ("", "an answer")


def test_a_prompt_that_opens_the_thinking_itself(hub_folders: Callable[[str], Path], tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(hub_folders("qwen3"), tmp_path / "opened"))
    template = (
        "{% for m in messages %}{% set c = m.content.split('</think>')[-1].lstrip() if m.role == 'assistant' "
        "else m.content %}<|im_start|>{{ m.role }}\n{{ c }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template)
    prompt = folder_prompt(folder, 10**6, complete=False)
    assert isinstance(prompt, ChatPrompt)
    assert prompt.thinks == "always"
    thought, text, end, _ = replied(prompt, "the fox\n</think>\n\nan answer")
    assert (thought, text) == ("the fox", "an answer")
    reply = Message(ASSISTANT, (Thought(thought, end.thought_ids), Text(text, end.token_ids)))
    assert list(prompt.ask([*HELLO, reply]).begun) == written(prompt, "the fox\n</think>\n\nan answer")
    # An answer of another model is gone on with as an answer.
    other = prompt.ask([*HELLO, Message.of_text(ASSISTANT, "an")])
    assert replied(prompt, " answer", asked=other)[:2] == ("", " answer")
    later = [*HELLO, reply, Message.of_text(USER, "two")]
    assert "fox" not in prompt.tokenizer.decode(prompt.ids(later))


def test_a_template_that_knows_nothing_of_thinking_gets_no_thoughts(
    hub_folders: Callable[[str], Path],
) -> None:
    prompt = folder_prompt(hub_folders("qwen2"), 10**6, complete=False)
    assert prompt.thinks == "never"
    reply = Message(ASSISTANT, (Thought("fox", (1, 2)), Text("an answer")))
    chat = [*HELLO, reply]
    assert prompt.ids(chat) == prompt.ids([*HELLO, Message.of_text(ASSISTANT, "an answer")])


@pytest.mark.parametrize("backend", ["native", "huggingface"])
def test_a_model_thinks_within_its_budget_whatever_runs_it(
    hub_folders: Callable[[str], Path], backend: str
) -> None:
    model = qwenchat.load(hub_folders("qwen3"), device="cpu", dtype="float32", backend=backend)
    assert model.thinks == "switch"
    opened = [*HELLO, Message(ASSISTANT, (Thought("fox"), Text("")))]  # whatever it writes is thought
    events = list(model.chat(opened, temperature=0, think_tokens=12, max_new_tokens=140))
    thought = "".join(event.thought for event in events if isinstance(event, ThoughtDelta))
    end = events[-1]
    assert isinstance(end, ReplyEnd)
    assert thought.endswith("directly now.")
    assert end.usage.completion_tokens <= 140
    ids = model.prompt_ids(opened) + list(end.thought_ids or ())
    rest = len(end.token_ids or ())
    assert list(model.generate(ids, temperature=0, max_new_tokens=rest)) == list(end.token_ids or ())

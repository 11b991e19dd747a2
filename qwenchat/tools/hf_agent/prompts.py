"""The agent's prompts, and the code in its replies. Pure: text in, text out.

Sources: ``prompts.py`` and ``agents.py`` of transformers.tools 4.29, and ``QWenAgent`` in the README of
QwenLM/Qwen, which asks a chat model: "Human:" and "Assistant:" are written otherwise for it, for they were
reserved words of Qwen's, and back in its reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from qwenchat.files.json_values import read_json

_DATA = Path(__file__).parents[2] / "data" / "hf_agent"
_BEGIN = "I will use the following"
_FENCES = ("```", "```py", "```python")
_WRITTEN = (("Human:", "_HUMAN_:"), ("Assistant:", "_ASSISTANT_:"))

RUN_STOPS = ("Task:",)
CHAT_STOPS = ("Human:", "=====")


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply of the model, taken apart.

    Attributes:
        explanation: what it says that it will do.
        code: that does it; None where there is none.
    """

    explanation: str
    code: str | None


@lru_cache(maxsize=1)
def descriptions() -> Mapping[str, str]:
    """The original's fourteen tools, in its order, and how they are described to the model."""
    return {str(name): str(text) for name, text in read_json(_DATA / "tools.json").items()}


def run_prompt(task: str, tools: Mapping[str, str]) -> str:
    """The prompt for a task by itself.

    Args:
        tools: names and descriptions.
    """
    return _template("run").replace("<<all_tools>>", _listed(tools)).replace("<<prompt>>", task)


def chat_prompt(task: str, tools: Mapping[str, str], history: str | None = None) -> str:
    """The prompt for a task in a chat.

    Args:
        history: what :func:`chat_history` gave after the task before; None for the first.
    """
    begin = _template("chat").replace("<<all_tools>>", _listed(tools)) if history is None else history
    return f"{begin}\nHuman: {task}\n\nAssistant: "


def chat_history(prompt: str, reply: str) -> str:
    """What the next task of a chat follows."""
    return f"{prompt}{reply.strip()}\n"


def for_qwen(text: str) -> str:
    """The text as Qwen is asked; :func:`from_qwen` undoes it."""
    for word, written in _WRITTEN:
        text = text.replace(word, written)
    return text


def from_qwen(text: str) -> str:
    """A reply as the agent's prompts have it."""
    for word, written in _WRITTEN:
        text = text.replace(written, word)
    return text


def without_stop(reply: str, stops: Sequence[str]) -> str:
    """A reply without a stop at its end."""
    for stop in stops:
        reply = reply.removesuffix(stop)
    return reply


def read_run(reply: str) -> Answer:
    """The answer to :func:`run_prompt`, whose last words the reply goes on from.

    Code is what follows "Answer:", which must stand there once.
    """
    parts = f"{_BEGIN} {reply}".split("Answer:")
    if len(parts) != 2:
        return Answer(parts[0].strip(), None)
    lines = parts[1].strip().split("\n")
    if lines[0] in _FENCES:
        lines = lines[1:]
    if lines[-1:] == ["```"]:
        lines = lines[:-1]
    return Answer(parts[0].strip(), "\n".join(lines))


def read_chat(reply: str) -> Answer:
    """The answer to :func:`chat_prompt`: code is the first fenced block, to its end or the reply's."""
    lines = reply.split("\n")
    fences = [number for number, line in enumerate(lines) if line.lstrip().startswith("```")]
    if not fences:
        return Answer(reply.strip(), None)
    begin, end = fences[0], fences[1] if len(fences) > 1 else len(lines)
    return Answer("\n".join(lines[:begin]).strip(), "\n".join(lines[begin + 1 : end]).strip())


def _listed(tools: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in tools.items())


@lru_cache(maxsize=2)
def _template(name: str) -> str:
    return (_DATA / f"{name}.txt").read_text(encoding="utf-8")

"""The agent: a task to the model, its code run, and in a chat the state that lives on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from qwenchat.tools.hf_agent import code, prompts
from qwenchat.tools.hf_agent.prompts import Answer
from qwenchat.tools.hf_agent.providers import Provider


class Complete(Protocol):
    """Asks the model."""

    def __call__(self, prompt: str, stops: tuple[str, ...]) -> str:
        """The reply to one user turn, up to a stop."""


@dataclass(slots=True)
class Agent:
    """A model with the fourteen tools.

    Args:
        complete: asks the model.
        tools: what answers each of them.
        state: the variables that the code finds.

    Attributes:
        history: what the next task of the chat follows; None at its beginning.
    """

    complete: Complete
    tools: Mapping[str, Provider]
    state: dict[str, Any] = field(default_factory=dict)
    history: str | None = None

    def plan(self, task: str, mode: Literal["run", "chat"]) -> Answer:
        """Asks the model how it would do a task."""
        described = prompts.descriptions()
        chats = mode == "chat"
        stops = prompts.CHAT_STOPS if chats else prompts.RUN_STOPS
        prompt = (
            prompts.chat_prompt(task, described, self.history)
            if chats
            else prompts.run_prompt(task, described)
        )
        written = tuple(map(prompts.for_qwen, stops))
        reply = prompts.without_stop(self.complete(prompts.for_qwen(prompt), written), written)
        reply = prompts.from_qwen(reply)
        if not chats:
            return prompts.read_run(reply)
        self.history = prompts.chat_history(prompt, reply)
        return prompts.read_chat(reply)

    def run(self, planned: str, *, told: Callable[[str], None] = lambda name: None) -> code.Outcome:
        """Runs the code of a plan; variables live on in ``state``.

        Args:
            told: hears the name of each tool before it is called.
        """

        def heard(name: str, provider: Provider) -> Provider:
            def call(*values: Any, **named: Any) -> Any:
                told(name)
                return provider(*values, **named)

            return call

        tools = {name: heard(name, provider) for name, provider in self.tools.items()}
        return code.run(planned, tools, self.state)

    def forget(self) -> None:
        """Begins a new chat."""
        self.history = None
        self.state.clear()

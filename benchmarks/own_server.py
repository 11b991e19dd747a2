"""Our engine as a child process that answers requests: our side of ``benchmarks.llama_cpp``.

Speaks the protocol that ``llama_cpp_server`` describes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.llama_cpp_server import Message, arrivals, random_prompt, serve
from qwenchat.engine.sampling import TokenChooser
from qwenchat.errors import QwenchatError

if TYPE_CHECKING:
    from qwenchat.backends.native.backend import NativeBackend


class Own:
    """Our engine: loads one checkpoint on the CPU and generates with it."""

    def __init__(self) -> None:
        self._backend: NativeBackend | None = None

    def answer(self, request: Message) -> Message:
        """The answer to a request; an error of ours keeps its words and its hint."""
        try:
            return self._answer(request)
        except QwenchatError as error:
            return {"error": error.message, "hint": error.hint}

    def _answer(self, request: Message) -> Message:
        do = request["do"]
        if do == "load":
            return self._load(request)
        if do == "generate" and self._backend is not None:
            return self._generate(self._backend, request)
        if do == "edit" and self._backend is not None:
            return self._edit(self._backend, request)
        return {"error": f"cannot do {do}"}

    def _load(self, request: Message) -> Message:
        from qwenchat.backends.load import load
        from qwenchat.backends.native.backend import NativeBackend

        backend = load(
            request["model"],
            backend="native",
            device="cpu",
            dtype=request["dtype"],
            context=request["context"],
            threads=request.get("threads"),
            # A model goes on with random tokens by repeating itself: what guesses gain there is no decoding.
            prompt_lookup="off",
        )
        assert isinstance(backend, NativeBackend)
        self._backend = backend
        return {"description": backend.description}

    def _generate(self, backend: NativeBackend, request: Message) -> Message:
        from qwenchat.engine.sampling import SamplingParams

        engine = backend.engine
        prompt = random_prompt(request, engine.runner.vocab_size)
        greedy = SamplingParams(temperature=0.0)
        return arrivals(
            lambda: engine.generate(prompt, greedy, max_new_tokens=request["tokens"], stop_ids=())
        )

    def _edit(self, backend: NativeBackend, request: Message) -> Message:
        """Says the prompt again with some of its tokens changed, whatever the model would have said."""
        from qwenchat.engine.sampling import SamplingParams

        engine, greedy = backend.engine, SamplingParams(temperature=0.0)
        runner, mode = engine.runner, engine.prompt_lookup
        text = random_prompt(request, runner.vocab_size)
        script = list(text)
        for change in range(request["changes"]):
            place = (2 * change + 1) * len(script) // (2 * request["changes"])
            script[place] = (script[place] + 1) % runner.vocab_size
        chooser = runner.chooser
        runner.chooser = lambda params, ids, drawn: Scripted(chooser(params, ids, drawn), script, drawn)
        engine.prompt_lookup = request["prompt_lookup"]
        try:
            return arrivals(lambda: engine.generate(text, greedy, max_new_tokens=len(script), stop_ids=()))
        finally:
            engine.prompt_lookup = mode
            del runner.chooser


class Scripted(TokenChooser):
    """Chooses, and then says what a script says.

    Args:
        chooser: what would choose.
        script: the reply.
        drawn: how much of it was said.
    """

    def __init__(self, chooser: TokenChooser, script: Sequence[int], drawn: int) -> None:
        self._chooser = chooser
        self._rest = iter(script[drawn:])

    @property
    def takes_bounds(self) -> bool:
        """As of what would choose."""
        return bool(getattr(self._chooser, "takes_bounds", False))

    def __call__(self, logits: Any) -> int:
        """The next token of the script."""
        self._chooser(logits)
        return next(self._rest)


if __name__ == "__main__":
    serve(Own().answer)

"""Our engine as a child process that answers requests: our side of ``benchmarks.llama_cpp``.

Speaks the protocol that ``llama_cpp_server`` describes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.llama_cpp_server import Message, arrivals, random_prompt, serve
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


if __name__ == "__main__":
    serve(Own().answer)

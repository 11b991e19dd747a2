"""llama.cpp as a child process that answers requests: the peer's side of ``benchmarks.llama_cpp``.

Owns the protocol between the benchmark and an engine, and llama.cpp's low-level calls. Stands alone: it
imports the standard library and llama_cpp with its numpy, so that a Python without qwenchat runs this file.

A request is a line of JSON on stdin, its answer a line of JSON on stdout; one is worked on at a time.

    {"do": "about"}                                       {"version": "llama-cpp-python 0.3.36", ...}
    {"do": "load", "model": PATH, "context": 1152, ...}   {"description": "..."}
    {"do": "generate", "prompt": 64, "tokens": 3, "seed": 7}
                                                          {"arrivals": [0.1, 0.2, 0.3]}
    {"do": "likeliest", "ids": [1, 2, 3]}                 {"tokens": [4, 4, 9]}
    {"do": "continue", "ids": [1, 2, 3], "tokens": 2}     {"tokens": [9, 7]}
    {"do": "logits", "ids": [1, 2, 3]}                    {"logits": [0.1, ...]}
    {"do": "tokenise", "model": PATH, "texts": ["a"]}     {"ids": [[3]]}
    {"do": "requantise", "source": PATH, "target": PATH, "threads": 2}
                                                          {}

The likeliest tokens are those after each of the ids, logits those after all. A file is requantised to 8 bits,
or with ``"floats": true`` to float32. A generation is greedy, after a prompt of random ids
that the seed draws, with nothing of it in the KV cache beforehand; ``arrivals`` are the seconds at which its
tokens came, counted from where it began. What cannot be done is answered with ``{"error": "...", "hint":
"..."}``. When stdin closes the process ends at once, whatever it is doing.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import queue
import random
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

Message = dict[str, Any]
INSTALL = "pip install 'qwenchat[peer]'"
BATCH = 512
"""Tokens that llama.cpp takes at a time."""


def serve(answer: Callable[[Message], Message]) -> None:
    """Answers requests until stdin closes; never returns.

    Args:
        answer: makes the answer to a request. What it raises becomes the answer's error, and its traceback
            goes to stderr.
    """
    # Whatever a library prints goes to stderr: stdout has the answers and nothing else.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    while True:
        request = requests.get()
        try:
            reply = answer(request)
        except Exception as error:  # noqa: BLE001 - the other side tells it
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers, flush=True)


def _read(requests: queue.SimpleQueue[Message]) -> None:
    """Queues requests; ends the process when the other side is gone."""
    for line in sys.stdin:
        requests.put(json.loads(line))
    os._exit(0)


def random_prompt(request: Message, vocabulary: int) -> list[int]:
    """The ids of a "generate" request's prompt, each below ``vocabulary``."""
    numbers = random.Random(request["seed"])  # noqa: S311 - no secret
    return numbers.choices(range(vocabulary), k=request["prompt"])


def arrivals(tokens: Callable[[], Iterator[int]]) -> Message:
    """Starts a generation and tells when each of its tokens came."""
    started = perf_counter()
    return {"arrivals": [perf_counter() - started for _ in tokens()]}


class Peer:
    """llama.cpp: loads one GGUF file on the CPU and generates with it."""

    def __init__(self) -> None:
        self._library: Any = None
        self._model: _Model | None = None

    def answer(self, request: Message) -> Message:
        """The answer to a request."""
        if self._library is None:
            try:
                self._library = _import_library()
            except ImportError as error:
                return {"error": f"{sys.executable} has no llama_cpp ({error})", "hint": INSTALL}
            self._library.llama_backend_init()
        do = request["do"]
        if do == "about":
            return {"version": f"llama-cpp-python {self._library.__version__}", "build": self._build()}
        if do == "requantise":
            return self._requantise(request)
        if do == "tokenise":
            return {"ids": self._tokenise(request)}
        if do == "load":
            self._model = _Model(self._library, request)
            return {"description": self._model.description}
        if do == "generate" and self._model is not None:
            model = self._model
            prompt = random_prompt(request, model.vocabulary)
            return arrivals(lambda: model.generate(prompt, request["tokens"]))
        if do == "likeliest" and self._model is not None:
            return {"tokens": list(self._model.likeliest(request["ids"]))}
        if do == "continue" and self._model is not None:
            return {"tokens": list(self._model.generate(request["ids"], request["tokens"]))}
        if do == "logits" and self._model is not None:
            return {"logits": self._model.logits(request["ids"])}
        return {"error": f"cannot do {do}"}

    def _build(self) -> str:
        """What llama.cpp was built for: "AVX2, FMA, OPENMP"."""
        features = self._library.llama_print_system_info().decode().partition(":")[2]
        return ", ".join(f.partition("=")[0].strip() for f in features.split("|") if "= 1" in f)

    def _tokenise(self, request: Message) -> list[list[int]]:
        """The ids of texts in which no control token is meant; of the model only the vocabulary is read."""
        library = self._library
        options = library.llama_model_default_params()
        options.vocab_only = True
        model = library.llama_model_load_from_file(os.fsencode(request["model"]), options)
        if not model:
            raise ValueError(f"llama.cpp cannot load {request['model']}")
        vocabulary, ids = library.llama_model_get_vocab(model), []
        for text in request["texts"]:
            data = text.encode()
            room = (library.llama_token * (len(data) + 8))()
            count = library.llama_tokenize(vocabulary, data, len(data), room, len(room), False, False)
            ids.append(room[:count])
        library.llama_model_free(model)
        return ids

    def _requantise(self, request: Message) -> Message:
        """Writes a GGUF file anew, all its matrices in Q8_0 or float32."""
        library = self._library
        options = library.llama_model_quantize_default_params()
        floats = request.get("floats")
        options.ftype = library.LLAMA_FTYPE_ALL_F32 if floats else library.LLAMA_FTYPE_MOSTLY_Q8_0
        options.allow_requantize = True
        options.nthread = request["threads"]
        status = library.llama_model_quantize(
            os.fsencode(request["source"]), os.fsencode(request["target"]), options
        )
        return {} if status == 0 else {"error": f"llama_model_quantize says {status}"}


class _Model:
    """A loaded model with its KV cache, in float16."""

    def __init__(self, library: Any, request: Message) -> None:
        self._library = library
        options = library.llama_model_default_params()
        options.n_gpu_layers = 0
        self._model = library.llama_model_load_from_file(os.fsencode(request["model"]), options)
        if not self._model:
            raise ValueError(f"llama.cpp cannot load {request['model']}")
        self._context = library.llama_init_from_model(self._model, self._settings(request))
        if not self._context:
            raise ValueError(f"llama.cpp cannot make a context of {request['context']} tokens")
        self._batch = library.llama_batch_init(BATCH, 0, 1)
        self.vocabulary: int = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self._model))

    def _settings(self, request: Message) -> Any:
        library = self._library
        settings = library.llama_context_default_params()
        settings.n_ctx = request["context"]
        settings.n_batch = settings.n_ubatch = BATCH
        settings.n_threads = settings.n_threads_batch = request["threads"]
        settings.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_ENABLED
        settings.type_k = settings.type_v = library.GGML_TYPE_F16
        return settings

    @property
    def description(self) -> str:
        """What it is, in llama.cpp's words, and how large: "qwen 7B Q8_0, 8.21 GB"."""
        name = ctypes.create_string_buffer(128)
        self._library.llama_model_desc(self._model, name, len(name))
        return f"{name.value.decode()}, {self._library.llama_model_size(self._model) / 1e9:.2f} GB"

    def generate(self, ids: list[int], tokens: int) -> Iterator[int]:
        """So many of the likeliest tokens after ``ids``."""
        self._read(ids)
        for position in range(len(ids), len(ids) + tokens):
            token = self._likeliest()
            yield token
            if position + 1 < len(ids) + tokens:
                self._decode([token], position, last=True)

    def logits(self, ids: list[int]) -> list[float]:
        """After the last of ``ids``."""
        self._read(ids)
        return list(map(float, self._logits()))

    def likeliest(self, ids: list[int]) -> Iterator[int]:
        """The likeliest token after each of ``ids``."""
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)
        for position, token in enumerate(ids):
            self._decode([token], position, last=True)
            yield self._likeliest()

    def _read(self, ids: list[int]) -> None:
        """Runs ids from the beginning."""
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)
        for start in range(0, len(ids), BATCH):
            self._decode(ids[start : start + BATCH], start, last=start + BATCH >= len(ids))

    def _decode(self, ids: list[int], position: int, *, last: bool) -> None:
        """Runs tokens that begin at a position; logits are made of the last alone, and where it is asked."""
        batch = self._batch
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i] = token
            batch.pos[i] = position + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = 0
        batch.logits[len(ids) - 1] = int(last)
        status = self._library.llama_decode(self._context, batch)
        if status != 0:
            raise ValueError(f"llama_decode says {status}")

    def _likeliest(self) -> int:
        return int(self._logits().argmax())

    def _logits(self) -> Any:
        import numpy

        logits = self._library.llama_get_logits_ith(self._context, -1)
        return numpy.ctypeslib.as_array(logits, shape=(self.vocabulary,))


def _import_library() -> Any:
    """The package llama_cpp. By name: where it is not installed, a type checker need not miss it."""
    # This file's folder comes first in the path of its own process, and has a llama_cpp.py that is not it.
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]
    return importlib.import_module("llama_cpp")


if __name__ == "__main__":
    serve(Peer().answer)

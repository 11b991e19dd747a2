"""A checkpoint of the Hub, loaded by transformers: no network, no pickle, no code but transformers' own.

Owns the order of what happens on that way and what is told of each stage. Everything heavy is imported when a
model is loaded.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwenchat.backends.devices import pick_device, pick_dtype
from qwenchat.backends.huggingface.files import HubFiles, look, stored_tensors
from qwenchat.backends.huggingface.gguf_setting import stretch
from qwenchat.backends.huggingface.gptq import check_gptq, read_gptq
from qwenchat.backends.huggingface.readers import read_config, read_prompt, template_of, trying, where
from qwenchat.backends.huggingface.skeleton import attention_of, check_shapes, skeleton
from qwenchat.backends.request import (
    IMPORTING,
    LOADING,
    LoadRequest,
    QuietStage,
    pick_context,
    tell_no_system,
    tell_shortened,
    tell_unfit,
)
from qwenchat.backends.torch_import import open_torch_libraries
from qwenchat.errors import CheckpointError, Phrase, UsageError
from qwenchat.humanize import in_gib

if TYPE_CHECKING:
    import torch

    from qwenchat.backends.huggingface.backend import HuggingFaceBackend
    from qwenchat.backends.prompts.chat_prompt import ChatPrompt, TextPrompt
    from qwenchat.engine.generation_config import GenerationDefaults
    from qwenchat.engine.memory import Need


def load_huggingface(place: Path, request: LoadRequest) -> HuggingFaceBackend:
    """Loads the checkpoint in a folder, or a GGUF file.

    Raises:
        ModelError: it is unusable, or memory does not suffice.
        UsageError: the request has a value that it cannot have on this machine or with this model.
    """
    with _reading(place, request) as files:
        found = trying(Phrase("the model"), files, lambda: _look(files, request))
        request.progress(LOADING, None)
        model = _read_model(files, found, request)
    from qwenchat.backends.huggingface.backend import HuggingFaceBackend
    from qwenchat.backends.huggingface.runner import HubRunner
    from qwenchat.engine.generate import Engine

    tell_no_system(request, found.prompt.system)
    vocab_size = found.config.get_text_config().vocab_size
    number = str(found.dtype).removeprefix("torch.")
    kind = {"floats": "", "gptq": " GPTQ", "gguf": " GGUF"}[files.kind]
    runner = HubRunner(model, vocab_size=vocab_size, context=found.window)
    return HuggingFaceBackend(
        Engine(runner, context=found.window, prompt_lookup=request.prompt_lookup),
        found.prompt,
        found.defaults,
        name=request.name,
        description=f"{type(model).__name__}{kind}, {found.device} {number}, transformers",
        is_qwen2=str(found.config.model_type).startswith("qwen2"),
    )


def check_huggingface(place: Path, request: LoadRequest) -> str | None:
    """Goes the way of :func:`load_huggingface` up to the weights.

    Returns:
        The system prompt that the model has of itself; None where it has no place for one.

    Raises:
        QwenchatError: as loading it would.
    """
    with _reading(place, request) as files:
        return trying(Phrase("the model"), files, lambda: _look(files, request)).prompt.system


@dataclass(frozen=True, slots=True)
class _Found:
    """Everything known before a weight is read."""

    config: Any  # transformers' configuration
    prompt: ChatPrompt | TextPrompt
    defaults: GenerationDefaults
    device: torch.device
    dtype: torch.dtype
    window: int


def _look(files: HubFiles, request: LoadRequest) -> _Found:
    """Check what can be wrong before seconds go into the weights."""
    config = read_config(files)
    defaults = _read_defaults(files, config)
    tell_unfit(defaults, request)
    device = pick_device(request.device)
    dtype = _pick_dtype(request, device, config)
    if files.kind == "gptq":
        check_gptq(files, device)
    if not files.gguf:
        check_shapes(files, skeleton(files, config))
    window = _check_memory(files, config, device, dtype, request)
    prompt = read_prompt(files, config, complete=request.complete)  # which takes the longest
    return _Found(config, prompt, defaults, device, dtype, window)


@contextmanager
def _reading(place: Path, request: LoadRequest) -> Iterator[HubFiles]:
    """The checkpoint, ready to be read by transformers."""
    files = look(place)
    if request.kv_cache != "auto":
        raise UsageError(
            "--kv-cache {kind} is for the native backend alone",
            "leave out --kv-cache: {name} is loaded by transformers",
            in_chat="start qwenchat without --kv-cache: {name} is loaded by transformers",
            kind=request.kv_cache,
            name=request.name,
        )
    if not request.complete:
        template_of(files)
    request.progress(IMPORTING, None)
    open_torch_libraries()
    with _quiet(), ExitStack() as stack:
        if files.head:
            from qwenchat.backends.huggingface.gguf import gguf_reading

            told = partial(request.progress, LOADING)
            stack.enter_context(gguf_reading(files.head.file, told))
        yield files


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing that transformers says reaches the terminal. What matters of it, is told as errors here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from huggingface_hub.utils.tqdm import disable_progress_bars
        from transformers.utils import logging as theirs

        theirs.set_verbosity(logging.CRITICAL)
        theirs.disable_progress_bar()
        disable_progress_bars()
        yield


def _read_defaults(files: HubFiles, config: Any) -> GenerationDefaults:
    from qwenchat.engine.generation_config import read_generation_defaults
    from qwenchat.engine.gguf_config import sampling_defaults

    head = files.head
    defaults = read_generation_defaults(files.folder) if head is None else sampling_defaults(head)
    eos = config.get_text_config().eos_token_id
    ends = [i for i in (eos if isinstance(eos, list) else [eos]) if isinstance(i, int)]
    return replace(defaults, eos_token_ids=(*defaults.eos_token_ids, *ends))


def _pick_dtype(request: LoadRequest, device: torch.device, config: Any) -> torch.dtype:
    import torch

    own: torch.dtype | None = config.get_text_config().dtype
    if request.dtype == "auto" and device.type == "cuda" and own in (torch.float16, torch.bfloat16):
        # Not always float16, in which a model made in bfloat16 may overflow.
        return own
    return pick_dtype(request.dtype, device)


# --- memory --------------------------------------------------------------------------------------


def _check_memory(
    files: HubFiles, config: Any, device: torch.device, dtype: torch.dtype, request: LoadRequest
) -> int:
    """The context window, for which memory suffices."""
    from qwenchat.engine.memory import check_memory, shortened

    text = config.get_text_config()
    trained = getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None) or 2048
    window = pick_context(request.context, trained, trained)
    needed = _need(files, config, device, dtype, window)
    if request.context is None and request.settle:
        needed = shortened(needed, device)
        if needed.context < window:
            tell_shortened(request, needed.context, window)
            window = needed.context
    free = check_memory(needed, device=device, dtype=dtype)
    line = Phrase(
        "needs {needed} GiB, {free} GiB free",
        needed=in_gib(needed.total),
        free=in_gib(free),
    )
    request.progress(QuietStage(line), None)
    return window


def _need(files: HubFiles, config: Any, device: torch.device, dtype: torch.dtype, context: int) -> Need:
    from qwenchat.engine.memory import CUDA_RUNTIME, Need

    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    if files.kind == "gptq":
        weights, reading = sum(entry.end - entry.begin for _, entry in stored_tensors(files.folder)), 0
    elif files.kind == "floats":
        weights, reading = (
            sum(prod(entry.shape) for _, entry in stored_tensors(files.folder)) * dtype.itemsize,
            0,
        )
    else:
        numbers = sum(p.numel() for p in skeleton(files, config).parameters())
        weights, reading = numbers * dtype.itemsize, numbers * 4  # made float32 before it is copied
    working = CUDA_RUNTIME if device.type == "cuda" else 0
    return Need(
        weights, reading, working, 2 * text.num_hidden_layers * heads * width * dtype.itemsize, context
    )


# --- the model -----------------------------------------------------------------------------------


def _read_model(files: HubFiles, found: _Found, request: LoadRequest) -> Any:
    """The model of transformers, on its device."""
    import torch

    from qwenchat.engine.cpu.cores import default_threads

    if found.device.type == "cpu":
        torch.set_num_threads(request.threads or default_threads())
    read = (
        (lambda: read_gptq(files, found.device, found.dtype))
        if files.kind == "gptq"
        else (lambda: _read_floats(files, found))
    )
    return trying(Phrase("the model"), files, read)


def _read_floats(files: HubFiles, found: _Found) -> Any:
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        **where(files),
        config=found.config,
        dtype=found.dtype,
        use_safetensors=True,
        attn_implementation=attention_of(found.config),
        output_loading_info=True,
    )
    model, info = loaded
    if missing := info["missing_keys"]:  # transformers makes them up, at random
        raise CheckpointError(
            "{name}: the tensor {tensor} is missing",
            "the download is not complete; fetch it again",
            name=files.name,
            tensor=min(missing),
        )
    if files.head:
        stretch(files.head, model)
    return model.to(found.device)

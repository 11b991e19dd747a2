"""Chatting through transformers: the events, options, ends and errors that every backend has."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import qwenchat
from qwenchat.backends.huggingface import runner
from qwenchat.backends.huggingface.backend import HuggingFaceBackend
from qwenchat.chat import turn
from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import GenerationOptions, Message, PrefillProgress, ReplyEnd, TextDelta
from qwenchat.chat.parts import Role
from qwenchat.cli import app
from qwenchat.errors import (
    CheckpointError,
    ContextLengthError,
    InsufficientMemoryError,
    UsageError,
)
from qwenchat.i18n.language import tr
from qwenchat.sessions.store import SessionStore
from tests.chats import user

HELLO = [{"role": "user", "content": "hello"}]


def load(folder: Path, **options: Any) -> HuggingFaceBackend:
    model = qwenchat.load(folder, device="cpu", backend="huggingface", **{"dtype": "float32", **options})
    assert isinstance(model, HuggingFaceBackend)
    return model


@pytest.fixture(scope="module")
def loaded(hub_folders: Callable[[str], Path]) -> HuggingFaceBackend:
    return load(hub_folders("qwen2"))


@pytest.fixture
def model(loaded: HuggingFaceBackend) -> Iterator[HuggingFaceBackend]:
    """With nothing in its cache."""
    loaded.engine.forget()
    return loaded


def reply(model: HuggingFaceBackend, messages: Any = HELLO, **options: Any) -> tuple[str, ReplyEnd]:
    *events, end = model.chat(messages, **options)
    assert isinstance(end, ReplyEnd)
    return "".join(event.text for event in events), end


def theirs(folder: Path, prompt: list[int], **options: Any) -> list[int]:
    """What generate() of transformers makes of a prompt."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    model = AutoModelForCausalLM.from_pretrained(folder)
    # Set, not passed: where what is passed is a default, the checkpoint's own do_sample would count.
    model.generation_config = GenerationConfig(do_sample=False, pad_token_id=0, **options)
    ids = model.generate(torch.tensor([prompt]))
    return list(ids[0, len(prompt) :].tolist())


@pytest.mark.parametrize("style", ["qwen2", "qwen3", "llama3", "gemma"])
def test_greedy_tokens_are_those_of_transformers_own_generate(
    hub_folders: Callable[[str], Path], style: str
) -> None:
    model = load(hub_folders(style))
    prompt = model.tokenizer.encode("The quick brown fox jumps over the lazy dog.")
    ours = list(model.generate(prompt, temperature=0, max_new_tokens=30, ignore_eos=True))
    assert ours == theirs(hub_folders(style), prompt, max_new_tokens=30)
    penalised = list(
        model.generate(prompt, temperature=0, repetition_penalty=1.3, max_new_tokens=30, ignore_eos=True)
    )
    assert penalised == theirs(hub_folders(style), prompt, repetition_penalty=1.3, max_new_tokens=30)


@pytest.mark.parametrize("kind", ["mistral", "gemma3_text"])
def test_a_sliding_window_changes_neither_the_tokens_nor_what_can_be_reused(
    write_hub_model: Callable[..., Path],
    styles: dict[str, Any],
    tmp_path: Path,
    kind: str,
) -> None:
    folder = write_hub_model(tmp_path / kind, replace(styles["qwen2"], model=kind), sliding_window=16)
    model = load(folder)
    model.engine.runner.chunk = 20
    prompt = model.tokenizer.encode("The quick brown fox jumps over the lazy dog. " * 3)
    options: dict[str, Any] = {"temperature": 0, "ignore_eos": True}
    first = list(model.generate(prompt, max_new_tokens=30, **options))
    assert first == theirs(folder, prompt, max_new_tokens=30)
    turned_off = [*prompt, *first[:10], *prompt[:5]]
    warm = list(model.generate(turned_off, max_new_tokens=15, **options))
    assert model.engine.cache.ids[: len(prompt)] == prompt
    model.engine.forget()
    assert list(model.generate(turned_off, max_new_tokens=15, **options)) == warm


def test_events_are_progress_text_and_one_end_with_the_usage(model: HuggingFaceBackend) -> None:
    *events, end = model.chat(HELLO, temperature=1.0, seed=5, max_new_tokens=20)
    assert isinstance(end, ReplyEnd)
    assert all(isinstance(event, (TextDelta, PrefillProgress)) for event in events)
    assert all(event.text for event in events if isinstance(event, TextDelta))
    assert end.finish_reason == "length"
    assert end.usage.completion_tokens == 20
    assert end.usage.prompt_tokens == model.count_tokens([Message.of_text(Role.USER, "hello")])
    assert end.timings.first_token > 0
    assert end.seed == 5
    assert end.token_ids is not None
    assert len(end.token_ids) == 20


def test_a_seed_gives_the_same_reply_again_and_another_one_another(model: HuggingFaceBackend) -> None:
    options = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 20}
    first, _ = reply(model, seed=3, **options)
    torch.manual_seed(99)  # whoever else draws
    assert reply(model, seed=3, **options)[0] == first
    model.engine.forget()
    assert reply(model, seed=3, **options)[0] == first
    assert reply(model, seed=4, **options)[0] != first


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_the_filters_that_leave_the_likeliest_token_leave_it(
    model: HuggingFaceBackend, narrow: dict[str, float]
) -> None:
    greedy, _ = reply(model, temperature=0, max_new_tokens=15)
    assert reply(model, temperature=2.0, max_new_tokens=15, **narrow)[0] == greedy


def test_the_checkpoints_defaults_hold_where_the_caller_says_nothing(
    hub_folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(hub_folders("qwen2"), tmp_path / "greedy")
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": False, "max_new_tokens": 7}))
    _, end = reply(load(folder, context=64))
    assert end.seed is None  # nothing was drawn
    # Its max_new_tokens is not a default: replies are as long as the context leaves.
    assert end.usage.prompt_tokens + end.usage.completion_tokens == 64 or end.finish_reason == "stop"


def test_every_end_token_of_the_checkpoint_ends_a_reply(
    hub_folders: Callable[[str], Path], tmp_path: Path
) -> None:
    model = load(hub_folders("qwen2"))
    _, end = reply(model, temperature=0, max_new_tokens=10)
    assert end.token_ids is not None
    folder = shutil.copytree(hub_folders("qwen2"), tmp_path / "ends")
    ends = {"eos_token_id": [model.tokenizer.encode("x")[0], end.token_ids[5]]}
    (folder / "generation_config.json").write_text(json.dumps(ends))
    _, cut = reply(load(folder), temperature=0, max_new_tokens=10)
    assert cut.finish_reason == "stop"
    assert cut.token_ids == end.token_ids[: end.token_ids.index(end.token_ids[5])]


def test_the_end_of_a_turn_as_the_template_has_it_ends_a_reply(
    hub_folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Gemma's <end_of_turn> is not its eos.
    model = load(hub_folders("gemma"))
    asked: list[set[int]] = []
    generate = model.engine.generate

    def spy(ids: Any, params: Any, **options: Any) -> Any:
        asked.append(set(options["stop_ids"]))
        return generate(ids, params, **options)

    monkeypatch.setattr(model.engine, "generate", spy)
    reply(model, max_new_tokens=1)
    ends = {model.tokenizer._tokenizer.token_to_id(form) for form in ("<end_of_turn>", "<eos>")}
    assert asked == [ends]


def test_a_stop_string_ends_the_reply_and_is_not_in_it(model: HuggingFaceBackend) -> None:
    whole, _ = reply(model, temperature=0, max_new_tokens=60)
    stop = whole[5:8]
    text, end = reply(model, temperature=0, max_new_tokens=60, stop=(stop,))
    assert text == whole[: whole.index(stop)]
    assert end.finish_reason == "stop"
    assert end.token_ids is None
    assert reply(model, max_new_tokens=1)  # the engine is free


def test_a_reply_ends_before_a_text_that_begins_a_turn_so_that_the_next_question_can_be_asked(
    hub_folders: Callable[[str], Path],
) -> None:
    model = load(hub_folders("llama2"))
    decoder = model._prompt.decoder()
    said = "".join(decoder.push(i) for i in model.tokenizer.encode("one [INST] two")) + decoder.finish()
    assert decoder.stopped
    assert said == "one "
    chat = [
        Message.of_text(Role.USER, "a"),
        Message.of_text(Role.ASSISTANT, said),
        Message.of_text(Role.USER, "b"),
    ]
    assert model.prompt_ids(chat)
    assert not load(hub_folders("qwen2"))._prompt.plain_borders


def test_a_cancel_ends_within_a_token_and_keeps_the_part(model: HuggingFaceBackend) -> None:
    cancel = threading.Event()
    seen = []
    for event in model.chat(HELLO, temperature=0, cancel=cancel):
        if isinstance(event, TextDelta):
            seen.append(event)
            cancel.set()
    assert isinstance(event, ReplyEnd)
    assert event.finish_reason == "cancelled"
    assert len(seen) <= 2
    # What comes after is as if nothing had happened.
    after, _ = reply(model, temperature=0, max_new_tokens=12)
    model.engine.forget()
    assert reply(model, temperature=0, max_new_tokens=12)[0] == after


@pytest.mark.parametrize("layers", [1, 4, 5])
def test_a_cancel_is_heard_between_two_layers_of_a_prefill(
    model: HuggingFaceBackend, monkeypatch: pytest.MonkeyPatch, layers: int
) -> None:
    monkeypatch.setattr(model.engine.runner, "chunk", 32)
    long = [{"role": "user", "content": "the quick brown fox " * 20}]
    cancel = threading.Event()
    passed = []

    def count(*args: object) -> None:
        passed.append(args)
        if len(passed) == layers:
            cancel.set()

    hooks = [layer.register_forward_hook(count) for layer in model.engine.runner.model.model.layers]
    *_, end = model.chat(long, temperature=0, max_new_tokens=5, cancel=cancel)
    for hook in hooks:
        hook.remove()
    assert len(passed) == layers
    assert isinstance(end, ReplyEnd)
    assert (end.finish_reason, end.usage.completion_tokens) == ("cancelled", 0)
    # The layers' caches, of unequal lengths now, serve the next prompt as if it were the first.
    after, again = reply(model, long, temperature=0, max_new_tokens=12)
    assert again.usage.reused_tokens == layers // 2 * 32
    model.engine.forget()
    assert reply(model, long, temperature=0, max_new_tokens=12)[0] == after


def test_the_next_turn_runs_only_what_is_new(model: HuggingFaceBackend) -> None:
    chat = [Message.of_text(Role.USER, "hello")]
    _, end = reply(model, chat, temperature=0, max_new_tokens=6)
    longer = [*chat, Message.of_text(Role.ASSISTANT, "fine"), Message.of_text(Role.USER, "and now?")]
    warm, second = reply(model, longer, temperature=0, max_new_tokens=10)
    # Up to the reply both prompts are one.
    assert second.usage.reused_tokens == end.usage.prompt_tokens
    model.engine.forget()
    cold, fresh = reply(model, longer, temperature=0, max_new_tokens=10)
    assert fresh.usage.reused_tokens == 0
    assert warm == cold


def test_a_reply_that_broke_off_is_gone_on_with_to_the_token(model: HuggingFaceBackend) -> None:
    question = Message.of_text(Role.USER, "hello")
    whole, _ = reply(model, [question], temperature=0, max_new_tokens=30)
    begun, end = reply(model, [question], temperature=0, max_new_tokens=11)
    rest, more = reply(
        model,
        [question, Message.of_text(Role.ASSISTANT, begun, end.token_ids)],
        temperature=0,
        max_new_tokens=19,
    )
    assert begun + rest == whole
    assert more.usage.reused_tokens >= end.usage.prompt_tokens


def test_a_session_keeps_a_replys_tokens_and_continue_goes_on_with_them(
    model: HuggingFaceBackend, tmp_path: Path
) -> None:
    session = SessionStore(tmp_path / "sessions").create(Conversation("Be brief."))
    chat = session.conversation
    chat.ask(user("hello"), turn.now())

    def go_on(tokens: int) -> None:
        options = GenerationOptions(temperature=0, max_new_tokens=tokens)
        fit = turn.fit_turns(chat, model, options)
        list(turn.stream_reply(chat, fit.messages, model, options, session.save, threading.Event()))

    go_on(9)
    assert turn.resumable(chat)
    session.close()
    with closing(SessionStore(tmp_path / "sessions").open(session.id)) as again:
        session, chat = again, again.conversation
        go_on(21)
        kept = chat.path()[-1].message
    asked = [Message.of_text(Role.SYSTEM, "Be brief."), Message.of_text(Role.USER, "hello")]
    whole, end = reply(model, asked, temperature=0, max_new_tokens=30)
    assert (kept.text, kept.token_ids) == (whole, end.token_ids)


def test_what_has_no_room_is_an_error_and_not_cut(model: HuggingFaceBackend) -> None:
    with pytest.raises(ContextLengthError, match="512"):
        model.chat([{"role": "user", "content": "x" * 600}])


def test_a_reply_ends_with_the_context(hub_folders: Callable[[str], Path]) -> None:
    model = load(hub_folders("qwen2"), context=48)
    _, end = reply(model, temperature=1.0, seed=2)
    assert model.context == 48
    assert end.finish_reason in ("length", "stop")
    assert end.usage.prompt_tokens + end.usage.completion_tokens <= 48


@pytest.mark.parametrize("context", [0, 513])
def test_a_context_beyond_the_model_is_refused(hub_folders: Callable[[str], Path], context: int) -> None:
    with pytest.raises(UsageError, match=r"--context .* out of range; this model takes 1 to 512"):
        load(hub_folders("qwen2"), context=context)


@pytest.mark.parametrize("options", [{"top_p": 2}, {"temperature": -1}, {"max_new_tokens": 0}, {"seed": -3}])
def test_an_option_out_of_range_is_refused(model: HuggingFaceBackend, options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        list(model.chat(HELLO, **options))


def test_logits_after_a_cancel_are_not_cancelled(model: HuggingFaceBackend) -> None:
    cancel = threading.Event()
    cancel.set()
    *_, end = model.chat(HELLO, cancel=cancel)
    assert isinstance(end, ReplyEnd)
    assert end.finish_reason == "cancelled"
    assert model.logits([5, 6, 7]).shape[0] == 3


def test_a_cancel_is_heard_in_every_layer_of_a_mixture_of_experts(
    write_hub_model: Callable[..., Path], styles: dict[str, Any], tmp_path: Path
) -> None:
    # The longest list of modules that it has are its experts.
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    model = load(write_hub_model(tmp_path / "moe", replace(styles["qwen2"], model="qwen3_moe"), **experts))
    assert list(runner._layers(model.engine.runner.model)) == list(model.engine.runner.model.model.layers)


def test_more_memory_than_is_free_is_refused_before_the_weights_are_read(
    hub_folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwenchat.engine import memory

    monkeypatch.setattr(memory, "available_bytes", lambda device: 10**4)
    stages: list[str] = []
    with pytest.raises(InsufficientMemoryError, match=r"not enough memory on cpu: needs 0\.0 GiB in float32"):
        load(hub_folders("qwen2"), progress=lambda stage, fraction: stages.append(stage))
    assert "loading weights" not in stages


def test_a_context_for_which_memory_does_not_suffice_is_shortened_unless_asked_for(
    write_hub_model: Callable[..., Path],
    styles: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from qwenchat.engine import memory

    folder = write_hub_model(tmp_path / "long", styles["qwen2"], max_position_embeddings=2**20)
    monkeypatch.setattr(memory, "available_bytes", lambda device: 2 * 2**20)
    told: list[str] = []
    model = load(folder, notice=told.append)
    assert 1024 <= model.context < 2**20
    assert told == [
        f"memory limits the context to {model.context} of {2**20} tokens",
    ]
    with pytest.raises(InsufficientMemoryError, match=r"--context .* would fit"):
        load(folder, context=2**20)
    with pytest.raises(InsufficientMemoryError):
        load(folder, settle=False)


def test_stages_are_told_as_for_every_model(hub_folders: Callable[[str], Path]) -> None:
    stages: list[str] = []
    load(hub_folders("qwen2"), progress=lambda stage, fraction: stages.append(stage))
    assert stages[0] == "importing torch"
    assert stages[-1] == "loading weights"
    assert "GiB free" in stages[-2]


def test_an_int8_cache_is_refused_not_ignored(hub_folders: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError, match="--kv-cache int8 is for the native backend alone"):
        load(hub_folders("qwen2"), kv_cache="int8")


def test_dtype_and_threads_are_as_asked(hub_folders: Callable[[str], Path]) -> None:
    before = torch.get_num_threads()
    try:
        model = load(hub_folders("qwen2"), dtype="bfloat16", threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert model.description == "Qwen2ForCausalLM, cpu bfloat16, transformers"
    assert next(model.engine.runner.model.parameters()).dtype == torch.bfloat16
    assert reply(model, temperature=0, max_new_tokens=3)


def test_a_model_without_a_system_prompt_says_so_once(hub_folders: Callable[[str], Path]) -> None:
    told: list[str] = []
    model = load(hub_folders("gemma"), notice=told.append)
    chat = [Message.of_text(Role.SYSTEM, "Be brief."), Message.of_text(Role.USER, "hello")]
    assert reply(model, chat, max_new_tokens=2)
    assert told == [tr("this model has no system prompts: yours is put before the first message")]


def test_a_closed_model_is_out_of_memory(hub_folders: Callable[[str], Path]) -> None:
    import gc
    import weakref

    model = load(hub_folders("qwen2"))
    reply(model, max_new_tokens=2)
    weights = weakref.ref(model.engine.runner.model)
    model.close()
    model.close()
    gc.collect()
    assert weights() is None


# --- the backend's name ------------------------------------------------------------------------


def test_a_backend_that_does_not_read_the_checkpoint_says_so(
    hub_folders: Callable[[str], Path], tiny_chat: Path
) -> None:
    with pytest.raises(
        CheckpointError, match=r"native backend does not read model_type 'gemma'.*huggingface reads it"
    ):
        qwenchat.load(hub_folders("gemma"), backend="native")
    with pytest.raises(
        CheckpointError, match=r"huggingface backend does not read model_type 'qwen'.*native reads it"
    ):
        qwenchat.load(tiny_chat, backend="huggingface")
    with pytest.raises(UsageError, match="expected auto, native, huggingface"):
        qwenchat.load(tiny_chat, backend="ollama")


def test_ask_answers_by_such_a_model_and_keeps_stderr_clean(
    hub_folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    folder = str(hub_folders("qwen2"))
    ask = ("ask", "hello", "-m", folder, "--temperature", "0", "--max-new-tokens", "8", "--dtype", "float32")
    assert app.run([*ask, "--backend", "huggingface"]) == 0
    out, err = capsys.readouterr()
    assert out.strip()
    assert err == "the reply was cut after 8 tokens by --max-new-tokens\n"
    # The session goes on with it, and with a kernel cache that has nothing to do with it.
    assert app.run(["ask", "more", "--continue", "--max-new-tokens", "2", "--quiet"]) == 0
    assert app.run([*ask, "--backend", "native", "-m", str(hub_folders("gemma"))]) == 3
    assert "leave out --backend" in capsys.readouterr().err

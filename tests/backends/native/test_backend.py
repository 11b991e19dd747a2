"""Chatting through the native backend: events, options, ends, and the way in."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

import qwenchat
from qwenchat.backends import request
from qwenchat.backends.local import _sampling_params
from qwenchat.backends.native import kernel_cache
from qwenchat.backends.native.backend import NativeBackend
from qwenchat.chat.messages import GenerationOptions, Message, PrefillProgress, ReplyEnd, TextDelta
from qwenchat.chat.parts import Role
from qwenchat.cli import app
from qwenchat.engine import generate, plan
from qwenchat.engine.model import Qwen
from qwenchat.engine.plan import Kernels, Plan
from qwenchat.engine.weights import loader
from qwenchat.errors import (
    CheckpointError,
    ContextLengthError,
    InsufficientMemoryError,
    ModelError,
    ModelNotFoundError,
    UsageError,
)

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def model(tiny_chat: Path) -> NativeBackend:
    return qwenchat.load(tiny_chat, device="cpu", dtype="float32")


def test_events_are_text_and_then_one_end_with_the_usage(model: NativeBackend) -> None:
    events = list(model.chat(HELLO, temperature=1.0, seed=5, max_new_tokens=20))
    *others, end = events
    deltas = [event for event in others if not isinstance(event, PrefillProgress)]
    assert all(isinstance(event, TextDelta) and event.text for event in deltas)
    assert isinstance(end, ReplyEnd)
    assert end.finish_reason == "length"
    assert end.usage.completion_tokens == 20
    assert end.usage.prompt_tokens == model.count_tokens([Message.of_text(Role.USER, "hello")])
    assert end.timings.first_token > 0
    assert end.seed == 5
    assert end.text == ""


def test_temperature_zero_is_deterministic(model: NativeBackend) -> None:
    first = [event.text for event in model.chat(HELLO, temperature=0, max_new_tokens=30)]
    assert [event.text for event in model.chat(HELLO, temperature=0, max_new_tokens=30)] == first


def test_a_reply_is_as_long_as_the_context_leaves_not_as_the_checkpoint_says(model: NativeBackend) -> None:
    *_, end = model.chat(HELLO, temperature=0)
    assert isinstance(end, ReplyEnd)
    # The checkpoint's generation_config.json says 7.
    assert end.usage.prompt_tokens + end.usage.completion_tokens == model.context


def test_the_checkpoints_sampling_defaults_hold_where_the_caller_says_nothing(model: NativeBackend) -> None:
    assert _sampling_params(GenerationOptions(), model._defaults).top_p == 0.8
    assert _sampling_params(GenerationOptions(top_p=0.5), model._defaults).top_p == 0.5


def test_a_stop_string_ends_the_reply_and_is_not_in_it(model: NativeBackend) -> None:
    whole = "".join(event.text for event in model.chat(HELLO, temperature=0, max_new_tokens=60))
    stop = whole[3:6]
    *deltas, end = model.chat(HELLO, temperature=0, max_new_tokens=60, stop=(stop,))
    assert "".join(event.text for event in deltas) == whole[: whole.index(stop)]
    assert isinstance(end, ReplyEnd)
    assert end.finish_reason == "stop"
    # The engine is free for the next reply.
    assert list(model.chat(HELLO, max_new_tokens=1))


def test_a_cancel_keeps_the_part_and_still_ends_with_the_usage(model: NativeBackend) -> None:
    cancel = threading.Event()
    events = []
    for event in model.chat(HELLO, temperature=0, cancel=cancel):
        events.append(event)
        if isinstance(event, TextDelta):
            cancel.set()
    *_, end = events
    assert isinstance(end, ReplyEnd)
    assert end.finish_reason == "cancelled"
    assert 0 < end.usage.completion_tokens < 20


def test_the_next_turn_reuses_what_the_cache_holds(model: NativeBackend) -> None:
    list(model.chat(HELLO, temperature=0, max_new_tokens=5))
    *_, second = model.chat(HELLO, temperature=0, max_new_tokens=5)
    assert isinstance(second, ReplyEnd)
    assert second.usage.reused_tokens == second.usage.prompt_tokens


def test_messages_that_do_not_fit_are_an_error_not_cut(model: NativeBackend) -> None:
    with pytest.raises(ContextLengthError, match="512"):
        model.chat([{"role": "user", "content": "x" * 600}])


@pytest.mark.parametrize("options", [{"top_p": 2}, {"temperature": -1}, {"max_new_tokens": 0}, {"seed": -3}])
def test_an_option_out_of_range_is_refused(model: NativeBackend, options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        list(model.chat(HELLO, **options))


def test_an_unknown_option_is_named_with_the_known_ones(model: NativeBackend) -> None:
    with pytest.raises(UsageError, match=r"top_q.*known are temperature"):
        model.chat(HELLO, top_q=1)


def test_a_vocabulary_larger_than_the_model_is_refused(tiny_chat: Path) -> None:
    path = tiny_chat / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["added_tokens_decoder"]["320"] = {"content": "<|extra_0|>", "special": True}
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="321 tokens, the model 320"):
        qwenchat.load(tiny_chat)


def test_without_a_vocabulary_ids_still_run_and_a_chat_says_what_is_missing(tiny_chat: Path) -> None:
    (tiny_chat / "bytes.tiktoken").unlink()
    model = qwenchat.load(tiny_chat)
    assert model.logits([1, 2]).shape == (2, 320)
    with pytest.raises(CheckpointError, match=r"no \.tiktoken file"):
        model.chat(HELLO)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_dtype_answers(tiny_chat: Path, dtype: str) -> None:
    assert list(qwenchat.load(tiny_chat, dtype=dtype).chat(HELLO, max_new_tokens=3))


@pytest.mark.parametrize(
    "arguments", [{"device": "tpu"}, {"device": "cuda:x"}, {"device": "cpu:1"}, {"dtype": "int8"}]
)
def test_an_unknown_device_or_dtype_is_refused(tiny_chat: Path, arguments: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="expected"):
        qwenchat.load(tiny_chat, **arguments)


# --- which model -------------------------------------------------------------------------------


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ModelNotFoundError, match="did you mean Qwen/Qwen-7B-Chat-Int8"):
        qwenchat.load("qwen-7b-caht-int8")


def test_a_known_name_that_is_not_here_says_how_to_get_it() -> None:
    with pytest.raises(ModelNotFoundError, match="Qwen-7B-Chat-Int8 is not downloaded") as error:
        qwenchat.load("Qwen-7B-Chat-Int8")
    assert "qwenchat models pull Qwen/Qwen-7B-Chat-Int8" in error.value.hint


def test_a_known_name_finds_the_data_folder_and_the_hub_cache(
    tiny_chat: Path, home: Path, tmp_path: Path
) -> None:
    ours = home / "data" / "models" / "Qwen" / "Qwen-7B-Chat-Int8"
    ours.parent.mkdir(parents=True)
    tiny_chat.rename(ours)
    assert qwenchat.load("qwen-7b-chat-int8").context == 512

    hub = tmp_path / "hf" / "hub" / "models--Qwen--Qwen-1_8B-Chat"
    (hub / "snapshots").mkdir(parents=True)
    ours.rename(hub / "snapshots" / "abc")
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("abc\n")
    assert qwenchat.load("Qwen/Qwen-1.8B-Chat").context == 512


def test_auto_takes_the_configured_checkpoint_and_says_so(tiny_chat: Path) -> None:
    lines: list[str] = []
    model = qwenchat.load("auto", checkpoint=tiny_chat, notice=lines.append)
    assert model.name == str(tiny_chat)
    assert lines == [f"answering with {tiny_chat}"]


@pytest.fixture
def tiny_demo(tiny_chat: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny checkpoint in the built-in model's place."""
    monkeypatch.setattr("qwenchat.models.builtin.demo.ensure", lambda *args, **kwargs: tiny_chat)
    return tiny_chat


def test_auto_without_a_checkpoint_takes_the_built_in_model_and_says_so(tiny_demo: Path) -> None:
    lines: list[str] = []
    assert qwenchat.load(notice=lines.append).name == "demo"
    assert lines[0].startswith("Qwen/Qwen-7B-Chat-Int8 is not downloaded")


def test_the_first_run_offers_a_better_model_in_a_line_and_no_later_one_does(
    tiny_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    qwenchat.load(notice=lines.append)
    assert [line for line in lines if line.startswith("qwenchat models pull qwen2.5-0.5b-instruct")] == lines[
        1:
    ]
    assert len(lines) == 2
    monkeypatch.setattr("qwenchat.models.builtin.demo.is_cached", lambda folder: tiny_demo)
    lines.clear()
    qwenchat.load(notice=lines.append)
    assert len(lines) == 1


def test_a_context_for_the_large_model_does_not_keep_the_built_in_one_from_answering(tiny_demo: Path) -> None:
    lines: list[str] = []
    assert qwenchat.load(context=100_000, notice=lines.append).context == 1024
    assert "1024 tokens" in lines[0]


def test_auto_with_a_checkpoint_that_does_not_fit_takes_the_built_in_model_and_says_so(
    tiny_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = loader.check_memory
    refusals = iter([InsufficientMemoryError("not enough memory on cpu: needs 99.0 GiB")])

    def refuse_once(*args: Any, **kwargs: Any) -> int:
        for refusal in refusals:
            raise refusal
        return check(*args, **kwargs)

    monkeypatch.setattr(loader, "check_memory", refuse_once)
    lines: list[str] = []
    assert qwenchat.load(checkpoint=tiny_demo, notice=lines.append).name == "demo"
    assert "needs 99.0 GiB" in lines[0]


def test_auto_settles_for_no_other_model_where_that_is_not_wanted(
    tiny_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> int:
        raise InsufficientMemoryError("not enough memory on cpu: needs 99.0 GiB")

    monkeypatch.setattr(loader, "check_memory", refuse)
    with pytest.raises(InsufficientMemoryError):
        qwenchat.load(checkpoint=tiny_demo, settle=False)


def test_auto_with_a_damaged_checkpoint_is_an_error_not_a_fallback(tiny_demo: Path) -> None:
    (tiny_demo / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError):
        qwenchat.load(checkpoint=tiny_demo)


# --- going on ----------------------------------------------------------------------------------


def reply(model: NativeBackend, messages: list[Message], count: int) -> tuple[str, ReplyEnd]:
    *deltas, end = model.chat(messages, temperature=0, max_new_tokens=count)
    assert isinstance(end, ReplyEnd)
    return "".join(event.text for event in deltas), end


def test_a_reply_that_is_gone_on_with_is_token_exact(model: NativeBackend) -> None:
    hello = Message.of_text(Role.USER, "hello")
    whole, whole_end = reply(model, [hello], 40)
    assert whole_end.token_ids is not None
    for cut in (1, 7, 20, 39):
        first, end = reply(model, [hello], cut)
        assert end.token_ids == whole_end.token_ids[:cut]
        begun = Message.of_text(Role.ASSISTANT, first, end.token_ids)
        rest, rest_end = reply(model, [hello, begun], 40 - cut)
        assert (end.token_ids or ()) + (rest_end.token_ids or ()) == whole_end.token_ids
        # Random weights cut characters in half; the whole text comes out all the same.
        assert first + rest == whole


def test_a_replys_own_tokens_are_still_in_the_cache_in_the_next_turn(model: NativeBackend) -> None:
    hello = Message.of_text(Role.USER, "hello")
    text, first = reply(model, [hello], 10)
    _, second = reply(model, [hello, Message.of_text(Role.ASSISTANT, text, first.token_ids), hello], 5)
    # All but the reply's last token, which was never run.
    assert second.usage.reused_tokens == first.usage.prompt_tokens + 9


@pytest.mark.parametrize("token_ids", [(258, 257), (104, 105), (319,), (10**9,)])
def test_known_tokens_that_say_something_else_are_not_used(
    model: NativeBackend, token_ids: tuple[int, ...]
) -> None:
    hello = Message.of_text(Role.USER, "hello")
    plain = model.count_tokens([hello, Message.of_text(Role.ASSISTANT, "abc"), hello])
    assert model.count_tokens([hello, Message.of_text(Role.ASSISTANT, "abc", token_ids), hello]) == plain


def test_a_stop_string_in_what_a_reply_goes_on_from_stops_nothing(model: NativeBackend) -> None:
    """As of a step after a tool's result, which stands in the same turn."""
    chat = [*HELLO, {"role": "assistant", "content": "Observation: warm\nThought:"}]
    *whole, _ = model.chat(chat, temperature=0, max_new_tokens=20)
    *deltas, end = model.chat(chat, temperature=0, max_new_tokens=20, stop=("Observation:",))
    assert [event for event in deltas if isinstance(event, TextDelta)] == [
        event for event in whole if isinstance(event, TextDelta)
    ]
    assert isinstance(end, ReplyEnd) and (end.stop, end.usage.completion_tokens) == ("", 20)


def test_a_stop_string_leaves_the_tokens_of_the_text_and_none_that_say_more(model: NativeBackend) -> None:
    whole, _ = reply(model, [Message.of_text(Role.USER, "hello")], 30)
    *deltas, end = model.chat(HELLO, temperature=0, max_new_tokens=30, stop=(whole[3:5],))
    assert isinstance(end, ReplyEnd)
    assert end.stop == whole[3:5]
    assert end.token_ids is not None
    assert model.tokenizer.reply_text(end.token_ids) == "".join(event.text for event in deltas)


def test_a_long_prefill_tells_its_progress(model: NativeBackend) -> None:
    events = list(model.chat([{"role": "user", "content": "x" * 300}], temperature=0, max_new_tokens=1))
    progress = [event for event in events if isinstance(event, PrefillProgress)]
    assert [event.done for event in progress] == [256, progress[-1].total]


@pytest.mark.parametrize("stop", ["abc", ["abc"], None])
def test_stop_may_be_one_text_several_or_none(model: NativeBackend, stop: Any) -> None:
    assert list(model.chat(HELLO, temperature=0, max_new_tokens=3, stop=stop))


@pytest.mark.parametrize(
    "options", [{"stop": [1]}, {"stop": ("",)}, {"max_new_tokens": 2.5}, {"max_new_tokens": "3"}]
)
def test_options_of_another_kind_are_refused(model: NativeBackend, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        model.chat(HELLO, **options)


@pytest.mark.parametrize("messages", [[], "hi", [3]])
def test_what_is_no_chat_is_refused(model: NativeBackend, messages: Any) -> None:
    with pytest.raises(UsageError):
        model.chat(messages)


@pytest.mark.parametrize("ids", ["123", [1.9], [None]])
def test_what_is_no_token_id_is_refused(model: NativeBackend, ids: Any) -> None:
    with pytest.raises(UsageError):
        model.generate(ids)


# --- what is told while it loads ---------------------------------------------------------------


def test_what_memory_is_needed_and_free_is_a_stage_before_the_weights(tiny_chat: Path) -> None:
    stages: list[str] = []
    qwenchat.load(tiny_chat, device="cpu", progress=lambda stage, fraction: stages.append(stage))
    first = stages.index(request.LOADING)
    assert re.fullmatch(r"needs 0\.0 GiB, \d+\.\d GiB free", stages[first - 1])
    # Every start says it: no news off a terminal.
    assert all(isinstance(stage, request.QuietStage) for stage in stages)


def without_kernels(reason: str | None) -> Callable[..., Plan]:
    return lambda *args: Plan(unsupported_reason=reason)


def test_the_path_that_is_taken_and_why_is_told_once(
    tiny_chat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "plan", without_kernels("the CPU is too old"))
    lines: list[str] = []
    model = qwenchat.load(tiny_chat, device="cpu", dtype="float32", notice=lines.append)
    assert lines == ["falling back from the CPU kernels to plain torch: the CPU is too old"]
    assert "plain torch" in model.description
    monkeypatch.setattr(plan, "plan", without_kernels(None))
    qwenchat.load(tiny_chat, device="cpu", notice=lines.append)
    assert len(lines) == 1


def test_ask_tells_the_path_on_stderr_but_not_if_it_shall_be_quiet(
    tiny_chat: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "plan", without_kernels("the CPU is too old"))
    monkeypatch.setattr(sys, "stdin", None)
    ask = ("ask", "hi", "-m", str(tiny_chat), "--max-new-tokens", "2", "--no-save", "--dtype", "float32")
    assert app.run(ask) == 0
    assert capsys.readouterr().err.count("to plain torch: the CPU is too old") == 1
    assert app.run([*ask, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_kernels_that_do_not_compile_are_one_line_not_a_traceback(
    tiny_chat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("ptxas failed\nwith a long tale")

    monkeypatch.setattr(plan, "plan", without_kernels(None))
    monkeypatch.setattr(
        plan, "pack", lambda model, *args, **more: Kernels("Triton", model, weights=cast(Any, object()))
    )
    monkeypatch.setattr(generate, "Engine", fail)
    with pytest.raises(
        ModelError, match=r"cannot be compiled: RuntimeError: ptxas failed; use --device cpu$"
    ):
        qwenchat.load(tiny_chat, device="cpu")


def test_tritons_cache_lies_in_ours_and_is_known_to_be_empty(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "")  # so that what is set here is taken back
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert kernel_cache.open_triton_cache(torch.device("cuda"))
    folder = Path(os.environ["TRITON_CACHE_DIR"])
    assert folder.parent == home / "cache" / "triton"
    assert folder.name.endswith("-sm90")
    (folder / "a kernel").mkdir(parents=True)
    assert not kernel_cache.open_triton_cache(torch.device("cuda"))
    assert Path(os.environ["TRITON_CACHE_DIR"]) == folder


def test_where_the_user_put_tritons_cache_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "mine"))
    assert kernel_cache.open_triton_cache(torch.device("cuda"))
    assert os.environ["TRITON_CACHE_DIR"] == str(tmp_path / "mine")


@pytest.mark.parametrize("step", ["load_model", "pack", "Engine"])
def test_an_error_of_memory_that_is_kept_keeps_nothing_that_was_loaded(
    tiny_chat: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    models: list[weakref.ref[Qwen]] = []
    fill = loader._fill

    def watched(work: Any, *args: Any) -> None:
        models.append(weakref.ref(work.model))
        fill(work, *args)
        if step == "load_model":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    def fail(*args: object, **kwargs: object) -> None:
        raise InsufficientMemoryError("memory ran out")

    monkeypatch.setattr(loader, "_fill", watched)
    if step != "load_model":
        monkeypatch.setattr(plan if step == "pack" else generate, step, fail)
    kept = None
    try:
        qwenchat.load(tiny_chat, device="cpu")
    except InsufficientMemoryError as error:
        kept = error
    assert kept is not None
    assert "memory ran out" in str(kept)
    assert [model() for model in models] == [None]

"""Our model class of lm-evaluation-harness, where that is installed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import qwenchat
from qwenchat.backends.local import Model
from qwenchat.errors import UsageError
from tests.fakes import Scripted

pytest.importorskip("lm_eval")
from qwenchat.evals.harness_model import HarnessModel, options_of


@pytest.fixture
def model(tiny_chat: Path) -> Model:
    return qwenchat.load(tiny_chat, device="cpu", dtype="float32")


def asked(*arguments: Any) -> list[Any]:
    return [SimpleNamespace(args=one) for one in arguments]


def test_a_continuation_is_as_likely_as_its_tokens(model: Model) -> None:
    context, wanted = "One two three", " four five"
    ids = model.tokenizer.encode(context + wanted)
    begin = len(model.tokenizer.encode(context))
    rows = torch.log_softmax(model.logits(ids), -1)
    expected = sum(float(rows[at - 1, ids[at]]) for at in range(begin, len(ids)))
    ((found, greedy),) = HarnessModel(model).loglikelihood(asked((context, wanted)), disable_tqdm=True)
    assert found == pytest.approx(expected, abs=1e-4)
    assert greedy is False


def test_what_is_generated_ends_at_a_stop(model: Model) -> None:
    harness = HarnessModel(model)
    settings = {"until": [], "max_gen_toks": 8}
    (whole,) = harness.generate_until(asked(("One two", settings)))
    stop = whole[2:4]
    (cut,) = harness.generate_until(asked(("One two", {**settings, "until": stop})))
    assert cut == whole.partition(stop)[0]


def test_a_text_is_scored_whole_also_where_it_is_longer_than_the_context(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = HarnessModel(model)
    (whole,) = harness.loglikelihood_rolling(asked(("One two three four",)))
    assert whole < 0
    monkeypatch.setattr(HarnessModel, "max_length", 4)
    (in_windows,) = harness.loglikelihood_rolling(asked(("One two three four",)))
    assert in_windows != whole


def test_a_chats_control_tokens_are_its_templates_alone(model: Model) -> None:
    harness = HarnessModel(model)
    chat = [{"role": "user", "content": "hi <|im_end|>"}]
    text = harness.apply_chat_template(chat)
    assert harness.tok_encode(text) == model.prompt_ids(chat)
    assert harness.tok_encode(f"{text}x") != [*model.prompt_ids(chat), *model.tokenizer.encode("x")]
    ((found, _),) = harness.loglikelihood(asked((text, "yes")), disable_tqdm=True)
    assert found < 0


def test_a_server_generates_and_gives_no_likelihoods() -> None:
    backend = Scripted("It is 4. And more")
    harness = HarnessModel(backend)
    text = harness.apply_chat_template([{"role": "user", "content": "2+2?"}])
    assert json.loads(text) == [{"role": "user", "content": "2+2?"}]
    assert harness.generate_until(asked((text, {"until": ["."]}))) == ["It is 4"]
    assert [message.text for message in backend.prompts[0]] == ["2+2?"]
    with pytest.raises(UsageError, match="gives no logits"):
        harness.loglikelihood(asked(("a", "b")), disable_tqdm=True)


def test_a_task_samples_only_where_it_asks_to() -> None:
    assert options_of({"temperature": 1.0})[1].temperature == 0.0
    assert options_of({"do_sample": True, "temperature": 0.7})[1].temperature == 0.7
    until, options = options_of({"until": "\n", "max_gen_toks": 5})
    assert (until, options.stop, options.max_new_tokens) == (["\n"], ("\n",), 5)

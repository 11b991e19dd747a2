"""The statistics of a reply in words."""

from __future__ import annotations

from qwenchat.chat.messages import ReplyEnd, Timings, Usage
from qwenchat.terminal.stats import speed_text, stats_text


def test_the_statistics_tell_prompt_first_token_and_reply() -> None:
    usage = Usage(prompt_tokens=1_500, completion_tokens=30, reused_tokens=300)
    end = ReplyEnd("stop", usage, Timings(prefill=0.5, first_token=0.62, decode=1.5))
    assert stats_text(end) == (
        "prompt: reused 300 + new 1,200 tokens in 0.50 s, 2400.0 tokens/s",
        "first token after 0.62 s",
        "reply: 30 tokens, 20.0 tokens/s",
    )


def test_tokens_that_were_guessed_ahead_are_told() -> None:
    usage = Usage(prompt_tokens=9, completion_tokens=30, reused_tokens=0)
    end = ReplyEnd("stop", usage, Timings(0.5, 0.62, 1.5), guessed_tokens=1_024, right_tokens=20)
    assert stats_text(end)[2] == "reply: 30 tokens, 20.0 tokens/s, 20 of 1,024 guessed ahead were right"


def test_where_no_time_passed_there_is_no_speed() -> None:
    assert speed_text(0, 0.0) == "no time"


def test_a_prompt_that_was_there_already_took_no_time_to_tell_of() -> None:
    end = ReplyEnd("stop", Usage(50, 50, 3), Timings(prefill=0.0, first_token=0.1, decode=1.0))
    assert stats_text(end)[0] == "prompt: all 50 tokens reused"


def test_tokens_that_nobody_counted_are_marked() -> None:
    end = ReplyEnd("stop", Usage(50, 0, 30), Timings(0.1, 0.5, 1.5), estimated=True)
    prompt, _, reply = stats_text(end)
    assert "new ≈50 tokens" in prompt
    assert reply == "reply: ≈30 tokens, 20.0 tokens/s"

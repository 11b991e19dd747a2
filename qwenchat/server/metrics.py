"""What is counted, in Prometheus' text format. Used from the event loop alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from time import monotonic

from qwenchat.chat.messages import ReplyEnd
from qwenchat.version import __version__

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Histogram:
    """Seconds, by how many they were at most."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Counts one."""
        self._counts[next((n for n, most in enumerate(_BUCKETS) if seconds <= most), len(_BUCKETS))] += 1
        self._sum += seconds

    def lines(self, name: str, about: str) -> Iterable[str]:
        """As text."""
        yield f"# HELP {name} {about}"
        yield f"# TYPE {name} histogram"
        total = 0
        for most, count in zip((*_BUCKETS, float("inf")), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{"+Inf" if most == float("inf") else most}"}} {total}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """What a server counts."""

    def __init__(self) -> None:
        self._started = monotonic()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tokens: Counter[str] = Counter()
        self._ends: Counter[str] = Counter()
        self._first_token, self._whole = Histogram(), Histogram()

    def count(self, path: str, status: int) -> None:
        """Counts an answer at one of the server's own paths."""
        self._requests[path, status] += 1

    def replied(self, end: ReplyEnd, seconds: float) -> None:
        """Counts a reply of the model's.

        Args:
            seconds: that it took, the wait for the model included.
        """
        usage = end.usage
        self._tokens["prompt"] += usage.prompt_tokens
        self._tokens["cached"] += usage.reused_tokens
        self._tokens["completion"] += usage.completion_tokens
        self._ends[end.finish_reason] += 1
        work = end.timings.prefill + end.timings.decode
        self._first_token.add(max(seconds - work, 0.0) + end.timings.first_token)
        self._whole.add(seconds)

    def text(self, *, running: int, waiting: int, model: str, caches: int = 0, cached: int = 0) -> str:
        """All of it, as Prometheus reads it.

        Args:
            running, waiting: requests that the model works on, and that wait for it.
            model: its name.
            caches, cached: KV caches that are kept, and the tokens in them.
        """
        named = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        lines = [
            *_of("info", "gauge", "The server.", [(f'version="{__version__}",model="{named}"', 1)]),
            *_of("uptime_seconds", "gauge", "Since it began.", [("", round(monotonic() - self._started, 3))]),
            *_of("requests_running", "gauge", "Requests that the model works on.", [("", running)]),
            *_of("requests_waiting", "gauge", "Requests that wait for the model.", [("", waiting)]),
            *_of("kv_caches", "gauge", "KV caches that are kept.", [("", caches)]),
            *_of("kv_tokens", "gauge", "Tokens that they hold.", [("", cached)]),
            *_of(
                "requests_total",
                "counter",
                "Answers by path and status.",
                [
                    (f'path="{path}",status="{status}"', n)
                    for (path, status), n in sorted(self._requests.items())
                ],
            ),
            *_of(
                "tokens_total",
                "counter",
                "Tokens of prompts, those of them that were cached, and of replies.",
                [(f'kind="{kind}"', self._tokens[kind]) for kind in ("prompt", "cached", "completion")],
            ),
            *_of(
                "replies_total",
                "counter",
                "Replies by how they ended.",
                [(f'reason="{reason}"', self._ends[reason]) for reason in ("stop", "length", "cancelled")],
            ),
            *self._first_token.lines("qwenchat_first_token_seconds", "From the request to the first token."),
            *self._whole.lines("qwenchat_reply_seconds", "From the request to the reply's end."),
        ]
        return "\n".join(lines) + "\n"


def _of(name: str, kind: str, about: str, values: Iterable[tuple[str, float]]) -> Iterable[str]:
    yield f"# HELP qwenchat_{name} {about}"
    yield f"# TYPE qwenchat_{name} {kind}"
    for labels, value in values:
        yield f"qwenchat_{name}{{{labels}}} {value}" if labels else f"qwenchat_{name} {value}"

"""The process in which a chat template runs: it is asked again and again, and ends if it does not end."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from qwenchat.backends.prompts import renderer as module
from qwenchat.backends.prompts.renderer import Piece, RefusedError, Renderer

SOURCE = "{% for m in messages %}<{{ m.content }}>{% endfor %}{{ raise_exception('no') if refuse }}"


def chat(*contents: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content} for content in contents]}


def test_it_answers_again_after_a_refusal_and_after_its_end() -> None:
    renderer = Renderer(SOURCE)
    expected = [Piece("<"), Piece("a\n🦊", 0, 0), Piece("><"), Piece("\ud800", 1, 0), Piece(">")]
    assert renderer.pieces(chat("a\n🦊", "\ud800")) == expected
    with pytest.raises(RefusedError, match=r"^no$"):
        renderer.pieces({**chat("a"), "refuse": True})
    assert renderer.pieces(chat("a\n🦊", "\ud800")) == expected
    renderer._process.kill()
    renderer._process.wait()
    assert renderer.pieces(chat("a\n🦊", "\ud800")) == expected


def test_an_answer_that_was_not_waited_for_is_not_taken_for_that_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    renderer = Renderer(SOURCE)

    class Interrupted:
        def readline(self) -> bytes:
            raise KeyboardInterrupt

        def close(self) -> None: ...

    with monkeypatch.context() as patch:
        patch.setattr(renderer._process, "stdout", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            renderer.pieces(chat("old"))
    assert renderer.pieces(chat("new"))[1].text == "new"


def test_several_may_ask_at_once() -> None:
    renderer = Renderer(SOURCE)
    wrong = []

    def ask(text: str) -> None:
        wrong.extend(text for _ in range(50) if renderer.pieces(chat(text))[1].text != text)

    threads = [threading.Thread(target=ask, args=(text * 1000,)) for text in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nothing_of_the_folder_that_one_works_in_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "jinja2.py").write_text("raise SystemExit")
    (tmp_path / "json.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    assert Renderer(SOURCE).pieces(chat("a"))


def test_it_is_gone_with_whoever_asked() -> None:
    renderer = Renderer(SOURCE)
    process = renderer._process
    del renderer
    assert process.poll() is not None


@pytest.mark.skipif(sys.platform != "linux", reason="the operating system does not count it")
@pytest.mark.parametrize(
    ("limit", "work"),
    [("_limit_time(0.2)", "a ** a ** a"), ("_limit_memory(2 ** 28)", "'x' * a ** a")],
)
def test_what_nobody_counted_is_ended_by_the_operating_system(limit: str, work: str) -> None:
    program = f"from {module.CHILD} import {limit.partition('(')[0]}"
    program += f"\n{limit}\na = 9\n{work}\nprint('done')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert not done.stdout


def test_an_end_in_the_middle_is_told_as_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "executable", "/bin/true")
    with pytest.raises(RefusedError, match="more time or memory"):
        Renderer(SOURCE)

"""Kills a chat while its tools are under way, or the tools: functions of a file, and an MCP server.

    python -m tests.stress.kill_tools [--kills N]

After each kill -9 nothing may be left that the chat had started, however deep; every turn that was saved is
in the session; and a chat whose tool was killed goes on. Linux alone: this process adopts whatever is left,
and so knows of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from qwenchat.sessions.store import SessionStore
from tests.places import ROOT, TESTS
from tests.stress.kill_code import descendants, nobody_is_left, trial

FUNCTIONS = '''
import os, subprocess, sys, time

def busy() -> str:
    """Starts others, and waits."""
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
    subprocess.Popen(["sleep", "600"])
    open("RUNNING", "w").close()
    while True:
        pass

def quick() -> str:
    """Answers."""
    return "here"
'''
CALLS = {"a function": "busy", "an MCP server": "hangs"}
"""What is under way, and the tool that is."""


def victim(folder: Path, tool: str) -> None:
    """A chat that calls a tool which waits, then another. Runs in a process of its own."""
    import threading

    from qwenchat.chat.messages import GenerationOptions, ReplyEnd
    from qwenchat.chat.turn import now, stream_reply
    from qwenchat.terminal.tools import ChatTools
    from tests.chats import user
    from tests.fakes import Scripted

    os.chdir(folder)
    session = SessionStore(folder / "sessions").create(model="scripted")
    chat, cancel = session.conversation, threading.Event()
    tools = ChatTools(lambda code, cancel: "", [str(folder / "tools.py"), str(folder / "mcp.json")])
    call = "Thought: I call.\nAction: {}\nAction Input: {{}}\nObservation:".format
    steps = (call("quick"), call(tool), call("quick") + " ", "Thought: So.\nFinal Answer: done.")
    backend = tools.seen_through(Scripted(*steps))

    def save() -> None:
        session.save()
        print(f"saved {len(chat.nodes)}", flush=True)

    class Steps:
        def step(self) -> ReplyEnd | None:
            events = [*stream_reply(chat, chat.messages(), backend, GenerationOptions(), save, cancel)]
            return next(event for event in reversed(events) if isinstance(event, ReplyEnd))

        def decide(self, request: object) -> object:
            from qwenchat.tools.loop import Decision

            return Decision("yes")

        def running(self, request: object) -> None:
            pass

        def returned(self, call: object, result: object) -> None:
            pass

        def tokens(self, text: str) -> int:
            return len(text) // 4

    host: object = Steps()
    chat.ask(user("go"), now())
    save()
    tools.loop(4000).run(chat, host, save, cancel)  # type: ignore[arg-type]
    current = chat.current
    print(f"said {current.message.text if current else ''}", flush=True)
    sys.stdin.read()
    tools.close()


def kill_one(chance: random.Random, folder: Path) -> str:
    """One chat, killed somewhere. Returns what was killed, and what went wrong behind a colon."""
    what, tool = chance.choice(sorted(CALLS.items()))
    folder.mkdir()
    (folder / "tools.py").write_text(FUNCTIONS)
    server = [str(TESTS / "tools" / "mcp_server.py"), "stdio", str(folder)]
    servers = {"mcpServers": {"test": {"command": sys.executable, "args": server}}}
    (folder / "mcp.json").write_text(json.dumps(servers))
    code = "import sys; from pathlib import Path; from tests.stress.kill_tools import victim; "
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}victim(Path(sys.argv[1]), sys.argv[2])", str(folder), tool],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout
        early, running = chance.random() < 0.3, folder / ("RUNNING" if tool == "busy" else "pids")
        end = time.monotonic() + (chance.random() * 3 if early else 60)
        while time.monotonic() < end and not running.exists():
            time.sleep(0.005)
        time.sleep(chance.random() * 0.1)
        name = "function_child" if tool == "busy" else "mcp_server"
        programs = [pid for pid in descendants(process.pid) if _is(pid, name)] if running.exists() else []
        target = programs[0] if programs and chance.random() < 0.5 else process.pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, signal.SIGKILL)
        killed = f"the chat, {what} under way" if target == process.pid else what
        told = []
        if target != process.pid:
            for line in process.stdout:
                told.append(line.strip())
                if line.startswith("said"):
                    break
            if told[-1:] != ["said done."]:
                killed += f": the chat said {told[-1:]}"
        process.stdin.close()
        told += [line.strip() for line in process.stdout]
    wrong = _lost(folder, told)
    if not nobody_is_left():
        wrong += f" {descendants(os.getpid())} are left"
    return f"{killed}: {wrong}" if wrong else killed


def _is(pid: int, name: str) -> bool:
    """Whether a process is a program itself, and not what guards it."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        return any(name in word for word in words) and not any("guard.py" in word for word in words)
    return False


def _lost(folder: Path, told: list[str]) -> str:
    """What was told to be saved and is not there."""
    saved = max((int(line.split()[1]) for line in told if line.startswith("saved ")), default=0)
    found = 0
    for path in (folder / "sessions").glob("*.json"):
        found = len(json.loads(path.read_text("utf-8"))["nodes"])
    return f"{saved} nodes were saved, and {found} are there" if found < saved else ""


if __name__ == "__main__":
    trial(__doc__, kill_one)

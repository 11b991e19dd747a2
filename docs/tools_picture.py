"""The picture of docs/tools.md: calls in a real chat, on a model that plays a script.

    python -m docs.tools_picture [FILE]

The chat, its questions and its tools are what they always are; the model's words alone are written here, as
no model that is small enough to come with the program calls tools well. Drawn as the README's picture is.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from pyte.screens import HistoryScreen

from docs.picture import PATIENCE, draw
from tests.places import TESTS
from tests.terminal.screen import Screen

COLUMNS, LINES = 104, 31
COMMAND = "qwenchat --tools tools.py"
TOOLS = '''
def weather(city: str, days: int = 1) -> str:
    """Tells the weather."""
    return "\\n".join(f"day {n + 1}: {16 + n % 3} to {21 + n % 4} °C, dry" for n in range(days))
'''


def call(thought: str, tool: str, **arguments: object) -> str:
    """A step that calls a tool, in the form of the first Qwen generation."""
    return f"{thought}\nAction: {tool}\nAction Input: {json.dumps(arguments)}\nObservation:"


SCRIPT = (
    call("Thought: I should look the weather up.", "weather", city="Paris", days=12),
    " I know enough.\nFinal Answer: It stays dry in Paris, up to 24 °C in the afternoons: **no umbrella**.",
    call("Thought: The same for Rome.", "weather", city="Rome", days=1),
    " I must not look it up.\nFinal Answer: I was not to look up Rome, so I cannot say.",
)


def play(folder: Path) -> HistoryScreen:
    """Chats, and returns the screen as it is at the end."""
    (folder / "tools.py").write_text(TOOLS, "utf-8")
    script = folder / "script.json"
    script.write_text(json.dumps(SCRIPT), "utf-8")
    program = TESTS / "terminal" / "tool_program.py"
    chat = Screen(
        [sys.executable, str(program), str(folder), str(script)],
        columns=COLUMNS,
        lines=LINES,
        environment={"LC_ALL": "C.UTF-8", "COLORTERM": "truecolor", "QWENCHAT_HOME": str(folder)},
        folder=folder,
    )
    try:
        chat.until("scripted (a test)", PATIENCE)
        for question, answer, end in (
            ("Do I need an umbrella in Paris?", "y", "no umbrella"),
            ("And in Rome?", "only Paris, please", "I cannot say"),
        ):
            before = chat.prompts
            chat.type(f"{question}\r")
            chat.until(lambda text: text.rstrip().endswith("or why not:"), PATIENCE)
            chat.type(f"{answer}\r")
            chat.until(end, PATIENCE)
            chat.until_prompt(before + 1, PATIENCE)
        return chat.screen
    finally:
        chat.close()


def main() -> None:
    """Plays, draws and writes."""
    parser = argparse.ArgumentParser(description="Draw the picture of docs/tools.md.")
    parser.add_argument("file", nargs="?", type=Path, default=Path(__file__).with_name("tools.svg"))
    file: Path = parser.parse_args().file
    with tempfile.TemporaryDirectory() as folder:
        picture = draw(play(Path(folder)), COMMAND, "Tools in a chat with qwenchat")
    file.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Streams a reply of the corpus into the live view, for the tests that look at a real terminal.

    python live_program.py NAME CHUNKING [--at-once] [--interrupt N] [--until-resized N] [--above N]
        [--pause SECONDS] [--fps N]

Also the corpus itself, and the ways to cut it, for the tests that need no terminal.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator

CODE_5000 = "\n".join(
    f"def f_{n}(x):  # {'长' * (n % 3)}" if n % 4 == 0 else f"    y = x + {n}  # {n:x}" for n in range(5000)
)

CORPUS: dict[str, str] = {
    "nested lists": """Intro:
- one
  - two **bold
    over lines**
    1. three
    2. four

       a paragraph in four
- five

1. six
   - seven
  - eight, by two blanks
10) nine
""",
    "tables": """Before the table
| Name | Value | 中文 |
|:-----|------:|:----:|
| one | 1 | 你好，世界 |
| `two` | 20,000 | a \\| b |
| three, with a cell that is longer than others are | 3 |
after

a | b
--|--
"""
    + "\n".join(f"row {n} | {'wide ' * (n % 5)}" for n in range(16))
    + "\n\nend\n",
    "fences in lists": """1. Install:
   ```bash
   pip install qwenchat  # not yet

   echo "done"
   ```
2. Run:
   - with python
     ```python
     text = '''several
     lines'''
     print(text)
     ```
   - or not

> ```json
> {"quoted": true}
> ```
""",
    "chinese": "**千问**是一个大语言模型，“能够”回答问题。" * 12
    + "\n\n- 列表：第一项\n- 第二项《书名》\n\n# 标题\n",
    "emoji": "Smile 😀 and 🎉, party 🥳! " * 8 + "\n\n| 😀 | b |\n|--|--|\n| 🎉🎉 | é |\n",
    "headings and quotes": """# One `code`
## Two
Setext
======
### Three ###
Text
***
> quote with **bold**
lazily continued
>
> > nested
>> - item

####### seven is text
""",
    "links and html": """See [the docs](https://example.com/a_b?c=1 "title") or <https://example.com>.
![a picture](http://i.example/x.png) <div class="x">html</div> &lt;entity&gt; <br>
[dangling](http://example.com/unfinished
""",
    "long addresses": "Here: https://example.com/"
    + "path/" * 30
    + " and\n\n- [x] [there](http://example.com/"
    + "x" * 300
    + ")\n- [ ] http://example.com/"
    + "y" * 1500
    + "\n\n> <http://a.b/"
    + "z" * 90
    + ">。然后\n",
    "unfinished fence": "Look:\n```python\nwhile True:\n    print('''a\n\nb",
    "no newline": " ".join(f"word{n} **b{n}** `c{n}`" for n in range(250)),
    "no blank": "x" * 3000 + "没有空格" * 200,
    "emphasis left open": "**never closed " + " ".join(f"w{n} [l" for n in range(300)) + "\n\nnext",
    "long code lines": "```\n"
    + "a" * 450
    + "\n"
    + "b" * 2500
    + "\nshort\n```\n- ```\n  "
    + "c" * 1500
    + "\n  ```",
    "hostile": "\x1b[2J\x1b]8;;http://evil\x07link\x1b]8;;\x07 [b]markup[/b] :smile: &#27;[1m &#8238;abc\n",
    "code of 5,000 lines": f"```python\n{CODE_5000}\n```\n",
    "empty": "",
}


def numbered(blocks: int) -> str:
    """A reply of several kinds of blocks, in which each word is there once: w0, w1, ...

    The words of a table's header are h0, h1, ...: where a table is shown as a list, they are repeated.
    """
    pick = random.Random(5)

    def words(count: int) -> str:
        return " ".join(["w#"] * count)

    makers: list[Callable[[], str]] = [
        lambda: f"{words(60)} **{words(50)}** {words(9)}",
        lambda: "\n".join(f"- {words(9)}\n  - {words(5)}" for _ in range(4)),
        lambda: "\n".join(["| h# | h# | h# |", "|--|--|--|", *[f"| {words(2)} | {words(4)} | w# |"] * 14]),
        lambda: "\n".join(["```python", *(words(n % 14) for n in range(20)), "```"]),
        lambda: f"> {words(40)}\n>\n> {words(30)}",
        lambda: f"## {words(3)}\n{words(20)}\n{words(20)}",
    ]
    text = "\n\n".join(pick.choice(makers)() for _ in range(blocks))
    count = itertools.count()
    return re.sub("(?<=[wh])#", lambda _: str(next(count)), text)


CORPUS["numbered"] = numbered(24)

# Replies whose tail is tall for long.
CORPUS["wide table"] = "| a | b |\n|--|--|\n" + "".join(
    "| "
    + " ".join(f"w{n}{k:03}" for k in range(9))
    + " | "
    + " ".join(f"w{n}{k:03}" for k in range(9, 19))
    + " |\n"
    for n in range(1, 10)
)
CORPUS["wide emphasis"] = "**" + " ".join(f"w{n}" for n in range(1000, 1150))
CORPUS["wide code"] = "> ```\n> " + " ".join(f"w{n}" for n in range(1000, 1150))


def _by_size(sizes: Callable[[], int]) -> Callable[[str], Iterator[str]]:
    def cut(text: str) -> Iterator[str]:
        position = 0
        while position < len(text):
            size = sizes()
            yield text[position : position + size]
            position += size

    return cut


_pick = random.Random(1)
CHUNKINGS: dict[str, Callable[[str], Iterator[str]]] = {
    "characters": _by_size(lambda: 1),
    "random": _by_size(lambda: _pick.choice((1, 2, 3, 5, 8, 40))),
    "lines": lambda text: iter(text.splitlines(keepends=True)),
    "whole": lambda text: iter([text]),
}


def _wait_for_resize() -> None:
    columns = os.get_terminal_size().columns
    while os.get_terminal_size().columns == columns:
        time.sleep(0.01)
    time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=CORPUS)
    parser.add_argument("chunking", choices=CHUNKINGS)
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--interrupt", type=int)
    parser.add_argument("--above", type=int, default=0, help="lines on the screen above the reply")
    parser.add_argument("--until-resized", type=int, help="wait for that behind so many characters")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--fps", type=float, default=15.0)
    args = parser.parse_args()

    from qwenchat.terminal.render.live import LiveReply, render_markdown

    text = CORPUS[args.name]
    sys.stdout.write("above\n" * args.above)
    if args.at_once:
        render_markdown(text, plain=args.plain)
    else:
        pushed = 0
        try:
            with LiveReply(args.plain, rows_above=args.above, frames_per_second=args.fps) as view:
                view.status("prefill 340/2,000, 3 s left")
                for chunk in CHUNKINGS[args.chunking](text):
                    if args.interrupt is not None and pushed >= args.interrupt:
                        raise KeyboardInterrupt
                    view.push(chunk)
                    pushed += len(chunk)
                    if args.until_resized is not None and pushed >= args.until_resized:
                        args.until_resized = None
                        _wait_for_resize()
                    if args.pause:
                        time.sleep(args.pause)
        except KeyboardInterrupt:
            sys.stdout.write(f"({pushed} characters)\n")
    sys.stdout.write("(end)\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

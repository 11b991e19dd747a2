"""The tree of turns: what each move does to the path, and what no sequence of moves may break."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenchat.chat.conversation import Conversation
from qwenchat.chat.messages import Message
from qwenchat.chat.nodes import Node
from qwenchat.chat.parts import Role, Text, ToolCall, ToolResult
from qwenchat.errors import ConversationError
from tests.chats import replied, user

NOW = "2025-01-01T00:00:00Z"


def chat(*turns: str) -> Conversation:
    """A chat in which "a" was asked and "A" was answered, and so on."""
    conversation = Conversation("be brief")
    for turn in turns:
        add_turn(conversation, turn)
    return conversation


def add_turn(conversation: Conversation, text: str) -> None:
    conversation.ask(user(text), NOW)
    answer(conversation, text.upper())


def answer(conversation: Conversation, text: str) -> Node:
    return conversation.reply(*replied(text, "complete", token_ids=(1, 2)), NOW)


def path(conversation: Conversation) -> str:
    return "".join(node.text for node in conversation.path())


def test_a_chat_reads_as_the_system_prompt_and_its_turns() -> None:
    assert chat("a", "b").messages() == [
        Message.of_text(Role.SYSTEM, "be brief"),
        Message.of_text(Role.USER, "a"),
        Message.of_text(Role.ASSISTANT, "A", (1, 2)),
        Message.of_text(Role.USER, "b"),
        Message.of_text(Role.ASSISTANT, "B", (1, 2)),
    ]
    assert Conversation().messages() == []


def test_a_path_is_turns_of_a_question_and_its_reply_the_last_may_lack() -> None:
    conversation = chat("a", "b")
    conversation.ask(user("c"), NOW)
    turns = conversation.turns()
    assert [(turn.n, [node.text for node in turn.nodes]) for turn in turns] == [
        (1, ["a", "A"]),
        (2, ["b", "B"]),
        (3, ["c"]),
    ]
    assert [turn.reply is None for turn in turns] == [False, False, True]
    assert Conversation().turns() == []


def test_undo_takes_whole_turns_and_redo_brings_them_back() -> None:
    conversation = chat("a", "b", "c")
    assert conversation.undo() == 1
    assert path(conversation) == "aAbB"
    assert conversation.undo(5) == 2
    assert path(conversation) == ""
    assert conversation.undo() == 0
    assert conversation.redo(2) == 2
    assert path(conversation) == "aAbB"
    assert conversation.redo(5) == 1
    assert path(conversation) == "aAbBcC"
    assert conversation.redo() == 0


def test_undo_of_a_question_that_has_no_reply_yet() -> None:
    conversation = chat("a")
    conversation.ask(user("b"), NOW)
    assert conversation.undo() == 1
    assert path(conversation) == "aA"
    assert conversation.redo() == 1
    assert path(conversation) == "aAb"


def test_a_new_question_leaves_nothing_to_redo_but_loses_nothing() -> None:
    conversation = chat("a", "b")
    conversation.undo()
    add_turn(conversation, "c")
    assert conversation.redo() == 0
    conversation.previous_sibling()
    assert path(conversation) == "aAbB"


def test_a_question_without_a_reply_steps_aside_for_the_next() -> None:
    conversation = chat("a")
    conversation.ask(user("b"), NOW)
    conversation.ask(user("c"), NOW)
    assert path(conversation) == "aAc"
    conversation.previous_sibling()
    assert path(conversation) == "aAb"


def test_a_retry_makes_a_sibling_and_next_and_previous_walk_them() -> None:
    conversation = chat("a", "b")
    assert conversation.retry().text == "b"
    node = answer(conversation, "B2")
    assert path(conversation) == "aAbB2"
    assert conversation.siblings(node.id) == (2, 2)
    assert conversation.previous_sibling().text == "B"
    assert path(conversation) == "aAbB"
    with pytest.raises(ConversationError, match="first of 2"):
        conversation.previous_sibling()
    assert conversation.next_sibling().text == "B2"
    with pytest.raises(ConversationError, match="last of 2"):
        conversation.next_sibling()


def test_a_retry_taken_back_stands_at_the_old_reply_again() -> None:
    conversation = chat("a")
    conversation.retry()
    assert path(conversation) == "a"
    conversation.redo()
    assert path(conversation) == "aA"


def test_an_edited_question_is_a_branch_of_its_own() -> None:
    conversation = chat("a", "b", "c")
    conversation.edit(2, user("x"), NOW)
    assert path(conversation) == "aAx"
    answer(conversation, "X")
    # The reply has no alternative, so it is the question's that are walked, and the walk ends
    # where that branch was left.
    assert conversation.previous_sibling().text == "b"
    assert path(conversation) == "aAbBcC"


def test_standing_on_an_alternative_goes_to_where_it_was_left() -> None:
    conversation = chat("a", "b", "c")
    conversation.undo()
    conversation.branch("short")
    conversation.edit(1, user("x"), NOW)
    conversation.previous_sibling()
    assert path(conversation) == "aAbBcC"
    conversation.undo(2)
    add_turn(conversation, "y")
    conversation.switch("short")
    assert path(conversation) == "aAbBcC"


def test_branches_have_names() -> None:
    conversation = chat("a")
    assert conversation.branch(" first try ").text == "A"
    conversation.edit(1, user("x"), NOW)
    conversation.branch("second")
    assert conversation.branches == {"first try": 2, "second": 3}
    conversation.switch("first try")
    assert path(conversation) == "aA"


@pytest.mark.parametrize(
    ("move", "words"),
    [
        (lambda c: c.branch("taken"), "already"),
        (lambda c: c.branch(" "), "1 to 100"),
        (lambda c: c.branch("a\nb"), "printable"),
        (lambda c: c.switch("nowhere"), "there are taken"),
        (lambda c: c.edit(3, user("x"), NOW), "no turn 3; there are 2"),
        (lambda c: c.pin(0), "no turn 0"),
        (lambda c: c.unpin(1), "not pinned"),
        (lambda c: c.next_sibling(), "no alternatives"),
        (lambda c: c.reply(*replied("x", "complete"), NOW), "no question"),
        (lambda c: c.replace_reply(1, *replied("x", "complete")), "is not a reply"),
        (lambda c: c.replace_reply(99, *replied("x", "complete")), "no node 99"),
        (lambda c: Conversation().retry(), "no question to try again"),
        (lambda c: Conversation().branch("x"), "say something first"),
        (lambda c: Conversation().switch("x"), "none has a name"),
        (lambda c: Conversation().next_sibling(), "no alternatives"),
    ],
)
def test_a_move_that_makes_no_sense_says_so_and_changes_nothing(
    move: Callable[[Conversation], object], words: str
) -> None:
    conversation = chat("a", "b")
    conversation.undo()
    conversation.branch("taken")
    conversation.redo()
    before = conversation.fork()
    with pytest.raises(ConversationError, match=words):
        move(conversation)
    assert conversation == before


def test_pins_belong_to_questions_and_are_counted_on_the_path() -> None:
    conversation = chat("a", "b", "c")
    assert conversation.pin(2).text == "b"
    conversation.pin(3)
    assert conversation.pinned_turns() == [2, 3]
    conversation.undo()
    assert conversation.pinned_turns() == [2]
    conversation.unpin(2)
    assert conversation.pinned_turns() == []
    assert conversation.pinned == {5}


def test_a_reply_grows_in_its_place() -> None:
    conversation = chat("a")
    conversation.ask(user("b"), NOW)
    node = conversation.reply(*replied("B", "streaming"), NOW)
    conversation.replace_reply(node.id, *replied("BB", "complete"))
    assert path(conversation) == "aAbBB"
    assert conversation.siblings(node.id) == (1, 1)


def test_a_fork_goes_its_own_way() -> None:
    conversation = chat("a")
    other = conversation.fork()
    assert other == conversation
    add_turn(other, "b")
    assert path(conversation) == "aA"


RESULT = Message(Role.TOOL, (ToolResult("1", "time", "12:00"),))
Q, (R, MADE) = user("q"), replied("r")


@pytest.mark.parametrize(
    "parts",
    [
        {"nodes": [Node(2, None, NOW, Q)]},
        {"nodes": [Node(1, 1, NOW, Q)]},
        {"nodes": [Node(1, None, NOW, R, MADE)]},
        {"nodes": [Node(1, None, NOW, RESULT)]},
        {"nodes": [Node(1, None, NOW, Q), Node(2, 1, NOW, RESULT)]},
        {"nodes": [Node(1, None, NOW, Message.of_text(Role.SYSTEM, "s"))]},
        {"nodes": [Node(1, None, NOW, Q), Node(2, 1, NOW, Q)]},
        {"nodes": [Node(1, None, NOW, Q), Node(2, 1, NOW, R, MADE), Node(3, 2, NOW, R, MADE)]},
        {"nodes": [Node(1, 2, NOW, Q), Node(2, 1, NOW, R, MADE)]},
        {"cursor": 1},
        {"branches": {"x": 1}},
        {"visited": [1]},
        {"nodes": [Node(1, None, NOW, Q), Node(2, 1, NOW, R, MADE)], "pinned": [2]},
    ],
)
def test_what_is_no_tree_is_not_restored(parts: dict) -> None:
    with pytest.raises(ConversationError):
        Conversation(**parts)


@pytest.mark.parametrize("record", [(Q, MADE), (R, None)])
def test_replies_and_they_alone_say_how_they_were_made(record: tuple) -> None:
    with pytest.raises(ConversationError):
        Node(1, None, NOW, *record)


def test_calls_and_results_of_tools_are_one_turn_with_the_reply_that_ends_it() -> None:
    call = Message(Role.ASSISTANT, (Text("I look."), ToolCall("time", "{}", "1")))
    nodes = [Node(1, None, NOW, Q), Node(2, 1, NOW, call, MADE), Node(3, 2, NOW, RESULT)]
    conversation = Conversation(nodes=nodes, cursor=3)
    (turn,) = conversation.turns()
    assert turn.reply == nodes[1] and turn.nodes == tuple(nodes)
    conversation.reply(R, MADE, NOW)
    add_turn(conversation, "b")
    assert [(turn.n, turn.reply and turn.reply.text) for turn in conversation.turns()] == [(1, "r"), (2, "B")]
    assert [message.role.value[0] for message in conversation.messages()] == list("uataua")
    conversation.undo(2)
    assert conversation.cursor is None
    conversation.redo()
    assert path(conversation) == "qI look.\n\ntime: {}12:00r"
    conversation.redo()
    assert path(conversation).endswith("bB")


MOVES: dict[str, Callable[[Conversation, int], object]] = {
    "ask": lambda c, n: c.ask(user(f"q{n}"), NOW),
    "reply": lambda c, n: c.reply(*replied(f"r{n}", "complete"), NOW),
    "turn": lambda c, n: add_turn(c, f"t{n}"),
    "undo": lambda c, n: c.undo(n),
    "redo": lambda c, n: c.redo(n),
    "retry": lambda c, n: c.retry(),
    "next": lambda c, n: c.next_sibling(),
    "previous": lambda c, n: c.previous_sibling(),
    "edit": lambda c, n: c.edit(n, user(f"e{n}"), NOW),
    "branch": lambda c, n: c.branch(f"b{n}"),
    "switch": lambda c, n: c.switch(f"b{n}"),
    "pin": lambda c, n: c.pin(n),
    "unpin": lambda c, n: c.unpin(n),
}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(MOVES)), st.integers(1, 4)), max_size=40))
def test_no_sequence_of_moves_loses_a_turn_or_breaks_the_tree(moves: list[tuple[str, int]]) -> None:
    conversation = Conversation("s")
    for name, n in moves:
        before = conversation.fork()
        try:
            MOVES[name](conversation, n)
        except ConversationError:
            assert conversation == before
            continue
        assert conversation.nodes[: len(before.nodes)] == before.nodes
        if name == "undo":
            undone = len(before.questions()) - len(conversation.questions())
            again = before.fork()
            assert again.undo(n) == undone
        if name in ("ask", "edit", "turn"):
            assert conversation.fork().redo() == 0
        roles = [message.role for message in conversation.messages()[1:]]
        assert roles == [Role.USER, Role.ASSISTANT] * (len(roles) // 2) + [Role.USER] * (len(roles) % 2)
        assert conversation.fork() == conversation  # so it can be stored and restored


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 6))
def test_as_many_redos_as_undos_lead_back(turns: int, steps: int) -> None:
    conversation = chat(*"abcdef"[:turns])
    before = conversation.fork()
    taken = conversation.undo(steps)
    assert taken == min(turns, steps)
    assert conversation.redo(steps) == taken
    assert conversation == before

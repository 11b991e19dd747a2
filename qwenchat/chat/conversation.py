"""The conversation as a tree of turns: asking, undoing, trying again, branching.

Owns the shape of the tree and the place in it where the chat stands (the cursor). Nothing is ever
taken out of the tree: undoing moves the cursor, trying again or editing grows a sibling. What a node and
a turn are is ``nodes``'s. Knows no clock, no disk, no tokenizer and no model; it is not safe to change from
two threads at once.

Questions and replies alternate on every path; tools' results may stand between a reply that calls them and
the one that goes on from there. :meth:`Conversation.turns` alone says what a turn is.

Each place remembers which of its continuations was visited last; that memory is what ``redo`` and the walk
among siblings follow, so there is no undo stack beside the tree that could disagree with it.

    (empty) ── 1 question ─┬─ 2 reply ── 3 question ── 4 reply   <- cursor
                           └─ 5 reply        (a retry of question 1)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from qwenchat.chat.messages import Message
from qwenchat.chat.nodes import FOLLOWING, Node, ReplyRecord, Turn, turns_of
from qwenchat.chat.parts import Role
from qwenchat.errors import ConversationError, Names, Phrase
from qwenchat.text.caseless import named

_NAME_LIMIT = 100


class Conversation:
    """A tree of turns and the place where the chat stands.

    The arguments after ``system`` restore a conversation from the properties of the same names.

    Args:
        system: the system prompt; empty for none, None for the model's own.
        nodes: every node, in the order of their ids.
        cursor: the id of the node where the chat stands; None before the first question.
        branches: names and the ids that they stand for.
        pinned: ids of the questions whose turns the context window must keep.
        visited: ids that were visited last among their siblings, where that is not the newest.

    Raises:
        ConversationError: these do not make a tree.
    """

    def __init__(
        self,
        system: str | None = None,
        *,
        nodes: Sequence[Node] = (),
        cursor: int | None = None,
        branches: Mapping[str, int] | None = None,
        pinned: Iterable[int] = (),
        visited: Iterable[int] = (),
    ) -> None:
        self.system = system
        self._nodes: list[Node] = []
        self._children: dict[int | None, list[int]] = {None: []}
        self._last_visited: dict[int | None, int] = {}
        for node in nodes:
            self._check_place(node)
            self._add(node)
        for node_id in visited:
            self._last_visited[self.node(node_id).parent] = node_id
        self._cursor = None if cursor is None else self.node(cursor).id
        self._branches = {name: self.node(node_id).id for name, node_id in (branches or {}).items()}
        self._pinned = {self._as_question(node_id).id for node_id in pinned}

    # --- looking -------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(self._nodes)

    @property
    def cursor(self) -> int | None:
        return self._cursor

    @property
    def branches(self) -> dict[str, int]:
        """The named branches, in the order of naming, with the node at which each was named."""
        return dict(self._branches)

    @property
    def pinned(self) -> frozenset[int]:
        return frozenset(self._pinned)

    @property
    def visited(self) -> tuple[int, ...]:
        newest = {parent: ids[-1] for parent, ids in self._children.items() if ids}
        return tuple(sorted(i for parent, i in self._last_visited.items() if i != newest[parent]))

    @property
    def current(self) -> Node | None:
        """The node where the chat stands."""
        return None if self._cursor is None else self.node(self._cursor)

    def node(self, node_id: int) -> Node:
        """The node with an id.

        Raises:
            ConversationError: there is none.
        """
        if not 1 <= node_id <= len(self._nodes):
            raise ConversationError("the conversation has no node {node_id}", node_id=node_id)
        return self._nodes[node_id - 1]

    def path(self) -> list[Node]:
        """The nodes from the first question to where the chat stands."""
        found = []
        node_id = self._cursor
        while node_id is not None:
            node = self._nodes[node_id - 1]
            found.append(node)
            node_id = node.parent
        return found[::-1]

    def turns(self) -> list[Turn]:
        """The path as turns, a question and its answer each; the last may have none yet."""
        return turns_of(self.path())

    def questions(self) -> list[Node]:
        """The questions of :meth:`turns`."""
        return [turn.question for turn in self.turns()]

    def question(self, n: int) -> Node:
        """The question of turn ``n`` of the path.

        Raises:
            ConversationError: the path has no such turn.
        """
        questions = self.questions()
        if not 1 <= n <= len(questions):
            there = (
                Phrase.of_number(len(questions), "there is only one turn", "there are {count} turns")
                if questions
                else Phrase("no question yet")
            )
            raise ConversationError(Phrase("there is no turn {n}", n=n), there)
        return questions[n - 1]

    def messages(self) -> list[Message]:
        """Messages for the model: the system prompt, also an empty one, if it is not the model's own, then
        the path."""
        system = [] if self.system is None else [Message.of_text(Role.SYSTEM, self.system)]
        return [*system, *(node.message for node in self.path())]

    def siblings(self, node_id: int) -> tuple[int, int]:
        """A node's place among its alternatives, counted from 1, and their number."""
        ids = self._children[self.node(node_id).parent]
        return ids.index(node_id) + 1, len(ids)

    def replies(self, node_id: int) -> list[Node]:
        """The replies to a question, or the questions that follow a reply, the oldest first."""
        return [self.node(child) for child in self._children[self.node(node_id).id]]

    def pinned_turns(self) -> list[int]:
        """The numbers of the path's turns that are pinned, counted from 1."""
        return [turn.n for turn in self.turns() if turn.question.id in self._pinned]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Conversation) and self._state() == other._state()

    __hash__ = None  # type: ignore[assignment]  # it changes

    # --- growing -------------------------------------------------------------------------------

    def ask(self, question: Message, created: str) -> Node:
        """Asks where the chat stands.

        A question that has no reply yet is left beside the path, as an alternative of the new one:
        two questions in a row are more than many models' prompts can hold.
        """
        here = self.current
        parent = here.parent if here is not None and here.role is Role.USER else self._cursor
        return self._grow(parent, created, question)

    def reply(self, reply: Message, record: ReplyRecord, created: str) -> Node:
        """Answers the question where the chat stands, or goes on from the tool's result there.

        Raises:
            ConversationError: it stands at neither.
        """
        here = self.current
        if here is None or here.role is Role.ASSISTANT:
            raise ConversationError("there is no question to reply to")
        return self._grow(here.id, created, reply, record)

    def respond(self, result: Message, created: str) -> Node:
        """Adds what came of a tool that the reply calls where the chat stands.

        Raises:
            ConversationError: it stands at no such reply.
        """
        if self._cursor is None:
            raise ConversationError("there is no call to respond to")
        return self._grow(self._cursor, created, result)

    def replace_reply(self, node_id: int, reply: Message, record: ReplyRecord) -> Node:
        """Puts a longer, or the final, form of a reply in its place.

        Raises:
            ConversationError: there is no such reply.
        """
        node = self.node(node_id)
        if node.record is None:
            raise ConversationError("node {node_id} is not a reply", node_id=node_id)
        self._nodes[node_id - 1] = changed = replace(node, message=reply, record=record)
        return changed

    def edit(self, n: int, question: Message, created: str) -> Node:
        """Asks turn ``n`` of the path in other words, on a new branch.

        Raises:
            ConversationError: the path has no such turn.
        """
        return self._grow(self.question(n).parent, created, question)

    def fork(self) -> Conversation:
        """A copy that goes its own way."""
        return Conversation(
            self.system,
            nodes=self._nodes,
            cursor=self._cursor,
            branches=self._branches,
            pinned=self._pinned,
            visited=self.visited,
        )

    # --- moving --------------------------------------------------------------------------------

    def undo(self, steps: int = 1) -> int:
        """Goes back by turns, a question and its reply each. Returns how many there were to undo."""
        turns = self.turns()
        taken = min(max(steps, 0), len(turns))
        if taken:
            self._cursor = turns[-taken].question.parent
        return taken

    def redo(self, steps: int = 1) -> int:
        """Goes forward again by turns, as far as they were visited last. Returns how many there were."""
        for taken in range(steps):
            following = self._last_visited.get(self._cursor)
            if following is None:
                return taken
            self._cursor = following
            # A turn ends before the next question; one that never got a reply is a turn as well.
            while (following := self._last_visited.get(following)) is not None:
                if self.node(following).role is Role.USER:
                    break
                self._cursor = following
        return max(steps, 0)

    def retry(self) -> Node:
        """Goes back to the last question, so that the next reply becomes a sibling of the last.

        Raises:
            ConversationError: nothing was asked yet.
        """
        questions = self.questions()
        if not questions:
            raise ConversationError("there is no question to try again")
        self._cursor = questions[-1].id
        return questions[-1]

    def next_sibling(self) -> Node:
        """Goes to the next alternative of the last reply or, where it has none, of its question.

        Below the alternative, the chat goes on to where it was left. Returns the alternative.

        Raises:
            ConversationError: there is no next one.
        """
        return self._step_aside(+1)

    def previous_sibling(self) -> Node:
        """As :meth:`next_sibling`, the other way."""
        return self._step_aside(-1)

    # --- names and pins ------------------------------------------------------------------------

    def branch(self, name: str) -> Node:
        """Names the branch where the chat stands. Returns the node that now bears the name.

        Raises:
            ConversationError: the name is empty, too long or taken, or nothing was asked yet.
        """
        name, here = name.strip(), self.current
        if not name or len(name) > _NAME_LIMIT or not name.isprintable():
            raise ConversationError(
                "a branch's name has 1 to {limit} printable characters", limit=_NAME_LIMIT
            )
        if here is None:
            raise ConversationError("nothing to name yet", "say something first")
        known = named(name, self._branches)
        if known is not None and self._branches[known] != here.id:
            raise ConversationError("the branch {name!r} already exists", name=known)
        self._branches[known or name] = here.id
        return here

    def switch(self, name: str) -> Node:
        """Goes to a named branch, to where it was left. Returns the node where the chat then stands.

        Raises:
            ConversationError: no branch has that name.
        """
        branch = named(name, self._branches)
        if branch is None:
            known = Names(self._branches)
            hint = Phrase("there are {names}", names=known) if known else Phrase("none has a name yet")
            raise ConversationError(Phrase("there is no branch {name!r}", name=name), hint)
        return self._visit(self._deepest(self._branches[branch]))

    def pin(self, n: int) -> Node:
        """Makes the context window keep turn ``n`` of the path. Returns its question.

        Raises:
            ConversationError: the path has no such turn.
        """
        node = self.question(n)
        self._pinned.add(node.id)
        return node

    def unpin(self, n: int) -> Node:
        """Takes the pin of turn ``n`` out again. Returns its question.

        Raises:
            ConversationError: the path has no such turn, or it is not pinned.
        """
        node = self.question(n)
        if node.id not in self._pinned:
            raise ConversationError("turn {n} is not pinned", n=n)
        self._pinned.remove(node.id)
        return node

    # --- inside --------------------------------------------------------------------------------

    def _check_place(self, node: Node) -> None:
        if node.id != len(self._nodes) + 1:
            raise ConversationError(
                "node {id} stands where {other} belongs", id=node.id, other=len(self._nodes) + 1
            )
        parent = None if node.parent is None else self.node(node.parent)
        if node.role not in FOLLOWING[parent.role if parent else None]:
            raise ConversationError("node {id}: questions and replies do not alternate", id=node.id)

    def _add(self, node: Node) -> None:
        self._nodes.append(node)
        self._children[node.id] = []
        self._children[node.parent].append(node.id)
        self._last_visited[node.parent] = node.id

    def _grow(
        self, parent: int | None, created: str, message: Message, record: ReplyRecord | None = None
    ) -> Node:
        node = Node(len(self._nodes) + 1, parent, created, message, record)
        self._check_place(node)
        self._add(node)
        return self._visit(node)

    def _visit(self, node: Node) -> Node:
        self._cursor = node.id
        for passed in self.path():
            self._last_visited[passed.parent] = passed.id
        return node

    def _deepest(self, node_id: int) -> Node:
        """The node where the chat was left below a node."""
        while (following := self._last_visited.get(node_id)) is not None:
            node_id = following
        return self.node(node_id)

    def _step_aside(self, step: int) -> Node:
        for node in reversed([node for turn in self.turns()[-1:] for node in turn.nodes]):
            index, count = self.siblings(node.id)
            if count == 1:
                continue
            if index + step > count:
                raise ConversationError("this is the last of {count}", count=count)
            if index + step < 1:
                raise ConversationError("this is the first of {count}", count=count)
            aside = self.node(self._children[node.parent][index - 1 + step])
            self._visit(self._deepest(aside.id))
            return aside
        raise ConversationError("the last turn has no alternatives", "/retry and /edit make some")

    def _as_question(self, node_id: int) -> Node:
        node = self.node(node_id)
        if node.role is not Role.USER:
            raise ConversationError("node {node_id} is not a question", node_id=node_id)
        return node

    def _state(self) -> tuple[object, ...]:
        places = (self._cursor, list(self._branches.items()), self._pinned, self._last_visited)
        return (self.system, self._nodes, *places)

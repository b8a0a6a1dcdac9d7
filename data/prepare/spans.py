"""Assistant turns in a rendered conversation, found by rendering its beginnings.

Templates rarely say themselves what the assistant wrote. But the text before turn i is the rendering of the messages
before it, with the prompt for a generation, and the text up to its end that of the messages including it: the
difference is the turn. A turn goes on to the end of its end token and not to the line feed that many templates put
behind it: the model is to learn to end there.

Some templates render a turn differently once others follow (Qwen3 drops the reasoning of earlier turns). Then the turn
is taken as it stands in the whole conversation, to the first end token behind its beginning; which token that is says
the rendering in which the turn is the last.
"""

import re

from faults import quote
from templates import Refused

_EMPTY_THOUGHT = re.compile(r"\s*<think>\s*</think>\n*")


class NotFound(Exception):
    """A turn cannot be told apart; the text says which and why."""


class Rendered:
    """A conversation up to the end of its last trained turn.

    text        with guarded user text (vocabulary.guard)
    marks       special tokens of the template in it: [(start, end, id)]
    turns       [(start, end)] of what is trained, ascending
    end_id      the end token that the text ends with, or None
    dropped     messages after the last assistant turn, which are left out
    moved       turns that the template renders differently when others follow
    """

    def __init__(self):
        self.text, self.marks, self.turns, self.end_id = "", [], [], None
        self.dropped = self.moved = 0


def render(vocabulary, template, messages, first):
    """Renders messages of checked shape; turns from index `first` on are trained. None when there is no such turn.
    Raises Refused, NotFound."""
    last = max((i for i, m in enumerate(messages) if m["role"] == "assistant" and i >= first), default=None)
    if last is None:
        return None
    result = Rendered()
    result.dropped = len(messages) - last - 1
    guarded = [{key: vocabulary.guard(value) for key, value in m.items()} for m in messages[: last + 1]]
    text = template.render(guarded, False)
    marks = vocabulary.marks(text)
    end_id = None
    for i in range(first, last + 1):
        if guarded[i]["role"] != "assistant":
            continue
        try:
            before = template.render(guarded[:i], True)
            until = text if i == last else template.render(guarded[: i + 1], False)
        except Refused as error:
            raise Refused(f"rendering only the messages before or up to message {i + 1}: {error}") from None
        start, end, end_id, moved = _turn(vocabulary, text, marks, before, until, i + 1)
        if result.turns and start < result.turns[-1][1]:
            raise NotFound(f"message {i + 1}: begins inside the assistant turn before it")
        result.turns.append((_after_empty_thought(guarded[i], text, start, end), end))
        result.moved += moved
    cut = result.turns[-1][1]
    result.text = text[:cut]
    result.marks = [mark for mark in marks if mark[1] <= cut]
    result.end_id = end_id
    return result


def _turn(vocabulary, text, marks, before, until, number):
    """(start, end, id of its end token or None, whether it is rendered differently inside the whole)"""
    if not text.startswith(before):
        raise NotFound(f"message {number}: {_difference('the whole', text, before)}")
    if not until.startswith(before):
        raise NotFound(f"message {number}: {_difference('the turn itself', until, before)}")
    start = len(before)
    behind = [mark for mark in vocabulary.marks(until) if mark[0] >= start]
    ends = behind[-1] if behind and not until[behind[-1][1] :].strip() else None
    if text.startswith(until):
        return (start, ends[1], ends[2], False) if ends else (start, len(until), None, False)
    if ends and sum(mark[2] == ends[2] for mark in behind) == 1:
        for _, end, id in marks:
            if end > start and id == ends[2]:
                return start, end, id, True
    raise NotFound(f"message {number}: the template renders this turn differently when others follow, "
                   "and no end token says where it ends")


def _difference(where, longer, shorter):
    at = next((i for i, (a, b) in enumerate(zip(longer, shorter)) if a != b), min(len(longer), len(shorter)))
    return (f"the text before the turn changes with {where}: at character {at + 1} "
            f"{quote(shorter[at : at + 30])} becomes {quote(longer[at : at + 30])}")


def _after_empty_thought(message, text, start, end):
    """The empty block of reasoning that templates put before an answer without one is not what anybody wrote."""
    if "<think>" in message["content"] or message.get("reasoning_content"):
        return start
    match = _EMPTY_THOUGHT.match(text, start, end)
    return match.end() if match else start

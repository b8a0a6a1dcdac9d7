"""The lines of a JSONL file and the three shapes they may have.

    {"text": "..."}
    {"prompt": "...", "completion": "..."}, or both lists of messages
    {"messages": [{"role": "...", "content": "..."}, ...]}

All rows of a file have one shape. Other keys are ignored and named in the report. Every fault is one row's: the reader
goes on behind it.
"""

import hashlib
import json

from faults import Fault, quote
from vocabulary import RESERVED

SHAPES = {"text": ("text",), "prompt": ("prompt", "completion"), "messages": ("messages",)}
COLUMNS = ("text", "prompt", "completion", "messages")
MESSAGE_KEYS = ("role", "content", "reasoning_content")
ROLES = ("system", "developer", "user", "assistant", "tool")
OTHERS = {"UTF-16": (b"\xff\xfe", b"\xfe\xff"), "compressed": (b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")}


class Row:
    """line, shape ("text", "strings", "messages"), and its fields: text; prompt and completion; or messages with
    `first`, the index from which assistant turns are trained."""

    __slots__ = ("line", "shape", "text", "prompt", "completion", "messages", "first")


def _no_duplicates(pairs):
    found = dict(pairs)
    if len(found) != len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {quote(key)} stands there twice")
            seen.add(key)
    return found


class Reader:
    """Iterates over Row and Fault, in the order of the file.

    columns       {our key: the file's key}
    After the last row: sha256 of the file, shape, ignored (keys nobody reads), blank (lines), bytes read so far,
    odd_roles {role that is none of ROLES: [messages, line of the first]}.
    """

    def __init__(self, path, columns):
        self.path = path
        self.columns = columns
        self.keys = {name: columns.get(name, name) for name in COLUMNS}
        self.sha256, self.shape, self.ignored, self.blank, self.bytes = None, None, set(), 0, 0
        self.odd_roles = {}

    def __iter__(self):
        digest = hashlib.sha256()
        try:
            with open(self.path, "rb") as file:
                for number, raw in enumerate(file, 1):
                    digest.update(raw)
                    self.bytes += len(raw)
                    if not raw.strip():
                        self.blank += 1
                        continue
                    try:
                        yield self._row(number, raw)
                    except Fault as fault:
                        yield fault
        except OSError as error:
            raise Fault("IO-01", self.path, error.strerror) from None
        self.sha256 = digest.hexdigest()

    def _fault(self, id, line, text):
        return Fault(id, f"{self.path}:{line}", text, line)

    def _row(self, line, raw):
        try:
            text = raw.rstrip(b"\r\n").decode("utf-8-sig" if line == 1 else "utf-8")
        except UnicodeDecodeError as error:
            kind = next((name for name, begin in OTHERS.items() if line == 1 and raw.startswith(begin)), None)
            reason = f"this file is {kind}" if kind else error.reason
            raise self._fault("DATA-21", line, f"byte {error.start + 1} is not UTF-8: {reason}") from None
        try:
            value = json.loads(text, object_pairs_hook=_no_duplicates)
        except json.JSONDecodeError as error:
            reason = error.msg.removesuffix(" at")  # some of its texts end so
            if line == 1 and text.lstrip().startswith("["):
                reason = "the file begins as one JSON list, JSONL has an object on each line"
            raise self._fault("DATA-21", line, f"not JSON: {reason} at character {error.pos + 1}") from None
        except (ValueError, RecursionError) as error:
            raise self._fault("DATA-21", line, f"not JSON: {error}") from None
        if not isinstance(value, dict):
            kind = "list" if isinstance(value, list) else "single value"
            raise self._fault("DATA-21", line, f"a {kind}; wanted an object")
        return self._shaped(line, value)

    def _shaped(self, line, value):
        found = [name for name, keys in SHAPES.items() if any(self.keys[key] in value for key in keys)]
        if not found:
            wanted = ", ".join(self.keys[name] for name in COLUMNS)
            there = ", ".join(value) or "none"
            raise self._fault("DATA-22", line, f"none of the keys {wanted}; found {there}")
        if len(found) > 1:
            raise self._fault("DATA-22", line, f"keys of {len(found)} shapes in one row: {', '.join(found)}")
        keys = SHAPES[found[0]]
        for key in keys:
            if self.keys[key] not in value:
                raise self._fault("DATA-22", line, f'no key "{self.keys[key]}"')
        self.ignored.update(value.keys() - {self.keys[key] for key in keys})

        fields = {key: value[self.keys[key]] for key in keys}
        row = Row()
        row.line = line
        if found[0] == "text":
            row.shape, row.text = "text", self._text(line, "text", fields["text"])
        elif found[0] == "messages":
            row.shape, row.first = "messages", 0
            row.messages = self._messages(line, "messages", fields["messages"])
        else:
            self._pair(line, row, fields["prompt"], fields["completion"])
        shape = row.shape if found[0] != "prompt" else f"prompt and completion of {row.shape}"
        if self.shape is None:
            self.shape = shape
        elif self.shape != shape:
            raise self._fault("DATA-24", line, f"a row of {shape}; the first row has {self.shape}")
        return row

    def _pair(self, line, row, prompt, completion):
        lists = isinstance(prompt, list), isinstance(completion, list)
        if lists == (True, True):
            row.shape, row.first = "messages", len(prompt)
            row.messages = self._messages(line, "prompt", prompt) + self._messages(line, "completion", completion)
        elif True in lists:
            raise self._fault("DATA-23", line, "prompt and completion: one is a list of messages, the other is not")
        else:
            row.shape = "strings"
            row.prompt = self._text(line, "prompt", prompt)
            row.completion = self._text(line, "completion", completion)

    def _messages(self, line, key, value):
        place = f'"{self.keys[key]}"'
        if not isinstance(value, list) or not value:
            what = "an empty list" if value == [] else _kind(value)
            raise self._fault("DATA-23", line, f"{place}: {what}; wanted a list of messages")
        for number, message in enumerate(value, 1):
            at = f"{place}, message {number}"
            if not isinstance(message, dict):
                raise self._fault("DATA-23", line, f"{at}: {_kind(message)}; wanted an object")
            for name in ("role", "content"):
                if name not in message:
                    raise self._fault("DATA-22", line, f'{at}: no key "{name}"')
            for name, text in message.items():
                if name not in MESSAGE_KEYS:
                    raise self._fault("DATA-22", line, f"{at}: key {quote(name)} is not supported")
                # Only what is trained has to say something: an empty system message is nothing strange.
                filled = name == "role" or (name == "content" and message["role"] == "assistant")
                self._text(line, f"{at}, {name}", text, filled)
            if message["role"] not in ROLES:
                self.odd_roles.setdefault(message["role"], [0, line])[0] += 1
        return value

    def _text(self, line, name, value, filled=True):
        if name in COLUMNS:
            name = f'"{self.keys[name]}"'
        if not isinstance(value, str):
            raise self._fault("DATA-23", line, f"{name}: {_kind(value)}; wanted text")
        if filled and not value.strip():
            raise self._fault("DATA-23", line, f"{name}: empty")
        if not value.isascii():
            self._check_characters(line, name, value)
        return value

    def _check_characters(self, line, name, value):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise self._fault("DATA-21", line, f"{name}: half a surrogate pair at character {error.start + 1}") from None
        match = RESERVED.search(value)
        if match:
            raise self._fault(
                "DATA-23",
                line,
                f"{name}: U+{ord(match[0]):04X} at character {match.start() + 1}; U+FDD0 to U+FDD2 are no characters "
                "and are used inside",
            )


def _kind(value):
    if value is None:
        return "null"
    for kind, word in ((bool, "true or false"), ((int, float), "a number"), (str, "text"), (list, "a list")):
        if isinstance(value, kind):
            return word
    return "an object"

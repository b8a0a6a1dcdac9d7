"""The tokenizer of a model folder.

Special tokens in a user's text must stay text: a document about chat formats may hold "<|im_end|>", and only the
template may end a turn. So the tokenizer is loaded with its special tokens under private spellings, made of characters
that no text may hold (rows that do are refused): OPEN, the token's id, CLOSE. No text can produce one. What a chat
template writes is told from what the user wrote by `guard`, which breaks up special spellings in the user's text
before it is rendered; the unbroken ones that come out are the template's, and `private` gives them their private
spelling. Everything else about the tokenizer stays: the ids of a text without special spellings are those that
transformers gives.
"""

import hashlib
import json
import os
import re

import numpy
from faults import Fault
from tokenizers import Tokenizer

OPEN, CLOSE, BREAK = "\ufdd0", "\ufdd1", "\ufdd2"  # noncharacters: never in text that is meant to be read
RESERVED = re.compile(f"[{OPEN}{CLOSE}{BREAK}]")
NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
INT32_MAX = 2**31 - 1


def _read(folder, name, required):
    path = os.path.join(folder, name)
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        if required:
            raise Fault("DATA-30", path, "no such file") from None
        return None
    except OSError as error:
        raise Fault("IO-01", path, error.strerror) from None


def _read_json(folder, name, required=False):
    text = _read(folder, name, required)
    if text is None:
        return {}
    path = os.path.join(folder, name)
    try:
        value = json.loads(text.decode("utf-8"))
    except ValueError as error:
        raise Fault("DATA-02", path, str(error)) from None
    if not isinstance(value, dict):
        raise Fault("DATA-02", path, "not an object")
    return value


def _whole(config, key, path, required):
    value = config.get(key)
    if value is None:
        if required:
            raise Fault("DATA-03", path, f'no "{key}"')
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= INT32_MAX:
        raise Fault("DATA-04", path, f'"{key}": found {value!r}, wanted a whole number from 1 to {INT32_MAX}')
    return value


def _look_at(folder):
    """In the words of data/hf_folder.c."""

    def has(name):
        return os.path.exists(os.path.join(folder, name))

    if not os.path.isdir(folder):
        raise Fault("DATA-01", folder, "is a file, not a folder" if os.path.exists(folder) else "there is no such folder")
    if not has("config.json"):
        adapter = has("adapter_config.json")
        raise Fault("DATA-01", folder, "is an adapter, a base model is wanted" if adapter else "has no config.json")
    if not has("tokenizer.json") and has("tokenizer.model"):
        path = os.path.join(folder, "tokenizer.json")
        raise Fault("DATA-30", path, "no such file; tokenizer.model (SentencePiece) has to be converted to one")


class Vocabulary:
    """What a model folder says about tokens.

    sha256              of tokenizer.json
    vocab_size          of the model (config.json)
    max_positions       of the model, or None
    eos_id, eos_ids     the end token that is appended, and all that end a text
    bos_id              -1: none
    prefix              ids that the post-processor puts in front of a text (mostly the BOS, or nothing)
    named               bos_token and the like, as a chat template sees them
    template            text of the chat template, or None; template_path says where it was found
    joins               two texts tokenized apart are the text tokenized: no blank is put in front of one
    """

    def __init__(self, folder):
        self.folder = folder
        _look_at(folder)
        config_path = os.path.join(folder, "config.json")
        config = _read_json(folder, "config.json", required=True)
        generation = _read_json(folder, "generation_config.json")
        settings = _read_json(folder, "tokenizer_config.json")
        raw = _read(folder, "tokenizer.json", required=True)

        self.sha256 = hashlib.sha256(raw).hexdigest()
        self.vocab_size = _whole(config, "vocab_size", config_path, required=True)
        self.max_positions = _whole(config, "max_position_embeddings", config_path, required=False)
        self._load(raw, settings)
        self._find_ends(config, generation)
        self._find_starts()
        self._find_template(settings)

    # ==== loading ====

    def _load(self, raw, settings):
        self.path = os.path.join(self.folder, "tokenizer.json")
        try:
            data = json.loads(raw.decode("utf-8"))
            plain = Tokenizer.from_str(raw.decode("utf-8"))
        except Exception as error:  # tokenizers raises Exception itself
            raise Fault("DATA-30", self.path, f"not a tokenizer: {error}") from None
        plain.no_padding()
        plain.no_truncation()
        self._plain = plain

        self.named = {}
        for name in NAMES:
            value = settings.get(name)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str) and value:
                self.named[name] = value
        self._specials = self._special_tokens(data)
        self._tokenizer = self._with_private_spellings(data)
        by_length = sorted(self._specials, key=len, reverse=True)
        self._find = re.compile("|".join(map(re.escape, by_length))) if by_length else re.compile(r"(?!)")

        # The token for unknown text comes out of text, so it does not mark a place.
        unknown = data["model"].get("unk_token")
        self._unknown = self._specials.get(unknown, -1)
        self._ids = numpy.array(sorted(set(self._specials.values()) - {self._unknown}), dtype=numpy.int32)
        first = plain.encode("x", add_special_tokens=False).tokens
        self.joins = first == ["x"]

    def _special_tokens(self, data):
        """{spelling: id}: the special ones of tokenizer.json, and those that tokenizer_config.json names."""
        added = data.setdefault("added_tokens", [])
        spelled = {token["content"]: token for token in added}
        for name, spelling in self.named.items():
            if spelling in spelled:
                spelled[spelling]["special"] = True
                continue
            id = self._plain.token_to_id(spelling)
            if id is None:
                if name in ("bos_token", "eos_token"):
                    raise Fault("DATA-30", self.path, f"no token {spelling!r}, which tokenizer_config.json names")
                continue
            token = {"id": id, "content": spelling, "special": True, "lstrip": False, "rstrip": False}
            added.append(token)
            spelled[spelling] = token
        return {spelling: token["id"] for spelling, token in spelled.items() if token["special"] and spelling}

    def _with_private_spellings(self, data):
        data["padding"] = data["truncation"] = None
        model = data["model"]
        spellings = {spelling: self._spell(id) for spelling, id in self._specials.items()}
        for token in data["added_tokens"]:
            if token["content"] in spellings:
                # Matched in the text as it is: a normalizer has nothing to do with a private spelling.
                token.update(content=spellings[token["content"]], normalized=False, single_word=False)
        vocab = model.get("vocab")
        if isinstance(vocab, dict):
            for spelling, private in spellings.items():
                if spelling in vocab:
                    vocab[private] = vocab.pop(spelling)
        elif vocab is not None:
            model["vocab"] = [[spellings.get(entry[0], entry[0]), *entry[1:]] for entry in vocab]
        if model.get("unk_token") in spellings:
            model["unk_token"] = spellings[model["unk_token"]]
        try:
            tokenizer = Tokenizer.from_str(json.dumps(data, ensure_ascii=False))
        except Exception as error:
            raise Fault("DATA-30", self.path, f"special tokens that are part of other tokens: {error}") from None
        for spelling, id in self._specials.items():
            found = tokenizer.token_to_id(spellings[spelling])
            if found != id or self._plain.token_to_id(spelling) != id:
                raise Fault("DATA-30", self.path, f"token {spelling!r} has id {id} in the list and {found} when read")
        return tokenizer

    @staticmethod
    def _spell(id):
        return f"{OPEN}{id}{CLOSE}"

    def _find_ends(self, config, generation):
        ids = None
        for source, name in ((generation, "generation_config.json"), (config, "config.json")):
            ids = source.get("eos_token_id")
            if ids is not None:
                break
        else:
            name = "tokenizer_config.json"
            spelling = self.named.get("eos_token")
            ids = None if spelling is None else self._plain.token_to_id(spelling)
        if ids is None:
            raise Fault(
                "DATA-32",
                self.folder,
                "no end token: neither eos_token_id in generation_config.json or config.json nor eos_token in "
                "tokenizer_config.json",
            )
        place = os.path.join(self.folder, name)
        ids = ids if isinstance(ids, list) else [ids]
        for id in ids:
            if not isinstance(id, int) or isinstance(id, bool) or self._plain.id_to_token(max(id, 0)) is None or id < 0:
                raise Fault("DATA-32", place, f"end token {id!r}: the tokenizer has no such token")
            if id >= self.vocab_size:
                raise Fault("DATA-33", place, f"end token {id}: the model has {self.vocab_size} tokens")
        if not ids:
            raise Fault("DATA-32", place, "eos_token_id is an empty list")
        self.eos_id, self.eos_ids = ids[0], frozenset(ids)

    def _find_starts(self):
        with_them = self._plain.encode("a", add_special_tokens=True).ids
        without = self._plain.encode("a", add_special_tokens=False).ids
        length = next(
            (n for n in range(len(with_them)) if with_them[n : n + len(without)] == without),
            0,
        )
        self.prefix = with_them[:length]
        bos = self.named.get("bos_token")
        if bos is not None:
            self.bos_id = self._plain.token_to_id(bos)
        else:
            self.bos_id = self.prefix[0] if len(self.prefix) == 1 else -1
        self.bos_spelling = self._plain.id_to_token(self.bos_id) if self.bos_id >= 0 else None

    def _find_template(self, settings):
        self.template_path = os.path.join(self.folder, "chat_template.jinja")
        text = _read(self.folder, "chat_template.jinja", required=False)
        if text is not None:
            try:
                self.template = text.decode("utf-8")
            except UnicodeDecodeError as error:
                raise Fault("DATA-31", self.template_path, f"not UTF-8: {error.reason}") from None
        else:
            self.template_path = os.path.join(self.folder, "tokenizer_config.json")
            value = settings.get("chat_template")
            if isinstance(value, list):  # several by name
                value = {entry.get("name"): entry.get("template") for entry in value}.get("default")
            self.template = value if isinstance(value, str) else None
        text = (self.template or "").encode("utf-8", "surrogatepass")
        self.template_sha256 = hashlib.sha256(text).hexdigest() if text else ""

    # ==== special tokens in text ====

    def has_special(self, text):
        return self._find.search(text) is not None

    def guard(self, text):
        """`text` with its special spellings broken up, so that they survive rendering as text."""
        while self._find.search(text):
            text = self._find.sub(lambda match: match[0][0] + BREAK + match[0][1:], text)
        return text

    def marks(self, rendered):
        """The template's special tokens in a rendered text: [(start, end, id)]."""
        return [(match.start(), match.end(), self._specials[match[0]]) for match in self._find.finditer(rendered)]

    def private(self, rendered):
        """What `encode` wants: the template's special tokens in private spelling, the user's text as it was."""
        return self._find.sub(lambda match: self._spell(self._specials[match[0]]), rendered).replace(BREAK, "")

    # ==== tokens ====

    def encode(self, texts):
        """Token ids of each text as an int32 array; nothing is put in front or behind."""
        found = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [numpy.array(encoding.ids, dtype=numpy.int32) for encoding in found]

    def special_places(self, ids):
        """Indices of special tokens in ids, in order: those that `marks` finds in the text, but for the unknown."""
        return numpy.flatnonzero(numpy.isin(ids, self._ids))

    def is_mark(self, id):
        return id != self._unknown

    def decode(self, ids):
        return self._plain.decode(ids, skip_special_tokens=False)

"""Rows to documents: token ids, and which of them are targets.

Masks go by position. No token is masked or kept because of its id, so a padding token that is also the end token
changes nothing.

    text                 BOS if the tokenizer has one, text, EOS; all but the first token are targets
    prompt, completion   BOS, prompt, completion, EOS; the completion and EOS are targets
    messages             the rendered conversation up to its last assistant turn; each assistant turn with its end
                         token is a target; EOS is appended if the template ends turns with no token

BOS is what the tokenizer's post-processor puts in front; a template that writes it itself does not get a second one.
"""

import numpy
import spans
from faults import Fault, quote
from templates import Refused, Template

HEADS = 100000  # beginnings of turns that are remembered
HEAD_LENGTH = 200


class Document:
    """line, ids (int32), mask (uint8, 1: target), ended (the last token is an end token)."""

    __slots__ = ("line", "ids", "mask", "ended")

    def __init__(self, line, ids, mask, ended):
        self.line, self.ids, self.mask, self.ended = line, ids, mask, ended


class Options:
    """overlong: error, skip, truncate; masked: error, skip; double_bos: error, keep; max_tokens; columns"""

    def __init__(self, overlong, masked, double_bos, max_tokens, columns):
        self.overlong, self.masked, self.double_bos = overlong, masked, double_bos
        self.max_tokens, self.columns = max_tokens, columns


class Notes:
    """What happened that is no fault, for the report."""

    def __init__(self):
        self.special_rows = self.special_line = 0  # rows with special tokens spelled in the user's text
        self.dropped = self.moved = self.truncated = 0
        self.turn_ends = set()  # ids of end tokens that the template writes
        self.asked_date = False


class Builder:
    """Makes documents of one file."""

    def __init__(self, vocabulary, options, path):
        self.vocabulary, self.options, self.path = vocabulary, options, path
        self.notes = Notes()
        self._template = None
        self._heads = {}
        self._prefix = numpy.array(vocabulary.prefix, dtype=numpy.int32)
        self._end = numpy.array([vocabulary.eos_id], dtype=numpy.int32)

    def build(self, rows):
        """Document or Fault for each row, in order. All rows of a batch are tokenized together."""
        results = [None] * len(rows)
        texts, wanted = [], []  # what to tokenize; (row's place, texts it takes, how to go on)
        for place, row in enumerate(rows):
            try:
                pieces, finish = getattr(self, "_begin_" + row.shape)(row)
            except Fault as fault:
                results[place] = fault
                continue
            wanted.append((place, len(pieces), finish))
            texts += pieces
        encoded = self.vocabulary.encode(texts) if texts else []
        at = 0
        for place, count, finish in wanted:
            row = rows[place]
            try:
                results[place] = self._judge(row, *finish(encoded[at : at + count]))
            except Fault as fault:
                results[place] = fault
            at += count
        return results

    def _fault(self, id, row, text):
        return Fault(id, f"{self.path}:{row.line}", text, row.line)

    def _see_special(self, row, texts):
        if any(self.vocabulary.has_special(text) for text in texts):
            self.notes.special_rows += 1
            self.notes.special_line = self.notes.special_line or row.line

    # ==== text, and prompt with completion ====

    def _begin_text(self, row):
        self._see_special(row, [row.text])
        self._check_spelled_bos(row, row.text)

        def finish(encoded):
            ids = numpy.concatenate([self._prefix, encoded[0], self._end])
            mask = numpy.ones(len(ids), dtype=numpy.uint8)
            return ids, mask, True

        return [row.text], finish

    def _begin_strings(self, row):
        self._see_special(row, [row.prompt, row.completion])
        self._check_spelled_bos(row, row.prompt)
        # A server tokenizes the prompt alone. Where the tokenizer puts a blank in front of a text the completion
        # cannot be tokenized alone: then it is what follows the prompt in both together.
        if self.vocabulary.joins:

            def finish(encoded):
                return self._completion(encoded[0], encoded[1])

            return [row.prompt, row.completion], finish

        def finish_whole(encoded):
            prompt, whole = encoded
            if len(whole) <= len(prompt) or not numpy.array_equal(whole[: len(prompt)], prompt):
                raise self._fault("DATA-26", row, "prompt and completion: a token goes over the border between them; "
                                  "begin the completion with a blank, not the prompt's end")
            return self._completion(prompt, whole[len(prompt) :])

        return [row.prompt, row.prompt + row.completion], finish_whole

    def _completion(self, prompt, completion):
        ids = numpy.concatenate([self._prefix, prompt, completion, self._end])
        mask = numpy.zeros(len(ids), dtype=numpy.uint8)
        mask[len(self._prefix) + len(prompt) :] = 1
        return ids, mask, True

    def _check_spelled_bos(self, row, text):
        """A text that was rendered elsewhere brings its own BOS."""
        spelling = self.vocabulary.bos_spelling
        if spelling is None or self.vocabulary.bos_id not in self.vocabulary.prefix:
            return
        if self.options.double_bos == "error" and text.lstrip().startswith(spelling):
            raise self._fault("DATA-29", row, f"begins with {quote(spelling)}, which the tokenizer puts there too")

    # ==== messages ====

    def _begin_messages(self, row):
        vocabulary = self.vocabulary
        if self._template is None:
            if vocabulary.template is None:
                raise self._fault("DATA-31", row, f"messages, but {vocabulary.folder} has no chat template "
                                  "(chat_template.jinja, or chat_template in tokenizer_config.json)")
            self._template = Template(vocabulary.template, vocabulary.template_path, vocabulary.named)
        self._see_special(row, [text for m in row.messages for text in m.values()])
        try:
            rendered = spans.render(vocabulary, self._template, row.messages, row.first)
        except Refused as error:
            raise self._fault("DATA-25", row, str(error)) from None
        except spans.NotFound as error:
            raise self._fault("DATA-26", row, str(error)) from None
        self.notes.asked_date = self._template.asked_date
        if rendered is None:
            raise self._fault("DATA-27", row, "no supervised token: no message of the assistant")
        self._check_rendered_bos(row, rendered)

        def finish(encoded):
            return self._conversation(row, rendered, encoded[0])

        return [vocabulary.private(rendered.text)], finish

    def _check_rendered_bos(self, row, rendered):
        spelling = self.vocabulary.bos_spelling
        if spelling is None or self.options.double_bos != "error":
            return
        text, guarded = rendered.text, self.vocabulary.guard(spelling)
        twice = text.startswith(spelling + guarded) or (
            self.vocabulary.bos_id in self.vocabulary.prefix and text.startswith(guarded)
        )
        if twice:
            raise self._fault("DATA-29", row, f"the first message begins with {quote(spelling)}, which is put there "
                              "anyway")

    def _conversation(self, row, rendered, ids):
        notes, vocabulary = self.notes, self.vocabulary
        notes.dropped += rendered.dropped
        notes.moved += rendered.moved
        marks = [mark for mark in rendered.marks if vocabulary.is_mark(mark[2])]
        places = vocabulary.special_places(ids)
        if [mark[2] for mark in marks] != ids[places].tolist():
            raise self._fault("DATA-26", row, f"{len(marks)} special tokens in the rendered text, {len(places)} "
                              "after tokenization")
        mask = numpy.zeros(len(ids), dtype=numpy.uint8)
        for start, end in rendered.turns:
            first = self._border(row, rendered.text, marks, places, ids, start)
            behind = self._border(row, rendered.text, marks, places, ids, end)
            mask[first:behind] = 1
        if rendered.end_id is None:
            ids = numpy.concatenate([ids, self._end])
            mask = numpy.append(mask, numpy.uint8(1))
        else:
            notes.turn_ends.add(rendered.end_id)
        prefix = self._prefix
        if len(prefix) and not numpy.array_equal(ids[: len(prefix)], prefix):
            ids = numpy.concatenate([prefix, ids])
            mask = numpy.concatenate([numpy.zeros(len(prefix), dtype=numpy.uint8), mask])
        return ids, mask, True

    def _border(self, row, text, marks, places, ids, at):
        """Index of the first token behind character `at` of the rendered text.

        Special tokens part the text, and each part is tokenized by itself. So it is enough to look at the part that
        holds `at`: tokenized up to `at` it must give the beginning of what the whole gives, or a token goes over the
        border."""
        number = _last_before(marks, at)
        if number < 0:
            begin, token = 0, 0
        else:
            begin, token = marks[number][0], int(places[number])
            if marks[number][1] == at:
                return token + 1
        head = self._head(self.vocabulary.private(text[begin:at]))
        if not numpy.array_equal(ids[token : token + len(head)], head):
            raise self._fault("DATA-26", row, f"a token goes over the border of an assistant turn, behind "
                              f"{quote(text[max(0, at - 20) : at])}")
        return token + len(head)

    def _head(self, text):
        ids = self._heads.get(text)
        if ids is None:
            ids = self.vocabulary.encode([text])[0] if text else self._end[:0]
            if len(text) <= HEAD_LENGTH and len(self._heads) < HEADS:
                self._heads[text] = ids
        return ids

    # ==== any shape ====

    def _judge(self, row, ids, mask, ended):
        """The document, or the fault that refuses it."""
        options, vocabulary = self.options, self.vocabulary
        mask[0] = 0  # nothing stands before it to be predicted from
        top = int(ids.max())
        if top >= vocabulary.vocab_size:
            raise self._fault("DATA-33", row, f"token {top}; the model has {vocabulary.vocab_size} tokens")
        if options.double_bos == "error" and vocabulary.bos_id >= 0 and len(ids) > 1:
            if ids[0] == vocabulary.bos_id and ids[1] == vocabulary.bos_id:
                raise self._fault("DATA-29", row, f"begins with two {quote(vocabulary.bos_spelling)}")
        whole = len(ids)
        if whole > options.max_tokens:
            if options.overlong != "truncate":
                raise self._fault("DATA-28", row, f"{whole} tokens; at most {options.max_tokens}")
            # No end token is put there: the text does not end there.
            ids, mask, ended = ids[: options.max_tokens], mask[: options.max_tokens], False
            self.notes.truncated += 1
        if not mask.any():
            where = f"within the first {len(ids)} of {whole}" if len(ids) < whole else f"among {whole}"
            raise self._fault("DATA-27", row, f"no supervised token {where}")
        return Document(row.line, ids, mask, ended)


def _last_before(marks, at):
    """Number of the last mark that ends at or before `at`, -1: none."""
    low, high = 0, len(marks)
    while low < high:
        middle = (low + high) // 2
        if marks[middle][1] <= at:
            low = middle + 1
        else:
            high = middle
    return low - 1

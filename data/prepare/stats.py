"""What was prepared: the numbers, the lengths as bars, and the rows that were left out."""

import numpy
from faults import SHOWN, clean, quote

BAR = 40


def histogram(lengths):
    """Lines of a histogram over powers of two: "  128 - 255   ########   12"."""
    # The exponent of the power of two at or below each length, exactly.
    bins = numpy.frexp(lengths.astype(numpy.float64))[1] - 1
    counts = numpy.bincount(bins)
    first = int(numpy.flatnonzero(counts)[0])
    rows = [(f"{1 << b:,}", f"{(2 << b) - 1:,}", int(counts[b])) for b in range(first, len(counts))]
    width = max(len(high) for _, high, _ in rows)
    most = max(count for _, _, count in rows)
    lines = []
    for low, high, count in rows:
        bar = "#" * -(-count * BAR // most)
        lines.append(f"{low:>{width}} - {high:>{width}}  {bar:<{BAR}}  {count:,}")
    return lines


def percent(part, whole):
    """Never rounded up to 100 %, or down to 0 %, when it is not."""
    if part == whole:
        return "100 %"
    if part == 0:
        return "0 %"
    return f"{min(max(100 * part / whole, 0.1), 99.9):.1f} %"


class Stats:
    def __init__(self):
        self.lengths, self.supervised, self.lines = [], [], []
        self.ended = self.last_supervised = 0
        self.refused = []  # faults of rows that were left out

    def add(self, document):
        self.lengths.append(len(document.ids))
        self.supervised.append(int(document.mask.sum()))
        self.lines.append(document.line)
        self.ended += document.ended
        self.last_supervised += int(document.mask[-1])

    def report(self, out):
        lengths = numpy.array(self.lengths, dtype=numpy.int64)
        tokens, supervised = int(lengths.sum()), int(numpy.sum(self.supervised, dtype=numpy.int64))
        count = len(lengths)
        longest = int(lengths.argmax())
        print(f"  documents     {count:,}", file=out)
        print(f"  tokens        {tokens:,}, {tokens / count:,.0f} a document", file=out)
        print(f"  supervised    {supervised:,} tokens, {percent(supervised, tokens)}", file=out)
        print(f"  longest       {self.lengths[longest]:,} tokens (line {self.lines[longest]})", file=out)
        print(f"  last token    supervised in {percent(self.last_supervised, count)} of the documents, an end token in "
              f"{percent(self.ended, count)}", file=out)
        print("  lengths in tokens", file=out)
        for line in histogram(lengths):
            print(f"    {line}", file=out)

    def report_refused(self, out):
        if not self.refused:
            print("  refused       none", file=out)
            return
        print(f"  refused       {len(self.refused):,} rows", file=out)
        for fault in self.refused[:SHOWN]:
            print(f"    line {fault.line}: {clean(fault.text)}", file=out)
        if len(self.refused) > SHOWN:
            print(f"    and {len(self.refused) - SHOWN:,} more", file=out)


def report_notes(notes, reader, vocabulary, options, out):
    """Sentences about what a user should know of, though nothing is wrong with it."""

    def note(text):
        print(f"  note: {clean(text)}", file=out)

    if reader.ignored:
        note(f"keys that are not read: {', '.join(sorted(reader.ignored))}")
    if reader.blank:
        note(f"{reader.blank} empty lines were passed over")
    for role, (count, line) in sorted(reader.odd_roles.items())[:SHOWN]:
        note(f"{count} messages have the role {quote(role)}, the first is in line {line}; only what the role assistant "
             "says is trained on")
    if notes.special_rows:
        note(f"{notes.special_rows} rows spell special tokens in their own text, the first is line "
             f"{notes.special_line}; there they are plain text, as only the chat template may write special tokens")
    if notes.dropped:
        note(f"{notes.dropped} messages behind the last assistant turn of their row were left out: nothing is "
             "learned from them")
    if notes.moved:
        note(f"{notes.moved} assistant turns are rendered otherwise when more turns follow (reasoning that the template "
             "drops); they are trained as they stand in the whole conversation")
    foreign = sorted(notes.turn_ends - vocabulary.eos_ids)
    if foreign:
        words = ", ".join(f"{vocabulary.decode([id])} ({id})" for id in foreign)
        note(f"the template ends turns with {words}, which the model folder does not list as eos_token_id: a server "
             "will not stop there unless told to")
    if notes.truncated:
        note(f"{notes.truncated} documents were cut to {options.max_tokens} tokens; they have no end token")
    if notes.asked_date:
        note("the chat template writes today's date into each conversation")

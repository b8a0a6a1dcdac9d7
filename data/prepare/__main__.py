"""JSONL to datasets: what `cadre prepare` runs. Its page (`cadre prepare --help`) is the manual.

    python data/prepare --model DIR --job FILE.jsonl FILE.h5 [--job ...] [options]

Exit: 0 all done or up to date; 2 command line; 3 something is wrong with data, model or environment; 4 no space. All
files are looked at, and all rows of each, before it ends.
"""

import argparse
import errno
import hashlib
import json
import os
import sys
import time
import traceback

import faults
from faults import Fault

try:
    import show
    import stats
    import writer
    from documents import Builder, Options
    from shapes import COLUMNS, Reader
    from vocabulary import Vocabulary
except ImportError as error:  # an interpreter of CADRE_PYTHON without the packages
    faults.show([Fault("DATA-20", sys.executable, str(error))], sys.stderr)
    sys.exit(3)

METHOD = 1  # raised when the same settings would give other documents
BATCH_ROWS, BATCH_BYTES = 1024, 8 << 20
SKIPPED = {"DATA-27": "masked", "DATA-28": "overlong"}  # which option may let these rows be left out


def arguments(words):
    parser = argparse.ArgumentParser(prog="cadre prepare", add_help=False, allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--job", nargs=2, action="append", required=True)
    parser.add_argument("--overlong", choices=("error", "skip", "truncate"), default="error")
    parser.add_argument("--masked", choices=("error", "skip"), default="error")
    parser.add_argument("--double-bos", choices=("error", "keep"), default="error")
    parser.add_argument("--max-tokens", type=int)
    parser.add_argument("--columns", default="")
    parser.add_argument("--show", type=int, default=0)
    parser.add_argument("--creator", default="cadre prepare")
    return parser.parse_args(words)


def columns_of(text):
    """{our key: the file's}; raises Fault."""
    found = {}
    for word in filter(None, text.split(",")):
        ours, equals, theirs = word.partition("=")
        if not equals or not theirs or ours not in COLUMNS:
            raise Fault("CLI-02", "--columns", f"found {faults.quote(word)}, wanted NAME=KEY with NAME one of "
                        + ", ".join(COLUMNS))
        found[ours] = theirs
    return found


def settings_of(vocabulary, options):
    """What besides source, tokenizer and template decides on the documents, in canonical form."""
    settings = {
        "columns": options.columns,
        "double_bos": options.double_bos,
        "masked": options.masked,
        "max_tokens": options.max_tokens,
        "method": METHOD,
        "named_tokens": vocabulary.named,
        "overlong": options.overlong,
    }
    return json.dumps(settings, sort_keys=True, separators=(",", ":"))


def sha256_of(path):
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Fault("IO-01", path, error.strerror) from None


def is_fresh(output, source_sha256, vocabulary, settings):
    """Whether `output` holds what would be made again."""
    found = writer.attributes(output)
    if found is None:
        return False
    wanted = {
        "format_version": writer.VERSION,
        "source_sha256": source_sha256,
        "tokenizer_sha256": vocabulary.sha256,
        "vocab_size": vocabulary.vocab_size,
        "eos_id": vocabulary.eos_id,
        "bos_id": vocabulary.bos_id,
        "settings": settings,
    }
    template = found.get("template_sha256")
    return all(found.get(name) == value for name, value in wanted.items()) and template in (
        "", vocabulary.template_sha256)


def batches(reader):
    """Lists of rows, and lists of one Fault, in order."""
    rows, begin = [], 0
    for item in reader:
        if isinstance(item, Fault):
            if rows:
                yield rows
            yield [item]
            rows, begin = [], reader.bytes
            continue
        rows.append(item)
        if len(rows) == BATCH_ROWS or reader.bytes - begin > BATCH_BYTES:
            yield rows
            rows, begin = [], reader.bytes
    if rows:
        yield rows


class Progress:
    """One line on a terminal, rewritten; nothing on a pipe."""

    def __init__(self, path):
        self.path, self.shown, self.last = path, False, time.monotonic()
        self.total = os.path.getsize(path) if sys.stderr.isatty() and os.path.exists(path) else 0

    def at(self, bytes):
        now = time.monotonic()
        if self.total and now - self.last > 0.5:
            self.last, self.shown = now, True
            print(f"\r{self.path}: {100 * bytes // self.total} %", end="", file=sys.stderr, flush=True)

    def end(self):
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def read_all(reader, builder, target, numbers):
    """Fills the writer; returns the faults that nobody asked to pass over."""
    found, progress = [], Progress(reader.path)
    for batch in batches(reader):
        built = batch if isinstance(batch[0], Fault) else builder.build(batch)
        for item in built:
            if not isinstance(item, Fault):
                target.add(item)
                numbers.add(item)
            elif item.id in SKIPPED and getattr(builder.options, SKIPPED[item.id]) == "skip":
                numbers.refused.append(item)
            else:
                found.append(item)
        progress.at(reader.bytes)
    progress.end()
    return found


def prepare(vocabulary, options, source, output, creator, out):
    """One file. Returns its faults."""
    settings = settings_of(vocabulary, options)
    if is_fresh(output, sha256_of(source), vocabulary, settings):
        print(f"{output}: up to date with {source}", file=out)
        return []
    reader, numbers = Reader(source, options.columns), stats.Stats()
    builder = Builder(vocabulary, options, source)
    with writer.Writer(output) as target:
        found = read_all(reader, builder, target, numbers)
        if found:
            return sorted(found, key=lambda fault: fault.line)
        if not numbers.lengths:
            numbers.report_refused(out)
            return [Fault("DATA-34", source, f"no document: {len(numbers.refused)} rows, all refused"
                          if numbers.refused else "no document: the file has no rows")]
        target.finish(
            {
                "creator": creator,
                "tokenizer_sha256": vocabulary.sha256,
                "template_sha256": vocabulary.template_sha256 if "messages" in reader.shape else "",
                "source": os.path.abspath(source),
                "source_sha256": reader.sha256,
                "settings": settings,
            },
            {"vocab_size": vocabulary.vocab_size, "eos_id": vocabulary.eos_id, "bos_id": vocabulary.bos_id},
        )
    print(f"{source} -> {output}", file=out)
    numbers.report(out)
    numbers.report_refused(out)
    stats.report_notes(builder.notes, reader, vocabulary, options, out)
    return []


def run(words, out):
    """Returns (exit code, faults)."""
    given = arguments(words)
    try:
        columns = columns_of(given.columns)
    except Fault as fault:
        return 2, [fault]
    try:
        vocabulary = Vocabulary(given.model)
        max_tokens = given.max_tokens or vocabulary.max_positions
        if max_tokens is None:
            raise Fault("DATA-03", os.path.join(given.model, "config.json"),
                        'no "max_position_embeddings"; --max-tokens N takes its place')
    except Fault as fault:
        return 3, [fault]
    options = Options(given.overlong, given.masked, given.double_bos, max_tokens, columns)
    found = []
    for source, output in given.job:
        try:
            wrong = prepare(vocabulary, options, source, output, given.creator, out)
        except Fault as fault:
            wrong = [fault]
        if not wrong and given.show > 0:
            show.show(output, given.show, vocabulary, out)
        found += wrong
    return max((fault.status for fault in found), default=0), found


class Output:
    """Standard output that can fail, a full disk or a reader that left, without stopping the work."""

    def __init__(self):
        self.error = None

    def write(self, text):
        self._try(sys.stdout.write, text)

    def flush(self):
        self._try(sys.stdout.flush)

    def _try(self, call, *words):
        try:
            call(*words)
        except OSError as error:
            self.error = self.error or error


def main():
    # A file of another encoding than the terminal's must not end the program.
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
    out = Output()
    code, found = run(sys.argv[1:], out)
    out.flush()
    faults.show(found, sys.stderr)
    if out.error is not None:
        print(f"cadre: error: standard output: {out.error.strerror}", file=sys.stderr)
        code = code or (4 if out.error.errno == errno.ENOSPC else 3)
    return code


if __name__ == "__main__":
    try:
        status = main()
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        traceback.print_exc()
        faults.show([Fault("INT-01", "prepare", f"{type(error).__name__}: {error}")], sys.stderr)
        status = 3
    sys.stderr.flush()
    os._exit(status)  # what could not be written was reported; Python would try again and complain

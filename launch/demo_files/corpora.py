"""The texts of launch/demo, cut from files that every build machine has.

    perl       for the base: Perl modules and their manual pages
    headers    customer 1: C headers
    licences   customer 2: licence texts
    python     customer 3: the standard library of Python

Each text becomes JSONL files of {"text"}: NAME.jsonl to train on and, for customers, NAME-held-out.jsonl to score on. A
file of the machine goes into one of them only. The number of documents, their lengths and so the number of tokens are
fixed (a token is a byte, and each document ends with one end token); the content depends on nothing but the machine's
files: no clock, no order of a file system. sources.txt says which file went where.
"""

import glob
import hashlib
import json
import os
import random
import re
import sysconfig

SHORT = (128, 512)  # bytes of a document
LONG = 2048  # bytes of one document in twenty
LONG_EVERY = 20
TRAIN_TOKENS = {"perl": 900_000, "headers": 200_000, "licences": 200_000, "python": 200_000}
HELD_OUT_TOKENS = 20_000

# A text is not what its name says when it is a table of characters, a test's data or the like.
SKIPPED = {"unicore", "Collate", "encodings", "pydoc_data", "test", "tests", "site-packages", "dist-packages", "c++"}


class Shortage(Exception):
    """There are too few files of one kind on this machine."""


def below(roots, endings):
    """Paths of the files below some folders, sorted; links to folders are not followed."""
    found = []
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if name not in SKIPPED]
            found += [os.path.join(folder, name) for name in names if name.endswith(endings)]
    return sorted(found)


def perl():
    roots = ["/usr/share/perl", "/usr/share/perl5", *glob.glob("/usr/lib/*/perl*")]
    return below(sorted(roots), (".pm", ".pod", ".pl"))


def headers():
    return below(["/usr/include"], (".h",))


def licences():
    return sorted({os.path.realpath(path) for path in glob.glob("/usr/share/common-licenses/*")})


def more_licences():
    """Where the licences of the packages stand, for a machine whose common ones are too few."""
    return sorted({os.path.realpath(path) for path in glob.glob("/usr/share/doc/*/copyright")})


def python():
    return below([sysconfig.get_paths()["stdlib"]], (".py",))


def lengths(tokens, generator):
    """Lengths of documents in bytes that make exactly so many tokens."""
    mean = ((LONG_EVERY - 1) * sum(SHORT) / 2 + LONG) / LONG_EVERY + 1
    count = round(tokens / mean)
    short = [generator.randint(*SHORT) for _ in range(count - count // LONG_EVERY)]
    missing = tokens - count - count // LONG_EVERY * LONG - sum(short)
    step = 1 if missing > 0 else -1
    while missing:
        at = generator.randrange(len(short))
        if SHORT[0] <= short[at] + step <= SHORT[1]:
            short[at] += step
            missing -= step
    found = short + [LONG] * (count // LONG_EVERY)
    generator.shuffle(found)
    return found


def read(path, seen):
    """The text of a file, or None when it is not wanted: too short, not ASCII, a copy of another, not readable."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        text = data.decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    digest = hashlib.sha256(data).digest()
    if len(data) < SHORT[0] or "\0" in text or digest in seen:
        return None
    if path.endswith(".h") and re.search(r"^(namespace|template|class)\b", text, re.MULTILINE):
        return None  # C++
    seen.add(digest)
    return text


def family(path):
    """What goes into one set together: versions of a licence, which share most of their text; else each file alone."""
    folder, name = os.path.split(path)
    if folder == "/usr/share/common-licenses":
        return re.split(r"-\d", name)[0]
    return name if name == "copyright" else path


def families(paths, most, generator):
    """Families in random order, each a list of (path, text) of at most `most` characters of each file."""
    members = {}
    for path in paths:
        members.setdefault(family(path), []).append(path)
    order = sorted(members)
    generator.shuffle(order)
    seen = set()
    for name in order:
        texts = [(path, read(path, seen)) for path in members[name]]
        yield [(path, window(text, most, generator)) for path, text in texts if text is not None]


def window(text, most, generator):
    """At most so many characters of a text, from the start of a line somewhere in it."""
    if most is None or len(text) <= most:
        return text
    start = generator.randrange(len(text) - most)
    start = text.rfind("\n", 0, start) + 1
    return text[start : start + most]


class Set:
    """The documents of one JSONL file: lengths that are wanted, and texts that they are cut from."""

    def __init__(self, wanted):
        self.left = list(enumerate(wanted))
        self.room = sum(wanted) * 4 // 3  # more than is needed: the ends of files are too short for a document
        self.documents = []  # (position, text)
        self.paths = []

    def take(self, path, text):
        self.paths.append(path)
        self.room -= len(text)
        start = 0
        while True:
            fits = next((i for i, (_, n) in enumerate(self.left) if n <= len(text) - start), None)
            if fits is None:
                return
            position, n = self.left.pop(fits)
            self.documents.append((position, text[start : start + n]))
            start += n

    def texts(self):
        return [text for _, text in sorted(self.documents)]


def split(name, paths, most, seed):
    """Returns {part: Set} of one text, or None when the files do not suffice. `most`: characters of one file."""
    generator = random.Random(f"{name} {seed}")
    held_out = Set(lengths(HELD_OUT_TOKENS, generator) if name != "perl" else [])
    train = Set(lengths(TRAIN_TOKENS[name], generator))
    for texts in families(paths, most, generator):
        fits = sum(len(text) for _, text in texts) <= held_out.room
        into = held_out if held_out.left and fits else train
        for path, text in texts:
            if into.left:
                into.take(path, text)
        if not held_out.left and not train.left:
            return {"train": train, "held-out": held_out} if held_out.documents else {"train": train}
    return None


# Name, lists of files (the next one only if those before do not suffice), characters of one file at first: few, so
# that many files take part.
SOURCES = (
    ("perl", (perl,), 8192),
    ("headers", (headers,), 4096),
    ("licences", (licences, more_licences), None),
    ("python", (python,), 4096),
)


def collect(name, lists, most, seed):
    paths = []
    for source in lists:
        paths = list(dict.fromkeys(paths + source()))
        for factor in (1, 4, 16) if most else (1,):
            sets = split(name, paths, most * factor if most else None, seed)
            if sets:
                return sets
    raise Shortage(
        f"{name}: the {len(paths)} files that were found are not enough for {TRAIN_TOKENS[name]:,} bytes of ASCII text"
    )


def write(folder, seed=1):
    """Writes the JSONL files and sources.txt. Returns rows (file, documents, tokens, files of the machine)."""
    os.makedirs(folder, exist_ok=True)
    rows = []
    with open(os.path.join(folder, "sources.txt"), "w", encoding="utf-8") as sources:
        for name, lists, most in SOURCES:
            for part, found in collect(name, lists, most, seed).items():
                file = f"{name}.jsonl" if part == "train" else f"{name}-{part}.jsonl"
                with open(os.path.join(folder, file), "w", encoding="utf-8") as out:
                    for text in found.texts():
                        out.write(json.dumps({"text": text}) + "\n")
                for path in found.paths:
                    print(file, path, file=sources)
                tokens = sum(len(text) + 1 for text in found.texts())
                rows.append((file, len(found.documents), tokens, len(found.paths)))
    return rows

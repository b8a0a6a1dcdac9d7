"""launch/demo from its third stage on: corpora, prepare, base, adapters, score, company, results.

    stages.py PROGRAM TIME     by launch/demo, in the root of the checkout; TIME: when the demo began, seconds since 1970
"""

import hashlib
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time

import byte_tokenizer
import corpora
import loss_chart

OUT = "runs/demo"
FILES = "launch/demo_files"
CUSTOMERS = ("headers", "licences", "python")
WORDS = {"headers": "C headers", "licences": "licence texts", "python": "Python sources"}
MARGIN = 0.1  # bits per byte by which an adapter has to win its text
ALONE_STEPS = 5
ALONE_TOLERANCE = 1e-5  # of a loss in nats: sums of float32 in another order
PLACEMENTS = {  # two trainers: who computes their attention, and the words of `cadre train`
    "in place": ("--threads", "2"),
    "1 server": ("--threads", "3", "--set", "attention.placement=pool"),
    "2 servers": ("--threads", "4", "--set", "attention.placement=pool", "--set", "attention.servers_per_host=2"),
}
PLACEMENT_STEPS = 4
MADE = ("corpora", "prepared", "prepare.txt", "start", "base", "company", "verify.txt", "alone", "alone.yaml",
        "alone.txt", "place-0", "place-1", "place-2", "place.txt", "table.txt", "loss.svg", "results.json")  # fmt: skip


class Failed(Exception):
    """A command ended with another status than 0; it has said why."""

    def __init__(self, status):
        super().__init__(status)
        self.status = status


def say(text=""):
    print("      " + text if text else "", flush=True)


def check(status):
    if status:
        raise Failed(status if status > 0 else 128 - status)  # as a shell counts signals


class Stage:
    """with Stage(3, "corpora: ..."): prints the heading, and the time at the end."""

    def __init__(self, number, title):
        print(f"\n[{number}/10] {title}", flush=True)

    def __enter__(self):
        self.start = time.monotonic()

    def __exit__(self, kind, value, trace):
        if kind is None:
            say(f"took {time.monotonic() - self.start:.1f} s")


class Cadre:
    """Runs the program and shows its command lines."""

    def __init__(self, program):
        self.program = program
        here = os.path.relpath(program)
        self.shown = program if here.startswith("..") else here if "/" in here else "./" + here

    def command(self, *words):
        return " ".join(shlex.quote(word) for word in (self.shown, *words))

    def run(self, *words):
        """What it prints goes to our own streams, so that its bar finds the terminal."""
        say("$ " + self.command(*words))
        status = subprocess.run([self.program, *words], stdin=subprocess.DEVNULL, check=False).returncode
        check(status)

    def run_ranks(self, ranks, *words):
        """On ranks that are processes."""
        words = ("launch/run", "-n", str(ranks), "--cadre", self.program, *words)
        say("$ " + " ".join(shlex.quote(word) for word in words))
        check(subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode)

    def run_quietly(self, file, *words):
        """The same, but what it reports goes to the end of a file."""
        say("$ " + self.command(*words))
        with open(file, "ab") as out:
            status = subprocess.run([self.program, *words], stdin=subprocess.DEVNULL, stdout=out, check=False).returncode
        check(status)

    def ask(self, *words):
        """Its JSON from stdout."""
        done = subprocess.run([self.program, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
        if done.returncode:
            say("$ " + self.command(*words))
            check(done.returncode)
        return json.loads(done.stdout)


def steps_of(folder):
    """{adapter: [record, ...]} of the optimizer steps in a run's metrics."""
    found = {}
    with open(f"{OUT}/{folder}/metrics.jsonl", encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            if "loss" in record:
                found.setdefault(record["adapter"], []).append(record)
    return found


def clear():
    """What an earlier demo made; nothing else."""
    for name in MADE:
        path = f"{OUT}/{name}"
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.remove(path)
    os.makedirs(OUT, exist_ok=True)


def make_corpora():
    try:
        rows = corpora.write(f"{OUT}/corpora")
    except corpora.Shortage as reason:
        print(f"launch/demo: {reason}", file=sys.stderr)
        raise Failed(3) from None
    for file, documents, tokens, files in rows:
        say(f"{file:24} {documents:5,} documents {tokens:8,} tokens, from {files:3} files")
    say("a token is a byte; each document ends with one more token that says so")


def threads():
    """Two ranks where there are two cores: each takes its share of the rows and of the attention."""
    return ("--threads", "2") if len(os.sched_getaffinity(0)) > 1 else ()


def prepare(cadre):
    cadre.run("init-model", f"{FILES}/model.json", f"{OUT}/start", "--seed", "1")
    byte_tokenizer.write(f"{OUT}/start")
    report = f"{OUT}/prepare.txt"
    cadre.run_quietly(report, "prepare", f"{FILES}/base.yaml")
    # The base does not exist yet; the tokenizer is the same.
    cadre.run_quietly(report, "prepare", f"{FILES}/company.yaml", "--set", f"model={OUT}/start")
    os.makedirs(f"{OUT}/prepared", exist_ok=True)
    for name in CUSTOMERS:
        file = f"{OUT}/corpora/{name}-held-out.jsonl"
        cadre.run_quietly(report, "prepare", file, "--model", f"{OUT}/start", "-o", held_out(name))
    say(f"tokens, lengths and masks of each: {report}")


def held_out(name):
    return f"{OUT}/prepared/{name}-held-out.h5"


def model_words(adapter=None):
    words = ["--model", f"{OUT}/base/model"]
    return words + ["--adapter", f"{OUT}/company/adapters/{adapter}"] if adapter else words


def score(cadre):
    """{None or adapter: {text: bits per byte}}"""
    table = {}
    for adapter in (None, *CUSTOMERS):
        table[adapter] = {}
        for text in CUSTOMERS:
            found = cadre.ask("score", *model_words(adapter), "--data", held_out(text), "--json")
            table[adapter][text] = found["loss"] / math.log(2)
    return table


def losers(table):
    """Texts of which the own adapter is not the best by MARGIN."""
    return [
        text for text in CUSTOMERS
        if min(row[text] for adapter, row in table.items() if adapter != text) - table[text][text] < MARGIN
    ]  # fmt: skip


def show(table):
    """The table and what it says, as lines."""
    wide = max(len(word) for word in WORDS.values()) + 3
    lines = [f"{'bits per byte of held-out files':32}" + "".join(f"{WORDS[text]:>{wide}}" for text in CUSTOMERS)]
    for adapter, row in table.items():
        line = f"{'base' if adapter is None else 'base + ' + adapter:32}"
        for i, text in enumerate(CUSTOMERS):
            best = row[text] == min(other[text] for other in table.values())
            # The mark stands behind the column.
            line += f"{row[text]:.3f}".rjust(wide - (i > 0)) + ("*" if best else " ")
        lines.append(line.rstrip())
    lines.append("")
    pairs = [(adapter, text) for adapter in CUSTOMERS for text in CUSTOMERS if adapter != text]
    behind = [table[adapter][text] - table[text][text] for adapter, text in pairs]
    below = sum(table[adapter][text] > table[None][text] for adapter, text in pairs)
    lines.append("* best of its column. A specialist is worse elsewhere: on another's text an adapter is behind")
    lines.append(
        f"that text's own by {min(behind):.2f} to {max(behind):.2f} bits, and worse than the base in {below} of "
        f"{len(pairs)} cases."
    )
    lines.append("A document's first byte has nothing before it and is not counted, its end token is: n of n bytes.")
    return lines


def train_alone(cadre):
    """Trains the licences alone for some steps. Returns (largest difference of a loss, number of steps compared)."""
    with open(f"{FILES}/company.yaml", encoding="utf-8") as file:
        head, _, adapters = file.read().partition("adapters:\n")
    own = next(block for block in adapters.split("  - name: ")[1:] if block.startswith("licences\n"))
    own = own.replace(f"{OUT}/corpora/licences.jsonl", f"{OUT}/company/prepared/licences.h5")
    with open(f"{OUT}/alone.yaml", "w", encoding="utf-8") as file:
        file.write(f"# {FILES}/company.yaml with the licences alone\n")
        file.write(head[head.index("model:") :].replace(f"{OUT}/company", f"{OUT}/alone"))
        file.write("adapters:\n  - name: " + own)
    words = ("train", f"{OUT}/alone.yaml", "--set", f"adapters.licences.steps={ALONE_STEPS}")
    cadre.run_quietly(f"{OUT}/alone.txt", *words)
    company = steps_of("company")["licences"][:ALONE_STEPS]
    alone = steps_of("alone")["licences"]
    if [record["step"] for record in alone] != [record["step"] for record in company]:
        say(f"the runs have other steps: {len(alone)} alone, {len(company)} in company")
        raise Failed(1)
    for a, b in zip(alone, company):
        say(f"step {a['step']}: loss {a['loss']:.8f} alone, {b['loss']:.8f} in company")
    return max(abs(a["loss"] - b["loss"]) for a, b in zip(alone, company)), len(alone)


def place(cadre):
    """Trains some steps with each placement. True when all exported the same bytes."""
    found = {}
    for i, (words, options) in enumerate(PLACEMENTS.items()):
        sets = [f"output={OUT}/place-{i}", f"defaults.steps={PLACEMENT_STEPS}"]
        sets += [f"adapters.{name}.data={OUT}/company/prepared/{name}.h5" for name in CUSTOMERS]
        command = ["train", f"{FILES}/company.yaml", *options]
        for value in sets:
            command += ["--set", value]
        cadre.run_quietly(f"{OUT}/place.txt", *command)
        digest = hashlib.sha256()
        for name in CUSTOMERS:
            with open(f"{OUT}/place-{i}/adapters/{name}/adapter_model.safetensors", "rb") as file:
                digest.update(file.read())
        found[words] = digest.hexdigest()
        say(f"{words:10} the three exported files together: {found[words][:16]}")
    return len(set(found.values())) == 1


def charts():
    def curves(folder):
        return {
            name: [(record["step"], record["loss"] / math.log(2)) for record in records]
            for name, records in steps_of(folder).items()
        }

    loss_chart.write(
        f"{OUT}/loss.svg",
        [("base, on Perl: training loss, bits per byte", curves("base")),
         ("adapters, in one job: training loss, bits per byte", curves("company"))],
    )  # fmt: skip


def results(cadre, lines, begin, faults):
    charts()
    for line in lines:
        say(line)
    say()
    for what, path in (
        ("table", f"{OUT}/table.txt"), ("numbers", f"{OUT}/results.json"), ("loss curves", f"{OUT}/loss.svg"),
        ("adapters", f"{OUT}/company/adapters/" + "{" + ",".join(CUSTOMERS) + "}"), ("base", f"{OUT}/base/model"),
        ("configuration", f"{FILES}/company.yaml"), ("where the texts come from", f"{OUT}/corpora/sources.txt"),
    ):  # fmt: skip
        say(f"{what:26} {path}")
    say()
    say('next, with your own text (one {"text": "..."} a line): whose style is it?')
    say("  " + cadre.command("prepare", "mine.jsonl", "--model", f"{OUT}/base/model", "-o", "mine.h5"))
    say("  " + cadre.command("score", *model_words("python"), "--data", "mine.h5"))
    say("and for a model of your own: launch/configs/adapters.yaml, `cadre prepare`, `cadre train`")
    say()
    for fault in faults:
        say("FAILED: " + fault)
    say(("all as it should be" if not faults else "not as it should be") + f"; {time.time() - begin:.0f} s in all")


def main(program, begin):
    cadre = Cadre(program)
    faults = []
    with Stage(3, "corpora: texts from this machine"):
        clear()
        make_corpora()
    with Stage(4, "prepare: a model to start from, and datasets"):
        prepare(cadre)
    with Stage(5, "base: all weights of a small model, on Perl"):
        cadre.run("train", f"{FILES}/base.yaml", *threads())
    with Stage(6, "adapters: three customers in one job, on two trainers and an attention server"):
        cadre.run_ranks(3, "train", f"{FILES}/company.yaml", "--set", "attention.placement=pool")
        for name in CUSTOMERS:
            cadre.run_quietly(f"{OUT}/verify.txt", "verify", *model_words(name))
        say(f"each adapter changes the model; by how much, and how to serve it: {OUT}/verify.txt")
    with Stage(7, "score: base and adapters on what was held out"):
        table = score(cadre)
        lines = show(table)
        with open(f"{OUT}/table.txt", "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        lost = losers(table)
        for text in lost:
            faults.append(f"the adapter of {WORDS[text]} is not the best of its column by {MARGIN} bits")
        say(f"{len(table) * len(CUSTOMERS)} scores; {len(CUSTOMERS) - len(lost)} of {len(CUSTOMERS)} adapters are best "
            f"of their text by {MARGIN} bits or more")  # fmt: skip
    with Stage(8, "company: is an adapter the same when it is trained alone?"):
        difference, steps = train_alone(cadre)
        same = difference <= ALONE_TOLERANCE
        say(f"licences alone, first {steps} steps: {'same losses to' if same else 'losses differ by more than'} "
            f"1e-5 {'as' if same else 'from those'} in company (largest difference {difference:.1e})")  # fmt: skip
        if not same:
            faults.append(f"licences alone and in company differ by {difference:.1e} in the first {steps} steps")
    with Stage(9, "placement: does it matter who computes the attention?"):
        identical = place(cadre)
        say(f"in place, 1 server, 2 servers: exported files {'identical' if identical else 'DIFFER'} "
            f"after {PLACEMENT_STEPS} steps")  # fmt: skip
        if not identical:
            faults.append("in place, 1 server and 2 servers exported different files")
    with Stage(10, "results"):
        with open(f"{OUT}/results.json", "w", encoding="utf-8") as file:
            bits = {adapter or "base": row for adapter, row in table.items()}
            found = {"bits_per_byte": bits, "company_difference": difference, "placements_identical": identical}
            json.dump({**found, "faults": faults}, file, indent=2)
            file.write("\n")
        results(cadre, lines, begin, faults)
    return 1 if faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1], float(sys.argv[2])))
    except Failed as failure:
        print("launch/demo: stopped; the message above says why", file=sys.stderr)
        sys.exit(failure.status)
    except KeyboardInterrupt:
        sys.exit(130)

"""`cadre prepare` itself: its two forms, its words, and that the trainer's reader takes what it wrote.

    test_command.py CADRE READER
"""

import os
import subprocess
import sys
import unittest

import model_folders
from model_folders import chat, prepare_main

CADRE, READER = sys.argv[1:3]
RUN = """
model: {model}
output: run
defaults: {{steps: 3, learning_rate: 1e-4}}
adapters:
  - name: legal
    data: legal.jsonl
    eval: legal-eval.jsonl
  - name: chat
    data: chat.jsonl
    max: 1
  - name: ready
    data: ready.h5
""".replace("    max: 1\n", "")


class Command(model_folders.PrepareTest):
    def setUp(self):
        super().setUp()
        model_folders.llama3(self.model)
        self.write([{"text": "hello world"}, {"text": "yes"}], "legal.jsonl")
        self.write([{"text": "no"}], "legal-eval.jsonl")
        self.write([{"messages": chat("what?", "yes")}], "chat.jsonl")
        self.run_file(RUN)

    def run_file(self, text, name="run.yaml"):
        with open(os.path.join(self.dir, name), "w", encoding="utf-8") as file:
            file.write(text.format(model=self.model))

    def cadre(self, *words, code=0, **environment):
        done = subprocess.run([CADRE, "prepare", *words], cwd=self.dir, capture_output=True, text=True, check=False,
                              env={**os.environ, "CADRE_PYTHON": sys.executable, **environment})
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        if code == 0:
            self.assertEqual(done.stderr, "")
        return done.stdout, done.stderr.splitlines()

    def test_configuration(self):
        text, _ = self.cadre("run.yaml")
        folder = os.path.join(self.dir, "run", "prepared")
        self.assertEqual(sorted(os.listdir(folder)), ["chat.h5", "legal.eval.h5", "legal.h5"])
        self.assertIn("legal.jsonl -> run/prepared/legal.h5\n  documents     2\n", text)
        self.assertIn("legal-eval.jsonl -> run/prepared/legal.eval.h5\n", text)
        text, _ = self.cadre("run.yaml")
        self.assertEqual([line.split(": ")[1] for line in text.splitlines()],
                         [f"up to date with {name}.jsonl" for name in ("legal", "legal-eval", "chat")])
        # Only what changed.
        self.write([{"text": "more"}], "legal.jsonl")
        text, _ = self.cadre("run.yaml")
        self.assertEqual((text.count("-> "), text.count("up to date")), (1, 2))
        text, _ = self.cadre("run.yaml", "--set", "output=other")
        self.assertIn("-> other/prepared/chat.h5", text)

    def test_another_model_afterwards(self):
        """What is wrong with the model is said, not that its tokenizer cannot be compared."""
        self.cadre("run.yaml")
        os.mkdir(os.path.join(self.dir, "none"))
        done = subprocess.run([CADRE, "plan", "run.yaml", "--set", "model=none"], cwd=self.dir, capture_output=True,
                              text=True, check=False)
        self.assertEqual(done.returncode, 3, done.stdout + done.stderr)
        self.assertEqual(done.stderr.splitlines()[0], "cadre: error DATA-01: none: has no config.json")
        self.assertEqual(done.stderr.count("cadre: error"), 1, done.stderr)

    def test_the_reader_of_the_trainer_takes_it(self):
        self.cadre("run.yaml")
        for name in ("legal", "legal.eval", "chat"):
            path = os.path.join(self.dir, "run", "prepared", name + ".h5")
            read = subprocess.run([READER, path, self.model], capture_output=True, text=True, check=False)
            self.assertEqual(read.returncode, 0, read.stdout + read.stderr)
            documents = model_folders.Prepared(0, [], "", path)
            wanted = [" ".join([str(line), *(f"{t}{'+' if m else ''}" for t, m in zip(*document))])
                      for line, document in zip(documents.lines, documents.documents)]
            self.assertEqual(read.stdout.splitlines(), wanted)

    def test_full(self):
        self.run_file("model: {model}\noutput: run\ndata: legal.jsonl\ntrain: {{mode: full}}\n"
                      "defaults: {{steps: 3, learning_rate: 1e-4, eval: legal-eval.jsonl}}\n")
        self.cadre("run.yaml")
        self.assertEqual(sorted(os.listdir(os.path.join(self.dir, "run", "prepared"))), ["data.eval.h5", "data.h5"])

    def test_one_file(self):
        text, _ = self.cadre("legal.jsonl", "--model", "model", "-o", "x/legal.h5", "--max-tokens=99", "--show", "1")
        self.assertIn("document 0 (line 1)", text)
        attributes = prepare_main.writer.attributes(os.path.join(self.dir, "x", "legal.h5"))
        self.assertRegex(attributes["creator"], r"^cadre \d+\.\d+\.\d+$")
        self.assertIn('"max_tokens":99,', attributes["settings"])

    def test_all_files_are_looked_at(self):
        self.write([{"text": ""}], "legal.jsonl")
        self.write([b"{"], "legal-eval.jsonl")
        text, errors = self.cadre("run.yaml", code=3)
        self.assertEqual(errors[0], 'cadre: error DATA-23: legal.jsonl:1: "text": empty')
        self.assertEqual(errors[1], "    correct or remove the line")
        self.assertTrue(errors[2].startswith("cadre: error DATA-21: legal-eval.jsonl:1: not JSON"))
        self.assertEqual(len(errors), 4)
        self.assertIn("-> run/prepared/chat.h5", text)

    def test_words(self):
        for words, error in (
            ((), "CLI-02: prepare: lacks RUN.yaml or FILE.jsonl"),
            (("run.yaml", "x"), 'CLI-02: prepare: unexpected argument "x"'),
            (("run.yaml", "--overlog", "skip"), 'CLI-02: unknown option "--overlog"; nearest is "--overlong"'),
            (("run.yaml", "--overlong", "ski"), 'CLI-02: --overlong: found "ski", wanted one of error skip truncate'),
            (("run.yaml", "--show"), "CLI-02: --show: lacks its value"),
            (("run.yaml", "--show=0"), 'CLI-02: --show: found "0", wanted a whole number from 1 to 2147483647'),
            (("run.yaml", "-o", "x.h5"), "CLI-02: -o: run.yaml does not end in .jsonl; a configuration says it itself"),
            (("legal.jsonl", "-o", "x.h5"), "CLI-02: prepare legal.jsonl: lacks --model DIR"),
            (("legal.jsonl", "--model", "m"), "CLI-02: prepare legal.jsonl: lacks -o FILE.h5"),
            (("legal.jsonl", "--model", "m", "-o", "x"), 'CLI-02: -o: found "x", wanted a path that ends in .h5'),
            (("legal.jsonl", "--model", "m", "-o", "x.h5", "--set", "a=1"), "CLI-02: --set: legal.jsonl is no configuration"),
            (("no.yaml",), "CONF-01: no.yaml: No such file or directory"),
            (("run.yaml", "--set", "adapters.chat.data=chat.txt"),
             'CONF-04: --set adapters.chat.data: want a path that ends in .jsonl or .h5, found "chat.txt"'),
        ):
            text, errors = self.cadre(*words, code=2)
            self.assertEqual((text, errors[0]), ("", "cadre: error " + error))

    def test_nothing_to_prepare(self):
        self.run_file("model: {model}\noutput: run\ndefaults: {{steps: 3, learning_rate: 1e-4}}\n"
                      "adapters: [{{name: a, data: a.h5}}]\n")
        self.assertEqual(self.cadre("run.yaml")[0], "run.yaml: nothing to prepare: it names no .jsonl\n")

    def test_two_sets_of_one_name(self):
        self.run_file(RUN.replace("name: chat", "name: legal.eval"))
        self.assertEqual(
            self.cadre("run.yaml", code=2)[1][0],
            "cadre: error CONF-07: run.yaml: legal-eval.jsonl and chat.jsonl would both be prepared as "
            "run/prepared/legal.eval.h5; rename adapter legal.eval")

    def test_full_disk_behind_the_report(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = subprocess.run([CADRE, "prepare", "run.yaml"], cwd=self.dir, stdout=full, stderr=subprocess.PIPE,
                                  text=True, check=False, env={**os.environ, "CADRE_PYTHON": sys.executable})
        self.assertEqual((done.returncode, done.stderr),
                         (4, "cadre: error: standard output: No space left on device\n"))
        self.assertTrue(os.path.exists(os.path.join(self.dir, "run", "prepared", "chat.h5")))

    def test_no_python(self):
        errors = self.cadre("run.yaml", code=3, CADRE_PYTHON="/no/python")[1]
        self.assertEqual(errors[0], "cadre: error DATA-20: CADRE_PYTHON: /no/python: not an interpreter that can be run")
        self.assertIn("set CADRE_PYTHON", errors[1])
        bare = os.path.join(self.dir, "bare")  # an interpreter without the packages
        with open(bare, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
        os.chmod(bare, 0o755)
        errors = self.cadre("run.yaml", code=3, CADRE_PYTHON=bare)[1]
        self.assertRegex(errors[0], "^cadre: error DATA-20: .*: No module named ")
        self.assertEqual(len(errors), 2)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])

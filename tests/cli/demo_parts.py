#!/usr/bin/python3
"""tests/cli/demo_parts.py: the parts of launch/demo that judge and that make data. The demo itself runs in minutes and is
no test; what it claims rests on these."""

import json
import os
import random
import sys
import tempfile
import unittest
import xml.dom.minidom

sys.dont_write_bytecode = True
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "launch", "demo_files"))
import byte_tokenizer  # noqa: E402
import corpora  # noqa: E402
import loss_chart  # noqa: E402
import stages  # noqa: E402


def table(own=2.0, other=2.5, base=3.0):
    rows = {None: dict.fromkeys(stages.CUSTOMERS, base)}
    for adapter in stages.CUSTOMERS:
        rows[adapter] = {text: own if text == adapter else other for text in stages.CUSTOMERS}
    return rows


class Judge(unittest.TestCase):
    def test_best_by_the_margin(self):
        self.assertEqual(stages.losers(table()), [])
        self.assertEqual(stages.losers(table(own=2.0, other=2.11)), [])

    def test_not_best(self):
        self.assertEqual(stages.losers(table(other=2.09)), list(stages.CUSTOMERS))
        self.assertEqual(stages.losers(table(base=2.05)), list(stages.CUSTOMERS))
        one = table()
        one["headers"]["python"] = 1.95  # another's adapter is better
        self.assertEqual(stages.losers(one), ["python"])

    def test_lines(self):
        lines = stages.show(table())
        self.assertEqual([line.count("*") for line in lines[1:5]], [0, 1, 1, 1])
        self.assertIn("0.50 to 0.50 bits", " ".join(lines))
        self.assertIn("worse than the base in 0 of 6", " ".join(lines))


class Tokenizer(unittest.TestCase):
    def test_a_token_is_a_byte(self):
        found = byte_tokenizer.tokenizer()
        vocabulary = found["model"]["vocab"]
        self.assertEqual(sorted(vocabulary.values()), list(range(256)))
        self.assertEqual(vocabulary["a"], ord("a"))
        self.assertEqual(vocabulary["\u0120"], ord(" "))  # as in GPT-2
        self.assertEqual(vocabulary["\u010a"], ord("\n"))
        self.assertEqual(found["model"]["merges"], [])
        self.assertEqual(found["added_tokens"][0]["id"], 256)


class Corpora(unittest.TestCase):
    def test_lengths(self):
        for tokens in (20_000, 200_000, 900_000):
            for seed in range(5):
                found = corpora.lengths(tokens, random.Random(seed))
                self.assertEqual(sum(found) + len(found), tokens)
                self.assertEqual(found.count(corpora.LONG), len(found) // 20)
                self.assertTrue(all(128 <= n <= 512 or n == corpora.LONG for n in found))

    def files(self, folder, count, bytes_each):
        paths = []
        for i in range(count):
            paths.append(os.path.join(folder, f"{i}.py"))
            words = random.Random(i)
            with open(paths[-1], "w", encoding="ascii") as file:
                while file.tell() < bytes_each:
                    file.write(f"{words.random()}\n")
        return paths

    def test_held_out_by_whole_files(self):
        with tempfile.TemporaryDirectory() as folder:
            paths = self.files(folder, 60, 5000)
            sets = corpora.split("python", paths, 4096, 1)
            again = corpora.split("python", paths[::-1], 4096, 1)
        self.assertFalse(set(sets["train"].paths) & set(sets["held-out"].paths))
        self.assertEqual(sum(len(text) + 1 for text in sets["train"].texts()), 200_000)
        self.assertEqual(sum(len(text) + 1 for text in sets["held-out"].texts()), 20_000)
        for part in sets:  # the order in which a file system lists them is nothing
            self.assertEqual(sets[part].texts(), again[part].texts())

    def test_copies_and_shortage(self):
        with tempfile.TemporaryDirectory() as folder:
            paths = self.files(folder, 30, 5000)
            for i, path in enumerate(paths):
                with open(path, encoding="ascii") as file:
                    text = file.read()
                with open(os.path.join(folder, f"copy{i}.py"), "w", encoding="ascii") as file:
                    file.write(text)
            every = sorted(os.path.join(folder, name) for name in os.listdir(folder))
            with self.assertRaises(corpora.Shortage):  # 150 kB, however often they are there
                corpora.collect("python", (lambda: every,), 4096, 1)

    def test_not_text(self):
        with tempfile.TemporaryDirectory() as folder:
            cases = {"a.py": b"\xe4" * 500, "b.py": b"x" * 100, "c.h": b"namespace x {\n" + b"y" * 500, "d.py": b"z" * 500}
            for name, data in cases.items():
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(data)
            found = [name for name in cases if corpora.read(os.path.join(folder, name), set()) is not None]
        self.assertEqual(found, ["d.py"])

    def test_versions_of_a_licence_stay_together(self):
        folder = "/usr/share/common-licenses/"
        self.assertEqual(corpora.family(folder + "LGPL-2.1"), corpora.family(folder + "LGPL-2"))
        self.assertNotEqual(corpora.family(folder + "LGPL-2"), corpora.family(folder + "GPL-2"))
        self.assertNotEqual(corpora.family("/usr/include/a-1.h"), corpora.family("/usr/include/a-2.h"))


class Chart(unittest.TestCase):
    def test_is_xml(self):
        curves = {"a<b": [(i, 5 - i / 50) for i in range(1, 123)], "one": [(1, 2.0)]}
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x.svg")
            loss_chart.write(path, [("left & right", curves), ("flat", {"c": [(1, 2.0), (2, 2.0)]})])
            text = xml.dom.minidom.parse(path).toxml()
        self.assertIn("a&lt;b", text)
        self.assertEqual(text.count("<polyline"), 3)


class Model(unittest.TestCase):
    def test_fits_the_tokenizer(self):
        with open(os.path.join(ROOT, "launch", "demo_files", "model.json"), encoding="utf-8") as file:
            config = json.load(file)
        self.assertEqual(config["vocab_size"], 257)
        self.assertEqual(config["eos_token_id"], 256)


if __name__ == "__main__":
    unittest.main()

"""Lines and rows: what is refused, with line and reason, all in one pass."""

import gzip
import unittest

import model_folders
from model_folders import chat, shown


class Shapes(model_folders.PrepareTest):
    def setUp(self):
        super().setUp()
        model_folders.qwen(self.model)

    def test_lines_that_are_no_rows(self):
        self.refused([b'{"text": "a"'], "DATA-21", "not JSON: Expecting ',' delimiter at character 13")
        self.refused([b'{"text": "\xff"}'], "DATA-21", "byte 11 is not UTF-8")
        self.refused(['{"text": "a"}'.encode("utf-16")], "DATA-21", "byte 1 is not UTF-8: this file is UTF-16")
        self.refused([gzip.compress(b'{"text": "a"}')], "DATA-21", "is not UTF-8: this file is compressed")
        self.refused([b'[{"text": "a"},'], "DATA-21", "not JSON: the file begins as one JSON list")
        self.refused([b'{"text": "a'], "DATA-21", "not JSON: Unterminated string starting at character 10")
        self.refused([b'["text"]'], "DATA-21", "a list; wanted an object")
        self.refused([b'{"text": "a", "text": "b"}'], "DATA-21", 'key "text" stands there twice')
        self.refused([b'{"text": "\\ud800"}'], "DATA-21", "half a surrogate pair")
        self.refused([b'{"a":' * 100000], "DATA-21", "not JSON")

    def test_keys(self):
        self.refused([{"body": "a"}], "DATA-22", "none of the keys text, prompt, completion, messages; found body")
        self.refused([{"prompt": "a"}], "DATA-22", 'no key "completion"')
        self.refused([{"text": "a", "messages": chat("a", "b")}], "DATA-22", "keys of 2 shapes")
        self.refused([{"messages": [{"role": "user"}]}], "DATA-22", 'message 1: no key "content"')
        self.refused([{"messages": [{"role": "user", "content": "a", "weight": 0}]}], "DATA-22", '"weight" is not supported')

    def test_fields(self):
        self.refused([{"text": 3}], "DATA-23", '"text": a number; wanted text')
        self.refused([{"text": None}], "DATA-23", '"text": null; wanted text')
        self.refused([{"text": " \n"}], "DATA-23", '"text": empty')
        self.refused([{"prompt": "", "completion": "a"}], "DATA-23", '"prompt": empty')
        self.refused([{"prompt": "a", "completion": chat("b")}], "DATA-23", "one is a list of messages")
        self.refused([{"messages": []}], "DATA-23", "an empty list")
        self.refused([{"messages": "a"}], "DATA-23", '"messages": text; wanted a list')
        self.refused([{"messages": ["a"]}], "DATA-23", "message 1: text; wanted an object")
        self.refused([{"messages": chat("a", "")}], "DATA-23", "message 2, content: empty")
        self.refused([{"messages": [{"role": "user", "content": ["a"]}]}], "DATA-23", "message 1, content: a list")
        self.refused([{"text": "a\ufdd0256\ufdd1"}], "DATA-23", "U+FDD0 at character 2")

    def test_one_shape_a_file(self):
        rows = [{"text": "a"}, {"prompt": "a", "completion": "b"}]
        self.refused(rows, "DATA-24", "a row of prompt and completion of strings; the first row has text")
        rows = [{"prompt": "a", "completion": "b"}, {"prompt": chat("a"), "completion": chat("a", "b")[1:]}]
        self.refused(rows, "DATA-24", "a row of prompt and completion of messages")

    def test_other_names_and_other_keys(self):
        result = self.good([{"body": "hello", "id": 7}, {"body": "yes", "source": "x"}], "--columns", "text=body")
        self.assertEqual(len(result.documents), 2)
        self.assertIn("keys that are not read: id, source", result.text)
        result = self.good([{"q": "a", "a": "b"}], "--columns", "prompt=q,completion=a")
        self.assertEqual(len(result.documents), 1)
        result = self.prepare([{"text": "a"}], "--columns", "txt=body")
        self.assertEqual((result.code, result.ids), (2, ["CLI-02"]))

    def test_roles_that_nobody_trains_on(self):
        """A misspelt role is context for the template, and would be so without a word."""
        odd = chat("a", "b") + chat("c", "d")
        odd[1]["role"] = "asistant"
        result = self.good([{"messages": chat("a", "b")}, {"messages": odd}, {"messages": odd}])
        self.assertIn('2 messages have the role "asistant", the first is in line 2', result.text)
        self.assertNotIn("role", self.good([{"messages": chat("a", "b")}]).text)

    def test_byte_order_mark_and_empty_lines(self):
        result = self.good([b'\xef\xbb\xbf{"text": "a"}', b"", b'{"text": "b"}\r', b""])
        self.assertEqual(result.lines, [1, 3])
        self.assertIn("2 empty lines were passed over", result.text)

    def test_all_faults_in_one_pass(self):
        rows = [{"text": "a"}, b"{", {"text": ""}, {"text": "b"}, {"txt": "c"}, {"text": "d" * 600}]
        result = self.prepare(rows)
        self.assertEqual(result.ids, ["DATA-21", "DATA-23", "DATA-22", "DATA-28"])
        self.assertEqual([fault.line for fault in result.faults], [2, 3, 5, 6])
        lines = shown(result.faults)
        self.assertRegex(lines[0], r"^cadre: error DATA-21: .*/rows\.jsonl:2: not JSON")
        self.assertEqual(lines[1], "    write one JSON object a line, in UTF-8")

    def test_the_first_20_and_a_count(self):
        result = self.prepare([{"text": ""}] * 27)
        lines = shown(result.faults)
        self.assertEqual(len(lines), 22)
        self.assertEqual(lines[20], "    correct or remove the line")
        self.assertEqual(lines[21], "cadre: 7 more errors, 27 in all")

    def test_messages_write_nothing_to_the_terminal_but_text(self):
        result = self.prepare([{"a\x1b[2J": 1}])
        self.assertNotIn("\x1b", "\n".join(shown(result.faults)))

    def test_no_rows(self):
        self.refused([], "DATA-34", "the file has no rows")

    def test_no_file(self):
        result = model_folders.prepare_main.run(["--model", self.model, "--job", "no.jsonl", "no.h5"], None)
        self.assertEqual([fault.id for fault in result[1]], ["IO-01"])


if __name__ == "__main__":
    unittest.main()

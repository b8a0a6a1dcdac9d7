"""Chat templates: the environment that transformers gives them, where they are found, what they refuse."""

import datetime
import json
import os
import unittest

import model_folders
from model_folders import chat

ANSWERS = "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content + eos_token }}{% else %}BODY{% endif %}{% endfor %}"


class Templates(model_folders.PrepareTest):
    def texts(self, body, messages=None):
        """What the template's `BODY` renders for the first message."""
        model_folders.qwen(self.model, ANSWERS.replace("BODY", body))
        result = self.good([{"messages": messages or chat("a <b>", "yes")}])
        self.text = result.text
        return [self.marked(document) for document in result.documents]

    def test_environment(self):
        self.assertEqual(self.texts("{{ m | tojson }}"), ['{"role": "user", "content": "a <b>"}{yes<|im_end|>}'])
        self.assertEqual(self.texts("{{ m.content | upper }}|{{ tools is none }}"), ["A <B>|True{yes<|im_end|>}"])
        self.assertEqual(self.texts("\n  {% if true %}\n  a\n  {% endif %}\n"), ["  a\n{yes<|im_end|>}"])
        self.assertEqual(self.texts("{% for c in 'abc' %}{% if c == 'b' %}{% break %}{% endif %}{{ c }}{% endfor %}"),
                         ["a{yes<|im_end|>}"])
        self.assertEqual(self.texts("{% generation %}a{% endgeneration %}"), ["a{yes<|im_end|>}"])
        self.assertNotIn("today's date", self.text)
        year = datetime.datetime.now().strftime("%Y")
        self.assertEqual(self.texts("{{ strftime_now('%Y') }}:"), [year + ":{yes<|im_end|>}"])
        self.assertIn("writes today's date", self.text)

    def test_sandbox(self):
        model_folders.qwen(self.model, ANSWERS.replace("BODY", "{{ messages.append(1) }}"))
        self.refused([{"messages": chat("a", "b")}], "DATA-25", "SecurityError")
        model_folders.qwen(self.model, ANSWERS.replace("BODY", "{{ ''.__class__.__mro__ }}"))
        self.refused([{"messages": chat("a", "b")}], "DATA-25", "SecurityError")

    def test_refusal(self):
        model_folders.mistral(self.model)
        rows = [{"messages": chat("a", "b")}, {"messages": chat("a", "b", system="c")}]
        result = self.refused(rows, "DATA-25", "roles must alternate")
        self.assertEqual(result.faults[0].line, 2)
        model_folders.qwen(self.model, ANSWERS.replace("BODY", "{{ m.content / 2 }}"))
        self.refused([{"messages": chat("a", "b")}], "DATA-25", "TypeError")

    def test_no_template(self):
        model_folders.byte_level(self.model)
        self.refused([{"messages": chat("a", "b")}], "DATA-31", "has no chat template")
        self.assertEqual(self.good([{"text": "a"}]).attributes["template_sha256"], "")

    def test_faulty_template(self):
        model_folders.qwen(self.model, "line one\n{% for %}")
        result = self.refused([{"messages": chat("a", "b")}], "DATA-31", "Expected")
        self.assertTrue(result.faults[0].place.endswith("tokenizer_config.json: template line 2"))

    def test_where_it_is_found(self):
        model_folders.qwen(self.model, [{"name": "tool_use", "template": "x"},
                                        {"name": "default", "template": model_folders.CHATML}])
        rows = [{"messages": chat("a", "b")}]
        inside = self.good(rows)
        self.assertEqual(self.marked(inside.documents[0]),
                         "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n{b<|im_end|>}")
        with open(os.path.join(self.model, "chat_template.jinja"), "w", encoding="utf-8") as file:
            file.write(ANSWERS.replace("BODY", "own "))
        beside = self.good(rows)
        self.assertEqual(self.marked(beside.documents[0]), "own {b<|im_end|>}")
        self.assertNotEqual(inside.attributes["template_sha256"], beside.attributes["template_sha256"])

    def test_end_of_turn_that_no_server_stops_at(self):
        model_folders.qwen(self.model)
        path = os.path.join(self.model, "generation_config.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"eos_token_id": [self.tokenizer().token_to_id("<|endoftext|>")]}, file)
        result = self.good([{"messages": chat("a", "b")}])
        self.assertRegex(result.text, r"ends turns with <\|im_end\|> \(\d+\), which the model folder does not list")


if __name__ == "__main__":
    unittest.main()

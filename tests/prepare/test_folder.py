"""What a model folder must say, and the messages when it does not."""

import json
import os
import re
import unittest

import model_folders
from model_folders import faults


class Folder(model_folders.PrepareTest):
    ROWS = [{"text": "hello"}]

    def change(self, name, **values):
        """Sets keys of a JSON file of the folder; None removes one."""
        path = os.path.join(self.model, name)
        value = {}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                value = json.load(file)
        value.update(values)
        with open(path, "w", encoding="utf-8") as file:
            json.dump({key: v for key, v in value.items() if v is not None}, file)

    def test_tokenizer_that_cannot_be_used(self):
        model_folders.byte_level(self.model)
        with open(os.path.join(self.model, "tokenizer.json"), "w", encoding="utf-8") as file:
            file.write("{}")
        self.refused(self.ROWS, "DATA-30", "not a tokenizer")
        os.unlink(os.path.join(self.model, "tokenizer.json"))
        self.refused(self.ROWS, "DATA-30", "no such file")
        with open(os.path.join(self.model, "tokenizer.model"), "wb"):
            pass
        self.refused(self.ROWS, "DATA-30", "tokenizer.model (SentencePiece) has to be converted")
        model_folders.byte_level(self.model, settings={"eos_token": "</s>"})
        self.refused(self.ROWS, "DATA-30", "no token '</s>'")

    def test_other_files(self):
        self.refused(self.ROWS, "DATA-01", "there is no such folder")
        os.mkdir(self.model)
        self.refused(self.ROWS, "DATA-01", "has no config.json")
        self.change("adapter_config.json", r=8)
        self.refused(self.ROWS, "DATA-01", "is an adapter, a base model is wanted")
        os.unlink(os.path.join(self.model, "adapter_config.json"))
        os.rmdir(self.model)
        with open(self.model, "wb"):
            pass
        self.refused(self.ROWS, "DATA-01", "is a file, not a folder")
        os.unlink(self.model)
        model_folders.byte_level(self.model, config={"vocab_size": None})
        self.refused(self.ROWS, "DATA-03", 'no "vocab_size"')
        model_folders.byte_level(self.model, config={"vocab_size": "257"})
        self.refused(self.ROWS, "DATA-04", "'257'")
        model_folders.byte_level(self.model, config={"max_position_embeddings": None})
        self.refused(self.ROWS, "DATA-03", "--max-tokens N takes its place")
        self.good(self.ROWS, "--max-tokens", "64")
        with open(os.path.join(self.model, "tokenizer_config.json"), "w", encoding="utf-8") as file:
            file.write("version https://git-lfs")
        self.refused(self.ROWS, "DATA-02", "Expecting value")

    def test_end_token(self):
        model_folders.byte_level(self.model, settings={})
        self.refused(self.ROWS, "DATA-32", "neither eos_token_id in generation_config.json or config.json")
        self.change("config.json", eos_token_id=65)
        self.assertEqual(self.good(self.ROWS).documents[0][0][-1], 65)
        self.change("generation_config.json", eos_token_id=[256, 66])
        self.assertEqual(self.good(self.ROWS).documents[0][0][-1], 256)
        self.change("generation_config.json", eos_token_id=257)
        self.refused(self.ROWS, "DATA-32", "the tokenizer has no such token")
        self.change("generation_config.json", eos_token_id=[])
        self.refused(self.ROWS, "DATA-32", "empty list")
        self.change("generation_config.json", eos_token_id=256)
        self.change("config.json", vocab_size=256)
        self.refused(self.ROWS, "DATA-33", "the model has 256 tokens")

    def test_token_that_the_model_does_not_have(self):
        model_folders.byte_level(self.model, settings={}, config={"vocab_size": 70, "eos_token_id": 0})
        top = self.tokenizer().token_to_id("h")
        self.assertGreaterEqual(top, 70)
        self.refused([{"text": "!"}, {"text": "h"}], "DATA-33", f"token {top}; the model has 70 tokens")

    def test_padding_and_truncation_of_the_tokenizer_are_not_ours(self):
        model_folders.byte_level(self.model)
        tokenizer = self.tokenizer()
        tokenizer.enable_truncation(4)
        tokenizer.enable_padding(length=4)
        tokenizer.save(os.path.join(self.model, "tokenizer.json"))
        result = self.good([{"text": "a"}, {"text": "abcdefgh"}])
        self.assertEqual([len(tokens) for tokens, _ in result.documents], [2, 9])

    def test_ids_of_the_messages(self):
        """Every DATA-2n and DATA-3n is given somewhere, and every id that Python gives has its cure."""
        known = faults.cures()
        given = set()
        folders = [model_folders.TOOL, *(os.path.join(model_folders.SOURCE, "trainer", f) for f in ("run", "cli"))]
        for folder in folders:
            for name in sorted(os.listdir(folder)):
                if name.endswith((".py", ".c")):
                    with open(os.path.join(folder, name), encoding="utf-8") as file:
                        text = file.read()
                    given |= {found.replace("_", "-") for found in re.findall(r"(?<![A-Z])(?:DATA|IO|CLI)[-_]\d\d\b", text)}
        ours = {id for id in known if re.fullmatch(r"DATA-[23]\d", id)}
        self.assertEqual(ours - given, set())
        self.assertEqual(given - known.keys(), set())


if __name__ == "__main__":
    unittest.main()

"""The files: format version 1 to the letter, made anew only when something changed, never half written."""

import hashlib
import io
import json
import os
import resource
import unittest

import h5py
import model_folders
import numpy
from model_folders import chat


class Writer(model_folders.PrepareTest):
    def setUp(self):
        super().setUp()
        model_folders.llama3(self.model)

    def test_format(self):
        rows = [{"messages": chat("what?", "yes")}, {"messages": chat("hello", "no", "a", "b")}]
        result = self.good(rows, "--creator", "test 1")
        with open(os.path.join(self.dir, "rows.jsonl"), "rb") as file:
            source = hashlib.sha256(file.read()).hexdigest()
        with open(os.path.join(self.model, "tokenizer.json"), "rb") as file:
            tokenizer = hashlib.sha256(file.read()).hexdigest()
        with h5py.File(result.path, "r") as file:
            self.assertEqual(sorted(file), ["line", "loss_mask", "offsets", "supervised", "tokens"])
            types = {name: (file[name].dtype.str, file[name].ndim, file[name].chunks) for name in file}
            self.assertEqual(types, {
                "offsets": ("<i8", 1, None), "tokens": ("<i4", 1, None), "loss_mask": ("|u1", 1, None),
                "supervised": ("<i4", 1, None), "line": ("<i8", 1, None)})
            offsets, tokens, mask = file["offsets"][:], file["tokens"][:], file["loss_mask"][:]
            content = hashlib.sha256(offsets.tobytes() + tokens.tobytes() + mask.tobytes()).hexdigest()
            numbers = ("format_version", "vocab_size", "eos_id", "bos_id", "num_documents", "num_tokens",
                       "num_supervised")
            for name in numbers:
                self.assertEqual((file.attrs[name].dtype.str, file.attrs[name].shape), ("<i8", ()), name)
            supervised = file["supervised"][:]
        self.assertEqual(offsets.tolist(), [0, *numpy.cumsum([len(t) for t, _ in result.documents]).tolist()])
        self.assertEqual(supervised.tolist(), [sum(m) for _, m in result.documents])
        vocabulary = self.tokenizer()
        self.assertEqual(result.attributes, {
            "format": "cadre-dataset",
            "format_version": 1,
            "creator": "test 1",
            "tokenizer_sha256": tokenizer,
            "template_sha256": hashlib.sha256(model_folders.LLAMA3.encode()).hexdigest(),
            "vocab_size": vocabulary.get_vocab_size(),
            "eos_id": vocabulary.token_to_id("<|end_of_text|>"),
            "bos_id": vocabulary.token_to_id("<|begin_of_text|>"),
            "source": os.path.join(self.dir, "rows.jsonl"),
            "source_sha256": source,
            "settings": result.attributes["settings"],
            "content_sha256": content,
            "num_documents": 2,
            "num_tokens": len(tokens),
            "num_supervised": int(mask.sum()),
        })
        settings = json.loads(result.attributes["settings"])
        self.assertEqual(json.dumps(settings, sort_keys=True, separators=(",", ":")), result.attributes["settings"])
        self.assertEqual(settings["max_tokens"], 512)

    def test_once(self):
        rows = [{"text": "hello"}]
        first = self.good(rows)
        self.assertIn("-> ", first.text)
        before = os.stat(first.path)
        again = self.good(rows)
        self.assertEqual(again.text, f"{first.path}: up to date with {os.path.join(self.dir, 'rows.jsonl')}\n")
        self.assertEqual(os.stat(first.path).st_ino, before.st_ino)
        for change in ("rows", "settings", "tokenizer", "format"):
            options = ["--max-tokens", "100"] if change != "rows" else []
            if change == "rows":
                rows = [{"text": "hello"}, {"text": "yes"}]
            elif change == "tokenizer":
                path = os.path.join(self.model, "tokenizer.json")
                with open(path, "a", encoding="utf-8") as file:
                    file.write("\n")
            elif change == "format":
                with h5py.File(first.path, "r+") as file:
                    file.attrs["format_version"] = numpy.int64(2)
            self.assertIn("-> ", self.good(rows, *options).text, change)
            self.assertIn("up to date", self.good(rows, *options).text, change)

    def test_damaged_template_does_not_stop_what_needs_none(self):
        model_folders.llama3(self.model, "{% for %}")
        self.good([{"text": "hello"}])

    def test_what_stands_there_stays(self):
        result = self.good([{"text": "hello"}])
        before = os.stat(result.path).st_ino
        self.assertEqual(self.prepare([{"text": ""}]).ids, ["DATA-23"])
        self.assertEqual(os.stat(result.path).st_ino, before)
        # A file that is no dataset is somebody else's.
        other = os.path.join(self.dir, "other.h5")
        with open(other, "w", encoding="utf-8") as file:
            file.write("thesis")
        result = self.prepare_beside(other)
        self.assertEqual([fault.id for fault in result], ["IO-02"])
        self.assertEqual(os.path.getsize(other), 6)
        self.assertEqual(sorted(os.listdir(self.dir)), ["model", "other.h5", "out.h5", "rows.jsonl"])

    def test_dataset_that_was_cut_short_is_replaced(self):
        path = self.good([{"text": "hello"}]).path
        whole = os.path.getsize(path)
        os.truncate(path, whole - 100)
        self.assertEqual(self.prepare_beside(path), [])
        self.assertEqual(os.path.getsize(path), whole)
        # Another program's HDF5 can be read and is none of ours.
        with h5py.File(path, "w") as file:
            file.attrs["owner"] = "somebody else"
        self.assertEqual([fault.id for fault in self.prepare_beside(path)], ["IO-02"])

    def test_full_disk(self):
        """Wherever the disk is full, while documents come or while HDF5 writes: one fault, and what stood there stays."""
        rows = [{"text": "hello world, " * n} for n in range(1, 40)]
        path = self.good(rows).path
        source, whole, before = self.write(rows + rows), 2 * os.path.getsize(path), os.stat(path).st_ino
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for share in range(0, 36):
            limit = whole * share // 40
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                words = ["--model", self.model, "--job", source, path]
                code, found = model_folders.prepare_main.run(words, io.StringIO())
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            self.assertEqual((code, [(fault.id, fault.text) for fault in found]), (4, [("IO-02", "File too large")]), limit)
            self.assertEqual(sorted(os.listdir(self.dir)), ["model", "out.h5", "rows.jsonl"], limit)
        self.assertEqual(os.stat(path).st_ino, before)

    def prepare_beside(self, path):
        source = self.write([{"text": "hello"}])
        return model_folders.prepare_main.run(["--model", self.model, "--job", source, path], None)[1]

    def test_folder_that_cannot_be_written(self):
        found = self.prepare_beside(os.path.join(self.dir, "rows.jsonl", "x.h5"))  # below a file
        self.assertEqual([fault.id for fault in found], ["IO-02"])

    def test_show(self):
        text = self.good([{"prompt": "what?", "completion": "\x1b[2Jyes"}], "--show", "1").text
        self.assertIn("document 0 (line 1): ", text)
        self.assertIn("<|begin_of_text|>what?{+\\x1b[2Jyes<|end_of_text|>+}", text)

    def test_histogram(self):
        model_folders.byte_level(self.model)
        text = self.good([{"text": "a" * n} for n in (1, 2, 3, 6, 7, 127, 128)]).text
        lines = [line.split() for line in text.splitlines() if " - " in line]
        self.assertEqual([(line[0], line[2], line[-1]) for line in lines],
                         [("2", "3", "2"), ("4", "7", "2"), ("8", "15", "1"), ("16", "31", "0"), ("32", "63", "0"),
                          ("64", "127", "0"), ("128", "255", "2")])
        self.assertIn("longest       129 tokens (line 7)", text)


if __name__ == "__main__":
    unittest.main()

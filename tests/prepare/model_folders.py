"""Small model folders in the manner of the families that are supported, made here: real tokenizers with the real
post-processors, special tokens and chat templates, only with few words. And the frame of the tests: `prepare` runs the
tool on rows, `documents` reads what it wrote."""

import importlib.util
import io
import json
import os
import sys
import tempfile
import unittest

SOURCE = os.environ.get("CADRE_SOURCE_DIR") or os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TOOL = os.path.join(SOURCE, "data", "prepare")
sys.path.insert(0, TOOL)

import h5py  # noqa: E402
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors  # noqa: E402
from tokenizers.trainers import BpeTrainer  # noqa: E402

import faults  # noqa: E402

_spec = importlib.util.spec_from_file_location("prepare_main", os.path.join(TOOL, "__main__.py"))
prepare_main = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(prepare_main)

WORDS = [
    "hello world, what is the answer? yes, it is the one.",
    "system user assistant think about the weather today and tomorrow",
    "yes yes no no the answer is yes\n\nassistant: yes the world\n",
] * 4

LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim"
    " + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
CHATML = (
    "{%- for message in messages %}\n    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + "
    "'\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}"
)
# As Qwen3: reasoning of turns before the last question is dropped, the last answer gets an empty block without any.
THINKING = (
    "{%- set ns = namespace(last=-1) %}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- if m.role == 'assistant' %}"
    "{%- set content = m.content.split('</think>')[-1].lstrip('\\n') %}"
    "{%- set reasoning = m.reasoning_content if m.reasoning_content is defined else '' %}"
    "{%- if '</think>' in m.content %}"
    "{%- set reasoning = m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}{%- endif %}"
    "{%- if loop.index0 > ns.last and (loop.last or reasoning) %}"
    "{{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content + '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>assistant\\n' + content + '<|im_end|>\\n' }}{%- endif %}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)


def special(text):
    return AddedToken(text, special=True, normalized=False)


def save(folder, tokenizer, settings, config):
    """Writes the three files; returns the folder."""
    os.makedirs(folder, exist_ok=True)
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    config = {"vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": 512, **config}
    for name, value in (("tokenizer_config.json", settings), ("config.json", config)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(value, file)
    return folder


def byte_level(folder, settings=None, config=None):
    """Every byte one token, and <|endoftext|>: what the demo makes. Without a template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([special("<|endoftext|>")])
    return save(folder, tokenizer, {"eos_token": "<|endoftext|>"} if settings is None else settings, config or {})


def _byte_bpe(specials, words=()):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        WORDS, BpeTrainer(vocab_size=330, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                          show_progress=False))
    tokenizer.add_special_tokens([special(text) for text in specials])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in words])
    return tokenizer


def _put_in_front(tokenizer, text):
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{text} $A", pair=f"{text} $A {text}:1 $B:1", special_tokens=[(text, tokenizer.token_to_id(text))])


def llama3(folder, template=LLAMA3, bos_by_tokenizer=True):
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = _byte_bpe(names)
    if bos_by_tokenizer:
        _put_in_front(tokenizer, "<|begin_of_text|>")
    settings = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "chat_template": template}
    ends = [tokenizer.token_to_id("<|end_of_text|>"), tokenizer.token_to_id("<|eot_id|>")]
    return save(folder, tokenizer, settings, {"eos_token_id": ends})


def qwen(folder, template=CHATML):
    """No BOS; the padding token is the end token of texts."""
    tokenizer = _byte_bpe(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], ["<think>", "</think>"])
    settings = {
        "bos_token": None,
        "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "lstrip": False, "normalized": False},
        "pad_token": "<|im_end|>",
        "chat_template": template,
    }
    return save(folder, tokenizer, settings, {})


def mistral(folder, template=MISTRAL):
    """SentencePiece in the manner of Llama 2 and Mistral: a blank in front of every text, bytes for unknown letters."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    tokenizer.train_from_iterator(
        WORDS, BpeTrainer(vocab_size=120, special_tokens=[special(name) for name in names], show_progress=False))
    data = json.loads(tokenizer.to_str())
    vocab = data["model"]["vocab"]
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    tokenizer = Tokenizer.from_str(json.dumps(data))
    _put_in_front(tokenizer, "<s>")
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": template}
    return save(folder, tokenizer, settings, {})


def chat(*contents, system=None):
    """Messages of user and assistant in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    return ([{"role": "system", "content": system}] if system is not None else []) + messages


class Prepared:
    """What one call of the tool left: code, faults, ids (of faults), text (stdout), path, and once it is there
    documents: [(tokens, mask)], attributes, lines."""

    def __init__(self, code, found, text, path):
        self.code, self.faults, self.text, self.path = code, found, text, path
        self.ids = [fault.id for fault in found]
        self.documents, self.lines, self.attributes = [], [], {}
        if os.path.exists(path):
            with h5py.File(path, "r") as file:
                offsets, tokens, mask = file["offsets"][:], file["tokens"][:], file["loss_mask"][:]
                self.lines = file["line"][:].tolist()
                self.attributes = {
                    name: value.decode() if isinstance(value, bytes) else value for name, value in file.attrs.items()
                }
            for begin, end in zip(offsets, offsets[1:]):
                self.documents.append((tokens[begin:end].tolist(), mask[begin:end].tolist()))


class PrepareTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = folder.name
        self.model = os.path.join(self.dir, "model")

    def write(self, rows, name="rows.jsonl"):
        """A JSONL file; a row is an object, or the bytes of a line."""
        path = os.path.join(self.dir, name)
        with open(path, "wb") as file:
            for row in rows:
                file.write(row if isinstance(row, bytes) else json.dumps(row).encode())
                file.write(b"\n")
        return path

    def prepare(self, rows, *options, output="out.h5"):
        source, path = self.write(rows), os.path.join(self.dir, output)
        out = io.StringIO()
        code, found = prepare_main.run(["--model", self.model, "--job", source, path, *options], out)
        return Prepared(code, found, out.getvalue(), path)

    def good(self, rows, *options):
        result = self.prepare(rows, *options)
        self.assertEqual([(fault.place, fault.text) for fault in result.faults], [])
        self.assertEqual(result.code, 0)
        return result

    def refused(self, rows, id, text, *options):
        """One fault of this id whose text holds `text`, and no file."""
        result = self.prepare(rows, *options, output="refused.h5")
        self.assertEqual(result.ids, [id])
        self.assertIn(text, result.faults[0].text)
        self.assertEqual(result.code, 3)
        self.assertFalse(os.path.exists(result.path))
        return result

    def tokenizer(self):
        return Tokenizer.from_file(os.path.join(self.model, "tokenizer.json"))

    def marked(self, document):
        """The text of a document, each trained run in braces."""
        tokens, mask = document
        tokenizer, out, run = self.tokenizer(), [], []
        for place, token in enumerate(tokens):
            run.append(token)
            if place + 1 == len(tokens) or mask[place + 1] != mask[place]:
                text = tokenizer.decode(run, skip_special_tokens=False)
                out.append("{" + text + "}" if mask[place] else text)
                run = []
        return "".join(out)


def shown(found):
    out = io.StringIO()
    faults.show(found, out)
    return out.getvalue().splitlines()

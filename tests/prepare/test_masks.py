"""What is trained on: masks, beginnings and ends of documents, by family of tokenizer and template."""

import random
import unittest

import model_folders
from model_folders import chat, prepare_main
from templates import Template


class Masks(model_folders.PrepareTest):
    def test_text_all_but_the_first_token(self):
        model_folders.byte_level(self.model)
        result = self.good([{"text": "ab"}, {"text": "x"}])
        end = self.tokenizer().token_to_id("<|endoftext|>")
        a, b, x = (self.tokenizer().token_to_id(c) for c in "abx")
        self.assertEqual(result.documents, [([a, b, end], [0, 1, 1]), ([x, end], [0, 1])])
        self.assertEqual(result.lines, [1, 2])

    def test_text_with_bos(self):
        model_folders.llama3(self.model)
        result = self.good([{"text": "hello world"}])
        self.assertEqual(self.marked(result.documents[0]), "<|begin_of_text|>{hello world<|end_of_text|>}")

    def test_completion_only(self):
        model_folders.llama3(self.model)
        result = self.good([{"prompt": "what is the answer?", "completion": " yes"}])
        self.assertEqual(self.marked(result.documents[0]), "<|begin_of_text|>what is the answer?{ yes<|end_of_text|>}")

    def test_completion_is_cut_from_its_prompt_where_the_user_cut(self):
        # "answer: " and "yes" make the token " yes" when they are joined; a server tokenizes the prompt alone.
        model_folders.llama3(self.model)
        result = self.good([{"prompt": "the answer: ", "completion": "yes"}])
        self.assertEqual(self.marked(result.documents[0]), "<|begin_of_text|>the answer: {yes<|end_of_text|>}")

    def test_completion_of_sentencepiece_gets_no_blank_of_its_own(self):
        model_folders.mistral(self.model)
        result = self.good([{"prompt": "the answer", "completion": " is yes"}])
        tokens, mask = result.documents[0]
        whole = self.tokenizer().encode("the answer is yes").ids
        self.assertEqual(tokens, [*whole, self.tokenizer().token_to_id("</s>")])
        self.assertEqual(sum(mask), len(tokens) - len(self.tokenizer().encode("the answer").ids))
        # A token that covers both sides of the border cannot be half trained.
        self.refused([{"prompt": "the answer is y", "completion": "es"}], "DATA-26", "goes over the border")

    def test_prompt_and_completion_of_messages(self):
        model_folders.qwen(self.model)
        result = self.good([{"prompt": chat("hello", "yes", "what?"), "completion": [chat("", "no")[1]]}])
        self.assertEqual(self.marked(result.documents[0]),
                         "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
                         "<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\n{no<|im_end|>}")

    # ==== conversations ====

    def test_complaint_6_spans_without_generation_tags(self):
        """Stock templates have none of the tags by which other trainers find the assistant's text."""
        messages = chat("what?", "yes", "hello", "the world", system="think")
        model_folders.llama3(self.model)
        result = self.good([{"messages": messages}])
        head = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"
        answer = "<|start_header_id|>assistant<|end_header_id|>\n\n{{{}<|eot_id|>}}"
        self.assertEqual(
            self.marked(result.documents[0]),
            "<|begin_of_text|>" + head.format("system", "think") + head.format("user", "what?") + answer.format("yes")
            + head.format("user", "hello") + answer.format("the world"))
        self.assertRegex(result.text, r"supervised +\d+ tokens, \d+\.\d %")

        model_folders.qwen(self.model)
        result = self.good([{"messages": messages}])
        self.assertEqual(
            self.marked(result.documents[0]),
            "<|im_start|>system\nthink<|im_end|>\n<|im_start|>user\nwhat?<|im_end|>\n"
            "<|im_start|>assistant\n{yes<|im_end|>}\n<|im_start|>user\nhello<|im_end|>\n"
            "<|im_start|>assistant\n{the world<|im_end|>}")

    def test_complaint_6_sentencepiece(self):
        model_folders.mistral(self.model)
        result = self.good([{"messages": chat("what?", "yes \u00e9", "hello", "no")}])
        tokens, mask = result.documents[0]
        rendered = "<s>[INST] what? [/INST] yes \u00e9</s>[INST] hello [/INST] no</s>"
        tokenizer = self.tokenizer()
        self.assertEqual(tokens, tokenizer.encode(rendered, add_special_tokens=False).ids)
        trained = [t for t, m in zip(tokens, mask) if m]
        close, end = tokenizer.token_to_id("[/INST]"), tokenizer.token_to_id("</s>")
        wanted, inside = [], False
        for token in tokens:
            if inside:
                wanted.append(token)
            inside = (inside or token == close) and token != end
        self.assertEqual(trained, wanted)
        self.assertEqual(trained.count(end), 2)

    def test_reasoning_that_the_template_drops(self):
        model_folders.qwen(self.model, model_folders.THINKING)
        thought = "<think>\nhello\n</think>\n\nyes"
        result = self.good([{"messages": chat("what?", thought, "hello", "<think>\nthe\n</think>\n\nno")},
                            {"messages": chat("what?", "yes", "hello", "no")}])
        self.assertEqual(
            self.marked(result.documents[0]),
            "<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\n{yes<|im_end|>}\n"
            "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n{<think>\nthe\n</think>\n\nno<|im_end|>}")
        # The empty block is the template's, not the author's: it stays, untrained.
        self.assertEqual(
            self.marked(result.documents[1]),
            "<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\n{yes<|im_end|>}\n"
            "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n{no<|im_end|>}")
        self.assertIn("2 assistant turns are rendered otherwise", result.text)

    def test_messages_behind_the_last_answer_are_left_out(self):
        model_folders.qwen(self.model)
        result = self.good([{"messages": chat("what?", "yes", "hello")}])
        self.assertTrue(self.marked(result.documents[0]).endswith("{yes<|im_end|>}"))
        self.assertIn("1 messages behind the last assistant turn", result.text)

    def test_turn_that_cannot_be_told_apart(self):
        # The prompt for a generation ends in a blank that joins the answer's first token.
        model_folders.llama3(self.model, "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
                                         "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}")
        self.refused([{"messages": chat("what?", "yes")}], "DATA-26", "a token goes over the border")
        # The template numbers the messages from the end.
        model_folders.llama3(self.model, "{% for m in messages %}{{ loop.revindex ~ m.content + eos_token }}{% endfor %}")
        self.refused([{"messages": chat("what?", "yes", "hello", "no")}], "DATA-26", "changes with the whole")

    def test_template_without_end_of_turn_gets_the_end_token(self):
        model_folders.llama3(self.model, "{% for m in messages %}{{ m.role + ':' + m.content + '\n' }}{% endfor %}"
                                         "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}")
        result = self.good([{"messages": chat("what?", " yes", "hello", " no")}])
        self.assertEqual(self.marked(result.documents[0]),
                         "<|begin_of_text|>user:what?\nassistant:{ yes\n}user:hello\nassistant:{ no\n<|end_of_text|>}")

    def test_tokens_are_those_of_the_tokenizer(self):
        """Private spellings of special tokens change no id: compared with the tokenizer as it is."""
        chance = random.Random(7)
        pieces = [*"abc \n.,!", " the", "answer", "\u00e9", "\u6f22", "\U0001f600", "  ", "'s", "yes"]
        for make in (model_folders.llama3, model_folders.qwen, model_folders.mistral):
            make(self.model)
            texts = ["x" + "".join(chance.choices(pieces, k=chance.randint(1, 40))) for _ in range(60)]
            result = self.good([{"text": text} for text in texts])
            tokenizer = self.tokenizer()
            self.assertEqual([tokens[:-1] for tokens, _ in result.documents],
                             [tokenizer.encode(text).ids for text in texts])
            result = self.good([{"messages": chat(a, b)} for a, b in zip(texts, reversed(texts))])
            vocabulary = prepare_main.Vocabulary(self.model)
            template = Template(vocabulary.template, "", vocabulary.named)
            for a, b, (tokens, _) in zip(texts, reversed(texts), result.documents):
                whole = tokenizer.encode(template.render(chat(a, b), False), add_special_tokens=False).ids
                self.assertEqual(tokens, whole[: len(tokens)])
                self.assertEqual(tokenizer.decode(whole[len(tokens) :]).strip(), "")

    # ==== ends and beginnings ====

    def test_complaint_7_end_token_is_trained_though_it_is_the_padding_token(self):
        model_folders.qwen(self.model)
        end = self.tokenizer().token_to_id("<|im_end|>")
        rows = [{"text": "hello"}, {"text": "yes<|im_end|>no"}]
        result = self.good(rows)
        for tokens, mask in result.documents:
            self.assertEqual((tokens[-1], mask[-1]), (end, 1))
            self.assertEqual(mask, [0] + [1] * (len(tokens) - 1))
        self.assertIn("supervised in 100 % of the documents, an end token in 100 %", result.text)
        result = self.good([{"prompt": "what?", "completion": "yes"}])
        self.assertEqual(result.documents[0][0][-1], end)
        self.assertEqual(result.documents[0][1][-1], 1)
        result = self.good([{"messages": chat("what?", "yes", "hello", "no")}])
        tokens, mask = result.documents[0]
        # Those of the assistant's turns are targets, those of the user's are not: by position, not by id.
        self.assertEqual([m for t, m in zip(tokens, mask) if t == end], [0, 1, 0, 1])

    def test_complaint_8_exactly_one_bos(self):
        bos = "<|begin_of_text|>"
        without = model_folders.LLAMA3.replace("bos_token + content", "content")
        for template in (model_folders.LLAMA3, without):
            for by_tokenizer in (True, False):
                model_folders.llama3(self.model, template, by_tokenizer)
                result = self.good([{"messages": chat("what?", "yes")}])
                text = self.marked(result.documents[0])
                # Neither writes one: then the model was made without.
                wanted = 0 if template == without and not by_tokenizer else 1
                self.assertEqual(text.count(bos), wanted)
                self.assertEqual(text.startswith(bos), wanted == 1)

    def test_complaint_8_two_bos_are_refused(self):
        twice = "{{ bos_token }}" + model_folders.LLAMA3
        model_folders.llama3(self.model, twice)
        rows = [{"messages": chat("what?", "yes")}]
        self.refused(rows, "DATA-29", 'two "<|begin_of_text|>"')
        result = self.good(rows, "--double-bos", "keep")
        self.assertEqual(self.marked(result.documents[0]).count("<|begin_of_text|>"), 2)

        # A text that was rendered elsewhere, with its BOS: as text, as prompt, as the first message.
        model_folders.mistral(self.model)
        self.refused([{"text": "<s>[INST] what? [/INST] yes</s>"}], "DATA-29", 'begins with "<s>"')
        self.refused([{"prompt": " <s>what?", "completion": "yes"}], "DATA-29", 'begins with "<s>"')
        model_folders.llama3(self.model, "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
        self.refused([{"messages": chat("<|begin_of_text|>what?", "yes")}], "DATA-29", "first message begins with")

    def test_special_tokens_in_user_text_are_text(self):
        model_folders.qwen(self.model)
        end = self.tokenizer().token_to_id("<|im_end|>")
        trick = "yes<|im_end|>\n<|im_start|>system\nno"
        result = self.good([{"messages": chat(trick, trick)}])
        tokens, mask = result.documents[0]
        self.assertEqual(tokens.count(end), 2)
        self.assertEqual(self.marked(result.documents[0]),
                         f"<|im_start|>user\n{trick}<|im_end|>\n<|im_start|>assistant\n{{{trick}<|im_end|>}}")
        self.assertIn("1 rows spell special tokens in their own text, the first is line 1", result.text)
        result = self.good([{"text": "a<|im_end|>"}])
        self.assertEqual(result.documents[0][0].count(end), 1)
        # Pieces of special tokens that only together make one.
        result = self.good([{"text": "<|im_<|im_end|>end|>"}])
        self.assertEqual(result.documents[0][0].count(end), 1)

    # ==== rows that are refused ====

    def test_complaint_5_rows_without_a_target(self):
        model_folders.qwen(self.model)
        rows = [{"messages": chat("what?")}, {"messages": chat("what?", "yes")}]
        result = self.refused(rows, "DATA-27", "no message of the assistant")
        self.assertTrue(result.faults[0].place.endswith("rows.jsonl:1"))
        result = self.good(rows, "--masked", "skip")
        self.assertEqual(result.lines, [2])
        self.assertIn("refused       1 rows\n    line 1: no supervised token", result.text)
        # Cut before the answer: the same fault.
        self.refused([{"prompt": "hello " * 20, "completion": "yes"}], "DATA-27", "no supervised token within the first 8 of ",
                     "--max-tokens", "8", "--overlong", "truncate")
        self.assertEqual(self.prepare([rows[0]], "--masked", "skip", output="none.h5").ids, ["DATA-34"])

    def test_overlong(self):
        model_folders.byte_level(self.model)
        rows = [{"text": "a" * 20}, {"text": "b" * 5}, {"text": "c" * 7}]
        result = self.refused(rows, "DATA-28", "21 tokens; at most 8", "--max-tokens", "8")
        self.assertTrue(result.faults[0].place.endswith("rows.jsonl:1"))
        result = self.good(rows, "--max-tokens", "8", "--overlong", "skip")
        self.assertEqual(result.lines, [2, 3])
        self.assertIn("line 1: 21 tokens; at most 8", result.text)
        result = self.good(rows, "--max-tokens", "8", "--overlong", "truncate")
        self.assertEqual([len(tokens) for tokens, _ in result.documents], [8, 6, 8])
        self.assertEqual([tokens[-1] == 256 for tokens, _ in result.documents], [False, True, True])
        self.assertIn("supervised in 100 % of the documents, an end token in 66.7 %", result.text)
        # The model's own limit.
        self.refused([{"text": "a" * 512}], "DATA-28", "513 tokens; at most 512")


if __name__ == "__main__":
    unittest.main()

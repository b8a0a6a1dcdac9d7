#!/usr/bin/env python3
"""invariants.py --cadre PROGRAM --dataset PROGRAM --out DIR [--device cuda|cpu] [--ranks N]: docs/design.md's Placement
invariance, accumulation and company on the GPUs of this host.

A small model with heads of 64 and two adapters, one with dropout, is trained in bf16 with every placement of PLACEMENTS that
N ranks (the host's GPUs) allow. With train.deterministic and the same trainers all losses have the same digits and all
exported files the same bytes: run again, with more recomputed in the backward, with servers of their own, in place, by copy
engines and by NCCL. Without it sums follow the servers, and the same run again has the same bits. With another number of
trainers losses agree to 2e-3, and so do they with half the rows a microbatch, and those of the adapter without dropout when it
trains alone.

--dataset is cli_dataset of tests/cli. --device cpu: the same without a GPU, one layer, two steps, over copy engines and MPI.
Exit: 0 all held; 1 not; 77 no mpirun for more than one rank.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("CADRE_SOURCE_DIR", str(SOURCE))
sys.path.insert(0, str(SOURCE / "tests/ranks"))
from train_placements import difference, digits, distance, exported  # noqa: E402

TRAINERS_BOUND = 2e-3  # roundings to bf16 of sums in another order

WAITS_NOT = "\nhost waits between microbatches: 0; "
POOL = ("--set", "attention.placement=pool")
FAST = ("--set", "train.deterministic=false")


def servers(count):
    return (*POOL, "--set", f"attention.servers_per_host={count}")


# name: (group that has the same bits, trainers, ranks, transport, options)
PLACEMENTS = {
    "one": ("one", 1, 1, "auto", ()),
    "one again": ("one", 1, 1, "auto", ()),
    "one, all but attention again": ("one", 1, 1, "auto", ("--set", "train.recompute=block")),
    "one, queries, keys, values again": ("one", 1, 1, "auto", ("--set", "train.recompute=qkv")),
    "half the rows": ("half the rows", 1, 1, "auto", ("--set", "batch.tokens_per_trainer=2048")),
    "alone": ("alone", 1, 1, "auto", ()),  # the first adapter of RUN
    "one, a server": ("one", 1, 2, "auto", servers(1)),
    "one, three servers": ("one", 1, 4, "auto", servers(3)),
    "two": ("two", 2, 2, "auto", ()),
    "two, other transport": ("two", 2, 2, "other", ()),
    "two, a server": ("two", 2, 3, "auto", servers(1)),
    "two, two servers": ("two", 2, 4, "other", servers(2)),
    "two, fast": ("two, fast", 2, 2, "auto", FAST),
    "two, fast again": ("two, fast", 2, 2, "other", FAST),
    "three": ("three", 3, 3, "auto", ()),
    "three, a server": ("three", 3, 4, "auto", servers(1)),
    "four": ("four", 4, 4, "auto", ()),
    "four, other transport": ("four", 4, 4, "other", ()),
    "four, fast": ("four, fast", 4, 4, "auto", FAST),
    "four, fast again": ("four, fast", 4, 4, "auto", FAST),
}
OTHER = {"cuda": "nccl", "cpu": "mpi"}

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 384,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 500,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "hidden_act": "silu", "torch_dtype": "bfloat16", "attention_bias": False, "initializer_range": 0.06,
}  # fmt: skip
DOCUMENTS = {"plain": ("300", "1700", "200", "900", "128", "1500"), "dropped": ("600", "127", "1100", "50")}
RUN = """model: ../model
output: run
batch: {{tokens_per_trainer: {tokens}}}
train: {{device: {device}, dtype: bf16, deterministic: true}}
defaults: {{steps: {steps}, global_batch_documents: 2, learning_rate: 5e-3, order: file}}
adapters:
  - {{name: plain, rank: 16, data: ../plain.h5}}
  - {{name: dropped, rank: 8, dropout: 0.1, data: ../dropped.h5}}
"""
ALONE = "plain"
ROWS = 4096  # of a microbatch, on all trainers: two batches of the longest documents


class Case:
    def __init__(self, options):
        self.cadre, self.dataset, self.device = options.cadre.resolve(), options.dataset.resolve(), options.device
        self.folder = (options.out / "invariants").resolve()
        self.faults = 0

    def fault(self, text):
        self.faults += 1
        print(f"-- FAILED: {text}", flush=True)

    def prepare(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "config").mkdir(parents=True)
        layers = {"num_hidden_layers": 3 if self.device == "cuda" else 1}
        (self.folder / "config" / "config.json").write_text(json.dumps({**CONFIG, **layers}))
        (self.folder / "config" / "tokenizer.json").write_text('{"stands for": "llama"}')
        self.call(self.cadre, "init-model", "config/config.json", "model", "--seed", "1", "--dtype", "bf16")
        for seed, (name, rows) in enumerate(DOCUMENTS.items()):
            self.call(self.dataset, f"{name}.h5", "model", str(seed + 1), *rows)

    def call(self, *words):
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{words[0]} {words[1]}: {done.stdout}{done.stderr}")

    def train(self, name):
        """Runs it; returns its folder, or None."""
        _, trainers, ranks, transport, options = PLACEMENTS[name]
        folder = self.folder / name.replace(", ", "-").replace(" ", "-")
        folder.mkdir()
        tokens, steps = ROWS // trainers // 128 * 128, 5 if self.device == "cuda" else 2
        text = RUN.format(tokens=tokens, device=self.device, steps=steps)
        if name == "alone":
            text = "\n".join(line for line in text.split("\n") if "- {name" not in line or ALONE in line)
        (folder / "run.yaml").write_text(text)
        words = [self.cadre, "train", "run.yaml", *options]
        if ranks > 1:
            chosen = OTHER[self.device] if transport == "other" else transport
            words = ["mpirun", "-q", "--oversubscribe", "--bind-to", "none", "-np", str(ranks), "-x", "NCCL_NVLS_ENABLE=0", *words]
            words += ["--set", f"train.transport={chosen}"]
        began = time.monotonic()
        try:
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
            code, said = done.returncode, done.stderr
            if WAITS_NOT not in done.stdout and code == 0:
                self.fault(f"{name}: the host waits: {done.stdout[-300:]}")
        except subprocess.TimeoutExpired as late:
            code, said = "none after 60 s", (late.stderr or b"").decode(errors="replace")
        print(f"-- {name}: {ranks} ranks, {time.monotonic() - began:.1f} s", flush=True)
        if code:
            self.fault(f"{name}: exit code {code}: {said[-600:]}")
            return None
        return folder / "run"

    def check(self, ranks):
        first = {}
        for name, (group, trainers, wanted, *_) in PLACEMENTS.items():
            run = self.train(name) if wanted <= ranks else None
            if run is None:
                continue
            found = (digits(run), exported(run))
            if group not in first:
                first[group] = (name, trainers, *found)
                continue
            other, _, lines, files = first[group]
            if found[0] != lines:
                self.fault(f"{name} and {other} have other losses: {difference(found[0], lines)}")
            names = [n for n in sorted(files.keys() | found[1].keys()) if files.get(n) != found[1].get(n)]
            if names:
                self.fault(f"{name} and {other} exported other bytes: {names}")
        for name, trainers, lines, _ in first.values():
            one = first["one"][2]
            if name == "alone":
                one = {key: number for key, number in one.items() if key[0] == ALONE}
            away = distance(lines, one)
            print(f"losses of {name}: {away:.1e} from those of one trainer on one rank")
            if not away <= TRAINERS_BOUND:
                self.fault(f"losses of {name}, {trainers} trainers, are {away:.1e} away")


def count_gpus():
    if shutil.which("nvidia-smi") is None:
        return 0
    return subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout.count("GPU ")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cadre", type=pathlib.Path, required=True)
    parser.add_argument("--dataset", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--ranks", type=int, default=0)
    options = parser.parse_args()
    ranks = options.ranks or count_gpus()
    if ranks > 1 and shutil.which("mpirun") is None:
        return 77
    case = Case(options)
    case.prepare()
    case.check(ranks)
    return 1 if case.faults else 0


if __name__ == "__main__":
    sys.exit(main())

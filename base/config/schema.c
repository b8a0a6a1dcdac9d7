#include "base/config/schema.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Words stand in the order of their enums in config.h. */
static const char *const PLACEMENTS[] = {"in_place", "pool", "local", NULL};
static const char *const PACKERS[] = {"fast", "exact", NULL};
static const char *const MODES[] = {"lora", "full", NULL};
static const char *const DTYPES[] = {"auto", "fp32", "bf16", NULL};
static const char *const DEVICES[] = {"auto", "cpu", "cuda", NULL};
static const char *const RECOMPUTES[] = {"auto", "none", "qkv", "block", NULL};
static const char *const TRANSPORTS[] = {"auto", "mpi", "copy_engine", "nccl", NULL};
static const char *const SCHEDULES[] = {"constant", "linear", "cosine", NULL};
static const char *const ORDERS[] = {"shuffle", "file", NULL};
static const char *const INITS[] = {"kaiming", "gaussian", NULL};
static const char *const TARGETS[] = {
#define X(name, bit, word) word,
    BASE_CONFIG_TARGET_MAP(X)
#undef X
        NULL};

/* Seeds beyond 2^53 would change in tools that read JSON numbers as doubles. */
#define MAX_SEED  9007199254740991.0
#define MAX_COUNT 1e12

#define ROOT(field)   offsetof(base_config_t, field)
#define OF(field)     offsetof(base_config_adapter_t, field)
#define REQUIRED      BASE_SCHEMA_REQUIRED
#define OPTIONAL      BASE_SCHEMA_OPTIONAL
#define DERIVED       BASE_SCHEMA_DERIVED
#define INHERIT       BASE_SCHEMA_INHERIT
#define LORA          BASE_SCHEMA_LORA
#define OPEN_MIN      BASE_SCHEMA_OPEN_MIN
#define OPEN_MAX      BASE_SCHEMA_OPEN_MAX
#define WITHOUT_RANGE 0, 0

/* Columns: section, name, type, flags, default, min, max, words, partner, resume, unit, doc, field.
 */
static const base_schema_key_t KEYS[] = {
    {"", "model", BASE_SCHEMA_PATH, REQUIRED, NULL, WITHOUT_RANGE, NULL, NULL, BASE_SCHEMA_CONTENT,
     "",
     "Hugging Face folder of the base model (config.json, tokenizer, safetensors). It is only "
     "read.",
     ROOT(model)},
    {"", "output", BASE_SCHEMA_PATH, REQUIRED, NULL, WITHOUT_RANGE, NULL, NULL, BASE_SCHEMA_TAKE,
     "", "Folder of the run. It must not hold another run; --resume continues the one it holds.",
     ROOT(output)},
    {"", "data", BASE_SCHEMA_DOCUMENTS, OPTIONAL, NULL, WITHOUT_RANGE, NULL, NULL,
     BASE_SCHEMA_CONTENT, "",
     "Documents to train the whole model on, .jsonl or a prepared .h5. Only with train.mode full.",
     ROOT(data)},

    {"attention", "placement", BASE_SCHEMA_ENUM, 0, "in_place", WITHOUT_RANGE, PLACEMENTS, NULL,
     BASE_SCHEMA_TAKE, "",
     "Where core attention runs. in_place: every trainer also serves. pool: the last "
     "servers_per_host ranks of each host only serve. local: each document whole on one trainer, "
     "no exchange.",
     ROOT(attention.placement)},
    {"attention", "servers_per_host", BASE_SCHEMA_INT, OPTIONAL | DERIVED, "1 with placement pool",
     1, 1024, NULL, NULL, BASE_SCHEMA_TAKE, "ranks",
     "Ranks of each host that only serve. Only with placement pool.",
     ROOT(attention.servers_per_host)},
    {"attention", "cost_profile", BASE_SCHEMA_PATH, OPTIONAL, NULL, WITHOUT_RANGE, NULL, NULL,
     BASE_SCHEMA_TAKE, "",
     "Times of core attention on this machine, as `cadre bench profile` and `cadre bench attention "
     "--profile` write them, by which work is divided among servers. Not given: built-in ones.",
     ROOT(attention.cost_profile)},
    {"attention", "server_speeds", BASE_SCHEMA_NUMBERS, OPTIONAL, NULL, 0.1, 10, NULL, NULL,
     BASE_SCHEMA_TAKE, "",
     "Speeds of the attention servers, where they are unlike: one number for each server in the "
     "order of their ranks, 1 for the device that cost_profile was measured on. A server of 0.5 is "
     "given half the work. Not with placement local. Not given: all are alike.",
     ROOT(attention.server_speeds)},
    {"attention", "retain_mib", BASE_SCHEMA_INT, 0, "256", 0, 16777216, NULL, NULL,
     BASE_SCHEMA_TAKE, "MiB",
     "Memory in which a server keeps what came from other ranks in the forward until the backward, "
     "instead of receiving it again.",
     ROOT(attention.retain_mib)},

    {"batch", "tokens_per_trainer", BASE_SCHEMA_INT, 0, "8192", 256, 16777216, NULL, NULL,
     BASE_SCHEMA_TAKE, "rows",
     "Rows (token positions) of a microbatch on each trainer. `cadre plan` says what fits.",
     ROOT(batch.tokens_per_trainer)},
    {"batch", "max_rank_columns", BASE_SCHEMA_INT, OPTIONAL | DERIVED | LORA,
     "the sum of the adapters' ranks", 1, 16777216, NULL, NULL, BASE_SCHEMA_TAKE, "columns",
     "Columns kept beside the activations for the adapters of one microbatch; at least the "
     "largest rank. Fewer save memory, and then fewer adapters share a microbatch.",
     ROOT(batch.max_rank_columns)},
    {"batch", "packer", BASE_SCHEMA_ENUM, 0, "fast", WITHOUT_RANGE, PACKERS, NULL, BASE_SCHEMA_TAKE,
     "",
     "What chooses the documents of a microbatch. fast: a heuristic. exact: where few documents "
     "are "
     "to choose from, a solver too, for fewer microbatches; it takes up to seconds and a process "
     "of its own on every rank.",
     ROOT(batch.packer)},

    {"train", "mode", BASE_SCHEMA_ENUM, 0, "lora", WITHOUT_RANGE, MODES, NULL, BASE_SCHEMA_REFUSE,
     "", "lora: adapters on a frozen model. full: the model itself, with the settings of defaults.",
     ROOT(train.mode)},
    {"train", "seed", BASE_SCHEMA_INT, 0, "0", 0, MAX_SEED, NULL, NULL, BASE_SCHEMA_REFUSE, "",
     "Seed of an adapter that has none of its own.", ROOT(train.seed)},
    {"train", "dtype", BASE_SCHEMA_ENUM, 0, "auto", WITHOUT_RANGE, DTYPES, NULL, BASE_SCHEMA_REFUSE,
     "",
     "Number format of weights and activations. auto: fp32 on the CPU, bf16 on a GPU. Masters and "
     "sums are fp32.",
     ROOT(train.dtype)},
    {"train", "device", BASE_SCHEMA_ENUM, 0, "auto", WITHOUT_RANGE, DEVICES, NULL, BASE_SCHEMA_TAKE,
     "",
     "auto: what the program was built for. A cuda build without a GPU is an error unless this is "
     "cpu.",
     ROOT(train.device)},
    {"train", "transport", BASE_SCHEMA_ENUM, 0, "auto", WITHOUT_RANGE, TRANSPORTS, NULL,
     BASE_SCHEMA_TAKE, "",
     "What carries data between ranks that are processes. copy_engine: one copy inside a host, MPI "
     "between hosts on the CPU. auto: copy_engine when all ranks are on one host, else mpi, on "
     "GPUs "
     "nccl. No result depends on it.",
     ROOT(train.transport)},
    {"train", "recompute", BASE_SCHEMA_ENUM, 0, "auto", WITHOUT_RANGE, RECOMPUTES, NULL,
     BASE_SCHEMA_TAKE, "",
     "What the backward makes again, to save memory: nothing; q, k and v; all of a layer but its "
     "attention. No result depends on it. auto: the least that fits on a GPU, nothing on the CPU.",
     ROOT(train.recompute)},
    {"train", "deterministic", BASE_SCHEMA_BOOL, 0, "false", WITHOUT_RANGE, NULL, NULL,
     BASE_SCHEMA_TAKE, "",
     "On GPUs: the same bits whichever servers compute, at the price of more bytes between ranks. "
     "Without it a run has the same bits on the same ranks only. The CPU always does.",
     ROOT(train.deterministic)},
    {"train", "checkpoint_every_minutes", BASE_SCHEMA_INT, OPTIONAL | DERIVED,
     "20, unless checkpoint_every_microbatches is given", 1, 525600, NULL,
     "checkpoint_every_microbatches", BASE_SCHEMA_TAKE, "minutes", "Time between checkpoints.",
     ROOT(train.checkpoint_every_minutes)},
    {"train", "checkpoint_every_microbatches", BASE_SCHEMA_INT, OPTIONAL, NULL, 1, MAX_COUNT, NULL,
     "checkpoint_every_minutes", BASE_SCHEMA_TAKE, "microbatches",
     "Microbatches between checkpoints.", ROOT(train.checkpoint_every_microbatches)},
    {"train", "keep_checkpoints", BASE_SCHEMA_INT, 0, "2", 1, 1000000, NULL, NULL, BASE_SCHEMA_TAKE,
     "checkpoints", "The last so many checkpoints stay.", ROOT(train.keep_checkpoints)},

    {"adapters", "name", BASE_SCHEMA_STRING, REQUIRED | LORA, NULL, WITHOUT_RANGE, NULL, NULL,
     BASE_SCHEMA_REFUSE, "",
     "Name of the adapter and of its folder in output/adapters: letters, digits, '.', '_' and "
     "'-', at most 64, beginning with a letter or digit. No two adapters share one.",
     OF(name)},
    {"adapters", "data", BASE_SCHEMA_DOCUMENTS, REQUIRED | INHERIT | LORA, NULL, WITHOUT_RANGE,
     NULL, NULL, BASE_SCHEMA_CONTENT, "",
     "Documents to train on: .jsonl, or an .h5 made by `cadre prepare`.", OF(data)},
    {"adapters", "eval", BASE_SCHEMA_DOCUMENTS, OPTIONAL | INHERIT, NULL, WITHOUT_RANGE, NULL,
     "eval_documents", BASE_SCHEMA_CONTENT, "",
     "Documents to evaluate on: .jsonl, or an .h5 made by `cadre prepare`.", OF(eval)},
    {"adapters", "eval_documents", BASE_SCHEMA_INT, OPTIONAL | INHERIT, NULL, 1, MAX_COUNT, NULL,
     "eval", BASE_SCHEMA_REFUSE, "documents",
     "Documents of data that are held out and evaluated on.", OF(eval_documents)},
    {"adapters", "eval_every_steps", BASE_SCHEMA_INT, INHERIT, "50", 1, MAX_COUNT, NULL, NULL,
     BASE_SCHEMA_TAKE, "steps",
     "Steps between evaluations. Without eval or eval_documents nothing is evaluated.",
     OF(eval_every_steps)},
    {"adapters", "early_stopping_patience", BASE_SCHEMA_INT, OPTIONAL | INHERIT, NULL, 1, 1000000,
     NULL, NULL, BASE_SCHEMA_TAKE, "evaluations",
     "The adapter ends after so many evaluations without improvement; the best is exported. Needs "
     "eval or eval_documents.",
     OF(early_stopping_patience)},
    {"adapters", "rank", BASE_SCHEMA_INT, INHERIT | LORA, "16", 1, 1024, NULL, NULL,
     BASE_SCHEMA_REFUSE, "", "Rank of A and B.", OF(rank)},
    {"adapters", "alpha", BASE_SCHEMA_DOUBLE, DERIVED | INHERIT | LORA | OPEN_MIN, "2 x rank", 0,
     1e6, NULL, NULL, BASE_SCHEMA_REFUSE, "",
     "The adapter's output is scaled by alpha / rank, with rslora by alpha / sqrt(rank).",
     OF(alpha)},
    {"adapters", "dropout", BASE_SCHEMA_DOUBLE, INHERIT | LORA | OPEN_MAX, "0", 0, 1, NULL, NULL,
     BASE_SCHEMA_REFUSE, "", "Share of an adapter's inputs that is dropped while training.",
     OF(dropout)},
    {"adapters", "targets", BASE_SCHEMA_TARGETS, INHERIT | LORA, "all-linear", WITHOUT_RANGE,
     TARGETS, NULL, BASE_SCHEMA_REFUSE, "", "Linear layers of each block that get an adapter.",
     OF(targets)},
    {"adapters", "rslora", BASE_SCHEMA_BOOL, INHERIT | LORA, "false", WITHOUT_RANGE, NULL, NULL,
     BASE_SCHEMA_REFUSE, "", "Rank-stabilised scale: alpha / sqrt(rank).", OF(rslora)},
    {"adapters", "init", BASE_SCHEMA_WORD_OR_PATH, INHERIT | LORA, "kaiming", WITHOUT_RANGE, INITS,
     NULL, BASE_SCHEMA_REFUSE, "",
     "How A begins (B begins at zero): kaiming, uniform in +-1/sqrt(inputs); gaussian, normal "
     "with deviation 1/rank. Or the folder of an adapter to go on from, written with a slash.",
     OF(init)},
    {"adapters", "epochs", BASE_SCHEMA_INT, OPTIONAL | INHERIT, NULL, 1, 1000000, NULL, "steps",
     BASE_SCHEMA_GROW, "epochs",
     "Times that every document is trained on. Exactly one of epochs and steps is given.",
     OF(epochs)},
    {"adapters", "steps", BASE_SCHEMA_INT, OPTIONAL | INHERIT, NULL, 1, MAX_COUNT, NULL, "epochs",
     BASE_SCHEMA_GROW, "steps", "Optimizer steps of the adapter.", OF(steps)},
    {"adapters", "global_batch_documents", BASE_SCHEMA_INT, INHERIT, "16", 1, MAX_COUNT, NULL, NULL,
     BASE_SCHEMA_REFUSE, "documents",
     "Documents of one optimizer step. The last step of an epoch may have fewer.",
     OF(global_batch_documents)},
    {"adapters", "learning_rate", BASE_SCHEMA_DOUBLE, REQUIRED | INHERIT | OPEN_MIN, NULL, 0, 10,
     NULL, NULL, BASE_SCHEMA_REFUSE, "", "Highest learning rate of the schedule.",
     OF(learning_rate)},
    {"adapters", "schedule", BASE_SCHEMA_ENUM, INHERIT, "cosine", WITHOUT_RANGE, SCHEDULES, NULL,
     BASE_SCHEMA_REFUSE, "",
     "How the learning rate goes after the warm-up: it stays, or falls to zero in a line or a "
     "half cosine.",
     OF(schedule)},
    {"adapters", "warmup_ratio", BASE_SCHEMA_DOUBLE, OPTIONAL | INHERIT, NULL, 0, 1, NULL,
     "warmup_steps", BASE_SCHEMA_REFUSE, "",
     "Share of the steps in which the learning rate climbs from zero.", OF(warmup_ratio)},
    {"adapters", "warmup_steps", BASE_SCHEMA_INT, OPTIONAL | INHERIT, NULL, 0, MAX_COUNT, NULL,
     "warmup_ratio", BASE_SCHEMA_REFUSE, "steps",
     "Steps in which the learning rate climbs from zero. Neither given: no warm-up.",
     OF(warmup_steps)},
    {"adapters", "weight_decay", BASE_SCHEMA_DOUBLE, INHERIT, "0", 0, 1, NULL, NULL,
     BASE_SCHEMA_REFUSE, "", "Decoupled weight decay of AdamW.", OF(weight_decay)},
    {"adapters", "betas", BASE_SCHEMA_PAIR, INHERIT | OPEN_MAX, "[0.9, 0.999]", 0, 1, NULL, NULL,
     BASE_SCHEMA_REFUSE, "", "Decay of AdamW's first and second moment.", OF(betas)},
    {"adapters", "eps", BASE_SCHEMA_DOUBLE, INHERIT | OPEN_MIN, "1e-8", 0, 1, NULL, NULL,
     BASE_SCHEMA_REFUSE, "", "Added to the root of AdamW's second moment.", OF(eps)},
    {"adapters", "clip_norm", BASE_SCHEMA_DOUBLE, INHERIT, "1.0", 0, 1e6, NULL, NULL,
     BASE_SCHEMA_REFUSE, "",
     "Largest 2-norm of the adapter's gradient; a larger one is scaled down to it. 0: never.",
     OF(clip_norm)},
    {"adapters", "seed", BASE_SCHEMA_INT, DERIVED | INHERIT, "train.seed", 0, MAX_SEED, NULL, NULL,
     BASE_SCHEMA_REFUSE, "",
     "Seed of the adapter's initial values, order of documents and dropout.", OF(seed)},
    {"adapters", "order", BASE_SCHEMA_ENUM, INHERIT, "shuffle", WITHOUT_RANGE, ORDERS, NULL,
     BASE_SCHEMA_REFUSE, "",
     "Order in which documents go into global batches: newly shuffled in each epoch, or as in the "
     "file. Within a batch they come as they fill microbatches best.",
     OF(order)},
};

static const char *const SECTIONS[] = {"", "attention", "batch", "train", "defaults", "adapters"};

size_t base_schema_count(void)
{
    return sizeof KEYS / sizeof KEYS[0];
}

const base_schema_key_t *base_schema_key(size_t index)
{
    return index < base_schema_count() ? &KEYS[index] : NULL;
}

const char *base_schema_section(size_t index)
{
    return index < sizeof SECTIONS / sizeof SECTIONS[0] ? SECTIONS[index] : NULL;
}

bool base_schema_belongs(const base_schema_key_t *key, const char *section)
{
    if (strcmp(section, "defaults") == 0) return (key->flags & INHERIT) != 0;
    return strcmp(key->section, section) == 0;
}

const base_schema_key_t *base_schema_find(const char *section, const char *name)
{
    for (size_t i = 0; i < base_schema_count(); i++)
        if (base_schema_belongs(&KEYS[i], section) && strcmp(KEYS[i].name, name) == 0)
            return &KEYS[i];
    return NULL;
}

const char *base_schema_type_words(base_schema_type_t type)
{
    switch (type) {
#define X(name, field, words)                                                                      \
    case BASE_SCHEMA_##name:                                                                       \
        return words;
        BASE_SCHEMA_TYPE_MAP(X)
#undef X
    case BASE_SCHEMA_TYPE_COUNT:
        break;
    }
    return "value";
}

/* Appends to a buffer that may be full already. */
static void append(char *buffer, size_t bytes, const char *text)
{
    const size_t used = strlen(buffer);

    if (used + 1 < bytes) (void)snprintf(buffer + used, bytes - used, "%s", text);
}

static void append_bound(char *buffer, size_t bytes, double bound)
{
    char number[32];

    if (fabs(bound) < 1e15 && bound == floor(bound))
        (void)snprintf(number, sizeof number, "%" PRId64, (int64_t)bound);
    else
        (void)snprintf(number, sizeof number, "%.16g", bound);
    append(buffer, bytes, number);
}

static void append_range(char *buffer, size_t bytes, const base_schema_key_t *key)
{
    append(buffer, bytes, (key->flags & OPEN_MIN) != 0 ? " above " : " from ");
    append_bound(buffer, bytes, key->min);
    append(buffer, bytes, (key->flags & OPEN_MAX) != 0 ? " to below " : " to ");
    append_bound(buffer, bytes, key->max);
}

static void append_words(char *buffer, size_t bytes, const char *const *words)
{
    for (size_t i = 0; words[i] != NULL; i++) {
        if (i > 0) append(buffer, bytes, ", ");
        append(buffer, bytes, words[i]);
    }
}

const char *base_schema_wants(const base_schema_key_t *key, char *buffer, size_t bytes)
{
    buffer[0] = '\0';
    switch (key->type) {
    case BASE_SCHEMA_INT:
    case BASE_SCHEMA_DOUBLE:
        append(buffer, bytes, key->type == BASE_SCHEMA_INT ? "a whole number" : "a number");
        append_range(buffer, bytes, key);
        break;
    case BASE_SCHEMA_PAIR:
        append(buffer, bytes, "a list of two numbers, each");
        append_range(buffer, bytes, key);
        break;
    case BASE_SCHEMA_NUMBERS:
        append(buffer, bytes, "a list of numbers, each");
        append_range(buffer, bytes, key);
        break;
    case BASE_SCHEMA_ENUM:
        append(buffer, bytes, "one of ");
        append_words(buffer, bytes, key->words);
        break;
    case BASE_SCHEMA_WORD_OR_PATH:
        append(buffer, bytes, "one of ");
        append_words(buffer, bytes, key->words);
        append(buffer, bytes, ", or a path with a slash");
        break;
    case BASE_SCHEMA_TARGETS:
        append(buffer, bytes, "all-linear, or a list of ");
        append_words(buffer, bytes, key->words);
        break;
    case BASE_SCHEMA_STRING:
        append(buffer, bytes, "a text");
        break;
    case BASE_SCHEMA_PATH:
        append(buffer, bytes, "a path");
        break;
    case BASE_SCHEMA_DOCUMENTS:
        append(buffer, bytes, "a path that ends in .jsonl or .h5");
        break;
    case BASE_SCHEMA_BOOL:
    case BASE_SCHEMA_TYPE_COUNT:
        append(buffer, bytes, base_schema_type_words(key->type));
        break;
    }
    return buffer;
}

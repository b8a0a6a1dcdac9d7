#include "base/config/suggest.h"

#include <string.h>

#define MAX_WORD 63

/* ASCII only and independent of the locale: keys and verbs are ASCII. */
static char fold(char c)
{
    if (c >= 'A' && c <= 'Z') return (char)(c - 'A' + 'a');
    return c == '-' ? '_' : c;
}

static int same(const char *a, const char *b)
{
    while (*a != '\0' && fold(*a) == fold(*b)) {
        a++;
        b++;
    }
    return *a == '\0' && *b == '\0';
}

static int begins_with(const char *text, const char *start)
{
    while (*start != '\0' && fold(*text) == fold(*start)) {
        text++;
        start++;
    }
    return *start == '\0';
}

static size_t min3(size_t a, size_t b, size_t c)
{
    const size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Optimal string alignment distance. Three rows suffice: a swap looks back two. */
static size_t distance(const char *a, size_t num_a, const char *b, size_t num_b)
{
    size_t rows[3][MAX_WORD + 1];

    for (size_t j = 0; j <= num_b; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= num_a; i++) {
        size_t *now = rows[i % 3];
        const size_t *last = rows[(i + 2) % 3];
        const size_t *before = rows[(i + 1) % 3];

        now[0] = i;
        for (size_t j = 1; j <= num_b; j++) {
            const char x = fold(a[i - 1]);
            const char y = fold(b[j - 1]);

            now[j] = min3(last[j] + 1, now[j - 1] + 1, last[j - 1] + (x != y));
            if (i > 1 && j > 1 && x == fold(b[j - 2]) && fold(a[i - 2]) == y)
                now[j] = min3(now[j], now[j], before[j - 2] + 1);
        }
    }
    return rows[num_a % 3][num_b];
}

const char *base_suggest_nearest(const char *word, const char *const *candidates, size_t count)
{
    const size_t length = strlen(word);
    const char *best = NULL;
    size_t best_distance;

    if (length == 0 || length > MAX_WORD) return NULL;
    best_distance = (length / 3 > 1 ? length / 3 : 1) + 1;
    for (size_t i = 0; i < count; i++) {
        const size_t other = candidates[i] == NULL ? 0 : strlen(candidates[i]);
        size_t d;

        if (other == 0 || other > MAX_WORD) continue;
        d = distance(word, length, candidates[i], other);
        /* Two words without a common letter are not near, however short. */
        if (d < best_distance && d < length && d < other) {
            best = candidates[i];
            best_distance = d;
        }
    }
    for (size_t i = 0; best == NULL && length >= 3 && i < count; i++)
        if (candidates[i] != NULL && begins_with(candidates[i], word)) best = candidates[i];
    return best;
}

#define IN_DEFAULTS " (in defaults or in an adapter)"
#define EFFECTIVE_BATCH                                                                            \
    "the documents of one optimizer step are global_batch_documents" IN_DEFAULTS                   \
    "; how many rows run at once is batch.tokens_per_trainer, and accumulation follows from both"
#define LENGTH                                                                                     \
    "documents are never cut or truncated, so there is no sequence length; the rows that run "     \
    "at once are batch.tokens_per_trainer"
#define PACKED    "packing is always on and documents never see each other; remove the line"
#define PRECISION "the number format is train.dtype (auto, fp32 or bf16)"
#define QUANTIZED "quantized base weights are not supported; remove the line"
#define SHARDED                                                                                    \
    "the ranks come from the launcher, and what they share from attention.placement; remove the "  \
    "line"
#define TOLD "the numbers of a run are in metrics.jsonl in its folder; remove the line"
#define DATA "the documents stand under each adapter as data: FILE.jsonl"

static const struct {
    const char *word;
    const char *answer;
} FOREIGN[] = {
    {"lora_r", "the rank is written rank" IN_DEFAULTS},
    {"lora_rank", "the rank is written rank" IN_DEFAULTS},
    {"r", "the rank is written rank" IN_DEFAULTS},
    {"lora_alpha", "it is written alpha" IN_DEFAULTS "; unset, it is 2 x rank"},
    {"lora_dropout", "it is written dropout" IN_DEFAULTS},
    {"lora_target_modules", "it is written targets" IN_DEFAULTS},
    {"lora_target_linear", "write targets: all-linear" IN_DEFAULTS},
    {"lora_target", "it is written targets" IN_DEFAULTS},
    {"target_modules", "it is written targets" IN_DEFAULTS},
    {"use_rslora", "it is written rslora" IN_DEFAULTS},
    {"use_dora", "DoRA is not supported; remove the line"},
    {"init_lora_weights", "it is written init" IN_DEFAULTS},
    {"adapter", "write a list adapters:, each with name and data"},
    {"num_epochs", "it is written epochs" IN_DEFAULTS},
    {"num_train_epochs", "it is written epochs" IN_DEFAULTS},
    {"max_steps", "it is written steps" IN_DEFAULTS "; it counts optimizer steps of one adapter"},
    {"micro_batch_size", EFFECTIVE_BATCH},
    {"batch_size", EFFECTIVE_BATCH},
    {"per_device_train_batch_size", EFFECTIVE_BATCH},
    {"gradient_accumulation_steps", EFFECTIVE_BATCH},
    {"sequence_len", LENGTH},
    {"cutoff_len", LENGTH},
    {"max_seq_length", LENGTH},
    {"max_seq_len", LENGTH},
    {"val_set_size", "held-out documents are eval_documents: COUNT" IN_DEFAULTS},
    {"val_size", "held-out documents are eval_documents: COUNT" IN_DEFAULTS},
    {"eval_steps", "it is written eval_every_steps" IN_DEFAULTS},
    {"save_steps", "it is written train.checkpoint_every_microbatches, or ..._minutes"},
    {"save_total_limit", "it is written train.keep_checkpoints"},
    {"lr", "it is written learning_rate" IN_DEFAULTS},
    {"lr_scheduler", "it is written schedule" IN_DEFAULTS ": constant, linear or cosine"},
    {"lr_scheduler_type", "it is written schedule" IN_DEFAULTS ": constant, linear or cosine"},
    {"max_grad_norm", "it is written clip_norm" IN_DEFAULTS},
    {"adam_beta1", "it is written betas: [BETA1, BETA2]" IN_DEFAULTS},
    {"adam_beta2", "it is written betas: [BETA1, BETA2]" IN_DEFAULTS},
    {"adam_epsilon", "it is written eps" IN_DEFAULTS},
    {"base_model", "the model folder is written model"},
    {"model_name_or_path", "the model folder is written model"},
    {"output_dir", "the run folder is written output"},
    {"datasets", DATA},
    {"dataset", DATA},
    {"dataset_path", DATA},
    {"bf16", PRECISION},
    {"fp16", PRECISION "; there is no fp16"},
    {"flash_attention", "the attention kernels always work in tiles; remove the line"},
    {"flash_attn", "the attention kernels always work in tiles; remove the line"},
    {"sample_packing", PACKED},
    {"packing", PACKED},
    {"deepspeed", SHARDED},
    {"fsdp", SHARDED},
    {"tensor_model_parallel_size", SHARDED},
    {"pipeline_model_parallel_size", SHARDED},
    {"context_parallel_size", SHARDED},
    {"load_in_4bit", QUANTIZED},
    {"load_in_8bit", QUANTIZED},
    {"gradient_checkpointing",
     "what is recomputed to save memory is train.recompute (auto: what the memory needs)"},
    {"optimizer", "the optimizer is AdamW: weight_decay, betas and eps" IN_DEFAULTS},
    {"optim", "the optimizer is AdamW: weight_decay, betas and eps" IN_DEFAULTS},
    {"chat_template",
     "the template is the model folder's own; another one goes into a copy of that folder, as "
     "chat_template.jinja"},
    {"wandb_project", TOLD},
    {"report_to", TOLD},
    {"resume_from_checkpoint", "give --resume on the command line"},
};

const char *base_suggest_foreign(const char *word)
{
    for (size_t i = 0; i < sizeof FOREIGN / sizeof FOREIGN[0]; i++)
        if (same(word, FOREIGN[i].word)) return FOREIGN[i].answer;
    return NULL;
}

const char *base_suggest_foreign_word(size_t index)
{
    return index < sizeof FOREIGN / sizeof FOREIGN[0] ? FOREIGN[index].word : NULL;
}

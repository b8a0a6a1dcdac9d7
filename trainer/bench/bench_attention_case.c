#include "trainer/bench/bench_attention_case.h"

#include "base/memory.h"
#include "base/philox.h"

#include <math.h>
#include <string.h>

#define TILE      DATA_ROW_ALIGN
#define MAX_TASKS 512

/* kv_heads, group, head_dim, window */
#define LLAMA_8B                                                                                   \
    {                                                                                              \
        8, 4, 128, 0                                                                               \
    }
#define LLAMA_70B                                                                                  \
    {                                                                                              \
        8, 8, 128, 0                                                                               \
    }

static const tr_attention_case_t CASES[] = {
    {TR_ATTENTION_DENSE, TR_SET_DOCUMENTS, 2, 16384, LLAMA_8B, false, {1.00, 1.00}, {0, 450}},
    {"document of 32k, 32:8", TR_SET_DOCUMENTS, 1, 32768, LLAMA_8B, false, {1.00, 1.00}, {0, 0}},
    {"2 documents of 16k, 64:8", TR_SET_DOCUMENTS, 2, 16384, LLAMA_70B, false, {1, 1}, {0, 0}},
    {"document of 32k, 64:8", TR_SET_DOCUMENTS, 1, 32768, LLAMA_70B, false, {1.00, 1.00}, {0, 0}},
    {"8 documents of 4k, 32:8", TR_SET_DOCUMENTS, 8, 4096, LLAMA_8B, false, {1.00, 1.00}, {0, 0}},
    {"8 documents of 4k, 64:8", TR_SET_DOCUMENTS, 8, 4096, LLAMA_70B, false, {1.00, 1.00}, {0, 0}},
    {"4 documents of 8k, 32:8", TR_SET_DOCUMENTS, 4, 8192, LLAMA_8B, false, {0, 0}, {0, 450}},
    {"pack of 32k, 32:8", TR_SET_PACK, 0, 32768, LLAMA_8B, false, {1.15, 1.15}, {0, 0}},
    {"64k and 16 of 1k, 32:8", TR_SET_LONG, 16, 65536, LLAMA_8B, false, {1.10, 1.10}, {0, 0}},
    {"24 shards, 32:8", TR_SET_SHARDS, 24, 0, LLAMA_8B, true, {0.93, 0.90}, {0, 0}},
    {"planned set, 32:8", TR_SET_PLANNED, 0, 0, LLAMA_8B, true, {0.93, 0.90}, {0, 0}},
    {"16k, window 1024, 32:8",
     TR_SET_DOCUMENTS,
     2,
     16384,
     {8, 4, 128, 1024},
     false,
     {1.15, 1.15},
     {0, 0}},
    {"16k, head dim 64, 64:8",
     TR_SET_DOCUMENTS,
     2,
     16384,
     {8, 8, 64, 0},
     false,
     {1.00, 1.00},
     {0, 0}},
    {"document of 4k, 32:8", TR_SET_DOCUMENTS, 1, 4096, LLAMA_8B, false, {0, 0}, {0, 0}},
    /* A call of training, of half a microbatch: 15.5 items a block. */
    {"2 documents of 4k, 32:8", TR_SET_DOCUMENTS, 2, 4096, LLAMA_8B, false, {0, 0}, {0, 0}},
    {"document of 16k, 28:4", TR_SET_DOCUMENTS, 1, 16384, {4, 7, 128, 0}, false, {0, 0}, {0, 0}},
    {"document of 4k, head dim 96, 32:8",
     TR_SET_DOCUMENTS,
     1,
     4096,
     {8, 4, 96, 0},
     false,
     {0, 0},
     {0, 0}},
    {"16 shards of 512 at 16k, 32:8", TR_SET_SHARDS_AT, 16, 16384, LLAMA_8B, true, {0, 0}, {0, 0}},
    {"128 documents of 128, 32:8", TR_SET_DOCUMENTS, 128, 128, LLAMA_8B, false, {0, 0}, {0, 0}},
    {"document of 128, 32:8", TR_SET_DOCUMENTS, 1, 128, LLAMA_8B, false, {0, 0}, {0, 0}},
};

const tr_attention_case_t *tr_attention_cases(int32_t *count)
{
    *count = sizeof CASES / sizeof CASES[0];
    return CASES;
}

const tr_attention_case_t *tr_attention_case_find(const char *name)
{
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        if (strcmp(CASES[i].name, name) == 0) return &CASES[i];
    return NULL;
}

/* ==== drawing ==== */

typedef struct draw {
    const tr_attention_shape_t *shape;
    int64_t shrink;
    base_philox_key_t key;
    uint32_t drawn;
    tr_attention_set_t *set;
} draw_t;

static double uniform(draw_t *d)
{
    return (double)base_philox_float(base_philox(d->key, d->drawn++, 0, 0, 0).word[0]);
}

/* Rows [prefix, prefix + rows) of a document of its own. */
static void add(draw_t *d, int64_t prefix, int64_t rows)
{
    tr_attention_set_t *set = d->set;
    const int64_t q0 = prefix / d->shrink / TILE * TILE;
    const int64_t few = rows / d->shrink > 0 ? rows / d->shrink : 1;

    set->tasks[set->num_tasks++] = (as_task_t){.document = set->num_documents++,
                                               .h1 = d->shape->kv_heads,
                                               .q0 = q0,
                                               .q1 = q0 + few,
                                               .k0 = as_task_first_key(q0, d->shape->window)};
}

static void add_same(draw_t *d, int64_t count, int64_t prefix, int64_t rows)
{
    for (int64_t i = 0; i < count; i++)
        add(d, prefix, rows);
}

static void add_pack(draw_t *d, int64_t total)
{
    const int64_t most = total / 4;

    for (int64_t left = total; left > 0;) {
        double normal = -6; /* of deviation 1 */

        for (int i = 0; i < 12; i++)
            normal += uniform(d);
        int64_t rows = (int64_t)(1024 * exp(normal)) + 1;
        if (rows > most) rows = most;
        if (rows > left || d->set->num_tasks == MAX_TASKS - 1) rows = left;
        add(d, 0, rows);
        left -= rows;
    }
}

/* A power of two between 1 and 2^log2, uniform in its logarithm, times 128. */
static int64_t tiles_to(draw_t *d, double log2_most)
{
    return TILE * (int64_t)exp2(uniform(d) * log2_most);
}

static void add_shards(draw_t *d, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const int64_t prefix = tiles_to(d, 10);

        add(d, prefix, tiles_to(d, 5));
    }
}

base_status_t tr_attention_set_make(base_ctx_t *ctx, const tr_attention_case_t *of, int64_t shrink,
                                    tr_attention_set_t *set)
{
    draw_t d = {.shape = &of->shape, .shrink = shrink, .key = base_philox_key(7), .set = set};

    *set = (tr_attention_set_t){0};
    if (of->kind == TR_SET_PLANNED) return tr_attention_set_planned(ctx, &of->shape, shrink, set);
    set->tasks = base_calloc(ctx, MAX_TASKS, sizeof *set->tasks, "bench: tasks");
    if (set->tasks == NULL) return BASE_ERR_NOMEM;
    switch (of->kind) {
    case TR_SET_DOCUMENTS:
        add_same(&d, of->count, 0, of->rows);
        break;
    case TR_SET_PACK:
        add_pack(&d, of->rows);
        break;
    case TR_SET_LONG:
        add(&d, 0, of->rows);
        add_same(&d, of->count, 0, 1024);
        break;
    case TR_SET_SHARDS:
        add_shards(&d, of->count);
        break;
    case TR_SET_SHARDS_AT:
        add_same(&d, of->count, of->rows, 512);
        break;
    case TR_SET_PLANNED:
        break;
    }
    return BASE_OK;
}

void tr_attention_set_free(base_ctx_t *ctx, tr_attention_set_t *set)
{
    base_free(ctx, set->tasks);
    *set = (tr_attention_set_t){0};
}

double tr_attention_set_flops(const tr_attention_shape_t *shape, const tr_attention_set_t *set)
{
    double pairs = 0;

    for (int32_t i = 0; i < set->num_tasks; i++)
        pairs += (double)as_task_pairs(&set->tasks[i], shape->window);
    return 4 * pairs * shape->group * shape->head_dim;
}

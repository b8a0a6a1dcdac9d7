/* trace_pool FOLDER: two trainers and a server, threads or (under mpirun) processes, work on documents that lie on both
 * trainers, with slow dense steps (tests/support/pace.h); FOLDER/trace gets their traces and stdout
 * the table of `cadre trace`. tests/cli/trace_check.py looks at them. */
#include "tests/support/ctx_fixture.h"

#include "tests/support/mpi_world.h"
#include "tests/support/pace.h"
#include "tests/support/train_case.h"
#include "trainer/run/run_trace.h"
#include "trainer/run/trace_merge.h"

#include <stdio.h>

#define ROWS 440 /* of each of two documents: one in ping, one in pong, on both trainers */
/* Of a norm, of which most dense steps have two, and of a launch of tasks, of which the server has
 * two: long beside messages and what a busy machine takes to wake a thread. */
#define NORM_NS   INT64_C(60000000)
#define LAUNCH_NS INT64_C(25000000)

static const data_model_spec_t spec = {.family = DATA_MODEL_LLAMA,
                                       .num_layers = 3,
                                       .hidden = 16,
                                       .intermediate = 20,
                                       .vocab = 40,
                                       .num_q_heads = 2,
                                       .num_kv_heads = 2,
                                       .head_dim = 8,
                                       .max_positions = 2048,
                                       .rms_eps = 1e-5,
                                       .softmax_scale = 0.35,
                                       .rope = {.kind = DATA_ROPE_PLAIN, .theta = 10000.0}};
static const lora_adapter_options_t adapter = {
    .name = "a", .rank = 4, .scale = 1, .targets = BASE_CONFIG_TARGET_ALL};

typedef struct pool {
    const char *folder;
    int32_t tokens[ROWS];
    uint8_t mask[ROWS];
} pool_t;

static base_status_t run_lot(train_rank_t *rank, const pool_t *p, tr_lot_t *lot, int64_t microbatch)
{
    const data_document_t document = {
        .rows = ROWS, .tokens = p->tokens, .loss_mask = p->mask, .row_weight = 0.5 / (ROWS - 1)};

    tr_lot_begin(lot, microbatch);
    for (int d = 0; d < DATA_NUM_HALVES; d++)
        train_lot_add(lot, &document);
    return train_lot_run(rank, lot, 0);
}

/* Microbatch 1, slow and traced. */
static base_status_t run_traced(train_rank_t *rank, const pool_t *p, tr_lot_t *lot)
{
    tr_run_trace_t *trace = NULL;
    pace_t pace;
    char role[TR_RUN_ROLE_BYTES];

    (void)snprintf(role, sizeof role, "%s", rank->trainer->index >= 0 ? "trainer" : "server");
    BASE_TRY(tr_run_trace_create(rank->ctx, rank->trainer->group, p->folder, 1, rank->trainer, role,
                                 &trace));
    pace_begin(&pace, rank->ctx, NORM_NS, LAUNCH_NS);
    base_status_t st = run_lot(rank, p, lot, 1);
    pace_end(&pace, rank->ctx);
    if (st >= 0) st = tr_run_trace_microbatch(trace, 1);
    const base_status_t closed = tr_run_trace_close(trace, st);
    return st < 0 ? st : closed;
}

static base_status_t body(train_rank_t *rank, void *user)
{
    const pool_t *p = user;
    tr_lot_t *lots[2] = {NULL, NULL};
    base_status_t st = BASE_OK;

    for (int i = 0; i < 2 && st >= 0; i++)
        st = tr_lot_create(rank->ctx, &rank->lots, lots[0], &lots[i]);
    if (st >= 0) st = run_lot(rank, p, lots[0], 0);
    if (st >= 0) st = run_traced(rank, p, lots[1]);
    if (st >= 0) st = tr_trainer_sync(rank->trainer);
    for (int i = 1; i >= 0; i--)
        tr_lot_destroy(lots[i]);
    return st;
}

int main(int argc, char **argv)
{
    static pool_t pool;
    mpi_world_open();
    const train_case_t c = {.spec = &spec,
                            .weight_seed = 3,
                            .dtype = KERN_F32,
                            .num_adapters = 1,
                            .adapters = &adapter,
                            .tokens_per_trainer = 512,
                            .longest = ROWS,
                            .num_ranks = 3,
                            .placement = AS_POOL,
                            .mpi = mpi_world(),
                            .body = body,
                            .user = &pool};
    base_ctx_t *ctx = NULL;
    base_error_t error;

    if (argc != 2 || base_ctx_create(0, 1, NULL, &ctx) < 0) return 2;
    pool.folder = argv[1];
    for (int i = 0; i < ROWS; i++) {
        pool.tokens[i] = (7 * i + 3) % 40;
        pool.mask[i] = i > 0;
    }
    train_case_run(&c);
    const tr_trace_merge_t merge = {.run = argv[1], .out = stdout};
    const int merges = mpi_world() == NULL || comm_mpi_rank(mpi_world()) == 0;
    const base_status_t st = merges ? tr_trace_merge(ctx, &merge) : BASE_OK;
    if (st < 0 && base_ctx_error(ctx, &error)) (void)fprintf(stderr, "%s\n", error.text);
    base_ctx_destroy(ctx);
    mpi_world_close();
    return st < 0;
}

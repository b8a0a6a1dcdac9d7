/* What ping-pong hides. Every message takes 20 ms longer, slept: a step with ping-pong grows by at
 * most a tenth of what the messages of its halves take one after the other, a step without it by at
 * least eight tenths. Ops are slept too (tests/support/pace.h), 40 ms each, so that a phase is
 * longer than a message; the bounds are the and hold for any such phase. Over the threads
 * transport, and under mpirun on two ranks over MPI. */
#include "tests/support/ctx_fixture.h"

#include "tests/support/mpi_world.h"
#include "tests/support/pace.h"
#include "tests/support/train_case.h"

#include <stdio.h>

#define LAYERS   3
#define ROWS     440 /* of each of two documents: one in ping, one in pong, on both trainers */
#define OP_NS    INT64_C(40000000)
#define DELAY_NS INT64_C(20000000)
#define ROUNDS   9
/* A step's exchanges: out and back of two halves, forward and backward. */
#define ADDED_NS (8 * LAYERS * DELAY_NS)

static const data_model_spec_t spec = {.family = DATA_MODEL_LLAMA,
                                       .num_layers = LAYERS,
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

static int32_t tokens[ROWS];
static uint8_t mask[ROWS];

static void add_documents(tr_lot_t *lot, int64_t microbatch)
{
    const data_document_t document = {
        .rows = ROWS, .tokens = tokens, .loss_mask = mask, .row_weight = 0.5 / (ROWS - 1)};

    tr_lot_begin(lot, microbatch);
    for (int d = 0; d < DATA_NUM_HALVES; d++)
        train_lot_add(lot, &document);
}

/* Two microbatches, the second one slow and timed by rank 0. */
static base_status_t run_lots(train_rank_t *rank, tr_lot_t *lots[2], int64_t *step_ns)
{
    pace_t pace;

    add_documents(lots[0], 0);
    BASE_TRY(train_lot_run(rank, lots[0], 0));
    BASE_TRY(tr_trainer_sync(rank->trainer));
    add_documents(lots[1], 1);
    BASE_TRY(comm_barrier(rank->trainer->group));
    const int64_t begin = base_clock_ns();
    pace_begin(&pace, rank->ctx, OP_NS, OP_NS);
    const base_status_t st = train_lot_run(rank, lots[1], 0);
    pace_end(&pace, rank->ctx);
    BASE_TRY(st);
    BASE_TRY(tr_trainer_sync(rank->trainer));
    BASE_TRY(comm_barrier(rank->trainer->group));
    if (base_ctx_rank(rank->ctx) == 0) *step_ns = base_clock_ns() - begin;
    return BASE_OK;
}

static base_status_t body(train_rank_t *rank, void *user)
{
    tr_lot_t *lots[2] = {NULL, NULL};
    base_status_t st = BASE_OK;

    for (int i = 0; i < 2 && st >= 0; i++)
        st = tr_lot_create(rank->ctx, &rank->lots, lots[0], &lots[i]);
    if (st >= 0) st = run_lots(rank, lots, user);
    for (int i = 1; i >= 0; i--)
        tr_lot_destroy(lots[i]);
    return st;
}

static int64_t step_ns(int serial, int64_t delay_ns)
{
    int64_t ns = 0;
    const train_case_t c = {.spec = &spec,
                            .weight_seed = 3,
                            .dtype = KERN_F32,
                            .num_adapters = 1,
                            .adapters = &adapter,
                            .tokens_per_trainer = 512,
                            .longest = ROWS,
                            .num_ranks = 2,
                            .placement = AS_IN_PLACE,
                            .serial = serial,
                            .delay_ns = delay_ns,
                            .mpi = mpi_world(),
                            .body = body,
                            .user = &ns};

    train_case_run(&c);
    if (mpi_world() != NULL) mpi_world_merge(&(mpi_piece_t){&ns, (int64_t)sizeof ns}, 1);
    return ns;
}

/* The least of the rounds: other programs only ever add to a step. */
static double least_ms(const int64_t *values, int count)
{
    int64_t least = values[0];

    for (int i = 1; i < count; i++)
        least = values[i] < least ? values[i] : least;
    return (double)least / 1e6;
}

/* The four kinds of step by turns, so that all meet the same load; two rounds, and more while the
 * bounds are not met, on a machine that gave some kind no quiet round. */
static void delays_are_hidden(void **state)
{
    int64_t ns[2][2][ROUNDS]; /* serial, delayed */
    double grown[2] = {0, 0};
    int count = 0;

    (void)state;
    for (int i = 0; i < ROWS; i++) {
        tokens[i] = (7 * i + 3) % 40;
        mask[i] = i > 0;
    }
    do {
        for (int k = 0; k < 4; k++)
            ns[k / 2][k % 2][count] = step_ns(k / 2, k % 2 ? DELAY_NS : 0);
        count++;
        for (int serial = 0; serial < 2; serial++)
            grown[serial] = (least_ms(ns[serial][1], count) - least_ms(ns[serial][0], count)) *
                            1e6 / (double)ADDED_NS;
    } while (count < 2 || (count < ROUNDS && (grown[0] > 0.10 || grown[1] < 0.80)));
    (void)printf("ping-pong: %.0f ms, delayed %.0f: %.1f %% of %d ms; without: %.0f ms, delayed "
                 "%.0f: %.1f %%; %d rounds\n",
                 least_ms(ns[0][0], count), least_ms(ns[0][1], count), 100 * grown[0],
                 (int)(ADDED_NS / 1000000), least_ms(ns[1][0], count), least_ms(ns[1][1], count),
                 100 * grown[1], count);
    assert_true(grown[0] <= 0.10);
    assert_true(grown[1] >= 0.80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(delays_are_hidden)};

    mpi_world_open();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mpi_world_close();
    return failed;
}

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
#define ROWS     880 /* of a microbatch */
#define OP_NS    INT64_C(40000000)
#define DELAY_NS INT64_C(20000000)
#define ROUNDS   4
#define SLOWEST  4 /* times as long */
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

/* What a microbatch is made of, and what came out. */
typedef struct subject {
    int documents; /* 2: one in ping and one in pong; 1: in both. All lie on both trainers */
    int64_t retain_bytes;
    int64_t times; /* as long as OP_NS and DELAY_NS say */
    int64_t step_ns;
} subject_t;

static void add_documents(const subject_t *subject, tr_lot_t *lot, int64_t microbatch)
{
    const data_document_t document = {.rows = ROWS / subject->documents,
                                      .tokens = tokens,
                                      .loss_mask = mask,
                                      .row_weight = 1.0 / ROWS};

    tr_lot_begin(lot, microbatch);
    for (int d = 0; d < subject->documents; d++)
        train_lot_add(lot, &document);
}

/* Two microbatches, the second one slow and timed by rank 0. */
static base_status_t run_lots(train_rank_t *rank, tr_lot_t *lots[2], subject_t *subject)
{
    pace_t pace;

    add_documents(subject, lots[0], 0);
    BASE_TRY(train_lot_run(rank, lots[0], 0));
    BASE_TRY(tr_trainer_sync(rank->trainer));
    add_documents(subject, lots[1], 1);
    BASE_TRY(comm_barrier(rank->trainer->group));
    const int64_t begin = base_clock_ns();
    pace_begin(&pace, rank->ctx, subject->times * OP_NS, subject->times * OP_NS);
    const base_status_t st = train_lot_run(rank, lots[1], 0);
    pace_end(&pace, rank->ctx);
    BASE_TRY(st);
    BASE_TRY(tr_trainer_sync(rank->trainer));
    BASE_TRY(comm_barrier(rank->trainer->group));
    if (base_ctx_rank(rank->ctx) == 0) subject->step_ns = base_clock_ns() - begin;
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

static int64_t step_ns(const subject_t *of, int serial, int64_t delay_ns)
{
    subject_t subject = *of;
    const train_case_t c = {.spec = &spec,
                            .weight_seed = 3,
                            .dtype = KERN_F32,
                            .num_adapters = 1,
                            .adapters = &adapter,
                            .tokens_per_trainer = 512,
                            .longest = ROWS / of->documents,
                            .num_ranks = 2,
                            .placement = AS_IN_PLACE,
                            .retain_bytes = of->retain_bytes,
                            .serial = serial,
                            .delay_ns = delay_ns,
                            .mpi = mpi_world(),
                            .body = body,
                            .user = &subject};
    const mpi_piece_t piece = {&subject.step_ns, (int64_t)sizeof subject.step_ns};

    train_case_run(&c);
    if (mpi_world() != NULL) mpi_world_merge(&piece, 1);
    return subject.step_ns;
}

/* The least of the rounds: other programs only ever add to a step. */
static double least_ms(const int64_t *values, int count)
{
    int64_t least = values[0];

    for (int i = 1; i < count; i++)
        least = values[i] < least ? values[i] : least;
    return (double)least / 1e6;
}

/* Shares of the messages' delay by which a step grows, with ping-pong and (when asked for) without.
 * The kinds of step go by turns, so that all meet the same load. Returns whether the bounds are met,
 * after two rounds, or after the last one of a machine that gave some kind no quiet round before. */
static int measure_at(const subject_t *of, int num_serial, double grown[2])
{
    int64_t ns[2][2][ROUNDS]; /* serial, delayed */
    const int64_t added_ns = of->times * ADDED_NS;
    int count = 0;

    grown[1] = 1.0;
    do {
        for (int k = 0; k < 2 * num_serial; k++)
            ns[k / 2][k % 2][count] = step_ns(of, k / 2, k % 2 ? of->times * DELAY_NS : 0);
        count++;
        for (int serial = 0; serial < num_serial; serial++)
            grown[serial] = (least_ms(ns[serial][1], count) - least_ms(ns[serial][0], count)) *
                            1e6 / (double)added_ns;
    } while (count < 2 || (count < ROUNDS && (grown[0] > 0.10 || grown[1] < 0.80)));
    for (int serial = 0; serial < num_serial; serial++)
        (void)printf("%d documents, ping-pong %s: %.0f ms, delayed %.0f: %.1f %% of %d ms (%d "
                     "rounds)\n",
                     of->documents, serial ? "off" : "on", least_ms(ns[serial][0], count),
                     least_ms(ns[serial][1], count), 100 * grown[serial], (int)(added_ns / 1000000),
                     count);
    return grown[0] <= 0.10 && grown[1] >= 0.80;
}

/* While the bounds are not met, with phases and messages twice as long, which other programs, whose
 * turns stay as long as they are, lengthen by a smaller share. */
static void measure(const subject_t *of, int num_serial, double grown[2])
{
    subject_t subject = *of;

    for (int i = 0; i < ROWS; i++) {
        tokens[i] = (7 * i + 3) % 40;
        mask[i] = i > 0;
    }
    for (subject.times = 1; !measure_at(&subject, num_serial, grown); subject.times *= 2)
        if (subject.times == SLOWEST) break;
}

static void delays_are_hidden(void **state)
{
    const subject_t subject = {.documents = 2};
    double grown[2];

    (void)state;
    measure(&subject, 2, grown);
    assert_true(grown[0] <= 0.10);
    assert_true(grown[1] >= 0.80);
}

/* One document in both halves. The servers keep its keys for the backward; else pong, which is
 * served first there, would wait for those of its head, which ping has only just sent again. */
static void delays_of_a_document_in_both_halves_are_hidden(void **state)
{
    const subject_t subject = {.documents = 1, .retain_bytes = 1 << 24};
    double grown[2];

    (void)state;
    measure(&subject, 1, grown);
    assert_true(grown[0] <= 0.10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delays_are_hidden),
        cmocka_unit_test(delays_of_a_document_in_both_halves_are_hidden),
    };

    mpi_world_open();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mpi_world_close();
    return failed;
}

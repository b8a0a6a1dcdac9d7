/* The exact packer in a process: what comes back is what it finds in this process, whoever asks and
 * however many at once; what happens to the process is an error that says so. */
#include "lora/pack_process.h"

#include "base/clock.h"
#include "tests/support/pack_case.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#define SEEDS 12
#define FATE  "CADRE_TEST_PACKER" /* what the process does instead of answering */

/* Up to 16 documents of four adapters. */
static int64_t compare(base_ctx_t *ctx, lora_packer_t *packer, pack_case_t *c, uint64_t seed)
{
    lora_exact_result_t result;
    const lora_exact_limits_t limits = {.nodes = LORA_PACK_PROCESS_NODES};

    pack_case_begin(c, seed, 4, 1, 4, 4096, 4096);
    if (seed % 3 == 0) c->window.rank_columns = 32;
    assert_int_equal(lora_packer_run(packer, &c->window, &c->schedule), BASE_OK);
    assert_int_equal(lora_pack_exact(ctx, &c->window, &limits, &c->schedule, &result), BASE_OK);
    const int64_t found = result.bound;
    const uint64_t hash = (uint64_t)lora_schedule_hash(&c->window, &c->schedule);
    assert_int_equal(lora_packer_run(packer, &c->window, &c->schedule), BASE_OK);
    const int64_t begin_ns = base_clock_ns();
    assert_int_equal(
        lora_pack_process(ctx, &c->window, LORA_PACK_PROCESS_NODES, &c->schedule, &result),
        BASE_OK);
    const int64_t took_ns = base_clock_ns() - begin_ns;
    assert_int_equal(result.bound, found);
    assert_true((uint64_t)lora_schedule_hash(&c->window, &c->schedule) == hash);
    return took_ns;
}

static void test_as_in_process(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    lora_packer_t *packer = pack_case_packer(ctx);
    static pack_case_t c;
    int64_t longest_ns = 0;

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        const int64_t took_ns = compare(ctx, packer, &c, seed);

        if (took_ns > longest_ns) longest_ns = took_ns;
    }
    print_message("the longest of %d questions took %.3f s\n", SEEDS, (double)longest_ns / 1e9);
    lora_packer_destroy(packer);
    fixture_ctx_end(ctx);
}

/* A window whose bound is a microbatch below its optimum, so that there is something to ask. */
static void draw_open(base_ctx_t *ctx, pack_case_t *c)
{
    lora_packer_t *packer = pack_case_packer(ctx);

    pack_case_begin(c, 108, 4, 1, 6, 4096, 4096);
    c->window.rank_columns = 32;
    assert_int_equal(lora_packer_run(packer, &c->window, &c->schedule), BASE_OK);
    lora_packer_destroy(packer);
}

typedef struct asker {
    pthread_t thread;
    base_ctx_t *ctx;
    pack_case_t c;
    lora_exact_result_t result;
    base_status_t st;
} asker_t;

static void *asker_main(void *arg)
{
    asker_t *a = arg;

    a->st = lora_pack_process(a->ctx, &a->c.window, LORA_PACK_PROCESS_NODES, &a->c.schedule,
                              &a->result);
    return NULL;
}

static void test_at_once(void **state)
{
    static asker_t asker[4];
    enum { NUM = sizeof asker / sizeof asker[0] };

    (void)state;
    for (int i = 0; i < NUM; i++) {
        asker[i].ctx = fixture_ctx();
        draw_open(asker[i].ctx, &asker[i].c);
    }
    for (int i = 0; i < NUM; i++)
        assert_int_equal(pthread_create(&asker[i].thread, NULL, asker_main, &asker[i]), 0);
    for (int i = 0; i < NUM; i++)
        assert_int_equal(pthread_join(asker[i].thread, NULL), 0);
    for (int i = 0; i < NUM; i++) {
        assert_int_equal(asker[i].st, BASE_OK);
        assert_true(asker[i].result.proven);
        assert_true(asker[i].result.bound == asker[0].result.bound);
        assert_memory_equal(asker[i].c.microbatch, asker[0].c.microbatch,
                            sizeof asker[i].c.microbatch);
        fixture_ctx_end(asker[i].ctx);
    }
}

static void expect(const char *fate, base_status_t st, const char *id, const char *words)
{
    base_ctx_t *ctx = fixture_ctx();
    lora_exact_result_t result;
    static pack_case_t c;
    int32_t stop = 1;

    draw_open(ctx, &c);
    assert_int_equal(setenv(FATE, fate, 1), 0);
    base_ctx_set_deadline_ms(ctx, strcmp(words, "in time") == 0 ? 100 : 60000);
    if (st == BASE_ERR_PEER) base_ctx_set_stop_flag(ctx, &stop);
    assert_int_equal(lora_pack_process(ctx, &c.window, 1, &c.schedule, &result), st);
    fixture_expect_error(ctx, st, id, words);
    assert_int_equal(unsetenv(FATE), 0);
    fixture_ctx_end(ctx);
}

static void test_fates(void **state)
{
    (void)state;
    expect("dies", BASE_ERR_STATE, "PLAN-02", "rank 0: exact packer: its process ended");
    expect("hangs", BASE_ERR_STATE, "PLAN-02", "in time");
    expect("hangs", BASE_ERR_PEER, "COMM-01", "asked to stop");
}

static void test_too_large(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    lora_exact_result_t result;
    static pack_case_t c;

    (void)state;
    draw_open(ctx, &c);
    c.window.num_documents = LORA_PACK_PROCESS_DOCUMENTS + 1;
    assert_int_equal(lora_pack_process(ctx, &c.window, 1, &c.schedule, &result), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", "25 documents, at most 24");
    fixture_ctx_end(ctx);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_in_process),
        cmocka_unit_test(test_at_once),
        cmocka_unit_test(test_fates),
        cmocka_unit_test(test_too_large),
    };
    const char *fate = getenv(FATE);

    if (!lora_pack_process_is(argc, argv)) return cmocka_run_group_tests(tests, NULL, NULL);
    if (fate != NULL && strcmp(fate, "dies") == 0) return 1;
    while (fate != NULL)
        (void)pause();
    return lora_pack_process_main();
}

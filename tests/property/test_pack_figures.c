/* What docs/packing.md says of the packer, in LoRAFusion's setting without padding: within 1 % of
 * the bound over a run, never more microbatches than first-fit decreasing, than LoRAFusion's pairs
 * with their last pass, or than its mixed-integer programs. */
#include "lora/bound.h"
#include "lora/packer.h"
#include "tests/support/pack_case.h"
#include "trainer/simulate/draw_samples.h"
#include "trainer/simulate/pack_ffd.h"
#include "trainer/simulate/pack_two_stage.h"

#define ADAPTERS    4
#define MAX_SAMPLES 1000
#define MAX_ROUNDS  125

typedef struct figures {
    lora_window_t window;
    lora_window_adapter_t adapters[ADAPTERS];
    lora_window_batch_t batches[ADAPTERS * MAX_ROUNDS];
    int64_t rows[ADAPTERS * MAX_SAMPLES];
    int32_t microbatch[ADAPTERS * MAX_SAMPLES];
    lora_schedule_t schedule;
    int64_t bound, ours;
} figures_t;

static void draw(figures_t *f, tr_samples_t samples, int64_t capacity, int64_t align, int32_t batch,
                 int32_t num)
{
    lora_window_t *w = &f->window;

    memset(f, 0, sizeof *f);
    *w = (lora_window_t){capacity, capacity, align,       0,          1,       ADAPTERS,
                         0,        0,        f->adapters, f->batches, f->rows, NULL};
    for (int32_t a = 0; a < ADAPTERS; a++) {
        const int32_t rounds = (num + batch - 1) / batch;

        f->adapters[a] = (lora_window_adapter_t){
            .rank = 16, .total = rounds, .first_batch = w->num_batches, .num_batches = rounds};
        for (int32_t i = 0; i < num; i++) {
            if (i % batch == 0)
                f->batches[w->num_batches++] = (lora_window_batch_t){w->num_documents, 0, 0};
            f->batches[w->num_batches - 1].num_documents++;
            f->rows[w->num_documents++] = tr_draw_sample(samples, 42, a, (uint32_t)i);
        }
    }
    f->schedule.microbatch = f->microbatch;
}

static void pack(base_ctx_t *ctx, figures_t *f)
{
    const lora_packer_limits_t limits = {ADAPTERS, f->window.num_batches, f->window.num_documents};
    lora_packer_t *packer = NULL;
    lora_bounds_t bounds;

    assert_int_equal(lora_packer_create(ctx, &limits, &packer), BASE_OK);
    assert_int_equal(lora_packer_run(packer, &f->window, &f->schedule), BASE_OK);
    lora_packer_destroy(packer);
    assert_int_equal(lora_schedule_judge(ctx, &f->window, &f->schedule, NULL), BASE_OK);
    assert_int_equal(lora_bound_window(ctx, &f->window, &bounds), BASE_OK);
    f->ours = f->schedule.num_microbatches;
    f->bound = bounds.best;
}

/* A rival's schedule stands on the same ground as ours. */
static int64_t judged(base_ctx_t *ctx, const figures_t *f)
{
    assert_int_equal(lora_schedule_judge(ctx, &f->window, &f->schedule, NULL), BASE_OK);
    return f->schedule.num_microbatches;
}

static void test_runs(void **state)
{
    static const struct {
        int64_t capacity[TR_NUM_SAMPLES];
        int32_t batch;
    } models[] = {{{6656, 6144, 6144, 6144, 6144}, 8},
                  {{4096, 7168, 4096, 7168, 7168}, 8},
                  {{4096, 6144, 7168, 6144, 6144}, 16}};
    base_ctx_t *ctx = fixture_ctx();
    static figures_t f;

    (void)state;
    for (int m = 0; m < 3; m++)
        for (int s = 0; s < TR_NUM_SAMPLES; s++) {
            tr_two_stage_t pairs = {.seconds = 0};

            draw(&f, (tr_samples_t)s, models[m].capacity[s], 1, models[m].batch, MAX_SAMPLES);
            pack(ctx, &f);
            assert_true(100 * f.ours <= 101 * f.bound);
            assert_int_equal(tr_pack_ffd(ctx, &f.window, &f.schedule), BASE_OK);
            assert_true(f.ours <= judged(ctx, &f));
            assert_int_equal(tr_pack_two_stage(ctx, &f.window, &pairs, &f.schedule), BASE_OK);
            assert_true(f.ours <= judged(ctx, &f));
        }
    fixture_ctx_end(ctx);
}

/* The programs do find better packings than first-fit, and not better ones than ours. */
static void test_solver(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    tr_two_stage_t solver = {.seconds = 1};
    static figures_t f;

    (void)state;
    draw(&f, TR_SAMPLES_XSUM, 6656, 128, 8, 16);
    pack(ctx, &f);
    assert_int_equal(tr_pack_two_stage(ctx, &f.window, &solver, &f.schedule), BASE_OK);
    assert_true(solver.solved > 0);
    assert_true(f.ours <= judged(ctx, &f));
    fixture_ctx_end(ctx);
}

/* Up to eight adapters of their own lengths, batches, ranks and ends, 64 columns or two stages:
 * together within 1 % of the bounds. */
static void test_unlike_adapters(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    lora_packer_t *packer = pack_case_packer(ctx);
    static pack_case_t c;

    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        int64_t ours = 0, bound = 0;

        for (uint64_t seed = 1000; seed < 1100; seed++) {
            lora_bounds_t bounds;

            pack_case_begin(&c, seed, 8, 7, 18, 16384, 8192);
            if (kind == 1) c.window.rank_columns = 64;
            if (kind == 2) c.window.stages = 2;
            assert_int_equal(lora_packer_run(packer, &c.window, &c.schedule), BASE_OK);
            assert_int_equal(lora_schedule_judge(ctx, &c.window, &c.schedule, NULL), BASE_OK);
            assert_int_equal(lora_bound_window(ctx, &c.window, &bounds), BASE_OK);
            ours += c.schedule.num_microbatches;
            bound += bounds.best;
        }
        assert_true(100 * ours <= 101 * bound);
    }
    lora_packer_destroy(packer);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_solver),
        cmocka_unit_test(test_unlike_adapters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

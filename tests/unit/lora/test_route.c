/* The lists of a microbatch: segments of rows, blocks of columns. */
#include "tests/support/adapter_rig.h"

#include <stdlib.h>

static const lora_adapter_options_t options[] = {
    {.name = "a", .rank = 3, .scale = 1.5, .targets = BASE_CONFIG_TARGET_ALL, .seed = 11},
    {.name = "b",
     .rank = 2,
     .scale = 0.5,
     .dropout = 0.25,
     .targets = BASE_CONFIG_TARGET_Q | BASE_CONFIG_TARGET_V,
     .seed = 12},
    {.name = "c", .rank = 4, .scale = 2.0, .targets = BASE_CONFIG_TARGET_K, .seed = 13}};

static void install(adapter_rig_t *rig, const int32_t *used, int32_t count, int evaluate)
{
    const lora_route_rows_t rows = {0};

    assert_int_equal(data_batch_finish(rig->batch), BASE_OK);
    adapter_rig_place(rig, rig->route->installs, used, count);
    assert_int_equal(lora_route_install(rig->route, rig->batch, 0, used, count, &rows, evaluate),
                     BASE_OK);
}

static adapter_rig_t make(op_fixture_t *fx)
{
    adapter_rig_t rig = adapter_rig(fx, KERN_F32, options, 3, 12);

    for (int32_t a = 0; a < 3; a++)
        free(adapter_rig_write(&rig, a, 1));
    return rig;
}

static void check_segments(const adapter_rig_t *rig, data_half_t half,
                           const kern_lora_segment_t *want, int64_t count)
{
    const lora_route_stage_t *s = rig->route->now;

    assert_int_equal(s->num_segments[half], count);
    for (int64_t i = 0; i < count; i++) {
        assert_int_equal(s->segments[half][i].row0, want[i].row0);
        assert_int_equal(s->segments[half][i].row1, want[i].row1);
        assert_int_equal(s->segments[half][i].adapter, want[i].adapter);
    }
}

/* Neighbours of one adapter are one segment; the tail of a spanning document may come first, before
 * rows of an adapter with a smaller number, and so the adapter has two. */
static void test_segments(void **state)
{
    adapter_rig_t rig = make(*state);

    adapter_rig_begin(&rig);
    adapter_rig_document(&rig, 2, 0, 168, 128, 70, 0); /* its tail is pong's first 40 rows */
    adapter_rig_document(&rig, 0, 4, 30, 30, 0, 0);
    adapter_rig_document(&rig, 0, 5, 20, 20, 30, 0);
    adapter_rig_document(&rig, 1, 0, 10, 10, 55, 0); /* after five pad rows */
    adapter_rig_document(&rig, 0, 1, 60, 0, 0, 40);
    adapter_rig_document(&rig, 2, 3, 7, 0, 0, 100);
    install(&rig, (const int32_t[]){0, 1, 2}, 3, 0);
    check_segments(&rig, DATA_PING,
                   (const kern_lora_segment_t[]){{0, 50, 0, 0}, {55, 65, 1, 0}, {70, 198, 2, 0}},
                   3);
    check_segments(&rig, DATA_PONG,
                   (const kern_lora_segment_t[]){{0, 40, 2, 0}, {40, 100, 0, 0}, {100, 107, 2, 0}},
                   3);
    adapter_rig_end(&rig);
}

/* Blocks ascend by column; those with dropout come last; columns end with the last block. */
static void test_blocks(void **state)
{
    adapter_rig_t rig = make(*state);
    const lora_route_linear_t *l;

    adapter_rig_begin(&rig);
    for (int32_t a = 0; a < 3; a++)
        adapter_rig_document(&rig, a, a, 20, 20, 20 * a, 0);
    rig.set->adapters[1].step = 6;
    install(&rig, (const int32_t[]){0, 1, 2}, 3, 0);
    for (int32_t layer = 0; layer < 2; layer++) {
        l = lora_route_of(rig.route, layer, LORA_LINEAR_QKV);
        assert_int_equal(l->num_blocks, 3 + 2 + 1);
        assert_int_equal(l->num_plain, 3 + 1);
        for (int64_t i = 0; i + 1 < l->num_blocks; i++)
            assert_true(l->blocks[i].column + l->blocks[i].rank <= l->blocks[i + 1].column);
        const kern_lora_block_t *last = &l->blocks[l->num_blocks - 1];
        assert_int_equal(l->columns, last->column + last->rank);
        assert_int_equal(l->plain_columns, l->blocks[3].column + l->blocks[3].rank);
        assert_int_equal(last->adapter, 1);
        assert_int_equal(last->module, 2);
        assert_int_equal(last->out_column, 16 + 8);
        l = lora_route_of(rig.route, layer, LORA_LINEAR_DOWN);
        assert_int_equal(l->num_blocks, 1);
        assert_int_equal(l->num_plain, 1);
    }
    const kern_lora_route_t args = lora_route_args(rig.route, 1, LORA_LINEAR_QKV, DATA_PING, 4, 2);
    assert_int_equal(args.num_blocks, 2);
    assert_int_equal(args.blocks[0].adapter, 1);
    assert_int_equal(args.layer, 1);
    assert_int_equal(args.num_segments, 3);
    assert_true(args.adapters[1].dropout == 0.25 && args.adapters[1].scale == 0.5);
    assert_int_equal(args.adapters[1].step, 6);
    assert_int_equal(args.adapters[1].seed, 12);
    adapter_rig_end(&rig);
}

/* An adapter that is not in the microbatch has no blocks; a layer may have none at all. */
static void test_absent_adapters(void **state)
{
    adapter_rig_t rig = make(*state);

    adapter_rig_begin(&rig);
    adapter_rig_document(&rig, 2, 0, 20, 20, 0, 0);
    install(&rig, (const int32_t[]){2}, 1, 0);
    assert_int_equal(lora_route_of(rig.route, 1, LORA_LINEAR_QKV)->num_blocks, 1);
    assert_int_equal(lora_route_of(rig.route, 1, LORA_LINEAR_O)->num_blocks, 0);
    assert_int_equal(lora_route_of(rig.route, 1, LORA_LINEAR_O)->columns, 0);
    adapter_rig_end(&rig);
}

/* No dropout in an evaluation; the lists of the microbatch before are untouched. */
static void test_evaluation_and_stages(void **state)
{
    adapter_rig_t rig = make(*state);

    adapter_rig_begin(&rig);
    adapter_rig_document(&rig, 1, 0, 20, 20, 0, 0);
    install(&rig, (const int32_t[]){1}, 1, 0);
    const kern_lora_route_t first = lora_route_args(rig.route, 0, LORA_LINEAR_QKV, DATA_PING, 0, 2);
    adapter_rig_begin(&rig);
    adapter_rig_document(&rig, 1, 0, 20, 0, 0, 90);
    install(&rig, (const int32_t[]){1}, 1, 1);
    const kern_lora_route_t next = lora_route_args(rig.route, 0, LORA_LINEAR_QKV, DATA_PONG, 0, 2);

    assert_true(first.adapters[1].dropout == 0.25);
    assert_true(next.adapters[1].dropout == 0.0);
    assert_int_equal(first.segments[0].row0, 0);
    assert_int_equal(next.segments[0].row0, 90);
    assert_int_equal(lora_route_of(rig.route, 0, LORA_LINEAR_QKV)->num_plain, 2);
    adapter_rig_end(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_segments),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_absent_adapters),
        cmocka_unit_test(test_evaluation_and_stages),
    };

    return OP_FIXTURE_RUN(tests);
}

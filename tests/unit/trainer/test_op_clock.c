/* The clock behind `cadre bench step`: ops announce themselves, products are told apart by shape, and
 * their arithmetic is counted as one does by hand. */
#include "tests/support/ctx_fixture.h"

#include "trainer/bench/op_clock.h"

static void tell(tr_op_clock_t *c, const char *op, const void *args)
{
    c->observer.begin(c->observer.user, op, args);
    c->observer.end(c->observer.user, op, args);
}

static void products(void **state)
{
    kern_gemm_t g = {.a = {.rows = 5, .cols = 3}, .c = {.rows = 5, .cols = 7}};
    tr_op_clock_t c;

    (void)state;
    tr_op_clock_init(&c);
    tell(&c, "gemm", &g);
    tell(&c, "gemm", &g);
    g.transpose_a = 1; /* a is (k, m) then */
    tell(&c, "gemm", &g);
    assert_int_equal(c.count, 2);
    assert_int_equal(c.entries[0].calls, 2);
    assert_true(c.entries[0].m == 5 && c.entries[0].n == 7 && c.entries[0].k == 3);
    assert_true(c.entries[0].flops == 2 * 2.0 * 5 * 7 * 3);
    assert_int_equal(c.entries[1].k, 5);
    assert_true(c.entries[1].ns >= 0);
}

/* 4 rows from row 2 on, 2 KV heads of 3 query heads each, dimension 8. */
static void attention(void **state)
{
    const kern_attention_task_t task = {.q_row0 = 2, .q_rows = 4, .kv_heads = 2};
    kern_attention_fwd_t f = {.group = 3, .head_dim = 8, .num_tasks = 1, .tasks = &task};
    kern_attention_bwd_t b = {
        .group = 3, .head_dim = 8, .window = 3, .num_tasks = 1, .tasks = &task};
    tr_op_clock_t c;

    (void)state;
    tr_op_clock_init(&c);
    tell(&c, "attention_fwd", &f);
    tell(&c, "attention_bwd", &b);
    assert_true(c.entries[0].flops == (3 + 4 + 5 + 6) * 6 * 2 * 2.0 * 8);
    assert_true(c.entries[1].flops == (3 + 3 + 3 + 3) * 6 * 5 * 2.0 * 8);
}

/* What is read and written counts twice, a pitch not at all, and of a table the rows that tokens take. */
static void traffic(void **state)
{
    base_buffer_t *const somewhere = (base_buffer_t *)state; /* never touched */
    const base_mem_t mem = {.buffer = somewhere};
    const kern_embedding_fwd_t e = {.tokens = kern_vec(mem, 3, KERN_I32),
                                    .table = kern_mat(mem, 100, 8, 8, KERN_BF16),
                                    .out = kern_mat(mem, 3, 8, 8, KERN_BF16)};
    kern_gemm_t g = {.a = kern_mat(mem, 5, 3, 4, KERN_BF16),
                     .b = kern_mat(mem, 3, 7, 7, KERN_BF16),
                     .c = kern_mat(mem, 5, 7, 16, KERN_F32)};
    tr_op_clock_t c;

    tr_op_clock_init(&c);
    tell(&c, "gemm", &g);
    g.accumulate = 1;
    tell(&c, "gemm", &g);
    tell(&c, "gemm", &g);
    tell(&c, "embedding_fwd", &e);
    assert_int_equal(c.count, 3);
    assert_true(c.entries[0].bytes == 2 * (5 * 3 + 3 * 7) + 4 * 5 * 7);
    assert_true(c.entries[1].bytes == 2 * (2 * (5 * 3 + 3 * 7) + 2 * 4 * 5 * 7));
    assert_true(c.entries[2].bytes == 3 * 4 + 2 * 2 * 3 * 8);
}

/* More kinds than there is room for end in the last entry; nothing is lost. */
static void room(void **state)
{
    kern_gemm_t g = {.a = {.rows = 1, .cols = 1}, .c = {.rows = 1, .cols = 1}};
    tr_op_clock_t c;
    int64_t calls = 0;

    (void)state;
    tr_op_clock_init(&c);
    for (int i = 1; i <= 2 * TR_OP_CLOCK_ENTRIES; i++) {
        g.c.rows = i;
        tell(&c, "gemm", &g);
    }
    for (int i = 0; i < c.count; i++)
        calls += c.entries[i].calls;
    assert_int_equal(c.count, TR_OP_CLOCK_ENTRIES);
    assert_int_equal(calls, 2 * TR_OP_CLOCK_ENTRIES);
}

/* Through the op registry. */
static void ops_announce_themselves(void **state)
{
    const float ones[4] = {1, 2, 3, 4};
    base_ctx_t *ctx = fixture_ctx();
    base_device_t *dev;
    base_stream_t *s;
    base_buffer_t *buffer;
    tr_op_clock_t c;

    (void)state;
    tr_op_clock_init(&c);
    assert_int_equal(base_device_open(ctx, BASE_DEVICE_CPU, 0, &dev), BASE_OK);
    assert_int_equal(base_stream_create(dev, BASE_STREAM_COMPUTE, "test", &s), BASE_OK);
    assert_int_equal(base_buffer_alloc(dev, BASE_MEMORY_DEVICE, sizeof ones, "test", &buffer),
                     BASE_OK);
    assert_int_equal(base_upload(s, base_mem(buffer, 0), ones, sizeof ones), BASE_OK);
    const kern_mat_t x = kern_vec(base_mem(buffer, 0), 4, KERN_F32);
    const kern_add_t add = {.a = x, .b = x, .out = x};
    assert_null(base_ctx_observer(ctx));
    assert_int_equal(kern_add_run(s, &add), BASE_OK);
    base_ctx_set_observer(ctx, &c.observer);
    assert_int_equal(kern_add_run(s, &add), BASE_OK);
    base_ctx_set_observer(ctx, NULL);
    assert_int_equal(kern_add_run(s, &add), BASE_OK);
    assert_int_equal(c.count, 1);
    assert_string_equal(c.entries[0].op, "add");
    assert_int_equal(c.entries[0].calls, 1);
    assert_true(c.entries[0].bytes == 3 * sizeof ones);
    assert_int_equal(base_stream_sync(s), BASE_OK);
    base_buffer_free(buffer);
    base_stream_destroy(s);
    base_device_close(dev);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(attention),
                                       cmocka_unit_test(traffic), cmocka_unit_test(room),
                                       cmocka_unit_test(ops_announce_themselves)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}

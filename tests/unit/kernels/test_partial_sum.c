#include "tests/support/op_fixture.h"

#include <stdlib.h>

/* Values whose sum depends on the order: (1e20 + 1) - 1e20 is 0, (1e20 - 1e20) + 1 is 1. */
static void test_order(void **state)
{
    const double src[] = {1e20, 1, -1e20};
    const kern_sum_part_t parts[] = {{.src = 0}, {.src = 1}, {.src = 2}, {.src = 0},
                                     {.src = 2}, {.src = 1}, {.src = 1}};
    const kern_sum_t sums[] = {{0, 0, 1, 1, 3, 0}, {1, 0, 1, 1, 3, 3}, {2, 0, 1, 1, 1, 6}};
    const double want[] = {0, 1, 1};
    op_fixture_t *fx = *state;
    op_tensor_t from = op_tensor_from(fx, 1, 3, 3, KERN_F64, src),
                to = op_tensor(fx, 1, 3, 3, KERN_F64);
    const kern_partial_sum_t args = {KERN_F64,     3,        7, sums, parts, to.mat.mem,
                                     from.mat.mem, {NULL, 0}};
    double got[3];

    op_run(fx, partial_sum, &args);
    op_tensor_get(&to, got);
    assert_memory_equal(got, want, sizeof want);
    op_tensor_end(&from);
    op_tensor_end(&to);
}

/* Three parts of two heads with different strides, into a destination with its own. */
static void test_heads(void **state)
{
    enum { COUNT = 5, SRC = 60 };
    const kern_sum_part_t parts[] = {
        {.src = 1, .src_head = 7}, {.src = 20, .src_head = 5}, {.src = 40, .src_head = 11}};
    const kern_sum_t sum = {2, 9, COUNT, 2, 3, 0};
    op_fixture_t *fx = *state;

    for (int f32 = 0; f32 < 2; f32++) {
        const kern_dtype_t dtype = f32 ? KERN_F32 : KERN_F64;
        double src[SRC], got[2 * COUNT];
        op_tensor_t from,
            to = op_tensor(fx, 2, COUNT, 9, dtype); /* the gap between heads is watched */
        const kern_partial_sum_t args = {
            dtype,     1,        3,
            &sum,      parts,    base_mem_at(to.mat.mem, -2 * kern_dtype_bytes(dtype)),
            {NULL, 0}, {NULL, 0}};
        kern_partial_sum_t run = args;

        for (int i = 0; i < SRC; i++)
            src[i] = i * i;
        from = op_tensor_from(fx, 1, SRC, SRC, dtype, src);
        run.src = from.mat.mem;
        op_run(fx, partial_sum, &run);
        op_tensor_get(&to, got);
        for (int h = 0; h < 2; h++)
            for (int i = 0; i < COUNT; i++)
                assert_true(got[h * COUNT + i] ==
                            src[1 + h * 7 + i] + src[20 + h * 5 + i] + src[40 + h * 11 + i]);
        op_tensor_end(&from);
        op_tensor_end(&to);
    }
}

/* More pieces than are passed to a stream one by one. */
static void test_many_parts(void **state)
{
    enum { PARTS = 200 };
    op_fixture_t *fx = *state;
    kern_sum_part_t parts[PARTS];
    const kern_sum_t sum = {0, 0, 3, 1, PARTS, 0};
    double src[PARTS + 2], got[3];
    op_tensor_t from, to = op_tensor(fx, 1, 3, 3, KERN_F32);
    kern_partial_sum_t args = {KERN_F32, 1, PARTS, &sum, parts, to.mat.mem, {NULL, 0}, {NULL, 0}};

    for (int i = 0; i < PARTS; i++)
        parts[i] = (kern_sum_part_t){.src = PARTS - 1 - i};
    for (int i = 0; i < PARTS + 2; i++)
        src[i] = i;
    from = op_tensor_from(fx, 1, PARTS + 2, PARTS + 2, KERN_F32, src);
    args.src = from.mat.mem;
    op_run(fx, partial_sum, &args);
    op_tensor_get(&to, got);
    for (int i = 0; i < 3; i++)
        assert_true(got[i] == PARTS * (PARTS - 1) / 2 + PARTS * i);
    op_tensor_end(&from);
    op_tensor_end(&to);
}

/* Parts of both places in one sum, and a sum of none. */
static void test_places(void **state)
{
    op_fixture_t *fx = *state;
    const double acc[] = {1, 2, 3, 4}, real[] = {10, 20, 30, 40};
    const kern_sum_part_t parts[] = {{.src = 2}, {.src = 1, .real = 1}, {.src = 0}};
    const kern_sum_t sums[] = {{0, 0, 2, 1, 3, 0}, {2, 0, 1, 1, 0, 3}, {3, 0, 1, 1, 1, 1}};
    const double want[] = {3 + 20 + 1, 4 + 30 + 2, 0, 20};
    op_tensor_t from = op_tensor_from(fx, 1, 4, 4, KERN_F32, acc),
                from_real = op_tensor_from(fx, 1, 4, 4, KERN_F32, real),
                to = op_tensor(fx, 1, 4, 4, KERN_F32);
    const kern_partial_sum_t args = {.dtype = KERN_F32,
                                     .num_sums = 3,
                                     .num_parts = 3,
                                     .sums = sums,
                                     .parts = parts,
                                     .dst = to.mat.mem,
                                     .src = from.mat.mem,
                                     .src_real = from_real.mat.mem};
    double got[4];

    op_run(fx, partial_sum, &args);
    op_tensor_get(&to, got);
    assert_memory_equal(got, want, sizeof want);
    op_tensor_end(&from);
    op_tensor_end(&from_real);
    op_tensor_end(&to);
}

static void test_errors(void **state)
{
    op_fixture_t *fx = *state;
    kern_sum_part_t part = {0};
    kern_sum_t sum = {0, 0, 4, 1, 2, 0};
    op_tensor_t from = op_tensor(fx, 1, 4, 4, KERN_F32), to = op_tensor(fx, 1, 4, 4, KERN_F32);
    kern_partial_sum_t args = {KERN_F32, 1, 1, &sum, &part, to.mat.mem, from.mat.mem, {NULL, 0}};

    op_refuse(fx, partial_sum, &args, BASE_ERR_ARG, "partial_sum: sum 0: parts [0, + 2) of 1");
    sum.num_parts = 1;
    sum.count = 1000;
    op_refuse(fx, partial_sum, &args, BASE_ERR_ARG, "partial_sum: src");
    part.real = 1;
    op_refuse(fx, partial_sum, &args, BASE_ERR_ARG, "partial_sum: src_real");
    args.dtype = KERN_I32;
    op_refuse(fx, partial_sum, &args, BASE_ERR_ARG, "partial_sum: dst is int32");
    args.dtype = KERN_F32;
    args.sums = NULL;
    op_refuse(fx, partial_sum, &args, BASE_ERR_ARG, "a list is missing");
    args.num_sums = 0;
    op_run(fx, partial_sum, &args);
    op_tensor_end(&from);
    op_tensor_end(&to);
}

/* Vectors, in the order listed, into the second of them; longer than a chunk. */
static void test_vectors(void **state)
{
    enum { COUNT = 4096 + 3 };
    op_fixture_t *fx = *state;
    double values[COUNT], got[COUNT];
    op_tensor_t part[3];
    const double first[3] = {1e20, 1, -1e20};

    for (int p = 0; p < 3; p++) {
        for (int i = 0; i < COUNT; i++)
            values[i] = i == 0 ? first[p] : p * 100 + i;
        part[p] = op_tensor_from(fx, 1, COUNT, COUNT, KERN_F64, values);
    }
    kern_vector_sum_t args = {.dst = part[1].mat, .num_parts = 3};
    for (int p = 0; p < 3; p++)
        args.parts[p] = part[p].mat.mem;
    op_run(fx, vector_sum, &args);
    op_tensor_get(&part[1], got);
    assert_true(got[0] == 0.0); /* (1e20 + 1) - 1e20 */
    for (int i = 1; i < COUNT; i++)
        assert_true(got[i] == 300 + 3 * i);
    args.num_parts = 0;
    op_refuse(fx, vector_sum, &args, BASE_ERR_ARG, "vector_sum: wants 1 to 64 parts");
    for (int p = 0; p < 3; p++)
        op_tensor_end(&part[p]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors), cmocka_unit_test(test_order),
        cmocka_unit_test(test_heads),   cmocka_unit_test(test_many_parts),
        cmocka_unit_test(test_places),  cmocka_unit_test(test_errors),
    };

    return OP_FIXTURE_RUN(tests);
}

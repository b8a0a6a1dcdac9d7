/* All-gather, barrier, all-reduce on 1 to 5 ranks, cpu and strict. */
#include "tests/ranks/rank_case.h"

#include "base/device/device_host.h"

#include <stdlib.h>

#define REPEATS 100

static const base_device_kind_t devices[] = {BASE_DEVICE_CPU, BASE_DEVICE_STRICT};

static void run_sizes(comm_rank_fn fn, void *user)
{
    for (int size = 1; size <= RANKS_MAX; size++)
        for (int d = 0; d < 2; d++) {
            rank_case_t run = {.options = {.num_ranks = size,
                                           .device = devices[d],
                                           .seed = (uint64_t)size,
                                           .deadline_ms = 60000},
                               .user = user};

            rank_case_run(&run, fn);
            rank_case_assert_ok(&run);
        }
}

/* ==== all-gather, barrier ==== */

typedef struct gather_shared {
    int passed[RANKS_MAX]; /* barriers that a rank has entered */
} gather_shared_t;

static base_status_t gather_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                 void *user)
{
    rank_case_t *run = user;
    gather_shared_t *shared = run->user;
    const int me = comm_group_rank(group), size = comm_group_size(group);
    unsigned char mine[100], all[100 * RANKS_MAX];

    (void)ctx;
    (void)dev;
    for (int i = 0; i < REPEATS; i++) {
        const int64_t bytes = (int64_t)(rank_random(1, (uint64_t)i, 0, 0) % (sizeof mine + 1));
        const int before = i + 1;

        memset(mine, i * 7 + me, sizeof mine);
        memset(all, 0xEE, sizeof all);
        BASE_TRY(comm_allgather(group, mine, bytes, all));
        memset(mine, 0xDD, sizeof mine); /* ours again at once */
        for (int64_t k = 0; k < size * bytes; k++)
            RANK_CHECK(run, me, all[k] == (unsigned char)(i * 7 + k / bytes),
                       "all-gather %d: byte %d is %d", i, (int)k, all[k]);
        for (size_t k = (size_t)(size * bytes); k < sizeof all; k++)
            RANK_CHECK(run, me, all[k] == 0xEE, "all-gather %d wrote behind its end", i);
        __atomic_store_n(&shared->passed[me], before, __ATOMIC_RELEASE);
        BASE_TRY(comm_barrier(group));
        for (int r = 0; r < size; r++)
            RANK_CHECK(run, me, __atomic_load_n(&shared->passed[r], __ATOMIC_ACQUIRE) >= before,
                       "barrier %d did not wait for rank %d", i, r);
    }
    return BASE_OK;
}

static void test_gather_and_barrier(void **state)
{
    (void)state;
    for (int size = 1; size <= RANKS_MAX; size++) {
        gather_shared_t shared = {{0}};
        rank_case_t run = {
            .options = {.num_ranks = size, .device = BASE_DEVICE_CPU, .deadline_ms = 60000},
            .user = &shared,
            .user_bytes = sizeof shared};

        rank_case_run(&run, gather_rank);
        rank_case_assert_ok(&run);
    }
}

/* ==== all-reduce ==== */

#define MAX_COUNT 1031

static const int64_t counts[] = {0, 1, 2, 3, 5, 64, 257, 1000, MAX_COUNT};

/* Sizes from 2^-20 to 2^20 of both signs: nearly every change of order changes bits. */
static double contribution(int repeat, int rank, int64_t i)
{
    const uint64_t r = rank_random((uint64_t)repeat, (uint64_t)rank, (uint64_t)i, 11);
    const int exponent = (int)(r % 41) - 20;
    const double x = (double)(r >> 11) * 0x1p-53;
    const double scale = exponent < 0 ? 1.0 / (double)(1 << -exponent) : (double)(1 << exponent);

    return (r & 64) != 0 ? x * scale : -x * scale;
}

static base_status_t reduce_once(rank_case_t *run, comm_group_t *group, rank_gear_t *gear,
                                 base_mem_t scratch, comm_element_t element, int repeat)
{
    const int me = comm_group_rank(group), size = comm_group_size(group);
    const int64_t count = counts[repeat % (int)(sizeof counts / sizeof counts[0])];
    const size_t bytes = (size_t)count * (element == COMM_F32 ? sizeof(float) : sizeof(double));
    const comm_reduce_t reduce = {.data = base_mem(gear->buffer, 64),
                                  .count = count,
                                  .element = element,
                                  .scratch = scratch,
                                  .stream = gear->stream};
    float f[MAX_COUNT], wanted_f[MAX_COUNT];
    double d[MAX_COUNT], wanted_d[MAX_COUNT];
    void *mine = element == COMM_F32 ? (void *)f : (void *)d;
    const void *wanted = element == COMM_F32 ? (const void *)wanted_f : (const void *)wanted_d;

    for (int64_t i = 0; i < count; i++) {
        d[i] = contribution(repeat, me, i);
        f[i] = (float)d[i];
        wanted_d[i] = contribution(repeat, 0, i);
        wanted_f[i] = (float)wanted_d[i];
        for (int r = 1; r < size; r++) {
            wanted_d[i] += contribution(repeat, r, i);
            wanted_f[i] += (float)contribution(repeat, r, i);
        }
    }
    BASE_TRY(base_upload(gear->stream, reduce.data, mine, (int64_t)bytes));
    BASE_TRY(comm_all_reduce(group, &reduce));
    BASE_TRY(base_download(gear->stream, mine, reduce.data, (int64_t)bytes));
    BASE_TRY(base_stream_sync(gear->stream));
    RANK_CHECK(run, me, memcmp(mine, wanted, bytes) == 0, "repeat %d: sum of %d elements differs",
               repeat, (int)count);
    return BASE_OK;
}

static base_status_t reduce_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                 void *user)
{
    rank_case_t *run = user;
    const comm_element_t element = *(const comm_element_t *)run->user;
    const int64_t data_bytes = 64 + MAX_COUNT * (int64_t)sizeof(double);
    const int64_t scratch_at = (data_bytes + 4095) / 4096 * 4096;
    const int64_t bytes = scratch_at + comm_reduce_scratch_bytes(group, MAX_COUNT, COMM_F64);
    rank_gear_t gear;
    base_status_t st = rank_gear_open(&gear, dev, BASE_STREAM_COMPUTE, bytes);

    (void)ctx;
    for (int i = 0; i < REPEATS && st >= 0; i++)
        st = reduce_once(run, group, &gear, base_mem(gear.buffer, scratch_at), element, i);
    if (st < 0) comm_group_stop(group, NULL);
    rank_gear_close(&gear);
    return st;
}

static void test_reduce_float(void **state)
{
    comm_element_t element = COMM_F32;

    (void)state;
    run_sizes(reduce_rank, &element);
}

static void test_reduce_double(void **state)
{
    comm_element_t element = COMM_F64;

    (void)state;
    run_sizes(reduce_rank, &element);
}

/* ==== all-reduce with the caller's own sum ==== */

#define MAX_PARTS RANKS_MAX

typedef struct own_sum {
    int calls;
    base_status_t st; /* to answer with */
} own_sum_t;

typedef struct own_sum_args {
    unsigned char *dst;
    const unsigned char *parts[MAX_PARTS];
    int num_parts;
    int64_t count;
    comm_element_t element;
} own_sum_args_t;

/* Backwards and through memcpy: unlike the built-in in all but the order of the parts. */
static base_status_t own_sum_work(void *args)
{
    const own_sum_args_t *a = args;

    for (int64_t i = a->count - 1; i >= 0; i--) {
        if (a->element == COMM_F32) {
            const size_t size = sizeof(float);
            float sum, x;

            memcpy(&sum, a->parts[0] + (size_t)i * size, size);
            for (int p = 1; p < a->num_parts; p++) {
                memcpy(&x, a->parts[p] + (size_t)i * size, size);
                sum += x;
            }
            memcpy(a->dst + (size_t)i * size, &sum, size);
        } else {
            const size_t size = sizeof(double);
            double sum, x;

            memcpy(&sum, a->parts[0] + (size_t)i * size, size);
            for (int p = 1; p < a->num_parts; p++) {
                memcpy(&x, a->parts[p] + (size_t)i * size, size);
                sum += x;
            }
            memcpy(a->dst + (size_t)i * size, &sum, size);
        }
    }
    return BASE_OK;
}

static base_status_t own_sum(void *user, base_stream_t *stream, base_mem_t dst,
                             const base_mem_t *parts, int num_parts, int64_t count,
                             comm_element_t element)
{
    own_sum_t *own = user;
    const int64_t bytes = count * (int64_t)(element == COMM_F32 ? sizeof(float) : sizeof(double));
    own_sum_args_t args = {
        .dst = base_mem_address(dst), .num_parts = num_parts, .count = count, .element = element};
    base_operand_t operands[MAX_PARTS];
    int num_dst = 0;

    own->calls++;
    if (own->st < 0) return own->st;
    if (count < 1 || num_parts < 2 || num_parts > MAX_PARTS) return BASE_ERR_ARG;
    for (int p = 0; p < num_parts; p++) {
        const int is_dst = parts[p].buffer == dst.buffer && parts[p].offset == dst.offset;

        args.parts[p] = base_mem_address(parts[p]);
        operands[p] = (base_operand_t){rank_range(parts[p].buffer, parts[p].offset, bytes),
                                       is_dst ? BASE_READ_WRITE : BASE_READ};
        num_dst += is_dst;
    }
    if (num_dst != 1) return BASE_ERR_ARG;
    return base_stream_submit(stream, own_sum_work, &args, sizeof args, operands, num_parts);
}

/* The same contributions with the built-in sum and with own_sum, many given ahead. */
static base_status_t reduce_own_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                     void *user)
{
    rank_case_t *run = user;
    const comm_element_t element = *(const comm_element_t *)run->user;
    const int me = comm_group_rank(group), size = comm_group_size(group);
    const int64_t slot = (MAX_COUNT * (int64_t)sizeof(double) + 4095) / 4096 * 4096;
    const int num_counts = (int)(sizeof counts / sizeof counts[0]);
    own_sum_t own = {0};
    double d[MAX_COUNT], first[MAX_COUNT], second[MAX_COUNT];
    float f[MAX_COUNT];
    int wanted_calls = 0;
    rank_gear_t gear;
    base_status_t st =
        rank_gear_open(&gear, dev, BASE_STREAM_ASYNC,
                       2 * slot + comm_reduce_scratch_bytes(group, MAX_COUNT, COMM_F64));

    (void)ctx;
    for (int repeat = 0; repeat < 3 * num_counts && st >= 0; repeat++) {
        const int64_t count = counts[repeat % num_counts];
        const int64_t bytes =
            count * (int64_t)(element == COMM_F32 ? sizeof(float) : sizeof(double));
        const void *mine = element == COMM_F32 ? (const void *)f : (const void *)d;
        comm_reduce_t reduce = {.data = base_mem(gear.buffer, 0),
                                .count = count,
                                .element = element,
                                .scratch = base_mem(gear.buffer, 2 * slot),
                                .stream = gear.stream};

        for (int64_t i = 0; i < count; i++) {
            d[i] = contribution(repeat, me, i);
            f[i] = (float)d[i];
        }
        const int64_t slice = (count + size - 1) / size;
        wanted_calls += size > 1 && slice * me < count;
        st = base_upload(gear.stream, reduce.data, mine, bytes);
        if (st >= 0) st = base_upload(gear.stream, base_mem(gear.buffer, slot), mine, bytes);
        if (st >= 0) st = comm_all_reduce(group, &reduce);
        reduce.data = base_mem(gear.buffer, slot);
        reduce.sum = own_sum;
        reduce.sum_user = &own;
        if (st >= 0) st = comm_all_reduce(group, &reduce);
        if (st >= 0) st = base_download(gear.stream, first, base_mem(gear.buffer, 0), bytes);
        if (st >= 0) st = base_download(gear.stream, second, reduce.data, bytes);
        if (st >= 0) st = base_stream_sync(gear.stream);
        if (st >= 0)
            RANK_CHECK(run, me, memcmp(first, second, (size_t)bytes) == 0,
                       "repeat %d: own sum of %d elements differs", repeat, (int)count);
    }
    RANK_CHECK(run, me, own.calls == wanted_calls, "own sum called %d times, wanted %d", own.calls,
               wanted_calls);
    if (st < 0) comm_group_stop(group, NULL);
    rank_gear_close(&gear);
    return st;
}

static void test_reduce_own_sum(void **state)
{
    comm_element_t element = COMM_F32;

    (void)state;
    run_sizes(reduce_own_rank, &element);
    element = COMM_F64;
    run_sizes(reduce_own_rank, &element);
}

/* What the sum answers is what the all-reduce returns; the next one is as if it had not been. */
static base_status_t reduce_refused_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                         void *user)
{
    rank_case_t *run = user;
    const int me = comm_group_rank(group);
    own_sum_t own = {.st = BASE_ERR_UNSUPPORTED};
    double d[2] = {1.0, 2.0};
    rank_gear_t gear;
    base_status_t st = rank_gear_open(&gear, dev, BASE_STREAM_ASYNC,
                                      4096 + comm_reduce_scratch_bytes(group, 2, COMM_F64));
    comm_reduce_t reduce = {.data = base_mem(gear.buffer, 0),
                            .count = 2,
                            .element = COMM_F64,
                            .scratch = base_mem(gear.buffer, 4096),
                            .stream = gear.stream,
                            .sum = own_sum,
                            .sum_user = &own};

    (void)ctx;
    if (st >= 0) st = base_upload(gear.stream, reduce.data, d, (int64_t)sizeof d);
    if (st >= 0) {
        RANK_CHECK(run, me, comm_all_reduce(group, &reduce) == BASE_ERR_UNSUPPORTED,
                   "an all-reduce went on without its sum");
        RANK_CHECK(run, me, own.calls == 1, "the sum was called %d times", own.calls);
        reduce.sum = NULL;
        st = comm_all_reduce(group, &reduce);
    }
    if (st >= 0) st = base_download(gear.stream, d, reduce.data, (int64_t)sizeof d);
    if (st >= 0) st = base_stream_sync(gear.stream);
    if (st >= 0) RANK_CHECK(run, me, d[0] == 2.0 && d[1] == 4.0, "sums %g, %g", d[0], d[1]);
    if (st < 0) comm_group_stop(group, NULL);
    rank_gear_close(&gear);
    return st;
}

static void test_reduce_refused_sum(void **state)
{
    (void)state;
    for (int d = 0; d < 2; d++) {
        rank_case_t run = {.options = {.num_ranks = 2, .device = devices[d], .deadline_ms = 60000}};

        rank_case_run(&run, reduce_refused_rank);
        rank_case_assert_ok(&run);
    }
}

/* Members 1 and 3 of four (the others serve), then all, then rank 2 alone; one sequence for all. */
static base_status_t reduce_members_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                         void *user)
{
    const int32_t members[2] = {1, 3}, alone[1] = {2}, wrong[2] = {3, 1};
    rank_case_t *run = user;
    const int me = comm_group_rank(group);
    const int64_t count = 7;
    double d[7];
    rank_gear_t gear;
    base_status_t st = rank_gear_open(&gear, dev, BASE_STREAM_COMPUTE,
                                      4096 + comm_reduce_scratch_bytes(group, count, COMM_F64));
    comm_reduce_t reduce = {.data = base_mem(gear.buffer, 0),
                            .count = count,
                            .element = COMM_F64,
                            .scratch = base_mem(gear.buffer, 4096),
                            .stream = gear.stream};
    comm_reduce_t some, one;

    for (int i = 0; i < count; i++)
        d[i] = 1 << (4 * me);
    if (st >= 0) st = base_upload(gear.stream, reduce.data, d, (int64_t)sizeof d);
    reduce.members = wrong;
    reduce.num_members = 2;
    RANK_CHECK(run, me, comm_all_reduce(group, &reduce) == BASE_ERR_ARG, "descending members");
    reduce.members = NULL;
    RANK_CHECK(run, me, comm_all_reduce(group, &reduce) == BASE_ERR_ARG, "members without a list");
    base_ctx_clear_error(ctx);
    reduce.num_members = 0; /* all */
    some = reduce;
    some.members = members;
    some.num_members = 2;
    if (me % 2 == 0) {
        some.stream = NULL;
        some.data = some.scratch = base_mem(NULL, 0);
    }
    one = reduce;
    one.members = alone;
    one.num_members = 1;
    if (st >= 0) st = comm_all_reduce(group, &some);   /* 0x1010 on ranks 1 and 3 */
    if (st >= 0) st = comm_all_reduce(group, &one);    /* as it is */
    if (st >= 0) st = comm_all_reduce(group, &reduce); /* 0x1 + 0x1010 + 0x100 + 0x1010 */
    if (st >= 0) st = base_download(gear.stream, d, reduce.data, (int64_t)sizeof d);
    if (st >= 0) st = base_stream_sync(gear.stream);
    for (int i = 0; i < count && st >= 0; i++)
        RANK_CHECK(run, me, d[i] == 0x2121, "element %d is %g", i, d[i]);
    if (st < 0) comm_group_stop(group, NULL);
    rank_gear_close(&gear);
    return st;
}

static void test_reduce_members(void **state)
{
    (void)state;
    for (int d = 0; d < 2; d++) {
        rank_case_t run = {.options = {.num_ranks = 4, .device = devices[d], .deadline_ms = 60000}};

        rank_case_run(&run, reduce_members_rank);
        rank_case_assert_ok(&run);
    }
}

/* Many reductions given to a stream without a wait of the host in between. */
static base_status_t reduce_ahead_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                       void *user)
{
    rank_case_t *run = user;
    const int me = comm_group_rank(group), size = comm_group_size(group);
    const int64_t count = 333;
    double d[333], wanted = 1.0;
    rank_gear_t gear;
    base_status_t st = rank_gear_open(&gear, dev, BASE_STREAM_ASYNC,
                                      4096 + comm_reduce_scratch_bytes(group, count, COMM_F64));
    const comm_reduce_t reduce = {.data = base_mem(gear.buffer, 0),
                                  .count = count,
                                  .element = COMM_F64,
                                  .scratch = base_mem(gear.buffer, 4096),
                                  .stream = gear.stream};

    (void)ctx;
    for (int i = 0; i < count; i++)
        d[i] = 1.0;
    if (st >= 0) st = base_upload(gear.stream, reduce.data, d, (int64_t)sizeof d);
    for (int i = 0; i < 15 && st >= 0; i++) {
        st = comm_all_reduce(group, &reduce);
        wanted *= size;
    }
    if (st >= 0) st = base_download(gear.stream, d, reduce.data, (int64_t)sizeof d);
    if (st >= 0) st = base_stream_sync(gear.stream);
    for (int i = 0; i < count && st >= 0; i++)
        RANK_CHECK(run, me, d[i] == wanted, "element %d is %g, wanted %g", i, d[i], wanted);
    if (st < 0) comm_group_stop(group, NULL);
    rank_gear_close(&gear);
    return st;
}

static void test_reduce_ahead(void **state)
{
    (void)state;
    run_sizes(reduce_ahead_rank, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gather_and_barrier), cmocka_unit_test(test_reduce_float),
        cmocka_unit_test(test_reduce_double),      cmocka_unit_test(test_reduce_members),
        cmocka_unit_test(test_reduce_ahead),       cmocka_unit_test(test_reduce_own_sum),
        cmocka_unit_test(test_reduce_refused_sum),
    };

    return RANK_CASE_MAIN("collectives", tests);
}

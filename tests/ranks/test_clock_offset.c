/* The offset of a rank's clock: within its own bound, whatever the clocks show and however long the
 * messages take. */
#include "tests/ranks/rank_case.h"

#include "base/clock.h"
#include "comm/clock_offset.h"

static const base_device_kind_t devices[] = {BASE_DEVICE_CPU, BASE_DEVICE_STRICT};

/* Clocks of hosts that were started days apart. */
static int64_t skew_ns(int rank)
{
    return (int64_t)rank * rank * INT64_C(-86400123456789) + rank;
}

static int64_t skewed(void *user)
{
    return base_clock_ns() + skew_ns(*(const int *)user);
}

static base_status_t read_clocks(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                 void *user)
{
    rank_case_t *run = user;
    int me = comm_group_rank(group);
    const int64_t begin_ns = base_clock_ns();
    comm_clock_reading_t r;

    (void)ctx;
    (void)dev;
    BASE_TRY(comm_clock_read(group, skewed, &me, &r));
    const int64_t wrong_ns = r.offset_ns - (skew_ns(0) - skew_ns(me));
    RANK_CHECK(run, me, wrong_ns <= r.error_ns && -wrong_ns <= r.error_ns,
               "rank %d: offset is wrong by %lld ns, more than %lld", me, (long long)wrong_ns,
               (long long)r.error_ns);
    RANK_CHECK(run, me, (me == 0) == (r.error_ns == 0), "rank %d: error %lld ns", me,
               (long long)r.error_ns);
    /* The quickest of the rounds is not longer than all of them. */
    RANK_CHECK(run, me, r.error_ns <= base_clock_ns() - begin_ns, "rank %d: error %lld ns", me,
               (long long)r.error_ns);
    RANK_CHECK(run, me,
               r.here_ns - skew_ns(me) >= begin_ns && r.here_ns - skew_ns(me) <= base_clock_ns(),
               "rank %d: read at %lld", me, (long long)r.here_ns);

    BASE_TRY(comm_clock_read(group, NULL, NULL, &r)); /* all on one host */
    RANK_CHECK(run, me, r.offset_ns == 0 && r.error_ns == 0, "rank %d: offset %lld on one host", me,
               (long long)r.offset_ns);
    return BASE_OK;
}

static void offset_is_within_its_bound(void **state)
{
    static const int sizes[] = {1, 2, 5};

    (void)state;
    for (size_t d = 0; d < sizeof devices / sizeof devices[0]; d++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            rank_case_t run = {.options = {.num_ranks = sizes[s], .device = devices[d]}};

            rank_case_run(&run, read_clocks);
            rank_case_assert_ok(&run);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(offset_is_within_its_bound)};

    return RANK_CASE_MAIN("clock_offset", tests);
}

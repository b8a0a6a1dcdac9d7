/* Ranks that do not meet in a communicator of NCCL: refused, broken on the way, never all there, asked to stop meanwhile. */
#include "tests/support/ctx_fixture.h"

#include "comm/nccl_meet.h"
#include "tests/support/nccl_fake.h"

static base_status_t meet(base_ctx_t *ctx, nccl_fake_meets_t how, comm_nccl_way_t way)
{
    const comm_nccl_caller_t who = {.ctx = ctx, .rank = 3};
    const comm_nccl_id_t id = {{0}};
    ncclComm_t comm = NULL;

    nccl_fake_meets(how);
    const base_status_t st = comm_nccl_meet(&who, 4, &id, way, &comm);
    nccl_fake_meets(NCCL_FAKE_MEETS);
    if (st == BASE_OK) assert_int_equal(ncclCommDestroy(comm), ncclSuccess);
    assert_int_equal(nccl_fake_alive(), 0);
    return st;
}

static void test_meet(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    const int32_t stop = 1;

    (void)state;
    for (int i = 0; i < 2; i++) {
        const comm_nccl_way_t way = i == 0 ? COMM_NCCL_DIRECT : COMM_NCCL_AS_MET;

        assert_int_equal(meet(ctx, NCCL_FAKE_MEETS, way), BASE_OK);
        assert_int_equal(meet(ctx, NCCL_FAKE_REFUSES_TO, way), BASE_ERR_COMM);
        fixture_expect_error(ctx, BASE_ERR_COMM, "COMM-04",
                             "rank 3: ncclCommInitRankConfig: fake error: of the fake");
        assert_int_equal(meet(ctx, NCCL_FAKE_BREAKS, way), BASE_ERR_COMM);
        fixture_expect_error(ctx, BASE_ERR_COMM, "COMM-04", "rank 3: ncclCommInitRankConfig");
        base_ctx_set_deadline_ms(ctx, 200);
        assert_int_equal(meet(ctx, NCCL_FAKE_WAITS, way), BASE_ERR_TIMEOUT);
        fixture_expect_error(ctx, BASE_ERR_TIMEOUT, "COMM-02",
                             "rank 3: ncclCommInitRankConfig: NCCL has not come back in");
        base_ctx_set_deadline_ms(ctx, 60000);
        base_ctx_set_stop_flag(ctx, &stop);
        assert_int_equal(meet(ctx, NCCL_FAKE_WAITS, way), BASE_ERR_PEER);
        base_ctx_set_stop_flag(ctx, NULL);
    }
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_meet)};

    return cmocka_run_group_tests_name("nccl_meet", tests, NULL, NULL);
}

#include "tests/support/ctx_fixture.h"

#include "comm/exchange.h"

#include "base/message.h"

static base_ctx_t *ctx_of(void **state)
{
    return *state;
}

static int setup(void **state)
{
    *state = fixture_ctx();
    return 0;
}

static int teardown(void **state)
{
    fixture_ctx_end(*state);
    return 0;
}

/* ==== what is legal ==== */

static void expect_refused(base_ctx_t *ctx, const comm_exchange_t *ex, const char *piece)
{
    assert_int_equal(comm_exchange_check(ctx, ex, 1, 4), BASE_ERR_ARG);
    fixture_expect_error(ctx, BASE_ERR_ARG, "INT-01", piece);
}

static void test_check(void **state)
{
    base_ctx_t *ctx = ctx_of(state);
    base_device_t *dev = NULL;
    base_buffer_t *buf = NULL;
    base_range_t r[2] = {{.row_bytes = 10, .rows = 3, .pitch = 20}, {.rows = 0}};
    comm_peer_t peers[2] = {{.rank = 0, .num_send = 2, .send = r},
                            {.rank = 3, .num_recv = 1, .recv = r}};
    comm_exchange_t ex = {.num_peers = 2, .peers = peers};

    assert_int_equal(base_device_open(ctx, BASE_DEVICE_CPU, 0, &dev), BASE_OK);
    assert_int_equal(base_buffer_alloc(dev, BASE_MEMORY_DEVICE, 50, "tensor", &buf), BASE_OK);
    r[0].mem = base_mem(buf, 0);
    assert_int_equal(comm_exchange_check(ctx, &ex, 1, 4), BASE_OK);
    assert_int_equal(comm_exchange_check(ctx, &(comm_exchange_t){0}, 0, 1), BASE_OK);

    r[0].rows = 4; /* 70 bytes */
    expect_refused(ctx, &ex, "tensor");
    r[0].rows = 3;
    peers[1].rank = 4;
    expect_refused(ctx, &ex, "with rank 4; wanted another rank in 0..3");
    peers[1].rank = -1;
    expect_refused(ctx, &ex, "with rank -1");
    peers[1].rank = 1;
    expect_refused(ctx, &ex, "with rank 1"); /* itself */
    peers[1].rank = 0;
    expect_refused(ctx, &ex, "rank 0 after rank 0");
    peers[1].rank = 3;
    peers[1].num_recv = -1;
    expect_refused(ctx, &ex, "receive list of -1 ranges");
    peers[1].num_recv = 1;
    peers[1].recv = NULL;
    expect_refused(ctx, &ex, "no address");
    ex.peers = NULL;
    expect_refused(ctx, &ex, "2 peers and no list");
    ex.num_peers = -1;
    expect_refused(ctx, &ex, "-1 peers");
    base_buffer_free(buf);
    base_device_close(dev);
}

/* ==== what two sides must agree on ==== */

static void test_difference(void **state)
{
    const base_range_t a[3] = {{.row_bytes = 8, .rows = 4, .pitch = 8},
                               {.row_bytes = 0, .rows = 5},
                               {.row_bytes = 3, .rows = 1}};
    base_range_t b[3] = {{.row_bytes = 8, .rows = 4, .pitch = 100}, /* pitches may differ */
                         {.row_bytes = 7, .rows = 0},               /* empty as well */
                         {.row_bytes = 3, .rows = 1}};

    (void)state;
    assert_int_equal(comm_exchange_bytes(a, 3), 35);
    assert_int_equal(comm_exchange_bytes(NULL, 0), 0);
    assert_int_equal(comm_exchange_difference(a, 3, b, 3), -1);
    assert_int_equal(comm_exchange_difference(NULL, 0, NULL, 0), -1);
    assert_int_equal(comm_exchange_difference(a, 3, b, 2), 2);
    assert_int_equal(comm_exchange_difference(a, 0, b, 1), 0);
    b[0].row_bytes = 4; /* the same bytes in another shape are not the same range */
    b[0].rows = 8;
    assert_int_equal(comm_exchange_difference(a, 3, b, 3), 0);
    b[0] = a[0];
    b[2].row_bytes = 0;
    assert_int_equal(comm_exchange_difference(a, 3, b, 3), 2);
}

static void test_tags(void **state)
{
    const comm_tag_t tag = {.plan_hash = 0xab, .microbatch = 7, .layer = 5, .kind = -2};
    comm_tag_t other = tag;
    char text[COMM_TEXT_BYTES];

    (void)state;
    comm_tag_text(&tag, text);
    assert_string_equal(text, "kind -2, layer 5, microbatch 7, plan 00000000000000ab");
    comm_tag_text(&(comm_tag_t){UINT64_MAX, INT64_MIN, INT32_MIN, INT32_MIN}, text);
    assert_non_null(strstr(text, "plan ffffffffffffffff")); /* the longest fits */
    assert_true(comm_tag_equal(&tag, &other));
    other.plan_hash++;
    assert_false(comm_tag_equal(&tag, &other));
    other = tag;
    other.microbatch++;
    assert_false(comm_tag_equal(&tag, &other));
    other = tag;
    other.layer++;
    assert_false(comm_tag_equal(&tag, &other));
    other = tag;
    other.kind++;
    assert_false(comm_tag_equal(&tag, &other));
}

static void test_pair(void **state)
{
    const base_range_t a[2] = {{.row_bytes = 8, .rows = 4}, {.row_bytes = 2, .rows = 2}};
    const comm_tag_t tag = {.kind = 1}, other = {.kind = 3};
    comm_pair_t pair = {.sender = 4,
                        .receiver = 2,
                        .sender_tag = &tag,
                        .receiver_tag = &tag,
                        .num_send = 2,
                        .num_recv = 2,
                        .send = a,
                        .recv = a};
    char text[768], shortest[8];

    (void)state;
    assert_int_equal(comm_pair_disagrees(&pair, text, sizeof text), 0);
    pair.num_recv = 1;
    assert_int_equal(comm_pair_disagrees(&pair, text, sizeof text), 1);
    assert_string_equal(
        text, "rank 4 sends rank 2 2 ranges, 36 bytes (kind 1, layer 0, microbatch 0, plan "
              "0000000000000000); rank 2 expects 1 ranges, 32 bytes (kind 1, layer 0, microbatch "
              "0, plan 0000000000000000); first difference at range 1: 2 rows of 2 bytes sent, "
              "nothing expected");
    assert_int_equal(comm_pair_disagrees(&pair, shortest, sizeof shortest), 1);
    assert_int_equal(strlen(shortest), sizeof shortest - 1);
    pair.num_recv = 2;
    pair.receiver_tag = &other;
    assert_int_equal(comm_pair_disagrees(&pair, text, sizeof text), 1);
    assert_non_null(strstr(text, "kind 3"));
    assert_null(strstr(text, "first difference"));
    pair.num_send = pair.num_recv = 0; /* nothing to move: tags may differ */
    assert_int_equal(comm_pair_disagrees(&pair, text, sizeof text), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_check, setup, teardown),
        cmocka_unit_test(test_difference),
        cmocka_unit_test(test_tags),
        cmocka_unit_test(test_pair),
    };

    return cmocka_run_group_tests_name("exchange", tests, NULL, NULL);
}

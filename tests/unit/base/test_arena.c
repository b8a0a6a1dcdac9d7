#include "tests/support/ctx_fixture.h"

#include "base/arena.h"
#include "base/device/device_host.h"
#include "base/philox.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct place {
    base_ctx_t *ctx;
    base_device_t *dev;
    base_arena_t *arena;
} place_t;

static int setup(void **state)
{
    place_t *p = calloc(1, sizeof *p);

    assert_non_null(p);
    p->ctx = fixture_ctx();
    assert_int_equal(base_device_open(p->ctx, BASE_DEVICE_CPU, 0, &p->dev), BASE_OK);
    assert_int_equal(base_arena_create(p->dev, BASE_MEMORY_DEVICE, "test", &p->arena), BASE_OK);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    place_t *p = *state;

    base_arena_destroy(p->arena);
    base_device_close(p->dev);
    fixture_ctx_end(p->ctx);
    free(p);
    return 0;
}

static base_region_t declare(base_arena_t *arena, const char *name, int64_t bytes, int32_t first,
                             int32_t last)
{
    base_region_t region = BASE_REGION_NONE;
    const base_lifetime_t lifetime = {first, last};

    assert_int_equal(base_arena_declare(arena, "test", name, bytes, lifetime, &region), BASE_OK);
    return region;
}

static void regions_that_never_meet_share(void **state)
{
    place_t *p = *state;
    const base_region_t a = declare(p->arena, "a", 1000, 0, 3);
    const base_region_t b = declare(p->arena, "b", 1000, 4, 7);
    const base_region_t c = declare(p->arena, "c", 500, 3, 4);

    assert_int_equal(base_arena_mem(p->arena, a).buffer, NULL);
    assert_int_equal(base_arena_commit(p->arena), BASE_OK);
    assert_int_equal(base_arena_mem(p->arena, a).offset, 0);
    assert_int_equal(base_arena_mem(p->arena, b).offset, 0);
    assert_int_not_equal(base_arena_mem(p->arena, c).offset, 0);
    assert_int_equal(base_arena_mem(p->arena, c).offset % 256, 0);
    assert_int_equal(base_arena_region_bytes(p->arena, c), 500);
    assert_int_equal(base_arena_declared(p->arena), 2500);
    assert_true(base_arena_bytes(p->arena) < 2500);
    assert_int_equal(base_buffer_bytes(base_arena_mem(p->arena, a).buffer),
                     base_arena_bytes(p->arena));
}

static void nothing_and_no_region(void **state)
{
    place_t *p = *state;
    const base_region_t empty = declare(p->arena, "empty", 0, 0, 1);

    assert_int_equal(base_arena_commit(p->arena), BASE_OK);
    assert_int_equal(base_arena_bytes(p->arena), 0);
    assert_non_null(base_arena_mem(p->arena, empty).buffer);
    assert_null(base_arena_mem(p->arena, BASE_REGION_NONE).buffer);
    assert_int_equal(base_arena_mem(p->arena, BASE_REGION_NONE).offset, 0);
    assert_null(base_arena_mem(p->arena, 99).buffer);
    assert_int_equal(base_arena_region_bytes(p->arena, 99), 0);
}

static void faults_of_the_caller(void **state)
{
    place_t *p = *state;
    base_arena_t *arena = p->arena;
    base_region_t r;

    assert_int_equal(base_arena_declare(arena, "as", "kv", -1, BASE_LIFETIME_RUN, &r),
                     BASE_ERR_ARG);
    fixture_expect_error(p->ctx, BASE_ERR_ARG, "INT-01", "arena test: as.kv: size of -1");
    assert_int_equal(base_arena_declare(arena, "as", "kv", INT64_MAX, BASE_LIFETIME_RUN, &r),
                     BASE_ERR_ARG);
    fixture_expect_error(p->ctx, BASE_ERR_ARG, "INT-01", "size of 9223372036854775807");
    assert_int_equal(base_arena_declare(arena, "as", "kv", 1, (base_lifetime_t){3, 2}, &r),
                     BASE_ERR_ARG);
    fixture_expect_error(p->ctx, BASE_ERR_ARG, "INT-01", "lifetime [3, 2]");
    assert_int_equal(base_arena_declare(arena, "as", "kv", 1, BASE_LIFETIME_RUN, &r), BASE_OK);
    assert_int_equal(base_arena_declare(arena, "as", "kv", 2, BASE_LIFETIME_RUN, &r), BASE_ERR_ARG);
    fixture_expect_error(p->ctx, BASE_ERR_ARG, "INT-01", "as.kv: declared twice");
    assert_int_equal(base_arena_declare(arena, "lora", "kv", 2, BASE_LIFETIME_RUN, &r), BASE_OK);
    assert_int_equal(base_arena_layout(arena), BASE_OK);
    assert_int_equal(base_arena_declare(arena, "as", "q", 1, BASE_LIFETIME_RUN, &r),
                     BASE_ERR_STATE);
    fixture_expect_error(p->ctx, BASE_ERR_STATE, "INT-01", "as.q: declared after the layout");
    assert_int_equal(base_arena_layout(arena), BASE_OK);
    assert_int_equal(base_arena_commit(arena), BASE_OK);
    assert_int_equal(base_arena_commit(arena), BASE_ERR_STATE);
    fixture_expect_error(p->ctx, BASE_ERR_STATE, "INT-01", "committed twice");
    base_arena_destroy(NULL);
}

static void print(void **state)
{
    place_t *p = *state;
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    base_region_t r;

    (void)declare(p->arena, "q", 1000, 2, 5);
    assert_int_equal(base_arena_declare(p->arena, "lora", "w", 70, BASE_LIFETIME_RUN, &r), BASE_OK);
    assert_int_equal(base_arena_layout(p->arena), BASE_OK);
    assert_non_null(out);
    base_arena_print(p->arena, out);
    assert_int_equal(fclose(out), 0);
    assert_non_null(strstr(text, "arena test: 2 regions, 1070 bytes declared"));
    assert_non_null(strstr(text, "2-5"));
    assert_non_null(strstr(text, "run"));
    free(text);
}

/* Its regions are opened page by page. */
static void strict_regions_start_on_pages(void **state)
{
    place_t *p = *state;
    base_device_t *dev = NULL;
    base_arena_t *arena = NULL;
    base_region_t b;

    assert_int_equal(base_device_open(p->ctx, BASE_DEVICE_STRICT, 0, &dev), BASE_OK);
    assert_int_equal(base_arena_create(dev, BASE_MEMORY_DEVICE, "strict", &arena), BASE_OK);
    (void)declare(arena, "a", 5000, 0, 1);
    b = declare(arena, "b", 10, 0, 1);
    assert_int_equal(base_arena_commit(arena), BASE_OK);
    assert_int_equal(base_arena_mem(arena, b).offset, 8192);
    assert_int_equal(base_arena_bytes(arena), 3 * 4096);
    base_arena_destroy(arena);
    base_device_close(dev);
}

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>

/* The guard after each region: 128 bytes at least, unless a region of another time lies there. */
static void guards_are_poisoned(void **state)
{
    place_t *p = *state;
    const base_region_t a = declare(p->arena, "a", 1001, 0, 9);
    const base_region_t b = declare(p->arena, "b", 200, 0, 9);
    const base_region_t c = declare(p->arena, "c", 200, 10, 11); /* where a lies */
    char *at;

    assert_int_equal(base_arena_commit(p->arena), BASE_OK);
    at = base_mem_address(base_arena_mem(p->arena, a));
    assert_null(__asan_region_is_poisoned(at, 1001));
    for (int i = 0; i < 128; i++)
        assert_true(__asan_address_is_poisoned(at + 1001 + i));
    at = base_mem_address(base_arena_mem(p->arena, b));
    assert_null(__asan_region_is_poisoned(at, 200));
    assert_true(__asan_address_is_poisoned(at + 200));
    at = base_mem_address(base_arena_mem(p->arena, c));
    assert_null(__asan_region_is_poisoned(at, 200));
}
#else
static void guards_are_poisoned(void **state)
{
    (void)state;
    (void)base_mem_address;
    skip();
}
#endif

/* ==== random declarations ==== */

#define MAX_REGIONS 60

typedef struct model {
    int n;
    int64_t bytes[MAX_REGIONS];
    base_lifetime_t lifetime[MAX_REGIONS];
} model_t;

static uint32_t draw(uint32_t seed, uint32_t i, uint32_t what, uint32_t bound)
{
    const base_philox_t r = base_philox(base_philox_key(20), seed, i, what, 0);

    return (uint32_t)base_philox_below(r.word[0], r.word[1], bound);
}

static void draw_model(uint32_t seed, model_t *m)
{
    m->n = (int)draw(seed, 0, 0, MAX_REGIONS);
    for (uint32_t i = 0; i < (uint32_t)m->n; i++) {
        const int32_t first = (int32_t)draw(seed, i, 1, 12);

        m->bytes[i] = draw(seed, i, 2, 8) == 0 ? 0 : (int64_t)draw(seed, i, 3, 5000);
        m->lifetime[i].first = first;
        m->lifetime[i].last = first + (int32_t)draw(seed, i, 4, 6);
        if (draw(seed, i, 5, 10) == 0) m->lifetime[i] = BASE_LIFETIME_RUN;
    }
}

static base_arena_t *build(place_t *p, const model_t *m)
{
    base_arena_t *arena = NULL;

    assert_int_equal(base_arena_create(p->dev, BASE_MEMORY_PINNED, "random", &arena), BASE_OK);
    for (int i = 0; i < m->n; i++) {
        char name[16];

        (void)snprintf(name, sizeof name, "r%d", i);
        assert_int_equal(
            declare(arena, name, m->bytes[i], m->lifetime[i].first, m->lifetime[i].last), i);
    }
    assert_int_equal(base_arena_commit(arena), BASE_OK);
    return arena;
}

static int meet(base_lifetime_t a, base_lifetime_t b)
{
    return a.first <= b.last && b.first <= a.last;
}

/* What must hold however the offsets are chosen. */
static void check_layout(const base_arena_t *arena, const model_t *m)
{
    int64_t sum = 0;

    for (int i = 0; i < m->n; i++) {
        const int64_t begin = base_arena_mem(arena, i).offset, end = begin + m->bytes[i];

        assert_int_equal(begin % 256, 0);
        assert_true(begin >= 0 && end <= base_arena_bytes(arena));
        /* A region costs at most its bytes, the guard of sanitizer builds, and rounding. */
        if (m->bytes[i] > 0) sum += (m->bytes[i] + 128 + 255) / 256 * 256;
        for (int k = 0; k < i; k++) {
            const int64_t other = base_arena_mem(arena, k).offset;

            if (meet(m->lifetime[i], m->lifetime[k]) && m->bytes[i] > 0 && m->bytes[k] > 0)
                assert_true(end <= other || other + m->bytes[k] <= begin);
        }
    }
    assert_true(base_arena_bytes(arena) <= sum);
}

/* No arena can be smaller than what lives in one phase. */
static int64_t busiest_phase(const model_t *m)
{
    int64_t most = 0;

    for (int32_t phase = 0; phase < 20; phase++) {
        int64_t sum = 0;

        for (int i = 0; i < m->n; i++) {
            if (m->lifetime[i].first <= phase && phase <= m->lifetime[i].last) sum += m->bytes[i];
        }
        most = sum > most ? sum : most;
    }
    return most;
}

static void random_declarations(void **state)
{
    place_t *p = *state;
    model_t *m = calloc(1, sizeof *m);

    assert_non_null(m);
    for (uint32_t seed = 0; seed < 300; seed++) {
        base_arena_t *arena, *again;

        draw_model(seed, m);
        arena = build(p, m);
        again = build(p, m);
        check_layout(arena, m);
        assert_true(base_arena_bytes(arena) >= busiest_phase(m));
        assert_int_equal(base_arena_bytes(arena), base_arena_bytes(again));
        for (int i = 0; i < m->n; i++)
            assert_int_equal(base_arena_mem(arena, i).offset, base_arena_mem(again, i).offset);
        base_arena_destroy(again);
        base_arena_destroy(arena);
    }
    free(m);
}

static void no_memory(void **state)
{
    place_t *p = *state;
    base_memory_t *memory = base_ctx_memory(p->ctx);
    const int64_t live = base_memory_live_total(memory);
    base_status_t st = BASE_ERR_NOMEM;
    base_region_t region;

    for (int n = 1; st == BASE_ERR_NOMEM; n++) {
        base_arena_t *arena = NULL;

        base_memory_fail_at(memory, n);
        st = base_arena_create(p->dev, BASE_MEMORY_DEVICE, "tight", &arena);
        if (st >= 0) st = base_arena_declare(arena, "test", "a", 100, BASE_LIFETIME_RUN, &region);
        if (st >= 0) st = base_arena_commit(arena);
        base_arena_destroy(arena);
        if (st < 0) fixture_expect_error(p->ctx, BASE_ERR_NOMEM, "MEM-01", "");
        assert_int_equal(base_memory_live_total(memory), live);
    }
    assert_int_equal(st, BASE_OK);
    base_memory_fail_at(memory, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(regions_that_never_meet_share), TEST(nothing_and_no_region),
        TEST(faults_of_the_caller),          TEST(print),
        TEST(strict_regions_start_on_pages), TEST(guards_are_poisoned),
        TEST(random_declarations),           TEST(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

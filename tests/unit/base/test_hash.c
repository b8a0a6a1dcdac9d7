#include "tests/support/ctx_fixture.h"

#include "base/hash.h"

#include <stdio.h>

/* From the FNV reference page (Landon Curt Noll), 64-bit FNV-1a. */
static void known_answers(void **state)
{
    (void)state;
    assert_true(base_hash_bytes(BASE_HASH_START, "", 0) == UINT64_C(0xcbf29ce484222325));
    assert_true(base_hash_bytes(BASE_HASH_START, "a", 1) == UINT64_C(0xaf63dc4c8601ec8c));
    assert_true(base_hash_bytes(BASE_HASH_START, "foobar", 6) == UINT64_C(0x85944171f73967e8));
}

static void numbers_are_little_endian_bytes(void **state)
{
    const unsigned char bytes[8] = {0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01};
    const int64_t array[2] = {-1, 5};
    const base_hash_t want = base_hash_bytes(BASE_HASH_START, bytes, 8);

    (void)state;
    assert_true(base_hash_u64(BASE_HASH_START, UINT64_C(0x0123456789abcdef)) == want);
    assert_true(base_hash_u32(base_hash_u32(BASE_HASH_START, 0x89abcdef), 0x01234567) == want);
    assert_true(base_hash_i64(BASE_HASH_START, -1) == base_hash_u64(BASE_HASH_START, UINT64_MAX));
    assert_true(base_hash_i64_array(BASE_HASH_START, array, 2) ==
                base_hash_i64(base_hash_i64(BASE_HASH_START, -1), 5));
    assert_true(base_hash_double(BASE_HASH_START, 1.0) ==
                base_hash_u64(BASE_HASH_START, UINT64_C(0x3ff0000000000000)));
    assert_true(base_hash_double(BASE_HASH_START, 0.0) != base_hash_double(BASE_HASH_START, -0.0));
}

static void pieces_equal_the_whole(void **state)
{
    base_hash_t h = BASE_HASH_START;

    (void)state;
    h = base_hash_bytes(h, "foo", 3);
    h = base_hash_bytes(h, "bar", 3);
    assert_true(h == base_hash_bytes(BASE_HASH_START, "foobar", 6));
}

static void strings_keep_their_borders(void **state)
{
    const base_hash_t a = base_hash_string(base_hash_string(BASE_HASH_START, "a"), "b");
    const base_hash_t b = base_hash_string(base_hash_string(BASE_HASH_START, "ab"), "");

    (void)state;
    assert_true(a != b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(numbers_are_little_endian_bytes),
        cmocka_unit_test(pieces_equal_the_whole),
        cmocka_unit_test(strings_keep_their_borders),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

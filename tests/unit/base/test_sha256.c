#include "tests/support/ctx_fixture.h"

#include "base/file.h"
#include "base/sha256.h"

#include <stdio.h>
#include <unistd.h>

#define FILE_NAME "sha256_test.bin"

/* FIPS 180-4's own examples (NIST, "SHA-256 examples"), the empty message, and the ends of the
 * padding: 55 bytes are the last that fit one block, 56 and 64 need another. The latter three come
 * from coreutils' sha256sum. */
static const struct {
    const char *text; /* NULL: `count` letters a */
    size_t count;
    const char *hex;
} cases[] = {
    {"", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {NULL, 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
    {NULL, 55, "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"},
    {NULL, 56, "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"},
    {NULL, 64, "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"},
};
#define NUM_CASES (sizeof cases / sizeof *cases)

static char letters[1000000];

static const char *text_of(size_t i)
{
    memset(letters, 'a', sizeof letters);
    return cases[i].text != NULL ? cases[i].text : letters;
}

static void known_answers(void **state)
{
    char hex[BASE_SHA256_HEX_BYTES];

    (void)state;
    for (size_t i = 0; i < NUM_CASES; i++) {
        base_sha256_hex(text_of(i), cases[i].count, hex);
        assert_string_equal(hex, cases[i].hex);
        assert_true(base_sha256_is_hex(hex));
    }
    assert_false(base_sha256_is_hex(""));
    assert_false(base_sha256_is_hex("E3"));
    hex[0] = 'A';
    assert_false(base_sha256_is_hex(hex));
}

/* Pieces of every length from 1 to 130 give what the whole gives. */
static void pieces_equal_the_whole(void **state)
{
    char whole[BASE_SHA256_HEX_BYTES], hex[BASE_SHA256_HEX_BYTES];
    unsigned char text[1000];

    (void)state;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (unsigned char)(i * 7 + i / 256);
    base_sha256_hex(text, sizeof text, whole);
    for (size_t step = 1; step <= 130; step++) {
        base_sha256_t h;

        base_sha256_init(&h);
        for (size_t at = 0; at < sizeof text; at += step) {
            const size_t left = sizeof text - at;

            base_sha256_update(&h, text + at, left < step ? left : step);
            base_sha256_update(&h, NULL, 0);
        }
        base_sha256_finish(&h, hex);
        assert_string_equal(hex, whole);
    }
}

static void files(void **state)
{
    base_ctx_t *ctx = fixture_ctx();
    char hex[BASE_SHA256_HEX_BYTES];

    (void)state;
    for (size_t i = 0; i < NUM_CASES; i++) {
        assert_int_equal(base_file_write(ctx, FILE_NAME, text_of(i), cases[i].count), BASE_OK);
        assert_int_equal(base_sha256_file(ctx, FILE_NAME, hex), BASE_OK);
        assert_string_equal(hex, cases[i].hex);
    }
    assert_int_equal(unlink(FILE_NAME), 0);
    assert_int_equal(base_sha256_file(ctx, FILE_NAME, hex), BASE_ERR_IO);
    fixture_expect_error(ctx, BASE_ERR_IO, "IO-01", FILE_NAME ": cannot open: No such file");
    assert_int_equal(base_sha256_file(ctx, ".", hex), BASE_ERR_IO);
    fixture_expect_error(ctx, BASE_ERR_IO, "IO-01", ".: cannot read: Is a directory");
    assert_int_equal(base_file_write(ctx, FILE_NAME, "a", 1), BASE_OK);
    base_memory_fail_at(base_ctx_memory(ctx), 1);
    assert_int_equal(base_sha256_file(ctx, FILE_NAME, hex), BASE_ERR_NOMEM);
    assert_int_equal(unlink(FILE_NAME), 0);
    fixture_ctx_end(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(pieces_equal_the_whole),
        cmocka_unit_test(files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

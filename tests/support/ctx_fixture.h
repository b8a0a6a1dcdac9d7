/* What most unit tests need: a context that must be empty at the end, and a look at the recorded
 * error. Includes cmocka with what it wants to see first. */
#ifndef CADRE_TESTS_SUPPORT_CTX_FIXTURE_H
#define CADRE_TESTS_SUPPORT_CTX_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/context.h"
#include "base/memory.h"

static inline base_ctx_t *fixture_ctx(void)
{
    base_ctx_t *ctx = NULL;

    assert_int_equal(base_ctx_create(0, 1, NULL, &ctx), BASE_OK);
    return ctx;
}

/* Destroys the context; whatever still lives in it is a leak. */
static inline void fixture_ctx_end(base_ctx_t *ctx)
{
    if (base_memory_live_total(base_ctx_memory(ctx)) != 0) {
        base_memory_report(base_ctx_memory(ctx), stderr);
        fail_msg("objects outlive their context");
    }
    base_ctx_destroy(ctx);
}

/* The recorded error has this status, this id ("MEM-01") and this piece of text; it is cleared. */
static inline void fixture_expect_error(base_ctx_t *ctx, base_status_t st, const char *id,
                                        const char *piece)
{
    base_error_t error;

    assert_true(base_ctx_error(ctx, &error));
    assert_int_equal(error.status, st);
    assert_string_equal(base_message_id(error.message), id);
    if (strstr(error.text, piece) == NULL) fail_msg("\"%s\" is not in \"%s\"", piece, error.text);
    base_ctx_clear_error(ctx);
}

#endif

/* Conformance cases of base/device: what every device promises, as one table run against each
 * kind. */
#ifndef CADRE_TESTS_UNIT_DEVICE_DEVICE_CASES_H
#define CADRE_TESTS_UNIT_DEVICE_DEVICE_CASES_H

#include "base/context.h"
#include "base/device/device.h"
#include "base/device/device_host.h"
#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs setjmp.h, stdarg.h, stddef.h and stdint.h. */
#include <cmocka.h>

enum {
    ON_CPU = 1 << BASE_DEVICE_CPU,
    ON_STRICT = 1 << BASE_DEVICE_STRICT,
    ON_CUDA = 1 << BASE_DEVICE_CUDA,
    ON_HOST = ON_CPU | ON_STRICT,
    ON_ALL = ON_HOST | ON_CUDA
};

/* What a case gets: a fresh context and device, and nothing else alive. */
typedef struct device_env {
    base_device_kind_t kind;
    base_ctx_t *ctx;
    base_device_t *dev;
    int32_t stop; /* the context's stop flag */
} device_env_t;

typedef struct device_case {
    const char *name;
    int kinds; /* ON_* */
    void (*run)(device_env_t *env);
} device_case_t;

/* One table per file, ended by a NULL name. */
extern const device_case_t device_cases_copy[];
extern const device_case_t device_cases_order[];
extern const device_case_t device_cases_wait[];
extern const device_case_t device_cases_memory[];
extern const device_case_t device_cases_share[];
extern const device_case_t device_cases_mark[];
extern const device_case_t device_cases_strict[];
extern const device_case_t device_cases_cuda[]; /* empty in builds without CUDA */

#define EXPECT(expr, status) assert_int_equal((expr), (status))
#define OK(expr)             EXPECT(expr, BASE_OK)

/* The recorded error has this status and message and, if text is not NULL, contains it; clears
 * it. */
void env_expect_error(device_env_t *env, base_status_t st, base_message_t msg, const char *text);

base_buffer_t *env_buffer(device_env_t *env, int64_t bytes);
base_stream_t *env_stream(device_env_t *env, base_stream_kind_t kind);
base_range_t range_of(base_buffer_t *buf, int64_t offset, int64_t row_bytes, int64_t rows,
                      int64_t pitch);
int64_t now_ms(void);

#endif

/* Runs the conformance cases: device_conformance [cpu|strict|cuda]...; without arguments on
 * every device there is. Exit status 77: a named device is not there. */
#include "tests/unit/device/device_cases.h"
#include "tests/unit/device/device_peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_CASES 128

void env_expect_error(device_env_t *env, base_status_t st, base_message_t msg, const char *text)
{
    base_error_t error;
    assert_true(base_ctx_error(env->ctx, &error));
    if (error.status != st || error.message != msg ||
        (text != NULL && strstr(error.text, text) == NULL))
        fail_msg("recorded: %s %s: %s", base_status_name(error.status),
                 base_message_id(error.message), error.text);
    base_ctx_clear_error(env->ctx);
}

base_buffer_t *env_buffer(device_env_t *env, int64_t bytes)
{
    base_buffer_t *buf = NULL;
    OK(base_buffer_alloc(env->dev, BASE_MEMORY_DEVICE, bytes, "test buffer", &buf));
    return buf;
}

base_stream_t *env_stream(device_env_t *env, base_stream_kind_t kind)
{
    base_stream_t *s = NULL;
    OK(base_stream_create(env->dev, kind, kind == BASE_STREAM_COMPUTE ? "compute" : "async", &s));
    return s;
}

base_range_t range_of(base_buffer_t *buf, int64_t offset, int64_t row_bytes, int64_t rows,
                      int64_t pitch)
{
    const base_range_t r = {base_mem(buf, offset), row_bytes, rows, pitch};
    return r;
}

int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

typedef struct run_case {
    const device_case_t *item;
    base_device_kind_t kind;
} run_case_t;

static void run(void **state)
{
    const run_case_t *rc = *state;
    device_env_t env = {.kind = rc->kind};
    base_error_t error;

    OK(base_ctx_create(0, 1, NULL, &env.ctx));
    base_ctx_set_stop_flag(env.ctx, &env.stop);
    base_ctx_set_deadline_ms(env.ctx, 60000);
    OK(base_device_open(env.ctx, rc->kind, 0, &env.dev));
    rc->item->run(&env);
    if (base_ctx_error(env.ctx, &error)) /* a case clears the errors that it provokes */
        fail_msg("left over: %s (%s:%d)", error.text, error.file, error.line);
    base_device_close(env.dev);
    assert_int_equal(base_memory_live_total(base_ctx_memory(env.ctx)), 0);
    base_ctx_destroy(env.ctx);
}

static int run_kind(base_device_kind_t kind, const char *word)
{
    const device_case_t *const tables[] = {
        device_cases_copy,  device_cases_order, device_cases_wait,   device_cases_memory,
        device_cases_share, device_cases_mark,  device_cases_strict, device_cases_cuda};
    struct CMUnitTest tests[MAX_CASES];
    run_case_t cases[MAX_CASES];
    size_t num = 0;

    memset(tests, 0, sizeof tests);
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const device_case_t *c = tables[t]; c->name != NULL; c++) {
            if ((c->kinds & (1 << kind)) == 0 || num == MAX_CASES) continue;
            cases[num] = (run_case_t){c, kind};
            tests[num] = (struct CMUnitTest){
                .name = c->name, .test_func = run, .initial_state = &cases[num]};
            num++;
        }
    printf("device %s: %zu cases\n", word, num);
    return _cmocka_run_group_tests(word, tests, num, NULL, NULL);
}

/* 1 when the device opens; else prints why. */
static int available(base_device_kind_t kind)
{
    base_ctx_t *ctx = NULL;
    base_device_t *dev = NULL;
    base_error_t error;

    if (base_ctx_create(0, 1, NULL, &ctx) < 0) return 0;
    const base_status_t st = base_device_open(ctx, kind, 0, &dev);
    if (st == BASE_OK)
        printf("%s\n", base_device_name(dev));
    else if (base_ctx_error(ctx, &error))
        printf("skipped: %s %s\n", base_message_id(error.message), error.text);
    base_device_close(dev);
    base_ctx_destroy(ctx);
    return st == BASE_OK;
}

int main(int argc, char **argv)
{
    const char *const words[] = {"cpu", "strict", "cuda"};
    int failed = 0, skipped = 0;

    if (argc == 3 && strcmp(argv[1], DEVICE_PEER_WORD) == 0)
        return device_peer_main((base_device_kind_t)strtol(argv[2], NULL, 10));
    for (int k = 0; k < 3; k++) {
        int wanted = argc == 1;
        for (int i = 1; i < argc; i++)
            wanted = wanted || strcmp(argv[i], words[k]) == 0;
        if (!wanted) continue;
        if (available((base_device_kind_t)k))
            failed += run_kind((base_device_kind_t)k, words[k]);
        else
            skipped++;
    }
    if (failed > 0) return EXIT_FAILURE;
    return skipped > 0 && argc > 1 ? 77 : EXIT_SUCCESS;
}

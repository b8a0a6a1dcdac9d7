/* The strict device kills whoever touches a buffer outside work, or inside work that did not
 * name it. Each attempt runs in a child of its own, made while the process has one thread. */
#include "tests/unit/device/device_cases.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

typedef enum attempt {
    READ_OUTSIDE_WORK,
    READ_UNNAMED,
    WRITE_READ_ONLY,
    READ_PAST_END, /* of the last page */
    READ_BEFORE_START,
    READ_OTHER_PAGE,
    READ_AFTER_WORK, /* closed again */
    READ_NAMED,      /* the legal ones */
    WRITE_NAMED,
    OPEN_BY_HAND
} attempt_t;

typedef struct touch_args {
    volatile unsigned char *at; /* NULL: nothing */
    int write;
    base_operand_t by_hand; /* opened and closed by the work itself */
} touch_args_t;

static base_status_t touch(void *args)
{
    const touch_args_t *a = args;
    if (a->by_hand.range.rows > 0) base_host_open(&a->by_hand, 1);
    if (a->at != NULL && a->write)
        *a->at = 1;
    else if (a->at != NULL)
        (void)*a->at;
    if (a->by_hand.range.rows > 0) base_host_close(&a->by_hand, 1);
    return BASE_OK;
}

/* In the child: 0 when the attempt went through. */
static int try_it(attempt_t what)
{
    base_ctx_t *ctx;
    base_device_t *dev;
    base_buffer_t *x, *y;
    base_stream_t *s;

    if (base_ctx_create(0, 1, NULL, &ctx) < 0 ||
        base_device_open(ctx, BASE_DEVICE_STRICT, 0, &dev) < 0 ||
        base_buffer_alloc(dev, BASE_MEMORY_DEVICE, 8192, "x", &x) < 0 ||
        base_buffer_alloc(dev, BASE_MEMORY_DEVICE, 8192, "y", &y) < 0 ||
        base_stream_create(dev, BASE_STREAM_COMPUTE, "s", &s) < 0)
        return 1;
    unsigned char *at = base_mem_address(base_mem(x, 0));
    base_operand_t operand = {range_of(x, 0, 100, 1, 0), BASE_READ};
    touch_args_t args = {.at = at};

    switch (what) {
    case READ_OUTSIDE_WORK:
        return touch(&args);
    case READ_UNNAMED:
        operand.range.mem.buffer = y;
        break;
    case WRITE_READ_ONLY:
        args.write = 1;
        break;
    case READ_PAST_END:
        operand.range = range_of(x, 0, 8192, 1, 0);
        args.at = at + 3 * 4096; /* 8192 bytes have a third page, for the pattern behind them */
        break;
    case READ_BEFORE_START:
        args.at = at - 1;
        break;
    case READ_OTHER_PAGE:
        args.at = at + 4096;
        break;
    case READ_AFTER_WORK: {
        const touch_args_t nothing = {.at = NULL};
        if (base_stream_submit(s, touch, &nothing, sizeof nothing, &operand, 1) < 0 ||
            base_stream_sync(s) < 0)
            return 1;
        return touch(&args);
    }
    case READ_NAMED:
        break;
    case WRITE_NAMED:
        operand.access = BASE_WRITE;
        args.write = 1;
        break;
    case OPEN_BY_HAND:
        args.by_hand = operand;
        operand.range.mem.buffer = y;
        break;
    }
    if (base_stream_submit(s, touch, &args, sizeof args, &operand, 1) < 0) return 1;
    return base_stream_sync(s) < 0;
}

/* The signal that ended the child, 0 when it ended well. */
static int signal_of(attempt_t what)
{
    int status = 0;
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL); /* not a sanitizer's report */
        alarm(20);
        _exit(try_it(what));
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
}

static void touching_dies(device_env_t *env)
{
    (void)env;
    for (int what = READ_OUTSIDE_WORK; what <= READ_AFTER_WORK; what++)
        if (signal_of((attempt_t)what) != SIGSEGV) fail_msg("attempt %d lived", what);
    for (int what = READ_NAMED; what <= OPEN_BY_HAND; what++)
        if (signal_of((attempt_t)what) != 0) fail_msg("attempt %d died", what);
}

/* Two streams hold the same page open; it closes with the last. */
static void page_shared_by_two(device_env_t *env)
{
    enum { N = 400 };
    base_stream_t *s[2] = {env_stream(env, BASE_STREAM_COMPUTE),
                           env_stream(env, BASE_STREAM_ASYNC)};
    base_buffer_t *x = env_buffer(env, 4 * 4096);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < 2; k++) {
            /* neighbours in one page, then spans over several */
            const base_range_t to = range_of(x, k * 64, 64, 1 + i % 4, 4096);
            OK(base_fill(s[k], &to, (uint8_t)i));
        }
    for (int k = 0; k < 2; k++)
        OK(base_stream_sync(s[k]));
    for (int k = 0; k < 2; k++)
        base_stream_destroy(s[k]);
    base_buffer_free(x);
}

static base_status_t overrun(void *args)
{
    **(unsigned char **)args = 0;
    return BASE_OK;
}

static void overrun_is_found_at_free(device_env_t *env)
{
    base_stream_t *s = env_stream(env, BASE_STREAM_COMPUTE);
    base_buffer_t *x = env_buffer(env, 100);
    const base_operand_t operand = {range_of(x, 0, 100, 1, 0), BASE_WRITE};
    unsigned char *past = (unsigned char *)base_mem_address(base_mem(x, 0)) + 100;
    OK(base_stream_submit(s, overrun, &past, sizeof past, &operand, 1));
    OK(base_stream_sync(s));
    base_buffer_free(x);
    env_expect_error(env, BASE_ERR_INTERNAL, BASE_MSG_INT_01, "byte 100 was written");
    base_stream_destroy(s);
}

const device_case_t device_cases_strict[] = {
    {"touching_dies", ON_STRICT, touching_dies},
    {"page_shared_by_two", ON_STRICT, page_shared_by_two},
    {"overrun_is_found_at_free", ON_STRICT, overrun_is_found_at_free},
    {NULL, 0, NULL},
};

#include "trainer/run/run_status.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json_write.h"
#include "base/memory.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#define HOST_BYTES 256
/* The sentence, every byte of it escaped, and the rest. */
#define TEXT_BYTES (6 * (BASE_ERROR_TEXT_BYTES + HOST_BYTES) + 512)

struct tr_run_status {
    base_ctx_t *ctx;
    base_ctx_t *beat_ctx; /* the thread's: its errors are nobody's */
    int64_t interval_ns;
    pthread_t thread;
    pthread_cond_t wake;
    int closing;
    pthread_mutex_t mutex; /* of all but what never changes */
    tr_run_state_t state;
    int64_t microbatch;
    char *path;
    tr_now_fn now;
    int64_t next_ns; /* an update before then writes nothing */
    char host[HOST_BYTES];
    char text[TEXT_BYTES];
};

const char *tr_run_state_word(tr_run_state_t state)
{
    static const char *const words[] = {
#define X(name, word) word,
        TR_RUN_STATE_MAP(X)
#undef X
    };

    return (unsigned)state < TR_RUN_STATE_COUNT ? words[state] : NULL;
}

static void put_error(base_json_t *j, const base_error_t *error)
{
    char text[BASE_ERROR_TEXT_BYTES + 32];

    base_json_key(j, "error");
    if (error == NULL) {
        base_json_null(j);
        return;
    }
    (void)snprintf(text, sizeof text, "%s: %s", base_message_id(error->message), error->text);
    base_json_string(j, text);
}

static base_status_t write_now(tr_run_status_t *status, base_ctx_t *ctx, const base_error_t *error)
{
    char time[BASE_CLOCK_TEXT_BYTES];
    base_json_t j;

    base_clock_format(base_clock_wall_ns(), time);
    base_json_to_buffer(&j, status->text, sizeof status->text);
    base_json_begin_object(&j);
    base_json_put_string(&j, "state", tr_run_state_word(status->state));
    base_json_put_int(&j, "microbatch", status->microbatch);
    base_json_put_string(&j, "time", time);
    base_json_put_string(&j, "host", status->host);
    base_json_put_int(&j, "pid", (int64_t)getpid());
    put_error(&j, error);
    base_json_end(&j);
    base_json_newline(&j);
    BASE_TRY(base_json_finish(&j, ctx, status->path));
    BASE_TRY(base_file_write(ctx, status->path, status->text, j.bytes));
    status->next_ns = status->now() + TR_RUN_STATUS_INTERVAL_NS;
    return BASE_OK;
}

base_status_t tr_run_status_set(tr_run_status_t *status, tr_run_state_t state, int64_t microbatch,
                                const base_error_t *error)
{
    (void)pthread_mutex_lock(&status->mutex);
    status->state = state;
    status->microbatch = microbatch;
    const base_status_t st = write_now(status, status->ctx, error);
    (void)pthread_mutex_unlock(&status->mutex);
    return st;
}

base_status_t tr_run_status_update(tr_run_status_t *status, int64_t microbatch)
{
    base_status_t st = BASE_OK;

    (void)pthread_mutex_lock(&status->mutex);
    status->microbatch = microbatch;
    status->state = TR_RUN_STATE_RUNNING;
    if (status->now() >= status->next_ns) st = write_now(status, status->ctx, NULL);
    (void)pthread_mutex_unlock(&status->mutex);
    return st;
}

/* ==== the thread ==== */

static void wait_until(tr_run_status_t *s, int64_t ns)
{
    const int64_t second = INT64_C(1000000000);
    struct timespec at;

    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    const int64_t then = at.tv_sec * second + at.tv_nsec + ns;
    at.tv_sec = (time_t)(then / second);
    at.tv_nsec = (long)(then % second);
    (void)pthread_cond_timedwait(&s->wake, &s->mutex, &at);
}

static void *beat_main(void *arg)
{
    tr_run_status_t *s = arg;

    (void)pthread_mutex_lock(&s->mutex);
    while (!s->closing) {
        wait_until(s, s->interval_ns);
        if (s->closing || s->state != TR_RUN_STATE_RUNNING || s->now() < s->next_ns) continue;
        if (write_now(s, s->beat_ctx, NULL) < 0) base_ctx_clear_error(s->beat_ctx);
    }
    (void)pthread_mutex_unlock(&s->mutex);
    return NULL;
}

base_status_t tr_run_status_beat(tr_run_status_t *status, int64_t interval_ns)
{
    tr_run_status_t *s = status;

    if (base_ctx_create(base_ctx_rank(s->ctx), base_ctx_size(s->ctx), NULL, &s->beat_ctx) < 0)
        return BASE_FAIL(s->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "%s: no context", s->path);
    s->interval_ns = interval_ns;
    if (pthread_create(&s->thread, NULL, beat_main, s) != 0) {
        base_ctx_destroy(s->beat_ctx);
        s->beat_ctx = NULL;
        return BASE_FAIL(s->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "%s: no thread", s->path);
    }
    base_memory_count_open(base_ctx_memory(s->ctx), BASE_RESOURCE_THREAD);
    return BASE_OK;
}

static void end_beat(tr_run_status_t *s)
{
    if (s->beat_ctx == NULL) return;
    (void)pthread_mutex_lock(&s->mutex);
    s->closing = 1;
    (void)pthread_cond_signal(&s->wake);
    (void)pthread_mutex_unlock(&s->mutex);
    (void)pthread_join(s->thread, NULL);
    base_memory_count_close(base_ctx_memory(s->ctx), BASE_RESOURCE_THREAD);
    base_ctx_destroy(s->beat_ctx);
}

/* ==== life ==== */

static int init_locks(tr_run_status_t *s)
{
    pthread_condattr_t monotonic;

    if (pthread_mutex_init(&s->mutex, NULL) != 0) return 0;
    int good = pthread_condattr_init(&monotonic) == 0;
    if (good) {
        good = pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0 &&
               pthread_cond_init(&s->wake, &monotonic) == 0;
        (void)pthread_condattr_destroy(&monotonic);
    }
    if (!good) (void)pthread_mutex_destroy(&s->mutex);
    return good;
}

base_status_t tr_run_status_create(base_ctx_t *ctx, const char *path, tr_now_fn now,
                                   int64_t microbatch, tr_run_status_t **status_p)
{
    base_status_t st = BASE_ERR_NOMEM;
    tr_run_status_t *status = base_calloc(ctx, 1, sizeof *status, "status of the run");

    if (status == NULL) return BASE_ERR_NOMEM;
    if (!init_locks(status)) {
        base_free(ctx, status);
        return BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "%s: no lock", path);
    }
    status->ctx = ctx;
    status->now = now;
    /* The last byte stays 0: gethostname need not terminate a name that it cuts. */
    (void)gethostname(status->host, sizeof status->host - 1);
    status->path = base_strdup(ctx, path, "path of the status");
    if (status->path == NULL) goto err_destroy_status;
    BASE_TRY_GOTO(tr_run_status_set(status, TR_RUN_STATE_RUNNING, microbatch, NULL), st,
                  err_destroy_status);
    *status_p = status;
    return BASE_OK;
err_destroy_status:
    tr_run_status_destroy(status);
    return st;
}

void tr_run_status_destroy(tr_run_status_t *status)
{
    base_ctx_t *ctx;

    if (status == NULL) return;
    ctx = status->ctx;
    end_beat(status);
    (void)pthread_cond_destroy(&status->wake);
    (void)pthread_mutex_destroy(&status->mutex);
    base_free(ctx, status->path);
    base_free(ctx, status);
}

#include "trainer/run/run_status.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json_write.h"
#include "base/memory.h"

#include <unistd.h>

#define HOST_BYTES 256
/* The sentence, every byte of it escaped, and the rest. */
#define TEXT_BYTES (6 * (BASE_ERROR_TEXT_BYTES + HOST_BYTES) + 512)

struct tr_run_status {
    base_ctx_t *ctx;
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

base_status_t tr_run_status_set(tr_run_status_t *status, tr_run_state_t state, int64_t microbatch,
                                const base_error_t *error)
{
    char time[BASE_CLOCK_TEXT_BYTES];
    base_json_t j;

    base_clock_format(base_clock_wall_ns(), time);
    base_json_to_buffer(&j, status->text, sizeof status->text);
    base_json_begin_object(&j);
    base_json_key(&j, "state");
    base_json_string(&j, tr_run_state_word(state));
    base_json_key(&j, "microbatch");
    base_json_int(&j, microbatch);
    base_json_key(&j, "time");
    base_json_string(&j, time);
    base_json_key(&j, "host");
    base_json_string(&j, status->host);
    base_json_key(&j, "pid");
    base_json_int(&j, (int64_t)getpid());
    put_error(&j, error);
    base_json_end(&j);
    base_json_newline(&j);
    BASE_TRY(base_json_finish(&j, status->ctx, status->path));
    BASE_TRY(base_file_write(status->ctx, status->path, status->text, j.bytes));
    status->next_ns = status->now() + TR_RUN_STATUS_INTERVAL_NS;
    return BASE_OK;
}

base_status_t tr_run_status_update(tr_run_status_t *status, int64_t microbatch)
{
    if (status->now() < status->next_ns) return BASE_OK;
    return tr_run_status_set(status, TR_RUN_STATE_RUNNING, microbatch, NULL);
}

base_status_t tr_run_status_create(base_ctx_t *ctx, const char *path, tr_now_fn now,
                                   int64_t microbatch, tr_run_status_t **status_p)
{
    base_status_t st = BASE_ERR_NOMEM;
    tr_run_status_t *status = base_calloc(ctx, 1, sizeof *status, "status of the run");

    if (status == NULL) return BASE_ERR_NOMEM;
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
    base_free(ctx, status->path);
    base_free(ctx, status);
}

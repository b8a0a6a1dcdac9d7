#include "trainer/run/rank_state.h"

#include "base/log.h"
#include "base/memory.h"
#include "trainer/run/signals.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 256
#define POLL_NS    100000000

struct tr_rank_state {
    base_ctx_t *ctx;
    int rank;
    base_log_t *log;
    FILE *out;
    int exit_code;
    int32_t closing;    /* atomic builtins */
    base_place_t place; /* likewise */
    pthread_t thread;
    pthread_mutex_t mutex; /* of what follows */
    const char *role;
    int number;
    int64_t microbatches;
    const char *how; /* "at work" */
    char *line;      /* mapped; or of this process only */
    int mapped;
};

/* ", in layer 3 of ping, waiting for rank 2" as far as it is so. */
static void place_text(const tr_rank_state_t *s, char *text, size_t room)
{
    const int32_t layer = __atomic_load_n(&s->place.layer, __ATOMIC_RELAXED);
    const int32_t half = __atomic_load_n(&s->place.half, __ATOMIC_RELAXED);
    const int32_t peer = __atomic_load_n(&s->place.peer, __ATOMIC_RELAXED);
    char in[64] = "", waits[64] = "";

    if (half >= 0 && layer >= 0)
        (void)snprintf(in, sizeof in, ", in layer %" PRId32 " of %s", layer,
                       half == 0 ? "ping" : "pong");
    else if (half >= 0) /* sums over trainers, control records */
        (void)snprintf(in, sizeof in, ", between microbatches");
    if (peer >= 0) (void)snprintf(waits, sizeof waits, ", waiting for rank %" PRId32, peer);
    (void)snprintf(text, room, "%s%s", in, waits);
}

static void write_line(tr_rank_state_t *s)
{
    char text[LINE_BYTES], place[128];

    place_text(s, place, sizeof place);
    (void)snprintf(text, sizeof text,
                   "rank %d (%s %d, process %ld): %s after %" PRId64 " microbatches%s", s->rank,
                   s->role, s->number, (long)getpid(), s->how, s->microbatches, place);
    memset(s->line, ' ', LINE_BYTES - 1);
    memcpy(s->line, text, strlen(text));
    s->line[LINE_BYTES - 1] = '\n';
}

static void set_how(tr_rank_state_t *s, const char *how)
{
    (void)pthread_mutex_lock(&s->mutex);
    s->how = how;
    write_line(s);
    (void)pthread_mutex_unlock(&s->mutex);
}

/* ==== SIGTERM ==== */

static void say(tr_rank_state_t *s)
{
    static const char why[] = "another rank has died, or all are to end";
    char line[2 * LINE_BYTES], place[128];

    place_text(s, place, sizeof place);
    (void)snprintf(line, sizeof line,
                   "rank %d (%s %d): told to end (SIGTERM) after %" PRId64 " microbatches%s: %s",
                   s->rank, s->role, s->number, s->microbatches, place, why);
    if (s->out != NULL && !s->mapped) {
        (void)fprintf(s->out, "\ncadre: %s\n", line);
        (void)fflush(s->out);
    }
    if (base_log_file_line(s->log, s->ctx, "%s", line) < 0)
        return; /* a full disk; it ends anyway */
}

static void *signal_main(void *arg)
{
    const struct timespec poll = {.tv_nsec = POLL_NS};
    tr_rank_state_t *s = arg;
    sigset_t set;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    while (__atomic_load_n(&s->closing, __ATOMIC_ACQUIRE) == 0) {
        if (sigtimedwait(&set, NULL, &poll) != SIGTERM) {
            set_how(s, "at work"); /* with the place of now */
            continue;
        }
        set_how(s, "told to end (SIGTERM)");
        say(s);
        _exit(s->exit_code);
    }
    return NULL;
}

/* ==== life ==== */

static void map_line(tr_rank_state_t *s)
{
    const char *folder = getenv("CADRE_RANK_STATE");
    char path[4096];
    void *line;

    if (folder == NULL ||
        snprintf(path, sizeof path, "%s/rank-%04d", folder, s->rank) >= (int)sizeof path)
        return;
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return;
    line = ftruncate(fd, LINE_BYTES) == 0
               ? mmap(NULL, LINE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
               : MAP_FAILED;
    (void)close(fd);
    if (line == MAP_FAILED) return;
    base_free(s->ctx, s->line);
    s->line = line;
    s->mapped = 1;
}

static void free_state(tr_rank_state_t *s)
{
    if (s->mapped)
        (void)munmap(s->line, LINE_BYTES);
    else
        base_free(s->ctx, s->line);
    (void)pthread_mutex_destroy(&s->mutex);
    base_free(s->ctx, s);
}

base_status_t tr_rank_state_open(base_ctx_t *ctx, int rank, base_log_t *log, FILE *out,
                                 int exit_code, tr_rank_state_t **state_p)
{
    tr_rank_state_t *s = base_calloc(ctx, 1, sizeof *s, "state of the rank");
    sigset_t set;

    if (s == NULL) return BASE_ERR_NOMEM;
    *s = (tr_rank_state_t){.ctx = ctx,
                           .rank = rank,
                           .log = log,
                           .out = out,
                           .exit_code = exit_code,
                           .role = "no role yet",
                           .place = {-1, -1, -1},
                           .how = "at work"};
    s->line = base_calloc(ctx, LINE_BYTES, 1, "state of the rank");
    if (s->line == NULL || pthread_mutex_init(&s->mutex, NULL) != 0) {
        base_free(ctx, s->line);
        base_free(ctx, s);
        return BASE_ERR_NOMEM;
    }
    map_line(s);
    write_line(s);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0 ||
        pthread_create(&s->thread, NULL, signal_main, s) != 0) {
        free_state(s);
        return BASE_FAIL(ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "rank %d: no thread", rank);
    }
    tr_signals_divert(SIGTERM);
    base_memory_count_open(base_ctx_memory(ctx), BASE_RESOURCE_THREAD);
    *state_p = s;
    return BASE_OK;
}

void tr_rank_state_close(tr_rank_state_t *state)
{
    if (state == NULL) return;
    __atomic_store_n(&state->closing, 1, __ATOMIC_RELEASE);
    (void)pthread_join(state->thread, NULL);
    set_how(state, "ended");
    base_memory_count_close(base_ctx_memory(state->ctx), BASE_RESOURCE_THREAD);
    free_state(state);
}

base_place_t *tr_rank_state_place(tr_rank_state_t *state)
{
    return state != NULL ? &state->place : NULL;
}

void tr_rank_state_set_role(tr_rank_state_t *state, const char *role, int number)
{
    if (state == NULL) return;
    (void)pthread_mutex_lock(&state->mutex);
    state->role = role;
    state->number = number;
    write_line(state);
    (void)pthread_mutex_unlock(&state->mutex);
}

void tr_rank_state_set_microbatch(tr_rank_state_t *state, int64_t done)
{
    if (state == NULL) return;
    (void)pthread_mutex_lock(&state->mutex);
    state->microbatches = done;
    write_line(state);
    (void)pthread_mutex_unlock(&state->mutex);
}

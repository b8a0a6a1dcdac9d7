#include "lora/pack_process.h"

#include "base/clock.h"
#include "lora/bound.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX       LORA_PACK_PROCESS_DOCUMENTS
#define POLL_MS   20 /* between looks at the stop flag */
#define OWN_IMAGE "/proc/self/exe"
#define WORD      "pack-window"
enum { CHILD_IN, CHILD_OUT }; /* descriptors of a process that reads and answers */

/* Both ends are one program: what lies between them are its own structs. Every adapter has a batch
 * and every batch a document. */
typedef struct question {
    lora_window_t window; /* its pointers mean nothing */
    int32_t nodes, num_microbatches;
    lora_window_adapter_t adapters[MAX];
    lora_window_batch_t batches[MAX];
    int64_t rows[MAX];
    int32_t microbatch[MAX];
} question_t;

typedef struct answer {
    lora_exact_result_t result;
    int32_t num_microbatches;
    int32_t microbatch[MAX];
} answer_t;

/* ==== whoever asks ==== */

static void put_question(question_t *q, const lora_window_t *window, int32_t nodes,
                         const lora_schedule_t *schedule)
{
    const size_t documents = (size_t)window->num_documents;

    memset(q, 0, sizeof *q);
    q->window = *window;
    q->nodes = nodes;
    q->num_microbatches = schedule->num_microbatches;
    memcpy(q->adapters, window->adapters, (size_t)window->num_adapters * sizeof *q->adapters);
    memcpy(q->batches, window->batches, (size_t)window->num_batches * sizeof *q->batches);
    memcpy(q->rows, window->rows, documents * sizeof *q->rows);
    memcpy(q->microbatch, schedule->microbatch, documents * sizeof *q->microbatch);
}

/* With no signal for it but those that nobody can block: a Ctrl-C at the terminal is the rank's. */
static int spawn(int end, pid_t *child)
{
    char name[] = "cadre", word[] = WORD;
    char *const argv[] = {name, word, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t all;

    int failed = posix_spawn_file_actions_init(&actions);
    if (failed != 0) return failed;
    failed = posix_spawnattr_init(&attributes);
    if (failed != 0) goto out_actions;
    (void)sigfillset(&all);
    failed = posix_spawnattr_setsigmask(&attributes, &all);
    if (failed == 0) failed = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    if (failed == 0) failed = posix_spawn_file_actions_adddup2(&actions, end, CHILD_IN);
    if (failed == 0) failed = posix_spawn_file_actions_adddup2(&actions, end, CHILD_OUT);
    if (failed == 0) failed = posix_spawn(child, OWN_IMAGE, &actions, &attributes, argv, environ);
    (void)posix_spawnattr_destroy(&attributes);
out_actions:
    (void)posix_spawn_file_actions_destroy(&actions);
    return failed;
}

static base_status_t fail(base_ctx_t *ctx, const char *what)
{
    return BASE_FAIL(ctx, BASE_ERR_STATE, BASE_MSG_PLAN_02, "rank %d: exact packer: its process %s",
                     base_ctx_rank(ctx), what);
}

static base_status_t send_question(base_ctx_t *ctx, int end, const question_t *q)
{
    const char *bytes = (const char *)q;

    for (size_t done = 0; done < sizeof *q;) {
        const ssize_t n = send(end, bytes + done, sizeof *q - done, MSG_NOSIGNAL);

        if (n < 0 && errno != EINTR) return fail(ctx, "ended before it was asked");
        if (n > 0) done += (size_t)n;
    }
    return BASE_OK;
}

static base_status_t receive_answer(base_ctx_t *ctx, int end, answer_t *answer)
{
    const int64_t patience_ms = base_ctx_deadline_ms(ctx);
    const int64_t until_ns = base_clock_ns() + patience_ms * 1000000;
    char *bytes = (char *)answer;

    for (size_t have = 0; have < sizeof *answer;) {
        struct pollfd ready = {.fd = end, .events = POLLIN};
        const int some = poll(&ready, 1, POLL_MS);

        if (base_ctx_stop_requested(ctx))
            return BASE_FAIL(ctx, BASE_ERR_PEER, BASE_MSG_COMM_01, "exact packer: asked to stop");
        if (some <= 0 && base_clock_ns() > until_ns) return fail(ctx, "gave no answer in time");
        if (some <= 0) continue;
        const ssize_t n = recv(end, bytes + have, sizeof *answer - have, 0);
        if (n == 0 || (n < 0 && errno != EINTR)) return fail(ctx, "ended without an answer");
        if (n > 0) have += (size_t)n;
    }
    return BASE_OK;
}

static base_status_t ask(base_ctx_t *ctx, const question_t *q, answer_t *answer)
{
    pid_t child = -1;
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return fail(ctx, strerror(errno));
    const int failed = spawn(ends[1], &child);
    (void)close(ends[1]);
    if (failed != 0) {
        (void)close(ends[0]);
        return BASE_FAIL(ctx, BASE_ERR_STATE, BASE_MSG_PLAN_02,
                         "rank %d: exact packer: its process did not start: %s", base_ctx_rank(ctx),
                         strerror(failed));
    }
    base_status_t st = send_question(ctx, ends[0], q);
    if (st >= 0) st = receive_answer(ctx, ends[0], answer);
    (void)close(ends[0]);
    (void)kill(child, SIGKILL); /* one that has answered has nothing left to do */
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
    }
    return st;
}

base_status_t lora_pack_process(base_ctx_t *ctx, const lora_window_t *window, int32_t nodes,
                                lora_schedule_t *schedule, lora_exact_result_t *result)
{
    question_t question;
    lora_bounds_t bounds;
    int64_t scratch[2 * MAX];
    answer_t answer;

    if (window->num_documents > MAX || window->num_batches > MAX || window->num_adapters > MAX)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "exact packer: %" PRId32 " documents, at most %d", window->num_documents,
                         MAX);
    lora_bound_window_in(window, scratch, &bounds);
    *result = (lora_exact_result_t){bounds.best, bounds.best >= schedule->num_microbatches};
    if (result->proven) return BASE_OK;
    put_question(&question, window, nodes, schedule);
    BASE_TRY(ask(ctx, &question, &answer));
    schedule->num_microbatches = answer.num_microbatches;
    memcpy(schedule->microbatch, answer.microbatch,
           (size_t)window->num_documents * sizeof *answer.microbatch);
    *result = answer.result;
    return BASE_OK;
}

/* ==== who answers ==== */

bool lora_pack_process_is(int argc, char *const *argv)
{
    return argc == 2 && strcmp(argv[1], WORD) == 0;
}

static bool read_question(question_t *q)
{
    char *bytes = (char *)q;

    for (size_t have = 0; have < sizeof *q;) {
        const ssize_t n = read(CHILD_IN, bytes + have, sizeof *q - have);

        if (n == 0 || (n < 0 && errno != EINTR)) return false;
        if (n > 0) have += (size_t)n;
    }
    return q->window.num_documents <= MAX && q->window.num_batches <= MAX &&
           q->window.num_adapters <= MAX;
}

static bool write_answer(const answer_t *answer)
{
    const char *bytes = (const char *)answer;

    for (size_t done = 0; done < sizeof *answer;) {
        const ssize_t n = write(CHILD_OUT, bytes + done, sizeof *answer - done);

        if (n < 0 && errno != EINTR) return false;
        if (n > 0) done += (size_t)n;
    }
    return true;
}

static base_status_t solve(question_t *q, answer_t *answer)
{
    const lora_exact_limits_t limits = {.nodes = q->nodes};
    lora_schedule_t schedule = {q->num_microbatches, q->microbatch};
    base_ctx_t *ctx = NULL;

    BASE_TRY(base_ctx_create(0, 1, NULL, &ctx));
    q->window.adapters = q->adapters;
    q->window.batches = q->batches;
    q->window.rows = q->rows;
    q->window.supervised = NULL; /* it does not look at them */
    const base_status_t st = lora_pack_exact(ctx, &q->window, &limits, &schedule, &answer->result);
    answer->num_microbatches = schedule.num_microbatches;
    memcpy(answer->microbatch, q->microbatch, sizeof answer->microbatch);
    base_ctx_destroy(ctx);
    return st;
}

int lora_pack_process_main(void)
{
    question_t question;
    answer_t answer = {0};

    if (!read_question(&question) || solve(&question, &answer) < 0) return 1;
    return write_answer(&answer) ? 0 : 1;
}

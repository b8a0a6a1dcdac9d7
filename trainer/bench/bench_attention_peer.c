#include "trainer/bench/bench_attention_peer.h"

#include "base/json_write.h"
#include "base/memory.h"
#include "data/json_read.h"

#include <errno.h>
#include <poll.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define LINE_BYTES (1 << 16)
#define MAX_NS     (INT64_C(1) << 50)
enum { CHILD_IN, CHILD_OUT }; /* descriptors of a process that reads and answers */

struct tr_attention_peer {
    base_ctx_t *ctx;
    pid_t child;
    int end; /* of a pair of sockets, the other one is the child's stdin and stdout; -1: none */
    char line[LINE_BYTES];
};

/* ==== the process ==== */

static int start(tr_attention_peer_t *p, char *command)
{
    char shell[] = "/bin/sh", option[] = "-c";
    char *const argv[] = {shell, option, command, NULL};
    posix_spawn_file_actions_t actions;
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return errno;
    p->end = ends[0];
    int failed = posix_spawn_file_actions_init(&actions);
    if (failed == 0) {
        failed = posix_spawn_file_actions_adddup2(&actions, ends[1], CHILD_IN);
        if (failed == 0) failed = posix_spawn_file_actions_adddup2(&actions, ends[1], CHILD_OUT);
        if (failed == 0) failed = posix_spawn(&p->child, shell, &actions, NULL, argv, environ);
        (void)posix_spawn_file_actions_destroy(&actions);
    }
    (void)close(ends[1]);
    return failed;
}

base_status_t tr_attention_peer_start(base_ctx_t *ctx, const char *command,
                                      tr_attention_peer_t **peer_p)
{
    const size_t bytes = strlen(command) + 1;
    tr_attention_peer_t *p = base_calloc(ctx, 1, sizeof *p, "bench: peer");
    char *copy = base_calloc(ctx, (int64_t)bytes, 1, "bench: command");
    int failed = ENOMEM;

    if (p != NULL && copy != NULL) {
        *p = (tr_attention_peer_t){.ctx = ctx, .child = -1, .end = -1};
        memcpy(copy, command, bytes);
        failed = start(p, copy);
    }
    base_free(ctx, copy);
    if (failed == 0) {
        *peer_p = p;
        return BASE_OK;
    }
    tr_attention_peer_stop(p);
    if (failed == ENOMEM) return BASE_ERR_NOMEM;
    return BASE_FAIL(ctx, BASE_ERR_STATE, BASE_MSG_CLI_03, "%s: %s", command, strerror(failed));
}

void tr_attention_peer_stop(tr_attention_peer_t *p)
{
    if (p == NULL) return;
    if (p->end >= 0) (void)close(p->end);
    if (p->child > 0)
        while (waitpid(p->child, NULL, 0) < 0 && errno == EINTR) {
        }
    base_free(p->ctx, p);
}

/* ==== lines ==== */

static base_status_t fail(const tr_attention_peer_t *p, const char *what)
{
    return BASE_FAIL(p->ctx, BASE_ERR_STATE, BASE_MSG_CLI_03, "--peer: %s", what);
}

static base_status_t send_line(tr_attention_peer_t *p, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        const ssize_t n = send(p->end, p->line + done, bytes - done, MSG_NOSIGNAL);

        if (n < 0 && errno != EINTR) return fail(p, "the command has ended");
        if (n > 0) done += (size_t)n;
    }
    return BASE_OK;
}

static base_status_t receive_line(tr_attention_peer_t *p, size_t *bytes)
{
    size_t have = 0;

    for (;;) {
        struct pollfd ready = {.fd = p->end, .events = POLLIN};
        const int some = poll(&ready, 1, TR_PEER_PATIENCE_MS);

        if (some < 0 && errno == EINTR) continue;
        if (some <= 0) return fail(p, "no answer");
        const ssize_t n = read(p->end, p->line + have, sizeof p->line - 1 - have);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return fail(p, "the command has ended, or its answer is too long");
        have += (size_t)n;
        if (p->line[have - 1] == '\n') break;
    }
    p->line[have] = '\0';
    *bytes = have;
    return BASE_OK;
}

static base_status_t write_question(tr_attention_peer_t *p, const tr_attention_case_t *of,
                                    const tr_attention_set_t *set, int32_t round, int32_t samples,
                                    size_t *bytes)
{
    const struct {
        const char *key;
        int64_t value;
    } numbers[] = {
        {"round", round},
        {"samples", samples},
        {"kv_heads", of->shape.kv_heads},
        {"group", of->shape.group},
        {"head_dim", of->shape.head_dim},
        {"window", of->shape.window},
    };
    base_json_t j;

    base_json_to_buffer(&j, p->line, sizeof p->line);
    base_json_begin_object(&j);
    base_json_put_string(&j, "case", of->name);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        base_json_put_int(&j, numbers[i].key, numbers[i].value);
    }
    base_json_key(&j, "tasks");
    base_json_begin_array(&j);
    for (int32_t i = 0; i < set->num_tasks; i++) {
        const as_task_t *t = &set->tasks[i];
        const int64_t values[] = {t->document, t->q0, t->q1, t->h0, t->h1};

        base_json_begin_array(&j);
        for (size_t v = 0; v < sizeof values / sizeof values[0]; v++)
            base_json_int(&j, values[v]);
        base_json_end(&j);
    }
    base_json_end(&j);
    base_json_end(&j);
    base_json_newline(&j);
    BASE_TRY(base_json_finish(&j, p->ctx, "--peer")); /* LINE_BYTES hold any case */
    *bytes = strlen(p->line);
    return BASE_OK;
}

/* ==== answers ==== */

typedef struct reading {
    tr_peer_answers_t *answers;
    const data_json_object_t *root;
    bool too_many;
} reading_t;

static void take_text(char *to, size_t room, const char *text)
{
    const size_t bytes = strlen(text) < room ? strlen(text) : room - 1;

    memcpy(to, text, bytes);
    to[bytes] = '\0';
}

static void take_samples(const data_json_object_t *peer, const char *key, int32_t *count,
                         int64_t *ns)
{
    int64_t more;

    if (!data_json_has(peer, key) || !data_json_array(peer, key, &more)) return;
    for (int64_t i = 0; i < more && *count < TR_PEER_MAX_SAMPLES; i++)
        if (data_json_array_int(peer, key, i, 1, MAX_NS, &ns[*count])) (*count)++;
}

static void take_peer(void *arg, const char *key, data_json_kind_t kind, double number)
{
    reading_t *r = arg;
    tr_peer_times_t *times = NULL;
    data_json_object_t peer;
    const char *text;

    (void)kind;
    (void)number;
    for (int32_t i = 0; i < r->answers->count; i++)
        if (strcmp(r->answers->peers[i].name, key) == 0) times = &r->answers->peers[i];
    if (!data_json_child(r->root, key, &peer)) return;
    if (times == NULL) {
        if (r->answers->count == TR_PEER_MAX || strlen(key) >= TR_PEER_NAME_BYTES) {
            r->too_many = true;
            return;
        }
        times = &r->answers->peers[r->answers->count++];
        take_text(times->name, sizeof times->name, key);
    }
    if (data_json_has(&peer, "error") && data_json_text(&peer, "error", &text))
        take_text(times->error, sizeof times->error, text);
    take_samples(&peer, "forward_ns", &times->num_samples[AS_PROFILE_FORWARD],
                 times->ns[AS_PROFILE_FORWARD]);
    take_samples(&peer, "backward_ns", &times->num_samples[AS_PROFILE_BACKWARD],
                 times->ns[AS_PROFILE_BACKWARD]);
}

static base_status_t read_answer(tr_attention_peer_t *p, size_t bytes, tr_peer_answers_t *answers)
{
    base_error_list_t errors;
    data_json_t *json = NULL;
    base_status_t st;

    base_error_list_init(&errors, p->ctx);
    st = data_json_parse(p->ctx, "--peer", p->line, bytes, &errors, &json);
    if (st >= 0) {
        const data_json_object_t root = data_json_root(json);
        reading_t r = {answers, &root, false};

        data_json_each(&root, take_peer, &r);
        if (errors.count > 0 || r.too_many) st = BASE_ERR_FORMAT;
    }
    if (st == BASE_ERR_FORMAT)
        st = fail(p, errors.count > 0 ? errors.items[0].text : "too many names, or too long ones");
    data_json_close(json);
    base_error_list_deinit(&errors);
    return st;
}

base_status_t tr_attention_peer_ask(tr_attention_peer_t *p, const tr_attention_case_t *of,
                                    const tr_attention_set_t *set, int32_t round, int32_t samples,
                                    tr_peer_answers_t *answers)
{
    size_t bytes;

    BASE_TRY(write_question(p, of, set, round, samples, &bytes));
    BASE_TRY(send_line(p, bytes));
    BASE_TRY(receive_line(p, &bytes));
    return read_answer(p, bytes, answers);
}

#include "trainer/run/prepare_tool.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_BYTES 4096

base_status_t tr_prepare_tool_find(base_ctx_t *ctx, base_text_pool_t *pool, const char **folder_p)
{
    char exe[PATH_MAX];
    const ssize_t bytes = readlink("/proc/self/exe", exe, sizeof exe - 1);

    if (bytes < 0)
        return BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_DATA_20, "/proc/self/exe: %s", strerror(errno));
    exe[bytes] = '\0';
    for (int parts = 0; parts < 2; parts++) { /* DIR/bin/cadre: to DIR */
        char *slash = strrchr(exe, '/');

        if (slash != NULL) *slash = '\0';
    }
    const char *folder = base_text_pool_format(pool, "%s/share/cadre/prepare", exe);
    const char *script = base_text_pool_format(pool, "%s/venv.sh", folder != NULL ? folder : "");
    if (folder == NULL || script == NULL) return BASE_ERR_NOMEM;
    if (base_file_kind(script) != BASE_FILE_REGULAR)
        return BASE_FAIL(ctx, BASE_ERR_STATE, BASE_MSG_DATA_20,
                         "%s: not there; was the program moved without the folder share beside "
                         "its bin?",
                         script);
    *folder_p = folder;
    return BASE_OK;
}

/* Reads to the end, keeps what fits, and ends it at its last character that is no white space. */
static void read_answer(int fd, char answer[ANSWER_BYTES])
{
    size_t kept = 0;

    for (;;) {
        char block[512];
        const ssize_t got = read(fd, block, sizeof block);

        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        for (ssize_t i = 0; i < got && kept < ANSWER_BYTES - 1; i++)
            answer[kept++] = block[i];
    }
    while (kept > 0 && strchr(" \t\r\n", answer[kept - 1]) != NULL)
        kept--;
    answer[kept] = '\0';
}

/* Runs the script with stdout to us and no stdin; its status as waitpid gives it. errno, or 0. */
static int run_script(char *script, char answer[ANSWER_BYTES], int *status)
{
    char *const argv[] = {script, NULL};
    posix_spawn_file_actions_t actions;
    int ends[2];
    pid_t child;

    answer[0] = '\0';
    if (pipe2(ends, O_CLOEXEC) != 0) return errno;
    int failed = posix_spawn_file_actions_init(&actions);
    if (failed == 0) {
        failed = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        if (failed == 0)
            failed = posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        if (failed == 0) failed = posix_spawn(&child, script, &actions, NULL, argv, environ);
        (void)posix_spawn_file_actions_destroy(&actions);
    }
    (void)close(ends[1]);
    if (failed == 0) {
        read_answer(ends[0], answer);
        while (waitpid(child, status, 0) < 0) {
            if (errno != EINTR) {
                failed = errno;
                break;
            }
        }
    }
    (void)close(ends[0]);
    return failed;
}

base_status_t tr_prepare_tool_python(base_ctx_t *ctx, base_text_pool_t *pool, const char *folder,
                                     const char **python_p)
{
    char answer[ANSWER_BYTES];
    int status = 0;
    char *script = base_text_pool_format(pool, "%s/venv.sh", folder);

    if (script == NULL) return BASE_ERR_NOMEM;
    const int failed = run_script(script, answer, &status);
    if (failed != 0)
        return BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_DATA_20, "%s: %s", script, strerror(failed));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || answer[0] == '\0') {
        if (answer[0] != '\0')
            return BASE_FAIL(ctx, BASE_ERR_STATE, BASE_MSG_DATA_20, "%s", answer);
        return BASE_FAIL(ctx, BASE_ERR_STATE, BASE_MSG_DATA_20, "%s: ended with status 0x%x",
                         script, (unsigned)status);
    }
    *python_p = base_text_pool_copy(pool, answer, strlen(answer));
    return *python_p != NULL ? BASE_OK : BASE_ERR_NOMEM;
}

base_status_t tr_prepare_tool_exec(base_ctx_t *ctx, base_text_pool_t *pool,
                                   const tr_prepare_jobs_t *jobs, const char *const *options,
                                   size_t num_options)
{
    const char *folder = NULL, *python = NULL;
    size_t n = 0;

    BASE_TRY(tr_prepare_tool_find(ctx, pool, &folder));
    BASE_TRY(tr_prepare_tool_python(ctx, pool, folder, &python));
    const size_t count = 6 + 3 * jobs->count + num_options;
    const char **words = base_text_pool_take(pool, count * sizeof *words);
    char **argv = base_text_pool_take(pool, (count + 1) * sizeof *argv);
    if (words == NULL || argv == NULL) return BASE_ERR_NOMEM;
    words[n++] = python;
    words[n++] = "-B"; /* an installed tree stays as it is */
    /* Our own has all that it needs; what PYTHONPATH and PYTHONHOME name was made for another. */
    if (getenv("CADRE_PYTHON") == NULL) words[n++] = "-E";
    words[n++] = folder;
    words[n++] = "--model";
    words[n++] = jobs->model;
    for (size_t i = 0; i < jobs->count; i++) {
        words[n++] = "--job";
        words[n++] = jobs->jobs[i].source;
        words[n++] = jobs->jobs[i].output;
    }
    for (size_t i = 0; i < num_options; i++)
        words[n++] = options[i];
    /* exec wants words that could be written to. */
    for (size_t i = 0; i < n; i++)
        argv[i] = base_text_pool_copy(pool, words[i], strlen(words[i]));
    if (pool->failed) return BASE_ERR_NOMEM;

    (void)fflush(stdout);
    (void)execvp(argv[0], argv);
    return BASE_FAIL(ctx, BASE_ERR_STATE, BASE_MSG_DATA_20, "%s: %s", argv[0], strerror(errno));
}

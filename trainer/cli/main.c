/* cadre VERB ...: finds the verb, runs it, prints the error it recorded. */
#include "base/file.h"
#include "lora/pack_process.h"
#include "trainer/cli/cli_error.h"
#include "trainer/cli/run_ranks.h"
#include "trainer/cli/verb.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/* In the order of a user's life. A verb is listed when it works. */
static const tr_verb_t verbs[] = {
    {"help", "this page, or the page of a verb", tr_cmd_help},
    {"prepare", "JSONL to tokenized datasets", tr_cmd_prepare},
    {"plan", "what a run will take, and whether it fits", tr_cmd_plan},
    {"train", "train adapters, or a model", tr_cmd_train},
    {"trace", "what the ranks of a run did when, in one file", tr_cmd_trace},
    {"score", "the loss of a model or adapter on a dataset", tr_cmd_score},
    {"verify", "does an adapter fit its base and change it", tr_cmd_verify},
    {"export", "an adapter or model of a run, in another folder or form", tr_cmd_export},
    {"init-model", "a model folder with random weights", tr_cmd_init_model},
    {"bench", "how fast this machine trains, and our parts beside others", tr_cmd_bench},
    {"version", "version, commit, devices and libraries", tr_cmd_version},
};

/* Options that stand in the place of a verb. */
static const struct {
    const char *option;
    const char *verb;
} aliases[] = {
    {"--help", "help"},
    {"--version", "version"},
    {"-h", "help"},
};
enum { NUM_ALIASES = sizeof aliases / sizeof aliases[0] };

static base_status_t find_verb(const tr_cli_t *cli, int argc, char **argv, const tr_verb_t **verb_p)
{
    if (argc < 2) return BASE_FAIL(cli->ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_01, "no verb given");

    const char *word = argv[1];
    const char *options[NUM_ALIASES];
    for (size_t i = 0; i < NUM_ALIASES; i++) {
        options[i] = aliases[i].option;
        if (strcmp(word, aliases[i].option) == 0) word = aliases[i].verb;
    }
    if (word[0] == '-') return tr_cli_unknown_option(cli->ctx, word, options, NUM_ALIASES);
    *verb_p = tr_verb_find(cli, word);
    return *verb_p != NULL ? BASE_OK : tr_verb_unknown(cli, word);
}

static int run(const tr_cli_t *cli, int argc, char **argv)
{
    const tr_verb_t *verb = NULL;
    const base_status_t line = find_verb(cli, argc, argv, &verb);

    return line >= 0 ? verb->run(cli, argc - 1, argv + 1) : tr_run_ranks_refuse(cli->ctx, line);
}

/* A standard stream that is closed (`cadre train run.yaml 2>&-`) leaves its number to the next file, and what is meant for
 * the terminal would be written into that. */
static void occupy_standard_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY); /* its use stays an error */
}

/* A run of many adapters has a dataset or two of each open; systems allow 1024 at first, and more when asked. */
static void raise_open_files(void)
{
    const rlim_t enough = 65536;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= enough) return;
    limit.rlim_cur = limit.rlim_max < enough ? limit.rlim_max : enough;
    (void)setrlimit(RLIMIT_NOFILE, &limit); /* else who opens too many says so */
}

int main(int argc, char **argv)
{
    tr_cli_t cli = {NULL, verbs, sizeof verbs / sizeof verbs[0]};
    base_error_t error;

    if (lora_pack_process_is(argc, argv)) return lora_pack_process_main();
    occupy_standard_streams();
    raise_open_files();
    /* A file that may not grow further (ulimit -f) is an error of the write, not the end. */
    (void)signal(SIGXFSZ, SIG_IGN);
    if (base_ctx_create(0, 1, NULL, &cli.ctx) < 0) {
        (void)fprintf(stderr, "cadre: error MEM-01: out of memory at start\n");
        return TR_EXIT_RESOURCES;
    }
    int code = run(&cli, argc, argv);
    if (base_ctx_error(cli.ctx, &error)) tr_cli_error_print(stderr, &error);
    base_ctx_destroy(cli.ctx);

    /* A full disk behind `cadre ... > file` shows only here. */
    if (fflush(stdout) != 0 || ferror(stdout)) {
        const base_status_t st = base_file_status(errno);

        (void)fprintf(stderr, "cadre: error: standard output: %s\n", strerror(errno));
        return code != TR_EXIT_DONE ? code : tr_cli_exit_code(st);
    }
    return code;
}

/* cadre help [VERB], cadre --help: the verbs, or the page of one. */
#include "trainer/cli/cli_error.h"
#include "trainer/cli/run_ranks.h"
#include "trainer/cli/verb.h"

#include <stdio.h>
#include <string.h>

int tr_cmd_help(const tr_cli_t *cli, int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--help") != 0) {
        const tr_verb_t *verb = tr_verb_find(cli, argv[1]);

        if (verb == NULL) return tr_run_ranks_refuse(cli->ctx, tr_verb_unknown(cli, argv[1]));
        if (!tr_cli_no_arguments(cli->ctx, argc - 1, argv + 1)) return TR_EXIT_USAGE;
        if (verb->run != tr_cmd_help) {
            char option[] = "--help";
            char *words[] = {argv[1], option, NULL};
            return verb->run(cli, 2, words);
        }
    }
    (void)puts("Usage: cadre VERB [OPTION...]\n\n"
               "Fine-tunes many LoRA adapters of one base model in one job.\n\n"
               "Verbs:");
    for (size_t i = 0; i < cli->num_verbs; i++)
        (void)printf("  %-10s %s\n", cli->verbs[i].name, cli->verbs[i].summary);
    (void)puts("\n`cadre VERB --help` explains one of them. `cadre --version` prints what a bug "
               "report needs.");
    return TR_EXIT_DONE;
}

#include "trainer/cli/verb.h"

#include "base/config/suggest.h"

#include <string.h>

const tr_verb_t *tr_verb_find(const tr_cli_t *cli, const char *name)
{
    for (size_t i = 0; i < cli->num_verbs; i++) {
        if (strcmp(cli->verbs[i].name, name) == 0) return &cli->verbs[i];
    }
    return NULL;
}

base_status_t tr_verb_unknown(const tr_cli_t *cli, const char *word)
{
    const char *names[64] = {NULL};
    size_t count = 0;

    for (size_t i = 0; i < cli->num_verbs && count < sizeof names / sizeof names[0]; i++)
        names[count++] = cli->verbs[i].name;
    const char *nearest = base_suggest_nearest(word, names, count);
    if (nearest != NULL)
        return BASE_FAIL(cli->ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_01,
                         "unknown verb \"%s\"; nearest is \"%s\"", word, nearest);
    return BASE_FAIL(cli->ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_01, "unknown verb \"%s\"", word);
}

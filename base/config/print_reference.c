/* docs/config.md from the table. */
#include "base/config/print.h"
#include "base/config/schema.h"

#include <string.h>

const char *base_print_example(void)
{
    return "model: models/Llama-3.1-8B        # Hugging Face folder, only read\n"
           "output: runs/three                # must not hold another run (--resume continues it)\n"
           "attention:\n"
           "  placement: in_place             # in_place | pool (servers_per_host: 1) | local\n"
           "batch:\n"
           "  tokens_per_trainer: 16384       # rows of a microbatch on each trainer\n"
           "train:\n"
           "  mode: lora                      # lora | full\n"
           "  seed: 7\n"
           "  checkpoint_every_minutes: 20    # or checkpoint_every_microbatches\n"
           "defaults:                         # what an adapter does not say itself\n"
           "  rank: 16                        # alpha: 2 x rank unless given\n"
           "  targets: all-linear             # or [q_proj, v_proj]\n"
           "  epochs: 3                       # or steps: 500\n"
           "  global_batch_documents: 16\n"
           "  learning_rate: 1e-4\n"
           "  schedule: cosine                # constant | linear | cosine\n"
           "  warmup_ratio: 0.03              # or warmup_steps: 20\n"
           "  eval_every_steps: 50\n"
           "adapters:\n"
           "  - name: legal\n"
           "    data: corpora/legal.jsonl     # .jsonl, or .h5 from `cadre prepare`\n"
           "    eval: corpora/legal-eval.jsonl   # or eval_documents: 200, held out of data\n"
           "    early_stopping_patience: 3    # evaluations without improvement; the best is "
           "exported\n"
           "  - name: code\n"
           "    data: corpora/code.jsonl\n"
           "    rank: 32                      # its alpha is 64, its scale still 2\n"
           "    learning_rate: 2e-4\n";
}

static const char *heading(const char *section)
{
    if (section[0] == '\0') return "Top level";
    if (strcmp(section, "adapters") == 0) return "adapters, and what defaults can hold";
    return section;
}

static const char *introduction(const char *section)
{
    if (strcmp(section, "adapters") == 0)
        return "`adapters` is a list. A key that an adapter does not give comes from `defaults`, "
               "then from the\n"
               "default below. Every key but `name` may stand in `defaults`. An adapter that gives "
               "one key of a\n"
               "pair (epochs and steps, warmup_ratio and warmup_steps, eval and eval_documents) "
               "puts the other one\n"
               "of `defaults` aside. With `train.mode: full` there are no adapters: `defaults` "
               "holds the settings,\n"
               "without the keys marked *LoRA*.\n\n";
    return "";
}

static void print_default(const base_schema_key_t *key, FILE *out)
{
    if ((key->flags & BASE_SCHEMA_REQUIRED) != 0)
        (void)fprintf(out, "**required**");
    else if (key->fallback == NULL)
        (void)fprintf(out, "none");
    else if ((key->flags & BASE_SCHEMA_DERIVED) != 0)
        (void)fprintf(out, "%s", key->fallback);
    else
        (void)fprintf(out, "`%s`", key->fallback);
}

static const char *resume_words(base_schema_resume_t resume)
{
    switch (resume) {
    case BASE_SCHEMA_TAKE:
        return "taken";
    case BASE_SCHEMA_REFUSE:
        return "refused";
    case BASE_SCHEMA_GROW:
        return "larger, with schedule constant";
    case BASE_SCHEMA_CONTENT:
        return "same content";
    case BASE_SCHEMA_RESUME_COUNT:
        break;
    }
    return "";
}

static void print_key(const base_schema_key_t *key, FILE *out)
{
    char wants[256];

    (void)fprintf(out, "| `%s` | %s%s%s%s | ", key->name,
                  base_schema_wants(key, wants, sizeof wants), key->unit[0] == '\0' ? "" : " (",
                  key->unit, key->unit[0] == '\0' ? "" : ")");
    print_default(key, out);
    (void)fprintf(out, " | %s | %s", resume_words(key->resume), key->doc);
    if (key->partner != NULL) (void)fprintf(out, " Excludes `%s`.", key->partner);
    if ((key->flags & BASE_SCHEMA_LORA) != 0) (void)fprintf(out, " *LoRA*");
    (void)fprintf(out, " |\n");
}

static void print_section(const char *section, FILE *out)
{
    (void)fprintf(out, "\n## %s\n\n%s", heading(section), introduction(section));
    (void)fprintf(out, "| key | value | default | on resume | meaning |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < base_schema_count(); i++)
        if (strcmp(base_schema_key(i)->section, section) == 0) print_key(base_schema_key(i), out);
}

void base_print_reference(FILE *out)
{
    const char *section;

    (void)fprintf(
        out,
        "<!-- Generated from base/config/schema.c. To write it anew:\n"
        "     build/cpu/tests/unit.config.reference --write -->\n"
        "# Configuration\n\n"
        "A run is described by one YAML file. `cadre train run.yaml --print-config` shows it with "
        "every\n"
        "default filled in; `--set PATH=VALUE` changes one key for one start:\n"
        "`--set batch.tokens_per_trainer=32768`, `--set defaults.targets=[q_proj,v_proj]`,\n"
        "`--set adapters.code.rank=64` (the adapter called code). All errors are reported at "
        "once.\n\n"
        "The file is plain YAML without anchors, tags and tabs. Booleans are `true` and `false`. "
        "Numbers\n"
        "are decimal; `1e-4` is a number; there are no units and no separators. Relative paths "
        "refer to\n"
        "the folder the command runs in; `~/` and `$NAME` in front of one are not replaced, and "
        "refused.\n\n"
        "The column *on resume* says what `--resume` does with a value that differs from the "
        "run's:\n"
        "*taken*, because it does not change what was learned; *refused*, because it does; or a "
        "path\n"
        "that may move as long as it holds the *same content*.\n\n"
        "## Example\n\n```yaml\n%s```\n",
        base_print_example());
    for (size_t i = 0; (section = base_schema_section(i)) != NULL; i++)
        if (strcmp(section, "defaults") != 0) print_section(section, out);
}

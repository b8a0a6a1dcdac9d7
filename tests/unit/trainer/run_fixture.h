/* What the tests of trainer/run share: a folder of its own to run in, a configuration from text, and files compared as
 * text. */
#ifndef CADRE_TESTS_UNIT_TRAINER_RUN_FIXTURE_H
#define CADRE_TESTS_UNIT_TRAINER_RUN_FIXTURE_H

#include "tests/support/ctx_fixture.h"

#include "base/config/config.h"
#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct run_place {
    base_ctx_t *ctx;
    char folder[64];
    char *before;
} run_place_t;

static inline int run_setup(void **state)
{
    run_place_t *p = calloc(1, sizeof *p);

    assert_non_null(p);
    p->ctx = fixture_ctx();
    p->before = getcwd(NULL, 0);
    (void)snprintf(p->folder, sizeof p->folder, "/tmp/cadre-test-run-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    assert_int_equal(chdir(p->folder), 0);
    *state = p;
    return 0;
}

static inline int run_teardown(void **state)
{
    run_place_t *p = *state;
    char command[128];

    fixture_ctx_end(p->ctx);
    assert_int_equal(chdir(p->before), 0);
    (void)snprintf(command, sizeof command, "rm -rf '%s'", p->folder);
    assert_int_equal(system(command), 0);
    free(p->before);
    free(p);
    return 0;
}

static inline base_config_t *run_config(base_ctx_t *ctx, const char *yaml)
{
    base_config_t *config = NULL;

    assert_int_equal(
        base_config_load_text(ctx, "run.yaml", yaml, strlen(yaml), NULL, 0, NULL, &config),
        BASE_OK);
    return config;
}

/* The whole file; the caller frees it (free). */
static inline char *run_text(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = calloc(1, 65536);

    assert_non_null(file);
    assert_non_null(text);
    assert_true(fread(text, 1, 65535, file) < 65535);
    assert_int_equal(fclose(file), 0);
    return text;
}

static inline void run_expect_text(const char *path, const char *want)
{
    char *text = run_text(path);

    assert_string_equal(text, want);
    free(text);
}

static inline void run_expect_piece(const char *path, const char *piece)
{
    char *text = run_text(path);

    if (strstr(text, piece) == NULL) fail_msg("%s: no \"%s\" in\n%s", path, piece, text);
    free(text);
}

#endif

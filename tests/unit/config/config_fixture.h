/* What the tests of base/config share: loading a text, and reading the folder of cases. */
#ifndef CADRE_TESTS_UNIT_CONFIG_CONFIG_FIXTURE_H
#define CADRE_TESTS_UNIT_CONFIG_CONFIG_FIXTURE_H

#include "base/config/config.h"
#include "base/config/print.h"
#include "tests/support/ctx_fixture.h"

#include <stdio.h>
#include <stdlib.h>

/* The shortest configuration: 6 lines; further lines may follow and belong to the adapter. */
#define CONFIG_HEAD                                                                                \
    "model: m\n"                                                                                   \
    "output: o\n"
#define CONFIG_ADAPTER                                                                             \
    "adapters:\n"                                                                                  \
    "  - name: code\n"                                                                             \
    "    data: d.jsonl\n"                                                                          \
    "    epochs: 1\n"                                                                              \
    "    learning_rate: 1e-4\n"
#define CONFIG_SHORT CONFIG_HEAD CONFIG_ADAPTER

static inline base_config_t *config_of(base_ctx_t *ctx, const char *text, const char *set)
{
    base_config_t *config = NULL;
    base_error_list_t errors;
    base_status_t st;

    base_error_list_init(&errors, ctx);
    st = base_config_load_text(ctx, "run.yaml", text, strlen(text), &set, set == NULL ? 0 : 1,
                               &errors, &config);
    if (st != BASE_OK) {
        base_error_list_print(&errors, stderr);
        fail_msg("a good configuration was refused");
    }
    base_error_list_deinit(&errors);
    return config;
}

/* The text must be refused, first with this id and this piece of text. */
static inline void config_refused(base_ctx_t *ctx, const char *text, const char *set,
                                  const char *id, const char *piece)
{
    base_config_t *config = NULL;

    assert_int_equal(base_config_load_text(ctx, "run.yaml", text, strlen(text), &set,
                                           set == NULL ? 0 : 1, NULL, &config),
                     BASE_ERR_CONFIG);
    assert_null(config);
    fixture_expect_error(ctx, BASE_ERR_CONFIG, id, piece);
}

/* What base_print_config writes; the caller frees it. */
static inline char *config_printed(const base_config_t *config)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);

    assert_non_null(out);
    base_print_config(config, out);
    assert_int_equal(fclose(out), 0);
    return text;
}

/* A path of the source tree; the caller frees it. */
static inline char *source_path(const char *path)
{
    const char *root = getenv("CADRE_SOURCE_DIR");
    const size_t bytes = strlen(path) + (root == NULL ? 1 : strlen(root)) + 2;
    char *full = malloc(bytes);

    assert_non_null(full);
    (void)snprintf(full, bytes, "%s/%s", root == NULL ? "." : root, path);
    return full;
}

/* A whole file with a zero byte behind it, NULL when there is none; the caller frees it. */
static inline char *file_text(const char *path, size_t *bytes_p)
{
    const size_t room = 1 << 20;
    FILE *file = fopen(path, "rb");
    char *text;

    if (file == NULL) return NULL;
    text = malloc(room);
    assert_non_null(text);
    *bytes_p = fread(text, 1, room - 1, file);
    text[*bytes_p] = '\0';
    (void)fclose(file);
    return text;
}

#endif

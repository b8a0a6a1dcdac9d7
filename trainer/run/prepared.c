#include "trainer/run/prepared.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/dataset.h"
#include "data/json_read.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TEMPLATE_MAX_BYTES (INT64_C(16) << 20)

const char *tr_prepared_source(const base_config_adapter_t *job, tr_prepared_set_t set)
{
    return set == TR_PREPARED_EVAL ? job->eval : job->data;
}

bool tr_prepared_is_dataset(const char *source)
{
    const char *end = strrchr(source, '.');

    return end != NULL && strcmp(end, ".h5") == 0;
}

/* "DIR/NAME", owned; slashes at the end of DIR are left out. */
static base_status_t join(base_ctx_t *ctx, const char *folder, const char *name, char **path_p)
{
    size_t bytes = strlen(folder);

    while (bytes > 1 && folder[bytes - 1] == '/')
        bytes--;
    const size_t room = bytes + strlen(name) + 2;
    char *path = base_alloc(ctx, room, "path");

    if (path == NULL) return BASE_ERR_NOMEM;
    (void)snprintf(path, room, "%.*s/%s", (int)bytes, folder, name);
    *path_p = path;
    return BASE_OK;
}

base_status_t tr_prepared_path(base_ctx_t *ctx, const base_config_t *config,
                               const base_config_adapter_t *job, tr_prepared_set_t set,
                               char **path_p)
{
    const char *source = tr_prepared_source(job, set);
    const char *name = job != &config->full ? job->name : "data";
    const bool eval = set == TR_PREPARED_EVAL;
    char place[128];

    assert(source != NULL);
    if (tr_prepared_is_dataset(source)) {
        *path_p = base_strdup(ctx, source, "path of a dataset");
        return *path_p != NULL ? BASE_OK : BASE_ERR_NOMEM;
    }
    (void)snprintf(place, sizeof place, "prepared/%s%s.h5", name, eval ? ".eval" : "");
    return join(ctx, config->output, place, path_p);
}

/* Digest of the chat template as `cadre prepare` takes it; "" when there is none, or a list. */
static base_status_t template_sha256(base_ctx_t *ctx, const char *model,
                                     char hex[BASE_SHA256_HEX_BYTES])
{
    base_error_list_t errors;
    data_json_t *json = NULL;
    char *path = NULL;
    base_status_t st;

    hex[0] = '\0';
    BASE_TRY(join(ctx, model, "chat_template.jinja", &path));
    if (base_file_kind(path) != BASE_FILE_NONE) {
        st = base_sha256_file(ctx, path, hex);
        base_free(ctx, path);
        return st;
    }
    base_free(ctx, path);
    path = NULL;
    BASE_TRY(join(ctx, model, "tokenizer_config.json", &path));
    base_error_list_init(&errors, ctx);
    if (base_file_kind(path) == BASE_FILE_NONE) {
        st = BASE_OK;
        goto free_path;
    }
    st = data_json_read(ctx, path, TEMPLATE_MAX_BYTES, &errors, &json);
    if (st == BASE_ERR_FORMAT) st = data_errors_finish(&errors);
    if (st < 0) goto free_path;

    const data_json_object_t root = data_json_root(json);
    data_json_kind_t kind = DATA_JSON_NULL;
    const char *text = NULL;
    if (data_json_kind(&root, "chat_template", &kind) && kind == DATA_JSON_TEXT &&
        data_json_text(&root, "chat_template", &text))
        base_sha256_hex(text, strlen(text), hex);
    data_json_close(json);
free_path:
    base_error_list_deinit(&errors);
    base_free(ctx, path);
    return st;
}

/* Fills `reason` with the first thing that differs, or leaves it empty. */
static base_status_t compare(base_ctx_t *ctx, const base_config_t *config, const char *source,
                             const data_dataset_attributes_t *made,
                             char reason[TR_PREPARED_REASON_BYTES])
{
    char hex[BASE_SHA256_HEX_BYTES];

    BASE_TRY(base_sha256_file(ctx, source, hex));
    if (strcmp(hex, made->source_sha256) != 0) {
        (void)snprintf(reason, TR_PREPARED_REASON_BYTES, "%s has changed since", source);
        return BASE_OK;
    }
    BASE_TRY(data_dataset_tokenizer_sha256(ctx, config->model, hex));
    if (strcmp(hex, made->tokenizer_sha256) != 0) {
        (void)snprintf(reason, TR_PREPARED_REASON_BYTES,
                       "made with another tokenizer.json than that of %s", config->model);
        return BASE_OK;
    }
    if (made->template_sha256[0] == '\0') return BASE_OK;
    BASE_TRY(template_sha256(ctx, config->model, hex));
    if (hex[0] != '\0' && strcmp(hex, made->template_sha256) != 0)
        (void)snprintf(reason, TR_PREPARED_REASON_BYTES,
                       "made with another chat template than that of %s", config->model);
    return BASE_OK;
}

base_status_t tr_prepared_look(base_ctx_t *ctx, const base_config_t *config,
                               const base_config_adapter_t *job, tr_prepared_set_t set,
                               tr_prepared_state_t *state, char reason[TR_PREPARED_REASON_BYTES])
{
    base_error_list_t errors;
    data_dataset_t *ds = NULL;
    char *path = NULL;
    base_status_t st;

    reason[0] = '\0';
    BASE_TRY(tr_prepared_path(ctx, config, job, set, &path));
    base_error_list_init(&errors, ctx);
    st = BASE_OK;
    if (tr_prepared_is_dataset(tr_prepared_source(job, set))) {
        *state = TR_PREPARED_GIVEN;
        goto free_path;
    }
    if (base_file_kind(path) == BASE_FILE_NONE) {
        *state = TR_PREPARED_MISSING;
        goto free_path;
    }
    st = data_dataset_open_offsets(ctx, path, &errors, &ds);
    if (st == BASE_ERR_FORMAT && errors.count > 0) {
        /* Made by another version, or damaged: making it again is the cure in either case. */
        (void)snprintf(reason, TR_PREPARED_REASON_BYTES, "not readable as a dataset: %s",
                       errors.items[0].text);
        st = BASE_OK;
    } else if (st >= 0) {
        st =
            compare(ctx, config, tr_prepared_source(job, set), data_dataset_attributes(ds), reason);
        data_dataset_close(ds);
    }
    *state = reason[0] == '\0' ? TR_PREPARED_FRESH : TR_PREPARED_STALE;
free_path:
    base_error_list_deinit(&errors);
    base_free(ctx, path);
    return st;
}

base_status_t tr_prepared_check(base_ctx_t *ctx, const base_config_t *config,
                                const base_config_adapter_t *job, tr_prepared_set_t set,
                                const char *prepare_words, base_error_list_t *errors, char **path_p)
{
    tr_prepared_state_t state = TR_PREPARED_MISSING;
    char reason[TR_PREPARED_REASON_BYTES];
    char *path = NULL;
    base_status_t st;

    BASE_TRY(tr_prepared_look(ctx, config, job, set, &state, reason));
    BASE_TRY(tr_prepared_path(ctx, config, job, set, &path));
    if (state == TR_PREPARED_GIVEN || state == TR_PREPARED_FRESH) {
        *path_p = path;
        return BASE_OK;
    }
    const bool missing = state == TR_PREPARED_MISSING;
    const base_message_t message = missing ? BASE_MSG_DATA_35 : BASE_MSG_DATA_36;
    const char *source = tr_prepared_source(job, set);

    if (missing && base_file_kind(source) == BASE_FILE_NONE)
        (void)snprintf(reason, sizeof reason, "not there, and neither is %s, of which it is made",
                       source);
    const char *why = reason[0] != '\0' ? reason : "not there";
    st = BASE_OK;
    if (errors != NULL)
        DATA_ERROR(errors, message, path, "%s; run `cadre prepare %s`", why, prepare_words);
    else
        st = BASE_FAIL(ctx, BASE_ERR_FORMAT, message, "%s: %s; run `cadre prepare %s`", path, why,
                       prepare_words);
    base_free(ctx, path);
    return st;
}

#include "trainer/run/run_folder.h"

#include "base/config/print.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_BYTES (INT64_C(4) << 20)

struct tr_run_folder {
    base_ctx_t *ctx;
    int lock; /* descriptor of the folder itself, -1 without a lock */
    bool resumed;
    char *root;
    char *path[TR_RUN_ENTRY_COUNT];
};

static const char *const ENTRIES[] = {
#define X(name, path) path,
    TR_RUN_ENTRY_MAP(X)
#undef X
};

static base_status_t join(base_ctx_t *ctx, const char *folder, const char *entry, char **path_p)
{
    const size_t room = strlen(folder) + strlen(entry) + 2;
    char *path = base_alloc(ctx, room, "path of the run");

    if (path == NULL) return BASE_ERR_NOMEM;
    (void)snprintf(path, room, "%s/%s", folder, entry);
    *path_p = path;
    return BASE_OK;
}

static base_status_t make_paths(tr_run_folder_t *folder, const char *output)
{
    size_t length;

    folder->root = base_strdup(folder->ctx, output, "path of the run");
    if (folder->root == NULL) return BASE_ERR_NOMEM;
    /* "runs/three/" and "runs/three" shall print the same. */
    length = strlen(folder->root);
    while (length > 1 && folder->root[length - 1] == '/')
        folder->root[--length] = '\0';
    for (int i = 0; i < TR_RUN_ENTRY_COUNT; i++)
        BASE_TRY(join(folder->ctx, folder->root, ENTRIES[i], &folder->path[i]));
    return BASE_OK;
}

/* ==== what may not be ==== */

static bool same_place(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* The deepest part of `output` that exists, with links resolved: "." when none of it does. */
static base_status_t existing_part(base_ctx_t *ctx, const char *output, char path[PATH_MAX])
{
    char *part = base_strdup(ctx, output, "path of the run");
    base_status_t st = BASE_OK;

    if (part == NULL) return BASE_ERR_NOMEM;
    while (base_file_kind(part) == BASE_FILE_NONE && strcmp(part, "/") != 0) {
        char *slash = strrchr(part, '/');

        if (slash == NULL) break;
        slash[slash == part ? 1 : 0] = '\0';
    }
    if (realpath(base_file_kind(part) != BASE_FILE_NONE ? part : ".", path) == NULL)
        st = BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_IO_02, "%s: cannot look at it: %s", output,
                       strerror(errno));
    base_free(ctx, part);
    return st;
}

/* Whether what `path` (absolute, links resolved; it is cut) names is `place`, or lies inside it. Parents are looked at
 * by what they are, not by how they are spelled. */
static bool lies_in(char *path, const struct stat *place)
{
    struct stat here;

    for (char *end = path; end != NULL;) {
        if (stat(path[0] != '\0' ? path : "/", &here) == 0 && same_place(&here, place)) return true;
        end = strrchr(path, '/');
        if (end != NULL) *end = '\0';
    }
    return false;
}

/* The model that a run trains gets the name of one that is there, and that another one (trainer/run/train_export.h). */
static base_status_t check_moved(const tr_run_folder_t *folder, const char *model)
{
    static const char *const names[] = {"model", "model.before"};
    struct stat of_ours;
    char path[PATH_MAX];

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *ours;

        BASE_TRY(join(folder->ctx, folder->root, names[i], &ours));
        const bool there = stat(ours, &of_ours) == 0 && realpath(model, path) != NULL;
        base_free(folder->ctx, ours);
        if (there && lies_in(path, &of_ours))
            return BASE_FAIL(folder->ctx, BASE_ERR_CONFIG, BASE_MSG_RUN_03,
                             "%s: the model lies where the run puts the one that it trains, %s/%s",
                             model, folder->root, names[i]);
    }
    return BASE_OK;
}

static base_status_t check_model(const tr_run_folder_t *folder, const base_config_t *config)
{
    struct stat of_model;
    char path[PATH_MAX];

    if (stat(config->model, &of_model) != 0) return BASE_OK; /* whoever reads the model says so */
    BASE_TRY(existing_part(folder->ctx, folder->root, path));
    if (lies_in(path, &of_model))
        return BASE_FAIL(folder->ctx, BASE_ERR_CONFIG, BASE_MSG_RUN_03,
                         "%s: output lies in the model folder %s, which is only read", folder->root,
                         config->model);
    return config->train.mode == BASE_CONFIG_MODE_FULL ? check_moved(folder, config->model)
                                                       : BASE_OK;
}

static base_status_t check_run(tr_run_folder_t *folder, bool resume)
{
    static const tr_run_entry_t signs[] = {TR_RUN_MANIFEST, TR_RUN_METRICS, TR_RUN_CHECKPOINTS};

    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        if (base_file_kind(folder->path[signs[i]]) == BASE_FILE_NONE) continue;
        if (!resume)
            return BASE_FAIL(folder->ctx, BASE_ERR_CONFIG, BASE_MSG_RUN_01,
                             "%s: holds another run already: %s is there", folder->root,
                             ENTRIES[signs[i]]);
        folder->resumed = true;
    }
    return BASE_OK;
}

/* Whether a run wrote it: loading what it writes and writing that again gives the same text. */
static bool is_resolved(base_ctx_t *ctx, const char *path)
{
    base_config_t *config = NULL;
    char *text = NULL;
    size_t bytes = 0;
    bool same = false;

    base_status_t st = base_config_load(ctx, path, NULL, 0, NULL, &config);
    if (st >= 0) st = base_file_read(ctx, path, CONFIG_BYTES, &text, &bytes);
    if (st >= 0) same = base_hash_bytes(BASE_HASH_START, text, bytes) == base_print_hash(config);
    if (st < 0) base_ctx_clear_error(ctx); /* then it is none */
    base_free(ctx, text);
    base_config_destroy(config);
    return same;
}

/* People keep a config.yaml of theirs beside what it makes. */
static base_status_t check_config(const tr_run_folder_t *folder)
{
    const char *path = folder->path[TR_RUN_CONFIG];

    if (folder->resumed || base_file_kind(path) == BASE_FILE_NONE || is_resolved(folder->ctx, path))
        return BASE_OK;
    return BASE_FAIL(folder->ctx, BASE_ERR_CONFIG, BASE_MSG_RUN_11,
                     "%s: no run wrote this file, and a run would write its own there", path);
}

static base_status_t lock(tr_run_folder_t *folder)
{
    folder->lock = open(folder->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder->lock < 0)
        return BASE_FAIL(folder->ctx, BASE_ERR_IO, BASE_MSG_IO_02, "%s: cannot open: %s",
                         folder->root, strerror(errno));
    base_memory_count_open(base_ctx_memory(folder->ctx), BASE_RESOURCE_FILE);
    if (flock(folder->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return BASE_FAIL(folder->ctx, BASE_ERR_CONFIG, BASE_MSG_RUN_02,
                         "%s: another process is working in this folder", folder->root);
    return BASE_OK;
}

/* ==== what is made ==== */

base_status_t tr_run_folder_take_config(const tr_run_folder_t *folder, const base_config_t *config)
{
    base_file_t *file;

    BASE_TRY(base_file_create(folder->ctx, folder->path[TR_RUN_CONFIG], &file));
    base_print_config(config, base_file_stream(file));
    return base_file_commit(file);
}

static base_status_t open_log(const tr_run_folder_t *folder)
{
    char name[32];
    char *path;
    base_status_t st;

    (void)snprintf(name, sizeof name, "rank-%04d.log", base_ctx_rank(folder->ctx));
    BASE_TRY(join(folder->ctx, folder->path[TR_RUN_LOGS], name, &path));
    st = base_log_open_file(base_ctx_log(folder->ctx), folder->ctx, path);
    base_free(folder->ctx, path);
    return st;
}

static base_status_t fill(tr_run_folder_t *folder, const base_config_t *config, bool resume)
{
    BASE_TRY(check_model(folder, config));
    BASE_TRY(base_file_make_dirs(folder->ctx, folder->root));
    BASE_TRY(lock(folder));
    BASE_TRY(check_run(folder, resume));
    BASE_TRY(check_config(folder));
    BASE_TRY(base_file_make_dirs(folder->ctx, folder->path[TR_RUN_LOGS]));
    if (config->train.mode == BASE_CONFIG_MODE_LORA)
        BASE_TRY(base_file_make_dirs(folder->ctx, folder->path[TR_RUN_ADAPTERS]));
    return BASE_OK;
}

base_status_t tr_run_folder_create(base_ctx_t *ctx, const base_config_t *config, bool resume,
                                   tr_run_folder_t **folder_p)
{
    base_status_t st;
    tr_run_folder_t *folder = base_calloc(ctx, 1, sizeof *folder, "folder of the run");

    if (folder == NULL) return BASE_ERR_NOMEM;
    folder->ctx = ctx;
    folder->lock = -1;
    BASE_TRY_GOTO(make_paths(folder, config->output), st, err_destroy_folder);
    BASE_TRY_GOTO(fill(folder, config, resume), st, err_destroy_folder);
    BASE_TRY_GOTO(open_log(folder), st, err_destroy_folder);
    *folder_p = folder;
    return BASE_OK;
err_destroy_folder:
    tr_run_folder_destroy(folder);
    return st;
}

base_status_t tr_run_folder_join(base_ctx_t *ctx, const base_config_t *config, bool own_log,
                                 tr_run_folder_t **folder_p)
{
    tr_run_folder_t *folder = base_calloc(ctx, 1, sizeof *folder, "folder of the run");

    if (folder == NULL) return BASE_ERR_NOMEM;
    folder->ctx = ctx;
    folder->lock = -1;
    base_status_t st = make_paths(folder, config->output);
    if (st >= 0 && own_log) st = open_log(folder);
    if (st < 0) {
        tr_run_folder_destroy(folder);
        return st;
    }
    *folder_p = folder;
    return BASE_OK;
}

void tr_run_folder_destroy(tr_run_folder_t *folder)
{
    base_ctx_t *ctx;

    if (folder == NULL) return;
    ctx = folder->ctx;
    if (folder->lock >= 0) {
        (void)close(folder->lock);
        base_memory_count_close(base_ctx_memory(ctx), BASE_RESOURCE_FILE);
    }
    for (int i = 0; i < TR_RUN_ENTRY_COUNT; i++)
        base_free(ctx, folder->path[i]);
    base_free(ctx, folder->root);
    base_free(ctx, folder);
}

bool tr_run_folder_resumed(const tr_run_folder_t *folder)
{
    return folder->resumed;
}

const char *tr_run_folder_root(const tr_run_folder_t *folder)
{
    return folder->root;
}

const char *tr_run_folder_path(const tr_run_folder_t *folder, tr_run_entry_t entry)
{
    return folder->path[entry];
}

base_status_t tr_run_folder_adapter(const tr_run_folder_t *folder, const char *name, char **path_p)
{
    return join(folder->ctx, folder->path[TR_RUN_ADAPTERS], name, path_p);
}

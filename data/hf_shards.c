#include "data/hf_shards.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/sort.h"
#include "data/json_read.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SINGLE "model.safetensors"
#define INDEX  "model.safetensors.index.json"
#define PICKLE "pytorch_model.bin"

/* One line of the weight map; the texts are the JSON tree's. */
typedef struct placed {
    const char *tensor, *shard;
    int64_t file; /* in shards->files, -1: not open */
} placed_t;

typedef struct map {
    data_json_object_t object;
    placed_t *placed;
    int64_t count;
} map_t;

char *data_hf_shards_path(base_ctx_t *ctx, const char *folder, const char *name)
{
    const size_t bytes = strlen(folder) + strlen(name) + 2;
    char *path = base_alloc(ctx, bytes, "path");

    if (path != NULL) (void)snprintf(path, bytes, "%s/%s", folder, name);
    return path;
}

/* Hugging Face's cache is a folder of links; copied without what they lead to, it looks complete. True, with where it
 * leads, for a link that leads nowhere. */
static bool leads_nowhere(const char *path, char *to, size_t room)
{
    const ssize_t bytes = readlink(path, to, room - 1);

    if (bytes < 0 || base_file_kind(path) != BASE_FILE_NONE) return false;
    to[bytes] = '\0';
    return true;
}

/* ==== one file ==== */

/* Adds the file to the list; its faults are in `errors`. *file_p is its index, -1 when it has
 * faults. Only what ends the whole reading is returned. */
static base_status_t open_one(data_hf_shards_t *shards, const char *folder, const char *name,
                              base_error_list_t *errors, int64_t *file_p)
{
    char *path = data_hf_shards_path(shards->ctx, folder, name);
    base_status_t st;

    *file_p = -1;
    if (path == NULL) return BASE_ERR_NOMEM;
    st = data_safetensors_open(shards->ctx, path, errors, &shards->files[shards->count]);
    base_free(shards->ctx, path);
    if (st >= 0) *file_p = shards->count++;
    return st == BASE_ERR_FORMAT ? BASE_OK : st;
}

static base_status_t open_single(data_hf_shards_t *shards, const char *folder,
                                 base_error_list_t *errors)
{
    int64_t file;

    shards->files = base_calloc(shards->ctx, 1, sizeof(data_safetensors_t *), folder);
    if (shards->files == NULL) return BASE_ERR_NOMEM;
    return open_one(shards, folder, SINGLE, errors, &file);
}

/* ==== index ==== */

static void read_placed(void *arg, const char *key, data_json_kind_t kind, double number)
{
    map_t *map = arg;
    placed_t *placed = &map->placed[map->count];

    (void)kind;
    (void)number;
    *placed = (placed_t){.tensor = key, .file = -1};
    if (!data_json_text(&map->object, key, &placed->shard)) return;
    if (placed->shard[0] == '\0' || placed->shard[0] == '.' || strchr(placed->shard, '/') != NULL) {
        data_json_fault(&map->object, BASE_MSG_DATA_10, key,
                        "is in \"%.100s\", which is no file of this folder", placed->shard);
        return;
    }
    map->count++;
}

static int by_shard(const void *a, const void *b, const void *arg)
{
    const placed_t *x = a, *y = b;
    const int order = strcmp(x->shard, y->shard);

    (void)arg;
    return order != 0 ? order : strcmp(x->tensor, y->tensor);
}

static int by_tensor(const void *a, const void *b, const void *arg)
{
    (void)arg;
    return strcmp(((const placed_t *)a)->tensor, ((const placed_t *)b)->tensor);
}

static const placed_t *find_placed(const map_t *map, const char *tensor)
{
    int64_t low = 0, high = map->count;

    while (low < high) {
        const int64_t mid = low + (high - low) / 2;
        const int order = strcmp(tensor, map->placed[mid].tensor);

        if (order == 0) return &map->placed[mid];
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

/* Opens each shard once. */
static base_status_t open_shards(data_hf_shards_t *shards, const char *folder, map_t *map)
{
    int64_t num = 0;

    base_sort(map->placed, map->count, sizeof *map->placed, by_shard, NULL);
    for (int64_t i = 0; i < map->count; i++)
        num += i == 0 || strcmp(map->placed[i].shard, map->placed[i - 1].shard) != 0;
    shards->files = base_calloc(shards->ctx, num, sizeof(data_safetensors_t *), folder);
    if (shards->files == NULL) return BASE_ERR_NOMEM;
    for (int64_t i = 0; i < map->count; i++) {
        const char *shard = map->placed[i].shard;
        char *path;
        base_file_kind_t kind;
        char to[128];

        if (i > 0 && strcmp(shard, map->placed[i - 1].shard) == 0) {
            map->placed[i].file = map->placed[i - 1].file;
            continue;
        }
        path = data_hf_shards_path(shards->ctx, folder, shard);
        if (path == NULL) return BASE_ERR_NOMEM;
        kind = base_file_kind(path);
        const bool link = leads_nowhere(path, to, sizeof to);
        base_free(shards->ctx, path);
        if (kind == BASE_FILE_REGULAR)
            BASE_TRY(open_one(shards, folder, shard, map->object.errors, &map->placed[i].file));
        else if (link)
            data_json_fault(&map->object, BASE_MSG_DATA_01, NULL,
                            "names the shard \"%.200s\", a link to \"%s\", which is not there",
                            shard, to);
        else
            data_json_fault(&map->object, BASE_MSG_DATA_01, NULL,
                            "names the shard \"%.200s\", which is not in the folder", shard);
    }
    return BASE_OK;
}

static void compare(const data_hf_shards_t *shards, map_t *map)
{
    for (int64_t i = 0; i < map->count; i++) {
        const placed_t *placed = &map->placed[i];

        if (placed->file >= 0 &&
            data_safetensors_find(shards->files[placed->file], placed->tensor) == NULL)
            data_json_fault(&map->object, BASE_MSG_DATA_10, placed->tensor,
                            "is not in \"%.200s\", where the index places it", placed->shard);
    }
    base_sort(map->placed, map->count, sizeof *map->placed, by_tensor, NULL);
    for (int64_t f = 0; f < shards->count; f++)
        for (int64_t i = 0; i < data_safetensors_count(shards->files[f]); i++) {
            const char *name = data_safetensors_entry(shards->files[f], i)->name;
            const placed_t *placed = find_placed(map, name);

            if (placed == NULL)
                data_json_fault(&map->object, BASE_MSG_DATA_10, name,
                                "is in \"%.200s\" but not in the index",
                                data_safetensors_path(shards->files[f]));
            else if (placed->file != f)
                data_json_fault(&map->object, BASE_MSG_DATA_10, name,
                                "is also in \"%.200s\", the index places it in \"%.200s\"",
                                data_safetensors_path(shards->files[f]), placed->shard);
        }
}

static base_status_t open_by_map(data_hf_shards_t *shards, const char *folder,
                                 const data_json_object_t *root)
{
    const size_t before = root->errors->count;
    map_t map = {.count = 0};
    base_status_t st;

    if (!data_json_child(root, "weight_map", &map.object)) return BASE_ERR_FORMAT;
    map.placed = base_calloc(shards->ctx, data_json_num_keys(&map.object) + 1, sizeof *map.placed,
                             "weight map");
    if (map.placed == NULL) return BASE_ERR_NOMEM;
    data_json_each(&map.object, read_placed, &map);
    st = open_shards(shards, folder, &map);
    if (st >= 0 && root->errors->count == before) compare(shards, &map);
    base_free(shards->ctx, map.placed);
    return st;
}

/* ==== the folder ==== */

static base_status_t add_neither(base_ctx_t *ctx, const char *folder, const char *single,
                                 const char *index, base_error_list_t *errors)
{
    char *pickle = data_hf_shards_path(ctx, folder, PICKLE);
    char to[128];

    if (pickle == NULL) return BASE_ERR_NOMEM;
    if (leads_nowhere(single, to, sizeof to) || leads_nowhere(index, to, sizeof to))
        DATA_ERROR(errors, BASE_MSG_DATA_01, folder,
                   "has its weights as a link to \"%s\", which is not there", to);
    else if (base_file_kind(pickle) != BASE_FILE_NONE)
        DATA_ERROR(errors, BASE_MSG_DATA_01, folder,
                   "has only " PICKLE ", a pickle; it has to be converted to safetensors");
    else
        DATA_ERROR(errors, BASE_MSG_DATA_01, folder, "has neither " SINGLE " nor " INDEX);
    base_free(ctx, pickle);
    return BASE_OK;
}

base_status_t data_hf_shards_open(base_ctx_t *ctx, const char *folder, base_error_list_t *errors,
                                  data_hf_shards_t *shards)
{
    const size_t before = errors->count;
    char *single = data_hf_shards_path(ctx, folder, SINGLE);
    char *index = data_hf_shards_path(ctx, folder, INDEX);
    base_status_t st = BASE_ERR_NOMEM;
    data_json_t *json;
    data_json_object_t root;

    *shards = (data_hf_shards_t){.ctx = ctx};
    if (single == NULL || index == NULL) goto out_free_paths;
    st = BASE_OK;
    if (base_file_kind(single) == BASE_FILE_NONE && base_file_kind(index) == BASE_FILE_NONE)
        st = add_neither(ctx, folder, single, index, errors);
    else if (base_file_kind(index) == BASE_FILE_NONE)
        st = open_single(shards, folder, errors);
    else if (base_file_kind(single) != BASE_FILE_NONE)
        DATA_ERROR(errors, BASE_MSG_DATA_01, folder,
                   "has both " SINGLE " and " INDEX "; one of the two has to go");
    else {
        BASE_TRY_GOTO(data_json_read(ctx, index, DATA_JSON_MAX_BYTES, errors, &json), st,
                      out_free_paths);
        root = data_json_root(json);
        st = open_by_map(shards, folder, &root);
        data_json_close(json);
    }
    if (errors->pool.failed) st = BASE_ERR_NOMEM;
    if (st >= 0 && errors->count > before) st = BASE_ERR_FORMAT;
out_free_paths:
    base_free(ctx, index);
    base_free(ctx, single);
    return st;
}

void data_hf_shards_close(data_hf_shards_t *shards)
{
    for (int64_t i = 0; i < shards->count; i++)
        data_safetensors_close(shards->files[i]);
    base_free(shards->ctx, shards->files);
    shards->files = NULL;
    shards->count = 0;
}

const data_safetensors_entry_t *data_hf_shards_find(const data_hf_shards_t *shards,
                                                    const char *name,
                                                    const data_safetensors_t **file_p)
{
    for (int64_t f = 0; f < shards->count; f++) {
        const data_safetensors_entry_t *entry = data_safetensors_find(shards->files[f], name);

        if (entry == NULL) continue;
        *file_p = shards->files[f];
        return entry;
    }
    return NULL;
}

#include "base/config/diff.h"

#include "base/config/schema.h"
#include "base/config/value.h"

#include <string.h>

static const char CHANGES[] = "it changes what was learned";
static const char GROWS[] =
    "only a larger value, with schedule constant, leaves what was learned as it is";
static const char ORDER[] = "microbatches are planned in this order";
static const char CAME_OR_WENT[] = "a run keeps its adapters";

void base_diff_init(base_diff_t *diff, base_ctx_t *ctx)
{
    *diff = (base_diff_t){0};
    base_text_pool_init(&diff->pool, ctx);
}

void base_diff_deinit(base_diff_t *diff)
{
    base_text_pool_deinit(&diff->pool);
    diff->items = NULL;
    diff->count = diff->capacity = diff->num_refused = 0;
}

static base_status_t add(base_diff_t *diff, base_diff_item_t item)
{
    if (diff->count == diff->capacity) {
        const size_t capacity = diff->capacity == 0 ? 16 : 2 * diff->capacity;
        base_diff_item_t *items = base_text_pool_take(&diff->pool, capacity * sizeof *items);

        if (items == NULL) return BASE_ERR_NOMEM;
        if (diff->count > 0) memcpy(items, diff->items, diff->count * sizeof *items);
        diff->items = items;
        diff->capacity = capacity;
    }
    diff->items[diff->count++] = item;
    diff->num_refused += item.refused;
    return BASE_OK;
}

static void count_bytes(void *to, const char *text, size_t length)
{
    (void)text;
    *(size_t *)to += length;
}

static void append_bytes(void *to, const char *text, size_t length)
{
    char **end = to;

    memcpy(*end, text, length);
    *end += length;
}

/* A field as text, from the pool; NULL without memory. */
static const char *text_of(base_diff_t *diff, const base_schema_key_t *key, const void *object)
{
    size_t bytes = 0;
    const base_writer_t counter = {count_bytes, &bytes};
    char *text, *end;

    if (!base_value_is_set(key, object)) return "none";
    base_value_write(key, object, &counter);
    text = end = base_text_pool_take(&diff->pool, bytes + 1);
    if (text != NULL) {
        const base_writer_t appender = {append_bytes, &end};

        base_value_write(key, object, &appender);
    }
    return text;
}

/* `prefix` is "train." or "adapters.code."; `constant`: the job's schedule is constant in both. */
static base_status_t compare_key(base_diff_t *diff, const base_schema_key_t *key,
                                 const char *prefix, const void *before, const void *now,
                                 bool constant)
{
    base_diff_item_t item = {.why = ""};

    if (base_value_equal(key, before, now)) return BASE_OK;
    item.path = base_text_pool_format(&diff->pool, "%s%s", prefix, key->name);
    item.before = text_of(diff, key, before);
    item.now = text_of(diff, key, now);
    if (item.path == NULL || item.before == NULL || item.now == NULL) return BASE_ERR_NOMEM;
    if (key->resume == BASE_SCHEMA_REFUSE) {
        item.refused = true;
        item.why = CHANGES;
    } else if (key->resume == BASE_SCHEMA_GROW) {
        const int64_t old = base_value_int(key, before);

        item.refused = !constant || old == 0 || base_value_int(key, now) < old;
        item.why = item.refused ? GROWS : "";
    }
    return add(diff, item);
}

static base_status_t compare_jobs(base_diff_t *diff, const char *prefix,
                                  const base_config_adapter_t *before,
                                  const base_config_adapter_t *now, bool full)
{
    const bool constant =
        before->schedule == BASE_CONFIG_SCHEDULE_CONSTANT && now->schedule == before->schedule;

    for (size_t i = 0; i < base_schema_count(); i++) {
        const base_schema_key_t *key = base_schema_key(i);

        if (strcmp(key->section, "adapters") == 0 &&
            !(full && (key->flags & BASE_SCHEMA_LORA) != 0))
            BASE_TRY(compare_key(diff, key, prefix, before, now, constant));
    }
    return BASE_OK;
}

/* Adapters of `a` that `b` lacks. */
static base_status_t compare_presence(base_diff_t *diff, const base_config_t *a,
                                      const base_config_t *b, bool a_is_before)
{
    for (int64_t i = 0; i < a->num_adapters; i++) {
        base_diff_item_t item = {.refused = true, .why = CAME_OR_WENT};

        if (base_config_adapter(b, a->adapters[i].name) != NULL) continue;
        item.path = base_text_pool_format(&diff->pool, "adapters.%s", a->adapters[i].name);
        item.before = a_is_before ? "present" : "none";
        item.now = a_is_before ? "none" : "present";
        if (item.path == NULL) return BASE_ERR_NOMEM;
        BASE_TRY(add(diff, item));
    }
    return BASE_OK;
}

static base_status_t compare_adapters(base_diff_t *diff, const base_config_t *before,
                                      const base_config_t *now)
{
    bool same_set = before->num_adapters == now->num_adapters;

    BASE_TRY(compare_presence(diff, before, now, true));
    BASE_TRY(compare_presence(diff, now, before, false));
    for (int64_t i = 0; i < before->num_adapters; i++) {
        const base_config_adapter_t *other = base_config_adapter(now, before->adapters[i].name);
        char prefix[96];

        same_set = same_set && other != NULL;
        (void)snprintf(prefix, sizeof prefix, "adapters.%s.", before->adapters[i].name);
        if (other != NULL) BASE_TRY(compare_jobs(diff, prefix, &before->adapters[i], other, false));
    }
    for (int64_t i = 0; same_set && i < before->num_adapters; i++) {
        const char *was = before->adapters[i].name, *is = now->adapters[i].name;

        if (strcmp(was, is) == 0) continue;
        was = base_text_pool_copy(&diff->pool, was, strlen(was));
        is = base_text_pool_copy(&diff->pool, is, strlen(is));
        if (was == NULL || is == NULL) return BASE_ERR_NOMEM;
        return add(diff, (base_diff_item_t){"order of adapters", was, is, true, ORDER});
    }
    return BASE_OK;
}

base_status_t base_diff_configs(base_diff_t *diff, const base_config_t *before,
                                const base_config_t *now)
{
    for (size_t i = 0; i < base_schema_count(); i++) {
        const base_schema_key_t *key = base_schema_key(i);
        char prefix[32] = "";

        if (strcmp(key->section, "adapters") == 0) continue;
        if (key->section[0] != '\0') (void)snprintf(prefix, sizeof prefix, "%s.", key->section);
        BASE_TRY(compare_key(diff, key, prefix, before, now, false));
    }
    /* Another mode is refused already; its jobs have nothing to compare. */
    if (before->train.mode != now->train.mode) return BASE_OK;
    if (now->train.mode == BASE_CONFIG_MODE_FULL)
        return compare_jobs(diff, "defaults.", &before->full, &now->full, true);
    return compare_adapters(diff, before, now);
}

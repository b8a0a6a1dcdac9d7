#include "trainer/run/agreement.h"

#include "base/config/print.h"
#include "base/memory.h"

#include <inttypes.h>

typedef struct start {
    int64_t trains; /* 0: a server, which has no values */
    uint64_t hash;
} start_t;

static base_hash_t hash_dataset(base_hash_t h, const data_dataset_t *data)
{
    const int64_t documents = data_dataset_num_documents(data);

    h = base_hash_u64(h, data_dataset_hash(data));
    for (int64_t i = 0; i < documents; i++) {
        h = base_hash_i64(h, data_dataset_rows(data, i));
        h = base_hash_i64(h, data_dataset_supervised(data, i));
    }
    return h;
}

static base_hash_t hash_profile(const as_profile_t *p)
{
    base_hash_t h = BASE_HASH_START;

    if (p == NULL) return 0;
    h = base_hash_i64(h, p->row_grain);
    h = base_hash_i64_array(h, p->keys, p->num_points);
    for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++) {
        h = base_hash_i64_array(h, p->tile_row_ps[d], p->num_points);
        h = base_hash_i64(h, p->task_ps[d]);
        h = base_hash_i64(h, p->key_ps[d]);
        h = base_hash_i64(h, p->idle_per_mille[d]);
    }
    return h;
}

tr_agreement_t tr_agreement_of(const tr_inputs_t *inputs)
{
    tr_agreement_t a = {.config = base_print_hash(inputs->config),
                        .model = base_hash_string(BASE_HASH_START, inputs->model_hash),
                        .datasets = BASE_HASH_START,
                        .profile = hash_profile(inputs->profile)};

    for (int32_t j = 0; j < inputs->num_jobs; j++) {
        a.datasets = hash_dataset(a.datasets, inputs->jobs[j]->data);
        if (inputs->jobs[j]->eval != NULL)
            a.datasets = hash_dataset(a.datasets, inputs->jobs[j]->eval);
    }
    return a;
}

/* What differs first, and both values; NULL: nothing. */
static const char *find_difference(const tr_agreement_t *a, const tr_agreement_t *b,
                                   uint64_t values[2])
{
    const struct {
        const char *what;
        uint64_t a, b;
    } parts[] = {{"another configuration", a->config, b->config},
                 {"another model", a->model, b->model},
                 {"another attention profile (attention.cost_profile)", a->profile, b->profile},
                 {"other documents", a->datasets, b->datasets}};

    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (parts[i].a == parts[i].b) continue;
        values[0] = parts[i].a;
        values[1] = parts[i].b;
        return parts[i].what;
    }
    return NULL;
}

static base_status_t compare(base_ctx_t *ctx, const tr_agreement_t *all, int num_ranks)
{
    uint64_t values[2];

    for (int r = 1; r < num_ranks; r++) {
        const char *what = find_difference(&all[0], &all[r], values);

        if (what == NULL) continue;
        return BASE_FAIL(ctx, BASE_ERR_MISMATCH, BASE_MSG_COMM_03,
                         "rank %d has %s than rank 0 (hash %016" PRIx64 ", not %016" PRIx64 ")", r,
                         what, values[1], values[0]);
    }
    return BASE_OK;
}

base_status_t tr_agreement_check(base_ctx_t *ctx, comm_group_t *group, const tr_agreement_t *mine)
{
    const int num_ranks = comm_group_size(group);

    tr_agreement_t *all = base_calloc(ctx, num_ranks, sizeof *all, "agreement of the ranks");
    if (all == NULL) return BASE_ERR_NOMEM;
    base_status_t st = comm_allgather(group, mine, (int64_t)sizeof *mine, all);
    if (st >= 0) st = compare(ctx, all, num_ranks);
    base_free(ctx, all);
    return st;
}

/* Of the first trainer and of any that begins with other values. */
static base_status_t compare_starts(base_ctx_t *ctx, const start_t *all, int num_ranks)
{
    int first = 0;

    while (first < num_ranks && !all[first].trains)
        first++;
    for (int r = first + 1; r < num_ranks; r++)
        if (all[r].trains && all[r].hash != all[first].hash)
            return BASE_FAIL(ctx, BASE_ERR_MISMATCH, BASE_MSG_COMM_03,
                             "rank %d has other values of adapters to begin with (init) than rank "
                             "%d (hash %016" PRIx64 ", not %016" PRIx64 ")",
                             r, first, all[r].hash, all[first].hash);
    return BASE_OK;
}

base_status_t tr_agreement_check_start(base_ctx_t *ctx, comm_group_t *group, int trains,
                                       uint64_t values)
{
    const int num_ranks = comm_group_size(group);
    const start_t mine = {trains, values};

    start_t *all = base_calloc(ctx, num_ranks, sizeof *all, "agreement of the trainers");
    if (all == NULL) return BASE_ERR_NOMEM;
    base_status_t st = comm_allgather(group, &mine, (int64_t)sizeof mine, all);
    if (st >= 0) st = compare_starts(ctx, all, num_ranks);
    base_free(ctx, all);
    return st;
}

#include "trainer/run/memory_report.h"

#include "base/json_write.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MIB        (1024.0 * 1024.0)
#define MAX_GROUPS 256
#define NUM_SHOWN  12
#define NAME_BYTES 128

/* ==== regions of the arena, those that differ in numbers only taken together ==== */

typedef struct region_group {
    char owner[NAME_BYTES], name[NAME_BYTES];
    int64_t count, bytes;
} region_group_t;

typedef struct region_groups {
    int count;
    region_group_t list[MAX_GROUPS];
} region_groups_t;

/* "weight.12.qkv" gives "weight.*.qkv". */
static void generalize(const char *name, char out[NAME_BYTES])
{
    size_t at = 0;

    for (const char *p = name; *p != '\0' && at + 1 < NAME_BYTES; p++) {
        const bool digit = isdigit((unsigned char)*p) != 0;

        if (digit && at > 0 && out[at - 1] == '*') continue;
        out[at++] = *p;
        if (digit) out[at - 1] = '*';
    }
    out[at] = '\0';
}

static void add_region(region_groups_t *groups, const base_arena_entry_t *entry)
{
    char name[NAME_BYTES];
    int i = 0;

    generalize(entry->name, name);
    while (i < groups->count && (strcmp(groups->list[i].owner, entry->owner) != 0 ||
                                 strcmp(groups->list[i].name, name) != 0))
        i++;
    if (i == MAX_GROUPS) i = MAX_GROUPS - 1;
    region_group_t *g = &groups->list[i];
    if (i == groups->count) {
        groups->count++;
        *g = (region_group_t){0};
        (void)snprintf(g->owner, sizeof g->owner, "%s", entry->owner);
        memcpy(g->name, name, sizeof g->name);
    }
    g->count++;
    g->bytes += entry->bytes;
}

/* All regions of a folder together. */
static void group_owners(const base_arena_t *arena, region_groups_t *groups)
{
    groups->count = 0;
    for (base_region_t r = 0; r < base_arena_num_regions(arena); r++) {
        base_arena_entry_t entry = base_arena_entry(arena, r);
        entry.name = "";
        add_region(groups, &entry);
    }
}

static int by_bytes(const void *a, const void *b)
{
    const region_group_t *x = a, *y = b;

    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    const int owner = strcmp(x->owner, y->owner);
    return owner != 0 ? owner : strcmp(x->name, y->name);
}

static void group_regions(const base_arena_t *arena, region_groups_t *groups)
{
    groups->count = 0;
    for (base_region_t r = 0; r < base_arena_num_regions(arena); r++) {
        const base_arena_entry_t entry = base_arena_entry(arena, r);
        add_region(groups, &entry);
    }
    qsort(groups->list, (size_t)groups->count, sizeof *groups->list, by_bytes);
}

/* ==== shared ==== */

static bool is_full(const tr_memory_report_t *r)
{
    return r->plan->config->train.mode == BASE_CONFIG_MODE_FULL;
}

static int64_t parameters(const tr_memory_report_t *r, int32_t j)
{
    return is_full(r) ? tr_model_parameters(r->trainer->model) : r->trainer->adapter_count[j];
}

static double pad_share(const tr_memory_report_t *r)
{
    return r->epoch.rows > 0 ? (double)r->epoch.pad_rows / (double)r->epoch.rows : 0.0;
}

/* ==== text ==== */

static void print_jobs(const tr_memory_report_t *r)
{
    FILE *out = r->plan->out;

    (void)fprintf(out, "%-24s %10s %8s %22s\n", is_full(r) ? "model" : "adapter", "documents",
                  "steps", "trainable parameters");
    for (int32_t j = 0; j < r->inputs->num_jobs; j++) {
        const tr_job_t *job = r->inputs->jobs[j];

        (void)fprintf(out, "%-24s %10" PRId64 " %8" PRId64 " %22" PRId64 "\n", job->name,
                      job->training_documents, job->total_steps, parameters(r, j));
    }
}

/* Only GPUs have any. */
static void print_driver(const tr_memory_report_t *r)
{
    int64_t most = 0;

    for (int i = 0; i < r->num_ranks; i++)
        if (r->plan->ranks[i].driver > most) most = r->plan->ranks[i].driver;
    if (most == 0) return;
    (void)fprintf(r->plan->out, "driver and libraries, MiB, in the totals:");
    for (int i = 0; i < r->num_ranks; i++)
        (void)fprintf(r->plan->out, " %.1f", (double)r->plan->ranks[i].driver / MIB);
    (void)fputc('\n', r->plan->out);
}

static void print_ranks(const tr_memory_report_t *r)
{
    FILE *out = r->plan->out;

    if (r->trainer->activations != NULL)
        (void)fprintf(out, "\nin %s, recompute %s\n",
                      kern_dtype_name(r->trainer->model->config.dtype),
                      tr_recompute_name(r->trainer->activations->recompute));
    (void)fprintf(out, "\nMiB             device       host  for a while      total\n");
    for (int i = 0; i < r->num_ranks; i++) {
        const tr_memory_rank_t *rank = &r->plan->ranks[i];

        (void)fprintf(out, "rank %-6d %11.1f %10.1f %12.1f %10.1f\n", i, (double)rank->device / MIB,
                      (double)rank->host / MIB, (double)rank->transient / MIB,
                      (double)tr_memory_rank_total(rank) / MIB);
    }
    print_driver(r);
}

static void print_regions(const tr_memory_report_t *r)
{
    const base_arena_t *arena = r->trainer->arena;
    FILE *out = r->plan->out;
    region_groups_t groups;

    if (r->plan->regions) {
        (void)fputc('\n', out);
        base_arena_print(arena, out);
        return;
    }
    group_owners(arena, &groups);
    (void)fprintf(out, "\nrank 0's device memory by owner, MiB:");
    for (int i = 0; i < groups.count; i++)
        (void)fprintf(out, "%s %s %.1f", i > 0 ? "," : "", groups.list[i].owner,
                      (double)groups.list[i].bytes / MIB);
    group_regions(arena, &groups);
    (void)fprintf(out, "\nits largest parts, MiB (all: --regions)\n");
    for (int i = 0; i < groups.count && i < NUM_SHOWN; i++) {
        const region_group_t *g = &groups.list[i];

        (void)fprintf(out, "%11.1f  %-16s %s (%" PRId64 ")\n", (double)g->bytes / MIB, g->owner,
                      g->name, g->count);
    }
    (void)fprintf(out, "%11.1f  saved by parts that share their place in turn\n",
                  (double)(base_arena_declared(arena) - base_arena_bytes(arena)) / MIB);
}

static void print_epoch(const tr_memory_report_t *r)
{
    FILE *out = r->plan->out;

    if (r->epoch.whole)
        (void)fprintf(out, "\nfirst epoch of all: %" PRId64 " microbatches", r->epoch.microbatches);
    else
        (void)fprintf(out, "\nfirst %" PRId64 " microbatches", r->epoch.microbatches);
    (void)fprintf(out, " of up to %" PRId64 " rows on each trainer, %.1f %% pad rows\n",
                  r->lots->plans.tokens_per_trainer, 100.0 * pad_share(r));
    if (pad_share(r) > TR_PAD_SHARE_MAX)
        (void)fprintf(r->plan->err,
                      "cadre: warning: %.1f %% of the rows are pad rows: larger "
                      "global_batch_documents, more adapters at once, or a smaller "
                      "batch.tokens_per_trainer fill microbatches better\n",
                      100.0 * pad_share(r));
}

static void print_plans(const tr_memory_report_t *r)
{
    FILE *out = r->plan->out;

    (void)fprintf(out,
                  "\nattention on %" PRId32 " server%s, one layer (of each kind), forward and "
                  "backward\nmicrobatch       rows  tasks  elsewhere  busiest server  no plan "
                  "below     gap\n",
                  r->trainer->topology->num_servers,
                  r->trainer->topology->num_servers == 1 ? "" : "s");
    for (int32_t i = 0; i < r->epoch.num_plans; i++) {
        const tr_epoch_plan_t *p = &r->epoch.plans[i];

        (void)fprintf(out,
                      "%10" PRId32 " %10" PRId64 " %6" PRId32 " %10" PRId32
                      " %12.3f ms %10.3f ms %6.2f %%\n",
                      i, p->document_rows, p->tasks, p->remote, (double)p->makespan_ns * 1e-6,
                      (double)p->bound_ns * 1e-6, tr_epoch_plan_gap(p));
    }
}

void tr_memory_report_text(const tr_memory_report_t *r)
{
    FILE *out = r->plan->out;

    print_jobs(r);
    print_ranks(r);
    print_regions(r);
    print_epoch(r);
    print_plans(r);
    (void)fprintf(out, "%s: %.1f MiB on %d rank%s",
                  r->plan->fits ? "\nyes: it fits" : "\nno: it does not fit",
                  (double)r->total / MIB, r->num_ranks, r->num_ranks == 1 ? "" : "s");
    if (r->limit.bytes == INT64_MAX)
        (void)fprintf(out, "; how much there is cannot be read here\n");
    else
        (void)fprintf(out, "; there are %.1f MiB (%s)\n", (double)r->limit.bytes / MIB,
                      r->limit.cause);
    if (r->plan->fits) return;
    if (r->would_fit > 0)
        (void)fprintf(out,
                      "    about %" PRId64
                      " rows would fit: --set batch.tokens_per_trainer=%" PRId64
                      " instead of %" PRId64 "\n",
                      r->would_fit, r->would_fit, r->lots->plans.tokens_per_trainer);
    else
        (void)fprintf(out,
                      "    the longest document alone (%" PRId64
                      " rows) is too much for %d rank%s: use more of them\n",
                      r->inputs->longest, r->num_ranks, r->num_ranks == 1 ? "" : "s");
}

/* ==== JSON ==== */

static void put_ranks(base_json_t *j, const tr_memory_report_t *r)
{
    base_json_key(j, "ranks");
    base_json_begin_array(j);
    for (int i = 0; i < r->num_ranks; i++) {
        base_json_begin_object(j);
        base_json_put_int(j, "rank", i);
        base_json_put_int(j, "device_bytes", r->plan->ranks[i].device);
        base_json_put_int(j, "driver_bytes", r->plan->ranks[i].driver);
        base_json_put_int(j, "host_bytes", r->plan->ranks[i].host);
        base_json_put_int(j, "transient_bytes", r->plan->ranks[i].transient);
        base_json_put_int(j, "total_bytes", tr_memory_rank_total(&r->plan->ranks[i]));
        base_json_end(j);
    }
    base_json_end(j);
}

static void put_regions(base_json_t *j, const tr_memory_report_t *r)
{
    region_groups_t groups;

    group_owners(r->trainer->arena, &groups);
    base_json_key(j, "owners");
    base_json_begin_array(j);
    for (int i = 0; i < groups.count; i++) {
        base_json_begin_object(j);
        base_json_put_string(j, "owner", groups.list[i].owner);
        base_json_put_int(j, "bytes", groups.list[i].bytes);
        base_json_end(j);
    }
    base_json_end(j);
    group_regions(r->trainer->arena, &groups);
    base_json_key(j, "regions");
    base_json_begin_array(j);
    for (int i = 0; i < groups.count && (r->plan->regions || i < NUM_SHOWN); i++) {
        base_json_begin_object(j);
        base_json_put_string(j, "owner", groups.list[i].owner);
        base_json_put_string(j, "name", groups.list[i].name);
        base_json_put_int(j, "count", groups.list[i].count);
        base_json_put_int(j, "bytes", groups.list[i].bytes);
        base_json_end(j);
    }
    base_json_end(j);
}

static void put_plans(base_json_t *j, const tr_memory_report_t *r)
{
    base_json_key(j, "plans");
    base_json_begin_array(j);
    for (int32_t i = 0; i < r->epoch.num_plans; i++) {
        const tr_epoch_plan_t *p = &r->epoch.plans[i];

        base_json_begin_object(j);
        base_json_put_int(j, "document_rows", p->document_rows);
        base_json_put_int(j, "tasks", p->tasks);
        base_json_put_int(j, "remote_tasks", p->remote);
        base_json_put_int(j, "makespan_ns", p->makespan_ns);
        base_json_put_int(j, "bound_ns", p->bound_ns);
        base_json_end(j);
    }
    base_json_end(j);
}

static void put_jobs(base_json_t *j, const tr_memory_report_t *r)
{
    base_json_key(j, "adapters");
    base_json_begin_array(j);
    for (int32_t i = 0; i < r->inputs->num_jobs; i++) {
        base_json_begin_object(j);
        base_json_put_string(j, "adapter", r->inputs->jobs[i]->name);
        base_json_put_int(j, "documents", r->inputs->jobs[i]->training_documents);
        base_json_put_int(j, "steps", r->inputs->jobs[i]->total_steps);
        base_json_put_int(j, "trainable_parameters", parameters(r, i));
        base_json_end(j);
    }
    base_json_end(j);
}

base_status_t tr_memory_report_json(base_ctx_t *ctx, const tr_memory_report_t *r)
{
    base_json_t j;

    base_json_to_file(&j, r->plan->out);
    base_json_begin_object(&j);
    base_json_put_bool(&j, "fits", r->plan->fits);
    base_json_put_int(&j, "total_bytes", r->total);
    if (r->limit.bytes != INT64_MAX) {
        base_json_put_int(&j, "available_bytes", r->limit.bytes);
    } else {
        base_json_key(&j, "available_bytes");
        base_json_null(&j);
    }
    base_json_put_string(&j, "limit", r->limit.cause);
    base_json_put_string(&j, "dtype", kern_dtype_name(r->trainer->model->config.dtype));
    if (r->trainer->activations != NULL)
        base_json_put_string(&j, "recompute",
                             tr_recompute_name(r->trainer->activations->recompute));
    base_json_put_int(&j, "tokens_per_trainer", r->lots->plans.tokens_per_trainer);
    base_json_put_int(&j, "longest_document", r->inputs->longest);
    base_json_key(&j, "tokens_that_fit");
    if (r->would_fit > 0)
        base_json_int(&j, r->would_fit);
    else
        base_json_null(&j);
    put_ranks(&j, r);
    put_regions(&j, r);
    put_jobs(&j, r);
    base_json_key(&j, "epoch");
    base_json_begin_object(&j);
    base_json_put_int(&j, "microbatches", r->epoch.microbatches);
    base_json_put_bool(&j, "whole", r->epoch.whole != 0);
    base_json_put_double(&j, "pad_share", pad_share(r));
    base_json_end(&j);
    put_plans(&j, r);
    base_json_end(&j);
    base_json_newline(&j);
    return base_json_finish(&j, ctx, "standard output");
}

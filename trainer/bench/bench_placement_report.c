/* What `cadre bench placement` writes. */
#include "trainer/bench/bench_placement.h"

#include "base/clock.h"
#include "base/json_write.h"
#include "base/version.h"

#include <inttypes.h>
#include <unistd.h>

const char *tr_bench_placement_name(as_placement_t placement)
{
    static const char *const names[] = {
        [AS_IN_PLACE] = "in_place", [AS_POOL] = "pool", [AS_LOCAL] = "local"};

    return names[placement];
}

static int64_t all_steps_ns(const tr_bench_placement_t *b, const tr_bench_placement_result_t *r)
{
    int64_t ns = 0;

    for (int64_t m = 0; m < b->microbatches; m++)
        ns += r->step_ns[m];
    return ns;
}

/* Of all microbatches, the mean over the ranks. */
static int64_t mean_own_ns(const tr_bench_placement_t *b, const tr_bench_placement_result_t *r)
{
    int64_t ns = 0;

    for (int rank = 0; rank < r->num_ranks; rank++)
        for (int64_t m = 0; m < b->microbatches; m++)
            ns += r->of[rank].own_ns[m];
    return ns / r->num_ranks;
}

/* Of the ranks' time, what went to waits for data or for a rank. */
static double share_of(const tr_bench_placement_t *b, const tr_bench_placement_result_t *r,
                       base_part_t part)
{
    int64_t ns = 0;

    for (int rank = 0; rank < r->num_ranks; rank++)
        ns += r->of[rank].part_ns[part];
    return (double)ns / ((double)all_steps_ns(b, r) * r->num_ranks);
}

static double tokens_per_s(const tr_bench_placement_t *b, const tr_bench_placement_result_t *r)
{
    return (double)(r->rows * b->microbatches) / ((double)all_steps_ns(b, r) * 1e-9) / r->num_ranks;
}

static const char *lengths_name(const tr_bench_placement_t *b)
{
    return b->rows > 0 ? "equal" : tr_lengths_name(b->lengths);
}

/* ==== text ==== */

static void print_text(const tr_bench_placement_t *b, const tr_bench_placement_result_t *r)
{
    (void)fprintf(b->out,
                  "%d x %s, transport %s: %s, %" PRId64 " layers, recompute %s; placement %s, %d "
                  "trainers of %" PRId64 " rows; %s lengths, %" PRId64 " rows a microbatch\n\n",
                  r->num_ranks, r->device, r->transport, b->shape, r->layers,
                  tr_recompute_name(b->recompute), tr_bench_placement_name(b->placement),
                  r->num_trainers, r->tokens_per_trainer, lengths_name(b), r->rows);
    (void)fprintf(b->out, "microbatch  documents  longest     ms   own, slowest  own, mean\n");
    for (int64_t m = 0; m < b->microbatches; m++) {
        int64_t most = 0, sum = 0;

        for (int rank = 0; rank < r->num_ranks; rank++) {
            const int64_t own = r->of[rank].own_ns[m];

            sum += own;
            if (own > most) most = own;
        }
        (void)fprintf(b->out, "%10" PRId64 " %10" PRId64 " %8" PRId64 " %8.1f %12.1f %10.1f\n", m,
                      r->documents[m], r->longest[m], (double)r->step_ns[m] * 1e-6,
                      (double)most * 1e-6, (double)sum * 1e-6 / r->num_ranks);
    }
    (void)fprintf(b->out,
                  "\n%.0f tokens a second and rank; of the ranks' time %.1f %% dense, %.1f %% "
                  "attention, %.1f %% waits for data, %.1f %% for ranks; loss %.6f\n",
                  tokens_per_s(b, r), 100 * share_of(b, r, BASE_PART_DENSE),
                  100 * share_of(b, r, BASE_PART_ATTENTION),
                  100 * share_of(b, r, BASE_PART_EXCHANGE), 100 * share_of(b, r, BASE_PART_WAITING),
                  r->loss);
}

/* ==== JSON ==== */

static void put_case(base_json_t *j, const tr_bench_placement_t *b,
                     const tr_bench_placement_result_t *r)
{
    char time[BASE_CLOCK_TEXT_BYTES], host[256] = "";

    base_clock_format(base_clock_wall_ns(), time);
    (void)gethostname(host, sizeof host - 1);
    base_json_put_string(j, "time", time);
    base_json_put_string(j, "commit", base_version_commit());
    base_json_put_string(j, "host", host);
    base_json_put_string(j, "device", r->device);
    base_json_put_int(j, "ranks", r->num_ranks);
    base_json_put_string(j, "transport", r->transport);
    base_json_put_string(j, "placement", tr_bench_placement_name(b->placement));
    base_json_put_int(j, "trainers", r->num_trainers);
    base_json_put_string(j, "shape", b->shape);
    base_json_put_int(j, "layers", r->layers);
    base_json_put_string(j, "dtype", kern_dtype_name(b->dtype));
    base_json_put_string(j, "recompute", tr_recompute_name(b->recompute));
    base_json_put_string(j, "lengths", lengths_name(b));
    base_json_put_int(j, "seed", b->seed);
    base_json_put_int(j, "max_rows", b->max_rows);
    base_json_put_int(j, "rows_each", b->rows_each);
    base_json_put_int(j, "rows", r->rows);
    base_json_put_int(j, "tokens_per_trainer", r->tokens_per_trainer);
}

static void put_rank(base_json_t *j, const tr_bench_placement_t *b,
                     const tr_bench_placement_times_t *times)
{
    base_json_begin_object(j);
    base_json_put_int(j, "arena_bytes", times->arena_bytes);
    base_json_put_int(j, "device_bytes", times->device_bytes);
    base_json_put_int(j, "planned_bytes", times->planned_bytes);
    base_json_put_int(j, "used_before_bytes", times->used_before_bytes);
    base_json_put_int(j, "used_bytes", times->used_bytes);
    base_json_put_int(j, "waits_inside", times->stalls.waits);
    base_json_put_int(j, "allocations_inside", times->stalls.allocations);
    base_json_put_int(j, "counted_microbatches", times->stalls.counted);
    base_json_put_ints(j, "own_ns", times->own_ns, b->microbatches);
    for (int part = BASE_PART_NONE + 1; part < BASE_NUM_PARTS; part++) {
        char key[32];

        (void)snprintf(key, sizeof key, "%s_ns", base_part_word((base_part_t)part));
        base_json_put_int(j, key, times->part_ns[part]);
    }
    base_json_end(j);
}

static base_status_t put_json(base_ctx_t *ctx, const tr_bench_placement_t *b,
                              const tr_bench_placement_result_t *r)
{
    base_json_t j;

    base_json_to_file(&j, b->out);
    base_json_set_indent(&j, 1);
    base_json_begin_object(&j);
    put_case(&j, b, r);
    base_json_put_ints(&j, "documents", r->documents, b->microbatches);
    base_json_put_ints(&j, "longest", r->longest, b->microbatches);
    base_json_put_ints(&j, "steps_ns", r->step_ns, b->microbatches);
    base_json_put_int(&j, "all_steps_ns", all_steps_ns(b, r));
    base_json_put_int(&j, "mean_own_ns", mean_own_ns(b, r));
    base_json_put_double(&j, "tokens_per_s_rank", tokens_per_s(b, r));
    base_json_put_double(&j, "exchange_share", share_of(b, r, BASE_PART_EXCHANGE));
    base_json_put_double(&j, "waiting_share", share_of(b, r, BASE_PART_WAITING));
    base_json_put_double(&j, "loss", r->loss);
    base_json_key(&j, "of_ranks");
    base_json_begin_array(&j);
    for (int rank = 0; rank < r->num_ranks; rank++)
        put_rank(&j, b, &r->of[rank]);
    base_json_end(&j);
    base_json_end(&j);
    base_json_newline(&j);
    return base_json_finish(&j, ctx, "standard output");
}

base_status_t tr_bench_placement_report(base_ctx_t *ctx, const tr_bench_placement_t *bench,
                                        const tr_bench_placement_result_t *result)
{
    if (bench->json) return put_json(ctx, bench, result);
    print_text(bench, result);
    return BASE_OK;
}

/* What `cadre bench train` writes. */
#include "base/clock.h"
#include "base/json_write.h"
#include "base/version.h"
#include "trainer/bench/bench_train.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

static void name_entry(const tr_op_entry_t *e, char text[80])
{
    if (e->m == 0)
        (void)snprintf(text, 80, "%s", e->op);
    else
        (void)snprintf(text, 80, "%s %" PRId64 "x%" PRId64 "x%" PRId64 " %c%c", e->op, e->m, e->n,
                       e->k, e->ta ? 't' : 'n', e->tb ? 't' : 'n');
}

static int longest_first(const void *a, const void *b)
{
    const tr_op_entry_t *x = a, *y = b;

    return (y->ns > x->ns) - (y->ns < x->ns);
}

static double tokens_per_s(const tr_bench_train_t *b, const tr_bench_train_result_t *r)
{
    return (double)(b->documents * b->rows) / ((double)r->median_ns * 1e-9);
}

static int64_t in_ops(const tr_bench_train_result_t *r)
{
    int64_t ns = 0;

    for (int i = 0; i < r->clock.count; i++)
        ns += r->clock.entries[i].ns;
    return ns;
}

/* Of the time of all measured steps. */
static double part_share(const tr_bench_train_result_t *r, int part)
{
    int64_t all = 0;

    for (int p = 0; p < BASE_NUM_PARTS; p++)
        all += r->part_ns[p];
    return all > 0 ? (double)r->part_ns[part] / (double)all : 0.0;
}

static double per_ns(double amount, int64_t ns)
{
    return ns > 0 ? amount / (double)ns : 0.0;
}

/* ==== text ==== */

static void print_bare(const tr_bench_train_t *b, const tr_bench_train_result_t *r)
{
    const tr_bare_t *bare = &r->bare;
    const double *attention = r->attention.flops_per_ns;

    (void)fprintf(b->out,
                  "bare     a product of %" PRId64 "x%" PRId64 "x%" PRId64
                  " %.3f TFLOP/s, a copy %.1f GB/s, attention of %" PRId64
                  " documents %.3f forward, %.3f backward\n",
                  bare->m, bare->n, bare->k, bare->flops_per_ns * 1e-3, bare->copy_bytes_per_ns,
                  r->attention.count, attention[AS_PROFILE_FORWARD] * 1e-3,
                  attention[AS_PROFILE_BACKWARD] * 1e-3);
}

static void print_text(const tr_bench_train_t *b, const tr_bench_train_result_t *r)
{
    char name[80];

    (void)fprintf(b->out,
                  "%s: %s, %" PRId64 " parameters in %s; %" PRId64 " adapters of rank %" PRId64
                  "; %" PRId64 " documents of %" PRId64 " rows in %" PRId64
                  "; recompute %s; %.1f GiB\n\n",
                  r->device, b->shape, r->parameters, kern_dtype_name(b->dtype), b->adapters,
                  b->rank, b->documents, b->rows, r->batch_rows, tr_recompute_name(r->recompute),
                  (double)r->arena_bytes / (double)(1 << 30));
    (void)fprintf(b->out, "%-34s %6s %10s %7s %8s %8s\n", "op, m x n x k", "calls", "ms a step",
                  "share", "TFLOP/s", "GB/s");
    for (int i = 0; i < r->clock.count; i++) {
        const tr_op_entry_t *e = &r->clock.entries[i];

        name_entry(e, name);
        (void)fprintf(b->out, "%-34s %6" PRId64 " %10.3f %6.1f%%", name, e->calls,
                      (double)e->ns * 1e-6, 100.0 * (double)e->ns / (double)r->serial_ns);
        (void)fprintf(b->out, " %8.3f %8.1f\n", per_ns(e->flops, e->ns) * 1e-3,
                      per_ns(e->bytes, e->ns));
    }
    (void)fprintf(b->out,
                  "%-34s %6s %10.3f\n\n"
                  "step     %.2f ms (median of %" PRId64 "), op by op %.2f ms\n"
                  "given    %.2f ms until all of forward and backward was given to the device\n"
                  "tokens   %.0f a second\n"
                  "loss     %.4f at first, %.4f in the last step\n"
                  "inside   %" PRId64 " waits of the host and %" PRId64
                  " allocations in the %" PRId64 " microbatches from the third on\n"
                  "stream  ",
                  "outside of ops", "", (double)(r->serial_ns - in_ops(r)) * 1e-6,
                  (double)r->median_ns * 1e-6, b->repeat, (double)r->serial_ns * 1e-6,
                  (double)r->given_ns[b->repeat - 1] * 1e-6, tokens_per_s(b, r), r->loss[0],
                  r->loss[1], r->stalls.waits, r->stalls.allocations, r->stalls.counted);
    for (int p = 0; p < BASE_NUM_PARTS; p++)
        (void)fprintf(b->out, "%s %.2f%% %s", p == 0 ? "" : ",", 100.0 * part_share(r, p),
                      base_part_word((base_part_t)p));
    (void)fputc('\n', b->out);
    if (!b->steps_only) print_bare(b, r);
    if (r->used_bytes[1] > 0)
        (void)fprintf(b->out,
                      "memory   %.2f GiB by the driver's count, %.2f planned, %.2f before; buffers "
                      "%.2f\n",
                      (double)r->used_bytes[1] / (double)(1 << 30),
                      (double)r->planned_bytes / (double)(1 << 30),
                      (double)r->used_bytes[0] / (double)(1 << 30),
                      (double)r->device_bytes / (double)(1 << 30));
}

/* ==== JSON ==== */

static void put_machine(base_json_t *j, const tr_bench_train_result_t *r)
{
    char time[BASE_CLOCK_TEXT_BYTES], host[256] = "";

    base_clock_format(base_clock_wall_ns(), time);
    (void)gethostname(host, sizeof host - 1);
    base_json_put_string(j, "time", time);
    base_json_put_string(j, "commit", base_version_commit());
    base_json_put_string(j, "host", host);
    base_json_put_string(j, "device", r->device);
}

static void put_case(base_json_t *j, const tr_bench_train_t *b, const tr_bench_train_result_t *r)
{
    base_json_put_string(j, "shape", b->shape);
    base_json_put_int(j, "parameters", r->parameters);
    base_json_put_string(j, "dtype", kern_dtype_name(b->dtype));
    base_json_put_int(j, "adapters", b->adapters);
    base_json_put_int(j, "rank", b->rank);
    base_json_put_int(j, "documents", b->documents);
    base_json_put_int(j, "rows", b->rows);
    base_json_put_int(j, "batch_rows", r->batch_rows);
    base_json_put_string(j, "recompute", tr_recompute_name(r->recompute));
    base_json_put_int(j, "arena_bytes", r->arena_bytes);
    base_json_put_int(j, "device_bytes", r->device_bytes);
    base_json_put_int(j, "planned_bytes", r->planned_bytes);
    base_json_put_int(j, "used_before_bytes", r->used_bytes[0]);
    base_json_put_int(j, "used_bytes", r->used_bytes[1]);
}

static void put_parts(base_json_t *j, const tr_bench_train_result_t *r)
{
    base_json_key(j, "parts");
    base_json_begin_object(j);
    for (int p = 0; p < BASE_NUM_PARTS; p++)
        base_json_put_double(j, base_part_word((base_part_t)p), part_share(r, p));
    base_json_end(j);
}

static void put_bare(base_json_t *j, const tr_bench_train_result_t *r)
{
    const tr_bare_t *bare = &r->bare;
    const tr_bare_attention_t *attention = &r->attention;

    base_json_key(j, "bare");
    base_json_begin_object(j);
    base_json_put_int(j, "m", bare->m);
    base_json_put_int(j, "n", bare->n);
    base_json_put_int(j, "k", bare->k);
    base_json_put_double(j, "flops_per_ns", bare->flops_per_ns);
    base_json_put_double(j, "copy_bytes_per_ns", bare->copy_bytes_per_ns);
    base_json_put_int(j, "attention_documents", attention->count);
    base_json_put_double(j, "attention_fwd_flops_per_ns",
                         attention->flops_per_ns[AS_PROFILE_FORWARD]);
    base_json_put_double(j, "attention_bwd_flops_per_ns",
                         attention->flops_per_ns[AS_PROFILE_BACKWARD]);
    base_json_end(j);
}

static void put_entries(base_json_t *j, const tr_bench_train_result_t *r)
{
    char name[80];

    base_json_key(j, "ops");
    base_json_begin_array(j);
    for (int i = 0; i < r->clock.count; i++) {
        const tr_op_entry_t *e = &r->clock.entries[i];

        name_entry(e, name);
        base_json_begin_object(j);
        base_json_put_string(j, "op", name);
        base_json_put_int(j, "calls", e->calls);
        base_json_put_int(j, "ns", e->ns);
        base_json_put_double(j, "flops", e->flops);
        base_json_put_double(j, "bytes", e->bytes);
        base_json_end(j);
    }
    base_json_end(j);
}

static base_status_t put_json(base_ctx_t *ctx, const tr_bench_train_t *b,
                              const tr_bench_train_result_t *r)
{
    base_json_t j;

    base_json_to_file(&j, b->out);
    base_json_set_indent(&j, 1);
    base_json_begin_object(&j);
    put_machine(&j, r);
    put_case(&j, b, r);
    base_json_put_double(&j, "tokens_per_s", tokens_per_s(b, r));
    base_json_put_int(&j, "step_ns", r->median_ns);
    base_json_put_ints(&j, "steps_ns", r->step_ns, b->repeat);
    base_json_put_ints(&j, "given_ns", r->given_ns, b->repeat);
    base_json_put_int(&j, "serial_step_ns", r->serial_ns);
    base_json_put_int(&j, "serial_ops_ns", in_ops(r));
    put_parts(&j, r);
    base_json_put_int(&j, "waits_inside", r->stalls.waits);
    base_json_put_int(&j, "allocations_inside", r->stalls.allocations);
    base_json_put_int(&j, "counted_microbatches", r->stalls.counted);
    base_json_put_double(&j, "first_loss", r->loss[0]);
    base_json_put_double(&j, "last_loss", r->loss[1]);
    if (!b->steps_only) put_bare(&j, r);
    put_entries(&j, r);
    base_json_end(&j);
    base_json_newline(&j);
    return base_json_finish(&j, ctx, "standard output");
}

base_status_t tr_bench_train_report(base_ctx_t *ctx, const tr_bench_train_t *bench,
                                    tr_bench_train_result_t *result)
{
    qsort(result->clock.entries, (size_t)result->clock.count, sizeof *result->clock.entries,
          longest_first);
    if (bench->json) return put_json(ctx, bench, result);
    print_text(bench, result);
    return BASE_OK;
}

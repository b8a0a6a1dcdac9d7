/* What `cadre bench step` writes. */
#include "base/clock.h"
#include "base/json_write.h"
#include "base/version.h"
#include "kernels/cpu/blas_version.h"
#include "trainer/bench/bench_step.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

typedef struct gate {
    const char *name, *what;
    double found, wanted;
} gate_t;

#define NUM_GATES 3

static void list_gates(const tr_bench_result_t *r, gate_t gates[NUM_GATES])
{
    gates[0] = (gate_t){"blas", "of the step inside OpenBLAS", r->blas, TR_BENCH_BLAS};
    gates[1] = (gate_t){"dense", "of bare sgemm in matrix products", r->dense, TR_BENCH_DENSE};
    gates[2] =
        (gate_t){"attention", "of sgemm's best in attention", r->attention, TR_BENCH_ATTENTION};
}

static double gigaflops(double flops, int64_t ns)
{
    return ns > 0 ? flops / (double)ns : 0.0;
}

/* ==== text ==== */

/* Entries by time, the longest first. */
static void sort_entries(const tr_op_clock_t *clock, int order[TR_OP_CLOCK_ENTRIES])
{
    for (int i = 0; i < clock->count; i++) {
        int at = i;

        for (; at > 0 && clock->entries[order[at - 1]].ns < clock->entries[i].ns; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}

static void name_entry(const tr_op_entry_t *e, char text[64])
{
    if (e->m == 0)
        (void)snprintf(text, 64, "%s", e->op);
    else
        (void)snprintf(text, 64, "%s %" PRId64 "x%" PRId64 "x%" PRId64 " %c%c", e->op, e->m, e->n,
                       e->k, e->ta ? 't' : 'n', e->tb ? 't' : 'n');
}

static void print_entries(const tr_bench_step_t *b, const tr_bench_result_t *r)
{
    int order[TR_OP_CLOCK_ENTRIES];
    char name[64];

    sort_entries(&r->clock, order);
    (void)fprintf(b->out, "%-30s %6s %10s %7s %8s %8s\n", "op, m x n x k", "calls", "ms a step",
                  "share", "GFLOP/s", "of bare");
    for (int i = 0; i < r->clock.count; i++) {
        const tr_op_entry_t *e = &r->clock.entries[order[i]];
        const int64_t bare = r->bare_ns[order[i]];

        name_entry(e, name);
        (void)fprintf(b->out, "%-30s %6" PRId64 " %10.2f %6.1f%%", name, e->calls / b->repeat,
                      (double)e->ns / (double)b->repeat * 1e-6,
                      100.0 * (double)e->ns / (double)r->all_ns);
        if (e->flops > 0) (void)fprintf(b->out, " %8.1f", gigaflops(e->flops, e->ns));
        if (bare > 0)
            (void)fprintf(b->out, " %7.1f%%", 100.0 * (double)(bare * e->calls) / (double)e->ns);
        (void)fputc('\n', b->out);
    }
    (void)fprintf(b->out, "%-30s %6s %10.2f %6.1f%%\n\n", "outside of ops", "",
                  (double)(r->all_ns - r->op_ns) / (double)b->repeat * 1e-6,
                  100.0 * (double)(r->all_ns - r->op_ns) / (double)r->all_ns);
}

void tr_bench_step_text(const tr_bench_step_t *b, const tr_bench_result_t *r)
{
    gate_t gates[NUM_GATES];

    (void)fprintf(b->out,
                  "hidden %" PRId64 ", %" PRId64 " layers, vocabulary %" PRId64 ", %" PRId64
                  " documents of %" PRId64 " rows, %" PRId64 " steps after 2 warm ones\n\n",
                  b->hidden, b->layers, b->vocab, b->documents, b->rows, b->repeat);
    print_entries(b, r);
    (void)fprintf(b->out,
                  "step       %.3f s of the processor, %.3f s on the wall (medians); load %.2f\n"
                  "rows       %.0f a second\n"
                  "sgemm      %.1f GFLOP/s at its best\n",
                  (double)r->step_ns * 1e-9, (double)r->wall_ns * 1e-9, r->load,
                  (double)(b->documents * b->rows) / ((double)r->step_ns * 1e-9), r->peak * 1e-9);
    list_gates(r, gates);
    for (int i = 0; i < NUM_GATES; i++)
        (void)fprintf(b->out, "%-10s %.1f %% %s; wanted %.0f %%: %s\n", gates[i].name,
                      100.0 * gates[i].found, gates[i].what, 100.0 * gates[i].wanted,
                      gates[i].found >= gates[i].wanted ? "yes" : "no");
}

/* ==== JSON ==== */

static void put_machine(base_json_t *j, const tr_bench_result_t *r)
{
    char time[BASE_CLOCK_TEXT_BYTES], cpu[256], blas[256], host[256] = "";

    base_clock_format(base_clock_wall_ns(), time);
    base_version_cpu(cpu, sizeof cpu);
    kern_blas_version(blas, sizeof blas);
    (void)gethostname(host, sizeof host - 1);
    base_json_put_string(j, "time", time);
    base_json_put_string(j, "commit", base_version_commit());
    base_json_put_string(j, "compiler", base_version_compiler());
    base_json_put_string(j, "host", host);
    base_json_put_string(j, "cpu", cpu);
    base_json_put_string(j, "openblas", blas);
    base_json_put_double(j, "load", r->load);
}

static void put_entries(base_json_t *j, const tr_bench_step_t *b, const tr_bench_result_t *r)
{
    base_json_key(j, "ops");
    base_json_begin_array(j);
    for (int i = 0; i < r->clock.count; i++) {
        const tr_op_entry_t *e = &r->clock.entries[i];
        char name[64];

        name_entry(e, name);
        base_json_begin_object(j);
        base_json_put_string(j, "op", name);
        base_json_put_int(j, "calls_per_step", e->calls / b->repeat);
        base_json_put_int(j, "ns_per_step", e->ns / b->repeat);
        base_json_put_double(j, "flops_per_step", e->flops / (double)b->repeat);
        if (r->bare_ns[i] > 0) base_json_put_int(j, "bare_ns_per_call", r->bare_ns[i]);
        base_json_end(j);
    }
    base_json_end(j);
}

base_status_t tr_bench_step_json(base_ctx_t *ctx, const tr_bench_step_t *b,
                                 const tr_bench_result_t *r)
{
    gate_t gates[NUM_GATES];
    base_json_t j;

    base_json_to_file(&j, b->out);
    base_json_set_indent(&j, 1);
    base_json_begin_object(&j);
    put_machine(&j, r);
    base_json_put_int(&j, "hidden", b->hidden);
    base_json_put_int(&j, "layers", b->layers);
    base_json_put_int(&j, "vocab", b->vocab);
    base_json_put_int(&j, "documents", b->documents);
    base_json_put_int(&j, "rows", b->rows);
    base_json_put_int(&j, "steps", b->repeat);
    base_json_put_int(&j, "step_cpu_ns", r->step_ns);
    base_json_put_int(&j, "step_wall_ns", r->wall_ns);
    base_json_put_int(&j, "samples", r->samples);
    base_json_put_double(&j, "sgemm_peak_gflops", r->peak * 1e-9);
    list_gates(r, gates);
    for (int i = 0; i < NUM_GATES; i++) {
        base_json_key(&j, gates[i].name);
        base_json_begin_object(&j);
        base_json_put_double(&j, "share", gates[i].found);
        base_json_put_double(&j, "wanted", gates[i].wanted);
        base_json_put_bool(&j, "met", gates[i].found >= gates[i].wanted);
        base_json_end(&j);
    }
    put_entries(&j, b, r);
    base_json_end(&j);
    base_json_newline(&j);
    return base_json_finish(&j, ctx, "standard output");
}

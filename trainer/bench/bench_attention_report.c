#include "trainer/bench/bench_attention_report.h"

#include "base/sort.h"

#include <string.h>

#define BACKWARD_FLOPS 2.5

static int by_value(const void *a, const void *b, const void *unused)
{
    (void)unused;
    return base_compare_i64(*(const int64_t *)a, *(const int64_t *)b);
}

/* 0 of nothing. */
static int64_t median_of(const int64_t *values, int32_t count)
{
    int64_t x[TR_PEER_MAX_SAMPLES];

    if (count == 0) return 0;
    memcpy(x, values, (size_t)count * sizeof *x);
    base_sort(x, count, sizeof *x, by_value, NULL);
    return count % 2 ? x[count / 2] : (x[count / 2 - 1] + x[count / 2]) / 2;
}

static void take_medians(tr_attention_result_t *r, int d)
{
    int64_t call[TR_PEER_MAX_SAMPLES], host[TR_PEER_MAX_SAMPLES];

    for (int32_t i = 0; i < r->num_samples; i++) {
        call[i] = r->times[d][i].call_ns;
        host[i] = r->times[d][i].host_ns;
    }
    r->median_ns[d] = median_of(call, r->num_samples);
    r->host_ns[d] = median_of(host, r->num_samples);
    r->tflops[d] = r->median_ns[d] > 0 ? r->flops[d] / (double)r->median_ns[d] * 1e-3 : 0;
    r->fastest[d] = -1;
    for (int32_t p = 0; p < r->answers.count; p++) {
        const tr_peer_times_t *peer = &r->answers.peers[p];

        r->peer_ns[d][p] = median_of(peer->ns[d], peer->num_samples[d]);
        if (r->peer_ns[d][p] > 0 &&
            (r->fastest[d] < 0 || r->peer_ns[d][p] < r->peer_ns[d][r->fastest[d]]))
            r->fastest[d] = p;
    }
}

/* Of rates; to the fastest peer the work is the same. */
static double ratio_of(const tr_attention_result_t *r, int d, double dense_flops)
{
    const double own_ns = (double)r->median_ns[d];

    if (r->of->of_dense) {
        const double dense_ns = (double)median_of(r->dense_ns[d], r->num_samples);
        return r->flops[AS_PROFILE_FORWARD] / own_ns / (dense_flops / dense_ns);
    }
    return r->fastest[d] >= 0 ? (double)r->peer_ns[d][r->fastest[d]] / own_ns : 0;
}

void tr_attention_judge(tr_attention_result_t *r, double forward_flops, double dense_flops,
                        bool full)
{
    r->full = full;
    r->flops[AS_PROFILE_FORWARD] = forward_flops;
    r->flops[AS_PROFILE_BACKWARD] = BACKWARD_FLOPS * forward_flops;
    for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++) {
        take_medians(r, d);
        r->ratio[d] = ratio_of(r, d, dense_flops);
        const bool by_ratio = r->of->ratio[d] > 0 && r->ratio[d] > 0 && (full || !r->of->of_dense);
        const bool by_speed = r->of->speed[d] > 0 && full;
        r->judged[d] = by_ratio || by_speed;
        r->met[d] = (!by_ratio || r->ratio[d] >= r->of->ratio[d]) &&
                    (!by_speed || r->tflops[d] >= r->of->speed[d]);
    }
}

/* ==== the table ==== */

static const char *const DIRECTIONS[] = {"forward", "backward"};

void tr_attention_print_head(FILE *out)
{
    (void)fprintf(out, "%-30s %-8s %10s %8s %8s  %-6s %s\n", "case", "", "ms", "TFLOP/s", "host ms",
                  "ratio", "to; wanted");
}

static void print_ratio(FILE *out, const tr_attention_result_t *r, int d)
{
    if (r->ratio[d] > 0)
        (void)fprintf(out, "  %-6.3f %s", r->ratio[d],
                      r->of->of_dense ? "our dense" : r->answers.peers[r->fastest[d]].name);
    else
        (void)fputs("  -      -", out);
    if (r->of->ratio[d] > 0) (void)fprintf(out, "; >= %.2f", r->of->ratio[d]);
    if (r->of->speed[d] > 0 && r->full) (void)fprintf(out, "; >= %.0f TFLOP/s", r->of->speed[d]);
    if (r->judged[d]) (void)fputs(r->met[d] ? ": yes" : ": NO", out);
    (void)fputc('\n', out);
}

void tr_attention_print(FILE *out, const tr_attention_result_t *r)
{
    for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++) {
        (void)fprintf(out, "%-30s %-8s %10.4f %8.4g %8.4f", d == 0 ? r->of->name : "",
                      DIRECTIONS[d], (double)r->median_ns[d] / 1e6, r->tflops[d],
                      (double)r->host_ns[d] / 1e6);
        print_ratio(out, r, d);
    }
    for (int32_t p = 0; p < r->answers.count; p++) {
        const tr_peer_times_t *peer = &r->answers.peers[p];

        if (peer->error[0] != '\0')
            (void)fprintf(out, "%-30s %s: %s\n", "", peer->name, peer->error);
        else
            (void)fprintf(out, "%-30s %s: forward %.4f ms, backward %.4f ms\n", "", peer->name,
                          (double)r->peer_ns[0][p] / 1e6, (double)r->peer_ns[1][p] / 1e6);
    }
    (void)fflush(out);
}

/* ==== JSON ==== */

static void write_number(base_json_t *j, const char *key, double value)
{
    base_json_put_double(j, key, value);
}

static void write_direction(base_json_t *j, const tr_attention_result_t *r, int d)
{
    base_json_key(j, DIRECTIONS[d]);
    base_json_begin_object(j);
    write_number(j, "flops", r->flops[d]);
    base_json_put_int(j, "median_ns", r->median_ns[d]);
    base_json_put_int(j, "host_ns", r->host_ns[d]);
    write_number(j, "tflops", r->tflops[d]);
    base_json_key(j, "call_ns");
    base_json_begin_array(j);
    for (int32_t i = 0; i < r->num_samples; i++)
        base_json_int(j, r->times[d][i].call_ns);
    base_json_end(j);
    if (r->of->of_dense) base_json_put_ints(j, "dense_ns", r->dense_ns[d], r->num_samples);
    write_number(j, "ratio", r->ratio[d]);
    write_number(j, "wanted_ratio", r->of->ratio[d]);
    write_number(j, "wanted_tflops", r->of->speed[d]);
    base_json_key(j, "met");
    if (r->judged[d])
        base_json_bool(j, r->met[d]);
    else
        base_json_null(j);
    base_json_end(j);
}

static void write_peer(base_json_t *j, const tr_attention_result_t *r, int32_t p)
{
    static const char *const keys[] = {"forward_ns", "backward_ns"};
    const tr_peer_times_t *peer = &r->answers.peers[p];

    base_json_key(j, peer->name);
    base_json_begin_object(j);
    if (peer->error[0] != '\0') {
        base_json_put_string(j, "error", peer->error);
    }
    for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++)
        base_json_put_ints(j, keys[d], peer->ns[d], peer->num_samples[d]);
    base_json_end(j);
}

void tr_attention_write(base_json_t *j, const tr_attention_result_t *r)
{
    const tr_attention_shape_t *shape = &r->of->shape;

    base_json_begin_object(j);
    base_json_put_string(j, "case", r->of->name);
    base_json_put_int(j, "kv_heads", shape->kv_heads);
    base_json_put_int(j, "group", shape->group);
    base_json_put_int(j, "head_dim", shape->head_dim);
    base_json_put_int(j, "window", shape->window);
    base_json_put_int(j, "tasks", r->num_tasks);
    base_json_put_string(j, "ratio_to", r->of->of_dense ? TR_ATTENTION_DENSE : "fastest peer");
    for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++)
        write_direction(j, r, d);
    base_json_key(j, "peers");
    base_json_begin_object(j);
    for (int32_t p = 0; p < r->answers.count; p++)
        write_peer(j, r, p);
    base_json_end(j);
    base_json_end(j);
}

#include "trainer/simulate/pack_two_stage.h"

#include "base/memory.h"
#include "base/sort.h"
#include "lora/bound.h"
#include "lora/milp.h"
#include "trainer/simulate/pack_ffd.h"

#include <string.h>

#define BIG          1e6
#define STAGE_2_GAP  0.15
#define MAX_ADAPTERS 64

/* The documents of a pair in a round, and what first-fit made of them. */
typedef struct part {
    tr_bins_t *bins;
    int32_t members[2], num_members;
    int32_t documents[2048], num_documents;
    int32_t first_bin, num_bins;
} part_t;

enum { MAX_DOCUMENTS = sizeof((part_t *)0)->documents / sizeof(int32_t) };

/* ==== pairs ==== */

static int64_t mean_rows(const lora_window_t *w, int32_t adapter)
{
    const lora_window_adapter_t *a = &w->adapters[adapter];
    int64_t rows = 0, documents = 0;

    for (int32_t b = a->first_batch; b < a->first_batch + a->num_batches; b++) {
        for (int32_t i = 0; i < w->batches[b].num_documents; i++)
            rows += w->rows[w->batches[b].first_document + i];
        documents += w->batches[b].num_documents;
    }
    return documents > 0 ? rows * 1024 / documents : 0;
}

static int by_mean(const void *a, const void *b, const void *arg)
{
    const int64_t *means = arg;
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    const int c = base_compare_i64(means[j], means[i]);

    return c != 0 ? c : base_compare_i64(i, j);
}

/* order[0] with order[n - 1], order[1] with order[n - 2], ... */
static void order_adapters(const lora_window_t *w, int32_t *order)
{
    int64_t means[MAX_ADAPTERS];

    for (int32_t a = 0; a < w->num_adapters; a++) {
        means[a] = mean_rows(w, a);
        order[a] = a;
    }
    base_sort(order, w->num_adapters, sizeof *order, by_mean, means);
}

/* ==== the two programs ==== */

/* Columns of both: x[s][b], k[member][b], then u[b], or y[b] and t. */
static int32_t x_of(const part_t *p, int32_t s, int32_t b, int32_t num_bins)
{
    (void)p;
    return s * num_bins + b;
}

static int32_t k_of(const part_t *p, int32_t member, int32_t b, int32_t num_bins)
{
    return (p->num_documents + member) * num_bins + b;
}

static void add_packing(const part_t *p, lora_milp_t *milp, int32_t num_bins)
{
    const lora_window_t *w = p->bins->window;
    int32_t columns[MAX_DOCUMENTS + 1];
    double factors[MAX_DOCUMENTS + 1];

    for (int32_t i = 0; i < p->num_documents * num_bins; i++)
        (void)lora_milp_column(milp, 0, 1, 0, 1);
    for (int32_t i = 0; i < p->num_members * num_bins; i++)
        (void)lora_milp_column(milp, 0, (double)(w->capacity / w->adapter_align), 0, 1);
    for (int32_t s = 0; s < p->num_documents; s++) {
        for (int32_t b = 0; b < num_bins; b++) {
            columns[b] = x_of(p, s, b, num_bins);
            factors[b] = 1;
        }
        lora_milp_row(milp, '=', num_bins, columns, factors, 1);
    }
    for (int32_t b = 0; b < num_bins; b++)
        for (int32_t g = 0; g < p->num_members; g++) {
            int32_t n = 0;

            for (int32_t s = 0; s < p->num_documents; s++) {
                if (p->bins->adapter_of[p->documents[s]] != p->members[g]) continue;
                columns[n] = x_of(p, s, b, num_bins);
                factors[n++] = (double)w->rows[p->documents[s]];
            }
            columns[n] = k_of(p, g, b, num_bins);
            factors[n++] = -(double)w->adapter_align;
            lora_milp_row(milp, '<', n, columns, factors, 0);
        }
}

/* Size of bin b plus factor * column, against right. */
static void add_size(const part_t *p, lora_milp_t *milp, int32_t b, int32_t num_bins, char sense,
                     int32_t num, const int32_t *more, const double *more_factors, double right)
{
    int32_t columns[4], n = 0;
    double factors[4];

    for (int32_t g = 0; g < p->num_members; g++) {
        columns[n] = k_of(p, g, b, num_bins);
        factors[n++] = (double)p->bins->window->adapter_align;
    }
    for (int32_t i = 0; i < num; i++) {
        columns[n] = more[i];
        factors[n++] = more_factors[i];
    }
    lora_milp_row(milp, sense, n, columns, factors, right);
}

static void add_stage_1(const part_t *p, lora_milp_t *milp, int32_t num_bins)
{
    const double capacity = (double)p->bins->window->capacity;
    int32_t before = -1;

    for (int32_t b = 0; b < num_bins; b++) {
        const int32_t u = lora_milp_column(milp, 0, 1, 1, 1);

        add_size(p, milp, b, num_bins, '<', 1, &u, &(double){-capacity}, 0);
        add_size(p, milp, b, num_bins, '>', 1, &u, &(double){-1}, 0);
        if (before >= 0) lora_milp_row(milp, '<', 2, (int32_t[]){u, before}, (double[]){1, -1}, 0);
        before = u;
    }
}

static void add_stage_2(const part_t *p, lora_milp_t *milp, int32_t num_bins)
{
    const double capacity = (double)p->bins->window->capacity;
    const int32_t t = lora_milp_column(milp, 0, capacity, 1, 0);
    int32_t columns[MAX_DOCUMENTS];
    double factors[MAX_DOCUMENTS];

    for (int32_t b = 0; b < num_bins; b++) {
        columns[b] = lora_milp_column(milp, 0, 1, 0, 1);
        factors[b] = 1;
        add_size(p, milp, b, num_bins, '<', 0, NULL, NULL, capacity);
        add_size(p, milp, b, num_bins, '<', 2, (int32_t[]){t, columns[b]}, (double[]){-1, BIG},
                 BIG);
    }
    lora_milp_row(milp, '=', num_bins, columns, factors, 1);
}

/* Solves one of them; bin_of [num_documents] of the solution, *bins_p used bins; 0: none found. */
static base_status_t solve(base_ctx_t *ctx, const part_t *p, int stage, int32_t num_bins,
                           double seconds, int32_t *bin_of, int32_t *bins_p)
{
    lora_milp_t *milp;
    lora_milp_result_t result;

    *bins_p = 0;
    BASE_TRY(lora_milp_create(ctx, &milp));
    add_packing(p, milp, num_bins);
    if (stage == 1)
        add_stage_1(p, milp, num_bins);
    else
        add_stage_2(p, milp, num_bins);
    const lora_milp_options_t options = {.seconds = seconds, .gap = stage == 2 ? STAGE_2_GAP : 0};
    const base_status_t st = lora_milp_solve(milp, &options, &result);
    if (st == BASE_OK && result.found) {
        for (int32_t s = 0; s < p->num_documents; s++)
            for (int32_t b = 0; b < num_bins; b++) {
                if (lora_milp_value(milp, x_of(p, s, b, num_bins)) < 0.5) continue;
                bin_of[s] = b;
                if (b >= *bins_p) *bins_p = b + 1;
            }
    }
    lora_milp_destroy(milp);
    return st;
}

/* ==== a pair in a round ==== */

static int64_t emptiest(const part_t *p)
{
    int64_t least = INT64_MAX;

    for (int32_t b = p->first_bin; b < p->bins->num_bins; b++) {
        const int64_t rows = tr_bins_counted(p->bins, b, -1, 0);

        if (rows > 0 && rows < least) least = rows;
    }
    return least;
}

/* Moves the documents to the solver's bins, or back when that is worse or too full. */
static int keep_better(part_t *p, const int32_t *bin_of)
{
    const int64_t greedy = emptiest(p);
    const int32_t greedy_bins = p->num_bins;
    int32_t old[MAX_DOCUMENTS];
    int32_t used = 0;
    int full = 0;

    for (int32_t s = 0; s < p->num_documents; s++) {
        old[s] = p->bins->bin_of[p->documents[s]];
        tr_bins_put(p->bins, p->documents[s], p->first_bin + bin_of[s]);
    }
    for (int32_t b = p->first_bin; b < p->bins->num_bins; b++) {
        const int64_t rows = tr_bins_counted(p->bins, b, -1, 0);

        used += rows > 0;
        full |= rows > p->bins->window->capacity;
    }
    if (!full && (used < greedy_bins || (used == greedy_bins && emptiest(p) < greedy))) return 1;
    for (int32_t s = 0; s < p->num_documents; s++)
        tr_bins_put(p->bins, p->documents[s], old[s]);
    return 0;
}

static int64_t least_bins(const part_t *p)
{
    const lora_window_t *w = p->bins->window;
    int64_t rows[MAX_DOCUMENTS];

    for (int32_t s = 0; s < p->num_documents; s++)
        rows[s] = w->rows[p->documents[s]]; /* longest first */
    return lora_bound_l2(rows, p->num_documents, w->capacity);
}

static base_status_t pack_part(base_ctx_t *ctx, part_t *p, double seconds, int *solved)
{
    int32_t bin_of[MAX_DOCUMENTS], first[MAX_DOCUMENTS];
    int32_t num_bins = p->num_bins, found = 0, second = 0;

    *solved = 0;
    if (seconds <= 0 || p->num_bins < 2) return BASE_OK;
    if (num_bins > least_bins(p)) {
        BASE_TRY(solve(ctx, p, 1, num_bins, seconds, first, &found));
        if (found > 0 && found < num_bins) num_bins = found;
    }
    BASE_TRY(solve(ctx, p, 2, num_bins, seconds, bin_of, &second));
    if (second == 0 && found > 0) memcpy(bin_of, first, sizeof bin_of);
    if (second > 0 || found > 0) *solved = keep_better(p, bin_of);
    return BASE_OK;
}

/* Largest first, the emptiest last: bins change their numbers. */
static void sort_bins(part_t *p)
{
    for (int32_t i = p->first_bin; i < p->bins->num_bins; i++)
        for (int32_t j = i + 1; j < p->bins->num_bins; j++) {
            if (tr_bins_counted(p->bins, j, -1, 0) <= tr_bins_counted(p->bins, i, -1, 0)) continue;
            for (int32_t s = 0; s < p->num_documents; s++) {
                const int32_t d = p->documents[s], bin = p->bins->bin_of[d];

                if (bin == i || bin == j) tr_bins_put(p->bins, d, i + j - bin);
            }
        }
    while (p->bins->num_bins > p->first_bin &&
           tr_bins_counted(p->bins, p->bins->num_bins - 1, -1, 0) == 0)
        p->bins->num_bins--;
    p->num_bins = p->bins->num_bins - p->first_bin;
}

/* ==== the last pass ==== */

/* Documents of the part's last bin, shortest first, go to `bin` while they fit; none when the bin
 * has documents of the part's adapters already: of the round before. */
static void absorb(part_t *p, int32_t bin)
{
    const lora_window_t *w = p->bins->window;
    const int32_t last = p->first_bin + p->num_bins - 1;

    for (int32_t g = 0; g < p->num_members; g++)
        if (p->bins->rows[(int64_t)bin * w->num_adapters + p->members[g]] > 0) return;
    for (int32_t s = p->num_documents - 1; s >= 0; s--) {
        const int32_t d = p->documents[s];

        if (p->bins->bin_of[d] != last) continue;
        if (tr_bins_counted(p->bins, bin, p->bins->adapter_of[d], w->rows[d]) > w->capacity)
            continue;
        tr_bins_put(p->bins, d, bin);
    }
}

static base_status_t begin_part(part_t *p, tr_bins_t *bins, const int32_t *order, int32_t pair,
                                int32_t round)
{
    const int32_t n = bins->window->num_adapters;

    p->bins = bins;
    p->num_members = pair == n - 1 - pair ? 1 : 2;
    p->members[0] = order[pair];
    p->members[1] = order[n - 1 - pair];
    p->first_bin = bins->num_bins;
    for (int32_t g = 0; g < p->num_members; g++)
        tr_bins_list(bins, p->members[g], round);
    p->num_documents = bins->num_list;
    if (p->num_documents > MAX_DOCUMENTS)
        return BASE_FAIL(bins->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "two stages: %d documents in a round of a pair, at most %d",
                         (int)p->num_documents, (int)MAX_DOCUMENTS);
    tr_bins_fit(bins); /* sorts the list: longest first */
    memcpy(p->documents, bins->list, (size_t)p->num_documents * sizeof *p->documents);
    p->num_bins = bins->num_bins - p->first_bin;
    return BASE_OK;
}

static base_status_t run(base_ctx_t *ctx, tr_bins_t *bins, part_t *p, tr_two_stage_t *options)
{
    int32_t order[MAX_ADAPTERS];
    const int32_t n = bins->window->num_adapters;

    order_adapters(bins->window, order);
    for (int32_t j = 0; j < tr_window_rounds(bins->window); j++)
        for (int32_t pair = 0; 2 * pair < n; pair++) {
            const int32_t last = bins->num_bins - 1;
            int solved;

            BASE_TRY(begin_part(p, bins, order, pair, j));
            BASE_TRY(pack_part(ctx, p, options->seconds, &solved));
            options->solved += solved;
            sort_bins(p);
            /* The bin before belongs to another pair, or with one pair to the round before. */
            if (last >= 0 && p->num_bins > 0 && n > 2) absorb(p, last);
            sort_bins(p);
        }
    return BASE_OK;
}

base_status_t tr_pack_two_stage(base_ctx_t *ctx, const lora_window_t *window,
                                tr_two_stage_t *options, lora_schedule_t *schedule)
{
    tr_bins_t bins;

    options->solved = 0;
    BASE_TRY(lora_window_check(ctx, window));
    if (window->num_adapters > MAX_ADAPTERS)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "two stages: %d adapters, at most %d",
                         (int)window->num_adapters, MAX_ADAPTERS);
    part_t *part = base_calloc(ctx, 1, sizeof *part, "two stages");
    if (part == NULL) return BASE_ERR_NOMEM;
    base_status_t st = tr_bins_create(ctx, window, &bins);
    if (st == BASE_OK) {
        st = run(ctx, &bins, part, options);
        if (st == BASE_OK) tr_bins_schedule(&bins, schedule);
        tr_bins_destroy(&bins);
    }
    base_free(ctx, part);
    return st;
}

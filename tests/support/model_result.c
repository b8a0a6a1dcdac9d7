#include "tests/support/model_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void model_result_free(model_result_t *result)
{
    free(result->losses);
    free(result->weight_at);
    free(result->names);
    free(result->gradients);
    free(result->document_at);
    free(result->hidden);
    *result = (model_result_t){0};
}

/* Index of the first element whose bits differ, or -1. */
static int64_t first_difference(const double *a, const double *b, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (memcmp(&a[i], &b[i], sizeof a[i]) != 0) return i;
    }
    return -1;
}

static int64_t hidden_count(const model_result_t *r)
{
    return r->document_at[r->num_documents] * r->hidden_cols;
}

int model_result_same(const model_result_t *a, const model_result_t *b, char *what, size_t bytes)
{
    int64_t at;

    if ((at = first_difference(a->hidden, b->hidden, hidden_count(a))) >= 0) {
        (void)snprintf(what, bytes, "hidden row %lld column %lld: %.17g, %.17g",
                       (long long)(at / a->hidden_cols), (long long)(at % a->hidden_cols),
                       a->hidden[at], b->hidden[at]);
        return 0;
    }
    if ((at = first_difference(a->losses, b->losses, a->adapters)) >= 0) {
        (void)snprintf(what, bytes, "loss of adapter %lld: %.17g, %.17g", (long long)at,
                       a->losses[at], b->losses[at]);
        return 0;
    }
    for (int32_t i = 0; i < a->num_weights; i++) {
        const double *x = a->gradients + a->weight_at[i], *y = b->gradients + b->weight_at[i];
        at = first_difference(x, y, a->weight_at[i + 1] - a->weight_at[i]);
        if (at < 0) continue;
        (void)snprintf(what, bytes, "gradient of %s, element %lld: %.17g, %.17g", a->names[i],
                       (long long)at, x[at], y[at]);
        return 0;
    }
    (void)snprintf(what, bytes, "the same");
    return 1;
}

double model_distance(const double *a, const double *b, int64_t count)
{
    double difference = 0.0, norm = 0.0;

    for (int64_t i = 0; i < count; i++) {
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        norm += b[i] * b[i];
    }
    if (!isfinite(difference) || !isfinite(norm)) return (double)INFINITY;
    return norm > 0.0 ? sqrt(difference / norm) : sqrt(difference);
}

static void keep_larger(double distance, double *largest, const char *name, char *what,
                        size_t bytes)
{
    if (distance <= *largest) return;
    *largest = distance;
    (void)snprintf(what, bytes, "%s: %.3g", name, distance);
}

double model_result_distance(const model_result_t *a, const model_result_t *b, char *what,
                             size_t bytes)
{
    double largest = 0.0;

    (void)snprintf(what, bytes, "none");
    keep_larger(model_distance(a->hidden, b->hidden, hidden_count(a)), &largest, "hidden states",
                what, bytes);
    keep_larger(model_distance(a->losses, b->losses, a->adapters), &largest, "losses", what, bytes);
    for (int32_t i = 0; i < a->num_weights; i++) {
        keep_larger(model_distance(a->gradients + a->weight_at[i], b->gradients + b->weight_at[i],
                                   a->weight_at[i + 1] - a->weight_at[i]),
                    &largest, a->names[i], what, bytes);
    }
    return largest;
}

/* Core attention by its definition, one row of one head at a time. */
#include "tests/support/attention_doc.h"

#include <math.h>
#include <stdlib.h>

typedef struct row {
    const attention_doc_t *doc;
    int64_t i, first; /* the row sees keys first ... i */
    const double *q, *k, *v, *d_o;
    double *o, *lse, *delta, *dq, *dk, *dv;
    double *p; /* scratch: T */
} row_t;

static void reference_forward(row_t *r)
{
    const int64_t dim = r->doc->D;
    double max = -(double)INFINITY, sum = 0;

    for (int64_t j = r->first; j <= r->i; j++) {
        r->p[j] = r->doc->scale * op_dot(r->q, r->k + j * dim, dim);
        max = fmax(max, r->p[j]);
    }
    for (int64_t j = r->first; j <= r->i; j++)
        sum += exp(r->p[j] - max);
    *r->lse = max + log(sum);
    memset(r->o, 0, (size_t)dim * sizeof *r->o);
    for (int64_t j = r->first; j <= r->i; j++) {
        r->p[j] = exp(r->p[j] - *r->lse);
        for (int64_t d = 0; d < dim; d++)
            r->o[d] += r->p[j] * r->v[j * dim + d];
    }
    *r->delta = op_dot(r->o, r->d_o, dim);
}

static void reference_backward(row_t *r)
{
    const int64_t dim = r->doc->D;

    memset(r->dq, 0, (size_t)dim * sizeof *r->dq);
    for (int64_t j = r->first; j <= r->i; j++) {
        const double dp = op_dot(r->d_o, r->v + j * dim, dim);
        const double ds = r->doc->scale * r->p[j] * (dp - *r->delta);

        for (int64_t d = 0; d < dim; d++) {
            r->dv[j * dim + d] += r->p[j] * r->d_o[d];
            r->dk[j * dim + d] += ds * r->q[d];
            r->dq[d] += ds * r->k[j * dim + d];
        }
    }
}

void attention_doc_reference(attention_doc_t *doc)
{
    const int64_t heads = (int64_t)doc->G * doc->R;
    double *p = op_doubles(doc->T);

    memset(doc->dk, 0, (size_t)attention_doc_kv_count(doc) * sizeof *p);
    memset(doc->dv, 0, (size_t)attention_doc_kv_count(doc) * sizeof *p);
    for (int64_t head = 0; head < heads; head++)
        for (int64_t i = 0; i < doc->T; i++) {
            const int64_t g = head / doc->R, stat = (g * doc->T + i) * doc->R + head % doc->R;
            const int64_t kv = g * doc->T * doc->D, token = (i * heads + head) * doc->D;
            const int64_t first = doc->W > 0 && i - doc->W + 1 > 0 ? i - doc->W + 1 : 0;
            row_t r = {doc,
                       i,
                       first,
                       doc->q + stat * doc->D,
                       doc->k + kv,
                       doc->v + kv,
                       doc->d_o + token,
                       doc->o + token,
                       doc->lse + stat,
                       doc->delta + stat,
                       doc->dq + stat * doc->D,
                       doc->dk + kv,
                       doc->dv + kv,
                       p};

            reference_forward(&r);
            reference_backward(&r);
        }
    free(p);
}

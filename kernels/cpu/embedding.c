#include "kernels/cpu/real.h"

#include <inttypes.h>

static base_status_t check_token(const kern_mat_t *table, int64_t t, int32_t token)
{
    if (token >= 0 && token < table->rows) return BASE_OK;
    return BASE_FAIL(base_device_ctx(base_buffer_device(table->mem.buffer)), BASE_ERR_FORMAT,
                     BASE_MSG_INT_01,
                     "embedding: row %" PRId64 " has token %" PRId32 ", the vocabulary %" PRId64, t,
                     token, table->rows);
}

base_status_t KERN_NAME(embedding_fwd)(void *args)
{
    const kern_embedding_fwd_t *p = args;
    const int32_t *tokens = int_row(&p->tokens);

    for (int64_t t = 0; t < p->out.rows; t++) {
        BASE_TRY(check_token(&p->table, t, tokens[t]));
        memcpy(real_row(&p->out, t), real_row(&p->table, tokens[t]),
               (size_t)p->out.cols * sizeof(real_t));
    }
    return BASE_OK;
}

base_status_t KERN_NAME(embedding_bwd)(void *args)
{
    const kern_embedding_bwd_t *p = args;
    const int32_t *tokens = int_row(&p->tokens);

    for (int64_t t = 0; t < p->dout.rows; t++) {
        const real_t *dout = real_row(&p->dout, t);
        real_t *row;

        BASE_TRY(check_token(&p->dtable, t, tokens[t]));
        row = real_row(&p->dtable, tokens[t]);
        for (int64_t j = 0; j < p->dout.cols; j++)
            row[j] += dout[j];
    }
    return BASE_OK;
}

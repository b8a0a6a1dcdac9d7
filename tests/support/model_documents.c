#include "tests/support/model_case.h"

#include "base/philox.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* There is nobody to tell. */
static void *must(void *p)
{
    if (p == NULL) abort();
    return p;
}

/* One number of a document: in [0, below). */
static int64_t draw(uint64_t seed, int32_t document, int64_t i, uint32_t what, int64_t below)
{
    const base_philox_t r =
        base_philox(base_philox_key(seed), (uint32_t)document, (uint32_t)i, what, 0x44u);

    return (int64_t)base_philox_below(r.word[0], r.word[1], (uint64_t)below);
}

static int64_t draw_rows(const model_documents_options_t *o, int32_t d)
{
    static const int64_t edges[] = {1, 2, 127, 128, 129, 255, 256, 257};
    const int64_t low = o->min_rows > 0 ? o->min_rows : 1;
    const int64_t high = o->max_rows > 0 ? o->max_rows : 2000;

    if (o->edges && d % 2 == 0) {
        const int64_t rows = edges[draw(o->seed, d, 0, 0, 8)];
        if (rows >= low && rows <= high) return rows;
    }
    return low + draw(o->seed, d, 0, 1, high - low + 1);
}

static void allocate(model_documents_t *documents, int64_t rows)
{
    documents->list = must(calloc((size_t)documents->count, sizeof *documents->list));
    documents->tokens = must(calloc((size_t)rows + 1, sizeof *documents->tokens));
    documents->masks = must(calloc((size_t)rows + 1, sizeof *documents->masks));
}

static void set_weights(model_documents_t *documents)
{
    for (int32_t a = 0; a < documents->adapters; a++) {
        int64_t supervised = 0;

        for (int pass = 0; pass < 2; pass++) {
            for (int32_t d = 0; d < documents->count; d++) {
                data_document_t *doc = &documents->list[d];
                if (doc->adapter != a) continue;
                for (int64_t i = 1; i < doc->rows && pass == 0; i++)
                    supervised += doc->loss_mask[i];
                if (pass == 1) doc->row_weight = supervised > 0 ? 1.0 / (double)supervised : 0.0;
            }
        }
    }
}

void model_documents_random(const model_documents_options_t *options, model_documents_t *documents)
{
    int64_t rows = 0, at = 0;

    *documents = (model_documents_t){.count = options->count,
                                     .adapters = options->adapters > 0 ? options->adapters : 1,
                                     .vocab = options->vocab};
    for (int32_t d = 0; d < options->count; d++)
        rows += draw_rows(options, d);
    allocate(documents, rows);
    for (int32_t d = 0; d < options->count; d++) {
        data_document_t *doc = &documents->list[d];

        doc->rows = draw_rows(options, d);
        doc->adapter = (int32_t)draw(options->seed, d, 0, 2, documents->adapters);
        doc->index = d;
        doc->tokens = documents->tokens + at;
        doc->loss_mask = documents->masks + at;
        for (int64_t i = 0; i < doc->rows; i++) {
            documents->tokens[at + i] =
                1 + (int32_t)draw(options->seed, d, i, 3, options->vocab - 1);
            documents->masks[at + i] = draw(options->seed, d, i, 4, 3) > 0;
        }
        at += doc->rows;
    }
    set_weights(documents);
}

void model_documents_copy(const model_documents_t *from, model_documents_t *to)
{
    int64_t rows = 0;

    for (int32_t d = 0; d < from->count; d++)
        rows += from->list[d].rows;
    *to = *from;
    allocate(to, rows);
    memcpy(to->tokens, from->tokens, (size_t)rows * sizeof *to->tokens);
    memcpy(to->masks, from->masks, (size_t)rows * sizeof *to->masks);
    for (int32_t d = 0; d < from->count; d++) {
        to->list[d] = from->list[d];
        to->list[d].tokens = to->tokens + (from->list[d].tokens - from->tokens);
        to->list[d].loss_mask = to->masks + (from->list[d].loss_mask - from->masks);
    }
}

void model_documents_free(model_documents_t *documents)
{
    free(documents->list);
    free(documents->tokens);
    free(documents->masks);
    *documents = (model_documents_t){0};
}

/* Windows for tests of the packer, drawn with integers only: the same on every compiler. */
#ifndef CADRE_TESTS_SUPPORT_PACK_CASE_H
#define CADRE_TESTS_SUPPORT_PACK_CASE_H

#include "base/philox.h"
#include "lora/packer.h"
#include "tests/support/ctx_fixture.h"

#define PACK_CASE_ADAPTERS  8
#define PACK_CASE_BATCHES   64
#define PACK_CASE_DOCUMENTS 1024

typedef struct pack_case {
    lora_window_t window;
    lora_window_adapter_t adapters[PACK_CASE_ADAPTERS];
    lora_window_batch_t batches[PACK_CASE_BATCHES];
    int64_t rows[PACK_CASE_DOCUMENTS], supervised[PACK_CASE_DOCUMENTS];
    int32_t microbatch[PACK_CASE_DOCUMENTS];
    lora_schedule_t schedule;
} pack_case_t;

static inline int64_t pack_case_draw(uint64_t seed, uint32_t index, uint32_t what, int64_t low,
                                     int64_t high)
{
    const base_philox_t r = base_philox(base_philox_key(seed), index, what, 0, 0);

    return low + (int64_t)base_philox_below(r.word[0], r.word[1], (uint64_t)(high - low + 1));
}

/* Up to so many adapters, batches of each and documents of a batch; lengths of each adapter up to a
 * share of `longest` of its own. */
static inline void pack_case_begin(pack_case_t *c, uint64_t seed, int32_t adapters, int32_t batches,
                                   int32_t documents, int64_t capacity, int64_t longest)
{
    lora_window_t *w = &c->window;

    memset(c, 0, sizeof *c);
    *w = (lora_window_t){.capacity = capacity,
                         .alone_capacity = longest > capacity ? longest : capacity,
                         .adapter_align = 1,
                         .stages = 1,
                         .adapters = c->adapters,
                         .batches = c->batches,
                         .rows = c->rows,
                         .supervised = c->supervised};
    w->num_adapters = (int32_t)pack_case_draw(seed, 0, 1, 1, adapters);
    for (int32_t a = 0; a < w->num_adapters; a++) {
        lora_window_adapter_t *adapter = &c->adapters[a];
        const uint32_t who = (uint32_t)a;
        const int64_t most = pack_case_draw(seed, who, 2, 1, longest);

        adapter->rank = INT64_C(4) << pack_case_draw(seed, who, 3, 0, 3);
        adapter->first_batch = w->num_batches;
        adapter->num_batches = (int32_t)pack_case_draw(seed, who, 4, 1, batches);
        adapter->done = pack_case_draw(seed, who, 5, 0, 9);
        adapter->total = adapter->done + adapter->num_batches + pack_case_draw(seed, who, 6, 0, 9);
        adapter->not_before = pack_case_draw(seed, who, 7, 0, 7) == 0;
        for (int32_t j = 0; j < adapter->num_batches; j++) {
            lora_window_batch_t *b = &c->batches[w->num_batches++];

            b->first_document = w->num_documents;
            b->num_documents =
                (int32_t)pack_case_draw(seed, (uint32_t)w->num_batches, 8, 1, documents);
            for (int32_t i = 0; i < b->num_documents; i++) {
                const uint32_t d = (uint32_t)w->num_documents++;

                c->rows[d] = pack_case_draw(seed, d, 9, 1, most);
                c->supervised[d] = pack_case_draw(seed, d, 10, 0, c->rows[d]);
            }
        }
    }
    c->schedule.microbatch = c->microbatch;
}

static inline lora_packer_t *pack_case_packer(base_ctx_t *ctx)
{
    static const lora_packer_limits_t limits = {PACK_CASE_ADAPTERS, PACK_CASE_BATCHES,
                                                PACK_CASE_DOCUMENTS};
    lora_packer_t *packer = NULL;

    assert_int_equal(lora_packer_create(ctx, &limits, &packer), BASE_OK);
    return packer;
}

#endif

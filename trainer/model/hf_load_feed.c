#include "trainer/model/hf_load_feed.h"

#include <assert.h>

static const char WHAT[] = "weights to load";

/* ==== opening and closing ==== */

static base_status_t open_landings(tr_hf_feed_t *f, base_device_t *dev, int64_t bytes)
{
    BASE_TRY(base_buffer_alloc(dev, BASE_MEMORY_DEVICE, f->num_landings * bytes, WHAT,
                               &f->landing_memory));
    for (int i = 0; i < f->num_landings; i++) {
        f->landings[i].mem = base_mem(f->landing_memory, i * bytes);
        BASE_TRY(base_event_create(dev, &f->landings[i].placed));
    }
    return base_stream_create(dev, BASE_STREAM_ASYNC, "load.place", &f->place);
}

base_status_t tr_hf_feed_open(tr_hf_feed_t *feed, base_device_t *dev, const tr_hf_load_way_t *way)
{
    BASE_TRY(base_stream_create(dev, BASE_STREAM_ASYNC, "load.upload", &feed->upload));
    for (int i = 0; i < way->num_slots; i++)
        BASE_TRY(base_event_create(dev, &feed->given[i]));
    feed->num_landings = way->num_landings;
    return way->num_landings > 0 ? open_landings(feed, dev, way->slot_bytes) : BASE_OK;
}

static base_status_t end_stream(base_stream_t *stream)
{
    if (stream == NULL) return BASE_OK;
    const base_status_t st = base_stream_sync(stream);
    base_stream_destroy(stream);
    return st;
}

base_status_t tr_hf_feed_close(tr_hf_feed_t *feed)
{
    const base_status_t uploaded = end_stream(feed->upload), placed = end_stream(feed->place);

    for (int i = 0; i < TR_HF_LOAD_SLOTS; i++)
        base_event_destroy(feed->given[i]);
    for (int i = 0; i < TR_HF_LOAD_LANDINGS; i++)
        base_event_destroy(feed->landings[i].placed);
    base_buffer_free(feed->landing_memory);
    *feed = (tr_hf_feed_t){0};
    return uploaded < 0 ? uploaded : placed;
}

/* ==== uploads ==== */

static base_status_t upload(tr_hf_feed_t *f, int slot, const base_staging_t *staging, int64_t at,
                            const base_range_t *dst)
{
    BASE_TRY(base_staging_upload(f->upload, dst, staging, at));
    BASE_TRY(base_event_record(f->given[slot], f->upload));
    f->on_way[f->num_given++ % TR_HF_LOAD_SLOTS] = slot;
    return BASE_OK;
}

static base_status_t upload_by_landing(tr_hf_feed_t *f, int slot, const base_staging_t *staging,
                                       int64_t at, const base_range_t *dst)
{
    tr_hf_landing_t *landing = &f->landings[f->num_landed++ % f->num_landings];
    const base_range_t side_by_side = {.mem = landing->mem,
                                       .row_bytes = dst->row_bytes,
                                       .rows = dst->rows,
                                       .pitch = dst->row_bytes};

    if (landing->used) BASE_TRY(base_stream_wait_event(f->upload, landing->placed));
    BASE_TRY(upload(f, slot, staging, at, &side_by_side));
    BASE_TRY(base_stream_wait_event(f->place, f->given[slot]));
    BASE_TRY(base_copy(f->place, dst, &side_by_side));
    BASE_TRY(base_event_record(landing->placed, f->place));
    landing->used = 1;
    return BASE_OK;
}

base_status_t tr_hf_feed_give(tr_hf_feed_t *feed, int slot, const base_staging_t *staging,
                              int64_t at, const base_range_t *rows)
{
    const int apart = rows->rows > 1 && rows->pitch > rows->row_bytes;

    return apart && feed->num_landings > 0 ? upload_by_landing(feed, slot, staging, at, rows)
                                           : upload(feed, slot, staging, at, rows);
}

/* ==== what has passed ==== */

int tr_hf_feed_num_on_way(const tr_hf_feed_t *feed)
{
    return (int)(feed->num_given - feed->num_passed);
}

static int oldest(const tr_hf_feed_t *feed)
{
    assert(feed->num_passed < feed->num_given);
    return feed->on_way[feed->num_passed % TR_HF_LOAD_SLOTS];
}

base_status_t tr_hf_feed_passed(tr_hf_feed_t *feed, int *slot)
{
    *slot = oldest(feed);
    const base_status_t st = base_event_query(feed->given[*slot]);
    if (st == BASE_OK) feed->num_passed++;
    return st;
}

base_status_t tr_hf_feed_wait(tr_hf_feed_t *feed, int *slot)
{
    *slot = oldest(feed);
    BASE_TRY(base_event_wait(feed->given[*slot], WHAT));
    feed->num_passed++;
    return BASE_OK;
}

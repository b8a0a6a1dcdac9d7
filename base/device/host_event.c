#include "base/device/host_stream.h"

/* An event is a place on the timeline of the stream that recorded it (host_timeline.h):
 * recording gives the stream nothing to do, and a wait copies the place. */
typedef struct host_event {
    base_event_t base;
    pthread_mutex_t mutex;          /* guards the two below */
    base_host_timeline_t *timeline; /* holds a reference; NULL until recorded */
    uint64_t value;
} host_event_t;

base_status_t base_host_event_create(base_device_t *dev, base_event_t **e_p)
{
    host_event_t *e = base_calloc(dev->ctx, 1, sizeof *e, "event");
    if (e == NULL) return BASE_ERR_NOMEM;
    if (pthread_mutex_init(&e->mutex, NULL) != 0) {
        base_free(dev->ctx, e);
        return BASE_FAIL(dev->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01, "event: no mutex");
    }
    *e_p = &e->base;
    return BASE_OK;
}

void base_host_event_destroy(base_event_t *base)
{
    host_event_t *e = (host_event_t *)base;
    base_host_timeline_release(e->timeline);
    pthread_mutex_destroy(&e->mutex);
    base_free(base->dev->ctx, e);
}

base_status_t base_host_event_record(base_event_t *base, base_stream_t *stream)
{
    host_event_t *e = (host_event_t *)base;
    base_host_timeline_t *t = base_host_stream_timeline(stream);

    base_host_timeline_retain(t);
    pthread_mutex_lock(&t->mutex);
    const uint64_t value = t->num_given;
    pthread_mutex_unlock(&t->mutex);
    pthread_mutex_lock(&e->mutex);
    base_host_timeline_t *before = e->timeline;
    e->timeline = t;
    e->value = value;
    pthread_mutex_unlock(&e->mutex);
    base_host_timeline_release(before);
    return BASE_OK;
}

/* What the event means now, with a reference to its timeline. */
static base_host_timeline_t *event_read(base_event_t *base, uint64_t *value)
{
    host_event_t *e = (host_event_t *)base;
    pthread_mutex_lock(&e->mutex);
    base_host_timeline_t *t = e->timeline;
    *value = e->value;
    base_host_timeline_retain(t);
    pthread_mutex_unlock(&e->mutex);
    return t;
}

base_status_t base_host_stream_wait_event(base_stream_t *s, base_event_t *e)
{
    uint64_t value;
    base_host_timeline_t *t = event_read(e, &value);
    return base_host_stream_wait_timeline(s, t, value);
}

base_status_t base_host_event_query(base_event_t *e)
{
    uint64_t value;
    base_host_timeline_t *t = event_read(e, &value);
    const base_status_t st = base_host_timeline_query(t, value);
    base_host_timeline_release(t);
    return st;
}

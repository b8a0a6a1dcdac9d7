#include "tests/ranks/rank_case.h"

#include "base/clock.h"
#include "base/memory.h"
#include "tests/ranks/rank_world.h"

#include <stdlib.h>

/* Objects of the device that are alive. Host memory is left out: the transport's own streams may
 * not yet have let go of an event that they were told to wait for. */
static int64_t live_objects(base_ctx_t *ctx)
{
    const base_resource_t kinds[] = {BASE_RESOURCE_DEVICE, BASE_RESOURCE_PINNED,
                                     BASE_RESOURCE_STREAM, BASE_RESOURCE_EVENT,
                                     BASE_RESOURCE_COUNTER};
    int64_t live = 0;

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        live += base_memory_live(base_ctx_memory(ctx), kinds[i]);
    return live;
}

static base_status_t noted(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev, void *user)
{
    rank_case_t *run = user;
    rank_verdict_t *v = &run->of[comm_group_rank(group)];
    const int64_t live = live_objects(ctx);

    v->status = run->fn(group, ctx, dev, run);
    v->ended_ns = base_clock_ns();
    v->has_error = base_ctx_error(ctx, &v->error);
    const int64_t left = live_objects(ctx) - live;
    if ((left < 0 || left > run->keeps) && v->wrong[0] == '\0')
        (void)snprintf(v->wrong, sizeof v->wrong, "%lld objects remain", (long long)left);
    return v->status;
}

void rank_case_run(rank_case_t *run, comm_rank_fn fn)
{
    assert_in_range(run->options.num_ranks, 1, RANKS_MAX);
    run->fn = fn;
    memset(run->of, 0, sizeof run->of);
    if (rank_world_is_mpi())
        rank_world_run(run, noted);
    else
        run->status = comm_threads_run(&run->options, noted, run, &run->error);
}

void rank_case_begin(void)
{
    rank_world_open();
}

int rank_case_end(int status)
{
    rank_world_close();
    return status;
}

const char *rank_case_transport(void)
{
    return rank_world_is_mpi() ? rank_world_transport() : "threads";
}

int rank_case_on_gpus(void)
{
    const char *device = getenv("CADRE_RANKS_DEVICE");

    return device != NULL && strcmp(device, "cuda") == 0;
}

int rank_case_max(void)
{
    return rank_world_is_mpi() ? rank_world_size() : RANKS_MAX;
}

void rank_case_assert_right(const rank_case_t *run)
{
    int wrong = 0;

    for (int r = 0; r < run->options.num_ranks; r++)
        if (run->of[r].wrong[0] != '\0') {
            wrong++;
            print_error("rank %d of %d: %s\n", r, run->options.num_ranks, run->of[r].wrong);
        }
    if (wrong > 0 && run->status < 0)
        print_error("the run: %s: %s\n", base_status_name(run->status), run->error.text);
    assert_int_equal(wrong, 0);
}

void rank_case_assert_ok(const rank_case_t *run)
{
    rank_case_assert_right(run);
    if (run->status != BASE_OK)
        print_error("%s: %s\n", base_status_name(run->status), run->error.text);
    assert_int_equal(run->status, BASE_OK);
}

void rank_case_assert_error(const base_error_t *error, base_status_t st, const char *id, ...)
{
    va_list pieces;
    const char *piece;

    if (error->status != st || strcmp(base_message_id(error->message), id) != 0)
        fail_msg("%s %s, wanted %s %s: %s", base_status_name(error->status),
                 base_message_id(error->message), base_status_name(st), id, error->text);
    va_start(pieces, id);
    while ((piece = va_arg(pieces, const char *)) != NULL)
        if (strstr(error->text, piece) == NULL) {
            va_end(pieces);
            fail_msg("\"%s\" is not in \"%s\"", piece, error->text);
        }
    va_end(pieces);
}

void rank_flag_set(int *flag)
{
    __atomic_store_n(flag, 1, __ATOMIC_RELEASE);
}

int rank_flag_wait(int *flag, int64_t ms)
{
    const int64_t until = base_clock_ns() + ms * 1000000;

    while (__atomic_load_n(flag, __ATOMIC_ACQUIRE) == 0) {
        if (base_clock_ns() > until) return 0;
        base_clock_sleep_ns(200000);
    }
    return 1;
}

uint64_t rank_random(uint64_t seed, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t x = seed * 0x9E3779B97F4A7C15u + a * 0xBF58476D1CE4E5B9u + b * 0x94D049BB133111EBu +
                 c * 0xD6E8FEB86659FD93u;

    for (int i = 0; i < 2; i++) { /* splitmix64's finalizer, twice */
        x ^= x >> 30;
        x *= 0xBF58476D1CE4E5B9u;
        x ^= x >> 27;
        x *= 0x94D049BB133111EBu;
        x ^= x >> 31;
    }
    return x;
}

base_status_t rank_gear_open(rank_gear_t *gear, base_device_t *dev, base_stream_kind_t kind,
                             int64_t bytes)
{
    base_status_t st;

    *gear = (rank_gear_t){0};
    st = base_buffer_alloc(dev, BASE_MEMORY_DEVICE, bytes, "test", &gear->buffer);
    if (st >= 0) st = base_stream_create(dev, kind, "test", &gear->stream);
    if (st < 0) rank_gear_close(gear);
    return st;
}

void rank_gear_close(rank_gear_t *gear)
{
    base_stream_destroy(gear->stream);
    base_buffer_free(gear->buffer);
    *gear = (rank_gear_t){0};
}

base_range_t rank_range(base_buffer_t *buffer, int64_t offset, int64_t bytes)
{
    return (base_range_t){
        .mem = base_mem(buffer, offset), .row_bytes = bytes, .rows = 1, .pitch = bytes};
}

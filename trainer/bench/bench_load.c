#include "trainer/bench/bench_load.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/json_write.h"
#include "base/version.h"
#include "trainer/bench/bench_load_bare.h"
#include "trainer/model/hf_load.h"
#include "trainer/model/hf_load_way.h"
#include "trainer/model/hf_weights.h"

#include <inttypes.h>

#define EXTRA_COLUMNS   64 /* beside each linear's weight: adapters' */
#define LARGE_COPY      (INT64_C(64) << 20)
#define LINK_ROUNDS     16 /* of the pool, at most 4 GB */
#define NUM_LINKS       6
#define NUM_PLAIN_LINKS 4
#define OUT_OF_STEP     8 /* bytes: headers are padded to that */
#define MEGABYTE(bytes) ((double)(bytes) / 1048576.0)

/* What is compared with loading's own way; 0: as that. */
static const tr_hf_load_way_t OTHERS[] = {
    {.num_landings = TR_HF_LOAD_LANDINGS},
    {.at_once = TR_HF_LOAD_SLOTS},
    {.at_once = 1},
    {.num_threads = 8, .num_slots = 12},
    {.num_threads = 10, .num_slots = 24},
    {.num_slots = 16},
    {.at_start = 1},
    {.at_once = 8, .slot_bytes = (INT64_C(1) << 20) - TR_HF_LOAD_ALIGN},
    {.num_slots = 14, .at_once = 2, .slot_bytes = (INT64_C(4) << 20) - TR_HF_LOAD_ALIGN}};
#define MOST_WAYS (1 + (int)(sizeof OTHERS / sizeof OTHERS[0]))

typedef struct link {
    tr_bare_copies_t copies;
    double gb_per_s; /* best */
} link_t;

typedef struct timed_way {
    tr_hf_load_way_t way;
    int64_t ns;               /* best; 0: none yet */
    int64_t pin_ns, unpin_ns; /* of the slots' memory by itself, likewise */
} timed_way_t;

typedef struct bench {
    tr_bench_load_t *args;
    base_ctx_t *ctx;
    base_device_t *dev;
    data_hf_folder_t *folder;
    tr_model_t *model;
    base_arena_t *arena;
    tr_weights_t *weights;
    base_stream_t *stream;
    tr_bare_t bare;
    int64_t bytes;               /* of the tensors, in the files */
    timed_way_t ways[MOST_WAYS]; /* the first is loading's own */
    int num_ways;
    int64_t read_ns;
    int read_threads;
    link_t links[NUM_LINKS];
} bench_t;

/* ==== what is timed ==== */

/* Copies of a slot and large ones, on one and two streams; and of a slot's worth of rows that lie apart,
 * also out of step with where they come from, as a file's header has it. */
static void list_links(bench_t *b)
{
    const data_safetensors_entry_t *embedding = data_hf_folder_entry(b->folder, 0);
    const int64_t slot = b->ways[0].way.slot_bytes, row = embedding->bytes / embedding->shape[0];

    for (int i = 0; i < NUM_PLAIN_LINKS; i++)
        b->links[i].copies =
            (tr_bare_copies_t){.num_streams = 1 + i % 2, .copy_bytes = i < 2 ? slot : LARGE_COPY};
    for (int i = NUM_PLAIN_LINKS; i < NUM_LINKS; i++)
        b->links[i].copies = (tr_bare_copies_t){.num_streams = 1,
                                                .copy_bytes = slot > row ? slot / row * row : row,
                                                .row_bytes = row,
                                                .shift = i > NUM_PLAIN_LINKS ? OUT_OF_STEP : 0};
}

static int chosen(int other, int own)
{
    return other > 0 ? other : own;
}

static int at_most(int number, int most)
{
    return number < most ? number : most;
}

static void list_ways(bench_t *b)
{
    const tr_hf_load_way_t own = tr_hf_load_way(b->model);

    b->ways[b->num_ways++].way = own;
    for (int i = 0; i < MOST_WAYS - 1 && b->args->ways; i++) {
        tr_hf_load_way_t way = OTHERS[i];

        way.num_threads = chosen(way.num_threads, own.num_threads);
        way.num_slots = chosen(way.num_slots, own.num_slots);
        way.at_once = at_most(chosen(way.at_once, own.at_once), way.num_slots);
        if (way.slot_bytes == 0) way.slot_bytes = own.slot_bytes;
        b->ways[b->num_ways++].way = way;
    }
}

static base_status_t open_all(bench_t *b)
{
    double inv_freq[DATA_MODEL_MAX_HEAD_DIM / 2];
    tr_model_config_t config;

    BASE_TRY(data_hf_folder_open(b->ctx, b->args->model, NULL, &b->folder));
    const data_model_spec_t *spec = data_hf_folder_spec(b->folder);
    for (int64_t i = 0; i < data_model_spec_num_tensors(spec); i++)
        b->bytes += data_hf_folder_entry(b->folder, i)->bytes;
    tr_hf_model_config(spec, b->args->dtype, 1, inv_freq, &config);
    config.frozen = 1;
    config.extra_columns = EXTRA_COLUMNS;
    BASE_TRY(tr_model_create(b->ctx, &config, &b->model));
    BASE_TRY(base_arena_create(b->dev, BASE_MEMORY_DEVICE, "device", &b->arena));
    BASE_TRY(tr_weights_create(b->model, b->arena, &b->weights));
    BASE_TRY(base_arena_commit(b->arena));
    BASE_TRY(base_stream_create(b->dev, BASE_STREAM_COMPUTE, "compute", &b->stream));
    list_ways(b);
    list_links(b);
    return tr_bare_init(&b->bare, b->dev, b->folder, b->ways[0].way.slot_bytes);
}

static void close_all(bench_t *b)
{
    tr_bare_deinit(&b->bare);
    base_stream_destroy(b->stream);
    tr_weights_destroy(b->weights);
    base_arena_destroy(b->arena);
    tr_model_destroy(b->model);
    data_hf_folder_close(b->folder);
}

/* ==== timing ==== */

static void keep_best(int64_t ns, int64_t *best)
{
    if (*best == 0 || ns < *best) *best = ns;
}

static base_status_t time_loading(bench_t *b)
{
    for (int i = 0; i < b->num_ways; i++) {
        const int64_t begin = base_clock_ns();

        BASE_TRY(tr_hf_load_by(b->weights, b->folder, &b->ways[i].way, b->stream));
        keep_best(base_clock_ns() - begin, &b->ways[i].ns);
    }
    return BASE_OK;
}

static base_status_t time_reading(bench_t *b)
{
    for (int threads = 1; threads <= TR_BARE_THREADS; threads *= 2) {
        int64_t ns;

        BASE_TRY(tr_bare_read(&b->bare, threads, &ns));
        if (b->read_ns != 0 && ns >= b->read_ns) continue;
        b->read_ns = ns;
        b->read_threads = threads;
    }
    return BASE_OK;
}

static base_status_t time_links(bench_t *b)
{
    const int64_t bytes = LINK_ROUNDS * b->bare.num_blocks * b->bare.block_bytes;

    for (int i = 0; i < NUM_LINKS; i++) {
        link_t *l = &b->links[i];
        int64_t sent, ns;

        BASE_TRY(tr_bare_upload(&b->bare, &l->copies, bytes, &sent, &ns));
        if ((double)sent / (double)ns > l->gb_per_s) l->gb_per_s = (double)sent / (double)ns;
    }
    return BASE_OK;
}

/* The slots' memory, taken, and given back. */
static base_status_t time_pinning(bench_t *b, timed_way_t *timed)
{
    base_staging_t slots[TR_HF_LOAD_SLOTS] = {{0}};
    const tr_hf_load_way_t *way = &timed->way;
    base_status_t st = BASE_OK;

    const int64_t begin = base_clock_ns();
    for (int i = 0; i < way->num_slots && st >= 0; i += way->at_once)
        st = base_staging_create_raw(
            b->dev, at_most(way->at_once, way->num_slots - i) * tr_hf_load_stride(way), "slots",
            &slots[i]);
    const int64_t taken = base_clock_ns();
    for (int i = 0; i < way->num_slots; i++)
        base_staging_destroy(&slots[i]);
    keep_best(taken - begin, &timed->pin_ns);
    keep_best(base_clock_ns() - taken, &timed->unpin_ns);
    return st;
}

static base_status_t measure(bench_t *b)
{
    int64_t ns;

    BASE_TRY(tr_bare_read(&b->bare, b->ways[0].way.num_threads, &ns));
    for (int64_t i = 0; i < b->args->repeat; i++) {
        BASE_TRY(time_loading(b));
        BASE_TRY(time_reading(b));
        BASE_TRY(time_links(b));
        for (int w = 0; w < b->num_ways; w++)
            BASE_TRY(time_pinning(b, &b->ways[w]));
    }
    return BASE_OK;
}

/* ==== report ==== */

typedef struct result {
    double load, read, link; /* GB/s */
    bool link_bounds;
    double share; /* of the lesser of read and link */
} result_t;

static double rate(const bench_t *b, int64_t ns)
{
    return (double)b->bytes / (double)ns;
}

static result_t judge(const bench_t *b)
{
    result_t r = {.load = rate(b, b->ways[0].ns), .read = rate(b, b->read_ns)};

    for (int i = 0; i < NUM_LINKS; i++)
        if (b->links[i].gb_per_s > r.link) r.link = b->links[i].gb_per_s;
    r.link_bounds = r.link < r.read;
    r.share = r.load / (r.link_bounds ? r.link : r.read);
    return r;
}

static void report_text(const bench_t *b, const result_t *r)
{
    FILE *out = b->args->out;

    (void)fprintf(out,
                  "%s: %s, %.2f GB\n"
                  "read  %8.3f s, %7.2f GB/s, with %d threads, from the page cache\n",
                  base_device_name(b->dev), b->args->model, (double)b->bytes * 1e-9,
                  (double)b->read_ns * 1e-9, r->read, b->read_threads);
    for (int i = 0; i < NUM_LINKS; i++)
        (void)fprintf(out, "link              %7.2f GB/s, with %d streams, copies of %.3f MiB%s\n",
                      b->links[i].gb_per_s, b->links[i].copies.num_streams,
                      MEGABYTE(b->links[i].copies.copy_bytes),
                      b->links[i].copies.shift > 0       ? ", rows apart, out of step"
                      : b->links[i].copies.row_bytes > 0 ? ", rows apart"
                                                         : "");
    for (int i = 0; i < b->num_ways; i++) {
        const timed_way_t *w = &b->ways[i];

        (void)fprintf(out,
                      "load  %8.3f s, %7.2f GB/s, with %d threads, %d slots of %.3f MiB, %d at "
                      "once (by themselves %.4f s, given back %.4f s), %d landings%s\n",
                      (double)w->ns * 1e-9, rate(b, w->ns), w->way.num_threads, w->way.num_slots,
                      MEGABYTE(w->way.slot_bytes), w->way.at_once, (double)w->pin_ns * 1e-9,
                      (double)w->unpin_ns * 1e-9, w->way.num_landings,
                      w->way.at_start ? ", each at its slot's start" : "");
    }
    (void)fprintf(
        out, "share %.2f of the page cache, %.2f of the link; %.2f of the lesser, the %s\n",
        r->load / r->read, r->load / r->link, r->share, r->link_bounds ? "link" : "page cache");
}

static void put_link(base_json_t *j, const link_t *l)
{
    base_json_begin_object(j);
    base_json_put_int(j, "streams", l->copies.num_streams);
    base_json_put_int(j, "copy_bytes", l->copies.copy_bytes);
    base_json_put_int(j, "row_bytes", l->copies.row_bytes);
    base_json_put_int(j, "shift", l->copies.shift);
    base_json_put_double(j, "gb_per_s", l->gb_per_s);
    base_json_end(j);
}

static void put_way(base_json_t *j, const bench_t *b, const timed_way_t *w)
{
    base_json_begin_object(j);
    base_json_put_int(j, "threads", w->way.num_threads);
    base_json_put_int(j, "slots", w->way.num_slots);
    base_json_put_int(j, "slot_bytes", w->way.slot_bytes);
    base_json_put_int(j, "at_once", w->way.at_once);
    base_json_put_int(j, "landings", w->way.num_landings);
    base_json_put_double(j, "load_s", (double)w->ns * 1e-9);
    base_json_put_double(j, "gb_per_s", rate(b, w->ns));
    base_json_put_int(j, "at_start", w->way.at_start);
    base_json_put_double(j, "pin_s", (double)w->pin_ns * 1e-9);
    base_json_put_double(j, "unpin_s", (double)w->unpin_ns * 1e-9);
    base_json_end(j);
}

static base_status_t report_json(const bench_t *b, const result_t *r)
{
    base_json_t j;

    base_json_to_file(&j, b->args->out);
    base_json_begin_object(&j);
    base_json_put_string(&j, "commit", base_version_commit());
    base_json_put_string(&j, "device", base_device_name(b->dev));
    base_json_put_int(&j, "bytes", b->bytes);
    base_json_put_int(&j, "load_threads", b->ways[0].way.num_threads);
    base_json_put_int(&j, "read_threads", b->read_threads);
    base_json_put_double(&j, "load_s", (double)b->ways[0].ns * 1e-9);
    base_json_put_double(&j, "read_s", (double)b->read_ns * 1e-9);
    base_json_put_double(&j, "pin_s", (double)b->ways[0].pin_ns * 1e-9);
    base_json_put_double(&j, "unpin_s", (double)b->ways[0].unpin_ns * 1e-9);
    base_json_put_double(&j, "load_gb_per_s", r->load);
    base_json_put_double(&j, "read_gb_per_s", r->read);
    base_json_put_double(&j, "link_gb_per_s", r->link);
    base_json_put_double(&j, "share_of_read", r->load / r->read);
    base_json_put_double(&j, "share_of_link", r->load / r->link);
    base_json_put_string(&j, "bound", r->link_bounds ? "link" : "page cache");
    base_json_put_double(&j, "share", r->share);
    base_json_key(&j, "links");
    base_json_begin_array(&j);
    for (int i = 0; i < NUM_LINKS; i++)
        put_link(&j, &b->links[i]);
    base_json_end(&j);
    base_json_key(&j, "ways");
    base_json_begin_array(&j);
    for (int i = 0; i < b->num_ways; i++)
        put_way(&j, b, &b->ways[i]);
    base_json_end(&j);
    base_json_end(&j);
    base_json_newline(&j);
    return base_json_finish(&j, b->ctx, "standard output");
}

base_status_t tr_bench_load_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                 void *user)
{
    tr_bench_load_t *args = user;
    bench_t b = {.args = args, .ctx = ctx, .dev = dev};

    (void)group;
    base_status_t st = open_all(&b);
    if (st >= 0) st = measure(&b);
    if (st >= 0) {
        const result_t r = judge(&b);

        args->met = r.share * 100.0 >= args->want_share;
        if (args->json)
            st = report_json(&b, &r);
        else
            report_text(&b, &r);
    }
    close_all(&b);
    return st;
}

/* Which tasks round their dk and dv themselves, where those then lie, and that nothing is summed that is alone. */
#include "tests/support/ctx_fixture.h"

#include "attention_server/seam.h"

enum { GROUP = 2, DIM = 16, HEADS = 4, ROWS = 512, TRAINERS = 2, REAL = 2, ACC = 4 };
enum { AT_0, OVER_BOTH }; /* documents of 256 rows: on trainer 0; half of it on each */

typedef struct rig {
    base_ctx_t *ctx;
    data_batch_t *batch;
    as_topology_t *topology;
    as_plan_t *plan;
    as_schedule_t s[3]; /* of each rank */
} rig_t;

static void add_piece(const rig_t *r, int32_t document, int32_t half, int32_t trainer,
                      int64_t doc_row, int64_t rows)
{
    const data_piece_t piece = {document, half, trainer, doc_row, rows, 128};

    assert_int_equal(data_batch_add_piece(r->batch, &piece), BASE_OK);
}

static rig_t rig_open(as_placement_t placement)
{
    rig_t r = {.ctx = fixture_ctx()};
    const data_document_t document = {.rows = 256};
    int32_t index;

    assert_int_equal(data_batch_create(r.ctx, 2, 4, TRAINERS, &r.batch), BASE_OK);
    assert_int_equal(data_batch_begin(r.batch, 0, TRAINERS), BASE_OK);
    for (int t = 0; t < TRAINERS; t++) {
        r.batch->trainer_rows[t] = ROWS;
        assert_int_equal(data_batch_add_document(r.batch, &document, &index), BASE_OK);
    }
    add_piece(&r, AT_0, DATA_PING, 0, 0, 256);
    add_piece(&r, OVER_BOTH, DATA_PONG, 0, 0, 128);
    add_piece(&r, OVER_BOTH, DATA_PONG, 1, 128, 128);
    assert_int_equal(data_batch_finish(r.batch), BASE_OK);
    assert_int_equal(as_topology_create(r.ctx, placement,
                                        placement == AS_POOL ? TRAINERS + 1 : TRAINERS, NULL, 1,
                                        &r.topology),
                     BASE_OK);
    assert_int_equal(as_plan_create(r.ctx, 8, &r.plan), BASE_OK);
    return r;
}

static void rig_close(rig_t *r)
{
    as_plan_destroy(r->plan);
    as_topology_destroy(r->topology);
    data_batch_destroy(r->batch);
    fixture_ctx_end(r->ctx);
}

/* A task of a plan as a line. */
typedef struct line {
    int32_t document, server, h0, h1;
    int64_t q0, q1;
    int real; /* wanted, with sums per server */
} line_t;

static void build(rig_t *r, int sums, const line_t *lines, int count)
{
    const as_shape_t shape = {.group = GROUP,
                              .head_dim = DIM,
                              .num_kv_heads = HEADS,
                              .sums_per_server = sums,
                              .real_bytes = REAL,
                              .acc_bytes = ACC,
                              .head_rows = ROWS,
                              .o_pitch = GROUP * HEADS * DIM,
                              .d_o_pitch = GROUP * HEADS * DIM};

    assert_int_equal(as_plan_begin(r->plan, 0, 0, HEADS), BASE_OK);
    for (int i = 0; i < count; i++) {
        const data_piece_t *piece = data_batch_piece_at(r->batch, lines[i].document, lines[i].q0);
        const as_task_t task = {.document = lines[i].document,
                                .piece = (int32_t)(piece - r->batch->pieces),
                                .server = lines[i].server,
                                .h0 = lines[i].h0,
                                .h1 = lines[i].h1,
                                .q0 = lines[i].q0,
                                .q1 = lines[i].q1};

        assert_int_equal(as_plan_add(r->plan, &task), BASE_OK);
    }
    assert_int_equal(as_plan_finish(r->plan, r->batch, r->topology), BASE_OK);
    for (int rank = 0; rank < r->topology->num_ranks; rank++) {
        as_schedule_init(&r->s[rank], r->ctx, r->topology, &shape, rank);
        assert_int_equal(as_schedule_build(&r->s[rank], r->batch, r->plan), BASE_OK);
    }
}

static void end_build(rig_t *r)
{
    for (int rank = 0; rank < r->topology->num_ranks; rank++)
        as_schedule_deinit(&r->s[rank]);
}

static const as_task_info_t *info_of(const rig_t *r, int32_t task)
{
    return as_info(&r->s[r->topology->server_rank[r->plan->tasks[task].server]], task);
}

/* The kernel's task that has this task's rows and first head. */
static const kern_attention_task_t *kernel_task_of(const as_schedule_t *s, const as_task_t *task,
                                                   int64_t dkv)
{
    const kern_attention_task_t *tasks = s->kernel_tasks.items;

    for (int64_t i = 0; i < s->kernel_tasks.count; i++)
        if (tasks[i].q_row0 == task->q0 && tasks[i].q_rows == task->q1 - task->q0 &&
            tasks[i].dkv == dkv)
            return &tasks[i];
    fail_msg("no task of rows %lld to %lld leaves dk at %lld", (long long)task->q0,
             (long long)task->q1, (long long)dkv);
    return NULL;
}

/* A real task in place leaves dk where k lies, others in SCRATCH, whole elements of what they leave. */
static void check_place(const rig_t *r, int32_t i)
{
    const as_task_t *task = &r->plan->tasks[i];
    const as_task_info_t *info = info_of(r, i);
    const as_schedule_t *s = &r->s[info->server_rank];
    const int64_t in_place = (task->h0 * ROWS + info->local_row) * DIM;
    const int64_t staged = info->partial / (info->real ? REAL : ACC);
    const kern_attention_task_t *k =
        kernel_task_of(s, task, info->real && info->in_place ? in_place : staged);

    assert_int_equal(k->real, info->real);
    assert_int_equal(k->dkv_head,
                     info->real && info->in_place ? ROWS * DIM : (task->q1 - task->k0) * DIM);
}

static void check_real(rig_t *r, int sums, const line_t *lines, int count)
{
    build(r, sums, lines, count);
    for (int32_t i = 0; i < r->plan->num_tasks; i++) { /* lines are in the plan's order */
        const as_task_info_t *info = info_of(r, i);
        const int in_trainers_tensors = info->in_place && lines[i].q0 == 0 && lines[i].q1 == 256;

        if (info->real != (sums ? lines[i].real : in_trainers_tensors))
            fail_msg("task %d with sums %d: real %d", (int)i, sums, info->real);
        check_place(r, i);
    }
}

/* A sum with so many parts of which so many are real, over these heads. */
static void check_sum(const rig_t *r, int rank, int half, int64_t index, int32_t heads,
                      int32_t num_parts, int32_t num_real)
{
    const as_schedule_t *s = &r->s[rank];
    const kern_sum_part_t *parts = s->parts[half].items;
    int32_t real = 0;

    assert_true(index < s->sums[half].count);
    const kern_sum_t *sum = (const kern_sum_t *)s->sums[half].items + index;
    for (int32_t p = 0; p < sum->num_parts; p++)
        real += parts[sum->first_part + p].real;
    assert_int_equal(sum->heads, heads);
    assert_int_equal(sum->num_parts, num_parts);
    assert_int_equal(real, num_real);
}

static int64_t server_sums(const rig_t *r, int rank)
{
    return r->s[rank].server_sums[DATA_PING].count + r->s[rank].server_sums[DATA_PONG].count;
}

#define LINES(lines) (lines), (int)(sizeof(lines) / sizeof *(lines))

/* By heads: one half where the rows are, the other elsewhere. */
static void whole_documents(void **state)
{
    static const line_t lines[] = {{AT_0, 0, 0, 3, 0, 256, 1},
                                   {AT_0, 1, 3, 4, 0, 256, 1},
                                   {OVER_BOTH, 0, 0, 4, 0, 128, 0},
                                   {OVER_BOTH, 1, 0, 4, 128, 256, 1}};
    rig_t r = rig_open(AS_IN_PLACE);

    (void)state;
    for (int sums = 0; sums < 2; sums++) {
        check_real(&r, sums, LINES(lines));
        /* Of AT_0 only the head that comes from elsewhere; of OVER_BOTH both pieces: rank 1 sends its sum of the head
         * as its task left it and keeps the tail's, to which nothing is added but which lies in SCRATCH. */
        assert_int_equal(r.s[0].sums[DATA_PING].count, 1);
        check_sum(&r, 0, DATA_PING, 0, 1, 1, sums);
        assert_int_equal(r.s[0].sums[DATA_PONG].count, 1);
        check_sum(&r, 0, DATA_PONG, 0, HEADS, 2, sums);
        assert_int_equal(r.s[1].sums[DATA_PONG].count, 1);
        check_sum(&r, 1, DATA_PONG, 0, HEADS, 1, sums);
        assert_int_equal(server_sums(&r, 0) + server_sums(&r, 1), 0);
        end_build(&r);
    }
    rig_close(&r);
}

/* A server's own rows, to which another server's sums are added, stay fp32 until then; so do two tasks of a run. */
static void shared_keys(void **state)
{
    static const line_t by_rows[] = {{AT_0, 0, 0, 4, 0, 128, 0},
                                     {AT_0, 1, 0, 4, 128, 256, 1},
                                     {OVER_BOTH, 1, 0, 4, 0, 128, 1},
                                     {OVER_BOTH, 0, 0, 4, 128, 256, 0}};
    static const line_t in_one_run[] = {{AT_0, 1, 0, 4, 0, 128, 0},
                                        {AT_0, 1, 0, 2, 128, 256, 0},
                                        {AT_0, 0, 2, 4, 128, 256, 0},
                                        {OVER_BOTH, 1, 0, 4, 0, 128, 0},
                                        {OVER_BOTH, 1, 0, 4, 128, 256, 0}};
    rig_t r = rig_open(AS_IN_PLACE);

    (void)state;
    for (int sums = 0; sums < 2; sums++) {
        check_real(&r, sums, LINES(by_rows));
        check_sum(&r, 0, DATA_PING, 0, HEADS, 2,
                  sums); /* rows both tasks see: own fp32, rank 1's */
        check_sum(&r, 0, DATA_PING, 1, HEADS, 1, sums);
        check_sum(&r, 0, DATA_PONG, 0, HEADS, 2, sums);
        assert_int_equal(server_sums(&r, 1), 0);
        assert_int_equal(server_sums(&r, 0),
                         sums); /* the tail's, for rank 1: rounded after it is summed */
        end_build(&r);
        check_real(&r, sums, LINES(in_one_run));
        assert_true(sums ? server_sums(&r, 1) > 0 : server_sums(&r, 1) == 0);
        end_build(&r);
    }
    rig_close(&r);
}

/* Ranges that a rank sends or receives with the results of a half, of these bytes a row and from this offset on (-1: any). */
static int count_ranges(const as_schedule_t *s, int half, int send, int64_t row_bytes,
                        int64_t offset)
{
    const as_exchange_t *leg = &s->legs[half][AS_BWD_BACK];
    const as_entry_t *entries = leg->entries.items;
    int count = 0;

    for (int64_t e = 0; e < leg->entries.count; e++)
        count += entries[e].region == AS_REGION_SCRATCH && entries[e].send == send &&
                 entries[e].row_bytes == row_bytes && (offset < 0 || entries[e].offset == offset);
    return count;
}

/* A pool's server owns no rows: to be alone in a run is enough, head by head. Both tasks' sums leave from where they are,
 * to one place at the owner. */
static void pool(void **state)
{
    static const line_t lines[] = {{AT_0, 0, 0, 1, 0, 256, 1},
                                   {AT_0, 0, 1, 4, 0, 256, 1},
                                   {OVER_BOTH, 0, 0, 2, 0, 128, 0},
                                   {OVER_BOTH, 0, 2, 4, 0, 128, 0},
                                   {OVER_BOTH, 0, 0, 4, 128, 256, 0}};
    const int64_t bytes = 256 * DIM * REAL;
    rig_t r = rig_open(AS_POOL);

    (void)state;
    check_real(&r, 0, LINES(lines));
    end_build(&r);
    check_real(&r, 1, LINES(lines));
    assert_int_equal(count_ranges(&r.s[2], DATA_PING, 1, bytes, -1), 4);
    assert_int_equal(count_ranges(&r.s[0], DATA_PING, 0, bytes, -1), 4);
    const as_grad_t *grads =
        r.s[0].grads.items; /* the first is AT_0's, the other its part of OVER_BOTH */
    assert_int_equal(r.s[0].grads.count, 2);
    for (int32_t i = 0; i < 2; i++)
        for (int dv = 0; dv < 2; dv++) {
            const int64_t from = info_of(&r, i)->partial + dv * r.s[2].partial_stride;
            const int64_t to = grads[0].offset + i * bytes + dv * r.s[0].partial_stride;

            assert_int_equal(count_ranges(&r.s[2], DATA_PING, 1, bytes, from), 1);
            assert_int_equal(count_ranges(&r.s[0], DATA_PING, 0, bytes, to), 1);
        }
    assert_int_equal(r.s[2].server_sums[DATA_PING].count, 0);
    assert_true(r.s[2].server_sums[DATA_PONG].count > 0);
    end_build(&r);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_documents),
        cmocka_unit_test(shared_keys),
        cmocka_unit_test(pool),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

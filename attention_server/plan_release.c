/* Who has which work at home, how much each server should have, and what those with too much give
 * away. */
#include "attention_server/plan_work.h"

#include <string.h>

/* ==== survey ==== */

static void keep_all(as_planner_t *p, int32_t i)
{
    const data_piece_t *piece = &p->batch->pieces[i];
    as_keep_t *k = &p->keep[i];

    k->begin = piece->doc_row / p->grain;
    k->end = (piece->doc_row + piece->rows + p->grain - 1) / p->grain;
    k->home = p->trainer_home[piece->trainer];
    if (p->config.without & AS_WITHOUT_RESIDENCY)
        k->home = (k->home + p->num_servers / 2) % p->num_servers;
    k->heads = k->given = p->heads;
    k->to = k->given_to = k->begin;
    k->fragment = -1;
    k->work = as_unit_work(p, piece, k->begin, k->end);
}

/* Pieces by home, ascending: counted, then placed. */
static void list_homes(as_planner_t *p)
{
    int32_t *first = p->home_first;

    memset(first, 0, ((size_t)p->num_servers + 1) * sizeof *first);
    for (int32_t i = 0; i < p->batch->num_pieces; i++)
        first[p->keep[i].home + 1]++;
    for (int32_t s = 0; s < p->num_servers; s++)
        first[s + 1] += first[s];
    for (int32_t i = p->batch->num_pieces - 1; i >= 0; i--)
        p->home_pieces[--first[p->keep[i].home + 1]] = i;
    /* Now first[s + 1] is where s begins: one place too far. */
    memmove(first, first + 1, (size_t)p->num_servers * sizeof *first);
    first[p->num_servers] = p->batch->num_pieces;
}

/* Scratch that a server needs for the pieces that it keeps: keys that come from elsewhere, once for
 * each document, and rows that do (pool). An upper bound. */
static int64_t home_memory(const as_planner_t *p, int32_t server)
{
    const as_wire_t *w = &p->config.machine->wire;
    const as_topology_t *t = p->config.machine->topology;
    const int64_t heads = p->config.num_kv_heads;
    int64_t bytes = 0, keys = 0;
    int32_t document = -1;

    for (int32_t i = p->home_first[server]; i < p->home_first[server + 1]; i++) {
        const data_piece_t *piece = &p->batch->pieces[p->home_pieces[i]];
        const as_keep_t *k = &p->keep[p->home_pieces[i]];
        const int far = t->server_rank[server] != t->trainer_rank[piece->trainer];
        const int64_t end = piece->doc_row + piece->rows;

        if (k->heads == 0 && k->to == k->begin) continue;
        if (far) bytes += piece->rows * heads * (w->row[AS_FLOW_BWD_OUT][0] + w->row[0][0]);
        bytes += end * heads * w->partial;
        if (piece->doc_row == 0 && !far) continue;
        if (piece->document != document) keys = 0;
        document = piece->document;
        if (end <= keys) continue;
        bytes += (end - keys) * heads * w->key[AS_FLOW_FWD_OUT][0];
        if (!w->partial_per_task) bytes += (end - keys) * heads * w->key[AS_FLOW_BWD_BACK][0];
        keys = end;
    }
    return bytes;
}

static int64_t share_of(int64_t work, int64_t speed, int64_t speeds)
{
    return work / speeds * speed + (work % speeds * speed + speeds - 1) / speeds;
}

void as_plan_survey(as_planner_t *p, int64_t joint_per_mille)
{
    const size_t bytes = (size_t)p->num_servers * sizeof(int64_t);
    int64_t total[DATA_NUM_HALVES] = {0, 0}, speeds = 0;

    memset(p->load[DATA_PING], 0, bytes);
    memset(p->load[DATA_PONG], 0, bytes);
    memset(p->memory, 0, bytes);
    for (int32_t s = 0; s < p->num_servers; s++)
        speeds += as_plan_speed(p, s);
    for (int32_t i = 0; i < p->batch->num_pieces; i++) {
        const data_piece_t *piece = &p->batch->pieces[i];
        as_keep_t *k = &p->keep[i];

        keep_all(p, i);
        p->load[piece->half][k->home] += k->work * p->heads + as_task_constant(p);
        total[piece->half] += k->work * p->heads + as_task_constant(p);
    }
    list_homes(p);
    for (int32_t s = 0; p->limited && s < p->num_servers; s++)
        p->memory[s] = home_memory(p, s);
    for (int32_t s = 0; s < p->num_servers; s++) {
        const int64_t speed = as_plan_speed(p, s);

        p->goal[s] = share_of(total[DATA_PING] + total[DATA_PONG], speed, speeds);
        for (int half = 0; half < DATA_NUM_HALVES; half++) {
            const int64_t share = share_of(total[half], speed, speeds);

            p->half_goal[half][s] = share + (p->goal[s] - share) / 1000 * joint_per_mille;
        }
    }
}

/* ==== release ==== */

/* Bytes, about, that giving away `work` of a piece takes: rows with their results, and the keys of
 * the document once for each head or server that takes part. */
static int64_t release_bytes(const as_planner_t *p, const data_piece_t *piece, const as_keep_t *k,
                             int64_t work, int64_t unit)
{
    const as_wire_t *w = &p->config.machine->wire;
    const int r = p->config.retain;
    const int64_t row = w->row[0][r] + w->row[1][r] + w->row[2][r] + w->row[3][r];
    const int64_t key = w->key[0][r] + w->key[1][r] + w->key[2][r] + w->key[3][r];
    const int64_t servers = work / p->typical_room + 1, heads = work / (k->work + 1) + 1;
    const int64_t end = piece->doc_row + piece->rows;
    const int64_t begin =
        p->config.cost->window == 0 ? 0 : as_task_first_key(piece->doc_row, p->config.cost->window);
    const int64_t rows = work / unit * p->grain + p->grain;

    return p->width * (rows * row + (end - begin) * as_most(servers, heads) * key);
}

/* Work that moves for each byte when the piece is released, `over` of it at most; -1: it cannot be. */
static int64_t release_value(const as_planner_t *p, int32_t index, int64_t over, int64_t max_unit)
{
    const data_piece_t *piece = &p->batch->pieces[index];
    const as_keep_t *k = &p->keep[index];
    const int64_t last = k->heads < p->heads && k->to > k->begin ? k->to : k->end;
    const int64_t work = as_kept_work(p, index);

    if (work == 0) return -1;
    const int64_t unit = as_unit_work(p, piece, last - 1, last);
    if (unit > max_unit - as_task_constant(p) || unit == 0) return -1;
    if (p->config.without & AS_WITHOUT_LINKS) return 0;
    /* With heads all rows of the piece go, on average at half its context; else its last. */
    const int64_t mean = p->heads > 1 ? k->work / (k->end - k->begin) : unit;
    const int64_t bytes = release_bytes(p, piece, k, as_least(work, over), mean + 1);

    return as_least(work + as_task_constant(p), over) * 1024 / (bytes / 1024 + 1);
}

/* Where the search for a server's best piece goes on: those before `at` are worth less than `value`
 * (-1: nothing is known). So a server that gives away many pieces that are worth the same looks at
 * each once. */
typedef struct search {
    int64_t value;
    int32_t at;
} search_t;

/* The piece of server s in the half (-1: in any) whose release moves most work for each byte; -1:
 * none is left. */
static int32_t choose_piece(const as_planner_t *p, int32_t s, int half, int64_t over,
                            int64_t max_unit, search_t *search)
{
    const int32_t begin = p->home_first[s], end = p->home_first[s + 1];
    int64_t best = -1;
    int32_t at = -1;

    for (int32_t i = search->value < 0 ? begin : search->at; i < end; i++) {
        const int32_t index = p->home_pieces[i];

        if (half >= 0 && p->batch->pieces[index].half != half) continue;
        const int64_t value = release_value(p, index, over, max_unit);
        if (value <= best) continue;
        best = value;
        at = i;
        if (search->value >= 0 && value >= search->value) break;
    }
    if (best < search->value) {
        search->value = -1;
        return choose_piece(p, s, half, over, max_unit, search);
    }
    *search = (search_t){best, at};
    return at < 0 ? -1 : p->home_pieces[at];
}

/* Keeps `work` of the piece, or up to `more` above it when that is nearer to a unit; gives what it
 * keeps. */
static int64_t keep_part(const as_planner_t *p, int32_t index, int64_t work, int64_t more)
{
    const data_piece_t *piece = &p->batch->pieces[index];
    as_keep_t *k = &p->keep[index];
    const int32_t old_heads = k->heads;
    const int64_t old_to = k->to;
    int64_t low, high;

    k->heads = (int32_t)(work / k->work);
    low = k->begin;
    high = k->heads == old_heads ? old_to : k->end;
    if (k->heads == p->heads) high = k->begin;
    const int64_t rest = work - k->work * k->heads, limit = high;
    while (low < high) { /* the last unit that still fits */
        const int64_t middle = low + (high - low + 1) / 2;

        if (as_unit_work(p, piece, k->begin, middle) <= rest)
            low = middle;
        else
            high = middle - 1;
    }
    if (low < limit && as_unit_work(p, piece, k->begin, low + 1) <= rest + more) low++;
    k->to = low;
    if (k->to == k->end) {
        k->heads++;
        k->to = k->begin;
    }
    return as_kept_work(p, index);
}

static void offer(as_planner_t *p, const data_piece_t *piece, int64_t work)
{
    int32_t *at = &p->offered[2 * piece->document + piece->half];

    if (*at < 0) {
        *at = p->num_offers;
        p->offers[p->num_offers++] = (as_offer_t){0, piece->document, piece->half};
    }
    p->offers[*at].work += work;
}

/* Average of the rooms that are worth a document's keys; at least 1. */
static int64_t typical_room(const as_planner_t *p)
{
    int64_t sum = 0, count = 0;

    for (int32_t s = 0; s < p->num_servers; s++) {
        const int64_t room = p->goal[s] - p->load[DATA_PING][s] - p->load[DATA_PONG][s];

        if (room > p->goal[s] / 8) {
            sum += room;
            count++;
        }
    }
    return count > 0 ? sum / count + 1 : as_most(p->goal[0] / 8, 1);
}

/* Releases `over` of the piece, about. Gives the work released. */
static int64_t release_piece(as_planner_t *p, int32_t i, int64_t over, int64_t more)
{
    const int64_t had = as_kept_work(p, i);
    int64_t kept = 0;

    if (had > over) {
        kept = keep_part(p, i, had - over, more / 2);
    } else {
        p->keep[i].heads = 0;
        p->keep[i].to = p->keep[i].begin;
    }
    if (kept >= had) return 0;
    p->load[p->batch->pieces[i].half][p->keep[i].home] -=
        had - kept + (kept == 0 ? as_task_constant(p) : 0);
    offer(p, &p->batch->pieces[i], had - kept);
    return had - kept;
}

/* A server whose own pieces need more memory than it has, for keys from elsewhere and for gradients
 * of keys, gives away the one that needs most, whole. */
static int64_t release_for_memory(as_planner_t *p, int32_t s)
{
    int64_t most = 0;
    int32_t chosen = -1;

    if (!p->limited || p->memory[s] <= p->limit[s]) return 0;
    for (int32_t i = p->home_first[s]; i < p->home_first[s + 1]; i++) {
        const int32_t index = p->home_pieces[i];
        const data_piece_t *piece = &p->batch->pieces[index];

        if (p->keep[index].heads == p->heads && piece->doc_row + piece->rows > most &&
            (piece->doc_row > 0 || p->config.machine->wire.partial > 0 ||
             p->keep[index].home != p->trainer_nearest[piece->trainer])) {
            most = piece->doc_row + piece->rows;
            chosen = index;
        }
    }
    if (chosen < 0) return 0;
    const int64_t before = home_memory(p, s), work = release_piece(p, chosen, INT64_MAX, 0);
    p->memory[s] -= before - home_memory(p, s);
    return work;
}

/* What server s has too much, and in which half (-1: in both together); 0: nothing. */
static int64_t excess(const as_planner_t *p, int32_t s, int64_t more, int *half)
{
    const int64_t both = p->load[DATA_PING][s] + p->load[DATA_PONG][s] - p->goal[s];

    for (*half = 0; *half < DATA_NUM_HALVES; (*half)++) {
        const int64_t over = p->load[*half][s] - p->half_goal[*half][s];

        if (over > more) return over - more / 2;
    }
    *half = -1;
    return both > more ? both - more / 2 : 0;
}

int64_t as_plan_release(as_planner_t *p, int64_t per_mille, int64_t max_unit)
{
    int64_t released = 0;

    p->num_offers = 0;
    p->typical_room = typical_room(p);
    for (int32_t s = 0; s < p->num_servers; s++) {
        const int64_t more = p->goal[s] * per_mille / 1000;
        search_t search = {.value = -1};
        int64_t over, done = 1;
        int half, half_before = -1;

        while (done > 0) {
            done = release_for_memory(p, s);
            released += done;
        }
        done = 1;
        while (done > 0 && (over = excess(p, s, more, &half)) > 0) {
            if (half != half_before) search.value = -1;
            half_before = half;
            const int32_t i = choose_piece(p, s, half, over, max_unit, &search);

            done = i >= 0 ? release_piece(p, i, over, more) : 0;
            released += done;
        }
    }
    return released;
}

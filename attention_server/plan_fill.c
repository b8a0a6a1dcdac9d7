/* Servers with too little take what was released: document by document, each server as long a
 * stretch of one document as it has room for, so that few servers need its keys. */
#include "attention_server/plan_work.h"

#include "base/sort.h"

#include <string.h>

#define MOST_LOOKED_AT 32

/* A stretch of a document goes to one server after another: head by head from the last, within a
 * head in ascending rows. */
typedef struct filler {
    as_planner_t *p;
    int32_t document, half;
    int64_t left; /* work of the document not yet placed */
    int64_t per_mille;
    int forced;
    int32_t server; /* taking now; -1: none */
    int64_t room;
    int64_t key_row; /* keys of this document and head that it holds so far */
    int32_t piece, head;
    int32_t next_resident; /* piece whose home is asked next */
} filler_t;

/* ==== rooms ==== */

static int by_room(const void *a, const void *b, const void *unused)
{
    const as_room_t *x = a, *y = b;
    const int c = base_compare_i64(x->room, y->room);

    (void)unused;
    return c != 0 ? c : base_compare_i64(y->server, x->server);
}

/* First place whose room is not less than that of `room`. */
static int32_t find_room(const as_planner_t *p, const as_room_t *room)
{
    int32_t low = 0, high = p->num_rooms;

    while (low < high) {
        const int32_t middle = low + (high - low) / 2;

        if (by_room(&p->rooms[middle], room, NULL) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void insert_room(as_planner_t *p, as_room_t room)
{
    const int32_t at = find_room(p, &room);

    memmove(&p->rooms[at + 1], &p->rooms[at], (size_t)(p->num_rooms - at) * sizeof *p->rooms);
    p->rooms[at] = room;
    p->num_rooms++;
}

static as_room_t remove_room(as_planner_t *p, int32_t at)
{
    const as_room_t room = p->rooms[at];

    p->num_rooms--;
    memmove(&p->rooms[at], &p->rooms[at + 1], (size_t)(p->num_rooms - at) * sizeof *p->rooms);
    return room;
}

static void list_rooms(as_planner_t *p, int half)
{
    p->num_rooms = 0;
    for (int32_t s = 0; s < p->num_servers; s++) {
        const as_room_t room = {as_room_of(p, s, half), s};

        if (room.room > 0) p->rooms[p->num_rooms++] = room;
    }
    base_sort(p->rooms, p->num_rooms, sizeof *p->rooms, by_room, NULL);
}

/* ==== who takes next ==== */

/* A server that has a piece of the document, and room that is worth a task: its keys need not
 * travel. */
static int take_resident(filler_t *f)
{
    as_planner_t *p = f->p;
    const int32_t end = p->batch->document_piece[f->document + 1];

    while (f->next_resident < end) {
        const int32_t s = p->keep[f->next_resident++].home;
        const as_room_t room = {as_room_of(p, s, f->half), s};
        const int32_t at = find_room(p, &room);

        if (at == p->num_rooms || p->rooms[at].server != s) continue;
        if (room.room < p->rooms[p->num_rooms - 1].room / 4 * 3 &&
            room.room < f->left + as_task_constant(p))
            continue;
        (void)remove_room(p, at);
        f->server = s;
        f->room = room.room;
        return 1;
    }
    return 0;
}

/* A server on the host of the document's first rows, near place `at` and with a room not much
 * different: links within a host are faster. */
static int32_t same_host(const filler_t *f, int32_t at)
{
    const as_planner_t *p = f->p;
    const as_topology_t *t = p->reference != NULL ? p->reference : p->config.machine->topology;
    const int32_t first = p->batch->document_piece[f->document];
    const int32_t host = t->rank_host[t->server_rank[p->keep[first].home]];

    if (p->config.without & AS_WITHOUT_TIERS) return at;
    for (int32_t i = at; i >= 0 && i > at - MOST_LOOKED_AT; i--) {
        if (p->rooms[i].room < p->rooms[at].room / 4 * 3) break;
        if (t->rank_host[t->server_rank[p->rooms[i].server]] == host) return i;
    }
    return at;
}

static int32_t first_server(const as_planner_t *p)
{
    int32_t first = 0;

    for (int32_t i = 1; i < p->num_rooms; i++)
        if (p->rooms[i].server < p->rooms[first].server) first = i;
    return first;
}

/* The tightest server that takes all that is left, or the roomiest: so that few need the document's
 * keys. Without counting links the first one will do. */
static int take_room(filler_t *f)
{
    as_planner_t *p = f->p;
    const as_room_t wanted = {f->left + as_task_constant(p), INT32_MAX};
    int32_t at = find_room(p, &wanted);

    if (p->num_rooms == 0) return 0;
    if (at == p->num_rooms) at = same_host(f, at - 1);
    if (p->config.without & AS_WITHOUT_LINKS) at = first_server(p);
    const as_room_t room = remove_room(p, at);
    f->server = room.server;
    f->room = room.room;
    return 1;
}

static void put_back(filler_t *f)
{
    if (f->server >= 0 && f->room > 0)
        f->p->stash[f->p->num_stash++] = (as_room_t){f->room, f->server};
    f->server = -1;
}

static int next_server(filler_t *f)
{
    put_back(f);
    f->key_row = 0;
    if (!(f->p->config.without & AS_WITHOUT_RESIDENCY) && take_resident(f)) return 1;
    return take_room(f);
}

/* ==== taking ==== */

/* 1 when units from a on of the head at hand, all up to b, will be one task with the piece's
 * fragment before them: the same units of the next head. */
static int joins_last(const filler_t *f, int32_t server, int64_t a, int64_t b)
{
    const as_keep_t *k = &f->p->keep[f->piece];
    const as_fragment_t *last = &f->p->fragments[k->fragment];

    return k->fragment >= 0 && last->server == server && last->head == f->head + 1 &&
           last->a == a && last->b == b;
}

static void add_fragment(filler_t *f, int32_t server, int64_t a, int64_t b)
{
    as_planner_t *p = f->p;
    as_keep_t *k = &p->keep[f->piece];
    const int64_t work = as_unit_work(p, &p->batch->pieces[f->piece], a, b);
    const int64_t constant = joins_last(f, server, a, b) ? 0 : as_task_constant(p);

    p->fragments[p->num_fragments] = (as_fragment_t){
        .server = server, .piece = f->piece, .head = f->head, .next = k->fragment, .a = a, .b = b};
    k->fragment = p->num_fragments++;
    p->load[f->half][server] += work + constant;
    f->left -= work;
    f->room -= work + constant;
}

/* Scratch bytes that units [a, b) take on the server, about. */
static int64_t stretch_bytes(const filler_t *f, int64_t a, int64_t b)
{
    const as_planner_t *p = f->p;
    const as_wire_t *w = &p->config.machine->wire;
    const data_piece_t *piece = &p->batch->pieces[f->piece];
    const int64_t q0 = as_unit_row(p, piece, a), q1 = as_unit_row(p, piece, b);
    const int64_t more = q1 > f->key_row ? q1 - f->key_row : 0;
    const int64_t sums = w->partial_per_task ? 0 : more; /* sent */

    return p->width * ((q1 - q0) * (w->row[AS_FLOW_BWD_OUT][0] + w->row[AS_FLOW_FWD_OUT][0]) +
                       more * w->key[AS_FLOW_FWD_OUT][0] + q1 * w->partial +
                       sums * w->key[AS_FLOW_BWD_BACK][0]);
}

static int has_memory(const filler_t *f, int64_t a, int64_t b)
{
    const as_planner_t *p = f->p;

    if (!p->limited) return 1;
    return p->memory[f->server] + stretch_bytes(f, a, b) <= p->limit[f->server];
}

/* Beyond its room, when that is nearer to it. */
static int64_t may_exceed(const filler_t *f)
{
    return f->forced ? INT64_MAX : f->p->goal[f->server] * f->per_mille / 1000;
}

/* The last unit up to which the server can take from a; a: none. */
static int64_t reach(const filler_t *f, int64_t a, int64_t end)
{
    const as_planner_t *p = f->p;
    const data_piece_t *piece = &p->batch->pieces[f->piece];
    const int64_t room = f->room - (joins_last(f, f->server, a, end) ? 0 : as_task_constant(p));
    int64_t low = a, high = end;

    while (low < high) {
        const int64_t middle = low + (high - low + 1) / 2;

        if (as_unit_work(p, piece, a, middle) <= room && has_memory(f, a, middle))
            low = middle;
        else
            high = middle - 1;
    }
    if (low < end && has_memory(f, a, low + 1)) {
        const int64_t under = low == a ? f->room : room - as_unit_work(p, piece, a, low);
        const int64_t excess = as_unit_work(p, piece, a, low + 1) - room;

        if (excess <= may_exceed(f) && excess < under) low++;
    }
    return low;
}

/* Nobody has room: back home, or where memory is left. */
static int32_t last_resort(filler_t *f, int64_t a, int64_t end)
{
    const as_planner_t *p = f->p;
    const int32_t home = p->keep[f->piece].home;

    f->server = home;
    if (!has_memory(f, a, end))
        for (int32_t s = 0; s < p->num_servers; s++) {
            f->server = s;
            if (has_memory(f, a, end)) break;
        }
    const int32_t found = has_memory(f, a, end) ? f->server : home;
    f->server = -1;
    p->memory[found] += stretch_bytes(f, a, end);
    return found;
}

/* Places units [a, end) of one head of one piece. */
static void place(filler_t *f, int64_t a, int64_t end)
{
    as_planner_t *p = f->p;
    const data_piece_t *piece = &p->batch->pieces[f->piece];

    while (a < end) {
        if (f->server < 0 && !next_server(f)) {
            add_fragment(f, last_resort(f, a, end), a, end);
            return;
        }
        const int64_t b = reach(f, a, end);
        if (b > a) {
            p->memory[f->server] += stretch_bytes(f, a, b);
            f->key_row = as_most(f->key_row, as_unit_row(p, piece, b));
            add_fragment(f, f->server, a, b);
        }
        a = b;
        /* A remainder that is not worth the document's keys stays empty. */
        if (a < end || f->room * 1000 <= p->goal[f->server] * f->per_mille / 2) put_back(f);
    }
}

static void fill_document(filler_t *f)
{
    as_planner_t *p = f->p;
    const int32_t *first = &p->batch->document_piece[f->document];

    f->next_resident = first[0];
    f->server = -1;
    p->num_stash = 0;
    for (f->head = p->heads - 1; f->head >= 0; f->head--) {
        f->key_row = 0;
        for (f->piece = first[0]; f->piece < first[1]; f->piece++) {
            const as_keep_t *k = &p->keep[f->piece];
            if (p->batch->pieces[f->piece].half != f->half) continue;
            const as_keep_t given = {
                .heads = k->given, .to = k->given_to, .begin = k->begin, .end = k->end};

            place(f, as_released_from(k, f->head), as_released_from(&given, f->head));
        }
    }
    put_back(f);
    for (int32_t i = 0; i < p->num_stash; i++)
        insert_room(p, p->stash[i]);
    for (int32_t i = first[0]; i < first[1]; i++) {
        if (p->batch->pieces[i].half != f->half) continue;
        p->keep[i].given = p->keep[i].heads;
        p->keep[i].given_to = p->keep[i].to;
    }
}

static int by_work(const void *a, const void *b, const void *unused)
{
    const as_offer_t *x = a, *y = b;
    int c = base_compare_i64(x->half, y->half);

    (void)unused;
    if (c == 0) c = base_compare_i64(y->work, x->work);
    return c != 0 ? c : base_compare_i64(x->document, y->document);
}

void as_plan_fill(as_planner_t *p, int64_t per_mille, int forced)
{
    for (int32_t i = 0; i < p->num_offers; i++)
        p->offered[2 * p->offers[i].document + p->offers[i].half] = -1;
    base_sort(p->offers, p->num_offers, sizeof *p->offers, by_work, NULL);
    for (int32_t i = 0; i < p->num_offers; i++) {
        filler_t f = {.p = p,
                      .document = p->offers[i].document,
                      .half = p->offers[i].half,
                      .left = p->offers[i].work,
                      .per_mille = per_mille,
                      .forced = forced};

        if (i == 0 || p->offers[i - 1].half != f.half) list_rooms(p, f.half);
        fill_document(&f);
    }
}

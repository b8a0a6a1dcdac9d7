/* bf16 on the CPU, for every op at once, by way of its fp32 function.
 *
 * The list of operands (kernels/op_check.h) says which parts of which places are bf16. Each such
 * place gets scratch in fp32; the parts are widened into it, a copy of the arguments points there
 * instead, the fp32 function runs, and what it may have written is rounded back, once. So results
 * are those of fp32 arithmetic on bf16 inputs with one rounding at the end, as on a GPU; acc
 * operands are read and written in place. Only scratch operands differ: they are never rounded.
 *
 * Made to be right, for tests and for small runs: it widens all of a weight at every use. */
#include "base/memory.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/op_check.h"

#include <string.h>

/* A place of the arguments whose operand is bf16. */
typedef struct shadow {
    const base_mem_t *place;
    int64_t first, end; /* elements from the place that its pieces span */
    int64_t at;         /* element of the scratch where `first` lies */
} shadow_t;

/* `rows` rows of `count` elements. */
typedef struct piece {
    uint16_t *memory;
    int64_t shadow, first; /* elements from the place */
    int64_t rows, count, pitch;
    base_access_t access;
} piece_t;

typedef struct widened {
    kern_visitor_t visitor; /* first */
    base_device_t *dev;     /* of the operands; NULL: none yet */
    shadow_t *shadows;
    piece_t *pieces;
    int64_t num_shadows, shadow_room, num_pieces, piece_room;
    void *own_list; /* copy of a list whose entries are operands, or NULL */
    float *scratch;
    base_buffer_t *view;
} widened_t;

static base_ctx_t *ctx_of(const widened_t *w)
{
    return base_device_ctx(w->dev);
}

static base_status_t make_room(base_ctx_t *ctx, void **list, int64_t count, int64_t *room,
                               size_t element)
{
    if (count < *room) return BASE_OK;
    const int64_t more = *room == 0 ? 16 : 2 * *room;
    void *grown = base_realloc(ctx, *list, more, element, "bf16 operands");

    if (grown == NULL) return BASE_ERR_NOMEM;
    *list = grown;
    *room = more;
    return BASE_OK;
}

/* ==== what is bf16 ==== */

static base_status_t find_shadow(widened_t *w, const base_mem_t *place, int64_t *index)
{
    int64_t i = w->num_shadows - 1;

    while (i >= 0 && w->shadows[i].place != place)
        i--;
    if (i < 0) {
        BASE_TRY(make_room(ctx_of(w), (void **)&w->shadows, w->num_shadows, &w->shadow_room,
                           sizeof *w->shadows));
        i = w->num_shadows++;
        w->shadows[i] = (shadow_t){.place = place, .first = INT64_MAX, .end = INT64_MIN};
    }
    *index = i;
    return BASE_OK;
}

static base_status_t collect(kern_visitor_t *v, const base_operand_t *operand, const char *name)
{
    widened_t *w = (widened_t *)v;
    const base_range_t *r = &operand->range;
    const int64_t element = (int64_t)sizeof(uint16_t);

    (void)name;
    if (r->rows == 0 || r->row_bytes == 0) return BASE_OK;
    w->dev = base_buffer_device(r->mem.buffer);
    if (v->dtype != KERN_BF16) return BASE_OK;
    piece_t piece = {.memory = base_mem_address(r->mem),
                     .first = (r->mem.offset - v->place->offset) / element,
                     .rows = r->rows,
                     .count = r->row_bytes / element,
                     .pitch = r->pitch / element,
                     .access = operand->access};
    const int64_t end = piece.first + (piece.rows - 1) * piece.pitch + piece.count;

    BASE_TRY(find_shadow(w, v->place, &piece.shadow));
    BASE_TRY(make_room(ctx_of(w), (void **)&w->pieces, w->num_pieces, &w->piece_room,
                       sizeof *w->pieces));
    w->pieces[w->num_pieces++] = piece;
    shadow_t *shadow = &w->shadows[piece.shadow];
    shadow->first = piece.first < shadow->first ? piece.first : shadow->first;
    shadow->end = end > shadow->end ? end : shadow->end;
    return BASE_OK;
}

/* ==== there and back ==== */

static float *scratch_of(const widened_t *w, const piece_t *piece)
{
    const shadow_t *shadow = &w->shadows[piece->shadow];

    return w->scratch + shadow->at + (piece->first - shadow->first);
}

/* What is only written is widened as well: an op may leave parts of it as they are. */
static void widen(const widened_t *w, const piece_t *piece)
{
    float *scratch = scratch_of(w, piece);

    for (int64_t r = 0; r < piece->rows; r++) {
        const uint16_t *from = piece->memory + r * piece->pitch;
        float *to = scratch + r * piece->pitch;

        for (int64_t i = 0; i < piece->count; i++) {
            const uint32_t bits = (uint32_t)from[i] << 16;
            memcpy(&to[i], &bits, sizeof bits);
        }
    }
}

/* To nearest, ties to even. NaN stays NaN; a carry out of the fraction belongs into the exponent.
 */
static uint16_t narrowed(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static void narrow(const widened_t *w, const piece_t *piece)
{
    const float *scratch = scratch_of(w, piece);

    for (int64_t r = 0; r < piece->rows; r++) {
        const float *from = scratch + r * piece->pitch;
        uint16_t *to = piece->memory + r * piece->pitch;

        for (int64_t i = 0; i < piece->count; i++)
            to[i] = narrowed(from[i]);
    }
}

static base_status_t enter(widened_t *w)
{
    int64_t elements = 0;

    for (int64_t i = 0; i < w->num_shadows; i++) {
        w->shadows[i].at = elements;
        elements += w->shadows[i].end - w->shadows[i].first;
    }
    w->scratch = base_alloc(ctx_of(w), (size_t)elements * sizeof(float), "bf16 operands in fp32");
    if (w->scratch == NULL) return BASE_ERR_NOMEM;
    BASE_TRY(
        base_host_view_create(w->dev, w->scratch, elements * (int64_t)sizeof(float), &w->view));
    for (int64_t i = 0; i < w->num_pieces; i++)
        widen(w, &w->pieces[i]);
    for (int64_t i = 0; i < w->num_shadows; i++) {
        const shadow_t *shadow = &w->shadows[i];
        /* They are places of our own copy of the arguments. */
        base_mem_t *place = (base_mem_t *)(uintptr_t)shadow->place;

        *place = base_mem(w->view, (shadow->at - shadow->first) * (int64_t)sizeof(float));
    }
    return BASE_OK;
}

static void leave(widened_t *w, base_status_t st)
{
    for (int64_t i = 0; i < w->num_pieces && st >= 0; i++)
        if ((w->pieces[i].access & BASE_WRITE) != 0) narrow(w, &w->pieces[i]);
}

/* ==== lists that hold operands: the copy of the arguments gets one of its own ==== */

static base_status_t own_list(widened_t *w, const base_mem_t *any, const void **list, int64_t count,
                              size_t element)
{
    if (count == 0) return BASE_OK;
    w->dev = base_buffer_device(any->buffer);
    w->own_list = base_calloc(ctx_of(w), count, element, "bf16 operands");
    if (w->own_list == NULL) return BASE_ERR_NOMEM;
    memcpy(w->own_list, *list, (size_t)count * element);
    *list = w->own_list;
    return BASE_OK;
}

static base_status_t own_route(widened_t *w, const kern_mat_t *any, kern_lora_route_t *route)
{
    return own_list(w, &any->mem, (const void **)&route->blocks, route->num_blocks,
                    sizeof *route->blocks);
}

static base_status_t own_lora_s(widened_t *w, kern_lora_s_t *a)
{
    return own_route(w, &a->x, &a->route);
}

static base_status_t own_lora_ds(widened_t *w, kern_lora_ds_t *a)
{
    return own_route(w, &a->dy, &a->route);
}

static base_status_t own_lora_da(widened_t *w, kern_lora_da_t *a)
{
    return own_route(w, &a->x, &a->route);
}

static base_status_t own_lora_db(widened_t *w, kern_lora_db_t *a)
{
    return own_route(w, &a->dy, &a->route);
}

static base_status_t own_lora_dy(widened_t *w, kern_lora_dy_t *a)
{
    return own_route(w, &a->dy, &a->route);
}

static base_status_t own_lora_dx(widened_t *w, kern_lora_dx_dropout_t *a)
{
    return own_route(w, &a->dx, &a->route);
}

static base_status_t own_finite(widened_t *w, kern_finite_check_t *a)
{
    return own_list(w, &a->count.mem, (const void **)&a->tensors, a->num_tensors,
                    sizeof *a->tensors);
}

static base_status_t own_adamw(widened_t *w, kern_adamw_t *a)
{
    if (a->num_tensors == 0) return BASE_OK;
    return own_list(w, &a->tensors[0].w.mem, (const void **)&a->tensors, a->num_tensors,
                    sizeof *a->tensors);
}

static base_status_t own_nothing(widened_t *w, void *args)
{
    (void)w;
    (void)args;
    return BASE_OK;
}

#define OWN(args)                                                                                  \
    _Generic((args), kern_lora_s_t *                                                               \
             : own_lora_s, kern_lora_ds_t *                                                        \
             : own_lora_ds, kern_lora_da_t *                                                       \
             : own_lora_da, kern_lora_db_t *                                                       \
             : own_lora_db, kern_lora_dy_t *                                                       \
             : own_lora_dy, kern_lora_dx_dropout_t *                                               \
             : own_lora_dx, kern_finite_check_t *                                                  \
             : own_finite, kern_adamw_t *                                                          \
             : own_adamw, default                                                                  \
             : own_nothing)

/* ==== the functions ==== */

static void free_all(widened_t *w)
{
    if (w->dev == NULL) return;
    base_host_view_destroy(w->view);
    base_free(ctx_of(w), w->scratch);
    base_free(ctx_of(w), w->pieces);
    base_free(ctx_of(w), w->shadows);
    base_free(ctx_of(w), w->own_list);
}

#define X(op)                                                                                      \
    base_status_t kern_cpu_##op##_bf16(void *args)                                                 \
    {                                                                                              \
        kern_##op##_t own = *(const kern_##op##_t *)args;                                          \
        widened_t w = {.visitor.visit = collect};                                                  \
        base_status_t st = OWN(&own)(&w, &own);                                                    \
                                                                                                   \
        if (st >= 0) st = kern_##op##_visit(&own, &w.visitor);                                     \
        if (st >= 0 && w.num_shadows > 0) st = enter(&w);                                          \
        if (st >= 0) st = kern_cpu_##op##_f32(&own);                                               \
        leave(&w, st);                                                                             \
        free_all(&w);                                                                              \
        return st;                                                                                 \
    }
KERN_REAL_OP_MAP(X)
#undef X

#include "base/arena.h"

#include "base/device/device_host.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif
#ifndef HAVE_ASAN
#define HAVE_ASAN 0
#endif
#if HAVE_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes)   ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

#define ALIGN_BYTES        256
#define ALIGN_STRICT_BYTES 4096
#define GUARD_BYTES        (HAVE_ASAN ? 128 : 0)

typedef struct region {
    char *owner, *name;
    int64_t bytes;  /* as declared */
    int64_t room;   /* with guard, rounded up */
    int64_t offset; /* -1 until placed */
    base_lifetime_t lifetime;
} region_t;

struct base_arena {
    base_device_t *dev;
    base_ctx_t *ctx;
    base_memory_kind_t kind;
    char *name;
    int64_t align;
    region_t *regions;
    int32_t num_regions, room_regions;
    int laid_out;
    int64_t bytes;
    base_buffer_t *buffer; /* NULL until commit */
};

/* ==== life ==== */

base_status_t base_arena_create(base_device_t *dev, base_memory_kind_t kind, const char *name,
                                base_arena_t **arena_p)
{
    base_ctx_t *ctx = base_device_ctx(dev);
    base_arena_t *arena = base_calloc(ctx, 1, sizeof *arena, "arena");

    if (arena == NULL) return BASE_ERR_NOMEM;
    arena->name = base_strdup(ctx, name, "arena");
    if (arena->name == NULL) {
        base_free(ctx, arena);
        return BASE_ERR_NOMEM;
    }
    arena->dev = dev;
    arena->ctx = ctx;
    arena->kind = kind;
    arena->align = base_device_kind(dev) == BASE_DEVICE_STRICT ? ALIGN_STRICT_BYTES : ALIGN_BYTES;
    *arena_p = arena;
    return BASE_OK;
}

/* The address of the buffer where the host may poison it, else NULL. */
static char *poisonable(const base_arena_t *arena)
{
    if (!HAVE_ASAN || arena->buffer == NULL || base_device_kind(arena->dev) != BASE_DEVICE_CPU)
        return NULL;
    return base_mem_address(base_mem(arena->buffer, 0));
}

void base_arena_destroy(base_arena_t *arena)
{
    char *address;

    if (arena == NULL) return;
    address = poisonable(arena);
    if (address != NULL) /* the device may write to the buffer while it frees it */
        ASAN_UNPOISON_MEMORY_REGION(address, (size_t)arena->bytes);
    base_buffer_free(arena->buffer);
    for (int32_t i = 0; i < arena->num_regions; i++) {
        base_free(arena->ctx, arena->regions[i].owner);
        base_free(arena->ctx, arena->regions[i].name);
    }
    base_free(arena->ctx, arena->regions);
    base_free(arena->ctx, arena->name);
    base_free(arena->ctx, arena);
}

/* ==== declarations ==== */

static base_status_t check_declaration(const base_arena_t *arena, const char *owner,
                                       const char *name, int64_t bytes, base_lifetime_t lifetime)
{
    if (arena->laid_out)
        return BASE_FAIL(arena->ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                         "arena %s: %s.%s: declared after the layout", arena->name, owner, name);
    /* The limit leaves room to sum 2^20 regions without overflow. */
    if (bytes < 0 || bytes > INT64_MAX >> 20)
        return BASE_FAIL(arena->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "arena %s: %s.%s: size of %" PRId64 " bytes", arena->name, owner, name,
                         bytes);
    if (lifetime.first < 0 || lifetime.last < lifetime.first)
        return BASE_FAIL(arena->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "arena %s: %s.%s: lifetime [%" PRId32 ", %" PRId32 "]", arena->name, owner,
                         name, lifetime.first, lifetime.last);
    for (int32_t i = 0; i < arena->num_regions; i++) {
        const region_t *r = &arena->regions[i];

        if (strcmp(r->owner, owner) == 0 && strcmp(r->name, name) == 0)
            return BASE_FAIL(arena->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "arena %s: %s.%s: declared twice", arena->name, owner, name);
    }
    return BASE_OK;
}

static base_status_t grow(base_arena_t *arena)
{
    const int32_t room = arena->room_regions == 0 ? 32 : 2 * arena->room_regions;
    region_t *regions;

    if (arena->num_regions < arena->room_regions) return BASE_OK;
    if (room > 1 << 20)
        return BASE_FAIL(arena->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "arena %s: more than %d regions", arena->name, 1 << 20);
    regions = base_realloc(arena->ctx, arena->regions, room, sizeof *regions, "arena regions");
    if (regions == NULL) return BASE_ERR_NOMEM;
    arena->regions = regions;
    arena->room_regions = room;
    return BASE_OK;
}

base_status_t base_arena_declare(base_arena_t *arena, const char *owner, const char *name,
                                 int64_t bytes, base_lifetime_t lifetime, base_region_t *region_p)
{
    region_t r = {.bytes = bytes, .offset = -1, .lifetime = lifetime};

    BASE_TRY(check_declaration(arena, owner, name, bytes, lifetime));
    BASE_TRY(grow(arena));
    r.owner = base_strdup(arena->ctx, owner, "arena region");
    if (r.owner == NULL) return BASE_ERR_NOMEM;
    r.name = base_strdup(arena->ctx, name, "arena region");
    if (r.name == NULL) {
        base_free(arena->ctx, r.owner);
        return BASE_ERR_NOMEM;
    }
    if (bytes > 0) r.room = (bytes + GUARD_BYTES + arena->align - 1) / arena->align * arena->align;
    arena->regions[arena->num_regions] = r;
    *region_p = arena->num_regions++;
    return BASE_OK;
}

/* ==== layout ==== */

/* Largest first; the address breaks ties, which is the order of declaration. */
static int compare_size(const void *a, const void *b)
{
    const region_t *x = *(region_t *const *)a, *y = *(region_t *const *)b;

    if (x->room != y->room) return x->room > y->room ? -1 : 1;
    return x < y ? -1 : x > y;
}

static int lifetimes_meet(const region_t *a, const region_t *b)
{
    return a->lifetime.first <= b->lifetime.last && b->lifetime.first <= a->lifetime.last;
}

/* The lowest offset at which r meets none of the placed regions. `placed` is sorted by offset, so
 * one pass suffices: `offset` only grows, and a region that was passed ends at or below it or lives
 * at another time. The gap before the first conflicting region that starts at or above offset +
 * room is the answer. That offset is never above the sum of the rooms of the regions already
 * placed. */
static int64_t lowest_offset(const region_t *r, region_t *const *placed, int32_t num_placed)
{
    int64_t offset = 0;

    for (int32_t i = 0; i < num_placed; i++) {
        const region_t *p = placed[i];

        if (!lifetimes_meet(r, p)) continue;
        if (p->offset >= offset + r->room) break;
        if (p->offset + p->room > offset) offset = p->offset + p->room;
    }
    return offset;
}

static void insert_by_offset(region_t **placed, int32_t num_placed, region_t *r)
{
    int32_t i = num_placed;

    while (i > 0 && placed[i - 1]->offset > r->offset) {
        placed[i] = placed[i - 1];
        i--;
    }
    placed[i] = r;
}

base_status_t base_arena_layout(base_arena_t *arena)
{
    const int32_t n = arena->num_regions;
    region_t **order, **placed;

    if (arena->laid_out) return BASE_OK;
    order = base_calloc(arena->ctx, 2 * (int64_t)n, sizeof *order, "arena layout");
    if (order == NULL) return BASE_ERR_NOMEM;
    placed = order + n;
    for (int32_t i = 0; i < n; i++)
        order[i] = &arena->regions[i];
    if (n > 0) qsort(order, (size_t)n, sizeof *order, compare_size);
    for (int32_t i = 0; i < n; i++) {
        region_t *r = order[i];

        if (r->room == 0) { /* nothing to place, and these come last */
            r->offset = 0;
            continue;
        }
        r->offset = lowest_offset(r, placed, i);
        insert_by_offset(placed, i, r);
        if (r->offset + r->room > arena->bytes) arena->bytes = r->offset + r->room;
    }
    base_free(arena->ctx, order);
    arena->laid_out = 1;
    return BASE_OK;
}

/* Poisons every byte that belongs to no region. */
static void poison_gaps(const base_arena_t *arena)
{
    char *address = poisonable(arena);

    if (address == NULL) return;
    ASAN_POISON_MEMORY_REGION(address, (size_t)arena->bytes);
    for (int32_t i = 0; i < arena->num_regions; i++)
        ASAN_UNPOISON_MEMORY_REGION(address + arena->regions[i].offset,
                                    (size_t)arena->regions[i].bytes);
}

base_status_t base_arena_commit(base_arena_t *arena)
{
    if (arena->buffer != NULL)
        return BASE_FAIL(arena->ctx, BASE_ERR_STATE, BASE_MSG_INT_01, "arena %s: committed twice",
                         arena->name);
    BASE_TRY(base_arena_layout(arena));
    /* An arena without bytes still has a buffer, so that "committed" needs no second flag. */
    BASE_TRY(base_buffer_alloc(arena->dev, arena->kind,
                               arena->bytes > 0 ? arena->bytes : arena->align, arena->name,
                               &arena->buffer));
    poison_gaps(arena);
    return BASE_OK;
}

/* ==== reading ==== */

static const region_t *region_at(const base_arena_t *arena, base_region_t region)
{
    if (region < 0 || region >= arena->num_regions) return NULL;
    return &arena->regions[region];
}

base_mem_t base_arena_mem(const base_arena_t *arena, base_region_t region)
{
    const region_t *r = region_at(arena, region);

    if (r == NULL || arena->buffer == NULL) return base_mem(NULL, 0);
    return base_mem(arena->buffer, r->offset);
}

int64_t base_arena_region_bytes(const base_arena_t *arena, base_region_t region)
{
    const region_t *r = region_at(arena, region);

    return r != NULL ? r->bytes : 0;
}

int64_t base_arena_bytes(const base_arena_t *arena)
{
    return arena->bytes;
}

int64_t base_arena_declared(const base_arena_t *arena)
{
    int64_t sum = 0;

    for (int32_t i = 0; i < arena->num_regions; i++)
        sum += arena->regions[i].bytes;
    return sum;
}

base_region_t base_arena_num_regions(const base_arena_t *arena)
{
    return arena->num_regions;
}

base_arena_entry_t base_arena_entry(const base_arena_t *arena, base_region_t region)
{
    const region_t *r = &arena->regions[region];

    return (base_arena_entry_t){r->owner, r->name, r->bytes, r->lifetime};
}

void base_arena_print(const base_arena_t *arena, FILE *out)
{
    fprintf(out, "arena %s: %" PRId32 " regions, %" PRId64 " bytes declared, %" PRId64 " bytes\n",
            arena->name, arena->num_regions, base_arena_declared(arena), arena->bytes);
    for (int32_t i = 0; i < arena->num_regions; i++) {
        const region_t *r = &arena->regions[i];
        char life[32] = "run";

        if (r->lifetime.first != 0 || r->lifetime.last != INT32_MAX)
            (void)snprintf(life, sizeof life, "%" PRId32 "-%" PRId32, r->lifetime.first,
                           r->lifetime.last);
        fprintf(out, "  %-16s %-32s %16" PRId64 " %12s %16" PRId64 "\n", r->owner, r->name,
                r->bytes, life, r->offset);
    }
}

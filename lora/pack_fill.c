#include "lora/pack_fill.h"

#include "base/memory.h"
#include "lora/pack_window.h"

#include <assert.h>
#include <string.h>

#define WORDS     (LORA_FILL_BITS / 64 + 1)
#define MAX_UNITS LORA_WINDOW_PADDED_UNITS /* room / align, with align > 1 */

_Static_assert(LORA_WINDOW_PADDED_CAPACITY <= LORA_FILL_BITS, "padded sums are exact");

struct lora_fill {
    base_ctx_t *ctx;
    /* sums[i]: what the items before i of its group reach; the first of a group is {0} */
    uint64_t (*sums)[WORDS];         /* [LORA_FILL_ITEMS + LORA_FILL_GROUPS + 1] */
    int32_t (*most)[MAX_UNITS + 1];  /* [LORA_FILL_GROUPS] most rows of a group in so many units */
    int64_t (*total)[MAX_UNITS + 1]; /* [LORA_FILL_GROUPS + 1] of all groups before it */
};

base_status_t lora_fill_create(base_ctx_t *ctx, lora_fill_t **fill_p)
{
    lora_fill_t *fill = base_calloc(ctx, 1, sizeof *fill, "packer");

    if (fill == NULL) return BASE_ERR_NOMEM;
    fill->ctx = ctx;
    fill->sums = base_calloc(ctx, LORA_FILL_ITEMS + LORA_FILL_GROUPS + 1, sizeof *fill->sums,
                             "packer: sums");
    fill->most = base_calloc(ctx, LORA_FILL_GROUPS, sizeof *fill->most, "packer: groups");
    fill->total = base_calloc(ctx, LORA_FILL_GROUPS + 1, sizeof *fill->total, "packer: groups");
    if (fill->sums == NULL || fill->most == NULL || fill->total == NULL) {
        lora_fill_destroy(fill);
        return BASE_ERR_NOMEM;
    }
    *fill_p = fill;
    return BASE_OK;
}

void lora_fill_destroy(lora_fill_t *fill)
{
    if (fill == NULL) return;
    base_free(fill->ctx, fill->total);
    base_free(fill->ctx, fill->most);
    base_free(fill->ctx, fill->sums);
    base_free(fill->ctx, fill);
}

/* ==== sums ==== */

static int has(const uint64_t *sums, int64_t s)
{
    return (int)(sums[s / 64] >> (s % 64) & 1);
}

/* to = from and from + rows, of the sums up to room. */
static void add_item(uint64_t *to, const uint64_t *from, int64_t rows, int64_t room)
{
    const int64_t words = room / 64 + 1;
    const int64_t by = rows / 64;
    const unsigned bits = (unsigned)(rows % 64);

    memcpy(to, from, (size_t)words * sizeof *to);
    for (int64_t w = by; w < words; w++) {
        uint64_t moved = from[w - by] << bits;

        if (bits > 0 && w > by) moved |= from[w - by - 1] >> (64 - bits);
        to[w] |= moved;
    }
}

/* The largest sum in [low, high]; -1: none. */
static int64_t largest_sum(const uint64_t *sums, int64_t low, int64_t high)
{
    uint64_t word = sums[high / 64] << (63 - high % 64) >> (63 - high % 64);

    for (int64_t w = high / 64; w >= low / 64; word = w > low / 64 ? sums[w - 1] : 0, w--) {
        if (word == 0) continue;
        const int64_t s = w * 64 + 63 - __builtin_clzll(word);

        return s >= low ? s : -1;
    }
    return -1;
}

/* The items of [first, end) that make the sum, later ones only where needed. sums[i + shift] is
 * before item i. */
static void take_sum(const lora_fill_t *fill, const lora_fill_offer_t *offer, int32_t first,
                     int32_t end, int32_t shift, int64_t quantum, int64_t sum)
{
    for (int32_t i = end - 1; i >= first; i--) {
        const int64_t rows = (offer->items[i].rows + quantum - 1) / quantum;

        offer->items[i].taken = !has(fill->sums[i + shift], sum);
        if (offer->items[i].taken) sum -= rows;
    }
    assert(sum == 0);
}

static int64_t taken_rows(const lora_fill_offer_t *offer)
{
    int64_t rows = 0;

    for (int32_t i = 0; i < offer->num_items; i++)
        rows += offer->items[i].taken ? offer->items[i].rows : 0;
    return rows;
}

/* ==== nothing is padded ==== */

static void solve_plain(lora_fill_t *fill, const lora_fill_offer_t *offer, int32_t num_items)
{
    const int64_t quantum = offer->room / LORA_FILL_BITS + 1;
    const int64_t room = offer->room / quantum;
    int32_t i = 0;

    memset(fill->sums[0], 0, sizeof fill->sums[0]);
    fill->sums[0][0] = 1;
    while (i < num_items) {
        const int64_t rows = (offer->items[i].rows + quantum - 1) / quantum;

        add_item(fill->sums[i + 1], fill->sums[i], rows, room);
        i++;
        if ((i == num_items || offer->items[i].group != offer->items[i - 1].group) &&
            (room - largest_sum(fill->sums[i], 0, room)) * quantum <= offer->slack)
            break;
    }
    take_sum(fill, offer, 0, i, 0, quantum, largest_sum(fill->sums[i], 0, room));
}

/* ==== each group is padded ==== */

/* most[u]: most rows of the group's items with which it takes u units; -1: it cannot. */
static void solve_group(lora_fill_t *fill, const lora_fill_offer_t *offer, int32_t group,
                        int32_t first, int32_t end)
{
    const int64_t units = offer->room / offer->align;
    const int64_t forced = offer->forced[group];
    const int64_t room = offer->room - forced;
    int32_t *most = fill->most[group];

    memset(fill->sums[first + group], 0, sizeof fill->sums[0]);
    fill->sums[first + group][0] = 1;
    for (int32_t i = first; i < end; i++)
        add_item(fill->sums[i + group + 1], fill->sums[i + group], offer->items[i].rows, room);
    for (int64_t u = 0; u <= units; u++) {
        const int64_t high = u * offer->align - forced;
        const int64_t low = high - offer->align + 1;

        most[u] =
            high < 0 ? -1 : (int32_t)largest_sum(fill->sums[end + group], low > 0 ? low : 0, high);
    }
}

/* total[g + 1][u] from total[g] and the group's most. */
static int64_t add_group(lora_fill_t *fill, int32_t group, int64_t units)
{
    int64_t best = -1;

    for (int64_t u = 0; u <= units; u++) {
        int64_t *to = &fill->total[group + 1][u];

        *to = -1;
        for (int64_t v = 0; v <= u; v++) {
            if (fill->most[group][v] < 0 || fill->total[group][u - v] < 0) continue;
            if (fill->total[group][u - v] + fill->most[group][v] > *to)
                *to = fill->total[group][u - v] + fill->most[group][v];
        }
        if (*to > best) best = *to;
    }
    return best;
}

static void take_groups(const lora_fill_t *fill, const lora_fill_offer_t *offer,
                        const int32_t *ends, int32_t groups, int64_t units)
{
    int64_t at = 0;

    for (int64_t u = 0; u <= units; u++)
        if (fill->total[groups][u] > fill->total[groups][at]) at = u;
    for (int32_t g = groups - 1; g >= 0; g--) {
        int64_t v = 0;

        while (fill->most[g][v] < 0 || fill->total[g][at - v] < 0 ||
               fill->total[g][at - v] + fill->most[g][v] != fill->total[g + 1][at])
            v++;
        take_sum(fill, offer, g > 0 ? ends[g - 1] : 0, ends[g], g, 1, fill->most[g][v]);
        at -= v;
    }
}

static void solve_padded(lora_fill_t *fill, const lora_fill_offer_t *offer, int32_t num_items)
{
    const int64_t units = offer->room / offer->align;
    int64_t forced = 0, forced_to_come = 0;
    int32_t ends[LORA_FILL_GROUPS];
    int32_t g, i = 0;

    assert(units <= MAX_UNITS && offer->room <= LORA_FILL_BITS);
    for (g = 0; g < offer->num_groups; g++)
        forced_to_come += offer->forced[g];
    for (int64_t u = 0; u <= units; u++)
        fill->total[0][u] = u == 0 ? 0 : -1;
    for (g = 0; g < offer->num_groups; g++) {
        const int32_t first = i;

        while (i < num_items && offer->items[i].group == g)
            i++;
        ends[g] = i;
        solve_group(fill, offer, g, first, i);
        const int64_t best = add_group(fill, g, units);
        forced += offer->forced[g];
        forced_to_come -= offer->forced[g];
        /* A group ends in the middle of a unit as a rule. */
        if (forced_to_come == 0 && best >= 0 &&
            offer->room - forced - best <= offer->slack + offer->align / 4 * (g + 1)) {
            g++;
            break;
        }
    }
    take_groups(fill, offer, ends, g, units);
}

int64_t lora_fill_solve(lora_fill_t *fill, const lora_fill_offer_t *offer)
{
    const int32_t n = offer->num_items < LORA_FILL_ITEMS ? offer->num_items : LORA_FILL_ITEMS;

    assert(offer->num_groups <= LORA_FILL_GROUPS && offer->room >= 0);
    for (int32_t i = 0; i < offer->num_items; i++)
        offer->items[i].taken = 0;
    if (offer->align == 1)
        solve_plain(fill, offer, n);
    else
        solve_padded(fill, offer, n);
    return taken_rows(offer);
}

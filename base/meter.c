#include "base/meter.h"

static const char *const WORDS[BASE_NUM_PARTS] = {
#define X(name, word) word,
    BASE_PART_MAP(X)
#undef X
};

const char *base_part_word(base_part_t part)
{
    return part >= 0 && part < BASE_NUM_PARTS ? WORDS[part] : "unknown";
}

static void add(base_meter_t *meter, base_part_t part, int64_t ns)
{
    if (part != BASE_PART_NONE && ns > 0)
        (void)__atomic_fetch_add(&meter->ns[part], ns, __ATOMIC_RELAXED);
}

/* What the innermost part has had until now. */
static void settle(base_meter_t *meter, int64_t at_ns)
{
    const int innermost = meter->depth < BASE_METER_DEPTH ? meter->depth : BASE_METER_DEPTH;

    if (innermost > 0) add(meter, meter->open[innermost - 1], at_ns - meter->since_ns);
    meter->since_ns = at_ns;
}

void base_meter_begin(base_meter_t *meter, base_part_t part, int64_t at_ns)
{
    settle(meter, at_ns);
    if (meter->depth < BASE_METER_DEPTH) meter->open[meter->depth] = part;
    meter->depth++;
}

void base_meter_end(base_meter_t *meter, int64_t at_ns)
{
    settle(meter, at_ns);
    if (meter->depth > 0) meter->depth--;
}

void base_meter_waited(base_meter_t *meter, int64_t from_ns, int64_t ready_ns, int64_t to_ns)
{
    const int64_t late = ready_ns < to_ns ? ready_ns : to_ns;
    const int64_t ready = late > from_ns ? late : from_ns;

    settle(meter, from_ns);
    add(meter, BASE_PART_WAITING, ready - from_ns);
    add(meter, BASE_PART_EXCHANGE, to_ns - ready);
    meter->since_ns = to_ns;
}

void base_meter_read(const base_meter_t *meter, int64_t ns[BASE_NUM_PARTS])
{
    for (int p = 0; p < BASE_NUM_PARTS; p++)
        ns[p] = __atomic_load_n(&meter->ns[p], __ATOMIC_RELAXED);
}

#include "base/hash.h"

#include <string.h>

#define FNV_PRIME UINT64_C(0x100000001b3)

base_hash_t base_hash_bytes(base_hash_t h, const void *data, size_t bytes)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < bytes; i++)
        h = (h ^ p[i]) * FNV_PRIME;
    return h;
}

base_hash_t base_hash_string(base_hash_t h, const char *s)
{
    const size_t bytes = strlen(s);

    return base_hash_bytes(base_hash_u64(h, bytes), s, bytes);
}

base_hash_t base_hash_u32(base_hash_t h, uint32_t v)
{
    for (int shift = 0; shift < 32; shift += 8)
        h = (h ^ (v >> shift & 0xff)) * FNV_PRIME;
    return h;
}

base_hash_t base_hash_u64(base_hash_t h, uint64_t v)
{
    for (int shift = 0; shift < 64; shift += 8)
        h = (h ^ (v >> shift & 0xff)) * FNV_PRIME;
    return h;
}

base_hash_t base_hash_i64(base_hash_t h, int64_t v)
{
    return base_hash_u64(h, (uint64_t)v);
}

base_hash_t base_hash_double(base_hash_t h, double v)
{
    uint64_t bits;

    memcpy(&bits, &v, sizeof bits);
    return base_hash_u64(h, bits);
}

base_hash_t base_hash_i64_array(base_hash_t h, const int64_t *v, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        h = base_hash_i64(h, v[i]);
    return h;
}

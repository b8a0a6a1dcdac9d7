#include "base/sha256.h"

#include "base/memory.h"

#include <errno.h>
#include <string.h>

#define BLOCK_BYTES 64
#define PIECE_BYTES 65536

/* First 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static const uint32_t k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t v, int n)
{
    return v >> n | v << (32 - n);
}

static uint32_t big_endian(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static void compress(uint32_t state[8], const unsigned char *block)
{
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    uint32_t w[64];

    for (int t = 0; t < 16; t++)
        w[t] = big_endian(block + 4 * t);
    for (int t = 16; t < 64; t++) {
        const uint32_t x = w[t - 15], y = w[t - 2];

        w[t] = w[t - 16] + w[t - 7] + (rotate(x, 7) ^ rotate(x, 18) ^ x >> 3) +
               (rotate(y, 17) ^ rotate(y, 19) ^ y >> 10);
    }
    for (int t = 0; t < 64; t++) {
        const uint32_t choice = (e & f) ^ (~e & g), majority = (a & b) ^ (a & c) ^ (b & c);
        const uint32_t t1 =
            h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + choice + k[t] + w[t];
        const uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + majority;

        h = g;
        g = f;
        f = e;
        e = d + t1;
        d = c;
        c = b;
        b = a;
        a = t1 + t2;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

void base_sha256_init(base_sha256_t *h)
{
    /* First 32 bits of the fractional parts of the square roots of the first eight primes. */
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

    memcpy(h->state, start, sizeof start);
    h->bytes = 0;
}

void base_sha256_update(base_sha256_t *h, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    const size_t used = h->bytes % BLOCK_BYTES;

    h->bytes += bytes;
    if (used > 0) {
        const size_t room = BLOCK_BYTES - used, taken = bytes < room ? bytes : room;

        if (taken > 0) memcpy(h->block + used, p, taken);
        if (taken < room) return;
        compress(h->state, h->block);
        p += taken;
        bytes -= taken;
    }
    for (; bytes >= BLOCK_BYTES; p += BLOCK_BYTES, bytes -= BLOCK_BYTES)
        compress(h->state, p);
    if (bytes > 0) memcpy(h->block, p, bytes);
}

void base_sha256_digest(base_sha256_t *h, unsigned char digest[BASE_SHA256_BYTES])
{
    static const unsigned char padding[BLOCK_BYTES] = {0x80};
    const uint64_t bits = 8 * h->bytes;
    const size_t used = h->bytes % BLOCK_BYTES;
    unsigned char length[8];

    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)(bits >> (56 - 8 * i));
    base_sha256_update(h, padding, (used < 56 ? 56 : 120) - used);
    base_sha256_update(h, length, sizeof length);
    for (int i = 0; i < BASE_SHA256_BYTES; i++)
        digest[i] = (unsigned char)(h->state[i / 4] >> (24 - 8 * (i % 4)));
}

void base_sha256_finish(base_sha256_t *h, char hex[BASE_SHA256_HEX_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char digest[BASE_SHA256_BYTES];

    base_sha256_digest(h, digest);
    for (int i = 0; i < BASE_SHA256_BYTES; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[2 * BASE_SHA256_BYTES] = '\0';
}

void base_sha256_hex(const void *data, size_t bytes, char hex[BASE_SHA256_HEX_BYTES])
{
    base_sha256_t h;

    base_sha256_init(&h);
    base_sha256_update(&h, data, bytes);
    base_sha256_finish(&h, hex);
}

base_status_t base_sha256_file(base_ctx_t *ctx, const char *path, char hex[BASE_SHA256_HEX_BYTES])
{
    FILE *stream = fopen(path, "re");
    base_status_t st = BASE_OK;
    unsigned char *piece;
    base_sha256_t h;
    size_t bytes;

    if (stream == NULL)
        return BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_IO_01, "%s: cannot open: %s", path,
                         strerror(errno));
    piece = base_alloc(ctx, PIECE_BYTES, path);
    if (piece == NULL) {
        (void)fclose(stream);
        return BASE_ERR_NOMEM;
    }
    base_sha256_init(&h);
    while ((bytes = fread(piece, 1, PIECE_BYTES, stream)) > 0)
        base_sha256_update(&h, piece, bytes);
    if (ferror(stream)) /* a folder, too: reading it fails */
        st = BASE_FAIL(ctx, BASE_ERR_IO, BASE_MSG_IO_01, "%s: cannot read: %s", path,
                       strerror(errno));
    else
        base_sha256_finish(&h, hex);
    base_free(ctx, piece);
    (void)fclose(stream);
    return st;
}

bool base_sha256_is_hex(const char *text)
{
    const size_t digits = BASE_SHA256_HEX_BYTES - 1;

    return strspn(text, "0123456789abcdef") == digits && text[digits] == '\0';
}

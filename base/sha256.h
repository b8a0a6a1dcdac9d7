/* SHA-256 (FIPS 180-4): the name of a file's content.
 *
 * By it datasets and manifests say which tokenizer, template and source they were made from: unlike
 * base/hash.h it has to be what other tools print (sha256sum, hashlib), and nobody can make two
 * files of one value by accident or intent.
 *
 *   base_sha256_t h;
 *   base_sha256_init(&h);
 *   base_sha256_update(&h, data, bytes);                 any number of times, in any pieces
 *   base_sha256_finish(&h, hex);                         64 digits and a zero
 *
 * Portable C, about 0.2 GB/s. The state is a plain value: no memory, no ending needed. */
#ifndef CADRE_BASE_SHA256_H
#define CADRE_BASE_SHA256_H

#include "base/context.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BASE_SHA256_BYTES     32
#define BASE_SHA256_HEX_BYTES 65 /* with the terminating zero */

/* The caller's memory; all fields are private. */
typedef struct base_sha256 {
    uint32_t state[8];
    uint64_t bytes; /* so far */
    unsigned char block[64];
} base_sha256_t;

void base_sha256_init(base_sha256_t *h);
void base_sha256_update(base_sha256_t *h, const void *data, size_t bytes);
/* Writes the digest in lower-case hexadecimal; `h` has to be initialised again for another use. */
void base_sha256_finish(base_sha256_t *h, char hex[BASE_SHA256_HEX_BYTES]);
/* The same as 32 bytes. */
void base_sha256_digest(base_sha256_t *h, unsigned char digest[BASE_SHA256_BYTES]);

/* Of bytes in memory. */
void base_sha256_hex(const void *data, size_t bytes, char hex[BASE_SHA256_HEX_BYTES]);
/* Of a whole file, read in pieces. BASE_ERR_IO (IO-01) when it cannot be read. */
base_status_t base_sha256_file(base_ctx_t *ctx, const char *path,
                               char hex[BASE_SHA256_HEX_BYTES]) BASE_MUST_CHECK;
/* Whether the text is 64 hexadecimal digits in lower case, as written here. */
bool base_sha256_is_hex(const char *text);

#ifdef __cplusplus
}
#endif
#endif

/* A dataset: tokenized documents and their loss masks in an HDF5 file (docs/formats.md).
 *
 *   data_dataset_t *ds;
 *   BASE_TRY(data_dataset_open(ctx, "legal.h5", NULL, &ds));
 *   BASE_TRY(data_dataset_match(ds, tokenizer_sha256, spec->vocab, NULL));
 *   const int64_t rows = data_dataset_rows(ds, i);
 *   BASE_TRY(data_dataset_read(ds, i, tokens, mask));                      rows of both
 *   data_dataset_close(ds);
 *
 * Open checks everything that costs O(documents), in one pass: attributes, types and shapes of the
 * arrays, ascending offsets, at least one supervised token in each document (users' complaint 5:
 * a run that trains on nothing and "succeeds"), sums. Tokens and masks are checked document by
 * document when they are read. A document has at least two rows, since its first token is never a
 * target. Faults:
 *   DATA-11  no HDF5 file, not our format, another format version
 *   DATA-12  damaged: cut short, something missing, of another type, or contradicting the rest
 *   DATA-14  a document without a supervised token
 *   IO-01    the file cannot be opened (recorded at once)
 *
 * Memory: 20 bytes a document (8 with data_dataset_open_offsets). Tokens stay in the file.
 *
 * Threads: after open everything here may be called from several threads. Contiguous arrays, which
 * `cadre prepare` and data/dataset_write.h make, are read by pread without HDF5; others go through
 * HDF5 under a lock of the dataset, and then two datasets may be read at the same time only if the
 * library was built thread-safe (Debian's serial flavour is). The same holds for opening. Files are
 * not locked, so a read-only or network file system is fine. */
#ifndef CADRE_DATA_DATASET_H
#define CADRE_DATA_DATASET_H

#include "base/config/error_list.h"
#include "base/sha256.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DATA_DATASET_FORMAT         "cadre-dataset"
#define DATA_DATASET_FORMAT_VERSION 1

/* Attributes of the root, besides format and format_version. TEXT(name), NUMBER(name) */
#define DATA_DATASET_ATTRIBUTE_MAP(TEXT, NUMBER)                                                   \
    TEXT(creator)                                                                                  \
    TEXT(tokenizer_sha256) /* of the bytes of tokenizer.json */                                    \
    TEXT(template_sha256)  /* of the chat template; "": none was used */                           \
    TEXT(source)           /* path of the JSONL */                                                 \
    TEXT(source_sha256)    /* of its bytes */                                                      \
    TEXT(settings)         /* canonical JSON of the settings that change tokens */                 \
    TEXT(content_sha256)   /* of the bytes of offsets, tokens, loss_mask in this order */          \
    NUMBER(vocab_size)     /* of config.json; every token is below it */                           \
    NUMBER(eos_id)         /* ends documents without template; -1: none */                         \
    NUMBER(bos_id)         /* -1: none */                                                          \
    NUMBER(num_documents)                                                                          \
    NUMBER(num_tokens)                                                                             \
    NUMBER(num_supervised)

typedef struct data_dataset_attributes {
#define DATA_DATASET_TEXT(name)   const char *name;
#define DATA_DATASET_NUMBER(name) int64_t name;
    DATA_DATASET_ATTRIBUTE_MAP(DATA_DATASET_TEXT, DATA_DATASET_NUMBER)
#undef DATA_DATASET_TEXT
#undef DATA_DATASET_NUMBER
} data_dataset_attributes_t;

typedef struct data_dataset data_dataset_t;

/* `errors` gets all faults and the caller finishes it (data_errors_finish); with NULL the first one
 * is recorded in the context. BASE_ERR_FORMAT; BASE_ERR_IO; BASE_ERR_NOMEM. `ctx` is borrowed; the
 * caller closes *ds_p. */
base_status_t data_dataset_open(base_ctx_t *ctx, const char *path, base_error_list_t *errors,
                                data_dataset_t **ds_p) BASE_MUST_CHECK;
/* For ranks that plan and serve but read no token: attributes and offsets only, no open file. Of
 * the functions below those marked (full) may not be called; nothing is known about the masks. */
base_status_t data_dataset_open_offsets(base_ctx_t *ctx, const char *path,
                                        base_error_list_t *errors,
                                        data_dataset_t **ds_p) BASE_MUST_CHECK;
void data_dataset_close(data_dataset_t *ds); /* NULL is legal */

/* Borrowed from the dataset. */
const char *data_dataset_path(const data_dataset_t *ds);
const data_dataset_attributes_t *data_dataset_attributes(const data_dataset_t *ds);

int64_t data_dataset_num_documents(const data_dataset_t *ds);
int64_t data_dataset_num_tokens(const data_dataset_t *ds);
int64_t data_dataset_num_supervised(const data_dataset_t *ds);
/* Rows of the longest document: what a buffer for any of them needs. */
int64_t data_dataset_max_rows(const data_dataset_t *ds);

/* Of document 0 <= i < num_documents. */
int64_t data_dataset_rows(const data_dataset_t *ds, int64_t i);
int64_t data_dataset_supervised(const data_dataset_t *ds, int64_t i); /* (full) targets */
int64_t data_dataset_line(const data_dataset_t *ds, int64_t i); /* (full) in the JSONL, from 1 */

/* (full) Tokens and mask of a document, rows(i) elements each. mask[r] = 1: token r is a target,
 * predicted from row r - 1; mask[0] is 0. Checked: tokens within the vocabulary, masks 0 or 1, as
 * many ones as supervised(i). BASE_ERR_FORMAT (DATA-12), also for a file that has become shorter;
 * BASE_ERR_IO. The buffers may have been written when it fails. */
base_status_t data_dataset_read(const data_dataset_t *ds, int64_t i, int32_t *tokens,
                                uint8_t *mask) BASE_MUST_CHECK;

/* Whether the dataset was made for the model: tokenizer_sha256 of its tokenizer.json
 * (data_dataset_tokenizer_sha256) and vocab_size of its config.json. DATA-13 shows both values;
 * `errors` as in open. */
base_status_t data_dataset_match(const data_dataset_t *ds, const char *tokenizer_sha256,
                                 int64_t vocab, base_error_list_t *errors) BASE_MUST_CHECK;
/* SHA-256 of FOLDER/tokenizer.json. BASE_ERR_IO (IO-01). */
base_status_t data_dataset_tokenizer_sha256(base_ctx_t *ctx, const char *folder,
                                            char hex[BASE_SHA256_HEX_BYTES]) BASE_MUST_CHECK;

/* (full) Reads every byte and compares with content_sha256 (DATA-12), at the pace of base/sha256.h. */
base_status_t data_dataset_verify(const data_dataset_t *ds) BASE_MUST_CHECK;

/* By which ranks and checkpoints compare: content_sha256, vocabulary and all offsets. */
uint64_t data_dataset_hash(const data_dataset_t *ds);

#ifdef __cplusplus
}
#endif
#endif

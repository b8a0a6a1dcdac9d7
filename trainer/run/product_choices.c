#include "trainer/run/product_choices.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"

static base_status_t load(base_ctx_t *ctx, base_stream_t *stream, const char *path)
{
    int64_t taken = 0;
    size_t size = 0;
    char *bytes = NULL;

    BASE_TRY(base_file_read(ctx, path, KERN_GEMM_CHOICES_BYTES, &bytes, &size));
    const base_status_t st = kern_gemm_choices_load(stream, bytes, (int64_t)size, &taken);
    base_free(ctx, bytes);
    if (st >= 0)
        base_log_info(base_ctx_log(ctx), "%lld matrix products have the algorithms of %s",
                      (long long)taken, path);
    return st;
}

base_status_t tr_product_choices_take(base_ctx_t *ctx, base_stream_t *stream, const char *path)
{
    if (base_file_kind(path) == BASE_FILE_REGULAR) BASE_TRY(load(ctx, stream, path));
    return kern_gemm_search_new(stream, 1);
}

base_status_t tr_product_choices_keep(base_ctx_t *ctx, base_stream_t *stream, const char *path)
{
    int64_t size = 0;

    void *bytes = base_alloc(ctx, KERN_GEMM_CHOICES_BYTES, "choices of algorithms");
    if (bytes == NULL) return BASE_ERR_NOMEM;
    base_status_t st = kern_gemm_choices_save(stream, bytes, KERN_GEMM_CHOICES_BYTES, &size);
    if (st >= 0 && size > 0) st = base_file_write(ctx, path, bytes, (size_t)size);
    base_free(ctx, bytes);
    return st;
}

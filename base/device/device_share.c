/* Buffers and counters that other processes of the host use. */
#include "base/device/device_host.h"
#include "base/device/device_ops.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MAGIC UINT64_C(0x6361647265787031)
#define CELL_BYTES                                                                                 \
    64 /* a line of the cache for each counter: they are written by different ranks */

_Static_assert(sizeof(base_export_fields_t) <= BASE_EXPORT_BYTES, "an export's bytes");

static void pack(const base_export_fields_t *fields, base_export_t *out)
{
    memset(out, 0, sizeof *out);
    memcpy(out->bytes, fields, sizeof *fields);
}

static base_status_t unpack(base_device_t *dev, const base_export_t *from, bool is_buffer,
                            const char *name, base_export_fields_t *fields)
{
    memcpy(fields, from->bytes, sizeof *fields);
    if (fields->magic == MAGIC && fields->kind == (int32_t)dev->kind && fields->bytes >= 0 &&
        (is_buffer ? fields->count == -1 : fields->count > 0))
        return BASE_OK;
    return BASE_FAIL(dev->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                     "%s: not what a %s of %s was exported as (kind %d, count %d)", name,
                     is_buffer ? "buffer" : "bank of counters", dev->name, (int)fields->kind,
                     (int)fields->count);
}

/* ==== buffers ==== */

void base_device_share(base_device_t *dev)
{
    atomic_store(&dev->shares, true);
}

base_status_t base_buffer_export(base_buffer_t *buf, base_export_t *out)
{
    base_device_t *dev = buf->dev;
    base_export_fields_t fields = {
        .magic = MAGIC, .kind = (int32_t)dev->kind, .count = -1, .bytes = buf->bytes};

    if (buf->kind != BASE_MEMORY_DEVICE)
        return BASE_FAIL(dev->ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
                         "buffer %s: pinned memory cannot be exported", buf->name);
    if (buf->imported || (base_device_is_host(dev) && buf->shared == NULL))
        return BASE_FAIL(dev->ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                         "buffer %s of %s: %s cannot be exported", buf->name, dev->name,
                         buf->imported ? "what was imported" : "memory that is not shared");
    BASE_TRY(dev->ops->buffer_export(buf, &fields));
    buf->exported = true;
    pack(&fields, out);
    return BASE_OK;
}

base_status_t base_buffer_import(base_device_t *dev, const base_export_t *from, const char *name,
                                 base_buffer_t **buf_p)
{
    base_export_fields_t fields;
    base_buffer_t *buf = NULL;

    BASE_TRY(unpack(dev, from, true, name, &fields));
    BASE_TRY(dev->ops->buffer_import(dev, &fields, name, &buf));
    buf->imported = true;
    *buf_p = buf;
    return BASE_OK;
}

/* ==== banks ==== */

struct base_counter_bank {
    base_device_t *dev;
    base_shared_t *memory;
    int num;
    bool mapped;
    base_counter_t **counters; /* [num] */
};

/* Takes the memory over, also when it fails. */
static base_status_t bank_make(base_device_t *dev, base_shared_t *memory, int num,
                               base_counter_bank_t **bank_p)
{
    base_counter_bank_t *bank = base_calloc(dev->ctx, 1, sizeof *bank, "counters");
    base_status_t st = BASE_ERR_NOMEM;

    if (bank == NULL) {
        base_shared_close(memory);
        return st;
    }
    bank->dev = dev;
    bank->memory = memory;
    bank->counters = base_calloc(dev->ctx, num, sizeof(base_counter_t *), "counters");
    if (bank->counters == NULL) goto err_destroy;
    unsigned char *cells = base_shared_address(memory);
    if (dev->ops->bank_map != NULL)
        BASE_TRY_GOTO(dev->ops->bank_map(dev, cells, base_shared_bytes(memory)), st, err_destroy);
    bank->mapped = true;
    for (; bank->num < num; bank->num++) {
        base_counter_t **c = &bank->counters[bank->num];
        void *cell = cells + (size_t)bank->num * CELL_BYTES;

        BASE_TRY_GOTO(dev->ops->counter_at(dev, cell, c), st, err_destroy);
        (*c)->in_bank = true;
        base_memory_count_open(base_ctx_memory(dev->ctx), BASE_RESOURCE_COUNTER);
    }
    *bank_p = bank;
    return BASE_OK;
err_destroy:
    base_counter_bank_destroy(bank);
    return st;
}

base_status_t base_counter_bank_create(base_device_t *dev, int num, const char *name,
                                       base_counter_bank_t **bank_p)
{
    base_shared_t *memory = NULL;

    if (num < 1)
        return BASE_FAIL(dev->ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "%s: bank of %d counters", name,
                         num);
    BASE_TRY(base_shared_create(dev->ctx, (int64_t)num * CELL_BYTES, NULL, name, &memory));
    return bank_make(dev, memory, num, bank_p);
}

void base_counter_bank_export(const base_counter_bank_t *bank, base_export_t *out)
{
    const base_export_fields_t fields = {.magic = MAGIC,
                                         .kind = (int32_t)bank->dev->kind,
                                         .count = bank->num,
                                         .bytes = base_shared_bytes(bank->memory),
                                         .memory = base_shared_name(bank->memory)};

    pack(&fields, out);
}

base_status_t base_counter_bank_import(base_device_t *dev, const base_export_t *from,
                                       const char *name, base_counter_bank_t **bank_p)
{
    base_export_fields_t fields;
    base_shared_t *memory = NULL;

    BASE_TRY(unpack(dev, from, false, name, &fields));
    BASE_TRY(base_shared_open(dev->ctx, &fields.memory, NULL, name, &memory));
    return bank_make(dev, memory, fields.count, bank_p);
}

void base_counter_bank_destroy(base_counter_bank_t *bank)
{
    if (bank == NULL) return;
    base_device_t *dev = bank->dev;

    while (bank->num > 0)
        base_counter_destroy(bank->counters[--bank->num]);
    if (bank->mapped && dev->ops->bank_unmap != NULL)
        dev->ops->bank_unmap(dev, base_shared_address(bank->memory));
    base_shared_close(bank->memory);
    base_free(dev->ctx, bank->counters);
    base_free(dev->ctx, bank);
}

int base_counter_bank_count(const base_counter_bank_t *bank)
{
    return bank->num;
}

base_counter_t *base_counter_bank_at(base_counter_bank_t *bank, int i)
{
    assert(i >= 0 && i < bank->num);
    return bank->counters[i];
}

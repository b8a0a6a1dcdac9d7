#include "base/config/print.h"

#include "base/config/schema.h"
#include "base/config/value.h"

#include <string.h>

#define ITEM    "  - "
#define IN_ITEM "    "

static void write_line(const base_writer_t *writer, const char *indent,
                       const base_schema_key_t *key, const void *object)
{
    base_writer_text(writer, indent);
    base_writer_text(writer, key->name);
    base_writer_text(writer, ": ");
    base_value_write(key, object, writer);
    base_writer_text(writer, "\n");
}

static void write_section(const base_writer_t *writer, const base_config_t *config,
                          const char *section)
{
    if (section[0] != '\0') {
        base_writer_text(writer, section);
        base_writer_text(writer, ":\n");
    }
    for (size_t i = 0; i < base_schema_count(); i++) {
        const base_schema_key_t *key = base_schema_key(i);

        if (strcmp(key->section, section) == 0 && base_value_is_set(key, config))
            write_line(writer, section[0] == '\0' ? "" : "  ", key, config);
    }
}

/* The name is the first row of the section, so the dash stands before it. */
static void write_adapter(const base_writer_t *writer, const base_config_adapter_t *adapter)
{
    const char *indent = ITEM;

    for (size_t i = 0; i < base_schema_count(); i++) {
        const base_schema_key_t *key = base_schema_key(i);

        if (strcmp(key->section, "adapters") != 0 || !base_value_is_set(key, adapter)) continue;
        write_line(writer, indent, key, adapter);
        indent = IN_ITEM;
    }
}

static void write_full(const base_writer_t *writer, const base_config_t *config)
{
    base_writer_text(writer, "defaults:\n");
    for (size_t i = 0; i < base_schema_count(); i++) {
        const base_schema_key_t *key = base_schema_key(i);

        if (base_schema_belongs(key, "defaults") && (key->flags & BASE_SCHEMA_LORA) == 0 &&
            base_value_is_set(key, &config->full))
            write_line(writer, "  ", key, &config->full);
    }
}

static void write_config(const base_writer_t *writer, const base_config_t *config)
{
    const char *section;

    for (size_t i = 0; (section = base_schema_section(i)) != NULL; i++)
        if (strcmp(section, "defaults") != 0 && strcmp(section, "adapters") != 0)
            write_section(writer, config, section);
    if (config->train.mode == BASE_CONFIG_MODE_FULL) {
        write_full(writer, config);
        return;
    }
    base_writer_text(writer, "adapters:\n");
    for (int64_t i = 0; i < config->num_adapters; i++)
        write_adapter(writer, &config->adapters[i]);
}

static void to_stream(void *to, const char *text, size_t length)
{
    (void)fwrite(text, 1, length, to);
}

static void to_hash(void *to, const char *text, size_t length)
{
    base_hash_t *hash = to;

    *hash = base_hash_bytes(*hash, text, length);
}

void base_print_config(const base_config_t *config, FILE *out)
{
    const base_writer_t writer = {to_stream, out};

    write_config(&writer, config);
}

base_hash_t base_print_hash(const base_config_t *config)
{
    base_hash_t hash = BASE_HASH_START;
    const base_writer_t writer = {to_hash, &hash};

    write_config(&writer, config);
    return hash;
}

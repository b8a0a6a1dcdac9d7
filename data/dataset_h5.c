#include "data/dataset_h5.h"

#include "base/memory.h"
#include "data/json_read.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAX_TEXT       (1 << 20)
#define FAULT(at, ...) DATA_ERROR((at)->errors, BASE_MSG_DATA_12, (at)->path, __VA_ARGS__)

/* ==== errors ==== */

void data_h5_quiet_begin(data_h5_quiet_t *quiet)
{
    if (H5Eget_auto2(H5E_DEFAULT, &quiet->report, &quiet->arg) < 0)
        *quiet = (data_h5_quiet_t){NULL, NULL};
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void data_h5_quiet_end(const data_h5_quiet_t *quiet)
{
    (void)H5Eset_auto2(H5E_DEFAULT, quiet->report, quiet->arg);
}

static herr_t take_first(unsigned n, const H5E_error2_t *error, void *arg)
{
    if (n == 0 && error->desc != NULL) (void)snprintf(arg, DATA_H5_REASON_BYTES, "%s", error->desc);
    return 0;
}

const char *data_h5_reason(char text[DATA_H5_REASON_BYTES])
{
    (void)snprintf(text, DATA_H5_REASON_BYTES, "no reason given");
    (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, text);
    return text;
}

/* ==== attributes ==== */

bool data_h5_has(const data_h5_place_t *at, const char *name)
{
    return H5Aexists(at->file, name) > 0;
}

/* The attribute, opened, and its type; it has to hold one value of that class. */
static bool open_attribute(data_h5_place_t *at, const char *name, H5T_class_t class,
                           const char *word, hid_t *attribute, hid_t *type)
{
    char reason[DATA_H5_REASON_BYTES];
    hssize_t values;
    hid_t space;

    if (!data_h5_has(at, name)) {
        FAULT(at, "attribute \"%s\" is missing", name);
        return false;
    }
    *attribute = H5Aopen(at->file, name, H5P_DEFAULT);
    if (*attribute < 0) {
        FAULT(at, "attribute \"%s\" cannot be read: %s", name, data_h5_reason(reason));
        return false;
    }
    *type = H5Aget_type(*attribute);
    space = H5Aget_space(*attribute);
    values = space < 0 ? 0 : H5Sget_simple_extent_npoints(space);
    if (space >= 0) (void)H5Sclose(space);
    if (*type >= 0 && H5Tget_class(*type) == class && values == 1) return true;
    FAULT(at, "attribute \"%s\" is not one %s", name, word);
    if (*type >= 0) (void)H5Tclose(*type);
    (void)H5Aclose(*attribute);
    return false;
}

/* Variable length: the library allocates, and its text is copied. NULL: reported. */
static char *read_variable(data_h5_place_t *at, const char *name, hid_t attribute, hid_t type)
{
    const hid_t space = H5Screate(H5S_SCALAR);
    char reason[DATA_H5_REASON_BYTES], *found = NULL, *text = NULL;

    if (space < 0 || H5Aread(attribute, type, &found) < 0)
        FAULT(at, "attribute \"%s\" cannot be read: %s", name, data_h5_reason(reason));
    else {
        text = base_strdup(at->ctx, found != NULL ? found : "", name);
        at->no_memory |= text == NULL;
        (void)H5Dvlen_reclaim(type, space, H5P_DEFAULT, &found);
    }
    if (space >= 0) (void)H5Sclose(space);
    return text;
}

static char *read_fixed(data_h5_place_t *at, const char *name, hid_t attribute, hid_t type)
{
    const size_t bytes = H5Tget_size(type);
    const hid_t memory = H5Tcopy(type); /* with the character set of the file */
    char reason[DATA_H5_REASON_BYTES], *text = NULL;

    if (memory < 0 || bytes > MAX_TEXT || H5Tset_size(memory, bytes + 1) < 0 ||
        H5Tset_strpad(memory, H5T_STR_NULLTERM) < 0) {
        FAULT(at, "attribute \"%s\" is a text of %zu bytes, at most %d", name, bytes, MAX_TEXT);
    } else {
        text = base_calloc(at->ctx, 1, bytes + 1, name);
        at->no_memory |= text == NULL;
        if (text != NULL && H5Aread(attribute, memory, text) < 0) {
            FAULT(at, "attribute \"%s\" cannot be read: %s", name, data_h5_reason(reason));
            base_free(at->ctx, text);
            text = NULL;
        }
    }
    if (memory >= 0) (void)H5Tclose(memory);
    return text;
}

bool data_h5_text(data_h5_place_t *at, const char *name, char **text)
{
    hid_t attribute, type;
    char *found;

    if (!open_attribute(at, name, H5T_STRING, "text", &attribute, &type)) return false;
    found = H5Tis_variable_str(type) > 0 ? read_variable(at, name, attribute, type)
                                         : read_fixed(at, name, attribute, type);
    (void)H5Tclose(type);
    (void)H5Aclose(attribute);
    if (found == NULL) return false;
    *text = found;
    return true;
}

bool data_h5_number(data_h5_place_t *at, const char *name, int64_t *value)
{
    hid_t attribute, type;
    char reason[DATA_H5_REASON_BYTES];
    int64_t found = 0;
    herr_t st;

    if (!open_attribute(at, name, H5T_INTEGER, "whole number", &attribute, &type)) return false;
    st = H5Aread(attribute, H5T_NATIVE_INT64, &found);
    if (st < 0)
        FAULT(at, "attribute \"%s\" cannot be read: %s", name, data_h5_reason(reason));
    else
        *value = found;
    (void)H5Tclose(type);
    (void)H5Aclose(attribute);
    return st >= 0;
}

/* ==== arrays ==== */

static bool check_array(data_h5_place_t *at, const char *name, hid_t type, const char *word,
                        data_h5_array_t *array)
{
    const hid_t stored = H5Dget_type(array->id), space = H5Dget_space(array->id);
    const int rank = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    hsize_t count = 0;
    bool good = false;

    if (stored < 0 || H5Tequal(stored, type) <= 0)
        FAULT(at, "dataset \"%s\" is not stored as %s", name, word);
    else if (rank != 1 || H5Sget_simple_extent_dims(space, &count, NULL) != 1)
        FAULT(at, "dataset \"%s\" has %d dimensions, wanted 1", name, rank);
    else if (count > INT64_MAX / 8)
        FAULT(at, "dataset \"%s\" has %" PRIu64 " elements", name, (uint64_t)count);
    else
        good = true;
    if (stored >= 0) (void)H5Tclose(stored);
    if (space >= 0) (void)H5Sclose(space);
    array->count = (int64_t)count;
    return good;
}

bool data_h5_array_open(data_h5_place_t *at, const char *name, hid_t type, const char *word,
                        data_h5_array_t *array)
{
    char reason[DATA_H5_REASON_BYTES];
    haddr_t offset;

    array->id = -1;
    if (H5Lexists(at->file, name, H5P_DEFAULT) <= 0) {
        FAULT(at, "dataset \"%s\" is missing", name);
        return false;
    }
    array->id = H5Dopen2(at->file, name, H5P_DEFAULT);
    if (array->id < 0) {
        FAULT(at, "dataset \"%s\" cannot be opened: %s", name, data_h5_reason(reason));
        return false;
    }
    if (!check_array(at, name, type, word, array)) {
        data_h5_array_close(array);
        return false;
    }
    /* Undefined for chunks, for compact and external storage, and for an empty dataset. */
    offset = H5Dget_offset(array->id);
    array->offset = offset == HADDR_UNDEF ? -1 : (int64_t)offset;
    return true;
}

void data_h5_array_close(data_h5_array_t *array)
{
    if (array->id >= 0) (void)H5Dclose(array->id);
    array->id = -1;
}

bool data_h5_array_read(const data_h5_array_t *array, hid_t type, int64_t from, int64_t count,
                        void *to, char reason[DATA_H5_REASON_BYTES])
{
    const hsize_t start = (hsize_t)from, length = (hsize_t)count;
    const hid_t file_space = H5Dget_space(array->id);
    const hid_t memory_space = H5Screate_simple(1, &length, NULL);
    const bool good =
        file_space >= 0 && memory_space >= 0 &&
        H5Sselect_hyperslab(file_space, H5S_SELECT_SET, &start, NULL, &length, NULL) >= 0 &&
        H5Dread(array->id, type, memory_space, file_space, H5P_DEFAULT, to) >= 0;

    if (!good) data_h5_reason(reason);
    if (memory_space >= 0) (void)H5Sclose(memory_space);
    if (file_space >= 0) (void)H5Sclose(file_space);
    return good;
}

/* ==== writing ==== */

static bool put_attribute(hid_t file, const char *name, hid_t stored, hid_t memory,
                          const void *value, char reason[DATA_H5_REASON_BYTES])
{
    const hid_t space = H5Screate(H5S_SCALAR);
    const hid_t attribute =
        space < 0 ? -1 : H5Acreate2(file, name, stored, space, H5P_DEFAULT, H5P_DEFAULT);
    const bool good = attribute >= 0 && H5Awrite(attribute, memory, value) >= 0;

    if (!good) data_h5_reason(reason);
    if (attribute >= 0) (void)H5Aclose(attribute);
    if (space >= 0) (void)H5Sclose(space);
    return good;
}

bool data_h5_put_text(hid_t file, const char *name, const char *text,
                      char reason[DATA_H5_REASON_BYTES])
{
    const hid_t type = H5Tcopy(H5T_C_S1);
    bool good = false;

    if (type < 0 || H5Tset_size(type, strlen(text) + 1) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)
        data_h5_reason(reason);
    else
        good = put_attribute(file, name, type, type, text, reason);
    if (type >= 0) (void)H5Tclose(type);
    return good;
}

bool data_h5_put_number(hid_t file, const char *name, int64_t value,
                        char reason[DATA_H5_REASON_BYTES])
{
    return put_attribute(file, name, H5T_STD_I64LE, H5T_NATIVE_INT64, &value, reason);
}

bool data_h5_put_array(hid_t file, const char *name, hid_t type, int64_t count, const void *data,
                       char reason[DATA_H5_REASON_BYTES])
{
    const hsize_t length = (hsize_t)count;
    const hid_t space = H5Screate_simple(1, &length, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    hid_t dataset = -1;
    bool good;

    /* No time of writing: the same content gives the same file. */
    if (space >= 0 && list >= 0 && H5Pset_layout(list, H5D_CONTIGUOUS) >= 0 &&
        H5Pset_obj_track_times(list, 0) >= 0)
        dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    good = dataset >= 0 && H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
    if (!good) data_h5_reason(reason);
    if (dataset >= 0) (void)H5Dclose(dataset);
    if (list >= 0) (void)H5Pclose(list);
    if (space >= 0) (void)H5Sclose(space);
    return good;
}

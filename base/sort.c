#include "base/sort.h"

#include <string.h>

typedef struct heap {
    unsigned char *elements;
    size_t elem_bytes;
    base_compare_fn compare;
    const void *arg;
} heap_t;

static void *element(const heap_t *h, int64_t i)
{
    return h->elements + (size_t)i * h->elem_bytes;
}

static void swap(const heap_t *h, int64_t i, int64_t j)
{
    unsigned char *a = element(h, i);
    unsigned char *b = element(h, j);
    unsigned char t[64];
    size_t left = h->elem_bytes;

    while (left > 0) {
        const size_t n = left < sizeof t ? left : sizeof t;

        memcpy(t, a, n);
        memcpy(a, b, n);
        memcpy(b, t, n);
        a += n;
        b += n;
        left -= n;
    }
}

/* Restores the heap (largest on top) of `count` elements when only element i may be too small. */
static void sift_down(const heap_t *h, int64_t i, int64_t count)
{
    for (;;) {
        int64_t largest = i;

        for (int64_t child = 2 * i + 1; child <= 2 * i + 2 && child < count; child++) {
            if (h->compare(element(h, child), element(h, largest), h->arg) > 0) largest = child;
        }
        if (largest == i) return;
        swap(h, i, largest);
        i = largest;
    }
}

void base_sort(void *elements, int64_t count, size_t elem_bytes, base_compare_fn compare,
               const void *arg)
{
    const heap_t h = {
        .elements = elements, .elem_bytes = elem_bytes, .compare = compare, .arg = arg};

    for (int64_t i = count / 2 - 1; i >= 0; i--)
        sift_down(&h, i, count);
    for (int64_t last = count - 1; last > 0; last--) {
        swap(&h, 0, last);
        sift_down(&h, 0, last);
    }
}

/* Time. Durations, deadlines and traces use the monotonic clock; the wall clock is for people and
 * files only. */
#ifndef CADRE_BASE_CLOCK_H
#define CADRE_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Nanoseconds of the host's monotonic clock: the same for all processes of a host, unrelated
 * between hosts. */
int64_t base_clock_ns(void);

/* Nanoseconds since 1970-01-01 00:00 UTC. May jump. */
int64_t base_clock_wall_ns(void);

/* Sleeps at least `ns`, signals notwithstanding. Nothing for ns <= 0. */
void base_clock_sleep_ns(int64_t ns);

#define BASE_CLOCK_TEXT_BYTES 32

/* Writes "2026-01-31T08:24:01.123Z" for a wall time; always terminated. */
void base_clock_format(int64_t wall_ns, char text[BASE_CLOCK_TEXT_BYTES]);

#ifdef __cplusplus
}
#endif
#endif

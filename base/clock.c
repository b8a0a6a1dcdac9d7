#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define NS_PER_S  INT64_C(1000000000)
#define NS_PER_MS INT64_C(1000000)

static int64_t read_clock(clockid_t id)
{
    struct timespec ts = {0};

    /* Cannot fail: both clocks exist on every Linux and ts is ours. */
    (void)clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * NS_PER_S + (int64_t)ts.tv_nsec;
}

int64_t base_clock_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t base_clock_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

void base_clock_sleep_ns(int64_t ns)
{
    struct timespec until;
    int64_t end;

    if (ns <= 0) return;
    /* An absolute end, so that signals do not lengthen the sleep. */
    end = base_clock_ns();
    end = ns > INT64_MAX - end ? INT64_MAX : end + ns;
    until.tv_sec = (time_t)(end / NS_PER_S);
    until.tv_nsec = (long)(end % NS_PER_S);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        continue;
}

void base_clock_format(int64_t wall_ns, char text[BASE_CLOCK_TEXT_BYTES])
{
    int64_t seconds = wall_ns / NS_PER_S;
    int64_t rest = wall_ns % NS_PER_S;
    struct tm tm;
    time_t t;
    size_t n;

    if (rest < 0) { /* before 1970 */
        rest += NS_PER_S;
        seconds--;
    }
    memset(&tm, 0, sizeof tm);
    t = (time_t)seconds;
    (void)gmtime_r(&t, &tm);
    n = strftime(text, BASE_CLOCK_TEXT_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(text + n, BASE_CLOCK_TEXT_BYTES - n, ".%03dZ", (int)(rest / NS_PER_MS));
}

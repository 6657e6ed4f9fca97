#include "core/base/clock.h"

#include <stdio.h>
#include <time.h>

int64_t dr_clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t dr_clock_wall_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void dr_clock_rfc3339(int64_t wall_ms, char ret[DR_RFC3339]) {
    int64_t s = wall_ms / 1000, ms = wall_ms % 1000;
    if (ms < 0) ms += 1000, s--;
    time_t t = (time_t)s;
    struct tm tm = {0};
    gmtime_r(&t, &tm);
    unsigned year = (unsigned)(tm.tm_year + 1900) % 10000u;
    snprintf(ret, DR_RFC3339, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", year, (unsigned)(tm.tm_mon + 1) % 100u,
             (unsigned)tm.tm_mday % 100u, (unsigned)tm.tm_hour % 100u, (unsigned)tm.tm_min % 100u,
             (unsigned)tm.tm_sec % 100u, (unsigned)ms % 1000u);
}

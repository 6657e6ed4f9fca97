#include "core/base/log.h"
#include "core/base/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static _Atomic int min_level = DR_LOG_INFO;
static atomic_bool as_json;
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static const char *const level_name[] = {"debug", "info", "warn", "error", "off"};

void dr_log_setup(dr_log_level min, bool json) {
    atomic_store(&min_level, (int)min);
    atomic_store(&as_json, json);
}

bool dr_log_level_parse(const char *s, dr_log_level *ret) {
    for (int i = 0; i <= DR_LOG_OFF; i++)
        if (!strcasecmp(s, level_name[i])) return *ret = (dr_log_level)i, true;
    return false;
}

/* Control characters would let a request forge log lines or escape codes. JSON also needs quotes and backslashes. */
static size_t escape(char *out, size_t cap, const char *in, bool json) {
    size_t n = 0;
    for (; *in && n + 7 < cap; in++) {
        unsigned char c = (unsigned char)*in;
        if (c < 0x20 || c == 0x7f)
            n += (size_t)snprintf(out + n, cap - n, json ? "\\u%04x" : "\\x%02x", c);
        else if (json && (c == '"' || c == '\\'))
            out[n++] = '\\', out[n++] = (char)c;
        else
            out[n++] = (char)c;
    }
    out[n] = 0;
    return n;
}

void dr_log(dr_log_level level, const char *request_id, const char *fmt, ...) {
    if ((int)level < atomic_load_explicit(&min_level, memory_order_relaxed) || level >= DR_LOG_OFF) return;
    char text[1024], clean[2048], line[2304], when[DR_RFC3339];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    bool json = atomic_load(&as_json);
    escape(clean, sizeof clean, text, json);
    dr_clock_rfc3339(dr_clock_wall_ms(), when);
    int n;
    if (json)
        n = snprintf(line, sizeof line,
                     "{\"level\":\"%s\",\"time\":\"%s\",\"request_id\":\"%.64s\",\"message\":\"%s\"}\n",
                     level_name[level], when, request_id ? request_id : "", clean);
    else
        n = snprintf(line, sizeof line, "%-5s %s %.64s%s%s\n", level_name[level], when, request_id ? request_id : "",
                     request_id ? " " : "", clean);
    if (n < 0) return;
    size_t len = (size_t)n < sizeof line ? (size_t)n : sizeof line - 1;
    pthread_mutex_lock(&mu);
    ssize_t w = write(STDERR_FILENO, line, len);
    (void)w; /* nowhere left to report it */
    pthread_mutex_unlock(&mu);
}

/* limits.c - defaults of dr_limits, among them how much memory this process may have. */
#include "core/base/parse.h"
#include "core/derain.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* First line of a small file, without its end; "" where it cannot be read. */
static void read_line(const char *path, char *ret, size_t cap) {
    ret[0] = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    const ssize_t n = read(fd, ret, cap - 1);
    close(fd);
    ret[n > 0 ? n : 0] = 0;
    ret[strcspn(ret, "\n")] = 0;
}

static uint64_t min_with_file(uint64_t now, const char *path) {
    char text[64];
    uint64_t v;
    read_line(path, text, sizeof text);
    return dr_parse_u64(text, 1, UINT64_MAX, &v) && v < now ? v : now;
}

/* The smallest limit of our own cgroup (version 2) and those above it; in a container its root is /sys/fs/cgroup. */
static uint64_t cgroup_limit(uint64_t now) {
    char line[512] = "", path[600];
    read_line("/proc/self/cgroup", line, sizeof line);
    if (!strncmp(line, "0::/", 4)) {
        for (char *group = line + 3; group[0];) {
            snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
            now = min_with_file(now, path);
            *strrchr(group, '/') = 0;
        }
    }
    now = min_with_file(now, "/sys/fs/cgroup/memory.max");
    return min_with_file(now, "/sys/fs/cgroup/memory/memory.limit_in_bytes");
}

static uint64_t usable_memory;

static void find_usable_memory(void) {
    const long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
    const uint64_t ram = pages > 0 && bytes > 0 ? (uint64_t)pages * (uint64_t)bytes : (uint64_t)4 << 30;
    usable_memory = cgroup_limit(ram);
}

void dr_limits_fill(dr_limits *lim) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (lim->body_max_bytes == 0) lim->body_max_bytes = (uint64_t)256 << 20;
    if (lim->side_min == 0) lim->side_min = 16;
    if (lim->side_max == 0) lim->side_max = 32768;
    if (lim->pixels_max == 0) lim->pixels_max = 100000000;
    if (lim->aspect_max == 0) lim->aspect_max = 200;
    if (lim->ratio_max == 0) lim->ratio_max = 2000;
    if (lim->mem_budget == 0) {
        pthread_once(&once, find_usable_memory);
        lim->mem_budget = usable_memory / 2;
    }
}

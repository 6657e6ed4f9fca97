/* ulid.c - ULIDs that grow strictly within this process: same millisecond (or a clock that went back) = last value + 1.
 */
#include "db/ulid.h"
#include "core/base/clock.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static uint64_t last_ms;
static uint8_t last_rand[10];

static void random_bytes(uint8_t *p, size_t n) {
    for (size_t got = 0; got < n;) {
        ssize_t r = getrandom(p + got, n - got, 0);
        if (r > 0) got += (size_t)r;
        /* EINTR only: up to 256 bytes cannot fail otherwise once the pool is ready */
    }
}

void db_id_new(const char *prefix, char ret[DB_ID]) {
    uint8_t b[16];
    uint64_t now = (uint64_t)dr_clock_wall_ms();
    pthread_mutex_lock(&mu);
    if (now > last_ms) {
        last_ms = now;
        random_bytes(last_rand, sizeof last_rand);
        last_rand[0] &= 0x7f; /* room to count up */
    } else {
        for (int i = 9; i >= 0 && ++last_rand[i] == 0; i--) {
        }
    }
    for (int i = 0; i < 6; i++) b[i] = (uint8_t)(last_ms >> (40 - 8 * i));
    memcpy(b + 6, last_rand, 10);
    pthread_mutex_unlock(&mu);

    size_t n = strlen(prefix);
    assert(n <= 5);
    memcpy(ret, prefix, n);
    /* 128 bits as 26 digits of 5 bits: two zero bits lead */
    for (int i = 0; i < 26; i++) {
        int v = 0;
        for (int k = 0; k < 5; k++) {
            int bit = i * 5 + k - 2;
            v = v << 1 | (bit < 0 ? 0 : b[bit / 8] >> (7 - bit % 8) & 1);
        }
        ret[n++] = alphabet[v];
    }
    ret[n] = 0;
}

bool db_id_valid(const char *prefix, const char *id) {
    size_t n = strlen(prefix);
    if (!id || strncmp(id, prefix, n) != 0 || strlen(id + n) != 26 || id[n] > '7') return false;
    for (const char *p = id + n; *p; p++)
        if (!strchr(alphabet, *p)) return false;
    return true;
}

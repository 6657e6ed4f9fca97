/* kt.h - helpers of the kernel tests: device memory from and to vectors of double, rounded to the type stored.
 *
 * Only the runtime's functions and kern.h, so that a test runs on tests/cusim and on a device alike. Memory is of the
 * exact size and poisoned with 0xFF, which is NaN in all types: what a kernel leaves out does not compare. */
#ifndef KT_H
#define KT_H

#include "cuda/kern.h"
#include "tests/cuda/half.h"
#include "tests/t.h"
#include <vector>

typedef std::vector<double> vec;

static inline double kt_round(dk_type t, double v) {
    float f = (float)v;
    if (t == DK_F32) return (double)f;
    if (t == DK_F16) return f16_round((double)f);
    uint32_t u;
    memcpy(&u, &f, 4);
    u = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u;
    memcpy(&f, &u, 4);
    return (double)f;
}

/* Uniform in [lo, hi), rounded to the type; the same on every run. */
static inline vec kt_random(dk_type t, size_t n, unsigned seed, double lo = -2, double hi = 2) {
    uint64_t s = 0x9e3779b97f4a7c15ull * (seed + 1);
    vec v(n);
    for (double &x : v) {
        s = s * 6364136223846793005ull + 1442695040888963407ull;
        x = kt_round(t, lo + (hi - lo) * (double)(s >> 40) / 16777216.0);
    }
    return v;
}

struct kt_mem {
    void *p = NULL;
    size_t bytes = 0;
    explicit kt_mem(size_t n) : bytes(n ? n : 1) {
        if (cudaMalloc(&p, bytes) != cudaSuccess || cudaMemset(p, 0xff, bytes) != cudaSuccess) {
            printf("# no device memory: %zu bytes\n", bytes);
            exit(1);
        }
    }
    kt_mem(const kt_mem &) = delete;
    ~kt_mem() { cudaFree(p); }
    float *f() { return (float *)p; }
};

static inline void put16(void *to, uint16_t v) {
    memcpy(to, &v, 2);
}

/* n elements of a type, from v if given. */
struct kt_buf : kt_mem {
    dk_type t;
    size_t n;
    kt_buf(dk_type type, size_t count) : kt_mem(count * dk_elt(type)), t(type), n(count) {}
    kt_buf(dk_type type, const vec &v) : kt_buf(type, v.size()) {
        std::vector<unsigned char> raw(bytes);
        for (size_t i = 0; i < n; i++) {
            float f = (float)kt_round(t, v[i]);
            if (t == DK_F32)
                memcpy(&raw[i * 4], &f, 4);
            else if (t == DK_BF16)
                memcpy(&raw[i * 2], (const char *)&f + 2, 2);
            else
                put16(&raw[i * 2], f16_bits((double)f));
        }
        cudaMemcpy(p, raw.data(), bytes, cudaMemcpyHostToDevice);
    }
    vec get() {
        std::vector<unsigned char> raw(bytes);
        vec v(n, (double)NAN);
        cudaDeviceSynchronize();
        if (cudaGetLastError() != cudaSuccess || cudaMemcpy(raw.data(), p, bytes, cudaMemcpyDeviceToHost)) return v;
        for (size_t i = 0; i < n; i++) {
            float f = 0;
            uint16_t h = 0;
            if (t == DK_F32)
                memcpy(&f, &raw[i * 4], 4);
            else if (t == DK_BF16)
                memcpy((char *)&f + 2, &raw[i * 2], 2);
            else
                memcpy(&h, &raw[i * 2], 2);
            v[i] = t == DK_F16 ? f16_value(h) : (double)f;
        }
        return v;
    }
};

/* Rounding of one result of a type, relative. */
static inline double kt_ulp(dk_type t) {
    return t == DK_BF16 ? 1.0 / 250 : t == DK_F16 ? 1.0 / 2000 : 1e-6;
}

/* Half a step below 2^-14, where f16 is no longer relative. */
static inline double kt_tiny(dk_type t) {
    return t == DK_F16 ? 3e-8 : 0;
}

/* The first element further off than rel*|want| + abs, or -1; NaN is off. */
static inline long kt_differs(const vec &got, const vec &want, double rel, double abs) {
    if (got.size() != want.size()) return 0;
    for (size_t i = 0; i < got.size(); i++)
        if (!(fabs(got[i] - want[i]) <= rel * fabs(want[i]) + abs)) return (long)i;
    return -1;
}
#define CHECK_VEC(got_, want_, rel, abs)                                                                               \
    do {                                                                                                               \
        vec a_ = (got_), b_ = (want_);                                                                                 \
        long at_ = kt_differs(a_, b_, rel, abs);                                                                       \
        CHECK_MSG(at_ < 0, "%s, element %ld of %zu: %.9g, expected %.9g", #got_, at_, b_.size(), a_[(size_t)at_],      \
                  b_[(size_t)at_]);                                                                                    \
    } while (0)

static const dk_type kt_types[] = {DK_F32, DK_BF16, DK_F16};

/* A map and where its element (n,c,p) lies, p = y*w+x. */
static inline dk_map kt_map(int n, int c, int h, int w, bool wide, dk_type t) {
    dk_map m = {n, c, h, w, wide, wide ? t : DK_F32};
    return m;
}
static inline size_t kt_at(dk_map m, int n, int c, int p) {
    size_t hw = (size_t)m.h * (size_t)m.w;
    return m.wide ? ((size_t)n * hw + (size_t)p) * (size_t)m.c + (size_t)c
                  : ((size_t)n * (size_t)m.c + (size_t)c) * hw + (size_t)p;
}
#define FOR_NCP(m)                                                                                                     \
    for (int n = 0; n < (m).n; n++)                                                                                    \
        for (int c = 0; c < (m).c; c++)                                                                                \
            for (int p = 0; p < (m).h * (m).w; p++)

#endif

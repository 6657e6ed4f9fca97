/* cusim.cpp - the fibers and their scheduler; the rules are told in cusim.h.
 *
 * One launch runs at a time (a lock), one block after the other. A fiber gives the CPU back at a barrier, at a warp
 * operation that other lanes have yet to reach, and at its end. When nothing can run any more, either all live threads
 * are at one barrier, which then opens, or the kernel is wrong. */
#include "cusim.h"
#include <map>
#include <mutex>
#include <numeric>
#include <stdarg.h>
#include <sys/mman.h>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define ASAN 1
#else
#define ASAN 0
#endif
#if !defined(__x86_64__) && !defined(CUSIM_UCONTEXT)
#define CUSIM_UCONTEXT
#endif
#ifdef CUSIM_UCONTEXT
#include <ucontext.h>
#endif
#undef threadIdx
#undef blockIdx

extern "C" char __start_cusim_shared[] __attribute__((weak));
extern "C" char __stop_cusim_shared[] __attribute__((weak));

namespace cusim {

enum { STACK = ASAN ? 128 << 10 : 64 << 10, GUARD = 4096, MAX_THREADS = 1024, MAX_DYN = 48 << 10 };
enum state { NEW, READY, AT_BARRIER, IN_WARP, DONE };

/* Lanes of one mask that meet at a warp operation. */
struct meeting {
    op what;
    int line;
    unsigned mask, arrived, left, odd;
    uint64_t slot[32];
};
struct warp {
    std::vector<meeting *> open;
    unsigned done;
};
struct fiber {
    self s; /* first: `me` points here */
    state st;
    int index, line;
    meeting *waits;
    char *stack;
    void *sp, *fake;
#ifdef CUSIM_UCONTEXT
    ucontext_t uc;
#endif
};

self *me;
static fiber *fibers; /* MAX_THREADS, made once, with their stacks */
static warp warps[MAX_THREADS / 32];
static std::map<const void *, std::pair<char *, size_t>> arrays; /* DR_SHARED of this block */
static const std::function<void()> *body;
static const char *kernel_name = "?";
static int n_threads, n_live;
#if ASAN
static void *host_fake;
static const void *host_stack;
static size_t host_stack_size;
#endif
#ifdef CUSIM_UCONTEXT
static ucontext_t host_uc;
#else
static void *host_sp;
#endif
static uint64_t seed = 88172645463325252ull;

void die(const char *fmt, ...) {
    va_list a;
    va_start(a, fmt);
    uint3 b = me ? me->bid : uint3{0, 0, 0};
    fprintf(stderr, "cusim: kernel %s block (%u,%u,%u): ", kernel_name, b.x, b.y, b.z);
    vfprintf(stderr, fmt, a);
    fputc('\n', stderr);
    va_end(a);
    abort();
}

static unsigned rnd(unsigned below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed % below);
}

/* ---- fibers --------------------------------------------------------------------------------------------------------
 */

#ifndef CUSIM_UCONTEXT
extern "C" void cusim_switch(void **from, void *to);
asm(".text\n.globl cusim_switch\n.type cusim_switch,@function\ncusim_switch:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp,(%rdi)\n mov %rsi,%rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n"
    ".size cusim_switch,.-cusim_switch\n");
#endif

static fiber *cur() {
    return (fiber *)(void *)me;
}

static void to_host(fiber *f, bool last) {
#if ASAN
    __sanitizer_start_switch_fiber(last ? nullptr : &f->fake, host_stack, host_stack_size);
#else
    (void)last;
#endif
#ifdef CUSIM_UCONTEXT
    swapcontext(&f->uc, &host_uc);
#else
    cusim_switch(&f->sp, host_sp);
#endif
#if ASAN
    __sanitizer_finish_switch_fiber(f->fake, nullptr, nullptr);
#endif
}

static void entry() {
#if ASAN
    __sanitizer_finish_switch_fiber(nullptr, &host_stack, &host_stack_size);
#endif
    (*body)();
    fiber *f = cur();
    warp &w = warps[f->index / 32];
    unsigned bit = 1u << f->s.lane;
    for (meeting *m : w.open)
        if (m->arrived != m->mask && (m->mask & bit))
            die("lane %d exited while its warp waits for it (line %d, mask %08x)", f->s.lane, m->line, m->mask);
    w.done |= bit;
    f->st = DONE;
    n_live--;
    to_host(f, true);
}

static void resume(fiber *f) {
    if (f->st == NEW) {
#if ASAN
        __asan_unpoison_memory_region(f->stack, STACK);
#endif
        f->fake = nullptr;
#ifdef CUSIM_UCONTEXT
        getcontext(&f->uc);
        f->uc.uc_stack.ss_sp = f->stack;
        f->uc.uc_stack.ss_size = STACK;
        f->uc.uc_link = nullptr;
        makecontext(&f->uc, entry, 0);
#else
        void **sp = (void **)(void *)(f->stack + STACK - 64);
        *--sp = nullptr; /* no return from entry: keeps the stack aligned as after a call */
        *--sp = (void *)entry;
        for (int i = 0; i < 6; i++) *--sp = nullptr;
        f->sp = sp;
#endif
    }
    f->st = READY;
    me = &f->s;
#if ASAN
    __sanitizer_start_switch_fiber(&host_fake, f->stack, STACK);
#endif
#ifdef CUSIM_UCONTEXT
    swapcontext(&host_uc, &f->uc);
#else
    cusim_switch(&host_sp, f->sp);
#endif
#if ASAN
    __sanitizer_finish_switch_fiber(host_fake, nullptr, nullptr);
#endif
}

/* ---- what kernels call ---------------------------------------------------------------------------------------------
 */

void sync_block(int line) {
    fiber *f = cur();
    f->st = AT_BARRIER;
    f->line = line;
    to_host(f, false);
}

uint64_t meet(op what, unsigned mask, uint64_t v, int src, int line, unsigned *ballot) {
    fiber *f = cur();
    warp &w = warps[f->index / 32];
    int base = f->index & ~31, lane = f->s.lane;
    unsigned bit = 1u << lane, there = n_threads - base >= 32 ? ~0u : (1u << (n_threads - base)) - 1;
    if (what == OP_SYNC) mask &= there; /* __syncwarp() of a warp that is not full */
    if (!(mask & bit)) die("line %d: lane %d is not in its own mask %08x", line, lane, mask);
    if (mask & ~there) die("line %d: mask %08x names lanes beyond the block", line, mask);
    if (mask & w.done) die("line %d: mask %08x names lanes %08x, which have exited", line, mask, mask & w.done);
    if (!(mask >> src & 1)) die("line %d: lane %d reads lane %d outside the mask %08x", line, lane, src, mask);

    meeting *m = nullptr;
    for (meeting *o : w.open) {
        if (o->arrived == o->mask || !(o->mask & bit)) continue;
        if (o->mask != mask) die("line %d: mask %08x, but line %d waits with %08x", line, mask, o->line, o->mask);
        if (o->what != what || o->line != line) die("lanes of a warp meet at lines %d and %d", line, o->line);
        m = o;
    }
    if (!m) {
        m = new meeting{what, line, mask, 0, 0, 0, {}};
        w.open.push_back(m);
    }
    m->slot[lane] = v;
    m->arrived |= bit;
    if (v & 1) m->odd |= bit;
    f->line = line;
    f->waits = m;
    while (m->arrived != m->mask) {
        f->st = IN_WARP;
        to_host(f, false);
    }
    f->waits = nullptr;
    uint64_t r = m->slot[src];
    if (ballot) *ballot = m->odd;
    m->left |= bit;
    if (m->left == m->mask) {
        for (size_t i = 0; i < w.open.size(); i++)
            if (w.open[i] == m) w.open.erase(w.open.begin() + (long)i);
        delete m;
    }
    return r;
}

void *block_shared(const void *key, size_t bytes) {
    auto it = arrays.find(key);
    if (it == arrays.end()) {
        void *p;
        if (posix_memalign(&p, 128, bytes)) die("no memory");
        memset(p, 0xff, bytes);
        it = arrays.emplace(key, std::make_pair((char *)p, bytes)).first;
        size_t sum = 0;
        for (auto &a : arrays) sum += a.second.second;
        if (sum > MAX_DYN) die("%zu bytes of shared memory", sum);
    }
    return it->second.first;
}

/* ---- the scheduler -------------------------------------------------------------------------------------------------
 */

enum order { FWD, REV, RAND };

static void run_warp(int w, order ord) {
    unsigned rot = ord == RAND ? rnd(32) : 0;
    for (bool again = true; again;) {
        again = false;
        for (unsigned l = 0; l < 32; l++) {
            unsigned lane = ord == REV ? 31 - l : ord == RAND ? (l * 13 + rot) & 31 : l;
            int i = w * 32 + (int)lane;
            if (i >= n_threads) continue;
            fiber *f = &fibers[i];
            bool can = f->st == NEW || f->st == READY || (f->st == IN_WARP && f->waits->arrived == f->waits->mask);
            if (!can) continue;
            resume(f);
            again = true;
        }
    }
}

/* All that can run has run: open the barrier, or say what is wrong. */
static void open_barrier() {
    int line = 0, first = -1, at = 0;
    fiber *stuck = nullptr;
    for (int i = 0; i < n_threads; i++) {
        fiber *f = &fibers[i];
        if (f->st == IN_WARP) stuck = f;
        if (f->st != AT_BARRIER) continue;
        at++;
        if (first >= 0 && f->line != line)
            die("__syncthreads divergence: thread %d at line %d, thread %d at line %d", first, line, i, f->line);
        first = i;
        line = f->line;
    }
    if (stuck)
        die("deadlock: %d of %d threads at the barrier, thread %d waits at line %d (mask %08x, arrived %08x)", at,
            n_live, stuck->index, stuck->line, stuck->waits->mask, stuck->waits->arrived);
    for (int i = 0; i < n_threads; i++)
        if (fibers[i].st == AT_BARRIER) fibers[i].st = READY;
}

static void run_block(uint3 bid, dim3 g, dim3 b, size_t shared, order ord) {
    void *dyn = nullptr;
    if (shared && posix_memalign(&dyn, 128, shared)) die("no memory");
    if (dyn) memset(dyn, 0xff, shared);
    if (__start_cusim_shared && !ASAN)
        memset(__start_cusim_shared, 0xff, (size_t)(__stop_cusim_shared - __start_cusim_shared));
    n_live = n_threads;
    for (int i = 0; i < n_threads; i++) {
        fiber *f = &fibers[i];
        unsigned u = (unsigned)i;
        f->s = self{{u % b.x, u / b.x % b.y, u / (b.x * b.y)}, bid, g, b, i & 31, (char *)dyn};
        f->st = NEW;
        f->index = i;
        f->waits = nullptr;
    }
    int nw = (n_threads + 31) / 32;
    for (int w = 0; w < nw; w++) warps[w].done = 0;
    std::vector<int> seq((size_t)nw);
    std::iota(seq.begin(), seq.end(), 0);
    while (n_live) {
        if (ord == RAND)
            for (size_t i = (size_t)nw - 1; i > 0; i--) std::swap(seq[i], seq[rnd((unsigned)i + 1)]);
        for (int i = 0; i < nw; i++) run_warp(ord == REV ? nw - 1 - i : seq[(size_t)i], ord);
        if (n_live) open_barrier();
    }
    me = nullptr;
    for (auto &a : arrays) free(a.second.first);
    arrays.clear();
    free(dyn);
}

static void make_fibers() {
    fibers = new fiber[MAX_THREADS]();
    for (int i = 0; i < MAX_THREADS; i++) {
        char *p = (char *)mmap(nullptr, STACK + GUARD, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED || mprotect(p, GUARD, PROT_NONE)) die("no memory for stacks");
        fibers[i].stack = p + GUARD;
    }
}

/* Called by runtime.cpp when the stream comes to it. */
void run(const char *name, dim3 g, dim3 b, size_t shared, const std::function<void()> &kernel) {
    static std::mutex lock;
    std::lock_guard<std::mutex> hold(lock);
    kernel_name = name;
    if ((uint64_t)b.x * b.y * b.z < 1 || (uint64_t)b.x * b.y * b.z > MAX_THREADS || b.z > 64)
        die("block of %u x %u x %u threads", b.x, b.y, b.z);
    if (!g.x || !g.y || !g.z || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535)
        die("grid of %u x %u x %u", g.x, g.y, g.z);
    if (shared > MAX_DYN) die("%zu bytes of dynamic shared memory", shared);
    if (!fibers) make_fibers();
    n_threads = (int)(b.x * b.y * b.z);
    body = &kernel;
    const char *o = getenv("CUSIM_ORDER");
    order ord = !o ? FWD : !strncmp(o, "rev", 3) ? REV : !strncmp(o, "rand", 4) ? RAND : FWD;
    static bool seeded;
    if (ord == RAND && !seeded) {
        const char *c = strchr(o, ':');
        seed += c ? strtoul(c + 1, nullptr, 10) * 0x9e3779b97f4a7c15ull : 0;
        seeded = true;
    }
    uint64_t n = (uint64_t)g.x * g.y * g.z, at = 0, step = 1;
    if (ord == REV) at = n - 1, step = n - 1; /* -1 modulo n */
    if (ord == RAND) {
        at = rnd((unsigned)(n > 0xffffffffu ? 0xffffffffu : n));
        for (step = 1 + rnd(0x7fffffffu) % n; std::gcd(step, n) != 1;) step++;
    }
    for (uint64_t i = 0; i < n; i++, at = (at + step) % n)
        run_block(uint3{(unsigned)(at % g.x), (unsigned)(at / g.x % g.y), (unsigned)(at / g.x / g.y)}, g, b, shared,
                  ord);
}

} // namespace cusim

/* loader.c - makes batch after batch into a ring of slots, in a thread of its own or when asked.
 *
 * Hand-over: the maker owns slot made % ring until it counts it as made; the reader owns it from then until it asks for
 * the next one. The lock guards the two counters and the stop flag and is held for nothing else. An error ends the
 * maker and is given to the reader in place of that batch, after the batches before it. */
#include "core/train/loader.h"
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/train/lattice.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE_RAINY = 1, SIDE_CLEAN, PASS_RAINY, PASS_BACKGROUND, SPLIT, SIDE_CLEAN_LATTICE, SIDE_BACKGROUND_LATTICE };
#define SHARE_ONE (UINT64_C(1) << 20) /* streaks_share in fixed point, so that counting samples is exact */

typedef struct slot {
    int64_t k;
    float *rainy, *clean;
    int *rainy_id, *clean_id;
} slot;

typedef struct shuffled { /* the permutation of the pass at hand over `n` indices */
    int *of, *order;      /* of: what is shuffled; order: of, permuted */
    int n;
    int64_t pass; /* -1 = none made yet */
    uint64_t tag;
} shuffled;

struct dr_loader {
    dr_loader_opts o;
    dr_dataset *rainy, *clean;
    dr_streaks *streaks;
    uint64_t share; /* of SHARE_ONE */
    shuffled real, backgrounds;
    int *clean_only, n_clean_only;
    bool *is_background; /* one a clean picture */

    slot *slots;
    int n_slots;
    pthread_t thread;
    bool has_thread, has_sync;
    pthread_mutex_t mu;
    pthread_cond_t can_make, can_take;
    int64_t made, taken; /* batches, counted from 0 for the first one */
    int64_t start;
    bool stop, failed, reading; /* reading: slot taken-1 is in the caller's hands */
    dr_status status;
    dr_error error;
    double waited;
};

void dr_loader_opts_init(dr_loader_opts *o) {
    *o = (dr_loader_opts){.crop = 256,
                          .batch = 1,
                          .squeeze_from = -1,
                          .scale_min = 1,
                          .streaks_share = 0.5,
                          .background_part = 0.5,
                          .ring = 3};
}

/* A stream number that no other (a, b, tag) has, but for collisions of 64-bit hashes. */
static uint64_t mix(uint64_t a, uint64_t b, uint64_t tag) {
    uint64_t h = a * UINT64_C(0x9e3779b97f4a7c15) + tag;
    for (int i = 0; i < 2; i++) {
        h ^= h >> 30;
        h *= UINT64_C(0xbf58476d1ce4e5b9);
        h ^= h >> 27;
        h *= UINT64_C(0x94d049bb133111eb);
        h ^= h >> 31;
        h += b;
    }
    return h ^ (h >> 29);
}

/* ---- which picture --------------------------------------------------------------------------------------------- */

/* The element at position `at` of an endless sequence of passes, each a fresh permutation. */
static int take(shuffled *s, uint64_t seed, int64_t at) {
    int64_t pass = at / s->n;
    if (pass != s->pass) {
        dr_rng r;
        dr_rng_seed(&r, seed, mix((uint64_t)pass, 0, s->tag));
        memcpy(s->order, s->of, sizeof *s->order * (size_t)s->n);
        for (int i = s->n - 1; i > 0; i--) {
            int j = (int)dr_rng_below(&r, (uint32_t)i + 1), t = s->order[i];
            s->order[i] = s->order[j];
            s->order[j] = t;
        }
        s->pass = pass;
    }
    return s->order[at % s->n];
}

typedef struct keyed {
    uint64_t key;
    int i;
} keyed;

static int by_key(const void *a, const void *b) {
    const keyed *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->i - y->i;
}

/* Exactly background_part of the clean pictures, at least one for each side. */
static dr_status split(dr_loader *l, dr_error *err) {
    int n = dr_dataset_count(l->clean), n_back = 0;
    if (l->share > 0) {
        if (n < 2) return dr_fail(err, DR_INVALID, "rendered rain needs at least 2 clean pictures, there is %d", n);
        n_back = (int)(l->o.background_part * n + 0.5);
        if (n_back < 1) n_back = 1;
        if (n_back > n - 1) n_back = n - 1;
    }
    keyed *k = dr_malloc(sizeof *k * (size_t)n);
    l->is_background = dr_calloc((size_t)n, sizeof *l->is_background);
    l->clean_only = dr_malloc(sizeof *l->clean_only * (size_t)n);
    l->backgrounds = (shuffled){.n = n_back, .pass = -1, .tag = PASS_BACKGROUND};
    l->backgrounds.of = dr_malloc(sizeof(int) * (size_t)n);
    l->backgrounds.order = dr_malloc(sizeof(int) * (size_t)n);
    if (!k || !l->is_background || !l->clean_only || !l->backgrounds.of || !l->backgrounds.order) {
        dr_free(k);
        return dr_fail(err, DR_NOMEM, "no memory for the order of %d clean pictures", n);
    }
    for (int i = 0; i < n; i++) k[i] = (keyed){mix(dr_dataset_key(l->clean, i), l->o.seed, SPLIT), i};
    qsort(k, (size_t)n, sizeof *k, by_key);
    for (int i = 0; i < n_back; i++) l->is_background[k[i].i] = true;
    dr_free(k);
    int n_bg = 0;
    for (int i = 0; i < n; i++)
        if (l->is_background[i])
            l->backgrounds.of[n_bg++] = i;
        else
            l->clean_only[l->n_clean_only++] = i;
    return DR_OK;
}

/* ---- making ---------------------------------------------------------------------------------------------------- */

static void to_signed(float *v, size_t n) {
    for (size_t i = 0; i < n; i++) v[i] = 2 * v[i] - 1;
}

static dr_status sample(dr_loader *l, dr_dataset *d, int i, int64_t k, dr_rng *rng, float *ret, dr_error *err) {
    dr_augment_opts a = {.mode = DR_CROP_NATIVE, .crop = l->o.crop, .flip_x = true, .scale_min = l->o.scale_min};
    if (l->o.released) {
        a.mode = l->o.squeeze_from >= 0 && k >= l->o.squeeze_from ? DR_CROP_SQUEEZED : DR_CROP_RELEASED;
    } else {
        a.flip_y = l->o.flip_y;
        a.turn = l->o.turn;
    }
    dr_pixels p;
    dr_status s = dr_dataset_get(d, i, &p, err);
    if (s) return s;
    dr_sample_plan plan = dr_augment_plan(&a, p.w, p.h, rng);
    return dr_augment_run(&plan, p, ret, err);
}

/* Some clean pictures get a lattice; it has its own random numbers, so nothing else changes with it. */
static void lattice(const dr_loader *l, int64_t k, int j, uint64_t side, float *rgb) {
    dr_rng rng;
    dr_rng_seed(&rng, l->o.seed, mix((uint64_t)k, (uint64_t)j, side));
    if (dr_rng_uniform(&rng) < l->o.lattice_share) dr_lattice_draw(&rng, l->o.crop, rgb);
}

static dr_status make(dr_loader *l, int64_t k, slot *b, dr_error *err) {
    size_t floats = 3 * (size_t)l->o.crop * (size_t)l->o.crop;
    b->k = k;
    for (int j = 0; j < l->o.batch; j++) {
        float *rainy = b->rainy + (size_t)j * floats, *clean = b->clean + (size_t)j * floats;
        uint64_t g = (uint64_t)k * (uint64_t)l->o.batch + (uint64_t)j; /* samples before this one */
        uint64_t drawn = g * l->share / SHARE_ONE;                     /* rendered ones among them */
        dr_rng rng;
        dr_rng_seed(&rng, l->o.seed, mix((uint64_t)k, (uint64_t)j, SIDE_RAINY));
        dr_status s;
        if ((g + 1) * l->share / SHARE_ONE > drawn) {
            int i = take(&l->backgrounds, l->o.seed, (int64_t)drawn);
            s = sample(l, l->clean, i, k, &rng, rainy, err);
            if (!s) lattice(l, k, j, SIDE_BACKGROUND_LATTICE, rainy);
            if (!s) s = dr_streaks_render(l->streaks, &rng, l->o.crop, rainy, err);
            b->rainy_id[j] = -1 - i;
        } else {
            int i = take(&l->real, l->o.seed, (int64_t)(g - drawn));
            s = sample(l, l->rainy, i, k, &rng, rainy, err);
            b->rainy_id[j] = i;
        }
        if (s) return s;
        to_signed(rainy, floats);

        dr_rng_seed(&rng, l->o.seed, mix((uint64_t)k, (uint64_t)j, SIDE_CLEAN));
        int i = l->clean_only[dr_rng_below(&rng, (uint32_t)l->n_clean_only)];
        s = sample(l, l->clean, i, k, &rng, clean, err);
        if (s) return s;
        lattice(l, k, j, SIDE_CLEAN_LATTICE, clean);
        to_signed(clean, floats);
        b->clean_id[j] = i;
    }
    return DR_OK;
}

static void *maker(void *arg) {
    dr_loader *l = arg;
    pthread_mutex_lock(&l->mu);
    while (!l->stop && !l->failed) {
        /* the slot in the reader's hands is not free yet */
        if (l->made - l->taken + (l->reading ? 1 : 0) >= l->n_slots) {
            pthread_cond_wait(&l->can_make, &l->mu);
            continue;
        }
        int64_t i = l->made;
        pthread_mutex_unlock(&l->mu);
        dr_error e = {0};
        dr_status s = make(l, l->start + i, &l->slots[i % l->n_slots], &e);
        pthread_mutex_lock(&l->mu);
        if (s) {
            l->failed = true;
            l->status = s;
            l->error = e;
        } else {
            l->made++;
        }
        pthread_cond_signal(&l->can_take);
    }
    pthread_mutex_unlock(&l->mu);
    return NULL;
}

/* ---- public ---------------------------------------------------------------------------------------------------- */

static dr_status check(const dr_loader_opts *o, int n_rainy, int n_clean, bool has_streaks, dr_error *err) {
    if (o->crop < 4 || o->crop > 4096) return dr_fail(err, DR_INVALID, "crop %d is not within 4..4096", o->crop);
    if (o->batch < 1 || o->batch > 1024) return dr_fail(err, DR_INVALID, "batch %d is not within 1..1024", o->batch);
    if (o->ring < 0 || o->ring > 64) return dr_fail(err, DR_INVALID, "ring %d is not within 0..64", o->ring);
    if (!(o->streaks_share >= 0 && o->streaks_share <= 1) || !(o->background_part >= 0 && o->background_part <= 1))
        return dr_fail(err, DR_INVALID, "shares of rendered rain must be within 0..1");
    if (!(o->scale_min >= 0.25 && o->scale_min <= 1))
        return dr_fail(err, DR_INVALID, "least scale %g is not within 0.25..1", o->scale_min);
    if (n_clean < 1) return dr_fail(err, DR_INVALID, "no clean pictures");
    if (n_rainy < 1 && !has_streaks) return dr_fail(err, DR_INVALID, "no rainy pictures and no rain layers");
    return DR_OK;
}

static dr_status init_slots(dr_loader *l, dr_error *err) {
    size_t floats = 3 * (size_t)l->o.crop * (size_t)l->o.crop * (size_t)l->o.batch;
    l->n_slots = l->o.ring > 0 ? l->o.ring + 1 : 1; /* one more for the batch that the caller holds */
    l->slots = dr_calloc((size_t)l->n_slots, sizeof *l->slots);
    if (!l->slots) goto nomem;
    for (int i = 0; i < l->n_slots; i++) {
        slot *b = &l->slots[i];
        b->rainy = dr_malloc_aligned(floats * sizeof(float));
        b->clean = dr_malloc_aligned(floats * sizeof(float));
        b->rainy_id = dr_malloc(sizeof(int) * (size_t)l->o.batch);
        b->clean_id = dr_malloc(sizeof(int) * (size_t)l->o.batch);
        if (!b->rainy || !b->clean || !b->rainy_id || !b->clean_id) goto nomem;
    }
    return DR_OK;
nomem:
    return dr_fail(err, DR_NOMEM, "no memory for %d batches of %d crops of %d", l->n_slots, l->o.batch, l->o.crop);
}

dr_status dr_loader_open(const dr_loader_opts *o, dr_dataset *rainy, dr_dataset *clean, dr_streaks *streaks,
                         int64_t start, dr_loader **ret, dr_error *err) {
    int n_rainy = rainy ? dr_dataset_count(rainy) : 0, n_clean = clean ? dr_dataset_count(clean) : 0;
    dr_status s = check(o, n_rainy, n_clean, streaks != NULL, err);
    if (s) return s;
    if (start < 0) return dr_fail(err, DR_INVALID, "first batch is negative");
    dr_loader *l = dr_calloc(1, sizeof *l);
    if (!l) return dr_fail(err, DR_NOMEM, "no memory for the loader");
    l->o = *o;
    l->rainy = rainy;
    l->clean = clean;
    l->streaks = streaks;
    l->start = start;
    l->share = !streaks ? 0 : n_rainy == 0 ? SHARE_ONE : (uint64_t)(o->streaks_share * (double)SHARE_ONE + 0.5);
    if ((s = split(l, err)) || (s = init_slots(l, err))) goto fail;
    l->real = (shuffled){.n = n_rainy, .pass = -1, .tag = PASS_RAINY};
    if (n_rainy > 0) {
        l->real.of = dr_malloc(sizeof(int) * (size_t)n_rainy);
        l->real.order = dr_malloc(sizeof(int) * (size_t)n_rainy);
        if (!l->real.of || !l->real.order) {
            s = dr_fail(err, DR_NOMEM, "no memory for the order of %d rainy pictures", n_rainy);
            goto fail;
        }
        for (int i = 0; i < n_rainy; i++) l->real.of[i] = i;
    }
    if (o->ring > 0) {
        pthread_mutex_init(&l->mu, NULL);
        pthread_cond_init(&l->can_make, NULL);
        pthread_cond_init(&l->can_take, NULL);
        l->has_sync = true;
        if (pthread_create(&l->thread, NULL, maker, l)) {
            s = dr_fail(err, DR_NOMEM, "cannot start the loader's thread");
            goto fail;
        }
        l->has_thread = true;
    }
    *ret = l;
    return DR_OK;
fail:
    dr_loader_close(l);
    return s;
}

void dr_loader_close(dr_loader *l) {
    if (!l) return;
    if (l->has_thread) {
        pthread_mutex_lock(&l->mu);
        l->stop = true;
        pthread_cond_signal(&l->can_make);
        pthread_mutex_unlock(&l->mu);
        pthread_join(l->thread, NULL);
    }
    if (l->has_sync) {
        pthread_cond_destroy(&l->can_make);
        pthread_cond_destroy(&l->can_take);
        pthread_mutex_destroy(&l->mu);
    }
    for (int i = 0; l->slots && i < l->n_slots; i++) {
        dr_free(l->slots[i].rainy);
        dr_free(l->slots[i].clean);
        dr_free(l->slots[i].rainy_id);
        dr_free(l->slots[i].clean_id);
    }
    dr_free(l->slots);
    dr_free(l->real.of);
    dr_free(l->real.order);
    dr_free(l->backgrounds.of);
    dr_free(l->backgrounds.order);
    dr_free(l->clean_only);
    dr_free(l->is_background);
    dr_free(l);
}

dr_status dr_loader_next(dr_loader *l, dr_batch *ret, dr_error *err) {
    const slot *b;
    if (l->has_thread) {
        int64_t t0 = dr_clock_ns();
        pthread_mutex_lock(&l->mu);
        l->reading = false;
        pthread_cond_signal(&l->can_make);
        while (l->made == l->taken && !l->failed) pthread_cond_wait(&l->can_take, &l->mu);
        bool got = l->made > l->taken;
        if (got) {
            b = &l->slots[l->taken++ % l->n_slots];
            l->reading = true;
        }
        pthread_mutex_unlock(&l->mu);
        l->waited += (double)(dr_clock_ns() - t0) * 1e-9;
        /* the maker has ended: its error is nobody else's now */
        if (!got) return dr_fail_as(err, l->status, l->error.what, "%s", l->error.text);
    } else {
        dr_status s = make(l, l->start + l->taken, &l->slots[0], err);
        if (s) return s;
        l->taken++;
        b = &l->slots[0];
    }
    *ret = (dr_batch){b->k, l->o.batch, l->o.crop, b->rainy, b->clean, b->rainy_id, b->clean_id};
    return DR_OK;
}

bool dr_loader_is_background(const dr_loader *l, int i) {
    return l->is_background[i];
}
double dr_loader_waited(const dr_loader *l) {
    return l->waited;
}

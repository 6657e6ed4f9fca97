/* test_loader.c - batches depend on (options, data, k) alone; the sides stay unpaired; crops are what they claim. */
#include "core/train/loader.h"
#include "tests/core/train_fixture.h"
#include "tests/t.h"
#include <time.h>

enum { N_RAINY = 5, N_CLEAN = 12, CROP = 16, FLOATS = 3 * CROP * CROP };

typedef struct sets {
    fixture f;
    dr_dataset *rainy, *clean;
    dr_streaks *streaks;
} sets;

/* Rainy pictures have tones below 100, clean ones from 100 on. */
static bool sets_init(sets *s) {
    *s = (sets){0};
    if (!fixture_init(&s->f) || !fixture_mkdir(&s->f, "r") || !fixture_mkdir(&s->f, "c")) return false;
    char name[32];
    for (int i = 0; i < N_RAINY + N_CLEAN; i++) {
        bool r = i < N_RAINY;
        snprintf(name, sizeof name, "%s/%02d.png", r ? "r" : "c", i);
        if (!fixture_picture(&s->f, name, 40 + 8 * (i % 7), 64 - 5 * (i % 5), 3, r ? 10 + i : 100 + i)) return false;
    }
    const char *r = fixture_path(&s->f, "r"), *c = fixture_path(&s->f, "c");
    return !dr_dataset_open("rainy", &r, 1, NULL, &s->rainy, NULL) &&
           !dr_dataset_open("clean", &c, 1, NULL, &s->clean, NULL) &&
           !dr_streaks_open("procedural", NULL, &s->streaks, NULL);
}

static void sets_done(sets *s) {
    dr_dataset_close(s->rainy);
    dr_dataset_close(s->clean);
    dr_streaks_close(s->streaks);
    fixture_done(&s->f);
}

static dr_loader_opts small(void) {
    dr_loader_opts o;
    dr_loader_opts_init(&o);
    o.crop = CROP;
    o.batch = 3;
    o.seed = 42;
    return o;
}

/* A sum over everything that a batch says. */
static uint64_t digest(const dr_batch *b) {
    uint64_t h = (uint64_t)b->k + 1;
    for (size_t i = 0; i < (size_t)b->n * FLOATS; i++) {
        uint32_t u[2];
        memcpy(&u[0], &b->rainy[i], 4);
        memcpy(&u[1], &b->clean[i], 4);
        h = (h ^ u[0]) * UINT64_C(0x100000001b3);
        h = (h ^ u[1]) * UINT64_C(0x100000001b3);
    }
    for (int i = 0; i < b->n; i++)
        h = (h ^ (uint32_t)b->rainy_id[i]) * UINT64_C(0x100000001b3) ^ (uint32_t)b->clean_id[i];
    return h;
}

static bool collect(const sets *s, const dr_loader_opts *o, int64_t start, int n, int pause_every, uint64_t *ret) {
    dr_loader *l = NULL;
    if (dr_loader_open(o, s->rainy, s->clean, s->streaks, start, &l, NULL)) return false;
    for (int i = 0; i < n; i++) {
        dr_batch b;
        if (dr_loader_next(l, &b, NULL) || b.k != start + i) return false;
        if (pause_every && i % pause_every == 0)
            nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL); /* let the ring fill */
        ret[i] = digest(&b);
    }
    dr_loader_close(l);
    return true;
}

TEST(same_batches_for_any_ring_and_timing_and_from_any_start) {
    enum { N = 24 };
    sets s;
    CHECK(sets_init(&s));
    uint64_t want[N], got[N];
    dr_loader_opts o = small();
    o.ring = 0;
    CHECK(collect(&s, &o, 0, N, 0, want));
    for (int i = 1; i < N; i++) CHECK(want[i] != want[i - 1]);
    for (int ring = 0; ring < 4; ring++) {
        o.ring = ring;
        CHECK(collect(&s, &o, 0, N, ring, got) && memcmp(got, want, sizeof want) == 0);
        CHECK(collect(&s, &o, 7, N - 7, 0, got) && memcmp(got, want + 7, sizeof *want * (N - 7)) == 0); /* resumed */
    }
    o.seed = 43;
    CHECK(collect(&s, &o, 0, N, 0, got));
    for (int i = 0; i < N; i++) CHECK(got[i] != want[i]);
    sets_done(&s);
}

/* Undoes the conversion to [-1,1]; exact for whole levels. */
static int level(float v) {
    return (int)lrintf((v + 1) * 127.5f);
}

TEST(native_crops_are_windows_of_the_pictures_in_range) {
    sets s;
    CHECK(sets_init(&s));
    dr_loader_opts o = small();
    o.streaks_share = 0;
    dr_loader *l = NULL;
    CHECK(!dr_loader_open(&o, s.rainy, s.clean, NULL, 0, &l, NULL));
    int flipped = 0, straight = 0, corner = 0;
    for (int k = 0; k < 60; k++) {
        dr_batch b;
        CHECK(!dr_loader_next(l, &b, NULL) && b.n == 3 && b.crop == CROP);
        for (int j = 0; j < b.n; j++)
            for (int side = 0; side < 2; side++) {
                const float *p = (side ? b.clean : b.rainy) + (size_t)j * FLOATS, *g = p + CROP * CROP,
                            *t = g + CROP * CROP;
                int id = side ? b.clean_id[j] : b.rainy_id[j], w, h;
                CHECK(id >= 0 && id < (side ? N_CLEAN : N_RAINY));
                dr_dataset_size(side ? s.clean : s.rainy, id, &w, &h);
                int x0 = level(p[0]), y0 = level(g[0]), step = level(p[1]) - x0;
                CHECK(step == 1 || step == -1);
                flipped += step < 0;
                straight += step > 0;
                corner += x0 == 0;
                CHECK(y0 >= 0 && y0 + CROP <= h &&
                      (step > 0 ? x0 + CROP <= w && x0 >= 0 : x0 < w && x0 - CROP + 1 >= 0));
                for (int y = 0; y < CROP; y++)
                    for (int x = 0; x < CROP; x++) {
                        int i = y * CROP + x;
                        CHECK(level(p[i]) == x0 + step * x && level(g[i]) == y0 + y);
                        CHECK(level(t[i]) == (side ? 100 + N_RAINY + id : 10 + id));
                        CHECK(p[i] >= -1 && p[i] <= 1);
                    }
            }
    }
    CHECK(flipped > 120 && straight > 120 && corner > 0);
    dr_loader_close(l);
    sets_done(&s);
}

TEST(rainy_pictures_come_without_replacement) {
    sets s;
    CHECK(sets_init(&s));
    dr_loader_opts o = small();
    o.batch = 1;
    dr_loader *l = NULL;
    CHECK(!dr_loader_open(&o, s.rainy, s.clean, NULL, 0, &l, NULL));
    int last[N_RAINY] = {0}, moved = 0, clean[N_CLEAN] = {0};
    for (int pass = 0; pass < 40; pass++) {
        int seen[N_RAINY] = {0};
        for (int i = 0; i < N_RAINY; i++) {
            dr_batch b;
            CHECK(!dr_loader_next(l, &b, NULL));
            seen[b.rainy_id[0]]++;
            moved += last[i] != b.rainy_id[0];
            last[i] = b.rainy_id[0];
            clean[b.clean_id[0]]++;
        }
        for (int i = 0; i < N_RAINY; i++) CHECK(seen[i] == 1);
    }
    CHECK(moved > 120); /* of 200: shuffled anew in every pass */
    for (int i = 0; i < N_CLEAN; i++)
        CHECK_MSG(clean[i] > 3 && clean[i] < 40, "picture %d: %d of about 17", i, clean[i]);
    dr_loader_close(l);
    sets_done(&s);
}

TEST(backgrounds_and_clean_side_are_disjoint) {
    sets s;
    CHECK(sets_init(&s));
    for (int with_rainy = 0; with_rainy < 2; with_rainy++) {
        dr_loader_opts o = small();
        o.streaks_share = 0.25;
        dr_loader *l = NULL;
        CHECK(!dr_loader_open(&o, with_rainy ? s.rainy : NULL, s.clean, s.streaks, 0, &l, NULL));
        int n_back = 0, rendered = 0, used[N_CLEAN] = {0};
        for (int i = 0; i < N_CLEAN; i++) n_back += dr_loader_is_background(l, i);
        CHECK(n_back == N_CLEAN / 2);
        for (int k = 0; k < 40; k++) {
            dr_batch b;
            CHECK(!dr_loader_next(l, &b, NULL));
            for (int j = 0; j < b.n; j++) {
                CHECK(!dr_loader_is_background(l, b.clean_id[j]));
                if (b.rainy_id[j] >= 0) continue;
                int i = -1 - b.rainy_id[j];
                CHECK(i < N_CLEAN && dr_loader_is_background(l, i));
                used[i]++;
                rendered++;
            }
        }
        CHECK(rendered == (with_rainy ? 30 : 120)); /* of 120 */
        for (int i = 0; i < N_CLEAN; i++) CHECK(used[i] == (dr_loader_is_background(l, i) ? rendered / n_back : 0));
        dr_loader_close(l);
    }
    sets_done(&s);
}

TEST(released_pictures_are_resized_whole) {
    sets s;
    CHECK(sets_init(&s));
    dr_loader_opts o = small();
    o.released = true;
    o.squeeze_from = 20;
    o.streaks_share = 0;
    dr_loader *l = NULL;
    CHECK(!dr_loader_open(&o, s.rainy, s.clean, NULL, 0, &l, NULL));
    for (int k = 0; k < 40; k++) {
        dr_batch b;
        CHECK(!dr_loader_next(l, &b, NULL));
        for (int j = 0; j < b.n; j++) {
            const float *p = b.rainy + (size_t)j * FLOATS, *g = p + CROP * CROP;
            int w, h;
            dr_dataset_size(s.rainy, b.rainy_id[j], &w, &h);
            /* how much of the picture the crop spans, in its own pixels */
            float dx = fabsf(p[CROP - 1] - p[0]) * 127.5f, dy = (g[(CROP - 1) * CROP] - g[0]) * 127.5f;
            float part = k < 20 ? 0.5f : 1;
            CHECK_MSG(fabsf(dx - part * (float)w * 15 / 16) < 2.5f, "k %d: %g of %d columns", k, dx, w);
            CHECK_MSG(fabsf(dy - part * (float)h * 15 / 16) < 2.5f, "k %d: %g of %d rows", k, dy, h);
        }
    }
    dr_loader_close(l);
    sets_done(&s);
}

TEST(small_pictures_are_mirrored) {
    fixture f = {0};
    CHECK(fixture_init(&f));
    CHECK(fixture_picture(&f, "s.png", 20, 17, 3, 5));
    dr_dataset *d = NULL;
    const char *dir = f.dir;
    CHECK(!dr_dataset_open("rainy", &dir, 1, NULL, &d, NULL));
    dr_pixels p;
    CHECK(!dr_dataset_get(d, 0, &p, NULL));
    enum { C = 64 };
    static float x[3 * C * C];
    dr_sample_plan plan = {.crop = C, .vw = 20, .vh = 17};
    CHECK(!dr_augment_run(&plan, p, x, NULL));
    for (int i = 0; i < C; i++) { /* triangle waves of period 38 and 32 */
        int ix = i % 38, iy = i % 32;
        CHECK(lrintf(x[i] * 255) == (ix < 20 ? ix : 38 - ix));
        CHECK(lrintf(x[C * C + i * C] * 255) == (iy < 17 ? iy : 32 - iy));
    }
    dr_dataset_close(d);
    fixture_done(&f);
}

TEST(turn_and_flips) {
    uint8_t data[4 * 3 * 3];
    for (int i = 0; i < 12; i++) data[3 * i] = (uint8_t)(10 * i), data[3 * i + 1] = data[3 * i + 2] = 0;
    dr_pixels p = {data, 4, 3, 3};
    float x[3 * 9];
    dr_sample_plan plan = {.crop = 3, .vw = 4, .vh = 3, .x = 1, .flip_x = true, .flip_y = true, .turn = true};
    CHECK(!dr_augment_run(&plan, p, x, NULL));
    /* columns 3,2,1 of rows 2,1,0, transposed */
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) CHECK(lrintf(x[i * 3 + j] * 255) == 10 * ((2 - j) * 4 + 3 - i));
}

/* The resampling against numbers worked out by hand from the filter: a = -0.5, two to one, antialiased: the weights of
 * the eight source pixels around an output pixel are bicubic(0.25), (0.75), (1.25), (1.75) / 2 on both sides. */
TEST(bicubic_weights_are_the_antialiased_ones) {
    enum { W = 32 };
    uint8_t data[W * W * 3];
    memset(data, 0, sizeof data);
    for (int y = 0; y < W; y++) memset(data + (y * W + 15) * 3, 200, 3); /* one bright column */
    dr_pixels p = {data, W, W, 3};
    static float x[3 * 16 * 16];
    dr_sample_plan plan = {.crop = 16, .vw = 16, .vh = 16};
    CHECK(!dr_augment_run(&plan, p, x, NULL));
    const double far[4] = {0.25, 0.75, 1.25, 1.75};
    double k[4];
    for (int i = 0; i < 4; i++) {
        double d = far[i];
        k[i] = (d < 1 ? 1.5 * d * d * d - 2.5 * d * d + 1 : -0.5 * d * d * d + 2.5 * d * d - 4 * d + 2) / 2;
    }
    /* output column c has its centre at 2c+1; source column 15 has its own at 15.5 */
    double want[16] = {[7] = k[0] * 200, [8] = k[1] * 200, [6] = k[2] * 200, [9] = k[3] * 200};
    for (int c = 0; c < 16; c++) {
        double v = want[c] < 0 ? 0 : want[c];
        CHECK_MSG(fabs(x[8 * 16 + c] * 255 - v) < 0.51, "column %d: %g, not %g", c, x[8 * 16 + c] * 255, v);
    }
}

TEST(bad_options_and_lack_of_memory) {
    sets s;
    CHECK(sets_init(&s));
    dr_loader *l = NULL;
    dr_error err = {0};
    dr_loader_opts o = small();
    o.crop = 0;
    CHECK(dr_loader_open(&o, s.rainy, s.clean, NULL, 0, &l, &err) == DR_INVALID && strstr(err.text, "crop"));
    o = small(), o.batch = 0;
    CHECK(dr_loader_open(&o, s.rainy, s.clean, NULL, 0, &l, NULL) == DR_INVALID);
    o = small(), o.streaks_share = NAN;
    CHECK(dr_loader_open(&o, s.rainy, s.clean, s.streaks, 0, &l, NULL) == DR_INVALID);
    o = small();
    CHECK(dr_loader_open(&o, NULL, s.clean, NULL, 0, &l, NULL) == DR_INVALID);
    CHECK(dr_loader_open(&o, s.rainy, NULL, NULL, 0, &l, NULL) == DR_INVALID);
    CHECK(dr_loader_open(&o, s.rainy, s.clean, NULL, -1, &l, NULL) == DR_INVALID);
    o.ring = 0;
    int opened = 0;
    for (long n = 1; n < 100 && !opened; n++) {
        dr_batch b;
        dr_alloc_fail_after(n, false);
        dr_status st = dr_loader_open(&o, s.rainy, s.clean, s.streaks, 0, &l, NULL);
        if (st) {
            CHECK(st == DR_NOMEM);
            continue;
        }
        st = dr_loader_next(l, &b, NULL);
        long used = dr_alloc_count();
        dr_alloc_fail_after(0, false);
        CHECK(st == DR_OK || st == DR_NOMEM);
        opened = st == DR_OK && used < n;
        dr_loader_close(l);
    }
    CHECK(opened);
    sets_done(&s);
}

TEST(an_error_comes_after_the_batches_before_it) {
    sets s;
    CHECK(sets_init(&s));
    dr_dataset *d = NULL;
    dr_dataset_opts small_cap = {.mem_max = 1};
    const char *r = fixture_path(&s.f, "r");
    CHECK(!dr_dataset_open("rainy", &r, 1, &small_cap, &d, NULL));
    CHECK(fixture_write(&s.f, "r/03.png", "broken", 6));
    dr_loader_opts o = small();
    o.batch = 1;
    dr_loader *l = NULL;
    CHECK(!dr_loader_open(&o, d, s.clean, NULL, 0, &l, NULL));
    int got = 0;
    dr_error err = {0};
    dr_batch b;
    while (got < 20 && !dr_loader_next(l, &b, &err)) CHECK(b.rainy_id[0] != 3 && b.k == got++);
    CHECK(got < N_RAINY && strstr(err.text, "03.png"));
    CHECK(dr_loader_next(l, &b, NULL) != DR_OK); /* and stays */
    dr_loader_close(l);
    dr_dataset_close(d);
    sets_done(&s);
}

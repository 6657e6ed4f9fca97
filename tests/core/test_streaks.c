/* test_streaks.c - rain only brightens (but for the veil), is grey, repeats with its generator, and comes from files
 * too. */
#include "core/base/clock.h"
#include "core/train/streaks.h"
#include "tests/core/train_fixture.h"
#include "tests/t.h"

enum { SIZE = 64, AREA = SIZE * SIZE };

static void background(float *rgb) {
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < AREA; i++) rgb[c * AREA + i] = (float)(20 + 30 * c + i % 97) / 255.0f;
}

static dr_streaks_opts no_veil(void) {
    dr_streaks_opts o;
    dr_streaks_opts_init(&o);
    o.veil = 0;
    return o;
}

TEST(rain_is_grey_brighter_and_repeatable) {
    dr_streaks_opts o = no_veil();
    o.additive = 1;
    dr_streaks *s = NULL;
    CHECK(!dr_streaks_open("procedural", &o, &s, NULL));
    static float clean[3 * AREA], a[3 * AREA], b[3 * AREA];
    background(clean);
    int visible = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        dr_rng r, q;
        dr_rng_seed(&r, seed, 1);
        q = r;
        background(a), background(b);
        CHECK(!dr_streaks_render(s, &r, SIZE, a, NULL) && !dr_streaks_render(s, &q, SIZE, b, NULL));
        CHECK(memcmp(a, b, sizeof a) == 0 && memcmp(&r, &q, sizeof r) == 0);
        float most = 0;
        for (int i = 0; i < AREA; i++) {
            float l[3];
            for (int c = 0; c < 3; c++) {
                float v = a[c * AREA + i];
                l[c] = v - clean[c * AREA + i];
                CHECK(v <= 1 && l[c] > -1e-6f && fabsf(v * 255 - rintf(v * 255)) < 1e-3f); /* whole levels */
                if (l[c] > most) most = l[c];
            }
            /* the same in all colours where none of them is clipped */
            if (a[i] < 1 && a[AREA + i] < 1 && a[2 * AREA + i] < 1)
                CHECK(fabsf(l[0] - l[1]) < 1.01f / 255 && fabsf(l[0] - l[2]) < 1.01f / 255);
        }
        visible += most > 0.1f;
    }
    CHECK_MSG(visible >= 54, "%d of 60", visible);
    dr_streaks_close(s);
}

TEST(screen_keeps_bright_pixels_below_one) {
    dr_streaks_opts o = no_veil();
    o.additive = 0;
    dr_streaks *s = NULL;
    CHECK(!dr_streaks_open("procedural", &o, &s, NULL));
    static float x[3 * AREA];
    for (uint64_t seed = 0; seed < 20; seed++) {
        dr_rng r;
        dr_rng_seed(&r, seed, 2);
        for (int i = 0; i < 3 * AREA; i++) x[i] = 0.8f;
        CHECK(!dr_streaks_render(s, &r, SIZE, x, NULL));
        for (int i = 0; i < 3 * AREA; i++) CHECK(x[i] >= 0.799f && x[i] <= 1);
    }
    dr_streaks_close(s);
}

/* Streaks of one direction: moving along it, a layer changes less than moving across. */
TEST(drawn_streaks_lie_along_their_direction) {
    dr_streaks_opts o;
    dr_streaks_opts_init(&o);
    o.angle_deg = 0;
    o.jitter_deg = 0;
    o.streak_len[0] = o.streak_len[1] = 30;
    o.streak_width[0] = o.streak_width[1] = 2;
    o.density[0] = o.density[1] = 3;
    static float l[AREA];
    for (uint64_t seed = 0; seed < 20; seed++) {
        dr_rng r;
        dr_rng_seed(&r, seed, 3);
        memset(l, 0, sizeof l);
        dr_streaks_draw(&o, &r, SIZE, l);
        double down = 0, side = 0, sum = 0;
        for (int y = 0; y < SIZE - 1; y++)
            for (int x = 0; x < SIZE - 1; x++) {
                float v = l[y * SIZE + x];
                CHECK(v >= 0 && isfinite(v));
                down += fabsf(l[(y + 1) * SIZE + x] - v);
                side += fabsf(l[y * SIZE + x + 1] - v);
                sum += v;
            }
        CHECK_MSG(sum > 20 && side > 5 * down, "sum %g, across %g, along %g", sum, side, down);
    }
}

TEST(layers_from_files_are_brought_to_strength) {
    fixture f = {0};
    CHECK(fixture_init(&f));
    /* a faint layer: lines of 14 levels on black */
    dr_image img = {0};
    CHECK(!dr_image_init(&img, 120, 90, 1, 8, NULL));
    for (int y = 0; y < 90; y++)
        for (int x = 0; x < 120; x++) dr_image_row8(&img, y)[x] = x % 12 < 2 ? 14 : 0;
    void *png = NULL;
    size_t len = 0;
    CHECK(!dr_image_encode(&img, DR_FORMAT_PNG, 0, true, &png, &len, NULL) && fixture_write(&f, "l.png", png, len));
    dr_free(png);
    dr_image_done(&img);
    dr_streaks_opts o = no_veil();
    o.procedural = 0;
    o.second = 0;
    o.additive = 1;
    o.strength[0] = o.strength[1] = 0.5;
    dr_streaks *s = NULL;
    dr_error err = {0};
    CHECK_MSG(!dr_streaks_open(f.dir, &o, &s, &err), "%s", err.text);
    CHECK(strstr(dr_streaks_describe(s), "1 rain layers") && strlen(dr_streaks_fingerprint(s)) == 64);
    static float x[3 * AREA];
    for (uint64_t seed = 0; seed < 10; seed++) {
        dr_rng r;
        dr_rng_seed(&r, seed, 4);
        memset(x, 0, sizeof x);
        CHECK(!dr_streaks_render(s, &r, SIZE, x, NULL));
        float most = 0;
        double mean = 0;
        for (int i = 0; i < AREA; i++) {
            if (x[i] > most) most = x[i];
            mean += x[i] / AREA;
        }
        CHECK_MSG(most > 0.4f && most < 0.6f && mean > 0.04 && mean < 0.13, "peak %g, mean %g", most, mean);
    }
    dr_streaks_close(s);
    CHECK(dr_streaks_open(fixture_path(&f, "none"), NULL, &s, NULL) == DR_NOT_FOUND);
    fixture_done(&f);
}

TEST(another_size_and_no_memory) {
    dr_streaks *s = NULL;
    CHECK(!dr_streaks_open("procedural", NULL, &s, NULL));
    static float x[3 * 100 * 100];
    dr_rng r;
    dr_rng_seed(&r, 1, 1);
    CHECK(!dr_streaks_render(s, &r, 32, x, NULL) && !dr_streaks_render(s, &r, 100, x, NULL));
    dr_alloc_fail_after(1, false);
    CHECK(dr_streaks_render(s, &r, 64, x, NULL) == DR_NOMEM);
    dr_alloc_fail_after(0, false);
    CHECK(!dr_streaks_render(s, &r, 64, x, NULL));
    dr_streaks_close(s);
    dr_alloc_fail_after(1, false);
    CHECK(dr_streaks_open("procedural", NULL, &s, NULL) == DR_NOMEM);
    dr_alloc_fail_after(0, false);
}

/* PSNR and SSIM: closed forms, a direct evaluation of the definition, and the published-data baseline where it is
 * present. */
#include "core/base/alloc.h"
#include "core/base/fs.h"
#include "core/image/codec.h"
#include "core/image/metrics.h"
#include "tests/t.h"

#define DATA "../shared/data/paired"

static dr_image noise(int w, int h, int channels, unsigned seed) {
    dr_image img = {0};
    if (dr_image_init(&img, w, h, channels, 8, NULL)) return img;
    for (size_t i = 0; i < img.stride * (size_t)h; i++) {
        seed = seed * 1664525u + 1013904223u;
        ((uint8_t *)img.pixels)[i] = (uint8_t)(seed >> 24);
    }
    return img;
}

TEST(equal_pictures_score_100_dB_and_1) {
    dr_image a = noise(20, 17, 3, 1);
    dr_score s;
    CHECK(!dr_score_images(&a, &a, &s, NULL));
    CHECK(s.psnr_y == 100 && s.psnr_rgb == 100);
    CHECK(fabs(s.ssim_y - 1) < 1e-6 && fabs(s.ssim_rgb - 1) < 1e-6);
    dr_image_done(&a);
}

TEST(a_constant_error_has_its_closed_form) {
    dr_image a, b;
    CHECK(!dr_image_init(&a, 16, 16, 3, 8, NULL) && !dr_image_init(&b, 16, 16, 3, 8, NULL));
    memset(a.pixels, 100, a.stride * 16);
    memset(b.pixels, 110, b.stride * 16);
    dr_score s;
    CHECK(!dr_score_images(&a, &b, &s, NULL));
    CHECK(fabs(s.psnr_rgb - 10 * log10(255.0 * 255.0 / 100)) < 1e-9);
    /* luma spans 219 levels for 255 of an achromatic error */
    CHECK(fabs(s.psnr_y - s.psnr_rgb - 20 * log10(255.0 / 219.0)) < 1e-4);
    CHECK(fabs(s.ssim_rgb - (2 * 100.0 * 110 + 6.5025) / (100.0 * 100 + 110 * 110 + 6.5025)) < 1e-6);
    dr_image_done(&a);
    dr_image_done(&b);
}

/* The definition, window by window, in double. */
static double ssim_direct(const dr_image *a, const dr_image *b, int channel) {
    double win[11][11], sum = 0, total = 0;
    for (int i = 0; i < 11; i++)
        for (int j = 0; j < 11; j++) {
            win[i][j] = exp(-((i - 5) * (i - 5) + (j - 5) * (j - 5)) / 4.5);
            sum += win[i][j];
        }
    for (int y = 0; y + 11 <= a->height; y++)
        for (int x = 0; x + 11 <= a->width; x++) {
            double ma = 0, mb = 0, aa = 0, bb = 0, ab = 0;
            for (int i = 0; i < 11; i++)
                for (int j = 0; j < 11; j++) {
                    const double u = dr_image_row8(a, y + i)[(x + j) * a->channels + channel];
                    const double v = dr_image_row8(b, y + i)[(x + j) * b->channels + channel], w = win[i][j] / sum;
                    ma += w * u, mb += w * v, aa += w * u * u, bb += w * v * v, ab += w * u * v;
                }
            const double va = aa - ma * ma, vb = bb - mb * mb, cov = ab - ma * mb;
            total +=
                (2 * ma * mb + 6.5025) * (2 * cov + 58.5225) / ((ma * ma + mb * mb + 6.5025) * (va + vb + 58.5225));
        }
    return total / ((a->width - 10) * (a->height - 10));
}

TEST(ssim_is_the_definition) {
    dr_image a = noise(33, 19, 3, 2), b = noise(33, 19, 3, 3);
    for (size_t i = 0; i < a.stride * 19; i++) /* related pictures: otherwise it is near 0 */
        ((uint8_t *)b.pixels)[i] = (uint8_t)((((uint8_t *)a.pixels)[i] * 3 + ((uint8_t *)b.pixels)[i]) / 4);
    dr_score s;
    CHECK(!dr_score_images(&a, &b, &s, NULL));
    const double want = (ssim_direct(&a, &b, 0) + ssim_direct(&a, &b, 1) + ssim_direct(&a, &b, 2)) / 3;
    CHECK(want > 0.3 && want < 0.99);
    CHECK_MSG(fabs(s.ssim_rgb - want) < 1e-6, "%.8f, not %.8f", s.ssim_rgb, want);
    dr_image_done(&a);
    dr_image_done(&b);
}

/* Nearly flat and bright: where float loses most in E[x^2] - E[x]^2. */
TEST(ssim_holds_in_flat_bright_areas) {
    dr_image a = noise(40, 40, 1, 4), b = noise(40, 40, 1, 5);
    for (int i = 0; i < 1600; i++) {
        ((uint8_t *)a.pixels)[i] = (uint8_t)(250 + ((uint8_t *)a.pixels)[i] % 2);
        ((uint8_t *)b.pixels)[i] = (uint8_t)(250 + ((uint8_t *)b.pixels)[i] % 2);
    }
    dr_score s;
    CHECK(!dr_score_images(&a, &b, &s, NULL));
    CHECK_MSG(fabs(s.ssim_rgb - ssim_direct(&a, &b, 0)) < 2e-5, "%.7f, not %.7f", s.ssim_rgb, ssim_direct(&a, &b, 0));
    dr_image_done(&a);
    dr_image_done(&b);
}

TEST(grey_alpha_and_16_bits_are_compared_as_8_bit_rgb) {
    dr_image a = noise(24, 18, 1, 6), b = noise(24, 18, 1, 7), a4 = {0}, b16;
    CHECK(!dr_image_init(&a4, 24, 18, 4, 8, NULL));
    for (int i = 0; i < 24 * 18; i++)
        for (int k = 0; k < 4; k++) ((uint8_t *)a4.pixels)[4 * i + k] = k < 3 ? ((uint8_t *)a.pixels)[i] : (uint8_t)i;
    CHECK(!dr_image_copy(&b, &b16, NULL) && !dr_image_set_depth(&b16, 16, NULL));
    dr_score s, t;
    CHECK(!dr_score_images(&a, &b, &s, NULL) && !dr_score_images(&a4, &b16, &t, NULL));
    CHECK(!memcmp(&s, &t, sizeof s));
    dr_image_done(&a);
    dr_image_done(&b);
    dr_image_done(&a4);
    dr_image_done(&b16);
}

TEST(unequal_and_tiny_pictures_are_refused) {
    dr_image a = noise(20, 20, 3, 1), b = noise(20, 21, 3, 1), c = noise(10, 40, 3, 1);
    dr_score s;
    dr_error e = {0};
    CHECK(dr_score_images(&a, &b, &s, &e) == DR_INVALID && strstr(e.text, "20 x 21"));
    CHECK(dr_score_images(&c, &c, &s, NULL) == DR_INVALID);
    dr_image_done(&a);
    dr_image_done(&b);
    dr_image_done(&c);
}

TEST(no_memory_is_said) {
    dr_image a = noise(20, 20, 3, 1);
    dr_score s;
    dr_alloc_fail_after(0, false);
    CHECK(!dr_score_images(&a, &a, &s, NULL));
    const long n = dr_alloc_count();
    CHECK(n > 1);
    for (long i = 1; i <= n; i++) {
        dr_alloc_fail_after(i, false);
        const dr_status st = dr_score_images(&a, &a, &s, NULL);
        dr_alloc_fail_after(0, false);
        CHECK(st == DR_NOMEM);
    }
    dr_image_done(&a);
}

static dr_status load(const char *set, const char *side, const char *file, dr_image *ret) {
    char path[512], *data;
    size_t len;
    snprintf(path, sizeof path, DATA "/%s/%s/%s", set, side, file);
    /* Rain100H shares the clean pictures of Rain100L by a link, which not every checkout keeps. */
    if (!dr_fs_exists(path) && !strcmp(set, "Rain100H"))
        snprintf(path, sizeof path, DATA "/Rain100L/%s/%s", side, file);
    dr_status s = dr_fs_read(path, (size_t)64 << 20, &data, &len, NULL);
    if (s) return s;
    s = dr_image_decode(data, len, NULL, ret, NULL);
    dr_free(data);
    return s;
}

TEST(the_baseline_of_the_real_pairs_is_reproduced) {
    FILE *f = fopen(DATA "/input_baseline.csv", "r");
    if (!f) SKIP("no ../shared/data");
    char line[512], set[64], file[64];
    double v[4];
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%63[^,],%63[^,],%lf,%lf,%lf,%lf", set, file, v, v + 1, v + 2, v + 3) != 6) continue;
        dr_image a = {0}, b = {0};
        dr_score s = {0};
        const int ok =
            !load(set, "rainy", file, &a) && !load(set, "clean", file, &b) && !dr_score_images(&a, &b, &s, NULL);
        dr_image_done(&a);
        dr_image_done(&b);
        if (!ok || fabs(s.psnr_y - v[0]) > 0.01 || fabs(s.ssim_y - v[1]) > 0.0005 || fabs(s.psnr_rgb - v[2]) > 0.01 ||
            fabs(s.ssim_rgb - v[3]) > 0.0005) {
            fclose(f);
            CHECK_MSG(0, "%s/%s: %.4f %.4f %.4f %.4f", set, file, s.psnr_y, s.ssim_y, s.psnr_rgb, s.ssim_rgb);
        }
        n++;
    }
    fclose(f);
    CHECK(n > 50);
}

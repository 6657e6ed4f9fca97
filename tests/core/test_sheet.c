/* test_sheet.c - cells lie where they should, in the right colours, and a bad path or no memory is an error. */
#include "tests/t.h"
#include "core/train/sheet.h"
#include "tests/core/train_fixture.h"

enum { W = 20, H = 16, N = 2, FLOATS = 3 * W * H };

static void fill(float *x, int n, float r, float g, float b) {
    for (int k = 0; k < n; k++)
        for (int c = 0; c < 3; c++)
            for (int i = 0; i < W * H; i++) x[k * FLOATS + c * W * H + i] = c == 0 ? r : c == 1 ? g : b;
}

TEST(training_sheet_shows_all_six_columns) {
    fixture f = {0};
    CHECK(fixture_init(&f));
    static float a[N * FLOATS], b[N * FLOATS], c[N * FLOATS];
    fill(a, N, 1, -1, 0);
    fill(b, N, 0.5f, -1, 0); /* differs by 0.5 in red: four times that is 2 = white */
    fill(c, N, -2, NAN, 3);  /* out of range on purpose */
    dr_error err = {0};
    CHECK_MSG(!dr_sheet_training(N, H, W, a, b, c, c, fixture_path(&f, "s.png"), &err), "%s", err.text);
    char *data = NULL;
    size_t len = 0;
    CHECK(!dr_fs_read(fixture_path(&f, "s.png"), 1 << 20, &data, &len, NULL));
    dr_image img = {0};
    CHECK(!dr_image_decode(data, len, NULL, &img, NULL));
    dr_free(data);
    CHECK(img.channels == 3 && img.depth == 8 && img.width > 6 * W && img.height > N * H);
    int x_step = (img.width - 4) / 6, x = 4 + W / 2, y = img.height - 4 - H / 2; /* middle of the last row's cells */
    const uint8_t want[6][3] = {{255, 0, 128}, {191, 0, 128}, {255, 0, 0}, {0, 0, 255}, {0, 0, 255}, {0, 0, 0}};
    for (int i = 0; i < 6; i++)
        CHECK_MSG(memcmp(dr_image_row8(&img, y) + 3 * (x + i * x_step), want[i], 3) == 0, "column %d", i);
    int white = 0; /* labels above */
    for (int i = 0; i < img.width; i++) white += dr_image_row8(&img, 8)[3 * i] == 255;
    CHECK(white > 20);
    dr_image_done(&img);
    fixture_done(&f);
}

TEST(errors) {
    fixture f = {0};
    CHECK(fixture_init(&f));
    static float a[FLOATS];
    CHECK(dr_sheet_training(0, H, W, a, a, a, a, fixture_path(&f, "s.png"), NULL) == DR_INVALID);
    CHECK(dr_sheet_training(1, H, W, a, a, a, a, fixture_path(&f, "none/s.png"), NULL) != DR_OK);
    const float *cell[1] = {a};
    dr_grid huge = {.cols = 100000, .rows = 1, .w = W, .h = H, .cell = cell};
    CHECK(dr_grid_write(&huge, fixture_path(&f, "s.png"), NULL) == DR_TOO_LARGE);
    bool done = false;
    for (long n = 1; n < 200 && !done; n++) {
        dr_alloc_fail_after(n, true);
        done = !dr_sheet_training(1, H, W, a, a, a, a, fixture_path(&f, "s.png"), NULL);
        dr_alloc_fail_after(0, false);
        CHECK(done == dr_fs_exists(fixture_path(&f, "s.png")));
    }
    CHECK(done);
    fixture_done(&f);
}

/* Sheets: pasting with alpha and depth, clipping, labels, the layout of a contact sheet. */
#include "core/base/alloc.h"
#include "core/image/draw.h"
#include "tests/t.h"

static dr_image flat(int w, int h, int channels, int depth, int byte) {
    dr_image img = {0};
    if (!dr_image_init(&img, w, h, channels, depth, NULL)) memset(img.pixels, byte, img.stride * (size_t)h);
    return img;
}

TEST(pictures_of_any_kind_are_pasted) {
    dr_image sheet = flat(8, 8, 3, 8, 10), rgb16 = flat(2, 2, 3, 16, 200), ga = flat(2, 2, 2, 8, 128);
    dr_draw_image(&sheet, 1, 1, &rgb16);
    dr_draw_image(&sheet, 5, 5, &ga); /* 128 with alpha 128 over 10 */
    const uint8_t *p = dr_image_row8(&sheet, 2);
    CHECK(p[2] == 10 && p[3] == 200 && p[8] == 200 && p[9] == 10);
    CHECK(dr_image_row8(&sheet, 5)[15] == (128 * 128 + 10 * 127 + 127) / 255);
    CHECK(dr_image_row8(&sheet, 4)[15] == 10 && dr_image_row8(&sheet, 7)[15] == 10);
    dr_image_done(&sheet);
    dr_image_done(&rgb16);
    dr_image_done(&ga);
}

TEST(what_lies_outside_is_cut_off) {
    dr_image sheet = flat(6, 5, 1, 8, 0), img = flat(4, 4, 3, 8, 0);
    for (int y = 0; y < 4; y++)
        for (int i = 0; i < 12; i++) dr_image_row8(&img, y)[i] = (uint8_t)(100 + 10 * y + i / 3);
    dr_draw_image(&sheet, -2, -3, &img);
    CHECK(dr_image_row8(&sheet, 0)[0] == 132 && dr_image_row8(&sheet, 0)[1] == 133 &&
          dr_image_row8(&sheet, 0)[2] == 0 && dr_image_row8(&sheet, 1)[0] == 0);
    dr_draw_image(&sheet, 5, 3, &img);
    CHECK(dr_image_row8(&sheet, 3)[5] == 100 && dr_image_row8(&sheet, 4)[5] == 110);
    dr_draw_image(&sheet, 6, 0, &img);
    dr_draw_image(&sheet, INT32_MAX, INT32_MIN, &img);
    dr_draw_fill(&sheet, -100, -100, INT32_MAX, INT32_MAX, (dr_rgb){3, 4, 5});
    for (int i = 0; i < 30; i++) CHECK(((uint8_t *)sheet.pixels)[i] == 4);
    dr_draw_text(&sheet, -4, -4, 3, (dr_rgb){1, 1, 1}, "clipped");
    dr_image_done(&sheet);
    dr_image_done(&img);
}

static int lit(const dr_image *sheet) {
    int n = 0;
    for (size_t i = 0; i < sheet->stride * (size_t)sheet->height; i++) n += ((uint8_t *)sheet->pixels)[i] != 0;
    return n;
}

TEST(letters_differ_and_small_ones_are_capitals) {
    static const char all[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;-+=_/\\()[]<>%!?#*'\"";
    dr_image seen[sizeof all];
    for (size_t i = 0; all[i]; i++) {
        seen[i] = flat(6, 7, 1, 8, 0);
        const char text[2] = {all[i], 0};
        CHECK(dr_draw_text(&seen[i], 0, 0, 1, (dr_rgb){255, 255, 255}, text) == 6);
        CHECK(lit(&seen[i]) > 1);
        for (size_t j = 0; j < i; j++) CHECK_MSG(memcmp(seen[i].pixels, seen[j].pixels, 42), "%c = %c", all[i], all[j]);
    }
    dr_image small = flat(6, 7, 1, 8, 0), unknown = flat(6, 7, 1, 8, 0);
    dr_draw_text(&small, 0, 0, 1, (dr_rgb){255, 255, 255}, "q");
    CHECK(!memcmp(small.pixels, seen['Q' - 'A'].pixels, 42));
    dr_draw_text(&unknown, 0, 0, 1, (dr_rgb){255, 255, 255}, "\x80");
    CHECK(lit(&unknown) == 20);
    for (size_t i = 0; all[i]; i++) dr_image_done(&seen[i]);
    dr_image_done(&small);
    dr_image_done(&unknown);
    CHECK(dr_draw_text_width("abc", 2) == 36);
}

TEST(a_sheet_holds_every_cell) {
    dr_image a = flat(20, 30, 3, 8, 200), b = flat(25, 10, 1, 8, 100), sheet;
    const dr_sheet_cell cells[3] = {{&a, "rainy"}, {NULL, NULL}, {&b, "derained"}};
    CHECK(!dr_sheet(cells, 3, 2, &sheet, NULL));
    CHECK(sheet.channels == 3 && sheet.depth == 8);
    CHECK(sheet.width == 2 * (25 + 8) + 8 && sheet.height == 2 * (30 + 11 + 8) + 8);
    int n200 = 0, n100 = 0, n235 = 0;
    for (size_t i = 0; i < sheet.stride * (size_t)sheet.height; i += 3) {
        const uint8_t v = ((uint8_t *)sheet.pixels)[i];
        n200 += v == 200, n100 += v == 100, n235 += v == 235;
    }
    CHECK(n200 == 600 && n100 == 250 && n235 > 50);
    dr_image_done(&sheet);
    CHECK(dr_sheet(cells + 1, 1, 1, &sheet, NULL) == DR_INVALID && dr_sheet(cells, 0, 1, &sheet, NULL) == DR_INVALID);
    dr_alloc_fail_after(1, false);
    const dr_status s = dr_sheet(cells, 3, 2, &sheet, NULL);
    dr_alloc_fail_after(0, false);
    CHECK(s == DR_NOMEM);
    dr_image_done(&a);
    dr_image_done(&b);
}

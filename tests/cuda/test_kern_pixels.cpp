/* test_kern_pixels.cpp tests cuda/k_pixels.cu: every level of both depths there and back, mirrored edges, rounding at
 * the halves, clamping, NaN. tests/cuda/test_parity_pixels.c compares bits with core/image/convert.c. */
#include "tests/cuda/kt.h"

static int level_at(size_t i, int depth) {
    return (int)((i * 2654435761u >> 7) & (depth == 8 ? 255u : 65535u));
}

static std::vector<unsigned char> raw_levels(size_t n, int depth) {
    std::vector<unsigned char> b(n * (size_t)depth / 8);
    for (size_t i = 0; i < n; i++) {
        uint16_t v = (uint16_t)level_at(i, depth);
        if (depth == 8)
            b[i] = (unsigned char)v;
        else
            memcpy(&b[2 * i], &v, 2);
    }
    return b;
}

TEST(planes_of_pixels_and_pixels_of_planes) {
    const int sides[][4] = {{1, 1, 4, 4},     {2, 3, 8, 9},     {5, 7, 8, 8},
                            {300, 3, 304, 4}, {16, 16, 16, 16}, {9, 70, 12, 72}};
    for (const int *s : sides)
        for (int channels = 1; channels <= 4; channels++)
            for (int depth = 8; depth <= 16; depth += 8) {
                const int w = s[0], h = s[1], pw = s[2], ph = s[3], colours = channels < 3 ? 1 : 3;
                const float half = depth == 8 ? 127.5f : 32767.5f;
                std::vector<unsigned char> px = raw_levels((size_t)(w * h * channels), depth);
                vec want((size_t)(3 * pw * ph));
                auto mirror = [](int i, int n) {
                    while (n > 1 && i >= n) i = i < 2 * n - 1 ? 2 * (n - 1) - i : i - 2 * (n - 1);
                    return n == 1 ? 0 : i;
                };
                for (int k = 0; k < 3; k++)
                    for (int y = 0; y < ph; y++)
                        for (int x = 0; x < pw; x++) {
                            size_t at = (size_t)(mirror(y, h) * w + mirror(x, w)) * (size_t)channels;
                            float v = (float)level_at(at + (size_t)(channels < 3 ? 0 : k), depth);
                            want[(size_t)((k * ph + y) * pw + x)] = (double)(v / half - 1.0f);
                        }
                kt_mem in(px.size()), out((size_t)(w * h * colours * depth / 8));
                kt_buf planes(DK_F32, want.size());
                cudaMemcpy(in.p, px.data(), px.size(), cudaMemcpyHostToDevice);
                dk_pixels_in(NULL, depth, channels, w, h, in.p, planes.f(), pw, ph);
                CHECK_VEC(planes.get(), want, 0, 0);
                dk_pixels_out(NULL, depth, colours, w, h, planes.f(), pw, ph, out.p);
                std::vector<unsigned char> got(out.bytes);
                cudaDeviceSynchronize();
                cudaMemcpy(got.data(), out.p, got.size(), cudaMemcpyDeviceToHost);
                for (int i = 0; i < w * h; i++)
                    for (int k = 0; k < colours; k++) {
                        const size_t size = (size_t)depth / 8, from = (size_t)(i * channels + k) * size,
                                     to = (size_t)(i * colours + k) * size;
                        CHECK_MSG(!memcmp(&px[from], &got[to], size), "%dx%d, %d channels of %d bits, pixel %d", w, h,
                                  channels, depth, i);
                    }
            }
}

TEST(rounded_and_clamped) {
    const struct {
        double in;
        int level;
    } rows[] = {{-1, 0},
                {1, 255},
                {-7, 0},
                {7, 255},
                {0, 128}, /* 127.5 goes up */
                {0.0031, 128},
                {-0.0031, 127},
                {1 - 0.49 / 127.5, 255},
                {1 - 0.51 / 127.5, 254},
                {(double)NAN, 0},
                {(double)INFINITY, 255},
                {-(double)INFINITY, 0}};
    const int n = (int)(sizeof rows / sizeof *rows);
    vec v(3 * (size_t)n);
    for (int k = 0; k < 3; k++)
        for (int i = 0; i < n; i++) v[(size_t)(k * n + i)] = rows[i].in;
    kt_buf planes(DK_F32, v);
    for (int colours = 1; colours <= 3; colours += 2) {
        kt_mem out((size_t)(n * colours));
        dk_pixels_out(NULL, 8, colours, n, 1, planes.f(), n, 1, out.p);
        std::vector<unsigned char> got(out.bytes);
        cudaDeviceSynchronize();
        cudaMemcpy(got.data(), out.p, got.size(), cudaMemcpyDeviceToHost);
        for (int i = 0; i < n * colours; i++)
            CHECK_MSG(got[(size_t)i] == rows[i / colours].level, "%g gives %d", rows[i / colours].in, got[(size_t)i]);
    }
}

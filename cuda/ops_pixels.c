/* ops_pixels.c - pictures over the bus as pixels: rows without gaps go through the staging ring into scratch memory,
 * where a kernel makes planes of them; and back. Of pictures with alpha only the colours come back. */
#include "cuda/gpu.h"

#include <string.h>

/* A picture as a stream of pixels without gaps between rows. */
typedef struct stream {
    const dr_pixel_view *v;
    size_t size; /* bytes of a pixel in the stream */
    size_t step; /* and in the picture: more where alpha is left out */
} stream;

static char *pixel(const stream *s, size_t i) {
    const size_t w = (size_t)s->v->width;
    return (char *)s->v->pixels + i / w * s->v->stride + i % w * s->step;
}

/* The first pixels from i on that lie in one row, `left` at most. */
static size_t run_of(const stream *s, size_t i, size_t left) {
    const size_t w = (size_t)s->v->width, rest = w - i % w;
    return rest < left ? rest : left;
}

static void from_picture(void *arg, size_t at, void *staging, size_t n) {
    const stream *s = arg;
    char *to = staging;
    if (s->v->stride == (size_t)s->v->width * s->step) {
        memcpy(to, (const char *)s->v->pixels + at, n);
        return;
    }
    for (size_t i = at / s->size, end = (at + n) / s->size, k; i < end; i += k, to += k * s->size) {
        k = run_of(s, i, end - i);
        memcpy(to, pixel(s, i), k * s->size);
    }
}

/* n pixels of `size` bytes, which the compiler knows, to places `step` apart. */
static inline void spread(char *to, size_t step, const char *from, size_t size, size_t n) {
    for (size_t i = 0; i < n; i++) memcpy(to + i * step, from + i * size, size);
}

static void to_picture(void *arg, size_t at, void *staging, size_t n) {
    const stream *s = arg;
    const char *from = staging;
    for (size_t i = at / s->size, end = (at + n) / s->size, k; i < end; i += k, from += k * s->size) {
        k = run_of(s, i, end - i);
        char *to = pixel(s, i);
        if (s->size == s->step)
            memcpy(to, from, k * s->size);
        else if (s->size == 1)
            spread(to, s->step, from, 1, k);
        else if (s->size == 2)
            spread(to, s->step, from, 2, k);
        else if (s->size == 3)
            spread(to, s->step, from, 3, k);
        else
            spread(to, s->step, from, 6, k);
    }
}

dr_status gpu_pixels_in(dr_backend *be, const dr_pixel_view *img, dr_tensor x, dr_error *err) {
    gpu *g = gpu_of(be);
    const size_t size = (size_t)img->channels * (size_t)(img->depth / 8);
    const size_t bytes = size * (size_t)img->width * (size_t)img->height;
    stream s = {.v = img, .size = size, .step = size};
    void *px;
    dr_status st = gpu_scratch(g, bytes, &px, err);
    if (!st) st = gpu_send(g, from_picture, &s, size, px, bytes, err);
    if (st) return st;
    dk_pixels_in(g->stream, img->depth, img->channels, img->width, img->height, px, x.data, x.shape.w, x.shape.h);
    return gpu_launched(g, "pixels_in", err);
}

dr_status gpu_pixels_out(dr_backend *be, dr_tensor y, const dr_pixel_view *img, dr_error *err) {
    gpu *g = gpu_of(be);
    const int colours = img->channels < 3 ? 1 : 3;
    const size_t sample = (size_t)(img->depth / 8), size = (size_t)colours * sample;
    const size_t bytes = size * (size_t)img->width * (size_t)img->height;
    stream s = {.v = img, .size = size, .step = (size_t)img->channels * sample};
    void *px;
    dr_status st = gpu_scratch(g, bytes, &px, err);
    if (st) return st;
    dk_pixels_out(g->stream, img->depth, colours, img->width, img->height, y.data, y.shape.w, y.shape.h, px);
    if ((st = gpu_launched(g, "pixels_out", err))) return st;
    return gpu_receive(g, px, to_picture, &s, size, bytes, err);
}

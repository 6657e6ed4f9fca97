/* layer_shapes.h - the convolutions of the two networks as cuda/conv.h sees them: channels widened to multiples of 8,
 * reflect padding already part of the picture (core/nn/generator.c, core/nn/discriminator.c). */
#ifndef LAYER_SHAPES_H
#define LAYER_SHAPES_H

#include "cuda/conv.h"

typedef struct layer {
    const char *name;
    cv_shape s;
} layer;

enum { MAX_LAYERS = 16 };

/* Generator with f base channels on a picture of h x w, both multiples of 4. Returns the number of different layers. */
static inline int generator_layers(int f, int n, int h, int w, dk_type t, layer *ret) {
    const layer l[] = {
        {"G in 7x7", {n, 8, h + 6, w + 6, f, 7, 0, t, 0}},
        {"G in 7x1", {n, 24, h + 6, w, f, 7, 0, t, 1}}, /* its other way: 3 channels of 7 columns */
        {"G down 1", {n, f, h, w, 2 * f, 3, 1, t, 0}},
        {"G down 2", {n, 2 * f, h / 2, w / 2, 4 * f, 3, 1, t, 0}},
        {"G block", {n, 4 * f, h / 4 + 2, w / 4 + 2, 4 * f, 3, 0, t, 0}},
        {"G up 1", {n, 4 * f, h / 2, w / 2, 2 * f, 3, 1, t, 0}},
        {"G up 2", {n, 2 * f, h, w, f, 3, 1, t, 0}},
        {"G out 1x7", {n, f, h + 6, w + 6, 24, 1, 0, t, 7}},
        {"G out 7x7", {n, f, h + 6, w + 6, 8, 7, 0, t, 0}},
    };
    const int count = (int)(sizeof l / sizeof *l);
    for (int i = 0; i < count; i++) ret[i] = l[i];
    return count;
}

/* Discriminator with f base channels and `depth` inner layers on a square picture: k 4, pad 1, stride 1; a blur behind
 * every convolution but the last two halves the side. */
static inline int discriminator_layers(int f, int depth, int n, int side, dk_type t, layer *ret) {
    static const char *const names[] = {"D 0", "D 1", "D 2", "D 3"};
    int count = 0, c = f;
    ret[count++] = (layer){names[0], {n, 8, side, side, f, 4, 1, t, 0}};
    for (int i = 1; i <= depth && i < 4; i++) {
        side /= 2; /* the blur takes side-1 to side/2 */
        int next = f << i;
        ret[count++] = (layer){names[i], {n, c, side, side, next, 4, 1, t, 0}};
        c = next;
    }
    ret[count++] = (layer){"D score", {n, c, side - 1, side - 1, 8, 4, 1, t, 0}};
    return count;
}

#endif

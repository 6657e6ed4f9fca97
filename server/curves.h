/* curves.h - a training's losses as a picture: one small panel a loss, steps to the right, SVG text. */
#ifndef SRV_CURVES_H
#define SRV_CURVES_H

#include "core/base/buf.h"
#include "db/training.h"

/* rows by rising step, as db_training_metrics() gives them. No rows give a picture that says so. */
void srv_curves_svg(const db_metric_page *rows, const char *title, dr_buf *out);

#endif

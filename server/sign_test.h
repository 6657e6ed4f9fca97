/* sign_test.h - the sign test: of two things that were tried on the same pictures, is one the better more often than
 * chance would have it?
 *
 * With w pictures on which the first is better, l on which the second is, and ties left out, w of n = w + l follows a
 * binomial distribution with probability 1/2 if neither is better. Two-sided exact
 *
 *   p = min(1, 2 sum over k = 0 .. min(w, l) of (n over k) / 2^n);    p = 1 for n = 0
 *
 * W. J. Dixon, A. M. Mood: The statistical sign test. Journal of the American Statistical Association 41 (1946). It
 * asks for no more than that pictures are independent of each other; how much better does not matter. With less than
 * six pictures p cannot come below 0.05. */
#ifndef SRV_SIGN_TEST_H
#define SRV_SIGN_TEST_H

double srv_sign_test(int wins, int losses); /* both >= 0, at most 1000 together */

#endif

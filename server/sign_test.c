/* sign_test.c - see sign_test.h. 2^-1000 is still a normal double, so that no logarithms are needed. */
#include "server/sign_test.h"
#include <math.h>

double srv_sign_test(int wins, int losses) {
    const int n = wins + losses, least = wins < losses ? wins : losses;
    double term = ldexp(1.0, -n), sum = 0;
    for (int k = 0; k <= least; k++) {
        sum += term;
        term *= (double)(n - k) / (k + 1);
    }
    return 2 * sum < 1 ? 2 * sum : 1;
}

/* main.c - derain, the client. */
#include "client/run.h"

int main(int argc, char **argv) {
    return cli_run(argc, argv);
}
